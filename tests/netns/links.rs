//! Links that come and go: the kernel takes objects and routes away without a word.

use std::{
    thread,
    time::{Duration, Instant},
};

use routelet::fib::io::Settings;

use crate::{
    common::{
        net::{Net, Ns},
        wait_for,
    },
    fib::{monitor, seen},
    node::{Node, hops, many, ours, settings, two_links, wait_gone, wait_route},
};

fn loss_and_return(settings: Settings, cut: &str, mend: &str, on_switch: bool) {
    let mut net = Net::new();
    let (host, switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings);
        node.want("10.10.0.0/16", &["10.0.1.2"]);
        node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
        node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
        for prefix in ["10.10.0.0/16", "10.11.0.0/16", "fd11::/48"] {
            wait_route(&host, prefix, &["dev eth1"]);
        }
        let side = if on_switch { &switch } else { &host };
        for _ in 0..2 {
            side.ip(cut);
            wait_gone(&host, "10.10.0.0/16");
            for prefix in ["10.11.0.0/16", "fd11::/48"] {
                wait_route(&host, prefix, &["dev eth2"]);
                wait_for("the dead hop is gone", 5.0, || {
                    let all = ours(&host);
                    let line = all.lines().find(|l| l.starts_with(prefix))?;
                    (!line.contains("eth1")).then_some(())
                });
            }
            assert_eq!(node.view("10.10.0.0/16").problem.as_deref(), Some("next hop on a link that is down"));
            side.ip(mend);
            // Setting a link down takes its IPv6 addresses.
            if !on_switch {
                host.ip("addr add fd00:1::1/64 dev eth1 nodad");
            }
            wait_route(&host, "10.10.0.0/16", &["dev eth1"]);
            wait_route(&host, "10.11.0.0/16", &["dev eth1", "dev eth2"]);
            wait_route(&host, "fd11::/48", &["dev eth1", "dev eth2"]);
        }
        node.stop(true);
        assert_eq!((ours(&host), host.ip("nexthop show")), (String::new(), String::new()));
    });
}

#[test]
fn a_lost_carrier_takes_hops_and_its_return_brings_them_back() {
    loss_and_return(settings(), "link set sw1 down", "link set sw1 up", true);
}

#[test]
fn a_link_set_down_takes_hops_and_up_again_brings_them_back() {
    loss_and_return(settings(), "link set eth1 down", "link set eth1 up", false);
}

#[test]
fn without_objects_a_lost_carrier_does_the_same() {
    loss_and_return(
        Settings { nexthop_objects: false, ..settings() },
        "link set sw1 down",
        "link set sw1 up",
        true,
    );
}

#[test]
fn without_objects_a_link_set_down_does_the_same() {
    loss_and_return(
        Settings { nexthop_objects: false, ..settings() },
        "link set eth1 down",
        "link set eth1 up",
        false,
    );
}

/// FRR#15505: a flap of another interface lost ECMP routes of RFC 5549.
#[test]
fn kube_router_509_a_flap_of_an_unrelated_link_touches_no_route() {
    let mut net = Net::new();
    let (host, switch) = two_links(&mut net);
    net.link((&host, "eth9"), (&switch, "sw9"));
    host.ip("addr add 10.0.9.1/24 dev eth9");
    host.ip("addr add fd00:9::1/64 dev eth9 nodad");
    host.enter(|| {
        let node = Node::start(settings());
        node.want("10.11.0.0/16", &["10.0.1.2", "10.0.2.2"]);
        node.want("10.12.0.0/16", &["fd00:1::2", "fd00:2::2"]);
        node.want("fd11::/48", &["fd00:1::2", "fd00:2::2"]);
        for prefix in ["10.11.0.0/16", "10.12.0.0/16", "fd11::/48"] {
            wait_route(&host, prefix, &["dev eth1", "dev eth2"]);
        }
        let before = ours(&host);
        let monitor = monitor(&net, &host);
        for _ in 0..5 {
            host.ip("link set eth9 down");
            host.ip("link set eth9 up");
            switch.ip("link set sw9 down");
            switch.ip("link set sw9 up");
            host.ip("addr add fd00:9::1/64 dev eth9 nodad");
        }
        // The daemon has seen all of it when it has seen the last of it.
        host.ip("addr add 10.9.9.9/32 dev eth9");
        wait_for("the last change is seen", 10.0, || {
            let host = node.host.borrow();
            host.link("eth9")?.addresses.iter().any(|a| a.addr.to_string() == "10.9.9.9").then_some(())
        });
        let shown = seen(&monitor);
        // The kernel's own routes of addresses that have just left duplicate detection are not ours.
        let words = ["10.11.", "10.12.", "fd11:", "eth1", "eth2"];
        let ours_only = |l: &&String| !l.contains("proto kernel") && words.iter().any(|w| l.contains(w));
        let touched: Vec<_> = shown.iter().filter(ours_only).collect();
        assert!(touched.is_empty(), "{touched:#?}");
        assert_eq!(ours(&host), before);
        node.stop(true);
    });
}

#[test]
fn a_flap_too_short_to_see_is_repaired() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        let prefixes = many(100);
        node.want_many(&prefixes, Some(hops(&["10.0.1.2"])));
        wait_for("all routes", 5.0, || (ours(&host).lines().count() == 100).then_some(()));
        host.sh("ip link set eth1 down; ip link set eth1 up");
        wait_for("all routes again", 5.0, || (ours(&host).lines().count() == 100).then_some(()));
        // An address that goes takes nothing that others hold up.
        host.ip("addr add 10.9.9.9/32 dev eth1");
        host.ip("addr del 10.9.9.9/32 dev eth1");
        thread::sleep(Duration::from_millis(100));
        assert_eq!(ours(&host).lines().count(), 100);
        node.stop(true);
    });
}

/// Failover costs no message per route: the kernel shrinks the group, and we only put the hop back.
#[test]
fn a_cut_link_leaves_a_hundred_thousand_multipath_routes_in_place() {
    let mut net = Net::new();
    let (host, switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        node.want_many(&many(100_000), Some(hops(&["10.0.1.2", "10.0.2.2"])));
        wait_for("all routes", 30.0, || (node.count() == 100_000).then_some(()));
        let puts = || node.fib.counters().put.ok.load(std::sync::atomic::Ordering::Relaxed);
        let before = puts();
        switch.ip("link set sw1 down");
        wait_for("one hop left", 5.0, || {
            (!host.ip("route show 20.1.134.0/24").contains("eth1")).then_some(())
        });
        switch.ip("link set sw1 up");
        let start = Instant::now();
        wait_for("both hops", 10.0, || host.ip("route show 20.1.134.0/24").contains("eth1").then_some(()));
        println!("hop back in 100,000 routes after {:?}", start.elapsed());
        assert_eq!(puts(), before, "no route was written");
        assert_eq!(node.count(), 100_000);
        // All routes of one set move to another: one message again.
        node.want_many(&many(100_000), Some(hops(&["10.0.2.2"])));
        wait_for("one hop left", 10.0, || {
            (!host.ip("route show 20.1.134.0/24").contains("eth1")).then_some(())
        });
        assert_eq!(puts(), before, "no route was written");
        node.stop(true);
    });
}

#[test]
fn a_snapshot_follows_the_kernel_within_a_tenth_of_a_second() {
    let mut net = Net::new();
    let (host, switch) = two_links(&mut net);
    host.enter(|| {
        let node = Node::start(settings());
        let mut took = Vec::new();
        let mut seen = |what: &str, check: &dyn Fn(&routelet::fib::host::Host) -> bool| {
            let start = Instant::now();
            wait_for(what, 5.0, || check(&node.host.borrow()).then_some(()));
            println!("{what}: {:?}", start.elapsed());
            took.push(start.elapsed());
        };
        let carrier = |h: &routelet::fib::host::Host| h.link("eth1").is_some_and(|l| h.has_carrier(l));
        switch.ip("link set sw1 down");
        seen("carrier lost", &|h| !carrier(h));
        switch.ip("link set sw1 up");
        seen("carrier back", &|h| carrier(h));
        host.ip("addr add 10.7.7.7/32 dev eth2");
        seen("address", &|h| {
            h.link("eth2").unwrap().addresses.iter().any(|a| a.addr.to_string() == "10.7.7.7")
        });
        host.ip("route add default via 10.0.2.2");
        let gateways = |h: &routelet::fib::host::Host| h.default_gateways(routelet::net::Family::Ipv4Unicast);
        seen("default route", &|h| gateways(h).len() == 1);
        host.ip("route replace default via 10.0.2.3");
        seen("default route moved", &|h| gateways(h).iter().any(|g| g.0.to_string() == "10.0.2.3"));
        assert_eq!(gateways(&node.host.borrow()).len(), 1);
        // The kernel deletes it in silence with its link.
        host.ip("link set eth2 down");
        wait_for("default route gone", 5.0, || gateways(&node.host.borrow()).is_empty().then_some(()));
        host.ip("link add br0 type bridge");
        host.ip("link set br0 up");
        seen("bridge", &|h| h.link("br0").is_some_and(|l| l.kind == "bridge" && l.up));
        let bridge = |h: &routelet::fib::host::Host| h.link("br0").is_some_and(|l| h.has_carrier(l));
        assert!(!bridge(&node.host.borrow()), "a bridge without ports has no carrier");
        host.ip("link set eth1 master br0");
        wait_for("a port", 5.0, || bridge(&node.host.borrow()).then_some(()));
        host.ip("link set eth1 nomaster");
        wait_for("no port", 5.0, || (!bridge(&node.host.borrow())).then_some(()));
        host.ip("link del br0");
        seen("bridge deleted", &|h| h.link("br0").is_none());
        // One or two may have met a moment in which the machine stood still.
        took.sort_unstable();
        assert!(took[took.len() / 2] < Duration::from_millis(100), "{took:?}");
        node.stop(true);
    });
}

/// Pods come and go by the hundred, and nothing of ours goes with them: neither the nexthop objects
/// nor the routes have to be read again.
#[test]
fn ports_of_a_bridge_that_come_and_go_are_no_loss() {
    let mut net = Net::new();
    let (host, _switch) = two_links(&mut net);
    let pods = net.ns("pods");
    host.sh("ip link add br0 type bridge; ip addr add 10.8.0.1/24 dev br0; ip link set br0 up");
    for n in 1..=20 {
        net.link((&pods, &format!("in{n}")), (&host, &format!("pod{n}")));
        host.ip(&format!("link set pod{n} master br0"));
    }
    // One stays, as without any the bridge has no carrier.
    let each = |ns: &Ns, act: &str| ns.sh(&format!("for n in $(seq 19); do {act}; done"));
    host.enter(|| {
        let node = Node::start(settings());
        let ports = |n: usize| {
            wait_for(format!("{n} ports"), 20.0, || {
                let seen = node.host.borrow();
                let up = seen.links.values().filter(|l| l.name.starts_with("pod") && l.up && l.lower_up);
                (up.count() == n).then_some(())
            });
        };
        ports(20);
        let before = node.host.borrow().drops;
        each(&pods, "ip link set in$n down");
        ports(1);
        each(&pods, "ip link set in$n up");
        ports(20);
        each(&host, "ip link del pod$n");
        ports(1);
        assert_eq!(node.host.borrow().drops, before);
        host.ip("addr del 10.8.0.1/24 dev br0");
        wait_for("the lost address", 5.0, || (node.host.borrow().drops == before + 1).then_some(()));
        node.stop(true);
    });
}
