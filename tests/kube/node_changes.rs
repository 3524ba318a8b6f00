//! Changes of Nodes that the code of kube-router misses (`docs/troubles.md`), on a cluster.

use serde_json::Value;

use crate::{
    common::{net::Net, wait_for},
    reported::mesh,
    world::{Node, Segment, all_routes},
};

/// It ended where the pod CIDR was missing: a Node gets it when it gets it.
#[test]
fn kube_router_a_pod_cidr_that_is_missing_is_waited_for() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut node = segment.node(&mut net, 1);
    segment.plane.stop_controllers();
    node.start(&net, &segment.plane, "");
    let problems = |node: &Node| node.daemon().json(&["show", "node"])["problems"].to_string();
    wait_for("no Node", 60.0, || problems(&node).contains("the Node does not exist yet").then_some(()));
    node.register(&segment.plane);
    wait_for("no pod CIDR", 60.0, || problems(&node).contains("the Node has no pod CIDR yet").then_some(()));
    assert!(node.routelet.as_mut().unwrap().process.alive());
    assert_eq!(node.conflist(), None, "no file without a subnet");
    segment.plane.start_controllers();
    node.wait_conflist(&segment.plane.pod_cidrs("n1"));
    assert!(node.routelet.as_mut().unwrap().process.alive());
}

/// Changes of Nodes came in with the next full sync, if at all.
#[test]
fn kube_router_a_node_that_changes_its_address_is_followed() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (nodes, cidrs) = mesh(&mut net, &mut segment, 2, "");
    nodes[0].daemon().wait_established("10.99.0.12");
    nodes[1].ns.ip("addr add 10.99.0.112/24 dev eth0");
    segment.plane.set_addresses("n2", &["10.99.0.112", "fd00:99::12"]);
    nodes[0].daemon().wait_established("10.99.0.112");
    wait_for("the former neighbor goes", 60.0, || {
        nodes[0].daemon().session("10.99.0.12").is_none().then_some(())
    });
    wait_for("the next hop moves", 60.0, || {
        let path = nodes[0].daemon().json(&["show", "routes", &cidrs[1][0]])[0].clone();
        (path["next_hop"] == "10.99.0.112" && path["installed"] == true).then_some(())
    });
}

/// The order of a Node's InternalIPs changes, for one Node, then for both at once: no route leaves the kernel.
#[test]
fn internal_ips_in_another_order_cost_no_route() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (nodes, cidrs) = mesh(&mut net, &mut segment, 3, "");
    for (n, node) in nodes.iter().enumerate() {
        node.ns.ip(&format!("addr add 10.99.0.11{}/24 dev eth0", n + 1));
    }
    all_routes(&nodes, &cidrs);
    let monitors: Vec<_> = nodes.iter().map(|node| node.monitor(&net)).collect();
    let set = |n: usize, first: bool| {
        let (a, b) = (format!("10.99.0.1{n}"), format!("10.99.0.11{n}"));
        let (a, b) = if first { (a, b) } else { (b, a) };
        segment.plane.set_addresses(&format!("n{n}"), &[&a, &b, &format!("fd00:99::1{n}")]);
    };
    let address = |n: usize, first: bool| format!("10.99.0.1{}{n}", if first { "" } else { "1" });
    let mut first = [true; 3];
    for moves in [&[1][..], &[2], &[1, 2], &[1], &[1, 2, 3], &[3, 1]] {
        for n in moves {
            first[n - 1] = !first[n - 1];
            set(*n, first[n - 1]);
        }
        for (at, node) in nodes.iter().enumerate() {
            let others = (0..3).filter(|n| *n != at).map(|n| address(n + 1, first[n]));
            let mut want: Vec<_> = others.map(|a| (a, 64512)).collect();
            want.sort();
            wait_for(format!("{} has {want:?}", node.name), 60.0, || (neighbors(node) == want).then_some(()));
        }
    }
    all_routes(&nodes, &cidrs);
    for (at, monitor) in monitors.iter().enumerate() {
        let others = (0..3).filter(|n| *n != at);
        monitor.lost_none_of(&others.flat_map(|n| cidrs[n].clone()).collect::<Vec<_>>());
    }
}

fn neighbors(node: &Node) -> Vec<(String, u64)> {
    let all = node.daemon().json(&["show", "neighbors"]);
    let up = all.as_array().unwrap().iter().filter(|n| n["state"] == "established");
    let mut up: Vec<_> =
        up.map(|n| (n["address"].as_str().unwrap().to_owned(), n["remote_as"].as_u64().unwrap())).collect();
    up.sort();
    up
}

fn wait_neighbors(node: &Node, want: &[(usize, u64)]) {
    let want: Vec<_> = want.iter().map(|(n, asn)| (format!("10.99.0.1{n}"), *asn)).collect();
    wait_for(format!("{} has {want:?}", node.name), 90.0, || (neighbors(node) == want).then_some(()));
}

/// Its labels and annotations were read once, at the start.
#[test]
fn kube_router_labels_and_annotations_are_followed_without_a_restart() {
    let mut net = Net::new();
    let segment = Segment::new(&mut net, &[]);
    let mut nodes: Vec<_> = (1..=3).map(|n| segment.node(&mut net, n)).collect();
    for node in &mut nodes {
        node.register(&segment.plane);
        node.start(&net, &segment.plane, "[kubernetes]\npeering = \"reflectors\"\n");
    }
    let plane = &segment.plane;
    wait_for("nobody reflects", 60.0, || {
        let shown: Value = nodes[0].daemon().json(&["show", "summary"])["problems"].clone();
        shown.to_string().contains("no node has the label routelet.io/route-reflector=true").then_some(())
    });
    plane.kubectl(&["label", "node", "n1", "routelet.io/route-reflector=true"]);
    wait_neighbors(&nodes[0], &[(2, 64512), (3, 64512)]);
    wait_neighbors(&nodes[1], &[(1, 64512)]);
    plane.kubectl(&["label", "node", "n2", "routelet.io/route-reflector=true"]);
    plane.kubectl(&["label", "node", "n1", "routelet.io/route-reflector-"]);
    wait_neighbors(&nodes[1], &[(1, 64512), (3, 64512)]);
    wait_neighbors(&nodes[2], &[(2, 64512)]);

    plane.kubectl(&["annotate", "node", "n3", "routelet.io/as=65003", "routelet.io/router-id=192.0.2.3"]);
    wait_neighbors(&nodes[1], &[(1, 64512), (3, 65003)]);
    assert_eq!(nodes[2].daemon().json(&["show", "summary"])["router_id"], "192.0.2.3");
    plane.kubectl(&["annotate", "node", "n3", "routelet.io/peering=none"]);
    wait_neighbors(&nodes[2], &[]);
    wait_neighbors(&nodes[1], &[(1, 64512)]);
    plane.kubectl(&["annotate", "node", "n3", "routelet.io/peering-", "routelet.io/as-"]);
    wait_neighbors(&nodes[1], &[(1, 64512), (3, 64512)]);
}
