//! The engine from outside: packets by hand, and two engines against each other on a virtual clock.
#![allow(clippy::disallowed_methods, reason = "tests pick their epoch")]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    Arrival, Engine, Output, Watch,
    packet::{Packet, State},
    random::Random,
};
use crate::net::{BfdAuth, BfdParams, BfdPath, BfdReport, BfdStatus};

const MS: Duration = Duration::from_millis(1);

fn addr(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn params(tx: u32, rx: u32, multiplier: u8) -> BfdParams {
    BfdParams { min_tx: tx * MS, min_rx: rx * MS, multiplier, passive: false, auth: None }
}

fn watch(remote: u8, params: BfdParams) -> Watch {
    Watch { path: BfdPath { remote: addr(remote), local: None, ifindex: 2 }, params, proceed: false }
}

fn arrival(from: u8) -> Arrival {
    Arrival { from: addr(from), to: None, ifindex: 2, ttl: Some(255), multihop: false }
}

/// One engine with one session towards 10.0.0.2, and a neighbor of handwritten packets.
struct Bench {
    engine: Engine,
    now: Instant,
    out: Vec<Output>,
}

impl Bench {
    fn new(params: BfdParams) -> Self {
        let mut bench = Self { engine: Engine::new(7), now: Instant::now(), out: Vec::new() };
        bench.watch(1, Some(watch(2, params)));
        bench
    }

    fn watch(&mut self, client: u64, watch: Option<Watch>) {
        self.engine.watch(self.now, client, watch, &mut self.out).unwrap();
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.timeout(self.now, &mut self.out);
        }
        self.now = end;
    }

    fn receive(&mut self, packet: Packet) {
        self.engine.receive(self.now, &arrival(2), packet.encode().as_slice(), &mut self.out);
    }

    /// A packet of the neighbor with discriminator 5, 100 ms, multiplier 3, to our session.
    fn neighbor(&self, state: State) -> Packet {
        Packet {
            state,
            multiplier: 3,
            my_discriminator: 5,
            your_discriminator: self.id(),
            min_tx: 100 * MS,
            min_rx: 100 * MS,
            ..Packet::default()
        }
    }

    fn id(&self) -> u32 {
        self.engine.views(self.now)[0].0
    }

    fn state(&self) -> String {
        self.engine.views(self.now)[0].2.state.clone()
    }

    fn up(&mut self) {
        self.receive(self.neighbor(State::Down));
        self.receive(self.neighbor(State::Init));
        assert_eq!(self.state(), "up");
        // The neighbor confirms our intervals.
        self.receive(Packet { is_final: true, ..self.neighbor(State::Up) });
        self.out.clear();
    }

    fn sent(&mut self) -> Vec<Packet> {
        let packets = self.out.drain(..).filter_map(|o| match o {
            Output::Send { packet, .. } => Some(Packet::decode(packet.as_slice()).unwrap().0),
            _ => None,
        });
        packets.collect()
    }

    fn report(&self) -> BfdReport {
        self.report_to(1).unwrap_or_default()
    }

    /// The last report to a client.
    fn report_to(&self, wanted: u64) -> Option<BfdReport> {
        let mut reports = self.out.iter().filter_map(|o| match o {
            Output::Report { client, report } if *client == wanted => Some(*report),
            _ => None,
        });
        reports.next_back()
    }

    fn discarded(&self) -> BTreeMap<&'static str, u64> {
        self.engine.totals().discarded
    }
}

/// RFC 5880 §6.8.6: every pair of states, with the diagnostic that follows.
#[test]
fn the_state_machine_is_that_of_the_rfc() {
    use State::{AdminDown, Down, Init, Up};
    #[rustfmt::skip]
    let cases = [
        (Down, AdminDown, Down, 0), (Down, Down, Init, 0), (Down, Init, Up, 0), (Down, Up, Down, 0),
        (Init, AdminDown, Down, 3), (Init, Down, Init, 0), (Init, Init, Up, 0), (Init, Up, Up, 0),
        (Up, AdminDown, Down, 3),   (Up, Down, Down, 3),   (Up, Init, Up, 0),   (Up, Up, Up, 0),
    ];
    for (ours, theirs, next, diagnostic) in cases {
        let mut bench = Bench::new(params(300, 300, 3));
        match ours {
            Init => bench.receive(bench.neighbor(Down)),
            Up => bench.up(),
            AdminDown | Down => {}
        }
        bench.receive(bench.neighbor(theirs));
        bench.out.clear();
        bench.run(2000 * MS / 3);
        bench.receive(Packet { poll: true, ..bench.neighbor(if next == Init { Down } else { Up }) });
        let sent = bench.sent();
        let last = sent.last().unwrap();
        if (ours, theirs) != (Down, Down) || next == Init {
            assert_eq!((last.state, last.diagnostic), (next, diagnostic), "{ours:?} receives {theirs:?}");
        }
        assert!(last.is_final && !last.poll);
    }
}

#[test]
fn silence_for_the_detection_time_is_a_loss() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    // The neighbor sends every 100 ms, its multiplier is 3: 300 ms.
    bench.run(299 * MS);
    assert_eq!(bench.state(), "up");
    bench.run(MS);
    assert_eq!(bench.state(), "down");
    let report = bench.report();
    assert_eq!((report.status, report.failures, report.diagnostic), (BfdStatus::Down, 1, 1));
    assert_eq!(bench.engine.lost(bench.now).len(), 1);
    let last = *bench.sent().last().unwrap();
    assert_eq!((last.state, last.diagnostic, last.your_discriminator), (State::Down, 1, 0));
}

#[test]
fn a_neighbor_that_is_turned_off_is_no_failure() {
    let mut bench = Bench::new(params(300, 300, 3));
    bench.up();
    bench.receive(bench.neighbor(State::AdminDown));
    let report = bench.report();
    assert_eq!((report.status, report.failures), (BfdStatus::AdminDown, 0));
    bench.run(Duration::from_secs(10));
    assert_eq!((bench.report().status, bench.report().failures), (BfdStatus::Starting, 0));
}

#[test]
fn what_is_not_up_is_sent_slowly_and_then_fast() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.run(Duration::from_secs(10));
    let sent = bench.sent();
    assert!((10..=14).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|p| p.min_tx == Duration::from_secs(1) && p.your_discriminator == 0));
    bench.up();
    for _ in 0..100 {
        bench.receive(Packet { min_rx: 50 * MS, ..bench.neighbor(State::Up) });
        bench.run(100 * MS);
    }
    let sent = bench.sent();
    assert!((200..=267).contains(&sent.len()), "75 to 100 % of 50 ms in 10 s: {}", sent.len());
    assert!(sent.iter().all(|p| p.min_tx == 50 * MS && !p.poll && !p.independent && !p.demand));
}

#[test]
fn a_neighbor_that_wants_none_gets_none() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    for _ in 0..20 {
        bench.receive(Packet { min_rx: Duration::ZERO, ..bench.neighbor(State::Up) });
        bench.run(100 * MS);
    }
    assert_eq!(bench.sent(), []);
    bench.receive(Packet { min_rx: Duration::ZERO, poll: true, ..bench.neighbor(State::Up) });
    assert_eq!(bench.sent().len(), 1, "a poll gets its final packet nevertheless");
    bench.receive(bench.neighbor(State::Up));
    bench.run(100 * MS);
    assert!(!bench.sent().is_empty(), "it wants them again");
}

#[test]
fn demand_mode_of_the_neighbor_stops_what_is_sent_by_itself() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    let demand = |bench: &Bench| Packet { demand: true, ..bench.neighbor(State::Up) };
    for _ in 0..10 {
        bench.receive(demand(&bench));
        bench.run(100 * MS);
    }
    assert_eq!(bench.sent(), []);
    bench.watch(1, Some(watch(2, params(80, 50, 3))));
    bench.run(200 * MS);
    assert!(bench.sent().iter().any(|p| p.poll), "a poll sequence is sent in demand mode, too");
}

/// RFC 5880 §6.8.3.
#[test]
fn new_intervals_wait_for_the_end_of_their_poll_sequence() {
    let mut bench = Bench::new(params(100, 100, 3));
    bench.up();
    bench.watch(1, Some(watch(2, params(1000, 20, 3))));
    let detection = |bench: &Bench| bench.engine.views(bench.now)[0].2.detection_time;
    let interval = |bench: &Bench| bench.engine.views(bench.now)[0].2.tx_interval;
    let fast = |bench: &Bench| Packet { min_tx: 10 * MS, ..bench.neighbor(State::Up) };
    bench.receive(fast(&bench));
    assert_eq!((detection(&bench), interval(&bench)), (300, Some(100)), "the former ones");
    bench.run(100 * MS);
    let polls = bench.sent();
    assert!(polls.iter().all(|p| p.poll && p.min_tx == 1000 * MS && p.min_rx == 20 * MS));
    // A second change before the first one is confirmed: the final packet may confirm the first.
    bench.watch(1, Some(watch(2, params(2000, 20, 3))));
    bench.receive(Packet { is_final: true, ..fast(&bench) });
    assert_eq!((detection(&bench), interval(&bench)), (300, Some(100)));
    bench.receive(Packet { is_final: true, ..fast(&bench) });
    assert_eq!((detection(&bench), interval(&bench)), (60, Some(2000)));
    assert_eq!(bench.state(), "up");
}

#[test]
fn a_passive_session_waits_for_the_neighbor() {
    let mut bench = Bench::new(BfdParams { passive: true, ..params(300, 300, 3) });
    bench.run(Duration::from_secs(10));
    assert_eq!(bench.sent(), []);
    bench.up();
    bench.receive(bench.neighbor(State::Up));
    bench.run(300 * MS);
    assert!(!bench.sent().is_empty());
}

#[test]
fn packets_find_their_session_or_none() {
    let mut bench = Bench::new(params(300, 300, 3));
    let first = Packet { your_discriminator: 0, ..bench.neighbor(State::Down) };
    #[rustfmt::skip]
    let cases: &[(&str, Arrival, Packet, Option<&str>)] = &[
        ("TTL 254",       Arrival { ttl: Some(254), ..arrival(2) },  first, Some("ttl")),
        ("no TTL",        Arrival { ttl: None, ..arrival(2) },       first, Some("ttl")),
        ("other address", arrival(3),                                first, Some("no-session")),
        ("other link",    Arrival { ifindex: 3, ..arrival(2) },      first, Some("no-session")),
        ("other port",    Arrival { multihop: true, ..arrival(2) },  first, Some("no-session")),
        ("other port, our discriminator", Arrival { multihop: true, ..arrival(2) }, bench.neighbor(State::Down), Some("no-session")),
        ("unknown discriminator", arrival(2), Packet { your_discriminator: 1, ..first }, Some("no-session")),
        ("first packet",  arrival(2),                                first, None),
        // RFC 5880 §6.3: by the discriminator alone.
        ("other address, our discriminator", arrival(3), bench.neighbor(State::Init), None),
    ];
    for (name, arrival, packet, discard) in cases {
        let before = bench.discarded();
        bench.engine.receive(bench.now, arrival, packet.encode().as_slice(), &mut bench.out);
        let after = bench.discarded();
        match discard {
            Some(why) => assert_eq!(after[why], before.get(why).unwrap_or(&0) + 1, "{name}"),
            None => assert_eq!(after, before, "{name}"),
        }
    }
    assert_eq!(bench.state(), "up");
}

#[test]
fn one_session_serves_all_that_watch_the_same_path() {
    let mut bench = Bench::new(params(300, 300, 3));
    bench.watch(2, Some(watch(2, params(100, 200, 5))));
    let views = bench.engine.views(bench.now);
    assert_eq!(views.len(), 1);
    assert_eq!((views[0].2.min_rx, views[0].2.multiplier), (200, 3));
    bench.up();
    bench.watch(1, None);
    assert_eq!(bench.state(), "up", "the second one still needs it");
    bench.watch(2, None);
    let last = *bench.sent().last().unwrap();
    assert_eq!((last.state, last.diagnostic), (State::AdminDown, 7));
    assert!(bench.engine.views(bench.now).is_empty());
    bench.run(Duration::from_secs(4));
    assert!(bench.out.iter().any(|o| matches!(o, Output::Close { .. })));
    assert_eq!(bench.engine.poll_timeout(), None);
}

#[test]
fn a_session_that_goes_on_without_bfd_is_not_lost() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    bench.run(Duration::from_secs(1));
    assert_eq!(bench.engine.lost(bench.now).len(), 1);
    bench.watch(1, Some(Watch { proceed: true, ..watch(2, params(50, 50, 3)) }));
    assert!(bench.engine.lost(bench.now).is_empty());
}

/// A detection time of twelve days and one of 50 ms in turn, from a neighbor that wants no packets.
#[test]
fn a_neighbor_that_changes_its_intervals_with_each_packet_takes_no_memory() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    let slow = Packet {
        multiplier: 255,
        min_tx: Duration::from_secs(4294),
        min_rx: Duration::ZERO,
        ..bench.neighbor(State::Up)
    };
    for _ in 0..1000 {
        bench.receive(slow);
        bench.receive(Packet { multiplier: 1, min_tx: MS, ..slow });
        bench.run(40 * MS);
        bench.receive(slow);
        bench.run(10 * MS);
    }
    assert_eq!((bench.state().as_str(), bench.engine.queued()), ("up", 1));
}

#[test]
fn a_session_that_nobody_watches_any_more_is_not_lost() {
    let mut bench = Bench::new(params(50, 50, 3));
    bench.up();
    bench.watch(1, None);
    assert!(bench.engine.lost(bench.now).is_empty(), "its neighbor was not lost");
    bench.watch(2, Some(watch(2, params(50, 50, 3))));
    assert_eq!(
        bench.report_to(2).map(|r| r.status),
        Some(BfdStatus::Starting),
        "the next client's session starts anew"
    );
    assert!(bench.engine.lost(bench.now).is_empty());
}

#[test]
fn a_flapping_session_is_dampened() {
    let mut bench = Bench::new(params(50, 50, 3));
    for _ in 0..3 {
        bench.up();
        bench.receive(bench.neighbor(State::Down));
        bench.receive(bench.neighbor(State::AdminDown));
    }
    bench.receive(bench.neighbor(State::Down));
    bench.receive(bench.neighbor(State::Init));
    assert_eq!(bench.report().status, BfdStatus::Dampened(Duration::from_secs(2)));
    for _ in 0..21 {
        bench.receive(bench.neighbor(State::Up));
        bench.run(100 * MS);
    }
    assert_eq!(bench.report().status, BfdStatus::Up);
}

/// RFC 5880 §6.8.18, whether it goes down as a loss or by the neighbor's administrator.
#[test]
fn a_neighbor_that_goes_up_and_down_with_each_packet_is_held_down() {
    for down in [State::Down, State::AdminDown] {
        let mut bench = Bench::new(params(50, 50, 3));
        for _ in 0..10_000 {
            for state in [State::Down, State::Init, down] {
                bench.receive(bench.neighbor(state));
            }
            bench.run(MS);
        }
        let ups = bench.out.iter().filter(|o| matches!(o, Output::Changed(c) if c.to == State::Up)).count();
        assert!((10..=16).contains(&ups), "{ups} times in ten seconds");
        bench.run(Duration::from_secs(10));
        bench.up();
    }
}

#[test]
fn unsigned_packets_are_refused_where_a_key_is_set_and_signed_ones_where_none_is() {
    let auth = BfdAuth { key_id: 1, key: b"secret".to_vec(), meticulous: true };
    let mut bench = Bench::new(BfdParams { auth: Some(auth), ..params(300, 300, 3) });
    bench.receive(bench.neighbor(State::Down));
    let signed = bench.out.iter().find_map(|o| match o {
        Output::Send { packet, .. } => Some(*packet),
        _ => None,
    });
    assert!(signed.is_none(), "no packet in return");
    assert_eq!(bench.discarded()["authentication"], 1);
    let mut bench = Bench::new(params(300, 300, 3));
    bench.receive(Packet { authenticated: true, ..bench.neighbor(State::Down) });
    assert_eq!((bench.discarded()["authentication"], &*bench.state()), (1, "down"));
}

/// Two engines, and a wire that loses, delays and so reorders.
struct Pair {
    ends: [Bench; 2],
    flying: Vec<(Instant, usize, Vec<u8>)>,
    random: Random,
    loss_percent: u32,
    delay_ms: u32,
}

impl Pair {
    fn new(a: BfdParams, b: BfdParams, seed: u64) -> Self {
        let now = Instant::now();
        let end = |n: u64, remote, params| {
            let mut bench = Bench { engine: Engine::new(seed + n), now, out: Vec::new() };
            bench.watch(1, Some(watch(remote, params)));
            bench
        };
        let ends = [end(1, 2, a), end(2, 1, b)];
        Self { ends, flying: Vec::new(), random: Random::new(seed), loss_percent: 0, delay_ms: 0 }
    }

    fn run(&mut self, time: Duration) {
        let end = self.ends[0].now + time;
        loop {
            self.send();
            let due = self.ends.iter().filter_map(|e| e.engine.poll_timeout());
            let at = due.chain(self.flying.iter().map(|f| f.0)).min().filter(|at| *at <= end);
            let Some(at) = at else { break };
            for bench in &mut self.ends {
                bench.now = bench.now.max(at);
                bench.engine.timeout(bench.now, &mut bench.out);
            }
            self.arrive(at);
        }
        self.ends.iter_mut().for_each(|e| e.now = end);
    }

    fn send(&mut self) {
        for (from, bench) in self.ends.iter_mut().enumerate() {
            let now = bench.now;
            bench.out.retain(|o| {
                let Output::Send { packet, .. } = o else { return true };
                if self.random.next() % 100 >= self.loss_percent {
                    let delay = self.random.next() % (self.delay_ms + 1) * MS;
                    self.flying.push((now + delay, 1 - from, packet.as_slice().to_vec()));
                }
                false
            });
        }
    }

    fn arrive(&mut self, now: Instant) {
        for (_, to, octets) in self.flying.extract_if(.., |f| f.0 <= now) {
            let from = arrival(if to == 0 { 2 } else { 1 });
            let bench = &mut self.ends[to];
            bench.engine.receive(now, &from, &octets, &mut bench.out);
        }
    }

    fn states(&self) -> [String; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn failures(&self) -> u64 {
        self.ends.iter().map(|e| e.engine.views(e.now)[0].2.failures).sum()
    }
}

#[test]
fn two_ends_come_up_change_their_intervals_and_notice_a_cut() {
    let auth = Some(BfdAuth { key_id: 1, key: b"secret".to_vec(), meticulous: true });
    for auth in [None, auth] {
        let with = |p: BfdParams| BfdParams { auth: auth.clone(), ..p };
        let mut pair = Pair::new(with(params(50, 50, 3)), with(params(300, 100, 5)), 3);
        pair.run(Duration::from_secs(4));
        assert_eq!(pair.states(), ["up", "up"]);
        let bench = &mut pair.ends[0];
        bench.watch(1, Some(watch(2, with(params(10, 10, 3)))));
        bench.out.retain(|o| matches!(o, Output::Send { .. }));
        pair.run(Duration::from_secs(4));
        assert_eq!((pair.states(), pair.failures()), (["up".into(), "up".into()], 0));
        assert_eq!(pair.ends[1].engine.views(pair.ends[1].now)[0].2.remote_min_tx, 10);
        pair.loss_percent = 100;
        pair.run(Duration::from_millis(1600));
        assert_eq!((pair.states(), pair.failures()), (["down".into(), "down".into()], 2));
        pair.loss_percent = 0;
        pair.run(Duration::from_secs(4));
        assert_eq!(pair.states(), ["up", "up"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the intervals, a wire that only delays keeps a session up, and packets keep their
    /// rate.
    #[test]
    fn delay_and_order_bring_no_session_down(
        tx in 10_u32..500, rx in 10_u32..500, multiplier in 3_u8..6, delay in 0_u32..10, seed: u64,
    ) {
        let mut pair = Pair::new(params(tx, rx, multiplier), params(rx, tx, multiplier), seed);
        pair.delay_ms = delay;
        pair.run(Duration::from_secs(6));
        prop_assert_eq!(pair.states(), ["up", "up"]);
        // A packet of the start that arrives late may have cost one more start.
        let failures = pair.failures();
        pair.run(Duration::from_secs(20));
        prop_assert_eq!(pair.failures(), failures);
    }

    /// However bad the wire was, both ends agree again once it is good.
    #[test]
    fn both_ends_recover_from_any_loss(loss in 1_u32..100, delay in 0_u32..200, seed: u64) {
        let mut pair = Pair::new(params(50, 50, 3), params(100, 20, 4), seed);
        (pair.loss_percent, pair.delay_ms) = (loss, delay);
        pair.run(Duration::from_secs(30));
        (pair.loss_percent, pair.delay_ms) = (0, 0);
        pair.run(Duration::from_secs(10));
        prop_assert_eq!(pair.states(), ["up", "up"]);
        let failures = pair.failures();
        pair.run(Duration::from_secs(10));
        prop_assert_eq!(pair.failures(), failures);
    }

    /// No octets from outside panic, and none but those of a session's neighbor change it.
    #[test]
    fn octets_of_any_kind_do_no_harm(
        packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..60), 0_u64..500), 0..60),
    ) {
        let mut bench = Bench::new(params(50, 50, 3));
        bench.up();
        for (octets, pause) in packets {
            bench.engine.receive(bench.now, &arrival(2), &octets, &mut bench.out);
            bench.run(Duration::from_millis(pause));
        }
    }
}
