//! The route guard in a cluster.

use crate::{
    cluster::ControlPlane,
    common::{
        daemons::Frr,
        net::{Net, Ns},
        wait_for,
    },
    world::Node,
};

const LOOPBACKS: [[&str; 2]; 2] = [["10.9.9.1", "fd09::1"], ["10.9.9.2", "fd09::2"]];

/// A node on a cable of its own, with its addresses on `lo`. Of the world it knows the network of the API server.
fn node(net: &mut Net, switch: &Ns, n: usize) -> Node {
    let (ns, port) = (net.ns(&format!("n{n}")), format!("t{n}"));
    net.link((switch, &port), (&ns, "eth0"));
    let own = LOOPBACKS[n - 1];
    switch.ip(&format!("addr add 10.1.{n}.1/31 dev {port}"));
    switch.ip(&format!("addr add fd00:1:{n}::/127 dev {port} nodad"));
    ns.ip(&format!("addr add 10.1.{n}.0/31 dev eth0"));
    ns.ip(&format!("addr add fd00:1:{n}::1/127 dev eth0 nodad"));
    ns.ip(&format!("addr add {}/32 dev lo", own[0]));
    ns.ip(&format!("addr add {}/128 dev lo nodad", own[1]));
    ns.ip(&format!("route add 10.99.0.0/24 via 10.1.{n}.1"));
    switch.ip(&format!("route add {}/32 via 10.1.{n}.0", own[0]));
    switch.ip(&format!("-6 route add {}/128 via fd00:1:{n}::1", own[1]));
    Node::new(net, &format!("n{n}"), &ns, &own)
}

fn frr(net: &Net, switch: &Ns) -> Frr {
    let mut text = "router bgp 65000\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n".to_owned();
    for n in 1..=2 {
        text += &format!(" neighbor 10.1.{n}.0 remote-as 64512\n neighbor fd00:1:{n}::1 remote-as 64512\n");
    }
    for [four, _] in LOOPBACKS {
        text += &format!(" network {four}/32\n");
    }
    text += " address-family ipv6 unicast\n";
    for n in 1..=2 {
        text += &format!("  neighbor fd00:1:{n}::1 activate\n");
    }
    for [_, six] in LOOPBACKS {
        text += &format!("  network {six}/128\n");
    }
    Frr::start(net, switch, &text)
}

/// From the node's own loopback: others know no route to its end of the cable.
fn pings(node: &Node, from: &str, to: &str) -> bool {
    let ping = node.ns.command("ping").args(["-n", "-c1", "-W1", "-I", from, to]).output();
    ping.is_ok_and(|out| out.status.success())
}

fn wait_session(node: &Node, address: &str) {
    wait_for(format!("{} has a session with {address}", node.name), 60.0, || {
        node.sessions().contains_key(address).then_some(())
    });
}

/// The loopbacks of other nodes are reached by what the switch announces, and by nothing else.
#[test]
fn cilium_17463_nodes_on_loopbacks_without_a_default_route_reach_each_other() {
    let mut net = Net::new();
    let (switch, cp) = (net.ns("switch"), net.ns("cp"));
    switch.sysctl("net.ipv4.ip_forward", "1");
    switch.sysctl("net.ipv6.conf.all.forwarding", "1");
    net.link((&switch, "cp"), (&cp, "eth0"));
    switch.ip("addr add 10.99.0.254/24 dev cp");
    cp.ip("addr add 10.99.0.1/24 dev eth0");
    cp.ip("route add default via 10.99.0.254");
    let plane = ControlPlane::start(&net, &cp, "10.99.0.1", &[]);
    let mut nodes = [node(&mut net, &switch, 1), node(&mut net, &switch, 2)];
    let _frr = frr(&net, &switch);
    for (n, node) in (1..).zip(&mut nodes) {
        node.register(&plane);
        let neighbors = format!(
            "[[bgp.neighbor]]\naddress = \"10.1.{n}.1\"\nremote-as = \"external\"\n\
             [[bgp.neighbor]]\naddress = \"fd00:1:{n}::\"\nremote-as = \"external\"\n"
        );
        node.start(&net, &plane, &neighbors);
    }
    let others = [LOOPBACKS[1], LOOPBACKS[0]];
    for ((node, own), other) in nodes.iter().zip(LOOPBACKS).zip(others) {
        for (from, to) in own.into_iter().zip(other) {
            node.wait_route(to);
            wait_for(format!("{} reaches {to}", node.name), 30.0, || pings(node, from, to).then_some(()));
        }
        wait_session(node, other[0]);
    }

    // With a default route of the host there is another way, and it is left alone.
    let reason = |address: &str| {
        let shown =
            nodes[0].daemon().json(&["show", "routes", &format!("{address}/32"), "--neighbor", "10.1.1.1"]);
        shown[0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    nodes[0].ns.ip("route add default via 10.1.1.1");
    wait_for("the learned one is refused", 30.0, || {
        (reason("10.9.9.2") == "guard: 10.9.9.2 (Node) is reached by the default route").then_some(())
    });
    wait_for("it is out of the kernel", 30.0, || (!nodes[0].has_route("10.9.9.2")).then_some(()));
    assert!(pings(&nodes[0], "10.9.9.1", "10.9.9.2"), "by the default route");
    assert!(nodes[0].has_route("fd09::2"), "there is none for IPv6");
    nodes[0].ns.ip("route del default");
    nodes[0].wait_route("10.9.9.2");
    // A route to the API server never comes from a neighbor while the host has its own.
    assert!(nodes[0].ns.ip("route get 10.99.0.1").contains("via 10.1.1.1"));
}
