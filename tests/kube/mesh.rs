//! Three nodes on one segment without a router: the mesh, with an empty configuration.

use crate::{
    cluster::ControlPlane,
    common::net::Net,
    world::{Segment, all_reach_all, nothing_is_rewritten, reaches},
};

#[test]
fn three_nodes_on_one_segment_need_no_switch_and_no_configuration() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);

    let mut nodes = Vec::new();
    for n in 1..=3 {
        let mut node = segment.node(&mut net, n);
        // The daemon comes first: it waits for its Node.
        node.start(&net, &segment.plane, "");
        node.register(&segment.plane);
        nodes.push(node);
    }
    let plane = &mut segment.plane;
    let cidrs: Vec<_> = nodes.iter().map(|n| plane.pod_cidrs(&n.name)).collect();
    for (at, node) in nodes.iter().enumerate() {
        node.wait_conflist(&cidrs[at]);
        let others = cidrs.iter().enumerate().filter(|(n, _)| *n != at);
        others.flat_map(|(_, c)| c).for_each(|prefix| node.wait_route(prefix));
    }
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    all_reach_all(&pods);
    nothing_is_rewritten(&pods[0], &pods[2]);
    reaches(&nodes[0].ns, &pods[1].addresses[0]);

    let shown = nodes[0].daemon().json(&["show", "node"]);
    assert_eq!(shown["mesh_members"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!((&shown["node"], &shown["conflist"]["state"]), (&"n1".into(), &"written".into()), "{shown}");

    // The condition is ours to keep, whoever else writes it.
    wait_condition(plane, "n1");
    let patch = r#"{"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}}"#;
    plane.kubectl(&["patch", "node", "n1", "--subresource=status", "-p", patch]);
    wait_condition(plane, "n1");

    // Nobody outside knows the pods: they leave with the node's address.
    crate::common::wait_for("masquerade is on", 10.0, || {
        let listed = nodes[0].ns.command("nft").args(["list", "table", "inet", "routelet"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).contains("masquerade").then_some(())
    });

    // A node that leaves the cluster leaves the others' tables, after a grace in which it could be made anew.
    plane.delete_node("n3");
    crate::common::wait_for("the route to n3 goes", 60.0, || {
        (!nodes[0].has_route(&cidrs[2][0])).then_some(())
    });
}

fn wait_condition(plane: &ControlPlane, node: &str) {
    let path = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    crate::common::wait_for("NetworkUnavailable is False", 40.0, || {
        (plane.kubectl(&["get", "node", node, "-o", path]) == "False").then_some(())
    });
}
