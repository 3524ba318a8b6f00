//! RFC 4724, 8538, 9494 as helper, RFC 9234 roles, RFC 7911 ADD-PATH.

use std::net::Ipv4Addr;

use crate::{
    bed::{Bed, EXTERNAL, HOST_AS, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{
        NOTIFICATION, Open, REFRESH, Received, attr, communities, end_of_rib, message, net, nlri, origin,
        path, segment, update,
    },
};

fn graceful(n: u8, flags: u8, seconds: u16) -> Open {
    Open::new(EXTERNAL, at(1, n)).graceful(flags, seconds, 0x80)
}

fn stale(bed: &Bed, prefix: &str) -> Option<bool> {
    bed.paths(prefix).first()?["stale"].as_bool()
}

fn learn(bed: &Bed, n: u8, open: &Open) -> (Peer, String, String) {
    let (one, two) = (format!("20.{n}.1.0/24"), format!("20.{n}.2.0/24"));
    let mut peer = bed.session(at(1, n), open);
    peer.announce(1, &[&one, &two]);
    peer.send(&end_of_rib());
    bed.settled(&mut peer);
    wait_for("in the kernel", 3.0, || bed.kernel().contains(&two).then_some(()));
    (peer, one, two)
}

#[test]
fn helping_a_neighbor_that_restarts() {
    let bed = Bed::start("hold-time = 3", &passive(1, 20, "remote-as = 65001\nidle-hold-time = 1"));
    let mut report = Report::default();
    let bed = &bed;
    report.together(vec![
        (
            "4724 §4.2 stale routes stay, what is not said again goes with End-of-RIB",
            Box::new(|| {
                let (peer, one, two) = learn(bed, 1, &graceful(1, 0, 60));
                drop(peer);
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                holds(bed.kernel().contains(&one) && bed.kernel().contains(&two), "not in the kernel")?;
                let mut again = bed.session(at(1, 1), &graceful(1, 8, 60));
                again.announce(1, &[&one]);
                bed.settled(&mut again);
                same((stale(bed, &one), stale(bed, &two)), (Some(false), Some(true)))?;
                again.send(&end_of_rib());
                bed.settled(&mut again);
                same((stale(bed, &one), stale(bed, &two)), (Some(false), None))?;
                wait_for("swept", 3.0, || (!bed.kernel().contains(&two)).then_some(()));
                holds(bed.kernel().contains(&one), "the other went too")
            }),
        ),
        (
            "4724 §4.2 the restart time is over",
            Box::new(|| {
                let (peer, one, _) = learn(bed, 2, &graceful(2, 0, 2));
                drop(peer);
                wait_for("stale", 1.5, || (stale(bed, &one) == Some(true)).then_some(()));
                wait_for("gone", 4.0, || {
                    (stale(bed, &one).is_none() && !bed.kernel().contains(&one)).then_some(())
                });
                Ok(())
            }),
        ),
        (
            "4724 §4.2 back without the forwarding bit: nothing was kept",
            Box::new(|| {
                let (peer, one, _) = learn(bed, 3, &graceful(3, 0, 60));
                drop(peer);
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                let _again = bed.session(at(1, 3), &Open::new(EXTERNAL, at(1, 3)).graceful(8, 60, 0));
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "4724 §4.2 back without the capability: nothing was kept",
            Box::new(|| {
                let (peer, one, _) = learn(bed, 4, &graceful(4, 0, 60));
                drop(peer);
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                let _again = bed.session(at(1, 4), &Open::new(EXTERNAL, at(1, 4)));
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "4724 §4.2 no help without the capability",
            Box::new(|| {
                let (peer, one, _) = learn(bed, 5, &Open::new(EXTERNAL, at(1, 5)));
                drop(peer);
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "4724 §4 a NOTIFICATION without the N bit is an end",
            Box::new(|| {
                let (mut peer, one, _) = learn(bed, 6, &graceful(6, 0, 60));
                peer.send(&message(NOTIFICATION, &[6, 4]));
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "8538 §4 a NOTIFICATION with the N bit is not",
            Box::new(|| {
                let (mut peer, one, _) = learn(bed, 7, &graceful(7, 4, 60));
                peer.send(&message(NOTIFICATION, &[6, 4]));
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                Ok(())
            }),
        ),
        (
            "8538 §4 a Hard Reset is an end",
            Box::new(|| {
                let (mut peer, one, _) = learn(bed, 8, &graceful(8, 4, 60));
                peer.send(&message(NOTIFICATION, &[6, 9, 6, 4]));
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "8538 §4 hold timer with the N bit: routes stay",
            Box::new(|| {
                let (mut peer, one, _) = learn(bed, 9, &graceful(9, 4, 60).hold(3));
                same(peer.ends()?, vec![4, 0])?;
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                Ok(())
            }),
        ),
        (
            "4724 §4.2 hold timer without the N bit: routes go",
            Box::new(|| {
                let (mut peer, one, _) = learn(bed, 10, &graceful(10, 0, 60).hold(3));
                same(peer.ends()?, vec![4, 0])?;
                wait_for("gone", 3.0, || stale(bed, &one).is_none().then_some(()));
                Ok(())
            }),
        ),
        (
            "4724 §4.2 a second restart before the End-of-RIB",
            Box::new(|| {
                let (peer, one, two) = learn(bed, 11, &graceful(11, 0, 60));
                drop(peer);
                let mut again = bed.session(at(1, 11), &graceful(11, 8, 60));
                again.announce(1, &[&one]);
                bed.settled(&mut again);
                drop(again);
                wait_for("what was stale twice is gone", 3.0, || stale(bed, &two).is_none().then_some(()));
                wait_for("stale", 3.0, || (stale(bed, &one) == Some(true)).then_some(()));
                Ok(())
            }),
        ),
    ]);
    report.finish();
}

#[test]
fn long_lived_stale_routes_are_the_last_choice() {
    let mut config = passive(1, 3, "remote-as = 65001\nlong-lived-stale-time = 600");
    config += &passive(2, 2, "remote-as = \"external\"\ntransit = true\nlong-lived-stale-time = 600");
    let bed = Bed::start("", &config);
    let mut report = Report::default();
    let llgr = [0, 1, 1, 0x80, 0, 2, 0x58, 0, 2, 1, 0x80, 0, 2, 0x58];
    let open = |n: u8| graceful(n, 0, 1).with(71, &llgr);
    let mut knows = bed.session(at(2, 1), &Open::new(65003, at(2, 1)).graceful(0, 60, 0).with(71, &llgr));
    let mut not = bed.peer(at(2, 2), 65004);
    let (mut peer, one, two) = learn(&bed, 1, &open(1));
    let mut all = peer.good(1);
    all.push(communities(&[0xffff_0007]));
    peer.announce_with(&all, &["20.1.3.0/24"]);
    bed.settled(&mut peer);
    let mut worse = bed.peer(at(1, 2), EXTERNAL);
    let mut all = worse.good(1);
    all[1] = path(&[EXTERNAL, 7, 8, 9]);
    worse.announce_with(&all, &[&one]);
    bed.settled(&mut worse);
    drop(peer);
    report.case("9494 §4.2 any other path wins", || {
        wait_for("the other path", 5.0, || {
            (bed.paths(&one).first()?["neighbor"] == at(1, 2).to_string()).then_some(())
        });
        same(bed.paths(&one).len(), 2)
    });
    report.case("9494 §4.2 without another one it stays", || {
        same(stale(&bed, &two), Some(true))?;
        holds(bed.kernel().contains(&two), "not in the kernel")
    });
    report.case("9494 §4.2 NO_LLGR goes", || same(stale(&bed, "20.1.3.0/24"), None));
    let tagged = |h: &Received| {
        let (_, value) = h.routes.get(&two)?.get(&8)?;
        (value[..] == [0xff, 0xff, 0, 6]).then_some(())
    };
    report.case("9494 §4.3 passed on with LLGR_STALE", || knows.receives(PATIENCE, tagged));
    report.case("9494 §4.3 withdrawn from who does not know it", || {
        not.receives(PATIENCE, |h| h.events.contains(&format!("-{two}")).then_some(()))
    });
    report.case("9494 §4.3 a received LLGR_STALE is the last choice", || {
        let mut third = bed.peer(at(1, 3), EXTERNAL);
        let mut all = third.good(1);
        all.push(communities(&[0xffff_0006]));
        third.announce_with(&all, &["20.7.0.0/24"]);
        bed.settled(&mut third);
        let mut long = worse.good(1);
        long[1] = path(&[EXTERNAL, 7, 8, 9]);
        worse.announce_with(&long, &["20.7.0.0/24"]);
        bed.settled(&mut worse);
        same(bed.paths("20.7.0.0/24")[0]["neighbor"].as_str(), Some("10.2.1.2"))
    });
    report.finish();
}

#[test]
fn roles() {
    let own = ["provider", "customer", "peer", "rs", "rs-client"];
    let mut config = String::new();
    for (n, role) in (1..).zip(own) {
        config += &passive(n, 20, &format!("remote-as = 65001\ntransit = true\nrole = \"{role}\""));
    }
    config += &passive(9, 1, "remote-as = \"external\"\ntransit = true");
    let bed = Bed::start("", &config);
    let mut report = Report::default();
    // RFC 9234 §4.1: provider 0, rs 1, rs-client 2, customer 3, peer 4.
    let pair = [3, 0, 4, 2, 1];
    for (kind, (role, fits)) in (1..).zip(own.into_iter().zip(pair)) {
        for theirs in 0..=5_u8 {
            let fine = theirs == fits;
            report.case(&format!("9234 §4.2 we are {role}, they are {theirs}"), || {
                let mut peer = bed.dial(at(kind, 1 + theirs));
                let open = Open::new(EXTERNAL, at(kind, 1 + theirs)).with(9, &[theirs]);
                if fine {
                    return holds(peer.try_establish(&open), "refused");
                }
                peer.send(&open.encode());
                same(peer.ends()?, vec![2, 11])
            });
        }
        report.case(&format!("9234 §4.2 we are {role}, they have none"), || {
            let mut peer = bed.dial(at(kind, 8));
            holds(peer.try_establish(&Open::new(EXTERNAL, at(kind, 8))), "refused")
        });
        report.case(&format!("9234 §4.2 we are {role}, they have two that differ"), || {
            let mut peer = bed.dial(at(kind, 9));
            peer.send(&Open::new(EXTERNAL, at(kind, 9)).with(9, &[fits]).with(9, &[(fits + 1) % 5]).encode());
            same(peer.ends()?, vec![2, 11])
        });
        report.case(&format!("9234 §4.2 we are {role}, they say theirs twice"), || {
            let mut peer = bed.dial(at(kind, 10));
            let open = Open::new(EXTERNAL, at(kind, 10)).with(9, &[fits]).with(9, &[fits]);
            holds(peer.try_establish(&open), "refused")
        });
    }
    // Ingress: ours is the role; what becomes of a route without, with the neighbor's, with another OTC.
    let otc = |n: u32| attr(0xc0, 35, &n.to_be_bytes());
    #[rustfmt::skip]
    let ingress = [
        ("provider",  1, [true, false, false]),
        ("customer",  2, [true, true,  true]),
        ("peer",      3, [true, true,  false]),
        ("rs",        4, [true, false, false]),
        ("rs-client", 5, [true, true,  true]),
    ];
    for (role, kind, takes) in ingress {
        let mut peer = bed.session(at(kind, 11), &Open::new(EXTERNAL, at(kind, 11)));
        for (n, (more, taken)) in [None, Some(EXTERNAL), Some(7)].into_iter().zip(takes).enumerate() {
            report.case(&format!("9234 §5 we are {role}, OTC {more:?} comes"), || {
                let prefix = format!("20.{kind}.{n}.0/24");
                let mut all = peer.good(1);
                all.extend(more.map(otc));
                peer.announce_with(&all, &[&prefix]);
                bed.settled(&mut peer);
                let path = bed.received_prefix(peer.addr, &prefix).ok_or("not in the table")?;
                same(path["best"].as_bool(), Some(taken)).map_err(|e| format!("{e}: {}", path["reason"]))
            });
        }
    }
    // Egress: a route without OTC and one with, from a neighbor without a role.
    let mut plain = bed.peer(at(9, 1), 65009);
    plain.announce(1, &["21.0.0.0/24"]);
    let mut all = plain.good(1);
    all.push(otc(7));
    plain.announce_with(&all, &["21.0.1.0/24"]);
    bed.settled(&mut plain);
    #[rustfmt::skip]
    let egress = [
        ("provider",  1, Some(HOST_AS), Some(7)),
        ("customer",  2, None,          None),
        ("peer",      3, Some(HOST_AS), None),
        ("rs",        4, Some(HOST_AS), Some(7)),
        ("rs-client", 5, None,          None),
    ];
    for (role, kind, added, kept) in egress {
        report.case(&format!("9234 §5 we are {role}, what goes out"), || {
            let mut peer = bed.session(at(kind, 12), &Open::new(EXTERNAL, at(kind, 12)));
            peer.receives(PATIENCE, |h| h.ended.contains(&1).then_some(()))?;
            let value =
                |prefix: &str| peer.received.routes.get(prefix).map(|a| a.get(&35).map(|v| v.1.clone()));
            let octets = |n: Option<u32>| n.map(|n| n.to_be_bytes().to_vec());
            same(value("21.0.0.0/24"), Some(octets(added)))?;
            same(value("21.0.1.0/24"), kept.map(|n| octets(Some(n))))
        });
    }
    report.finish();
}

#[test]
fn several_paths() {
    let mut config = passive(1, 4, "remote-as = 65001\nadd-paths = \"both\"");
    config += &passive(2, 2, "remote-as = \"external\"\ntransit = true\nadd-paths = \"send\"");
    config += &passive(3, 1, "remote-as = 65001");
    config += &passive(4, 3, "remote-as = \"external\"\ntransit = true\nadd-paths = \"both\"");
    let bed = Bed::start("", &config);
    let mut report = Report::default();
    let both = |n: u8| Open::new(EXTERNAL, at(1, n)).with(69, &[0, 1, 1, 3]);
    let with_id = |id: u32, prefix: &str| [&id.to_be_bytes()[..], &nlri(&[net(prefix)])].concat();
    let attributes = |peer: &Peer, hop: Ipv4Addr| {
        vec![origin(0), path(&[EXTERNAL]), crate::words::next_hop(hop), peer.good(1)[3].clone()]
    };
    let count = |prefix: &str| bed.paths(prefix).len();
    report.case("7911 §3 two paths to a prefix, one withdrawn, one replaced", || {
        let mut peer = bed.session(at(1, 1), &both(1));
        for id in [1, 2] {
            let m = update(&[], &attributes(&peer, at(8, 1)), &with_id(id, "20.1.0.0/24"));
            peer.send(&m);
        }
        wait_for("two", 3.0, || (count("20.1.0.0/24") == 2).then_some(()));
        let m = update(&[], &attributes(&peer, at(8, 2)), &with_id(2, "20.1.0.0/24"));
        peer.send(&m);
        wait_for("replaced", 3.0, || {
            let hops: Vec<_> = bed.paths("20.1.0.0/24").iter().map(|p| p["next_hop"].clone()).collect();
            (hops.len() == 2 && hops.contains(&"10.2.8.2".into())).then_some(())
        });
        peer.send(&update(&with_id(1, "20.1.0.0/24"), &[], &[]));
        wait_for("one", 3.0, || (count("20.1.0.0/24") == 1).then_some(()));
        peer.send(&update(&with_id(9, "20.1.0.0/24"), &[], &[]));
        peer.send(&update(&with_id(2, "20.1.0.0/24"), &[], &[]));
        wait_for("none", 3.0, || (count("20.1.0.0/24") == 0).then_some(()));
        Ok(())
    });
    report.case("7606 §5.3 a prefix cut off behind its path identifier", || {
        let mut peer = bed.session(at(1, 2), &both(2));
        let m = update(&[], &attributes(&peer, at(8, 1)), &[0, 0, 0, 1]);
        peer.send(&m);
        let body = peer.ends()?;
        same(body[..2].to_vec(), vec![3, 10])
    });
    report.case("7606 §2 treat-as-withdraw of one path leaves the other", || {
        let mut peer = bed.session(at(1, 3), &both(3));
        for id in [1, 2] {
            let m = update(&[], &attributes(&peer, at(8, 1)), &with_id(id, "20.3.0.0/24"));
            peer.send(&m);
        }
        wait_for("two", 3.0, || (count("20.3.0.0/24") == 2).then_some(()));
        let mut bad = attributes(&peer, at(8, 1));
        bad[0] = origin(9);
        peer.send(&update(&[], &bad, &with_id(1, "20.3.0.0/24")));
        wait_for("one", 3.0, || (count("20.3.0.0/24") == 1).then_some(()));
        Ok(())
    });
    report.case("7911 §4 sent with path identifiers where they receive them", || {
        let mut peer = bed.session(at(1, 4), &both(4));
        let m = update(&[], &attributes(&peer, at(8, 1)), &with_id(5, "20.4.0.0/24"));
        peer.send(&m);
        let open = Open::new(65003, at(2, 1)).with(69, &[0, 1, 1, 1]);
        let mut other = bed.session(at(2, 1), &open);
        other.received.add_path = true;
        other.receives(PATIENCE, |h| h.routes.keys().any(|k| k.starts_with("20.4.0.0/24#")).then_some(()))
    });
    report.case(
        "7911 §3 two sources of one prefix: each path with its identifier, by which it goes and changes",
        || {
            let (transit, prefix) =
                (|asn, n| Open::new(asn, at(4, n)).with(69, &[0, 1, 1, 3]), "20.6.0.0/24");
            let mut one = bed.session(at(4, 1), &transit(65011, 1));
            let mut two = bed.session(at(4, 2), &transit(65012, 2));
            let mut third = bed.session(at(4, 3), &transit(65013, 3));
            for peer in [&mut one, &mut two, &mut third] {
                peer.received.add_path = true;
            }
            let said = |peer: &Peer, version: u32| {
                let all = [
                    origin(0),
                    path(&[peer.asn]),
                    crate::words::next_hop(peer.addr),
                    communities(&[version]),
                ];
                update(&[], &all, &with_id(9, prefix))
            };
            one.send(&said(&one, 1));
            two.send(&said(&two, 1));
            // What a neighbor holds of the prefix: identifier and community, by the number of the source.
            let held = |h: &Received| -> std::collections::BTreeMap<u32, (String, u32)> {
                let of = h.routes.iter().filter(|(key, _)| key.starts_with(&format!("{prefix}#")));
                of.map(|(key, all)| {
                    let number = |octets: &[u8]| u32::from_be_bytes(octets.try_into().expect("four octets"));
                    let (path, tag) = (&all[&2].1, &all[&8].1);
                    (number(&path[path.len() - 4..]), (key.clone(), number(tag)))
                })
                .collect()
            };
            let both = third.receives(PATIENCE, |h| Some(held(h)).filter(|all| all.len() == 2))?;
            holds(both[&65011].0 != both[&65012].0, "both have the same identifier")?;
            one.receives(PATIENCE, |h| Some(held(h)).filter(|all| all.contains_key(&65012)))?;
            two.receives(PATIENCE, |h| Some(held(h)).filter(|all| all.contains_key(&65011)))?;

            two.send(&said(&two, 2));
            let changed = third.receives(PATIENCE, |h| Some(held(h)).filter(|all| all[&65012].1 == 2))?;
            same((&changed[&65012].0, &changed[&65011]), (&both[&65012].0, &both[&65011]))?;
            holds(
                !third.received.events.iter().any(|word| word.starts_with('-')),
                "replaced without a withdrawal",
            )?;

            two.send(&update(&with_id(9, prefix), &[], &[]));
            let left = third.receives(PATIENCE, |h| Some(held(h)).filter(|all| all.len() == 1))?;
            same(left.get(&65011), both.get(&65011))?;
            let gone: Vec<_> = third.received.events.iter().filter(|word| word.starts_with('-')).collect();
            same(gone, vec![&format!("-{}", both[&65012].0)])?;
            one.receives(PATIENCE, |h| held(h).is_empty().then_some(()))?;
            for peer in [&one, &two] {
                let own = format!("{} was told its own path", peer.addr);
                holds(!held(&peer.received).contains_key(&peer.asn), &own)?;
            }
            Ok(())
        },
    );
    report.case("7911 §3 a refresh says all paths again", || {
        let mut first = bed.session(at(1, 1), &both(1));
        for id in [1, 2] {
            let m = update(&[], &attributes(&first, at(8, id as u8)), &with_id(id, "20.7.0.0/24"));
            first.send(&m);
        }
        let mut other = bed.session(at(4, 1), &Open::new(65011, at(4, 1)).with(69, &[0, 1, 1, 1]));
        other.received.add_path = true;
        let keys = |h: &Received| -> Vec<String> {
            h.routes.keys().filter(|key| key.starts_with("20.7.0.0/24#")).cloned().collect()
        };
        let before = other.receives(PATIENCE, |h| Some(keys(h)).filter(|all| all.len() == 2))?;
        other.received.routes.clear();
        other.send(&message(REFRESH, &[0, 1, 0, 1]));
        let again = other.receives(PATIENCE, |h| Some(keys(h)).filter(|all| all.len() == 2))?;
        same(again, before)
    });
    report.case("7911 §4 without the capability no path identifiers", || {
        let mut first = bed.peer(at(3, 1), EXTERNAL);
        first.announce(1, &["20.5.0.0/24"]);
        let mut other = bed.peer(at(2, 2), 65003);
        other.receives(PATIENCE, |h| {
            Some(same(h.routes.get("20.5.0.0/24")?.get(&2)?.1.clone(), segment(2, &[HOST_AS, EXTERNAL])))
        })?
    });
    report.finish();
}
