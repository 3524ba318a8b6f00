//! What packet filters do with one forwarded packet, as far as their rules can be judged: those
//! that compare addresses and interfaces, and the state of the connection, which is a new one, or
//! established for a reply. A rule with any other condition may match or not.
//!
//! All base chains of type filter at the hooks prerouting and forward count, whoever made them,
//! with the chains to which they jump: a drop in any of them is final. The rules of iptables-legacy
//! are not in nf_tables; of them only the policy is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    chain::{IFNAMSIZ, META_IIFNAME, META_OIFNAME, NF_ACCEPT, NF_DROP, NFT_JUMP, NFT_RETURN, protocol},
    wire::{
        CMP_EQ, GET_CHAIN, GET_RULE, META_NFPROTO, NF_INET_FORWARD, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
        PAYLOAD_NETWORK, request,
    },
};
use crate::{
    net::Family,
    netlink::{
        decode::{attribute, attributes},
        encode::Encoder,
        flag,
    },
};

/// One packet that is to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub arrives_on: String,
    pub leaves_by: String,
    /// It replies to a packet that arrived here before.
    pub is_reply: bool,
}

impl Forwarded {
    /// The bit of its connection's state.
    const fn state(&self) -> u32 {
        if self.is_reply { STATE_ESTABLISHED } else { STATE_NEW }
    }
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that can be judged drops it.
    Accepted,
    Dropped {
        /// The rule or the policy: `rule 2 of FORWARD in table filter`.
        by: String,
        /// No rule that cannot be judged could have accepted it before.
        certain: bool,
    },
}

/// Table and name of a chain.
type Name = (String, String);

/// The chains of one family of tables.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    base: Vec<Base>,
    rules: BTreeMap<Name, Vec<Vec<u8>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Base {
    name: Name,
    hook: u32,
    drops: bool,
}

/// Families of tables that a packet of `family` traverses, as numbers of nf_tables.
pub fn protocols(family: Family) -> [u8; 2] {
    [protocol(family), NFPROTO_INET]
}

/// Requests all chains of a family of tables.
pub fn list_chains(encoder: &mut Encoder, protocol: u8) {
    request(encoder, protocol, GET_CHAIN, flag::DUMP, |_| {});
}

/// Requests the rules of all chains of a table.
pub fn list_rules(encoder: &mut Encoder, protocol: u8, table: &str) {
    request(encoder, protocol, GET_RULE, flag::DUMP, |m| m.text(1, table));
}

/// The tables with base chains that count, whose rules are to be listed. Those of kube-proxy, which
/// may be very long, are mostly of type nat.
pub fn tables(chains: &[Vec<u8>]) -> BTreeSet<String> {
    chains.iter().filter_map(|c| base(c)).map(|base| base.name.0).collect()
}

impl Chains {
    /// From what the kernel lists.
    pub fn new(chains: &[Vec<u8>], rules: Vec<Vec<u8>>) -> Self {
        let base = chains.iter().filter_map(|c| base(c)).collect();
        let mut by_chain: BTreeMap<Name, Vec<Vec<u8>>> = BTreeMap::new();
        for rule in rules {
            if let Some(name) = name(&rule, 2) {
                by_chain.entry(name).or_default().push(rule);
            }
        }
        Self { base, rules: by_chain }
    }

    /// The verdict of all base chains.
    pub fn verdict(&self, packet: &Forwarded) -> Verdict {
        let mut found = Verdict::Accepted;
        for base in &self.base {
            match self.of_base(base, packet) {
                Verdict::Accepted => {}
                dropped @ Verdict::Dropped { certain: true, .. } => return dropped,
                dropped => found = dropped,
            }
        }
        found
    }

    fn of_base(&self, base: &Base, packet: &Forwarded) -> Verdict {
        let mut walk = Walk { chains: self, packet, hook: base.hook, may_accept: false };
        let end = walk.chain(&base.name, true, 0);
        let certain = !walk.may_accept;
        match end {
            Some(End::Dropped(by)) => Verdict::Dropped { by, certain },
            None if base.drops => {
                let (table, chain) = &base.name;
                Verdict::Dropped { by: format!("the policy of {chain} in table {table}"), certain }
            }
            Some(End::Accepted) | None => Verdict::Accepted,
        }
    }
}

fn base(chain: &[u8]) -> Option<Base> {
    let hook = attribute(attribute(chain, 4)?, 1).and_then(number)?;
    let is_filter = attribute(chain, 7).is_some_and(|kind| text(kind) == "filter");
    let counts = is_filter && [NF_INET_PRE_ROUTING, NF_INET_FORWARD].contains(&hook);
    let drops = attribute(chain, 5).and_then(number) == Some(NF_DROP);
    counts.then_some(Base { name: name(chain, 3)?, hook, drops })
}

/// Table and chain of a message.
fn name(message: &[u8], kind: u16) -> Option<Name> {
    Some((text(attribute(message, 1)?), text(attribute(message, kind)?)))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|n| u32::from_be_bytes(*n))
}

/// How a chain ends a packet's way; `None` returns to the caller, or to the policy.
enum End {
    Accepted,
    Dropped(String),
}

/// Whether a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    Perhaps,
}

enum Action {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Counts, logs, or something that is unknown; `accepts`: a verdict map or a program behind a
    /// queue may do so.
    Other {
        accepts: bool,
    },
}

struct Walk<'a> {
    chains: &'a Chains,
    packet: &'a Forwarded,
    hook: u32,
    /// A rule that cannot be judged accepts.
    may_accept: bool,
}

impl Walk<'_> {
    /// `sure`: every packet like this comes here.
    fn chain(&mut self, name: &Name, sure: bool, depth: usize) -> Option<End> {
        let rules = self.chains.rules.get(name).filter(|_| depth < MAX_DEPTH)?;
        for (n, rule) in (1..).zip(rules) {
            let (fit, action) = self.rule(rule);
            let sure = sure && fit == Fit::Yes;
            let target = |chain| (name.0.clone(), chain);
            let end = match action {
                _ if fit == Fit::No => continue,
                Action::Accept if sure => Some(End::Accepted),
                Action::Drop if sure => {
                    Some(End::Dropped(format!("rule {n} of {} in table {}", name.1, name.0)))
                }
                Action::Return if sure => return None,
                Action::Jump(chain) => self.chain(&target(chain), sure, depth + 1),
                Action::Goto(chain) if sure => return self.chain(&target(chain), true, depth + 1),
                Action::Goto(chain) => self.chain(&target(chain), false, depth + 1),
                Action::Accept | Action::Other { accepts: true } => {
                    self.may_accept = true;
                    None
                }
                Action::Drop | Action::Return | Action::Other { .. } => None,
            };
            if sure && end.is_some() {
                return end;
            }
        }
        None
    }

    fn rule(&self, rule: &[u8]) -> (Fit, Action) {
        let mut registers: BTreeMap<u32, Option<Vec<u8>>> = BTreeMap::new();
        let (mut fit, mut action) = (Fit::Yes, Action::Other { accepts: false });
        for (_, expression) in attributes(attribute(rule, 4).unwrap_or_default()) {
            let name = attribute(expression, 1).map(text).unwrap_or_default();
            let data = attribute(expression, 2).unwrap_or_default();
            let field = |kind| attribute(data, kind).and_then(number).unwrap_or_default();
            match name.as_str() {
                "counter" | "log" => {}
                "meta" => _ = registers.insert(field(1), self.meta(field(2))),
                "payload" => _ = registers.insert(field(1), self.payload(data)),
                "ct" => _ = registers.insert(field(1), state(field(2), self.packet)),
                "bitwise" => {
                    let masked = registers.get(&field(1)).cloned().flatten().and_then(|v| masked(data, v));
                    registers.insert(field(2), masked);
                }
                "cmp" => fit = fit.and(compared(data, registers.get(&field(1)).and_then(Option::as_deref))),
                "match" => fit = fit.and(extension(data, self.packet)),
                "immediate" => action = verdict(data).unwrap_or(action),
                "reject" => action = Action::Drop,
                "target" => action = target(data),
                "queue" => action = Action::Other { accepts: true },
                // A map of verdicts has no register of data.
                "lookup" => {
                    fit = fit.and(Fit::Perhaps);
                    if attribute(data, 3).and_then(number) == Some(0) {
                        action = Action::Other { accepts: true };
                    }
                    // The value of a map, where it is no verdict.
                    registers.clear();
                }
                // It may write any register.
                _ => {
                    registers.clear();
                    fit = fit.and(Fit::Perhaps);
                }
            }
        }
        (fit, action)
    }

    fn meta(&self, key: u32) -> Option<Vec<u8>> {
        let name = match key {
            META_IIFNAME => &self.packet.arrives_on,
            // Before routing the interface by which the packet leaves is not known.
            META_OIFNAME if self.hook == NF_INET_FORWARD => &self.packet.leaves_by,
            META_NFPROTO => {
                let v4 = self.packet.destination.is_ipv4();
                return Some(vec![if v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]);
            }
            _ => return None,
        };
        let mut name = name.as_bytes().to_vec();
        name.resize(IFNAMSIZ, 0);
        Some(name)
    }

    /// A part of the source or destination address.
    fn payload(&self, data: &[u8]) -> Option<Vec<u8>> {
        let field = |kind| attribute(data, kind).and_then(number);
        let (offset, len) = (usize::try_from(field(3)?).ok()?, usize::try_from(field(4)?).ok()?);
        let octets = |addr| match addr {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let first = if self.packet.destination.is_ipv4() { 12 } else { 8 };
        let both = [octets(self.packet.source), octets(self.packet.destination)].concat();
        let start = offset.checked_sub(first).filter(|_| field(2) == Some(PAYLOAD_NETWORK))?;
        both.get(start..start.checked_add(len)?).map(<[u8]>::to_vec)
    }
}

impl Fit {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Perhaps,
        }
    }
}

/// The state of the packet's connection, in the order of the host.
fn state(key: u32, packet: &Forwarded) -> Option<Vec<u8>> {
    (key == CT_STATE).then(|| packet.state().to_ne_bytes().to_vec())
}

fn masked(data: &[u8], value: Vec<u8>) -> Option<Vec<u8>> {
    let operand = |kind| attribute(attribute(data, kind)?, 1);
    let (mask, xor) = (operand(4)?, operand(5)?);
    let parts = value.into_iter().zip(mask.iter().zip(xor));
    Some(parts.map(|(octet, (mask, xor))| octet & mask ^ xor).collect())
}

fn compared(data: &[u8], value: Option<&[u8]>) -> Fit {
    let wanted = attribute(data, 3).and_then(|d| attribute(d, 1));
    let (Some(wanted), Some(value)) = (wanted, value) else { return Fit::Perhaps };
    // Of an interface only the octets of its name are compared, without the last one for a prefix.
    let is_equal = value.get(..wanted.len()) == Some(wanted);
    match attribute(data, 2).and_then(number) {
        Some(CMP_EQ) if is_equal => Fit::Yes,
        Some(CMP_NEQ) if !is_equal => Fit::Yes,
        Some(CMP_EQ | CMP_NEQ) => Fit::No,
        _ => Fit::Perhaps,
    }
}

/// A match of iptables.
fn extension(data: &[u8], packet: &Forwarded) -> Fit {
    match attribute(data, 1).map(text).as_deref() {
        Some("comment") => Fit::Yes,
        Some("conntrack") => {
            attribute(data, 3).and_then(|info| of_connection(info, packet)).unwrap_or(Fit::Perhaps)
        }
        _ => Fit::Perhaps,
    }
}

/// Whether `-m conntrack --ctstate` matches the packet (struct xt_conntrack_mtinfo3).
fn of_connection(info: &[u8], packet: &Forwarded) -> Option<Fit> {
    let field = |at: usize| info.get(at..)?.first_chunk().map(|o| u16::from_ne_bytes(*o));
    let (flags, inverted, states) = (field(146)?, field(148)?, field(150)?);
    if flags != XT_CONNTRACK_STATE {
        return Some(Fit::Perhaps);
    }
    let has_state = u32::from(states) & packet.state() != 0;
    Some(if has_state == (inverted & XT_CONNTRACK_STATE == 0) { Fit::Yes } else { Fit::No })
}

fn target(data: &[u8]) -> Action {
    match attribute(data, 1).map(text).as_deref() {
        Some("REJECT") => Action::Drop,
        Some("NFQUEUE") => Action::Other { accepts: true },
        _ => Action::Other { accepts: false },
    }
}

fn verdict(data: &[u8]) -> Option<Action> {
    let verdict = attribute(attribute(data, 2)?, 2)?;
    let chain = || attribute(verdict, 2).map(text).unwrap_or_default();
    Some(match attribute(verdict, 1).and_then(number)? {
        NF_DROP => Action::Drop,
        NF_ACCEPT => Action::Accept,
        NFT_RETURN => Action::Return,
        NFT_JUMP => Action::Jump(chain()),
        NFT_GOTO => Action::Goto(chain()),
        _ => Action::Other { accepts: false },
    })
}

const NF_INET_PRE_ROUTING: u32 = 0;
const NFT_GOTO: u32 = -4_i32 as u32;
const CMP_NEQ: u32 = 1;
const CT_STATE: u32 = 0;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, of replies too; the same bit in xt_conntrack.
const STATE_ESTABLISHED: u32 = 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;
const XT_CONNTRACK_STATE: u16 = 1;
/// As deep as the kernel follows jumps.
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::Prefix,
        netlink::decode::messages,
        nft::{
            chain::{is_inside, is_interface, verdict as write_verdict},
            wire::{Attributes, NEW_RULE, REGISTER, body},
        },
    };

    type Fill<'a> = &'a dyn Fn(&mut Attributes<'_>);

    fn listed(chain: &str, fill: Fill<'_>) -> Vec<u8> {
        written(NEW_RULE, |m| {
            m.text(1, "filter");
            m.text(2, chain);
            m.nested(4, |list| fill(list));
        })
    }

    /// The attributes of a message.
    fn written(kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        let mut encoder = Encoder::new(1);
        request(&mut encoder, NFPROTO_IPV4, kind, 0, fill);
        messages(encoder.bytes()).next().map(|m| body(&m).to_vec()).unwrap()
    }

    fn forward(policy: u32, rules: &[(&str, Fill<'_>)]) -> Chains {
        let chain = written(GET_CHAIN, |m| {
            m.text(1, "filter");
            m.text(3, "FORWARD");
            m.nested(4, |hook| hook.number(1, NF_INET_FORWARD));
            m.number(5, policy);
            m.text(7, "filter");
        });
        Chains::new(&[chain], rules.iter().map(|(chain, fill)| listed(chain, fill)).collect())
    }

    fn packet() -> Forwarded {
        Forwarded {
            source: "172.20.0.2".parse().unwrap(),
            destination: "10.9.0.5".parse().unwrap(),
            arrives_on: "br-pod".into(),
            leaves_by: "eth0".into(),
            is_reply: false,
        }
    }

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// `-m conntrack --ctstate` with these bits.
    fn conntrack(list: &mut Attributes<'_>, states: u16) {
        let mut info = vec![0; 156];
        info[146..148].copy_from_slice(&1_u16.to_ne_bytes());
        info[150..152].copy_from_slice(&states.to_ne_bytes());
        list.expression("match", |e| {
            e.text(1, "conntrack");
            e.number(2, 3);
            e.octets(3, &info);
        });
    }

    #[test]
    fn the_first_rule_that_surely_matches_decides_else_the_policy() {
        const ACCEPT: u32 = NF_ACCEPT;
        let to = |prefix: &'static str, code| {
            move |l: &mut Attributes<'_>| {
                is_inside(l, p(prefix), 1);
                l.expression("counter", |_| {});
                write_verdict(l, code, None);
            }
        };
        let from = |prefix: &'static str, code| {
            move |l: &mut Attributes<'_>| {
                is_inside(l, p(prefix), 0);
                write_verdict(l, code, None);
            }
        };
        let leaves = |name: &'static str, code| {
            move |l: &mut Attributes<'_>| {
                is_interface(l, META_OIFNAME, name);
                write_verdict(l, code, None);
            }
        };
        let jump =
            |chain: &'static str| move |l: &mut Attributes<'_>| write_verdict(l, NFT_JUMP, Some(chain));
        let unknown = |l: &mut Attributes<'_>| {
            l.expression("match", |e| e.text(1, "tcp"));
            write_verdict(l, ACCEPT, None);
        };
        let state = |states: u16, code| {
            move |l: &mut Attributes<'_>| {
                conntrack(l, states);
                write_verdict(l, code, None);
            }
        };
        let (ours, other) = (from("172.20.0.0/16", ACCEPT), from("172.21.0.0/16", ACCEPT));
        let (dropped, past) = (to("10.9.0.0/24", NF_DROP), to("10.9.1.0/24", NF_DROP));
        let (by_policy, by_rule) =
            ("the policy of FORWARD in table filter", "rule 1 of FORWARD in table filter");
        let (sure, perhaps) = (Some(true), Some(false));
        let (returns, open, closed) =
            (leaves("eth0", NFT_RETURN), leaves("eth0", ACCEPT), leaves("eth1", ACCEPT));
        let (established, new) = (state(6, ACCEPT), state(8, ACCEPT));
        let into = jump("OURS");
        let cases: Vec<(&str, Chains, Option<bool>, &str)> = vec![
            ("nothing drops", forward(ACCEPT, &[]), None, ""),
            ("the policy", forward(NF_DROP, &[]), sure, by_policy),
            ("a rule", forward(ACCEPT, &[("FORWARD", &dropped)]), sure, by_rule),
            ("a rule for others", forward(ACCEPT, &[("FORWARD", &past)]), None, ""),
            ("accepted by source", forward(NF_DROP, &[("FORWARD", &ours)]), None, ""),
            ("another source", forward(NF_DROP, &[("FORWARD", &other)]), sure, by_policy),
            ("accepted in a chain", forward(NF_DROP, &[("FORWARD", &into), ("OURS", &ours)]), None, ""),
            (
                "returned from it",
                forward(NF_DROP, &[("FORWARD", &into), ("OURS", &returns), ("OURS", &ours)]),
                sure,
                by_policy,
            ),
            ("by interface", forward(NF_DROP, &[("FORWARD", &open)]), None, ""),
            ("by another interface", forward(NF_DROP, &[("FORWARD", &closed)]), sure, by_policy),
            ("what cannot be judged", forward(NF_DROP, &[("FORWARD", &unknown)]), perhaps, by_policy),
            ("replies alone", forward(NF_DROP, &[("FORWARD", &established)]), sure, by_policy),
            ("new connections", forward(NF_DROP, &[("FORWARD", &new)]), None, ""),
            ("a loop", forward(NF_DROP, &[("FORWARD", &into), ("OURS", &into)]), sure, by_policy),
        ];
        for (name, chains, certain, by) in cases {
            let expected =
                certain.map_or(Verdict::Accepted, |certain| Verdict::Dropped { by: by.into(), certain });
            assert_eq!(chains.verdict(&packet()), expected, "{name}");
        }
    }

    #[test]
    fn a_reply_belongs_to_an_established_connection() {
        let by_iptables = |states: u16| {
            move |l: &mut Attributes<'_>| {
                conntrack(l, states);
                write_verdict(l, NF_ACCEPT, None);
            }
        };
        // `ct state`, as nft writes it.
        let by_nft = |states: u32| {
            move |l: &mut Attributes<'_>| {
                l.expression("ct", |e| {
                    e.number(1, REGISTER);
                    e.number(2, CT_STATE);
                });
                l.expression("bitwise", |e| {
                    e.number(1, REGISTER);
                    e.number(2, REGISTER);
                    e.number(3, 4);
                    e.nested(4, |data| data.octets(1, &states.to_ne_bytes()));
                    e.nested(5, |data| data.octets(1, &[0; 4]));
                });
                l.expression("cmp", |e| {
                    e.number(1, REGISTER);
                    e.number(2, CMP_NEQ);
                    e.nested(3, |data| data.octets(1, &[0; 4]));
                });
                write_verdict(l, NF_ACCEPT, None);
            }
        };
        let dropped = Verdict::Dropped { by: "the policy of FORWARD in table filter".into(), certain: true };
        let reply = Forwarded { is_reply: true, ..packet() };
        let (established, new) = ((by_iptables(6), by_nft(6)), (by_iptables(8), by_nft(8)));
        let judged = |rule: Fill<'_>| {
            let chains = forward(NF_DROP, &[("FORWARD", rule)]);
            (chains.verdict(&packet()), chains.verdict(&reply))
        };
        for rule in [&established.0 as Fill<'_>, &established.1] {
            assert_eq!(judged(rule), (dropped.clone(), Verdict::Accepted));
        }
        for rule in [&new.0 as Fill<'_>, &new.1] {
            assert_eq!(judged(rule), (Verdict::Accepted, dropped.clone()));
        }
    }

    #[test]
    fn what_is_not_known_leaves_no_certainty() {
        // Another source, but for what an unknown expression writes into the register.
        let rewritten = |l: &mut Attributes<'_>| {
            l.payload(PAYLOAD_NETWORK, 12, 4);
            l.expression("fib", |e| e.number(1, REGISTER));
            l.equals(&[172, 21, 0, 2]);
            write_verdict(l, NF_ACCEPT, None);
        };
        let queue = |l: &mut Attributes<'_>| l.expression("queue", |_| {});
        let target =
            |name: &'static str| move |l: &mut Attributes<'_>| l.expression("target", |e| e.text(1, name));
        let (nfqueue, log) = (target("NFQUEUE"), target("LOG"));
        let cases: [(&str, Fill<'_>, bool); 4] = [
            ("a register written by an unknown expression", &rewritten, false),
            ("queue", &queue, false),
            ("NFQUEUE", &nfqueue, false),
            ("LOG", &log, true),
        ];
        for (name, rule, certain) in cases {
            let expected = Verdict::Dropped { by: "the policy of FORWARD in table filter".into(), certain };
            assert_eq!(forward(NF_DROP, &[("FORWARD", rule)]).verdict(&packet()), expected, "{name}");
        }
    }

    #[test]
    fn truncated_rules_are_survived() {
        let rule = listed("FORWARD", &|l| {
            is_inside(l, p("10.9.0.0/23"), 1);
            conntrack(l, 8);
            write_verdict(l, NF_DROP, None);
        });
        for n in 0..rule.len() {
            let _ = Chains::new(&[rule[..n].to_vec()], vec![rule[..n].to_vec()]).verdict(&packet());
        }
    }
}
