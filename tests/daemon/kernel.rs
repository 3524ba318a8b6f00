//! What is in the kernel: learned, repaired, left alone, kept over a crash.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::common::{
    Process,
    daemons::Routelet,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, update},
    wait_for, within,
};

pub(crate) const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2));

pub(crate) const CONFIG: &str = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
     [advertise]\nnetworks = [\"10.50.0.0/24\"]\n";

/// A host below a switch that is played by the test.
pub(crate) fn host_and_switch(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/30 dev eth0");
    host.ip("addr add 10.1.1.2/30 dev eth0");
    host.ip("route add default via 10.1.1.1");
    (switch, host)
}

pub(crate) fn learn(speaker: &mut Speaker, prefixes: &[(Ipv4Addr, u8)]) {
    speaker.send(&update(&[], &attributes(&[10000], SWITCH, 0), prefixes));
    speaker.send(&end_of_rib());
}

pub(crate) fn net24(n: u8) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(10, 60, n, 0), 24)
}

pub(crate) fn ours(host: &Ns) -> String {
    host.ip("-4 route show proto 179")
}

#[test]
fn a_route_that_is_deleted_by_hand_is_back_within_a_tenth_of_a_second() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    // With 1 the kernel tells gateways beside nexthop ids, and `ip route flush` fails on what it read itself.
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    let _routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    let all: Vec<_> = (0..200).map(net24).collect();
    learn(&mut speaker, &all);
    wait_for("routes", 10.0, || (ours(&host).matches("10.60.").count() == 200).then_some(()));

    for deletion in ["route del 10.60.7.0/24 proto 179", "route flush proto 179"] {
        within(format!("repair after `ip {deletion}`"), Duration::from_millis(100), || {
            host.ip(deletion);
            let start = Instant::now();
            wait_for("the repair", 5.0, || {
                (ours(&host).matches("10.60.").count() == 200 && ours(&host).contains("10.50.0.0/24"))
                    .then(|| start.elapsed())
            })
        });
    }
}

#[test]
fn the_route_of_another_protocol_is_left_alone_and_named() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    host.ip("route add 10.60.1.0/24 via 10.1.1.1 metric 179 proto static");
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &[net24(1), net24(2)]);
    wait_for("the other route", 10.0, || ours(&host).contains("10.60.2.0/24").then_some(()));

    let fib = routelet.json(&["show", "fib"]);
    let entry =
        fib.as_array().unwrap().iter().find(|r| r["prefix"] == "10.60.1.0/24").expect("in show fib").clone();
    assert_eq!(entry["in_kernel"], false);
    assert!(entry.to_string().contains("static"), "{entry}");
    assert!(host.ip("route show 10.60.1.0/24").contains("proto static"));
    assert!(!ours(&host).contains("10.60.1.0/24"));

    host.ip("route del 10.60.1.0/24 proto static");
    wait_for("our turn", 5.0, || ours(&host).contains("10.60.1.0/24").then_some(()));
}

#[test]
fn kube_router_a_crash_and_a_new_start_leave_every_right_route_untouched_and_sweep_the_rest() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    let all: Vec<_> = (0..100).map(net24).collect();
    learn(&mut speaker, &all);
    wait_for("routes", 10.0, || (ours(&host).matches("10.60.").count() == 100).then_some(()));

    let log = net.dir().join("monitor");
    let monitor = Process::start(host.command("ip").args(["-4", "monitor", "route"]), &log);
    sleep(Duration::from_millis(200));
    routelet.process.kill();
    drop(speaker);
    sleep(Duration::from_millis(500));
    assert_eq!(ours(&host).matches("10.60.").count(), 100, "routes stay without a daemon");
    routelet.restart();
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    // One of them is not announced again: it must go, and only it.
    learn(&mut speaker, &all[1..]);
    wait_for("the sweep", 10.0, || (!ours(&host).contains("10.60.0.0/24")).then_some(()));
    sleep(Duration::from_millis(300));
    drop(monitor);
    let seen = fs::read_to_string(log).unwrap();
    let lines: Vec<_> = seen.lines().filter(|l| l.contains("10.60.") || l.contains("10.50.")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("Deleted 10.60.0.0/24"), "{seen}");
}

#[test]
fn sigterm_leaves_routes_and_flush_takes_them() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let mut routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &[net24(1)]);
    wait_for("the route", 10.0, || ours(&host).contains("10.60.1.0/24").then_some(()));
    assert!(routelet.process.stop().success(), "a stop is no failure");
    assert!(ours(&host).contains("10.60.1.0/24") && ours(&host).contains("10.50.0.0/24"));

    routelet.configure(&format!("{CONFIG}[fib]\non-exit = \"flush\"\n"));
    routelet.restart();
    assert!(routelet.process.stop().success());
    assert_eq!(ours(&host), "");
    assert!(host.ip("route show default").contains("10.1.1.1"), "others' routes stay");
}
