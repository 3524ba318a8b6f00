//! Two clusters with pod ranges of their own on one network, joined by route reflectors: pods of both reach each other.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    common::{
        daemons::Bird,
        net::{Net, Ns},
        wait_for,
    },
    gobgp::{BOTH_FAMILIES, GoBgp},
    pods::Pod,
    world::{Monitor, Node, Segment, all_reach_all, all_routes, nothing_is_rewritten},
};

const BIRD: &str = "10.99.0.3";
const GOBGP: &str = "10.99.0.4";
/// Pods of either.
const BOTH: [&str; 4] = ["10.244.0.0/16", "fd00:244::/48", "10.245.0.0/16", "fd00:245::/48"];
const SECOND: &str = "10.245.0.0/16,fd00:245::/48";

/// The clusters, two nodes each: n1 and n2 of the first, n3 and n4 of the second.
struct Two {
    nodes: Vec<Node>,
    cidrs: Vec<Vec<String>>,
    pods: Vec<Pod>,
    clusters: [Segment; 2],
    net: Net,
}

impl Two {
    /// Nothing started but the control planes.
    fn new() -> Self {
        let mut net = Net::new();
        let first = Segment::new(&mut net, &[]);
        let second = first.second(&mut net, SECOND);
        let mut two = Self { nodes: vec![], cidrs: vec![], pods: vec![], clusters: [first, second], net };
        for n in 1..=4 {
            let cluster = &mut two.clusters[(n - 1) / 2];
            let node = cluster.node(&mut two.net, n);
            node.register(&cluster.plane);
            two.cidrs.push(cluster.plane.pod_cidrs(&node.name));
            two.nodes.push(node);
        }
        assert!(two.cidrs[0][0].starts_with("10.244.") && two.cidrs[2][0].starts_with("10.245."));
        two
    }

    /// Starts routelet on each, with the configuration of its number, and pods when all routes are there.
    fn start(&mut self, config: impl Fn(usize) -> String) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.start(&self.net, &self.clusters[at / 2].plane, &config(at + 1));
        }
        for (node, own) in self.nodes.iter().zip(&self.cidrs) {
            node.wait_conflist(own);
        }
        all_routes(&self.nodes, &self.cidrs);
        self.pods = self.nodes.iter().map(|n| n.pod(&mut self.net, &format!("{}p", n.name))).collect();
        all_reach_all(&self.pods);
        nothing_is_rewritten(&self.pods[0], &self.pods[3]);
    }

    fn monitors(&self) -> Vec<Monitor> {
        self.nodes.iter().map(|n| n.monitor(&self.net)).collect()
    }

    /// Whatever became of the reflectors: every route is still there, and was all the time.
    fn nothing_was_lost(&self, monitors: &[Monitor]) {
        let all = self.cidrs.concat();
        monitors.iter().for_each(|m| m.lost_none_of(&all));
        for (at, node) in self.nodes.iter().enumerate() {
            let others = self.cidrs.iter().enumerate().filter(|(n, _)| *n != at);
            others.flat_map(|(_, c)| c).for_each(|p| assert!(node.has_route(p), "{} to {p}", node.name));
        }
        all_reach_all(&self.pods);
    }

    /// Each node has heard everything anew from this neighbor.
    fn advertised_again(&self, by: &str) {
        for (at, node) in self.nodes.iter().enumerate() {
            let others = self.cidrs.iter().enumerate().filter(|(n, _)| *n != at).flat_map(|(_, c)| c);
            let others: Vec<_> = others.collect();
            wait_for(format!("{by} has told {} all", node.name), 120.0, || {
                let paths = node.daemon().json(&["show", "routes", "--neighbor", by]);
                let fresh = |p: &Value| p["stale"] == false && p["reason"] != "next hop unreachable";
                let has = |c: &&&String| {
                    paths.as_array().is_some_and(|l| l.iter().any(|p| p["prefix"] == c.as_str() && fresh(p)))
                };
                (others.iter().filter(has).count() == others.len()).then_some(())
            });
        }
    }

    fn wait_session(&self, with: &str, up: bool) {
        for node in &self.nodes {
            wait_for(format!("{}: the session with {with} is up: {up}", node.name), 120.0, || {
                (node.sessions().contains_key(with) == up).then_some(())
            });
        }
    }
}

fn bird(net: &Net, ns: &Ns, options: &[&str]) -> Bird {
    let mut text =
        String::from("router id 10.99.0.3;\nprotocol device {}\nprotocol direct { ipv4; ipv6; }\n");
    for n in 1..=4 {
        let _ = writeln!(
            text,
            "protocol bgp n{n} {{ local {BIRD} as 64512; neighbor 10.99.0.1{n} as 64512; rr client;\n\
             connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
             graceful restart on; graceful restart time 600;\n\
             ipv4 {{ import all; export where source = RTS_BGP; }}; ipv6 {{ import all; export where source = RTS_BGP; }}; }}"
        );
    }
    Bird::start_with(net, ns, &text, options)
}

fn gobgp(net: &Net, ns: &Ns) -> GoBgp {
    let mut text =
        format!("[global.config]\nas = 64512\nrouter-id = \"{GOBGP}\"\nlocal-address-list = [\"{GOBGP}\"]\n");
    for n in 1..=4 {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.1{n}\"\npeer-as = 64512\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
             [neighbors.route-reflector.config]\nroute-reflector-client = true\n\
             route-reflector-cluster-id = \"{GOBGP}\"\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 600\n{BOTH_FAMILIES}"
        );
    }
    GoBgp::start(net, ns, &text)
}

#[test]
fn bird_and_gobgp_as_reflectors_join_two_clusters() {
    let mut two = Two::new();
    let segment = &two.clusters[0];
    let (at_bird, _) = segment.machine(&mut two.net, "bird", "3");
    let (at_gobgp, _) = segment.machine(&mut two.net, "gobgp", "4");
    let mut first = bird(&two.net, &at_bird, &[]);
    let mut second = gobgp(&two.net, &at_gobgp);
    two.start(|_| {
        let neighbor = |a: &str| format!("[[bgp.neighbor]]\naddress = \"{a}\"\nremote-as = \"internal\"\n");
        format!("[kubernetes]\npeering = \"none\"\n{}{}", neighbor(BIRD), neighbor(GOBGP))
    });
    two.advertised_again(BIRD);
    two.advertised_again(GOBGP);
    for node in &two.nodes {
        let with: Vec<_> = node.sessions().into_keys().collect();
        assert_eq!(with, [BIRD, GOBGP], "{}: with the reflectors and nobody else", node.name);
    }
    let path = two.nodes[0].daemon().json(&["show", "routes", &two.cidrs[2][0]]);
    assert_eq!(path[0]["next_hop"], "10.99.0.13", "straight to the node: {path}");

    let monitors = two.monitors();
    first.process.kill();
    two.wait_session(BIRD, false);
    two.nothing_was_lost(&monitors);
    second.process.kill();
    two.wait_session(GOBGP, false);
    two.nothing_was_lost(&monitors);

    let _first = bird(&two.net, &at_bird, &["-R"]);
    two.wait_session(BIRD, true);
    two.advertised_again(BIRD);
    two.nothing_was_lost(&monitors);
    let _second = gobgp(&two.net, &at_gobgp);
    two.wait_session(GOBGP, true);
    two.advertised_again(GOBGP);
    two.nothing_was_lost(&monitors);
}

#[test]
fn labelled_nodes_as_reflectors_join_two_clusters() {
    let mut two = Two::new();
    for (cluster, reflector) in two.clusters.iter().zip(["n1", "n3"]) {
        cluster.plane.kubectl(&["label", "node", reflector, "routelet.io/route-reflector=true"]);
    }
    two.start(|n| {
        // The reflectors know each other.
        let other = match n {
            1 => "[[bgp.neighbor]]\naddress = \"10.99.0.13\"\nremote-as = \"internal\"\n",
            3 => "[[bgp.neighbor]]\naddress = \"10.99.0.11\"\nremote-as = \"internal\"\n",
            _ => "",
        };
        let accept = BOTH.map(|p| format!("\"{p}\"")).join(", ");
        format!("[kubernetes]\npeering = \"reflectors\"\nmesh-accept = [{accept}]\n{other}")
    });
    for (at, reflector) in [(1, "10.99.0.11"), (3, "10.99.0.13")] {
        let with: Vec<_> = two.nodes[at].sessions().into_keys().collect();
        assert_eq!(with, [reflector]);
        let shown = two.nodes[at].daemon().json(&["show", "node"]);
        assert_eq!(shown["reflectors"].as_array().map(Vec::len), Some(1), "{shown}");
    }

    let monitors = two.monitors();
    let lost = two.nodes[0].routelet.as_mut().unwrap();
    lost.process.kill();
    wait_for("n2 has lost its reflector", 60.0, || two.nodes[1].sessions().is_empty().then_some(()));
    two.nothing_was_lost(&monitors);
    two.nodes[0].routelet.as_mut().unwrap().restart();
    for (at, reflector) in [(1, "10.99.0.11"), (2, "10.99.0.11"), (3, "10.99.0.13")] {
        two.nodes[at].daemon().wait_established(reflector);
    }
    wait_for("n2 has heard everything again", 120.0, || {
        let paths = two.nodes[1].daemon().json(&["show", "routes", "--neighbor", "10.99.0.11"]);
        let fresh =
            paths.as_array()?.iter().filter(|p| p["stale"] == false && p["installed"] == true).count();
        (fresh == 6).then_some(())
    });
    two.nothing_was_lost(&monitors);
}
