//! A cluster that outgrows its mesh: reflectors elect themselves, and no kernel loses a route on the way.

use std::collections::BTreeSet;

use crate::{
    common::{
        net::Net,
        probe::{Probe, none_lost},
        wait_for,
    },
    pods::Pod,
    world::{Node, Segment, all_routes},
};

const CONFIG: &str = "[kubernetes]\nmesh-limit = 4\n";

/// calico#3819: the switch from mesh to reflectors was an outage of the whole cluster.
#[test]
fn calico_3819_the_fifth_node_of_a_mesh_for_four_makes_them_elect_reflectors_and_loses_nothing() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes: Vec<_> = (1..=4).map(|n| join(&mut net, &segment, n, CONFIG)).collect();
    let mut cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    all_routes(&nodes, &cidrs);
    assert!(nodes.iter().all(|n| n.sessions().len() == 3), "a mesh");

    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    let pairs = [(0, 1), (1, 2), (2, 3), (3, 0)];
    let probes: Vec<_> = pairs.iter().flat_map(|(a, b)| probes(&net, &pods[*a], &pods[*b])).collect();
    let monitors: Vec<_> = nodes.iter().map(|n| n.monitor(&net)).collect();
    let before = cidrs.concat();
    nodes.push(join(&mut net, &segment, 5, CONFIG));
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
    none_lost(probes);
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

/// calico#9259: all reflectors off, and after the stale time every node lost all routes. Here nodes meet directly: no route goes
/// while they are off, and none when they come back.
#[test]
fn calico_9259_with_all_reflectors_off_nodes_go_on_for_longer_than_the_stale_time() {
    const STALE: u64 = 10;
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let config = format!("[bgp]\nrestart-time = {STALE}\n{CONFIG}");
    let mut nodes: Vec<_> = (1..=5).map(|n| join(&mut net, &segment, n, &config)).collect();
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    let chosen = wait_for("all name the same three reflectors", 60.0, || {
        let all: BTreeSet<_> = nodes.iter().map(reflectors).collect();
        (all.len() == 1).then(|| all.into_iter().next()).flatten().filter(|r| r.len() == 3)
    });
    let (off, clients): (Vec<usize>, Vec<usize>) = (0..5).partition(|n| chosen.contains(&nodes[*n].name));
    wait_for("clients have the reflectors alone", 60.0, || {
        clients.iter().all(|n| nodes[*n].sessions().len() == 3).then_some(())
    });
    all_routes(&nodes, &cidrs);
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    let pairs = [(clients[0], clients[1]), (clients[1], off[0]), (off[1], clients[0])];
    let probes: Vec<_> = pairs.iter().flat_map(|(a, b)| probes(&net, &pods[*a], &pods[*b])).collect();
    let monitors: Vec<_> = nodes.iter().map(|n| n.monitor(&net)).collect();
    let all = cidrs.concat();

    for n in &off {
        nodes[*n].routelet.as_mut().unwrap().process.kill();
    }
    wait_for("clients have each other alone", 60.0, || {
        clients.iter().all(|n| nodes[*n].sessions().len() == clients.len() - 1).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(3 * STALE));
    clients.iter().for_each(|n| monitors[*n].lost_none_of(&all));
    all_routes(&nodes, &cidrs);
    // One that is restarted meanwhile keeps what it finds: it meets the other client, but the Nodes of those that are off are
    // there, and the API server has the pods behind them. Three times the restart time are over before the next look.
    let alone = nodes[clients[0]].routelet.as_mut().unwrap();
    alone.process.kill();
    alone.restart();
    std::thread::sleep(std::time::Duration::from_secs(4 * STALE));
    all_routes(&nodes, &cidrs);
    clients.iter().for_each(|n| monitors[*n].lost_none_of(&all));

    off.iter().for_each(|n| nodes[*n].daemon_mut().spawn());
    off.iter().for_each(|n| nodes[*n].daemon_mut().wait_ready());
    wait_for("all are back", 120.0, || clients.iter().all(|n| nodes[*n].sessions().len() == 3).then_some(()));
    wait_for("nothing is stale any more", 60.0, || {
        let routes = nodes[clients[0]].daemon().json(&["show", "routes"]);
        routes.as_array()?.iter().all(|r| r["stale"] == false).then_some(())
    });
    all_routes(&nodes, &cidrs);
    monitors.iter().for_each(|m| m.lost_none_of(&all));
    none_lost(probes);
}

fn join(net: &mut Net, segment: &Segment, n: usize, config: &str) -> Node {
    let mut node = segment.node(net, n);
    node.register(&segment.plane);
    node.start(net, &segment.plane, config);
    node
}

/// In both families.
fn probes(net: &Net, from: &Pod, to: &Pod) -> Vec<Probe> {
    to.addresses.iter().map(|address| Probe::start_when_reached(net, &from.ns, address)).collect()
}

fn reflectors(node: &Node) -> BTreeSet<String> {
    let shown = node.daemon().json(&["show", "node"]);
    let names = shown["reflectors"].as_array().expect("a list");
    names.iter().filter_map(|n| Some(n.as_str()?.to_owned())).collect()
}
