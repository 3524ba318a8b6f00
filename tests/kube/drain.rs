//! A drained node among nodes of its own AS.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    common::{net::Net, wait_for},
    world::{Node, Segment, all_routes},
};

/// Announced by n1 and n2.
const SHARED: &str = "10.8.0.0/24";

/// Gateways of the route to it in the kernel of `node`.
fn hops(node: &Node) -> BTreeSet<String> {
    let fib = node.daemon().json(&["show", "fib"]);
    let there = |r: &&Value| r["prefix"] == SHARED && r["in_kernel"] == true;
    let hops = fib.as_array().expect("a list").iter().filter(there).flat_map(|r| r["next_hops"].as_array());
    hops.flatten().filter_map(|h| Some(h["address"].as_str()?.to_owned())).collect()
}

#[test]
fn in_a_mesh_a_drained_node_is_the_last_choice_before_it_withdraws() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let nodes = segment.nodes(&mut net, 3, |n| match n {
        3 => format!("[kubernetes]\nmesh-accept = [\"{SHARED}\"]\n"),
        _ => format!("[advertise]\nnetworks = [\"{SHARED}\"]\n[kubernetes]\nmesh-accept = [\"{SHARED}\"]\n"),
    });
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    all_routes(&nodes, &cidrs);
    let of = |names: &[usize]| names.iter().map(|n| format!("10.99.0.1{n}")).collect::<BTreeSet<_>>();
    wait_for("n3 uses both", 60.0, || (hops(&nodes[2]) == of(&[1, 2])).then_some(()));
    // Holds the node's pod CIDRs: nothing below depends on how long a step takes.
    segment.plane.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stays"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }));
    let path = |prefix: &str| {
        let paths = nodes[2].daemon().json(&["show", "routes", prefix, "--neighbor", "10.99.0.11"]);
        (paths[0]["local_pref"].clone(), paths[0]["communities"].to_string().contains("65535:0"))
    };
    assert_eq!(path(&cidrs[0][0]), (100.into(), false));

    let monitor = nodes[2].monitor(&net);
    let before = nodes[2].sessions();
    nodes[0].daemon().cli(&["drain"]);
    for prefix in &cidrs[0] {
        wait_for(format!("{prefix} is the last choice"), 60.0, || {
            (path(prefix) == (0.into(), true)).then_some(())
        });
    }
    wait_for("n3 uses the other", 60.0, || (hops(&nodes[2]) == of(&[2])).then_some(()));
    monitor.lost_none_of(&[&cidrs.concat()[..], &[SHARED.to_owned()]].concat());
    assert!(nodes[2].has_route(&cidrs[0][0]), "pods are reached until they are gone");
    let told = nodes[0].daemon().json(&["show", "summary"])["problems"].to_string();
    assert!(told.contains("routelet undrain"), "{told}");

    nodes[0].daemon().cli(&["undrain"]);
    wait_for("n3 uses both again", 60.0, || (hops(&nodes[2]) == of(&[1, 2])).then_some(()));
    wait_for("the preference is back", 60.0, || (path(&cidrs[0][0]) == (100.into(), false)).then_some(()));
    assert_eq!(nodes[2].sessions(), before, "the sessions stayed");
    monitor.lost_none_of(&[&cidrs.concat()[..], &[SHARED.to_owned()]].concat());
}
