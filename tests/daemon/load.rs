//! 100,000 routes from one neighbor, beside BIRD in the same run. What is measured is printed; what is asserted
//! is that all of them arrive and go.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    common::{
        daemons::{Bird, Routelet},
        net::{Net, Ns},
        speaker::{Speaker, attributes, end_of_rib, update},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch},
};

const ROUTES: u32 = 100_000;

/// Five prefixes per attribute set.
fn table() -> Vec<u8> {
    let mut out = Vec::new();
    for set in 0..ROUTES / 5 {
        let nlri: Vec<_> =
            (set * 5..set * 5 + 5).map(|n| (Ipv4Addr::from(0x1400_0000 + (n << 8)), 24)).collect();
        out.extend(update(
            &[],
            &attributes(&[10000, 64600 + set % 300, 4_200_000_000 + set], SWITCH, set),
            &nlri,
        ));
    }
    out.extend(end_of_rib());
    out
}

/// Prefixes in the kernel's main table of the namespace that this process is in: one small file, however many routes.
fn prefixes(pid: u32) -> u32 {
    // The main table stands first; the local one may be the same trie and would count twice.
    let text = fs::read_to_string(format!("/proc/{pid}/net/fib_triestat")).unwrap();
    let count = text.lines().find_map(|l| l.trim().strip_prefix("Prefixes:"));
    count.map_or(0, |n| n.trim().parse().unwrap())
}

/// CPU seconds and resident KiB of a process.
fn cost(pid: u32) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    (ticks / 100.0, rss.trim().trim_end_matches(" kB").parse().unwrap())
}

/// The daemon behind nsenter has nsenter's process id: it was executed in its place.
fn load(name: &str, pid: u32, switch: &Ns) {
    let others = prefixes(pid);
    let before = cost(pid);
    let mut speaker = Speaker::dial(switch, HOST).unwrap();
    speaker.establish(10000, 180, SWITCH);
    let octets = table();
    let start = Instant::now();
    speaker.send(&octets);
    let sent = start.elapsed();
    let took = wait_for("all routes in the kernel", 60.0, || {
        (prefixes(pid) >= others + ROUTES).then(|| start.elapsed())
    });
    let after = cost(pid);
    let start = Instant::now();
    drop(speaker);
    let gone = wait_for("all routes gone", 60.0, || (prefixes(pid) == others).then(|| start.elapsed()));
    println!(
        "{name}: {ROUTES} routes in {:.3} s (sent after {:.3} s), {:.2} CPU s, {} KiB more resident; gone {:.3} s after the neighbor",
        took.as_secs_f64(),
        sent.as_secs_f64(),
        after.0 - before.0,
        after.1.saturating_sub(before.1),
        gone.as_secs_f64()
    );
}

#[test]
fn a_hundred_thousand_routes_arrive_and_go() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let config = CONFIG
        .replace("remote-as = 10000\n", "remote-as = 10000\ngraceful-restart = false\npassive = true\n");
    let mut routelet = Routelet::start(&net, &host, &config, &[]);
    load("routelet", routelet.process.pid(), &switch);
    assert!(routelet.process.alive());
    routelet.process.stop();

    let bird = "router id 10.1.1.2; protocol device {} protocol kernel { ipv4 { export all; }; } \
        protocol bgp { local 10.1.1.2 as 1000; neighbor 10.1.1.1 as 10000; passive on; graceful restart off; ipv4 { import all; export none; }; }";
    let bird = Bird::start(&net, &host, bird);
    wait_for("BIRD listens", 10.0, || {
        std::thread::sleep(Duration::from_millis(50));
        bird.birdc("show protocols").contains("Passive").then_some(())
    });
    load("BIRD", bird.process.pid(), &switch);
}
