//! What packet filters do with one forwarded packet, as far as their rules can be judged: those
//! that compare addresses and interfaces, and the state of the connection, which is a new one, or
//! established for a reply, with values or with the sets that are written in the rule itself. A
//! rule with any other condition may match or not.
//!
//! All base chains of type filter at the hooks prerouting and forward count, whoever made them,
//! with the chains to which they jump: a drop in any of them is final. The rules of iptables-legacy
//! are not in nf_tables; of them only the policy is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::{
    attr::*,
    chain::{
        IFNAMSIZ, META_IIFNAME, META_OIFNAME, NF_ACCEPT, NF_DROP, NFT_JUMP, NFT_RETURN, is_listed_in,
        protocol,
    },
    wire::{
        CMP_EQ, GET_CHAIN, META_NFPROTO, NF_INET_FORWARD, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
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
        by: Dropper,
        /// No rule that cannot be judged could have accepted it before.
        certain: bool,
    },
}

impl Verdict {
    /// Of several verdicts the one with the smallest number counts.
    pub(super) const fn certainty(&self) -> u8 {
        match self {
            Self::Dropped { certain: true, .. } => 0,
            Self::Dropped { .. } => 1,
            Self::Accepted => 2,
        }
    }
}

/// What drops a packet, displayed as `rule 2 of FORWARD in table filter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropper {
    /// As nft(8) names it: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    pub table: String,
    pub chain: String,
    /// The number of the rule, from 1; `None`: the policy.
    pub rule: Option<usize>,
}

impl fmt::Display for Dropper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, chain, rule, .. } = self;
        match rule {
            Some(rule) => write!(f, "rule {rule} of {chain} in table {table}"),
            None => write!(f, "the policy of {chain} in table {table}"),
        }
    }
}

/// Table and name of a chain or a set.
pub type Name = (String, String);

/// The chains of one family of tables.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    protocol: u8,
    base: Vec<Base>,
    rules: BTreeMap<Name, Vec<Vec<u8>>>,
    unread: BTreeSet<Name>,
    /// Elements of the sets and maps that are written in rules.
    sets: BTreeMap<Name, Vec<Vec<u8>>>,
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

impl Chains {
    /// From the chains that the kernel lists of a family of tables. Their rules are added until no
    /// chain is [unread](Self::unread): of the chains that do not count, or to which none of them
    /// jumps, nothing is read. kube-proxy may have tens of thousands of rules there.
    pub fn new(protocol: u8, chains: &[Vec<u8>]) -> Self {
        let base: Vec<_> = chains.iter().filter_map(|c| base(c)).collect();
        let unread = base.iter().map(|base| base.name.clone()).collect();
        Self { protocol, base, unread, ..Self::default() }
    }

    /// A chain whose rules are to be read.
    pub fn unread(&self) -> Option<&Name> {
        self.unread.first()
    }

    /// How many chains were read.
    pub fn read_count(&self) -> usize {
        self.rules.len()
    }

    /// Adds the elements of a set that [`sets`] names, as the kernel lists them.
    pub fn add_set(&mut self, set: Name, listed: &[Vec<u8>]) {
        self.sets.insert(set, elements(listed));
    }

    /// Adds the rules of a chain, as the kernel lists them, after the sets that they name.
    pub fn add_rules(&mut self, chain: Name, mut listed: Vec<Vec<u8>>) {
        listed.retain(|rule| is_listed_in(rule, &chain.0, &chain.1));
        let targets: Vec<_> = listed.iter().flat_map(|rule| self.targets(rule)).collect();
        let targets = targets.into_iter().map(|target| (chain.0.clone(), target));
        self.unread.extend(targets.filter(|target| !self.rules.contains_key(target)));
        self.unread.remove(&chain);
        self.rules.insert(chain, listed);
    }

    /// The chains to which a rule may jump.
    fn targets(&self, rule: &[u8]) -> Vec<String> {
        let expressions = attributes(attribute(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default());
        let immediate = expressions.filter_map(|(_, e)| verdict(attribute(e, NFTA_EXPR_DATA)?));
        let sets = sets(&[rule]);
        let maps = sets.iter().filter_map(|set| self.sets.get(set));
        let of_maps = maps.flatten().filter_map(|element| verdict(element));
        let target = |action| match action {
            Action::Jump(chain) | Action::Goto(chain) => Some(chain),
            _ => None,
        };
        immediate.chain(of_maps).filter_map(target).collect()
    }

    /// The verdict of all base chains.
    pub fn verdict(&self, packet: &Forwarded) -> Verdict {
        let verdicts = self.base.iter().map(|base| self.of_base(base, packet));
        verdicts.min_by_key(Verdict::certainty).unwrap_or(Verdict::Accepted)
    }

    fn of_base(&self, base: &Base, packet: &Forwarded) -> Verdict {
        let mut walk = Walk { chains: self, packet, hook: base.hook, may_accept: false, steps: MAX_STEPS };
        let end = walk.chain(&base.name, true, 0);
        let certain = !walk.may_accept;
        match end {
            Some(End::Dropped(by)) => Verdict::Dropped { by, certain },
            None if base.drops => Verdict::Dropped { by: self.dropper(&base.name, None), certain },
            Some(End::Accepted) | None => Verdict::Accepted,
        }
    }

    fn dropper(&self, (table, chain): &Name, rule: Option<usize>) -> Dropper {
        let family = match self.protocol {
            NFPROTO_IPV4 => "ip",
            NFPROTO_IPV6 => "ip6",
            _ => "inet",
        };
        Dropper { family, table: table.clone(), chain: chain.clone(), rule }
    }
}

/// The sets and maps without a name of their own that rules use: their elements are written in the
/// rules and do not change.
pub fn sets(rules: &[impl AsRef<[u8]>]) -> BTreeSet<Name> {
    let all = rules.iter().map(AsRef::as_ref).flat_map(|rule| {
        let table = attribute(rule, NFTA_RULE_TABLE).map(text).unwrap_or_default();
        let expressions =
            attributes(attribute(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default()).map(|(_, e)| e);
        let lookups =
            expressions.filter(|e| attribute(e, NFTA_EXPR_NAME).is_some_and(|name| text(name) == "lookup"));
        lookups.filter_map(move |e| Some((table.clone(), set_of(attribute(e, NFTA_EXPR_DATA)?)?)))
    });
    all.filter(|(_, set)| ANONYMOUS.iter().any(|start| set.starts_with(start))).take(MAX_SETS).collect()
}

/// The set of a lookup.
fn set_of(lookup: &[u8]) -> Option<String> {
    attribute(lookup, NFTA_LOOKUP_SET).map(text)
}

/// Appends the request for all elements of a set.
pub fn list_elements(encoder: &mut Encoder, protocol: u8, (table, set): &Name) {
    request(encoder, protocol, GET_SET_ELEMENTS, flag::DUMP, |m| {
        m.text(NFTA_SET_ELEM_LIST_TABLE, table);
        m.text(NFTA_SET_ELEM_LIST_SET, set);
    });
}

/// The elements in the messages of a list.
fn elements(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let lists = messages.iter().filter_map(|m| attribute(m, NFTA_SET_ELEM_LIST_ELEMENTS));
    lists.flat_map(|list| attributes(list).map(|(_, element)| element.to_vec())).take(MAX_ELEMENTS).collect()
}

fn base(chain: &[u8]) -> Option<Base> {
    let hook = attribute(attribute(chain, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM).and_then(number)?;
    let is_filter = attribute(chain, NFTA_CHAIN_TYPE).is_some_and(|kind| text(kind) == "filter");
    let counts = is_filter && [NF_INET_PRE_ROUTING, NF_INET_FORWARD].contains(&hook);
    let drops = attribute(chain, NFTA_CHAIN_POLICY).and_then(number) == Some(NF_DROP);
    counts.then_some(Base { name: name(chain, NFTA_CHAIN_NAME)?, hook, drops })
}

/// Table and chain of a message.
fn name(message: &[u8], kind: u16) -> Option<Name> {
    Some((text(attribute(message, NFTA_RULE_TABLE)?), text(attribute(message, kind)?)))
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
    Dropped(Dropper),
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
    /// Rules that may still be looked at.
    steps: usize,
}

impl Walk<'_> {
    /// `sure`: every packet like this comes here.
    fn chain(&mut self, name: &Name, sure: bool, depth: usize) -> Option<End> {
        let rules = self.chains.rules.get(name).filter(|_| depth < MAX_DEPTH)?;
        for (n, rule) in (1..).zip(rules) {
            let Some(left) = self.steps.checked_sub(1) else {
                self.may_accept = true;
                return None;
            };
            self.steps = left;
            let (fit, action) = self.rule(rule);
            let sure = sure && fit == Fit::Yes;
            let target = |chain| (name.0.clone(), chain);
            let end = match action {
                _ if fit == Fit::No => continue,
                Action::Accept if sure => Some(End::Accepted),
                Action::Drop if sure => Some(End::Dropped(self.chains.dropper(name, Some(n)))),
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
        for (_, expression) in attributes(attribute(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default()) {
            let name = attribute(expression, NFTA_EXPR_NAME).map(text).unwrap_or_default();
            let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
            let field = |kind| attribute(data, kind).and_then(number).unwrap_or_default();
            match name.as_str() {
                "counter" | "log" => {}
                "meta" => _ = registers.insert(field(NFTA_META_DREG), self.meta(field(NFTA_META_KEY))),
                "payload" => _ = registers.insert(field(NFTA_PAYLOAD_DREG), self.payload(data)),
                "ct" => {
                    _ = registers.insert(field(NFTA_CT_DREG), connection(field(NFTA_CT_KEY), self.packet))
                }
                "bitwise" => {
                    let masked = registers
                        .get(&field(NFTA_BITWISE_SREG))
                        .cloned()
                        .flatten()
                        .and_then(|v| masked(data, v));
                    registers.insert(field(NFTA_BITWISE_DREG), masked);
                }
                "cmp" => {
                    fit = fit
                        .and(compared(data, registers.get(&field(NFTA_CMP_SREG)).and_then(Option::as_deref)))
                }
                "match" => fit = fit.and(extension(data, self.packet)),
                "immediate" => action = verdict(data).unwrap_or(action),
                "reject" => action = Action::Drop,
                "target" => action = target(data),
                "queue" => action = Action::Other { accepts: true },
                "lookup" => {
                    let key = registers.get(&field(NFTA_LOOKUP_SREG)).and_then(Option::as_deref);
                    let (found, of_map) = self.lookup(rule, data, key);
                    fit = fit.and(found);
                    action = of_map.unwrap_or(action);
                    // The value of a map, where it is no verdict.
                    if attribute(data, NFTA_LOOKUP_DREG).is_some() {
                        registers.clear();
                    }
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

    /// Whether a set has the key, and the action of a map of verdicts.
    fn lookup(&self, rule: &[u8], lookup: &[u8], key: Option<&[u8]>) -> (Fit, Option<Action>) {
        // A map of verdicts writes no register of data.
        let is_vmap = attribute(lookup, NFTA_LOOKUP_DREG).and_then(number) == Some(0);
        let unknown = || (Fit::Perhaps, is_vmap.then_some(Action::Other { accepts: true }));
        let name = attribute(rule, NFTA_RULE_TABLE).map(text).zip(set_of(lookup));
        let set = name.and_then(|name| self.chains.sets.get(&name)).filter(|set| set.len() < MAX_ELEMENTS);
        let (Some(set), Some(key)) = (set, key) else { return unknown() };
        let Some(found) = element_of(set, key) else { return unknown() };
        let is_inverted = attribute(lookup, NFTA_LOOKUP_FLAGS)
            .and_then(number)
            .is_some_and(|flags| flags & LOOKUP_INVERTED != 0);
        let fit = if found.is_some() != is_inverted { Fit::Yes } else { Fit::No };
        match found.filter(|_| is_vmap) {
            // An element has its verdict where an immediate expression has it.
            Some(element) => (fit, Some(verdict(element).unwrap_or(Action::Other { accepts: true }))),
            None => (fit, None),
        }
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
        let (offset, len) = (
            usize::try_from(field(NFTA_PAYLOAD_OFFSET)?).ok()?,
            usize::try_from(field(NFTA_PAYLOAD_LEN)?).ok()?,
        );
        let octets = |addr| match addr {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let first = if self.packet.destination.is_ipv4() { 12 } else { 8 };
        let both = [octets(self.packet.source), octets(self.packet.destination)].concat();
        let start =
            offset.checked_sub(first).filter(|_| field(NFTA_PAYLOAD_BASE) == Some(PAYLOAD_NETWORK))?;
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

/// The state or the status of the packet's connection, in the order of the host. A new one that
/// nobody translates has none of the bits of the status that rules look for.
fn connection(key: u32, packet: &Forwarded) -> Option<Vec<u8>> {
    match key {
        CT_STATE => Some(packet.state().to_ne_bytes().to_vec()),
        CT_STATUS if !packet.is_reply => Some(0_u32.to_ne_bytes().to_vec()),
        _ => None,
    }
}

/// The element of a set that holds the key, if any. `None`: it cannot be judged.
fn element_of<'a>(set: &'a [Vec<u8>], key: &[u8]) -> Option<Option<&'a Vec<u8>>> {
    let flags = |element: &[u8]| attribute(element, NFTA_SET_ELEM_FLAGS).and_then(number).unwrap_or(0);
    let mut keyed = Vec::new();
    let mut catch_all = None;
    for element in set {
        if flags(element) & ELEMENT_CATCH_ALL != 0 {
            catch_all = Some(element);
            continue;
        }
        let value = attribute(attribute(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
        // Ranges of several fields, or another type than the key's.
        if attribute(element, NFTA_SET_ELEM_KEY_END).is_some() || value.len() != key.len() {
            return None;
        }
        keyed.push((value, element));
    }
    let is_end = |element: &[u8]| flags(element) & ELEMENT_INTERVAL_END != 0;
    let found = if keyed.iter().any(|(_, element)| is_end(element)) {
        // A range goes from its element to the next one that ends one.
        keyed.sort_by(|a, b| a.0.cmp(b.0).then(is_end(b.1).cmp(&is_end(a.1))));
        let last = keyed.iter().rev().find(|(value, _)| *value <= key);
        last.filter(|(_, element)| !is_end(element))
    } else {
        keyed.iter().find(|(value, _)| *value == key)
    };
    Some(found.map(|(_, element)| *element).or(catch_all))
}

fn masked(data: &[u8], value: Vec<u8>) -> Option<Vec<u8>> {
    let operand = |kind| attribute(attribute(data, kind)?, NFTA_DATA_VALUE);
    let (mask, xor) = (operand(NFTA_BITWISE_MASK)?, operand(NFTA_BITWISE_XOR)?);
    let parts = value.into_iter().zip(mask.iter().zip(xor));
    Some(parts.map(|(octet, (mask, xor))| octet & mask ^ xor).collect())
}

fn compared(data: &[u8], value: Option<&[u8]>) -> Fit {
    let wanted = attribute(data, NFTA_CMP_DATA).and_then(|d| attribute(d, NFTA_DATA_VALUE));
    let (Some(wanted), Some(value)) = (wanted, value) else { return Fit::Perhaps };
    // Of an interface only the octets of its name are compared, without the last one for a prefix.
    let is_equal = value.get(..wanted.len()) == Some(wanted);
    match attribute(data, NFTA_CMP_OP).and_then(number) {
        Some(CMP_EQ) if is_equal => Fit::Yes,
        Some(CMP_NEQ) if !is_equal => Fit::Yes,
        Some(CMP_EQ | CMP_NEQ) => Fit::No,
        _ => Fit::Perhaps,
    }
}

/// A match of iptables.
fn extension(data: &[u8], packet: &Forwarded) -> Fit {
    match attribute(data, NFTA_MATCH_NAME).map(text).as_deref() {
        Some("comment") => Fit::Yes,
        Some("conntrack") => attribute(data, NFTA_MATCH_INFO)
            .and_then(|info| of_connection(info, packet))
            .unwrap_or(Fit::Perhaps),
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
    match attribute(data, NFTA_TARGET_NAME).map(text).as_deref() {
        Some("REJECT") => Action::Drop,
        Some("NFQUEUE") => Action::Other { accepts: true },
        _ => Action::Other { accepts: false },
    }
}

fn verdict(data: &[u8]) -> Option<Action> {
    let verdict = attribute(attribute(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
    let chain = || attribute(verdict, NFTA_VERDICT_CHAIN).map(text).unwrap_or_default();
    Some(match attribute(verdict, NFTA_VERDICT_CODE).and_then(number)? {
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
const CT_STATUS: u32 = 2;
const GET_SET_ELEMENTS: u16 = 13;
const ELEMENT_INTERVAL_END: u32 = 1;
const ELEMENT_CATCH_ALL: u32 = 2;
const LOOKUP_INVERTED: u32 = 1;
/// How the kernel names sets and maps that have no name of their own.
const ANONYMOUS: [&str; 2] = ["__set", "__map"];
/// Sets of a table that are read at most, and their elements.
const MAX_SETS: usize = 64;
const MAX_ELEMENTS: usize = 1024;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, of replies too; the same bit in xt_conntrack.
const STATE_ESTABLISHED: u32 = 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;
const XT_CONNTRACK_STATE: u16 = 1;
/// Rules that are looked at for one packet in one base chain: chains to which many rules may jump
/// are looked at as often.
const MAX_STEPS: usize = 100_000;
/// As deep as the kernel follows jumps.
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests;
