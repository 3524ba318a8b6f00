//! What is lost on the way to a neighbor: large packets, or all of one direction.

use crate::{
    common::{
        daemons::{Frr, Routelet},
        net::{Net, Ns},
    },
    problems::{gone, named, none},
};

/// Host 10.1.1.2, AS 1000, and the switch 10.1.1.1, AS 10000, with FRR and a hold time of 9 s.
struct Way {
    net: Net,
    switch: Ns,
    host: Ns,
    _frr: Frr,
}

fn way(more: &str) -> Way {
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev eth0");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    let frr = Frr::start(
        &net,
        &switch,
        &format!(
            "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
             neighbor 10.1.1.2 remote-as 1000\n neighbor 10.1.1.2 timers 3 9\n address-family ipv4 unicast\n  network \
             10.9.0.0/24\n{more} exit-address-family\n"
        ),
    );
    Way { net, switch, host, _frr: frr }
}

impl Way {
    fn start(&self, networks: &str) -> Routelet {
        let config = format!(
            "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\nidle-hold-time = 1\n\
             [advertise]\nnetworks = [{networks}]\n"
        );
        Routelet::start(&self.net, &self.host, &config, &[])
    }
}

/// Drops what the rule matches on this hook.
fn filter(ns: &Ns, hook: &str, rule: &str) {
    ns.sh(&format!(
        "nft 'add table inet cut; add chain inet cut c {{ type filter hook {hook} priority 0; }}'"
    ));
    ns.sh(&format!("nft 'add rule inet cut c {rule} drop'"));
}

const LARGE: &str = "ip length > 1400";

/// The remedy for a smaller MTU on the way.
fn lower_mtu(way: &Way) {
    way.switch.ip("link set eth0 mtu 1300");
    way.host.ip("link set eth0 mtu 1300");
}

#[test]
fn large_packets_to_a_neighbor_that_are_lost_are_named_and_mended_by_a_lower_mtu() {
    let way = way("");
    filter(&way.switch, "input", LARGE);
    let networks: Vec<_> =
        (0..200).flat_map(|n| [format!("\"10.50.{n}.0/24\""), format!("\"10.51.{n}.0/24\"")]).collect();
    let routelet = way.start(&networks.join(", "));
    let (text, remedy) = named(&routelet, "LargePacketsLost");
    assert!(text.contains("large packets to neighbor 10.1.1.1 are lost"), "{text}");
    assert!(remedy.contains("`ping -M do") && remedy.contains("lower the MTU"), "{remedy}");
    lower_mtu(&way);
    gone(&routelet, "LargePacketsLost");
    none(&routelet);
}

#[test]
fn large_packets_from_a_neighbor_that_are_lost_are_named_and_mended_by_a_lower_mtu() {
    let networks: String =
        (0..200).map(|n| format!("  network 10.60.{n}.0/24\n  network 10.61.{n}.0/24\n")).collect();
    let way = way(&networks);
    filter(&way.host, "input", LARGE);
    let routelet = way.start("\"10.50.0.0/24\"");
    let (text, _) = named(&routelet, "LargePacketsLost");
    assert!(text.contains("large packets from neighbor 10.1.1.1 are lost"), "{text}");
    lower_mtu(&way);
    gone(&routelet, "LargePacketsLost");
    none(&routelet);
}

#[test]
fn a_filter_on_port_179_is_named_with_its_direction() {
    let way = way("");
    let routelet = way.start("\"10.50.0.0/24\"");
    #[rustfmt::skip]
    let cases = [
        ("input",  "and what this host sends is not acknowledged", "no packet arrives from 10.1.1.1"),
        ("output", "what this host sends does not arrive there",   "no packet of this host arrives at 10.1.1.1"),
    ];
    for (hook, text, remedy) in cases {
        routelet.wait_established("10.1.1.1");
        filter(&way.host, hook, "tcp dport 179");
        way.host.sh("nft 'add rule inet cut c tcp sport 179 drop'");
        let (found, advice) = named(&routelet, "NeighborDown");
        assert!(
            found.contains(text) && advice.contains(remedy) && advice.contains("TCP port 179"),
            "{found}; {advice}"
        );
        way.host.sh("nft delete table inet cut");
        gone(&routelet, "NeighborDown");
    }
    drop(routelet);
    filter(&way.switch, "input", "tcp dport 179");
    way.switch.sh("nft 'add rule inet cut c tcp sport 179 drop'");
    let routelet = way.start("\"10.50.0.0/24\"");
    let (found, advice) = named(&routelet, "NeighborDown");
    assert!(advice.contains("no firewall on either end drops TCP port 179"), "{found}; {advice}");
    way.switch.sh("nft delete table inet cut");
    gone(&routelet, "NeighborDown");
    none(&routelet);
}
