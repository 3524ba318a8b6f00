//! Messages of the neighbors: octets built before the clock starts, so that sending them costs next
//! to nothing; and counting of what is received.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::common::speaker::{attributes, end_of_rib, message, update};

/// The daemon's address on its first link, and its AS number.
pub const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 1);
pub const DAEMON_AS: u32 = 1000;

/// The first neighbor on the daemon's second link.
pub const SECOND: u32 = 0x1_0001;

/// The daemon's address on the link of neighbor `n`: 10.1.255.1 for 10.1.0.1 and following,
/// 10.2.255.1 for 10.2.0.1.
pub fn daemon(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(DAEMON.to_bits() + (n & 0xffff_0000))
}

pub fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + n)
}

pub fn asn(n: u32) -> u32 {
    10000 + n
}

/// The next hop of IPv6 routes.
pub const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// What a neighbor advertises: how many routes share an attribute set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Prefixes as in the Internet's table, five per attribute set.
    Table,
    /// Consecutive /24s, each with a set of its own, distinguished by MED.
    Pods,
    /// IPv6 /64, five per set.
    Ipv6,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Pods => "pods",
            Self::Ipv6 => "IPv6",
        }
    }

    /// IPv4 prefix `n`.
    pub fn prefix(self, n: u32) -> (Ipv4Addr, u8) {
        let (bits, len) = if self == Self::Table { internet(n) } else { (0x1400_0000 + (n << 8), 24) };
        (Ipv4Addr::from_bits(bits), len)
    }
}

/// Number of prefixes of each length among two hundred of the Internet's table.
const LENGTHS: [(u8, u32); 9] =
    [(24, 122), (23, 20), (22, 23), (21, 11), (20, 10), (19, 6), (18, 4), (17, 3), (16, 1)];

/// Distinct for up to a million, unordered, many within others; in 32.0.0.0/3.
fn internet(n: u32) -> (u32, u8) {
    // 77 and 200 have no common divisor: lengths are mixed.
    let (round, mut place) = (n / 200, n % 200 * 77 % 200);
    for (len, count) in LENGTHS {
        if place < count {
            // An odd factor permutes all values of a length.
            let value = (round * count + place).wrapping_mul(0x9e37_79b1) % (1 << (len - 3));
            return (0x2000_0000 | value << (32 - len), len);
        }
        place -= count;
    }
    unreachable!("they are two hundred")
}

pub fn prefix6(n: u32) -> [u8; 8] {
    (0x2001_0000_0000_0000u64 + (u64::from(n) << 8)).to_be_bytes()
}

fn set(n: u32, med: u32) -> Vec<u8> {
    attributes(&[asn(n), 64600 + med % 300, 4_200_000_000 + med], address(n), med)
}

fn update6(attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).expect("short").to_be_bytes());
    body.extend(attributes);
    message(2, &body)
}

fn attribute(code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x90, code];
    out.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    out.extend(value);
    out
}

fn nlri6(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|n| std::iter::once(64).chain(prefix6(n))).collect()
}

/// Advertisements of neighbor `n`, followed by End-of-RIB.
pub fn announcements(n: u32, mode: Mode, routes: u32) -> Vec<u8> {
    let per_set = if matches!(mode, Mode::Pods) { 1 } else { 5 };
    let mut out = Vec::new();
    for med in 0..routes / per_set {
        let range = med * per_set..(med + 1) * per_set;
        let attributes = set(n, med);
        if matches!(mode, Mode::Ipv6) {
            let mut reach = vec![0, 2, 1, 16];
            reach.extend(NEXT_HOP6.octets());
            reach.push(0);
            reach.extend(nlri6(range));
            // ORIGIN and AS_PATH, without NEXT_HOP: seven octets of it stand before the seven of
            // MED.
            let (path, rest) = attributes.split_at(attributes.len() - 14);
            out.extend(update6(&[path, &rest[7..], &attribute(14, &reach)].concat()));
        } else {
            out.extend(update(&[], &attributes, &range.map(|n| mode.prefix(n)).collect::<Vec<_>>()));
        }
    }
    out.extend(end_of_rib());
    out
}

/// End-of-RIB for IPv6 unicast, for neighbors that negotiated it.
pub fn end_of_rib6() -> Vec<u8> {
    update6(&attribute(15, &[0, 2, 1]))
}

/// The same routes withdrawn, messages full.
pub fn withdrawals(mode: Mode, routes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for first in (0..routes).step_by(400) {
        let range = first..(first + 400).min(routes);
        if matches!(mode, Mode::Ipv6) {
            let unreach = [&[0, 2, 1][..], &nlri6(range)].concat();
            out.extend(update6(&attribute(15, &unreach)));
        } else {
            out.extend(update(&range.map(|n| mode.prefix(n)).collect::<Vec<_>>(), &[], &[]));
        }
    }
    out
}

/// Received octets that are not processed yet, and the number of prefixes received.
#[derive(Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    at: usize,
    /// IPv4 prefixes advertised so far.
    pub announced: usize,
    /// IPv4 prefixes withdrawn so far.
    pub withdrawn: usize,
}

impl Inbox {
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The type of the next whole message; the prefixes of UPDATEs are counted.
    pub fn next(&mut self) -> Option<u8> {
        let rest = &self.buffer[self.at..];
        let header = rest.get(..19)?;
        let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let (kind, body) = (header[18], rest.get(19..len)?);
        if kind == 2 {
            let (announced, withdrawn) = count(body);
            self.announced += announced;
            self.withdrawn += withdrawn;
        }
        self.at += len;
        Some(kind)
    }
}

/// IPv4 prefixes of an UPDATE: advertised and withdrawn.
fn count(body: &[u8]) -> (usize, usize) {
    let walk = |mut list: &[u8]| {
        let mut n = 0;
        while let Some((len, rest)) = list.split_first() {
            list = &rest[usize::from(len.div_ceil(8))..];
            n += 1;
        }
        n
    };
    let field = |octets: &[u8]| usize::from(u16::from_be_bytes([octets[0], octets[1]]));
    let withdrawn = field(body);
    let attributes = field(&body[2 + withdrawn..]);
    (walk(&body[4 + withdrawn + attributes..]), walk(&body[2..2 + withdrawn]))
}
