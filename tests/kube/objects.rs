//! BGPPeer and BGPPolicy: neighbors that come, change and go by objects, with passwords from a Secret.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{net::Net, wait_for},
    events::notes,
    world::{Node, Segment},
};

const CONFIG: &str = "[kubernetes]\npeering = \"none\"\n";

#[test]
fn neighbors_come_change_and_go_by_objects() {
    let mut net = Net::new();
    // Without streaming lists every kind is listed, as on older servers.
    let mut segment = Segment::new(&mut net, &["--feature-gates=WatchList=false"]);
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
    wait_for("an Event names the Secret", 60.0, || {
        has_event(plane, "Secret routelet: not found").then_some(())
    });
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
    let refused = refused.expect_err("the definition has no such key");
    assert!(refused.contains("interface"), "{refused}");
    for (key, value) in [
        ("role", json!("boss")),
        ("families", json!(["ipv4"])),
        ("maxPrefixesAction", json!("explode")),
        ("addPaths", json!("some")),
        ("asSets", json!("keep")),
    ] {
        let mut spec = json!({ "address": "10.0.0.1", "remoteAs": 1 });
        spec[key] = value;
        let refused = try_apply(&net, plane, peer("choice", spec)).expect_err(key);
        assert!(
            refused.contains(&format!("spec.{key}")) && refused.contains("supported values"),
            "{refused}"
        );
    }
    let statements = json!([{ "action": "maybe" }]);
    let refused = try_apply(&net, plane, object("BGPPolicy", "choice", json!({ "statements": statements })));
    assert!(refused.expect_err("action").contains("\"accept\", \"reject\""), "the choice is listed");
    let text = plane.kubectl(&["explain", "bgppeers.spec.maxPrefixesAction"]);
    assert!(text.contains("closes the session for a while"), "{text}");
    apply(&net, plane, peer("bad", json!({ "address": "10.99.0.77", "remoteAs": 1, "group": "nope" })));
    wait_for("an Event at the bad one", 60.0, || {
        has_event(plane, "BGPPeer bad: spec.group: no such group").then_some(())
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

    converted_objects_are_valid(&net, plane);
    let listed = plane.kubectl(&["get", "bgppeers"]);
    assert!(listed.contains("REMOTE-AS") && listed.contains(two.addresses[0].as_str()), "{listed}");
    plane.kubectl(&["delete", "bgppeer", "to-n2"]);
    wait_for("the neighbor goes", 30.0, || (session(one) == Value::Null).then_some(()));
}

/// What `convert` makes of objects with every known field.
fn converted_objects_are_valid(net: &Net, plane: &ControlPlane) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/convert");
    for name in ["calico", "metallb", "metallb-configmap", "cilium", "cilium-policy"] {
        let mut convert = Command::new(env!("CARGO_BIN_EXE_routelet"));
        let out = convert.arg("convert").arg(folder.join(format!("{name}.yaml"))).output().unwrap();
        assert_eq!(out.status.code(), Some(4), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        let file = net.dir().join("converted.yaml");
        fs::write(&file, out.stdout).unwrap();
        let args = ["apply", "--dry-run=server", "--validate=strict", "-f", file.to_str().unwrap()];
        let listed = plane.kubectl(&args);
        assert!(
            listed.contains("bgppeer.routelet.io") && listed.contains("configmap/routelet"),
            "{name}: {listed}"
        );
    }
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

fn has_event(plane: &ControlPlane, what: &str) -> bool {
    let all = notes(plane);
    let count = all.iter().filter(|note| note.contains(what)).count();
    assert!(count <= 2, "each object says it once: {all:#?}");
    count > 0
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "routelet.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

pub fn peer(name: &str, spec: Value) -> Value {
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
