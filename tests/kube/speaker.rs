//! A second speaker on the node, as a load balancer's or another network's agent is: it speaks with routelet on the loopback,
//! and routelet passes its routes on to the switch, which takes one session for each node.

use crate::{
    common::{
        daemons::{Bird, Frr},
        wait_for,
    },
    gobgp::{BOTH_FAMILIES, GoBgp},
    switch::{Rack, frr_config},
    world::{Node, reaches},
};

/// What it announces, and the way in which the switch is shown.
const EXPORT: &str = r#"
[bgp.group.gateway]
transit = true
export = ["to-the-switch"]

[[policy.to-the-switch]]
source = ["pod-cidr", "service"]
action = "accept"
[[policy.to-the-switch]]
neighbors = ["127.0.0.1"]
action = "accept"
[[policy.to-the-switch]]
action = "reject"

[[bgp.neighbor]]
address = "127.0.0.1"
port = 1790
"#;

const OF_N1: [&str; 2] = ["192.0.2.10", "2001:db8:2::10"];
const OF_N2: [&str; 2] = ["192.0.2.20", "2001:db8:2::20"];

fn gobgp(rack: &Rack) -> GoBgp {
    let config = format!(
        "[global.config]\nas = 64600\nrouter-id = \"192.0.2.254\"\nport = 1790\nlocal-address-list = [\"127.0.0.1\"]\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.0.1\"\npeer-as = 64512\n\
         [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"127.0.0.1\"\n{BOTH_FAMILIES}"
    );
    GoBgp::start(&rack.net, &rack.nodes[0].ns, &config)
}

/// It never says that a neighbor's own address is the next hop, so it is shown another.
fn bird(rack: &Rack) -> Bird {
    let config = format!(
        "router id 192.0.2.253;\nprotocol device {{}}\n\
         protocol static {{ ipv4; route {}/32 unreachable; }}\nprotocol static {{ ipv6; route {}/128 unreachable; }}\n\
         protocol bgp {{ local 127.0.0.1 port 1790 as 64512; neighbor 127.0.0.1 as 64512; passive;\n\
         ipv4 {{ import none; export all; next hop address 10.1.2.2; }}; ipv6 {{ import none; export all; next hop address fd00:1:2::2; }}; }}\n",
        OF_N2[0], OF_N2[1]
    );
    Bird::start(&rack.net, &rack.nodes[1].ns, &config)
}

/// What FRR says of a route, and over which address its kernel forwards.
fn switch_has(frr: &Frr, rack: &Rack, address: &str, via: &str) {
    let (family, len) = if address.contains(':') { ("-6", 128) } else { ("-4", 32) };
    wait_for(format!("the switch forwards {address} to {via}"), 60.0, || {
        let route = rack.switch.ip(&format!("{family} route show {address}"));
        let afi = if len == 32 { "ipv4" } else { "ipv6" };
        let shown = frr.vtysh(&format!("show bgp {afi} unicast {address}/{len}"));
        // FRR forwards IPv6 over the link-local address that comes with the next hop (RFC 2545 §3).
        let link_local = len == 128 && route.contains("via fe80::") && !route.contains("nexthop");
        ((route.contains(&format!("via {via} ")) || link_local) && shown.contains(via)).then_some(())
    });
}

fn kernel_has_no(node: &Node, addresses: &[&str]) {
    let routes = ["-4", "-6"].map(|f| node.ns.ip(&format!("{f} route show proto 179"))).concat();
    assert!(addresses.iter().all(|a| !routes.contains(a)), "{}: {routes}", node.name);
}

#[test]
fn a_second_speaker_on_the_node_is_passed_on_to_the_switch_with_the_nodes_own_address() {
    let mut rack = Rack::new();
    let frr = Frr::start(&rack.net, &rack.switch.clone(), &frr_config());
    for (n, remote) in [(0, "64600"), (1, "\"internal\"")] {
        let config = format!("{EXPORT}remote-as = {remote}\n");
        let (net, plane) = (&rack.net, &rack.plane);
        rack.nodes[n].start(net, plane, &config);
    }
    let cidrs: Vec<_> = ["n1", "n2"].iter().map(|n| rack.plane.pod_cidrs(n)).collect();
    let (mut gobgp, _bird) = (gobgp(&rack), bird(&rack));
    for node in &rack.nodes {
        node.daemon().wait_established("127.0.0.1");
    }

    // By the loopback as next hop, and by the node's address.
    gobgp.announce(&format!("{}/32", OF_N1[0]), None);
    gobgp.announce(&format!("{}/128", OF_N1[1]), Some("fd00:1:1::2"));
    switch_has(&frr, &rack, OF_N1[0], "10.1.1.2");
    switch_has(&frr, &rack, OF_N1[1], "fd00:1:1::2");
    switch_has(&frr, &rack, OF_N2[0], "10.1.2.2");
    switch_has(&frr, &rack, OF_N2[1], "fd00:1:2::2");
    let path = frr.json(&format!("show bgp ipv4 unicast {}/32", OF_N1[0]))["paths"][0].clone();
    assert_eq!(path["aspath"]["string"], "64512 64600", "{path}");
    let shown = rack.nodes[0].daemon().json(&["show", "routes", &format!("{}/32", OF_N1[0])]);
    assert_eq!((&shown[0]["best"], &shown[0]["installed"]), (&true.into(), &false.into()), "{shown}");
    assert!(shown[0]["reason"].as_str().unwrap().ends_with("served on this host"), "{shown}");
    kernel_has_no(&rack.nodes[0], &OF_N1);
    kernel_has_no(&rack.nodes[1], &OF_N2);

    // Who serves it answers, also where the address is on an interface, as kube-proxy's are in one mode.
    for (n, addresses) in [OF_N1, OF_N2].iter().enumerate() {
        rack.nodes[n].ns.ip(&format!("addr add {}/32 dev lo", addresses[0]));
        rack.nodes[n].ns.ip(&format!("addr add {}/128 dev lo nodad", addresses[1]));
    }
    for address in OF_N1.iter().chain(&OF_N2) {
        reaches(&rack.switch, address);
    }

    // The guard stands here too.
    let own = cidrs[0][0].clone();
    let overlaps = format!("guard: overlaps {own}, advertised by this host");
    let cases = [
        (own.as_str(), overlaps.as_str()),
        ("10.1.1.1/32", "guard: 10.1.1.1 (default gateway) is reached by 10.1.1.0/30, connected on eth0"),
        ("10.1.1.0/30", "guard: equal to a connected subnet (10.1.1.0/30 on eth0)"),
        ("0.0.0.0/0", "guard: default route without accept-default"),
    ];
    for (prefix, reason) in cases {
        gobgp.announce(prefix, None);
        wait_for(format!("{prefix} is refused"), 30.0, || {
            let shown = rack.nodes[0].daemon().json(&["show", "routes", prefix, "--neighbor", "127.0.0.1"]);
            (shown[0]["reason"] == reason).then_some(())
        });
    }
    // What was sent before them has arrived at the switch, so they would have, too.
    gobgp.announce("192.0.2.11/32", None);
    switch_has(&frr, &rack, "192.0.2.11", "10.1.1.2");
    let table = frr.vtysh("show bgp ipv4 unicast");
    assert!(!table.contains("10.1.1.1/32") && !table.contains("0.0.0.0/0"), "{table}");
    let path = frr.json(&format!("show bgp ipv4 unicast {own}"))["paths"][0].clone();
    assert_eq!(path["aspath"]["string"], "64512", "the pods' range is the node's own word: {path}");

    gobgp.process.kill();
    for address in OF_N1 {
        let family = if address.contains(':') { "-6" } else { "-4" };
        wait_for(format!("{address} goes with its speaker"), 60.0, || {
            (!rack.switch.ip(&format!("{family} route show {address}")).contains("via")).then_some(())
        });
    }
    switch_has(&frr, &rack, OF_N2[0], "10.1.2.2");

    // What is served here leaves with the node, and comes back with it.
    let n2 = rack.nodes[1].daemon();
    n2.cli(&["drain"]);
    wait_for("the drained node's are withdrawn", 60.0, || {
        (!rack.switch.ip(&format!("-4 route show {}", OF_N2[0])).contains("via")).then_some(())
    });
    n2.cli(&["undrain"]);
    switch_has(&frr, &rack, OF_N2[0], "10.1.2.2");
    switch_has(&frr, &rack, OF_N2[1], "fd00:1:2::2");
}
