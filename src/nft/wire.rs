//! Encodes and decodes nfnetlink messages, including those of the masquerading table.
//!
//! Headers are in host order as in all of netlink, attributes of nf_tables in network order.

use std::collections::BTreeSet;

use super::{attr::*, ranges::Range};
use crate::{
    net::Family,
    netlink::{
        decode::{Message, attribute},
        encode::{Encoder, NESTED},
        flag,
    },
};

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

/// The messages of one transaction, which the kernel applies as a whole or not at all.
#[derive(Debug)]
pub struct Batch<'a>(&'a mut Encoder);

/// Appends a transaction.
pub fn transaction(encoder: &mut Encoder, fill: impl FnOnce(&mut Batch<'_>)) {
    control(encoder, BATCH_BEGIN);
    fill(&mut Batch(encoder));
    // The end of a transaction is not acknowledged.
    encoder.ack_last();
    control(encoder, BATCH_END);
}

/// Appends a request outside of any transaction.
pub(super) fn request(
    encoder: &mut Encoder,
    protocol: u8,
    kind: u16,
    flags: u16,
    body: impl FnOnce(&mut Attributes<'_>),
) {
    encoder.message(of_nftables(kind), flags, |m| {
        // struct nfgenmsg: family, version, resource.
        m.fields([protocol, 0, 0, 0]);
        body(&mut Attributes(m));
    });
}

/// The type of a message of nf_tables.
pub(super) const fn of_nftables(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

fn control(encoder: &mut Encoder, kind: u16) {
    encoder.message(kind, 0, |m| {
        m.fields([AF_UNSPEC, 0]);
        m.fields(SUBSYSTEM.to_be_bytes());
    });
}

/// Appends the request for a table.
pub fn get_table(encoder: &mut Encoder, table: &str) {
    request(encoder, NFPROTO_INET, GET_TABLE, flag::ACK, |m| m.text(NFTA_TABLE_NAME, table));
}

/// Appends the request for the number of the last change.
pub fn get_generation(encoder: &mut Encoder) {
    request(encoder, 0, GET_GENERATION, flag::ACK, |_| {});
}

/// The number of the last change.
pub fn generation_in(attributes: &[u8]) -> Option<u32> {
    attribute(attributes, NFTA_GEN_ID)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

impl Batch<'_> {
    /// Deletes the table with its contents. Creating it first avoids an error if it does not exist.
    pub fn remove(&mut self) {
        self.ours(NEW_TABLE, flag::CREATE, |m| m.text(NFTA_TABLE_NAME, TABLE));
        self.ours(DEL_TABLE, 0, |m| m.text(NFTA_TABLE_NAME, TABLE));
    }

    /// Creates the table with its chain, rules and empty sets, replacing an existing one.
    pub fn create(&mut self) {
        self.remove();
        self.ours(NEW_TABLE, flag::CREATE, |m| m.text(NFTA_TABLE_NAME, TABLE));
        self.ours(NEW_CHAIN, flag::CREATE, |m| {
            m.text(NFTA_CHAIN_TABLE, TABLE);
            m.text(NFTA_CHAIN_NAME, CHAIN);
            m.nested(NFTA_CHAIN_HOOK, |hook| {
                hook.number(NFTA_HOOK_HOOKNUM, NF_INET_POST_ROUTING);
                hook.number(NFTA_HOOK_PRIORITY, SRCNAT);
            });
            m.text(NFTA_CHAIN_TYPE, "nat");
        });
        for family in Family::ALL {
            for set in [Set::Pods, Set::Keep] {
                self.create_set(set, family);
            }
            self.create_rule(family);
        }
    }

    fn create_set(&mut self, set: Set, family: Family) {
        let (key_type, len) = match family {
            Family::Ipv4Unicast => (TYPE_IPV4, 4),
            Family::Ipv6Unicast => (TYPE_IPV6, 16),
        };
        // Must only be unique within the transaction.
        let id = 1 + 2 * u32::try_from(family.index()).unwrap_or(0) + u32::from(set == Set::Keep);
        self.ours(NEW_SET, flag::CREATE, |m| {
            m.text(NFTA_SET_TABLE, TABLE);
            m.text(NFTA_SET_NAME, set.name(family));
            m.number(NFTA_SET_FLAGS, SET_INTERVAL);
            m.number(NFTA_SET_KEY_TYPE, key_type);
            m.number(NFTA_SET_KEY_LEN, len);
            m.number(NFTA_SET_ID, id);
        });
    }

    /// `meta nfproto FAMILY saddr @pods daddr != @keep masquerade`
    fn create_rule(&mut self, family: Family) {
        let (protocol, source, destination, len) = match family {
            Family::Ipv4Unicast => (NFPROTO_IPV4, 12, 16, 4),
            Family::Ipv6Unicast => (NFPROTO_IPV6, 8, 24, 16),
        };
        self.ours(NEW_RULE, flag::CREATE | flag::APPEND, |m| {
            m.text(NFTA_RULE_TABLE, TABLE);
            m.text(NFTA_RULE_CHAIN, CHAIN);
            m.nested(NFTA_RULE_EXPRESSIONS, |list| {
                list.of_protocol(protocol);
                for (offset, set, flags) in
                    [(source, Set::Pods, 0), (destination, Set::Keep, LOOKUP_INVERTED)]
                {
                    list.payload(PAYLOAD_NETWORK, offset, len);
                    list.expression("lookup", |e| {
                        e.text(NFTA_LOOKUP_SET, set.name(family));
                        e.number(NFTA_LOOKUP_SREG, REGISTER);
                        e.number(NFTA_LOOKUP_FLAGS, flags);
                    });
                }
                list.expression("masq", |_| {});
            });
        });
    }

    /// Adds ranges to a set.
    pub fn add(&mut self, set: Set, family: Family, ranges: &BTreeSet<Range>) {
        self.elements(NEW_SET_ELEMENT, flag::CREATE, set, family, ranges);
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
                m.text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
                m.text(NFTA_SET_ELEM_LIST_SET, set.name(family));
                m.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    some.iter().for_each(|range| list.range(family, range))
                });
            });
        }
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
        request(self.0, protocol, kind, flags, body);
    }
}

/// Writer of attributes of nf_tables: numbers are in network order.
pub(super) struct Attributes<'a>(&'a mut Encoder);

impl Attributes<'_> {
    pub(super) fn octets(&mut self, kind: u16, value: &[u8]) {
        self.0.octets(kind, value);
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.octets(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nested(kind | NESTED, |e| body(&mut Attributes(e)));
    }

    pub(super) fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.nested(NFTA_LIST_ELEM, |e| {
            e.text(NFTA_EXPR_NAME, name);
            e.nested(NFTA_EXPR_DATA, data);
        });
    }

    /// Loads a property of the packet.
    pub(super) fn meta(&mut self, key: u32) {
        self.expression("meta", |e| {
            e.number(NFTA_META_DREG, REGISTER);
            e.number(NFTA_META_KEY, key);
        });
    }

    /// Loads octets of a header.
    pub(super) fn payload(&mut self, base: u32, offset: u32, len: u32) {
        self.expression("payload", |e| {
            e.number(NFTA_PAYLOAD_DREG, REGISTER);
            e.number(NFTA_PAYLOAD_BASE, base);
            e.number(NFTA_PAYLOAD_OFFSET, offset);
            e.number(NFTA_PAYLOAD_LEN, len);
        });
    }

    /// Continues if the loaded value is this.
    pub(super) fn equals(&mut self, value: &[u8]) {
        self.expression("cmp", |e| {
            e.number(NFTA_CMP_SREG, REGISTER);
            e.number(NFTA_CMP_OP, CMP_EQ);
            e.nested(NFTA_CMP_DATA, |data| data.octets(NFTA_DATA_VALUE, value));
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
        self.nested(NFTA_LIST_ELEM, |e| {
            e.nested(NFTA_SET_ELEM_KEY, |k| k.octets(NFTA_DATA_VALUE, &key(range.first)))
        });
        if range.last < highest {
            self.nested(NFTA_LIST_ELEM, |e| {
                e.nested(NFTA_SET_ELEM_KEY, |k| k.octets(NFTA_DATA_VALUE, &key(range.last + 1)));
                e.number(NFTA_SET_ELEM_FLAGS, INTERVAL_END);
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
pub const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
const NEW_SET: u16 = 9;
const NEW_SET_ELEMENT: u16 = 12;
const DEL_SET_ELEMENT: u16 = 14;

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

/// The attributes of a message, after the header of nfnetlink.
pub fn body<'a>(message: &Message<'a>) -> &'a [u8] {
    message.body.get(4..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::decode::messages,
        nft::{
            chain::Hook,
            forward::{Rule, Seen},
            pod_bgp::Wanted,
        },
    };

    /// Types and sequence numbers of the messages, which must fill the buffer without gaps.
    fn messages_of(seq: u32, fill: impl FnOnce(&mut Batch<'_>)) -> Vec<(u16, u32)> {
        let mut encoder = Encoder::new(seq);
        transaction(&mut encoder, fill);
        let all: Vec<_> = messages(encoder.bytes()).collect();
        assert_eq!(all.iter().map(|m| m.whole.len()).sum::<usize>(), encoder.bytes().len());
        assert!(all.iter().all(|m| m.whole.len().is_multiple_of(4)));
        let acks: Vec<_> = all.iter().filter(|m| m.flags & flag::ACK != 0).map(|m| m.seq).collect();
        assert_eq!(acks, [encoder.acknowledged()]);
        all.iter().map(|m| (m.kind, m.seq)).collect()
    }

    #[test]
    fn a_transaction_is_enclosed_and_the_last_step_is_acknowledged() {
        let all = messages_of(7, |batch| batch.remove());
        assert_eq!(all, [(0x10, 7), (0xa00, 8), (0xa02, 9), (0x11, 10)]);
    }

    #[test]
    fn many_ranges_take_several_messages() {
        let range = |n: u128| Range { first: n * 4, last: n * 4 + 1 };
        let ranges = (0..1500).map(range).collect();
        let all = messages_of(1, |batch| batch.add(Set::Keep, Family::Ipv6Unicast, &ranges));
        assert_eq!(all.iter().filter(|(kind, _)| *kind == 0xa0c).count(), 3);
    }

    /// Lengths and FNV-1a digests of what the kernel has been given, on little-endian hosts.
    #[test]
    #[cfg(target_endian = "little")]
    fn transactions_are_these_octets() {
        let range = |n: u128| Range { first: n * 4, last: n * 4 + 1 };
        let (many, highest) =
            ((0..1500).map(range).collect(), [Range { first: 5, last: u32::MAX.into() }].into());
        let rules = [
            Rule::Leave("docker0".into()),
            Rule::LeaveFrom("eth0".into()),
            Rule::From("10.244.1.0/24".parse().unwrap()),
            Rule::To("2001:db8::1/128".parse().unwrap()),
        ];
        let seen = Seen { jumps: vec![5, 6], behind: Some(9), rules: Some(3), ..Seen::default() };
        let wanted = Wanted {
            bridges: ["docker0".to_owned()].into(),
            pods: ["10.244.1.0/24", "fd00::/64"].map(|p| p.parse().unwrap()).into(),
            neighbors: ["10.0.0.1/32", "fe80::1/128"].map(|p| p.parse().unwrap()).into(),
        };
        let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
        type Fill<'a> = &'a dyn Fn(&mut Batch<'_>);
        let cases: [(&str, Fill<'_>, (usize, u64)); 6] = [
            ("masquerading", &|b| b.create(), (1260, 0x8088_c386_3efd_5cef)),
            ("many ranges", &|b| b.add(Set::Keep, v6, &many), (96196, 0xfe12_0916_e2a7_e9ee)),
            (
                "up to the highest address",
                &|b| b.remove_ranges(Set::Pods, v4, &highest),
                (108, 0xcafe_191e_de86_937c),
            ),
            (
                "a chain",
                &|b| b.write_chain(v4, Hook::DockerUser, &rules, &seen),
                (1368, 0x7eab_46b0_1de2_08e7),
            ),
            ("no chain", &|b| b.remove_chain(v6, Hook::Raw, &seen), (248, 0x483f_7848_ebda_0602)),
            ("port 179", &|b| b.write_bgp(&wanted), (2448, 0x7b09_3878_583e_b460)),
        ];
        for (name, fill, expected) in cases {
            let mut encoder = Encoder::new(7);
            transaction(&mut encoder, fill);
            let fnv = |h: u64, o: &u8| (h ^ u64::from(*o)).wrapping_mul(0x0100_0000_01b3);
            let digest = encoder.bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
            assert_eq!((encoder.bytes().len(), digest), expected, "{name}");
        }
    }
}
