//! A host that lacks something: file descriptors, or a neighbor that reads. Sessions live, memory
//! is bounded, and the kernel is right afterwards.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    common::{
        cramped::Cramped,
        daemons::Routelet,
        net::{Net, Ns},
        run,
        speaker::{Speaker, attributes, end_of_rib, message, update},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, learn, net24, ours},
};

/// Sets the soft limit of open files of a running process. Open files stay open.
fn limit_files(pid: u32, soft: &str) {
    run(Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]));
}

fn soft_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// CPU seconds, and a figure of `/proc/PID/status` in KiB.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// More changes than the notification socket holds, while the daemon is stopped; its routes are
/// deleted after them.
fn lose_messages(host: &Ns, routelet: &Routelet) {
    routelet.process.signal("STOP");
    let cramped = Cramped::new(host, routelet.process.pid());
    cramped.overrun("eth0");
    host.ip("route flush proto 179");
    drop(cramped);
    routelet.process.signal("CONT");
}

#[test]
fn without_free_descriptors_routes_are_repaired_and_with_them_everything_is() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    // With 1 the kernel shows gateways beside nexthop ids, and `ip route flush` fails on what it
    // read itself.
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    routelet.set_resolvers(&["10.60.200.53"]);
    routelet.restart();
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 180, SWITCH);
    learn(&mut speaker, &(0..100).map(net24).collect::<Vec<_>>());
    let complete = |count: usize| {
        let all = ours(&host);
        (all.matches("10.60.").count() == count && all.contains("10.50.0.0/24")).then_some(())
    };
    wait_for("routes", 30.0, || complete(100));

    let (pid, former) = (routelet.process.pid(), soft_limit(routelet.process.pid()));
    limit_files(pid, "3");
    host.ip("route flush proto 179");
    wait_for("a repair without descriptors", 30.0, || complete(100));
    // Routes have to be read again after the loss of an address: with the socket that is open.
    host.ip("addr add 10.77.0.1/24 dev eth0");
    host.ip("addr del 10.77.0.1/24 dev eth0");
    learn(&mut speaker, &[net24(100)]);
    wait_for("a route more", 30.0, || complete(101));
    lose_messages(&host, &routelet);
    let before = cpu(pid);
    // Files that cannot be opened are not files that do not exist.
    sleep(Duration::from_secs(3));
    let used = cpu(pid) - before;
    assert!(used < 1.5, "{used} CPU seconds of 3 without descriptors");
    learn(&mut speaker, &[net24(200)]);
    sleep(Duration::from_millis(500));
    assert!(!ours(&host).contains("10.60.200."), "the resolver is protected");

    limit_files(pid, &former);
    wait_for("everything is back", 30.0, || complete(101));
    let view = routelet.json(&["show", "neighbor", "10.1.1.1"]);
    assert_eq!((&view["state"], view["last_error"].as_str()), (&"established".into(), None), "{view}");
    let log = routelet.process.printed();
    assert!(!log.contains("no such setting"), "{log}");
    let lines = log.lines().filter(|l| l.contains("cannot read the kernel's tables")).count();
    assert!(lines <= 2, "{lines} lines of one problem:\n{log}");
}

const READER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);
/// A build without optimization takes ten times as long.
const ROUTES: u32 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
const PER_MESSAGE: u32 = 500;
/// Marks the last state in the AS_PATH.
const LAST: u32 = 64_999;

fn all_prefixes() -> Vec<Vec<(Ipv4Addr, u8)>> {
    let block = |n: u32| (n..n + PER_MESSAGE).map(|n| (Ipv4Addr::from(0x1400_0000 + (n << 8)), 24)).collect();
    (0..ROUTES / PER_MESSAGE).map(|n| block(n * PER_MESSAGE)).collect()
}

fn withdrawals(blocks: &[Vec<(Ipv4Addr, u8)>]) -> Vec<u8> {
    blocks.iter().flat_map(|block| update(block, &[], &[])).collect()
}

fn announcements(blocks: &[Vec<(Ipv4Addr, u8)>], mark: u32) -> Vec<u8> {
    blocks.iter().flat_map(|block| update(&[], &attributes(&[10000, mark], SWITCH, 0), block)).collect()
}

/// Prefixes that an UPDATE withdraws and advertises, and whether it has the mark of the last state.
fn counted(body: &[u8]) -> (u32, u32, bool) {
    let len = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let withdrawn = &body[2..2 + len(0)];
    let attributes = &body[4 + len(0)..][..len(2 + len(0))];
    let nlri = &body[4 + len(0) + attributes.len()..];
    // All of them have 24 bits.
    let count = |octets: &[u8]| u32::try_from(octets.len() / 4).unwrap();
    let last = attributes.windows(4).any(|w| w == LAST.to_be_bytes());
    (count(withdrawn), count(nlri), last)
}

/// A hundred thousand routes that change ten times a second: a neighbor that cannot follow gets the
/// last state, and not everything in between.
#[test]
fn routes_that_flap_ten_times_a_second_reach_a_slow_neighbor_as_their_last_state() {
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    for address in [SWITCH, READER] {
        switch.ip(&format!("addr add {address}/24 dev eth0"));
    }
    host.ip("addr add 10.1.1.2/24 dev eth0");
    // Little room between the two ends, so that the reader's pause reaches the table.
    host.sysctl("net.ipv4.tcp_wmem", "4096 16384 32768");
    switch.sysctl("net.ipv4.tcp_rmem", "4096 16384 32768");
    let neighbor = |address: Ipv4Addr, asn: u32| {
        format!(
            "[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = {asn}\npassive = true\ntransit = true\nmax-prefixes = 200000\n"
        )
    };
    let config = format!("[bgp]\nas = 1000\n{}{}", neighbor(SWITCH, 10000), neighbor(READER, 10001));
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let mut source = Speaker::dial_from(&switch, SWITCH.into(), HOST).unwrap();
    source.establish(10000, 90, SWITCH);
    let mut reader = Speaker::dial_from(&switch, IpAddr::V4(READER), HOST).unwrap();
    reader.establish(10001, 90, READER);
    let installed =
        || host.sh("ip route show proto 179 | grep -c '^2[01]\\.' || true").trim().parse::<u32>().unwrap();

    let blocks = all_prefixes();
    source.send(&announcements(&blocks, 64_600));
    source.send(&end_of_rib());
    wait_for("the table in the kernel", 60.0, || (installed() == ROUTES).then_some(()));
    let (pid, gone) = (routelet.process.pid(), withdrawals(&blocks));
    let first = peak_kib(pid);

    let (start, mut cycles) = (Instant::now(), 0);
    while cycles < 10 || cycles < 50 && start.elapsed() < Duration::from_secs(8) {
        cycles += 1;
        source.send(&gone);
        sleep(Duration::from_millis(50));
        source.send(&announcements(&blocks, 64_600 + cycles));
        sleep(Duration::from_millis(50));
        reader.send(&message(4, &[]));
    }
    source.send(&announcements(&blocks, LAST));
    let sent = 2 * cycles * ROUTES;
    let peak = peak_kib(pid) - first;
    let (mut received, mut last) = (0, 0);
    wait_for("the last state at the reader", 60.0, || {
        while let Some((kind, body)) = reader.receive(0.1) {
            if kind == 2 {
                let (withdrawn, advertised, is_last) = counted(&body);
                received += withdrawn + advertised;
                last += if is_last { advertised } else { 0 };
            }
        }
        source.send(&message(4, &[]));
        (last >= ROUTES).then_some(())
    });
    println!(
        "{cycles} cycles of {ROUTES} routes in {:?}: {sent} changes sent, {received} received, {peak} KiB more at the peak",
        start.elapsed()
    );
    assert!(received < sent / 4, "{received} of {sent} changes were passed on one by one");
    assert!(peak < 64 * 1024, "{peak} KiB more while routes flap");
    wait_for("the kernel has all", 30.0, || (installed() == ROUTES).then_some(()));
    for address in [SWITCH, READER] {
        let view = routelet.json(&["show", "neighbor", &address.to_string()]);
        assert_eq!((&view["state"], view["last_error"].as_str()), (&"established".into(), None), "{view}");
    }
}
