//! `routelet cleanup` after a real run: nothing of ours is left, nothing of others is gone.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    common::{
        net::{Net, Ns},
        wait_for,
    },
    world::{Node, Segment},
};

#[test]
fn cleanup_leaves_nothing_of_ours_and_all_that_is_others() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let [mut one, mut two] = [1, 2].map(|n| segment.node(&mut net, n));
    others(&one);
    let before = kernel(&one.ns);
    for node in [&mut one, &mut two] {
        node.register(&segment.plane);
        node.start(&net, &segment.plane, "");
    }
    let state = one.daemon().dir.join("state");
    fs::write(state.join("notes.txt"), "the operator's").unwrap();
    let (first, second) = (segment.plane.pod_cidrs("n1"), segment.plane.pod_cidrs("n2"));
    one.wait_conflist(&first);
    second.iter().for_each(|prefix| one.wait_route(prefix));
    let pod = one.pod(&mut net, "a");
    wait_for("pods are masqueraded", 60.0, || ruleset(&one.ns).contains("masquerade").then_some(()));

    // A former pod CIDR with a pod in it: an address on lo, and a link route.
    let cidrs = ["10.244.177.0/24", "fd00:244:0:177::/64"];
    segment.plane.delete_node("n1");
    segment.plane.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs } }));
    segment.plane.set_addresses("n1", &["10.99.0.11", "fd00:99::11"]);
    one.wait_conflist(&cidrs.map(str::to_owned));
    let gateway = first[0].replace(".0/24", ".1/32");
    wait_for("the old gateway is on lo", 60.0, || {
        one.ns.ip("addr show dev lo").contains(&gateway).then_some(())
    });
    one.daemon().cli(&["drain", "--now"]);
    wait_for("the state is kept", 60.0, || {
        let kept = files(&state);
        ["cluster.json", "kept.json", "router-id"]
            .iter()
            .all(|f| kept.contains(&(*f).to_owned()))
            .then_some(())
    });

    // Killed, so that nothing is tidied up on the way; and in the middle of a write.
    one.routelet.as_mut().unwrap().process.kill();
    fs::write(state.join(".cluster.json.tmp"), "{").unwrap();
    fs::write(one.conf_dir.join(".10-routelet.conflist.tmp"), "{").unwrap();
    assert!(one.daemon().socket().exists());
    one.runtime.delete(&pod);
    let removed = cleanup(&one);
    for what in [
        "routes and ",
        "nftables table inet routelet",
        &*format!("former pod CIDR {}", first[0]),
        "bridge routelet0",
        "10-routelet.conflist",
        "kept.json",
    ] {
        assert!(removed.contains(what), "{what}: {removed}");
    }
    assert_eq!(kernel(&one.ns), before);
    assert_eq!(files(&one.conf_dir), ["05-other.conf"]);
    assert_eq!(files(&state), ["notes.txt"]);
    assert!(!one.daemon().socket().exists());
    assert_eq!(cleanup(&one), "", "nothing is left for a second time");

    // Pods that still run keep their bridge.
    let pod = two.pod(&mut net, "b");
    two.routelet.as_mut().unwrap().process.kill();
    let removed = cleanup(&two);
    assert!(removed.contains("10-routelet.conflist") && !removed.contains("bridge"), "{removed}");
    assert!(two.ns.pings(&pod.addresses[0]));
}

/// What belongs to somebody else.
fn others(node: &Node) {
    let ns = &node.ns;
    // As kubeadm sets it up; with it the kernel has routes of its own.
    ns.sysctl("net.ipv4.ip_forward", "1");
    ns.sysctl("net.ipv6.conf.all.forwarding", "1");
    ns.ip("route add 192.0.2.0/24 via 10.99.0.1 proto static");
    ns.ip("route add unreachable 198.51.100.0/24 proto bird metric 32");
    ns.ip("-6 route add 2001:db8:7::/48 via fd00:99::1 proto static metric 179");
    ns.ip("nexthop add id 77 via 10.99.0.1 dev eth0 proto zebra");
    ns.ip("addr add 203.0.113.5/32 dev lo");
    ns.ip("link add br9 type bridge");
    ns.sh("nft add table inet other && nft add chain inet other c && nft add rule inet other c ip daddr 192.0.2.1 drop");
    fs::create_dir_all(&node.conf_dir).unwrap();
    fs::write(
        node.conf_dir.join("05-other.conf"),
        r#"{"cniVersion": "1.0.0", "name": "o", "type": "bridge"}"#,
    )
    .unwrap();
}

/// All that could be ours, but what IPv6 does by itself on links.
fn kernel(ns: &Ns) -> Vec<String> {
    let shown = [
        ns.ip("-o link"),
        ns.ip("-o addr"),
        ns.ip("rule"),
        ns.ip("route show table all"),
        ns.ip("-6 route show table all"),
        ns.ip("nexthop"),
        ruleset(ns),
    ];
    let lines = shown.iter().flat_map(|text| text.lines());
    let mut lines: Vec<_> =
        lines.filter(|l| !l.contains("fe80") && !l.contains("multicast")).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn ruleset(ns: &Ns) -> String {
    ns.sh("nft list ruleset")
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn cleanup(node: &Node) -> String {
    let mut command: Command = node.ns.command(env!("CARGO_BIN_EXE_routelet"));
    crate::common::run(command.args(["cleanup", "--config"]).arg(node.daemon().dir.join("routelet.toml")))
}
