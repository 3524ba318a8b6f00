//! `[[policy.NAME]]`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    NeighborId,
    read::{Item, Section},
    values::{self, FAMILIES, asn, community, unmasked},
};
use crate::{
    bgp::{
        peer::PeerKey,
        policy::{Action, Match, NextHopSetting, Policy, PrefixRange, RouteSource, Set, Statement},
    },
    net::Prefix,
};

/// All policies by name.
pub(super) fn read(section: &Section<'_>) -> BTreeMap<String, Arc<Policy>> {
    section
        .entries()
        .map(|(name, item)| {
            let statements = item.tables().into_iter().map(statement).collect();
            (name.to_owned(), Arc::new(Policy::new(name, statements)))
        })
        .collect()
}

fn statement(section: Section<'_>) -> Statement {
    let matches = matches(&section);
    let set = changes(&section);
    let action = section
        .get("action")
        .and_then(|i| i.choice(&[("accept", Action::Accept), ("reject", Action::Reject)]));
    if action == Some(Action::Reject) && set != Set::default() {
        section.error("action", "a rejected route is not changed; remove the set keys, or accept it");
    }
    if section.get("action").is_none() && !SETS.iter().any(|key| section.get(key).is_some()) {
        section.error("", "does nothing: write `action`, or one of the set keys");
    }
    section.close();
    Statement { matches, set, action }
}

/// The keys that change a route.
const SETS: [&str; 6] =
    ["set-local-pref", "set-med", "add-communities", "remove-communities", "prepend-as", "set-next-hop"];

fn matches(section: &Section<'_>) -> Match {
    let sources = [
        ("pod-cidr", RouteSource::PodCidr),
        ("service", RouteSource::Service),
        ("network", RouteSource::Network),
        ("interface", RouteSource::Interface),
        ("bgp", RouteSource::Bgp),
    ];
    Match {
        prefixes: list(section, "prefixes", prefix_range),
        families: list(section, "families", |i| i.choice(&FAMILIES)),
        neighbors: list(section, "neighbors", neighbor),
        as_path: section.get("as-path").and_then(|i| i.parsed()),
        origin_as: list(section, "origin-as", asn),
        communities: list(section, "communities", community),
        source: list(section, "source", |i| i.choice(&sources)),
        next_hop: list(section, "next-hop", address_or_prefix),
    }
}

fn changes(section: &Section<'_>) -> Set {
    Set {
        local_pref: section.get("set-local-pref").and_then(|i| i.number(0..=u32::MAX.into())),
        med: section.get("set-med").and_then(|i| i.number(0..=u32::MAX.into())),
        add_communities: list(section, "add-communities", community),
        remove_communities: list(section, "remove-communities", community),
        prepend_as: section.get("prepend-as").and_then(|i| i.number(1..=50)).unwrap_or(0),
        next_hop: section.get("set-next-hop").and_then(|i| next_hop(&i)),
    }
}

/// A list that, where it is written, names something: an empty condition would match all.
fn list<'a, T: PartialEq>(
    section: &Section<'a>,
    key: &'static str,
    read: impl Fn(&Item<'a>) -> Option<T>,
) -> Vec<T> {
    let Some(item) = section.get(key) else { return Vec::new() };
    if item.value.get_ref().as_array().is_some_and(|a| a.is_empty()) {
        item.error("is empty; name something, or leave the key out");
    }
    item.set(read).unwrap_or_default()
}

fn prefix_range(item: &Item<'_>) -> Option<PrefixRange> {
    let text = item.text()?;
    let range: PrefixRange = item.parsed()?;
    let bare = text.split_once('{').map_or(text, |(prefix, _)| prefix);
    unmasked(bare, range.prefix).map_err(|what| item.error(what)).ok()?;
    Some(range)
}

/// An address, a link-local one with its interface, or the interface of an unnumbered neighbor.
fn neighbor(item: &Item<'_>) -> Option<PeerKey> {
    let text = item.text()?;
    let found = match values::at(text) {
        Ok(NeighborId::Address(addr)) => Ok(PeerKey::Address(addr)),
        Ok(NeighborId::LinkLocal(addr, interface)) => Ok(PeerKey::LinkLocal(addr, interface)),
        Ok(_) => Err("gateways have addresses of their own; write those".to_owned()),
        Err(_) if !text.contains(['.', ':', '%']) && values::interface_name_is_good(text).is_ok() => {
            Ok(PeerKey::Interface(text.to_owned()))
        }
        Err(what) => Err(what),
    };
    found.map_err(|what| item.error(what)).ok()
}

fn address_or_prefix(item: &Item<'_>) -> Option<Prefix> {
    if item.text()?.contains('/') { values::prefix(item) } else { values::address(item).map(Prefix::host) }
}

fn next_hop(item: &Item<'_>) -> Option<NextHopSetting> {
    if item.text()? == "self" {
        Some(NextHopSetting::Own)
    } else {
        values::address(item).map(NextHopSetting::Address)
    }
}
