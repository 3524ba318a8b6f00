//! Hosts whose uplinks are not of the plainest kind: two routers that advertise themselves, a gateway outside of all
//! subnets, two links in one subnet.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, TcpListener},
    thread::sleep,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        speaker::{Speaker, attributes, end_of_rib, message, update},
        wait_for,
    },
    kernel::{learn, net24, ours},
};

pub(crate) const GATEWAY: &str =
    "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"gateway\"\nremote-as = \"external\"\n";

/// One router advertisement (RFC 4861 §4.2) to all nodes of a link.
pub(crate) fn advertise(router: &Ns, from: &str, lifetime: u16) {
    router.enter(|| {
        let index = nix::net::if_::if_nametoindex("eth0").expect("the router's interface");
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root");
        let from: Ipv6Addr = from.parse().unwrap();
        socket.bind(&SocketAddrV6::new(from, 0, 0, index).into()).expect("the router's address");
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let [high, low] = lifetime.to_be_bytes();
        let packet = [134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        socket.send_to(&packet, &all_nodes.into()).expect("sent");
    });
}

pub(crate) fn neighbors(routelet: &Routelet) -> Vec<String> {
    let all = routelet.json(&["show", "neighbors"]);
    let mut names: Vec<_> =
        all.as_array().unwrap().iter().map(|n| n["address"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn systemd_28421_two_routers_that_advertise_themselves_are_two_neighbors() {
    let mut net = Net::new();
    let (host, lan) = (net.ns("host"), net.ns("lan"));
    lan.ip("link add br0 type bridge");
    lan.ip("link set br0 up");
    host.sysctl("net.ipv6.conf.all.forwarding", "0");
    host.sysctl("net.ipv6.conf.default.accept_ra", "1");
    net.link((&lan, "p0"), (&host, "eth0"));
    host.ip("addr add 192.0.2.5/24 dev eth0");
    let routers = [1, 2].map(|n| {
        let router = net.ns(&format!("r{n}"));
        net.link((&lan, &format!("p{n}")), (&router, "eth0"));
        router.ip(&format!("addr add fe80::{n}/64 dev eth0 nodad"));
        router
    });
    for port in ["p0", "p1", "p2"] {
        lan.ip(&format!("link set {port} master br0"));
    }
    wait_for("the host's link-local address is through duplicate detection", 10.0, || {
        let all = host.ip("-6 addr show dev eth0");
        (all.contains("fe80") && !all.contains("tentative")).then_some(())
    });
    let say = |n: usize, lifetime| {
        wait_for(format!("the kernel has heard router {n}"), 10.0, || {
            advertise(&routers[n - 1], &format!("fe80::{n}"), lifetime);
            sleep(Duration::from_millis(20));
            let default = host.ip("-6 route show default");
            (default.contains(&format!("fe80::{n} ")) == (lifetime > 0)).then_some(())
        });
    };
    let mut routelet = Routelet::start(&net, &host, GATEWAY, &[]);
    let both = ["fe80::1%eth0", "fe80::2%eth0"];
    let wait = |routelet: &Routelet, expected: &[&str]| {
        wait_for(format!("neighbors {expected:?}"), 30.0, || (neighbors(routelet) == expected).then_some(()));
    };
    say(1, 1800);
    wait(&routelet, &both[..1]);
    say(2, 1800);
    wait(&routelet, &both);
    say(1, 1800);
    wait(&routelet, &both);
    routelet.process.stop();
    routelet.restart();
    wait(&routelet, &both);
    // With its route, and only with its own, a neighbor goes.
    say(1, 0);
    wait(&routelet, &both[1..]);
}

/// A switch that routes a /32 and a /128 to the host, whose default gateway is no part of any subnet.
#[test]
fn what_the_onlink_gateway_announces_is_in_the_kernel() {
    let mut net = Net::new();
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    net.link((&switch, "sw0"), (&host, "eth0"));
    switch.ip("addr add 172.31.1.1/32 dev sw0");
    switch.ip("route add 203.0.113.5/32 dev sw0");
    switch.ip("addr add 2001:db8:ffff::1/128 dev sw0 nodad");
    switch.ip("-6 route add 2001:db8:5::5/128 dev sw0");
    host.ip("addr add 203.0.113.5/32 dev eth0");
    host.ip("addr add 2001:db8:5::5/128 dev eth0 nodad");
    host.ip("route add default via 172.31.1.1 dev eth0 onlink");
    host.ip("-6 route add default via 2001:db8:ffff::1 dev eth0 onlink");
    let [four, six] = switch.enter(|| {
        ["172.31.1.1:179", "[2001:db8:ffff::1]:179"].map(|a| TcpListener::bind(a).expect("the port is free"))
    });
    let routelet = Routelet::start(&net, &host, GATEWAY, &[]);
    let gateway = Ipv4Addr::new(172, 31, 1, 1);
    let mut speaker = Speaker::accept_on(&four);
    speaker.establish(10000, 90, gateway);
    speaker.send(&update(&[], &attributes(&[10000], gateway, 0), &[net24(1)]));
    speaker.send(&end_of_rib());
    wait_for("the IPv4 route", 10.0, || ours(&host).contains("via 172.31.1.1 dev eth0").then_some(()));
    let mut speaker = Speaker::accept_on(&six);
    speaker.establish(10000, 90, Ipv4Addr::new(172, 31, 1, 2));
    let next_hop: Ipv6Addr = "2001:db8:ffff::1".parse().unwrap();
    let mut reach = vec![0x80, 14, 28, 0, 2, 1, 16];
    reach.extend(next_hop.octets());
    reach.extend([0, 48, 0xfd, 0x77, 0, 0, 0, 0]);
    reach[2] = u8::try_from(reach.len() - 3).unwrap();
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0x27, 0x10];
    attributes.extend(reach);
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    speaker.send(&message(2, &body));
    wait_for("the IPv6 route", 10.0, || {
        host.ip("-6 route show proto 179").contains("via 2001:db8:ffff::1 dev eth0").then_some(())
    });
    let routes = routelet.json(&["show", "routes"]);
    assert!(routes.as_array().unwrap().iter().all(|r| r["installed"] == true), "{routes}");
}

/// The address on eth1 came first: the kernel, the session, the learned route and the advertised next hop agree.
#[test]
fn with_two_links_in_one_subnet_the_advertised_next_hop_is_where_routes_go_out() {
    let mut net = Net::new();
    let (host, other, switch) = (net.ns("host"), net.ns("other"), net.ns("switch"));
    net.link((&host, "eth0"), (&other, "eth0"));
    net.link((&host, "eth1"), (&switch, "eth0"));
    host.ip("addr add 10.5.0.3/24 dev eth1");
    host.ip("addr add 10.5.0.2/24 dev eth0");
    let neighbor = Ipv4Addr::new(10, 5, 0, 254);
    switch.ip("addr add 10.5.0.254/24 dev eth0");
    switch.ip("addr add 10.60.1.1/32 dev lo");
    let config = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.5.0.254\"\nremote-as = 10000\n\
         [advertise]\nnetworks = [\"10.50.0.0/24\"]\n";
    let _routelet = Routelet::start(&net, &host, config, &[]);
    let mut speaker = Speaker::dial(&switch, IpAddr::V4(Ipv4Addr::new(10, 5, 0, 3))).unwrap();
    speaker.establish(10000, 90, neighbor);
    speaker.send(&update(&[], &attributes(&[10000], neighbor, 0), &[net24(1)]));
    speaker.send(&end_of_rib());
    wait_for("the learned route", 10.0, || ours(&host).contains("via 10.5.0.254 dev eth1").then_some(()));
    wait_for("it leads somewhere", 10.0, || host.pings("10.60.1.1").then_some(()));
    let shown = wait_for("the own prefix is advertised", 10.0, || {
        let (kind, body) = speaker.receive(1.0)?;
        (kind == 2 && body.windows(4).any(|w| w == [24, 10, 50, 0])).then_some(body)
    });
    assert!(shown.windows(7).any(|w| w == [0x40, 3, 4, 10, 5, 0, 3]), "NEXT_HOP is eth1's: {shown:?}");
}

/// newcomer.md 9b: `ip route get` goes elsewhere.
#[test]
fn show_fib_and_the_summary_name_who_shadows_a_route() {
    let mut net = Net::new();
    let (switch, host) = crate::kernel::host_and_switch(&mut net);
    host.ip("route add 10.60.1.0/24 via 10.1.1.1 metric 50 proto static");
    host.ip("route add 10.60.3.0/24 via 10.1.1.1 metric 179 proto static");
    let routelet = Routelet::start(&net, &host, crate::kernel::CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, crate::kernel::HOST).unwrap();
    speaker.establish(10000, 90, crate::kernel::SWITCH);
    learn(&mut speaker, &[net24(1), net24(2), net24(3)]);
    wait_for("the routes", 10.0, || (ours(&host).matches("10.60.").count() == 2).then_some(()));
    let fib = routelet.json(&["show", "fib"]);
    let entry =
        |prefix: &str| fib.as_array().unwrap().iter().find(|r| r["prefix"] == prefix).unwrap().clone();
    let shadowed = entry("10.60.1.0/24");
    assert_eq!(shadowed["in_kernel"], true);
    let problem = shadowed["problem"].as_str().unwrap();
    assert!(
        problem.contains("static (4) with metric 50") && problem.contains("fib.metric below 50"),
        "{problem}"
    );
    assert_eq!(entry("10.60.2.0/24")["problem"], serde_json::Value::Null);
    let text = routelet.cli(&["show", "fib"]);
    assert!(text.contains("ip nexthop flush proto 179"), "{text}");
    let problems = wait_for("the summary has both", 10.0, || {
        let summary = routelet.json(&["show", "summary"]);
        let problems: Vec<_> =
            summary["problems"].as_array()?.iter().filter_map(|p| p.as_str()).map(str::to_owned).collect();
        (problems.iter().filter(|p| p.contains("learned route")).count() == 2).then_some(problems)
    });
    assert!(problems.iter().any(|p| p.contains("10.60.3.0/24 (protocol static (4))")), "{problems:?}");
    assert!(
        problems.iter().any(|p| p.contains("10.60.1.0/24 (protocol static (4), metric 50)")),
        "{problems:?}"
    );
}

/// A rule of somebody's before that of our table: packets go by another table, and every screen was green.
#[test]
fn a_routing_rule_that_keeps_learned_routes_from_being_used_is_named() {
    let mut net = Net::new();
    let (switch, host) = crate::kernel::host_and_switch(&mut net);
    let routelet = Routelet::start(&net, &host, crate::kernel::CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, crate::kernel::HOST).unwrap();
    speaker.establish(10000, 90, crate::kernel::SWITCH);
    learn(&mut speaker, &[net24(1), net24(2)]);
    wait_for("the routes", 10.0, || (ours(&host).matches("10.60.").count() == 2).then_some(()));
    let named = |text: &str| {
        let problems = routelet.json(&["show", "summary"])["problems"].to_string();
        problems.contains(text).then_some(problems)
    };
    let marked = || {
        let fib = routelet.json(&["show", "fib"]);
        let marked = fib.as_array().unwrap().iter().filter(|r| r["problem"] != serde_json::Value::Null);
        marked.map(|r| r["prefix"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(marked(), Vec::<String>::new());

    host.ip("route add 10.60.2.0/24 via 10.1.1.1 table 100");
    host.ip("rule add from all table 100 priority 100");
    wait_for("one destination is named", 5.0, || {
        named("learned routes inside 10.60.2.0/24 are in the kernel")
    });
    assert_eq!(marked(), ["10.60.2.0/24"]);
    host.ip("route add default via 10.1.1.1 table 100");
    host.ip("rule add from 10.9.0.0/16 table 100 priority 90");
    let problems =
        wait_for("all are named", 5.0, || named("learned routes inside 0.0.0.0/0 are in the kernel"));
    assert!(problems.contains("`ip rule add table 254 priority 99`"), "{problems}");
    assert_eq!(marked(), ["10.60.1.0/24", "10.60.2.0/24"]);
    host.ip("rule add table 254 priority 99");
    wait_for("the remedy ends it", 5.0, || {
        let problems = routelet.json(&["show", "summary"])["problems"].to_string();
        (!problems.contains("learned routes")).then_some(())
    });
    assert_eq!(marked(), Vec::<String>::new());

    // No rule at all comes to our table.
    host.ip("rule del table 254 priority 99");
    host.ip("rule del table 100 priority 100");
    host.ip("rule del table 254");
    wait_for("the missing rule is named", 5.0, || named("no ipv4-unicast rule looks table 254 up"));
}
