//! A cluster that outgrows its mesh: reflectors elect themselves, and no kernel loses a route on the way.

use std::collections::BTreeSet;

use crate::{
    common::{net::Net, wait_for},
    world::{Node, Segment, all_routes},
};

const CONFIG: &str = "[kubernetes]\nmesh-limit = 4\n";

#[test]
fn the_fifth_node_of_a_mesh_for_four_makes_them_elect_reflectors() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes: Vec<_> = (1..=4).map(|n| join(&mut net, &segment, n)).collect();
    let mut cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    all_routes(&nodes, &cidrs);
    assert!(nodes.iter().all(|n| n.sessions().len() == 3), "a mesh");

    let monitors: Vec<_> = nodes.iter().map(|n| n.monitor(&net)).collect();
    let before = cidrs.concat();
    nodes.push(join(&mut net, &segment, 5));
    cidrs.push(segment.plane.pod_cidrs("n5"));
    let chosen = wait_for("all name the same three reflectors", 60.0, || {
        let all: BTreeSet<_> = nodes.iter().map(reflectors).collect();
        (all.len() == 1).then(|| all.into_iter().next()).flatten().filter(|r| r.len() == 3)
    });
    let clients: Vec<_> = nodes.iter().filter(|n| !chosen.contains(&n.name)).collect();
    wait_for("clients have the reflectors alone", 60.0, || {
        clients.iter().all(|n| n.sessions().len() == 3).then_some(())
    });
    all_routes(&nodes, &cidrs);
    monitors.iter().for_each(|m| m.lost_none_of(&before));
    let (first, second) = (clients[0], clients[1]);
    let route =
        |index: usize| cidrs[nodes.iter().position(|n| n.name == second.name).unwrap()][index].clone();
    let path = first.daemon().json(&["show", "routes", &route(0)]);
    assert_eq!(
        path[0]["next_hop"],
        second.addresses[0].as_str(),
        "the reflected route leads straight there: {path}"
    );

    // A label takes the place of one of them.
    let leaving = chosen.iter().next().unwrap().clone();
    let label = ["label", "node", &leaving, "routelet.io/route-reflector=false"];
    segment.plane.kubectl(&label);
    wait_for("another one is elected", 60.0, || {
        nodes.iter().all(|n| reflectors(n).len() == 3 && !reflectors(n).contains(&leaving)).then_some(())
    });
    all_routes(&nodes, &cidrs);
}

fn join(net: &mut Net, segment: &Segment, n: usize) -> Node {
    let mut node = segment.node(net, n);
    node.register(&segment.plane);
    node.start(net, &segment.plane, CONFIG);
    node
}

fn reflectors(node: &Node) -> BTreeSet<String> {
    let shown = node.daemon().json(&["show", "node"]);
    let names = shown["reflectors"].as_array().expect("a list");
    names.iter().filter_map(|n| Some(n.as_str()?.to_owned())).collect()
}
