//! Prevents containers from opening BGP sessions with this host's address: packets forwarded from
//! pods to TCP port 179 of a neighbor are dropped (`guard.block-pod-bgp`).
//!
//! A masqueraded container has the host's address, which the neighbor accepts as its peer: without
//! TTL security or a password, the container's session would replace the host's. Our table has two
//! chains: `forward` matches packets of pods by their incoming bridge and by their source address,
//! `to-neighbors` drops those sent to a neighbor. A drop is final, regardless of other tables.
//! Packets of the host's own sessions are not forwarded, and packets forwarded for others neither
//! enter by a bridge of containers nor have a pod's address.

use std::collections::BTreeSet;

use super::{
    attr::*,
    chain::{self, META_IIFNAME, NF_DROP, NFT_JUMP, is_inside, is_interface, protocol, verdict},
    wire::{Attributes, Batch, DEL_TABLE, NEW_CHAIN, NEW_RULE, NEW_TABLE, NF_INET_FORWARD, NFPROTO_INET},
};
use crate::{
    net::Prefix,
    netlink::{
        decode::{attribute, attributes},
        encode::Encoder,
        flag,
    },
};

/// Our table, of family inet.
pub const TABLE: &str = "routelet-bgp";
/// The chain that drops and counts packets.
pub const TO_NEIGHBORS: &str = "to-neighbors";
const FORWARD: &str = "forward";

/// The packets to drop, as computed by the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Bridges of containers.
    pub bridges: BTreeSet<String>,
    /// Ranges of this node's pod addresses.
    pub pods: BTreeSet<Prefix>,
    /// Addresses of neighbors, and listen ranges.
    pub neighbors: BTreeSet<Prefix>,
}

impl Wanted {
    /// Whether there is nothing to drop.
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty() || self.bridges.is_empty() && self.pods.is_empty()
    }
}

/// The packet counter of a listed rule; 0 if it has none.
pub fn packets(rule: &[u8]) -> u64 {
    let counter = |expression: &[u8]| {
        let name = attribute(expression, NFTA_EXPR_NAME)?;
        let data = attribute(expression, NFTA_EXPR_DATA).filter(|_| name == b"counter\0")?;
        Some(u64::from_be_bytes(*attribute(data, NFTA_COUNTER_PACKETS)?.first_chunk()?))
    };
    attribute(rule, NFTA_RULE_EXPRESSIONS)
        .map_or(0, |list| attributes(list).filter_map(|(_, e)| counter(e)).sum())
}

/// Requests the rules of [`TO_NEIGHBORS`].
pub fn list_rules(encoder: &mut Encoder) {
    chain::list_rules(encoder, NFPROTO_INET, TABLE, TO_NEIGHBORS);
}

/// Whether a listed rule belongs to [`TO_NEIGHBORS`]: older kernels ignore the filter and list all.
pub fn is_ours(rule: &[u8]) -> bool {
    chain::is_listed_in(rule, TABLE, TO_NEIGHBORS)
}

impl Batch<'_> {
    /// Creates the table, replacing an existing one.
    pub fn write_bgp(&mut self, wanted: &Wanted) {
        self.remove_bgp();
        self.of_table(NEW_TABLE, |m| m.text(NFTA_TABLE_NAME, TABLE));
        self.of_table(NEW_CHAIN, |m| {
            m.text(NFTA_CHAIN_TABLE, TABLE);
            m.text(NFTA_CHAIN_NAME, TO_NEIGHBORS);
        });
        self.of_table(NEW_CHAIN, |m| {
            m.text(NFTA_CHAIN_TABLE, TABLE);
            m.text(NFTA_CHAIN_NAME, FORWARD);
            m.nested(NFTA_CHAIN_HOOK, |hook| {
                hook.number(NFTA_HOOK_HOOKNUM, NF_INET_FORWARD);
                hook.number(NFTA_HOOK_PRIORITY, FILTER);
            });
            m.text(NFTA_CHAIN_TYPE, "filter");
        });
        for neighbor in &wanted.neighbors {
            self.rule(TO_NEIGHBORS, |list| {
                list.of_protocol(protocol(neighbor.family()));
                is_inside(list, *neighbor, 1);
                list.expression("counter", |_| {});
                verdict(list, NF_DROP, None);
            });
        }
        for bridge in &wanted.bridges {
            self.rule(FORWARD, |list| {
                is_interface(list, META_IIFNAME, bridge);
                to_port_179(list);
            });
        }
        for pods in &wanted.pods {
            self.rule(FORWARD, |list| {
                list.of_protocol(protocol(pods.family()));
                is_inside(list, *pods, 0);
                to_port_179(list);
            });
        }
    }

    /// Deletes the table if it exists.
    pub fn remove_bgp(&mut self) {
        self.of_table(NEW_TABLE, |m| m.text(NFTA_TABLE_NAME, TABLE));
        self.message(NFPROTO_INET, DEL_TABLE, 0, |m| m.text(NFTA_TABLE_NAME, TABLE));
    }

    fn of_table(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.message(NFPROTO_INET, kind, flag::CREATE, body);
    }

    fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Attributes<'_>)) {
        self.message(NFPROTO_INET, NEW_RULE, flag::CREATE | flag::APPEND, |m| {
            m.text(NFTA_RULE_TABLE, TABLE);
            m.text(NFTA_RULE_CHAIN, chain);
            m.nested(NFTA_RULE_EXPRESSIONS, expressions);
        });
    }
}

/// `tcp dport 179 jump to-neighbors`
fn to_port_179(list: &mut Attributes<'_>) {
    list.meta(META_L4PROTO);
    list.equals(&[TCP]);
    list.payload(PAYLOAD_TRANSPORT, 2, 2);
    list.equals(&179_u16.to_be_bytes());
    verdict(list, NFT_JUMP, Some(TO_NEIGHBORS));
}

/// `NF_IP_PRI_FILTER`.
const FILTER: u32 = 0;
const PAYLOAD_TRANSPORT: u32 = 2;
const META_L4PROTO: u32 = 16;
const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::decode::messages,
        nft::wire::{body, transaction},
    };

    #[test]
    fn without_neighbors_or_containers_there_is_nothing_to_drop() {
        let prefix = |text: &str| BTreeSet::from([text.parse().unwrap()]);
        let bridges = BTreeSet::from(["docker0".to_owned()]);
        let whole = Wanted { bridges, pods: prefix("10.244.1.0/24"), neighbors: prefix("10.0.0.1/32") };
        assert!(!whole.is_empty());
        assert!(!Wanted { bridges: BTreeSet::new(), ..whole.clone() }.is_empty());
        assert!(!Wanted { pods: BTreeSet::new(), ..whole.clone() }.is_empty());
        assert!(Wanted { neighbors: BTreeSet::new(), ..whole.clone() }.is_empty());
        assert!(Wanted { bridges: BTreeSet::new(), pods: BTreeSet::new(), ..whole }.is_empty());
    }

    #[test]
    fn packet_counters_are_read_and_truncated_rules_count_nothing() {
        let mut encoder = Encoder::new(1);
        transaction(&mut encoder, |batch| {
            batch.rule(TO_NEIGHBORS, |list| {
                list.expression("counter", |e| {
                    e.octets(1, &4000_u64.to_be_bytes());
                    e.octets(NFTA_COUNTER_PACKETS, &50_u64.to_be_bytes());
                });
            });
        });
        let rule = messages(encoder.bytes()).nth(1).map(|m| body(&m)).unwrap();
        assert_eq!((packets(rule), is_ours(rule)), (50, true));
        for n in 0..rule.len() {
            let _ = (packets(&rule[..n]), is_ours(&rule[..n]));
        }
    }
}
