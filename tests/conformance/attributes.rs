//! RFC 7606: every attribute, damaged in every way, in eBGP and iBGP.
//!
//! Per case: three good prefixes, the damaged UPDATE for the first with version 2 (its MED), then another good
//! one. The table, the kernel and another neighbor must all say what the verdict says.

use crate::{
    bed::{Bed, EXTERNAL, HOST_AS, Peer, Report, at, holds, passive, same},
    common::PATIENCE,
    words::{attr, communities, local_pref, med, net, next_hop, nlri, origin, path, segment, update},
};

/// What becomes of the damaged UPDATE.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// Its prefix is withdrawn, the session lives.
    Withdraw,
    /// It is taken (with or without the attribute), the session lives.
    Taken,
    Reset(u8, u8),
}
use Verdict::{Reset, Taken, Withdraw};

/// The neighbor's side of a case: the attributes that are sent.
type Damage = Box<dyn Fn(&Peer) -> Vec<Vec<u8>>>;

struct Case {
    name: String,
    ebgp: Verdict,
    ibgp: Verdict,
    damage: Damage,
}

/// Good attributes of version 2 with one of them, by code, replaced (or added where it is not among them).
fn with(code: u8, octets: Vec<u8>) -> Damage {
    Box::new(move |peer| {
        let mut all = peer.good(2);
        match all.iter_mut().find(|a| a[1] == code) {
            Some(it) => it.clone_from(&octets),
            None => all.insert(2, octets.clone()),
        }
        all
    })
}

fn without(code: u8) -> Damage {
    Box::new(move |peer| {
        let mut all = peer.good(2);
        all.retain(|a| a[1] != code);
        all
    })
}

fn both(name: &str, verdict: Verdict, damage: Damage) -> Case {
    Case { name: name.into(), ebgp: verdict, ibgp: verdict, damage }
}

fn each(name: &str, ebgp: Verdict, ibgp: Verdict, damage: Damage) -> Case {
    Case { name: name.into(), ebgp, ibgp, damage }
}

/// An AS_PATH that begins with the eBGP neighbor's number.
fn raw_path(value: &[u8]) -> Vec<u8> {
    attr(0x40, 2, value)
}

#[rustfmt::skip]
fn values() -> Vec<Case> {
    let n = |n: u32| n.to_be_bytes().to_vec();
    let seq = segment(2, &[EXTERNAL]);
    let glue = |parts: &[&[u8]]| parts.concat();
    vec![
        both("7606 §7.1 ORIGIN 3",                     Withdraw, with(1, origin(3))),
        both("7606 §7.1 ORIGIN 255",                   Withdraw, with(1, origin(255))),
        both("7606 §7.1 ORIGIN of length 0",           Withdraw, with(1, attr(0x40, 1, &[]))),
        both("7606 §7.1 ORIGIN of length 2",           Withdraw, with(1, attr(0x40, 1, &[0, 0]))),
        both("7606 §7.2 AS_PATH segment of type 0",    Withdraw, with(2, raw_path(&segment(0, &[EXTERNAL])))),
        both("7606 §7.2 AS_PATH segment of type 5",    Withdraw, with(2, raw_path(&segment(5, &[EXTERNAL])))),
        both("7606 §7.2 AS_PATH segment overrun",      Withdraw, with(2, raw_path(&[2, 9, 0, 0, 0xfd, 0xe9]))),
        both("7606 §7.2 AS_PATH segment underrun",     Withdraw, with(2, raw_path(&glue(&[&seq, &[2]])))),
        both("7606 §7.2 AS_PATH segment of length 0",  Withdraw, with(2, raw_path(&glue(&[&seq, &[2, 0]])))),
        both("7606 §7.2 AS_PATH of odd octets",        Withdraw, with(2, raw_path(&glue(&[&seq, &[2, 1, 0, 0, 0]])))),
        both("7607 §2 AS 0 in the AS_PATH",            Withdraw, with(2, path(&[EXTERNAL, 0, 7]))),
        both("7607 §2 AS 0 at the end of the AS_PATH", Withdraw, with(2, path(&[EXTERNAL, 0]))),
        both("5065 §5 confederation segment from outside", Withdraw, with(2, raw_path(&glue(&[&seq, &segment(3, &[7])])))),
        each("4271 §6.3 empty AS_PATH",                Withdraw, Taken, with(2, raw_path(&[]))),
        each("4271 §6.3 another AS first",             Withdraw, Taken, with(2, path(&[65009, EXTERNAL]))),
        both("9774 §3 AS_SET",                         Withdraw, with(2, raw_path(&glue(&[&seq, &segment(1, &[7, 8])])))),
        both("9774 §3 AS_CONFED_SET",                  Withdraw, with(2, raw_path(&glue(&[&seq, &segment(4, &[7, 8])])))),
        both("6793 §9 AS_TRANS in the path of a four-octet neighbor", Taken, with(2, path(&[EXTERNAL, 23456]))),
        both("4271 §4.3 AS_PATH of 255 in one segment", Taken, with(2, path(&[&[EXTERNAL][..], &[64999; 254]].concat()))),
        both("4271 §4.3 AS_PATH of two sequences",     Taken, with(2, raw_path(&glue(&[&seq, &segment(2, &[7, 8])])))),
        both("7606 §7.3 NEXT_HOP of length 3",         Withdraw, with(3, attr(0x40, 3, &[10, 2, 1]))),
        both("7606 §7.3 NEXT_HOP of length 5",         Withdraw, with(3, attr(0x40, 3, &[10, 2, 1, 1, 0]))),
        both("7606 §7.3 NEXT_HOP of length 0",         Withdraw, with(3, attr(0x40, 3, &[]))),
        both("7606 §7.3 NEXT_HOP of length 16",        Withdraw, with(3, attr(0x40, 3, &[0; 16]))),
        both("4271 §6.3 NEXT_HOP 0.0.0.0",             Withdraw, with(3, next_hop([0, 0, 0, 0].into()))),
        both("4271 §6.3 NEXT_HOP 255.255.255.255",     Withdraw, with(3, next_hop([255; 4].into()))),
        both("4271 §6.3 NEXT_HOP 224.0.0.5",           Withdraw, with(3, next_hop([224, 0, 0, 5].into()))),
        both("4271 §6.3 NEXT_HOP 127.0.0.1",           Withdraw, with(3, next_hop([127, 0, 0, 1].into()))),
        both("7606 §7.4 MED of length 3",              Withdraw, with(4, attr(0x80, 4, &[0, 0, 2]))),
        both("7606 §7.4 MED of length 5",              Withdraw, with(4, attr(0x80, 4, &[0, 0, 0, 2, 0]))),
        both("7606 §7.4 MED of length 0",              Withdraw, with(4, attr(0x80, 4, &[]))),
        each("7606 §7.5 LOCAL_PREF of length 3",       Taken, Withdraw, with(5, attr(0x40, 5, &[0, 0, 1]))),
        each("7606 §7.5 LOCAL_PREF of length 0",       Taken, Withdraw, with(5, attr(0x40, 5, &[]))),
        both("7606 §7.5 LOCAL_PREF",                   Taken, with(5, local_pref(7))),
        both("7606 §7.6 ATOMIC_AGGREGATE of length 1", Taken, with(6, attr(0x40, 6, &[0]))),
        both("4271 §5.1.6 ATOMIC_AGGREGATE",           Taken, with(6, attr(0x40, 6, &[]))),
        both("7606 §7.7 AGGREGATOR of length 6",       Taken, with(7, attr(0xc0, 7, &[0, 7, 1, 1, 1, 1]))),
        both("7606 §7.7 AGGREGATOR of length 9",       Taken, with(7, attr(0xc0, 7, &[0; 9]))),
        both("7607 §2 AGGREGATOR of AS 0",             Taken, with(7, attr(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]))),
        both("4271 §5.1.7 AGGREGATOR",                 Taken, with(7, attr(0xc0, 7, &[0, 0, 0, 9, 1, 1, 1, 1]))),
        both("7606 §7.8 COMMUNITIES of length 3",      Withdraw, with(8, attr(0xc0, 8, &[0, 0, 1]))),
        both("7606 §7.8 COMMUNITIES of length 5",      Withdraw, with(8, attr(0xc0, 8, &[0, 0, 1, 1, 1]))),
        both("7606 §7.8 COMMUNITIES of length 0",      Withdraw, with(8, attr(0xc0, 8, &[]))),
        both("1997 COMMUNITIES of private use and reserved", Taken, with(8, communities(&[0, 0x0000_0001, 0xffff_0000, 0xffff_fffe]))),
        each("7606 §7.9 ORIGINATOR_ID of length 3",    Taken, Withdraw, with(9, attr(0x80, 9, &[1, 1, 1]))),
        each("7606 §7.9 ORIGINATOR_ID of length 5",    Taken, Withdraw, with(9, attr(0x80, 9, &[1, 1, 1, 1, 1]))),
        both("7606 §7.9 ORIGINATOR_ID",                Taken, with(9, attr(0x80, 9, &[1, 1, 1, 1]))),
        each("7606 §7.10 CLUSTER_LIST of length 3",    Taken, Withdraw, with(10, attr(0x80, 10, &[1, 1, 1]))),
        each("7606 §7.10 CLUSTER_LIST of length 0",    Taken, Withdraw, with(10, attr(0x80, 10, &[]))),
        both("7606 §7.10 CLUSTER_LIST",                Taken, with(10, attr(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2]))),
        both("7606 §7.14 EXTENDED COMMUNITIES of length 7", Withdraw, with(16, attr(0xc0, 16, &[0; 7]))),
        both("7606 §7.14 EXTENDED COMMUNITIES of length 0", Withdraw, with(16, attr(0xc0, 16, &[]))),
        both("4360 §2 EXTENDED COMMUNITIES of an unknown type", Taken, with(16, attr(0xc0, 16, &[0x3f, 9, 1, 2, 3, 4, 5, 6]))),
        both("7606 §7.15 IPV6 EXTENDED COMMUNITIES of length 19", Withdraw, with(25, attr(0xc0, 25, &[0; 19]))),
        both("7606 §7.15 IPV6 EXTENDED COMMUNITIES of length 0",  Withdraw, with(25, attr(0xc0, 25, &[]))),
        both("8092 §5 LARGE_COMMUNITY of length 11",   Withdraw, with(32, attr(0xc0, 32, &[0; 11]))),
        both("8092 §5 LARGE_COMMUNITY of length 0",    Withdraw, with(32, attr(0xc0, 32, &[]))),
        both("8092 §5 LARGE_COMMUNITY twice the same", Taken, with(32, attr(0xc0, 32, &[1; 24]))),
        both("9234 §5 ONLY_TO_CUSTOMER of length 3",   Withdraw, with(35, attr(0xc0, 35, &[0; 3]))),
        both("9234 §5 ONLY_TO_CUSTOMER of length 8",   Withdraw, with(35, attr(0xc0, 35, &[0; 8]))),
        both("9234 §5 ONLY_TO_CUSTOMER",               Taken, with(35, attr(0xc0, 35, &n(7)))),
        both("6793 §6 AS4_PATH from a four-octet neighbor is left out", Taken, with(17, attr(0xc0, 17, &segment(2, &[7])))),
        both("6793 §6 broken AS4_PATH is left out",    Taken, with(17, attr(0xc0, 17, &[2, 9, 1]))),
        both("6793 §6 AS4_AGGREGATOR from a four-octet neighbor", Taken, with(18, attr(0xc0, 18, &[0; 8]))),
        both("6793 §6 broken AS4_AGGREGATOR",          Taken, with(18, attr(0xc0, 18, &[0; 5]))),
        both("7311 §3.3 AIGP where it is off",         Taken, with(26, attr(0x80, 26, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1]))),
        both("7311 §3.3 broken AIGP where it is off",  Taken, with(26, attr(0x80, 26, &[1, 0]))),
    ]
}

#[rustfmt::skip]
fn presence() -> Vec<Case> {
    vec![
        both("7606 §3 d no ORIGIN",                    Withdraw, without(1)),
        both("7606 §3 d no AS_PATH",                   Withdraw, without(2)),
        both("7606 §3 d no NEXT_HOP",                  Withdraw, without(3)),
        both("7606 §3 d no attributes at all",         Withdraw, Box::new(|_| Vec::new())),
        each("4271 §5.1.5 iBGP without LOCAL_PREF",    Taken, Taken, without(5)),
        both("4271 §6.3 well-known attribute that nobody knows", Reset(3, 2), with(99, attr(0x40, 99, &[1]))),
        both("4271 §5 optional transitive, unknown",   Taken, with(99, attr(0xc0, 99, &[1, 2, 3]))),
        both("4271 §5 optional transitive partial, unknown", Taken, with(99, attr(0xe0, 99, &[1, 2, 3]))),
        both("4271 §5 optional non-transitive, unknown", Taken, with(99, attr(0x80, 99, &[1, 2, 3]))),
        both("4271 §4.3 unknown, extended length",     Taken, with(99, attr(0xd0, 99, &[7; 300]))),
        both("4271 §4.3 unknown, of length 0",         Taken, with(99, attr(0xc0, 99, &[]))),
        both("4271 §4.3 unknown, attribute 255",       Taken, with(255, attr(0xc0, 255, &[1]))),
        both("4271 §4.3 unknown, attribute 0",         Taken, with(0, attr(0xc0, 0, &[1]))),
        both("4271 §4.3 low bits of the flags are ignored", Taken, with(1, attr(0x4f, 1, &[0]))),
        both("4271 §4.3 extended length for a short one", Taken, with(1, attr(0x50, 1, &[0]))),
        both("4271 §5 any order",                      Taken, Box::new(|p| p.good(2).into_iter().rev().collect())),
        both("7606 §3 g duplicate ORIGIN",             Taken, again(1)),
        both("7606 §3 g duplicate AS_PATH",            Taken, again(2)),
        both("7606 §3 g duplicate NEXT_HOP",           Taken, again(3)),
        both("7606 §3 g duplicate MED",                Taken, again(4)),
        both("7606 §3 g duplicate COMMUNITIES",        Taken, twice(communities(&[7]), communities(&[8]))),
        both("7606 §3 g duplicate unknown",            Taken, twice(attr(0xc0, 99, &[1]), attr(0xc0, 99, &[2]))),
        both("7606 §3 g the second ORIGIN is broken",  Taken, twice(Vec::new(), origin(9))),
        both("7606 §3 g duplicate MP_REACH_NLRI",      Reset(3, 1), twice(mp_reach(), mp_reach())),
        both("7606 §3 g duplicate MP_UNREACH_NLRI",    Reset(3, 1), twice(mp_unreach(), mp_unreach())),
        both("7606 §3 h a discard and a withdraw",     Withdraw, Box::new(|p| {
            let mut all = p.good(2);
            all[0] = origin(9);
            all.insert(0, attr(0x40, 6, &[1]));
            all
        })),
        both("7606 §3 h two broken attributes",        Withdraw, Box::new(|p| {
            let mut all = p.good(2);
            all[0] = origin(9);
            all.push(communities(&[])); 
            all
        })),
    ]
}

fn mp_reach() -> Vec<u8> {
    crate::words::reach(
        2,
        &[0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &crate::words::nlri6("fd99::/64"),
    )
}

fn mp_unreach() -> Vec<u8> {
    crate::words::unreach(2, &crate::words::nlri6("fd98::/64"))
}

/// The attribute of this code once more at the end, with the same content.
fn again(code: u8) -> Damage {
    Box::new(move |peer| {
        let mut all = peer.good(2);
        all.extend(all.iter().find(|a| a[1] == code).cloned());
        all
    })
}

fn twice(first: Vec<u8>, second: Vec<u8>) -> Damage {
    Box::new(move |peer| {
        let mut all = peer.good(2);
        all.insert(1, first.clone());
        all.push(second.clone());
        all
    })
}

/// RFC 7606 §3 c: Optional or Transitive bits that contradict the type.
fn flags() -> Vec<Case> {
    #[rustfmt::skip]
    let rows: [(&str, u8, u8, Vec<u8>); 12] = [
        ("ORIGIN", 1, 0x40, vec![0]),
        ("AS_PATH", 2, 0x40, segment(2, &[EXTERNAL])),
        ("NEXT_HOP", 3, 0x40, vec![10, 2, 1, 1]),
        ("MED", 4, 0x80, vec![0, 0, 0, 2]),
        ("ATOMIC_AGGREGATE", 6, 0x40, vec![]),
        ("AGGREGATOR", 7, 0xc0, vec![0, 0, 0, 9, 1, 1, 1, 1]),
        ("COMMUNITIES", 8, 0xc0, vec![0, 0, 0, 9]),
        ("EXTENDED COMMUNITIES", 16, 0xc0, vec![0, 2, 0, 0, 0, 0, 0, 1]),
        ("IPV6 EXTENDED COMMUNITIES", 25, 0xc0, vec![0; 20]),
        ("LARGE_COMMUNITY", 32, 0xc0, vec![0; 12]),
        ("ONLY_TO_CUSTOMER", 35, 0xc0, vec![0, 0, 0, 9]),
        ("LOCAL_PREF", 5, 0x40, vec![0, 0, 0, 9]),
    ];
    let mut cases = Vec::new();
    for (name, code, right, value) in rows {
        for wrong in [0x00, 0x40, 0x80, 0xc0].into_iter().filter(|w| *w != right) {
            // From eBGP neighbors LOCAL_PREF is left out, whatever it says (§7.5).
            let ebgp = if code == 5 { Taken } else { Withdraw };
            let damage = with(code, attr(wrong, code, &value));
            cases.push(each(&format!("7606 §3 c {name} with flags {wrong:#x}"), ebgp, Withdraw, damage));
        }
    }
    cases
}

/// RFC 7606 §4: lengths of attributes that leave the attributes.
#[rustfmt::skip]
fn overruns() -> Vec<Case> {
    let tail = |octets: &'static [u8]| -> Damage {
        Box::new(move |p| { let mut all = p.good(2); all.push(octets.to_vec()); all })
    };
    vec![
        both("7606 §4 the last attribute overruns",        Withdraw, tail(&[0xc0, 8, 200, 0, 0, 0, 1])),
        both("7606 §4 the last attribute overruns by one", Withdraw, tail(&[0xc0, 8, 5, 0, 0, 0, 1])),
        both("7606 §4 one octet of an attribute",          Withdraw, tail(&[0xc0])),
        both("7606 §4 two octets of an attribute",         Withdraw, tail(&[0xc0, 8])),
        both("7606 §4 three octets with extended length",  Withdraw, tail(&[0xd0, 8, 0])),
        both("7606 §4 extended length overruns",           Withdraw, tail(&[0xd0, 8, 0xff, 0xff, 0, 0, 0, 1])),
        both("7606 §4 the first attribute swallows the rest and more", Withdraw, Box::new(|p| {
            let mut all = p.good(2);
            all[0] = vec![0x40, 1, 255, 0];
            all
        })),
    ]
}

fn run(cases: &[Case], internal: bool) {
    let asn = if internal { HOST_AS } else { EXTERNAL };
    let count = u8::try_from(cases.len()).unwrap();
    let observer = "remote-as = 65002\ntransit = true";
    let bed = Bed::start("", &(passive(1, count, &format!("remote-as = {asn}")) + &passive(2, 1, observer)));
    let mut other = bed.peer(at(2, 1), 65002);
    let mut report = Report::default();
    let mut peers = Vec::new();
    for (n, case) in (1..).zip(cases) {
        let verdict = if internal { case.ibgp } else { case.ebgp };
        let prefix = |p: u8| format!("20.{n}.{p}.0/24");
        report.case(&case.name, || {
            let mut peer = bed.peer(at(1, n), asn);
            peer.announce(1, &[&prefix(1), &prefix(2)]);
            bed.settled(&mut peer);
            let damaged = (case.damage)(&peer);
            peer.send(&update(&[], &damaged, &nlri(&[net(&prefix(1))])));
            if let Reset(code, subcode) = verdict {
                let body = peer.ends()?;
                return same((body[0], body[1]), (code, subcode));
            }
            peer.announce(3, &[&prefix(3)]);
            bed.settled(&mut peer);
            let routes = bed.received(peer.addr);
            let version = |p: u8| {
                routes
                    .iter()
                    .find(|r| r["prefix"] == prefix(p))
                    .map(|r| (r["med"].as_u64(), r["reason"].clone()))
            };
            same(version(2).and_then(|v| v.0), Some(1)).map_err(|e| format!("the second prefix: {e}"))?;
            let got = version(1);
            peers.push(peer);
            if verdict == Taken {
                return holds(got.is_some(), "the prefix is gone");
            }
            // AS_SETs and a wrong first AS are seen after decoding: refused, with a reason, is as good as gone.
            let refused = got.is_none_or(|(_, reason)| {
                let text = reason.as_str().unwrap_or_default().to_owned();
                text.contains("AS_SET") || text.contains("does not begin")
            });
            holds(refused, "still there")
        });
    }
    // Afterwards in the kernel and at the other neighbor, of all cases at once.
    let wanted = |case: &Case| {
        let verdict = if internal { case.ibgp } else { case.ebgp };
        (verdict == Taken, !matches!(verdict, Reset(..)))
    };
    let kernel = bed.kernel();
    let _ = other.receives(PATIENCE, |h| h.routes.contains_key(&format!("20.{count}.3.0/24")).then_some(()));
    for (n, case) in (1..).zip(cases) {
        let (first, rest) = wanted(case);
        for (p, want) in [(1, first), (2, rest), (3, rest)] {
            let prefix = format!("20.{n}.{p}.0/24");
            report.case(&format!("{}: {prefix} in the kernel", case.name), || {
                same(kernel.contains(&prefix), want)
            });
            report.case(&format!("{}: {prefix} at another neighbor", case.name), || {
                same(other.received.routes.contains_key(&prefix), want)
            });
        }
    }
    report.finish();
}

#[test]
fn values_in_ebgp() {
    run(&values(), false);
}

#[test]
fn values_in_ibgp() {
    run(&values(), true);
}

#[test]
fn presence_and_lengths_in_ebgp() {
    run(&[presence(), overruns()].into_iter().flatten().collect::<Vec<_>>(), false);
}

#[test]
fn presence_and_lengths_in_ibgp() {
    run(&[presence(), overruns()].into_iter().flatten().collect::<Vec<_>>(), true);
}

#[test]
fn flags_in_ebgp() {
    run(&flags(), false);
}

#[test]
fn flags_in_ibgp() {
    run(&flags(), true);
}

#[test]
fn med_is_kept() {
    // The versions of the cases above are told apart by the MED: that it counts is the ground they stand on.
    let bed = Bed::start("", &passive(1, 1, "remote-as = 65001"));
    let mut peer = bed.peer(at(1, 1), EXTERNAL);
    let attributes = vec![origin(0), path(&[EXTERNAL]), next_hop(at(1, 1)), med(77)];
    peer.announce_with(&attributes, &["20.0.0.0/24"]);
    bed.settled(&mut peer);
    assert_eq!(bed.received_prefix(at(1, 1), "20.0.0.0/24").unwrap()["med"], 77);
}
