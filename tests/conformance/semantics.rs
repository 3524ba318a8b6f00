//! What is taken from a neighbor, and what is used: guards, loops, next hops, AS numbers, communities.

use std::net::Ipv4Addr;

use crate::{
    bed::{Bed, EXTERNAL, HOST, HOST_AS, Peer, Report, at, holds, passive, same},
    common::{PATIENCE, wait_for},
    words::{
        IPV4, Open, attr, communities, local_pref, next_hop, nlri, nlri6, origin, path, reach, segment,
        segment2, update,
    },
};

fn reason(bed: &Bed, peer: &Peer, prefix: &str) -> String {
    bed.received_prefix(peer.addr, prefix)
        .map_or_else(|| "none".into(), |r| r["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_route_guard() {
    let keys = "remote-as = 65001";
    let bed = Bed::start(
        "",
        &(passive(1, 2, keys)
            + &passive(2, 1, "remote-as = 65001\naccept-default = true")
            + "[advertise]\nnetworks = [\"44.0.0.0/16\", \"fd44::/48\"]\n"),
    );
    let mut report = Report::default();
    let mut peer = bed.peer(at(1, 1), EXTERNAL);
    #[rustfmt::skip]
    let cases = [
        ("0.0.0.0/0", false), ("7.0.0.0/7", false), ("8.0.0.0/8", true), ("0.0.0.0/8", false), ("0.1.0.0/16", false),
        ("127.0.0.0/8", false), ("127.0.0.1/32", false), ("127.5.0.0/16", false), ("169.254.0.0/16", false),
        ("169.254.7.0/24", false), ("224.0.0.0/8", false), ("239.1.1.0/24", false), ("240.0.0.0/8", false),
        ("255.255.255.255/32", false), ("10.2.0.0/16", false), ("10.2.7.0/24", true), ("10.2.255.254/32", false),
        ("10.2.1.2/32", false), ("10.2.9.9/32", true), ("44.0.1.0/24", false), ("44.0.0.0/15", true),
        ("10.0.0.0/8", true), ("192.168.0.0/16", true), ("100.64.0.0/10", true), ("198.51.100.0/24", true),
        ("203.0.113.7/32", true), ("192.0.2.0/24", true), ("172.16.0.0/12", true),
    ];
    let list: Vec<&str> = cases.iter().map(|c| c.0).collect();
    // 7.0.0.0/7 has a host bit: 6.0.0.0/7 is what it means.
    peer.announce(1, &list);
    bed.settled(&mut peer);
    let fixed = |p: &str| if p == "7.0.0.0/7" { "6.0.0.0/7".to_owned() } else { p.to_owned() };
    let wait =
        |bed: &Bed, prefix: &str| wait_for(prefix, 3.0, || bed.kernel().contains(prefix).then_some(()));
    wait(&bed, "172.16.0.0/12");
    let kernel = bed.kernel();
    for (prefix, taken) in cases {
        report.case(&format!("route guard: {prefix}"), || {
            let reason = reason(&bed, &peer, &fixed(prefix));
            same((!reason.starts_with("guard"), kernel.contains(&fixed(prefix))), (taken, taken))
                .map_err(|e| format!("{e} ({reason})"))
        });
    }
    #[rustfmt::skip]
    let six = [
        ("::/0", false), ("2000::/15", false), ("2000::/16", true), ("::/128", false), ("::1/128", false),
        ("::ffff:0:0/96", false), ("::ffff:1.2.3.0/120", false), ("fe80::/10", false), ("fe80::/64", false),
        ("ff02::/16", false), ("ff00::/16", false), ("fd02::/64", false), ("fd02::fffe/128", false), ("fd44::/48", false),
        ("fd44:0:0:1::/64", false), ("2001:db8::/32", true), ("fd50::/48", true), ("64:ff9b::/96", true),
    ];
    let all: Vec<u8> = six.iter().flat_map(|(p, _)| nlri6(p)).collect();
    let hop: [u8; 16] = "fd02::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    peer.send(&update(&[], &[reach(2, &hop, &all), origin(0), path(&[EXTERNAL])], &[]));
    bed.settled(&mut peer);
    wait(&bed, "64:ff9b::/96");
    let kernel = bed.kernel();
    for (prefix, taken) in six {
        report.case(&format!("route guard: {prefix}"), || {
            let shown = match prefix {
                "::ffff:1.2.3.0/120" => "::ffff:102:300/120",
                "::ffff:0:0/96" => "::ffff:0.0.0.0/96",
                other => other,
            };
            let mut text = reason(&bed, &peer, prefix);
            if text == "none" {
                text = reason(&bed, &peer, shown);
            }
            holds(text != "none" || !taken, "not in the table")?;
            let in_kernel = kernel.contains(prefix) || kernel.contains(shown);
            let own = ["fd44::/48"].contains(&prefix);
            same((!text.starts_with("guard"), in_kernel && !own), (taken, taken))
                .map_err(|e| format!("{e} ({text})"))
        });
    }
    report.case("route guard: default route where it is wanted", || {
        let mut trusted = bed.peer(at(2, 1), EXTERNAL);
        trusted.announce(1, &["0.0.0.0/0"]);
        bed.settled(&mut trusted);
        same(reason(&bed, &trusted, "0.0.0.0/0"), "best: only path".into())
    });
    report.finish();
}

#[test]
fn loops_and_paths() {
    let mut config = passive(1, 20, "remote-as = 65001") + &passive(2, 20, "remote-as = 65000");
    config += &passive(3, 1, "remote-as = 65001\nallow-own-as = 1");
    config += &passive(4, 1, "remote-as = 65001\nas-sets = \"accept\"");
    config += &passive(5, 1, "remote-as = 65000\nas-sets = \"accept\"");
    let bed = Bed::start("cluster-id = \"7.7.7.7\"", &config);
    let mut report = Report::default();
    let mut external = bed.peer(at(1, 1), EXTERNAL);
    let mut internal = bed.peer(at(2, 1), HOST_AS);
    let mut own_once = bed.peer(at(3, 1), EXTERNAL);
    let mut sets = bed.peer(at(4, 1), EXTERNAL);
    let set = |numbers: &[u32]| attr(0x40, 2, &[segment(2, &[EXTERNAL]), segment(1, numbers)].concat());
    let mut n = 0;
    let mut try_it = |peer: &mut Peer, code: u8, attribute: Vec<u8>| {
        n += 1;
        let prefix = format!("20.50.{n}.0/24");
        let mut all = peer.good(1);
        match all.iter_mut().find(|a| a[1] == code) {
            Some(it) => *it = attribute,
            None => all.push(attribute),
        }
        peer.announce_with(&all, &[&prefix]);
        bed.settled(peer);
        (reason(&bed, peer, &prefix), prefix)
    };
    let hop = |a: &str| next_hop(a.parse().unwrap());
    let mut expect =
        |report: &mut Report, name: &str, peer: &mut Peer, code: u8, value: Vec<u8>, words: &str| {
            report.case(name, || {
                let (reason, _) = try_it(peer, code, value);
                holds(reason.contains(words), &format!("{reason:?}, not {words:?}"))
            });
        };
    let r = &mut report;
    expect(r, "4271 §9.1.2 own AS in the path, eBGP", &mut external, 2, path(&[EXTERNAL, HOST_AS]), "loop");
    expect(
        r,
        "4271 §9.1.2 own AS in the path, iBGP",
        &mut internal,
        2,
        path(&[EXTERNAL, HOST_AS, 7]),
        "loop",
    );
    expect(r, "allow-own-as takes it once", &mut own_once, 2, path(&[EXTERNAL, HOST_AS]), "best");
    expect(
        r,
        "allow-own-as takes it not twice",
        &mut own_once,
        2,
        path(&[EXTERNAL, HOST_AS, HOST_AS]),
        "loop",
    );
    expect(r, "4271 §9.1.2 own AS in an AS_SET", &mut sets, 2, set(&[7, HOST_AS]), "loop");
    expect(r, "4271 §9.1.2.2 AS_SET where it is accepted", &mut sets, 2, set(&[7, 8]), "best");
    expect(r, "9774 §3 AS_SET", &mut external, 2, set(&[7, 8]), "AS_SET");
    expect(r, "9774 §3 AS_SET, iBGP", &mut internal, 2, set(&[7, 8]), "AS_SET");
    expect(r, "4456 §8 own ORIGINATOR_ID", &mut internal, 9, attr(0x80, 9, &HOST.octets()), "ORIGINATOR_ID");
    expect(r, "4456 §8 another ORIGINATOR_ID", &mut internal, 9, attr(0x80, 9, &[9, 9, 9, 9]), "best");
    expect(r, "4456 §8 own cluster", &mut internal, 10, attr(0x80, 10, &[1, 1, 1, 1, 7, 7, 7, 7]), "cluster");
    expect(r, "4456 §8 other clusters", &mut internal, 10, attr(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2]), "best");
    expect(
        r,
        "4456 §8 own cluster from eBGP is left out",
        &mut external,
        10,
        attr(0x80, 10, &[7, 7, 7, 7]),
        "best",
    );
    expect(r, "4271 §5.1.3 next hop is our address", &mut external, 3, hop("10.2.255.254"), "this node");
    expect(
        r,
        "4271 §5.1.3 next hop is our address, iBGP",
        &mut internal,
        3,
        hop("10.2.255.254"),
        "this node",
    );
    expect(r, "4271 §5.1.3 third-party next hop", &mut external, 3, hop("10.2.9.9"), "best");
    expect(r, "4271 §9.1.2 next hop that nothing reaches", &mut external, 3, hop("150.1.1.1"), "");
    expect(r, "4271 §9.1.2 next hop that nothing reaches, iBGP", &mut internal, 3, hop("150.1.1.1"), "");
    report.case("4271 §9.1.2 unresolved routes are neither best nor in the kernel", || {
        let mut all = internal.good(1);
        all[2] = hop("150.1.1.1");
        internal.announce_with(&all, &["20.51.0.0/24"]);
        bed.settled(&mut internal);
        let route = bed.received_prefix(internal.addr, "20.51.0.0/24").ok_or("gone")?;
        same((route["best"].as_bool(), bed.kernel().contains("20.51.0.0/24")), (Some(false), false))
    });
    report.case("4271 §9.1.2.1 it resolves as soon as a route covers it", || {
        external.announce(1, &["150.1.0.0/16"]);
        wait_for("resolved", 3.0, || bed.kernel().contains("20.51.0.0/24").then_some(()));
        external.withdraw(&["150.1.0.0/16"]);
        wait_for("unresolved", 3.0, || (!bed.kernel().contains("20.51.0.0/24")).then_some(()));
        Ok(())
    });
    report.case("4271 §5.1.5 LOCAL_PREF of an eBGP neighbor does not count", || {
        let mut all = external.good(1);
        all.push(local_pref(9999));
        external.announce_with(&all, &["20.52.0.0/24"]);
        internal.announce(1, &["20.52.0.0/24"]);
        bed.settled(&mut external);
        bed.settled(&mut internal);
        let paths = bed.paths("20.52.0.0/24");
        holds(!paths.iter().any(|p| p["local_pref"] == 9999), &format!("{paths:?}"))
    });
    report.case("8326 §4 GRACEFUL_SHUTDOWN lowers LOCAL_PREF to 0", || {
        let mut all = external.good(1);
        all.push(communities(&[0xffff_0000]));
        external.announce_with(&all, &["20.53.0.0/24"]);
        bed.settled(&mut external);
        let route = &bed.paths("20.53.0.0/24")[0];
        same((route["best"].as_bool(), route["local_pref"].as_u64()), (Some(true), Some(0)))
    });
    report.case("4760 §3 the next hop of IPv6 is our address", || {
        let own: [u8; 16] = "fd02::fffe".parse::<std::net::Ipv6Addr>().unwrap().octets();
        external.send(&update(
            &[],
            &[reach(2, &own, &nlri6("fd60::/48")), origin(0), path(&[EXTERNAL])],
            &[],
        ));
        bed.settled(&mut external);
        let route = bed.received_prefix(external.addr, "fd60::/48");
        same(route.and_then(|r| r["best"].as_bool()), Some(false))
    });
    report.finish();
}

/// A neighbor that knows two-octet numbers only.
fn old(n: u8) -> Open {
    Open { caps: vec![(IPV4.0, IPV4.1.to_vec()), (2, vec![])], ..Open::new(EXTERNAL, at(1, n)) }
}

#[test]
fn two_octet_neighbors() {
    let bed = Bed::start(
        "",
        &(passive(1, 3, "remote-as = 65001") + &passive(2, 1, "remote-as = 65002\ntransit = true")),
    );
    let mut report = Report::default();
    let mut other = bed.peer(at(2, 1), 65002);
    let mut peer = bed.session(at(1, 1), &old(1));
    let base = |path: Vec<u8>, more: &[Vec<u8>]| {
        let mut all = vec![origin(0), attr(0x40, 2, &path), next_hop(at(1, 1))];
        all.extend(more.iter().cloned());
        all
    };
    let as4 = |value: Vec<u8>| attr(0xc0, 17, &value);
    let first = || segment2(2, &[65001, 23456, 7]);
    let agg2 = |n: u16| attr(0xc0, 7, &[&n.to_be_bytes()[..], &[1, 1, 1, 1]].concat());
    let agg4 = |n: u32| attr(0xc0, 18, &[&n.to_be_bytes()[..], &[1, 1, 1, 1]].concat());
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<Vec<u8>>, serde_json::Value)> = vec![
        ("6793 §4.2.3 no AS4_PATH", base(first(), &[]), serde_json::json!([65001, 23456, 7])),
        ("6793 §4.2.3 AS4_PATH replaces the tail", base(first(), &[as4(segment(2, &[100_000, 7]))]), serde_json::json!([65001, 100_000, 7])),
        ("6793 §4.2.3 AS4_PATH of the same length", base(first(), &[as4(segment(2, &[65001, 100_000, 7]))]), serde_json::json!([65001, 100_000, 7])),
        ("6793 §4.2.3 a longer AS4_PATH is ignored", base(first(), &[as4(segment(2, &[1, 2, 3, 4]))]), serde_json::json!([65001, 23456, 7])),
        ("6793 §6 a broken AS4_PATH is left out", base(first(), &[as4(vec![2, 9, 1, 1])]), serde_json::json!([65001, 23456, 7])),
        ("6793 §6 an empty AS4_PATH is left out", base(first(), &[as4(vec![])]), serde_json::json!([65001, 23456, 7])),
        ("6793 §4.2.3 AGGREGATOR without AS_TRANS: both AS4 are ignored",
            base(first(), &[agg2(9), as4(segment(2, &[100_000, 7])), agg4(100_000)]), serde_json::json!([65001, 23456, 7])),
        ("6793 §4.2.3 AGGREGATOR with AS_TRANS",
            base(first(), &[agg2(23456), as4(segment(2, &[100_000, 7])), agg4(100_000)]), serde_json::json!([65001, 100_000, 7])),
    ];
    for (n, (name, attributes, want)) in (1..).zip(cases) {
        report.case(name, || {
            let prefix = format!("20.60.{n}.0/24");
            peer.announce_with(&attributes, &[&prefix]);
            let route = wait_for(&prefix, 3.0, || bed.received_prefix(at(1, 1), &prefix));
            same(route["as_path"].clone(), want)
        });
    }
    #[rustfmt::skip]
    let broken: [(&str, Vec<u8>); 3] = [
        ("7606 §7.2 four-octet path on a two-octet session", segment(2, &[65001])),
        ("7606 §7.2 overrun in two-octet numbers", vec![2, 3, 0xfd, 0xe9, 0, 7]),
        ("7607 §2 AS 0 in two-octet numbers", segment2(2, &[65001, 0])),
    ];
    for (n, (name, value)) in (1..).zip(broken) {
        report.case(name, || {
            let (prefix, mark) = (format!("20.61.{n}.0/24"), format!("20.62.{n}.0/24"));
            peer.announce_with(&base(first(), &[]), &[&prefix]);
            peer.announce_with(&base(value, &[]), &[&prefix]);
            peer.announce_with(&base(first(), &[]), &[&mark]);
            wait_for(&mark, 3.0, || bed.received_prefix(at(1, 1), &mark));
            holds(bed.received_prefix(at(1, 1), &prefix).is_none(), "still there")
        });
    }
    report.case("6793 §4.2.2 what a four-octet neighbor hears of it", || {
        other.receives(PATIENCE, |h| {
            let (_, value) = h.routes.get("20.60.2.0/24")?.get(&2)?;
            Some(same(value.clone(), segment(2, &[HOST_AS, 65001, 100_000, 7])))
        })?
    });
    report.case("6793 §4.2.2 what a two-octet neighbor hears: AS_TRANS, and AS4_PATH", || {
        let bed = Bed::start(
            "",
            &passive(1, 2, "remote-as = 65001\ntransit = true").replacen("65001", "100000", 1),
        );
        let mut four = bed.peer(at(1, 1), 100_000);
        let mut two = bed.session(at(1, 2), &old(2));
        let mut all = four.good(1);
        all.push(attr(0xc0, 7, &[0, 1, 0x86, 0xa0, 1, 1, 1, 1]));
        four.announce_with(&all, &["20.63.0.0/24"]);
        let heard = two.receives(PATIENCE, |h| h.routes.get("20.63.0.0/24").cloned())?;
        let value = |code: u8| heard.get(&code).map(|a| a.1.clone());
        same(value(2), Some(segment2(2, &[65000, 23456])))?;
        same(value(17), Some(segment(2, &[HOST_AS, 100_000])))?;
        same(value(7), Some(vec![0x5b, 0xa0, 1, 1, 1, 1]))?;
        same(value(18), Some(vec![0, 1, 0x86, 0xa0, 1, 1, 1, 1]))
    });
    report.finish();
}

#[test]
fn next_hops_of_many_forms() {
    let v6 = |a: &str| a.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let pair = |a: &str, b: &str| [v6(a), v6(b)].concat();
    let bed = Bed::start("", &passive(1, 4, "remote-as = 65001"));
    let mut report = Report::default();
    let extended = Open::new(EXTERNAL, at(1, 1)).with(5, &[0, 1, 0, 1, 0, 2]);
    let mut peer = bed.session(at(1, 1), &extended);
    let list = nlri(&[(Ipv4Addr::new(20, 70, 0, 0), 24)]);
    let mut put =
        |report: &mut Report, name: &str, afi: u16, hop: &[u8], prefix: &str, want: Option<&str>| {
            report.case(name, || {
                let prefixes = if afi == 1 { nlri(&[crate::words::net(prefix)]) } else { nlri6(prefix) };
                peer.send(&update(&[], &[reach(afi, hop, &prefixes), origin(0), path(&[EXTERNAL])], &[]));
                bed.settled(&mut peer);
                let route = bed.received_prefix(peer.addr, prefix);
                let hop = route
                    .filter(|r| r["best"] == true)
                    .and_then(|r| r["next_hop"].as_str().map(str::to_owned));
                same(hop.as_deref(), want)?;
                if want.is_some() {
                    wait_for("in the kernel", 3.0, || bed.kernel().contains(prefix).then_some(()));
                }
                Ok(())
            });
        };
    assert_eq!(list.len(), 4);
    let r = &mut report;
    put(r, "2545 §3 global", 2, &v6("fd02::1"), "fd70:1::/48", Some("fd02::1"));
    put(r, "2545 §3 global and link-local", 2, &pair("fd02::1", "fe80::1"), "fd70:2::/48", Some("fd02::1"));
    put(r, "2545 §3 global twice", 2, &pair("fd02::1", "fd02::1"), "fd70:3::/48", Some("fd02::1"));
    put(r, "8950 §4 IPv4 over a global next hop", 1, &v6("fd02::1"), "20.71.0.0/24", Some("fd02::1"));
    put(r, "8950 §4 IPv4 over both", 1, &pair("fd02::1", "fe80::1"), "20.72.0.0/24", Some("fd02::1"));
    put(r, "8950 §4 IPv4 over IPv4 still", 1, &at(1, 1).octets(), "20.73.0.0/24", Some("10.2.1.1"));
    report.case("8950 §4 without the capability IPv6 next hops of IPv4 are not taken", || {
        let mut plain = bed.peer(at(1, 2), EXTERNAL);
        plain.send(&update(&[], &[reach(1, &v6("fd02::1"), &list), origin(0), path(&[EXTERNAL])], &[]));
        let ended = plain.ends();
        let route = bed.received_prefix(plain.addr, "20.70.0.0/24");
        holds(ended.is_ok() || route.is_none_or(|r| r["best"] == false), "taken")
    });
    report.finish();
}
