//! From octets to UPDATEs and back: `cargo bench --bench wire`.

use std::net::Ipv4Addr;

use bytes::BytesMut;
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use routelet::{
    bgp::wire::{
        Shape,
        attr::{AsPath, Attrs},
        framing,
        pack::Packer,
        update::{Decoder, Nlri},
    },
    net::{Family, PerFamily, Prefix},
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const ROUTES: u32 = 100_000;
const SHAPE: Shape = Shape {
    ibgp: false,
    four_octet_as: true,
    families: PerFamily::both(true),
    extended_next_hop: false,
    extended_messages: false,
    add_path_receive: PerFamily::both(false),
    add_path_send: PerFamily::both(false),
    first_as: None,
    on_host: false,
};

fn main() {
    divan::main();
}

fn attrs(set: u32) -> Attrs {
    let mut attrs = Attrs::new(std::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)).into());
    attrs.as_path = AsPath::sequence(&[65001, 100 + set % 5000, 7]);
    attrs.med = Some(set);
    attrs
}

fn packed(per_set: u32) -> BytesMut {
    let mut octets = BytesMut::new();
    let mut packer = Packer::new(&SHAPE, &mut octets);
    for set in 0..ROUTES / per_set {
        let route = |n: u32| Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24);
        let nlri = (set * per_set..(set + 1) * per_set).map(|n| Nlri { path_id: 0, prefix: route(n) });
        packer.advertise(&attrs(set), Family::Ipv4Unicast, nlri).expect("short attributes");
    }
    octets
}

/// Splits the stream into messages, decodes them and iterates over every prefix.
#[divan::bench(args = [1, 5, 500], sample_count = 10)]
fn decode(bencher: Bencher<'_, '_>, per_set: u32) {
    let octets = packed(per_set);
    bencher.counter(ItemsCount::new(ROUTES)).with_inputs(|| octets.clone()).bench_values(|mut octets| {
        let mut decoder = Decoder::new(SHAPE);
        let mut prefixes = 0;
        while let Ok(Some(frame)) = framing::split(&mut octets, false) {
            let update = decoder.decode(&frame.body).expect("our own octets");
            prefixes += update.advertised.iter().map(|(_, block)| block.iter().count()).sum::<usize>();
        }
        assert_eq!(prefixes, ROUTES as usize);
    });
}

#[divan::bench(args = [1, 5, 500], sample_count = 10)]
fn encode(bencher: Bencher<'_, '_>, per_set: u32) {
    bencher.counter(ItemsCount::new(ROUTES)).bench(|| packed(per_set));
}
