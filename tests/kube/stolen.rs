//! A node that somebody has taken over: whatever it advertises, in a mesh or as the reflector, it takes nothing but its own pods.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    common::{daemons::Bird, net::Net, wait_for},
    world::{Node, Segment, all_reach_all, reaches},
};

/// What n3 advertises beside its own, with a LOCAL_PREF that would win.
const FOREIGN: [&str; 6] =
    ["8.8.8.8/32", "10.96.0.10/32", "10.96.0.0/12", "10.244.0.0/16", "192.0.2.0/24", "10.99.0.254/32"];

/// BIRD in the place of routelet on n3, with root's freedom.
fn bird(net: &Net, node: &Node, advertised: &[String], options: &str, ipv4: &str) -> Bird {
    let mut text = String::from("router id 10.99.0.13;\nprotocol device {}\nprotocol static { ipv4;\n");
    for prefix in advertised {
        let _ = writeln!(text, "route {prefix} via \"eth0\";");
    }
    text.push_str("}\n");
    for n in 1..=2 {
        let _ = writeln!(
            text,
            "protocol bgp n{n} {{ local 10.99.0.13 as 64512; neighbor 10.99.0.1{n} as 64512; {options}\n\
             connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
             ipv4 {{ {ipv4} import all; export filter {{ bgp_local_pref = 500; bgp_med = 0; accept; }}; }}; }}"
        );
    }
    Bird::start(net, &node.ns, &text)
}

/// The path from n3, once it is there.
fn path_of_n3(node: &Node, prefix: &str) -> Value {
    wait_for(format!("{} has {prefix} of n3", node.name), 60.0, || {
        let paths = node.daemon().json(&["show", "routes", prefix, "--received", "10.99.0.13"]);
        paths.get(0).cloned()
    })
}

fn refused(node: &Node, prefix: &str) {
    let path = path_of_n3(node, prefix);
    let reason = path["reason"].as_str().unwrap();
    assert!(reason.contains("not in the pod CIDRs of node n3") || reason.starts_with("guard: "), "{path}");
    assert_eq!(path["best"], false, "{path}");
    let kernel = node.ns.ip(&format!("-4 route show {prefix} proto 179"));
    assert!(!kernel.contains("10.99.0.13"), "{}: {kernel}", node.name);
}

/// Two halves of a prefix of 24 bits, and an address in it.
fn parts(prefix: &str) -> Vec<String> {
    let base = prefix.strip_suffix(".0/24").expect("a /24");
    vec![prefix.to_owned(), format!("{base}.0/25"), format!("{base}.128/25"), format!("{base}.7/32")]
}

#[test]
fn stolen_node_in_the_mesh_takes_nothing_but_its_own_pods() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let nodes = segment.nodes(&mut net, 2, |_| "[kubernetes]\npeering = \"mesh\"\n".into());
    let stolen = segment.node(&mut net, 3);
    stolen.register(&segment.plane);
    let cidrs: Vec<_> = ["n1", "n2", "n3"].iter().map(|n| segment.plane.pod_cidrs(n)).collect();
    nodes[0].wait_route(&cidrs[1][0]);
    nodes[1].wait_route(&cidrs[0][0]);
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    all_reach_all(&pods);
    let monitors: Vec<_> = nodes.iter().map(|n| n.monitor(&net)).collect();

    let foreign: Vec<String> = FOREIGN.map(str::to_owned).into();
    let others = [parts(&cidrs[0][0]), parts(&cidrs[1][0])].concat();
    let own = cidrs[2][0].clone();
    let all = [foreign.clone(), others.clone(), vec![own.clone()]].concat();
    let _bird = bird(&net, &stolen, &all, "", "next hop self;");
    for (at, node) in nodes.iter().enumerate() {
        node.wait_route(&own);
        for prefix in foreign.iter().chain(&parts(&cidrs[1 - at][0])) {
            refused(node, prefix);
        }
    }
    all_reach_all(&pods);
    monitors.iter().for_each(|m| m.lost_none_of(&cidrs[..2].concat()));
    wait_for("the node is a problem", 40.0, || {
        let shown = nodes[0].daemon().json(&["show", "summary"])["problems"].to_string();
        (shown.contains("10.99.0.13 (node n3) advertises prefixes that are not in the pod CIDRs"))
            .then_some(())
    });

    // Its kubelet reports what is others', and a Service's.
    let sessions = nodes[0].sessions();
    segment.plane.set_addresses("n3", &["10.99.0.13", "10.99.0.12", "10.96.0.1"]);
    wait_for("the claim is a problem", 60.0, || {
        let shown = nodes[0].daemon().json(&["show", "node"]).to_string();
        shown.contains("have the same InternalIP 10.99.0.12").then_some(())
    });
    let now = nodes[0].sessions();
    assert_eq!(now.get("10.99.0.12"), sessions.get("10.99.0.12"), "the session with n2 is the same: {now:?}");
    all_reach_all(&pods);

    // Its Node is deleted: nothing of it is left.
    segment.plane.delete_node("n3");
    wait_for("its routes go", 60.0, || (!nodes[0].has_route(&own)).then_some(()));
    reaches(&nodes[0].ns, &pods[1].addresses[0]);
}

#[test]
fn stolen_reflector_leads_no_pods_to_itself() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let nodes = segment.nodes(&mut net, 2, |_| "[kubernetes]\npeering = \"reflectors\"\n".into());
    let stolen = segment.node(&mut net, 3);
    stolen.register(&segment.plane);
    segment.plane.kubectl(&[
        "label",
        "node",
        "n3",
        "node-restriction.kubernetes.io/routelet-route-reflector=true",
    ]);
    let cidrs: Vec<_> = ["n1", "n2", "n3"].iter().map(|n| segment.plane.pod_cidrs(n)).collect();
    let own = cidrs[2][0].clone();
    let foreign: Vec<String> = FOREIGN.map(str::to_owned).into();
    let advertised = [foreign.clone(), vec![own.clone()]].concat();
    let mut reflector = bird(&net, &stolen, &advertised, "rr client;", "next hop self;");
    for (at, node) in nodes.iter().enumerate() {
        node.wait_route(&own);
        let other = &cidrs[1 - at][0];
        // Reflected with itself as next hop.
        let path = path_of_n3(node, other);
        assert_eq!(path["next_hop"], "10.99.0.13", "{path}");
        refused(node, other);
        foreign.iter().for_each(|prefix| refused(node, prefix));
    }

    // As a reflector should, with the next hop as it was.
    reflector.process.kill();
    drop(reflector);
    let _honest = bird(&net, &stolen, &advertised, "rr client;", "");
    for (at, node) in nodes.iter().enumerate() {
        node.wait_route(&cidrs[1 - at][0]);
        foreign.iter().for_each(|prefix| refused(node, prefix));
    }
    let pods: Vec<_> = nodes.iter().map(|n| n.pod(&mut net, &format!("{}p", n.name))).collect();
    // It reflects IPv4 alone.
    reaches(&pods[0].ns, &pods[1].addresses[0]);
    reaches(&pods[1].ns, &pods[0].addresses[0]);
}

/// What a kubelet may not do to its own Node, by each way in which it could.
#[test]
fn stolen_kubelet_makes_its_node_no_reflector() {
    let mut net = Net::new();
    let segment = Segment::new(&mut net, &["--enable-admission-plugins=NodeRestriction"]);
    let plane = &segment.plane;
    plane.create_node("n3");
    let kubelet = |args: &[&str]| {
        let by = ["--as=system:node:n3", "--as-group=system:nodes"];
        plane.try_kubectl(&[&by, args].concat())
    };
    // A policy is not in force at once, and what changes nothing is never refused.
    let mut attempt = 0;
    wait_for("a label is refused", 60.0, || {
        attempt += 1;
        let label = format!("routelet.io/attempt={attempt}");
        kubelet(&["label", "node", "n3", "--overwrite", &label]).is_err().then_some(())
    });
    plane.kubectl(&["label", "node", "n3", "--overwrite", "routelet.io/route-reflector=false"]);
    plane.kubectl(&["annotate", "node", "n3", "routelet.io/as=65001"]);
    let refused: [&[&str]; 7] = [
        &["label", "node", "n3", "--overwrite", "routelet.io/route-reflector=true"],
        &["label", "node", "n3", "routelet.io/route-reflector-"],
        &["label", "node", "n3", "routelet.io/other=x"],
        &["annotate", "node", "n3", "--overwrite", "routelet.io/as=65002"],
        &["annotate", "node", "n3", "routelet.io/as-"],
        &["annotate", "node", "n3", "routelet.io/peering=none"],
        &["label", "node", "n3", "node-restriction.kubernetes.io/routelet-route-reflector=true"],
    ];
    for args in refused {
        let error = kubelet(args).expect_err(&args.join(" "));
        let by = ["a kubelet changes no routelet.io", "is not allowed to modify labels"];
        assert!(by.iter().any(|b| error.contains(b)), "{args:?}: {error}");
    }
    let mut node = json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n4", "labels": { "routelet.io/route-reflector": "true" } } });
    let file = plane.dir.join("n4.json");
    let register = |node: &Value| {
        std::fs::write(&file, node.to_string()).unwrap();
        let by = ["--as=system:node:n4", "--as-group=system:nodes", "create", "-f", file.to_str().unwrap()];
        plane.try_kubectl(&by)
    };
    assert!(register(&node).unwrap_err().contains("a kubelet changes no routelet.io labels"));
    node["metadata"]["labels"] = json!({ "rack": "a" });
    register(&node).unwrap();
    // Its own labels are its own.
    kubelet(&["label", "node", "n3", "rack=a"]).unwrap();
}
