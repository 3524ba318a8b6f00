//! What a neighbor hears: which routes, and with which attributes.

use crate::{
    bed::{Bed, EXTERNAL, HOST, HOST_AS, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{Attributes, Open, REFRESH, attr, communities, message, next_hop, segment},
};

/// Kinds of neighbors by the third octet of their addresses.
const EBGP: u8 = 1;
const TRANSIT: u8 = 2;
const IBGP: u8 = 3;
const CLIENT: u8 = 4;

fn bed() -> Bed {
    let mut config = passive(EBGP, 4, "remote-as = 65001");
    config += &passive(TRANSIT, 4, "remote-as = \"external\"\ntransit = true");
    config += &passive(IBGP, 4, "remote-as = 65000");
    config += &passive(CLIENT, 4, "remote-as = 65000\nroute-reflector-client = true");
    config += "[advertise]\nnetworks = [\"44.0.0.0/16\"]\ncommunities = [\"65000:44\"]\nmed = 5\n";
    Bed::start("cluster-id = \"7.7.7.7\"", &config)
}

/// What `peer` hears of `prefix`, or `None` when a mark announced behind it came without it. Routes that are
/// ready together may go out in any order: so a moment longer.
fn receives(peer: &mut Peer, prefix: &str, mark: &str) -> Result<Option<Attributes>, String> {
    peer.receives(PATIENCE, |h| h.routes.contains_key(mark).then_some(()))?;
    Ok(peer.receives(0.05, |h| h.routes.get(prefix).cloned()).ok())
}

fn value(received: &Attributes, code: u8) -> Option<Vec<u8>> {
    received.get(&code).map(|a| a.1.clone())
}

#[test]
fn own_routes() {
    let bed = bed();
    let mut report = Report::default();
    for (name, kind, asn) in [("eBGP", EBGP, EXTERNAL), ("iBGP", IBGP, HOST_AS), ("client", CLIENT, HOST_AS)]
    {
        report.case(&format!("4271 §5.1 an own route at {name}"), || {
            let mut peer = bed.peer(at(kind, 1), asn);
            let heard = peer.receives(PATIENCE, |h| h.routes.get("44.0.0.0/16").cloned())?;
            let internal = asn == HOST_AS;
            same(value(&heard, 1), Some(vec![0]))?;
            same(value(&heard, 2), Some(if internal { vec![] } else { segment(2, &[HOST_AS]) }))?;
            same(value(&heard, 3), Some(HOST.octets().to_vec()))?;
            same(value(&heard, 4), Some(vec![0, 0, 0, 5]))?;
            same(value(&heard, 5), internal.then(|| vec![0, 0, 0, 100]))?;
            same(value(&heard, 8), Some(vec![0xfd, 0xe8, 0, 44]))?;
            same((heard.contains_key(&9), heard.contains_key(&10)), (false, false))
        });
        report.case(&format!("4271 §4.3 flags of attributes at {name}"), || {
            let mut peer = bed.peer(at(kind, 2), asn);
            let heard = peer.receives(PATIENCE, |h| h.routes.get("44.0.0.0/16").cloned())?;
            for (code, (flags, _)) in &heard {
                let want = match code {
                    1 | 2 | 3 | 5 => 0x40,
                    4 => 0x80,
                    _ => 0xc0,
                };
                same((*code, flags & 0xe0), (*code, want))?;
            }
            Ok(())
        });
        report.case(&format!("4724 §2 End-of-RIB of both families at {name}"), || {
            let mut peer = bed.peer(at(kind, 3), asn);
            peer.receives(PATIENCE, |h| (h.ended.contains(&1) && h.ended.contains(&2)).then_some(()))?;
            same(peer.received.routes.contains_key("44.0.0.0/16"), true)
        });
    }
    report.finish();
}

#[test]
fn which_routes_are_advertised_to_whom() {
    let bed = bed();
    let mut report = Report::default();
    let mut from = [
        bed.peer(at(EBGP, 1), EXTERNAL),
        bed.peer(at(IBGP, 1), HOST_AS),
        bed.peer(at(CLIENT, 1), HOST_AS),
        bed.peer(at(TRANSIT, 1), 65009),
    ];
    let mut to = [
        bed.peer(at(EBGP, 2), EXTERNAL),
        bed.peer(at(TRANSIT, 2), 65003),
        bed.peer(at(IBGP, 2), HOST_AS),
        bed.peer(at(CLIENT, 2), HOST_AS),
    ];
    for (n, peer) in (1..).zip(&mut from) {
        peer.announce(n, &[&format!("20.80.{n}.0/24")]);
        bed.settled(peer);
    }
    // Rows: from whom; columns: eBGP, eBGP with transit, iBGP, client.
    #[rustfmt::skip]
    let table = [
        ("eBGP",     [false, true, true,  true]),
        ("iBGP",     [false, true, false, true]),
        ("client",   [false, true, true,  true]),
        ("transit",  [false, true, true,  true]),
    ];
    for (column, peer) in to.iter_mut().enumerate() {
        for _ in 0..20 {
            let _ = peer.receives(0.02, |_| None::<()>);
        }
        for (n, (name, row)) in (1..).zip(&table) {
            let prefix = format!("20.80.{n}.0/24");
            report.case(&format!("4271 §9.2, 4456 §6 from {name} to {}", peer.addr), || {
                same(peer.received.routes.contains_key(&prefix), row[column])
            });
        }
    }
    report.case("4271 §9.2 nothing goes back to where it came from", || {
        for (n, peer) in (1..).zip(&mut from) {
            let _ = peer.receives(0.05, |_| None::<()>);
            holds(!peer.received.routes.contains_key(&format!("20.80.{n}.0/24")), &peer.addr.to_string())?;
        }
        Ok(())
    });
    report.case("4271 §9.1.3 a lost neighbor's routes are withdrawn from the others", || {
        let [external, ..] = from;
        drop(external);
        to[1].receives(PATIENCE, |h| h.events.contains(&"-20.80.1.0/24".to_owned()).then_some(()))
    });
    report.finish();
}

#[test]
fn the_guard_outbound_withholds_and_lets_follow() {
    let mut config = passive(EBGP, 1, "remote-as = 65001\ntransit = true\nmax-prefixes-out = 3");
    config += &passive(IBGP, 1, "remote-as = 65000");
    config += "[advertise]\nnetworks = [\"44.0.0.0/16\"]\n";
    let bed = Bed::start("", &config);
    let mut to = bed.peer(at(EBGP, 1), EXTERNAL);
    let mut from = bed.peer(at(IBGP, 1), HOST_AS);
    let prefixes: Vec<_> = (0..5).map(|n| format!("20.80.{n}.0/24")).collect();
    let mut report = Report::default();
    // The first may be told before the others are there, so the counts are awaited.
    let counts = |advertised: u64, withheld: u64| {
        wait_for(format!("{advertised} told, {withheld} withheld"), 10.0, || {
            let shown = bed.neighbor(at(EBGP, 1));
            let count = |field: &str| shown[field]["ipv4-unicast"].as_u64();
            (count("advertised") == Some(advertised) && count("withheld") == Some(withheld)).then_some(())
        });
    };
    report.case("4486 §3 turned round: three are told, the rest is withheld, the session stays", || {
        from.announce(1, &prefixes.iter().map(String::as_str).collect::<Vec<_>>());
        counts(3, 3);
        to.receives(PATIENCE, |h| (h.routes.len() == 3).then_some(()))?;
        same(bed.state(at(EBGP, 1)), "established".to_owned())
    });
    report.case("what was withheld follows", || {
        let told: Vec<_> = to.received.routes.keys().filter(|p| p.starts_with("20.")).cloned().collect();
        same(told.len(), 2)?;
        from.withdraw(&told.iter().map(String::as_str).collect::<Vec<_>>());
        counts(3, 1);
        to.receives(PATIENCE, |h| {
            (h.routes.len() == 3 && told.iter().all(|p| !h.routes.contains_key(p))).then_some(())
        })
    });
    report.finish();
}

#[test]
fn attributes_on_their_way() {
    let bed = bed();
    let mut report = Report::default();
    let mut external = bed.peer(at(EBGP, 1), EXTERNAL);
    let mut client = bed.peer(at(CLIENT, 1), HOST_AS);
    let mut transit = bed.peer(at(TRANSIT, 1), 65003);
    let mut internal = bed.peer(at(IBGP, 1), HOST_AS);
    let mut n = 0;
    let mut pass = |from: &mut Peer, to: &mut Peer, more: &[Vec<u8>]| -> Result<Option<Attributes>, String> {
        n += 1;
        let (prefix, mark) = (format!("20.90.{n}.0/24"), format!("20.91.{n}.0/24"));
        let mut all = from.good(77);
        for attribute in more {
            match all.iter_mut().find(|a| a[1] == attribute[1]) {
                Some(it) => it.clone_from(attribute),
                None => all.push(attribute.clone()),
            }
        }
        from.announce_with(&all, &[&prefix]);
        from.announce(1, &[&mark]);
        receives(to, &prefix, &mark)
    };
    report.case(
        "4271 §5.1.2, §5.1.3, §5.1.4 eBGP to eBGP: prepended, own next hop, no MED, no LOCAL_PREF",
        || {
            let heard = pass(&mut external, &mut transit, &[])?.ok_or("not heard")?;
            same(value(&heard, 2), Some(segment(2, &[HOST_AS, EXTERNAL])))?;
            same(value(&heard, 3), Some(HOST.octets().to_vec()))?;
            same((value(&heard, 4), value(&heard, 5)), (None, None))
        },
    );
    report.case("4271 §5.1.2, §5.1.3, §5.1.4 eBGP to iBGP: as it is, with LOCAL_PREF", || {
        let heard = pass(&mut external, &mut internal, &[])?.ok_or("not heard")?;
        same(value(&heard, 2), Some(segment(2, &[EXTERNAL])))?;
        same(value(&heard, 3), Some(at(EBGP, 1).octets().to_vec()))?;
        same((value(&heard, 4), value(&heard, 5)), (Some(vec![0, 0, 0, 77]), Some(vec![0, 0, 0, 100])))
    });
    report.case("4456 §8, §10 reflected: ORIGINATOR_ID, CLUSTER_LIST, all else as it is", || {
        let heard =
            pass(&mut client, &mut internal, &[attr(0x40, 5, &[0, 0, 0, 250])])?.ok_or("not heard")?;
        same(value(&heard, 9), Some(at(CLIENT, 1).octets().to_vec()))?;
        same(value(&heard, 10), Some(vec![7, 7, 7, 7]))?;
        same(value(&heard, 3), Some(at(CLIENT, 1).octets().to_vec()))?;
        same(value(&heard, 5), Some(vec![0, 0, 0, 250]))?;
        same(value(&heard, 4), Some(vec![0, 0, 0, 77]))
    });
    report.case("4456 §8 reflected again: ORIGINATOR_ID stays, our cluster comes first", || {
        let more = [attr(0x80, 9, &[9, 9, 9, 9]), attr(0x80, 10, &[1, 1, 1, 1])];
        let heard = pass(&mut client, &mut internal, &more)?.ok_or("not heard")?;
        same(value(&heard, 9), Some(vec![9, 9, 9, 9]))?;
        same(value(&heard, 10), Some(vec![7, 7, 7, 7, 1, 1, 1, 1]))
    });
    report.case("4456 §8 neither goes to eBGP", || {
        let more = [attr(0x80, 9, &[9, 9, 9, 9]), attr(0x80, 10, &[1, 1, 1, 1])];
        let heard = pass(&mut client, &mut transit, &more)?.ok_or("not heard")?;
        same((value(&heard, 9), value(&heard, 10), value(&heard, 5)), (None, None, None))
    });
    #[rustfmt::skip]
    let unknown: [(&str, Vec<u8>, Option<(u8, Vec<u8>)>); 5] = [
        ("4271 §5 unknown transitive is passed on, with Partial", attr(0xc0, 200, &[1, 2, 3]), Some((0xe0, vec![1, 2, 3]))),
        ("4271 §5 unknown transitive with Partial", attr(0xe0, 200, &[1, 2, 3]), Some((0xe0, vec![1, 2, 3]))),
        ("4271 §5 unknown transitive of 1,000 octets", attr(0xd0, 200, &[9; 1000]), Some((0xe0, vec![9; 1000]))),
        ("4271 §5 unknown transitive of no octets", attr(0xc0, 200, &[]), Some((0xe0, vec![]))),
        ("4271 §5 unknown non-transitive is not passed on", attr(0x80, 200, &[1]), None),
    ];
    for (name, attribute, want) in unknown {
        for internal_too in [false, true] {
            report.case(&format!("{name}, to {}", if internal_too { "iBGP" } else { "eBGP" }), || {
                let to = if internal_too { &mut internal } else { &mut transit };
                let heard = pass(&mut external, to, std::slice::from_ref(&attribute))?.ok_or("not heard")?;
                same(heard.get(&200).map(|(f, v)| (f & 0xe0, v.clone())), want.clone())
            });
        }
    }
    let both = |n: u32| vec![communities(&[n])];
    #[rustfmt::skip]
    let known = [
        ("1997 NO_EXPORT",            0xffff_ff01, false, true),
        ("1997 NO_ADVERTISE",         0xffff_ff02, false, false),
        ("1997 NO_EXPORT_SUBCONFED",  0xffff_ff03, false, true),
        ("3765 NOPEER",               0xffff_ff04, true,  true),
        ("7999 BLACKHOLE stays here", 0xffff_029a, false, true),
        ("8326 GRACEFUL_SHUTDOWN",    0xffff_0000, true,  true),
        ("1997 an ordinary community", 0xfde9_0007, true, true),
    ];
    for (name, community, to_external, to_internal) in known {
        report.case(&format!("{name}, to eBGP"), || {
            let heard = pass(&mut external, &mut transit, &both(community))?;
            same(heard.is_some(), to_external)?;
            same(heard.and_then(|h| value(&h, 8)), to_external.then(|| community.to_be_bytes().to_vec()))
        });
        report.case(&format!("{name}, to iBGP"), || {
            let heard = pass(&mut external, &mut internal, &both(community))?;
            same(heard.is_some(), to_internal)
        });
    }
    report.case("4360, 8092, 5701, 4271 §5.1.6, §5.1.7 what is transitive arrives as it was", || {
        let more = [
            attr(0xc0, 16, &[0, 2, 0, 9, 0, 0, 0, 7]),
            attr(0xc0, 32, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
            attr(0xc0, 25, &[7; 20]),
            attr(0x40, 6, &[]),
            attr(0xc0, 7, &[0, 0, 0, 9, 1, 1, 1, 1]),
        ];
        let heard = pass(&mut external, &mut transit, &more)?.ok_or("not heard")?;
        for attribute in &more {
            same(value(&heard, attribute[1]), Some(attribute[3..].to_vec()))?;
        }
        Ok(())
    });
    report.case("4360 §6 non-transitive extended communities stay in the AS", || {
        let more = [attr(0xc0, 16, &[0x40, 2, 0, 9, 0, 0, 0, 7])];
        let heard = pass(&mut external, &mut transit, &more)?.ok_or("not heard")?;
        same(value(&heard, 16), None)
    });
    report.case("4271 §5.1.3 third-party next hop to iBGP", || {
        let heard = pass(&mut external, &mut internal, &[next_hop(at(9, 9))])?.ok_or("not heard")?;
        same(value(&heard, 3), Some(vec![10, 2, 9, 9]))
    });
    report.case("4271 §5.1.3 no neighbor is told a route by way of itself", || {
        let mut third = bed.peer(at(IBGP, 4), HOST_AS);
        let heard = pass(&mut external, &mut third, &[next_hop(at(IBGP, 4))])?;
        same(heard.is_some(), false)?;
        let others = pass(&mut external, &mut internal, &[next_hop(at(IBGP, 4))])?.ok_or("not heard")?;
        same(value(&others, 3), Some(at(IBGP, 4).octets().to_vec()))
    });
    report.case("4271 §4.3 a path of 255 numbers grows by one", || {
        let long: Vec<u32> = std::iter::once(EXTERNAL).chain([64999; 254]).collect();
        let heard =
            pass(&mut external, &mut transit, &[attr(0x50, 2, &segment(2, &long))])?.ok_or("not heard")?;
        same(value(&heard, 2), Some([segment(2, &[HOST_AS]), segment(2, &long)].concat()))
    });
    report.finish();
}

#[test]
fn refresh() {
    let bed = bed();
    let mut report = Report::default();
    report.case("2918 §4 a refresh brings everything again", || {
        let mut peer = bed.peer(at(EBGP, 1), EXTERNAL);
        peer.receives(PATIENCE, |h| h.ended.contains(&1).then_some(()))?;
        peer.received.routes.clear();
        peer.send(&message(REFRESH, &[0, 1, 0, 1]));
        peer.receives(PATIENCE, |h| h.routes.contains_key("44.0.0.0/16").then_some(()))
    });
    report.case("2918 §4 refresh of a family that nobody negotiated is ignored", || {
        let mut peer = bed.peer(at(EBGP, 2), EXTERNAL);
        peer.send(&message(REFRESH, &[0, 25, 0, 65]));
        peer.send(&message(REFRESH, &[0, 1, 0, 2]));
        bed.settled(&mut peer);
        Ok(())
    });
    let enhanced = |n: u8| Open::new(EXTERNAL, at(EBGP, n)).with(70, &[]);
    report.case("7313 §4.1 an enhanced refresh is framed by BoRR and EoRR", || {
        let mut peer = bed.session(at(EBGP, 3), &enhanced(3));
        peer.receives(PATIENCE, |h| h.ended.contains(&1).then_some(()))?;
        peer.received.routes.clear();
        peer.send(&message(REFRESH, &[0, 1, 0, 1]));
        same(peer.expect(REFRESH, PATIENCE), Some(vec![0, 1, 1, 1]))?;
        same(peer.expect(REFRESH, PATIENCE), Some(vec![0, 1, 2, 1]))?;
        same(peer.received.routes.contains_key("44.0.0.0/16"), true)
    });
    report.case("7313 §4.2 what was not said again between BoRR and EoRR goes", || {
        let mut peer = bed.session(at(EBGP, 4), &enhanced(4));
        peer.announce(1, &["20.95.1.0/24", "20.95.2.0/24"]);
        bed.settled(&mut peer);
        peer.send(&message(REFRESH, &[0, 1, 1, 1]));
        peer.announce(2, &["20.95.1.0/24"]);
        bed.settled(&mut peer);
        same(bed.paths("20.95.2.0/24").len(), 1)?;
        peer.send(&message(REFRESH, &[0, 1, 2, 1]));
        bed.settled(&mut peer);
        same((bed.paths("20.95.1.0/24").len(), bed.paths("20.95.2.0/24").len()), (1, 0))
    });
    report.case("7313 §5 a refresh of a wrong length", || {
        let mut peer = bed.session(at(TRANSIT, 1), &Open::new(65003, at(TRANSIT, 1)).with(70, &[]));
        peer.send(&message(REFRESH, &[0, 1, 1, 1, 9]));
        let body = peer.ends()?;
        same(body[..2].to_vec(), vec![7, 1])
    });
    report.case("7313 §5 an unknown subtype is ignored", || {
        let mut peer = bed.session(at(TRANSIT, 2), &Open::new(65003, at(TRANSIT, 2)).with(70, &[]));
        peer.send(&message(REFRESH, &[0, 1, 77, 1]));
        bed.settled(&mut peer);
        Ok(())
    });
    report.finish();
}
