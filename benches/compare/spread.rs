//! What one neighbor says, the others hear: all of a table by many, and one route by one.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    bare,
    config::{Case, Kind},
    crowd::Crowd,
    kernel::Monitor,
    messages::{Mode, address, announcements, asn},
    neighbor::Neighbor,
    report::{many, say},
    subject::Subject,
    world::World,
};
use crate::common::{
    net::Ns,
    speaker::{attributes, update},
};

/// One neighbor says, `hearers` hear.
pub fn propagation(kind: Kind, hearers: u32, routes: u32) {
    let title = format!("{} to {hearers}", many(routes));
    let world = World::new(hearers + 1);
    let octets = announcements(1, Mode::Table, routes);
    let mut crowd = Crowd::new(&world.switch, 2..=hearers + 1, 180, |_| Vec::new());
    if kind == Kind::Bare {
        let took = bare::propagation(&world.host, crowd.bare(bare::PORT), &octets, hearers, routes as usize);
        return say(format!("propagation, {title}"), "s", took);
    }
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(hearers + 1));
    let mut one = Neighbor::up(&world.switch, 1);
    crowd.until_up();
    subject.settle();
    let (idle, cpu) = (subject.pss(), subject.cpu());
    let start = Instant::now();
    let took = thread::scope(|s| {
        s.spawn(|| one.send(&octets));
        crowd.until_heard(routes as usize);
        start.elapsed().as_secs_f64()
    });
    say(format!("propagation, {title}"), "s", took);
    subject.settle();
    say(format!("CPU of propagation, {title}"), "s", subject.cpu() - cpu);
    say(format!("memory of propagation, {title}"), "KiB", subject.pss() - idle);
}

/// One route comes and goes, with `loaded` others there: to another neighbor, and to the kernel.
pub fn latency(kind: Kind, loaded: u32) {
    let title = if loaded == 0 { "empty".into() } else { format!("{} loaded", many(loaded)) };
    let world = World::new(2);
    if kind == Kind::Bare {
        let (mut one, mut two) = bare::relay(&world.switch, &world.host);
        return percentiles(
            &format!("one route to a neighbor, {title}"),
            to_neighbor(&mut one, &mut two, SAMPLES),
        );
    }
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(2));
    let mut one = Neighbor::up(&world.switch, 1);
    let mut two = Neighbor::up(&world.switch, 2);
    if loaded > 0 {
        one.send(&announcements(1, Mode::Table, loaded));
        two.hear(loaded as usize);
    }
    subject.settle();
    // FRR waits 50 ms for each.
    let samples = if kind == Kind::Frr { 25 } else { SAMPLES };
    percentiles(&format!("one route to a neighbor, {title}"), to_neighbor(&mut one, &mut two, samples));
    if kind.has_fib() {
        let all = to_kernel(&mut one, &world.host, samples);
        percentiles(&format!("one route to the kernel, {title}"), all);
    }
}

const ROUTE: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(100, 64, 0, 0), 24);
const SAMPLES: usize = 250;
/// So that each route meets a daemon at rest.
const PAUSE: Duration = Duration::from_millis(2);

/// The route announced, and withdrawn.
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
            two.hear(next);
            all.push(start.elapsed().as_secs_f64() * 1e3);
            thread::sleep(PAUSE);
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
            thread::sleep(PAUSE);
        }
    }
    all
}

fn percentiles(what: &str, mut all: Vec<f64>) {
    all.sort_by(f64::total_cmp);
    for percent in [50, 99] {
        say(format!("{what}, p{percent}"), "ms", all[all.len() * percent / 100]);
    }
}
