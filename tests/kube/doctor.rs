//! `routelet doctor` beside a real API server: credentials, rights, and the Node.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{
    cluster::ControlPlane,
    common::net::{Net, Ns},
    world::Segment,
};

/// Runs it on this host: exit status and problems.
fn doctor(ns: &Ns, config: &Path, kubeconfig: &Path, node: &str) -> (Option<i32>, Vec<Value>) {
    let mut command = ns.command(env!("CARGO_BIN_EXE_routelet"));
    command.args(["doctor", "--offline", "--json", "--node-name", node, "--config"]).arg(config);
    let Output { status, stdout, stderr } =
        command.arg("--kubeconfig").arg(kubeconfig).output().expect("it runs");
    let text = String::from_utf8_lossy(&stdout);
    let list = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&stderr)));
    (status.code(), list)
}

/// Text and remedy of the problem with this reason.
fn of(list: &[Value], reason: &str) -> (String, String) {
    let found =
        list.iter().find(|p| p["reason"] == reason).unwrap_or_else(|| panic!("no {reason}: {list:?}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("text"), text("remedy"))
}

#[test]
fn doctor_names_what_the_api_server_refuses_and_what_the_node_lacks() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let ns = segment.ns.clone();
    let config = net.dir().join("doctor.toml");
    let state = net.dir().join("state");
    let text = format!(
        "state-dir = \"{}\"\n[metrics]\nlisten = \"\"\n[cni]\nenabled = false\n[bgp]\nlisten = []\n",
        state.display()
    );
    fs::write(&config, text).unwrap();
    segment.plane.create_node("n1");
    segment.plane.kubectl(&["wait", "--for=jsonpath={.spec.podCIDR}", "node/n1", "--timeout=60s"]);
    let kubeconfig = segment.plane.kubeconfig();
    let look = |kubeconfig: &Path, node: &str| doctor(&ns, &config, kubeconfig, node);
    let (status, list) = look(&kubeconfig, "n1");
    assert!(status == Some(0) && list.is_empty(), "{list:?}");

    let (text, remedy) = of(&look(&kubeconfig, "wrong").1, "NodeNotReady");
    assert!(text.contains("no Node is named wrong") && text.contains("n1"), "{text}");
    assert!(remedy.contains("--node-name"), "{remedy}");

    segment.plane.stop_controllers();
    segment.plane.create_node("n2");
    let (text, remedy) = of(&look(&kubeconfig, "n2").1, "NodeNotReady");
    assert!(text.contains("no pod CIDR") && remedy.contains("--allocate-node-cidrs"), "{text}; {remedy}");
    segment.plane.start_controllers();
    segment.plane.kubectl(&["wait", "--for=jsonpath={.spec.podCIDR}", "node/n2", "--timeout=60s"]);
    assert!(look(&kubeconfig, "n2").1.is_empty());

    rights_and_credentials(&mut segment.plane, &kubeconfig, &look);
}

type Look<'a> = dyn Fn(&Path, &str) -> (Option<i32>, Vec<Value>) + 'a;

fn rights_and_credentials(plane: &mut ControlPlane, kubeconfig: &Path, look: &Look<'_>) {
    let binding = plane.kubectl(&["get", "clusterrolebinding", "routelet", "-o", "json"]);
    plane.kubectl(&["delete", "clusterrolebinding", "routelet"]);
    let (status, list) = look(kubeconfig, "n1");
    let (text, remedy) = of(&list, "ApiForbidden");
    assert!(status == Some(4) && text.contains("does not allow to"), "{text}");
    assert!(remedy.contains("ClusterRole") && remedy.contains("deploy/daemonset.yaml"), "{remedy}");
    let mut binding: Value = serde_json::from_str(&binding).unwrap();
    binding["metadata"] = serde_json::json!({ "name": "routelet" });
    plane.apply(&binding);
    assert!(look(kubeconfig, "n1").1.is_empty());

    let broken = kubeconfig.with_file_name("broken.kubeconfig");
    let text = fs::read_to_string(kubeconfig).unwrap();
    let token = text.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    fs::write(&broken, text.replace(token, "no-such-token")).unwrap();
    let (text, remedy) = of(&look(&broken, "n1").1, "ApiUnreachable");
    assert!(text.contains("401") && !text.contains("Status {"), "{text}");
    assert!(remedy.contains("renew the ServiceAccount token"), "{remedy}");

    plane.stop_api();
    let (_, list) = look(kubeconfig, "n1");
    let (text, remedy) = of(&list, "ApiUnreachable");
    assert!(text.contains("refused") && remedy.contains("start the API server"), "{text}; {remedy}");
    plane.start_api();
    assert!(look(kubeconfig, "n1").1.is_empty());
}
