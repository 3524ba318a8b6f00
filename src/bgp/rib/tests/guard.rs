//! The route guard in the table: what a change of it costs, and how much one neighbor may cover.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::net::guard::{AddressRole, GuardInputs, HostRoute, Subnet};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn protect(list: &[(&str, AddressRole)]) -> Vec<(IpAddr, AddressRole)> {
    list.iter().map(|(addr, role)| (addr.parse().unwrap(), *role)).collect()
}

fn route(prefix: &str) -> HostRoute {
    HostRoute { prefix: p(prefix), metric: 0, leads_on: true }
}

fn subnet(prefix: &str) -> Subnet {
    Subnet { prefix: p(prefix), interface: "eth0".into() }
}

impl Bench {
    fn guard(&mut self, inputs: GuardInputs) {
        self.rib.handle(self.now, Input::Guard(Arc::new(Guard::new(inputs))));
        self.run();
    }

    /// How many paths are imported again for a change.
    fn reimports(&mut self, inputs: GuardInputs) -> u64 {
        let before = self.rib.reimports;
        self.guard(inputs);
        self.rib.reimports - before
    }

    fn accepted(&mut self, n: u32) -> usize {
        let name = address(n).to_string();
        let filter = RouteFilter { received: Some(name), ..RouteFilter::default() };
        self.rib.routes(self.now, &filter).iter().filter(|r| !r.reason.starts_with("guard")).count()
    }
}

#[test]
fn a_change_of_the_guard_costs_what_it_concerns_whatever_the_size_of_the_table() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let many: Vec<Prefix> = (0..20_000).map(prefix).collect();
    for chunk in many.chunks(500) {
        bench.announce(1, &path(1, 65001), chunk);
    }
    // Four cover an address in the second of them; seven lie in the range that becomes our own.
    let covers = ["20.0.0.0/8", "20.0.0.0/16", "20.0.1.0/30"].map(p);
    let inside =
        ["10.244.1.0/24", "10.244.1.0/25", "10.244.1.128/25", "10.244.1.64/26", "10.244.1.7/32"].map(p);
    bench.announce(1, &path(1, 65001), &[&covers[..], &inside[..]].concat());
    bench.run();
    let installed = bench.fib.len();
    assert_eq!(installed, 20_008);

    let resolver = || protect(&[("20.0.1.1", AddressRole::Resolver)]);
    let mut inputs = GuardInputs { protected: resolver(), metric: 179, ..GuardInputs::default() };
    assert_eq!(bench.reimports(inputs.clone()), 0, "nothing else leads there");
    assert_eq!(bench.fib.len(), installed);

    // A default route appears: now it leads there. A more specific one: only longer ones are
    // refused.
    inputs.routes.push(route("0.0.0.0/0"));
    assert_eq!(bench.reimports(inputs.clone()), 4);
    assert_eq!(bench.fib.len(), installed - 4);
    let reason = bench.reasons(p("20.0.1.0/24"))["10.0.0.11"].clone();
    assert_eq!(reason, "guard: 20.0.1.1 (resolver) is reached by the default route");
    inputs.routes.push(route("20.0.0.0/12"));
    assert_eq!(bench.reimports(inputs.clone()), 4);
    assert_eq!(bench.fib.len(), installed - 3);
    let reason = bench.reasons(p("20.0.1.0/30"))["10.0.0.11"].clone();
    assert_eq!(reason, "guard: 20.0.1.1 (resolver) is reached by 20.0.0.0/12");
    // What leads elsewhere concerns nothing.
    inputs.routes.push(route("192.0.2.0/24"));
    assert_eq!(bench.reimports(inputs.clone()), 0);

    // The resolver changes, and goes.
    inputs.protected = protect(&[("20.0.2.1", AddressRole::Resolver)]);
    assert_eq!(bench.reimports(inputs.clone()), 5);
    assert_eq!(bench.fib.len(), installed - 2);
    inputs.protected.clear();
    assert_eq!(bench.reimports(inputs.clone()), 3);
    assert_eq!(bench.fib.len(), installed);

    // Own prefixes and connected subnets.
    inputs.own = vec![p("10.244.1.0/24"), p("20.0.9.0/24")];
    assert_eq!(bench.reimports(inputs.clone()), 6);
    inputs.subnets = vec![subnet("20.0.0.0/16")];
    assert_eq!(bench.reimports(inputs.clone()), 1);
    assert_eq!(bench.fib.len(), installed - 7);
    assert_eq!(bench.reimports(GuardInputs { metric: 179, ..GuardInputs::default() }), 7);
    assert_eq!(bench.fib.len(), installed);
}

#[test]
fn a_neighbor_of_a_listen_range_is_protected_while_it_is_one() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.guard(GuardInputs { subnets: vec![subnet("10.0.0.0/24")], ..GuardInputs::default() });
    bench.announce(1, &path(1, 65001), &[p("10.0.0.128/25"), p("10.0.0.12/31")]);
    bench.run();
    assert_eq!(bench.accepted(1), 2);
    bench.neighbor(2, 65002, |c| c.source = PeerSource::Range);
    bench.run();
    assert_eq!(bench.accepted(1), 1);
    let reason = bench.reasons(p("10.0.0.12/31"))["10.0.0.11"].clone();
    assert_eq!(reason, "guard: 10.0.0.12 (neighbor) is reached by 10.0.0.0/24, connected on eth0");
    bench.rib.handle(bench.now, Input::Gone { peer: PeerId(2) });
    bench.run();
    assert_eq!(bench.accepted(1), 2);
}

fn eights(from: u8, to: u8) -> Vec<Prefix> {
    let usable = (from..=to).filter(|n| !matches!(n, 0 | 10 | 127 | 169 | 224..));
    usable.map(|n| Prefix::v4([n, 0, 0, 0].into(), 8)).collect()
}

#[test]
fn prefixes_as_good_as_a_default_route_are_refused_beyond_a_quarter_of_the_space() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.neighbor(2, 65002, |_| {});
    let all = eights(1, 223);
    assert_eq!(all.len(), 220);
    bench.announce(1, &path(1, 65001), &all);
    bench.announce(1, &path(1, 65001), &[prefix(0), p("20.0.0.0/11")]);
    bench.announce(2, &path(2, 65002), &eights(100, 110));
    bench.run();
    assert_eq!((bench.accepted(1), bench.accepted(2)), (64 + 2, 11), "each neighbor has its own share");
    let reason = bench.reasons(p("223.0.0.0/8"))["10.0.0.11"].clone();
    assert_eq!(
        reason,
        "guard: beyond a quarter of the address space in prefixes shorter than /11 without accept-default"
    );
    let counted = |bench: &Bench| bench.rib.counts().neighbors["10.0.0.11"].accepted[&Family::Ipv4Unicast];
    assert_eq!(counted(&bench), 66);

    // The same set in another order, twice over, with other attributes.
    let backwards: Vec<Prefix> = all.iter().rev().copied().collect();
    let before: Vec<Prefix> = bench.fib.keys().copied().collect();
    bench.withdraw(1, &all);
    for med in [1, 2] {
        bench.announce(1, &Attrs { med: Some(med), ..path(1, 65001) }, &backwards);
        bench.run();
        assert_eq!(bench.fib.keys().copied().collect::<Vec<_>>(), before);
    }
    // What is withdrawn makes room.
    bench.withdraw(1, &eights(1, 20));
    bench.run();
    assert_eq!((bench.accepted(1), counted(&bench)), (66, 66));

    // The operator may want them, and may change his mind.
    for (accept_default, accepted) in [(true, 201 + 2), (false, 66)] {
        let wanted = PeerConfig { accept_default, ..(*config(1)).clone() };
        bench.configure(1, Arc::new(wanted));
        bench.run();
        assert_eq!((bench.accepted(1), counted(&bench)), (accepted, accepted as u64));
    }
    // A session that ends leaves nothing behind.
    bench.down(1, DownCause::Administrative);
    bench.run();
    bench.up(1, negotiated(1, 65001));
    bench.announce(1, &path(1, 65001), &eights(150, 223));
    bench.run();
    assert_eq!((bench.accepted(1), counted(&bench)), (64, 64));
}

#[test]
fn what_is_refused_for_another_reason_takes_no_room() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.announce(1, &path(1, 65001), &eights(1, 100));
    bench.run();
    assert_eq!(bench.accepted(1), 64);
    // Of these the guard refuses 20 from now on, and takes them back.
    let own: Vec<Prefix> = eights(1, 21);
    assert_eq!(own.len(), 20);
    bench.guard(GuardInputs { own, ..GuardInputs::default() });
    assert_eq!(bench.accepted(1), 64);
    assert!(bench.reasons(p("1.0.0.0/8"))["10.0.0.11"].starts_with("guard: overlaps"));
    bench.guard(GuardInputs::default());
    assert_eq!((bench.accepted(1), bench.fib.len()), (64, 64));
    assert!(bench.fib.contains_key(&p("1.0.0.0/8")));
    // A looped path replaces one that counts.
    let looped = Attrs { as_path: AsPath::sequence(&[65001, 65000]), ..path(1, 65001) };
    bench.announce(1, &looped, &eights(1, 11));
    bench.run();
    assert_eq!(bench.fib.len(), 64);
    assert!(!bench.fib.contains_key(&p("1.0.0.0/8")));
}

#[test]
fn ipv6_prefixes_have_a_share_of_their_own() {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    let all: Vec<Prefix> =
        (0..3000).map(|n| Prefix::v6([0x2000 + n, 0, 0, 0, 0, 0, 0, 0].into(), 16)).collect();
    for chunk in all.chunks(500) {
        bench.announce(1, &path(1, 65001), chunk);
    }
    bench.run();
    assert_eq!(bench.accepted(1), 2048);
    let reason = bench.reasons(all[2999])["10.0.0.11"].clone();
    assert_eq!(
        reason,
        "guard: beyond a quarter of 2000::/3 in prefixes shorter than /20 without accept-default"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Announce(u32, Prefix),
    Withdraw(u32, Prefix),
    Guard(GuardInputs),
    Trust(u32, bool),
    Down(u32),
}

fn some_prefix() -> impl Strategy<Value = Prefix> {
    let wide = (0..=255u8, 8..=10u8).prop_map(|(n, len)| Prefix::v4([n, n << 6, 0, 0].into(), len));
    let near = (0..4u8, 0..=255u8, 14..=32u8).prop_map(|(b, c, len)| Prefix::v4([30, b, 0, c].into(), len));
    prop_oneof![3 => wide, 2 => near]
}

fn some_inputs() -> impl Strategy<Value = GuardInputs> {
    let near = || (0..4u8, 0..=255u8).prop_map(|(b, c)| IpAddr::from([30, b, 0, c]));
    let prefixes = || prop::collection::vec(some_prefix(), 0..4);
    let roles = prop::sample::select(&AddressRole::ALL[..]);
    (prefixes(), prefixes(), prefixes(), any::<bool>(), prop::collection::vec((near(), roles), 0..6))
        .prop_map(|(own, subnets, routes, inside_connected, protected)| GuardInputs {
            own,
            subnets: subnets.into_iter().map(|p| Subnet { prefix: p, interface: "eth0".into() }).collect(),
            inside_connected,
            nodes: Arc::default(),
            routes: routes
                .into_iter()
                .map(|prefix| HostRoute { prefix, metric: 0, leads_on: true })
                .collect(),
            protected,
            metric: 179,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1..=2u32, some_prefix()).prop_map(|(n, p)| Step::Announce(n, p)),
        6 => (1..=2u32, some_prefix()).prop_map(|(n, p)| Step::Withdraw(n, p)),
        2 => some_inputs().prop_map(Step::Guard),
        1 => (1..=2u32, any::<bool>()).prop_map(|(n, trust)| Step::Trust(n, trust)),
        1 => (1..=2u32).prop_map(Step::Down),
    ]
}

/// What is shown of each path: the reason and what is counted.
fn outcome(bench: &mut Bench) -> (Vec<(Prefix, String, String)>, Vec<NeighborCounts>) {
    bench.run();
    let all = bench.rib.routes(bench.now, &RouteFilter::default());
    let mut rows: Vec<_> =
        all.into_iter().map(|r| (r.prefix, r.neighbor.unwrap_or_default(), r.reason)).collect();
    rows.sort();
    let mut neighbors: Vec<_> = bench.rib.counts().neighbors.into_values().collect();
    // What memory is counted for depends on the way there: a next hop that was sampled up once is
    // kept with its attributes.
    neighbors.iter_mut().for_each(|n| n.octets = 0);
    (rows, neighbors)
}

fn trusted(n: u32, accept_default: bool) -> Arc<PeerConfig> {
    Arc::new(PeerConfig { accept_default, ..(*config(n)).clone() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Applied again to what changes concern, the guard ends where one does that was there from the
    /// beginning.
    #[test]
    fn a_guard_applied_again_judges_as_one_that_was_there_before(steps in prop::collection::vec(step(), 1..250)) {
        let mut bench = Bench::new();
        let mut paths: BTreeMap<(u32, Prefix), ()> = BTreeMap::new();
        let mut trust = [false; 3];
        let mut last = GuardInputs::default();
        for n in [1, 2] {
            bench.neighbor(n, 65000 + n, |_| {});
        }
        for step in steps {
            match step {
                Step::Announce(n, prefix) => {
                    paths.insert((n, prefix), ());
                    bench.announce(n, &path(n, 65000 + n), &[prefix]);
                }
                Step::Withdraw(n, prefix) => {
                    paths.remove(&(n, prefix));
                    bench.withdraw(n, &[prefix]);
                }
                Step::Guard(inputs) => {
                    last = inputs.clone();
                    bench.guard(inputs);
                }
                Step::Trust(n, accept_default) => {
                    trust[n as usize] = accept_default;
                    bench.configure(n, trusted(n, accept_default));
                }
                Step::Down(n) => {
                    paths.retain(|(from, _), ()| *from != n);
                    bench.down(n, DownCause::Administrative);
                    bench.up(n, negotiated(n, 65000 + n));
                }
            }
        }
        let mut fresh = Bench::new();
        fresh.guard(last);
        for n in [1, 2] {
            fresh.configure(n, trusted(n, trust[n as usize]));
            fresh.up(n, negotiated(n, 65000 + n));
        }
        for (n, prefix) in paths.keys().rev() {
            fresh.announce(*n, &path(*n, 65000 + n), &[*prefix]);
        }
        prop_assert_eq!(outcome(&mut bench), outcome(&mut fresh));
    }
}
