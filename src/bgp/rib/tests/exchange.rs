//! What of a neighbor's routes is not used and what is not advertised to it.

use super::*;
use crate::{
    bgp::{
        peer::Lacks,
        policy::{Action, Community, Policy, Statement},
        rib::view::Withheld,
    },
    net::{Source, Unresolved},
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn exchange(bench: &Bench, n: u32) -> Exchange {
    bench.rib.exchanges()[&address(n).to_string()].clone()
}

#[test]
fn a_neighbor_whose_routes_are_used_has_nothing() {
    let mut bench = Bench::new();
    bench.originate(&[prefix(0)]);
    bench.neighbor(1, 65001, |_| {});
    bench.announce(1, &path(1, 65001), &[prefix(1)]);
    // What this host advertised comes back.
    let back = Attrs { as_path: AsPath::sequence(&[65001, 65000]), ..path(1, 65001) };
    bench.announce(1, &back, &[prefix(0)]);
    bench.run();
    assert_eq!(exchange(&bench, 1), Exchange { returned: 1, ..Exchange::default() });
    Family::ALL.into_iter().for_each(|family| bench.end_of_rib(1, family));
    assert!(exchange(&bench, 1).ended);
    bench.down(1, DownCause::Closed);
    assert!(bench.rib.exchanges().is_empty());
}

#[test]
fn refused_routes_are_counted_by_reason_until_they_are_gone() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.announce(1, &path(1, 65001), &[p("127.0.0.0/8"), p("0.0.0.0/0"), p("224.0.0.0/8"), prefix(1)]);
    bench.run();
    let refused = exchange(&bench, 1).refused;
    assert_eq!(refused.values().sum::<u64>(), 3, "{refused:?}");
    assert_eq!(refused["guard: martian"], 2, "{refused:?}");
    bench.withdraw(1, &[p("127.0.0.0/8"), p("0.0.0.0/0"), p("224.0.0.0/8")]);
    bench.run();
    assert_eq!(exchange(&bench, 1), Exchange::default());
}

#[test]
fn next_hops_that_do_not_resolve_are_named_until_they_do() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let far = Attrs {
        next_hop: PathNextHop { addr: "10.7.7.7".parse().unwrap(), link_local: None },
        ..path(1, 65001)
    };
    bench.announce(1, &far, &[prefix(1), prefix(2)]);
    bench.run();
    let unresolved = [("10.7.7.7".parse().unwrap(), Unresolved::NoRoute)];
    assert_eq!(exchange(&bench, 1).unresolved, unresolved);
    bench.announce(1, &path(1, 65001), &[prefix(1), prefix(2)]);
    bench.run();
    assert_eq!(exchange(&bench, 1).unresolved, []);
}

#[test]
fn a_neighbor_that_shuts_down_is_seen_while_it_marks_its_routes() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let leaving = Attrs { communities: [Community::GRACEFUL_SHUTDOWN].into(), ..path(1, 65001) };
    bench.announce(1, &leaving, &[prefix(1)]);
    bench.run();
    assert!(exchange(&bench, 1).shutting_down);
    bench.announce(1, &path(1, 65001), &[prefix(1)]);
    bench.run();
    assert!(!exchange(&bench, 1).shutting_down);
}

#[test]
fn own_prefixes_are_withheld_for_a_reason() {
    let reject = || Statement { action: Some(Action::Reject), ..Statement::default() };
    let none = || Arc::new(Policy::new("none", vec![reject()]));
    type Change = fn(&mut PeerConfig, Arc<Policy>);
    let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
    #[rustfmt::skip]
    let cases: [(&str, &str, Change, Vec<Family>, Option<Withheld>); 6] = [
        ("advertised",     "172.17.0.0/16", |_, _| {},                                  vec![v4, v6], None),
        ("no next hop",    "fd00:5::/64",   |_, _| {},                                  vec![v4, v6], Some(Withheld::NoNextHop(v6))),
        ("not negotiated", "fd00:5::/64",   |_, _| {},                                  vec![v4],     Some(Withheld::NotNegotiated(v6))),
        ("not configured", "fd00:5::/64",   |c, _| c.families = vec![Family::Ipv4Unicast], vec![v4],  None),
        ("by a policy",    "172.17.0.0/16", |c, none| c.export = vec![none],            vec![v4, v6], Some(Withheld::Policy("none".into()))),
        ("policy missing", "172.17.0.0/16", |c, _| c.lacks_policy = Lacks { import: false, export: true }, vec![v4, v6], Some(Withheld::PolicyRequired)),
    ];
    for (name, own, change, families, why) in cases {
        let mut bench = Bench::new();
        bench.originate_as(&[(p(own), Source::Interface)]);
        let mut config = (*config(1)).clone();
        change(&mut config, none());
        bench.configure(1, Arc::new(config));
        bench.up(1, Negotiated { families, ..negotiated(1, 65001) });
        bench.run();
        let expected: BTreeMap<_, _> = why.into_iter().map(|why| (why, (1, p(own)))).collect();
        assert_eq!(exchange(&bench, 1).withheld, expected, "{name}");
        assert_eq!(bench.sent[&1].contains_key(&p(own)), name == "advertised", "{name}");
    }
}

#[test]
fn routes_of_a_router_with_this_hosts_id_are_seen_beside_those_that_come_back() {
    let mut bench = Bench::new();
    bench.originate(&[prefix(0)]);
    bench.neighbor(1, 65000, |_| {});
    let extra =
        crate::bgp::wire::attr::ExtraAttrs { originator_id: Some(global().router_id), ..Default::default() };
    let reflected = Attrs { extra: Some(Box::new(extra)), ..path(1, 65000) };
    bench.announce(1, &reflected, &[prefix(0)]);
    bench.run();
    assert!(!exchange(&bench, 1).originator_shared, "only this host's own");
    bench.announce(1, &reflected, &[prefix(1)]);
    bench.run();
    assert!(exchange(&bench, 1).originator_shared);
}
