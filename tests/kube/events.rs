//! What the operator should know arrives as Events, each once; the startup taint goes when the node is ready.

use std::fs;

use serde_json::Value;

use crate::{
    cluster::ControlPlane,
    common::{net::Net, wait_for},
    world::Segment,
};

#[test]
fn bad_input_is_one_event_each_and_disturbs_nothing_else() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut node = segment.node(&mut net, 1);
    fs::create_dir_all(&node.conf_dir).unwrap();
    fs::write(
        node.conf_dir.join("05-other.conf"),
        r#"{"cniVersion": "1.0.0", "name": "o", "type": "bridge"}"#,
    )
    .unwrap();
    node.register(&segment.plane);
    let cidrs = segment.plane.pod_cidrs("n1");
    segment.plane.kubectl(&[
        "taint",
        "node",
        "n1",
        "routelet.io/not-ready=here:NoSchedule",
        "other=stays:NoSchedule",
    ]);
    segment.plane.kubectl(&["create", "clusterrole", "taints", "--verb=patch", "--resource=nodes"]);
    let bind = ["create", "clusterrolebinding", "taints", "--clusterrole=taints"];
    segment.plane.kubectl(&[&bind[..], &["--serviceaccount=kube-system:routelet"]].concat());
    node.start(&net, &segment.plane, "[kubernetes]\nstartup-taint = \"routelet.io/not-ready\"\n");
    node.wait_conflist(&cidrs);
    wait_for("the startup taint goes", 60.0, || (taints(&segment.plane) == ["other"]).then_some(()));

    segment.plane.kubectl(&["annotate", "node", "n1", "routelet.io/as=65535", "routelet.io/peering=meshed"]);
    let second = serde_json::json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": [cidrs[0]] } });
    let file = net.dir().join("n2.json");
    fs::write(&file, second.to_string()).unwrap();
    segment.plane.kubectl(&["create", "-f", file.to_str().unwrap()]);
    let told = ["`65535` is not an AS number", "`meshed` is none of", "of node n2", "05-other.conf"];
    wait_for("an Event for each", 60.0, || {
        let events = notes(&segment.plane);
        told.iter().all(|what| events.iter().any(|note| note.contains(what))).then_some(())
    });
    assert_eq!(node.daemon().json(&["show", "node"])["conflist"]["state"], "written");

    // The node's own subnet: a restart says again what is new, and nothing twice.
    node.ns.ip("link add eth1 type veth peer name eth2");
    node.ns.ip(&format!("addr add {} dev eth1", cidrs[0]));
    node.ns.ip("link set eth1 up");
    node.routelet.as_mut().unwrap().process.kill();
    node.routelet.as_mut().unwrap().restart();
    wait_for("an Event for the subnet", 60.0, || {
        notes(&segment.plane).iter().any(|note| note.contains("holds the subnet")).then_some(())
    });
    let events = notes(&segment.plane);
    for what in told {
        assert_eq!(events.iter().filter(|note| note.contains(what)).count(), 1, "{what}: {events:#?}");
    }
    assert_eq!(taints(&segment.plane), ["other"]);
}

fn taints(plane: &ControlPlane) -> Vec<String> {
    let keys = plane.kubectl(&["get", "node", "n1", "-o", "jsonpath={.spec.taints[*].key}"]);
    // The controller of node lifecycles does not run here.
    keys.split_whitespace().map(str::to_owned).filter(|k| !k.starts_with("node.kubernetes.io")).collect()
}

/// What Events about n1 say.
pub fn notes(plane: &ControlPlane) -> Vec<String> {
    let list = plane.kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items.filter_map(|e| Some(e["note"].as_str()?.to_owned())).collect()
}
