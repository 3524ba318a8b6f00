//! The budget of all routes: who is closed for it, and that what is counted follows what is there.

use super::*;
use crate::{bgp::wire::attr::UnknownAttr, net::Reason};

const MIB: u64 = 1024 * 1024;

fn bench(budget: u64, neighbors: u32) -> Bench {
    let mut bench = Bench::new();
    bench.rib.handle(bench.now, Input::Budget(budget));
    (1..=neighbors).for_each(|n| bench.neighbor(n, 65000 + n, |_| {}));
    bench
}

/// The numbers of those that were closed for memory.
fn closed(bench: &mut Bench) -> Vec<u32> {
    let events = bench.rib.take_events().into_iter();
    events.filter(|(_, e)| matches!(e, Event::MemoryLimit { .. })).map(|(id, _)| id.0).collect()
}

/// So many routes from a neighbor, a prefix to a number from `first` on, with one attribute set.
fn send(bench: &mut Bench, n: u32, first: u32, many: u32) {
    let prefixes: Vec<_> = (first..first + many).map(prefix).collect();
    prefixes.chunks(500).for_each(|part| bench.announce(n, &path(n, 65000 + n), part));
    bench.run();
}

fn received(bench: &Bench, n: u32) -> u64 {
    bench.rib.counts().neighbors[&address(n).to_string()].received[&Family::Ipv4Unicast]
}

#[test]
fn a_flood_of_prefixes_closes_the_session_that_floods_and_no_other() {
    let mut bench = bench(4 * MIB, 3);
    send(&mut bench, 1, 0, 3000);
    send(&mut bench, 2, 3000, 3000);
    assert_eq!(closed(&mut bench), [0; 0]);
    send(&mut bench, 3, 10_000, 30_000);
    assert_eq!(closed(&mut bench), [3]);
    assert!(bench.rib.octets() < 5 * MIB, "{}", bench.rib.octets());
    // Its session has not ended yet: nothing more is taken from it, and others go on.
    let before = received(&bench, 3);
    send(&mut bench, 3, 50_000, 100);
    send(&mut bench, 1, 60_000, 100);
    assert_eq!((received(&bench, 3), received(&bench, 1)), (before, 3100));
    assert_eq!(closed(&mut bench), [0; 0], "one is enough");
    bench.down(3, DownCause::Sent { hard: true });
    bench.run();
    assert!(bench.rib.octets() < 3 * MIB, "{}", bench.rib.octets());
    assert_eq!((received(&bench, 1), received(&bench, 2), received(&bench, 3)), (3100, 3000, 0));
}

/// Who has a large table for long is not the one that floods.
#[test]
fn of_a_large_neighbor_and_one_that_grows_the_one_that_grows_is_closed() {
    let mut bench = bench(4 * MIB, 2);
    send(&mut bench, 1, 0, 8000);
    for _ in 0..3 {
        bench.now += Duration::from_secs(70);
        send(&mut bench, 1, 0, 1);
    }
    send(&mut bench, 2, 20_000, 10_000);
    assert_eq!(closed(&mut bench), [2]);
    bench.down(2, DownCause::Sent { hard: true });
    bench.run();
    bench.up(2, negotiated(2, 65002));
    // Slow growth is nobody's flood: then the one with most makes room.
    for round in 0..10 {
        bench.now += Duration::from_secs(70);
        send(&mut bench, 1, 30_000 + round * 300, 300);
        send(&mut bench, 2, 40_000 + round * 200, 200);
    }
    assert_eq!(closed(&mut bench), [1]);
}

#[test]
fn long_attributes_count_whether_known_or_not_and_however_they_come() {
    let long = |n: u32, seed: u32, kind: u32| {
        let mut attrs = path(n, 65000 + n);
        let extra = attrs.extra_mut();
        match kind {
            0 => attrs.communities = (0..900).map(|c| c + seed * 1000).collect(),
            1 => extra.large_communities = (0..300).map(|c| [seed, c, c]).collect(),
            2 => {
                extra.ext_communities =
                    (0..400_u32).map(|c| (u64::from(seed) << 32 | u64::from(c)).to_be_bytes()).collect()
            }
            _ => {
                let value = [seed.to_be_bytes().to_vec(), vec![7; 3000]].concat().into();
                extra.unknown = vec![UnknownAttr { flags: 0xe0, code: 99, value }];
            }
        }
        attrs.tidy();
        attrs
    };
    for kind in 0..4 {
        let mut bench = bench(4 * MIB, 2);
        send(&mut bench, 1, 0, 1000);
        // New prefixes, then the same ones again with other attributes.
        for seed in 0..2000 {
            bench.announce(2, &long(2, seed, kind), &[prefix(5000 + seed % 1000)]);
            if seed % 50 == 0 {
                bench.run();
            }
        }
        bench.run();
        assert_eq!(closed(&mut bench), [2], "kind {kind}");
        assert!(bench.rib.octets() < 4 * MIB + MIB / 4, "kind {kind}: {}", bench.rib.octets());
        let sets = bench.rib.attrs.octets_of(2);
        assert!(sets > 2 * MIB, "kind {kind}: {sets} octets are the neighbor's");
    }
}

/// RFC 7911: paths count, not prefixes; and advertised paths count too.
#[test]
fn paths_and_update_groups_count() {
    let mut bench = bench(6 * MIB, 1);
    bench.configure(2, config(2));
    bench.up(2, Negotiated { add_path_receive: PerFamily::both(true), ..negotiated(2, 65002) });
    for n in [3, 4] {
        let config = PeerConfig { transit: true, ..(*config(n)).clone() };
        bench.configure(n, Arc::new(config));
        bench.up(n, Negotiated { add_path_send: PerFamily::both(true), ..negotiated(n, 65000 + n) });
    }
    send(&mut bench, 1, 0, 500);
    let before = bench.rib.octets();
    let prefixes: Vec<_> = (5000..5400).map(prefix).collect();
    for id in 1..200 {
        bench.announce_path(2, id, &Attrs { med: Some(id), ..path(2, 65002) }, &prefixes);
        bench.run();
    }
    assert_eq!(closed(&mut bench), [2]);
    assert!(received(&bench, 2) < 80_000, "{}", received(&bench, 2));
    bench.down(2, DownCause::Sent { hard: true });
    bench.run();
    let after = bench.rib.octets();
    assert!(after < before + MIB / 8, "{before}, then {after}: all is given back");
    assert_eq!(received(&bench, 1), 500);
}

/// Stale routes of a neighbor that is away may be those that have to go.
#[test]
fn stale_routes_give_way_to_those_of_sessions_that_are_up() {
    let mut bench = bench(4 * MIB, 1);
    let graceful = crate::bgp::peer::Graceful {
        restarting: false,
        notification: true,
        restart_time: 120,
        families: vec![(Family::Ipv4Unicast, true)],
        long_lived: vec![],
    };
    bench.configure(2, config(2));
    bench.up(2, Negotiated { graceful: Some(graceful), ..negotiated(2, 65002) });
    send(&mut bench, 2, 0, 9000);
    bench.down(2, DownCause::Closed);
    bench.run();
    assert_eq!(received(&bench, 2), 9000, "kept for its return");
    for _ in 0..3 {
        bench.now += Duration::from_secs(61);
        send(&mut bench, 1, 20_000, 1);
    }
    bench.rib.handle(bench.now, Input::Budget(2 * MIB));
    bench.run();
    assert_eq!((received(&bench, 2), closed(&mut bench)), (0, vec![]));
}

#[test]
fn limits_that_are_near_are_problems_once() {
    let mut bench = bench(4 * MIB, 0);
    bench.neighbor(1, 65001, |c| c.max_prefixes = 1000);
    bench.rib.take_problems();
    send(&mut bench, 1, 0, 740);
    assert_eq!(bench.rib.take_problems(), None);
    send(&mut bench, 1, 740, 20);
    let problems = bench.rib.take_problems().unwrap();
    assert!(
        problems.len() == 1 && problems[0].contains("10.0.0.11") && problems[0].contains("1000"),
        "{problems:?}"
    );
    send(&mut bench, 1, 760, 5);
    assert_eq!(bench.rib.take_problems(), None, "reported once");
    let gone: Vec<_> = (720..765).map(prefix).collect();
    bench.withdraw(1, &gone);
    bench.run();
    assert_eq!(bench.rib.take_problems(), None, "what swings around the mark is one event");
    let gone: Vec<_> = (500..720).map(prefix).collect();
    bench.withdraw(1, &gone);
    bench.run();
    assert_eq!(bench.rib.take_problems(), Some(vec![]));
    bench.rib.handle(bench.now, Input::Budget(bench.rib.octets() * 10 / 9));
    let problems = bench.rib.take_problems().unwrap();
    assert!(problems.len() == 1 && problems[0].contains("80 % of the memory"), "{problems:?}");
}

/// What is counted comes and goes with what is there, whatever happens in between.
#[test]
fn nothing_is_counted_any_more_when_nothing_is_there() {
    let mut bench = bench(u64::MAX, 3);
    bench.run();
    let before = bench.rib.octets();
    let mut dice = 1_u32;
    for _ in 0..2000 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (n, at) = (1 + (dice >> 8) % 3, prefix((dice >> 12) % 40));
        match (dice >> 20) % 4 {
            0 => bench.withdraw(n, &[at]),
            _ => bench.announce(n, &Attrs { med: Some(dice >> 26), ..path(n, 65000 + n) }, &[at]),
        }
        if dice.is_multiple_of(7) {
            bench.run();
        }
    }
    for n in 1..=3 {
        bench.rib.handle(bench.now, Input::Down { peer: PeerId(n), cause: DownCause::Administrative });
        bench.sent.remove(&n);
    }
    bench.run();
    assert_eq!((bench.rib.attrs.octets(), (1..=3).map(|n| bench.rib.octets_of(n)).sum::<u64>()), (0, 0));
    assert!(bench.rib.octets() < before, "sessions count, too");
}

#[test]
fn a_limit_that_only_warns_is_a_problem_while_it_is_exceeded() {
    let mut bench = bench(u64::MAX, 0);
    bench.neighbor(1, 65001, |c| (c.max_prefixes, c.max_prefixes_action) = (100, MaxPrefixesAction::Warn));
    bench.rib.take_problems();
    let reasons = |bench: &mut Bench| {
        let problems = bench.rib.take_problems().unwrap();
        problems.iter().map(|d| d.reason).collect::<Vec<_>>()
    };
    send(&mut bench, 1, 0, 100);
    assert_eq!(reasons(&mut bench), [Reason::PrefixLimitNear]);
    send(&mut bench, 1, 100, 1);
    assert_eq!(reasons(&mut bench), [Reason::PrefixLimitExceeded]);
    let gone: Vec<_> = (50..101).map(prefix).collect();
    bench.withdraw(1, &gone);
    bench.run();
    assert_eq!(reasons(&mut bench), []);
}
