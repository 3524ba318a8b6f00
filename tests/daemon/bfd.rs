//! Silent losses and a busy host, with BFD at 50 ms × 3: what the kernel does, and when.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use routelet::{
    bfd::{Arrival, Engine, Output, Watch},
    net::{BfdParams, BfdPath},
};
use thread_priority::{RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy};

use crate::common::{
    Process,
    daemons::Routelet,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, update},
    wait_for, within,
};

/// A neighbor's BFD on a thread of the test, which no load of the test holds up.
struct Responder {
    stop: Arc<AtomicBool>,
    /// By how many ms its thread, which runs before all others, was late at most: then the machine stood still.
    late: Arc<AtomicU64>,
    /// When the daemon's first packet with state AdminDown arrived.
    ended: Arc<OnceLock<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    fn start(ns: &Ns, own: Ipv4Addr, remote: Ipv4Addr) -> Self {
        let (receiver, sender) = ns.enter(|| {
            let sender = UdpSocket::bind((own, 50000)).unwrap();
            sender.set_ttl(255).unwrap();
            sender.connect((remote, 3784)).unwrap();
            (UdpSocket::bind((own, 3784)).unwrap(), sender)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let late = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(OnceLock::new());
        let (until, latest, end) = (stop.clone(), late.clone(), ended.clone());
        let thread = Some(spawn(move || respond(&receiver, &sender, remote.into(), &until, &latest, &end)));
        Self { stop, late, ended, thread }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn respond(
    receiver: &UdpSocket,
    sender: &UdpSocket,
    remote: IpAddr,
    stop: &AtomicBool,
    late: &AtomicU64,
    ended: &OnceLock<Instant>,
) {
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: 20 });
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let thread = thread_priority::thread_native_id();
    let _ = thread_priority::set_thread_priority_and_policy(thread, priority, policy);
    let (mut engine, mut out, mut octets) = (Engine::new(1), Vec::new(), [0; 100]);
    let ms = Duration::from_millis(50);
    let params = BfdParams { min_tx: ms, min_rx: ms, multiplier: 3, passive: false, auth: None };
    let path = BfdPath { remote, local: None, ifindex: 1 };
    engine.watch(Instant::now(), 1, Some(Watch { path, params, proceed: false }), &mut out).unwrap();
    let arrival = Arrival { from: remote, to: None, ifindex: 1, ttl: Some(255), multihop: false };
    while !stop.load(Relaxed) {
        let due = engine.poll_timeout().map_or(ms, |at| at.saturating_duration_since(Instant::now()));
        let (timeout, asleep) = (due.clamp(Duration::from_millis(1), ms), Instant::now());
        receiver.set_read_timeout(Some(timeout)).unwrap();
        // As FRR does, it takes packets from the neighbor's address alone.
        if let Some((length, _)) =
            receiver.recv_from(&mut octets).ok().filter(|(_, from)| from.ip() == remote)
        {
            if octets[1] >> 6 == 0 {
                ended.get_or_init(Instant::now);
            }
            engine.receive(Instant::now(), &arrival, &octets[..length], &mut out);
        }
        let over = asleep.elapsed().saturating_sub(timeout);
        late.fetch_max(u64::try_from(over.as_millis()).unwrap_or(u64::MAX), Relaxed);
        engine.timeout(Instant::now(), &mut out);
        for output in out.drain(..) {
            if let Output::Send { packet, .. } = output {
                let _ = sender.send(packet.as_slice());
            }
        }
    }
}

const SWITCHES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)];

/// A host 10.1.0.2 and 10.2.0.2 below two switches.
fn stage(net: &mut Net) -> (Ns, [Ns; 2]) {
    let host = net.ns("host");
    let switches = [1, 2].map(|n| {
        let switch = net.ns(&format!("switch{n}"));
        net.link((&switch, "eth0"), (&host, &format!("eth{n}")));
        switch.ip(&format!("addr add 10.{n}.0.1/24 dev eth0"));
        host.ip(&format!("addr add 10.{n}.0.2/24 dev eth{n}"));
        switch
    });
    // Else the replacement of a group notifies each of its routes (kernel.md 4).
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    (host, switches)
}

fn config() -> String {
    config_at(50)
}

fn config_at(ms: u32) -> String {
    let neighbor = |n: u8| {
        format!(
            "[[bgp.neighbor]]\naddress = \"10.{n}.0.1\"\nremote-as = 1000{n}\npassive = true\nmax-prefixes = 1000000\n\
             bfd = {{ min-tx = {ms}, min-rx = {ms}, multiplier = 3 }}\n"
        )
    };
    format!("[bgp]\nas = 1000\nrouter-id = \"10.1.0.2\"\n{}{}", neighbor(1), neighbor(2))
}

fn speakers(switches: &[Ns; 2]) -> [Speaker; 2] {
    [0, 1].map(|n| {
        let host = Ipv4Addr::new(10, 1 + n as u8, 0, 2);
        let mut speaker = Speaker::dial(&switches[n], host.into()).unwrap();
        speaker.establish(10001 + n as u32, 90, SWITCHES[n]);
        speaker
    })
}

fn prefixes(count: u32) -> Vec<(Ipv4Addr, u8)> {
    (0..count).map(|n| (Ipv4Addr::from(0x1400_0000 + (n << 8)), 24)).collect()
}

fn advertise(speaker: &mut Speaker, n: usize, count: u32) {
    let path: &[u32] = &[10001 + n as u32, 64600];
    let mut octets = Vec::new();
    for part in prefixes(count).chunks(500) {
        octets.extend(update(&[], &attributes(path, SWITCHES[n], 0), part));
    }
    octets.extend(end_of_rib());
    speaker.send(&octets);
}

/// BFD and BGP of both switches, with the daemon up.
fn watched(routelet: &Routelet, switches: &[Ns; 2]) -> ([Responder; 2], [Speaker; 2]) {
    let host = |n| Ipv4Addr::new(10, 1 + n as u8, 0, 2);
    let responders = [0, 1].map(|n| Responder::start(&switches[n], SWITCHES[n], host(n)));
    let speakers = speakers(switches);
    wait_for("BFD with both switches", 20.0, || {
        let all = routelet.json(&["show", "bfd"]);
        (all.as_array()?.iter().filter(|s| s["state"] == "up").count() == 2).then_some(())
    });
    (responders, speakers)
}

/// Neither end's packets arrive any more, and no link knows of it.
fn cut(switch: &Ns) {
    switch.sh(
        "nft 'add table inet cut; add chain inet cut in { type filter hook prerouting priority -300; policy drop; }; \
         add chain inet cut out { type filter hook output priority -300; policy drop; }'",
    );
}

/// Objects of the kernel that lead over this link, by groups that have a member there.
fn leads_over(host: &Ns, gateway: Ipv4Addr) -> bool {
    let objects = host.ip("nexthop show");
    let ids: Vec<&str> = objects
        .lines()
        .filter(|l| l.contains(&format!("via {gateway} ")))
        .filter_map(|l| l.split_whitespace().nth(1))
        .collect();
    let groups = objects.lines().filter_map(|l| l.split("group ").nth(1)?.split_whitespace().next());
    groups.flat_map(|g| g.split('/')).any(|member| ids.contains(&member))
}

fn failover(count: u32) -> Duration {
    let mut net = Net::new();
    let (host, switches) = stage(&mut net);
    let routelet = Routelet::start(&net, &host, &config(), &[]);
    let (_responders, mut speakers) = watched(&routelet, &switches);
    for (n, speaker) in speakers.iter_mut().enumerate() {
        advertise(speaker, n, count);
    }
    let last = prefixes(count).last().unwrap().0;
    // With 0 the kernel shows the object of a route and not its gateways.
    let object = |prefix: Ipv4Addr| {
        host.ip(&format!("route show {prefix}/24")).split(" proto").next().map(str::to_owned)
    };
    wait_for("all routes over both", 120.0, || {
        let both = leads_over(&host, SWITCHES[0]) && leads_over(&host, SWITCHES[1]);
        let (a, b) = (object(Ipv4Addr::new(20, 0, 0, 0))?, object(last)?);
        let same = a.split("nhid ").nth(1)? == b.split("nhid ").nth(1)?;
        (both && same).then_some(())
    });
    sleep(Duration::from_secs(2));
    cut(&switches[0]);
    let start = Instant::now();
    let took = wait_for("the kernel goes on without the first switch", 30.0, || {
        (!leads_over(&host, SWITCHES[0])).then(|| start.elapsed())
    });
    let view = routelet.json(&["show", "neighbor", "10.1.0.1"]);
    assert_eq!(view["drops"]["bfd"], 1, "{view}");
    assert!(leads_over(&host, SWITCHES[1]) || host.ip("nexthop show").contains("10.2.0.1"));
    took
}

/// Else a neighbor that takes the end of BFD for a loss ends the session without graceful restart.
#[test]
fn at_a_stop_the_connection_ends_before_bfd_does() {
    let mut net = Net::new();
    let (host, switches) = stage(&mut net);
    let mut routelet = Routelet::start(&net, &host, &config(), &[]);
    let (responders, mut speakers) = watched(&routelet, &switches);
    routelet.process.signal("TERM");
    while speakers[0].receive(10.0).is_some() {}
    let closed = Instant::now();
    routelet.process.stop();
    let ended = *wait_for("AdminDown", 5.0, || responders[0].ended.get());
    assert!(ended > closed, "BFD ended {:?} before the connection", closed - ended);
}

/// As a DHCP client or a network manager does that sets an interface up again.
#[test]
fn an_address_that_is_back_within_the_detection_time_costs_no_session() {
    let mut net = Net::new();
    let (host, switches) = stage(&mut net);
    let routelet = Routelet::start(&net, &host, &config_at(300), &[]);
    let (_responders, _speakers) = watched(&routelet, &switches);
    for gone in [150, 300, 450] {
        host.ip("addr del 10.1.0.2/24 dev eth1");
        sleep(Duration::from_millis(gone));
        host.ip("addr add 10.1.0.2/24 dev eth1");
        sleep(Duration::from_millis(1500));
        let shown = routelet.json(&["show", "bfd"]);
        let session = |s: &serde_json::Value| (s["state"].clone(), s["failures"].clone());
        let sessions: Vec<_> = shown.as_array().unwrap().iter().map(session).collect();
        assert_eq!(sessions, vec![("up".into(), 0.into()); 2], "gone for {gone} ms: {shown}");
    }
}

#[test]
fn a_silent_loss_is_acted_on_within_200_ms_with_a_hundred_routes() {
    within("100 routes", Duration::from_millis(200), || failover(100));
}

#[test]
fn a_silent_loss_is_acted_on_within_200_ms_with_a_hundred_thousand_routes() {
    within("100000 routes", Duration::from_millis(200), || failover(100_000));
}

/// One busy loop of normal priority on each processor for 10 s, and a table that loads meanwhile. An attempt counts for
/// nothing only where the machine itself stood still for more than one interval.
#[test]
fn a_busy_host_costs_no_session() {
    no_session_is_lost(100_000);
}

#[test]
#[ignore = "takes a minute: cargo test --release --test daemon -- --ignored --nocapture a_million_routes"]
fn a_million_routes_that_load_on_a_busy_host_cost_no_session() {
    no_session_is_lost(1_000_000);
}

fn no_session_is_lost(routes: u32) {
    for _ in 0..10 {
        let (failures, late) = lost_on_a_busy_host(routes);
        if failures == 0 {
            return;
        }
        assert!(
            late > 50,
            "{failures} failures, and a thread of real-time priority was at most {late} ms late"
        );
    }
    panic!("the machine stood still in each of ten attempts");
}

/// How the kernel schedules a thread of the daemon (proc(5), field 41 of `stat`).
fn policy(routelet: &Routelet, thread: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", routelet.process.pid())).unwrap();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains(&format!("({thread})"))).expect("the thread");
    stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned()
}

/// How many BFD sessions failed, and by how many ms a thread that runs before all others was late.
fn lost_on_a_busy_host(routes: u32) -> (u64, u64) {
    let mut net = Net::new();
    let (host, switches) = stage(&mut net);
    let routelet = Routelet::start(&net, &host, &config(), &[]);
    let (responders, mut speakers) = watched(&routelet, &switches);
    assert_eq!(policy(&routelet, "bfd"), "1", "SCHED_FIFO, which root may have");
    let processors = std::thread::available_parallelism().unwrap().get();
    let hogs: Vec<_> = (0..processors)
        .map(|n| {
            let mut command = Command::new("taskset");
            command.args(["-c", &n.to_string(), "sh", "-c", "while :; do :; done"]);
            Process::start(&mut command, &net.dir().join(format!("hog{n}")))
        })
        .collect();
    let start = Instant::now();
    advertise(&mut speakers[0], 0, routes);
    sleep(Duration::from_secs(10).saturating_sub(start.elapsed()));
    drop(hogs);
    let shown = routelet.json(&["show", "bfd"]);
    let failures = shown.as_array().unwrap().iter().map(|session| session["failures"].as_u64().unwrap());
    let failures = failures.sum();
    let late = responders.iter().map(|r| r.late.load(Relaxed)).max().unwrap();
    println!("{late} ms late; {shown}");
    let installed = || host.sh("ip route show proto 179 | wc -l").trim().parse::<u32>().ok();
    wait_for("the routes", 120.0, || (installed()? >= routes).then_some(()));
    (failures, late)
}
