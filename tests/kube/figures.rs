//! The figures that stand beside kube-router's in docs/performance.md: three nodes on one segment, real control plane.
//!
//! One round of them runs with all tests and holds the behaviour to bounds that a busy machine keeps, too. For the table:
//! `cargo test --release --test kube figures_beside -- --ignored --nocapture`; `ROUNDS` is how many (5).

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    common::{Process, net::Net, wait_for},
    pods::Pod,
    scale::fill,
    world::{Node, Segment},
};

/// What one round measured, in seconds but for the packets.
#[derive(Debug, Default)]
struct Round {
    conflist: f64,
    all_routes: f64,
    joins: f64,
    registers: f64,
    repaired: f64,
    back: f64,
    sent: u64,
    lost: i64,
    touched: usize,
    deleted: f64,
    deleted_meanwhile: f64,
}

#[test]
fn three_nodes_start_join_mend_restart_and_leave_as_they_should() {
    let round = Round::play();
    println!("{round:?}");
    let slow = [round.conflist, round.all_routes, round.joins, round.registers, round.repaired, round.back];
    assert!(slow.iter().all(|s| *s < 30.0), "{round:?}");
    assert!(round.sent > 1000 && round.lost == 0 && round.touched == 0, "{round:?}");
    assert!(round.deleted < 60.0 && round.deleted_meanwhile < 60.0, "{round:?}");
}

#[test]
#[ignore = "measures: docs/performance.md says when and how"]
fn figures_beside_kube_router() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let all: Vec<_> = (0..rounds).map(|_| Round::play()).collect();
    let row = |what: &str, unit: &str, value: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<_> = all.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        println!("| {what} | {:.3} {unit} | {least:.3} to {most:.3} |", values[values.len() / 2]);
    };
    println!("| what | median | least to most of {rounds} |\n| --- | --- | --- |");
    row("start of three nodes at once, until the last conflist", "s", &|r| r.conflist);
    row("the same, until all routes are in all kernels", "s", &|r| r.all_routes);
    row("a further daemon starts, until its routes are everywhere, and it has all", "s", &|r| r.joins);
    row("a further Node is made (the daemon waits), until the same", "s", &|r| r.registers);
    row("`ip route del` of a learned route, until it is back", "s", &|r| r.repaired);
    row("kill -9, restart: packets lost at 1 kHz", "", &|r| r.lost as f64);
    row("the same: changes of routes", "", &|r| r.touched as f64);
    row("the same: start until all sessions are up", "s", &|r| r.back);
    row("Node deleted, until its routes are gone at the others", "s", &|r| r.deleted);
    row("Node deleted while a daemon was down, until gone after its start", "s", &|r| r.deleted_meanwhile);
}

impl Round {
    fn play() -> Self {
        let mut net = Net::new();
        let mut segment = Segment::new(&mut net, &[]);
        let mut nodes: Vec<_> = (1..=5).map(|n| segment.node(&mut net, n)).collect();
        nodes[..3].iter().for_each(|n| n.register(&segment.plane));
        let mut cidrs: Vec<_> = nodes[..3].iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
        nodes.iter_mut().for_each(|n| n.ready(&net, &segment.plane, ""));
        let logs: Vec<_> = nodes.iter().map(|n| Log::start(&net, n)).collect();
        let mut round = Self::default();

        // All three at once.
        let start = now();
        nodes[..3].iter_mut().for_each(|n| n.daemon_mut().spawn());
        round.all_routes = all_routes(&logs[..3], &cidrs, start);
        let written = |n: &Node| wait_for("a conflist", 60.0, || written_at(n)) - start;
        round.conflist = nodes[..3].iter().map(written).fold(0.0, f64::max);

        // A fourth one: its Node is there, the others try to reach it, and its daemon begins.
        nodes[3].register(&segment.plane);
        cidrs.push(segment.plane.pod_cidrs("n4"));
        wait_for("the others try to reach it", 60.0, || {
            let tries = |n: &Node| n.daemon().session(&nodes[3].addresses[0]).is_some();
            nodes[..3].iter().all(tries).then_some(())
        });
        let start = now();
        nodes[3].daemon_mut().spawn();
        round.joins = all_routes(&logs[..4], &cidrs, start);

        // A fifth one whose Node is made last; the controller gives it its pod CIDRs.
        nodes[4].daemon_mut().spawn();
        nodes[4].daemon_mut().wait_ready();
        let addresses: Vec<_> =
            nodes[4].addresses.iter().map(|a| json!({ "type": "InternalIP", "address": a })).collect();
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n5" },
            "status": { "addresses": addresses } });
        let start = now();
        fill(&segment.plane, "/api/v1/nodes", vec![object]);
        cidrs.push(segment.plane.pod_cidrs("n5"));
        round.registers = all_routes(&logs, &cidrs, start);

        let start = now();
        nodes[0].ns.ip(&format!("route del {} proto 179", cidrs[1][0]));
        round.repaired = wait_for("it is back", 60.0, || logs[0].last(&cidrs[1][0], start)) - start;

        // Killed, five seconds away, back.
        let pods: Vec<_> = (0..2).map(|n| nodes[n].pod(&mut net, &format!("p{n}"))).collect();
        wait_for("pods reach each other", 60.0, || pods[0].ns.pings(&pods[1].addresses[0]).then_some(()));
        (round.sent, round.lost, round.touched, round.back) = restart(&mut nodes[0], &logs[0], &pods);

        // A Node goes, and another one while a daemon is down.
        let start = now();
        segment.plane.delete_node("n5");
        nodes[4].daemon_mut().process.kill();
        round.deleted = gone(&nodes[..4], &cidrs[4]) - start;
        nodes[0].daemon_mut().process.kill();
        segment.plane.delete_node("n4");
        nodes[3].daemon_mut().process.kill();
        assert!(nodes[0].has_route(&cidrs[3][0]), "nobody took it");
        let start = now();
        nodes[0].daemon_mut().spawn();
        round.deleted_meanwhile = gone(&nodes[..1], &cidrs[3]) - start;
        round
    }
}

/// Packets sent and lost between two pods, and route changes, while the first one's daemon is killed and started again;
/// and how long after the start its sessions are up.
fn restart(node: &mut Node, log: &Log, pods: &[Pod]) -> (u64, i64, usize, f64) {
    let go_on = AtomicBool::new(true);
    let arrived = || arrived(&pods[1]);
    let (before, began) = (arrived(), now());
    let (sent, back) = thread::scope(|s| {
        let sender = s.spawn(|| pods[0].ns.enter(|| probe(&pods[1].addresses[0], &go_on)));
        thread::sleep(Duration::from_secs(1));
        node.daemon_mut().process.kill();
        thread::sleep(Duration::from_secs(5));
        let start = now();
        node.daemon_mut().spawn();
        node.daemon_mut().wait_ready();
        wait_for("its sessions are up", 60.0, || {
            let all = node.daemon().json(&["show", "neighbors"]);
            let all = all.as_array()?;
            (all.len() == 4 && all.iter().all(|n| n["state"] == "established")).then_some(())
        });
        let back = now() - start;
        thread::sleep(Duration::from_secs(2));
        go_on.store(false, Ordering::Relaxed);
        (sender.join().unwrap(), back)
    });
    thread::sleep(Duration::from_secs(1));
    let touched = log.lines().into_iter().filter(|(at, _)| *at > began).count();
    (sent, sent as i64 - (arrived() - before) as i64, touched, back)
}

/// Sends a packet each millisecond; how many.
fn probe(to: &str, go_on: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let (mut sent, start) = (0_u64, Instant::now());
    while go_on.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(200) {
        socket.send_to(&[0; 32], (to, 9)).unwrap();
        sent += 1;
        thread::sleep(Duration::from_millis(sent).saturating_sub(start.elapsed()));
    }
    sent
}

/// Packets that came to a port of a pod on which nobody listens, as its kernel counts them: no buffer can be too small.
fn arrived(pod: &Pod) -> u64 {
    let text = pod.ns.sh("cat /proc/net/snmp");
    let mut udp = text.lines().filter_map(|l| l.strip_prefix("Udp: "));
    let (keys, values) = (udp.next().unwrap_or_default(), udp.next().unwrap_or_default());
    let at = keys.split_whitespace().position(|k| k == "NoPorts").expect("a counter");
    values.split_whitespace().nth(at).and_then(|n| n.parse().ok()).expect("a number")
}

/// When each node had each route of the others after `start`, the last of them.
fn all_routes(logs: &[Log], cidrs: &[Vec<String>], start: f64) -> f64 {
    let mut last = start;
    for (at, log) in logs.iter().enumerate() {
        let others = cidrs.iter().enumerate().filter(|(n, _)| *n != at);
        for prefix in others.flat_map(|(_, c)| c) {
            // One that was there all the time is no news.
            let since = wait_for(format!("{} has {prefix}", log.name), 90.0, || {
                log.first(prefix, start).or_else(|| log.is_there(prefix).then_some(start))
            });
            last = last.max(since);
        }
    }
    last - start
}

fn gone(nodes: &[Node], cidrs: &[String]) -> f64 {
    wait_for("the routes are gone", 400.0, || {
        let gone = |n: &Node| !cidrs.iter().any(|p| n.has_route(p));
        nodes.iter().all(gone).then_some(())
    });
    now()
}

fn written_at(node: &Node) -> Option<f64> {
    let file = fs::metadata(node.conflist_file()).ok()?;
    Some(file.ctime() as f64 + file.ctime_nsec() as f64 / 1e9)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

/// All changes of a node's routes, with their times, as its kernel tells them.
struct Log {
    name: String,
    monitor: Process,
}

impl Log {
    fn start(net: &Net, node: &Node) -> Self {
        let file = net.dir().join(format!("{}.routes", node.name));
        let mut command = node.ns.command("ip");
        command.args(["-ts", "-o", "monitor", "route"]).env("TZ", "UTC");
        Self { name: node.name.clone(), monitor: Process::start(&mut command, &file) }
    }

    /// Each change of a learned route.
    fn lines(&self) -> Vec<(f64, String)> {
        let text = self.monitor.printed();
        let read = |line: &str| {
            let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
            let time: jiff::Timestamp = format!("{time}Z").parse().ok()?;
            let learned = rest.contains("proto 179") || rest.contains("proto routelet");
            (learned && !rest.contains("unreachable"))
                .then(|| (time.as_microsecond() as f64 / 1e6, rest.to_owned()))
        };
        text.lines().filter_map(read).collect()
    }

    fn of(&self, prefix: &str, since: f64) -> Vec<f64> {
        let lines = self.lines().into_iter();
        lines
            .filter(|(at, line)| *at >= since && line.split_whitespace().next() == Some(prefix))
            .map(|(at, _)| at)
            .collect()
    }

    /// When it was added first after `since`.
    fn first(&self, prefix: &str, since: f64) -> Option<f64> {
        self.of(prefix, since).first().copied()
    }

    fn last(&self, prefix: &str, since: f64) -> Option<f64> {
        self.of(prefix, since).last().copied()
    }

    /// Whether its last word was an addition.
    fn is_there(&self, prefix: &str) -> bool {
        let lines = self.lines();
        let last = lines.iter().rev().find(|(_, line)| line.split_whitespace().any(|word| word == prefix));
        last.is_some_and(|(_, line)| !line.starts_with("Deleted"))
    }
}
