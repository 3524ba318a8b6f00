//! Nodes on which no routelet runs, and Nodes whose addresses are missing or cannot be right.

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{
        net::Net,
        probe::{Probe, none_lost},
        wait_for,
    },
    reported::mesh,
    scale::fill,
    world::{Node, Segment, all_reach_all, all_routes},
};

/// A Node at 10.99.1.N, at which nobody is.
fn fake(n: usize, labels: Value, reason: Option<&str>) -> Value {
    let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" });
    let network =
        reason.map(|reason| json!({ "type": "NetworkUnavailable", "status": "False", "reason": reason }));
    let conditions: Vec<_> = std::iter::once(ready).chain(network).collect();
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("fake-{n}"), "labels": labels },
        "status": { "addresses": [{ "type": "InternalIP", "address": format!("10.99.1.{n}") }],
            "conditions": conditions } })
}

fn join(net: &mut Net, segment: &Segment, n: usize, config: &str) -> Node {
    let mut node = segment.node(net, n);
    node.register(&segment.plane);
    node.start(net, &segment.plane, config);
    node
}

fn problems(node: &Node) -> String {
    node.daemon().json(&["show", "summary"])["problems"].to_string()
}

fn is_ready(node: &Node) -> bool {
    node.daemon().json(&["show", "summary"])["ready"] == true
}

fn events(plane: &ControlPlane) -> String {
    plane.kubectl(&["get", "events", "-n", "default", "-o", "jsonpath={.items[*].message}"])
}

fn wait_sessions(nodes: &[Node], each: usize) {
    for node in nodes {
        wait_for(format!("{} has {each} sessions", node.name), 60.0, || {
            (node.sessions().len() == each).then_some(())
        });
    }
}

/// Five nodes among others: four that are there, one that joins, and a new image for all of them.
fn five_among(others: Vec<Value>, named: Option<&str>) {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    fill(&segment.plane, "/api/v1/nodes", others);
    let mut nodes: Vec<_> = (1..=4).map(|n| join(&mut net, &segment, n, "")).collect();
    let mut cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    nodes.iter().zip(&cidrs).for_each(|(node, own)| node.wait_conflist(own));
    all_routes(&nodes, &cidrs);
    let mut pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    all_reach_all(&pods);
    let pairs = [(0, 1), (1, 2), (2, 3), (3, 0)];
    let ways = pairs.iter().flat_map(|(a, b)| pods[*b].addresses.iter().map(|to| (&pods[*a], to)));
    let probes: Vec<_> = ways.map(|(from, to)| Probe::start_when_reached(&net, &from.ns, to)).collect();

    nodes.push(join(&mut net, &segment, 5, ""));
    cidrs.push(segment.plane.pod_cidrs("n5"));
    all_routes(&nodes, &cidrs);
    nodes[4].wait_conflist(&cidrs[4]);
    pods.push(nodes[4].pod(&mut net, "n5p"));
    all_reach_all(&pods);
    for (at, node) in nodes.iter_mut().enumerate() {
        let daemon = node.daemon_mut();
        let _ = if at % 2 == 0 { daemon.process.stop() } else { daemon.process.kill() };
        daemon.restart();
        // As a rolling update waits.
        wait_for(format!("{} is ready", node.name), 90.0, || is_ready(node).then_some(()));
    }
    wait_sessions(&nodes, 4);
    all_routes(&nodes, &cidrs);
    all_reach_all(&pods);
    none_lost(probes);
    for node in &nodes {
        match named {
            Some(what) => assert!(problems(node).contains(what), "{}: {}", node.name, problems(node)),
            None => assert_eq!(problems(node), "[]", "{}", node.name),
        }
    }
}

/// NVSentinel#1567, kwok#1744: marked ones, unmarked ones, and those that a fake kubelet gives a condition.
#[test]
fn kwok_1744_five_nodes_among_a_hundred_fake_ones_meet_and_lose_no_probe() {
    let kind = |n: usize| match n % 4 {
        0 => (json!({ "kubernetes.io/os": "windows" }), None),
        1 => (json!({ "type": "kwok" }), Some("RouteletIsUp")),
        2 => (json!({ "kubernetes.io/os": "linux" }), Some("RouteCreated")),
        _ => (json!({}), None),
    };
    let one = |n| {
        let (labels, reason) = kind(n);
        fake(n, labels, reason)
    };
    five_among((1..=100).map(one).collect(), None);
}

/// routelet ran on all of them once; they are elected.
#[test]
fn kwok_1744_nodes_that_routelet_left_are_elected_and_the_others_meet_directly() {
    let left = (1..=110).map(|n| fake(n, json!({}), Some("RouteletIsUp"))).collect();
    five_among(left, Some("no route reflector can be reached"));
}

fn unavailable(plane: &ControlPlane, node: &str) -> String {
    let path = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    plane.kubectl(&["get", "node", node, "-o", path])
}

#[test]
fn calico_4595_windows_nodes_are_no_neighbors_and_a_node_cut_off_does_not_claim_a_network() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let windows = (1..=11).map(|n| fake(n, json!({ "kubernetes.io/os": "windows" }), None)).collect();
    fill(&segment.plane, "/api/v1/nodes", windows);
    let (mut nodes, cidrs) = mesh(&mut net, &mut segment, 3, "[kubernetes]\nmesh-limit = 5\n");
    for node in &nodes {
        let neighbors = node.daemon().json(&["show", "neighbors"]);
        assert_eq!(neighbors.as_array().map(Vec::len), Some(2), "nobody dials Windows: {neighbors}");
        wait_for("the network is there", 60.0, || {
            (unavailable(&segment.plane, &node.name) == "False").then_some(())
        });
    }

    // A firewall takes n3 off: what its kernel has stays, and it does not claim more.
    nodes[2].daemon_mut().process.kill();
    let drop = "add table inet fw; add chain inet fw in { type filter hook input priority 0; }; \
                add chain inet fw out { type filter hook output priority 0; }; \
                add rule inet fw in tcp dport 179 drop; add rule inet fw out tcp dport 179 drop";
    nodes[2].ns.sh(&format!("nft '{drop}'"));
    nodes[2].daemon_mut().restart();
    wait_for("n3 is cut off", 120.0, || {
        problems(&nodes[2]).contains("this node has no BGP session").then_some(())
    });
    assert!(!is_ready(&nodes[2]), "not ready");
    wait_for("its condition", 120.0, || (unavailable(&segment.plane, "n3") == "True").then_some(()));
    wait_for("its Event", 60.0, || {
        events(&segment.plane).contains("this node has no BGP session").then_some(())
    });
    assert!(nodes[2].has_route(&cidrs[0][0]), "its kernel goes on");
    assert!(!problems(&nodes[0]).contains("no BGP session") && is_ready(&nodes[0]));

    nodes[2].ns.sh("nft delete table inet fw");
    wait_for("n3 is ready", 180.0, || is_ready(&nodes[2]).then_some(()));
    wait_for("its condition", 60.0, || (unavailable(&segment.plane, "n3") == "False").then_some(()));
    wait_for("no problem", 60.0, || (problems(&nodes[2]) == "[]").then_some(()));
    all_routes(&nodes, &cidrs);
}

#[test]
fn cloud_provider_openstack_280_addresses_that_vanish_cost_no_probe() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, cidrs) = mesh(&mut net, &mut segment, 3, "");
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    all_reach_all(&pods);
    let pairs = [(0, 1), (1, 0), (2, 1)];
    let ways = pairs.iter().flat_map(|(a, b)| pods[*b].addresses.iter().map(|to| (&pods[*a], to)));
    let probes: Vec<_> = ways.map(|(from, to)| Probe::start_when_reached(&net, &from.ns, to)).collect();
    let sessions: Vec<_> = nodes.iter().map(Node::sessions).collect();

    segment.plane.set_addresses("n2", &[]);
    wait_for("n1 names it", 30.0, || problems(&nodes[0]).contains("for node n2").then_some(()));
    let own = "the Node no longer reports its InternalIP 10.99.0.12, fd00:99::12";
    wait_for("n2 names it", 30.0, || problems(&nodes[1]).contains(own).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!(nodes.iter().map(Node::sessions).collect::<Vec<_>>(), sessions, "nothing happened");
    // One family is not there for a moment.
    segment.plane.set_addresses("n2", &["fd00:99::12"]);
    segment.plane.set_addresses("n2", &[]);
    // A restart meanwhile, of another node and of the own one.
    for at in [0, 1] {
        nodes[at].daemon_mut().process.kill();
        nodes[at].daemon_mut().restart();
        wait_for("all are met again", 90.0, || (nodes[at].sessions().len() == 2).then_some(()));
    }
    wait_for("both name it again", 30.0, || {
        (problems(&nodes[0]).contains("for node n2") && problems(&nodes[1]).contains(own)).then_some(())
    });
    segment.plane.set_addresses("n2", &["10.99.0.12", "fd00:99::12"]);
    for node in &nodes {
        wait_for("it is forgotten", 60.0, || (problems(node) == "[]").then_some(()));
    }
    wait_sessions(&nodes, 2);
    all_routes(&nodes, &cidrs);
    none_lost(probes);
}

#[test]
fn rancher_25042_one_internal_ip_on_two_nodes_is_an_event_and_no_session() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes: Vec<_> = (1..=2).map(|n| segment.node(&mut net, n)).collect();
    for node in &mut nodes {
        node.ns.ip("link add nat0 type bridge");
        node.ns.ip("addr add 10.0.2.15/24 dev nat0");
        node.ns.ip("link set nat0 up");
        segment.plane.create_node(&node.name);
        segment.plane.set_addresses(&node.name, &["10.0.2.15"]);
        node.start(&net, &segment.plane, "");
    }
    let same = |other: &str| format!("node {other} has the same InternalIP 10.0.2.15 as this node");
    for (node, other) in nodes.iter().zip(["n2", "n1"]) {
        wait_for(format!("{} names it", node.name), 60.0, || {
            problems(node).contains(&same(other)).then_some(())
        });
        let neighbors = node.daemon().json(&["show", "neighbors"]).to_string();
        assert!(!neighbors.contains("10.0.2.15"), "{neighbors}");
    }
    wait_for("an Event of each", 60.0, || {
        let said = events(&segment.plane);
        (said.contains(&same("n1")) && said.contains(&same("n2")) && said.contains("--node-ip")).then_some(())
    });
    // Then with an address that is on no interface.
    segment.plane.set_addresses("n2", &["10.99.0.77"]);
    let nowhere = "InternalIP 10.99.0.77 of this Node is on no interface of this host";
    wait_for("n2 names it", 60.0, || problems(&nodes[1]).contains(nowhere).then_some(()));
    // The kubelets have their --node-ip.
    for (n, node) in nodes.iter().enumerate() {
        segment.plane.set_addresses(&node.name, &[&format!("10.99.0.1{}", n + 1)]);
    }
    let cidrs = ["n1", "n2"].map(|n| segment.plane.pod_cidrs(n));
    all_routes(&nodes, &cidrs);
    for node in &nodes {
        wait_for("no problem", 60.0, || (problems(node) == "[]").then_some(()));
    }
}
