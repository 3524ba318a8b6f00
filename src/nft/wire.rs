//! Encodes and decodes nfnetlink messages, including those of the masquerading table.
//!
//! Headers are in host byte order as in all of netlink, attributes of nf_tables in network order.

use std::collections::BTreeSet;

use super::ranges::Range;
use crate::net::Family;

/// The masquerading table, of family inet.
pub const TABLE: &str = "routelet";
const CHAIN: &str = "postrouting";

/// The two sets of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Ranges of pod addresses.
    Pods,
    /// Destinations that are never masqueraded.
    Keep,
}

impl Set {
    fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Pods, Family::Ipv4Unicast) => "pods-v4",
            (Self::Pods, Family::Ipv6Unicast) => "pods-v6",
            (Self::Keep, Family::Ipv4Unicast) => "keep-v4",
            (Self::Keep, Family::Ipv6Unicast) => "keep-v6",
        }
    }
}

/// One transaction, which the kernel applies as a whole or not at all.
#[derive(Debug)]
pub struct Batch {
    buf: Vec<u8>,
    seq: u32,
    /// Offset of the last message.
    last: usize,
}

impl Batch {
    /// Sequence numbers start at `seq`. Only the last message requests an acknowledgement, so the
    /// kernel replies to it and to messages that it rejects.
    pub fn new(seq: u32) -> Self {
        let mut batch = Self { buf: Vec::with_capacity(4096), seq, last: 0 };
        batch.control(BATCH_BEGIN);
        batch
    }

    /// Ends the transaction. Returns the octets to send and the sequence number that is
    /// acknowledged.
    pub fn finish(mut self) -> (Vec<u8>, u32) {
        let acknowledged = self.seq.wrapping_sub(1);
        if let Some(flags) = self.buf.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
        self.control(BATCH_END);
        (self.buf, acknowledged)
    }

    /// Deletes the table with its contents. Creating it first avoids an error if it does not exist.
    pub fn remove(&mut self) {
        self.ours(NEW_TABLE, CREATE, |m| m.text(1, TABLE));
        self.ours(DEL_TABLE, 0, |m| m.text(1, TABLE));
    }

    /// Creates the table with its chain, rules and empty sets, replacing an existing one.
    pub fn create(&mut self) {
        self.remove();
        self.ours(NEW_TABLE, CREATE, |m| m.text(1, TABLE));
        self.ours(NEW_CHAIN, CREATE, |m| {
            m.text(1, TABLE);
            m.text(3, CHAIN);
            m.nested(4, |hook| {
                hook.number(1, NF_INET_POST_ROUTING);
                hook.number(2, SRCNAT);
            });
            m.text(7, "nat");
        });
        for family in Family::ALL {
            for set in [Set::Pods, Set::Keep] {
                self.create_set(set, family);
            }
            self.create_rule(family);
        }
    }

    /// The request for a table, outside of any transaction.
    pub fn get_table(seq: u32, table: &str) -> Vec<u8> {
        Self::request(seq, NFPROTO_INET, GET_TABLE, ACK, |m| m.text(1, table))
    }

    /// A request outside of any transaction: the octets to send.
    pub(super) fn request(
        seq: u32,
        protocol: u8,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> Vec<u8> {
        let mut batch = Self { buf: Vec::new(), seq, last: 0 };
        batch.message(protocol, kind, flags, body);
        batch.buf
    }

    fn create_set(&mut self, set: Set, family: Family) {
        let (key_type, len) = match family {
            Family::Ipv4Unicast => (TYPE_IPV4, 4),
            Family::Ipv6Unicast => (TYPE_IPV6, 16),
        };
        // Must only be unique within the transaction.
        let id = 1 + 2 * u32::try_from(family.index()).unwrap_or(0) + u32::from(set == Set::Keep);
        self.ours(NEW_SET, CREATE, |m| {
            m.text(1, TABLE);
            m.text(2, set.name(family));
            m.number(3, SET_INTERVAL);
            m.number(4, key_type);
            m.number(5, len);
            m.number(10, id);
        });
    }

    /// `meta nfproto FAMILY saddr @pods daddr != @keep masquerade`
    fn create_rule(&mut self, family: Family) {
        let (protocol, source, destination, len) = match family {
            Family::Ipv4Unicast => (NFPROTO_IPV4, 12, 16, 4),
            Family::Ipv6Unicast => (NFPROTO_IPV6, 8, 24, 16),
        };
        self.ours(NEW_RULE, CREATE | APPEND, |m| {
            m.text(1, TABLE);
            m.text(2, CHAIN);
            m.nested(4, |list| {
                list.of_protocol(protocol);
                for (offset, set, flags) in
                    [(source, Set::Pods, 0), (destination, Set::Keep, LOOKUP_INVERTED)]
                {
                    list.payload(PAYLOAD_NETWORK, offset, len);
                    list.expression("lookup", |e| {
                        e.text(1, set.name(family));
                        e.number(2, REGISTER);
                        e.number(5, flags);
                    });
                }
                list.expression("masq", |_| {});
            });
        });
    }

    /// Adds ranges to a set.
    pub fn add(&mut self, set: Set, family: Family, ranges: &BTreeSet<Range>) {
        self.elements(NEW_SET_ELEMENT, CREATE, set, family, ranges);
    }

    /// Removes ranges from a set; they must match the ranges that were added.
    pub fn remove_ranges(&mut self, set: Set, family: Family, ranges: &BTreeSet<Range>) {
        self.elements(DEL_SET_ELEMENT, 0, set, family, ranges);
    }

    /// A nested attribute holds at most 64 KiB, so many ranges need several messages.
    fn elements(&mut self, kind: u16, flags: u16, set: Set, family: Family, ranges: &BTreeSet<Range>) {
        let all: Vec<_> = ranges.iter().collect();
        for some in all.chunks(ELEMENTS) {
            self.ours(kind, flags, |m| {
                m.text(1, TABLE);
                m.text(2, set.name(family));
                m.nested(3, |list| some.iter().for_each(|range| list.range(family, range)));
            });
        }
    }

    fn control(&mut self, kind: u16) {
        let at = self.header(kind, REQUEST, AF_UNSPEC, SUBSYSTEM);
        self.end(at);
    }

    /// A message of family inet.
    fn ours(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.message(NFPROTO_INET, kind, flags, body);
    }

    pub(super) fn message(
        &mut self,
        protocol: u8,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let at = self.header(SUBSYSTEM << 8 | kind, REQUEST | flags, protocol, 0);
        self.last = at;
        body(&mut Attributes(&mut self.buf));
        self.end(at);
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let at = self.buf.len();
        self.buf.extend([0; 4]);
        self.buf.extend(kind.to_ne_bytes());
        self.buf.extend(flags.to_ne_bytes());
        self.buf.extend(self.seq.to_ne_bytes());
        self.buf.extend([0; 4]);
        self.buf.extend([family, 0]);
        self.buf.extend(resource.to_be_bytes());
        self.seq = self.seq.wrapping_add(1);
        at
    }

    fn end(&mut self, at: usize) {
        let len = u32::try_from(self.buf.len() - at).unwrap_or(u32::MAX);
        self.buf[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Writer of attributes.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn octets(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.octets(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        body(&mut Attributes(self.0));
        let len = u16::try_from(self.0.len() - at).unwrap_or(u16::MAX);
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    pub(super) fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.nested(1, |e| {
            e.text(1, name);
            e.nested(2, data);
        });
    }

    /// Loads a property of the packet.
    pub(super) fn meta(&mut self, key: u32) {
        self.expression("meta", |e| {
            e.number(1, REGISTER);
            e.number(2, key);
        });
    }

    /// Loads octets of a header.
    pub(super) fn payload(&mut self, base: u32, offset: u32, len: u32) {
        self.expression("payload", |e| {
            e.number(1, REGISTER);
            e.number(2, base);
            e.number(3, offset);
            e.number(4, len);
        });
    }

    /// Continues if the loaded value is this.
    pub(super) fn equals(&mut self, value: &[u8]) {
        self.expression("cmp", |e| {
            e.number(1, REGISTER);
            e.number(2, CMP_EQ);
            e.nested(3, |data| data.octets(1, value));
        });
    }

    /// `meta nfproto PROTOCOL`
    pub(super) fn of_protocol(&mut self, protocol: u8) {
        self.meta(META_NFPROTO);
        self.equals(&[protocol]);
    }

    /// The first address, then the address after the last one, flagged as the end; a range that
    /// includes the highest address has no end.
    fn range(&mut self, family: Family, range: &Range) {
        let key = |n: u128| match family {
            Family::Ipv4Unicast => n.to_be_bytes()[12..].to_vec(),
            Family::Ipv6Unicast => n.to_be_bytes().to_vec(),
        };
        let highest = u128::MAX >> (128 - u32::from(family.max_len()));
        self.nested(1, |e| e.nested(1, |k| k.octets(1, &key(range.first))));
        if range.last < highest {
            self.nested(1, |e| {
                e.nested(1, |k| k.octets(1, &key(range.last + 1)));
                e.number(3, INTERVAL_END);
            });
        }
    }
}

/// Maximum ranges per message; each takes at most 72 octets.
const ELEMENTS: usize = 700;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
pub(super) const DEL_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DEL_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_SET_ELEMENT: u16 = 12;
const DEL_SET_ELEMENT: u16 = 14;

const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the list changed during the dump.
const INTERRUPTED: u16 = 0x10;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const AF_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
const NF_INET_POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`, the priority of source NAT.
const SRCNAT: u32 = 100;
/// Key types as numbered by `nft`, so that it can list our sets.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const SET_INTERVAL: u32 = 4;
const INTERVAL_END: u32 = 1;
pub(super) const REGISTER: u32 = 1;
pub(super) const META_NFPROTO: u32 = 15;
/// The hook of forwarded packets, in every family that has it.
pub(super) const NF_INET_FORWARD: u32 = 2;
pub(super) const CMP_EQ: u32 = 0;
pub(super) const PAYLOAD_NETWORK: u32 = 1;
const LOOKUP_INVERTED: u32 = 1;

/// One message from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// After the netlink header.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The errno of an error message, 0 for an acknowledgement; `None` for any other message.
    pub fn errno(&self) -> Option<i32> {
        const ERROR: u16 = 2;
        let code = self.body.first_chunk::<4>().filter(|_| self.kind == ERROR)?;
        Some(i32::from_ne_bytes(*code).wrapping_neg())
    }

    /// `NLMSG_DONE`: the end of a dump.
    pub fn is_end(&self) -> bool {
        self.kind == 3
    }

    pub fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// The attributes, after the nfnetlink header.
    pub fn attributes(&self) -> &'a [u8] {
        self.body.get(4..).unwrap_or_default()
    }
}

/// Splits the result of one `recv` into messages.
pub fn messages(mut buf: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while let Some((header, _)) = buf.split_first_chunk::<16>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(body) = buf.get(16..len) else { break };
        found.push(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        });
        buf = buf.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Kind (without flags) and value of each attribute.
pub(super) fn attributes(mut buf: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[l0, l1, k0, k1], _) = buf.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = buf.get(4..len)?;
        buf = buf.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(buf: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(buf).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and sequence numbers of the messages, which must fill the buffer without gaps.
    fn messages(mut buf: &[u8]) -> Vec<(u16, u32)> {
        let mut found = Vec::new();
        while !buf.is_empty() {
            let len = u32::from_ne_bytes(buf[..4].try_into().unwrap()) as usize;
            assert!(len >= 20 && len.is_multiple_of(4) && len <= buf.len());
            found.push((
                u16::from_ne_bytes(buf[4..6].try_into().unwrap()),
                u32::from_ne_bytes(buf[8..12].try_into().unwrap()),
            ));
            buf = &buf[len..];
        }
        found
    }

    #[test]
    fn a_transaction_is_enclosed_and_the_last_step_is_acknowledged() {
        let mut batch = Batch::new(7);
        batch.remove();
        let (buf, acknowledged) = batch.finish();
        assert_eq!(messages(&buf), [(0x10, 7), (0xa00, 8), (0xa02, 9), (0x11, 10)]);
        assert_eq!(acknowledged, 9);
    }

    #[test]
    fn many_ranges_take_several_messages() {
        let range = |n: u128| Range { first: n * 4, last: n * 4 + 1 };
        let mut batch = Batch::new(1);
        batch.add(Set::Keep, Family::Ipv6Unicast, &(0..1500).map(range).collect());
        let (buf, _) = batch.finish();
        assert_eq!(messages(&buf).iter().filter(|(kind, _)| *kind == 0xa0c).count(), 3);
    }
}
