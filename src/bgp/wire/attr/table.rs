//! RFC 7606 as one table with a row per known attribute.
//!
//! A row has the attribute's flags, the neighbors it is accepted from, the functions that decode
//! and encode its value, and the handling of an UPDATE in which it is malformed. [`Draft`] handles
//! attributes without a row according to RFC 4271 §5 and §6.3.

use bytes::BytesMut;

use super::{
    decode::{Broken, Draft, values},
    encode::{Going, octets},
    mp,
};
use crate::bgp::wire::{Shape, update::AttrErrorAction};

/// Flag bits (RFC 4271 §4.3).
pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// Attribute codes.
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXT_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const IPV6_EXT_COMMUNITIES: u8 = 25;
    pub const AIGP: u8 = 26;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const OTC: u8 = 35;
}

/// Neighbors that an attribute is accepted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Anyone,
    /// iBGP; from others it is discarded (RFC 7606 §7.5, §7.9, §7.10).
    Internal,
    /// Neighbors with two-octet AS numbers; from others it is discarded (RFC 6793 §6).
    TwoOctet,
    /// None: ignored like an unknown non-transitive attribute (RFC 7311 §3.3).
    NoNeighbor,
}

impl Source {
    pub(super) fn holds(self, shape: &Shape) -> bool {
        match self {
            Self::Anyone => true,
            Self::Internal => shape.ibgp,
            Self::TwoOctet => !shape.four_octet_as,
            Self::NoNeighbor => false,
        }
    }
}

/// One attribute.
pub(super) struct Row {
    pub(super) code: u8,
    pub(super) name: &'static str,
    /// The Optional and Transitive bits it must have; others are a flags error (RFC 7606 §3 c).
    pub(super) flags: u8,
    pub(super) source: Source,
    /// Subcode of RFC 4271 §6.3 for an invalid value, if the session is reset (RFC 7606 §5.2).
    pub(super) subcode: u8,
    /// Handling of an invalid length or value.
    pub(super) broken: AttrErrorAction,
    pub(super) decode: for<'a> fn(&mut Draft<'a>, &'a [u8]) -> Result<(), Broken>,
    pub(super) encode: fn(&Going<'_>, &mut BytesMut),
}

const WELL_KNOWN: u8 = TRANSITIVE;
const LOCAL: u8 = OPTIONAL;
const GLOBAL: u8 = OPTIONAL | TRANSITIVE;

use self::Source::{Anyone, Internal, NoNeighbor, TwoOctet};
use AttrErrorAction::{Discard, Reset, TreatAsWithdraw as Withdraw};

/// In the order of the codes, which is the order of encoding (RFC 4271 §5), except for
/// MP_REACH_NLRI and MP_UNREACH_NLRI: the packer writes these first (RFC 7606 §5.1).
#[rustfmt::skip]
pub(super) static ROWS: [Row; 19] = [
    // RFC 4271 §4.3, §5.1; RFC 7606 §7.1 to §7.7.
    row(code::ORIGIN,               "ORIGIN",               WELL_KNOWN, Anyone,   6,  Withdraw, values::origin,               octets::origin),
    row(code::AS_PATH,              "AS_PATH",              WELL_KNOWN, Anyone,   11, Withdraw, values::as_path,              octets::as_path),
    row(code::NEXT_HOP,             "NEXT_HOP",             WELL_KNOWN, Anyone,   8,  Withdraw, values::next_hop,             octets::next_hop),
    row(code::MED,                  "MULTI_EXIT_DISC",      LOCAL,      Anyone,   9,  Withdraw, values::med,                  octets::med),
    row(code::LOCAL_PREF,           "LOCAL_PREF",           WELL_KNOWN, Internal, 5,  Withdraw, values::local_pref,           octets::local_pref),
    row(code::ATOMIC_AGGREGATE,     "ATOMIC_AGGREGATE",     WELL_KNOWN, Anyone,   5,  Discard,  values::atomic_aggregate,     octets::atomic_aggregate),
    row(code::AGGREGATOR,           "AGGREGATOR",           GLOBAL,     Anyone,   9,  Discard,  values::aggregator,           octets::aggregator),
    // RFC 1997; RFC 7606 §7.8.
    row(code::COMMUNITIES,          "COMMUNITIES",          GLOBAL,     Anyone,   9,  Withdraw, values::communities,          octets::communities),
    // RFC 4456 §8; RFC 7606 §7.9, §7.10.
    row(code::ORIGINATOR_ID,        "ORIGINATOR_ID",        LOCAL,      Internal, 9,  Withdraw, values::originator_id,        octets::originator_id),
    row(code::CLUSTER_LIST,         "CLUSTER_LIST",         LOCAL,      Internal, 9,  Withdraw, values::cluster_list,         octets::cluster_list),
    // RFC 4760 §3, §4; RFC 7606 §5.3, §7.11, §7.12.
    row(code::MP_REACH,             "MP_REACH_NLRI",        LOCAL,      Anyone,   9,  Reset,    mp::reach,                    octets::nothing),
    row(code::MP_UNREACH,           "MP_UNREACH_NLRI",      LOCAL,      Anyone,   9,  Reset,    mp::unreach,                  octets::nothing),
    // RFC 4360; RFC 7606 §7.14.
    row(code::EXT_COMMUNITIES,      "EXTENDED COMMUNITIES", GLOBAL,     Anyone,   9,  Withdraw, values::ext_communities,      octets::ext_communities),
    // RFC 6793 §6.
    row(code::AS4_PATH,             "AS4_PATH",             GLOBAL,     TwoOctet, 9,  Discard,  values::as4_path,             octets::as4_path),
    row(code::AS4_AGGREGATOR,       "AS4_AGGREGATOR",       GLOBAL,     TwoOctet, 9,  Discard,  values::as4_aggregator,       octets::as4_aggregator),
    // RFC 5701; RFC 7606 §7.15.
    row(code::IPV6_EXT_COMMUNITIES, "IPV6 EXTENDED COMMUNITIES", GLOBAL, Anyone,  9,  Withdraw, values::ipv6_ext_communities, octets::ipv6_ext_communities),
    // RFC 7311 §3.3: disabled.
    row(code::AIGP,                 "AIGP",                 LOCAL,      NoNeighbor,   9,  Discard,  values::nothing,              octets::nothing),
    // RFC 8092 §6.
    row(code::LARGE_COMMUNITIES,    "LARGE_COMMUNITY",      GLOBAL,     Anyone,   9,  Withdraw, values::large_communities,    octets::large_communities),
    // RFC 9234 §5.
    row(code::OTC,                  "ONLY_TO_CUSTOMER",     GLOBAL,     Anyone,   9,  Withdraw, values::otc,                  octets::otc),
];

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn row(
    code: u8,
    name: &'static str,
    flags: u8,
    source: Source,
    subcode: u8,
    broken: AttrErrorAction,
    decode: for<'a> fn(&mut Draft<'a>, &'a [u8]) -> Result<(), Broken>,
    encode: fn(&Going<'_>, &mut BytesMut),
) -> Row {
    Row { code, name, flags, source, subcode, broken, decode, encode }
}

/// The row of an attribute; `None` for unknown ones.
pub(super) fn find(code: u8) -> Option<&'static Row> {
    ROWS.get(usize::from(*INDEX.get(usize::from(code))?))
}

/// Index in [`ROWS`] by code; beyond its end for unknown ones.
static INDEX: [u8; 256] = index();

#[expect(clippy::indexing_slicing, reason = "computed by the compiler")]
const fn index() -> [u8; 256] {
    let mut places = [u8::MAX; 256];
    let mut n = 0;
    while n < ROWS.len() {
        places[ROWS[n].code as usize] = n as u8;
        n += 1;
    }
    places
}

/// The name of an attribute, for logs.
pub fn name(code: u8) -> &'static str {
    find(code).map_or("unknown attribute", |row| row.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_their_codes_and_are_found() {
        assert!(ROWS.is_sorted_by(|a, b| a.code < b.code));
        for code in 0..=255 {
            let want = ROWS.iter().find(|r| r.code == code).map(|r| r.name);
            assert_eq!(find(code).map(|r| r.name), want);
        }
        assert_eq!((name(1), name(99)), ("ORIGIN", "unknown attribute"));
    }
}
