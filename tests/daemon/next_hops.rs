//! Next hops of IPv6 (RFC 2545 §3) between routelet and the switches that others run.

use crate::common::{
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// A host and a switch with addresses of both families on one link.
fn link(net: &mut Net) -> (Ns, Ns) {
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    net.link((&host, "eth0"), (&switch, "eth0"));
    for (ns, n) in [(&host, 1), (&switch, 2)] {
        ns.ip(&format!("addr add 10.1.0.{n}/24 dev eth0"));
        ns.ip(&format!("addr add 2001:db8:1::{n}/64 dev eth0 nodad"));
        ns.ip("-6 addr flush dev eth0 scope link");
        ns.ip(&format!("addr add fe80::{n}/64 dev eth0 nodad"));
    }
    (host, switch)
}

fn config(neighbor: &str) -> String {
    format!(
        "[bgp]\nas = 65001\nrouter-id = \"10.0.0.1\"\nconnect-retry-time = 1\n\
         [[bgp.neighbor]]\naddress = \"{neighbor}\"\nremote-as = 65002\n\
         [advertise]\nnetworks = [\"10.44.0.0/16\", \"fd44::/48\"]\n"
    )
}

/// What the host's kernel has from us.
fn learned(host: &Ns) -> String {
    host.ip("-6 route show fd55::/48 proto 179")
}

#[test]
fn frr_takes_our_link_local_next_hops_and_we_take_its() {
    for neighbor in ["2001:db8:1::2", "10.1.0.2"] {
        let mut net = Net::new();
        let (host, switch) = link(&mut net);
        let us = if neighbor.contains(':') { "2001:db8:1::1" } else { "10.1.0.1" };
        let frr = format!(
            "router bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
             no bgp network import-check\n neighbor {us} remote-as 65001\n \
             address-family ipv6 unicast\n  neighbor {us} activate\n  network fd55::/48\n exit-address-family\n"
        );
        let frr = Frr::start(&net, &switch, &frr);
        let routelet = Routelet::start(&net, &host, &config(neighbor), &[]);
        routelet.wait_established(neighbor);
        let shown = wait_for("FRR has the route", 10.0, || {
            Some(frr.vtysh("show bgp ipv6 unicast fd44::/48")).filter(|t| t.contains("fe80::1"))
        });
        assert!(shown.contains("2001:db8:1::1") && shown.contains("best"), "{shown}");
        wait_for("FRR's kernel has it", 10.0, || {
            switch.ip("-6 route show fd44::/48").contains("via fe80::1").then_some(())
        });
        wait_for("the host has FRR's", 10.0, || learned(&host).contains("dev eth0").then_some(()));
    }
}

#[test]
fn bird_takes_our_link_local_next_hops_and_we_take_its() {
    let mut net = Net::new();
    let (host, switch) = link(&mut net);
    let bird = "router id 10.0.0.2; protocol device {} protocol static { ipv6; route fd55::/48 unreachable; } \
                protocol bgp host { local 2001:db8:1::2 as 65002; neighbor 2001:db8:1::1 as 65001; connect retry time 1; \
                ipv6 { import all; export all; next hop self; }; }";
    let bird = Bird::start(&net, &switch, bird);
    let routelet = Routelet::start(&net, &host, &config("2001:db8:1::2"), &[]);
    routelet.wait_established("2001:db8:1::2");
    wait_for("BIRD has the route with both addresses", 10.0, || {
        let shown = bird.birdc("show route all for fd44::/48");
        shown.contains("BGP.next_hop: 2001:db8:1::1 fe80::1").then_some(())
    });
    wait_for("the host has BIRD's", 10.0, || learned(&host).contains("dev eth0").then_some(()));
}
