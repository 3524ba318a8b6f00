//! UPDATEs as others read them: `netgauze-bgp-pkt` and `bgpkit-parser` decode what we encode, and what comes
//! of it when octets are damaged on the way.
//!
//! Good messages have to mean the same to all three. Damaged ones may be judged differently: each kind of
//! difference stands in [`EXPLAINED`] with its reason, any other fails the test. The corpus is made from a
//! fixed seed; `ROUTELET_DIFFERENTIAL=n` makes n messages instead of the usual number.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bgpkit_parser::models::{AsnLength, AttributeValue, BgpMessage as KitMessage, NextHopAddress, Safi};
use bytes::{Bytes, BytesMut};
use netgauze_bgp_pkt::{
    BgpMessage as GaugeMessage,
    path_attribute::{
        Aggregator, AsPath as GaugePath, AsPathSegmentType, MpReach, MpUnreach, PathAttributeValue,
    },
    wire::deserializer::BgpParsingContext,
};
use netgauze_parse_utils::{reader::SliceReader, traits::ParseFromWithOneInput};
use routelet::{
    bgp::wire::{
        Shape,
        attr::{AsPath, Attrs, Origin, PathNextHop, SegmentKind, UnknownAttr},
        framing::HEADER,
        pack::Packer,
        update::{AttrErrorAction, Decoder, Nlri, Update},
    },
    net::{Family, PerFamily, Prefix},
};

const SHAPE: Shape = Shape {
    ibgp: true,
    four_octet_as: true,
    families: PerFamily::both(true),
    extended_next_hop: true,
    extended_messages: false,
    add_path_receive: PerFamily::both(false),
    add_path_send: PerFamily::both(false),
    first_as: None,
    on_host: false,
};

/// What a decoder makes of an UPDATE: its content line by line, or what it complains of.
type Reading = Result<BTreeSet<String>, String>;

#[derive(Default)]
struct Lines(BTreeSet<String>);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        self.0.insert(format!("{name} {value}"));
    }

    fn add_all<T: Display>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        for (i, value) in values.into_iter().enumerate() {
            self.add(name, format!("{i}: {value}"));
        }
    }
}

// What each of the three says.

fn ours(body: &Bytes) -> Reading {
    let update = Decoder::new(SHAPE).decode(body).map_err(|e| format!("reset: {}", e.what))?;
    if let Some(flaw) = update.flaws.iter().max_by_key(|f| f.action) {
        let verdict = if flaw.action == AttrErrorAction::Discard { "discard" } else { "withdraw" };
        return Err(format!("{verdict}: {} {}", routelet::bgp::wire::attr::name(flaw.attribute), flaw.what));
    }
    Ok(our_lines(&update))
}

fn our_lines(update: &Update) -> BTreeSet<String> {
    let mut lines = Lines::default();
    for block in &update.withdrawn {
        block.iter().for_each(|n| lines.add("-", n.prefix));
    }
    for (attrs, block) in &update.advertised {
        block.iter().for_each(|n| lines.add("+", format!("{} by {}", n.prefix, hop(attrs.next_hop))));
        add_attrs(&mut lines, attrs);
    }
    lines.0
}

fn hop(next_hop: PathNextHop) -> String {
    next_hop.link_local.map_or(next_hop.addr.to_string(), |ll| format!("{} and {ll}", next_hop.addr))
}

fn add_attrs(lines: &mut Lines, attrs: &Attrs) {
    lines.add("origin", attrs.origin as u8);
    lines.add("path", &attrs.as_path);
    attrs.med.iter().for_each(|n| lines.add("med", n));
    attrs.local_pref.iter().for_each(|n| lines.add("local-pref", n));
    lines.add_all("community", &attrs.communities);
    let extra = attrs.extra();
    if extra.atomic_aggregate {
        lines.add("atomic", "");
    }
    extra.aggregator.iter().for_each(|(asn, id)| lines.add("aggregator", format!("{asn} {id}")));
    extra.originator_id.iter().for_each(|id| lines.add("originator", id));
    lines.add_all("cluster", &extra.cluster_list);
    lines.add_all("large", extra.large_communities.iter().map(|[a, b, c]| format!("{a}:{b}:{c}")));
    lines.add("ext", extra.ext_communities.len());
    extra.otc.iter().for_each(|n| lines.add("otc", n));
}

fn kit(message: &Bytes) -> Reading {
    let parse =
        || bgpkit_parser::parser::bgp::parse_bgp_message(&mut message.clone(), false, &AsnLength::Bits32);
    let parsed = catch_unwind(AssertUnwindSafe(parse)).map_err(|_| "panic".to_owned())?;
    let KitMessage::Update(update) = parsed.map_err(|e| format!("error: {e}"))? else {
        return Err("no UPDATE".into());
    };
    if let Some(warning) = update.attributes.validation_warnings().first() {
        return Err(format!("warning: {warning}"));
    }
    let mut lines = Lines::default();
    update.withdrawn_prefixes.iter().for_each(|p| lines.add("-", p.prefix.trunc()));
    let mut next_hop = None;
    let mut reached = Vec::new();
    let mut ext = 0;
    for attribute in update.attributes.iter() {
        match attribute {
            AttributeValue::NextHop(a) => next_hop = Some(*a),
            AttributeValue::MpReachNlri(nlri) | AttributeValue::MpUnreachNlri(nlri)
                if nlri.safi != Safi::Unicast => {}
            AttributeValue::MpReachNlri(nlri) => {
                let by = match nlri.next_hop {
                    Some(NextHopAddress::Ipv4(a)) => a.to_string(),
                    Some(NextHopAddress::Ipv6(a)) => a.to_string(),
                    Some(NextHopAddress::Ipv6LinkLocal(a, ll)) => two(a, ll),
                    _ => "?".into(),
                };
                reached.extend(nlri.prefixes.iter().map(|p| (p.prefix.trunc(), by.clone())));
            }
            AttributeValue::MpUnreachNlri(nlri) => {
                nlri.prefixes.iter().for_each(|p| lines.add("-", p.prefix.trunc()))
            }
            AttributeValue::Origin(o) => lines.add("origin", *o as u8),
            AttributeValue::AsPath(path) => lines.add("path", path),
            AttributeValue::MultiExitDiscriminator(n) => lines.add("med", n),
            AttributeValue::LocalPreference(n) => lines.add("local-pref", n),
            AttributeValue::AtomicAggregate => lines.add("atomic", ""),
            AttributeValue::Aggregator { asn, id } => lines.add("aggregator", format!("{asn} {id}")),
            AttributeValue::Communities(list) => lines.add_all("community", list.iter().map(kit_community)),
            AttributeValue::OriginatorId(id) => lines.add("originator", id),
            AttributeValue::Clusters(list) => lines.add_all("cluster", list),
            AttributeValue::ExtendedCommunities(list) => ext = list.len(),
            AttributeValue::LargeCommunities(list) => lines.add_all("large", list),
            AttributeValue::OnlyToCustomer(asn) => lines.add("otc", asn),
            _ => {}
        }
    }
    let classic = next_hop.map_or("?".to_owned(), |a| a.to_string());
    reached.extend(update.announced_prefixes.iter().map(|p| (p.prefix.trunc(), classic.clone())));
    reached.iter().for_each(|(p, by)| lines.add("+", format!("{p} by {by}")));
    Ok(only_with_routes(lines, !reached.is_empty(), ext))
}

fn kit_community(community: &bgpkit_parser::models::Community) -> u32 {
    use bgpkit_parser::models::Community::{Custom, NoAdvertise, NoExport, NoExportSubConfed};
    match community {
        NoExport => 0xffff_ff01,
        NoAdvertise => 0xffff_ff02,
        NoExportSubConfed => 0xffff_ff03,
        Custom(asn, value) => asn.to_u32() << 16 | u32::from(*value),
    }
}

fn gauge(message: &Bytes) -> Reading {
    let mut context = BgpParsingContext::new(true, HashMap::new(), HashMap::new(), false, false, false, true);
    let mut reader = SliceReader::new(message);
    let parse = || GaugeMessage::parse(&mut reader, &mut context);
    let parsed = catch_unwind(AssertUnwindSafe(parse)).map_err(|_| "panic".to_owned())?;
    let update = match parsed {
        Ok(GaugeMessage::Update(update)) => update,
        Ok(_) => return Err("no UPDATE".into()),
        Err(e) => return Err(format!("error: {e:?}")),
    };
    let mut lines = Lines::default();
    update.withdraw_routes().iter().for_each(|n| lines.add("-", n.network().address().trunc()));
    let mut classic = "?".to_owned();
    let (mut reached, mut ext) = (Vec::new(), 0);
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::NextHop(a) => classic = a.next_hop().to_string(),
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, next_hop_local, nlri }) => {
                let by = next_hop_local.map_or(next_hop_global.to_string(), |ll| two(*next_hop_global, ll));
                reached.extend(nlri.iter().map(|n| format!("{} by {by}", n.network().address().trunc())));
            }
            PathAttributeValue::MpReach(MpReach::Ipv4Unicast { next_hop, next_hop_local, nlri }) => {
                let by = match (next_hop, next_hop_local) {
                    (IpAddr::V6(a), Some(ll)) => two(*a, *ll),
                    (a, _) => a.to_string(),
                };
                reached.extend(nlri.iter().map(|n| format!("{} by {by}", n.network().address().trunc())));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                nlri.iter().for_each(|n| lines.add("-", n.network().address().trunc()));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => {
                nlri.iter().for_each(|n| lines.add("-", n.network().address().trunc()));
            }
            PathAttributeValue::Origin(o) => lines.add("origin", *o as u8),
            PathAttributeValue::AsPath(path) => lines.add("path", gauge_path(path)),
            PathAttributeValue::MultiExitDiscriminator(n) => lines.add("med", n.metric()),
            PathAttributeValue::LocalPreference(n) => lines.add("local-pref", n.metric()),
            PathAttributeValue::AtomicAggregate(_) => lines.add("atomic", ""),
            PathAttributeValue::Aggregator(Aggregator::As4Aggregator(a)) => {
                lines.add("aggregator", format!("{} {}", a.asn(), a.origin()));
            }
            PathAttributeValue::Communities(list) => {
                lines.add_all("community", list.communities().iter().map(|c| c.value()));
            }
            PathAttributeValue::Originator(id) => lines.add("originator", id.id()),
            PathAttributeValue::ClusterList(list) => {
                lines.add_all("cluster", list.cluster_list().iter().map(|c| c.id().to_bits()));
            }
            PathAttributeValue::ExtendedCommunities(list) => ext = list.communities().len(),
            PathAttributeValue::LargeCommunities(list) => lines.add_all("large", list.communities()),
            PathAttributeValue::OnlyToCustomer(n) => lines.add("otc", n.asn()),
            _ => {}
        }
    }
    reached.extend(update.nlri().iter().map(|n| format!("{} by {classic}", n.network().address().trunc())));
    reached.iter().for_each(|r| lines.add("+", r));
    Ok(only_with_routes(lines, !reached.is_empty(), ext))
}

fn gauge_path(path: &GaugePath) -> AsPath {
    let GaugePath::As4PathSegments(segments) = path else { return AsPath::empty() };
    let kind = |s| if s == AsPathSegmentType::AsSet { SegmentKind::Set } else { SegmentKind::Sequence };
    let segments: Vec<_> = segments.iter().map(|s| (kind(s.segment_type()), s.as_numbers())).collect();
    AsPath::from_segments(&segments)
}

/// Two addresses, in the form to which we bring all that switches send.
fn two(one: Ipv6Addr, two: Ipv6Addr) -> String {
    match (one.is_unspecified() || one.is_unicast_link_local(), two.is_unicast_link_local()) {
        (true, true) => two.to_string(),
        (false, true) => format!("{one} and {two}"),
        (_, false) => one.to_string(),
    }
}

/// Attributes without routes mean nothing to us.
fn only_with_routes(mut lines: Lines, routes: bool, ext: usize) -> BTreeSet<String> {
    if routes {
        lines.add("ext", ext);
    } else {
        lines.0.retain(|l| l.starts_with('-'));
    }
    lines.0
}

// The corpus.

/// A generator of numbers that is the same everywhere (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = if self.one_in(2) { 0 } else { self.below(most) };
        (0..n).map(|_| make(self)).collect()
    }

    fn number(&mut self) -> u32 {
        self.next() as u32 >> self.below(31)
    }

    fn asn(&mut self) -> u32 {
        self.number().max(1)
    }
}

fn prefix(dice: &mut Dice, family: Family) -> Nlri {
    let bits = u128::from(dice.next()) << 64 | u128::from(dice.next());
    // None of length 0: one of the others guesses path identifiers from an octet of 0.
    let len = 1 + dice.below(family.max_len().into()) as u8;
    Nlri::new(match family {
        // Unicast only: one of the others refuses the rest.
        Family::Ipv4Unicast => Prefix::v4((bits as u32 & 0x7fff_ffff).into(), len),
        Family::Ipv6Unicast => Prefix::v6((bits >> 3 | 0x2 << 124).into(), len),
    })
}

fn attrs(dice: &mut Dice, family: Family) -> Attrs {
    let link_local = Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(dice.next()));
    let global = Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(dice.next()));
    let v4 = IpAddr::from([192, 0, 2, dice.next() as u8]);
    let next_hop = match (family, dice.below(3)) {
        (Family::Ipv4Unicast, 0 | 1) => v4.into(),
        (_, 0) => PathNextHop { addr: global.into(), link_local: Some(link_local) },
        _ => PathNextHop::from(IpAddr::V6(global)),
    };
    let mut attrs = Attrs::new(next_hop);
    attrs.origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][dice.below(3) as usize];
    let sequence = dice.some(6, Dice::asn);
    let set = if dice.one_in(4) { dice.some(4, Dice::asn) } else { vec![] };
    attrs.as_path = AsPath::from_segments(&[(SegmentKind::Sequence, &sequence), (SegmentKind::Set, &set)]);
    attrs.med = dice.one_in(3).then(|| dice.number());
    attrs.local_pref = Some(dice.number());
    attrs.communities = dice.some(6, Dice::number).into();
    let mut large = dice.some(4, |d| [d.number(), d.number(), d.number()]);
    large.sort_unstable();
    large.dedup();
    let extra = attrs.extra_mut();
    extra.large_communities = large;
    extra.atomic_aggregate = dice.one_in(6);
    extra.aggregator = dice.one_in(6).then(|| (dice.asn(), [192, 0, 2, 9].into()));
    extra.originator_id = dice.one_in(6).then(|| [192, 0, 2, 8].into());
    extra.cluster_list = dice.some(3, Dice::number);
    // Route targets: both others look into these.
    extra.ext_communities = dice.some(3, |d| [0, 2, 0xfd, 0xe9, 0, 0, 0, d.next() as u8]);
    extra.otc = dice.one_in(6).then(|| dice.asn());
    if dice.one_in(6) {
        let value = dice.some(20, |d| d.next() as u8).into();
        extra.unknown.push(UnknownAttr { flags: 0xe0, code: 211, value });
    }
    attrs.tidy();
    attrs
}

/// A whole UPDATE of ours, header included.
fn message(dice: &mut Dice) -> BytesMut {
    let family = Family::ALL[dice.below(2) as usize];
    let nlri: Vec<_> = (0..1 + dice.below(5)).map(|_| prefix(dice, family)).collect();
    let mut out = BytesMut::new();
    let mut packer = Packer::new(&SHAPE, &mut out);
    match dice.below(8) {
        0 => packer.withdraw(family, nlri),
        1 if dice.one_in(4) => packer.end_of_rib(family),
        _ => packer.advertise(&attrs(dice, family), family, nlri).unwrap(),
    }
    out
}

fn bounded(default: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "a test chooses its length")]
    let asked = std::env::var("ROUTELET_DIFFERENTIAL");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn what_we_write_means_the_same_to_others() {
    let mut dice = Dice(1);
    for n in 0..bounded(5_000) {
        let message = message(&mut dice).freeze();
        let want = ours(&message.slice(HEADER..)).expect("our own");
        assert_eq!(kit(&message).as_ref(), Ok(&want), "bgpkit-parser, message {n}: {message:02x?}");
        assert_eq!(gauge(&message).as_ref(), Ok(&want), "netgauze-bgp-pkt, message {n}: {message:02x?}");
    }
}

/// Whether a difference is one that we know; `*` in a line stands for anything.
fn explained(who: &str, key: &str) -> bool {
    EXPLAINED.iter().filter(|(w, ..)| *w == who).any(|(_, pattern, _)| match pattern.split_once('*') {
        Some((start, end)) => key.starts_with(start) && key.ends_with(end),
        None => key.starts_with(pattern),
    })
}

/// A complaint without its numbers.
fn kind(what: &str) -> String {
    let words: Vec<_> =
        what.split(|c: char| !c.is_ascii_alphabetic() && c != '_').filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

/// Who judges differently, by the words of the one that objects, and why we stay with ours.
#[rustfmt::skip]
const EXPLAINED: &[(&str, &str, &str)] = &[
    // What they read otherwise.
    ("kit",   "reads: ours {\"+\"}", "guesses path identifiers where a list of prefixes begins with an octet of 0"),
    ("kit",   "reads: ours {\"-\"}", "the same"),
    ("kit",   "refuses: warning Malformed NLRI announced", "the same"),
    ("kit",   "refuses: warning Optional attribute error for MP_REACHABLE_NLRI Error Invalid prefix length", "the same"),
    ("kit",   "refuses: warning Optional attribute error for MP_REACHABLE_NLRI Error truncated", "the same"),
    ("kit",   "refuses: warning Optional attribute error for MP_UNREACHABLE_NLRI Error Invalid prefix length", "the same"),
    ("kit",   "refuses: warning Optional attribute error for MP_UNREACHABLE_NLRI Error truncated", "the same"),
    ("kit",   "takes: reset: malformed prefixes", "the same"),
    ("kit",   "takes: reset: prefixes are malformed", "the same"),
    ("gauge", "reads: ours {\"+\"", "leaves multicast prefixes out; with us the route guard refuses them, with its reason"),
    ("gauge", "reads: ours {\"-\"}", "the same"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError MpReachErrorError Ipv UnicastAddressError", "the same"),
    // Families that we did not negotiate are ignored, whatever is in them (RFC 4760 §7).
    ("kit",   "refuses: warning Optional attribute error for MP_REACHABLE_NLRI Error Unknown", "a family that nobody knows is ignored"),
    ("kit",   "refuses: warning Optional attribute error for MP_UNREACHABLE_NLRI Error Unknown", "the same"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError MpReachErrorError", "the same, and the inside of a family that is not ours"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError MpUnreachErrorError", "the same"),
    ("kit",   "refuses: warning Optional attribute error for MP_REACHABLE_NLRI Error invalid labeled", "the same"),
    // Flags: RFC 7606 §3 c asks only for the Optional and Transitive bits.
    ("kit",   "refuses: warning Attribute flags error", "counts the Partial bit of attributes that are not optional transitive"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError InvalidPathAttribute offset invalid_attribute InvalidPartialFlagValue", "the same"),
    // Attributes that are unknown to us, or left out, and pass through unread.
    ("kit",   "refuses: warning Optional attribute error for AIGP", "left out unread (RFC 7311 §3.3)"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError AigpError", "the same"),
    ("kit",   "refuses: warning Optional attribute error for B", "BFD discriminator, BGP-LS, prefix SID, BIER, domain path: passed on unread"),
    ("kit",   "refuses: warning Optional attribute error for SFP_ATTRIBUTE", "passed on unread"),
    ("kit",   "refuses: warning Optional attribute error for T", "tunnel encapsulation, traffic engineering: passed on unread"),
    ("kit",   "refuses: warning Partial attribute error for", "the same, with the Partial bit"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError BgpLsError", "passed on unread"),
    ("gauge", "refuses: error BgpUpdateMessageParsingError PathAttributeError SegmentIdentifierParsingError", "passed on unread"),
    // Rules of a session, which those who only read messages do not have.
    ("kit",   "takes: discard: AS4_", "from a neighbor with four-octet numbers (RFC 6793 §6)"),
    ("gauge", "takes: discard: AS4_", "the same"),
    ("gauge", "takes: discard: * repeated", "RFC 7606 §3 g"),
    ("gauge", "takes: withdraw: * missing", "RFC 7606 §3 d"),
    ("kit",   "takes: * attribute longer than the list of attributes", "RFC 7606 §4: cuts it short and goes on"),
    ("gauge", "takes: withdraw: NEXT_HOP no address of a host", "RFC 4271 §6.3"),
    ("kit",   "takes: withdraw: NEXT_HOP no address of a host", "the same"),
    ("kit",   "takes: * confederation segment from outside", "RFC 5065 §5"),
    ("kit",   "takes: reset: unknown well-known attribute", "RFC 4271 §6.3: one it has a name for is no error to it"),
    ("gauge", "takes: reset: unknown well-known attribute", "the same"),
    ("kit",   "takes: reset: next hop of a wrong length", "24 octets: a route distinguisher before an address has no place here (RFC 2545 §3)"),
    ("gauge", "takes: reset: next hop of a wrong length", "24 octets: a route distinguisher before an address has no place here (RFC 2545 §3)"),
    ("kit",   "takes: discard: AGGREGATOR AS 0", "RFC 7607 §2"),
    ("gauge", "takes: discard: AGGREGATOR AS 0", "the same"),
    ("kit",   "takes: withdraw: AS_PATH AS 0", "the same"),
    ("gauge", "takes: withdraw: AS_PATH AS 0", "the same"),
    ("kit",   "takes: withdraw: MP_REACH_NLRI next hop", "a multicast address (RFC 4271 §6.3)"),
    ("gauge", "takes: withdraw: MP_REACH_NLRI next hop", "the same"),
    ("kit",   "takes: withdraw: COMMUNITIES wrong length", "RFC 7606 §7.8: an empty list"),
    ("gauge", "takes: withdraw: COMMUNITIES wrong length", "the same"),
    ("gauge", "takes: withdraw: ONLY_TO_CUSTOMER wrong length", "RFC 9234 §5: it reads the first four octets"),
    ("gauge", "takes: withdraw: ORIGINATOR_ID wrong length", "RFC 7606 §7.9: the same"),
    ("gauge", "takes: reset: wrong length", "a next hop longer than its attribute"),
];

#[test]
fn damaged_messages_are_judged_alike_or_for_a_reason() {
    let mut dice = Dice(2);
    let mut differences: BTreeMap<(String, String), (usize, Bytes)> = BTreeMap::new();
    for _ in 0..bounded(20_000) {
        let mut damaged = message(&mut dice);
        for _ in 0..1 + dice.below(2) {
            let at = HEADER + dice.below((damaged.len() - HEADER) as u64) as usize;
            damaged[at] = if dice.one_in(2) { damaged[at] ^ 1 << dice.below(8) } else { dice.next() as u8 };
        }
        let damaged = damaged.freeze();
        let us = ours(&damaged.slice(HEADER..));
        for (who, them) in [("kit", kit(&damaged)), ("gauge", gauge(&damaged))] {
            let key = match (&us, them) {
                (Ok(a), Ok(b)) if *a == b => continue,
                (Err(_), Err(_)) => continue,
                (Ok(a), Ok(b)) => {
                    let words = |s: &BTreeSet<String>, o: &BTreeSet<String>| {
                        s.difference(o)
                            .map(|l| l.split(' ').next().unwrap().to_owned())
                            .collect::<BTreeSet<_>>()
                    };
                    format!("reads: ours {:?} theirs {:?}", words(a, &b), words(&b, a))
                }
                (Err(what), Ok(_)) => format!("takes: {what}"),
                (Ok(_), Err(what)) => format!("refuses: {}", kind(&what)),
            };
            if !explained(who, &key) {
                differences.entry((who.to_owned(), key)).or_insert((0, damaged.clone())).0 += 1;
            }
        }
    }
    let told: Vec<_> = differences
        .iter()
        .map(|((who, what), (times, message))| format!("{who} {what} ({times} times, as in {message:02x?})"))
        .collect();
    assert!(told.is_empty(), "not explained:\n{}", told.join("\n"));
}
