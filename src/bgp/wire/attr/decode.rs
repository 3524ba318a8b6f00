//! Decoding of path attributes: iteration, the draft that collects them, and the value of each.

use std::net::Ipv4Addr;

use super::{
    AsPath, Attrs, ExtraAttrs, Origin, PathNextHop, UnknownAttr,
    mp::{Reach, Unreach},
    table::{self, OPTIONAL, PARTIAL, TRANSITIVE, code},
};
use crate::{
    bgp::wire::{
        Code, Shape, WireError,
        update::{AttrErrorAction, Flaw},
    },
    net::{AS_TRANS, Asn},
};

/// One attribute as it is in the message.
#[derive(Clone, Copy)]
pub(in crate::bgp::wire) struct Raw<'a> {
    pub(super) flags: u8,
    pub(in crate::bgp::wire) code: u8,
    pub(super) value: &'a [u8],
    /// Header and value, for the data of a NOTIFICATION.
    pub(in crate::bgp::wire) whole: &'a [u8],
}

/// Iterates over attributes; stops at the end or before one that exceeds it (RFC 7606 §4).
pub(in crate::bgp::wire) struct Walk<'a> {
    pub(in crate::bgp::wire) rest: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let (flags, code, length, after) = match self.rest {
            [flags, code, hi, lo, after @ ..] if flags & table::EXTENDED_LENGTH != 0 => {
                (*flags, *code, usize::from(u16::from_be_bytes([*hi, *lo])), after)
            }
            [flags, code, length, after @ ..] if flags & table::EXTENDED_LENGTH == 0 => {
                (*flags, *code, usize::from(*length), after)
            }
            _ => return None,
        };
        let (value, after) = after.split_at_checked(length)?;
        let (whole, _) = self.rest.split_at_checked(self.rest.len() - after.len())?;
        self.rest = after;
        Some(Raw { flags, code, value, whole })
    }
}

/// Why an attribute is malformed.
pub(super) enum Broken {
    Length,
    Value(&'static str),
}

/// The most severe error so far, with what a NOTIFICATION about it requires (RFC 7606 §5.2).
#[derive(Clone, Copy)]
pub(in crate::bgp::wire) struct Trouble<'a> {
    subcode: u8,
    data: &'a [u8],
    what: &'static str,
}

impl Trouble<'_> {
    pub(in crate::bgp::wire) fn into_error(self) -> WireError {
        WireError::new(Code::Update, self.subcode, self.data, self.what)
    }
}

/// Limit of flaws that are reported for one UPDATE.
const MAX_FLAWS: usize = 16;

/// The attributes of one UPDATE collected so far.
pub(in crate::bgp::wire) struct Draft<'a> {
    shape: &'a Shape,
    /// One bit per code.
    seen: [u64; 4],
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    pub(in crate::bgp::wire) next_hop: Option<Ipv4Addr>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Box<[u32]>,
    extra: Option<Box<ExtraAttrs>>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(Asn, Ipv4Addr)>,
    pub(in crate::bgp::wire) reach: Option<Reach<'a>>,
    pub(in crate::bgp::wire) unreach: Option<Unreach<'a>>,
    pub(in crate::bgp::wire) flaws: Vec<Flaw>,
    /// The first error that requires more than discarding the attribute.
    pub(in crate::bgp::wire) trouble: Option<Trouble<'a>>,
}

impl<'a> Draft<'a> {
    pub(in crate::bgp::wire) fn new(shape: &'a Shape) -> Self {
        Self {
            shape,
            seen: [0; 4],
            origin: None,
            as_path: None,
            next_hop: None,
            med: None,
            local_pref: None,
            communities: Box::default(),
            extra: None,
            as4_path: None,
            as4_aggregator: None,
            reach: None,
            unreach: None,
            flaws: Vec::new(),
            trouble: None,
        }
    }

    pub(super) fn shape(&self) -> &'a Shape {
        self.shape
    }

    fn extra(&mut self) -> &mut ExtraAttrs {
        self.extra.get_or_insert_default()
    }

    /// Adds one attribute.
    ///
    /// # Errors
    ///
    /// What still resets a session: an unknown well-known attribute, or a malformed or repeated
    /// MP_REACH_NLRI or MP_UNREACH_NLRI.
    pub(in crate::bgp::wire) fn take(&mut self, raw: Raw<'a>) -> Result<(), WireError> {
        if self.seen_before(raw.code) {
            return self.repeated(raw.code);
        }
        let Some(row) = table::find(raw.code) else { return self.take_unknown(raw) };
        if !row.source.holds(self.shape) {
            if row.source != table::Source::NoNeighbor {
                self.flaw(raw.code, AttrErrorAction::Discard, "not expected from this neighbor");
            }
            return Ok(());
        }
        let (action, subcode, what) = if raw.flags & (OPTIONAL | TRANSITIVE) != row.flags {
            // RFC 7606 §3 c, j: treat-as-withdraw, provided that the prefixes to withdraw can be
            // decoded.
            let readable = row.broken != AttrErrorAction::Reset || (row.decode)(self, raw.value).is_ok();
            (
                if readable { AttrErrorAction::TreatAsWithdraw } else { AttrErrorAction::Reset },
                4,
                "wrong flags",
            )
        } else {
            match (row.decode)(self, raw.value) {
                Ok(()) => {
                    self.keep_partial(row, raw);
                    return Ok(());
                }
                Err(Broken::Length) => (row.broken, 5, "wrong length"),
                Err(Broken::Value(what)) => (row.broken, row.subcode, what),
            }
        };
        match action {
            AttrErrorAction::Discard => self.flaw(raw.code, action, what),
            // RFC 4271 §6.3: all errors but a malformed AS_PATH include the attribute.
            AttrErrorAction::TreatAsWithdraw => {
                let data = if subcode == 11 { &[] } else { raw.whole };
                self.withdraw(raw.code, subcode, data, what);
            }
            AttrErrorAction::Reset => return Err(WireError::new(Code::Update, row.subcode, raw.whole, what)),
        }
        Ok(())
    }

    /// Once set, the Partial bit is kept (RFC 4271 §4.3).
    fn keep_partial(&mut self, row: &table::Row, raw: Raw<'_>) {
        let passed_on = row.flags & TRANSITIVE != 0 && row.source == table::Source::Anyone;
        if passed_on && raw.flags & (OPTIONAL | PARTIAL) == OPTIONAL | PARTIAL {
            self.extra().partial.push(raw.code);
        }
    }

    fn seen_before(&mut self, code: u8) -> bool {
        let bit = 1 << (code % 64);
        let Some(bits) = self.seen.get_mut(usize::from(code / 64)) else { return false };
        let before = *bits & bit != 0;
        *bits |= bit;
        before
    }

    /// RFC 7606 §3 g: for most attributes the first occurrence counts.
    fn repeated(&mut self, code: u8) -> Result<(), WireError> {
        if matches!(code, code::MP_REACH | code::MP_UNREACH) {
            return Err(WireError::new(Code::Update, 1, &[], "MP_REACH_NLRI or MP_UNREACH_NLRI twice"));
        }
        self.flaw(code, AttrErrorAction::Discard, "repeated");
        Ok(())
    }

    /// RFC 4271 §5, §6.3: the flags decide whether an unknown attribute is kept, ignored or
    /// rejected.
    fn take_unknown(&mut self, raw: Raw<'a>) -> Result<(), WireError> {
        if raw.flags & OPTIONAL == 0 {
            return Err(WireError::new(Code::Update, 2, raw.whole, "unknown well-known attribute"));
        }
        if raw.flags & TRANSITIVE == 0 {
            return Ok(());
        }
        // Copied, since a slice would keep the whole read buffer alive.
        let value = bytes::Bytes::copy_from_slice(raw.value);
        self.extra().unknown.push(UnknownAttr { flags: raw.flags, code: raw.code, value });
        Ok(())
    }

    /// Handles the rest of a list whose last attribute exceeds it (RFC 7606 §4).
    ///
    /// # Errors
    ///
    /// If that attribute carries NLRI, which then cannot be located (RFC 7606 §3 j).
    pub(in crate::bgp::wire) fn overrun(&mut self, rest: &'a [u8]) -> Result<(), WireError> {
        let what = "attribute longer than the list of attributes";
        match rest.get(1).copied() {
            Some(code::MP_REACH | code::MP_UNREACH) => Err(WireError::new(Code::Update, 9, rest, what)),
            code => {
                self.withdraw(code.unwrap_or(0), 1, &[], what);
                Ok(())
            }
        }
    }

    /// Checks that all mandatory attributes are present (RFC 7606 §3 d) and consistent.
    pub(in crate::bgp::wire) fn complete(&mut self, classic: bool) {
        let missing = [
            (code::ORIGIN, self.origin.is_none()),
            (code::AS_PATH, self.as_path.is_none()),
            (code::NEXT_HOP, classic && self.next_hop.is_none()),
        ];
        for (code, missing) in missing {
            // A malformed one was handled already.
            if missing && !self.flaws.iter().any(|f| f.attribute == code) {
                self.withdraw(code, 3, &[], "missing");
            }
        }
        if let Some(next_hop) = self.next_hop.filter(|_| classic)
            && !is_host(next_hop)
            && !(self.shape.on_host && next_hop.is_loopback())
        {
            self.withdraw(code::NEXT_HOP, 8, &[], "no address of a host");
        }
        if let Some(Reach { flaw: Some(what), .. }) = self.reach {
            self.withdraw(code::MP_REACH, 8, &[], what);
        }
        self.merge_as4();
        if let (Some(first), Some(path)) = (self.shape.first_as, &self.as_path)
            && path.first() != Some(first)
        {
            self.withdraw(code::AS_PATH, 11, &[], "does not begin with the neighbor's number");
        }
    }

    /// RFC 6793 §4.2.3.
    fn merge_as4(&mut self) {
        let aggregator = self.extra.as_ref().and_then(|r| r.aggregator);
        match (aggregator, self.as4_aggregator.take()) {
            (Some((AS_TRANS, _)), Some(real)) => self.extra().aggregator = Some(real),
            // A router without support for AS4_PATH aggregated the route.
            (Some(_), Some(_)) => return,
            _ => {}
        }
        if let (Some(path), Some(as4)) = (&mut self.as_path, self.as4_path.take()) {
            *path = std::mem::take(path).merge(&as4);
        }
    }

    /// The attribute set of routes with this next hop.
    pub(in crate::bgp::wire) fn finish(self, next_hop: PathNextHop) -> Attrs {
        let mut attrs = Attrs {
            origin: self.origin.unwrap_or(Origin::Incomplete),
            as_path: self.as_path.unwrap_or_default(),
            next_hop,
            med: self.med,
            local_pref: self.local_pref,
            communities: self.communities,
            extra: self.extra,
        };
        if let Some(extra) = &mut attrs.extra {
            extra.unknown.sort_by_key(|a| a.code);
            extra.partial.sort_unstable();
        }
        attrs.tidy();
        attrs
    }

    fn flaw(&mut self, attribute: u8, action: AttrErrorAction, what: &'static str) {
        if self.flaws.len() < MAX_FLAWS {
            self.flaws.push(Flaw { attribute, action, what });
        }
    }

    fn withdraw(&mut self, attribute: u8, subcode: u8, data: &'a [u8], what: &'static str) {
        self.flaw(attribute, AttrErrorAction::TreatAsWithdraw, what);
        self.trouble.get_or_insert(Trouble { subcode, data, what });
    }
}

/// RFC 4271 §6.3: "a valid IP host address".
pub(super) fn is_host(addr: Ipv4Addr) -> bool {
    !matches!(addr.octets(), [0 | 127 | 224..=255, ..])
}

/// One function per attribute, which decodes its value into the draft.
pub(super) mod values {
    use super::*;

    type Taken = Result<(), Broken>;

    pub(in super::super) fn origin(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.origin = Some(match value {
            [0] => Origin::Igp,
            [1] => Origin::Egp,
            [2] => Origin::Incomplete,
            [_] => return Err(Broken::Value("undefined origin")),
            _ => return Err(Broken::Length),
        });
        Ok(())
    }

    pub(in super::super) fn as_path(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.as_path = Some(AsPath::decode(value, draft.shape.four_octet_as).map_err(Broken::Value)?);
        Ok(())
    }

    pub(in super::super) fn next_hop(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.next_hop = Some(Ipv4Addr::from(number(value)?));
        Ok(())
    }

    pub(in super::super) fn med(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.med = Some(number(value)?);
        Ok(())
    }

    pub(in super::super) fn local_pref(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.local_pref = Some(number(value)?);
        Ok(())
    }

    pub(in super::super) fn atomic_aggregate(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        if !value.is_empty() {
            return Err(Broken::Length);
        }
        draft.extra().atomic_aggregate = true;
        Ok(())
    }

    pub(in super::super) fn aggregator(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        let two = !draft.shape.four_octet_as;
        draft.extra().aggregator = Some(aggregated_by(value, two)?);
        Ok(())
    }

    pub(in super::super) fn as4_aggregator(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.as4_aggregator = Some(aggregated_by(value, false)?);
        Ok(())
    }

    fn aggregated_by(value: &[u8], two_octets: bool) -> Result<(Asn, Ipv4Addr), Broken> {
        let (asn, addr) = match value {
            [a, b, addr @ ..] if two_octets => (Asn::from(u16::from_be_bytes([*a, *b])), addr),
            [a, b, c, d, addr @ ..] if !two_octets => (Asn::from_be_bytes([*a, *b, *c, *d]), addr),
            _ => return Err(Broken::Length),
        };
        let addr = Ipv4Addr::from(number(addr)?);
        // RFC 7607 §2.
        if asn == 0 { Err(Broken::Value("AS 0")) } else { Ok((asn, addr)) }
    }

    pub(in super::super) fn communities(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.communities = entries(value)?.iter().map(|c| u32::from_be_bytes(*c)).collect();
        Ok(())
    }

    pub(in super::super) fn originator_id(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.extra().originator_id = Some(Ipv4Addr::from(number(value)?));
        Ok(())
    }

    pub(in super::super) fn cluster_list(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.extra().cluster_list = entries(value)?.iter().map(|c| u32::from_be_bytes(*c)).collect();
        Ok(())
    }

    pub(in super::super) fn ext_communities(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.extra().ext_communities = entries(value)?.to_vec();
        Ok(())
    }

    pub(in super::super) fn ipv6_ext_communities(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.extra().ipv6_ext_communities = entries(value)?.to_vec();
        Ok(())
    }

    /// Duplicates are removed (RFC 8092 §3).
    pub(in super::super) fn large_communities(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        let list = entries::<12>(value)?;
        let mut seen = std::collections::HashSet::with_capacity(list.len());
        draft.extra().large_communities =
            list.iter().filter(|c| seen.insert(**c)).map(large_community).collect();
        Ok(())
    }

    fn large_community(octets: &[u8; 12]) -> [u32; 3] {
        let mut parts = octets.as_chunks::<4>().0.iter().map(|n| u32::from_be_bytes(*n));
        [(); 3].map(|()| parts.next().unwrap_or(0))
    }

    pub(in super::super) fn as4_path(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        if value.is_empty() {
            return Err(Broken::Length);
        }
        draft.as4_path = Some(AsPath::decode_as4(value).map_err(Broken::Value)?);
        Ok(())
    }

    pub(in super::super) fn otc(draft: &mut Draft<'_>, value: &[u8]) -> Taken {
        draft.extra().otc = Some(number(value)?);
        Ok(())
    }

    pub(in super::super) fn nothing(_: &mut Draft<'_>, _: &[u8]) -> Taken {
        Ok(())
    }

    fn number(value: &[u8]) -> Result<u32, Broken> {
        value.try_into().map(u32::from_be_bytes).map_err(|_| Broken::Length)
    }

    /// A list of `N` octets per entry: not empty (RFC 7606 §4), without a remainder.
    fn entries<const N: usize>(value: &[u8]) -> Result<&[[u8; N]], Broken> {
        match value.as_chunks() {
            (list @ [_, ..], []) => Ok(list),
            _ => Err(Broken::Length),
        }
    }
}
