//! Many real sessions and tables, no sockets, one virtual clock. Each world comes from a seed: a failure names it,
//! and `ROUTELET_SEED=n` plays that world alone again. `ROUTELET_SEEDS` is how many worlds each test plays.
#![allow(clippy::disallowed_methods, unreachable_pub, reason = "tests pick the epoch")]

mod election;
mod net;
mod oracle;
mod router;
mod tables;
mod world;

use std::{ops::Range, time::Duration};

use net::Net;
use routelet::{
    bgp::{
        session::{Input, Stop},
        view::SessionState,
    },
    net::Asn,
};

const MINUTE: Duration = Duration::from_secs(60);
const PAIR: &[(usize, usize)] = &[(0, 1)];

fn own(n: usize) -> Asn {
    65000 + n as Asn
}

fn same(_: usize) -> Asn {
    64512
}

/// Which worlds: a share of `ROUTELET_SEEDS`, or the one of `ROUTELET_SEED`.
fn seeds(share: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    match number("ROUTELET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ROUTELET_SEEDS").unwrap_or(1000).div_ceil(share),
    }
}

fn mesh(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect()
}

fn start_all(net: &mut Net) {
    for end in net.ends() {
        net.feed(end, Input::Start);
    }
}

/// Both dial at once, whatever the delays: one connection is left within a few seconds.
#[test]
fn two_that_dial_at_once_end_with_one_session() {
    for seed in seeds(2) {
        for asn in [own, same] {
            let mut net = Net::new(seed, PAIR, asn);
            net.latency = Duration::from_micros(1 + 997 * (seed % 2000));
            start_all(&mut net);
            let limit = net.now + Duration::from_secs(30);
            assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
            net.run(10 * MINUTE);
            assert!(net.all_established(), "seed {seed}:\n{}", net.trace);
            assert_eq!((net.ups((0, 1)), net.ups((1, 0))), (1, 1), "seed {seed}:\n{}", net.trace);
        }
    }
}

#[test]
fn ten_minutes_then_a_cut_cable_then_peace() {
    for seed in seeds(4) {
        let mut net = Net::new(seed, PAIR, own);
        start_all(&mut net);
        net.run(10 * MINUTE);
        assert!(net.all_established(), "seed {seed}:\n{}", net.trace);
        net.cut(0, 1);
        net.run(Duration::from_secs(59));
        assert!(net.all_established(), "seed {seed}: too soon\n{}", net.trace);
        net.run(Duration::from_secs(32));
        for end in net.ends() {
            assert!(net.state(end) < SessionState::OpenSent, "seed {seed}: hold time over\n{}", net.trace);
        }
        let pause = net.random(400);
        net.run(Duration::from_secs(pause));
        net.heal(0, 1);
        let limit = net.now + Duration::from_secs(121);
        assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
    }
}

#[test]
fn a_flapping_wire_ends_in_peace() {
    for seed in seeds(4) {
        let mut net = Net::new(seed, PAIR, own);
        start_all(&mut net);
        for _ in 0..20 {
            let pause = net.random(20_000);
            net.run(Duration::from_millis(pause));
            net.break_wires(0, 1);
        }
        let limit = net.now + 5 * MINUTE;
        assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
        net.run(3 * MINUTE);
        assert!(net.all_established(), "seed {seed}:\n{}", net.trace);
    }
}

/// A node is stopped without a word (the other one keeps routes over restarts) and begins again.
#[test]
fn a_restarted_node_is_back_at_once() {
    for seed in seeds(4) {
        let mut net = Net::new(seed, PAIR, own);
        start_all(&mut net);
        net.run(MINUTE);
        net.feed((0, 1), Input::Stop(Stop::Leaving));
        // No wire takes longer than 20 ms.
        let pause = 50 + net.random(9000);
        net.run(Duration::from_millis(pause));
        assert_ne!(net.state((1, 0)), SessionState::Established, "seed {seed}:\n{}", net.trace);
        net.feed((0, 1), Input::Start);
        let limit = net.now + Duration::from_secs(11);
        assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
    }
}

#[test]
fn a_disabled_neighbor_is_left_alone_until_it_is_enabled() {
    let mut net = Net::new(7, PAIR, own);
    start_all(&mut net);
    net.run(MINUTE);
    net.feed((0, 1), Input::Stop(Stop::Disabled(Some("window 7".into()))));
    net.run(10 * MINUTE);
    assert_eq!(net.state((0, 1)), SessionState::Disabled);
    assert!(net.trace.contains("window 7"), "{}", net.trace);
    net.feed((0, 1), Input::Start);
    net.run(Duration::from_secs(1));
    assert!(net.all_established(), "{}", net.trace);
}

#[test]
fn a_mesh_of_thirty_comes_up_at_once_and_stays() {
    let mut net = Net::new(3, &mesh(30), same);
    start_all(&mut net);
    let limit = net.now + Duration::from_secs(10);
    assert!(net.run_until(limit, Net::all_established), "{}", net.trace);
    net.run(10 * MINUTE);
    assert!(net.ends().iter().all(|e| net.ups(*e) == 1), "{}", net.trace);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let play = |seed| {
        let mut net = Net::new(seed, &mesh(4), own);
        start_all(&mut net);
        net.run(MINUTE);
        net.cut(0, 1);
        net.break_wires(2, 3);
        net.run(5 * MINUTE);
        net.heal(0, 1);
        net.run(5 * MINUTE);
        net.trace
    };
    assert_eq!(play(5), play(5));
    assert_ne!(play(5), play(6));
}

/// Whatever happens to the wires, each Up has one Down, nobody speaks on a closed connection (asserted by `Net` at
/// each step), and in the end everybody is there.
#[test]
fn random_worlds_end_in_peace() {
    for seed in seeds(2) {
        let mut net = Net::new(seed, &mesh(3), if seed % 2 == 0 { own } else { same });
        start_all(&mut net);
        for _ in 0..12 {
            let pause = net.random(40_000);
            net.run(Duration::from_millis(pause));
            let (a, b) = [(0, 1), (0, 2), (1, 2)][net.random(3) as usize];
            match net.random(6) {
                0 => net.cut(a, b),
                1 => net.heal(a, b),
                2 => net.break_wires(a, b),
                3 => net.feed((a, b), Input::Reset(None)),
                4 => net.feed((b, a), Input::Stop(Stop::Disabled(None))),
                _ => net.feed((b, a), Input::Start),
            }
        }
        for (a, b) in mesh(3) {
            net.heal(a, b);
            net.feed((a, b), Input::Start);
            net.feed((b, a), Input::Start);
        }
        let limit = net.now + 10 * MINUTE;
        assert!(net.run_until(limit, Net::all_established), "seed {seed}:\n{}", net.trace);
        let unsent: usize = net.ends().iter().map(|e| net.session(*e).unsent()).sum();
        assert_eq!(unsent, 0);
    }
}
