//! The host's routing rules (`ip rule`), as far as they keep learned routes from being used: the
//! kernel looks up one table after the other in their order, and the first that has a route
//! decides.
//!
//! Nothing is reported where it is not certain: a rule with a selector (source, mark, interface, …)
//! that looks our table up is taken for what the operator wants, as is one of VRF devices, and one
//! that looks up another table before is left out.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::wire::family_of;
use crate::{
    net::{Family, Prefix},
    netlink::decode::{attributes, ip, u32_at},
};

const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_L3MDEV: u16 = 19;
/// Attributes that select no packets: flow classes, padding, protocol number, and suppression by
/// interface group, which only ever lets a packet go on.
const NO_SELECTORS: [u16; 4] = [11, 13, 18, 21];
const FIB_RULE_INVERT: u32 = 2;

const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_NOP: u8 = 5;
const FR_ACT_BLACKHOLE: u8 = 6;
const FR_ACT_PROHIBIT: u8 = 8;

const LOCAL_TABLE: u32 = 255;
/// So many prefixes of other tables are kept: tables with more have a default route, as a rule.
const MAX_DECIDED: usize = 20_000;

/// What a rule does with a packet that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Look(u32),
    /// Unreachable, blackhole, prohibit.
    Drop,
    Nothing,
    /// The rest of the rules cannot be judged: a jump.
    Unclear,
}

/// One rule of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub family: Family,
    pub priority: u32,
    pub action: Action,
    /// Whether it fits some packets to a destination and others not.
    pub selects: bool,
    pub destination: Option<Prefix>,
    /// Routes that are no longer than this do not count.
    pub suppress: Option<u8>,
    /// Which table is that of the VRF device.
    pub vrf: bool,
}

/// Reads the body of RTM_NEWRULE.
pub fn rule(body: &[u8]) -> Option<Rule> {
    let &[af, dst_len, src_len, tos, table, _, _, action] = body.first_chunk()?;
    let flags = u32_at(body, 8)?;
    let family = family_of(af)?;
    let (mut table, mut priority, mut suppress, mut vrf) = (u32::from(table), 0, None, false);
    let mut destination = None;
    let mut selects = src_len != 0 || tos != 0 || flags & FIB_RULE_INVERT != 0;
    for (attribute, value) in attributes(body.get(12..)?) {
        match attribute {
            FRA_DST => destination = ip(value).and_then(|addr| Prefix::new(addr, dst_len)),
            FRA_PRIORITY => priority = u32_at(value, 0)?,
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_SUPPRESS_PREFIXLEN => suppress = u32_at(value, 0).and_then(|len| u8::try_from(len).ok()),
            FRA_L3MDEV => vrf = value.first().is_some_and(|on| *on != 0),
            other => selects |= !NO_SELECTORS.contains(&other),
        }
    }
    let action = match action {
        FR_ACT_TO_TBL => Action::Look(table),
        FR_ACT_NOP => Action::Nothing,
        FR_ACT_BLACKHOLE..=FR_ACT_PROHIBIT => Action::Drop,
        _ => Action::Unclear,
    };
    Some(Rule { family, priority, action, selects, destination, suppress, vrf })
}

/// What keeps a learned route from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// No rule looks the table up.
    Unlooked,
    /// An earlier rule decides about these packets, by the routes of another table where it looks
    /// one up.
    Before { priority: u32, table: Option<u32> },
}

/// Which destinations never come to our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypasses(BTreeMap<Prefix, Bypass>);

impl Bypasses {
    /// `routes`: the destinations that another table has routes to; `None` where that is not
    /// certain.
    pub fn new(
        rules: &[Rule],
        table: u32,
        mut routes: impl FnMut(Family, u32) -> Option<Vec<Prefix>>,
    ) -> Self {
        let mut this = Self::default();
        for family in Family::ALL {
            let mut of_family: Vec<_> = rules.iter().filter(|r| r.family == family).collect();
            of_family.sort_by_key(|r| r.priority);
            if !of_family.is_empty() {
                this.add_family(family, &of_family, table, &mut routes);
            }
        }
        this
    }

    fn add_family(
        &mut self,
        family: Family,
        rules: &[&Rule],
        table: u32,
        routes: &mut impl FnMut(Family, u32) -> Option<Vec<Prefix>>,
    ) {
        let whole = whole(family);
        for rule in rules {
            let destination = rule.destination.unwrap_or(whole);
            let by = |table| Bypass::Before { priority: rule.priority, table };
            match rule.action {
                Action::Look(looked) if looked == table => return,
                Action::Unclear => return,
                _ if rule.vrf => return,
                Action::Nothing | Action::Look(LOCAL_TABLE) => {}
                _ if rule.selects => {}
                Action::Drop => self.add(destination, by(None)),
                Action::Look(other) => {
                    let routes = routes(family, other).unwrap_or_default();
                    let counts = |p: &Prefix| rule.suppress.is_none_or(|len| p.len() > len);
                    for prefix in routes.into_iter().filter(counts) {
                        if prefix.covers(destination) {
                            self.add(destination, by(Some(other)));
                        } else if destination.covers(prefix) {
                            self.add(prefix, by(Some(other)));
                        }
                    }
                }
            }
        }
        self.add(whole, Bypass::Unlooked);
    }

    /// What an earlier rule decides stays decided.
    fn add(&mut self, prefix: Prefix, by: Bypass) {
        if self.of(prefix).is_none() && self.0.len() < MAX_DECIDED {
            self.0.insert(prefix, by);
        }
    }

    /// Why a route to this prefix is not used at all. What lies inside another destination was
    /// added before it, so that the longest has the rule that decides.
    pub fn of(&self, prefix: Prefix) -> Option<Bypass> {
        if self.0.is_empty() {
            return None;
        }
        let around = (0..=prefix.len()).rev().filter_map(|len| Prefix::new(prefix.addr(), len));
        around.into_iter().find_map(|p| self.0.get(&p)).copied()
    }

    pub fn list(&self) -> impl Iterator<Item = (Prefix, Bypass)> + '_ {
        self.0.iter().map(|(prefix, by)| (*prefix, *by))
    }
}

fn whole(family: Family) -> Prefix {
    match family {
        Family::Ipv4Unicast => Prefix::v4(Ipv4Addr::UNSPECIFIED, 0),
        Family::Ipv6Unicast => Prefix::v6(Ipv6Addr::UNSPECIFIED, 0),
    }
}

/// What is wrong, and what to do.
pub fn explain(by: Bypass, family: Family, table: u32) -> (String, String) {
    let ip = match family {
        Family::Ipv4Unicast => "ip",
        Family::Ipv6Unicast => "ip -6",
    };
    match by {
        Bypass::Unlooked => (
            format!("no {family} rule looks table {table} up"),
            format!("run `{ip} rule add table {table}`, or set fib.table to one that is"),
        ),
        Bypass::Before { priority, table: Some(other) } => (
            format!(
                "the rule with priority {priority} looks table {other} up before table {table}, and finds a \
                 route there"
            ),
            format!(
                "give that rule a selector (`{ip} rule` lists them), or run `{ip} rule add table {table} \
                 priority {}`",
                priority.saturating_sub(1)
            ),
        ),
        Bypass::Before { priority, table: None } => (
            format!(
                "the rule with priority {priority} drops these packets before table {table} is looked up"
            ),
            format!("remove it, or give it a selector (`{ip} rule` lists them)"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Family = Family::Ipv4Unicast;

    fn rule_to(priority: u32, action: Action) -> Rule {
        Rule { family: V4, priority, action, selects: false, destination: None, suppress: None, vrf: false }
    }

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// Those of every host, and these.
    fn with(more: &[Rule]) -> Vec<Rule> {
        let usual = [(0, LOCAL_TABLE), (32766, 254), (32767, 253)];
        usual
            .map(|(priority, table)| rule_to(priority, Action::Look(table)))
            .into_iter()
            .chain(more.iter().cloned())
            .collect()
    }

    /// Table 100 has a default route, table 52 one to a host, table 77 cannot be judged.
    fn bypass(rules: &[Rule], table: u32, prefix: &str) -> Option<Bypass> {
        let routes = |_, table| match table {
            100 | 254 => Some(vec![p("0.0.0.0/0"), p("10.1.0.0/16")]),
            52 => Some(vec![p("100.64.0.9/32")]),
            77 => None,
            _ => Some(Vec::new()),
        };
        Bypasses::new(rules, table, routes).of(p(prefix))
    }

    #[test]
    fn a_rule_that_keeps_learned_routes_from_being_used_is_found() {
        let look = |table| rule_to(100, Action::Look(table));
        let before = |table| Some(Bypass::Before { priority: 100, table });
        let to = |rule: Rule, d: &str| Rule { destination: Some(p(d)), ..rule };
        #[rustfmt::skip]
        let cases: Vec<(&str, Vec<Rule>, u32, &str, Option<Bypass>)> = vec![
            ("as on every host",               with(&[]),                                             254,  "10.5.0.0/16",   None),
            ("a default route comes first",    with(&[look(100)]),                                    254,  "10.5.0.0/16",   before(Some(100))),
            ("for others alone",               with(&[look(52)]),                                     254,  "10.5.0.0/16",   None),
            ("for a host inside",              with(&[look(52)]),                                     254,  "100.64.0.0/10", None),
            ("for that host",                  with(&[look(52)]),                                     254,  "100.64.0.9/32", before(Some(52))),
            ("what cannot be judged",          with(&[look(77)]),                                     254,  "10.5.0.0/16",   None),
            ("some packets alone",             with(&[Rule { selects: true, ..look(100) }]),          254,  "10.5.0.0/16",   None),
            ("a VRF's table",                  with(&[Rule { vrf: true, ..look(0) }]),                1000, "10.5.0.0/16",   None),
            ("its default route apart",        with(&[Rule { suppress: Some(0), ..look(100) }]),      254,  "10.5.0.0/16",   None),
            ("the rest of it counts",          with(&[Rule { suppress: Some(0), ..look(100) }]),      254,  "10.1.5.0/24",   before(Some(100))),
            ("ours without its default route", with(&[Rule { suppress: Some(0), ..look(254) }]),      254,  "10.5.0.0/16",   None),
            ("one destination",                with(&[to(look(100), "10.5.0.0/16")]),                 254,  "10.5.1.0/24",   before(Some(100))),
            ("another destination",            with(&[to(look(100), "10.6.0.0/16")]),                 254,  "10.5.1.0/24",   None),
            ("a drop",                         with(&[to(rule_to(100, Action::Drop), "10.5.0.0/16")]), 254, "10.5.1.0/24",   before(None)),
            ("a jump",                         with(&[rule_to(50, Action::Unclear), look(100)]),      254,  "10.5.0.0/16",   None),
            ("one that does nothing",          with(&[rule_to(50, Action::Nothing), look(100)]),      254,  "10.5.0.0/16",   before(Some(100))),
            ("a table that no rule names",     vec![rule_to(0, Action::Look(LOCAL_TABLE))],           1000, "10.5.0.0/16",   Some(Bypass::Unlooked)),
            ("a table behind the main one",    with(&[]),                                             1000, "10.5.0.0/16",   Some(Bypass::Before { priority: 32766, table: Some(254) })),
            ("a table with a rule",            with(&[look(1000)]),                                   1000, "10.5.0.0/16",   None),
            ("for some packets",               with(&[Rule { selects: true, ..look(1000) }]),         1000, "10.5.0.0/16",   None),
            ("rules that are not known",       Vec::new(),                                            1000, "10.5.0.0/16",   None),
            ("of another family",              with(&[]),                                             1000, "fd05::/16",     None),
        ];
        for (name, rules, table, prefix, expected) in cases {
            assert_eq!(bypass(&rules, table, prefix), expected, "{name}");
        }
    }

    #[test]
    fn the_first_rule_decides_and_the_remedy_comes_before_it() {
        let rules = with(&[rule_to(90, Action::Look(100)), rule_to(100, Action::Drop)]);
        let by = bypass(&rules, 254, "10.5.0.0/16").unwrap();
        assert_eq!(by, Bypass::Before { priority: 90, table: Some(100) });
        let (_, text) = explain(by, V4, 254);
        assert!(text.contains("`ip rule add table 254 priority 89`"), "{text}");
        let nested = with(&[rule_to(90, Action::Look(52)), rule_to(100, Action::Look(100))]);
        for (prefix, priority, table) in [("100.64.0.9/32", 90, 52), ("100.64.0.0/10", 100, 100)] {
            let by = Bypass::Before { priority, table: Some(table) };
            assert_eq!(bypass(&nested, 254, prefix), Some(by), "{prefix}");
        }
        assert!(
            explain(Bypass::Unlooked, Family::Ipv6Unicast, 1000).1.contains("`ip -6 rule add table 1000`")
        );
    }

    #[test]
    fn rules_are_read_as_the_kernel_writes_them() {
        let attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(value.len() + 4).unwrap();
            let mut octets = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
            octets.extend(value);
            octets.resize(octets.len().next_multiple_of(4), 0);
            octets
        };
        let body = |head: [u8; 8], flags: u32, attributes: &[Vec<u8>]| {
            [head.to_vec(), flags.to_ne_bytes().to_vec(), attributes.concat()].concat()
        };
        let number = |n: u32| n.to_ne_bytes();
        let usual =
            [attribute(FRA_TABLE, &number(1000)), attribute(FRA_SUPPRESS_PREFIXLEN, &number(u32::MAX))];
        let seen = rule(&body([2, 0, 0, 0, 252, 0, 0, 1], 0, &usual)).unwrap();
        assert_eq!(seen, rule_to(0, Action::Look(1000)));
        let more = [
            attribute(FRA_PRIORITY, &number(100)),
            attribute(FRA_DST, &[10, 5, 0, 0]),
            attribute(FRA_SUPPRESS_PREFIXLEN, &number(0)),
            attribute(FRA_L3MDEV, &[1]),
            attribute(21, &[4]),
        ];
        let seen = rule(&body([2, 16, 0, 0, 254, 0, 0, 7], 0, &more)).unwrap();
        let expected = Rule {
            priority: 100,
            action: Action::Drop,
            destination: Some(p("10.5.0.0/16")),
            suppress: Some(0),
            vrf: true,
            ..rule_to(0, Action::Drop)
        };
        assert_eq!(seen, expected);
        // A mark, a source, a negation.
        for (head, flags, attributes) in [
            ([2, 0, 0, 0, 254, 0, 0, 1], 0, vec![attribute(10, &number(1))]),
            ([2, 0, 8, 0, 254, 0, 0, 1], 0, vec![attribute(2, &[10, 0, 0, 0])]),
            ([2, 0, 0, 0, 254, 0, 0, 1], FIB_RULE_INVERT, vec![]),
        ] {
            assert!(rule(&body(head, flags, &attributes)).unwrap().selects);
        }
        assert_eq!(rule(&[2, 0, 0]), None);
    }
}
