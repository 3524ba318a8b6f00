//! What routelet may do, and what it does. What a stolen token cannot do is in `token.rs`.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    cluster::{ControlPlane, audit},
    common::{net::Net, wait_for},
    packages::overlays,
    world::{Node, Segment},
};

/// The base first; each node runs one of them.
#[test]
fn each_overlay_uses_every_right_and_asks_for_nothing_else() {
    let mut net = Net::new();
    let (audit, log) = audit(&net);
    // Without streaming lists every kind is listed too, as on older servers.
    let segment = Segment::new(&mut net, &[&audit[0], &audit[1], "--feature-gates=WatchList=false"]);
    let plane = &segment.plane;
    plane.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "routelet", "namespace": "kube-system" },
        "stringData": { "password": "hush" } }));
    for (name, spec) in [
        (
            "with-a-password",
            json!({ "address": "10.99.0.99", "remoteAs": 1, "passwordSecretRef": { "name": "routelet" } }),
        ),
        // What is wrong with it becomes an Event.
        ("bad", json!({ "address": "10.99.0.77", "remoteAs": 1, "group": "nope" })),
    ] {
        plane.apply(&json!({ "apiVersion": "routelet.io/v1alpha1", "kind": "BGPPeer", "metadata": { "name": name }, "spec": spec }));
    }
    // One whose endpoints matter, so that EndpointSlices are asked for too.
    plane.apply(&json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "s", "namespace": "default", "annotations": { "routelet.io/advertise": "load-balancer-ip" } },
        "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{ "port": 80 }] } }));
    let given = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } }).to_string();
    plane.kubectl(&["patch", "service", "s", "--subresource=status", "--type=merge", "-p", &given]);

    let overlays = overlays().into_iter().map(|o| (o.clone(), configuration(&o)));
    let configs = [("base".to_owned(), String::new())].into_iter().chain(overlays);
    let nodes: Vec<_> =
        configs.zip(1..).map(|((name, config), n)| (name, join(&mut net, &segment, n, &config))).collect();
    for (_, node) in &nodes {
        // Which pods are left?
        node.daemon().cli(&["drain"]);
    }
    let rights = rights(plane);
    assert!(rights.len() > 10, "{rights:?}");
    for (overlay, node) in &nodes {
        let mut left = Vec::new();
        let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(format!("{overlay} uses its rights"), 120.0, || {
                let asked = requests(&log, &node.name);
                left = rights.iter().filter(|right| !asked.iter().any(|r| r.uses(right))).cloned().collect();
                left.is_empty().then_some(())
            });
        }));
        assert!(used.is_ok(), "{overlay}: rights that nothing uses: {left:#?}");
    }
    for (overlay, node) in &nodes {
        let asked = requests(&log, &node.name);
        // 422 is the policy's word, and to a watch that this server has no streaming lists.
        let is_refused = |r: &&Request| matches!(r.code, 401 | 403) || r.code == 422 && r.verb != "watch";
        let refused: Vec<_> = asked.iter().filter(is_refused).collect();
        assert!(refused.is_empty(), "{overlay}: asked for what is not allowed: {refused:#?}");
        let of_nodes = asked.iter().filter(|r| r.resource == "nodes");
        let all =
            of_nodes.clone().filter(|r| !r.uri.contains(&format!("metadata.name%3D{}", node.name))).count();
        assert!(of_nodes.count() > 0, "{overlay}");
        match overlay.as_str() {
            "gateway" | "standalone" => {
                assert_eq!(all, 0, "{overlay} asks for its own Node alone: {asked:#?}")
            }
            _ => assert!(all > 0, "{overlay} has a mesh"),
        }
        let secrets: BTreeSet<_> =
            asked.iter().filter(|r| r.resource == "secrets").map(|r| (&*r.verb, &*r.name)).collect();
        assert_eq!(secrets, [("get", "routelet")].into(), "by name alone");
    }
}

fn configuration(overlay: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/overlays").join(overlay);
    fs::read_to_string(file.join("routelet.toml")).unwrap()
}

fn join(net: &mut Net, segment: &Segment, n: usize, config: &str) -> Node {
    let mut node = segment.node(net, n);
    node.register(&segment.plane);
    node.start(net, &segment.plane, config);
    node
}

/// A request of routelet, as the API server saw it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    group: String,
    resource: String,
    verb: String,
    name: String,
    uri: String,
    code: u64,
    /// Which role allowed it, in the API server's words.
    role: Option<String>,
}

/// A verb of a resource that a role allows.
#[derive(Clone, Debug)]
struct Right {
    kind: &'static str,
    group: String,
    resource: String,
    verb: String,
}

impl Request {
    fn uses(&self, right: &Right) -> bool {
        let fits = (&self.group, &self.resource, &self.verb) == (&right.group, &right.resource, &right.verb);
        let by = format!("of {} \"routelet\"", right.kind);
        fits && self.role.as_ref().is_some_and(|role| role.contains(&by))
    }
}

/// All that routelet on this node asked for, by the token's word.
fn requests(log: &Path, node: &str) -> BTreeSet<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let read = |event: Value| {
        if event["user"]["extra"]["authentication.kubernetes.io/node-name"][0] != node {
            return None;
        }
        let of = event.get("objectRef")?;
        let word = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let sub = of["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
        let allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow";
        let reason = event["annotations"]["authorization.k8s.io/reason"].as_str();
        Some(Request {
            group: word("apiGroup"),
            resource: word("resource") + &sub,
            verb: event["verb"].as_str()?.to_owned(),
            name: word("name"),
            uri: event["requestURI"].as_str()?.to_owned(),
            code: event["responseStatus"]["code"].as_u64().unwrap_or(0),
            role: reason.filter(|_| allowed).map(str::to_owned),
        })
    };
    lines.filter_map(read).collect()
}

/// What the roles of the manifest allow; `tests/deploy` says that overlays have the same.
fn rights(plane: &ControlPlane) -> Vec<Right> {
    let mut rights = Vec::new();
    for (kind, args) in [("ClusterRole", vec!["clusterrole"]), ("Role", vec!["role", "-n", "kube-system"])] {
        let role = plane.kubectl(&[&["get"], &args[..], &["routelet", "-o", "json"]].concat());
        let role: Value = serde_json::from_str(&role).unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let words = |key: &str| -> Vec<String> {
                let list = rule[key].as_array().cloned().unwrap_or_default();
                list.iter().map(|w| w.as_str().unwrap().to_owned()).collect()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    let right = |verb| Right { kind, group: group.clone(), resource: resource.clone(), verb };
                    rights.extend(words("verbs").into_iter().map(right));
                }
            }
        }
    }
    rights
}
