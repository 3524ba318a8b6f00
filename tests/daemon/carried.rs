//! What a session carries and what it does not: planted at a switch that runs FRR, named, mended
//! as the remedy describes, and gone.

use crate::{
    common::{
        daemons::{Frr, Routelet},
        net::{Net, Ns},
        wait_for,
    },
    problems::{below_a_switch, gone, named, none, problem},
};

const SWITCH: &str = "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n no bgp network \
                      import-check\n neighbor 10.1.1.2 remote-as 1000\n address-family ipv4 unicast\n  network \
                      10.9.0.0/24\n exit-address-family\n address-family ipv6 unicast\n  neighbor 10.1.1.2 \
                      activate\n exit-address-family\n";

const NEIGHBOR: &str = "[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n";
const OWN: &str = "[advertise]\nnetworks = [\"10.50.0.0/24\"]\n";

/// Host 10.1.1.2, AS 1000, and the switch 10.1.1.1, AS 10000, over which its default route leads.
struct Bed {
    net: Net,
    host: Ns,
    frr: Frr,
}

fn bed() -> Bed {
    let mut net = Net::new();
    let (switch, host) = below_a_switch(&mut net);
    let frr = Frr::start(&net, &switch, SWITCH);
    Bed { net, host, frr }
}

impl Bed {
    fn start(&self, neighbor: &str, more: &str) -> Routelet {
        let routelet = Routelet::start(&self.net, &self.host, &config(neighbor, more), &[]);
        routelet.wait_established("10.1.1.1");
        routelet
    }

    fn in_ipv4(&self, line: &str) {
        self.frr.configure(&["router bgp 10000", "address-family ipv4 unicast", line]);
    }

    fn in_bgp(&self, line: &str) {
        self.frr.configure(&["router bgp 10000", line]);
    }
}

fn config(neighbor: &str, more: &str) -> String {
    format!("[bgp]\nas = 1000\n{NEIGHBOR}{neighbor}{more}")
}

fn reload(routelet: &Routelet, neighbor: &str, more: &str) {
    routelet.configure(&config(neighbor, more));
    routelet.cli(&["reload", "--force"]);
}

#[test]
fn routes_that_are_not_used_are_named_by_reason_until_they_are() {
    let bed = bed();
    let routelet = bed.start("", OWN);
    none(&routelet);

    bed.in_ipv4("network 0.0.0.0/0");
    let (text, remedy) = named(&routelet, "PrefixesRefused");
    assert!(text.contains("10.1.1.1") && text.contains("1 (guard:"), "{text}");
    assert!(remedy.contains("`routelet show routes --received 10.1.1.1`"), "{remedy}");
    assert!(routelet.cli(&["show", "routes", "--received", "10.1.1.1"]).contains("accept-default"));
    reload(&routelet, "accept-default = true\n", OWN);
    gone(&routelet, "PrefixesRefused");

    bed.frr.configure(&[
        "ip prefix-list far permit 10.9.0.0/24",
        "route-map far permit 10",
        "match ip address prefix-list far",
        "set ip next-hop 10.7.7.7",
        "exit",
        "route-map far permit 20",
    ]);
    bed.in_ipv4("neighbor 10.1.1.2 route-map far out");
    let (text, remedy) = named(&routelet, "NextHopUnresolved");
    assert!(text.contains("10.7.7.7 (only the default route leads there)"), "{text}");
    assert!(remedy.contains("add a route to 10.7.7.7"), "{remedy}");
    bed.host.ip("route add 10.7.7.7 via 10.1.1.1");
    gone(&routelet, "NextHopUnresolved");
    wait_for("it is used", 30.0, || bed.host.ip("route").contains("10.9.0.0/24").then_some(()));

    bed.frr.configure(&["route-map far permit 10", "no set ip next-hop", "set community graceful-shutdown"]);
    let (text, _) = named(&routelet, "GracefulShutdown");
    assert!(text.contains("neighbor 10.1.1.1 is about to shut down"), "{text}");
    bed.in_ipv4("no neighbor 10.1.1.2 route-map far out");
    gone(&routelet, "GracefulShutdown");

    bed.in_ipv4("no network 10.9.0.0/24");
    bed.in_ipv4("no network 0.0.0.0/0");
    let (text, _) = named(&routelet, "NothingReceived");
    assert!(text.contains("End-of-RIB and no route"), "{text}");
    bed.in_ipv4("network 10.9.0.0/24");
    gone(&routelet, "NothingReceived");
    none(&routelet);
}

#[test]
fn own_prefixes_that_a_neighbor_does_not_get_are_named_with_the_reason() {
    let bed = bed();
    let both = "[advertise]\nnetworks = [\"10.50.0.0/24\", \"fd00:5::/64\"]\n";
    let routelet = bed.start("", both);
    let (text, remedy) = named(&routelet, "PrefixesNotAdvertised");
    assert!(text.contains("fd00:5::/64 (no own IPv6 address"), "{text}");
    assert!(remedy.contains("add a global IPv6 address"), "{remedy}");
    bed.host.ip("addr add fd01::2/64 dev eth0 nodad");
    gone(&routelet, "PrefixesNotAdvertised");

    bed.frr.configure(&["router bgp 10000", "address-family ipv6 unicast", "no neighbor 10.1.1.2 activate"]);
    let (text, remedy) = named(&routelet, "PrefixesNotAdvertised");
    assert!(text.contains("fd00:5::/64 (the neighbor does not announce ipv6-unicast)"), "{text}");
    assert!(remedy.contains("activate ipv6-unicast"), "{remedy}");
    bed.frr.configure(&["router bgp 10000", "address-family ipv6 unicast", "neighbor 10.1.1.2 activate"]);
    gone(&routelet, "PrefixesNotAdvertised");

    let policy = "[[policy.some]]\nprefixes = [\"10.50.0.0/24\"]\naction = \"reject\"\n";
    reload(&routelet, "export = [\"some\"]\n", &format!("{policy}{both}"));
    let (text, remedy) = named(&routelet, "PrefixesFiltered");
    assert!(text.contains("10.50.0.0/24 (rejected by export policy some)"), "{text}");
    assert!(remedy.contains("[[policy.some]]"), "{remedy}");
    reload(&routelet, "", both);
    gone(&routelet, "PrefixesFiltered");
    none(&routelet);
}

#[test]
fn limits_at_either_end_are_named_with_family_and_number() {
    let bed = bed();
    let two = "[advertise]\nnetworks = [\"10.50.0.0/24\", \"10.51.0.0/24\"]\n";
    let routelet = bed.start("idle-hold-time = 1\n", two);
    bed.in_ipv4("neighbor 10.1.1.2 maximum-prefix 1");
    let (text, remedy) = named(&routelet, "NeighborDown");
    assert!(text.contains("maximum number of prefixes") && text.contains("limit 1"), "{text}");
    assert!(remedy.contains("raise the prefix limit for this host there"), "{remedy}");
    bed.in_ipv4("no neighbor 10.1.1.2 maximum-prefix 1");
    bed.frr.vtysh("clear bgp 10.1.1.2");
    gone(&routelet, "NeighborDown");

    for network in 0..3 {
        bed.in_ipv4(&format!("network 10.10.{network}.0/24"));
    }
    reload(&routelet, "max-prefixes = 7\n", two);
    let (text, _) = named(&routelet, "PrefixLimitNear");
    assert!(
        text.contains("75 %") && text.contains("ipv4-unicast") && text.contains("max-prefixes 7"),
        "{text}"
    );
    reload(&routelet, "max-prefixes = 3\nmax-prefixes-action = \"warn\"\n", two);
    let (text, remedy) = named(&routelet, "PrefixLimitExceeded");
    assert!(text.contains("max-prefixes 3") && remedy.contains("raise max-prefixes"), "{text}; {remedy}");
    reload(&routelet, "", two);
    gone(&routelet, "PrefixLimitExceeded");
    gone(&routelet, "PrefixLimitNear");
    none(&routelet);
}

#[test]
fn a_session_that_the_switch_ends_or_refuses_has_the_remedy_for_the_other_end() {
    let bed = bed();
    let routelet = bed.start("idle-hold-time = 1\n", OWN);
    bed.in_bgp("neighbor 10.1.1.2 shutdown message back at five");
    let (text, remedy) = named(&routelet, "NeighborDown");
    assert!(text.contains("administrative shutdown"), "{text}");
    assert!(remedy.contains("10.1.1.2") && remedy.contains("there"), "{remedy}");
    bed.in_bgp("no neighbor 10.1.1.2 shutdown");
    gone(&routelet, "NeighborDown");

    bed.in_bgp("neighbor 10.1.1.2 remote-as 1001");
    // The session was up for less than a second: the former problem may stand for as long.
    wait_for("the remedy for the AS number", 20.0, || {
        let remedy = problem(&routelet, "NeighborDown")?["remedy"].as_str()?.to_owned();
        remedy.contains("with AS 1000 there").then_some(())
    });
    bed.in_bgp("neighbor 10.1.1.2 remote-as 1000");
    gone(&routelet, "NeighborDown");

    reload(&routelet, "hold-time = 30\n", OWN);
    routelet.wait_established("10.1.1.1");
    assert!(problem(&routelet, "HoldTimeDiffers").is_none());
    bed.in_bgp("neighbor 10.1.1.2 timers 3 9");
    bed.frr.vtysh("clear bgp 10.1.1.2");
    let (text, _) = named(&routelet, "HoldTimeDiffers");
    assert!(text.contains("9 s") && text.contains("`hold-time = 30`"), "{text}");
    reload(&routelet, "hold-time = 9\n", OWN);
    gone(&routelet, "HoldTimeDiffers");
}
