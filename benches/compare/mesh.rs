//! Very many neighbors, each with one route for all others.

use std::{net::Ipv4Addr, time::Instant};

use super::{
    config::{Case, Kind},
    crowd::Crowd,
    messages::{address, asn},
    report::{many, say},
    subject::Subject,
    world::World,
};
use crate::common::{
    net::Ns,
    speaker::{attributes, update},
};

fn crowd(switch: &Ns, neighbors: u32, hold: u16) -> Crowd {
    Crowd::new(switch, 1..=neighbors, hold, |n| {
        let route = (Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24);
        update(&[], &attributes(&[asn(n)], address(n), 0), &[route])
    })
}

/// All call at once, until each has heard of all others.
pub fn storm(kind: Kind, neighbors: u32) {
    let title = format!("mesh of {}", many(neighbors));
    let world = World::new(neighbors);
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(neighbors));
    let mut crowd = crowd(&world.switch, neighbors, 180);
    let (cpu, own, start) = (subject.cpu(), own_cpu(), Instant::now());
    crowd.until_heard(neighbors as usize - 1);
    say(format!("{title}, complete"), "s", start.elapsed().as_secs_f64());
    say(format!("{title}, CPU until complete"), "s", subject.cpu() - cpu);
    say(format!("{title}, CPU of the neighbors"), "s", own_cpu() - own);
    say(format!("{title}, PSS when complete"), "KiB", subject.pss());
}

/// A mesh that has come up in its own time, at rest but for its keepalives.
pub fn rest(kind: Kind, neighbors: u32) {
    const SECONDS: f64 = 10.0;
    let title = format!("mesh of {} at rest", many(neighbors));
    let world = World::new(neighbors);
    let subject = Subject::start(kind, &world.net, &world.host, &Case::of(neighbors));
    // Keepalives each 3 s.
    let mut crowd = crowd(&world.switch, neighbors, 9).gently(4);
    crowd.until_heard(neighbors as usize - 1);
    crowd.for_seconds(1.0);
    let cpu = subject.cpu();
    crowd.for_seconds(SECONDS);
    say(format!("{title}, CPU per minute"), "s", (subject.cpu() - cpu) * 60.0 / SECONDS);
    say(format!("{title}, PSS"), "KiB", subject.pss());
    assert!(crowd.all_up(), "sessions were lost");
}

/// CPU seconds of this process, which plays the neighbors.
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths.
    words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
}
