//! Forwarding and what belongs to it: what the host has by router advertisement stays, what others change is set back, and
//! `cleanup` undoes all of it.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    process::Command,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::{
    Process,
    daemons::Routelet,
    net::{Net, Ns},
    run, wait_for, within,
};

/// Prefixes of both families are forwarded from the start.
const CONFIG: &str = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
     [advertise]\nnetworks = [\"10.50.0.0/24\", \"fd50::/64\"]\n";

const ALL6: &str = "net.ipv6.conf.all.forwarding";

/// A host that forwards nothing, as a machine is installed, and a router on the same link.
fn host_and_router(net: &mut Net) -> (Ns, Ns) {
    let (host, router) = (net.ns("host"), net.ns("router"));
    net.link((&router, "eth0"), (&host, "eth0"));
    router.ip("addr add 10.1.1.1/30 dev eth0");
    host.ip("addr add 10.1.1.2/30 dev eth0");
    for key in ["net.ipv4.ip_forward", ALL6] {
        host.sysctl(key, "0");
    }
    host.sysctl("net.ipv6.conf.default.accept_ra", "1");
    host.sysctl("net.ipv6.conf.eth0.accept_ra", "1");
    (host, router)
}

fn value(ns: &Ns, key: &str) -> String {
    run(ns.command("sysctl").args(["-n", key])).trim().to_owned()
}

fn wait_value(ns: &Ns, key: &str, expected: &str) {
    wait_for(format!("{key} = {expected}"), 10.0, || (value(ns, key) == expected).then_some(()));
}

/// A router advertisement (RFC 4861 §4.2) for a default route, and an address in `prefix`::/64.
fn advertise(router: &Ns, interface: &str, prefix: &str) {
    let index: u32 = router.sh(&format!("ip -o link show {interface} | cut -d: -f1")).trim().parse().unwrap();
    let prefix: Ipv6Addr = prefix.parse().unwrap();
    let mut packet = vec![134, 0, 0, 0, 64, 0];
    packet.extend(1800_u16.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([3, 4, 64, 0xc0]);
    packet.extend([86400_u32.to_be_bytes(), 14400_u32.to_be_bytes(), [0; 4]].concat());
    packet.extend(prefix.octets());
    router.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let to = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        // The link-local address may still be tentative.
        let start = Instant::now();
        while socket.send_to(&packet, &to.into()).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "no advertisement could be sent");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// The default route and the address by advertisement, while the router goes on to advertise.
fn has_default_route(host: &Ns, router: &Ns, (theirs, ours): (&str, &str), prefix: &str) {
    wait_for(format!("a default route and an address on {ours}"), 20.0, || {
        advertise(router, theirs, &format!("{prefix}::"));
        let route = host.ip(&format!("-6 route show default dev {ours} proto ra")).contains("fe80::");
        let address = host.ip(&format!("-6 addr show dev {ours}")).contains(&format!("inet6 {prefix}:"));
        (route && address).then_some(())
    });
}

fn problems(routelet: &Routelet) -> Vec<String> {
    let summary = match routelet.try_cli(&["show", "summary", "--json"]) {
        Ok(text) => text,
        Err((code, text)) => panic!("{code}: {text}"),
    };
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let all: Vec<String> = serde_json::from_value(summary["problems"].clone()).unwrap();
    // There is no BGP speaker at the other end.
    all.into_iter().filter(|p| !p.starts_with("NeighborDown")).collect()
}

fn wait_problem(routelet: &Routelet, part: &str) {
    wait_for(format!("a problem with {part}"), 10.0, || {
        problems(routelet).iter().any(|p| p.contains(part)).then_some(())
    });
}

#[test]
fn what_comes_by_router_advertisement_comes_also_while_the_host_forwards() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    wait_value(&host, ALL6, "1");
    for interface in ["default", "eth0"] {
        assert_eq!(value(&host, &format!("net.ipv6.conf.{interface}.accept_ra")), "2", "{interface}");
    }
    // The first advertisement comes after forwarding is on, as at boot.
    has_default_route(&host, &router, ("eth0", "eth0"), "2001:db8:a");

    // On a link that comes later, one that is made anew, and one that is renamed.
    for _ in 0..2 {
        net.link((&router, "eth1"), (&host, "eth1"));
        has_default_route(&host, &router, ("eth1", "eth1"), "2001:db8:b");
        host.ip("link del eth1");
    }
    net.link((&router, "eth1"), (&host, "eth1"));
    host.ip("link set eth1 down");
    host.ip("link set eth1 name lan.7");
    // ifupdown does so for `inet6 auto`.
    host.sysctl("net.ipv6.conf.lan/7.accept_ra", "1");
    host.ip("link set lan.7 up");
    wait_value(&host, "net.ipv6.conf.lan/7.accept_ra", "2");
    has_default_route(&host, &router, ("eth1", "lan.7"), "2001:db8:c");

    // Two routers of one metric: what was learned stays when others switch forwarding off and on.
    for value in ["0", "1"] {
        host.sysctl(ALL6, value);
        wait_value(&host, ALL6, "1");
    }
    assert_eq!(host.ip("-6 route show default proto ra").lines().filter(|l| l.contains("via")).count(), 2);

    // What was changed is shown, and undone without the loss of a default route.
    let changed = routelet.json(&["show", "summary"])["sysctls"].clone();
    for (key, old, new) in [
        (ALL6, "0", "1"),
        ("net.ipv4.ip_forward", "0", "1"),
        ("net.ipv6.conf.default.accept_ra", "1", "2"),
        ("net.ipv6.conf.eth0.accept_ra", "1", "2"),
        ("net.ipv6.conf.lan/7.accept_ra", "1", "2"),
    ] {
        let change = serde_json::json!({ "key": key, "old": old, "new": new });
        assert!(changed.as_array().unwrap().contains(&change), "{change}: {changed}");
    }
    assert!(routelet.cli(&["show", "summary"]).contains("net.ipv4.ip_forward"));
    routelet.process.stop();
    let removed = cleanup(&routelet);
    assert!(removed.contains("net.ipv6.conf.all.forwarding is 0 again"), "{removed}");
    for (key, expected) in [
        (ALL6, "0"),
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.default.accept_ra", "1"),
        ("net.ipv6.conf.eth0.accept_ra", "1"),
        ("net.ipv6.conf.lan/7.accept_ra", "1"),
    ] {
        assert_eq!(value(&host, key), expected, "{key}");
    }
    assert_eq!(host.ip("-6 route show default proto ra").lines().filter(|l| l.contains("via")).count(), 2);
    has_default_route(&host, &router, ("eth0", "eth0"), "2001:db8:a");
}

fn cleanup(routelet: &Routelet) -> String {
    let mut command = routelet.ns.command(env!("CARGO_BIN_EXE_routelet"));
    run(command.args(["cleanup", "--config"]).arg(routelet.dir.join("routelet.toml")))
}

#[test]
fn a_decision_of_the_operator_and_forwarding_of_others_stay_as_they_are() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    net.link((&router, "eth1"), (&host, "eth1"));
    net.link((&router, "eth2"), (&host, "eth2"));
    host.sysctl("net.ipv6.conf.eth0.accept_ra", "0");
    host.sysctl("net.ipv6.conf.eth1.accept_ra", "2");
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    wait_value(&host, ALL6, "1");
    assert_eq!(value(&host, "net.ipv6.conf.eth0.accept_ra"), "0");
    assert_eq!(value(&host, "net.ipv6.conf.eth2.accept_ra"), "2");
    routelet.process.stop();
    cleanup(&routelet);
    let values = ["eth0", "eth1", "eth2"].map(|i| value(&host, &format!("net.ipv6.conf.{i}.accept_ra")));
    assert_eq!(values, ["0", "2", "1"]);

    // A router that ignores advertisements by forwarding itself goes on to ignore them.
    host.sysctl(ALL6, "1");
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    wait_value(&host, "net.ipv4.ip_forward", "1");
    assert_eq!(value(&host, "net.ipv6.conf.eth2.accept_ra"), "1");
    routelet.process.stop();
    cleanup(&routelet);
    assert_eq!((value(&host, ALL6), value(&host, "net.ipv4.ip_forward")), ("1".into(), "0".into()));
}

#[test]
fn without_the_right_to_write_ipv6_forwarding_stays_off_and_the_remedy_is_named() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    let script = format!(
        "mount -o bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec {} run --config {}",
        env!("CARGO_BIN_EXE_routelet"),
        routelet.dir.join("routelet.toml").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "nsenter", &format!("--net=/run/netns/{}", host.name), "sh", "-c", &script]);
    routelet.process = Process::start(&mut command, &routelet.dir.join("log"));
    routelet.wait_ready();
    wait_problem(&routelet, "accept_ra");
    wait_problem(&routelet, &format!("sysctl -w {ALL6}=1"));
    wait_problem(&routelet, "sysctl -w net.ipv4.ip_forward=1");
    assert_eq!(value(&host, ALL6), "0");
    has_default_route(&host, &router, ("eth0", "eth0"), "2001:db8:a");
    // What the operator does on the host is seen.
    host.sysctl("net.ipv6.conf.default.accept_ra", "2");
    host.sysctl("net.ipv6.conf.eth0.accept_ra", "2");
    host.sysctl(ALL6, "1");
    host.sysctl("net.ipv4.ip_forward", "1");
    wait_for("no problem is left", 10.0, || problems(&routelet).is_empty().then_some(()));
}

#[test]
fn openshift_9931_forwarding_that_others_switch_off_is_on_again_within_a_second() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    net.link((&router, "mgmt"), (&host, "mgmt"));
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    wait_value(&host, ALL6, "1");
    // Others do not forward on an interface of their own.
    for family in ["ipv4", "ipv6"] {
        host.sysctl(&format!("net.{family}.conf.mgmt.forwarding"), "0");
    }
    let keys =
        ["net.ipv4.ip_forward", ALL6, "net.ipv4.conf.eth0.forwarding", "net.ipv6.conf.eth0.forwarding"];
    let off = keys.map(|key| format!("{key}=0")).join(" ");
    std::thread::sleep(Duration::from_millis(500));
    within("forwarding is on again", Duration::from_secs(1), || {
        host.sh(&format!("sysctl -qw {off}"));
        let start = Instant::now();
        wait_for("forwarding", 10.0, || keys.iter().all(|key| value(&host, key) == "1").then_some(()));
        start.elapsed()
    });
    for family in ["ipv4", "ipv6"] {
        wait_value(&host, &format!("net.{family}.conf.mgmt.forwarding"), "0");
    }
    assert!(routelet.process.printed().contains("sysctl changed by another program, restored"));
    assert!(problems(&routelet).is_empty(), "once is no fight: {:?}", problems(&routelet));

    // Something that never gives up is named, and not fought for ever.
    wait_for("the fight is a problem", 60.0, || {
        host.sysctl("net.ipv4.ip_forward", "0");
        problems(&routelet).iter().any(|p| p.starts_with("SysctlConflict: net.ipv4.ip_forward")).then_some(())
    });
    let mends = || routelet.process.printed().matches("set back").count();
    let (before, start) = (mends(), Instant::now());
    while start.elapsed() < Duration::from_secs(5) {
        host.sysctl("net.ipv4.ip_forward", "0");
    }
    assert!(mends() <= before + 3, "{} times in {:?}", mends() - before, start.elapsed());
}

#[test]
fn aws_operator_3551_a_strict_filter_on_a_host_with_two_uplinks_is_named() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    net.link((&router, "eth1"), (&host, "eth1"));
    router.ip("addr add 10.1.2.1/30 dev eth1");
    host.ip("addr add 10.1.2.2/30 dev eth1");
    host.sysctl("net.ipv4.conf.all.rp_filter", "1");
    let config = format!("{CONFIG}[[bgp.neighbor]]\naddress = \"10.1.2.1\"\nremote-as = 10001\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    wait_problem(&routelet, "sysctl -w net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth1.rp_filter=2");
    host.sysctl("net.ipv4.conf.eth0.rp_filter", "2");
    host.sysctl("net.ipv4.conf.eth1.rp_filter", "2");
    wait_for("no problem is left", 10.0, || problems(&routelet).is_empty().then_some(()));
}

/// Docker sets the policy of FORWARD to DROP where it finds forwarding off.
#[test]
fn what_is_advertised_is_forwarded_before_the_bridge_is_there() {
    let mut net = Net::new();
    let (host, router) = host_and_router(&mut net);
    for ns in [&host, &router] {
        ns.ip(&format!(
            "addr add fd01::{} dev eth0 nodad",
            if ns.name == host.name { "2/64" } else { "1/64" }
        ));
    }
    let config = CONFIG.replace("networks = [\"10.50.0.0/24\", \"fd50::/64\"]", "interfaces = [\"docker0\"]");
    let _routelet = Routelet::start(&net, &host, &config, &[]);
    wait_value(&host, "net.ipv4.ip_forward", "1");
    wait_value(&host, ALL6, "1");
}
