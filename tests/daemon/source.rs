//! The preferred source of learned routes (`fib.prefer-source`).

use std::net::Ipv4Addr;

use crate::common::speaker::Speaker;
use crate::{
    common::{
        daemons::{Frr, Routelet},
        net::{Net, Ns},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, learn, net24},
};

/// Routes learned that have this source.
fn with_source(host: &Ns, family: &str, source: &str) -> usize {
    let routes = host.ip(&format!("{family} route show proto 179"));
    routes.lines().filter(|l| l.contains(&format!("src {source} "))).count()
}

fn learned(host: &Ns) -> usize {
    host.ip("route show proto 179").matches("10.60.").count()
}

/// BIRD's `krt_prefsrc`, FRR's `set src`: what a host with its service address on lo sends by learned routes
/// carries that address, and outlives the uplink.
#[test]
fn learned_routes_prefer_the_source_that_is_asked_for() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    host.ip("link set lo up");
    host.ip("addr add 10.255.0.1/32 dev lo");
    let preferring = format!("{CONFIG}[fib]\nprefer-source = \"10.255.0.1\"\n");
    let mut routelet = Routelet::start(&net, &host, &preferring, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    let nets: Vec<(Ipv4Addr, u8)> = (0..50).map(net24).collect();
    learn(&mut speaker, &nets);
    wait_for("all with the source", 10.0, || (with_source(&host, "-4", "10.255.0.1") == 50).then_some(()));
    assert!(host.ip("route get 10.60.1.1").contains("src 10.255.0.1"), "what the host itself sends");

    // The kernel takes all of them with the address; they are back without it, and with it once it is back.
    host.ip("addr del 10.255.0.1/32 dev lo");
    wait_for("routes without a source", 10.0, || {
        (learned(&host) == 50 && with_source(&host, "-4", "10.255.0.1") == 0).then_some(())
    });
    let problem = routelet.json(&["show", "summary"])["problems"].to_string();
    assert!(problem.contains("fib.prefer-source 10.255.0.1 is on no interface"), "{problem}");
    host.ip("addr add 10.255.0.1/32 dev lo");
    wait_for("the source again", 10.0, || (with_source(&host, "-4", "10.255.0.1") == 50).then_some(()));

    // Both ways by reload, which resets no session.
    for (config, count) in [(CONFIG, 0), (&*preferring, 50)] {
        routelet.configure(config);
        routelet.cli(&["reload"]);
        wait_for(format!("{count} with the source"), 10.0, || {
            (learned(&host) == 50 && with_source(&host, "-4", "10.255.0.1") == count).then_some(())
        });
    }
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"));

    // Over a restart without the key: adopted routes lose it when their neighbor is back.
    routelet.process.stop();
    assert_eq!(with_source(&host, "-4", "10.255.0.1"), 50, "routes stay");
    routelet.configure(CONFIG);
    routelet.restart();
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &nets);
    wait_for("none with the source", 10.0, || {
        (learned(&host) == 50 && with_source(&host, "-4", "10.255.0.1") == 0).then_some(())
    });
}

#[test]
fn both_families_can_have_a_source() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    switch.ip("addr add fd01::1/64 dev eth0 nodad");
    host.ip("addr add fd01::2/64 dev eth0 nodad");
    host.ip("link set lo up");
    host.ip("addr add 10.255.0.1/32 dev lo");
    host.ip("addr add fd00:255::1/128 dev lo");
    let frr = "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n \
        no bgp network import-check\n neighbor 10.1.1.2 remote-as 1000\n \
        address-family ipv4 unicast\n  network 10.60.1.0/24\n exit-address-family\n \
        address-family ipv6 unicast\n  neighbor 10.1.1.2 activate\n  network fd60:1::/64\n exit-address-family\n";
    let _frr = Frr::start(&net, &switch, frr);
    let config = format!("{CONFIG}[fib]\nprefer-source = [\"10.255.0.1\", \"fd00:255::1\"]\n");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("both", 20.0, || {
        let there = |family, source| with_source(&host, family, source) == 1;
        (there("-4", "10.255.0.1") && there("-6", "fd00:255::1")).then_some(())
    });
    host.ip("addr del fd00:255::1/128 dev lo");
    wait_for("IPv6 without", 20.0, || {
        let routes = host.ip("-6 route show proto 179");
        (routes.contains("fd60:1::/64") && !routes.contains(" src ")).then_some(())
    });
    assert_eq!(with_source(&host, "-4", "10.255.0.1"), 1, "the other family keeps its own");
}
