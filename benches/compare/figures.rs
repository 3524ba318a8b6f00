//! One function per figure. Each makes its own namespaces, starts the daemon, measures, and gives what it saw.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    kernel::{Monitor, Watch, bare_writer},
    neighbor::{self, Mode, NEXT_HOP6, Neighbor, announcements, hear_all, withdrawals},
    subject::{Kind, Subject},
};
use crate::common::{
    net::{Net, Ns},
    speaker::{attributes, update},
};

/// Seconds after which a figure counts as not reached.
const PATIENCE: u64 = 60;

/// What was measured: name, unit, value.
pub type Seen = Vec<(String, &'static str, f64)>;

struct World {
    net: Net,
    switch: Ns,
    host: Ns,
}

/// A switch with as many addresses as there are neighbors, and the daemon's host.
fn world(neighbors: u32) -> World {
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    let addresses: Vec<String> =
        (1..=neighbors).map(|n| format!("ip addr add {}/16 dev eth0", neighbor::address(n))).collect();
    for some in addresses.chunks(200) {
        switch.sh(&some.join(" && "));
    }
    switch.ip(&format!("addr add {NEXT_HOP6}/64 dev eth0 nodad"));
    host.ip(&format!("addr add {}/16 dev eth0", neighbor::DAEMON));
    host.ip("addr add fd00::ffff/64 dev eth0 nodad");
    // The neighbors' ARP entries are there before the clock starts.
    World { net, switch, host }
}

fn settle(subject: &Subject) {
    // Idle: no CPU for a quarter of a second.
    let mut last = subject.cpu();
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(250));
        let now = subject.cpu();
        if now - last < 0.002 {
            return;
        }
        last = now;
    }
}

/// Load, CPU, memory, withdrawal by message, memory after it, a second load, neighbor lost.
pub fn load(kind: Kind, mode: Mode, routes: u32) -> Seen {
    let world = world(1);
    let subject = Subject::start(kind, &world.net, &world.host, 1);
    let mut one = Neighbor::up(&world.switch, 1);
    settle(&subject);
    let (idle, cpu) = (subject.pss(), subject.cpu());
    let mut watch = Watch::new(&world.host, subject.pid(), mode);
    let octets = announcements(1, mode, routes);
    let title = format!("{routes} {}", format!("{mode:?}").to_lowercase());
    let mut seen = Seen::new();
    let mut note = |what: &str, unit, value: f64| {
        eprintln!("  {}: {what} {title}: {value:.3} {unit}", kind.name());
        seen.push((format!("{what}, {title}"), unit, value))
    };

    let start = Instant::now();
    one.send(&octets);
    let Some(done) = watch.wait(routes, true, PATIENCE) else { return seen };
    note("load", "s", (done - start).as_secs_f64());
    settle(&subject);
    note("CPU of load", "s", subject.cpu() - cpu);
    note("memory per route", "octets", (subject.pss() - idle) * 1024.0 / f64::from(routes));

    let octets_gone = withdrawals(mode, routes);
    let start = Instant::now();
    one.send(&octets_gone);
    let Some(done) = watch.wait(routes, false, PATIENCE) else { return seen };
    note("withdraw", "s", (done - start).as_secs_f64());
    settle(&subject);
    note("memory kept after withdrawal", "KiB", subject.pss() - idle);

    one.send(&octets);
    if watch.wait(routes, true, PATIENCE).is_none() {
        return seen;
    }
    settle(&subject);
    let start = Instant::now();
    drop(one);
    if let Some(done) = watch.wait(routes, false, PATIENCE) {
        note("neighbor lost", "s", (done - start).as_secs_f64());
    }
    seen
}

/// What the kernel takes from a program that does nothing else, and what it costs to write all octets to a
/// reader that does nothing with them.
pub fn bare(routes: u32) -> Seen {
    let world = world(1);
    let (load, withdraw) = bare_writer(&world.host, routes);
    let octets = announcements(1, Mode::Table, routes);
    let sent = neighbor::bare_transfer(&world.switch, &world.host, &octets);
    vec![
        (format!("load, {routes} table"), "s", load),
        (format!("withdraw, {routes} table"), "s", withdraw),
        (format!("all octets from neighbor to a reader, {routes} table"), "s", sent),
    ]
}

/// One neighbor says, `hearers` hear.
pub fn propagation(kind: Kind, hearers: u32, routes: u32) -> Seen {
    let world = world(hearers + 1);
    let subject = Subject::start(kind, &world.net, &world.host, hearers + 1);
    let mut one = Neighbor::up(&world.switch, 1);
    let mut others: Vec<_> = (2..hearers + 2).map(|n| Neighbor::up(&world.switch, n)).collect();
    settle(&subject);
    let (idle, cpu) = (subject.pss(), subject.cpu());
    let octets = announcements(1, Mode::Table, routes);
    let start = Instant::now();
    thread::scope(|s| {
        s.spawn(|| one.send(&octets));
        hear_all(&mut others, routes as usize, PATIENCE);
    });
    let took = start.elapsed().as_secs_f64();
    settle(&subject);
    let title = format!("{routes} routes to {hearers}");
    vec![
        (format!("propagation, {title}"), "s", took),
        (format!("CPU of propagation, {title}"), "s", subject.cpu() - cpu),
        (format!("memory of propagation, {title}"), "KiB", subject.pss() - idle),
    ]
}

/// One route comes and goes, with `loaded` others there: to the kernel, and to another neighbor.
pub fn latency(kind: Kind, loaded: u32) -> Seen {
    let world = world(2);
    let subject = Subject::start(kind, &world.net, &world.host, 2);
    let mut one = Neighbor::up(&world.switch, 1);
    let mut two = Neighbor::up(&world.switch, 2);
    if loaded > 0 {
        one.send(&announcements(1, Mode::Table, loaded));
        hear_all(std::slice::from_mut(&mut two), loaded as usize, PATIENCE);
        two.stream.set_nonblocking(false).expect("a socket");
    }
    settle(&subject);
    let address = std::net::Ipv4Addr::new(100, 64, 0, 0);
    let samples = if kind == Kind::Frr { 60 } else { 400 };
    let there = update(&[], &attributes(&[neighbor::asn(1), 7], neighbor::address(1), 0), &[(address, 24)]);
    let gone = update(&[(address, 24)], &[], &[]);
    let (mut kernel, mut wire) = (Vec::new(), Vec::new());
    let heard = |n: &Neighbor| n.heard.0 + n.heard.1;
    for _ in 0..samples {
        for octets in [&there, &gone] {
            let before = heard(&two);
            let start = Instant::now();
            one.send(octets);
            while heard(&two) == before {
                two.message().expect("a session");
            }
            wire.push(start.elapsed().as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(2));
        }
    }
    if kind.has_fib() {
        let mut monitor = Monitor::new(&world.host);
        for _ in 0..samples {
            for (octets, up) in [(&there, true), (&gone, false)] {
                let start = Instant::now();
                one.send(octets);
                monitor.wait(address, up);
                kernel.push(start.elapsed().as_secs_f64() * 1e3);
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
    let mut seen = Seen::new();
    for (what, mut list) in [("to kernel", kernel), ("to neighbor", wire)] {
        list.sort_by(f64::total_cmp);
        for percent in [50, 99] {
            if let Some(value) = list.get(list.len() * percent / 100) {
                seen.push((format!("one route {what}, {loaded} loaded, p{percent}"), "ms", *value));
            }
        }
    }
    seen
}

/// All connect at once and announce one route each, until each has heard all others.
pub fn mesh(kind: Kind, neighbors: u32) -> Seen {
    let world = world(neighbors);
    let subject = Subject::start(kind, &world.net, &world.host, neighbors);
    let idle = subject.pss();
    let start = Instant::now();
    let switch = &world.switch;
    let mut all: Vec<Neighbor> = thread::scope(|s| {
        let threads: Vec<_> = (0..8)
            .map(|t| {
                s.spawn(move || {
                    (1..=neighbors)
                        .filter(|n| n % 8 == t)
                        .map(|n| {
                            let mut one = Neighbor::up(switch, n);
                            let route = (std::net::Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24);
                            let attributes = attributes(&[neighbor::asn(n)], neighbor::address(n), 0);
                            one.send(&update(&[], &attributes, &[route]));
                            one
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("sessions")).collect()
    });
    hear_all(&mut all, neighbors as usize - 1, PATIENCE);
    let took = start.elapsed().as_secs_f64();
    settle(&subject);
    vec![
        (format!("mesh of {neighbors} complete"), "s", took),
        (format!("CPU of mesh of {neighbors}"), "s", subject.cpu()),
        (format!("memory of mesh of {neighbors}"), "KiB", subject.pss() - idle),
    ]
}

/// One neighbor, nothing to do.
pub fn idle(kind: Kind) -> Seen {
    let world = world(1);
    let subject = Subject::start(kind, &world.net, &world.host, 1);
    let _one = Neighbor::up(&world.switch, 1);
    settle(&subject);
    let cpu = subject.cpu();
    thread::sleep(Duration::from_secs(5));
    vec![
        ("idle, one neighbor: PSS".into(), "KiB", subject.pss()),
        ("idle, one neighbor: CPU per minute".into(), "ms", (subject.cpu() - cpu) * 12e3),
    ]
}
