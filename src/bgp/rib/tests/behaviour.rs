//! One scene per rule that needs the whole rib.

use super::*;
use crate::{
    bgp::peer::Graceful,
    net::{
        Phase, Reach,
        guard::{AddressRole, GuardInputs, Subnet},
    },
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn graceful(forwarding: bool) -> Option<Graceful> {
    let families = Family::ALL.map(|f| (f, forwarding)).to_vec();
    Some(Graceful { restart_time: 60, notification: true, families, ..Graceful::default() })
}

#[test]
fn equal_paths_of_two_switches_forward_together_and_one_stays_when_the_other_is_lost() {
    let mut bench = Bench::new();
    for n in [1, 2] {
        bench.neighbor(n, 65000 + n, |_| {});
        bench.announce(n, &path(n, 65000 + n), &[prefix(0), prefix(1)]);
    }
    bench.run();
    assert_eq!(bench.hops(prefix(0)), ["10.0.0.11", "10.0.0.12"]);
    assert!(Arc::ptr_eq(&bench.fib[&prefix(0)], &bench.fib[&prefix(1)]), "equal sets are one");
    let reasons = bench.reasons(prefix(0));
    assert_eq!(reasons["10.0.0.11"], "best: lowest router id");
    assert_eq!(reasons["10.0.0.12"], "multipath: equal but for lowest router id");

    bench.down(1, DownCause::HoldTimer);
    bench.rib.run_decision_process();
    let changes = bench.rib.take_fib();
    assert_eq!(changes.len(), 2, "a lost neighbor is one batch");
    assert!(changes.iter().all(|(_, h)| h.as_ref().unwrap().gateways().len() == 1));
}

#[test]
fn an_update_without_changes_changes_nothing() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.announce(1, &Attrs { med: Some(9), ..path(1, 65001) }, &[prefix(0)]);
    bench.rib.run_decision_process();
    assert_eq!(bench.rib.take_fib(), [], "the next hops are the same");
}

#[test]
fn guarded_routes_stay_visible_and_come_back_when_the_guard_changes() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let subnets = vec![Subnet { prefix: prefix(0), interface: "eth0".into() }];
    let guard = Guard::new(GuardInputs { subnets, ..GuardInputs::default() });
    bench.rib.handle(bench.now, Input::Guard(Arc::new(guard)));
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    assert_eq!(bench.hops(prefix(0)), [""; 0]);
    assert_eq!(
        bench.reasons(prefix(0))["10.0.0.11"],
        "guard: equal to a connected subnet (20.0.0.0/24 on eth0)"
    );
    bench.rib.handle(bench.now, Input::Guard(Arc::default()));
    bench.run();
    assert_eq!(bench.hops(prefix(0)), ["10.0.0.11"]);
}

#[test]
fn next_hops_follow_what_the_host_reaches() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let far = Attrs { next_hop: "192.0.2.1".parse::<std::net::IpAddr>().unwrap().into(), ..path(1, 65001) };
    bench.announce(1, &far, &[prefix(0)]);
    bench.run();
    assert_eq!(bench.reasons(prefix(0))["10.0.0.11"], "next hop unreachable");
    #[rustfmt::skip]
    let cases = [
        (Reach::No(crate::net::Unresolved::OnlyDefault), "next hop only by the default route", false),
        (Reach::Routed { metric: 20 },                   "best: only path", true),
        (Reach::No(crate::net::Unresolved::Own),         "next hop is this node", false),
        (Reach::Connected { ifindex: 3 },                "best: only path", true),
        (Reach::No(crate::net::Unresolved::LinkDown),    "next hop on a link that is down", false),
    ];
    for (reach, reason, installed) in cases {
        let entries = vec![(p("192.0.2.0/24"), reach)];
        bench.rib.handle(bench.now, Input::Reachable(Arc::new(Reachable::new(entries))));
        bench.run();
        assert_eq!(bench.reasons(prefix(0))["10.0.0.11"], reason);
        assert_eq!(bench.fib.contains_key(&prefix(0)), installed, "{reason}");
    }
}

#[test]
fn what_a_second_speaker_serves_on_this_host_is_passed_on_and_stays_out_of_the_kernel() {
    let mut bench = Bench::new();
    let own = |text: &str| (p(text), Reach::No(crate::net::Unresolved::Own));
    let host =
        vec![(p("10.0.0.0/24"), Reach::Connected { ifindex: 2 }), own("10.0.0.1/32"), own("127.0.0.0/8")];
    bench.rib.handle(bench.now, Input::Reachable(Arc::new(Reachable::new(host))));
    let via = |n: u32, addr: &str| Attrs {
        next_hop: addr.parse::<std::net::IpAddr>().unwrap().into(),
        ..path(n, 65000 + n)
    };
    bench.configure(1, config(1));
    let loopback = "127.0.0.1".parse().unwrap();
    bench.up(1, Negotiated { local_addr: loopback, remote_addr: loopback, ..negotiated(1, 65001) });
    bench.neighbor(2, 65002, |c| c.transit = true);
    bench.neighbor(3, 65000, |_| {});
    bench.announce(1, &via(1, "127.0.0.1"), &[prefix(1)]);
    bench.announce(1, &via(1, "10.0.0.1"), &[prefix(2)]);
    bench.announce(1, &via(1, "10.0.0.9"), &[prefix(3)]);
    bench.announce(2, &via(2, "10.0.0.1"), &[prefix(4)]);
    // An own address is announced by who serves it here, and by nobody else.
    let address = p("192.0.2.7/32");
    let protected = vec![(address.addr(), AddressRole::OwnAddress)];
    let guard = Guard::new(GuardInputs { protected, ..GuardInputs::default() });
    bench.rib.handle(bench.now, Input::Guard(Arc::new(guard)));
    bench.announce(1, &via(1, "127.0.0.1"), &[address]);
    bench.announce(2, &path(2, 65002), &[address]);
    bench.run();

    assert_eq!(bench.fib.keys().copied().collect::<Vec<_>>(), [prefix(3)], "what leads elsewhere is a route");
    let hops = |n: u32| -> BTreeMap<Prefix, String> {
        bench.sent[&n].iter().map(|(p, a)| (*p, a.next_hop.addr.to_string())).collect()
    };
    let ours = || "10.0.0.1".to_owned();
    let external = [prefix(1), prefix(2), prefix(3), address].map(|p| (p, ours()));
    assert_eq!(hops(2), external.into(), "eBGP");
    let internal =
        [(prefix(1), ours()), (prefix(2), ours()), (prefix(3), "10.0.0.9".into()), (address, ours())];
    assert_eq!(hops(3), internal.into(), "iBGP");
    assert_eq!(bench.reasons(prefix(1))["10.0.0.11"], "best: only path; served on this host");
    assert_eq!(
        bench.reasons(prefix(4))["10.0.0.12"],
        "next hop is this node",
        "from a neighbor on another host"
    );
    let refused = "guard: 192.0.2.7 (own address) is on this host or link";
    assert_eq!(bench.reasons(address)["10.0.0.12"], refused);
}

#[test]
fn next_hops_resolve_over_other_routes_four_deep_and_never_over_themselves() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let via =
        |addr: &str| Attrs { next_hop: addr.parse::<std::net::IpAddr>().unwrap().into(), ..path(1, 65001) };
    // Each route's next hop lies inside the one before it; the first is reached by a connected next
    // hop.
    bench.announce(1, &via("10.0.0.11"), &[p("20.0.0.0/24")]);
    for n in 1..7 {
        bench.announce(1, &via(&format!("20.0.{}.1", n - 1)), &[p(&format!("20.0.{n}.0/24"))]);
    }
    bench.run();
    for n in 0..7 {
        let hops = bench.hops(p(&format!("20.0.{n}.0/24")));
        if n <= 4 { assert_eq!(hops, ["10.0.0.11"], "{n}") } else { assert_eq!(hops, [""; 0], "{n}") }
    }
    assert_eq!(bench.reasons(p("20.0.5.0/24"))["10.0.0.11"], "next hop resolves over more than 4 routes");

    bench.withdraw(1, &[p("20.0.0.0/24")]);
    bench.run();
    assert!(bench.fib.is_empty(), "all of them hung on the first");

    bench.announce(1, &via("30.0.0.1"), &[p("30.0.0.0/24")]);
    bench.run();
    assert_eq!(bench.hops(p("30.0.0.0/24")), [""; 0]);
    bench.announce(1, &via("10.0.0.11"), &[p("30.0.0.0/16")]);
    bench.run();
    assert_eq!(bench.hops(p("30.0.0.0/24")), ["10.0.0.11"], "over the shorter one");
}

#[test]
fn routes_of_a_gracefully_restarting_neighbor_stay_until_they_are_advertised_again() {
    let mut bench = Bench::new();
    bench.configure(1, config(1));
    bench.up(1, Negotiated { graceful: graceful(true), ..negotiated(1, 65001) });
    bench.announce(1, &path(1, 65001), &[prefix(0), prefix(1)]);
    bench.run();
    bench.down(1, DownCause::Closed);
    bench.rib.run_decision_process();
    assert_eq!(bench.rib.take_fib(), []);
    bench.up(1, Negotiated { graceful: graceful(true), ..negotiated(1, 65001) });
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    assert_eq!(bench.fib.len(), 2);
    bench.end_of_rib(1, Family::Ipv4Unicast);
    bench.run();
    assert_eq!(bench.fib.keys().copied().collect::<Vec<_>>(), [prefix(0)]);
}

#[test]
fn stale_routes_go_when_the_neighbor_did_not_keep_them_or_does_not_come_back() {
    type End = fn(&mut Bench);
    let cases: [(&str, DownCause, End, bool); 7] = [
        ("closed", DownCause::Closed, |_| {}, true),
        ("notification, N bit", DownCause::Received { hard: false }, |_| {}, true),
        ("hard reset", DownCause::Received { hard: true }, |_| {}, false),
        ("administrative", DownCause::Administrative, |_| {}, false),
        ("not back in time", DownCause::Closed, wait_for_restart, false),
        ("disabled while it is away", DownCause::Closed, disable, false),
        ("back without the forwarding bit", DownCause::Closed, back_without_forwarding, false),
    ];
    for (name, cause, end, stays) in cases {
        let mut bench = Bench::new();
        bench.configure(1, config(1));
        bench.up(1, Negotiated { graceful: graceful(true), ..negotiated(1, 65001) });
        bench.announce(1, &path(1, 65001), &[prefix(0)]);
        bench.run();
        bench.down(1, cause);
        end(&mut bench);
        bench.run();
        assert_eq!(bench.fib.contains_key(&prefix(0)), stays, "{name}");
    }
}

/// calico#9259: a reflector that restarts repeatedly before End-of-RIB must not remove the routes
/// of a cluster.
#[test]
fn calico_9259_long_lived_routes_outlive_sessions_closed_before_end_of_rib() {
    let mut bench = Bench::new();
    let lasting = PeerConfig { long_lived_stale_time: 3600, ..(*config(1)).clone() };
    bench.configure(1, Arc::new(lasting));
    let session = || {
        let long_lived = vec![(Family::Ipv4Unicast, 3600, true)];
        let graceful = graceful(true).map(|g| Graceful { long_lived, ..g });
        Negotiated { graceful, ..negotiated(1, 65001) }
    };
    bench.up(1, session());
    bench.announce(1, &path(1, 65001), &[prefix(0), prefix(1)]);
    bench.run();
    let begun = bench.now;
    bench.down(1, DownCause::Closed);
    wait_for_restart(&mut bench);
    for _ in 0..3 {
        bench.up(1, session());
        bench.announce(1, &path(1, 65001), &[prefix(1)]);
        bench.down(1, DownCause::Closed);
        bench.run();
        assert_eq!(bench.fib.len(), 2);
        bench.now += Duration::from_secs(600);
        bench.rib.handle(bench.now, Input::Timeout);
    }
    bench.run();
    assert_eq!(bench.fib.len(), 2);
    // The clock of the first end goes on.
    let due = bench.rib.poll_timeout().unwrap();
    assert_eq!(due - begun, Duration::from_secs(60 + 3600));
    bench.now = due;
    bench.rib.handle(due, Input::Timeout);
    bench.run();
    assert!(bench.fib.is_empty());
}

fn wait_for_restart(bench: &mut Bench) {
    let due = bench.rib.poll_timeout().unwrap();
    assert_eq!(due - bench.now, Duration::from_secs(60));
    bench.now = due;
    bench.rib.handle(due, Input::Timeout);
}

fn disable(bench: &mut Bench) {
    bench.down(1, DownCause::Administrative);
}

fn back_without_forwarding(bench: &mut Bench) {
    bench.up(1, Negotiated { graceful: graceful(false), ..negotiated(1, 65001) });
}

/// RFC 4724 §4.1: a restarted reflector would otherwise make its clients remove routes that it has
/// not learned again yet.
#[test]
fn after_a_restart_end_of_rib_waits_for_that_of_the_others() {
    let mut bench = Bench::new();
    bench.rib.handle(bench.now, Input::Global(Global { restarting: true, ..global() }));
    for n in 1..4 {
        let client = PeerConfig { route_reflector_client: true, ..(*config(n)).clone() };
        bench.configure(n, Arc::new(client));
    }
    for n in 1..3 {
        bench.up(n, Negotiated { graceful: graceful(true), ..negotiated(n, 65000) });
    }
    let ends = |bench: &Bench| [bench.end_of_ribs[&1], bench.end_of_ribs[&2]];
    bench.run();
    bench.announce(1, &path(1, 65000), &[prefix(0)]);
    for n in 1..3 {
        Family::ALL.iter().for_each(|f| bench.end_of_rib(n, *f));
    }
    bench.run();
    assert_eq!(ends(&bench), [0, 0], "neighbor 3 is still to come");
    assert!(bench.sent[&2].contains_key(&prefix(0)), "routes do not wait");
    bench.up(3, Negotiated { graceful: graceful(true), ..negotiated(3, 65000) });
    bench.end_of_rib(3, Family::Ipv6Unicast);
    bench.run();
    assert_eq!(ends(&bench), [1, 1], "family by family");
    bench.end_of_rib(3, Family::Ipv4Unicast);
    bench.run();
    assert_eq!(ends(&bench), [2, 2]);

    // One that never comes is not waited for any longer than the restart counts as one.
    let mut bench = Bench::new();
    bench.rib.handle(bench.now, Input::Global(Global { restarting: true, ..global() }));
    bench.configure(2, config(2));
    bench.configure(1, config(1));
    bench.up(1, Negotiated { graceful: graceful(true), ..negotiated(1, 65000) });
    bench.run();
    assert_eq!(bench.end_of_ribs[&1], 0);
    bench.rib.handle(bench.now, Input::Global(global()));
    bench.run();
    assert_eq!(bench.end_of_ribs[&1], 2);
}

#[test]
fn the_first_exchange_ends_with_end_of_rib_or_after_five_quiet_seconds() {
    let mut bench = Bench::new();
    let at = |n: u32| std::net::IpAddr::from(address(n));
    bench.neighbor(1, 65001, |_| {});
    bench.neighbor(2, 65002, |_| {});
    bench.configure(3, config(3));
    for family in Family::ALL {
        bench.end_of_rib(1, family);
    }
    bench.now += Duration::from_secs(3);
    bench.announce(2, &path(2, 65002), &[prefix(0)]);
    let phases = bench.rib.take_convergence().unwrap().neighbors;
    assert_eq!(
        (phases[&at(1)], phases[&at(2)], phases[&at(3)]),
        (Phase::Converged, Phase::Up, Phase::Waiting)
    );
    for (n, want) in [(2, Phase::Up), (3, Phase::Refused)] {
        bench.rib.handle(bench.now, Input::Refused { peer: PeerId(n) });
        assert_eq!(bench.rib.convergence().neighbors[&at(n)], want, "only of one that was never up");
    }
    let due = bench.rib.poll_timeout().unwrap();
    assert_eq!(due - bench.now, Duration::from_secs(5));
    bench.rib.handle(due, Input::Timeout);
    assert_eq!(bench.rib.take_convergence().unwrap().neighbors[&at(2)], Phase::Converged);
    assert_eq!(bench.rib.poll_timeout(), None);
    bench.down(2, DownCause::Closed);
    assert_eq!(bench.rib.convergence().neighbors[&at(2)], Phase::Converged, "a loss takes nothing back");
}

#[test]
fn end_of_rib_follows_the_table() {
    let mut bench = Bench::new();
    bench.originate(&[prefix(0)]);
    bench.decide();
    bench.neighbor(1, 65001, |_| {});
    bench.configure(2, config(2));
    bench.up(2, Negotiated { graceful: Some(Graceful::default()), ..negotiated(2, 65002) });
    bench.run();
    assert_eq!((bench.end_of_ribs[&1], bench.end_of_ribs[&2]), (2, 2), "one for each family");
    assert!(bench.sent[&1].contains_key(&prefix(0)) && bench.sent[&2].contains_key(&prefix(0)));
}

#[test]
fn too_many_prefixes_restart_the_session_once() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| c.max_prefixes = 2);
    bench.announce(1, &path(1, 65001), &[prefix(0), prefix(1), prefix(2), prefix(3)]);
    let event = Event::MaxPrefixes { family: Family::Ipv4Unicast };
    assert_eq!(bench.rib.take_events(), [(PeerId(1), event)]);
    bench.announce(1, &path(1, 65001), &[prefix(4)]);
    assert_eq!(bench.rib.take_events(), []);

    bench.neighbor(2, 65002, |c| (c.max_prefixes, c.max_prefixes_action) = (2, MaxPrefixesAction::Warn));
    bench.announce(2, &path(2, 65002), &[prefix(0), prefix(1), prefix(2)]);
    assert_eq!(bench.rib.take_events(), []);
    assert_eq!(bench.rib.counts().neighbors["10.0.0.12"].received[&Family::Ipv4Unicast], 3);
}

/// `max-prefixes-out`: what is beyond is withheld, and follows when there is room again.
#[test]
fn max_prefixes_out_limits_what_is_advertised() {
    let counts = |b: &Bench, n: u32| {
        let counts = &b.rib.counts().neighbors[&address(n).to_string()];
        let (family, held) = (Family::Ipv4Unicast, b.paths[&n].len());
        assert_eq!(counts.advertised[&family], held as u64);
        assert_eq!(
            counts.notes.iter().any(|note| note.contains("max-prefixes-out")),
            counts.withheld[&family] > 0
        );
        (held, counts.withheld[&family])
    };
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| c.max_prefixes_out = Some(2));
    bench.originate(&[prefix(0), prefix(1), prefix(2), prefix(3)]);
    bench.run();
    assert_eq!(counts(&bench, 1), (2, 2));
    bench.originate(&[prefix(1), prefix(2), prefix(3)]);
    bench.run();
    assert_eq!((counts(&bench, 1), bench.withdrawals), ((2, 1), 1));
    bench.originate(&[prefix(3)]);
    bench.run();
    assert_eq!(counts(&bench, 1), (1, 0));
    assert!(bench.sent[&1].contains_key(&prefix(3)));

    // A neighbor's own routes do not use up its limit; each of two alike has its own.
    for n in [2, 3] {
        bench.neighbor(n, 65000 + n, |c| (c.transit, c.max_prefixes_out) = (true, Some(2)));
    }
    bench.announce(2, &path(2, 65002), &[prefix(4), prefix(5), prefix(6)]);
    bench.run();
    assert_eq!((counts(&bench, 2), counts(&bench, 3)), ((1, 0), (2, 2)));
    bench.originate(&[prefix(0), prefix(1), prefix(3)]);
    bench.run();
    assert_eq!((counts(&bench, 2), counts(&bench, 3)), ((2, 1), (2, 4)));

    // A changed limit needs no new session.
    let wider = PeerConfig { transit: true, max_prefixes_out: Some(5), ..(*config(3)).clone() };
    bench.configure(3, Arc::new(wider));
    bench.run();
    assert_eq!(counts(&bench, 3), (5, 1));
    bench.down(2, DownCause::HoldTimer);
    bench.run();
    assert_eq!(counts(&bench, 3), (3, 0));
}

/// RFC 7911: each path counts, as it does with the neighbor's own limit.
#[test]
fn a_limit_counts_every_path() {
    let mut bench = Bench::new();
    bench.configure(9, Arc::new(PeerConfig { max_prefixes_out: Some(3), ..(*config(9)).clone() }));
    bench.up(9, add_path(9, 65000));
    for n in [1, 2] {
        bench.neighbor(n, 65000 + n, |_| {});
        bench.announce(n, &path(n, 65000 + n), &[prefix(0), prefix(1)]);
    }
    bench.run();
    let withheld =
        |b: &Bench| b.rib.counts().neighbors[&address(9).to_string()].withheld[&Family::Ipv4Unicast];
    assert_eq!((bench.paths[&9].len(), withheld(&bench)), (3, 1));
    bench.withdraw(1, &[prefix(0)]);
    bench.run();
    assert_eq!((bench.paths[&9].len(), withheld(&bench)), (3, 0));
}

#[test]
fn routes_are_never_advertised_to_their_source_nor_withdrawn_from_it() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| c.transit = true);
    bench.neighbor(2, 65002, |c| c.transit = true);
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    assert_eq!((bench.sent[&1].len(), bench.sent[&2].len(), bench.withdrawals), (0, 1, 0));
    // A better path from the other side: now it is advertised to the first, and the route is
    // withdrawn from the second.
    bench.announce(2, &Attrs { origin: Origin::Igp, ..path(2, 65002) }, &[prefix(0)]);
    bench.withdraw(1, &[prefix(0)]);
    bench.run();
    assert_eq!((bench.sent[&1].len(), bench.sent[&2].len(), bench.withdrawals), (1, 0, 1));
    bench.withdraw(2, &[prefix(0)]);
    bench.run();
    assert_eq!((bench.sent[&1].len(), bench.sent[&2].len(), bench.withdrawals), (0, 0, 2));
}

fn add_path(n: u32, remote_as: Asn) -> Negotiated {
    Negotiated { add_path_send: PerFamily::both(true), enhanced_refresh: true, ..negotiated(n, remote_as) }
}

/// RFC 7911 §3: each path has its number, by which it is replaced and withdrawn.
#[test]
fn all_paths_are_advertised_with_add_path() {
    let mut bench = Bench::new();
    for n in [1, 2] {
        bench.neighbor(n, 65000 + n, |_| {});
        bench.announce(n, &path(n, 65000 + n), &[prefix(0)]);
    }
    bench.configure(3, config(3));
    bench.up(3, add_path(3, 65000));
    bench.run();
    let of = |b: &Bench, asn: Asn| {
        let from = |a: &Attrs| a.as_path.first() == Some(asn);
        b.paths[&3].iter().find(|(_, a)| from(a)).map(|((_, id), a)| (*id, a.origin))
    };
    let ((one, _), (two, _)) = (of(&bench, 65001).unwrap(), of(&bench, 65002).unwrap());
    assert!(one != two && one != 0 && two != 0);

    let worse = Attrs { origin: Origin::Incomplete, ..path(1, 65001) };
    bench.announce(1, &worse, &[prefix(0)]);
    bench.run();
    assert_eq!((of(&bench, 65001), bench.withdrawals), (Some((one, Origin::Incomplete)), 0), "replaced");
    assert_eq!(of(&bench, 65002), Some((two, Origin::Igp)));

    // Other settings, another group: nothing of what stays is withdrawn, and nothing gets another
    // number.
    bench.configure(3, Arc::new(PeerConfig { next_hop_self: Some(true), ..(*config(3)).clone() }));
    bench.run();
    assert_eq!((bench.paths[&3].len(), bench.withdrawals), (2, 0));
    assert_eq!((of(&bench, 65001).unwrap().0, of(&bench, 65002).unwrap().0), (one, two));

    bench.withdraw(1, &[prefix(0)]);
    bench.run();
    assert_eq!((of(&bench, 65001), of(&bench, 65002)), (None, Some((two, Origin::Igp))));
    assert_eq!(bench.withdrawals, 1, "by its number");
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.run();
    assert!(![one, two].contains(&of(&bench, 65001).unwrap().0), "a new path, a new number");
}

/// A neighbor that makes up identifiers costs no more than so many paths.
#[test]
fn of_one_prefix_a_neighbor_may_have_so_many_paths() {
    let mut bench = Bench::new();
    bench.configure(1, config(1));
    bench.up(1, Negotiated { add_path_receive: PerFamily::both(true), ..negotiated(1, 65001) });
    for id in 0..300 {
        bench.announce_path(1, id, &path(1, 65001), &[prefix(0)]);
    }
    bench.announce_path(1, 7, &Attrs { med: Some(9), ..path(1, 65001) }, &[prefix(0), prefix(1)]);
    bench.run();
    let received = |b: &Bench| b.rib.counts().neighbors["10.0.0.11"].received[&Family::Ipv4Unicast];
    assert_eq!(received(&bench), 256 + 1, "those that are there may change, others may come");
    bench.withdraw_path(1, 0, &[prefix(0)]);
    bench.announce_path(1, 999, &path(1, 65001), &[prefix(0)]);
    bench.announce_path(1, 1000, &path(1, 65001), &[prefix(0)]);
    assert_eq!(received(&bench), 256 + 1);
}

/// The other paths are advertised to the source of a path, never its own.
#[test]
fn paths_never_go_back_to_their_source() {
    let mut bench = Bench::new();
    for n in [1, 2, 3] {
        bench.configure(n, Arc::new(PeerConfig { transit: true, ..(*config(n)).clone() }));
        bench.up(n, add_path(n, 65000 + n));
        bench.announce(n, &path(n, 65000 + n), &[prefix(0)]);
    }
    bench.run();
    for n in [1, 2, 3] {
        let mut from: Vec<_> = bench.paths[&n].values().map(|a| a.as_path.to_string()).collect();
        from.sort();
        let filter = RouteFilter { advertised: Some(address(n).to_string()), ..RouteFilter::default() };
        let shown: Vec<_> = bench.rib.routes(bench.now, &filter).iter().filter_map(|v| v.path_id).collect();
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().all(|id| bench.paths[&n].contains_key(&(prefix(0), *id))));
        let others = [1, 2, 3].into_iter().filter(|m| *m != n);
        assert_eq!(from, others.map(|m| format!("65000 {}", 65000 + m)).collect::<Vec<_>>());
    }
    assert_eq!(bench.withdrawals, 0);
    bench.down(2, DownCause::HoldTimer);
    bench.run();
    assert_eq!((bench.paths[&1].len(), bench.paths[&3].len(), bench.withdrawals), (1, 1, 2));
}

#[test]
fn several_paths_are_advertised_again_on_route_refresh() {
    let mut bench = Bench::new();
    bench.configure(3, config(3));
    bench.up(3, add_path(3, 65000));
    bench.run();
    assert_eq!(bench.end_of_ribs[&3], 2);
    for n in [1, 2] {
        bench.neighbor(n, 65000 + n, |_| {});
        bench.announce(n, &path(n, 65000 + n), &[prefix(0), prefix(1)]);
    }
    bench.run();
    let before = mem::take(bench.paths.get_mut(&3).unwrap());
    assert_eq!(before.len(), 4);
    bench.rib.handle(
        bench.now,
        Input::Refresh { peer: PeerId(3), family: Family::Ipv4Unicast, subtype: refresh::REQUEST },
    );
    bench.run();
    assert_eq!((&bench.paths[&3], bench.withdrawals), (&before, 0));
    assert_eq!(bench.marks, [refresh::BEGIN, refresh::END]);
}

#[test]
fn a_slow_neighbor_is_given_fewer_and_fresher_changes() {
    let mut bench = Bench::new();
    for n in [1, 2, 3] {
        bench.neighbor(n, 65000 + n, |c| c.transit = true);
    }
    bench.run();
    for round in 1..3000 {
        bench.announce(1, &Attrs { med: Some(round), ..path(1, 65001) }, &[prefix(0)]);
        bench.announce(
            1,
            &Attrs { as_path: AsPath::sequence(&[65001, round]), ..path(1, 65001) },
            &[prefix(1)],
        );
        bench.decide();
        while bench.pull(2) {}
        bench.rib.trim();
    }
    // The third read nothing meanwhile; one message brings it up to date.
    assert!(bench.pull(3) && !bench.pull(3));
    assert_eq!(bench.sent[&3], bench.sent[&2]);
    assert_eq!(bench.sent[&3][&prefix(1)].as_path.to_string(), "65000 65001 2999");
}

#[test]
fn enhanced_refresh_is_bracketed_and_sweeps_what_is_not_advertised_again() {
    let mut bench = Bench::new();
    bench.configure(1, config(1));
    bench.up(1, Negotiated { enhanced_refresh: true, ..negotiated(1, 65001) });
    bench.announce(1, &path(1, 65001), &[prefix(0), prefix(1)]);
    bench.run();
    let family = Family::Ipv4Unicast;
    let refresh = |subtype| Input::Refresh { peer: PeerId(1), family, subtype };
    bench.rib.handle(bench.now, refresh(1));
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    bench.rib.handle(bench.now, refresh(2));
    bench.run();
    assert_eq!(bench.fib.keys().copied().collect::<Vec<_>>(), [prefix(0)]);
}

#[test]
fn ipv6_next_hops_of_link_local_sessions_carry_their_interface() {
    let mut bench = Bench::new();
    bench.rib.handle(
        bench.now,
        Input::Reachable(Arc::new(Reachable::new(vec![(p("fe80::/64"), Reach::Connected { ifindex: 7 })]))),
    );
    bench.configure(1, config(1));
    bench.up(1, Negotiated { ifindex: 7, ..negotiated(1, 65001) });
    let next_hop = PathNextHop { addr: "fe80::1".parse().unwrap(), link_local: None };
    bench.announce(1, &Attrs { next_hop, ..path(1, 65001) }, &[p("2001:db8::/32")]);
    bench.run();
    let hops = &bench.fib[&p("2001:db8::/32")];
    assert_eq!((hops.gateways()[0].ifindex, hops.gateways()[0].addr), (7, next_hop.addr));
}

#[test]
fn a_route_costs_tens_of_octets_and_gives_them_back() {
    const ROUTES: u32 = 50_000;
    for (per_set, limit) in [(5, 110), (1, 280)] {
        let mut bench = Bench::new();
        bench.neighbor(1, 65001, |_| {});
        bench.decide();
        for set in 0..ROUTES / per_set {
            let prefixes: Vec<_> = (set * per_set..(set + 1) * per_set).map(prefix).collect();
            bench.announce(1, &Attrs { med: Some(set), ..path(1, 65001) }, &prefixes);
        }
        bench.rib.run_decision_process();
        let octets =
            |b: &Bench| b.rib.tables.iter().map(Table::octets).sum::<usize>() + b.rib.attrs.octets() as usize;
        let per_route = octets(&bench) / ROUTES as usize;
        assert!(per_route <= limit, "{per_route} octets per route, {per_set} in a set");
        bench.down(1, DownCause::HoldTimer);
        bench.rib.run_decision_process();
        assert_eq!(octets(&bench), 0);
    }
}

/// The neighbors' subnet on interface 2 and another one on 3, each with the number of its life, if
/// it can send.
fn links(lives: [Option<u32>; 2]) -> Input<'static> {
    let subnets = [("10.0.0.0/24", 2), ("10.3.0.0/24", 3)];
    let entries = subnets.into_iter().zip(lives).map(|((subnet, ifindex), life)| {
        let down = Reach::No(crate::net::Unresolved::LinkDown);
        (p(subnet), life.map_or(down, |_| Reach::Connected { ifindex }))
    });
    let alive = [2, 3].into_iter().zip(lives).filter_map(|(ifindex, life)| Some((ifindex, life?)));
    let alive: Vec<_> = alive.collect();
    Input::Reachable(Arc::new(Reachable::new(entries.collect()).with_lives(alive)))
}

/// A neighbor with a route over each of the two links.
fn with_two_links(config: PeerConfig, session: Negotiated) -> Bench {
    let mut bench = Bench::new();
    bench.rib.handle(bench.now, links([Some(1), Some(1)]));
    bench.configure(1, Arc::new(config));
    bench.up(1, session);
    bench.announce(1, &path(1, 65001), &[prefix(0)]);
    let other = Attrs { next_hop: std::net::IpAddr::from([10, 3, 0, 9]).into(), ..path(1, 65001) };
    bench.announce(1, &other, &[prefix(1)]);
    bench.run();
    bench
}

fn installed(bench: &mut Bench) -> (bool, bool) {
    bench.run();
    (bench.fib.contains_key(&prefix(0)), bench.fib.contains_key(&prefix(1)))
}

#[test]
fn frr_21742_stale_routes_do_not_survive_the_loss_of_their_link() {
    let lost = [None, Some(1)];
    let session = || Negotiated { graceful: graceful(true), ..negotiated(1, 65001) };
    let stale = || {
        let mut bench = with_two_links((*config(1)).clone(), session());
        bench.down(1, DownCause::Closed);
        bench
    };
    // The neighbor went first, then its link, which comes back without it.
    let mut bench = stale();
    assert_eq!(installed(&mut bench), (true, true), "kept");
    bench.rib.handle(bench.now, links(lost));
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (false, true), "only what leads over the living link");
    // A loss that was over before anybody sampled.
    let mut bench = stale();
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (false, true), "a blip");
    // The link went first, then the hold timer expired.
    let mut bench = with_two_links((*config(1)).clone(), session());
    bench.rib.handle(bench.now, links(lost));
    bench.down(1, DownCause::HoldTimer);
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (false, true), "hold timer");
    // The session ended because of the link, in either order.
    for (before, after) in [(Some(2), Some(2)), (None, Some(2)), (Some(1), Some(2))] {
        let mut bench = with_two_links((*config(1)).clone(), session());
        bench.rib.handle(bench.now, links([before, Some(1)]));
        bench.down(1, DownCause::LinkLost { ifindex: 2 });
        bench.rib.handle(bench.now, links([after, Some(1)]));
        assert_eq!(installed(&mut bench), (false, true), "{before:?}");
    }
    // A living session is no matter of this.
    let mut bench = with_two_links((*config(1)).clone(), session());
    bench.rib.handle(bench.now, links(lost));
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (true, true), "the session lives");
}

#[test]
fn long_lived_stale_routes_are_the_last_choice_once_their_link_was_lost() {
    let lasting = PeerConfig { long_lived_stale_time: 3600, ..(*config(1)).clone() };
    let families = Family::ALL.map(|f| (f, 3600, true)).to_vec();
    let long = Graceful { long_lived: families, ..graceful(true).unwrap() };
    let mut bench = with_two_links(lasting, Negotiated { graceful: Some(long), ..negotiated(1, 65001) });
    bench.down(1, DownCause::Closed);
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (true, true), "there is nothing else");
    bench.neighbor(2, 65002, |_| {});
    let longer = Attrs { as_path: AsPath::sequence(&[65002, 65009, 65008]), ..path(2, 65002) };
    bench.announce(2, &longer, &[prefix(0), prefix(1)]);
    bench.run();
    assert_eq!(bench.hops(prefix(0)), ["10.0.0.12"], "a longer path that lives is better");
    assert_eq!(bench.hops(prefix(1)), ["10.3.0.9"]);
}

#[test]
fn routes_of_a_neighbor_that_is_probed_wait_until_it_has_answered() {
    let held = |ifindex| Input::Held { peer: PeerId(1), ifindex };
    let mut bench = with_two_links((*config(1)).clone(), negotiated(1, 65001));
    bench.rib.handle(bench.now, links([None, Some(1)]));
    bench.rib.handle(bench.now, held(Some(2)));
    bench.rib.handle(bench.now, links([Some(2), Some(1)]));
    assert_eq!(installed(&mut bench), (false, true), "the link is back, the neighbor is not");
    assert!(bench.reasons(prefix(0))["10.0.0.11"].starts_with("held back"));
    bench.announce(1, &path(1, 65001), &[prefix(2)]);
    bench.run();
    assert!(bench.fib.contains_key(&prefix(2)), "routes advertised now are not stale");
    bench.rib.handle(bench.now, held(None));
    assert_eq!(installed(&mut bench), (true, true));
}

#[test]
fn a_session_that_moves_to_another_address_takes_no_route_away() {
    for graceful in [None, graceful(false)] {
        let session = || Negotiated { graceful: graceful.clone(), ..negotiated(1, 65001) };
        let mut bench = Bench::new();
        bench.configure(1, config(1));
        bench.up(1, session());
        bench.announce(1, &path(1, 65001), &[prefix(0), prefix(1)]);
        bench.run();
        bench.down(1, DownCause::Moved);
        bench.decide();
        bench.up(1, session());
        bench.announce(1, &path(1, 65001), &[prefix(0)]);
        bench.run();
        assert_eq!(bench.fib.len(), 2, "not even between the two");
        bench.now += Duration::from_secs(10);
        if graceful.is_some() {
            bench.end_of_rib(1, Family::Ipv4Unicast);
        }
        bench.rib.handle(bench.now, Input::Timeout);
        bench.run();
        assert_eq!(bench.fib.keys().copied().collect::<Vec<_>>(), [prefix(0)], "what it no longer has goes");
        bench.down(1, DownCause::Closed);
        assert!(bench.rib.poll_timeout().is_none() || graceful.is_some(), "that is no move");
    }
    // It moves again, or is closed by mistake, before it has advertised anything.
    for cause in [DownCause::Moved, DownCause::Closed] {
        let mut bench = Bench::new();
        bench.configure(1, config(1));
        for cause in [DownCause::Moved, cause] {
            bench.up(1, Negotiated { graceful: graceful(true), ..negotiated(1, 65001) });
            if cause == DownCause::Moved && bench.rib.is_empty() {
                bench.announce(1, &path(1, 65001), &[prefix(0)]);
                bench.run();
            }
            bench.down(1, cause);
            bench.run();
            assert_eq!(bench.fib.len(), 1, "{cause:?}");
        }
    }
}
