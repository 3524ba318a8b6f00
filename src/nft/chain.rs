//! nfnetlink messages about FORWARD in iptables' table: values → octets, and what the kernel lists → values.
//!
//! Rules are made of the expressions that iptables-nft itself writes, so that it can show and keep them: it refuses to
//! work on a table in which it finds others.

use std::net::IpAddr;

use super::{
    forward::{CHAIN, Rule},
    wire::{
        ACK, APPEND, Attributes, Batch, CMP_EQ, CREATE, DEL_CHAIN, DEL_RULE, DUMP, GET_CHAIN, GET_RULE,
        NEW_CHAIN, NEW_RULE, NFPROTO_IPV4, NFPROTO_IPV6, PAYLOAD_NETWORK, REGISTER, attribute, attributes,
    },
};
use crate::net::{Family, Prefix};

const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
/// What a listed rule is in: its table, and the chain there.
const RAW: (&str, &str) = ("raw", "PREROUTING");
const NAT: (&str, &str) = ("nat", "POSTROUTING");

/// A chain that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Forward,
    Ours,
    /// Where Docker, from version 28, drops what is routed to a container.
    Raw,
    /// Where Docker masquerades.
    Nat,
}

impl Chain {
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Forward => (TABLE, FORWARD),
            Self::Ours => (TABLE, CHAIN),
            Self::Raw => RAW,
            Self::Nat => NAT,
        }
    }
}

/// Asks for a chain: one answer, or ENOENT.
pub fn ask_chain(seq: u32, family: Family, chain: Chain) -> Vec<u8> {
    Batch::ask(seq, protocol(family), GET_CHAIN, ACK, |m| {
        let (table, name) = chain.place();
        m.text(1, table);
        m.text(3, name);
    })
}

/// Asks for the rules of a chain, in their order.
pub fn ask_rules(seq: u32, family: Family, chain: Chain) -> Vec<u8> {
    Batch::ask(seq, protocol(family), GET_RULE, DUMP, |m| {
        let (table, name) = chain.place();
        m.text(1, table);
        m.text(2, name);
    })
}

/// Whether the policy of a listed chain is DROP.
pub fn drops(chain: &[u8]) -> bool {
    attribute(chain, 5) == Some(&NF_DROP.to_be_bytes())
}

/// Whether a listed rule stands in the chain: older kernels list all there are.
pub fn is_in(rule: &[u8], chain: Chain) -> bool {
    let (table, name) = chain.place();
    attribute(rule, 1).is_some_and(|t| is_text(t, table))
        && attribute(rule, 2).is_some_and(|n| is_text(n, name))
}

/// Whether a listed rule drops packets to an address in `prefix`.
pub fn drops_to(rule: &[u8], prefix: Prefix) -> bool {
    let is_drop = |name: &[u8], data: &[u8]| is_text(name, "immediate") && verdict_of(data) == Some(NF_DROP);
    named(rule, prefix, 1).is_some_and(|address| prefix.contains(address)) && any(rule, is_drop)
}

/// Whether a listed rule masquerades what comes from `prefix`.
pub fn masquerades(rule: &[u8], prefix: Prefix) -> bool {
    let is_masquerade = |name: &[u8], data: &[u8]| {
        is_text(name, "masq")
            || is_text(name, "target") && attribute(data, 1).is_some_and(|t| is_text(t, "MASQUERADE"))
    };
    named(rule, prefix, 0) == Some(prefix.addr()) && any(rule, is_masquerade)
}

fn any(rule: &[u8], is: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let parts = |e: &[u8]| Some(is(attribute(e, 1)?, attribute(e, 2).unwrap_or_default()));
    attribute(rule, 4).is_some_and(|list| attributes(list).any(|(_, e)| parts(e) == Some(true)))
}

/// The verdict of an `immediate` expression.
fn verdict_of(data: &[u8]) -> Option<u32> {
    let verdict = attribute(attribute(data, 2)?, 2)?;
    Some(u32::from_be_bytes(*attribute(verdict, 1)?.first_chunk()?))
}

/// The address that a rule asks for as source (`which` 0) or destination (1). Of a range its first: iptables-nft compares as many
/// octets as the range has.
fn named(rule: &[u8], prefix: Prefix, which: usize) -> Option<IpAddr> {
    let (first, len) = match prefix.addr() {
        IpAddr::V4(_) => (12, 4),
        IpAddr::V6(_) => (8, 16),
    };
    let mut is_address = false;
    for (_, expression) in attributes(attribute(rule, 4)?) {
        let (Some(name), Some(data)) = (attribute(expression, 1), attribute(expression, 2)) else { continue };
        if is_text(name, "payload") {
            let number =
                |kind| attribute(data, kind).and_then(|n| Some(u32::from_be_bytes(*n.first_chunk()?)));
            let offset = u32::try_from(first + which * len).ok();
            is_address = number(2) == Some(PAYLOAD_NETWORK) && number(3) == offset;
        } else if is_text(name, "cmp") && is_address {
            let is_equal = attribute(data, 2) == Some(&CMP_EQ.to_be_bytes());
            let octets = attribute(attribute(data, 3)?, 1).filter(|o| is_equal && o.len() <= len)?;
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

/// The handle of a listed rule, if it jumps to our chain.
pub fn jump(rule: &[u8]) -> Option<u64> {
    let expressions = attribute(rule, 4)?;
    let target = |expression: &[u8]| {
        let name = attribute(expression, 1)?;
        let data = attribute(expression, 2).filter(|_| is_text(name, "immediate"))?;
        let verdict = attribute(attribute(data, 2)?, 2)?;
        attribute(verdict, 2).map(|chain| is_text(chain, CHAIN))
    };
    attributes(expressions).find(|(_, e)| target(e) == Some(true))?;
    Some(u64::from_be_bytes(*attribute(rule, 3)?.first_chunk()?))
}

fn is_text(value: &[u8], text: &str) -> bool {
    value.strip_suffix(&[0]).unwrap_or(value) == text.as_bytes()
}

impl Batch {
    /// Our chain with these rules in place of what it had, and a jump to it at the end of FORWARD in place of `jumps`.
    pub fn write_chain(&mut self, family: Family, rules: &[Rule], jumps: &[u64]) {
        let protocol = protocol(family);
        self.message(protocol, NEW_CHAIN, CREATE, |m| {
            m.text(1, TABLE);
            m.text(3, CHAIN);
        });
        self.flush(protocol);
        for rule in rules {
            self.message(protocol, NEW_RULE, CREATE | APPEND, |m| {
                m.text(1, TABLE);
                m.text(2, CHAIN);
                m.nested(4, |list| expressions(list, rule));
            });
        }
        self.message(protocol, NEW_RULE, CREATE | APPEND, |m| {
            m.text(1, TABLE);
            m.text(2, FORWARD);
            m.nested(4, |list| {
                list.expression("counter", |_| {});
                verdict(list, NFT_JUMP, Some(CHAIN));
            });
        });
        self.take_jumps(protocol, jumps);
    }

    /// Both go; `there`: the chain is.
    pub fn remove_chain(&mut self, family: Family, jumps: &[u64], there: bool) {
        let protocol = protocol(family);
        self.take_jumps(protocol, jumps);
        if there {
            self.flush(protocol);
            self.message(protocol, DEL_CHAIN, 0, |m| {
                m.text(1, TABLE);
                m.text(3, CHAIN);
            });
        }
    }

    fn flush(&mut self, protocol: u8) {
        self.message(protocol, DEL_RULE, 0, |m| {
            m.text(1, TABLE);
            m.text(2, CHAIN);
        });
    }

    fn take_jumps(&mut self, protocol: u8, jumps: &[u64]) {
        for handle in jumps {
            self.message(protocol, DEL_RULE, 0, |m| {
                m.text(1, TABLE);
                m.text(2, FORWARD);
                m.octets(3, &handle.to_be_bytes());
            });
        }
    }
}

fn protocol(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => NFPROTO_IPV4,
        Family::Ipv6Unicast => NFPROTO_IPV6,
    }
}

fn expressions(list: &mut Attributes<'_>, rule: &Rule) {
    match rule {
        Rule::Leave(interface) => {
            list.expression("meta", |e| {
                e.number(1, REGISTER);
                e.number(2, META_OIFNAME);
            });
            let mut name = interface.clone().into_bytes();
            name.resize(IFNAMSIZ, 0);
            is_equal(list, &name);
        }
        Rule::From(prefix) => is_inside(list, *prefix, 0),
        Rule::To(prefix) => is_inside(list, *prefix, 1),
    }
    list.expression("counter", |_| {});
    verdict(list, if matches!(rule, Rule::Leave(_)) { NFT_RETURN } else { NF_ACCEPT }, None);
}

/// `which`: 0 the source, 1 the destination.
pub(super) fn is_inside(list: &mut Attributes<'_>, prefix: Prefix, which: u32) {
    let (first, len, value) = match prefix.addr() {
        IpAddr::V4(a) => (12, 4, a.octets().to_vec()),
        IpAddr::V6(a) => (8, 16, a.octets().to_vec()),
    };
    list.expression("payload", |e| {
        e.number(1, REGISTER);
        e.number(2, PAYLOAD_NETWORK);
        e.number(3, first + which * len);
        e.number(4, len);
    });
    if prefix.len() < prefix.family().max_len() {
        let ones = u128::MAX.checked_shl(128 - u32::from(prefix.len())).unwrap_or(0).to_be_bytes();
        let mask: Vec<u8> = ones.into_iter().take(value.len()).collect();
        list.expression("bitwise", |e| {
            e.number(1, REGISTER);
            e.number(2, REGISTER);
            e.number(3, len);
            e.nested(4, |data| data.octets(1, &mask));
            e.nested(5, |data| data.octets(1, &vec![0; value.len()]));
        });
    }
    is_equal(list, &value);
}

pub(super) fn is_equal(list: &mut Attributes<'_>, value: &[u8]) {
    list.expression("cmp", |e| {
        e.number(1, REGISTER);
        e.number(2, CMP_EQ);
        e.nested(3, |data| data.octets(1, value));
    });
}

pub(super) fn verdict(list: &mut Attributes<'_>, code: u32, chain: Option<&str>) {
    list.expression("immediate", |e| {
        e.number(1, REGISTER_OF_VERDICT);
        e.nested(2, |data| {
            data.nested(2, |verdict| {
                verdict.number(1, code);
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = -3_i32 as u32;
const NFT_RETURN: u32 = -5_i32 as u32;
const META_OIFNAME: u32 = 7;
const REGISTER_OF_VERDICT: u32 = 0;
/// Names of interfaces, with the closing zero.
pub(super) const IFNAMSIZ: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::wire::messages;

    #[test]
    fn a_jump_to_our_chain_is_known_and_nothing_else() {
        let mut batch = Batch::new(1);
        let prefix = "10.244.1.0/24".parse().unwrap();
        batch.write_chain(Family::Ipv4Unicast, &[Rule::Leave("docker0".into()), Rule::From(prefix)], &[5]);
        let (buf, _) = batch.finish();
        let all = messages(&buf);
        let rules: Vec<_> =
            all.iter().filter(|m| m.kind == 10 << 8 | NEW_RULE).map(|m| m.attributes()).collect();
        // What the kernel lists has a handle.
        let listed = |rule: &[u8]| [rule, &[12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 9]].concat();
        let known: Vec<_> = rules.iter().map(|r| (is_in(r, Chain::Forward), jump(&listed(r)))).collect();
        assert_eq!(known, [(false, None), (false, None), (true, Some(9))]);
        for n in 0..rules[2].len() {
            // Cut anywhere: no panic.
            let _ = (jump(&rules[2][..n]), is_in(&rules[2][..n], Chain::Ours));
        }
    }
}
