//! Parses route maps.

use std::{collections::BTreeMap, net::IpAddr};

use super::{lists::communities, unfit::Unfit};
use crate::{
    bgp::policy::Community,
    convert::ledger::LineId,
    net::{Asn, Family},
};

/// `route-map NAME permit|deny SEQUENCE` with what is below it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sequence: u32,
    pub(super) permit: bool,
    pub(super) at: LineId,
    pub(super) conditions: Vec<(LineId, Condition)>,
    pub(super) changes: Vec<(LineId, Change)>,
    /// A line that has no counterpart.
    pub(super) unfit: Option<(LineId, Unfit)>,
}

/// `match …`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    PrefixList(Family, String),
    AccessList(Family, String),
    AsPath(String),
    Community { list: String, large: bool },
    NextHop(IpAddr),
    Peer(IpAddr),
    Interface(String),
}

impl Condition {
    /// Whether a later condition of the same kind replaces this one. Conditions of different
    /// families, and those on communities and large communities, apply together.
    fn is_replaced_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::PrefixList(a, _), Self::PrefixList(b, _))
            | (Self::AccessList(a, _), Self::AccessList(b, _)) => a == b,
            (Self::NextHop(a), Self::NextHop(b)) => Family::of(*a) == Family::of(*b),
            (Self::Community { large: a, .. }, Self::Community { large: b, .. }) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(later),
        }
    }
}

/// `set …`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    LocalPref(u32),
    Med(u32),
    Communities { list: Vec<Community>, additive: bool },
    DeleteCommunities { list: String, large: bool },
    Prepend(Vec<Asn>),
    NextHop(Family, IpAddr),
    Source(IpAddr),
}

/// A parsed clause, or why it is not needed or has no counterpart.
pub(super) enum Clause<T> {
    Is(T),
    NotNeeded(&'static str),
    Unfit(Unfit),
}

/// The route maps by name, their entries in order.
#[derive(Debug, Default)]
pub(super) struct Maps(BTreeMap<String, Vec<Entry>>);

impl Maps {
    /// The entry, which is created unless it exists.
    pub(super) fn entry(&mut self, name: &str, permit: bool, sequence: u32, at: LineId) -> &mut Entry {
        let entries = self.0.entry(name.to_owned()).or_default();
        let place = match entries.binary_search_by_key(&sequence, |e| e.sequence) {
            Ok(place) => place,
            Err(place) => {
                let new = Entry { sequence, permit, at, conditions: vec![], changes: vec![], unfit: None };
                entries.insert(place, new);
                place
            }
        };
        let entry = &mut entries[place];
        entry.permit = permit;
        entry
    }

    pub(super) fn get(&self, name: &str) -> Option<&[Entry]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The source address that every route gets, if the map does nothing else.
    pub(super) fn source_only(&self, name: &str) -> Option<IpAddr> {
        match self.get(name)? {
            [Entry { permit: true, conditions, changes, unfit: None, .. }] if conditions.is_empty() => {
                match changes.as_slice() {
                    [(_, Change::Source(addr))] => Some(*addr),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The interfaces whose routes are permitted, if the map does nothing else.
    pub(super) fn interfaces_only(&self, name: &str) -> Option<Vec<String>> {
        let of_entry = |entry: &Entry| match entry {
            Entry { permit: true, conditions, changes, unfit: None, .. } if changes.is_empty() => {
                match conditions.as_slice() {
                    [(_, Condition::Interface(name))] => Some(Some(name.clone())),
                    _ => None,
                }
            }
            Entry { permit: false, conditions, unfit: None, .. } if conditions.is_empty() => Some(None),
            _ => None,
        };
        let mut names = Vec::new();
        for entry in self.get(name)? {
            match of_entry(entry)? {
                Some(name) => names.push(name),
                None => break,
            }
        }
        (!names.is_empty()).then_some(names)
    }
}

impl Entry {
    /// A line below the heading.
    pub(super) fn take(&mut self, at: LineId, words: &[&str]) -> Result<(), Clause<()>> {
        match words {
            ["description", ..] => Ok(()),
            ["match", rest @ ..] => match condition(rest) {
                Clause::Is(condition) => {
                    // As on the router, a later line of the same kind replaces the earlier one.
                    self.conditions.retain(|(_, c)| !c.is_replaced_by(&condition));
                    self.conditions.push((at, condition));
                    Ok(())
                }
                other => Err(self.refuse(at, other)),
            },
            ["set", rest @ ..] => match change(rest) {
                Clause::Is(change) => {
                    self.changes.push((at, change));
                    Ok(())
                }
                // Changes of a rejected route do not matter.
                Clause::Unfit(_) if !self.permit => Err(Clause::NotNeeded("a rejected route is not changed")),
                other => Err(self.refuse(at, other)),
            },
            _ => Err(self.refuse::<()>(at, Clause::Unfit(Unfit::Step))),
        }
    }

    fn refuse<T>(&mut self, at: LineId, clause: Clause<T>) -> Clause<()> {
        match clause {
            Clause::Unfit(why) => {
                self.unfit.get_or_insert((at, why.clone()));
                Clause::Unfit(why)
            }
            Clause::NotNeeded(why) => Clause::NotNeeded(why),
            Clause::Is(_) => Clause::Is(()),
        }
    }
}

fn condition(words: &[&str]) -> Clause<Condition> {
    let family = |word: &str| if word == "ip" { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
    let unfit = || Clause::Unfit(Unfit::Match(words.join(" ")));
    Clause::Is(match words {
        [ip @ ("ip" | "ipv6"), "address", "prefix-list", name] => {
            Condition::PrefixList(family(ip), (*name).to_owned())
        }
        [ip @ ("ip" | "ipv6"), "address", name] => Condition::AccessList(family(ip), (*name).to_owned()),
        [ip @ ("ip" | "ipv6"), "next-hop", "address", addr] | [ip @ ("ip" | "ipv6"), "next-hop", addr] => {
            match addr.parse::<IpAddr>() {
                Ok(addr) if Family::of(addr) == family(ip) => Condition::NextHop(addr),
                _ => return unfit(),
            }
        }
        ["as-path", name] => Condition::AsPath((*name).to_owned()),
        ["community", name] | ["community", name, "any"] => {
            Condition::Community { list: (*name).to_owned(), large: false }
        }
        ["large-community", name] | ["large-community", name, "any"] => {
            Condition::Community { list: (*name).to_owned(), large: true }
        }
        ["peer", addr] => match addr.parse() {
            Ok(addr) => Condition::Peer(addr),
            Err(_) => return unfit(),
        },
        ["interface", name] => Condition::Interface((*name).to_owned()),
        _ => return unfit(),
    })
}

fn change(words: &[&str]) -> Clause<Change> {
    let unfit = || Clause::Unfit(Unfit::Set(words.join(" ")));
    Clause::Is(match words {
        ["local-preference", n] => match n.parse() {
            Ok(n) => Change::LocalPref(n),
            Err(_) => return unfit(),
        },
        ["metric", n] => match n.parse() {
            Ok(n) => Change::Med(n),
            Err(_) => return unfit(),
        },
        [kind @ ("community" | "large-community"), list @ .., "additive"] => {
            match communities(list, *kind == "large-community") {
                Ok(list) => Change::Communities { list, additive: true },
                Err(why) => return Clause::Unfit(why),
            }
        }
        ["community" | "large-community", "none"] => return unfit(),
        [kind @ ("community" | "large-community"), list @ ..] => {
            match communities(list, *kind == "large-community") {
                Ok(list) => Change::Communities { list, additive: false },
                Err(why) => return Clause::Unfit(why),
            }
        }
        ["comm-list", name, "delete"] => Change::DeleteCommunities { list: (*name).to_owned(), large: false },
        ["large-comm-list", name, "delete"] => {
            Change::DeleteCommunities { list: (*name).to_owned(), large: true }
        }
        ["as-path", "prepend", numbers @ ..] => {
            match numbers.iter().map(|n| n.parse()).collect::<Result<Vec<Asn>, _>>() {
                Ok(numbers) if !numbers.is_empty() => Change::Prepend(numbers),
                _ => return unfit(),
            }
        }
        ["ip", "next-hop", addr] | ["ipv6", "next-hop", "global", addr] => match addr.parse::<IpAddr>() {
            Ok(addr) => Change::NextHop(Family::of(addr), addr),
            Err(_) => return unfit(),
        },
        ["ipv6", "next-hop", "prefer-global"] => {
            return Clause::NotNeeded("routelet resolves the global next hop");
        }
        ["src", addr] => match addr.parse() {
            Ok(addr) => Change::Source(addr),
            Err(_) => return unfit(),
        },
        ["tag", _] | ["metric-type", _] => {
            return Clause::NotNeeded("it has no meaning for routes of BGP in the kernel");
        }
        _ => return unfit(),
    })
}
