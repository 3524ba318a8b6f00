//! `interface = …`: neighbors that are found by router advertisements (RFC 4861), on real links.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    thread::sleep,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        wait_for,
    },
    kernel::ours,
};

/// A host with a loopback address of each family that it advertises, and unnumbered neighbors on `interface`.
fn config(n: u8, interface: &str) -> String {
    format!(
        "[bgp]\nas = 6500{n}\nrouter-id = \"192.0.2.{n}\"\n[[bgp.neighbor]]\ninterface = \"{interface}\"\n\
         [advertise]\ninterfaces = [\"lo\"]\n"
    )
}

/// The host's loopback addresses.
fn addresses(ns: &Ns, n: u8) {
    ns.ip(&format!("addr add 192.0.2.{n}/32 dev lo"));
    ns.ip(&format!("addr add 2001:db8:ffff::{n}/128 dev lo nodad"));
}

/// The kernel's link-local address of an interface, once it can be used.
fn link_local(ns: &Ns, interface: &str) -> String {
    wait_for(format!("{interface} has a link-local address"), 10.0, || {
        let text = ns.ip(&format!("-6 -o addr show dev {interface} scope link"));
        let found = text.lines().find(|l| !l.contains("tentative"))?;
        Some(found.split_whitespace().nth(3)?.split('/').next()?.to_owned())
    })
}

/// Router advertisements from an address of `interface`, or from any with `spoofed` ones.
fn advertiser(ns: &Ns, interface: &str, hops: u32) -> (Socket, u32) {
    ns.enter(|| {
        let index = nix::net::if_::if_nametoindex(interface).expect("the interface");
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root");
        socket.set_multicast_hops_v6(hops).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        (socket, index)
    })
}

fn advertise((socket, index): &(Socket, u32), from: Ipv6Addr) {
    socket.bind(&SocketAddrV6::new(from, 0, 0, *index).into()).expect("an own address");
    let packet = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, *index);
    socket.send_to(&packet, &all_nodes.into()).expect("sent");
}

fn row(routelet: &Routelet, interface: &str) -> serde_json::Value {
    let all = routelet.json(&["show", "neighbors"]);
    let found = all.as_array().unwrap().iter().find(|n| n["interface"] == interface);
    found.cloned().unwrap_or_default()
}

fn wait_state(routelet: &Routelet, interface: &str, state: &str) -> serde_json::Value {
    wait_for(format!("{}: {interface} is {state}", routelet.ns.name), 30.0, || {
        let row = row(routelet, interface);
        (row["state"] == state).then_some(row)
    })
}

#[test]
fn two_hosts_on_one_cable_find_each_other_and_reach_each_other_over_both_families() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    addresses(&a, 1);
    addresses(&b, 2);
    let one = Routelet::start(&net, &a, &config(1, "eth0"), &[]);
    let idle = row(&one, "eth0");
    assert_eq!((idle["state"].as_str(), idle["address"].as_str()), (Some("idle"), Some("eth0")), "{idle}");
    let reason = idle["last_error"].as_str().unwrap();
    assert!(reason.contains("eth0"), "{reason}");
    let started = Instant::now();
    let two = Routelet::start(&net, &b, &config(2, "eth?"), &[]);
    let up = wait_state(&one, "eth0", "established");
    println!("established {:?} after the second start", started.elapsed());
    let other = link_local(&b, "eth0");
    assert_eq!(up["address"], format!("{other}%eth0"));
    wait_state(&two, "eth0", "established");
    wait_for("the routes", 10.0, || {
        let v4 = a.ip("route show 192.0.2.2").contains(&format!("via inet6 {other} dev eth0"));
        let v6 = a.ip("-6 route show 2001:db8:ffff::2").contains(&format!("via {other} dev eth0"));
        (v4 && v6).then_some(())
    });
    let fib = one.json(&["show", "fib"]);
    let learned =
        fib.as_array().unwrap().iter().find(|r| r["prefix"] == "192.0.2.2/32").expect("in show fib");
    assert_eq!(learned["next_hops"][0]["address"], other.as_str());
    wait_for("IPv4 both ways", 10.0, || {
        a.sh("ping -n -c1 -W1 -I 192.0.2.1 192.0.2.2 || true").contains("1 received").then_some(())
    });
    wait_for("IPv6 both ways", 10.0, || {
        a.sh("ping -n -c1 -W1 -I 2001:db8:ffff::1 2001:db8:ffff::2 || true")
            .contains("1 received")
            .then_some(())
    });
    // No host takes this one as its default router.
    assert!(!b.ip("-6 route show").contains("default"), "{}", b.ip("-6 route show"));

    // The name of the interface stands for its neighbor.
    one.cli(&["neighbor", "disable", "eth0"]);
    wait_state(&one, "eth0", "disabled");
    one.cli(&["neighbor", "enable", "eth0"]);
    wait_state(&one, "eth0", "established");
    one.cli(&["neighbor", "reset", "eth0"]);
    wait_state(&one, "eth0", "established");
    assert_eq!(one.try_cli(&["neighbor", "reset", "eth7"]).unwrap_err().0, 1);
}

#[test]
fn a_session_follows_its_interface_through_lost_carrier_new_name_and_new_link() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    addresses(&a, 1);
    addresses(&b, 2);
    // The interfaces appear after the start.
    let one = Routelet::start(&net, &a, &config(1, "up*"), &[]);
    let _two = Routelet::start(&net, &b, &config(2, "eth0"), &[]);
    assert!(row(&one, "up*")["last_error"].as_str().unwrap().contains("matches `up*`"));
    net.link((&a, "up1"), (&b, "eth0"));
    wait_state(&one, "up1", "established");

    b.ip("link set eth0 down");
    wait_for("the session ends with the carrier", 5.0, || {
        (row(&one, "up1")["state"] != "established").then_some(())
    });
    b.ip("link set eth0 up");
    wait_state(&one, "up1", "established");

    a.ip("link set up1 down");
    a.ip("link set up1 name up2");
    a.ip("link set up2 up");
    wait_state(&one, "up2", "established");
    wait_for("the route over the new name", 10.0, || ours(&a).contains("dev up2").then_some(()));

    a.ip("link del up2");
    wait_for("the neighbor goes with its interface", 10.0, || {
        (row(&one, "up*")["state"] == "idle").then_some(())
    });
    net.link((&a, "up3"), (&b, "eth0"));
    wait_state(&one, "up3", "established");

    // The link-local address goes, and another one comes.
    let old = link_local(&a, "up3");
    a.ip(&format!("addr del {old}/64 dev up3"));
    a.ip("addr add fe80::77/64 dev up3 nodad");
    let up = wait_for("a session from the new address", 60.0, || {
        let row = row(&one, "up3");
        let detail = one.json(&["show", "neighbor", row["address"].as_str()?]);
        (row["state"] == "established" && detail["local_address"] == "fe80::77").then_some(detail)
    });
    assert_eq!(up["interface"], "up3");
}

/// Of the interfaces that stand on others this kernel has only macvlan.
#[test]
fn an_interface_above_another_has_a_neighbor_and_a_port_of_a_bridge_has_none() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    for ns in [&a, &b] {
        ns.ip("link add link eth0 name up0 type macvlan mode bridge");
        ns.ip("link set up0 up");
    }
    let one = Routelet::start(&net, &a, &config(1, "up0"), &[]);
    let _two = Routelet::start(&net, &b, &config(2, "up0"), &[]);
    wait_state(&one, "up0", "established");
    a.ip("link del up0");
    a.ip("link add br0 type bridge");
    a.ip("link set eth0 master br0");
    one.configure(&config(1, "eth0"));
    one.cli(&["reload", "--force"]);
    wait_for("the reason at the port", 10.0, || {
        let all = one.json(&["show", "neighbors"]);
        let row = all.as_array()?.iter().find(|n| n["interface"] == "eth0")?.clone();
        row["last_error"].as_str()?.contains("eth0 is a port of br0").then_some(())
    });
}

#[test]
fn an_interface_without_link_local_address_gets_one_that_cleanup_removes() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    a.ip("link set eth0 down");
    a.ip("link set eth0 addrgenmode none");
    a.ip("link set eth0 up");
    let mut one = Routelet::start(&net, &a, &config(1, "eth0"), &[]);
    let _two = Routelet::start(&net, &b, &config(2, "eth0"), &[]);
    wait_state(&one, "eth0", "established");
    let own = link_local(&a, "eth0");
    one.process.stop();
    assert!(a.ip("-6 addr show dev eth0").contains(&own), "a stop leaves it");
    let config = one.dir.join("routelet.toml");
    let out = a.sh(&format!("{} cleanup --config {}", env!("CARGO_BIN_EXE_routelet"), config.display()));
    assert!(out.contains(&format!("the link-local address {own} of eth0")), "{out}");
    assert!(!a.ip("-6 addr show dev eth0").contains("fe80"), "{out}");
}

#[test]
fn an_interface_without_ipv6_is_named_with_its_sysctl() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    a.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
    let one = Routelet::start(&net, &a, &config(1, "eth0"), &[]);
    wait_for("the reason", 15.0, || {
        let summary = one.json(&["show", "summary"]);
        let named = |p: &serde_json::Value| {
            p.as_str().is_some_and(|p| p.contains("net.ipv6.conf.eth0.disable_ipv6 to 0"))
        };
        summary["problems"].as_array()?.iter().any(named).then_some(())
    });
    a.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0");
    wait_for("it goes with its cause", 15.0, || {
        row(&one, "eth0")["last_error"].as_str()?.contains("no router advertisement received").then_some(())
    });
    let _two = Routelet::start(&net, &b, &config(2, "eth0"), &[]);
    wait_state(&one, "eth0", "established");
}

/// RFC 4861 §6.1.2: a router on the way has lowered the hop limit.
#[test]
fn a_forwarded_advertisement_makes_no_neighbor_and_a_second_router_does_not_replace_the_first() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    let own: Ipv6Addr = link_local(&b, "eth0").parse().unwrap();
    link_local(&a, "eth0");
    let one = Routelet::start(&net, &a, &config(1, "eth0"), &[]);
    let spoofed = advertiser(&b, "eth0", 64);
    for _ in 0..20 {
        advertise(&spoofed, own);
        sleep(Duration::from_millis(50));
    }
    assert_eq!(row(&one, "eth0")["address"], "eth0");
    assert!(one.process.printed().contains("the hop limit is not 255"), "{}", one.process.printed());
    // A router without BGP is tried, and one with BGP takes its place.
    b.ip("addr add fe80::bad/64 dev eth0 nodad");
    let silent = advertiser(&b, "eth0", 255);
    advertise(&silent, "fe80::bad".parse().unwrap());
    wait_for("the silent router is tried", 5.0, || {
        (row(&one, "eth0")["address"] == "fe80::bad%eth0").then_some(())
    });
    b.ip("addr del fe80::bad/64 dev eth0");
    let _two = Routelet::start(&net, &b, &config(2, "eth0"), &[]);
    let up = wait_state(&one, "eth0", "established");
    assert_eq!(up["address"], format!("{own}%eth0"));
    // Now nobody else gets in.
    b.ip("addr add fe80::bad/64 dev eth0 nodad");
    for _ in 0..150 {
        advertise(&silent, "fe80::bad".parse().unwrap());
        sleep(Duration::from_millis(100));
    }
    let rows = one.json(&["show", "neighbors"]);
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows[0]["state"], "established");
}

#[test]
fn with_a_limit_several_neighbors_of_one_link_are_peered_with() {
    let mut net = Net::new();
    let (a, lan) = (net.ns("a"), net.ns("lan"));
    lan.ip("link add br0 type bridge");
    lan.ip("link set br0 up");
    net.link((&lan, "p0"), (&a, "eth0"));
    let others = [2, 3].map(|n| {
        let ns = net.ns(&format!("n{n}"));
        net.link((&lan, &format!("p{n}")), (&ns, "eth0"));
        addresses(&ns, n);
        (n, ns)
    });
    for port in ["p0", "p2", "p3"] {
        lan.ip(&format!("link set {port} master br0"));
    }
    let text = |n| config(n, "eth0").replace("interface = \"eth0\"", "interface = \"eth0\"\nlimit = 2");
    let one = Routelet::start(&net, &a, &text(1), &[]);
    let _others: Vec<_> = others.iter().map(|(n, ns)| Routelet::start(&net, ns, &text(*n), &[])).collect();
    wait_for("two sessions on one interface", 30.0, || {
        let all = one.json(&["show", "neighbors"]);
        let up = all.as_array()?.iter().filter(|n| n["interface"] == "eth0" && n["state"] == "established");
        (up.count() == 2).then_some(())
    });
}
