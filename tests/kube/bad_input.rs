//! Bad input, all of it at once: each is one Event and stands in the status of the nodes that it concerns, and the sessions and
//! routes of the others never notice.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{net::Net, wait_for},
    world::{Node, Segment, all_routes},
};

/// Each with the object that its Event is about.
const SAID: [(&str, &str); 7] = [
    ("n2", "annotation routelet.io/as: `65535`"),
    ("n2", "annotation routelet.io/router-id: `256.1.1.1`"),
    ("n2", "annotation routelet.io/peering: `meshed`"),
    ("no-secret", "Secret routelet: not found"),
    ("bad-value", "spec.group: no such group"),
    ("n4", "overlaps"),
    ("n5", "holds the subnet 10.99.0.0/24"),
];

/// A further one, when all of those are Events.
const LATER: (&str, &str) = ("later", "spec.group: no such group");

#[test]
fn each_fault_is_one_event_and_a_status_and_disturbs_nobody_else() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes = segment.nodes(&mut net, 3, |_| String::new());
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    all_routes(&nodes, &cidrs);
    let sessions: Vec<_> = nodes.iter().map(Node::sessions).collect();
    assert!(sessions.iter().all(|s| s.len() == 2), "{sessions:?}");
    let monitors: Vec<_> = nodes.iter().map(|n| n.monitor(&net)).collect();

    let plane = &segment.plane;
    let wrong = ["as=65535", "router-id=256.1.1.1", "peering=meshed"].map(|a| format!("routelet.io/{a}"));
    plane.kubectl(&["annotate", "node", "n2", &wrong[0], &wrong[1], &wrong[2]]);
    let peer = |name: &str, spec: Value| {
        plane.apply(&json!({ "apiVersion": "routelet.io/v1alpha1", "kind": "BGPPeer",
            "metadata": { "name": name }, "spec": spec }));
    };
    peer("bad-value", json!({ "address": "10.99.0.77", "remoteAs": 1, "group": "nope" }));
    peer(
        "no-secret",
        json!({ "address": "10.99.0.78", "remoteAs": 1, "passwordSecretRef": { "name": "routelet" } }),
    );
    nodes.push(with_pod_cidrs(&mut net, &segment, 4, &cidrs[0]));
    nodes.push(with_pod_cidrs(&mut net, &segment, 5, &["10.99.0.0/24".to_owned()]));

    wait_for("an Event for each", 120.0, || {
        let events = events(plane);
        SAID.iter().all(|said| events.get(said).is_some_and(|n| *n > 0)).then_some(())
    });
    for (at, faults) in [
        (0, vec!["node n4 overlaps", "BGPPeer no-secret", "BGPPeer bad-value"]),
        (1, vec!["`65535`", "`256.1.1.1`", "`meshed`", "BGPPeer no-secret", "BGPPeer bad-value"]),
        (2, vec!["BGPPeer no-secret", "BGPPeer bad-value"]),
        (3, vec!["node n4 overlaps"]),
        (4, vec!["holds the subnet 10.99.0.0/24"]),
    ] {
        let shown = nodes[at].daemon().json(&["show", "node"])["problems"].to_string();
        assert!(faults.iter().all(|f| shown.contains(f)), "n{}: {faults:?}: {shown}", at + 1);
        wait_for(format!("BGPNodeStatus n{} has {faults:?}", at + 1), 120.0, || {
            let status = plane.kubectl(&["get", "bgpnodestatus", &format!("n{}", at + 1), "-o", "json"]);
            faults.iter().all(|f| status.contains(f)).then_some(())
        });
    }

    // Who is at fault takes no part with that range; what has no fault works.
    for (node, state) in [(0, "written"), (1, "written"), (3, "waiting"), (4, "waiting")] {
        assert_eq!(nodes[node].daemon().json(&["show", "node"])["conflist"]["state"], state, "n{}", node + 1);
    }
    let available = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    assert_ne!(plane.kubectl(&["get", "node", "n5", "-o", available]), "False", "nothing of it is exchanged");
    for (at, before) in sessions.iter().enumerate() {
        let now = wait_for("sessions with those that came, too", 60.0, || {
            let now = nodes[at].sessions();
            (now.len() == 4).then_some(now)
        });
        assert!(before.iter().all(|(with, since)| now.get(with) == Some(since)), "{before:?} {now:?}");
        monitors[at].lost_none_of(&cidrs.concat());
    }
    all_routes(&nodes[..3], &cidrs);
    let path = nodes[2].daemon().json(&["show", "routes", &cidrs[0][0]]);
    assert_eq!(path.as_array().map(Vec::len), Some(1), "n1's alone: {path}");

    // Said once, and once only: what follows is heard after all that was to be said again.
    peer("later", json!({ "address": "10.99.0.79", "remoteAs": 1, "group": "nope" }));
    wait_for("the next Event", 120.0, || {
        let events = events(plane);
        (events.get(&LATER) == Some(&1)).then_some(())
    });
    let events = events(plane);
    for said in SAID {
        assert_eq!(events.get(&said), Some(&1), "{said:?}: {events:?}");
    }
    assert_eq!(events.len(), SAID.len() + 1, "and nothing else: {events:?}");

    // Mended, it is forgotten.
    plane.kubectl(&[
        "annotate",
        "node",
        "n2",
        "routelet.io/as-",
        "routelet.io/router-id-",
        "routelet.io/peering-",
    ]);
    plane.kubectl(&["delete", "bgppeer", "bad-value", "no-secret", "later"]);
    wait_for("n2 is well", 60.0, || {
        let shown = nodes[1].daemon().json(&["show", "node"]);
        shown["problems"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert_eq!(nodes[1].sessions().get("10.99.0.11"), sessions[1].get("10.99.0.11"));
}

/// A Node whose pod CIDRs somebody chose by hand, with routelet on it.
fn with_pod_cidrs(net: &mut Net, segment: &Segment, n: usize, cidrs: &[String]) -> Node {
    let mut node = segment.node(net, n);
    segment.plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs } }));
    let addresses: Vec<_> = node.addresses.iter().map(String::as_str).collect();
    segment.plane.set_addresses(&node.name, &addresses);
    node.start(net, &segment.plane, "");
    node
}

/// How many Events there are of each fault, by the object that they are about; one that nobody expects stands by its words.
fn events(plane: &ControlPlane) -> BTreeMap<(&'static str, &'static str), usize> {
    let list = plane.kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut counts = BTreeMap::new();
    for event in list["items"].as_array().unwrap() {
        let (about, note) = (event["regarding"]["name"].as_str().unwrap(), event["note"].as_str().unwrap());
        if event["reportingController"] != "routelet.io/routelet" {
            continue;
        }
        let known = SAID.into_iter().chain([LATER]);
        let mut fits = known.into_iter().filter(|(who, what)| *who == about && note.contains(what));
        let key = fits.next().unwrap_or_else(|| panic!("an Event that nobody expects, at {about}: {note}"));
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}
