//! Life without the API server, and with one that does not know our kinds.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::{audit, audited, manifest},
    common::{
        net::{Net, Ns},
        wait_for,
    },
    objects::peer,
    world::{Node, Segment},
};

const CONFIG: &str =
    "[metrics]\nlisten = \"127.0.0.1:9179\"\n[kubernetes]\nservice-annotations = [\"cluster-ip\"]\n";
/// Neighbors by objects, at which nobody is.
const STAYS: &str = "10.99.0.77";
const GOES: &str = "10.99.0.78";

#[test]
fn a_node_that_boots_without_the_api_server_has_all_it_had_and_learns_later_what_changed() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes = segment.nodes(&mut net, 3, |_| CONFIG.into());
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    for (name, address) in [("stays", STAYS), ("goes", GOES)] {
        segment
            .plane
            .apply(&peer(name, json!({ "address": address, "remoteAs": 65001, "import": ["nothing"] })));
    }
    let statements = json!([{ "action": "reject" }]);
    segment.plane.apply(&json!({ "apiVersion": "routelet.io/v1alpha1", "kind": "BGPPolicy",
        "metadata": { "name": "nothing" }, "spec": { "statements": statements } }));
    segment.plane.apply(
        &json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default",
        "annotations": { "routelet.io/advertise": "cluster-ip" } }, "spec": { "ports": [{ "port": 80 }] } }),
    );
    let state = nodes[0].daemon().dir.join("state");
    let kept = |file: &str, what: &str| fs::read_to_string(state.join(file)).is_ok_and(|t| t.contains(what));
    wait_for("all of it is kept", 60.0, || {
        let objects =
            kept("objects.json", STAYS) && kept("objects.json", GOES) && kept("objects.json", "nothing");
        (objects && kept("cluster.json", &cidrs[2][0]) && kept("services.json", "default/web")).then_some(())
    });
    nodes[0].wait_route(&cidrs[1][0]);
    nodes[0].wait_route(&cidrs[2][0]);

    // The machine goes down; meanwhile a peer and a Node are deleted; then the API server goes, too.
    nodes[0].daemon_mut().process.kill();
    forget_kernel(&nodes[0]);
    segment.plane.kubectl(&["delete", "bgppeer", "goes"]);
    segment.plane.delete_node("n3");
    nodes[2].daemon_mut().process.kill();
    segment.plane.stop_api();

    let since = Instant::now();
    nodes[0].daemon_mut().spawn();
    wait_for("a conflist", 60.0, || nodes[0].conflist_file().exists().then_some(()));
    let conflist = since.elapsed();
    nodes[0].wait_route(&cidrs[1][1]);
    println!("without the API server: conflist after {conflist:?}, routes after {:?}", since.elapsed());
    nodes[0].daemon_mut().wait_ready();
    let shown = nodes[0].daemon().json(&["show", "node"]);
    assert_eq!(
        (&shown["api"]["connected"], &shown["api"]["from_state"]),
        (&json!(false), &json!(true)),
        "{shown}"
    );
    assert!(shown["services"].to_string().contains("default/web"), "{shown}");
    for address in [STAYS, GOES, "10.99.0.12", "10.99.0.13"] {
        assert!(has_neighbor(&nodes[0], address), "{address} is a neighbor without the API server");
    }

    // The API server is back, and away, and back: nobody restarts us for it, and what was deleted is gone.
    let watched = AtomicBool::new(true);
    let (ns, first) = (nodes[0].ns.clone(), &nodes[0]);
    thread::scope(|s| {
        let probes = s.spawn(|| live(&ns, &watched));
        segment.plane.start_api();
        wait_for("what was deleted is gone", 90.0, || {
            (!has_neighbor(first, GOES) && !has_neighbor(first, "10.99.0.13")).then_some(())
        });
        assert!(has_neighbor(first, STAYS) && first.has_route(&cidrs[1][0]));
        segment.plane.stop_api();
        wait_for("the outage is noticed", 60.0, || {
            (first.daemon().json(&["show", "node"])["api"]["connected"] == false).then_some(())
        });
        thread::sleep(Duration::from_secs(5));
        segment.plane.start_api();
        wait_for("its end is noticed", 90.0, || {
            (first.daemon().json(&["show", "node"])["api"]["connected"] == true).then_some(())
        });
        watched.store(false, Ordering::Relaxed);
        let (asked, failed) = probes.join().unwrap();
        assert!(asked > 20 && failed == 0, "{failed} of {asked} liveness probes failed");
    });
}

#[test]
fn a_cluster_that_learns_our_kinds_later_is_asked_rarely_and_heard_then() {
    let mut net = Net::new();
    let (flags, log) = audit(&net);
    let mut segment = Segment::new(&mut net, &flags.each_ref().map(String::as_str));
    let kinds = ["bgppeers", "bgppolicies", "bgpnodestatuses"].map(|k| format!("{k}.routelet.io"));
    segment.plane.kubectl(&[&["delete", "crd"], &kinds.each_ref().map(String::as_str)[..]].concat());
    let nodes = segment.nodes(&mut net, 2, |_| String::new());
    let cidrs = ["n1", "n2"].map(|name| segment.plane.pod_cidrs(name));
    let plane = &segment.plane;
    nodes[0].wait_conflist(&cidrs[0]);
    nodes[0].wait_route(&cidrs[1][0]);
    let said = || nodes[0].daemon().process.printed().matches("optional kind not present").count();
    wait_for("it is said of both kinds", 120.0, || (said() == 2).then_some(()));
    let refused = peer_requests(&log);
    // Both nodes, twice at the start and then each half minute.
    assert!(refused <= 8, "asked {refused} times within the first half minute");

    plane.kubectl(&["apply", "-f", manifest().to_str().unwrap()]);
    wait_for("the kind is established", 60.0, || {
        let object = peer("late", json!({ "address": STAYS, "remoteAs": 65001 }));
        fs::write(net.dir().join("late.json"), object.to_string()).unwrap();
        plane.try_kubectl(&["apply", "-f", net.dir().join("late.json").to_str().unwrap()]).ok()
    });
    wait_for("its first object is heeded", 120.0, || has_neighbor(&nodes[0], STAYS).then_some(()));
    assert_eq!(said(), 2, "once for each kind");
}

/// Lists and watches of BGPPeers so far.
fn peer_requests(log: &Path) -> usize {
    let asks = |what: &str| {
        let fits = |uri: &str| uri.contains(what);
        audited(log).iter().filter(|event| event["requestURI"].as_str().is_some_and(fits)).count()
    };
    assert!(asks("/nodes") > 0, "the log is written");
    asks("/bgppeers")
}

/// What a boot forgets; files of the container runtime are taken away as well, to see them come.
fn forget_kernel(node: &Node) {
    fs::remove_file(node.conflist_file()).unwrap();
    for family in ["-4", "-6"] {
        let shown = node.ns.ip(&format!("{family} -o route show proto 179"));
        for line in shown.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let prefix = if words[0] == "unreachable" { words[1] } else { words[0] };
            let _ = node.ns.command("ip").args([family, "route", "del", prefix, "proto", "179"]).status();
        }
    }
    node.ns.ip("nexthop flush proto 179");
    assert!(!node.ns.ip("route show proto 179").contains("via"), "a kernel that knows nothing");
}

fn has_neighbor(node: &Node, address: &str) -> bool {
    let neighbors = node.daemon().json(&["show", "neighbors"]);
    neighbors.as_array().unwrap().iter().any(|n| n["address"] == address)
}

/// Asks /livez ten times a second, as a kubelet asks each ten: how often, and how often in vain.
fn live(ns: &Ns, go_on: &AtomicBool) -> (usize, usize) {
    let (mut asked, mut failed) = (0, 0);
    let since = Instant::now();
    while go_on.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(400) {
        asked += 1;
        failed += usize::from(!ns.enter(is_live));
        thread::sleep(Duration::from_millis(100));
    }
    (asked, failed)
}

fn is_live() -> bool {
    let patience = Duration::from_secs(10);
    let page = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 9179)), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    page().is_ok_and(|page| page.starts_with("HTTP/1.1 200"))
}
