//! What `show neighbor` and `show policy` have from the table.

use super::*;
use crate::bgp::{
    peer::{Graceful, Hops, Lacks, Secret},
    policy::{Action, Match, Policy, Set, Statement},
    rib::view::{EndOfRib, NeighborDetails, PolicyCounts, Security},
};

fn details(bench: &Bench, n: u32) -> NeighborDetails {
    bench.rib.neighbor_details(bench.now, &address(n).to_string()).expect("a neighbor")
}

/// Rejects the prefixes, and lowers the preference of all others.
fn policy(name: &str, rejected: &[Prefix]) -> Arc<Policy> {
    let prefixes = rejected.iter().map(|p| p.to_string().parse().unwrap()).collect();
    let reject = Statement {
        matches: Match { prefixes, ..Match::default() },
        action: Some(Action::Reject),
        ..Statement::default()
    };
    let lower = Statement { set: Set { local_pref: Some(50), ..Set::default() }, ..Statement::default() };
    Arc::new(Policy::new(name, vec![reject, lower]))
}

fn counts(statements: &[u64], otherwise: u64) -> PolicyCounts {
    PolicyCounts { statements: statements.into(), otherwise }
}

#[test]
fn matches_of_import_are_counted_by_neighbor_and_statement() {
    let mut bench = Bench::new();
    let import = vec![policy("first", &[prefix(1)]), policy("second", &[prefix(2)])];
    for n in [1, 2] {
        bench.neighbor(n, 65001, |c| c.import = import.clone());
    }
    bench.announce(1, &path(1, 65001), &[prefix(1), prefix(2), prefix(3)]);
    bench.announce(2, &path(2, 65001), &[prefix(3)]);
    bench.run();
    let of = |bench: &Bench, n| details(bench, n).import.into_iter().map(|h| h.counts).collect::<Vec<_>>();
    assert_eq!(of(&bench, 1), [counts(&[1, 2], 2), counts(&[1, 1], 1)]);
    assert_eq!(of(&bench, 2), [counts(&[0, 1], 1), counts(&[0, 1], 1)]);

    let uses = bench.rib.policy_uses();
    assert_eq!(uses["first"].import, [address(1), address(2)].map(|a| a.to_string()));
    assert_eq!(uses["first"].matched_on_import, counts(&[1, 3], 3));
    assert_eq!(uses["first"].matched_on_export, PolicyCounts::default());

    // Looking at a route counts nothing.
    bench.reasons(prefix(1));
    bench.rib.explain(bench.now, prefix(1).addr(), &[]);
    assert_eq!(of(&bench, 1)[0], counts(&[1, 2], 2));
    // Other settings keep the counters, other policies do not.
    bench.configure(
        2,
        Arc::new(PeerConfig { import: import.clone(), max_prefixes: 9, ..(*config(2)).clone() }),
    );
    assert_eq!(of(&bench, 2)[0], counts(&[0, 1], 1));
    bench.configure(2, Arc::new(PeerConfig { import: vec![policy("first", &[])], ..(*config(2)).clone() }));
    bench.run();
    // Without prefixes the statement matches every route.
    assert_eq!(of(&bench, 2), [counts(&[1, 0], 0)]);
}

#[test]
fn matches_of_export_are_shared_and_last_longer_than_the_sessions() {
    let mut bench = Bench::new();
    let export = vec![policy("out", &[prefix(1)])];
    bench.originate(&[prefix(1), prefix(2), prefix(3)]);
    bench.run();
    for n in [1, 2] {
        bench.neighbor(n, 65001, |c| c.export = export.clone());
        bench.run();
    }
    assert_eq!(bench.sent[&1].len(), 2);
    let shared = details(&bench, 2);
    assert_eq!((shared.export[0].counts.clone(), shared.export_shared_by), (counts(&[1, 2], 2), 2));
    let uses = bench.rib.policy_uses();
    assert_eq!(uses["out"].matched_on_export, counts(&[1, 2], 2), "not once per neighbor");
    assert_eq!(uses["out"].export.len(), 2);

    for n in [1, 2] {
        bench.down(n, DownCause::Closed);
    }
    bench.up(1, negotiated(1, 65001));
    bench.run();
    assert_eq!(
        details(&bench, 1).export[0].counts,
        counts(&[2, 4], 4),
        "evaluated again for the next session"
    );
    for n in [1, 2] {
        bench.configure(n, config(n));
    }
    assert!(bench.rib.policy_uses().is_empty(), "nobody has it any more");
}

#[test]
fn end_of_rib_and_stale_routes_are_known_by_family() {
    let mut bench = Bench::new();
    let f = Family::Ipv4Unicast;
    let graceful = Graceful { restart_time: 120, families: vec![(f, true)], ..Graceful::default() };
    let session = || Negotiated { graceful: Some(graceful.clone()), ..negotiated(1, 65001) };
    bench.configure(1, config(1));
    assert_eq!(details(&bench, 1).end_of_rib, BTreeMap::new(), "no session");
    bench.up(1, session());
    assert!(!details(&bench, 1).end_of_rib[&f].sent, "waits to be sent");
    bench.announce(1, &path(1, 65001), &[prefix(1), prefix(2), prefix(3)]);
    bench.run();
    assert_eq!(details(&bench, 1).end_of_rib[&f], EndOfRib { sent: true, received: false });
    bench.end_of_rib(1, f);
    assert_eq!(details(&bench, 1).end_of_rib[&f], EndOfRib { sent: true, received: true });
    assert_eq!(details(&bench, 1).stale, BTreeMap::new());

    bench.down(1, DownCause::Closed);
    let stale = details(&bench, 1).stale[&f];
    assert_eq!((stale.routes, stale.seconds, stale.long_lived), (3, 120, false));
    bench.now += Duration::from_secs(20);
    bench.up(1, session());
    bench.announce(1, &path(1, 65001), &[prefix(1)]);
    bench.withdraw(1, &[prefix(2)]);
    bench.run();
    assert_eq!(details(&bench, 1).stale[&f].routes, 1, "neither learned again nor withdrawn");
    bench.end_of_rib(1, f);
    bench.run();
    assert_eq!(details(&bench, 1).stale, BTreeMap::new());
    assert!(bench.hops(prefix(3)).is_empty());
}

#[test]
fn security_and_limits_are_those_in_force() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |c| {
        c.password = Some(Secret("x".into()));
        c.hops = Hops::Multihop(3);
        c.lacks_policy = Lacks { import: false, export: true };
        c.max_prefixes = 2;
        c.max_prefixes_action = MaxPrefixesAction::Restart;
    });
    bench.neighbor(2, 65000, |c| {
        c.lacks_policy = Lacks { import: true, export: true };
        c.max_prefixes_action = MaxPrefixesAction::Warn;
        c.max_prefixes_out = Some(7);
    });
    bench.neighbor(3, 65002, |_| {});
    let one = details(&bench, 1);
    let missing = vec!["export".to_owned()];
    assert_eq!(one.security, Security { tcp_md5: true, max_hops: Some(3), missing_policies: missing });
    assert_eq!((one.limits.max_prefixes, one.limits.restart_after), (2, Some(300)));
    assert_eq!(one.limits.max_prefixes_out, Some(10_000), "own routes only");
    let two = details(&bench, 2);
    assert_eq!(two.security, Security::default(), "RFC 8212 is about external sessions");
    assert_eq!((two.limits.restart_after, two.limits.max_prefixes_out), (None, Some(7)));
    assert_eq!(details(&bench, 3).security.max_hops, Some(1));

    assert!(!one.limits.is_exceeded);
    bench.announce(1, &path(1, 65001), &[prefix(1), prefix(2), prefix(3)]);
    assert!(details(&bench, 1).limits.is_exceeded);
    assert_eq!(bench.rib.neighbor_details(bench.now, "192.0.2.1"), None);
}
