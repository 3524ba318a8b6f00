//! Routes advertised by one neighbor are advertised to others: a whole table to many, and single
//! routes to one.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    baseline,
    config::{Case, Kind},
    daemon::Daemon,
    kernel::Monitor,
    messages::{Mode, address, announcements, asn},
    neighbor::Neighbor,
    peers::Peers,
    report::{many, record},
    testbed::Testbed,
};
use crate::common::{
    net::Ns,
    speaker::{attributes, update},
};

/// One neighbor sends, `receivers` receive.
pub fn propagation(kind: Kind, receivers: u32, routes: u32) {
    let title = format!("{} to {receivers}", many(routes));
    let testbed = Testbed::new(receivers + 1);
    let octets = announcements(1, Mode::Table, routes);
    let mut peers = Peers::new(&testbed.switch, 2..=receivers + 1, 180, |_| Vec::new());
    if kind == Kind::Bare {
        let took = baseline::propagation(
            &testbed.host,
            peers.bare(baseline::PORT),
            &octets,
            receivers,
            routes as usize,
        );
        return record(format!("propagation, {title}"), "s", took);
    }
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(receivers + 1));
    let mut one = Neighbor::up(&testbed.switch, 1);
    peers.until_up();
    daemon.settle();
    let (idle, cpu) = (daemon.pss(), daemon.cpu());
    let start = Instant::now();
    let took = thread::scope(|s| {
        s.spawn(|| one.send(&octets));
        peers.until_received(routes as usize);
        start.elapsed().as_secs_f64()
    });
    record(format!("propagation, {title}"), "s", took);
    daemon.settle();
    record(format!("CPU of propagation, {title}"), "s", daemon.cpu() - cpu);
    record(format!("memory of propagation, {title}"), "KiB", daemon.pss() - idle);
}

/// One route is advertised and withdrawn while `loaded` others exist; measured at another neighbor
/// and in the kernel.
pub fn latency(kind: Kind, loaded: u32) {
    let title = if loaded == 0 { "empty".into() } else { format!("{} loaded", many(loaded)) };
    let testbed = Testbed::new(2);
    if kind == Kind::Bare {
        let (mut one, mut two) = baseline::relay(&testbed.switch, &testbed.host);
        return percentiles(
            &format!("one route to a neighbor, {title}"),
            to_neighbor(&mut one, &mut two, SAMPLES),
        );
    }
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(2));
    let mut one = Neighbor::up(&testbed.switch, 1);
    let mut two = Neighbor::up(&testbed.switch, 2);
    if loaded > 0 {
        one.send(&announcements(1, Mode::Table, loaded));
        two.receive(loaded as usize);
    }
    daemon.settle();
    // FRR waits 50 ms for each.
    let samples = if kind == Kind::Frr { 25 } else { SAMPLES };
    percentiles(&format!("one route to a neighbor, {title}"), to_neighbor(&mut one, &mut two, samples));
    if kind.has_fib() {
        let all = to_kernel(&mut one, &testbed.host, samples);
        percentiles(&format!("one route to the kernel, {title}"), all);
    }
}

const ROUTE: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(100, 64, 0, 0), 24);
const SAMPLES: usize = 250;
/// So that each route meets an idle daemon.
const SPACING: Duration = Duration::from_millis(2);

/// The route advertised, and withdrawn.
fn there_and_gone() -> [(Vec<u8>, bool); 2] {
    let there = update(&[], &attributes(&[asn(1), 7], address(1), 0), &[ROUTE]);
    [(there, true), (update(&[ROUTE], &[], &[]), false)]
}

fn to_neighbor(one: &mut Neighbor, two: &mut Neighbor, samples: usize) -> Vec<f64> {
    let mut all = Vec::new();
    for _ in 0..samples {
        for (octets, _) in there_and_gone() {
            let next = two.inbox.announced + two.inbox.withdrawn + 1;
            let start = Instant::now();
            one.send(&octets);
            two.receive(next);
            all.push(start.elapsed().as_secs_f64() * 1e3);
            thread::sleep(SPACING);
        }
    }
    all
}

fn to_kernel(one: &mut Neighbor, host: &Ns, samples: usize) -> Vec<f64> {
    let mut monitor = Monitor::new(host);
    let mut all = Vec::new();
    for _ in 0..samples {
        for (octets, there) in there_and_gone() {
            let start = Instant::now();
            one.send(&octets);
            monitor.wait(ROUTE.0, there);
            all.push(start.elapsed().as_secs_f64() * 1e3);
            thread::sleep(SPACING);
        }
    }
    all
}

fn percentiles(what: &str, mut all: Vec<f64>) {
    all.sort_by(f64::total_cmp);
    for percent in [50, 99] {
        record(format!("{what}, p{percent}"), "ms", all[all.len() * percent / 100]);
    }
}
