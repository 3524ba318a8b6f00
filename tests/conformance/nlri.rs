//! Syntax of UPDATEs as wholes: RFC 4271 §6.3, RFC 7606 §5.3, RFC 4760 §7, RFC 8654.

use crate::{
    bed::{Bed, EXTERNAL, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{
        Open, UPDATE, attr, end_of_rib, message, net, nlri, nlri6, origin, path, reach, unreach, update,
    },
};

fn good(peer: &Peer, prefixes: &[u8]) -> Vec<u8> {
    update(&[], &peer.good(1), prefixes)
}

fn raw(parts: &[&[u8]]) -> Vec<u8> {
    message(UPDATE, &parts.concat())
}

const HOP6: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Attributes of a message with MP_REACH_NLRI of this value.
fn mp(value: &[u8]) -> Vec<u8> {
    update(&[], &[attr(0x90, 14, value), origin(0), path(&[EXTERNAL])], &[])
}

fn gone(value: &[u8]) -> Vec<u8> {
    update(&[], &[attr(0x90, 15, value)], &[])
}

#[test]
fn malformed_updates_reset() {
    type Octets = Box<dyn Fn(&Peer) -> Vec<u8>>;
    let hop = |rest: &[u8]| [&[0, 2, 1, 16][..], &HOP6, &[0], rest].concat();
    #[rustfmt::skip]
    let cases: Vec<(&str, Octets)> = vec![
        ("4271 §6.3 withdrawn length beyond the message",  Box::new(|_| raw(&[&[0, 50, 0, 0]]))),
        ("4271 §6.3 withdrawn length leaves no room for the next", Box::new(|_| raw(&[&[0, 2, 8, 20]]))),
        ("4271 §6.3 attribute length beyond the message",  Box::new(|_| raw(&[&[0, 0, 0, 50, 0x40, 1, 1, 0]]))),
        ("4271 §6.3 both lengths are huge",                Box::new(|_| raw(&[&[0xff, 0xff, 0xff, 0xff]]))),
        ("7606 §5.3 prefix of 33 bits",                    Box::new(|p| good(p, &[33, 20, 1, 1, 1, 1]))),
        ("7606 §5.3 prefix of 255 bits",                   Box::new(|p| good(p, &[255, 20, 1, 1, 1]))),
        ("7606 §5.3 prefix beyond the message",            Box::new(|p| good(p, &[24, 20, 1]))),
        ("7606 §5.3 a good prefix, then a broken one",     Box::new(|p| good(p, &[24, 20, 1, 1, 32, 20]))),
        ("7606 §5.3 withdrawn prefix of 33 bits",          Box::new(|_| update(&[33, 20, 1, 1, 1, 1], &[], &[]))),
        ("7606 §5.3 withdrawn prefix beyond its part",     Box::new(|_| update(&[24, 20, 1], &[], &[]))),
        ("7606 §7.11 MP_REACH_NLRI of 0 octets",           Box::new(|_| mp(&[]))),
        ("7606 §7.11 MP_REACH_NLRI of 2 octets",           Box::new(|_| mp(&[0, 2]))),
        ("7606 §7.11 MP_REACH_NLRI without a next hop's octets", Box::new(|_| mp(&[0, 2, 1, 16, 0]))),
        ("7606 §7.11 next hop of 0 octets",                Box::new(|_| mp(&[&[0, 2, 1, 0, 0][..], &nlri6("fd90::/64")].concat()))),
        ("7606 §7.11 next hop of 15 octets",               Box::new(|_| mp(&[&[0, 2, 1, 15][..], &HOP6[1..], &[0], &nlri6("fd90::/64")].concat()))),
        ("7606 §7.11 next hop of 255 octets",              Box::new(|_| mp(&[&[0, 2, 1, 255][..], &HOP6, &[0]].concat()))),
        ("7606 §5.3 IPv6 prefix of 129 bits",              Box::new(move |_| mp(&hop(&[129, 1, 1])))),
        ("7606 §5.3 IPv6 prefix beyond its attribute",     Box::new(move |_| mp(&[&[0, 2, 1, 16][..], &HOP6, &[0], &[64, 0xfd]].concat()))),
        ("7606 §7.12 MP_UNREACH_NLRI of 0 octets",         Box::new(|_| gone(&[]))),
        ("7606 §7.12 MP_UNREACH_NLRI of 2 octets",         Box::new(|_| gone(&[0, 2]))),
        ("7606 §5.3 withdrawn IPv6 prefix of 129 bits",    Box::new(|_| gone(&[0, 2, 1, 129, 1]))),
        ("7606 §5.3 withdrawn IPv6 prefix beyond its attribute", Box::new(|_| gone(&[0, 2, 1, 64, 0xfd]))),
    ];
    let count = u8::try_from(cases.len()).unwrap();
    let bed = Bed::start("", &passive(1, count, "remote-as = 65001"));
    let mut report = Report::default();
    for (n, (name, octets)) in (1..).zip(&cases) {
        report.case(name, || {
            let mut peer = bed.peer(at(1, n), EXTERNAL);
            let octets = octets(&peer);
            peer.send(&octets);
            let body = peer.ends()?;
            // 3/1 malformed list, 3/9 optional attribute, 3/10 network field: RFC 4271 §6.3, RFC 7606 §5.3, §7.11.
            holds(body[0] == 3 && [1, 9, 10].contains(&body[1]), &format!("{body:?}"))
        });
    }
    report.finish();
}

#[test]
fn odd_updates_that_are_right() {
    let bed = Bed::start("", &passive(1, 40, "remote-as = 65001"));
    let mut report = Report::default();
    let mut n = 0;
    let mut next = || {
        n += 1;
        bed.peer(at(1, n), EXTERNAL)
    };
    let has = |peer: &Peer, prefix: &str| bed.received_prefix(peer.addr, prefix);
    report.case("4271 §4.3 withdraw and announce in one UPDATE", || {
        let mut peer = next();
        peer.announce(1, &["20.1.1.0/24"]);
        let m = update(&nlri(&[net("20.1.1.0/24")]), &peer.good(2), &nlri(&[net("20.1.2.0/24")]));
        peer.send(&m);
        bed.settled(&mut peer);
        same((has(&peer, "20.1.1.0/24").is_some(), has(&peer, "20.1.2.0/24").is_some()), (false, true))
    });
    report.case("4271 §4.3 the same prefix withdrawn and announced: announced", || {
        let mut peer = next();
        let one = nlri(&[net("20.2.1.0/24")]);
        let m = update(&one, &peer.good(2), &one);
        peer.send(&m);
        bed.settled(&mut peer);
        holds(has(&peer, "20.2.1.0/24").is_some(), "gone")
    });
    report.case("4271 §9 implicit withdraw", || {
        let mut peer = next();
        peer.announce(1, &["20.3.1.0/24"]);
        peer.announce(2, &["20.3.1.0/24"]);
        bed.settled(&mut peer);
        let all = bed.paths("20.3.1.0/24");
        same((all.len(), all[0]["med"].as_u64()), (1, Some(2)))
    });
    report.case("4271 §4.3 host bits are irrelevant", || {
        let mut peer = next();
        let m = good(&peer, &[20, 20, 4, 0xff]);
        peer.send(&m);
        bed.settled(&mut peer);
        holds(has(&peer, "20.4.240.0/20").is_some(), &format!("{:?}", bed.received(peer.addr)))?;
        peer.send(&update(&[20, 20, 4, 0xf7], &[], &[]));
        bed.settled(&mut peer);
        holds(has(&peer, "20.4.240.0/20").is_none(), "not withdrawn")
    });
    report.case("4271 §4.3 withdraw of what was never advertised", || {
        let mut peer = next();
        peer.withdraw(&["20.5.0.0/16"]);
        bed.settled(&mut peer);
        Ok(())
    });
    report.case("4271 §4.3 the same prefix twice in one UPDATE", || {
        let mut peer = next();
        peer.announce(1, &["20.6.1.0/24", "20.6.1.0/24"]);
        bed.settled(&mut peer);
        same(bed.paths("20.6.1.0/24").len(), 1)
    });
    report.case("7606 §5.1 IPv4 and IPv6 of both kinds in one UPDATE", || {
        let mut peer = next();
        let mut all = peer.good(1);
        all.push(reach(2, &HOP6, &nlri6("fd97:1::/64")));
        all.push(unreach(2, &nlri6("fd97:2::/64")));
        peer.send(&update(&nlri(&[net("20.7.2.0/24")]), &all, &nlri(&[net("20.7.1.0/24")])));
        bed.settled(&mut peer);
        holds(has(&peer, "20.7.1.0/24").is_some() && has(&peer, "fd97:1::/64").is_some(), "one is missing")
    });
    report.case("4760 §3 IPv4 in MP_REACH_NLRI", || {
        let mut peer = next();
        let hop = peer.addr.octets();
        peer.send(&update(
            &[],
            &[reach(1, &hop, &nlri(&[net("20.8.1.0/24")])), origin(0), path(&[EXTERNAL])],
            &[],
        ));
        bed.settled(&mut peer);
        holds(has(&peer, "20.8.1.0/24").is_some(), "missing")?;
        peer.send(&update(&[], &[unreach(1, &nlri(&[net("20.8.1.0/24")]))], &[]));
        bed.settled(&mut peer);
        holds(has(&peer, "20.8.1.0/24").is_none(), "not withdrawn")
    });
    report.case("4760 §4 MP_UNREACH_NLRI beside ordinary attributes and no NLRI", || {
        let mut peer = next();
        peer.send(&update(&[], &[reach(2, &HOP6, &nlri6("fd99:1::/64")), origin(0), path(&[EXTERNAL])], &[]));
        peer.send(&update(&[], &[origin(0), path(&[EXTERNAL]), unreach(2, &nlri6("fd99:1::/64"))], &[]));
        bed.settled(&mut peer);
        holds(has(&peer, "fd99:1::/64").is_none(), "not withdrawn")
    });
    report.case("4760 §7 families that were not negotiated are ignored", || {
        let mut peer = next();
        let mut all = peer.good(1);
        all.push(reach(25, &[10, 0, 0, 1], &[0; 30]));
        peer.announce_with(&all, &["20.10.1.0/24"]);
        bed.settled(&mut peer);
        holds(has(&peer, "20.10.1.0/24").is_some(), "missing")
    });
    report.case("4724 §2 End-of-RIB of both families, and of one unknown", || {
        let mut peer = next();
        peer.send(
            &[end_of_rib(), update(&[], &[unreach(2, &[])], &[]), update(&[], &[unreach(25, &[])], &[])]
                .concat(),
        );
        bed.settled(&mut peer);
        Ok(())
    });
    report.case("4271 §4.3 attributes and no prefixes", || {
        let mut peer = next();
        let m = update(&[], &peer.good(1), &[]);
        peer.send(&m);
        bed.settled(&mut peer);
        Ok(())
    });
    report.case("4271 §4 a message of 4,096 octets", || {
        let mut peer = next();
        let mut all = peer.good(1);
        let room = 4096 - 19 - 4 - all.concat().len() - 4 - 4;
        all.push(communities_of(room / 4));
        let left = 4096 - 19 - 4 - all.concat().len();
        // The rest is filled with a prefix of the right size and a spare one.
        let prefixes = match left {
            4 => nlri(&[net("20.13.1.0/24")]),
            5 => nlri(&[net("20.13.1.0/32")]),
            6 => [nlri(&[net("20.13.1.0/24")]), nlri(&[net("21.0.0.0/8")])].concat(),
            _ => [nlri(&[net("20.13.1.0/24")]), nlri(&[net("22.13.0.0/16")])].concat(),
        };
        let m = update(&[], &all, &prefixes);
        same(m.len(), 4096)?;
        peer.send(&m);
        bed.settled(&mut peer);
        holds(has(&peer, "20.13.1.0/24").or(has(&peer, "20.13.1.0/32")).is_some(), "missing")
    });
    report.case("4271 §4.3 1,000 prefixes in one UPDATE", || {
        let mut peer = next();
        let list: Vec<_> =
            (0..1000u32).map(|i| (std::net::Ipv4Addr::from(0x1e00_0000 + (i << 8)), 24)).collect();
        let m = good(&peer, &nlri(&list));
        peer.send(&m);
        bed.settled(&mut peer);
        same(
            bed.received(peer.addr)
                .iter()
                .filter(|r| r["prefix"].as_str().unwrap().starts_with("30."))
                .count(),
            1000,
        )
    });
    n += 1;
    report.case("8654 §4 a message of 60,000 octets where both know them", || {
        let mut peer = bed.session(at(1, n), &Open::new(EXTERNAL, at(1, n)).with(6, &[]));
        let list: Vec<_> =
            (0..14_900u32).map(|i| (std::net::Ipv4Addr::from(0x1f00_0000 + (i << 8)), 24)).collect();
        let m = good(&peer, &nlri(&list));
        peer.send(&m);
        bed.settled(&mut peer);
        let count = bed.neighbor(peer.addr)["received"]["ipv4-unicast"].as_u64();
        holds(count >= Some(14_900), &format!("{count:?}"))
    });
    report.finish();
}

fn communities_of(count: usize) -> Vec<u8> {
    let list = (0..u32::try_from(count).unwrap()).map(|n| 0x000a_0000 + n);
    attr(0xd0, 8, &list.flat_map(u32::to_be_bytes).collect::<Vec<_>>())
}

/// RFC 7606 with prefixes that come in MP_REACH_NLRI, and with none.
#[test]
fn verdicts_on_ipv6() {
    let bed = Bed::start(
        "",
        &(passive(1, 20, "remote-as = 65001") + &passive(2, 1, "remote-as = 65002\ntransit = true")),
    );
    let mut other = bed.peer(at(2, 1), 65002);
    let mut report = Report::default();
    let base = |more: &[Vec<u8>]| {
        let mut all = vec![origin(0), path(&[EXTERNAL])];
        for attribute in more {
            match all.iter_mut().find(|a| a[1] == attribute[1]) {
                Some(it) => it.clone_from(attribute),
                None => all.push(attribute.clone()),
            }
        }
        all
    };
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<Vec<u8>>, bool)> = vec![
        ("7606 §7.1 ORIGIN 3",                              base(&[origin(3)]), false),
        ("7606 §7.2 broken AS_PATH",                        base(&[attr(0x40, 2, &[2, 9, 0])]), false),
        ("7606 §3 d no AS_PATH",                            vec![origin(0)], false),
        ("7606 §3 d no ORIGIN",                             vec![path(&[EXTERNAL])], false),
        ("7606 §7.8 broken COMMUNITIES",                    base(&[attr(0xc0, 8, &[1, 2, 3])]), false),
        ("4760 §3 NEXT_HOP beside MP_REACH_NLRI is ignored", base(&[attr(0x40, 3, &[1, 1, 1, 1])]), true),
        ("4760 §3 no NEXT_HOP is needed",                   base(&[]), true),
        ("7606 §4 the last attribute overruns",             base(&[vec![0xc0, 8, 99, 0]]), false),
        ("4271 §5 unknown attribute",                       base(&[attr(0xc0, 99, &[1])]), true),
    ];
    for (n, (name, attributes, stays)) in (1..).zip(cases) {
        report.case(name, || {
            let mut peer = bed.peer(at(1, n), EXTERNAL);
            let (prefix, neighbor) = (format!("fd66:{n}::/48"), format!("fd67:{n}::/48"));
            let good =
                [reach(2, &HOP6, &[nlri6(&prefix), nlri6(&neighbor)].concat()), origin(0), path(&[EXTERNAL])];
            peer.send(&update(&[], &good, &[]));
            bed.settled(&mut peer);
            let all = [vec![reach(2, &HOP6, &nlri6(&prefix))], attributes].concat();
            peer.send(&update(&[], &all, &[]));
            bed.settled(&mut peer);
            let has = |p: &str| bed.received_prefix(peer.addr, p).is_some();
            same((has(&prefix), has(&neighbor)), (stays, true))?;
            wait_for("the kernel follows", 3.0, || {
                let kernel = bed.kernel();
                ((kernel.contains(&prefix), kernel.contains(&neighbor)) == (stays, true)).then_some(())
            });
            other.receives(PATIENCE, |h| (h.routes.contains_key(&prefix) == stays).then_some(()))
        });
    }
    report.case("7606 §5.2 a broken attribute and only withdrawn prefixes: reset", || {
        let mut peer = bed.peer(at(1, 15), EXTERNAL);
        peer.send(&update(&[], &[origin(9), path(&[EXTERNAL]), unreach(2, &nlri6("fd66::/48"))], &[]));
        same(peer.ends()?[..2].to_vec(), vec![3, 6])
    });
    report.case("7606 §2 what is treated as withdrawn does not spare the withdrawn ones", || {
        let mut peer = bed.peer(at(1, 16), EXTERNAL);
        peer.announce(1, &["20.66.1.0/24", "20.66.2.0/24", "20.66.3.0/24"]);
        let mut all = peer.good(2);
        all[0] = origin(9);
        peer.send(&update(&nlri(&[net("20.66.1.0/24")]), &all, &nlri(&[net("20.66.2.0/24")])));
        bed.settled(&mut peer);
        let has = |p: &str| bed.received_prefix(peer.addr, p).is_some();
        same((has("20.66.1.0/24"), has("20.66.2.0/24"), has("20.66.3.0/24")), (false, false, true))
    });
    report.case("4271 §6.3 a flood of flawed UPDATEs does not end the session", || {
        let mut peer = bed.peer(at(1, 17), EXTERNAL);
        let mut all = peer.good(2);
        all[0] = origin(9);
        let m = update(&[], &all, &nlri(&[net("20.67.0.0/24")]));
        for _ in 0..2000 {
            peer.send(&m);
        }
        bed.settled(&mut peer);
        holds(bed.neighbor(peer.addr)["flaws"].as_u64() >= Some(2000), "they are not counted")
    });
    report.finish();
}
