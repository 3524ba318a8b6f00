//! UPDATE (RFC 4271 §4.3, RFC 4760): routes that a neighbor advertises and withdraws, and the error
//! handling of RFC 7606.
//!
//! Two rules determine the order of decoding. Treat-as-withdraw requires that all NLRI were located
//! (RFC 7606 §3 j), so the fields that contain them are decoded first; malformed ones reset the
//! session. And the strongest action applies (§3 h), so all attributes are decoded before any
//! action is taken.

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use super::nlri::{Nlri, NlriBlock};
use super::{
    Code, Shape, WireError,
    attr::{
        self, Attrs, PathNextHop, code,
        decode::{Draft, Walk},
    },
    nlri,
};
use crate::net::Family;

/// The content of one UPDATE after the error handling of RFC 7606: NLRI to be treated as withdrawn
/// are in `withdrawn`.
///
/// Withdrawals are applied first: a prefix in both lists is advertised (RFC 4271 §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub withdrawn: Vec<NlriBlock>,
    pub advertised: Vec<(Arc<Attrs>, NlriBlock)>,
    /// RFC 4724 §2.
    pub end_of_rib: Option<Family>,
    /// Errors that did not reset the session, for the log and the counters. At most 16.
    pub flaws: Vec<Flaw>,
}

/// A malformed attribute and the action taken (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub attribute: u8,
    pub action: AttrErrorAction,
    pub what: &'static str,
}

/// RFC 7606 §2, in order of increasing strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttrErrorAction {
    Discard,
    TreatAsWithdraw,
    /// Never in a [`Flaw`]: it becomes a [`WireError`].
    Reset,
}

/// `ORIGIN (1): wrong length, routes treated as withdrawn`.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.action {
            AttrErrorAction::Discard => "attribute discarded",
            AttrErrorAction::TreatAsWithdraw => "routes treated as withdrawn",
            AttrErrorAction::Reset => "session reset",
        };
        write!(f, "{} ({}): {}, {done}", attr::name(self.attribute), self.attribute, self.what)
    }
}

/// Decodes the UPDATEs of one session. Caches the last attributes: UPDATEs that repeat them share
/// one [`Attrs`] and require no decoding.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    last: Option<Remembered>,
    /// The octets of the last attributes, without MP_REACH_NLRI and MP_UNREACH_NLRI.
    key: Vec<u8>,
}

/// Result of decoding the last attributes.
#[derive(Debug)]
struct Remembered {
    /// From MP_REACH_NLRI; `None` if it was NEXT_HOP.
    next_hop: Option<PathNextHop>,
    attrs: Arc<Attrs>,
    flaws: Vec<Flaw>,
}

/// The three variable fields (RFC 4271 §4.3).
struct Sections<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

/// The attributes without those that contain NLRI: at most three pieces.
type Pieces<'a> = [&'a [u8]; 3];

impl Decoder {
    pub fn new(shape: Shape) -> Self {
        Self { shape, last: None, key: Vec::new() }
    }

    /// Decodes the body of an UPDATE.
    ///
    /// # Errors
    ///
    /// Code 3 with subcode and data of RFC 4271 §6.3 where RFC 7606 still requires a reset.
    pub fn decode(&mut self, body: &Bytes) -> Result<Update, WireError> {
        let shape = self.shape;
        let sections = Sections::split(body)?;
        let mut draft = Draft::new(&shape);
        let pieces = carriers(&mut draft, sections.attributes)?;
        let withdrawn = classic(&shape, body, sections.withdrawn)?;
        let nlri = classic(&shape, body, sections.nlri)?;
        let block = |family, nlri| block(&shape, body, family, nlri);
        let reached = draft.reach.and_then(|r| block(r.family?, r.nlri));
        let unreached = draft.unreach.and_then(|u| block(u.family?, u.nlri));

        let mut update = Update::default();
        update.withdrawn.extend(withdrawn.into_iter().chain(unreached));
        if pieces.iter().all(|p| p.is_empty()) && sections.nlri.is_empty() && draft.reach.is_none() {
            update.end_of_rib = end_of_rib(&shape, &sections, &draft);
            update.flaws = draft.flaws;
            return Ok(update);
        }
        // The next hop of MP_REACH_NLRI, or that of NEXT_HOP.
        let single = match (&nlri, &reached) {
            _ if draft.trouble.is_some() => None,
            (Some(_), None) => Some(None),
            (None, Some(_)) => draft.reach.map(|r| Some(r.next_hop)),
            _ => None,
        };
        if let Some(last) = single.and_then(|next_hop| self.recall(next_hop, &pieces)) {
            update.advertised.extend(nlri.or(reached).map(|block| (last.attrs.clone(), block)));
            update.flaws.clone_from(&last.flaws);
            return Ok(update);
        }
        parse(&mut draft, &pieces)?;
        if nlri.is_some() || reached.is_some() {
            draft.complete(nlri.is_some());
        }
        update.flaws = std::mem::take(&mut draft.flaws);
        if let Some(trouble) = draft.trouble {
            // RFC 7606 §5.2: without reachable NLRI it is unknown what would have to be withdrawn.
            if sections.nlri.is_empty() && draft.reach.is_none_or(|r| r.nlri.is_empty()) {
                return Err(trouble.into_error());
            }
            update.withdrawn.extend(nlri.into_iter().chain(reached));
            return Ok(update);
        }
        self.advertise(draft, nlri, reached, &mut update);
        if let Some(next_hop) = single {
            self.remember(next_hop, &pieces, &update);
        }
        Ok(update)
    }

    /// Pairs advertised prefixes with their attributes; the two fields differ in the next hop.
    fn advertise(
        &self,
        draft: Draft<'_>,
        nlri: Option<NlriBlock>,
        reached: Option<NlriBlock>,
        update: &mut Update,
    ) {
        let classic_hop = draft.next_hop.map(|a| PathNextHop::from(std::net::IpAddr::V4(a)));
        let mp_hop = draft.reach.map(|r| r.next_hop);
        let (classic, mp) = (nlri.zip(classic_hop), reached.zip(mp_hop));
        let Some((_, any)) = classic.as_ref().or(mp.as_ref()) else { return };
        let attrs = draft.finish(*any);
        let both = classic.is_some() && mp.is_some();
        let attrs = Arc::new(attrs);
        if let (true, Some((block, next_hop))) = (both, &mp) {
            let other = Attrs { next_hop: *next_hop, ..(*attrs).clone() };
            update.advertised.push((Arc::new(other), block.clone()));
        }
        update.advertised.extend(classic.or(mp).map(|(block, _)| (attrs, block)));
    }

    /// The cached result, if this UPDATE has the same attributes as the last.
    fn recall(&self, next_hop: Option<PathNextHop>, pieces: &Pieces<'_>) -> Option<&Remembered> {
        let last = self.last.as_ref().filter(|last| last.next_hop == next_hop)?;
        let rest = pieces.iter().try_fold(&*self.key, |rest, piece| rest.strip_prefix(*piece))?;
        rest.is_empty().then_some(last)
    }

    fn remember(&mut self, next_hop: Option<PathNextHop>, pieces: &Pieces<'_>, update: &Update) {
        self.key.clear();
        pieces.iter().for_each(|piece| self.key.extend_from_slice(piece));
        self.last = update.advertised.first().map(|(attrs, _)| Remembered {
            next_hop,
            attrs: attrs.clone(),
            flaws: update.flaws.clone(),
        });
    }
}

impl<'a> Sections<'a> {
    /// RFC 4271 §6.3: lengths beyond the message are 3/1.
    fn split(body: &'a [u8]) -> Result<Self, WireError> {
        let field = |octets: &'a [u8]| {
            let (length, rest) = octets.split_first_chunk::<2>()?;
            rest.split_at_checked(u16::from_be_bytes(*length).into())
        };
        let sections = field(body).and_then(|(withdrawn, rest)| {
            let (attributes, nlri) = field(rest)?;
            Some(Self { withdrawn, attributes, nlri })
        });
        sections.ok_or_else(|| bad(1, "lengths of withdrawn routes and attributes exceed the message"))
    }
}

/// Decodes the attributes that contain NLRI; returns the pieces around them.
fn carriers<'a>(draft: &mut Draft<'a>, attributes: &'a [u8]) -> Result<Pieces<'a>, WireError> {
    let mut pieces: Pieces<'a> = [&[]; 3];
    let mut rest = pieces.iter_mut();
    let mut walk = Walk { rest: attributes };
    let mut tail = attributes;
    while let Some(raw) = walk.next() {
        if matches!(raw.code, code::MP_REACH | code::MP_UNREACH) {
            // Each can occur only once, so there is a piece left.
            draft.take(raw)?;
            let before = tail.len() - walk.rest.len() - raw.whole.len();
            if let Some(piece) = rest.next() {
                *piece = tail.get(..before).unwrap_or_default();
            }
            tail = walk.rest;
        }
    }
    if let Some(piece) = rest.next() {
        *piece = tail;
    }
    Ok(pieces)
}

fn parse<'a>(draft: &mut Draft<'a>, pieces: &Pieces<'a>) -> Result<(), WireError> {
    for piece in pieces {
        let mut walk = Walk { rest: piece };
        for raw in walk.by_ref() {
            draft.take(raw)?;
        }
        if !walk.rest.is_empty() {
            draft.overrun(walk.rest)?;
        }
    }
    Ok(())
}

/// The withdrawn routes or the NLRI field: IPv4 unicast, ignored unless negotiated.
fn classic(shape: &Shape, body: &Bytes, octets: &[u8]) -> Result<Option<NlriBlock>, WireError> {
    let family = Family::Ipv4Unicast;
    if !nlri::is_valid(family, shape.add_path_receive(family), octets) {
        return Err(bad(10, "malformed prefixes"));
    }
    Ok(if shape.has(family) { block(shape, body, family, octets) } else { None })
}

fn block(shape: &Shape, body: &Bytes, family: Family, octets: &[u8]) -> Option<NlriBlock> {
    let add_path = shape.add_path_receive(family);
    (!octets.is_empty()).then(|| NlriBlock { family, add_path, bytes: body.slice_ref(octets) })
}

/// An UPDATE without any content, or an MP_UNREACH_NLRI with only a family (RFC 4724 §2).
fn end_of_rib(shape: &Shape, sections: &Sections<'_>, draft: &Draft<'_>) -> Option<Family> {
    match &draft.unreach {
        _ if !sections.withdrawn.is_empty() => None,
        Some(unreach) if unreach.nlri.is_empty() => unreach.family,
        Some(_) => None,
        None => Some(Family::Ipv4Unicast).filter(|f| shape.has(*f)),
    }
}

fn bad(subcode: u8, what: &'static str) -> WireError {
    WireError::new(Code::Update, subcode, &[], what)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        bgp::wire::{attr::AsPath, pack::Packer},
        net::{PerFamily, RouterId},
    };

    const EBGP: Shape = Shape {
        ibgp: false,
        four_octet_as: true,
        families: PerFamily::both(true),
        extended_next_hop: false,
        extended_messages: false,
        add_path_receive: PerFamily::both(false),
        add_path_send: PerFamily::both(false),
        first_as: None,
        on_host: false,
    };
    const IBGP: Shape = Shape { ibgp: true, ..EBGP };
    const TWO: Shape = Shape { four_octet_as: false, ..EBGP };

    const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
    const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
    const AS_PATH_TWO: &[u8] = &[0x40, 2, 4, 2, 1, 0xfd, 0xe9];
    const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
    const MED: &[u8] = &[0x80, 4, 4, 0, 0, 0, 5];
    const NET: &[u8] = &[24, 198, 51, 100];
    const OTHER: &[u8] = &[16, 10, 1];
    /// 2001:db8::/32.
    const NET6: &[u8] = &[32, 0x20, 1, 0xd, 0xb8];

    fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
        match u8::try_from(value.len()) {
            Ok(n) => [&[flags, code, n], value].concat(),
            Err(_) => [&[flags | 0x10, code], &(value.len() as u16).to_be_bytes()[..], value].concat(),
        }
    }

    fn reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
        reach_of([0, 2, 1], next_hop, nlri)
    }

    fn reach_of(family: [u8; 3], next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
        attr(0x80, 14, &[&family[..], &[next_hop.len() as u8], next_hop, &[0], nlri].concat())
    }

    const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Bytes {
        let attributes = attributes.concat();
        let mut out = Vec::new();
        for (field, counted) in [(withdrawn, true), (&attributes[..], true), (nlri, false)] {
            if counted {
                out.extend((field.len() as u16).to_be_bytes());
            }
            out.extend(field);
        }
        out.into()
    }

    /// The result of an UPDATE in one line.
    fn outcome(shape: &Shape, body: &Bytes) -> String {
        let update = match Decoder::new(*shape).decode(body) {
            Ok(update) => update,
            Err(e) => return format!("reset {}/{} {:?}", e.code as u8, e.subcode, &e.data[..]),
        };
        let list = |block: &NlriBlock| block.iter().map(|n| n.prefix.to_string()).collect::<Vec<_>>();
        let mut parts: Vec<String> =
            update.withdrawn.iter().flat_map(list).map(|p| format!("-{p}")).collect();
        parts.extend(update.advertised.iter().flat_map(|(_, b)| list(b)).map(|p| format!("+{p}")));
        parts.extend(update.end_of_rib.map(|f| format!("end {f}")));
        parts.extend(update.flaws.iter().map(|f| {
            let action = if f.action == AttrErrorAction::Discard { "discard" } else { "withdraw" };
            format!("{action} {}", f.attribute)
        }));
        parts.join(" ")
    }

    fn attrs(shape: &Shape, body: &Bytes) -> Arc<Attrs> {
        let update = Decoder::new(*shape).decode(body).unwrap();
        assert_eq!(update.advertised.len(), 1, "{update:?}");
        update.advertised[0].0.clone()
    }

    /// Adds one attribute to an UPDATE that is valid without it, or replaces the valid one with its
    /// code.
    fn with(shape: &Shape, extra: &[u8]) -> Bytes {
        let as_path = if shape.four_octet_as { AS_PATH } else { AS_PATH_TWO };
        let mut all: Vec<&[u8]> = vec![ORIGIN, as_path, NEXT_HOP, MED];
        all.retain(|a| a[1] != extra[1]);
        all.push(extra);
        body(&[], &all, NET)
    }

    const GOOD: &str = "+198.51.100.0/24";

    #[test]
    fn updates_are_decoded() {
        #[rustfmt::skip]
        let cases: &[(&str, Bytes, &str)] = &[
            ("advertise",            body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], NET), GOOD),
            ("withdraw",            body(OTHER, &[], &[]), "-10.1.0.0/16"),
            ("both",                body(OTHER, &[ORIGIN, AS_PATH, NEXT_HOP], NET), "-10.1.0.0/16 +198.51.100.0/24"),
            ("any order",           body(&[], &[NEXT_HOP, MED, AS_PATH, ORIGIN], NET), GOOD),
            ("end of IPv4",         body(&[], &[], &[]), "end ipv4-unicast"),
            ("end of IPv6",         body(&[], &[&attr(0x80, 15, &[0, 2, 1])], &[]), "end ipv6-unicast"),
            ("end of IPv4, MP",     body(&[], &[&attr(0x80, 15, &[0, 1, 1])], &[]), "end ipv4-unicast"),
            ("end of another",      body(&[], &[&attr(0x80, 15, &[0, 1, 128])], &[]), ""),
            ("no end: withdraws",   body(OTHER, &[&attr(0x80, 15, &[0, 2, 1])], &[]), "-10.1.0.0/16"),
            ("attributes only",     body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[]), ""),
            ("IPv6",                body(&[], &[ORIGIN, AS_PATH, &reach(&GLOBAL, NET6)], &[]), "+2001:db8::/32"),
            ("IPv6 and IPv4",       body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH, NEXT_HOP], NET), "+2001:db8::/32 +198.51.100.0/24"),
            ("IPv6 withdrawn",      body(&[], &[&attr(0x80, 15, &[&[0, 2, 1], NET6].concat())], &[]), "-2001:db8::/32"),
            ("IPv4 in MP_REACH",    body(&[], &[ORIGIN, AS_PATH, &reach_of([0, 1, 1], &[192, 0, 2, 1], NET)], &[]), GOOD),
            ("no prefix in MP",     body(&[], &[ORIGIN, AS_PATH, &reach(&GLOBAL, &[])], &[]), ""),
        ];
        for (name, body, want) in cases {
            assert_eq!(outcome(&EBGP, body), *want, "{name}");
        }
    }

    /// RFC 4271 §6.3 as RFC 7606 §7 revises it, attribute by attribute.
    #[test]
    fn every_broken_attribute_has_its_verdict() {
        const EXT: &[Shape] = &[EBGP];
        const INT: &[Shape] = &[IBGP];
        const ALL: &[Shape] = &[EBGP, IBGP];
        const OLD: &[Shape] = &[TWO, Shape { ibgp: true, ..TWO }];
        let path = |octets: &[u8]| attr(0x40, 2, octets);
        #[rustfmt::skip]
        let cases: Vec<(&str, &[Shape], Vec<u8>, &str)> = vec![
            // §7.1
            ("ORIGIN of 0",                    ALL, attr(0x40, 1, &[]), "withdraw 1"),
            ("ORIGIN of 2",                    ALL, attr(0x40, 1, &[0, 0]), "withdraw 1"),
            ("ORIGIN 3",                       ALL, attr(0x40, 1, &[3]), "withdraw 1"),
            ("ORIGIN 255",                     ALL, attr(0x40, 1, &[255]), "withdraw 1"),
            ("ORIGIN 2 is the last",           ALL, attr(0x40, 1, &[2]), ""),
            // §7.2
            ("AS_PATH, unknown segment",       ALL, path(&[5, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, overrun",               ALL, path(&[2, 2, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, underrun",              ALL, path(&[2, 1, 0, 0, 0, 1, 2]), "withdraw 2"),
            ("AS_PATH, empty segment",         ALL, path(&[2, 0]), "withdraw 2"),
            ("AS_PATH, confederation",         ALL, path(&[3, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, two octets for four",   ALL, path(&[2, 1, 0, 1]), "withdraw 2"),
            ("AS_PATH, four octets for two",   OLD, path(&[2, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, AS 0 (RFC 7607)",       ALL, path(&[2, 1, 0, 0, 0, 0]), "withdraw 2"),
            ("AS_PATH, empty is good",         ALL, path(&[]), ""),
            ("AS_PATH, a single octet",        ALL, path(&[2]), "withdraw 2"),
            ("AS_PATH, segment 0",             ALL, path(&[0, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, second segment broken", ALL, path(&[2, 1, 0, 0, 0, 1, 5, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, second segment empty",  ALL, path(&[2, 1, 0, 0, 0, 1, 2, 0]), "withdraw 2"),
            ("AS_PATH, confederation set",     ALL, path(&[4, 1, 0, 0, 0, 1]), "withdraw 2"),
            ("AS_PATH, overrun, two octets",   OLD, path(&[2, 2, 0, 1]), "withdraw 2"),
            ("AS_PATH, set is well formed",    ALL, path(&[1, 1, 0, 0, 0, 1]), ""),
            // §7.3
            ("NEXT_HOP of 3",                  ALL, attr(0x40, 3, &[1, 1, 1]), "withdraw 3"),
            ("NEXT_HOP of 16",                 ALL, attr(0x40, 3, &GLOBAL), "withdraw 3"),
            ("NEXT_HOP of 0",                  ALL, attr(0x40, 3, &[]), "withdraw 3"),
            ("NEXT_HOP 0.0.0.0",               ALL, attr(0x40, 3, &[0, 0, 0, 0]), "withdraw 3"),
            ("NEXT_HOP 127.0.0.1",             ALL, attr(0x40, 3, &[127, 0, 0, 1]), "withdraw 3"),
            ("NEXT_HOP, class D",              ALL, attr(0x40, 3, &[224, 0, 0, 1]), "withdraw 3"),
            ("NEXT_HOP, class E",              ALL, attr(0x40, 3, &[240, 0, 0, 1]), "withdraw 3"),
            ("NEXT_HOP, broadcast",            ALL, attr(0x40, 3, &[255, 255, 255, 255]), "withdraw 3"),
            ("NEXT_HOP of 5",                  ALL, attr(0x40, 3, &[1, 1, 1, 1, 1]), "withdraw 3"),
            // §7.4
            ("MED of 3",                       ALL, attr(0x80, 4, &[0, 0, 1]), "withdraw 4"),
            ("MED of 5",                       ALL, attr(0x80, 4, &[0, 0, 0, 0, 1]), "withdraw 4"),
            ("MED of 0",                       ALL, attr(0x80, 4, &[]), "withdraw 4"),
            ("MED",                            ALL, attr(0x80, 4, &[0, 0, 0, 1]), ""),
            // §7.5
            ("LOCAL_PREF, eBGP",               EXT, attr(0x40, 5, &[0, 0, 0, 1]), "discard 5"),
            ("LOCAL_PREF of 3, eBGP",          EXT, attr(0x40, 5, &[0, 0, 1]), "discard 5"),
            ("LOCAL_PREF, iBGP",               INT, attr(0x40, 5, &[0, 0, 0, 1]), ""),
            ("LOCAL_PREF of 3, iBGP",          INT, attr(0x40, 5, &[0, 0, 1]), "withdraw 5"),
            ("LOCAL_PREF of 0, iBGP",          INT, attr(0x40, 5, &[]), "withdraw 5"),
            ("LOCAL_PREF of 5, iBGP",          INT, attr(0x40, 5, &[0; 5]), "withdraw 5"),
            // §7.6
            ("ATOMIC_AGGREGATE",               ALL, attr(0x40, 6, &[]), ""),
            ("ATOMIC_AGGREGATE of 1",          ALL, attr(0x40, 6, &[1]), "discard 6"),
            ("ATOMIC_AGGREGATE of 4",          ALL, attr(0x40, 6, &[0; 4]), "discard 6"),
            // §7.7
            ("AGGREGATOR",                     ALL, attr(0xc0, 7, &[0, 0, 0, 1, 1, 1, 1, 1]), ""),
            ("AGGREGATOR of 6, four octets",   ALL, attr(0xc0, 7, &[0, 1, 1, 1, 1, 1]), "discard 7"),
            ("AGGREGATOR of 6, two octets",    OLD, attr(0xc0, 7, &[0, 1, 1, 1, 1, 1]), ""),
            ("AGGREGATOR of 8, two octets",    OLD, attr(0xc0, 7, &[0, 0, 0, 1, 1, 1, 1, 1]), "discard 7"),
            ("AGGREGATOR of 0",                ALL, attr(0xc0, 7, &[]), "discard 7"),
            ("AGGREGATOR, AS 0 (RFC 7607)",    ALL, attr(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]), "discard 7"),
            ("AGGREGATOR of 9",                ALL, attr(0xc0, 7, &[1; 9]), "discard 7"),
            ("AGGREGATOR, AS 0, two octets",   OLD, attr(0xc0, 7, &[0, 0, 1, 1, 1, 1]), "discard 7"),
            // §7.8
            ("COMMUNITIES",                    ALL, attr(0xc0, 8, &[0, 1, 0, 1]), ""),
            ("COMMUNITIES of 3",               ALL, attr(0xc0, 8, &[0, 1, 0]), "withdraw 8"),
            ("COMMUNITIES of 0",               ALL, attr(0xc0, 8, &[]), "withdraw 8"),
            ("COMMUNITIES of 6",               ALL, attr(0xc0, 8, &[1; 6]), "withdraw 8"),
            // §7.9
            ("ORIGINATOR_ID, eBGP",            EXT, attr(0x80, 9, &[1, 1, 1, 1]), "discard 9"),
            ("ORIGINATOR_ID, iBGP",            INT, attr(0x80, 9, &[1, 1, 1, 1]), ""),
            ("ORIGINATOR_ID of 3, iBGP",       INT, attr(0x80, 9, &[1, 1, 1]), "withdraw 9"),
            ("ORIGINATOR_ID of 3, eBGP",       EXT, attr(0x80, 9, &[1, 1, 1]), "discard 9"),
            ("ORIGINATOR_ID of 0, iBGP",       INT, attr(0x80, 9, &[]), "withdraw 9"),
            ("ORIGINATOR_ID of 5, iBGP",       INT, attr(0x80, 9, &[1; 5]), "withdraw 9"),
            // §7.10
            ("CLUSTER_LIST, eBGP",             EXT, attr(0x80, 10, &[1, 1, 1, 1]), "discard 10"),
            ("CLUSTER_LIST, iBGP",             INT, attr(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2]), ""),
            ("CLUSTER_LIST of 5, iBGP",        INT, attr(0x80, 10, &[1, 1, 1, 1, 1]), "withdraw 10"),
            ("CLUSTER_LIST of 0, iBGP",        INT, attr(0x80, 10, &[]), "withdraw 10"),
            ("CLUSTER_LIST of 5, eBGP",        EXT, attr(0x80, 10, &[1; 5]), "discard 10"),
            ("CLUSTER_LIST of 3, iBGP",        INT, attr(0x80, 10, &[1; 3]), "withdraw 10"),
            // §7.11, §7.12: `malformed_prefixes_reset`, `next_hops_come_in_many_forms`
            // §7.13: nothing is malformed; unknown here, so left out
            ("TRAFFIC ENGINEERING of 0",       ALL, attr(0x80, 24, &[]), ""),
            ("TRAFFIC ENGINEERING of 3",       ALL, attr(0x80, 24, &[1; 3]), ""),
            // §7.14
            ("EXTENDED COMMUNITIES",           ALL, attr(0xc0, 16, &[0; 8]), ""),
            ("EXTENDED COMMUNITIES of 7",      ALL, attr(0xc0, 16, &[0; 7]), "withdraw 16"),
            ("EXTENDED COMMUNITIES of 0",      ALL, attr(0xc0, 16, &[]), "withdraw 16"),
            ("EXTENDED COMMUNITIES of 9",      ALL, attr(0xc0, 16, &[0; 9]), "withdraw 16"),
            ("EXTENDED COMMUNITIES, unknown type", ALL, attr(0xc0, 16, &[0x3f; 8]), ""),
            // §7.15
            ("IPV6 EXTENDED COMMUNITIES",      ALL, attr(0xc0, 25, &[0; 40]), ""),
            ("IPV6 EXTENDED COMMUNITIES of 8", ALL, attr(0xc0, 25, &[0; 8]), "withdraw 25"),
            ("IPV6 EXTENDED COMMUNITIES of 0", ALL, attr(0xc0, 25, &[]), "withdraw 25"),
            ("IPV6 EXTENDED COMMUNITIES of 21", ALL, attr(0xc0, 25, &[0; 21]), "withdraw 25"),
            ("IPV6 EXTENDED COMMUNITIES, unknown type", ALL, attr(0xc0, 25, &[0x3f; 20]), ""),
            // §7.16: unknown here, so passed on unread
            ("ATTR_SET of 3",                  ALL, attr(0xc0, 128, &[0, 0, 1]), ""),
            ("ATTR_SET, broken inside",        ALL, attr(0xc0, 128, &[0, 0, 0, 1, 0x40, 1, 9]), ""),
            // RFC 6793 §6
            ("AS4_PATH from four octets",      ALL, attr(0xc0, 17, &[2, 1, 0, 1, 0, 0]), "discard 17"),
            ("AS4_PATH",                       OLD, attr(0xc0, 17, &[2, 1, 0, 1, 0, 0]), ""),
            ("AS4_PATH, broken",               OLD, attr(0xc0, 17, &[2, 2, 0, 1, 0, 0]), "discard 17"),
            ("AS4_PATH of 0",                  OLD, attr(0xc0, 17, &[]), "discard 17"),
            ("AS4_PATH, AS 0",                 OLD, attr(0xc0, 17, &[2, 1, 0, 0, 0, 0]), "discard 17"),
            ("AS4_AGGREGATOR, four octets",    ALL, attr(0xc0, 18, &[0, 1, 0, 0, 1, 1, 1, 1]), "discard 18"),
            ("AS4_AGGREGATOR of 6",            OLD, attr(0xc0, 18, &[0, 1, 1, 1, 1, 1]), "discard 18"),
            ("AS4_AGGREGATOR, AS 0",           OLD, attr(0xc0, 18, &[0, 0, 0, 0, 1, 1, 1, 1]), "discard 18"),
            // RFC 7311 §3.3: as if unknown and not transitive.
            ("AIGP",                           ALL, attr(0x80, 26, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1]), ""),
            ("AIGP, broken",                   ALL, attr(0x80, 26, &[]), ""),
            // RFC 8092 §6
            ("LARGE_COMMUNITY",                ALL, attr(0xc0, 32, &[0; 24]), ""),
            ("LARGE_COMMUNITY of 8",           ALL, attr(0xc0, 32, &[0; 8]), "withdraw 32"),
            ("LARGE_COMMUNITY of 0",           ALL, attr(0xc0, 32, &[]), "withdraw 32"),
            ("LARGE_COMMUNITY of 13",          ALL, attr(0xc0, 32, &[0; 13]), "withdraw 32"),
            // RFC 9234 §5
            ("ONLY_TO_CUSTOMER",               ALL, attr(0xc0, 35, &[0, 0, 0, 1]), ""),
            ("ONLY_TO_CUSTOMER of 5",          ALL, attr(0xc0, 35, &[0; 5]), "withdraw 35"),
            ("ONLY_TO_CUSTOMER of 0",          ALL, attr(0xc0, 35, &[]), "withdraw 35"),
            // §3 c
            ("ORIGIN, optional",               ALL, attr(0xc0, 1, &[0]), "withdraw 1"),
            ("ORIGIN, not transitive",         ALL, attr(0x00, 1, &[0]), "withdraw 1"),
            ("AS_PATH, optional",              ALL, attr(0xc0, 2, &[]), "withdraw 2"),
            ("NEXT_HOP, optional",             ALL, attr(0x80, 3, &[1, 1, 1, 1]), "withdraw 3"),
            ("MED, transitive",                ALL, attr(0xc0, 4, &[0; 4]), "withdraw 4"),
            ("MED, well-known",                ALL, attr(0x40, 4, &[0; 4]), "withdraw 4"),
            ("LOCAL_PREF, optional, iBGP",     INT, attr(0xc0, 5, &[0; 4]), "withdraw 5"),
            ("ATOMIC_AGGREGATE, optional",     ALL, attr(0xc0, 6, &[]), "withdraw 6"),
            ("AGGREGATOR, not transitive",     ALL, attr(0x80, 7, &[0, 0, 0, 1, 1, 1, 1, 1]), "withdraw 7"),
            ("COMMUNITIES, well-known",        ALL, attr(0x40, 8, &[0; 4]), "withdraw 8"),
            ("CLUSTER_LIST, transitive, iBGP", INT, attr(0xc0, 10, &[0; 4]), "withdraw 10"),
            ("LOCAL_PREF, optional, eBGP",     EXT, attr(0xc0, 5, &[0; 4]), "discard 5"),
            ("ATOMIC_AGGREGATE, not transitive", ALL, attr(0x00, 6, &[]), "withdraw 6"),
            ("AGGREGATOR, well-known",         ALL, attr(0x40, 7, &[0, 0, 0, 1, 1, 1, 1, 1]), "withdraw 7"),
            ("COMMUNITIES, not transitive",    ALL, attr(0x80, 8, &[0; 4]), "withdraw 8"),
            ("ORIGINATOR_ID, transitive, iBGP", INT, attr(0xc0, 9, &[1; 4]), "withdraw 9"),
            ("ORIGINATOR_ID, transitive, eBGP", EXT, attr(0xc0, 9, &[1; 4]), "discard 9"),
            ("EXTENDED COMMUNITIES, not transitive", ALL, attr(0x80, 16, &[0; 8]), "withdraw 16"),
            ("AS4_PATH, not transitive",       OLD, attr(0x80, 17, &[2, 1, 0, 1, 0, 0]), "withdraw 17"),
            ("AS4_AGGREGATOR, well-known",     OLD, attr(0x40, 18, &[0, 1, 0, 0, 1, 1, 1, 1]), "withdraw 18"),
            ("IPV6 EXTENDED COMMUNITIES, well-known", ALL, attr(0x40, 25, &[0; 20]), "withdraw 25"),
            ("LARGE_COMMUNITY, not transitive", ALL, attr(0x80, 32, &[0; 12]), "withdraw 32"),
            ("ONLY_TO_CUSTOMER, well-known",   ALL, attr(0x40, 35, &[0, 0, 0, 1]), "withdraw 35"),
            ("ORIGIN, partial",                ALL, attr(0x60, 1, &[0]), ""),
            ("ORIGIN, unused bits",            ALL, attr(0x4f, 1, &[0]), ""),
            ("COMMUNITIES, partial",           ALL, attr(0xe0, 8, &[0; 4]), ""),
            // RFC 4271 §5, §6.3
            ("unknown, optional transitive",   ALL, attr(0xc0, 99, &[1]), ""),
            ("unknown, optional",              ALL, attr(0x80, 99, &[1]), ""),
            ("unknown, well-known",            ALL, attr(0x40, 99, &[1]), "reset 3/2 [64, 99, 1, 1]"),
            ("unknown, no flags",              ALL, attr(0x00, 0, &[]), "reset 3/2 [0, 0, 0]"),
        ];
        for (name, shapes, extra, want) in cases {
            let want = match want {
                "" => GOOD.to_owned(),
                w if w.starts_with("discard") => format!("{GOOD} {w}"),
                w if w.starts_with("withdraw") => format!("-198.51.100.0/24 {w}"),
                w => w.to_owned(),
            };
            for shape in shapes {
                assert_eq!(outcome(shape, &with(shape, &extra)), want, "{name}: {shape:?}");
            }
        }
    }

    /// A route that fits into the longest message of RFC 8654 is valid. Memory is bounded per
    /// neighbor.
    #[test]
    fn a_lawful_route_passes_whole_however_long() {
        let wide = Shape { extended_messages: true, ..IBGP };
        let segments = [&[2, 255][..], &[1; 255 * 4]].concat();
        let room = 65_535 - 100;
        #[rustfmt::skip]
        let cases = [
            attr(0x40, 2, &segments.repeat(5)),
            attr(0x40, 2, &segments.repeat(room / segments.len())),
            attr(0xc0, 8, &[1; 4 * 2000]),
            attr(0xc0, 8, &vec![1; room / 4 * 4]),
            attr(0x80, 10, &vec![1; room / 4 * 4]),
            attr(0xc0, 16, &vec![0; room / 8 * 8]),
            attr(0xc0, 25, &vec![0; room / 20 * 20]),
            attr(0xc0, 99, &vec![1; room]),
        ];
        for extra in cases {
            let name = format!("{} octets of {}", extra.len(), extra[1]);
            assert_eq!(outcome(&wide, &with(&wide, &extra)), GOOD, "{name}");
        }
        let large: Vec<u8> =
            (0..room as u32 / 12).flat_map(|n| [0, 1, n]).flat_map(u32::to_be_bytes).collect();
        let update = with(&wide, &attr(0xc0, 32, &large));
        assert_eq!(attrs(&wide, &update).extra().large_communities.len(), room / 12);
        let communities: Vec<u8> = (0..2000_u32).flat_map(u32::to_be_bytes).collect();
        let long = attrs(&wide, &with(&wide, &attr(0xc0, 8, &communities)));
        assert_eq!(long.communities.len(), 2000);
        // Encoded again: complete for neighbors that accept long messages, and not at all for
        // others (RFC 8654 §4).
        for (shape, fits) in [(wide, true), (IBGP, false)] {
            let mut out = bytes::BytesMut::new();
            let mut packer = Packer::new(&shape, &mut out);
            let nlri = Nlri { path_id: 0, prefix: "198.51.100.0/24".parse().unwrap() };
            let sent = packer.advertise(&long, Family::Ipv4Unicast, [nlri]);
            assert_eq!((sent.is_ok(), out.is_empty()), (fits, !fits));
        }
        let unknown: Vec<u8> = (60..160).flat_map(|code| attr(0xc0, code, &[1; 200])).collect();
        assert_eq!(outcome(&wide, &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &unknown], NET)), GOOD);
        let again = attr(0x80, 4, &[0, 0, 0, 1]).repeat(40);
        let update =
            Decoder::new(wide).decode(&body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &again], NET)).unwrap();
        assert_eq!(update.flaws.len(), 16, "at most 16 flaws are reported");
    }

    /// RFC 7606 §3 d.
    #[test]
    fn a_missing_mandatory_attribute_withdraws() {
        #[rustfmt::skip]
        let cases: &[(&str, Bytes, &str)] = &[
            ("ORIGIN",                   body(&[], &[AS_PATH, NEXT_HOP], NET), "-198.51.100.0/24 withdraw 1"),
            ("AS_PATH",                  body(&[], &[ORIGIN, NEXT_HOP], NET), "-198.51.100.0/24 withdraw 2"),
            ("NEXT_HOP",                 body(&[], &[ORIGIN, AS_PATH], NET), "-198.51.100.0/24 withdraw 3"),
            ("all",                      body(&[], &[], NET), "-198.51.100.0/24 withdraw 1 withdraw 2 withdraw 3"),
            ("NEXT_HOP, IPv6 has its own", body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH], NET), "-198.51.100.0/24 -2001:db8::/32 withdraw 3"),
            ("ORIGIN, IPv6",             body(&[], &[&reach(&GLOBAL, NET6), AS_PATH], &[]), "-2001:db8::/32 withdraw 1"),
            ("LOCAL_PREF has a default", body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], NET), GOOD),
            ("withdrawals need none",    body(OTHER, &[], &[]), "-10.1.0.0/16"),
        ];
        for (name, body, want) in cases {
            assert_eq!(outcome(&IBGP, body), *want, "{name}");
        }
    }

    /// RFC 7606 §3 g.
    #[test]
    fn of_repeated_attributes_the_first_counts() {
        let [med, other] = [attr(0x80, 4, &[0, 0, 0, 1]), attr(0x80, 4, &[0, 0, 0, 2])];
        let twice = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &med, &other], NET);
        assert_eq!(outcome(&EBGP, &twice), format!("{GOOD} discard 4"));
        assert_eq!(attrs(&EBGP, &twice).med, Some(1));
        let unknown =
            body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &attr(0xc0, 99, &[1]), &attr(0xc0, 99, &[2])], NET);
        assert_eq!(attrs(&EBGP, &unknown).extra().unknown.len(), 1);
        for code in [14, 15] {
            let one =
                if code == 14 { reach(&GLOBAL, NET6) } else { attr(0x80, 15, &[&[0, 2, 1], NET6].concat()) };
            let twice = body(&[], &[&one, ORIGIN, AS_PATH, &one], &[]);
            assert_eq!(outcome(&EBGP, &twice), "reset 3/1 []", "{code}");
        }
    }

    /// RFC 7606 §3 h.
    #[test]
    fn the_strongest_verdict_counts_and_all_attributes_are_looked_at() {
        let bad_origin = attr(0x40, 1, &[9]);
        let bad_aggregator = attr(0xc0, 7, &[]);
        let both = body(&[], &[&bad_aggregator, AS_PATH, NEXT_HOP, &bad_origin], NET);
        assert_eq!(outcome(&EBGP, &both), "-198.51.100.0/24 discard 7 withdraw 1");
        let reset = body(&[], &[&bad_origin, AS_PATH, NEXT_HOP, &attr(0x40, 99, &[])], NET);
        assert_eq!(outcome(&EBGP, &reset), "reset 3/2 [64, 99, 0]");
        let late = body(&[], &[&bad_origin, AS_PATH, NEXT_HOP, &reach(&[1, 2], NET6)], NET);
        assert!(outcome(&EBGP, &late).starts_with("reset 3/9"));
    }

    /// RFC 7606 §4.
    #[test]
    fn lengths_that_do_not_add_up() {
        let overrun: &[u8] = &[0xc0, 8, 8, 0, 1, 0, 1];
        #[rustfmt::skip]
        let cases: Vec<(&str, Bytes, &str)> = vec![
            ("attribute beyond the list",   body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, overrun], NET), "-198.51.100.0/24 withdraw 8"),
            ("one octet left",              body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0x40]], NET), "-198.51.100.0/24 withdraw 0"),
            ("two octets left",             body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0xc0, 8]], NET), "-198.51.100.0/24 withdraw 8"),
            ("extended, three octets left", body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0xd0, 8, 0]], NET), "-198.51.100.0/24 withdraw 8"),
            ("IPv6 was found before",       body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH, overrun], &[]), "-2001:db8::/32 withdraw 8"),
            ("NLRI cannot be found",        body(&[], &[ORIGIN, AS_PATH, overrun], &[]), "reset 3/1 []"),
            ("MP_REACH itself",             body(&[], &[ORIGIN, &[0x80, 14, 9, 0]], NET), "reset 3/9 [128, 14, 9, 0]"),
            ("MP_UNREACH itself",           body(&[], &[&[0x80, 15, 9, 0]], &[]), "reset 3/9 [128, 15, 9, 0]"),
            // RFC 4271 §6.3.
            ("nothing",                     Bytes::new(), "reset 3/1 []"),
            ("three octets",                Bytes::from_static(&[0, 0, 0]), "reset 3/1 []"),
            ("withdrawn beyond the end",    Bytes::from_static(&[0, 3, 0, 0]), "reset 3/1 []"),
            ("withdrawn, no room for more", Bytes::from_static(&[0, 2, 0, 0]), "reset 3/1 []"),
            ("attributes beyond the end",   Bytes::from_static(&[0, 0, 0, 1]), "reset 3/1 []"),
            ("both at their largest",       Bytes::from_static(&[0xff; 40]), "reset 3/1 []"),
        ];
        for (name, body, want) in cases {
            assert_eq!(outcome(&EBGP, &body), want, "{name}");
        }
    }

    /// RFC 7606 §5.2: it is unknown what would have to be withdrawn.
    #[test]
    fn a_broken_attribute_without_reachable_prefixes_resets() {
        #[rustfmt::skip]
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("value",    attr(0x40, 1, &[9]), "reset 3/6 [64, 1, 1, 9]"),
            ("length",   attr(0x40, 1, &[]), "reset 3/5 [64, 1, 0]"),
            ("flags",    attr(0xc0, 1, &[0]), "reset 3/4 [192, 1, 1, 0]"),
            ("path",     attr(0x40, 2, &[9, 9]), "reset 3/11 []"),
            ("next hop", attr(0x40, 3, &[1]), "reset 3/5 [64, 3, 1, 1]"),
            ("optional", attr(0xc0, 8, &[1]), "reset 3/5 [192, 8, 1, 1]"),
            ("its flags", attr(0x40, 8, &[0; 4]), "reset 3/4 [64, 8, 4, 0, 0, 0, 0]"),
            ("discard",  attr(0xc0, 7, &[1]), "-10.1.0.0/16 discard 7"),
        ];
        for (name, broken, want) in cases {
            assert_eq!(outcome(&EBGP, &body(OTHER, &[&broken], &[])), want, "{name}");
        }
    }

    /// RFC 7606 §3 i, §5.3.
    #[test]
    fn malformed_prefixes_reset() {
        let unreach = |nlri: &[u8]| attr(0x80, 15, &[&[0, 2, 1], nlri].concat());
        #[rustfmt::skip]
        let cases: Vec<(&str, Bytes, &str)> = vec![
            ("NLRI, 33 bits",         body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[33, 1, 1, 1, 1, 1]), "reset 3/10 []"),
            ("NLRI, cut off",         body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[24, 1, 1]), "reset 3/10 []"),
            ("withdrawn, 33 bits",    body(&[33, 1, 1, 1, 1, 1], &[], &[]), "reset 3/10 []"),
            ("withdrawn, cut off",    body(&[8], &[], &[]), "reset 3/10 []"),
            ("MP_REACH, 129 bits",    body(&[], &[&reach(&GLOBAL, &[129])], &[]), "reset 3/9"),
            ("MP_REACH, cut off",     body(&[], &[&reach(&GLOBAL, &[64, 1])], &[]), "reset 3/9"),
            ("MP_UNREACH, 129 bits",  body(&[], &[&unreach(&[129])], &[]), "reset 3/9"),
            ("MP_UNREACH, cut off",   body(&[], &[&unreach(&[16, 1])], &[]), "reset 3/9"),
            ("MP_UNREACH of 2",       body(&[], &[&attr(0x80, 15, &[0, 2])], &[]), "reset 3/9"),
            ("MP_REACH of 4",         body(&[], &[&attr(0x80, 14, &[0, 2, 1, 0])], &[]), "reset 3/9"),
            ("MP_REACH, next hop cut off", body(&[], &[&attr(0x80, 14, &[0, 2, 1, 16, 0, 0])], &[]), "reset 3/9"),
            ("MP_REACH, no reserved octet", body(&[], &[&attr(0x80, 14, &[&[0, 2, 1, 16][..], &GLOBAL].concat())], &[]), "reset 3/9"),
            ("MP_REACH, transitive, cut off", body(&[], &[&attr(0xc0, 14, &reach(&GLOBAL, &[64, 1])[3..])], &[]), "reset 3/9"),
            ("MP_UNREACH, well-known, cut off", body(&[], &[&attr(0x40, 15, &[0, 2, 1, 16, 1])], &[]), "reset 3/9"),
        ];
        for (name, body, want) in cases {
            let got = outcome(&EBGP, &body);
            assert!(got.starts_with(want), "{name}: {got}");
        }
    }

    /// RFC 7606 §3 c, j; §5.2 if no reachable prefix is present.
    #[test]
    fn wrong_flags_of_multiprotocol_attributes_withdraw_what_can_be_read() {
        let transitive = attr(0xc0, 14, &reach(&GLOBAL, NET6)[3..]);
        let well_known = attr(0x40, 15, &[&[0, 2, 1], NET6].concat());
        #[rustfmt::skip]
        let cases: Vec<(&str, Bytes, &str)> = vec![
            ("MP_REACH, transitive",   body(&[], &[&transitive, ORIGIN, AS_PATH], &[]), "-2001:db8::/32 withdraw 14"),
            ("with IPv4 beside",       body(&[], &[&transitive, ORIGIN, AS_PATH, NEXT_HOP], NET), "-198.51.100.0/24 -2001:db8::/32 withdraw 14"),
            ("MP_UNREACH, well-known", body(&[], &[&well_known, ORIGIN, AS_PATH, NEXT_HOP], NET), "-2001:db8::/32 -198.51.100.0/24 withdraw 15"),
            ("MP_UNREACH alone",       body(&[], &[&well_known], &[]), "-2001:db8::/32 withdraw 15"),
            ("MP_UNREACH and ORIGIN",  body(&[], &[&well_known, ORIGIN], &[]), "reset 3/4 [64, 15, 8, 0, 2, 1, 32, 32, 1, 13, 184]"),
        ];
        for (name, body, want) in cases {
            for shape in [EBGP, IBGP] {
                assert_eq!(outcome(&shape, &body), want, "{name}");
            }
        }
        let mut decoder = Decoder::new(EBGP);
        let good = body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH], &[]);
        assert_eq!(decoder.decode(&good).unwrap().advertised.len(), 1);
        let again = decoder.decode(&body(&[], &[&transitive, ORIGIN, AS_PATH], &[])).unwrap();
        assert!(again.advertised.is_empty(), "the cache does not make it valid: {again:?}");
    }

    /// RFC 2545 §3, RFC 8950 §4 and the variants that switches send.
    #[test]
    fn next_hops_come_in_many_forms() {
        let extended = Shape { extended_next_hop: true, ..EBGP };
        let here = Shape { on_host: true, ..EBGP };
        let (v6, v4) = ([0, 2, 1], [0, 1, 1]);
        let pair = |a: [u8; 16], b: [u8; 16]| [a, b].concat();
        let mut loopback = [0; 16];
        loopback[15] = 1;
        #[rustfmt::skip]
        let cases: Vec<(&str, Shape, [u8; 3], Vec<u8>, &str)> = vec![
            ("global",                      EBGP, v6, GLOBAL.to_vec(), "2001:db8::1"),
            ("link-local",                  EBGP, v6, LINK_LOCAL.to_vec(), "fe80::2"),
            ("global and link-local",       EBGP, v6, pair(GLOBAL, LINK_LOCAL), "2001:db8::1 fe80::2"),
            ("link-local twice",            EBGP, v6, pair(LINK_LOCAL, LINK_LOCAL), "fe80::2"),
            (":: and link-local",           EBGP, v6, pair([0; 16], LINK_LOCAL), "fe80::2"),
            ("global twice",                EBGP, v6, pair(GLOBAL, GLOBAL), "2001:db8::1"),
            ("global and ::",               EBGP, v6, pair(GLOBAL, [0; 16]), "2001:db8::1"),
            ("IPv4 over IPv6",              extended, v4, GLOBAL.to_vec(), "2001:db8::1"),
            ("IPv4 over both",              extended, v4, pair(GLOBAL, LINK_LOCAL), "2001:db8::1 fe80::2"),
            ("IPv4",                        EBGP, v4, vec![192, 0, 2, 1], "192.0.2.1"),
            ("IPv4 over IPv6, not agreed",  EBGP, v4, GLOBAL.to_vec(), "reset"),
            ("IPv6 over IPv4",              extended, v6, vec![192, 0, 2, 1], "reset"),
            ("none",                        EBGP, v6, vec![], "reset"),
            ("with a route distinguisher",  EBGP, v6, vec![0; 24], "reset"),
            ("48 octets",                   EBGP, v6, vec![1; 48], "reset"),
            ("15 octets",                   EBGP, v6, vec![1; 15], "reset"),
            ("::",                          EBGP, v6, vec![0; 16], "withdraw"),
            (":: twice",                    EBGP, v6, vec![0; 32], "withdraw"),
            ("::1",                         EBGP, v6, loopback.to_vec(), "withdraw"),
            ("multicast",                   EBGP, v6, vec![0xff; 16], "withdraw"),
            ("127.0.0.1",                   EBGP, v4, vec![127, 0, 0, 1], "withdraw"),
            ("::1, from this host",         here, v6, loopback.to_vec(), "::1"),
            ("127.0.0.1, from this host",   here, v4, vec![127, 0, 0, 1], "127.0.0.1"),
            ("0.0.0.0, from this host",     here, v4, vec![0; 4], "withdraw"),
        ];
        for (name, shape, family, next_hop, want) in cases {
            let nlri = if family == v6 { NET6 } else { NET };
            let body = body(&[], &[&reach_of(family, &next_hop, nlri), ORIGIN, AS_PATH], &[]);
            let got = match Decoder::new(shape).decode(&body) {
                Err(e) => {
                    assert_eq!((e.code, e.subcode, e.data[1]), (Code::Update, 9, 14), "{name}");
                    "reset".to_owned()
                }
                Ok(update) if update.advertised.is_empty() => "withdraw".to_owned(),
                Ok(update) => {
                    let hop = update.advertised[0].0.next_hop;
                    format!("{}{}", hop.addr, hop.link_local.map(|l| format!(" {l}")).unwrap_or_default())
                }
            };
            assert_eq!(got, want, "{name}");
        }
    }

    /// RFC 4760 §3: NEXT_HOP beside MP_REACH_NLRI is ignored.
    #[test]
    fn next_hop_of_an_update_without_ipv4_prefixes_is_ignored() {
        let zero = attr(0x40, 3, &[0, 0, 0, 0]);
        let body = body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH, &zero], &[]);
        assert_eq!(outcome(&EBGP, &body), "+2001:db8::/32");
    }

    #[test]
    fn families_that_were_not_negotiated_are_ignored() {
        let only6 = Shape { families: PerFamily::new(false, true), ..EBGP };
        let only4 = Shape { families: PerFamily::new(true, false), ..EBGP };
        let foreign = reach_of([0, 25, 70], &[1, 2, 3, 4], &[1, 2, 3]);
        #[rustfmt::skip]
        let cases: Vec<(Shape, Bytes, &str)> = vec![
            (only6, body(OTHER, &[ORIGIN, AS_PATH, NEXT_HOP], NET), ""),
            (only6, body(&[], &[], &[]), ""),
            (only4, body(&[], &[&reach(&GLOBAL, NET6), ORIGIN, AS_PATH], &[]), ""),
            (only4, body(&[], &[&reach(&[7], &[200]), ORIGIN, AS_PATH, NEXT_HOP], NET), GOOD),
            (EBGP,  body(&[], &[&foreign, ORIGIN, AS_PATH, NEXT_HOP], NET), GOOD),
            (EBGP,  body(&[], &[&foreign, &attr(0x40, 1, &[9]), AS_PATH], &[]), "withdraw 1"),
            (EBGP,  body(&[], &[&attr(0x80, 15, &[0, 25, 70, 255])], &[]), ""),
        ];
        for (shape, body, want) in cases {
            assert_eq!(outcome(&shape, &body), want);
        }
    }

    /// RFC 4271 §6.3, RFC 7606 §7.2, RFC 7947 §2.2.2.1.
    #[test]
    fn a_path_starts_with_the_neighbors_number_where_that_is_required() {
        let set = attr(0x40, 2, &[1, 1, 0, 0, 0xfd, 0xe9]);
        for (first_as, path, want) in [
            (Some(65001), AS_PATH, GOOD),
            (Some(65002), AS_PATH, "-198.51.100.0/24 withdraw 2"),
            (Some(65001), &attr(0x40, 2, &[]), "-198.51.100.0/24 withdraw 2"),
            (Some(65001), &set, "-198.51.100.0/24 withdraw 2"),
            (None, &set, GOOD),
        ] {
            let shape = Shape { first_as, ..EBGP };
            assert_eq!(outcome(&shape, &body(&[], &[ORIGIN, path, NEXT_HOP], NET)), want, "{path:?}");
        }
    }

    /// RFC 6793 §4.2.3.
    #[test]
    fn as4_path_has_the_actual_numbers_of_two_octet_neighbors() {
        let path = attr(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
        let as4 = attr(0xc0, 17, &[2, 1, 0, 1, 0, 0]);
        let trans = attr(0xc0, 7, &[0x5b, 0xa0, 1, 1, 1, 1]);
        let plain = attr(0xc0, 7, &[0, 9, 1, 1, 1, 1]);
        let as4_aggregator = attr(0xc0, 18, &[0, 1, 0, 1, 2, 2, 2, 2]);
        let get = |extra: &[&[u8]]| {
            let all = [&[ORIGIN, &path, NEXT_HOP], extra].concat();
            let attrs = attrs(&TWO, &body(&[], &all, NET));
            (attrs.as_path.to_string(), attrs.extra().aggregator)
        };
        let id = |n: u8| RouterId::from([n; 4]);
        assert_eq!(get(&[]), ("65001 23456".into(), None));
        assert_eq!(get(&[&as4]), ("65001 65536".into(), None));
        assert_eq!(get(&[&trans]), ("65001 23456".into(), Some((23456, id(1)))));
        assert_eq!(get(&[&as4, &trans, &as4_aggregator]), ("65001 65536".into(), Some((65537, id(2)))));
        assert_eq!(get(&[&as4, &plain, &as4_aggregator]), ("65001 23456".into(), Some((9, id(1)))));
        assert_eq!(get(&[&as4, &plain]), ("65001 65536".into(), Some((9, id(1)))));
        assert_eq!(get(&[&as4_aggregator]), ("65001 23456".into(), None));
    }

    #[test]
    fn attributes_arrive_as_values() {
        let large = [[0, 0, 0, 1].repeat(3), [0, 0, 0, 2].repeat(3), [0, 0, 0, 1].repeat(3)].concat();
        let got = attrs(
            &IBGP,
            &body(
                &[],
                &[
                    &attr(0x40, 1, &[2]),
                    AS_PATH,
                    NEXT_HOP,
                    MED,
                    &attr(0x40, 5, &[0, 0, 0, 200]),
                    &attr(0x40, 6, &[]),
                    &attr(0xc0, 7, &[0, 0, 0xfd, 0xe9, 9, 9, 9, 9]),
                    &attr(0xe0, 8, &[0xff, 0xff, 0, 0, 0, 1, 0, 2]),
                    &attr(0x80, 9, &[8, 8, 8, 8]),
                    &attr(0x80, 10, &[7, 7, 7, 7]),
                    &attr(0xc0, 200, &[2]),
                    &attr(0xd0, 16, &[])[..2],
                    &[0, 8, 0, 2, 0, 1, 0, 0, 0, 1],
                    &attr(0xc0, 32, &large),
                    &attr(0xc0, 35, &[0, 0, 0, 5]),
                    &attr(0xe0, 99, &[1]),
                ],
                NET,
            ),
        );
        assert_eq!(got.origin.as_str(), "incomplete");
        assert_eq!(got.as_path, AsPath::sequence(&[65001]));
        assert_eq!(got.next_hop, PathNextHop::from(IpAddr::from([192, 0, 2, 1])));
        assert_eq!((got.med, got.local_pref), (Some(5), Some(200)));
        assert_eq!(got.communities[..], [0xffff_0000, 0x0001_0002]);
        let extra = got.extra();
        assert!(extra.atomic_aggregate);
        assert_eq!(extra.aggregator, Some((65001, [9, 9, 9, 9].into())));
        assert_eq!(extra.originator_id, Some([8, 8, 8, 8].into()));
        assert_eq!(extra.cluster_list, [0x0707_0707]);
        assert_eq!(extra.ext_communities, [[0, 2, 0, 1, 0, 0, 0, 1]]);
        assert_eq!(extra.large_communities, [[1, 1, 1], [2, 2, 2]], "repetitions removed");
        assert_eq!(extra.otc, Some(5));
        assert_eq!(
            extra.unknown.iter().map(|u| (u.code, u.flags)).collect::<Vec<_>>(),
            [(99, 0xe0), (200, 0xc0)]
        );
        assert_eq!(extra.partial, [8]);
    }

    #[test]
    fn repeated_attributes_share_one_set_without_parsing() {
        let mut decoder = Decoder::new(EBGP);
        let mut one = |body: Bytes| {
            let update = decoder.decode(&body).unwrap();
            (update.advertised[0].0.clone(), update.flaws.len())
        };
        let local_pref = attr(0x40, 5, &[0; 4]);
        let classic = |nlri: &[u8]| body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &local_pref], nlri);
        let (first, flaws) = one(classic(NET));
        let (second, again) = one(classic(OTHER));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((flaws, again), (1, 1), "discarded attributes are reported each time");
        // The same octets, but the next hop is another.
        let mp =
            |hop: &[u8], nlri| body(&[], &[ORIGIN, &reach(hop, nlri), AS_PATH, NEXT_HOP, &local_pref], &[]);
        let (third, _) = one(mp(&GLOBAL, NET6));
        let (fourth, _) = one(mp(&GLOBAL, &[0]));
        assert!(!Arc::ptr_eq(&second, &third) && Arc::ptr_eq(&third, &fourth));
        let (fifth, _) = one(mp(&LINK_LOCAL, NET6));
        assert_eq!(fifth.next_hop.addr.to_string(), "fe80::2");
        let (sixth, _) = one(classic(NET));
        assert_eq!((&*sixth, sixth.next_hop), (&*first, first.next_hop));
        assert!(
            decoder
                .decode(&body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0x40]], NET))
                .unwrap()
                .advertised
                .is_empty()
        );
    }

    #[test]
    fn a_flaw_reads_as_a_sentence() {
        let flaw = Flaw { attribute: 1, action: AttrErrorAction::TreatAsWithdraw, what: "wrong length" };
        assert_eq!(flaw.to_string(), "ORIGIN (1): wrong length, routes treated as withdrawn");
        let flaw = Flaw { attribute: 77, action: AttrErrorAction::Discard, what: "repeated" };
        assert_eq!(flaw.to_string(), "unknown attribute (77): repeated, attribute discarded");
    }

    #[test]
    fn attribute_sets_are_small() {
        assert!(size_of::<Attrs>() <= 112, "{}", size_of::<Attrs>());
    }
}
