//! Our encoder against our decoder, and the octets themselves. `tests/netns` has the kernel's view.

use proptest::prelude::*;

use super::*;
use crate::{
    fib::{
        host::{ForeignHop, RouteType},
        lookup::Packet,
        resolve::Hop,
        route::{Object, Target},
    },
    net::{PreferredSources, Prefix},
    netlink::{decode::messages, encode::Encoder},
};

const OURS: Ours = Ours { table: 254, protocol: 179, sources: PreferredSources { v4: None, v6: None } };

fn p(s: &str) -> Prefix {
    s.parse().unwrap()
}

fn hop(ifindex: u32, gateway: &str) -> Hop {
    Hop { ifindex, gateway: gateway.parse().unwrap(), onlink: false }
}

#[test]
fn routes_read_back_as_written() {
    let (one, via) = ([hop(3, "10.0.0.1")], [hop(3, "fe80::1")]);
    let two = [hop(3, "10.0.0.1"), hop(4, "10.0.1.1")];
    #[rustfmt::skip]
    let cases: &[(&str, u32, Target<'_>, Option<RouteType>, usize)] = &[
        ("10.0.0.0/8",      254, Target::Hops(&one),    Some(RouteType::Unicast), 1),
        ("10.0.0.0/8",      254, Target::Hops(&via),    Some(RouteType::Unicast), 1),
        ("10.0.0.0/8",     1000, Target::Hops(&two),    Some(RouteType::Unicast), 2),
        ("2001:db8::/32",   254, Target::Hops(&via),    Some(RouteType::Unicast), 1),
        ("10.1.0.0/16",     254, Target::Unreachable,   Some(RouteType::Unreachable), 0),
        ("2001:db8::1/128", 254, Target::Blackhole,     Some(RouteType::Blackhole), 0),
        ("0.0.0.0/0",       254, Target::Object(77),    Some(RouteType::Unicast), 0),
    ];
    for (prefix, table, target, kind, hops) in cases {
        let mut encoder = Encoder::new(9);
        new_route(&mut encoder, Ours { table: *table, ..OURS }, (p(prefix), 179), *target, false);
        let message = messages(encoder.bytes()).next().unwrap();
        assert_eq!((message.kind, message.seq), (kind::NEW_ROUTE, 9), "{prefix}");
        let seen = route(message.body).unwrap();
        assert_eq!((seen.prefix, seen.table, seen.metric), (p(prefix), *table, 179));
        assert_eq!((seen.protocol, seen.kind, seen.hops.len()), (179, *kind, *hops), "{prefix}");
        assert_eq!(seen.object, if matches!(target, Target::Object(_)) { 77 } else { 0 });
        if let Target::Hops(wanted) = target {
            let same = |(a, b): (&ForeignHop, &Hop)| a.ifindex == b.ifindex && a.gateway == Some(b.gateway);
            assert!(seen.hops.iter().zip(*wanted).all(same), "{prefix}");
        }
    }
}

#[test]
fn objects_read_back_as_written() {
    let objects = [
        Object::Hop(Hop { onlink: true, ..hop(3, "10.0.0.1") }),
        Object::Hop(hop(3, "fe80::1")),
        Object::Group(vec![1, 2]),
        Object::ResilientGroup(vec![1, 2]),
    ];
    for object in objects {
        let mut encoder = Encoder::new(1);
        new_nexthop(&mut encoder, 179, 42, &object, false);
        let message = messages(encoder.bytes()).next().unwrap();
        let seen = super::object(message.body);
        let seen = seen.expect("an object");
        assert_eq!((seen.id, seen.protocol, seen.object()), (42, 179, Some(object)));
    }
}

/// As the kernel has been given them: numbers in the order of little-endian hosts.
#[test]
#[cfg(target_endian = "little")]
fn requests_are_these_octets() {
    let onlink = Hop { onlink: true, ..hop(3, "10.0.0.1") };
    let (one, via, two) = ([onlink], [hop(3, "fe80::1")], [hop(3, "10.0.0.1"), hop(4, "fe80::2")]);
    let sources = PreferredSources { v4: Some([10, 9, 0, 1].into()), v6: None };
    let big = Ours { table: 1000, protocol: 179, sources };
    let (v4, v6) = (p("10.1.0.0/16"), p("2001:db8::/32"));
    let packet = Packet {
        destination: "10.2.0.1".parse().unwrap(),
        source: Some("10.9.0.1".parse().unwrap()),
        arrives_on: Some(5),
    };
    let neighbor = ["fe80::1", "10.0.0.1"].map(|a| a.parse().unwrap());
    type Fill<'a> = &'a dyn Fn(&mut Encoder);
    let cases: [(Fill<'_>, &str); 16] = [
        (
            &|e| new_route(e, OURS, (v4, 179), Target::Hops(&one), true),
            "3c00000018000105010000000000000002100000feb3000104000000080001000a010000\
             08000600b30000000800040003000000080005000a000001",
        ),
        (
            &|e| new_route(e, OURS, (v4, 179), Target::Hops(&via), false),
            "4c00000018000106010000000000000002100000feb3000100000000080001000a010000\
             08000600b30000000800040003000000160012000a00fe80000000000000000000000000\
             00010000",
        ),
        (
            &|e| new_route(e, big, (v4, 179), Target::Hops(&two), false),
            "700000001800010601000000000000000210000000b3000100000000080001000a010000\
             08000f00e803000008000600b3000000340009001000000003000000080005000a000001\
             2000000004000000160012000a00fe800000000000000000000000000002000008000700\
             0a090001",
        ),
        (
            &|e| new_route(e, OURS, (v6, 179), Target::Object(77), true),
            "400000001800010501000000000000000a200000feb30001000000001400010020010db8\
             00000000000000000000000008000600b300000008001e004d000000",
        ),
        (
            &|e| new_route(e, big, (v6, 179), Target::Unreachable, true),
            "400000001800010501000000000000000a20000000b30007000000001400010020010db8\
             00000000000000000000000008000f00e803000008000600b3000000",
        ),
        (
            &|e| del_route(e, OURS, v4, 179),
            "2c00000019000100010000000000000002100000feb3ff0000000000080001000a010000\
             08000600b3000000",
        ),
        (
            &|e| new_nexthop(e, 179, 42, &Object::Hop(onlink), false),
            "300000006800010601000000000000000200b30004000000080001002a00000008000500\
             03000000080006000a000001",
        ),
        (
            &|e| new_nexthop(e, 179, 42, &Object::Group(vec![1, 2]), true),
            "340000006800010501000000000000000000b30000000000080001002a00000014000200\
             01000000000000000200000000000000",
        ),
        (
            &|e| new_nexthop(e, 179, 42, &Object::ResilientGroup(vec![1, 2]), false),
            "480000006800010601000000000000000000b30000000000080001002a00000014000200\
             0100000000000000020000000000000006000300010000000c000c800600010000010000",
        ),
        (&|e| del_nexthop(e, 42), "200000006900010001000000000000000000000000000000080001002a000000"),
        (
            &|e| dump_routes(e, Family::Ipv6Unicast, Some(254), Some(179)),
            "240000001a00010301000000000000000a00000000b300000000000008000f00fe000000",
        ),
        (
            &|e| get_route(e, &packet, true),
            "340000001a0001000100000000000000022020000000000000300000080001000a020001\
             080002000a0900010800030005000000",
        ),
        (
            &|e| get_neighbor(e, 3, neighbor[0]),
            "300000001e00010001000000000000000a000000030000000000000014000100fe800000\
             000000000000000000000001",
        ),
        (
            &|e| use_neighbor(e, 3, neighbor[1]),
            "240000001c0001040100000000000000020000000300000000000100080001000a000001",
        ),
        (&|e| dump_rules(e, Family::Ipv4Unicast), "1c000000220001030100000000000000020000000000000000000000"),
        (&dump_objects, "180000006a00010301000000000000000000000000000000"),
    ];
    for (fill, expected) in cases {
        let mut encoder = Encoder::new(1);
        fill(&mut encoder);
        let octets: String = encoder.bytes().iter().map(|o| format!("{o:02x}")).collect();
        assert_eq!(octets, expected);
    }
}

proptest! {
    #[test]
    fn garbage_is_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        for message in messages(&octets) {
            let _ = (route(message.body), object(message.body), message.outcome());
        }
        let _ = (route(&octets), object(&octets));
    }

    #[test]
    fn a_spoiled_route_is_survived(at in 0usize..60, octet: u8) {
        let mut encoder = Encoder::new(9);
        let hops = [hop(3, "10.0.0.1"), hop(4, "10.0.1.1")];
        new_route(&mut encoder, OURS, (p("10.0.0.0/8"), 179), Target::Hops(&hops), false);
        let mut octets = encoder.bytes().to_vec();
        if let Some(o) = octets.get_mut(at) {
            *o = octet;
        }
        for message in messages(&octets) {
            let _ = (route(message.body), object(message.body), message.outcome());
        }
    }
}
