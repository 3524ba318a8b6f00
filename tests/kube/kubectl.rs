//! `kubectl routelet` beside a real API server: two nodes of a mesh, and what can go wrong.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{
        net::{Net, Ns},
        wait_for,
    },
    kit,
    world::{Node, Segment},
};

/// The plugin in a folder of its own.
struct Plugin {
    ns: Ns,
    path: std::path::PathBuf,
}

impl Plugin {
    fn new(net: &Net, ns: &Ns) -> Self {
        let folder = net.dir().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("kubectl-routelet");
        symlink(env!("CARGO_BIN_EXE_routelet"), &path).unwrap();
        Self { ns: ns.clone(), path }
    }

    /// Exit status, standard output and standard error.
    fn run(&self, kubeconfig: &Path, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.ns.command(self.path.to_str().unwrap());
        let out = command.args(args).env("KUBECONFIG", kubeconfig).output().unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    /// Fails with this status and one line that contains all parts.
    fn fails(&self, kubeconfig: &Path, args: &[&str], status: i32, parts: &[&str]) {
        let (code, out, error) = self.run(kubeconfig, args);
        assert_eq!((code, out.as_str()), (Some(status), ""), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        for part in parts {
            assert!(error.contains(part), "{args:?}: no {part} in {error}");
        }
    }

    fn rows(&self, kubeconfig: &Path, args: &[&str]) -> Vec<Value> {
        let (code, out, error) = self.run(kubeconfig, &[args, &["--json"]].concat());
        assert_eq!(code, Some(0), "{args:?}: {error}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
    }
}

#[test]
fn the_plugin_shows_all_nodes_and_names_what_keeps_it_from_them() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let admin = segment.plane.admin_kubeconfig();
    let plugin = Plugin::new(&net, &segment.ns);
    plugin.fails(&admin, &["nodes"], 1, &["no node has a BGPNodeStatus", "kubectl get pods"]);

    let nodes = segment.nodes(&mut net, 2, |_| String::new());
    let rows = wait_for("both nodes report an established session", 120.0, || {
        let rows = match plugin.run(&admin, &["sessions", "--json"]) {
            (Some(0), out, _) => serde_json::from_str::<Vec<Value>>(&out).unwrap(),
            _ => return None,
        };
        let up = rows.iter().filter(|r| r["source"] == "mesh" && r["state"] == "established").count();
        (up == 2).then_some(rows)
    });
    assert!(rows.iter().any(|r| r["node"] == "n1") && rows.iter().any(|r| r["node"] == "n2"), "{rows:?}");
    screens(&plugin, &admin, &mut segment.plane, &nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>());

    explained(&plugin, &admin, &mut segment.plane, &nodes);
    plugin.fails(&admin, &["nodes", "--node", "n9"], 1, &["node n9", "n1, n2"]);
    plugin.fails(&admin, &["routes", "203.0.113.1"], 1, &["no node reports such a route"]);
    plugin.fails(&admin, &["routes", "203.0.113.1/40"], 2, &["203.0.113.1/40"]);
    plugin.fails(Path::new("/nonexistent"), &["nodes"], 2, &["/nonexistent", "--kubeconfig"]);
    plugin.fails(&admin, &["nodes", "--context", "nowhere"], 2, &["nowhere"]);
    refusals(&plugin, &mut segment.plane);
}

fn screens(plugin: &Plugin, admin: &Path, plane: &mut ControlPlane, names: &[&str]) {
    for args in [&["nodes"][..], &["sessions"], &["problems"], &["routes"], &["sess", "--down"]] {
        let (code, out, error) = plugin.run(admin, args);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}");
        let widest = out.lines().map(|l| l.chars().count()).max();
        assert!(widest.is_some_and(|columns| columns <= 80), "{args:?}: {widest:?}\n{out}");
    }
    for (n, name) in names.iter().enumerate() {
        let cidr = &plane.pod_cidrs(name)[0];
        let rows = plugin.rows(admin, &["routes", cidr]);
        assert!(names.iter().all(|name| rows.iter().any(|r| r["node"] == *name)), "{cidr}: {rows:?}");
        let address = cidr.replace(".0/24", ".9");
        let of_other = plugin.rows(admin, &["routes", &address, "--node", names[1 - n]]);
        assert!(of_other.iter().any(|r| r["prefix"] == **cidr && !r["neighbor"].is_null()), "{of_other:?}");
    }
    // As kubectl starts it.
    let path = format!("{}:/usr/bin:/bin", plugin.path.parent().unwrap().display());
    let mut command = plugin.ns.command(kit::tool("kubectl").to_str().unwrap());
    let out =
        command.args(["routelet", "nodes"]).env("KUBECONFIG", admin).env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.starts_with("NODE") && text.contains("n2"), "{text}");
    let help = Command::new(&plugin.path).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: kubectl routelet"));
}

/// Between two pods, which exist as objects alone.
fn explained(plugin: &Plugin, admin: &Path, plane: &mut ControlPlane, nodes: &[Node]) {
    let cidrs: Vec<_> = nodes.iter().map(|n| plane.pod_cidrs(&n.name)[0].clone()).collect();
    let pods = ["a", "b"];
    for (n, name) in pods.iter().enumerate() {
        let address = cidrs[n].replace(".0/24", ".9");
        plane.apply(
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": { "nodeName": nodes[n].name, "containers": [{ "name": "c", "image": "none" }] } }),
        );
        let status =
            json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        let patch = status.to_string();
        plane.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &patch]);
    }
    let found = wait_for("the reports have both routes", 120.0, || {
        let (code, out, _) = plugin.run(admin, &["explain", "a", "default/b", "--json"]);
        (code == Some(0)).then(|| serde_json::from_str::<Value>(&out).unwrap())
    });
    let steps = found["steps"].as_array().unwrap();
    let has = |step: &str, node: &str| steps.iter().any(|s| s["step"] == step && s["node"] == node);
    let both = ["n1", "n2"].iter().all(|n| has("advertised", n) && has("learned", n) && has("on-node", n));
    assert!(both && found["verdict"] == "reachable", "{found:#}");
    let (code, out, _) = plugin.run(admin, &["explain", "a", "b"]);
    assert!(code == Some(0) && out.contains("\nreachable: "), "{out}");
    assert!(out.lines().all(|l| l.chars().count() <= 80), "{out}");

    plugin.fails(admin, &["explain", "a", "nobody"], 1, &["no pod nobody in namespace default"]);
    plugin.fails(admin, &["explain", "a", "B"], 2, &["write the name of a pod"]);
    let (code, out, _) = plugin.run(admin, &["explain", "a", "203.0.113.9"]);
    assert!(code == Some(1) && out.contains("stopped by originated"), "{code:?} {out}");

    // A node that no longer has a session: the other one stops the packets.
    nodes[1].daemon().cli(&["neighbor", "disable", "all"]);
    wait_for("the step that stops them", 120.0, || {
        let (code, out, _) = plugin.run(admin, &["explain", "a", "b", "--json"]);
        let found: Value = serde_json::from_str(&out).ok()?;
        let by = found["stopped_by"].as_str()?;
        (code == Some(1) && (by == "advertised" || by == "learned")).then_some(())
    });
    nodes[1].daemon().cli(&["neighbor", "enable", "all"]);
    plane.kubectl(&["delete", "pod", "a", "b", "--force", "--grace-period=0"]);
}

fn refusals(plugin: &Plugin, plane: &mut ControlPlane) {
    let admin = plane.admin_kubeconfig();
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "visitor", "namespace": "default" } });
    plane.apply(&account);
    let token = plane.kubectl(&["create", "token", "visitor"]);
    let visitor = plugin.path.with_file_name("visitor.kubeconfig");
    plane.write_kubeconfig(&visitor, token.trim());
    plugin.fails(&visitor, &["nodes"], 1, &["403", "kubectl auth can-i list bgpnodestatuses.routelet.io"]);
    let stranger = plugin.path.with_file_name("stranger.kubeconfig");
    plane.write_kubeconfig(&stranger, "no-such-token");
    plugin.fails(&stranger, &["nodes"], 1, &["401", "log in again"]);

    plane.kubectl(&["delete", "crd", "bgpnodestatuses.routelet.io"]);
    wait_for("the kind is gone", 60.0, || (plugin.run(&admin, &["nodes"]).0 == Some(1)).then_some(()));
    plugin.fails(&admin, &["nodes"], 1, &["CustomResourceDefinition", "deploy/daemonset.yaml"]);

    plane.stop_api();
    plugin.fails(&admin, &["problems"], 3, &["cannot reach the API server", "kubeconfig"]);
    plane.start_api();
}
