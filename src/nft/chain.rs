//! Encodes and decodes nfnetlink messages about chains in tables of iptables.
//!
//! Rules consist of the expressions that iptables-nft itself writes, so that it can display and
//! keep them: it refuses to work on a table with any others.

use std::net::IpAddr;

use super::{
    attr::*,
    forward::{CHAIN, Rule, Seen},
    wire::{
        Attributes, Batch, CMP_EQ, DEL_CHAIN, DEL_RULE, GET_CHAIN, GET_RULE, NEW_CHAIN, NEW_RULE,
        NFPROTO_IPV4, NFPROTO_IPV6, PAYLOAD_NETWORK, REGISTER, request,
    },
};
use crate::{
    net::{Family, Prefix},
    netlink::{
        decode::{attribute, attributes},
        encode::Encoder,
        flag,
    },
};

const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
// Tables and their chains.
const RAW: (&str, &str) = ("raw", "PREROUTING");
const NAT: (&str, &str) = ("nat", "POSTROUTING");
const DOCKER_USER: (&str, &str) = (TABLE, "DOCKER-USER");
const DOCKER: (&str, &str) = (TABLE, "DOCKER");
const OURS_IN_DOCKER_USER: (&str, &str) = (TABLE, "ROUTELET-DOCKER");
const OURS_IN_RAW: (&str, &str) = ("raw", "ROUTELET-RAW");
/// Of Docker's nftables backend, from version 29.
const DOCKER_NFTABLES: (&str, &str) = ("docker-bridges", "raw-PREROUTING");

/// A chain to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Forward,
    Ours,
    /// Where Docker, from version 28, drops packets routed to a container.
    Raw,
    /// Where Docker masquerades.
    Nat,
    /// For rules of other programs, evaluated before Docker's own.
    DockerUser,
    /// Where Docker, from version 28, drops packets to unpublished ports.
    Docker,
    /// Like `Raw`, in Docker's own tables.
    DockerNftables,
    OursInDockerUser,
    OursInRaw,
}

/// A chain of iptables from which one of ours is called, and the place of the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// At its end: only the policy follows.
    Forward,
    /// At its end, before a RETURN for every packet.
    DockerUser,
    /// At its start.
    Raw,
}

impl Hook {
    pub const ALL: [Self; 3] = [Self::Forward, Self::DockerUser, Self::Raw];

    /// The chain with the jump.
    pub fn parent(self) -> Chain {
        match self {
            Self::Forward => Chain::Forward,
            Self::DockerUser => Chain::DockerUser,
            Self::Raw => Chain::Raw,
        }
    }

    pub fn ours(self) -> Chain {
        match self {
            Self::Forward => Chain::Ours,
            Self::DockerUser => Chain::OursInDockerUser,
            Self::Raw => Chain::OursInRaw,
        }
    }

    /// The name of our chain.
    pub fn name(self) -> &'static str {
        self.ours().place().1
    }

    /// The state of the kernel. `parent`: the rules of the chain with the jump; `rules`: number of
    /// rules in ours, if it exists.
    pub fn seen(self, drops: bool, parent: &[Vec<u8>], rules: Option<usize>) -> Seen {
        let is_jump = |rule: &Vec<u8>| jump(rule, self.name()).is_some();
        // Rules after a RETURN are never reached.
        let returns = parent.iter().position(|r| self == Self::DockerUser && is_return(r));
        let (before, after) = parent.split_at(returns.unwrap_or(parent.len()));
        let (placed, behind) = match self {
            Self::Raw => (before.first(), parent.iter().find(|r| !is_jump(r))),
            Self::Forward | Self::DockerUser => (before.last(), after.first()),
        };
        Seen {
            drops,
            jumps: parent.iter().filter_map(|r| jump(r, self.name())).collect(),
            is_placed: placed.is_some_and(is_jump),
            behind: behind.and_then(|r| handle(r)),
            rules,
        }
    }
}

impl Chain {
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Forward => (TABLE, FORWARD),
            Self::Ours => (TABLE, CHAIN),
            Self::Raw => RAW,
            Self::Nat => NAT,
            Self::DockerUser => DOCKER_USER,
            Self::Docker => DOCKER,
            Self::DockerNftables => DOCKER_NFTABLES,
            Self::OursInDockerUser => OURS_IN_DOCKER_USER,
            Self::OursInRaw => OURS_IN_RAW,
        }
    }
}

/// Requests a chain: the reply is one message, or ENOENT.
pub fn get_chain(encoder: &mut Encoder, family: Family, chain: Chain) {
    request(encoder, protocol(family), GET_CHAIN, flag::ACK, |m| {
        let (table, name) = chain.place();
        m.text(NFTA_CHAIN_TABLE, table);
        m.text(NFTA_CHAIN_NAME, name);
    });
}

/// Requests the rules of a chain, in their order.
pub fn get_rules(encoder: &mut Encoder, family: Family, chain: Chain) {
    let (table, name) = chain.place();
    list_rules(encoder, protocol(family), table, name);
}

/// Requests the rules of a chain of any table.
pub fn list_rules(encoder: &mut Encoder, protocol: u8, table: &str, chain: &str) {
    request(encoder, protocol, GET_RULE, flag::DUMP, |m| {
        m.text(NFTA_RULE_TABLE, table);
        m.text(NFTA_RULE_CHAIN, chain);
    });
}

/// Whether the policy of a listed chain is DROP.
pub fn drops(chain: &[u8]) -> bool {
    attribute(chain, NFTA_CHAIN_POLICY) == Some(&NF_DROP.to_be_bytes())
}

/// Whether a listed rule belongs to the chain: older kernels ignore the filter and list all.
pub fn is_in(rule: &[u8], chain: Chain) -> bool {
    let (table, name) = chain.place();
    is_listed_in(rule, table, name)
}

/// The same for a chain of any table.
pub(super) fn is_listed_in(rule: &[u8], table: &str, chain: &str) -> bool {
    let is = |kind, text| attribute(rule, kind).is_some_and(|value| is_text(value, text));
    is(NFTA_RULE_TABLE, table) && is(NFTA_RULE_CHAIN, chain)
}

/// Whether a listed rule drops packets to an address in `prefix`.
pub fn drops_to(rule: &[u8], prefix: Prefix) -> bool {
    named(rule, prefix, 1).is_some_and(|address| prefix.contains(address)) && has_verdict(rule, NF_DROP)
}

/// Whether a listed rule accepts packets to `prefix`.
pub fn accepts_to(rule: &[u8], prefix: Prefix) -> bool {
    named(rule, prefix, 1) == Some(prefix.addr()) && has_verdict(rule, NF_ACCEPT)
}

/// Whether a listed rule drops packets that leave by an interface.
pub fn drops_towards(rule: &[u8], interface: &str) -> bool {
    leaves_by(rule, interface) == Some(true) && has_verdict(rule, NF_DROP)
}

fn has_verdict(rule: &[u8], code: u32) -> bool {
    any(rule, |name, data| is_text(name, "immediate") && verdict_of(data) == Some(code))
}

/// Whether a rule returns for every packet.
fn is_return(rule: &[u8]) -> bool {
    let is_counter = |name: &[u8], _: &[u8]| is_text(name, "counter");
    let is_return =
        |name: &[u8], data: &[u8]| is_text(name, "immediate") && verdict_of(data) == Some(NFT_RETURN);
    any(rule, is_return) && !any(rule, |name, data| !is_counter(name, data) && !is_return(name, data))
}

/// Whether a rule matches packets that leave by this interface; `None` if it does not compare the
/// interface.
fn leaves_by(rule: &[u8], interface: &str) -> Option<bool> {
    let mut is_name = false;
    for (_, expression) in attributes(attribute(rule, NFTA_RULE_EXPRESSIONS)?) {
        let (Some(name), Some(data)) =
            (attribute(expression, NFTA_EXPR_NAME), attribute(expression, NFTA_EXPR_DATA))
        else {
            continue;
        };
        if is_text(name, "meta") {
            is_name = attribute(data, NFTA_META_KEY) == Some(&META_OIFNAME.to_be_bytes());
        } else if is_text(name, "cmp") && is_name {
            let is_equal = attribute(data, NFTA_CMP_OP) == Some(&CMP_EQ.to_be_bytes());
            let octets = attribute(attribute(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?;
            let end = octets.iter().position(|o| *o == 0).unwrap_or(octets.len());
            return Some(is_equal && octets[..end] == *interface.as_bytes());
        }
    }
    None
}

/// Whether a listed rule masquerades what comes from `prefix`.
pub fn masquerades(rule: &[u8], prefix: Prefix) -> bool {
    let is_masquerade = |name: &[u8], data: &[u8]| {
        is_text(name, "masq")
            || is_text(name, "target")
                && attribute(data, NFTA_TARGET_NAME).is_some_and(|t| is_text(t, "MASQUERADE"))
    };
    named(rule, prefix, 0) == Some(prefix.addr()) && any(rule, is_masquerade)
}

fn any(rule: &[u8], is: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let parts =
        |e: &[u8]| Some(is(attribute(e, NFTA_EXPR_NAME)?, attribute(e, NFTA_EXPR_DATA).unwrap_or_default()));
    attribute(rule, NFTA_RULE_EXPRESSIONS)
        .is_some_and(|list| attributes(list).any(|(_, e)| parts(e) == Some(true)))
}

/// The verdict of an `immediate` expression.
fn verdict_of(data: &[u8]) -> Option<u32> {
    let verdict = attribute(attribute(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
    Some(u32::from_be_bytes(*attribute(verdict, NFTA_VERDICT_CODE)?.first_chunk()?))
}

/// The address with which a rule compares the source (`which` 0) or destination (1). For a prefix
/// it is the first one: iptables-nft compares only the octets that the prefix covers.
fn named(rule: &[u8], prefix: Prefix, which: usize) -> Option<IpAddr> {
    let (first, len) = match prefix.addr() {
        IpAddr::V4(_) => (12, 4),
        IpAddr::V6(_) => (8, 16),
    };
    let mut is_address = false;
    for (_, expression) in attributes(attribute(rule, NFTA_RULE_EXPRESSIONS)?) {
        let (Some(name), Some(data)) =
            (attribute(expression, NFTA_EXPR_NAME), attribute(expression, NFTA_EXPR_DATA))
        else {
            continue;
        };
        if is_text(name, "payload") {
            let number =
                |kind| attribute(data, kind).and_then(|n| Some(u32::from_be_bytes(*n.first_chunk()?)));
            let offset = u32::try_from(first + which * len).ok();
            is_address =
                number(NFTA_PAYLOAD_BASE) == Some(PAYLOAD_NETWORK) && number(NFTA_PAYLOAD_OFFSET) == offset;
        } else if is_text(name, "cmp") && is_address {
            let is_equal = attribute(data, NFTA_CMP_OP) == Some(&CMP_EQ.to_be_bytes());
            let octets = attribute(attribute(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)
                .filter(|o| is_equal && o.len() <= len)?;
            let mut address = [0; 16];
            address.get_mut(..octets.len())?.copy_from_slice(octets);
            return Some(match len {
                4 => IpAddr::from(*address.first_chunk::<4>()?),
                _ => IpAddr::from(address),
            });
        }
    }
    None
}

/// The handle of a listed rule, if it jumps to this chain.
pub fn jump(rule: &[u8], chain: &str) -> Option<u64> {
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS)?;
    let target = |expression: &[u8]| {
        let name = attribute(expression, NFTA_EXPR_NAME)?;
        let data = attribute(expression, NFTA_EXPR_DATA).filter(|_| is_text(name, "immediate"))?;
        let verdict = attribute(attribute(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
        attribute(verdict, NFTA_VERDICT_CHAIN).map(|target| is_text(target, chain))
    };
    attributes(expressions).find(|(_, e)| target(e) == Some(true))?;
    handle(rule)
}

fn handle(rule: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*attribute(rule, NFTA_RULE_HANDLE)?.first_chunk()?))
}

fn is_text(value: &[u8], text: &str) -> bool {
    value.strip_suffix(&[0]).unwrap_or(value) == text.as_bytes()
}

impl Batch<'_> {
    /// Writes our chain with these rules and the jump to it, replacing the rules and jumps that
    /// were seen.
    pub fn write_chain(&mut self, family: Family, hook: Hook, rules: &[Rule], seen: &Seen) {
        let protocol = protocol(family);
        let ((table, parent), ours) = (hook.parent().place(), hook.name());
        self.message(protocol, NEW_CHAIN, flag::CREATE, |m| {
            m.text(NFTA_CHAIN_TABLE, table);
            m.text(NFTA_CHAIN_NAME, ours);
        });
        self.flush(protocol, hook);
        for rule in rules {
            self.message(protocol, NEW_RULE, flag::CREATE | flag::APPEND, |m| {
                m.text(NFTA_RULE_TABLE, table);
                m.text(NFTA_RULE_CHAIN, ours);
                m.nested(NFTA_RULE_EXPRESSIONS, |list| expressions(list, rule));
            });
        }
        // A position without APPEND inserts before that rule.
        let flags = if seen.behind.is_some() { flag::CREATE } else { flag::CREATE | flag::APPEND };
        self.message(protocol, NEW_RULE, flags, |m| {
            m.text(NFTA_RULE_TABLE, table);
            m.text(NFTA_RULE_CHAIN, parent);
            m.nested(NFTA_RULE_EXPRESSIONS, |list| {
                list.expression("counter", |_| {});
                verdict(list, NFT_JUMP, Some(ours));
            });
            if let Some(handle) = seen.behind {
                m.octets(NFTA_RULE_POSITION, &handle.to_be_bytes());
            }
        });
        self.remove_jumps(protocol, hook, &seen.jumps);
    }

    /// Removes the chain and the jumps to it.
    pub fn remove_chain(&mut self, family: Family, hook: Hook, seen: &Seen) {
        let protocol = protocol(family);
        self.remove_jumps(protocol, hook, &seen.jumps);
        if seen.rules.is_some() {
            self.flush(protocol, hook);
            self.message(protocol, DEL_CHAIN, 0, |m| {
                m.text(NFTA_CHAIN_TABLE, hook.ours().place().0);
                m.text(NFTA_CHAIN_NAME, hook.name());
            });
        }
    }

    fn flush(&mut self, protocol: u8, hook: Hook) {
        self.message(protocol, DEL_RULE, 0, |m| {
            m.text(NFTA_RULE_TABLE, hook.ours().place().0);
            m.text(NFTA_RULE_CHAIN, hook.name());
        });
    }

    fn remove_jumps(&mut self, protocol: u8, hook: Hook, jumps: &[u64]) {
        let (table, parent) = hook.parent().place();
        for handle in jumps {
            self.message(protocol, DEL_RULE, 0, |m| {
                m.text(NFTA_RULE_TABLE, table);
                m.text(NFTA_RULE_CHAIN, parent);
                m.octets(NFTA_RULE_HANDLE, &handle.to_be_bytes());
            });
        }
    }
}

pub(super) fn protocol(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => NFPROTO_IPV4,
        Family::Ipv6Unicast => NFPROTO_IPV6,
    }
}

fn expressions(list: &mut Attributes<'_>, rule: &Rule) {
    match rule {
        Rule::Leave(interface) | Rule::LeaveFrom(interface) => {
            let key = if matches!(rule, Rule::Leave(_)) { META_OIFNAME } else { META_IIFNAME };
            is_interface(list, key, interface);
        }
        Rule::From(prefix) => is_inside(list, *prefix, 0),
        Rule::To(prefix) => is_inside(list, *prefix, 1),
    }
    list.expression("counter", |_| {});
    let leaves = matches!(rule, Rule::Leave(_) | Rule::LeaveFrom(_));
    verdict(list, if leaves { NFT_RETURN } else { NF_ACCEPT }, None);
}

/// `which`: 0 the source, 1 the destination.
pub(super) fn is_inside(list: &mut Attributes<'_>, prefix: Prefix, which: u32) {
    let (first, len, value) = match prefix.addr() {
        IpAddr::V4(a) => (12, 4, a.octets().to_vec()),
        IpAddr::V6(a) => (8, 16, a.octets().to_vec()),
    };
    list.payload(PAYLOAD_NETWORK, first + which * len, len);
    if prefix.len() < prefix.family().max_len() {
        let ones = u128::MAX.checked_shl(128 - u32::from(prefix.len())).unwrap_or(0).to_be_bytes();
        let mask: Vec<u8> = ones.into_iter().take(value.len()).collect();
        list.expression("bitwise", |e| {
            e.number(NFTA_BITWISE_SREG, REGISTER);
            e.number(NFTA_BITWISE_DREG, REGISTER);
            e.number(NFTA_BITWISE_LEN, len);
            e.nested(NFTA_BITWISE_MASK, |data| data.octets(NFTA_DATA_VALUE, &mask));
            e.nested(NFTA_BITWISE_XOR, |data| data.octets(NFTA_DATA_VALUE, &vec![0; value.len()]));
        });
    }
    list.equals(&value);
}

/// The packet enters or leaves, by the `key`, by this interface.
pub(super) fn is_interface(list: &mut Attributes<'_>, key: u32, name: &str) {
    let mut name = name.as_bytes().to_vec();
    name.resize(IFNAMSIZ, 0);
    list.meta(key);
    list.equals(&name);
}

pub(super) fn verdict(list: &mut Attributes<'_>, code: u32, chain: Option<&str>) {
    list.expression("immediate", |e| {
        e.number(NFTA_IMMEDIATE_DREG, REGISTER_OF_VERDICT);
        e.nested(NFTA_IMMEDIATE_DATA, |data| {
            data.nested(NFTA_DATA_VERDICT, |verdict| {
                verdict.number(NFTA_VERDICT_CODE, code);
                if let Some(chain) = chain {
                    verdict.text(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}

pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
pub(super) const NFT_JUMP: u32 = -3_i32 as u32;
pub(super) const NFT_RETURN: u32 = -5_i32 as u32;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
const REGISTER_OF_VERDICT: u32 = 0;
/// Names of interfaces, with the closing zero.
pub(super) const IFNAMSIZ: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::decode::messages,
        nft::wire::{body, of_nftables, transaction},
    };

    /// Rules as the kernel lists them, with handles from 1.
    fn listed(fill: &[&dyn Fn(&mut Attributes<'_>)]) -> Vec<Vec<u8>> {
        let rule = |(n, fill): (usize, &&dyn Fn(&mut Attributes<'_>))| {
            let mut encoder = Encoder::new(1);
            request(&mut encoder, NFPROTO_IPV4, NEW_RULE, 0, |m| {
                m.octets(NFTA_RULE_HANDLE, &(n as u64 + 1).to_be_bytes());
                m.nested(NFTA_RULE_EXPRESSIONS, |list| fill(list));
            });
            messages(encoder.bytes()).next().map(|m| body(&m).to_vec()).unwrap()
        };
        fill.iter().enumerate().map(rule).collect()
    }

    fn interface(list: &mut Attributes<'_>, key: u32, name: &str, op: u32) {
        list.meta(key);
        list.expression("cmp", |e| {
            e.number(NFTA_CMP_SREG, REGISTER);
            e.number(NFTA_CMP_OP, op);
            e.nested(NFTA_CMP_DATA, |data| data.octets(NFTA_DATA_VALUE, &[name.as_bytes(), &[0]].concat()));
        });
    }

    #[test]
    fn the_jump_has_its_place_in_each_chain() {
        let jump = |name: &'static str| move |l: &mut Attributes<'_>| verdict(l, NFT_JUMP, Some(name));
        let counter = |l: &mut Attributes<'_>| l.expression("counter", |_| {});
        let returns = |l: &mut Attributes<'_>| {
            counter(l);
            verdict(l, NFT_RETURN, None);
        };
        let other = |l: &mut Attributes<'_>| {
            is_inside(l, "10.0.0.0/8".parse().unwrap(), 1);
            verdict(l, NFT_RETURN, None);
        };
        let (user, raw) = (jump("ROUTELET-DOCKER"), jump("ROUTELET-RAW"));
        let place = |hook: Hook, rules: &[&dyn Fn(&mut Attributes<'_>)]| {
            let seen = hook.seen(true, &listed(rules), None);
            (seen.is_placed, seen.behind, seen.jumps)
        };
        let cases = [
            ("empty", place(Hook::DockerUser, &[]), (false, None, vec![])),
            (
                "before Docker's RETURN",
                place(Hook::DockerUser, &[&other, &returns]),
                (false, Some(2), vec![]),
            ),
            ("there", place(Hook::DockerUser, &[&other, &user, &returns]), (true, Some(3), vec![2])),
            (
                "a rule behind the RETURN",
                place(Hook::DockerUser, &[&user, &returns, &other]),
                (true, Some(2), vec![1]),
            ),
            (
                "behind the RETURN itself",
                place(Hook::DockerUser, &[&returns, &user]),
                (false, Some(1), vec![2]),
            ),
            ("a rule came after", place(Hook::DockerUser, &[&user, &other]), (false, None, vec![1])),
            ("first in raw", place(Hook::Raw, &[&raw, &other]), (true, Some(2), vec![1])),
            ("a rule came before", place(Hook::Raw, &[&other, &raw]), (false, Some(1), vec![2])),
            ("alone in raw", place(Hook::Raw, &[&raw]), (true, None, vec![1])),
        ];
        for (name, got, want) in cases {
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn what_docker_drops_is_known_by_its_bridge() {
        let rules = listed(&[
            &|l| {
                interface(l, META_IIFNAME, "docker0", 1);
                interface(l, META_OIFNAME, "docker0", CMP_EQ);
                verdict(l, NF_DROP, None);
            },
            &|l| {
                interface(l, META_OIFNAME, "docker0", CMP_EQ);
                verdict(l, NF_ACCEPT, None);
            },
            &|l| {
                interface(l, META_OIFNAME, "docker0", 1);
                verdict(l, NF_DROP, None);
            },
        ]);
        assert_eq!(
            rules.iter().map(|r| drops_towards(r, "docker0")).collect::<Vec<_>>(),
            [true, false, false]
        );
        assert!(!drops_towards(&rules[0], "docker") && !drops_towards(&rules[0], "docker01"));
        for n in 0..rules[0].len() {
            let _ = drops_towards(&rules[0][..n], "docker0");
        }
    }

    #[test]
    fn a_jump_to_our_chain_is_known_and_nothing_else() {
        let mut encoder = Encoder::new(1);
        let prefix = "10.244.1.0/24".parse().unwrap();
        let rules = [Rule::Leave("docker0".into()), Rule::From(prefix)];
        let seen = Seen { jumps: vec![5], ..Seen::default() };
        transaction(&mut encoder, |batch| {
            batch.write_chain(Family::Ipv4Unicast, Hook::Forward, &rules, &seen);
        });
        let all = messages(encoder.bytes());
        let rules: Vec<_> = all.filter(|m| m.kind == of_nftables(NEW_RULE)).map(|m| body(&m)).collect();
        // The kernel adds a handle to each.
        let listed = |rule: &[u8]| [rule, &[12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 9]].concat();
        let known: Vec<_> =
            rules.iter().map(|r| (is_in(r, Chain::Forward), jump(&listed(r), CHAIN))).collect();
        assert_eq!(known, [(false, None), (false, None), (true, Some(9))]);
        for n in 0..rules[2].len() {
            // Cut anywhere: no panic.
            let _ = (jump(&rules[2][..n], CHAIN), is_in(&rules[2][..n], Chain::Ours));
        }
    }
}
