//! The commands of kubectl and the objects that the pages print, with a real API server. There are no
//! kubelets here: what needs a running pod (`exec`, `rollout`, `drain`) is left out.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    blocks::{Block, marked},
    common::net::Net,
    kit,
    world::Segment,
};

/// `kubectl` without the commands that need a kubelet, and with names for the placeholders.
const KUBECTL: &str = r#"
set -euo pipefail
kubectl() {
  case " $* " in
    *" exec "* | *" rollout "* | *" drain "*) ;;
    " routelet "*) shift; "$PLUGIN" "$@" --kubeconfig "$KUBECONFIG" || [ $? = 1 ] ;;
    *) "$KUBECTL" "${@//NODE/n1}" ;;
  esac
}
install() { :; }
"#;

#[test]
fn each_block_for_kubectl_runs() {
    let mut net = Net::new();
    let plane = Segment::new(&mut net, &["--allow-privileged=true"]).plane;
    for node in ["n1", "n2"] {
        plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }));
    }
    plane.apply(
        &json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "ports": [{ "port": 80 }] } }),
    );
    let plugin = net.dir().join("kubectl-routelet");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_routelet"), &plugin).unwrap();
    for Block { place, text, .. } in marked("sh kubectl") {
        // An ellipsis stands for the operator's work.
        let text: String = text.lines().filter(|line| *line != "…").map(|line| format!("{line}\n")).collect();
        // A repeated label or annotation is refused without this.
        let text = text.replace("kubectl annotate", "kubectl annotate --overwrite");
        let mut command = plane.ns.command("bash");
        command
            .args(["-c", &format!("{KUBECTL}{text}")])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env("KUBECTL", kit::tool("kubectl"))
            .env("KUBECONFIG", plane.admin_kubeconfig())
            .env("PLUGIN", &plugin);
        ran(&place, &mut command);
    }
}

#[test]
fn each_object_is_accepted() {
    let mut net = Net::new();
    let plane = Segment::new(&mut net, &["--allow-privileged=true"]).plane;
    let file = net.dir().join("objects.yaml");
    for Block { place, text, .. } in marked("yaml objects") {
        fs::write(&file, text).unwrap();
        let applied = plane.try_kubectl(&["apply", "-f", file.to_str().unwrap()]);
        assert!(applied.is_ok(), "{place}: {applied:?}");
    }
}

fn ran(place: &str, command: &mut Command) {
    let done = command.output().unwrap();
    let output = [done.stdout, done.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
    assert!(done.status.success(), "{place}: {}", output.concat());
}
