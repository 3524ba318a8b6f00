//! Properties of the whole codec: encoding and decoding are inverse, and no input causes a panic.

use std::{net::IpAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{
    Shape,
    attr::{AsPath, Attrs, ExtraAttrs, Origin, PathNextHop, SegmentKind, UnknownAttr},
    capability::{
        AddPathFamily, Capability, GracefulFamily, GracefulRestart, LongLivedFamily, NextHopEncoding,
    },
    framing::{self, Kind},
    notification::Notification,
    open::Open,
    pack::Packer,
    refresh::Refresh,
    update::{Decoder, Nlri, Update},
};
use crate::net::{Family, PerFamily, Prefix};

fn shape() -> impl Strategy<Value = Shape> {
    (any::<[bool; 5]>(), any::<(bool, bool)>()).prop_map(|([ibgp, four, enh, large, first], (ipv4, ipv6))| {
        Shape {
            ibgp,
            four_octet_as: four,
            families: PerFamily::both(true),
            extended_next_hop: enh,
            extended_messages: large,
            add_path_receive: PerFamily::new(ipv4, ipv6),
            add_path_send: PerFamily::new(ipv4, ipv6),
            first_as: first.then_some(65001),
            on_host: false,
        }
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

fn nlri(family: Family) -> impl Strategy<Value = Nlri> {
    (any::<u32>(), any::<u128>(), 0..=family.max_len()).prop_map(move |(path_id, bits, len)| Nlri {
        path_id,
        prefix: match family {
            Family::Ipv4Unicast => Prefix::v4((bits as u32).into(), len),
            Family::Ipv6Unicast => Prefix::v6(bits.into(), len),
        },
    })
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![3 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    let asn = prop_oneof![1..100_000u32, Just(23456), Just(u32::MAX)];
    vec((kind, vec(asn, 1..6)), 0..4).prop_map(|segments| {
        let segments: Vec<_> = segments.iter().map(|(k, n)| (*k, &n[..])).collect();
        AsPath::from_segments(&segments)
    })
}

/// A next hop for a family, in the form that the decoder returns.
fn next_hop(family: Family, over_v6: bool) -> BoxedStrategy<PathNextHop> {
    let link_local = any::<u64>().prop_map(|n| (0xfe80_u128 << 112 | u128::from(n)).into());
    let global = any::<u64>().prop_map(|n| IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(n)).into()));
    let v6 = prop_oneof![
        link_local.clone().prop_map(|a| PathNextHop::from(IpAddr::V6(a))),
        (global, option::of(link_local)).prop_map(|(addr, link_local)| PathNextHop { addr, link_local }),
    ];
    let v4 = any::<[u8; 3]>().prop_map(|[a, b, c]| PathNextHop::from(IpAddr::from([192, a, b, c])));
    match (family, over_v6) {
        (Family::Ipv6Unicast, _) => v6.boxed(),
        (Family::Ipv4Unicast, true) => prop_oneof![v4, v6].boxed(),
        (Family::Ipv4Unicast, false) => v4.boxed(),
    }
}

prop_compose! {
    fn extra(ibgp: bool)(
        atomic_aggregate: bool,
        aggregator in option::of((1..100_000u32, any::<[u8; 4]>())),
        originator_id in option::of(any::<[u8; 4]>()),
        cluster_list in vec(any::<u32>(), 0..4),
        ext_communities in vec(any::<[u8; 8]>(), 0..4),
        mut large_communities in vec(any::<[u32; 3]>(), 0..40),
        ipv6_ext_communities in vec(any::<[u8; 20]>(), 0..3),
        otc in option::of(any::<u32>()),
        unknown in proptest::collection::btree_map(50..250u8, vec(any::<u8>(), 0..300), 0..4),
    ) -> ExtraAttrs {
        large_communities.sort_unstable();
        large_communities.dedup();
        ExtraAttrs {
            atomic_aggregate,
            aggregator: aggregator.map(|(n, a)| (n, a.into())),
            originator_id: originator_id.filter(|_| ibgp).map(Into::into),
            cluster_list: if ibgp { cluster_list } else { vec![] },
            ext_communities,
            large_communities,
            ipv6_ext_communities,
            otc,
            // As they are returned: with the Partial bit.
            unknown: unknown.into_iter().map(|(code, value)| {
                let flags = if value.len() > 255 { 0xf0 } else { 0xe0 };
                UnknownAttr { flags, code, value: value.into() }
            }).collect(),
            partial: vec![],
        }
    }
}

fn attrs(shape: Shape, family: Family) -> impl Strategy<Value = Attrs> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()));
    let hop = next_hop(family, shape.extended_next_hop);
    let communities = vec(any::<u32>(), 0..80);
    (origin, as_path(), hop, numbers, communities, option::of(extra(shape.ibgp))).prop_map(
        move |(origin, as_path, next_hop, (med, local_pref), communities, extra)| {
            let mut attrs = Attrs {
                origin,
                as_path: shape.first_as.map_or(as_path.clone(), |first| as_path.prepended(first, 1)),
                next_hop,
                med,
                local_pref: local_pref.filter(|_| shape.ibgp),
                communities: communities.into(),
                extra: extra.map(Box::new),
            };
            attrs.tidy();
            attrs
        },
    )
}

/// Everything that an advertisement needs.
fn advertisement() -> impl Strategy<Value = (Shape, Family, Attrs, Vec<Nlri>)> {
    (shape(), family()).prop_flat_map(|(shape, family)| {
        (Just(shape), Just(family), attrs(shape, family), vec(nlri(family), 1..1500))
    })
}

/// The messages in `out`, decoded; panics unless all are well-formed UPDATEs.
fn updates(shape: Shape, mut out: BytesMut) -> Vec<Update> {
    let (mut decoder, mut updates) = (Decoder::new(shape), Vec::new());
    while let Some(frame) = framing::split(&mut out, shape.extended_messages).unwrap() {
        assert_eq!(frame.kind, Kind::Update);
        updates.push(decoder.decode(&frame.body).unwrap());
    }
    assert!(out.is_empty());
    updates
}

/// Path identifiers exist only if they are sent.
fn as_sent(shape: Shape, family: Family, list: &[Nlri]) -> Vec<Nlri> {
    let id = |n: &Nlri| if shape.add_path_send(family) { n.path_id } else { 0 };
    list.iter().map(|n| Nlri { path_id: id(n), ..*n }).collect()
}

fn capability() -> impl Strategy<Value = Capability> {
    let text = "[a-z0-9.-]{0,20}";
    let families = vec((any::<u16>(), any::<u8>(), any::<bool>()), 0..5);
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Capability::Multiprotocol { afi, safi }),
        Just(Capability::RouteRefresh),
        vec(any::<[u16; 3]>(), 0..4).prop_map(|list| Capability::ExtendedNextHop(
            list.into_iter()
                .map(|[afi, safi, next_hop_afi]| NextHopEncoding { afi, safi, next_hop_afi })
                .collect()
        )),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(Capability::Role),
        (any::<[bool; 2]>(), 0..4096u16, families.clone()).prop_map(
            |([restarting, notification], restart_time, families)| Capability::GracefulRestart(
                GracefulRestart {
                    restarting,
                    notification,
                    restart_time,
                    families: families
                        .into_iter()
                        .map(|(afi, safi, forwarding)| GracefulFamily { afi, safi, forwarding })
                        .collect(),
                }
            )
        ),
        vec((any::<u16>(), any::<u8>(), any::<u8>()), 0..4).prop_map(|list| Capability::AddPath(
            list.into_iter().map(|(afi, safi, mode)| AddPathFamily { afi, safi, mode }).collect()
        )),
        Just(Capability::EnhancedRefresh),
        (families, 0..1u32 << 24).prop_map(|(list, stale_time)| Capability::LongLivedGracefulRestart(
            list.into_iter()
                .map(|(afi, safi, forwarding)| LongLivedFamily { afi, safi, forwarding, stale_time })
                .collect()
        )),
        (text, text).prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        (100..=255u8, vec(any::<u8>(), 0..60))
            .prop_map(|(code, value)| Capability::Unknown { code, value: value.into() }),
    ]
}

fn open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0), 3..=u16::MAX];
    (1..=u32::MAX, hold_time, 1..=u32::MAX, vec(capability(), 0..30))
        .prop_map(|(asn, hold_time, id, capabilities)| Open::new(asn, hold_time, id.into(), capabilities))
}

/// Changes, inserts or removes some octets of a valid message.
fn mutate(octets: &mut Vec<u8>, turns: &[(prop::sample::Index, u8, u8)]) {
    for (at, kind, value) in turns {
        let at = at.index(octets.len() + 1);
        match kind % 3 {
            0 if at < octets.len() => octets[at] ^= value,
            1 if at < octets.len() => drop(octets.remove(at)),
            _ => octets.insert(at, *value),
        }
    }
}

fn turns() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 0..6)
}

/// Decodes octets as each kind of message and uses every result.
fn decode_as_everything(shape: Shape, octets: &[u8]) {
    let body = Bytes::copy_from_slice(octets);
    if let Ok(open) = Open::decode(&body) {
        let _ = (open.asn(), format!("{:?}", open.capabilities.iter().map(ToString::to_string)));
    }
    let notification = Notification::decode(&body);
    let _ = (notification.to_string(), notification.inner(), notification.text().map(str::len));
    let _ = Refresh::decode(&body, shape.ibgp);
    let mut decoder = Decoder::new(shape);
    for _ in 0..2 {
        match decoder.decode(&body) {
            Ok(update) => look_at(&update),
            Err(e) => assert!((1..=11).contains(&e.subcode), "{e}"),
        }
    }
}

fn look_at(update: &Update) {
    let nlri = |block: &super::update::NlriBlock| {
        assert!(block.iter().all(|n| n.prefix.family() == block.family));
        block.iter().count()
    };
    update.withdrawn.iter().for_each(|b| assert!(nlri(b) > 0));
    for (attrs, block) in &update.advertised {
        assert!(nlri(block) > 0);
        let path = &attrs.as_path;
        let _ = (path.to_string(), path.to_json(), path.first(), path.origin_as());
        assert!(path.length() <= path.asns().count());
        assert_eq!(
            AsPath::from_wire(path.prepended(7, 300).as_bytes()).map(|p| p.count(7) >= 300),
            Some(true)
        );
    }
}

proptest! {
    #[test]
    fn what_is_advertised_is_decoded_again((shape, family, attrs, list) in advertisement()) {
        let mut out = BytesMut::new();
        let mut packer = Packer::new(&shape, &mut out);
        packer.advertise(&attrs, family, list.iter().copied()).unwrap();
        let messages = packer.messages();
        let updates = updates(shape, out);
        prop_assert_eq!(updates.len(), messages as usize);
        let mut got = Vec::new();
        for update in &updates {
            prop_assert_eq!((&update.withdrawn[..], &update.flaws[..]), (&[][..], &[][..]));
            for (a, block) in &update.advertised {
                prop_assert_eq!(&**a, &attrs);
                prop_assert!(Arc::ptr_eq(a, &updates[0].advertised[0].0), "the same octets are parsed once");
                got.extend(block.iter());
            }
        }
        prop_assert_eq!(got, as_sent(shape, family, &list));
    }

    #[test]
    fn what_is_withdrawn_is_read_back(
        shape in shape(),
        (family, list) in family().prop_flat_map(|f| (Just(f), vec(nlri(f), 0..3000)))
    ) {
        let mut out = BytesMut::new();
        let mut packer = Packer::new(&shape, &mut out);
        packer.withdraw(family, list.iter().copied());
        packer.end_of_rib(family);
        let mut updates = updates(shape, out);
        prop_assert_eq!(updates.pop().unwrap().end_of_rib, Some(family));
        prop_assert!(updates.iter().all(|u| u.end_of_rib.is_none() && u.advertised.is_empty()));
        let got: Vec<_> = updates.iter().flat_map(|u| &u.withdrawn).flat_map(|b| b.iter()).collect();
        prop_assert_eq!(got, as_sent(shape, family, &list));
    }

    #[test]
    fn messages_are_as_full_as_they_can_be(extended: bool, n in 1..5000usize) {
        let shape = Shape { extended_messages: extended, families: PerFamily::both(true), four_octet_as: true, ..Shape::default() };
        let attrs = Attrs::new(IpAddr::from([192, 0, 2, 1]).into());
        let list = (0..n as u32).map(|i| Nlri::new(Prefix::v4((i << 8).into(), 24)));
        let mut out = BytesMut::new();
        let mut packer = Packer::new(&shape, &mut out);
        packer.advertise(&attrs, Family::Ipv4Unicast, list).unwrap();
        // Header 19, lengths 4, ORIGIN 4, AS_PATH 3, NEXT_HOP 7.
        let room = (shape.max_message() - 37) / 4;
        prop_assert_eq!(packer.messages() as usize, n.div_ceil(room));
    }

    #[test]
    fn an_open_is_read_back(open in open()) {
        let mut out = BytesMut::new();
        open.encode(&mut out);
        let frame = framing::split(&mut out, false).unwrap().unwrap();
        prop_assert_eq!(Open::decode(&frame.body), Ok(open));
    }

    #[test]
    fn no_octets_make_the_decoders_fall(shape in shape(), octets in vec(any::<u8>(), 0..600)) {
        decode_as_everything(shape, &octets);
        let mut stream = BytesMut::from(&octets[..]);
        let _ = framing::split(&mut stream, true);
    }

    #[test]
    fn no_mutated_update_makes_the_decoders_panic((shape, family, attrs, list) in advertisement(), turns in turns()) {
        let mut out = BytesMut::new();
        Packer::new(&shape, &mut out).advertise(&attrs, family, list.into_iter().take(5)).unwrap();
        let mut octets = out[framing::HEADER..].to_vec();
        mutate(&mut octets, &turns);
        decode_as_everything(shape, &octets);
    }

    #[test]
    fn no_mutated_open_makes_the_decoders_panic(shape in shape(), open in open(), turns in turns()) {
        let mut out = BytesMut::new();
        open.encode(&mut out);
        let mut octets = out[framing::HEADER..].to_vec();
        mutate(&mut octets, &turns);
        decode_as_everything(shape, &octets);
    }

    /// A stream that was split and joined anywhere never costs more than its own messages.
    #[test]
    fn no_mutated_stream_makes_the_framing_fall(turns in turns(), extended: bool) {
        let mut out = BytesMut::new();
        framing::keepalive(&mut out);
        Refresh::new(Family::Ipv4Unicast, 0).encode(&mut out);
        Notification::cease(2, Some("bye")).encode(&mut out);
        let mut octets = out.to_vec();
        mutate(&mut octets, &turns);
        let mut stream = BytesMut::from(&octets[..]);
        while let Ok(Some(frame)) = framing::split(&mut stream, extended) {
            decode_as_everything(Shape::default(), &frame.body);
        }
    }
}

#[test]
fn attributes_that_leave_no_room_are_refused() {
    let shape = Shape { families: PerFamily::both(true), four_octet_as: true, ..Shape::default() };
    let long = |octets: usize| {
        let mut attrs = Attrs::new(IpAddr::from([192, 0, 2, 1]).into());
        let unknown = UnknownAttr { flags: 0xf0, code: 99, value: vec![0; octets].into() };
        attrs.extra_mut().unknown.push(unknown);
        attrs
    };
    let nets = || [Nlri::new("10.0.0.0/8".parse().unwrap())];
    // 4,096 less header 19, lengths 4, ORIGIN 4, AS_PATH 3, NEXT_HOP 7, attribute header 4, a /32.
    for (octets, fits) in [(4050, true), (4051, false), (100_000, false)] {
        let mut out = BytesMut::new();
        let done = Packer::new(&shape, &mut out).advertise(&long(octets), Family::Ipv4Unicast, nets());
        assert_eq!((done.is_ok(), out.is_empty()), (fits, !fits), "{octets}");
        let wide = Shape { extended_messages: true, ..shape };
        let done = Packer::new(&wide, &mut out).advertise(&long(octets), Family::Ipv4Unicast, nets());
        assert_eq!(done.is_ok(), octets < 65_000);
    }
}

#[test]
fn prefixes_of_another_family_are_left_out() {
    let shape = Shape { families: PerFamily::both(true), four_octet_as: true, ..Shape::default() };
    let attrs = Attrs::new(IpAddr::from([192, 0, 2, 1]).into());
    let foreign = [Nlri::new("2001:db8::/32".parse().unwrap())];
    let mut out = BytesMut::new();
    Packer::new(&shape, &mut out).advertise(&attrs, Family::Ipv4Unicast, foreign).unwrap();
    Packer::new(&shape, &mut out).withdraw(Family::Ipv4Unicast, foreign);
    assert!(out.is_empty());
}

/// RFC 4271 §5, RFC 7606 §5.1: by code, MP_REACH_NLRI first; the Partial bit on unknown attributes
/// and on those received with it.
#[test]
fn attributes_leave_in_their_order() {
    let shape = Shape { families: PerFamily::both(true), ibgp: true, ..Shape::default() };
    let mut attrs = Attrs::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]).into());
    attrs.as_path = AsPath::sequence(&[70000, 1]);
    attrs.communities = [1].into();
    attrs.local_pref = Some(100);
    let extra = attrs.extra_mut();
    extra.aggregator = Some((70000, [1, 1, 1, 1].into()));
    extra.large_communities = vec![[1, 2, 3]];
    for code in [11, 20, 200] {
        extra.unknown.push(UnknownAttr { flags: 0xc0, code, value: Bytes::new() });
    }
    extra.partial = vec![8];
    let mut out = BytesMut::new();
    let net = [Nlri::new("2001:db8::/32".parse().unwrap())];
    Packer::new(&shape, &mut out).advertise(&attrs, Family::Ipv6Unicast, net).unwrap();
    let walk = super::attr::decode::Walk { rest: &out[23..] };
    let seen: Vec<_> = walk.map(|raw| (raw.code, raw.whole[0] & 0xe0)).collect();
    #[rustfmt::skip]
    let want = [
        (14, 0x80), (1, 0x40), (2, 0x40), (5, 0x40), (7, 0xc0), (8, 0xe0), (11, 0xe0), (17, 0xc0), (18, 0xc0),
        (20, 0xe0), (32, 0xc0), (200, 0xe0),
    ];
    assert_eq!(seen, want);
}
