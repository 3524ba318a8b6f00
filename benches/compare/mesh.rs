//! Very many neighbors, each with one route that is advertised to all others.

use std::{net::Ipv4Addr, time::Instant};

use super::{
    config::{Case, Kind},
    daemon::Daemon,
    messages::{address, asn},
    peers::Peers,
    report::{many, record},
    testbed::Testbed,
};
use crate::common::{
    net::Ns,
    speaker::{attributes, update},
};

fn peers(switch: &Ns, neighbors: u32, hold: u16) -> Peers {
    Peers::new(switch, 1..=neighbors, hold, |n| {
        let route = (Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24);
        update(&[], &attributes(&[asn(n)], address(n), 0), &[route])
    })
}

/// All connect at once; measures the time until each has received the routes of all others.
pub fn storm(kind: Kind, neighbors: u32) {
    let title = format!("mesh of {}", many(neighbors));
    let testbed = Testbed::new(neighbors);
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(neighbors));
    let mut peers = peers(&testbed.switch, neighbors, 180);
    let (cpu, own, start) = (daemon.cpu(), own_cpu(), Instant::now());
    peers.until_received(neighbors as usize - 1);
    record(format!("{title}, complete"), "s", start.elapsed().as_secs_f64());
    record(format!("{title}, CPU until complete"), "s", daemon.cpu() - cpu);
    record(format!("{title}, CPU of the neighbors"), "s", own_cpu() - own);
    record(format!("{title}, PSS when complete"), "KiB", daemon.pss());
}

/// CPU of a mesh that is established and idle except for keepalives.
pub fn rest(kind: Kind, neighbors: u32) {
    const SECONDS: f64 = 10.0;
    let title = format!("mesh of {} at rest", many(neighbors));
    let testbed = Testbed::new(neighbors);
    let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &Case::of(neighbors));
    // Keepalives each 3 s.
    let mut peers = peers(&testbed.switch, neighbors, 9).gently(4);
    peers.until_received(neighbors as usize - 1);
    peers.for_seconds(1.0);
    let cpu = daemon.cpu();
    peers.for_seconds(SECONDS);
    record(format!("{title}, CPU per minute"), "s", (daemon.cpu() - cpu) * 60.0 / SECONDS);
    record(format!("{title}, PSS"), "KiB", daemon.pss());
    assert!(peers.all_up(), "sessions were lost");
}

/// CPU seconds of this process, which implements the neighbors.
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}
