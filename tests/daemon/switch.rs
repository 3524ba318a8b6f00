//! The switch configurations that `docs/switch.md` prints, run as they are printed.

use crate::common::{
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

const PAGE: &str = include_str!("../../docs/switch.md");

/// The code block of this language in the page.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let at = PAGE.find(&fence).unwrap_or_else(|| panic!("docs/switch.md has no block {language}"));
    let rest = &PAGE[at + fence.len()..];
    &rest[..rest.find("```").expect("a closed block")]
}

/// Switch 10.1.1.1 and host 10.1.1.2 on a common subnet, as on the page.
pub(super) fn rack(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "port1"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev port1");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("route add default via 10.1.1.1");
    (switch, host)
}

pub(super) fn config(own_as: u32, network: &str) -> String {
    format!(
        "[bgp]\nas = {own_as}\n[[bgp.neighbor]]\naddress = \"gateway\"\nremote-as = \"external\"\n\
         [advertise]\nnetworks = [\"{network}\", \"198.18.0.0/24\"]\n"
    )
}

/// The containers' subnet is in the switch's kernel; the other one, outside of the switch's filter, is not.
pub(super) fn the_switch_accepts(network: &str, switch: &Ns, routelet: &Routelet) {
    routelet.wait_established("10.1.1.1");
    wait_for("the switch has the subnet", 20.0, || {
        switch.ip(&format!("route show {network}")).contains("10.1.1.2").then_some(())
    });
    assert_eq!(switch.ip("route show 198.18.0.0/24"), "", "what the filter refuses");
}

#[test]
fn the_frr_example_accepts_a_rack_of_nodes() {
    let mut net = Net::new();
    let (switch, host) = rack(&mut net);
    let _frr = Frr::start(&net, &switch, block("frr"));
    let routelet = Routelet::start(&net, &host, &config(64512, "10.244.1.0/24"), &[]);
    the_switch_accepts("10.244.1.0/24", &switch, &routelet);
}

#[test]
fn the_frr_example_for_one_host_accepts_it() {
    let mut net = Net::new();
    let (switch, host) = rack(&mut net);
    let _frr = Frr::start(&net, &switch, block("frr-one"));
    let routelet = Routelet::start(&net, &host, &config(1000, "172.20.1.0/24"), &[]);
    the_switch_accepts("172.20.1.0/24", &switch, &routelet);
}

/// Both ends see each other by BFD.
#[test]
fn the_examples_with_bfd_watch_their_host() {
    for kind in ["frr", "bird"] {
        let mut net = Net::new();
        let (switch, host) = rack(&mut net);
        let (_frr, _bird) = if kind == "frr" {
            (Some(Frr::start_with_bfd(&net, &switch, block("frr-bfd"))), None)
        } else {
            (None, Some(Bird::start(&net, &switch, block("bird-bfd"))))
        };
        let bfd = "remote-as = \"external\"\nbfd = { min-tx = 50, min-rx = 50 }\n";
        let config = config(1000, "172.20.1.0/24").replace("remote-as = \"external\"\n", bfd);
        let routelet = Routelet::start(&net, &host, &config, &[]);
        the_switch_accepts("172.20.1.0/24", &switch, &routelet);
        wait_for(format!("BFD with {kind} every 50 ms"), 20.0, || {
            let session = routelet.json(&["show", "bfd"])[0].clone();
            (session["state"] == "up" && session["tx_interval"] == 50 && session["detection_time"] == 150)
                .then_some(())
        });
    }
}

#[test]
fn the_bird_example_accepts_a_rack_of_nodes() {
    let mut net = Net::new();
    let (switch, host) = rack(&mut net);
    let _bird = Bird::start(&net, &switch, block("bird"));
    let routelet = Routelet::start(&net, &host, &config(64512, "10.244.1.0/24"), &[]);
    the_switch_accepts("10.244.1.0/24", &switch, &routelet);
}

/// Unnumbered: neither end has an address on the link.
fn unnumbered_rack(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "port1"), (&host, "eth0"));
    (switch, host)
}

const UNNUMBERED: &str = "[bgp]\nas = \"auto\"\nrouter-id = \"10.2.0.1\"\n[[bgp.neighbor]]\ninterface = \"eth*\"\n\
     [advertise]\nnetworks = [\"10.244.1.0/24\", \"198.18.0.0/24\"]\n";

fn the_unnumbered_switch_accepts(switch: &Ns, routelet: &Routelet) {
    wait_for("a session on eth0", 60.0, || {
        let all = routelet.json(&["show", "neighbors"]);
        all.as_array()?.iter().find(|n| n["interface"] == "eth0" && n["state"] == "established").map(drop)
    });
    wait_for("the switch has the subnet", 20.0, || {
        let route = switch.ip("route show 10.244.1.0/24");
        (route.contains("via inet6 fe80::") && route.contains("dev port1")).then_some(())
    });
    assert_eq!(switch.ip("route show 198.18.0.0/24"), "", "what the filter refuses");
}

#[test]
fn the_unnumbered_frr_example_accepts_a_host() {
    let mut net = Net::new();
    let (switch, host) = unnumbered_rack(&mut net);
    let _frr = Frr::start(&net, &switch, block("frr-unnumbered"));
    let routelet = Routelet::start(&net, &host, UNNUMBERED, &[]);
    the_unnumbered_switch_accepts(&switch, &routelet);
}

#[test]
fn the_unnumbered_bird_example_accepts_a_host() {
    let mut net = Net::new();
    let (switch, host) = unnumbered_rack(&mut net);
    let _bird = Bird::start(&net, &switch, block("bird-unnumbered"));
    let routelet = Routelet::start(&net, &host, UNNUMBERED, &[]);
    the_unnumbered_switch_accepts(&switch, &routelet);
}
