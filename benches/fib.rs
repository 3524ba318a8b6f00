//! The differ alone, from desired routes to kernel changes: `cargo bench --bench fib`.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use routelet::{
    fib::{
        diff::{Fib, Settings},
        host::{Host, Link, LinkAddress, Scope},
        resolve::Resolver,
    },
    net::{Gateway, NextHops, Prefix},
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const ROUTES: u32 = 100_000;

fn main() {
    divan::main();
}

fn fib() -> Fib {
    let address = LinkAddress {
        addr: Ipv4Addr::new(10, 0, 0, 1).into(),
        len: 24,
        peer: None,
        scope: Scope::Global,
        tentative: false,
        secondary: false,
        deprecated: false,
    };
    let link = Link {
        index: 2,
        name: "eth0".into(),
        kind: String::new(),
        mtu: 1500,
        up: true,
        lower_up: true,
        loopback: false,
        master: None,
        generation: 0,
        addresses: vec![address],
    };
    let host = Host { links: BTreeMap::from([(2, link)]), ..Host::default() };
    let mut fib = Fib::new(Settings {
        install: true,
        table: 254,
        protocol: 179,
        metric: 179,
        nexthop_objects: true,
        resilient: false,
    });
    fib.host(Resolver::new(&host, false), Some(&BTreeMap::new()));
    fib
}

fn hops() -> Arc<NextHops> {
    Arc::new(NextHops::unicast(vec![Gateway { addr: Ipv4Addr::new(10, 0, 0, 2).into(), ifindex: 0 }]))
}

/// Sets all routes (or none) and takes the changes to write; returns their number.
fn pass(fib: &mut Fib, hops: Option<&Arc<NextHops>>) -> usize {
    for n in 0..ROUTES {
        fib.set_desired(Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24), hops);
    }
    fib.finish();
    std::iter::from_fn(|| Some(fib.take(128)).filter(|ops| !ops.is_empty())).map(|ops| ops.len()).sum()
}

/// A fib with all routes installed.
fn full(hops: &Arc<NextHops>) -> Fib {
    let mut fib = fib();
    pass(&mut fib, Some(hops));
    fib
}

#[divan::bench(sample_count = 10)]
fn add(bencher: Bencher<'_, '_>) {
    let hops = hops();
    bencher.counter(ItemsCount::new(ROUTES)).with_inputs(fib).bench_values(|mut fib| {
        assert!(pass(&mut fib, Some(&hops)) >= ROUTES as usize);
        fib
    });
}

/// All routes of one neighbor at once: one message for its object.
#[divan::bench(sample_count = 10)]
fn lose_all(bencher: Bencher<'_, '_>) {
    let hops = hops();
    bencher.counter(ItemsCount::new(ROUTES)).with_inputs(|| full(&hops)).bench_values(|mut fib| {
        let changes = pass(&mut fib, None);
        assert!(changes < 10, "{changes}");
        fib
    });
}

/// Without changes there is nothing to write.
#[divan::bench(sample_count = 10)]
fn unchanged(bencher: Bencher<'_, '_>) {
    let hops = hops();
    bencher.counter(ItemsCount::new(ROUTES)).with_inputs(|| full(&hops)).bench_values(|mut fib| {
        assert_eq!(pass(&mut fib, Some(&hops)), 0);
        fib
    });
}
