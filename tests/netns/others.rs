//! Routes of others: seen as they are, whatever form they have, by the first reading and by notifications.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    thread,
    time::{Duration, Instant},
};

use routelet::{
    fib::{
        host::{ForeignRoute, Host},
        io::{Kernel, Settings},
        view::FibHop,
    },
    net::Family,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    common::{
        net::{Net, Ns},
        wait_for,
    },
    node::{Node, ours, settings, two_links, wait_gone, wait_route},
};

/// What a start would read now.
fn read_anew() -> Vec<ForeignRoute> {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let host = rt.block_on(async { Kernel::open(settings()).await.unwrap().host() });
    host.borrow().routes.to_vec()
}

/// Gateways of the default routes with their interfaces, as the plan sees them.
fn gateways(host: &Host, family: Family) -> Vec<String> {
    let name = |index: u32| host.links.get(&index).map_or_else(|| index.to_string(), |l| l.name.clone());
    host.default_gateways(family).into_iter().map(|(a, index)| format!("{a}%{}", name(index))).collect()
}

fn wait_gateways(node: &Node, family: Family, expected: &[&str]) {
    let mut last = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        last = gateways(&node.host.borrow(), family);
        if last == expected {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{last:?} instead of {expected:?}");
}

/// Waits until a route of ours is in the kernel and leads over these: with `nexthop_compat_mode` 0 `ip route` shows
/// the id of the object only.
fn wait_hops(node: &Node, prefix: &str, expected: &[&str]) {
    wait_for(format!("{prefix} over {expected:?}"), 5.0, || {
        let view = node.list().into_iter().find(|v| v.prefix.to_string() == prefix)?;
        let one = |h: &FibHop| format!("{} {}", h.address.unwrap(), h.interface);
        let hops: Vec<_> = view.next_hops.iter().map(one).collect();
        (view.in_kernel && hops == expected).then_some(())
    });
}

/// One router advertisement (RFC 4861 §4.2) to all nodes of a link, from a link-local address.
fn advertise(router: &Ns, interface: &str, from: &str, lifetime: u16) {
    router.enter(|| {
        let index = nix::net::if_::if_nametoindex(interface).expect("the router's interface");
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root");
        let from: Ipv6Addr = from.parse().unwrap();
        socket.bind(&SocketAddrV6::new(from, 0, 0, index).into()).expect("the router's address");
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let [high, low] = lifetime.to_be_bytes();
        let message = [134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        socket.send_to(&message, &all_nodes.into()).expect("sent");
    });
}

/// A host on one LAN with two routers, fe80::1 and fe80::2, and with a second uplink to a third, fe80::3.
struct Lan {
    host: Ns,
    routers: [Ns; 3],
}

impl Lan {
    fn new(net: &mut Net) -> Self {
        let (host, lan) = (net.ns("host"), net.ns("lan"));
        lan.ip("link add br0 type bridge");
        lan.ip("link set br0 up");
        host.sysctl("net.ipv6.conf.all.forwarding", "0");
        host.sysctl("net.ipv6.conf.default.accept_ra", "1");
        net.link((&lan, "p0"), (&host, "eth0"));
        let routers = [1, 2, 3].map(|n| {
            let router = net.ns(&format!("r{n}"));
            match n {
                3 => net.link((&router, "eth0"), (&host, "eth1")),
                _ => net.link((&lan, &format!("p{n}")), (&router, "eth0")),
            }
            router.ip(&format!("addr add fe80::{n}/64 dev eth0 nodad"));
            router
        });
        for port in ["p0", "p1", "p2"] {
            lan.ip(&format!("link set {port} master br0"));
        }
        // Advertisements are heeded once the link-local address is through duplicate detection.
        for dev in ["eth0", "eth1"] {
            wait_for(format!("{dev} is ready"), 10.0, || {
                let all = host.ip(&format!("-6 addr show dev {dev}"));
                (all.contains("fe80") && !all.contains("tentative")).then_some(())
            });
        }
        Self { host, routers }
    }

    /// The router `n` advertises itself, until the kernel has taken it.
    fn advertise(&self, n: usize, lifetime: u16) {
        let address = format!("fe80::{n} ");
        wait_for(format!("the kernel has heard of {address}"), 10.0, || {
            advertise(&self.routers[n - 1], "eth0", &format!("fe80::{n}"), lifetime);
            thread::sleep(Duration::from_millis(20));
            let default = self.host.ip("-6 route show default");
            (default.contains(&address) == (lifetime > 0)).then_some(())
        });
    }
}

#[test]
fn systemd_33470_two_ipv6_default_routes_of_one_metric_are_two_gateways() {
    let mut net = Net::new();
    let lan = Lan::new(&mut net);
    let v6 = Family::Ipv6Unicast;
    lan.host.enter(|| {
        let node = Node::start(settings());
        lan.advertise(1, 1800);
        wait_gateways(&node, v6, &["fe80::1%eth0"]);
        lan.advertise(2, 1800);
        wait_gateways(&node, v6, &["fe80::1%eth0", "fe80::2%eth0"]);
        // Again: nothing changes.
        lan.advertise(1, 1800);
        lan.advertise(3, 1800);
        wait_gateways(&node, v6, &["fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth1"]);
        assert_eq!(*node.host.borrow().routes, read_anew(), "a restart sees the same");
        // Each lives and dies with its own route.
        lan.advertise(1, 0);
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::3%eth1"]);
        lan.advertise(1, 1800);
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::3%eth1", "fe80::1%eth0"]);
        // A static route of the same metric, and its replacement.
        lan.host.ip("-6 route append default via fe80::9 dev eth0 metric 1024 proto static");
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::3%eth1", "fe80::1%eth0", "fe80::9%eth0"]);
        lan.host.ip("-6 route replace default via fe80::8 dev eth0 metric 1024 proto static");
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::3%eth1", "fe80::1%eth0", "fe80::8%eth0"]);
        lan.host.ip("-6 route del default via fe80::8 dev eth0 metric 1024 proto static");
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::3%eth1", "fe80::1%eth0"]);
        // An uplink goes.
        lan.host.ip("link set eth1 down");
        wait_gateways(&node, v6, &["fe80::2%eth0", "fe80::1%eth0"]);
        assert_eq!(*node.host.borrow().routes, read_anew());
        node.stop(true);
    });
}

#[test]
fn a_real_ipv6_multipath_default_route_is_replaced_as_one() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    let v6 = Family::Ipv6Unicast;
    host.enter(|| {
        let node = Node::start(settings());
        host.ip("-6 route add default nexthop via fd00:1::2 dev eth1 nexthop via fd00:2::2 dev eth2");
        wait_gateways(&node, v6, &["fd00:1::2%eth1", "fd00:2::2%eth2"]);
        host.ip("-6 route replace default nexthop via fd00:1::3 dev eth1 nexthop via fd00:2::2 dev eth2");
        wait_gateways(&node, v6, &["fd00:1::3%eth1", "fd00:2::2%eth2"]);
        host.ip("-6 route append default via fd00:1::2 dev eth1");
        wait_gateways(&node, v6, &["fd00:1::2%eth1", "fd00:1::3%eth1", "fd00:2::2%eth2"]);
        host.ip("-6 route del default via fd00:1::3 dev eth1");
        wait_gateways(&node, v6, &["fd00:1::2%eth1", "fd00:2::2%eth2"]);
        host.ip("-6 route replace default via fd00:2::3 dev eth2");
        wait_gateways(&node, v6, &["fd00:2::3%eth2"]);
        host.ip("-6 route del default");
        wait_gateways(&node, v6, &[]);
        node.stop(true);
    });
}

/// What `ip` is asked to do to the routes of one place, at random.
struct Chaos(u64);

impl Chaos {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// One line for `ip -batch`.
    fn line(&mut self) -> String {
        let six = self.below(2) == 1;
        let (prefix, hops) = match six {
            false => (
                self.pick(&["10.70.0.0/24", "default", "10.71.0.0/16"]),
                ["via 10.0.1.2 dev eth1", "via 10.0.1.3 dev eth1", "via 10.0.2.2 dev eth2", "dev eth2"],
            ),
            true => (
                self.pick(&["fd70::/64", "default", "fd71::/48"]),
                ["via fd00:1::2 dev eth1", "via fe80::7 dev eth1", "via fd00:2::2 dev eth2", "dev eth2"],
            ),
        };
        let family = if six { "-6" } else { "-4" };
        let verb = self.pick(&["add", "append", "append", "prepend", "replace", "del", "del"]);
        let proto = self.pick(&["static", "bird", "ra"]);
        let hop = self.pick(&hops);
        match self.below(10) {
            0 => format!("-family {family} nexthop add id {} {}", 1 + self.below(3), self.pick(&hops[..3])),
            1 => format!("nexthop replace id {} {}", 1 + self.below(3), self.pick(&hops[..3])),
            2 => format!(
                "nexthop replace id {} group {}",
                10 + self.below(2),
                self.pick(&["1/2", "1", "2/3", "1/2/3"])
            ),
            3 => format!("nexthop del id {}", self.pick(&["1", "2", "3", "10", "11"])),
            4 => format!(
                "{family} route {verb} {prefix} nhid {} metric 77 proto {proto}",
                self.pick(&["1", "2", "10", "11"])
            ),
            5 => format!("{family} route {verb} unreachable {prefix} metric 77 proto {proto}"),
            6 => format!(
                "{family} route {verb} {prefix} metric 77 proto {proto} nexthop {} nexthop {}",
                hops[0], hops[2]
            ),
            _ => format!("{family} route {verb} {prefix} {hop} metric 77 proto {proto}"),
        }
        .replace("-family -4 ", "")
        .replace("-family -6 ", "")
    }
}

/// One line for each but the kernel's own.
fn lines_of(routes: &[ForeignRoute]) -> Vec<String> {
    let line = |r: &ForeignRoute| {
        let hops: Vec<_> = r.hops.iter().map(|h| format!("{:?}%{}", h.gateway, h.ifindex)).collect();
        format!("{} {:?} proto {} nhid {} {}", r.prefix, r.kind, r.protocol, r.object, hops.join(" "))
    };
    routes.iter().filter(|r| r.protocol != 2).map(line).collect()
}

/// Without what a dump of the kernel leaves out: where a hop was appended to an IPv6 multipath route, it skips the
/// routes that stand between its hops.
fn shown_by_a_dump(mut routes: Vec<ForeignRoute>) -> Vec<ForeignRoute> {
    let joined =
        |r: &ForeignRoute| r.prefix.family() == Family::Ipv6Unicast && r.object == 0 && r.hops.len() > 1;
    let places: Vec<_> = routes.iter().filter(|r| joined(r)).map(|r| r.prefix).collect();
    routes.retain(|r| joined(r) || !places.contains(&r.prefix));
    // In which order those stood is not known then.
    let six = |r: &ForeignRoute| (r.prefix.family() == Family::Ipv6Unicast).then(|| r.clone());
    routes.sort_by_key(|r| (r.prefix, six(r)));
    routes
}

#[test]
fn what_notifications_leave_is_what_a_start_reads() {
    for compatible in ["1", "0"] {
        let mut net = Net::new();
        let (host, _switch) = two_links(&mut net);
        host.sysctl("net.ipv4.nexthop_compat_mode", compatible);
        host.enter(|| {
            let node = Node::start(settings());
            let mut chaos = Chaos(7);
            for round in 0..60 {
                let mut lines: Vec<_> = (0..1 + chaos.below(6)).map(|_| chaos.line()).collect();
                // What the kernel refuses, it refuses.
                lines.retain(|line| {
                    host.command("ip")
                        .args(line.split_whitespace())
                        .output()
                        .is_ok_and(|o| o.status.success())
                });
                let start = Instant::now();
                loop {
                    let seen = shown_by_a_dump(node.host.borrow().routes.to_vec());
                    let read = shown_by_a_dump(read_anew());
                    if seen == read {
                        break;
                    }
                    assert!(
                        start.elapsed() < Duration::from_secs(30),
                        "round {round}, mode {compatible}, after {lines:#?}\nseen {:#?}\nread {:#?}",
                        lines_of(&seen),
                        lines_of(&read)
                    );
                    thread::sleep(Duration::from_millis(10));
                }
            }
            node.stop(true);
        });
    }
}

#[test]
fn routes_over_nexthop_objects_are_gateways_and_resolve_next_hops_in_both_modes() {
    for compatible in ["1", "0"] {
        let mut net = Net::new();
        let (host, _switch) = two_links(&mut net);
        host.sysctl("net.ipv4.nexthop_compat_mode", compatible);
        host.enter(|| {
            // Before the start, and while it runs.
            host.ip("nexthop add id 10 via 10.0.1.2 dev eth1 proto static");
            host.ip("route add default nhid 10");
            let node = Node::start(settings());
            wait_gateways(&node, Family::Ipv4Unicast, &["10.0.1.2%eth1"]);
            host.ip("nexthop add id 16 via fd00:1::2 dev eth1 proto static");
            host.ip("nexthop add id 26 via fd00:2::2 dev eth2 proto static");
            host.ip("nexthop add id 60 group 16/26 proto static");
            host.ip("-6 route add default nhid 60");
            wait_gateways(&node, Family::Ipv6Unicast, &["fd00:1::2%eth1", "fd00:2::2%eth2"]);
            host.ip("nexthop add id 20 via 10.0.2.2 dev eth2 proto static");
            host.ip("nexthop add id 30 group 10/20 proto static");
            host.ip("route add 192.0.2.0/24 nhid 30 proto static");
            host.ip("-6 route add fd99::/64 nhid 26 proto static");
            node.want("10.10.0.0/16", &["192.0.2.9"]);
            node.want("fd10::/48", &["fd99::9"]);
            wait_hops(&node, "10.10.0.0/16", &["10.0.1.2 eth1", "10.0.2.2 eth2"]);
            wait_hops(&node, "fd10::/48", &["fd00:2::2 eth2"]);

            // Replaced, below routes that say nothing of it.
            host.ip("nexthop replace id 10 via 10.0.1.3 dev eth1 proto static");
            wait_gateways(&node, Family::Ipv4Unicast, &["10.0.1.3%eth1"]);
            wait_hops(&node, "10.10.0.0/16", &["10.0.1.3 eth1", "10.0.2.2 eth2"]);
            // A member goes, and takes with it what it carried alone.
            host.ip("nexthop del id 10");
            wait_gateways(&node, Family::Ipv4Unicast, &[]);
            wait_hops(&node, "10.10.0.0/16", &["10.0.2.2 eth2"]);
            // The last member: its group goes, and the group's routes.
            host.ip("nexthop del id 20");
            wait_gone(&host, "10.10.0.0/16");
            assert_eq!(node.view("10.10.0.0/16").problem.as_deref(), Some("next hop unreachable"));
            host.ip("nexthop replace id 60 group 26 proto static");
            wait_gateways(&node, Family::Ipv6Unicast, &["fd00:2::2%eth2"]);
            // An object on a link that loses its carrier goes without a word.
            host.ip("link set eth2 down");
            wait_gateways(&node, Family::Ipv6Unicast, &[]);
            wait_gone(&host, "fd10::/48");
            node.stop(true);
        });
    }
}

#[test]
fn a_next_hop_that_is_the_onlink_default_gateway_is_installed() {
    let mut net = Net::new();
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    net.link((&host, "eth0"), (&switch, "sw0"));
    host.ip("addr add 203.0.113.5/32 dev eth0");
    host.ip("addr add 2001:db8:5::5/128 dev eth0 nodad");
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.10.0.0/16", &["172.31.1.1"]);
        node.want("fd10::/48", &["2001:db8:ffff::1"]);
        wait_for("there is no route yet", 5.0, || {
            let unreachable =
                |v: &routelet::fib::view::FibView| v.problem.as_deref() == Some("next hop unreachable");
            (node.list().len() == 2 && node.list().iter().all(unreachable)).then_some(())
        });
        host.ip("route add default via 172.31.1.1 dev eth0 onlink");
        host.ip("-6 route add default via 2001:db8:ffff::1 dev eth0 onlink");
        wait_route(&host, "10.10.0.0/16", &["via 172.31.1.1 dev eth0", "onlink"]);
        wait_route(&host, "fd10::/48", &["via 2001:db8:ffff::1 dev eth0"]);
        // No other address is reached by them.
        node.want("10.11.0.0/16", &["172.31.1.2"]);
        wait_for("only by the default route", 5.0, || {
            let view = node.list().into_iter().find(|v| v.prefix.to_string() == "10.11.0.0/16")?;
            (view.problem.as_deref() == Some("next hop only by the default route")).then_some(())
        });
        host.ip("route del default");
        wait_gone(&host, "10.10.0.0/16");
        node.stop(true);
    });
}

/// A host with eth0 and eth1 on one LAN, 10.5.0.0/24 and fd05::/64, and a neighbor .254 that is behind eth1 only.
fn two_in_one_subnet(net: &mut Net) -> (Ns, Ns) {
    let (host, other, neighbor) = (net.ns("host"), net.ns("other"), net.ns("neighbor"));
    net.link((&host, "eth0"), (&other, "eth0"));
    net.link((&host, "eth1"), (&neighbor, "eth0"));
    neighbor.ip("addr add 10.5.0.254/24 dev eth0");
    neighbor.ip("addr add fd05::fe/64 dev eth0 nodad");
    neighbor.ip("addr add 10.99.0.1/32 dev lo");
    (host, neighbor)
}

#[test]
fn of_two_links_in_one_subnet_the_one_is_used_that_the_kernel_uses() {
    let mut net = Net::new();
    let (host, _neighbor) = two_in_one_subnet(&mut net);
    // Plain addresses: eth1's came first.
    for (dev, n) in [("eth1", 3), ("eth0", 2)] {
        host.ip(&format!("addr add 10.5.0.{n}/24 dev {dev}"));
        host.ip(&format!("addr add fd05::{n}/64 dev {dev} nodad"));
    }
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.99.0.0/16", &["10.5.0.254"]);
        node.want("fd99::/48", &["fd05::fe"]);
        let leads = |dev: &str| {
            wait_route(&host, "10.99.0.0/16", &[&format!("via 10.5.0.254 dev {dev}")]);
            wait_route(&host, "fd99::/48", &[&format!("via fd05::fe dev {dev}")]);
            for address in ["10.5.0.254", "fd05::fe"] {
                let kernel = host.ip(&format!("route get {address}"));
                assert!(kernel.contains(&format!("dev {dev}")), "the kernel itself: {kernel}");
            }
        };
        leads("eth1");
        wait_for("the neighbor answers over the learned route", 10.0, || {
            host.pings("10.99.0.1").then_some(())
        });
        // As NetworkManager does it, with metrics; and they change.
        for (dev, n, metric) in [("eth0", 2, 100), ("eth1", 3, 600)] {
            for (address, subnet) in
                [(format!("10.5.0.{n}/24"), "10.5.0.0/24"), (format!("fd05::{n}/64"), "fd05::/64")]
            {
                host.ip(&format!("addr change {address} dev {dev} noprefixroute"));
                host.sh(&format!("ip route del {subnet} dev {dev} proto kernel 2>/dev/null || true"));
                let source = if subnet.contains(':') { String::new() } else { format!("src 10.5.0.{n}") };
                host.ip(&format!("route append {subnet} dev {dev} proto kernel metric {metric} {source}"));
            }
        }
        leads("eth0");
        for subnet in ["10.5.0.0/24", "fd05::/64"] {
            host.ip(&format!("route append {subnet} dev eth1 proto kernel metric 50"));
        }
        leads("eth1");
        for subnet in ["10.5.0.0/24", "fd05::/64"] {
            host.ip(&format!("route del {subnet} dev eth1 metric 50"));
        }
        leads("eth0");
        node.stop(true);
    });
}

/// As after `ip link set eth1 master br0`, where nobody moved the address.
#[test]
fn an_address_left_on_a_port_beside_the_one_of_its_bridge_is_used_as_the_kernel_does() {
    let mut net = Net::new();
    let (host, _neighbor) = two_in_one_subnet(&mut net);
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.99.0.0/16", &["10.5.0.254"]);
        node.want("fd99::/48", &["fd05::fe"]);
        let agree = |when: &str| {
            for (prefix, neighbor) in [("10.99.0.0/16", "10.5.0.254"), ("fd99::/48", "fd05::fe")] {
                wait_for(format!("{prefix} goes out as {neighbor} does, {when}"), 5.0, || {
                    let kernel = host.ip(&format!("-o route get {neighbor}"));
                    let dev = kernel.split(" dev ").nth(1)?.split_whitespace().next()?;
                    let all = ours(&host);
                    let line = all.lines().find(|l| l.contains(prefix))?;
                    line.contains(&format!("via {neighbor} dev {dev}")).then_some(())
                });
            }
        };
        host.ip("addr add 10.5.0.3/24 dev eth1");
        host.ip("addr add fd05::3/64 dev eth1 nodad");
        agree("before");
        host.ip("link set eth1 master br0");
        host.ip("addr add 10.5.0.3/24 dev br0");
        host.ip("addr add fd05::3/64 dev br0 nodad");
        agree("with both");
        host.ip("addr del 10.5.0.3/24 dev eth1");
        host.ip("addr del fd05::3/64 dev eth1");
        agree("once it has moved");
        node.stop(true);
    });
}

#[test]
fn a_nexthop_object_of_ours_that_somebody_changes_is_mended_at_once() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
        node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
        wait_route(&host, "10.10.0.0/16", &["via 10.0.1.2"]);
        wait_route(&host, "10.11.0.0/16", &["via 10.0.1.2", "via 10.0.2.2"]);
        wait_route(&host, "fd11::/48", &["via fd00:1::2", "via fd00:2::2"]);
        let before = host.ip("nexthop show");
        let sorted = |text: &str| {
            let ours = text.lines().map(str::trim).filter(|l| !l.starts_with("id 7 "));
            let mut lines: Vec<_> = ours.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let mut done = 0;
        for line in before.lines() {
            let id = line.split_whitespace().nth(1).unwrap();
            let changes: &[&str] = match (line.contains("group"), line.contains("fd00")) {
                (true, _) => &["group 7 proto static", "group 7 proto 179"],
                (false, true) => &["via fd00:2::3 dev eth2 proto static", "via fd00:2::3 dev eth2 proto 179"],
                (false, false) => &["via 10.0.2.3 dev eth2 proto static", "blackhole proto static"],
            };
            for change in changes {
                // The object with which it is done: of the family of the routes, which the kernel insists on.
                let six = line.contains("group") && host.ip("-6 route show proto 179").contains(id);
                let via = if six { "fd00:2::3" } else { "10.0.2.3" };
                host.ip(&format!("nexthop replace id 7 via {via} dev eth2"));
                let args = ["nexthop", "replace", "id", id];
                let out = host.command("ip").args(args).args(change.split(' ')).output().unwrap();
                println!("{line}: {change}: {}", out.status);
                done += usize::from(out.status.success());
                wait_for(format!("{id} is mended after {change}"), 5.0, || {
                    (sorted(&host.ip("nexthop show")) == sorted(&before)).then_some(())
                });
                host.ip("nexthop del id 7");
            }
        }
        assert!(done >= 10, "{done}");
        assert!(node.fib.counters().repairs.load(std::sync::atomic::Ordering::Relaxed) > 0, "counted");
        for view in node.list() {
            assert!(view.in_kernel && view.problem.is_none(), "{view:?}");
        }
        node.stop(true);
        assert_eq!((ours(&host), host.ip("nexthop show")), (String::new(), String::new()));
    });
}

#[test]
fn a_route_that_the_kernel_does_not_use_is_named() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.want("10.11.0.0/16", &["10.0.1.2"]);
        node.want("fd10::/48", &["fd00:1::2"]);
        for prefix in ["10.10.0.0/16", "10.11.0.0/16", "fd10::/48"] {
            wait_route(&host, prefix, &[]);
        }
        assert!(node.fib.problems().borrow().is_empty());
        host.ip("route add 10.10.0.0/16 via 10.0.2.3 metric 50 proto static");
        host.ip("-6 route add fd10::/48 dev eth2 metric 1 proto bird");
        for (prefix, words) in
            [("10.10.0.0/16", ["static (4)", "metric 50"]), ("fd10::/48", ["bird (12)", "metric 1 "])]
        {
            let problem = wait_for(format!("{prefix} is named"), 5.0, || node.view(prefix).problem);
            assert!(words.iter().all(|w| problem.contains(w)), "{problem}");
            assert!(node.view(prefix).in_kernel, "it is there all the same");
        }
        assert_eq!(node.view("10.11.0.0/16").problem, None);
        wait_for("the summary has it", 5.0, || {
            let problems = node.fib.problems().borrow().clone();
            (problems.len() == 1
                && problems[0].text.starts_with("2 learned routes in the kernel, but not used"))
            .then_some(())
        });
        host.ip("route add local 10.11.0.0/16 dev lo");
        wait_for("what is delivered to this host", 5.0, || {
            node.view("10.11.0.0/16").problem.filter(|p| p.contains("delivered to this host"))
        });
        host.ip("route del local 10.11.0.0/16 dev lo");
        host.ip("route del 10.10.0.0/16 metric 50");
        host.ip("-6 route del fd10::/48 metric 1");
        wait_for("all is well again", 5.0, || {
            let none = node.list().iter().all(|v| v.problem.is_none());
            (none && node.fib.problems().borrow().is_empty()).then_some(())
        });
        node.stop(true);
    });
}

/// `ip route flush` sends back what it read: where the kernel shows the hops beside the id of a nexthop object, it
/// refuses its own words. These two commands work everywhere.
#[test]
fn ip_route_flush_proto_179_and_what_works_instead() {
    for (objects, compatible, works) in [(true, "1", false), (true, "0", true), (false, "1", true)] {
        let mut net = Net::new();
        let (host, _switch) = two_links(&mut net);
        host.sysctl("net.ipv4.nexthop_compat_mode", compatible);
        host.enter(|| {
            let node = Node::start(Settings { nexthop_objects: objects, ..settings() });
            node.want("10.10.0.0/16", &["10.0.1.2"]);
            node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
            node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
            node.own(&["10.244.1.0/24", "fd24::/64"]);
            for prefix in ["10.10.0.0/16", "10.11.0.0/16", "fd11::/48", "10.244.1.0/24", "fd24::/64"] {
                wait_route(&host, prefix, &[]);
            }
            node.kill();
            for family in ["-4", "-6"] {
                let out =
                    host.command("ip").args([family, "route", "flush", "proto", "179"]).output().unwrap();
                println!(
                    "{objects} {compatible} {family}: {} {}",
                    out.status,
                    String::from_utf8_lossy(&out.stderr)
                );
                assert_eq!(out.status.success(), works, "objects {objects}, mode {compatible}, {family}");
            }
            host.ip("nexthop flush proto 179");
            host.ip("-4 route flush proto 179");
            host.ip("-6 route flush proto 179");
            assert_eq!((ours(&host), host.ip("nexthop show")), (String::new(), String::new()));
        });
    }
}
