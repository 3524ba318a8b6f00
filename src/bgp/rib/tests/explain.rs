//! What the table reports about one address.

use super::{
    super::view::{NotAdvertised, PathState, PolicyResult},
    *,
};
use crate::bgp::{
    peer::Lacks,
    policy::{Action, Match, Policy, PrefixRange, Statement},
};

fn policy(name: &str, prefixes: &[Prefix], action: Action) -> Arc<Policy> {
    let prefixes = prefixes.iter().map(|p| PrefixRange::exact(*p)).collect();
    let matches = Match { prefixes, ..Match::default() };
    let nothing = Statement { action: None, ..Statement::default() };
    let decides = Statement { matches, action: Some(action), ..Statement::default() };
    Arc::new(Policy::new(name, vec![nothing, decides]))
}

#[test]
fn all_paths_that_cover_an_address_are_listed_with_the_statements_that_decided() {
    let mut bench = Bench::new();
    let (specific, wide, other) = (prefix(1), "20.0.0.0/16".parse().unwrap(), "20.1.0.0/16".parse().unwrap());
    bench.neighbor(1, 65001, |c| c.import = vec![policy("lab", &[specific], Action::Reject)]);
    bench.neighbor(2, 65002, |_| {});
    bench.announce(1, &path(1, 65001), &[specific, wide, other]);
    bench.announce(2, &path(2, 65002), &[specific]);
    bench.run();
    let now = bench.now;
    let found = bench.rib.explain(now, "20.0.1.9".parse().unwrap(), &[]);
    let rows: Vec<_> = found
        .paths
        .iter()
        .map(|p| (p.route.prefix, p.route.neighbor.clone().unwrap(), p.state, p.policies.clone()))
        .collect();
    let lab = |statement, accepted| vec![PolicyResult { policy: "lab".into(), statement, accepted }];
    assert_eq!(
        rows,
        [
            (specific, "10.0.0.12".into(), PathState::Selected, vec![]),
            (specific, "10.0.0.11".into(), PathState::Policy, lab(Some(2), false)),
            (wide, "10.0.0.11".into(), PathState::Selected, lab(None, true)),
        ]
    );
    assert_eq!(found.paths[1].route.reason, "rejected by import policy lab, statement 2");
    assert!(bench.rib.explain(now, "30.0.0.1".parse().unwrap(), &[]).paths.is_empty());
}

#[test]
fn each_neighbor_without_an_own_prefix_has_the_reason() {
    let mut bench = Bench::new();
    let own = prefix(7);
    bench.neighbor(1, 65001, |_| {});
    bench.neighbor(2, 65002, |c| c.export = vec![policy("out", &[own], Action::Reject)]);
    bench.neighbor(3, 65003, |c| c.lacks_policy = Lacks { import: false, export: true });
    bench.configure(4, config(4));
    bench.up(4, Negotiated { families: vec![Family::Ipv6Unicast], ..negotiated(4, 65004) });
    bench.neighbor(5, 65005, |_| {});
    bench.neighbor(6, 65006, |c| c.max_prefixes_out = Some(1));
    bench.originate(&[prefix(6), own]);
    bench.run();
    bench.down(5, DownCause::Closed);
    bench.run();
    let now = bench.now;
    let found = bench.rib.explain(now, "20.0.7.1".parse().unwrap(), &[own]);
    let why: Vec<_> = found.advertised.into_iter().map(|a| (a.neighbor, a.why_not)).collect();
    let by_policy = NotAdvertised::Policy { policy: "out".into(), statement: 2 };
    let expected = [
        ("10.0.0.11", None),
        ("10.0.0.12", Some(by_policy)),
        ("10.0.0.13", Some(NotAdvertised::NoPolicy)),
        ("10.0.0.14", Some(NotAdvertised::NoFamily)),
        ("10.0.0.15", Some(NotAdvertised::NoSession)),
        ("10.0.0.16", Some(NotAdvertised::Withheld)),
    ];
    assert_eq!(why, expected.map(|(name, why)| (name.to_owned(), why)));
    assert!(found.paths.iter().any(|p| p.route.best && p.route.neighbor.is_none()), "the own path");
}
