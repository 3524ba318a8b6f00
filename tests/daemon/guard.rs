//! The route guard on a real kernel: what it refuses and why, what it takes, and that it follows the host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, update, update6},
    wait_for,
};

const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 66);
const ATTACKER_AS: u32 = 10066;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2));

const CONFIG: &str = "[bgp]\nas = 1000\n\
    [[bgp.neighbor]]\naddress = \"10.1.1.66\"\nremote-as = 10066\npassive = true\n\
    [[bgp.neighbor]]\naddress = \"10.1.1.9\"\nremote-as = 10009\npassive = true\n\
    [[bgp.neighbor]]\naddress = \"fd01::9\"\nremote-as = 10009\npassive = true\n";

/// A host with default routes over a gateway, another neighbor and one that attacks, all on one link.
fn host_on_a_segment(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    for n in ["1", "9", "66"] {
        switch.ip(&format!("addr add 10.1.1.{n}/24 dev eth0"));
        switch.ip(&format!("addr add fd01::{n}/64 dev eth0 nodad"));
    }
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("addr add fd01::2/64 dev eth0 nodad");
    for route in default_routes() {
        host.ip(&format!("{route} proto static"));
    }
    (switch, host)
}

fn default_routes() -> [&'static str; 2] {
    ["route add default via 10.1.1.1", "-6 route add default via fd01::1"]
}

/// Announces prefixes of both families, and waits until all of them are in the table.
fn announce(routelet: &Routelet, speaker: &mut Speaker, prefixes: &[&str]) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        let (addr, len) = prefix.split_once('/').unwrap();
        match addr.parse().unwrap() {
            IpAddr::V4(a) => four.push((a, len.parse().unwrap())),
            IpAddr::V6(a) => six.push((a, len.parse().unwrap())),
        }
    }
    speaker.send(&update6(&[ATTACKER_AS], "fd01::66".parse().unwrap(), &six));
    four.push((Ipv4Addr::new(99, 0, 0, 1), 32));
    speaker.send(&update(&[], &attributes(&[ATTACKER_AS], ATTACKER, 0), &four));
    speaker.send(&end_of_rib());
    wait_for("the last one is in the kernel", 30.0, || {
        routelet.ns.ip("-4 route show proto 179").contains("99.0.0.1").then_some(())
    });
}

fn attacker(switch: &Ns) -> Speaker {
    let mut speaker = Speaker::dial_from(switch, ATTACKER.into(), HOST).unwrap();
    speaker.establish(ATTACKER_AS, 90, ATTACKER);
    speaker
}

/// The reason of each path from the attacker, by prefix.
fn reasons(routelet: &Routelet) -> BTreeMap<String, String> {
    let routes = routelet.json(&["show", "routes", "--received", "10.1.1.66"]);
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    routes.as_array().unwrap().iter().map(|r| (text(&r["prefix"]), text(&r["reason"]))).collect()
}

/// Whether the kernel has this route of ours.
fn in_kernel(host: &Ns, prefix: &str) -> bool {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    !host.ip(&format!("{family} route show exact {prefix} proto 179")).is_empty()
}

fn wait_taken(host: &Ns, prefix: &str, taken: bool) {
    let what = if taken { "taken" } else { "refused" };
    wait_for(format!("{prefix} is {what}"), 30.0, || (in_kernel(host, prefix) == taken).then_some(()));
}

/// The attacker of the security review: one bit more or less than what a guard compares with.
#[test]
fn prefixes_that_hold_a_protected_address_are_refused_and_say_which() {
    let mut net = Net::new();
    let (switch, host) = host_on_a_segment(&mut net);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    routelet.set_resolvers(&["10.0.0.53", "fd53::53"]);
    routelet.restart();
    let mut speaker = attacker(&switch);
    let four = "is reached by 10.1.1.0/24, connected on eth0";
    let six = "is reached by fd01::/64, connected on eth0";
    let default = "is reached by the default route";
    #[rustfmt::skip]
    let cases: &[(&str, Option<String>)] = &[
        ("10.1.1.9/32",          Some(format!("guard: 10.1.1.9 (neighbor) {four}"))),
        ("10.1.1.8/31",          Some(format!("guard: 10.1.1.9 (neighbor) {four}"))),
        ("10.1.1.1/32",          Some(format!("guard: 10.1.1.1 (default gateway) {four}"))),
        ("10.1.1.0/31",          Some(format!("guard: 10.1.1.1 (default gateway) {four}"))),
        ("10.1.1.0/25",          Some(format!("guard: 10.1.1.1 (default gateway) {four}"))),
        ("10.1.1.2/31",          Some(format!("guard: 10.1.1.2 (own address) {four}"))),
        ("10.1.1.128/25",        None),
        ("10.1.1.0/24",          Some("guard: equal to a connected subnet (10.1.1.0/24 on eth0)".into())),
        ("10.1.1.0/32",          Some("guard: network address of a connected subnet (10.1.1.0/24 on eth0)".into())),
        ("10.1.1.255/32",        Some("guard: broadcast address of a connected subnet (10.1.1.0/24 on eth0)".into())),
        ("10.1.0.0/16",          None),
        ("10.0.0.53/32",         Some(format!("guard: 10.0.0.53 (resolver) {default}"))),
        ("10.0.0.0/24",          Some(format!("guard: 10.0.0.53 (resolver) {default}"))),
        ("169.254.169.254/32",   Some("guard: martian: inside 169.254.0.0/16".into())),
        ("169.254.0.0/15",       Some("guard: martian: covers 169.254.0.0/16".into())),
        ("0.0.0.0/0",            Some("guard: default route without accept-default".into())),
        ("128.0.0.0/1",          Some("guard: shorter than /8 without accept-default".into())),
        ("20.0.0.0/8",           None),
        ("fd01::9/128",          Some(format!("guard: fd01::9 (neighbor) {six}"))),
        ("fd01::8/127",          Some(format!("guard: fd01::9 (neighbor) {six}"))),
        ("fd01::1/128",          Some(format!("guard: fd01::1 (default gateway) {six}"))),
        ("fd01::/127",           Some(format!("guard: fd01::1 (default gateway) {six}"))),
        ("fd01::/65",            Some(format!("guard: fd01::1 (default gateway) {six}"))),
        ("fd01::8000:0:0:0/65",  None),
        ("fd01::/64",            Some("guard: equal to a connected subnet (fd01::/64 on eth0)".into())),
        ("fd01::/128",           Some("guard: network address of a connected subnet (fd01::/64 on eth0)".into())),
        ("fd53::53/128",         Some(format!("guard: fd53::53 (resolver) {default}"))),
        ("fd53::/48",            Some(format!("guard: fd53::53 (resolver) {default}"))),
        ("::/96",                Some("guard: martian: covers ::/128".into())),
        ("2000::/15",            Some("guard: shorter than /16 without accept-default".into())),
        ("fd20::/48",            None),
    ];
    announce(&routelet, &mut speaker, &cases.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    let shown = reasons(&routelet);
    for (prefix, reason) in cases {
        let text = &shown[*prefix];
        match reason {
            Some(reason) => assert_eq!(text, reason, "{prefix}"),
            None => assert!(text.starts_with("best"), "{prefix}: {text}"),
        }
        wait_taken(&host, prefix, reason.is_none());
    }
    for (address, dev) in
        [("10.1.1.9", "10.1.1.9 dev eth0"), ("10.0.0.53", "via 10.1.1.1"), ("fd53::53", "via fd01::1")]
    {
        assert!(host.ip(&format!("route get {address}")).contains(dev), "{address} goes its old way");
    }

    // The host changes: nothing else leads to the resolvers for a while.
    let resolvers = ["10.0.0.53/32", "10.0.0.0/24", "fd53::53/128", "fd53::/48"];
    host.ip("route del default");
    host.ip("-6 route del default");
    resolvers.iter().for_each(|p| wait_taken(&host, p, true));
    // A host route to a gateway would keep the default route from coming back.
    for prefix in ["10.1.1.8/31", "10.1.1.0/31", "10.1.1.1/32", "fd01::/127", "fd01::1/128"] {
        wait_taken(&host, prefix, false);
    }
    let reason = format!("guard: 10.1.1.1 (former default gateway) {four}");
    assert_eq!(reasons(&routelet)["10.1.1.1/32"], reason);
    for route in default_routes() {
        host.ip(&format!("{route} proto static"));
    }
    resolvers.iter().for_each(|p| wait_taken(&host, p, false));

    // A resolver changes, and another link gets the address of one.
    routelet.set_resolvers(&["20.0.0.53", "fd53::53"]);
    wait_taken(&host, "10.0.0.0/24", true);
    wait_taken(&host, "20.0.0.0/8", false);
    assert_eq!(reasons(&routelet)["20.0.0.0/8"], format!("guard: 20.0.0.53 (resolver) {default}"));
    host.ip("link add spare type veth peer name spare2");
    host.ip("link set spare2 up");
    host.ip("link set spare up");
    host.ip("addr add 20.0.0.1/7 dev spare");
    wait_taken(&host, "20.0.0.0/8", false);
    wait_for("the way there has changed", 30.0, || {
        let reason = "guard: 20.0.0.1 (own address) is reached by 20.0.0.0/7, connected on spare";
        (reasons(&routelet)["20.0.0.0/8"] == reason).then_some(())
    });
    host.ip("link del spare");
    routelet.set_resolvers(&[]);
    wait_taken(&host, "20.0.0.0/8", true);

    // All of it still stands after a restart.
    routelet.process.kill();
    routelet.restart();
    let mut speaker = attacker(&switch);
    announce(&routelet, &mut speaker, &cases.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    wait_for("the old reasons", 30.0, || {
        let shown = reasons(&routelet);
        let same = |p: &str, start: &str| shown.get(p).is_some_and(|r| r.starts_with(start));
        (same("10.1.1.8/31", "guard: 10.1.1.9") && same("10.0.0.0/24", "best")).then_some(())
    });
    assert!(!in_kernel(&host, "10.1.1.8/31") && !in_kernel(&host, "fd01::8/127"));
}

#[test]
fn guard_connected_inside_is_taken_over_by_a_reload() {
    let mut net = Net::new();
    let (switch, host) = host_on_a_segment(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = attacker(&switch);
    let inside = ["10.1.1.128/25", "10.1.1.200/32", "fd01::8000:0:0:0/65", "fd01::c8/128"];
    announce(&routelet, &mut speaker, &inside);
    inside.iter().for_each(|p| wait_taken(&host, p, true));
    routelet.configure(&format!("{CONFIG}[guard]\nconnected = \"inside\"\n"));
    routelet.cli(&["reload"]);
    inside.iter().for_each(|p| wait_taken(&host, p, false));
    assert_eq!(
        reasons(&routelet)["10.1.1.200/32"],
        "guard: inside a connected subnet (10.1.1.0/24 on eth0; guard.connected = \"inside\")"
    );
    assert!(routelet.cli(&["show", "config"]).contains("connected = \"inside\""));
    routelet.configure(CONFIG);
    routelet.cli(&["reload"]);
    inside.iter().for_each(|p| wait_taken(&host, p, true));
}

/// As good as a default route, without being one.
#[test]
fn two_hundred_prefixes_of_eight_bits_are_taken_up_to_a_quarter_of_the_space() {
    let mut net = Net::new();
    let (switch, host) = host_on_a_segment(&mut net);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = attacker(&switch);
    let all: Vec<String> =
        (1..224).filter(|n| ![10, 127, 169].contains(n)).map(|n| format!("{n}.0.0.0/8")).collect();
    announce(&routelet, &mut speaker, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let in_kernel = || host.ip("-4 route show proto 179").matches(".0.0.0/8 ").count();
    wait_for("a quarter", 30.0, || (in_kernel() == 64).then_some(()));
    let reason = reasons(&routelet)["223.0.0.0/8"].clone();
    assert_eq!(
        reason,
        "guard: beyond a quarter of the address space in prefixes shorter than /11 without accept-default"
    );
    assert!(host.ip("route get 223.1.1.1").contains("via 10.1.1.1"), "by the host's default route");
    // What goes makes room for what follows in order of address.
    let gone: Vec<_> = (1..=9).map(|n| (Ipv4Addr::new(n, 0, 0, 0), 8)).collect();
    speaker.send(&update(&gone, &[], &[]));
    wait_for("others", 30.0, || {
        let routes = host.ip("-4 route show proto 179");
        (!routes.contains("9.0.0.0/8 ") || routes.contains("74.0.0.0/8 ")).then_some(())
    });
    wait_for("a quarter again", 30.0, || (in_kernel() == 64).then_some(()));
    routelet.configure(&CONFIG.replacen("passive = true\n", "passive = true\naccept-default = true\n", 1));
    routelet.cli(&["reload"]);
    wait_for("all that the operator wants", 30.0, || (in_kernel() == all.len() - 9).then_some(()));
}

/// FRR#16877: a route server on a loopback, to which only routes of BGP lead. With a default route as well as without one,
/// as it is no directly connected neighbor.
#[test]
fn frr_16877_the_loopback_of_a_multihop_neighbor_is_learned_and_its_session_comes_up() {
    for with_default in [false, true] {
        let mut net = Net::new();
        let (fabric, host) = (net.ns("fabric"), net.ns("host"));
        for n in [1, 2] {
            net.link((&fabric, &format!("eth{n}")), (&host, &format!("eth{n}")));
            fabric.ip(&format!("addr add 10.1.{n}.1/31 dev eth{n}"));
            fabric.ip(&format!("addr add fd0{n}::/127 dev eth{n} nodad"));
            host.ip(&format!("addr add 10.1.{n}.0/31 dev eth{n}"));
            host.ip(&format!("addr add fd0{n}::1/127 dev eth{n} nodad"));
        }
        fabric.ip("addr add 10.255.0.9/32 dev lo");
        fabric.ip("addr add fd55::9/128 dev lo nodad");
        host.ip("addr add 10.255.0.1/32 dev lo");
        host.ip("addr add fd55::1/128 dev lo nodad");
        fabric.ip("route add 10.255.0.1/32 via 10.1.1.0");
        fabric.ip("-6 route add fd55::1/128 via fd01::1");
        if with_default {
            host.ip("route add default via 10.1.1.1");
            host.ip("-6 route add default via fd01::");
        }
        let leaf = |n: u8| {
            format!("[[bgp.neighbor]]\naddress = \"10.1.{n}.1\"\nremote-as = 1000{n}\npassive = true\n")
        };
        let server = |addr: &str, local: &str| {
            format!(
                "[[bgp.neighbor]]\naddress = \"{addr}\"\nremote-as = 10009\nmultihop = 4\nlocal-address = \"{local}\"\nconnect-retry-time = 1\n"
            )
        };
        let config = format!(
            "[bgp]\nas = 1000\nrouter-id = \"10.255.0.1\"\n{}{}{}{}",
            leaf(1),
            leaf(2),
            server("10.255.0.9", "10.255.0.1"),
            server("fd55::9", "fd55::1")
        );
        let listeners = ["10.255.0.9:179", "[fd55::9]:179"]
            .map(|at| fabric.enter(|| TcpListener::bind(at)).expect("a free port"));
        let routelet = Routelet::start(&net, &host, &config, &[]);
        let leaves: Vec<Speaker> = [1u8, 2]
            .into_iter()
            .map(|n| {
                let (at, asn) = (Ipv4Addr::new(10, 1, n, 1), 10_000 + u32::from(n));
                let mut speaker =
                    Speaker::dial_from(&fabric, at.into(), Ipv4Addr::new(10, 1, n, 0).into()).unwrap();
                speaker.establish(asn, 90, at);
                let six = Ipv6Addr::new(0xfd00 + u16::from(n), 0, 0, 0, 0, 0, 0, 0);
                speaker.send(&update6(&[asn], six, &[("fd55::9".parse().unwrap(), 128)]));
                let four = (Ipv4Addr::new(10, 255, 0, 9), 32);
                speaker.send(&update(&[], &attributes(&[asn], at, 0), &[four]));
                speaker.send(&end_of_rib());
                speaker
            })
            .collect();
        for prefix in ["10.255.0.9/32", "fd55::9/128"] {
            wait_taken(&host, prefix, true);
        }
        for listener in &listeners {
            let mut server = Speaker::accept_on(listener);
            server.establish(10009, 90, Ipv4Addr::new(10, 255, 0, 9));
        }
        for routes in [
            routelet.json(&["show", "routes", "10.255.0.9/32"]),
            routelet.json(&["show", "routes", "fd55::9/128"]),
        ] {
            let paths = routes.as_array().unwrap();
            assert_eq!(paths.len(), 2, "{routes}");
            assert!(paths.iter().all(|p| !p["reason"].as_str().unwrap().starts_with("guard")), "{routes}");
        }
        drop(leaves);
    }
}
