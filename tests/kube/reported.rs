//! Failures that users of other programs reported (`docs/troubles.md`), on a cluster.

use serde_json::json;

use crate::{
    cluster::manifest,
    common::{
        net::Net,
        probe::{Probe, none_lost},
        wait_for,
    },
    pods::Pod,
    world::{Node, Segment, all_reach_all, all_routes, reaches},
};

/// Nodes that know each other, and their pod CIDRs.
pub fn mesh(
    net: &mut Net,
    segment: &mut Segment,
    count: usize,
    config: &str,
) -> (Vec<Node>, Vec<Vec<String>>) {
    let mut nodes: Vec<_> = (1..=count).map(|n| segment.node(net, n)).collect();
    for node in &mut nodes {
        node.register(&segment.plane);
        node.start(net, &segment.plane, config);
    }
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    nodes.iter().zip(&cidrs).for_each(|(node, own)| node.wait_conflist(own));
    all_routes(&nodes, &cidrs);
    (nodes, cidrs)
}

fn pods(net: &mut Net, nodes: &[Node]) -> Vec<Pod> {
    nodes.iter().map(|n| n.pod(net, &format!("{}p", n.name))).collect()
}

/// Every pod to the next one, in each family.
fn ring(net: &Net, pods: &[Pod]) -> Vec<Probe> {
    let pairs = pods.iter().zip(pods.iter().cycle().skip(1));
    pairs
        .flat_map(|(from, to)| {
            to.addresses.iter().map(|a| Probe::start_when_reached(net, &from.ns, a)).collect::<Vec<_>>()
        })
        .collect()
}

/// Each of these nodes has sessions with all others, and has heard all of them.
fn settled(nodes: &[Node]) {
    for node in nodes {
        wait_for(format!("{} has settled", node.name), 60.0, || {
            let neighbors = node.daemon().json(&["show", "neighbors"]);
            let up = neighbors.as_array()?.iter().filter(|n| n["state"] == "established").count();
            let routes = node.daemon().json(&["show", "routes"]);
            let fresh = routes.as_array()?.iter().all(|r| r["stale"] == false);
            (up + 1 == nodes.len() && fresh).then_some(())
        });
    }
}

/// kube-router#792, #675: a rolling update of the DaemonSet dropped all pod routes.
#[test]
fn kube_router_792_a_rolling_update_of_all_nodes_loses_no_probe() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, _) = mesh(&mut net, &mut segment, 3, "");
    let pods = pods(&mut net, &nodes);
    let probes = ring(&net, &pods);
    // One by one, then two together; last as no update should be, but some are.
    for (turn, kill) in
        [(vec![0], false), (vec![1], false), (vec![2], false), (vec![0, 1], false), (vec![1, 2], true)]
    {
        for n in &turn {
            let process = &mut nodes[*n].routelet.as_mut().unwrap().process;
            if kill {
                process.kill()
            } else {
                process.stop()
            };
        }
        probes.iter().for_each(Probe::goes_on);
        for n in &turn {
            nodes[*n].routelet.as_mut().unwrap().restart();
        }
        settled(&nodes);
        probes.iter().for_each(Probe::goes_on);
    }
    none_lost(probes);
}

/// calico#7144, #2211: two nodes reboot together, one stays away, and the other one waits for it. The restart time is an hour
/// here, so that whoever waits is not done in time.
#[test]
fn calico_7144_of_two_nodes_that_reboot_together_one_does_not_wait_for_the_other() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, cidrs) = mesh(&mut net, &mut segment, 3, "[bgp]\nrestart-time = 3600\n");
    for node in &mut nodes[..2] {
        node.routelet.as_mut().unwrap().process.kill();
    }
    // The second one stays dead. The first one comes up as a machine does: without a route, an object, or a file of ours.
    nodes[1].ns.ip("link set eth0 down");
    nodes[0].ns.sh("ip -4 route flush proto 179; ip -6 route flush proto 179; ip nexthop flush");
    std::fs::remove_file(nodes[0].conf_dir.join("10-routelet.conflist")).unwrap();
    nodes[0].routelet.as_mut().unwrap().restart();
    nodes[0].wait_conflist(&cidrs[0]);
    cidrs[2].iter().for_each(|prefix| nodes[0].wait_route(prefix));
    for prefix in &cidrs[0] {
        wait_for("n3 has heard it anew", 60.0, || {
            let path = nodes[2].daemon().json(&["show", "routes", prefix])[0].clone();
            (path["stale"] == false && path["installed"] == true).then_some(())
        });
    }
    wait_for("n1 is ready", 60.0, || {
        (nodes[0].daemon().json(&["show", "summary"])["ready"] == true).then_some(())
    });
    let (a, c) = (nodes[0].pod(&mut net, "a"), nodes[2].pod(&mut net, "c"));
    all_reach_all(&[a, c]);
}

/// flannel#2554: a node that was deleted while the agent was down left its route for ever.
#[test]
fn flannel_2554_the_route_of_a_node_deleted_while_the_daemon_was_down_goes() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, cidrs) = mesh(&mut net, &mut segment, 3, "");
    for node in &mut nodes[..2] {
        node.routelet.as_mut().unwrap().process.kill();
    }
    nodes[1].ns.ip("link set eth0 down");
    segment.plane.delete_node("n2");
    assert!(cidrs[1].iter().all(|prefix| nodes[0].has_route(prefix)), "nobody took it away");
    let monitor = nodes[0].monitor(&net);
    nodes[0].routelet.as_mut().unwrap().restart();
    for prefix in &cidrs[1] {
        for node in [&nodes[0], &nodes[2]] {
            wait_for(format!("{} drops {prefix}", node.name), 60.0, || {
                (!node.has_route(prefix)).then_some(())
            });
        }
    }
    nodes[0].daemon().wait_established("10.99.0.13");
    assert!(cidrs[2].iter().all(|prefix| nodes[0].has_route(prefix)));
    monitor.lost_none_of(&cidrs[2]);
}

/// kube-router#496, rke2#11170: a Node that comes again with another pod CIDR. Pods that are there live on until they are
/// deleted, new ones start in the new range, and nobody loses a packet.
#[test]
fn kube_router_496_pods_of_the_former_pod_cidr_are_served_until_the_last_is_gone() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (nodes, cidrs) = mesh(&mut net, &mut segment, 2, "");
    let (n1, n2) = (&nodes[0], &nodes[1]);
    let old = n1.pod(&mut net, "old");
    let far = n2.pod(&mut net, "far");
    let to_old: Vec<_> = old.addresses.iter().map(|a| Probe::start_when_reached(&net, &far.ns, a)).collect();
    let to_far: Vec<_> = far.addresses.iter().map(|a| Probe::start_when_reached(&net, &old.ns, a)).collect();

    // The range that it had is not given to another one: nodes are made by hand here.
    segment.plane.stop_controllers();
    let fresh = ["10.244.77.0/24", "fd00:244:0:77::/64"];
    segment.plane.delete_node("n1");
    segment.plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "spec": { "podCIDR": fresh[0], "podCIDRs": fresh } }));
    segment.plane.set_addresses("n1", &["10.99.0.11", "fd00:99::11"]);
    n1.wait_conflist(&fresh.map(str::to_owned));
    fresh.iter().for_each(|prefix| n2.wait_route(prefix));
    let new = n1.pod(&mut net, "new");
    assert!(new.addresses[0].starts_with("10.244.77."), "{:?}", new.addresses);
    assert!(cidrs[0].iter().all(|prefix| n2.has_route(prefix)), "advertised for the pod that is left");
    all_reach_all(&[old, far, new]);

    // One IPv4 address on the bridge, as its plugin wants it; the former gateway answers from `lo`. Both of IPv6.
    let gateway = |cidr: &str| cidr.replace(".0/24", ".1").replace("::/64", "::1");
    let on = |link: &str, family: &str| n1.ns.ip(&format!("{family} addr show dev {link} scope global"));
    assert_eq!(on("routelet0", "-4").matches("inet ").count(), 1, "{}", on("routelet0", "-4"));
    assert!(on("routelet0", "-4").contains(&gateway(fresh[0])));
    assert!(on("lo", "-4").contains(&gateway(&cidrs[0][0])), "{}", on("lo", "-4"));
    for cidr in [&cidrs[0][1], fresh[1]] {
        assert!(on("routelet0", "-6").contains(&gateway(cidr)), "{cidr}: {}", on("routelet0", "-6"));
    }
    let problems = n1.daemon().json(&["show", "node"])["problems"].to_string();
    assert!(problems.contains("still run: it is advertised until the last of them is gone"), "{problems}");
    none_lost(to_old);
    none_lost(to_far);
}

/// The end of the story above.
#[test]
fn kube_router_496_a_former_pod_cidr_is_given_up_with_its_last_pod() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (nodes, cidrs) = mesh(&mut net, &mut segment, 2, "");
    let old = nodes[0].pod(&mut net, "old");
    segment.plane.stop_controllers();
    segment.plane.delete_node("n1");
    segment.plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "spec": { "podCIDR": "10.244.77.0/24", "podCIDRs": ["10.244.77.0/24"] } }));
    segment.plane.set_addresses("n1", &["10.99.0.11", "fd00:99::11"]);
    nodes[0].wait_conflist(&["10.244.77.0/24".to_owned()]);
    nodes[1].wait_route("10.244.77.0/24");
    let new = nodes[0].pod(&mut net, "new");
    reaches(&nodes[1].ns, &old.addresses[0]);
    nodes[0].runtime.delete(&old);
    for prefix in &cidrs[0] {
        wait_for(format!("{prefix} is given up"), 60.0, || (!nodes[1].has_route(prefix)).then_some(()));
    }
    let left = ["addr", "route", "-6 route"].map(|what| nodes[0].ns.ip(what)).concat();
    let former = cidrs[0][0].trim_end_matches("0/24");
    assert!(!left.contains(former), "{left}");
    reaches(&nodes[1].ns, &new.addresses[0]);
}

/// kube-router#1668: an address that a cloud controller sets late was looked for after five minutes only.
#[test]
fn kube_router_1668_an_address_that_is_set_late_is_taken_at_once() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes = [segment.node(&mut net, 1), segment.node(&mut net, 2)];
    nodes[0].register(&segment.plane);
    segment.plane.create_node("n2");
    for node in &mut nodes {
        node.start(&net, &segment.plane, "");
    }
    let cidrs = [segment.plane.pod_cidrs("n1"), segment.plane.pod_cidrs("n2")];
    let problems = || nodes[1].daemon().json(&["show", "node"])["problems"].to_string();
    wait_for("it says what it waits for", 60.0, || {
        problems().contains("the Node has no InternalIP address yet").then_some(())
    });
    // Several of a family: the first counts. What is on a bridge or shared (a VIP) is no Node address.
    let [_, n2] = &nodes;
    n2.ns.ip("link add docker0 type bridge");
    n2.ns.ip("addr add 172.17.0.1/16 dev docker0");
    n2.ns.ip("link set docker0 up");
    for address in ["10.99.0.3/32", "10.99.0.112/24"] {
        n2.ns.ip(&format!("addr add {address} dev eth0"));
    }
    segment.plane.set_addresses("n2", &["10.99.0.12", "10.99.0.112", "fd00:99::12"]);
    for (node, others) in nodes.iter().zip([&cidrs[1], &cidrs[0]]) {
        others.iter().for_each(|prefix| node.wait_route(prefix));
    }
    nodes[0].daemon().wait_established("10.99.0.12");
    assert_eq!(nodes[1].daemon().json(&["show", "summary"])["router_id"], "10.99.0.12");
    let next_hop = &nodes[0].daemon().json(&["show", "routes", &cidrs[1][0]])[0]["next_hop"];
    assert_eq!(*next_hop, "10.99.0.12");
}

fn unavailable(segment: &Segment) -> String {
    let path = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    segment.plane.kubectl(&["get", "node", "n1", "-o", path])
}

fn set_unavailable(segment: &Segment) {
    let patch = r#"{"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}]}}"#;
    segment.plane.kubectl(&["patch", "node", "n1", "--subresource=status", "-p", patch]);
}

/// calico#7788, #8651, PR#11985: the condition was never cleared after one failed request, and was set at a shutdown, which a
/// cluster of one node did not survive.
#[test]
fn calico_7788_network_unavailable_heals_by_itself_and_is_never_set_at_a_shutdown() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut node = segment.node(&mut net, 1);
    node.register(&segment.plane);
    set_unavailable(&segment);
    // Every write is refused at first.
    let rules = segment.plane.kubectl(&["get", "clusterrole", "routelet", "-o", "json"]);
    let mut role: serde_json::Value = serde_json::from_str(&rules).unwrap();
    let without = |rule: &serde_json::Value| rule["resources"] != json!(["nodes/status"]);
    role["rules"].as_array_mut().unwrap().retain(without);
    segment.plane.apply(&role);
    node.start(&net, &segment.plane, "");
    node.wait_conflist(&segment.plane.pod_cidrs("n1"));
    wait_for("a refusal is said", 60.0, || {
        let log = node.daemon().process.printed();
        log.contains("cannot write condition NetworkUnavailable").then_some(())
    });
    assert_eq!(unavailable(&segment), "True");
    segment.plane.kubectl(&["apply", "-f", manifest().to_str().unwrap()]);
    wait_for("it is cleared", 60.0, || (unavailable(&segment) == "False").then_some(()));

    // Set by somebody while the API server cannot be asked by us, seen when it can.
    segment.plane.stop_api();
    wait_for("it is away", 60.0, || {
        (node.daemon().json(&["show", "node"])["api"]["connected"] == false).then_some(())
    });
    segment.plane.start_api();
    set_unavailable(&segment);
    wait_for("it is cleared again", 90.0, || (unavailable(&segment) == "False").then_some(()));

    // A stop of any kind leaves it.
    let daemon = node.routelet.as_mut().unwrap();
    assert!(daemon.process.stop().success());
    assert_eq!(unavailable(&segment), "False");
    daemon.restart();
    daemon.process.kill();
    assert_eq!(unavailable(&segment), "False");
}
