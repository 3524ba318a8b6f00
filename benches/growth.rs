//! How costs grow that must not: `cargo bench --bench growth`.
//!
//! Each is measured at three sizes, and a line is fitted to the logarithms: its slope is the
//! exponent by which the cost grows, about 0 where it stays and 1 where it grows in proportion.
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use routelet::{
    bgp::{
        policy::{Hits, Match, Policy, PrefixRange, RouteSource, Statement, Subject, run},
        wire::attr::Attrs,
    },
    fib::{
        diff::{Fib, Settings},
        host::{Host, Link, LinkAddress, Scope},
        resolve::Resolver,
    },
    net::{Gateway, NextHops, Prefix, Reach, Reachable},
};

/// What is measured, by its size: the time of one event, and how often it was repeated.
type Measure = fn(u32) -> (Duration, u32);

const COSTS: [(&str, Measure, [u32; 3]); 5] = [
    ("a route through a list of prefixes", prefix_list, [100, 1_000, 10_000]),
    ("a route beside originated prefixes", own_prefixes, [100, 1_000, 10_000]),
    ("a link that no route uses, by routes", link_event, [1_000, 10_000, 100_000]),
    ("a next hop among routes of the host", next_hop, [100, 1_000, 10_000]),
    ("a look at all links, by their number", resolver, [100, 1_000, 10_000]),
];

fn main() {
    for (name, measure, sizes) in COSTS {
        let points = sizes.map(|size| {
            let (took, times) = measure(size);
            (f64::from(size), took.as_secs_f64() / f64::from(times))
        });
        let shown = points.map(|(size, seconds)| format!("{size}: {:.2} µs", seconds * 1e6));
        println!("{name:38} exponent {:5.2}   {}", exponent(&points), shown.join("   "));
    }
}

/// The slope of the line through the logarithms, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let rise: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    rise / logs.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

fn timed(times: u32, mut event: impl FnMut(u32)) -> (Duration, u32) {
    event(0);
    let start = Instant::now();
    (0..times).for_each(&mut event);
    (start.elapsed(), times)
}

/// The `n`th /24 from 20.0.0.0 on.
fn route(n: u32) -> Prefix {
    Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24)
}

/// The `n`th /24 from 10.0.0.0 on.
fn subnet(n: u32) -> Prefix {
    Prefix::v4(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)), 24)
}

fn prefix_list(entries: u32) -> (Duration, u32) {
    let prefixes = (0..entries).map(|n| PrefixRange::exact(route(2 * n))).collect();
    let statement = Statement { matches: Match { prefixes, ..Match::default() }, ..Statement::default() };
    let policies = [Arc::new(Policy::new("list", vec![statement]))];
    let attrs = Attrs::new(IpAddr::from([10, 0, 0, 2]).into());
    let hits = Hits::new(&policies);
    timed(20_000, |n| {
        let subject = Subject {
            prefix: route(n % (2 * entries)),
            source: RouteSource::Bgp,
            from: None,
            to: None,
            own_as: 65000,
            own_next_hop: None,
        };
        let accepted = run(&policies, &subject, &mut Cow::Borrowed(&attrs), &hits).is_ok();
        assert!(black_box(accepted));
    })
}

fn link(index: u32) -> Link {
    let IpAddr::V4(first) = subnet(index).addr() else { unreachable!("an IPv4 subnet") };
    let address = LinkAddress {
        addr: Ipv4Addr::from_bits(first.to_bits() + 1).into(),
        len: 24,
        peer: None,
        scope: Scope::Global,
        tentative: false,
        secondary: false,
        deprecated: false,
    };
    Link {
        index,
        name: format!("eth{index}"),
        kind: String::new(),
        mtu: 1500,
        up: true,
        lower_up: true,
        loopback: false,
        master: None,
        generation: 0,
        addresses: vec![address],
    }
}

fn host(links: u32) -> Host {
    let routes = (1..=links).map(|index| routelet::fib::host::ForeignRoute {
        prefix: subnet(index),
        table: 254,
        metric: 0,
        protocol: 2,
        kind: routelet::fib::host::RouteType::Unicast,
        preference: routelet::fib::host::Preference::Medium,
        object: 0,
        hops: vec![routelet::fib::host::ForeignHop { ifindex: index, gateway: None, onlink: false }],
    });
    Host {
        links: (1..=links).map(|index| (index, link(index))).collect(),
        routes: routes.collect(),
        ..Host::default()
    }
}

/// A table on a host with two links, its routes all over the first.
fn fib(routes: u32) -> (Fib, Host) {
    let host = host(2);
    let mut fib = Fib::new(Settings {
        install: true,
        table: 254,
        protocol: 179,
        metric: 179,
        nexthop_objects: true,
        resilient: false,
    });
    fib.host(Resolver::new(&host, false), Some(&BTreeMap::new()));
    let hops = hops();
    (0..routes).for_each(|n| fib.set_desired(route(n), Some(&hops)));
    fib.finish();
    write(&mut fib);
    (fib, host)
}

fn hops() -> Arc<NextHops> {
    Arc::new(NextHops::unicast(vec![Gateway { addr: [10, 0, 1, 9].into(), ifindex: 0 }]))
}

fn write(fib: &mut Fib) -> usize {
    std::iter::from_fn(|| Some(fib.take(128)).filter(|ops| !ops.is_empty())).map(|ops| ops.len()).sum()
}

/// A route, with what the task reports afterwards.
fn own_prefixes(own: u32) -> (Duration, u32) {
    let (mut fib, _) = fib(100);
    let prefixes: Vec<_> = (0..own).map(|n| route(1_000_000 + n)).collect();
    fib.set_own(&prefixes);
    write(&mut fib);
    let hops = hops();
    timed(5_000, |n| {
        fib.set_desired(route(1_000), (n % 2 == 0).then_some(&hops));
        fib.finish();
        write(&mut fib);
        if fib.take_own_changed() {
            black_box(fib.own_there());
        }
    })
}

fn link_event(routes: u32) -> (Duration, u32) {
    let (mut fib, mut host) = fib(routes);
    timed(200, |n| {
        if let Some(link) = host.links.get_mut(&2) {
            link.lower_up = n % 2 == 0;
        }
        fib.host(Resolver::new(&host, false), None);
        fib.finish();
        assert_eq!(write(&mut fib), 0);
    })
}

fn next_hop(entries: u32) -> (Duration, u32) {
    let entry = |n| (subnet(n), Reach::Connected { ifindex: n });
    let reachable = Reachable::new((0..entries).map(entry).collect());
    timed(20_000, |n| {
        black_box(reachable.lookup(subnet(n % (2 * entries)).addr()));
    })
}

fn resolver(links: u32) -> (Duration, u32) {
    let host = host(links);
    timed(5, |_| {
        black_box(Resolver::new(&host, false).reachable());
    })
}
