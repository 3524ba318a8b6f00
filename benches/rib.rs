//! The rib alone: from decoded UPDATEs to changes for the fib and octets for neighbors.
//!
//! `cargo bench --bench rib`. `table`: five prefixes per attribute set; `pods`: one.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::BytesMut;
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use routelet::{
    bgp::{
        peer::*,
        rib::{Input, Rib},
        wire::{
            attr::{AsPath, Attrs},
            framing,
            pack::Packer,
            update::{Decoder, Nlri, Update},
        },
    },
    net::{Family, PerFamily, Prefix, Reach, Reachable},
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = [(100_000, 5), (100_000, 1), (1_000_000, 5)], sample_count = 5)]
fn load(bencher: Bencher<'_, '_>, (routes, per_set): (u32, u32)) {
    let updates = updates(routes, per_set);
    bencher.counter(ItemsCount::new(routes)).with_inputs(|| rib(0)).bench_values(|mut rib| {
        announce(&mut rib, &updates);
        rib
    });
}

#[divan::bench(args = [100_000, 1_000_000], sample_count = 5)]
fn withdraw(bencher: Bencher<'_, '_>, routes: u32) {
    let (announced, withdrawn) = (updates(routes, 5), withdrawals(routes));
    let loaded = || {
        let mut rib = rib(0);
        announce(&mut rib, &announced);
        rib
    };
    bencher.counter(ItemsCount::new(routes)).with_inputs(loaded).bench_values(|mut rib| {
        announce(&mut rib, &withdrawn);
        rib
    });
}

#[divan::bench(args = [100_000], sample_count = 5)]
fn neighbor_lost(bencher: Bencher<'_, '_>, routes: u32) {
    let updates = updates(routes, 5);
    let loaded = || {
        let mut rib = rib(0);
        announce(&mut rib, &updates);
        rib
    };
    bencher.counter(ItemsCount::new(routes)).with_inputs(loaded).bench_values(|mut rib| {
        rib.handle(now(), Input::Down { peer: PeerId(0), cause: DownCause::HoldTimer });
        rib.run_decision_process();
        rib.take_fib();
        rib
    });
}

/// Advertises to this many neighbors, drained after each turn.
#[divan::bench(args = [1, 10, 50], sample_count = 5)]
fn propagate(bencher: Bencher<'_, '_>, neighbors: u32) {
    let updates = updates(100_000, 5);
    bencher.counter(ItemsCount::new(100_000u32)).with_inputs(|| rib(neighbors)).bench_values(|mut rib| {
        announce(&mut rib, &updates);
        rib
    });
}

fn now() -> std::time::Instant {
    use std::sync::OnceLock;
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "an epoch")]
    *EPOCH.get_or_init(std::time::Instant::now)
}

/// Turns of 4,096 routes, as the task makes them.
fn announce(rib: &mut Rib, updates: &[Update]) {
    for turn in updates.chunks(820) {
        for update in turn {
            rib.handle(now(), Input::Update { peer: PeerId(0), update });
        }
        rib.run_decision_process();
        divan::black_box(rib.take_fib());
        let mut behind = rib.behind();
        while !behind.is_empty() {
            behind.retain(|peer| rib.next_for(*peer).map(divan::black_box).is_some());
        }
        rib.trim();
    }
}

fn prefix(n: u32) -> Prefix {
    Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24)
}

fn decode(octets: &mut BytesMut) -> Vec<Update> {
    let mut decoder = Decoder::new(session(0).shape());
    let mut updates = Vec::new();
    while let Ok(Some(frame)) = framing::split(octets, false) {
        updates.push(decoder.decode(&frame.body).expect("our own octets"));
    }
    updates
}

fn updates(routes: u32, per_set: u32) -> Vec<Update> {
    let shape = session(0).shape();
    let mut octets = BytesMut::new();
    let mut packer = Packer::new(&shape, &mut octets);
    for set in 0..routes / per_set {
        let mut attrs = Attrs::new(std::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)).into());
        attrs.as_path = AsPath::sequence(&[65001, 100 + set % 5000, 7]);
        attrs.med = Some(set);
        let prefixes = (set * per_set..(set + 1) * per_set).map(|n| Nlri { path_id: 0, prefix: prefix(n) });
        packer.advertise(&attrs, Family::Ipv4Unicast, prefixes).expect("short attributes");
    }
    decode(&mut octets)
}

fn withdrawals(routes: u32) -> Vec<Update> {
    let shape = session(0).shape();
    let mut octets = BytesMut::new();
    let prefixes = (0..routes).map(|n| Nlri { path_id: 0, prefix: prefix(n) });
    Packer::new(&shape, &mut octets).withdraw(Family::Ipv4Unicast, prefixes);
    decode(&mut octets)
}

/// A rib whose neighbor 0 sends, with `receivers` further ones that have transit.
fn rib(receivers: u32) -> Rib {
    let global = Global {
        asn: 65000,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        cluster_id: Ipv4Addr::new(10, 0, 0, 1),
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    };
    let mut rib = Rib::new(now(), global);
    let connected = vec![(Prefix::v4(Ipv4Addr::new(10, 0, 0, 0), 24), Reach::Connected { ifindex: 2 })];
    rib.handle(now(), Input::Reachable(Arc::new(Reachable::new(connected))));
    for n in 0..=receivers {
        rib.handle(now(), Input::Peer { peer: PeerId(n), config: Arc::new(config(n)) });
        rib.handle(now(), Input::Up { peer: PeerId(n), negotiated: Arc::new(session(n)) });
    }
    rib
}

fn session(n: u32) -> Negotiated {
    Negotiated {
        remote_as: 65001 + n,
        remote_id: Ipv4Addr::from_bits(0x0a00_0002 + n),
        local_as: 65000,
        local_addr: Ipv4Addr::new(10, 0, 0, 1).into(),
        remote_addr: Ipv4Addr::from_bits(0x0a00_0002 + n).into(),
        ifindex: 0,
        hold_time: 90,
        four_octet_as: true,
        extended_messages: false,
        families: Family::ALL.to_vec(),
        extended_next_hop: false,
        add_path_receive: PerFamily::both(false),
        add_path_send: PerFamily::both(false),
        route_refresh: true,
        enhanced_refresh: false,
        graceful: None,
        kept_over_restart: false,
        role: None,
    }
}

fn config(n: u32) -> PeerConfig {
    let key = PeerKey::Address(Ipv4Addr::from_bits(0x0a00_0002 + n).into());
    PeerConfig {
        transit: n > 0,
        max_prefixes: 2_000_000,
        own: OwnAddresses { v4: Some(Ipv4Addr::new(10, 0, 0, 1)), v6: None, link_local: None },
        ..PeerConfig::new(key, RemoteAs::Any, 65000)
    }
}
