//! Large clusters: Nodes and Pods by the thousand in a real API server, and what they cost one real routelet.

use std::{collections::BTreeSet, fmt, fs, path::Path, time::Instant};

use futures::{StreamExt, stream};
use hyper::http::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{
    cluster::{ControlPlane, audit, audited},
    common::{net::Net, wait_for},
    world::{Node, Segment},
};

/// What the kernel says of a process.
#[derive(Clone, Copy)]
struct Cost {
    /// All that is resident, the program's file among it.
    rss_kib: u64,
    /// Of its own: heap and stack.
    own_kib: u64,
    cpu_ticks: u64,
}

impl Cost {
    fn of(node: &Node) -> Self {
        let proc = Path::new("/proc").join(node.daemon().process.pid().to_string());
        let status = fs::read_to_string(proc.join("status")).expect("a running daemon");
        let kib = |key: &str| {
            let line = status.lines().find(|l| l.starts_with(key)).expect("a line of /proc/PID/status");
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
        };
        let stat = fs::read_to_string(proc.join("stat")).expect("a running daemon");
        let after_name = stat.rsplit(')').next().expect("fields").split_whitespace();
        // utime and stime.
        let cpu_ticks = after_name.skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
        Self { rss_kib: kib("VmRSS:"), own_kib: kib("RssAnon:"), cpu_ticks }
    }

    /// Bounds the memory of its own. How much of the program's file is resident depends on how the
    /// kernel read it: a page fault maps whole folios of the page cache.
    fn is_below(self, what: &str, own_kib: u64) {
        println!("{what}: {self}");
        assert!(self.own_kib <= own_kib, "{what}: {self}, more than {own_kib} KiB of its own");
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, own_kib, cpu_ticks } = self;
        write!(f, "RSS {rss_kib} KiB, {own_kib} of it its own; CPU {} ms", cpu_ticks * 10)
    }
}

#[test]
fn thousands_of_nodes_and_pods_cost_little_memory_and_no_watch_of_pods() {
    let mut net = Net::new();
    let (flags, log) = audit(&net);
    let mut segment = Segment::new(&mut net, &flags.each_ref().map(String::as_str));
    let mut node = segment.node(&mut net, 1);
    node.register(&segment.plane);
    // One that reflects for a thousand has a thousand sessions, which is another figure.
    segment.plane.kubectl(&["label", "node", "n1", "routelet.io/route-reflector=false"]);
    let cidrs = segment.plane.pod_cidrs("n1");
    // The others bring theirs, as there is no room for so many in the controller's range.
    segment.plane.stop_controllers();
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9179\"\n";
    node.start(&net, &segment.plane, metrics);
    node.wait_conflist(&cidrs);
    at_rest(&node, 1).is_below("1 Node", 4_000);

    fill(&segment.plane, "/api/v1/nodes", (0..199).map(simulated).collect());
    let pods = (0..6000).map(pod).collect();
    fill(&segment.plane, "/api/v1/namespaces/default/pods", pods);
    at_rest(&node, 200).is_below("200 Nodes and 6,000 Pods", 8_000);
    let kind = |event: &Value| Some(event["objectRef"]["resource"].as_str()?.to_owned());
    let asked: BTreeSet<_> = audited(&log).iter().filter_map(kind).collect();
    assert!(asked.contains("nodes") && !asked.contains("pods"), "{asked:?}");

    fill(&segment.plane, "/api/v1/nodes", (199..999).map(simulated).collect());
    let thousand = at_rest(&node, 1000);
    thousand.is_below("1,000 Nodes", 12_000);
    // What kubelets say each few minutes, of all Nodes at once.
    let since = Instant::now();
    heartbeats(&segment.plane, 0..999);
    let after = at_rest(&node, 1000);
    let took = since.elapsed().as_secs_f64();
    println!("999 heartbeats in {took:.1} s: CPU {} ms", (after.cpu_ticks - thousand.cpu_ticks) * 10);
    after.is_below("1,000 Nodes after their heartbeats", 12_000);

    fill(&segment.plane, "/api/v1/nodes", (999..4999).map(simulated).collect());
    at_rest(&node, 5000).is_below("5,000 Nodes, come one by one", 20_000);
    node.daemon_mut().process.kill();
    node.daemon_mut().restart();
    at_rest(&node, 5000).is_below("5,000 Nodes, there at the start", 20_000);
}

/// Once so many Nodes are known, and nothing has been done for a second.
fn at_rest(node: &Node, nodes: usize) -> Cost {
    let wanted = format!("routelet_kubernetes_nodes {nodes}\n");
    wait_for(format!("{nodes} Nodes are known"), 120.0, || {
        let page = node.ns.command("curl").args(["-s", "http://127.0.0.1:9179/metrics"]).output().ok()?;
        String::from_utf8_lossy(&page.stdout).contains(&wanted).then_some(())
    });
    // Grown over its limit, the mesh stays beside the reflectors until it is clear that nothing hangs on it.
    wait_for("the mesh is let go", 120.0, || {
        let neighbors = node.daemon().json(&["show", "neighbors"]);
        (nodes <= 100 || neighbors.as_array().is_some_and(|all| all.len() <= 3)).then_some(())
    });
    wait_for("it rests", 120.0, || {
        let before = Cost::of(node).cpu_ticks;
        std::thread::sleep(std::time::Duration::from_secs(1));
        let after = Cost::of(node);
        (after.cpu_ticks <= before + 1).then_some(after)
    })
}

/// A Node as a kubelet describes its machine, with what makes it large.
fn simulated(n: usize) -> Value {
    let name = format!("sim-{n:04}");
    let (high, low) = (n / 256, n % 256);
    let images: Vec<_> = (0..50)
        .map(|i| {
            let digest = format!("registry.example.com/team/image-{i}@sha256:{}", "ab".repeat(32));
            json!({ "names": [digest, format!("registry.example.com/team/image-{i}:v1.2.{i}")], "sizeBytes": 12_345_678 })
        })
        .collect();
    let conditions =
        ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(|kind| condition(kind, 0));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": format!("zone-{}", n % 3) } },
        "spec": { "podCIDRs": [format!("10.{}.{low}.0/24", 128 + high), format!("fd00:1:0:{n:x}::/64")],
            "podCIDR": format!("10.{}.{low}.0/24", 128 + high) },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("10.98.{high}.{low}") },
                { "type": "InternalIP", "address": format!("fd00:98::{:x}", n + 1) }, { "type": "Hostname", "address": name }],
            "conditions": conditions,
            "images": images,
            "nodeInfo": { "machineID": "a".repeat(32), "systemUUID": "b".repeat(36), "bootID": "c".repeat(36),
                "kernelVersion": "6.18", "osImage": "Debian", "containerRuntimeVersion": "containerd://2.0",
                "kubeletVersion": "v1.36.3", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64" },
        },
    })
}

fn condition(kind: &str, minute: u32) -> Value {
    let at = format!("2026-01-01T00:{minute:02}:00Z");
    let status = if kind == "Ready" { "True" } else { "False" };
    json!({ "type": kind, "status": status, "reason": "Kubelet", "message": format!("the kubelet says so of {kind}"),
        "lastHeartbeatTime": at, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn pod(n: usize) -> Value {
    let container = json!({ "name": "c", "image": "registry.example.com/c" });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("p-{n}"), "labels": { "app": "c" } },
        "spec": { "nodeName": format!("sim-{:04}", n % 199), "containers": [container] } })
}

fn heartbeats(plane: &ControlPlane, nodes: std::ops::Range<usize>) {
    let patch = json!({ "status": { "conditions": [condition("Ready", 5)] } });
    let all = nodes.map(|n| {
        Request::patch(format!("/api/v1/nodes/sim-{n:04}/status"))
            .header("Content-Type", "application/strategic-merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("a request")
    });
    send_all(plane, all.collect());
}

/// Makes these objects, many at once.
pub fn fill(plane: &ControlPlane, path: &str, objects: Vec<Value>) {
    let since = Instant::now();
    let count = objects.len();
    let all = objects.into_iter().map(|object| {
        let request = Request::post(path).header("Content-Type", "application/json");
        request.body(object.to_string().into_bytes()).expect("a request")
    });
    send_all(plane, all.collect());
    println!("{count} objects of {path} made in {:.1} s", since.elapsed().as_secs_f64());
}

/// Many at once, as the administrator.
fn send_all(plane: &ControlPlane, requests: Vec<Request<Vec<u8>>>) {
    let kubeconfig = Kubeconfig::read_from(plane.admin_kubeconfig()).expect("a kubeconfig");
    plane.ns.enter(|| {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let client = Client::try_from(config.expect("a configuration")).expect("a client");
            let client = &client;
            let asked = stream::iter(requests).for_each_concurrent(32, |request| async move {
                client.request_text(request).await.expect("the API server takes it");
            });
            asked.await;
        });
    });
}
