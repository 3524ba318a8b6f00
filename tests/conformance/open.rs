//! RFC 4271 §6.2 with 5492, 6286, 6793, 7607 and 9072: the OPEN.

use std::net::Ipv4Addr;

use crate::{
    bed::{Bed, EXTERNAL, HOST, HOST_AS, Report, at, holds, passive, same},
    common::PATIENCE,
    words::{KEEPALIVE, OPEN, Open, message},
};

const ID: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

fn open() -> Open {
    Open::new(EXTERNAL, ID)
}

/// OPEN with these octets for optional parameters, their length octet included.
fn tail(octets: &[u8]) -> Vec<u8> {
    let mut body = open().head();
    body.extend(octets);
    message(OPEN, &body)
}

fn with(change: impl FnOnce(&mut Open)) -> Vec<u8> {
    let mut open = open();
    change(&mut open);
    open.encode()
}

/// Four-octet capability of 65001 in a parameter: 8 octets.
const CAP4: [u8; 8] = [2, 6, 65, 4, 0, 0, 0xfd, 0xe9];

fn extended(params: &[u8]) -> Vec<u8> {
    let mut out = vec![255, 255];
    out.extend(u16::try_from(params.len()).unwrap().to_be_bytes());
    out.extend(params);
    tail(&out)
}

#[test]
fn errors_of_the_open() {
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("4271 §6.2 version 3",                         with(|o| o.version = 3),  vec![2, 1, 0, 4]),
        ("4271 §6.2 version 5",                         with(|o| o.version = 5),  vec![2, 1, 0, 4]),
        ("4271 §6.2 version 0",                         with(|o| o.version = 0),  vec![2, 1, 0, 4]),
        ("4271 §6.2 version counts before the hold time", with(|o| (o.version, o.hold) = (3, 1)), vec![2, 1, 0, 4]),
        ("4271 §6.2 another AS",                        Open::new(65009, ID).encode(), vec![2, 2]),
        ("6793 §4.2 another AS in the capability",      open().without(65).with(65, &[0, 1, 0, 0]).encode(), vec![2, 2]),
        ("7607 §2 AS 0 in the capability",              open().without(65).with(65, &[0; 4]).encode(), vec![2, 2]),
        ("7607 §2 AS 0, no capability",                 with(|o| { o.asn = 0; o.caps.clear(); }), vec![2, 2]),
        ("6793 §9 AS_TRANS without the capability",     with(|o| { o.asn = 23456; o.caps.clear(); }), vec![2, 2]),
        ("6286 §2.1 identifier 0.0.0.0",                with(|o| o.id = Ipv4Addr::UNSPECIFIED), vec![2, 3]),
        ("4271 §6.2 hold time 1",                       with(|o| o.hold = 1),     vec![2, 6]),
        ("4271 §6.2 hold time 2",                       with(|o| o.hold = 2),     vec![2, 6]),
        ("4271 §6.2 parameters longer than the message", tail(&[200, 2, 6, 65, 4]), vec![2, 0]),
        ("4271 §6.2 parameters shorter than the message", tail(&[&[6][..], &CAP4].concat()), vec![2, 0]),
        ("4271 §6.2 octets after no parameters",        tail(&[&[0][..], &CAP4].concat()), vec![2, 0]),
        ("4271 §6.2 a parameter beyond the parameters", tail(&[8, 2, 20, 65, 4, 0, 0, 0xfd, 0xe9]), vec![2, 0]),
        ("4271 §6.2 a parameter of one octet",          tail(&[1, 2]),            vec![2, 0]),
        ("5492 §3 a capability beyond its parameter",   tail(&[8, 2, 6, 65, 9, 0, 0, 0xfd, 0xe9]), vec![2, 0]),
        ("5492 §4 a capability of one octet",           tail(&[11, 2, 9, 65, 4, 0, 0, 0xfd, 0xe9, 2, 0, 9]), vec![2, 0]),
        ("4271 §6.2 unknown optional parameter",        tail(&[3, 77, 1, 0]),     vec![2, 4]),
        ("5492 §5 authentication parameter, deprecated", tail(&[3, 1, 1, 0]),     vec![2, 4]),
        ("9072 §2 extended length beyond the message",  tail(&[255, 255, 0, 99, 2, 0, 6, 65, 4, 0, 0, 0xfd, 0xe9]), vec![2, 0]),
        ("9072 §2 a parameter beyond the parameters",   extended(&[2, 0, 9, 65, 4, 0, 0, 0xfd, 0xe9]), vec![2, 0]),
        ("9072 §2 extended with parameters in short form", extended(&CAP4),       vec![2, 0]),
        ("9072 §2 extended, unknown parameter",         extended(&[77, 0, 1, 0]), vec![2, 4]),
        ("6793 §3 four-octet capability of 2 octets",   open().without(65).with(65, &[0xfd, 0xe9]).encode(), vec![2, 0]),
    ];
    let count = u8::try_from(cases.len()).unwrap();
    let bed = Bed::start("", &(passive(1, count, "remote-as = 65001") + &passive(2, 4, "remote-as = 65000")));
    let mut report = Report::default();
    for (n, (name, octets, want)) in (1..).zip(&cases) {
        report.case(name, || {
            let mut peer = bed.dial(at(1, n));
            peer.send(octets);
            same(peer.ends()?, want.clone())
        });
    }
    report.case("6286 §2.1 our own identifier in iBGP", || {
        let mut peer = bed.dial(at(2, 1));
        peer.send(&Open::new(HOST_AS, HOST).encode());
        same(peer.ends()?, vec![2, 3])
    });
    report.case("4271 §6.2 eBGP number on an iBGP session", || {
        let mut peer = bed.dial(at(2, 2));
        peer.send(&Open::new(EXTERNAL, ID).encode());
        same(peer.ends()?, vec![2, 2])
    });
    report.finish();
}

#[test]
fn what_an_open_may_say() {
    let many: Vec<u8> = (0..40).flat_map(|n| [2, 4, 200, 2, n, n]).collect();
    let long: Vec<u8> = [
        &[2, 0, 6, 65, 4, 0, 0, 0xfd, 0xe9][..],
        &(0..60).flat_map(|n| [2, 0, 6, 201, 4, n, n, n, n]).collect::<Vec<_>>(),
    ]
    .concat();
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("4271 §4.2 no optional parameters",          tail(&[0])),
        ("4271 §4.2 hold time 0",                     with(|o| o.hold = 0)),
        ("4271 §4.2 hold time 3",                     with(|o| o.hold = 3)),
        ("4271 §4.2 hold time 65535",                 with(|o| o.hold = 65535)),
        ("5492 §3 unknown capabilities",              open().with(99, &[1, 2, 3]).with(239, &[]).encode()),
        ("5492 §4 each capability in a parameter of its own", tail(&[&[8 + 240][..], &CAP4, &many].concat())),
        ("5492 §4 the same capability twice",         open().with(2, &[]).with(2, &[]).with(1, &[0, 1, 0, 1]).encode()),
        ("5492 §4 an empty capabilities parameter",   tail(&[&[10, 2, 0][..], &CAP4].concat())),
        ("9072 §2 extended form, short content",      extended(&[2, 0, 6, 65, 4, 0, 0, 0xfd, 0xe9])),
        ("9072 §2 extended form, long content",       extended(&long)),
        ("9072 §2 extended form with nothing",        tail(&[255, 255, 0, 0])),
        ("9072 §2 255 is a length where no 255 follows", {
            let filler: Vec<u8> = [&CAP4[..], &[2, 245, 200, 243], &[0; 243]].concat();
            tail(&[&[255][..], &filler].concat())
        }),
        ("4760 §8 a family that nobody knows",        open().with(1, &[0x40, 4, 0, 71]).encode()),
        ("4724 §3 graceful restart without families", open().with(64, &[0, 120]).encode()),
        ("6286 §2.1 identifier of no address",        with(|o| o.id = Ipv4Addr::new(255, 0, 0, 1))),
        ("6286 §2.1 identifier of multicast",         with(|o| o.id = Ipv4Addr::new(224, 0, 0, 1))),
        ("6286 §2.1 our own identifier in eBGP",      with(|o| o.id = HOST)),
        ("9234 §4.2 a role towards one without",      open().with(9, &[1]).encode()),
        ("7911 §4 ADD-PATH with a bad direction",     open().with(69, &[0, 1, 1, 9]).encode()),
        ("8950 §4 next hop capability for odd families", open().with(5, &[0, 1, 0, 128, 0, 2]).encode()),
        ("8654 §3 extended messages",                 open().with(6, &[]).encode()),
        ("draft-walton FQDN capability",              open().with(73, &[3, b'f', b'o', b'o', 0]).encode()),
    ];
    let count = u8::try_from(cases.len()).unwrap();
    let bed = Bed::start("", &passive(1, count, "remote-as = 65001"));
    let mut report = Report::default();
    for (n, (name, octets)) in (1..).zip(&cases) {
        report.case(name, || {
            let mut peer = bed.dial(at(1, n));
            peer.send(octets);
            peer.send(&message(KEEPALIVE, &[]));
            peer.expect(KEEPALIVE, PATIENCE).ok_or("no session")?;
            bed.established(at(1, n));
            Ok(())
        });
    }
    report.finish();
}

#[test]
fn our_open_is_good() {
    let bed = Bed::start("hold-time = 30", &passive(1, 2, "remote-as = 65001"));
    let mut report = Report::default();
    let peer = bed.peer(at(1, 1), EXTERNAL);
    let o = &peer.theirs;
    report.case("4271 §4.2 fields", || {
        same((o[0], &o[1..3], &o[3..5], &o[5..9]), (4, &[0xfd, 0xe8][..], &[0, 30][..], &HOST.octets()[..]))
    });
    let has = |code: u8, value: &[u8]| {
        let needle = [&[code, u8::try_from(value.len()).unwrap()][..], value].concat();
        o.windows(needle.len()).any(|w| w == needle)
    };
    #[rustfmt::skip]
    let caps: [(&str, u8, &[u8]); 6] = [
        ("6793 §3 four-octet numbers", 65, &[0, 0, 0xfd, 0xe8]),
        ("4760 §8 IPv4 unicast",       1,  &[0, 1, 0, 1]),
        ("4760 §8 IPv6 unicast",       1,  &[0, 2, 0, 1]),
        ("2918 §2 route refresh",      2,  &[]),
        ("7313 §3 enhanced refresh",   70, &[]),
        ("8654 §3 extended messages",  6,  &[]),
    ];
    for (name, code, value) in caps {
        report.case(name, || holds(has(code, value), &format!("{o:?}")));
    }
    report.case("4271 §4.2 the smaller hold time counts", || {
        let _peer = bed.session(at(1, 2), &open().hold(9));
        same(bed.neighbor(at(1, 2))["hold_time"].as_u64(), Some(9))
    });
    report.finish();
}
