//! What a token that was stolen from a node can write: what routelet writes there, and nothing else.

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{net::Net, run, wait_for},
    world::Segment,
};

/// A write: what it would do, and the request.
type Write = (&'static str, &'static str, &'static str, String, Value);

const STRATEGIC: &str = "strategic-merge-patch";
const MERGE: &str = "merge-patch";
const REPORTS: &str = "/apis/routelet.io/v1alpha1/bgpnodestatuses";

fn node(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

fn status(name: &str) -> String {
    node(name) + "/status"
}

fn report(name: &str) -> String {
    format!("{REPORTS}/{name}/status")
}

fn events(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// A change of `status.conditions`.
fn condition(kind: &str, value: &str, message: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": kind, "status": value, "reason": "RouteletIsUp", "message": message }] } })
}

fn unavailable() -> Value {
    condition("NetworkUnavailable", "False", "routelet has a plan")
}

fn taints(list: &[(&str, &str)]) -> Value {
    let list: Vec<_> =
        list.iter().map(|(k, effect)| json!({ "key": k, "value": "x", "effect": effect })).collect();
    json!({ "spec": { "taints": list } })
}

fn status_object(name: &str) -> Value {
    json!({ "apiVersion": "routelet.io/v1alpha1", "kind": "BGPNodeStatus", "spec": {}, "metadata": { "name": name,
        "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": "u" }] } })
}

/// An Event as routelet writes it about its own Node, with what `more` changes.
fn event(name: &str, more: Value) -> Value {
    let mut event = json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": name },
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "routelet.io/routelet",
        "reportingInstance": "n1", "note": "a problem", "action": "Routing", "reason": "NeedsAttention",
        "type": "Warning", "regarding": { "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u" } });
    for (key, value) in more.as_object().expect("an object") {
        event[key] = value.clone();
    }
    event
}

fn about(kind: &str, name: &str, namespace: Option<&str>) -> Value {
    let mut regarding = json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": "u" });
    if let Some(namespace) = namespace {
        regarding["namespace"] = namespace.into();
    }
    regarding
}

/// What routelet does.
fn allowed() -> Vec<Write> {
    let startup = json!([
        { "op": "test", "path": "/spec/taints/0/key", "value": "routelet.io/not-ready" },
        { "op": "remove", "path": "/spec/taints/0" },
    ]);
    let clash = json!({ "reason": "OverlappingPodCIDR", "regarding": about("Node", "n2", None) });
    let address = json!({ "reason": "SameInternalIP", "regarding": about("Node", "n2", None) });
    let excluded = json!({ "reason": "ServicesNotAdvertised", "regarding": about("Node", "n2", None) });
    let peer = json!({ "reason": "Invalid", "regarding": about("BGPPeer", "tor", None) });
    let policy = json!({ "reason": "Invalid", "regarding": about("BGPPolicy", "deny", None) });
    let service =
        json!({ "reason": "NotUnderstood", "regarding": about("Service", "web", Some("kube-public")) });
    vec![
        ("its condition", "PATCH", STRATEGIC, status("n1"), unavailable()),
        (
            "its condition, changed",
            "PATCH",
            STRATEGIC,
            status("n1"),
            condition("NetworkUnavailable", "True", "no plan"),
        ),
        ("its startup taint", "PATCH", "json-patch", node("n1"), startup),
        ("its status object", "POST", "", REPORTS.into(), status_object("n1")),
        ("its report", "PATCH", MERGE, report("n1"), json!({ "status": { "sessionsUp": 7 } })),
        ("an Event at its Node", "POST", "", events("default"), event("a1", json!({}))),
        ("an Event at a Node with the same pod CIDR", "POST", "", events("default"), event("a2", clash)),
        ("an Event at a Node with the same address", "POST", "", events("default"), event("a3", address)),
        (
            "an Event at the first of Nodes that are all excluded",
            "POST",
            "",
            events("default"),
            event("a4", excluded),
        ),
        ("an Event at a BGPPeer", "POST", "", events("default"), event("a5", peer)),
        ("an Event at a BGPPolicy", "POST", "", events("default"), event("a6", policy)),
        ("an Event at a Service", "POST", "", events("kube-public"), event("a7", service)),
    ]
}

fn of_other_nodes() -> Vec<Write> {
    let named = json!({ "apiVersion": "routelet.io/v1alpha1", "kind": "BGPNodeStatus", "spec": {},
        "metadata": { "generateName": "n1" } });
    vec![
        ("another Node's condition", "PATCH", STRATEGIC, status("n2"), unavailable()),
        ("another Node's taints", "PATCH", MERGE, node("n2"), taints(&[("other", "NoSchedule")])),
        ("another node's status object", "POST", "", REPORTS.into(), status_object("n2")),
        ("a status object of a name to come", "POST", "", REPORTS.into(), named),
        ("another node's report", "PATCH", MERGE, report("n2"), json!({ "status": { "sessionsUp": 7 } })),
    ]
}

fn of_the_status() -> Vec<Write> {
    let long = "x".repeat(2000);
    let of = |key: &str, value: Value| json!({ "status": { key: value } });
    let cases = [
        (
            "addresses that draw a Service's traffic",
            MERGE,
            of("addresses", json!([{ "type": "InternalIP", "address": "10.96.0.10" }])),
        ),
        (
            "an address more",
            STRATEGIC,
            of("addresses", json!([{ "type": "ExternalIP", "address": "192.0.2.1" }])),
        ),
        ("capacity", MERGE, of("capacity", json!({ "cpu": "400" }))),
        ("what can be allocated", MERGE, of("allocatable", json!({ "cpu": "400" }))),
        ("images", MERGE, of("images", json!([]))),
        ("the node's system", MERGE, of("nodeInfo", json!({ "kubeletVersion": "v9" }))),
        ("the kubelet's port", MERGE, of("daemonEndpoints", json!({ "kubeletEndpoint": { "Port": 1 } }))),
        ("volumes", MERGE, of("volumesAttached", json!([{ "name": "x", "devicePath": "/x" }]))),
        ("the phase", MERGE, of("phase", json!("Terminated"))),
        ("Ready", STRATEGIC, condition("Ready", "False", "")),
        ("a condition of its own making", STRATEGIC, condition("Mine", "True", "")),
        ("the conditions of others taken away", MERGE, unavailable()),
        ("all conditions taken away", MERGE, of("conditions", Value::Null)),
        ("a condition without end", STRATEGIC, condition("NetworkUnavailable", "False", &long)),
    ];
    cases.into_iter().map(|(what, patch, body)| (what, "PATCH", patch, status("n1"), body)).collect()
}

fn of_the_metadata() -> Vec<Write> {
    let of = |key: &str, value: Value| json!({ "metadata": { key: value } });
    let cases = [
        ("a label", of("labels", json!({ "node-restriction.kubernetes.io/tier": "secret" }))),
        ("a label taken away", of("labels", json!({ "rack": null }))),
        ("an annotation", of("annotations", json!({ "routelet.io/as": "7" }))),
        ("a finalizer", of("finalizers", json!(["example.com/stays"]))),
        (
            "an owner",
            of("ownerReferences", json!([{ "apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u" }])),
        ),
    ];
    let at = |path: &str| {
        let path = path.to_owned();
        move |(what, body): &(&'static str, Value)| (*what, "PATCH", MERGE, path.clone(), body.clone())
    };
    cases.iter().map(at(&node("n1"))).chain(cases.iter().map(at(&status("n1")))).collect()
}

fn of_the_spec() -> Vec<Write> {
    let of = |key: &str, value: Value| json!({ "spec": { key: value } });
    let cases = [
        ("taints of others taken away", taints(&[])),
        ("a taint more", taints(&[("other", "NoSchedule"), ("more", "NoExecute")])),
        ("a taint with another effect", taints(&[("other", "NoExecute")])),
        ("the cordon", of("unschedulable", json!(true))),
        ("the provider", of("providerID", json!("cloud://other"))),
    ];
    cases.into_iter().map(|(what, body)| (what, "PATCH", MERGE, node("n1"), body)).collect()
}

fn of_events() -> Vec<Write> {
    let elsewhere =
        json!({ "reason": "NotUnderstood", "regarding": about("Service", "web", Some("default")) });
    let of_another = json!({ "regarding": about("Service", "kubernetes", Some("default")) });
    let cases = [
        ("an Event of another controller", "default", json!({ "reportingController": "kubelet" })),
        ("an Event of another node", "default", json!({ "reportingInstance": "n2" })),
        ("an Event at another Node", "default", json!({ "regarding": about("Node", "n2", None) })),
        ("an Event at a pod", "default", json!({ "regarding": about("Pod", "web", Some("default")) })),
        ("an Event at a Service elsewhere", "kube-public", elsewhere),
        ("an Event at a Service for another reason", "default", of_another),
        ("an Event at a Node in a namespace", "kube-system", json!({})),
        ("a good Event", "default", json!({ "type": "Normal" })),
    ];
    let write = |(n, (what, namespace, more)): (usize, (&'static str, &str, Value))| {
        (what, "POST", "", events(namespace), event(&format!("b{n}"), more))
    };
    cases.into_iter().enumerate().map(write).collect()
}

/// What the roles do not allow.
fn of_other_kinds() -> Vec<Write> {
    let object = |api: &str, kind: &str, more: Value| {
        let mut object = json!({ "apiVersion": api, "kind": kind, "metadata": { "name": "x" } });
        for (key, value) in more.as_object().expect("an object") {
            object[key] = value.clone();
        }
        object
    };
    let core = |resource: &str| format!("/api/v1/namespaces/default/{resource}");
    let spec = |spec: Value| json!({ "spec": spec });
    let peer = spec(json!({ "address": "10.0.0.1", "remoteAs": 1 }));
    let pod = spec(json!({ "containers": [{ "name": "a", "image": "b" }] }));
    let slice = json!({ "addressType": "IPv4", "endpoints": [] });
    let binding =
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/routelet".to_owned();
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/routelet".to_owned();
    vec![
        ("a Node", "POST", "", "/api/v1/nodes".into(), object("v1", "Node", json!({}))),
        ("its Node deleted", "DELETE", "", node("n1"), json!({})),
        ("its status object deleted", "DELETE", "", format!("{REPORTS}/n1"), json!({})),
        (
            "a BGPPeer",
            "POST",
            "",
            "/apis/routelet.io/v1alpha1/bgppeers".into(),
            object("routelet.io/v1alpha1", "BGPPeer", peer),
        ),
        (
            "an Event of the core group",
            "POST",
            "",
            core("events"),
            object("v1", "Event", json!({ "involvedObject": { "kind": "Node", "name": "n1" } })),
        ),
        ("a Secret", "POST", "", core("secrets"), object("v1", "Secret", json!({}))),
        ("the list of Secrets", "GET", "", "/api/v1/namespaces/kube-system/secrets".into(), json!({})),
        (
            "the configuration",
            "PATCH",
            MERGE,
            "/api/v1/namespaces/kube-system/configmaps/routelet".into(),
            json!({ "data": { "routelet.toml": "" } }),
        ),
        (
            "a Service",
            "POST",
            "",
            core("services"),
            object("v1", "Service", spec(json!({ "ports": [{ "port": 1 }] }))),
        ),
        (
            "an EndpointSlice",
            "POST",
            "",
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".into(),
            object("discovery.k8s.io/v1", "EndpointSlice", slice),
        ),
        ("a pod", "POST", "", core("pods"), object("v1", "Pod", pod)),
        (
            "a token",
            "POST",
            "",
            "/api/v1/namespaces/kube-system/serviceaccounts/routelet/token".into(),
            object("authentication.k8s.io/v1", "TokenRequest", json!({})),
        ),
        ("the policy switched off", "DELETE", "", binding, json!({})),
        ("its role", "PATCH", MERGE, role, json!({ "rules": [] })),
    ]
}

#[test]
fn a_nodes_token_does_what_routelet_does_and_none_of_fifty_other_writes() {
    let mut net = Net::new();
    let segment = Segment::new(&mut net, &[]);
    let plane = &segment.plane;
    for name in ["n1", "n2"] {
        register(plane, name);
    }
    // As where kubernetes.startup-taint is set.
    plane.kubectl(&["create", "clusterrole", "taints", "--verb=patch,update", "--resource=nodes"]);
    let to = ["--clusterrole=taints", "--serviceaccount=kube-system:routelet"];
    plane.kubectl(&[&["create", "clusterrolebinding", "taints"], &to[..]].concat());
    plane.apply(&status_object("n2"));
    let own = plane.token_of("n1");

    // A policy is not in force at once.
    wait_for("another Node's condition is refused", 60.0, || {
        let (code, text) = call(plane, &own, &of_other_nodes()[0]);
        (code == 422 && text.contains("routelet on node n1 writes to its own Node alone")).then_some(())
    });
    for write in allowed() {
        let (code, text) = call(plane, &own, &write);
        assert!(code == 200 || code == 201, "{}: {code} {text}", write.0);
    }
    let before = plane.kubectl(&["get", "nodes", "-o", "yaml"]);
    let forbidden =
        [of_other_nodes(), of_the_status(), of_the_metadata(), of_the_spec(), of_events()].concat();
    for write in &forbidden {
        let (code, text) = call(plane, &own, write);
        assert!(code == 422 && text.contains("ValidatingAdmissionPolicy"), "{}: {code} {text}", write.0);
    }
    for write in &of_other_kinds() {
        let (code, text) = call(plane, &own, write);
        assert!(code == 403 && text.contains("forbidden"), "{}: {code} {text}", write.0);
    }
    assert!(forbidden.len() >= 40, "{}", forbidden.len());
    assert_eq!(plane.kubectl(&["get", "nodes", "-o", "yaml"]), before, "the Nodes are as they were");
}

#[test]
fn a_token_that_names_no_node_writes_nothing_and_others_are_not_concerned() {
    let mut net = Net::new();
    let segment = Segment::new(&mut net, &[]);
    let plane = &segment.plane;
    for name in ["n1", "n2"] {
        register(plane, name);
    }
    let create = ["-n", "kube-system", "create", "token", "routelet"];
    let write = ("its condition", "PATCH", STRATEGIC, status("n1"), unavailable());
    let unbound = plane.kubectl(&create);
    wait_for("a token without a node is refused", 60.0, || {
        let (code, text) = call(plane, unbound.trim(), &write);
        (code == 422 && text.contains("--bound-object-kind=Node")).then_some(())
    });
    // For a daemon that is no pod.
    let bound = ["--bound-object-kind=Node", "--bound-object-name=n1"];
    let bound = plane.kubectl(&[&create[..], &bound].concat());
    assert_eq!(call(plane, bound.trim(), &write).0, 200);
    assert_eq!(call(plane, bound.trim(), &of_other_nodes()[0]).0, 422);
    plane.kubectl(&["label", "node", "n2", "rack=b", "--overwrite"]);
}

/// A Node as a kubelet and a cloud leave it.
fn register(plane: &ControlPlane, name: &str) {
    let taints = taints(&[("routelet.io/not-ready", "NoSchedule"), ("other", "NoSchedule")]);
    plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "spec": taints["spec"],
        "metadata": { "name": name, "labels": { "rack": "a" }, "annotations": { "note": "x" } } }));
    let status = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "10.99.0.11" }],
        "capacity": { "cpu": "4" }, "images": [{ "names": ["a"], "sizeBytes": 7 }],
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" }] } });
    let status = status.to_string();
    plane.kubectl(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status]);
}

/// A request with a token: status code and text.
fn call(plane: &ControlPlane, token: &str, (_, method, patch, path, body): &Write) -> (u16, String) {
    let kind = if patch.is_empty() { "application/json".into() } else { format!("application/{patch}+json") };
    let mut curl = plane.ns.command("curl");
    curl.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--cacert"]).arg(plane.dir.join("pki/ca.crt"));
    curl.args(["-H", &format!("Authorization: Bearer {token}"), "-H", &format!("Content-Type: {kind}")]);
    let text = run(curl.args(["-d", &body.to_string(), &format!("https://{}:6443{path}", plane.address)]));
    let (text, code) = text.rsplit_once('\n').expect("a status code");
    (code.trim().parse().expect("a number"), text.to_owned())
}
