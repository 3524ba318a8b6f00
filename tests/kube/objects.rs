//! BGPPeer and BGPPolicy: neighbors that come, change and go by objects, with passwords from a Secret; and which rights all
//! of it takes, by the API server's own audit log.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{net::Net, wait_for},
    events::notes,
    world::{Node, Segment},
};

const CONFIG: &str = "[kubernetes]\npeering = \"none\"\n";

#[test]
fn neighbors_come_change_and_go_by_objects_and_no_right_is_unused() {
    let mut net = Net::new();
    let (policy, log) = (net.dir().join("audit.yaml"), net.dir().join("audit.log"));
    let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  \
                 users: [\"system:serviceaccount:kube-system:routelet\"]\n";
    fs::write(&policy, rules).unwrap();
    let audit =
        [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    // Without streaming lists every kind is listed too, as on older servers.
    let extra = [audit[0].as_str(), audit[1].as_str(), "--feature-gates=WatchList=false"];
    let mut segment = Segment::new(&mut net, &extra);
    let nodes: Vec<_> = (1..=2).map(|n| join(&mut net, &segment, n)).collect();
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    let (one, two, plane) = (&nodes[0], &nodes[1], &segment.plane);

    // A Secret that is not there holds up its peers, and nothing else.
    let reference = json!({ "name": "routelet", "key": "pair" });
    let pair = [("to-n2", "n1", &two.addresses[0]), ("to-n1", "n2", &one.addresses[0])];
    for (name, node, address) in pair {
        apply(
            &net,
            plane,
            peer(
                name,
                json!({ "nodeSelector": { "node": node }, "address": address,
            "remoteAs": "internal", "passwordSecretRef": reference }),
            ),
        );
    }
    wait_for("an Event names the Secret", 60.0, || said(plane, "Secret routelet: not found").then_some(()));
    one.wait_conflist(&cidrs[0]);
    assert!(one.daemon().json(&["show", "neighbors"]).as_array().unwrap().is_empty());
    apply(&net, plane, secret("hush"));
    wait_for("a session by objects", 90.0, || (session(one)["state"] == "established").then_some(()));
    one.wait_route(&cidrs[1][0]);
    two.wait_route(&cidrs[0][1]);

    wait_for("n1 says how it is", 60.0, || {
        let said = plane.kubectl(&["get", "bgpnodestatuses", "-o", "json"]);
        let said: Value = serde_json::from_str(&said).ok()?;
        let status =
            said["items"].as_array()?.iter().find(|s| s["metadata"]["name"] == "n1")?["status"].clone();
        let routes = status["routes"].as_array()?.clone();
        let route = routes.iter().find(|r| r["prefix"] == cidrs[1][0].as_str())?;
        let own = routes.iter().find(|r| r["prefix"] == cidrs[0][0].as_str())?;
        (status["sessionsUp"] == 1 && route["installed"] == true && own["neighbor"] == Value::Null)
            .then_some(())
    });

    // Rotation.
    let since = |node: &Node| session(node)["since"].clone();
    let before = since(one);
    apply(&net, plane, secret("a new one"));
    wait_for("a session with the new password", 120.0, || {
        (session(one)["state"] == "established" && since(one) != before).then_some(())
    });
    assert!(!one.daemon().cli(&["show", "config"]).contains("new one"));

    // What the API server refuses, and what only we can know.
    let refused = try_apply(
        &net,
        plane,
        peer("both", json!({ "address": "10.0.0.1", "interface": "eth0", "remoteAs": 1 })),
    );
    assert!(refused.unwrap_err().contains("either address or interface"));
    apply(&net, plane, peer("bad", json!({ "address": "10.99.0.77", "remoteAs": 1, "group": "nope" })));
    wait_for("an Event at the bad one", 60.0, || {
        said(plane, "BGPPeer bad: spec.group: no such group").then_some(())
    });
    let shown = one.daemon().json(&["show", "node"])["problems"].to_string();
    assert!(shown.contains("BGPPeer bad"), "{shown}");

    // A policy takes effect on the running session.
    let before = wait_for("the session has settled", 60.0, || {
        (session(one)["state"] == "established").then(|| since(one))
    });
    one.wait_route(&cidrs[1][0]);
    let statements = json!([{ "prefixes": [cidrs[1][0]], "action": "reject" }]);
    apply(&net, plane, object("BGPPolicy", "no-pods", json!({ "statements": statements })));
    plane.kubectl(&[
        "patch",
        "bgppeer",
        "to-n2",
        "--type=merge",
        "-p",
        r#"{"spec": {"import": ["no-pods"]}}"#,
    ]);
    wait_for("the route goes", 30.0, || (!one.has_route(&cidrs[1][0])).then_some(()));
    assert!(one.has_route(&cidrs[1][1]));
    assert_eq!(since(one), before);

    // What is in force, not what the file says.
    plane.kubectl(&[
        "annotate",
        "node",
        "n1",
        "routelet.io/peering=gateway",
        "routelet.io/router-id=10.9.9.9",
    ]);
    wait_for("the configuration in force", 60.0, || {
        let shown = one.daemon().json(&["show", "config"]);
        let neighbor = shown["bgp"]["neighbor"].as_array()?.iter().find(|n| n["source"] == "object")?.clone();
        let rejects = shown["policy"]["no-pods"][0]["action"] == "reject";
        let annotated = shown["kubernetes"]["peering"] == json!(["gateway"]);
        let told = neighbor["import"] == json!(["no-pods"]) && neighbor["password"] == "(hidden)";
        (rejects && annotated && told && shown["bgp"]["router-id"] == "10.9.9.9").then_some(())
    });
    plane.kubectl(&["annotate", "node", "n1", "routelet.io/peering-", "routelet.io/router-id-"]);

    let listed = plane.kubectl(&["get", "bgppeers"]);
    assert!(listed.contains("REMOTE-AS") && listed.contains(two.addresses[0].as_str()), "{listed}");
    plane.kubectl(&["delete", "bgppeer", "to-n2"]);
    wait_for("the neighbor goes", 30.0, || (session(one) == Value::Null).then_some(()));

    // A Service whose endpoints matter, so that EndpointSlices are asked for too.
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "s", "namespace": "default", "annotations": { "routelet.io/advertise": "cluster-ip" } },
        "spec": { "internalTrafficPolicy": "Local", "ports": [{ "port": 80 }] } });
    apply(&net, plane, service);
    // A drain asks which pods are left.
    one.daemon().cli(&["drain"]);
    let mut left = unused(plane, &log);
    for _ in 0..90 {
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
        left = unused(plane, &log);
    }
    assert!(left.is_empty(), "rights that nothing uses: {left:?}");
    let requests = requests(&log);
    let refused: Vec<_> = requests.iter().filter(|r| r.role.is_none() && r.code == 403).collect();
    assert!(refused.iter().all(|r| r.resource == "secrets"), "asked for what no role allows: {refused:#?}");
}

/// A request of routelet, as the API server saw it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    group: String,
    resource: String,
    verb: String,
    name: String,
    code: u64,
    /// Which role allowed it, in the API server's words.
    role: Option<String>,
}

fn requests(log: &Path) -> BTreeSet<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let read = |event: Value| {
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
            code: event["responseStatus"]["code"].as_u64().unwrap_or(0),
            role: reason.filter(|_| allowed).map(str::to_owned),
        })
    };
    lines.filter_map(read).collect()
}

/// What the roles of the manifest allow and nobody asked for.
fn unused(plane: &ControlPlane, log: &Path) -> Vec<String> {
    let asked = requests(log);
    let mut unused = Vec::new();
    for (kind, args) in [("ClusterRole", vec!["clusterrole"]), ("Role", vec!["role", "-n", "kube-system"])] {
        let role = plane.kubectl(&[&["get"], &args[..], &["routelet", "-o", "json"]].concat());
        let role: Value = serde_json::from_str(&role).unwrap();
        let words = |rule: &Value, key: &str| -> Vec<String> {
            let list = rule[key].as_array().cloned().unwrap_or_default();
            list.iter().map(|w| w.as_str().unwrap().to_owned()).collect()
        };
        for rule in role["rules"].as_array().unwrap() {
            for (group, resource) in
                words(rule, "apiGroups").iter().zip(std::iter::repeat(words(rule, "resources")))
            {
                for (resource, verb) in
                    resource.iter().flat_map(|r| words(rule, "verbs").into_iter().map(move |v| (r, v)))
                {
                    let by = format!("of {kind} \"routelet\"");
                    let used = asked.iter().any(|r| {
                        let fits = (&r.group, &r.resource, &r.verb) == (group, resource, &verb);
                        fits && r.role.as_ref().is_some_and(|role| role.contains(&by))
                    });
                    if !used {
                        unused.push(format!("{kind}: {verb} {resource}.{group}"));
                    }
                }
            }
        }
    }
    unused
}

fn join(net: &mut Net, segment: &Segment, n: usize) -> Node {
    let mut node = segment.node(net, n);
    node.register(&segment.plane);
    segment.plane.kubectl(&["label", "node", &node.name, &format!("node={}", node.name)]);
    node.start(net, &segment.plane, CONFIG);
    node
}

fn session(node: &Node) -> Value {
    let neighbors = node.daemon().json(&["show", "neighbors"]);
    let internal = neighbors.as_array().unwrap().iter().find(|n| n["remote_as"] == 64512);
    internal.cloned().unwrap_or_default()
}

fn said(plane: &ControlPlane, what: &str) -> bool {
    let all = notes(plane);
    let count = all.iter().filter(|note| note.contains(what)).count();
    assert!(count <= 2, "each object says it once: {all:#?}");
    count > 0
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "routelet.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn peer(name: &str, spec: Value) -> Value {
    object("BGPPeer", name, spec)
}

fn secret(password: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "routelet", "namespace": "kube-system" },
        "stringData": { "pair": password } })
}

fn apply(net: &Net, plane: &ControlPlane, object: Value) {
    try_apply(net, plane, object).unwrap_or_else(|e| panic!("{e}"));
}

fn try_apply(net: &Net, plane: &ControlPlane, object: Value) -> Result<(), String> {
    let file = net.dir().join("object.json");
    fs::write(&file, object.to_string()).unwrap();
    plane.try_kubectl(&["apply", "-f", file.to_str().unwrap()])
}
