//! Next hops that resolve over other routes of the table: what is reached depends on the routes,
//! never on the order in which they came.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Attrs, Bench, Input, path};
use crate::{
    bgp::wire::attr::AsPath,
    net::{Prefix, Reach, Reachable},
};

fn p(s: &str) -> Prefix {
    s.parse().unwrap()
}

/// A path of neighbor 1 or 2.
fn via(neighbor: u32, next_hop: &str) -> Attrs {
    Attrs { next_hop: next_hop.parse::<IpAddr>().unwrap().into(), ..path(neighbor, 65000 + neighbor) }
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.neighbor(1, 65001, |_| {});
    bench.neighbor(2, 65002, |_| {});
    bench
}

/// The same with `extra` more AS numbers in the path.
fn longer(neighbor: u32, next_hop: &str, extra: usize) -> Attrs {
    let numbers: Vec<_> = (0..=extra).map(|n| 65000 + neighbor + 100 * n as u32).collect();
    Attrs { as_path: AsPath::sequence(&numbers), ..via(neighbor, next_hop) }
}

/// What the kernel would hold.
fn kernel(bench: &Bench) -> BTreeMap<Prefix, Vec<String>> {
    bench.fib.keys().map(|prefix| (*prefix, bench.hops(*prefix))).collect()
}

type Route<'a> = (u32, &'a str, &'a str);

/// All orders of a few routes.
fn orders<'a>(routes: &[Route<'a>]) -> Vec<Vec<Route<'a>>> {
    let Some((first, rest)) = routes.split_first() else { return vec![Vec::new()] };
    let insert = |order: Vec<Route<'a>>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, *first);
            order
        })
    };
    orders(rest).into_iter().flat_map(insert).collect()
}

#[test]
fn routes_that_resolve_over_each_other_end_the_same_in_every_order() {
    let (a, b, c) =
        ((1, "30.4.0.0/16", "30.5.0.1"), (1, "30.5.0.0/16", "10.0.0.11"), (1, "30.5.0.0/24", "30.4.0.1"));
    let expected: BTreeMap<_, _> =
        [a, b, c].map(|(_, prefix, _)| (p(prefix), vec!["10.0.0.11".to_owned()])).into();
    for order in orders(&[a, b, c]) {
        let mut bench = bench();
        for (neighbor, prefix, next_hop) in &order {
            bench.announce(*neighbor, &via(*neighbor, next_hop), &[p(prefix)]);
            bench.run();
        }
        assert_eq!(kernel(&bench), expected, "{order:?}");
        // Without the one that is reached by itself the others hold up nothing.
        bench.withdraw(1, &[p(b.1)]);
        bench.run();
        assert_eq!(kernel(&bench), BTreeMap::new(), "{order:?}");
        bench.announce(1, &via(1, b.2), &[p(b.1)]);
        bench.run();
        assert_eq!(kernel(&bench), expected, "{order:?}");
    }
}

#[test]
fn a_better_path_that_takes_away_its_own_next_hop_ends_the_same_in_every_order() {
    // 30.5.0.0/24 would rather go over 30.4.0.0/16, which goes over it.
    let routes =
        [(1, "30.4.0.0/16", "30.5.0.1"), (1, "30.5.0.0/24", "30.4.0.1"), (2, "30.5.0.0/24", "10.0.0.12")];
    let mut ends = Vec::new();
    for order in orders(&routes) {
        let mut bench = bench();
        for (neighbor, prefix, next_hop) in &order {
            let extra = if *neighbor == 2 { 3 } else { 0 };
            bench.announce(*neighbor, &longer(*neighbor, next_hop, extra), &[p(prefix)]);
            bench.run();
        }
        // Nothing is left to do: it does not swing on.
        let end = kernel(&bench);
        bench.run();
        assert_eq!(kernel(&bench), end);
        // An unrelated route changes nothing.
        bench.announce(2, &via(2, "10.0.0.12"), &[p("99.0.0.0/24")]);
        bench.run();
        bench.withdraw(2, &[p("99.0.0.0/24")]);
        bench.run();
        assert_eq!(kernel(&bench), end);
        ends.push(end);
    }
    ends.dedup();
    assert_eq!(ends.len(), 1, "{ends:#?}");
}

#[test]
fn a_maze_without_a_way_out_costs_little() {
    let mut bench = bench();
    // Each route's next hop lies in the next one, and all of them cover one another.
    for len in 9..=32u8 {
        for second in 0..8u32 {
            let base = 0x1e00_0000 | (second << 16);
            let prefix = Prefix::v4(base.into(), len);
            let next_hop =
                std::net::Ipv4Addr::from_bits(0x1e00_0000 | ((second + 1) % 8) << 16 | u32::from(len));
            bench.announce(1, &via(1, &next_hop.to_string()), &[prefix]);
        }
    }
    bench.announce(2, &via(2, "10.0.0.12"), &[p("30.0.0.0/8")]);
    bench.run();
    assert_eq!(bench.hops(p("30.0.0.0/8")), ["10.0.0.12"]);
    bench.withdraw(2, &[p("30.0.0.0/8")]);
    bench.run();
    assert!(bench.fib.is_empty());
}

/// Random numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

const PREFIXES: [&str; 8] = [
    "30.0.0.0/12",
    "30.4.0.0/16",
    "30.4.1.0/24",
    "30.5.0.0/16",
    "30.5.0.0/24",
    "30.6.0.0/16",
    "31.0.0.0/16",
    "31.0.0.0/24",
];
const NEXT_HOPS: [&str; 9] = [
    "30.4.0.1",
    "30.4.1.1",
    "30.5.0.1",
    "30.5.1.1",
    "30.6.0.1",
    "31.0.0.1",
    "31.0.1.1",
    "10.0.0.11",
    "10.0.0.12",
];

#[test]
fn whatever_resolves_over_whatever_the_order_of_arrival_decides_nothing() {
    let mut dice = Dice(36);
    for system in 0..300 {
        let mut routes: Vec<(u32, &str, &str, usize)> = Vec::new();
        for prefix in PREFIXES {
            for neighbor in [1, 2] {
                if dice.below(3) > 0 {
                    routes.push((neighbor, prefix, NEXT_HOPS[dice.below(NEXT_HOPS.len())], dice.below(3)));
                }
            }
        }
        let mut first = None;
        for round in 0..6 {
            let mut order = routes.clone();
            for at in (1..order.len()).rev() {
                order.swap(at, dice.below(at + 1));
            }
            let mut bench = bench();
            let host = vec![
                (p("10.0.0.0/24"), Reach::Connected { ifindex: 2 }),
                (p("10.9.0.0/16"), Reach::Routed { metric: 20 }),
            ];
            bench.rib.handle(bench.now, Input::Reachable(Arc::new(Reachable::new(host))));
            for (neighbor, prefix, next_hop, extra) in &order {
                bench.announce(*neighbor, &longer(*neighbor, next_hop, *extra), &[p(prefix)]);
                // One by one, or several in one turn.
                if round % 2 == 0 || dice.below(3) == 0 {
                    bench.run();
                }
            }
            bench.run();
            let now = kernel(&bench);
            let expected = first.get_or_insert_with(|| now.clone());
            assert_eq!(now, *expected, "system {system}, order {order:?}");
        }
    }
}
