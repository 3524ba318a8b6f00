//! What a node does for its pods when the host is not as it should be: the bridge, the plugins, the ranges, the leases.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    cluster::kit,
    common::{net::Net, run, wait_for},
    pods::Pod,
    world::{Node, Segment},
};

/// A cluster of one node, and its pod CIDRs.
fn one(net: &mut Net) -> (Segment, Node, Vec<String>) {
    let mut segment = Segment::new(net, &[]);
    let node = segment.node(net, 1);
    node.register(&segment.plane);
    let cidrs = segment.plane.pod_cidrs("n1");
    (segment, node, cidrs)
}

/// How long it takes until the node reaches the pod at each of its addresses.
fn back(node: &Node, pod: &Pod, what: &str) -> Duration {
    let since = Instant::now();
    for address in &pod.addresses {
        wait_for(format!("{address} after: {what}"), 20.0, || node.ns.pings(address).then_some(()));
    }
    println!("{what}: {:.2} s", since.elapsed().as_secs_f64());
    since.elapsed()
}

fn problems(node: &Node) -> String {
    node.daemon().json(&["show", "summary"])["problems"].to_string()
}

fn wait_problem(node: &Node, part: &str) {
    wait_for(format!("a problem with `{part}`"), 30.0, || problems(node).contains(part).then_some(()));
}

fn wait_quiet(node: &Node) {
    wait_for(format!("no problem: {}", problems(node)), 30.0, || (problems(node) == "[]").then_some(()));
}

fn ranges(node: &Node) -> Vec<String> {
    let file = node.conflist().unwrap_or_default();
    let ranges = file["plugins"][0]["ipam"]["ranges"].as_array().cloned().unwrap_or_default();
    ranges.iter().filter_map(|r| Some(r[0]["subnet"].as_str()?.to_owned())).collect()
}

#[test]
fn kubernetes_67183_pods_are_back_within_seconds_of_whatever_happens_to_their_bridge() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    node.start(&net, &segment.plane, "");
    node.wait_conflist(&cidrs);
    let (a, b) = (node.pod(&mut net, "a"), node.pod(&mut net, "b"));
    back(&node, &a, "the start");
    // The pods' ports are known once they were seen.
    let state = node.daemon().dir.join("state/pods.json");
    wait_for("both ports are known", 10.0, || {
        let record: Value = serde_json::from_slice(&fs::read(&state).ok()?).ok()?;
        (record["ports"].as_array()?.len() == 2).then_some(())
    });

    for what in [
        "addr flush dev routelet0 scope global",
        "-6 addr flush dev routelet0 scope global",
        "link set routelet0 down",
        "link del routelet0",
    ] {
        node.ns.ip(what);
        back(&node, &a, what);
        back(&node, &b, what);
        assert!(b.ns.pings(&a.addresses[0]) && b.ns.pings(&a.addresses[1]), "over the bridge");
        for pod in [&a, &b] {
            let gateway = pod.ns.ip("-6 route show default");
            assert!(pod.ns.pings(gateway.split_whitespace().nth(2).unwrap()), "{gateway}");
        }
        let ports = node.ns.ip("link show master routelet0");
        assert_eq!(ports.matches("veth").count() / 2, ports.lines().count() / 4, "{ports}");
    }
    let c = node.pod(&mut net, "c");
    back(&node, &c, "a new pod on the mended bridge");

    // While the daemon is away, and from its record.
    node.daemon_mut().process.kill();
    node.ns.ip("link del routelet0");
    node.daemon_mut().restart();
    for pod in [&a, &b, &c] {
        back(&node, pod, "deleted while the daemon was away");
    }

    // Without pods there is nobody to make it for.
    for pod in [&a, &b, &c] {
        node.runtime.delete(pod);
    }
    wait_for("no port is left", 20.0, || {
        let record: Value = serde_json::from_slice(&fs::read(&state).ok()?).ok()?;
        record["ports"].as_array()?.is_empty().then_some(())
    });
    node.ns.ip("link del routelet0");
    sleep(Duration::from_secs(3));
    assert!(!node.ns.ip("link").contains("routelet0"), "not made for nobody");
    let d = node.pod(&mut net, "d");
    back(&node, &d, "the plugin has made it anew");

    // Somebody who takes the address away again and again is named.
    wait_for("a fight is named", 60.0, || {
        node.ns.ip("-4 addr flush dev routelet0");
        problems(&node).contains("keeps changing the pods' bridge").then_some(())
    });
    back(&node, &d, "the fight");
}

/// The programs of a folder of its own: the real ones, or others in their place.
struct Plugins(PathBuf);

impl Plugins {
    fn new(net: &Net, node: &mut Node) -> Self {
        let dir = net.dir().join("cni-bin");
        fs::create_dir_all(&dir).unwrap();
        node.bin_dir.clone_from(&dir);
        Self(dir)
    }

    fn install(&self, name: &str) {
        let _ = fs::remove_file(self.0.join(name));
        fs::copy(kit().join("cni").join(name), self.0.join(name)).unwrap();
    }

    /// As a release before 1.0: it knows 0.4.0 at most, and refuses what is newer as it would.
    fn install_old(&self, name: &str) {
        let real = kit().join("cni").join(name);
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$CNI_COMMAND\" = VERSION ]; then\n\
             echo '{{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\"]}}'; exit 0; fi\n\
             config=$(cat)\n\
             case $config in *'\"cniVersion\":\"1.'*)\n\
             echo '{{\"cniVersion\":\"0.4.0\",\"code\":1,\"msg\":\"incompatible CNI versions\"}}'; exit 1;; esac\n\
             printf %s \"$config\" | exec {}\n",
            real.display()
        );
        let path = self.0.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn containerd_6876_plugins_that_come_late_or_are_old_get_the_conflist_that_they_know() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    let plugins = Plugins::new(&net, &mut node);
    let http = "[metrics]\nlisten = \"127.0.0.1:9179\"\n";
    node.start(&net, &segment.plane, http);
    wait_problem(&node, "`bridge` is missing");
    wait_problem(&node, "`host-local` is missing");
    sleep(Duration::from_secs(2));
    assert_eq!(node.conflist(), None, "the node must not become Ready");
    let readyz = || node.ns.sh("curl -s -o - -w ' %{http_code}' http://127.0.0.1:9179/readyz");
    let text = readyz();
    assert!(
        text.contains("the CNI plugins `bridge` and `host-local` are missing") && text.ends_with("503"),
        "{text}"
    );
    let (code, shown) = show(&node, &["show", "summary"]);
    assert!(
        code == 4 && shown.contains("not ready: the conflist is not written: the CNI plugins"),
        "{shown}"
    );
    assert_eq!(show(&node, &["show", "summary", "--json"]).0, 4);

    for name in ["bridge", "host-local", "portmap"] {
        plugins.install_old(name);
    }
    let since = Instant::now();
    node.wait_conflist(&cidrs);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let version =
        |node: &Node| node.conflist().unwrap_or_default()["cniVersion"].as_str().unwrap_or("").to_owned();
    wait_for("what old plugins know", 10.0, || (version(&node) == "0.4.0").then_some(()));
    let a = node.pod(&mut net, "a");
    back(&node, &a, "a pod by plugins before 1.0");
    wait_for("ready", 30.0, || readyz().ends_with("200").then_some(()));
    assert_eq!(show(&node, &["show", "summary"]).0, 0);

    for name in ["bridge", "host-local", "portmap"] {
        plugins.install(name);
    }
    wait_for("what new plugins know", 20.0, || (version(&node) == "1.0.0").then_some(()));
    let b = node.pod(&mut net, "b");
    back(&node, &b, "a pod by new ones");
    node.runtime.delete(&a);
    wait_quiet(&node);

    // One that others have chained counts, and stays.
    let mut file = node.conflist().unwrap();
    file["plugins"].as_array_mut().unwrap().push(json!({ "type": "mesh-cni" }));
    plugins.install_old("portmap");
    fs::rename(plugins.0.join("portmap"), plugins.0.join("mesh-cni")).unwrap();
    plugins.install("portmap");
    fs::write(node.conflist_file(), file.to_string()).unwrap();
    wait_for("what all of them know", 20.0, || (version(&node) == "0.4.0").then_some(()));
    assert!(node.conflist().unwrap().to_string().contains("mesh-cni"));
}

/// Exit status and standard output.
fn show(node: &Node, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
    let out = command.args(args).arg("--socket").arg(node.daemon().socket()).output().unwrap();
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn cri_o_3555_a_host_without_ipv6_gets_pods_without_it_until_it_is_switched_on() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    let off = |node: &Node, value: &str, names: &[&str]| {
        for name in names {
            node.ns.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), value);
        }
    };
    off(&node, "1", &["all", "default", "lo", "eth0"]);
    node.start(&net, &segment.plane, "");
    node.wait_conflist(&cidrs[..1]);
    assert_eq!(ranges(&node), cidrs[..1]);
    wait_problem(&node, "pods get no address of pod CIDR");
    assert!(problems(&node).contains("net.ipv6.conf.all.disable_ipv6"), "{}", problems(&node));
    let a = node.pod(&mut net, "a");
    assert_eq!(a.addresses.len(), 1);
    back(&node, &a, "a pod of IPv4 alone");

    off(&node, "0", &["all", "default", "lo", "eth0"]);
    // The address went with the family; whoever configures the host gives it again.
    node.ns.ip("addr replace fd00:99::11/64 dev eth0 nodad");
    node.wait_conflist(&cidrs);
    let b = node.pod(&mut net, "b");
    assert_eq!(b.addresses.len(), 2);
    back(&node, &b, "a pod of both families");
    wait_quiet(&node);

    // For interfaces to come alone, and after a restart.
    off(&node, "1", &["default"]);
    wait_problem(&node, "net.ipv6.conf.default.disable_ipv6");
    wait_for("left out", 20.0, || (ranges(&node) == cidrs[..1]).then_some(()));
    node.daemon_mut().process.stop();
    node.daemon_mut().restart();
    wait_problem(&node, "net.ipv6.conf.default.disable_ipv6");
    assert_eq!(ranges(&node), cidrs[..1]);
    back(&node, &b, "the pod that has an address keeps it");
}

#[test]
fn liqo_314_a_virtual_node_at_a_pods_address_takes_nothing_away() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    node.start(&net, &segment.plane, "");
    node.wait_conflist(&cidrs);
    let pod = node.pod(&mut net, "a");
    segment.plane.create_node("vk");
    segment.plane.set_addresses("vk", &[&pod.addresses[0]]);
    wait_problem(&node, "node vk has the address");
    let whole = |node: &Node, what: &str| {
        node.wait_conflist(&cidrs);
        assert_eq!(ranges(node), cidrs, "{what}");
        wait_for(format!("ready: {what}"), 30.0, || {
            let summary = node.daemon().json(&["show", "summary"]);
            (summary["ready"] == true && summary["routes"]["originated"] == 2).then_some(())
        });
        back(node, &pod, what);
    };
    whole(&node, "while pods run");
    assert!(!problems(&node).contains("range of"), "wrong advice: {}", problems(&node));
    node.daemon_mut().process.stop();
    node.daemon_mut().restart();
    whole(&node, "restarted");
    fs::remove_file(node.conflist_file()).unwrap();
    whole(&node, "the file comes back");

    // After a reboot: no pod, no bridge, no file, no state.
    node.daemon_mut().process.stop();
    node.runtime.delete(&pod);
    node.ns.ip("link del routelet0");
    fs::remove_file(node.conflist_file()).unwrap();
    fs::remove_dir_all(node.daemon().dir.join("state")).unwrap();
    node.daemon_mut().restart();
    node.wait_conflist(&cidrs);
    let pod = node.pod(&mut net, "b");
    back(&node, &pod, "after a reboot");
}

/// multus#1162, #353, #911, spiderpool#3758.
#[test]
fn multus_911_multus_in_front_of_our_file_is_in_order() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    node.start(&net, &segment.plane, "");
    node.wait_conflist(&cidrs);
    let ours = node.conflist().unwrap();
    let first = node.conf_dir.join("00-multus.conf");
    let problem = || node.daemon().json(&["show", "node"])["conflist"]["problem"].to_string();
    for delegates in [
        json!({ "name": "multus-cni-network", "type": "multus", "delegates": [ours] }),
        json!({ "name": "multus-cni-network", "type": "multus", "clusterNetwork": "routelet" }),
        json!({ "name": "multus-cni-network", "type": "multus-shim",
                "clusterNetwork": "/host/etc/cni/net.d/10-routelet.conflist" }),
        json!({ "name": "multus-cni-network", "type": "multus-shim", "socketDir": "/host/run/multus/" }),
    ] {
        fs::write(&first, json!({ "name": "x", "plugins": [{ "type": "flannel" }] }).to_string()).unwrap();
        wait_for("another agent's is named", 20.0, || {
            problem().contains("another network agent").then_some(())
        });
        fs::write(&first, delegates.to_string()).unwrap();
        wait_for(format!("in order: {delegates}"), 20.0, || (problem() == "null").then_some(()));
    }
    let elsewhere = json!({ "type": "multus", "clusterNetwork": "cbr0" });
    fs::write(&first, elsewhere.to_string()).unwrap();
    wait_for("one that delegates to others", 20.0, || problem().contains("delegates to cbr0").then_some(()));
}

/// kube-router#383, plugins#697, kubernetes#108121.
#[test]
fn plugins_697_leases_that_outlive_a_reboot_are_cleared_but_not_while_pods_run() {
    let mut net = Net::new();
    let (segment, mut node, cidrs) = one(&mut net);
    node.ready(&net, &segment.plane, "");
    node.daemon_mut().mount = Some((node.runtime.leases().to_owned(), PathBuf::from("/var/lib/cni")));
    node.daemon_mut().restart();
    node.wait_conflist(&cidrs);
    let dir = node.runtime.leases().join("networks/routelet");
    let leases = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().into_string().unwrap());
        names.filter(|n| n.parse::<std::net::IpAddr>().is_ok()).collect()
    };
    let pods: Vec<_> = (0..2).map(|n| node.pod(&mut net, &format!("p{n}"))).collect();
    let stray = dir.join("192.0.2.7");
    fs::write(&stray, "of-another-range\r\neth0").unwrap();
    assert_eq!(leases(&dir).len(), 5);
    sleep(Duration::from_secs(12));
    assert_eq!(leases(&dir).len(), 5, "pods of this run");

    // The power fails: pods and bridge are gone, and nobody tells the plugins.
    node.daemon_mut().process.kill();
    for pod in &pods {
        run(Command::new("ip").args(["netns", "del", &pod.ns.name]));
    }
    wait_for("the ports go with the pods", 20.0, || (!node.ns.ip("link").contains("veth")).then_some(()));
    node.ns.ip("link del routelet0");
    node.daemon_mut().restart();
    wait_for("the leases are cleared", 30.0, || (leases(&dir) == ["192.0.2.7"]).then_some(()));
    let again = node.pod(&mut net, "again");
    back(&node, &again, "a pod after the reboot");
    assert_eq!(leases(&dir).len(), 3);
}
