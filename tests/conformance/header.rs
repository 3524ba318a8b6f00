//! RFC 4271 §6.1: the header; and what ends a connection ends it for good.

use crate::{
    bed::{Bed, EXTERNAL, Report, at, passive, same},
    common::PATIENCE,
    words::{KEEPALIVE, Open, end_of_rib, message},
};

fn header(marker: &[u8], len: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut m = marker.to_vec();
    m.extend(len.to_be_bytes());
    m.push(kind);
    m.extend(body);
    m
}

const ONES: [u8; 16] = [0xff; 16];

#[test]
fn header_errors() {
    let zero_at = |n: usize| {
        let mut m = ONES;
        m[n] = 0;
        m
    };
    let body = |n: usize| vec![0; n];
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("4271 §6.1 marker of zeros",              header(&[0; 16], 19, 4, &[]),        vec![1, 1]),
        ("4271 §6.1 first octet of the marker",    header(&zero_at(0), 19, 4, &[]),     vec![1, 1]),
        ("4271 §6.1 last octet of the marker",     header(&zero_at(15), 19, 4, &[]),    vec![1, 1]),
        ("4271 §6.1 length 0",                     header(&ONES, 0, 4, &[]),            vec![1, 2, 0, 0]),
        ("4271 §6.1 length 18",                    header(&ONES, 18, 4, &[]),           vec![1, 2, 0, 18]),
        ("4271 §6.1 length 4097",                  header(&ONES, 4097, 2, &[]),         vec![1, 2, 0x10, 1]),
        ("4271 §6.1 length 65535",                 header(&ONES, 65535, 2, &[]),        vec![1, 2, 0xff, 0xff]),
        ("4271 §6.1 KEEPALIVE of 20",              header(&ONES, 20, 4, &[0]),          vec![1, 2, 0, 20]),
        ("4271 §6.1 KEEPALIVE of 4096",            header(&ONES, 4096, 4, &body(4077)), vec![1, 2, 0x10, 0]),
        ("4271 §6.1 UPDATE of 19",                 header(&ONES, 19, 2, &[]),           vec![1, 2, 0, 19]),
        ("4271 §6.1 UPDATE of 22",                 header(&ONES, 22, 2, &body(3)),      vec![1, 2, 0, 22]),
        ("4271 §6.1 OPEN of 28",                   header(&ONES, 28, 1, &body(9)),      vec![1, 2, 0, 28]),
        ("4271 §6.1 NOTIFICATION of 20",           header(&ONES, 20, 3, &[6]),          vec![1, 2, 0, 20]),
        ("4271 §6.1 type 0",                       header(&ONES, 19, 0, &[]),           vec![1, 3, 0]),
        ("4271 §6.1 type 6",                       header(&ONES, 19, 6, &[]),           vec![1, 3, 6]),
        ("4271 §6.1 type 255",                     header(&ONES, 19, 255, &[]),         vec![1, 3, 255]),
        ("4271 §6.1 type 128 with a body",         header(&ONES, 23, 128, &body(4)),    vec![1, 3, 128]),
        ("4271 §6.1 marker counts before length",  header(&[0; 16], 0, 9, &[]),         vec![1, 1]),
        ("4271 §6.1 length counts before type",    header(&ONES, 18, 9, &[]),           vec![1, 2, 0, 18]),
    ];
    let count = u8::try_from(cases.len()).unwrap();
    let bed = Bed::start("", &passive(1, 2 * count, "remote-as = 65001"));
    let mut report = Report::default();
    for (n, (name, octets, want)) in (1..).zip(&cases) {
        report.case(&format!("{name}, established"), || {
            let mut peer = bed.peer(at(1, n), EXTERNAL);
            peer.send(octets);
            same(peer.ends()?, want.clone())
        });
        // RFC 4271 §8.2.2, event 21 in OpenSent.
        report.case(&format!("{name}, before any OPEN"), || {
            let mut peer = bed.dial(at(1, count + n));
            peer.send(octets);
            same(peer.ends()?, want.clone())
        });
    }
    report.finish();
}

#[test]
fn nothing_behind_an_error_is_read() {
    let bed = Bed::start("", &passive(1, 3, "remote-as = 65001"));
    let mut report = Report::default();
    report.case("4271 §6 an error, then good messages in the same segment", || {
        let mut peer = bed.peer(at(1, 1), EXTERNAL);
        peer.send(&[header(&ONES, 19, 9, &[]), end_of_rib(), message(KEEPALIVE, &[])].concat());
        same(peer.ends()?, vec![1, 3, 9])
    });
    report.case("4271 §6.1 a short piece of a header is no error", || {
        let mut peer = bed.peer(at(1, 2), EXTERNAL);
        peer.receives(PATIENCE, |h| (h.ended.len() == 2).then_some(()))?;
        peer.send(&ONES[..10]);
        same(peer.next(0.2), None)?;
        same(peer.closed, false)?;
        peer.send(&header(&ONES, 19, 4, &[])[10..]);
        bed.settled(&mut peer);
        Ok(())
    });
    report.case("4271 §4.1 every octet by itself", || {
        let mut peer = bed.dial(at(1, 3));
        for octet in [Open::new(EXTERNAL, at(1, 3)).encode(), message(KEEPALIVE, &[])].concat() {
            peer.send(&[octet]);
        }
        peer.expect(KEEPALIVE, PATIENCE).ok_or("no session")?;
        peer.asn = EXTERNAL;
        peer.announce(1, &["20.0.1.0/24"]);
        bed.settled(&mut peer);
        same(bed.paths("20.0.1.0/24").len(), 1)
    });
    report.finish();
}
