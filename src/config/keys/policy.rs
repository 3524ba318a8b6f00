//! A statement of `[[policy.NAME]]`.

use super::{Shape, kinds::With, section};
use crate::{
    bgp::{
        peer::PeerKey,
        policy::{
            Action, AsPathPattern, Community, Match, NextHopSetting, PrefixRange, PrefixRanges, RouteSource,
            Set, Statement,
        },
    },
    config::{
        NeighborId,
        read::Item,
        values::{self, FAMILIES, asn, community, unmasked},
    },
    net::{Asn, Family, Prefix},
};

section! {
    /// Policies that neighbors name in `import` and `export`: statements in order. The first that
    /// matches and has an action ends the policy, and a route that none ends is accepted.
    pub(in crate::config) struct StatementKeys at "[[policy.NAME]]" {
        /// Matches these prefixes: "10.0.0.0/8", or with "10.0.0.0/8{24,32}" those inside it with a
        /// length of 24 to 32.
        "prefixes" prefixes: Vec<PrefixRange> = Vec::new(), NotEmpty(written(prefix_range)),
            Example("[\"10.0.0.0/8{16,24}\"]");
        /// Matches these address families.
        "families" families: Vec<Family> = Vec::new(), NotEmpty(Choice(&FAMILIES)),
            Example("[\"ipv4-unicast\"]");
        /// Matches routes of these neighbors.
        "neighbors" neighbors: Vec<PeerKey> = Vec::new(), NotEmpty(written(neighbor)),
            Example("[\"10.1.1.1\"]");
        /// Matches the AS path: a regular expression over the AS numbers.
        "as-path" as_path: Option<AsPathPattern> = None, Optional(as_path()),
            Example("\"^10000( |$)\"");
        /// Matches the last AS number of the path.
        "origin-as" origin_as: Vec<Asn> = Vec::new(), NotEmpty(origin_as()), Example("[10000]");
        /// Matches routes with one of these communities.
        "communities" communities: Vec<Community> = Vec::new(), NotEmpty(written(community)),
            Example("[\"65001:7\"]");
        /// Matches the origin of a route: "pod-cidr", "service", "network", "interface" or "bgp".
        "source" source: Vec<RouteSource> = Vec::new(), NotEmpty(Choice(&SOURCES)), Example("[\"bgp\"]");
        /// Matches these next hops: addresses and prefixes.
        "next-hop" next_hop: Vec<Prefix> = Vec::new(), NotEmpty(written(address_or_prefix)),
            Example("[\"10.1.1.0/24\"]");
        /// Sets LOCAL_PREF.
        "set-local-pref" set_local_pref: Option<u32> = None, Optional(number(0..=u32::MAX.into())),
            Example("200");
        /// Sets MED.
        "set-med" set_med: Option<u32> = None, Optional(number(0..=u32::MAX.into())), Example("10");
        /// Adds communities.
        "add-communities" add_communities: Vec<Community> = Vec::new(), NotEmpty(written(community)),
            Example("[\"65001:8\"]");
        /// Removes communities.
        "remove-communities" remove_communities: Vec<Community> = Vec::new(), NotEmpty(written(community)),
            Example("[\"65001:9\"]");
        /// Prepends the own AS number this many times.
        "prepend-as" prepend_as: Option<u8> = None, Optional(number(1..=50)), Example("1");
        /// Sets the next hop: an address, or "self".
        "set-next-hop" set_next_hop: Option<NextHopSetting> = None, Optional(next_hop()),
            Example("\"self\"");
        /// "accept" or "reject"; without one the next statement is evaluated.
        "action" action: Option<Action> = None, Optional(Choice(&ACTIONS)), Example("\"accept\"");
    }
}

impl From<StatementKeys> for Statement {
    fn from(keys: StatementKeys) -> Self {
        let matches = Match {
            prefixes: keys.prefixes.into(),
            families: keys.families,
            neighbors: keys.neighbors,
            as_path: keys.as_path,
            origin_as: keys.origin_as.into(),
            communities: keys.communities.into(),
            source: keys.source,
            next_hop: PrefixRanges::inside(&keys.next_hop),
        };
        let set = Set {
            local_pref: keys.set_local_pref,
            med: keys.set_med,
            add_communities: keys.add_communities,
            remove_communities: keys.remove_communities,
            prepend_as: keys.prepend_as.unwrap_or(0),
            next_hop: keys.set_next_hop,
        };
        Self { matches, set, action: keys.action }
    }
}

impl From<&Statement> for StatementKeys {
    fn from(statement: &Statement) -> Self {
        let Statement { matches, set, action } = statement.clone();
        Self {
            prefixes: matches.prefixes.to_vec(),
            families: matches.families,
            neighbors: matches.neighbors,
            as_path: matches.as_path,
            origin_as: matches.origin_as.to_vec(),
            communities: matches.communities.to_vec(),
            source: matches.source,
            next_hop: matches.next_hop.iter().map(|range| range.prefix).collect(),
            set_local_pref: set.local_pref,
            set_med: set.med,
            add_communities: set.add_communities,
            remove_communities: set.remove_communities,
            prepend_as: Some(set.prepend_as).filter(|n| *n > 0),
            set_next_hop: set.next_hop,
            action,
        }
    }
}

const SOURCES: [(&str, RouteSource); 5] = [
    ("pod-cidr", RouteSource::PodCidr),
    ("service", RouteSource::Service),
    ("network", RouteSource::Network),
    ("interface", RouteSource::Interface),
    ("bgp", RouteSource::Bgp),
];

const ACTIONS: [(&str, Action); 2] = [("accept", Action::Accept), ("reject", Action::Reject)];

fn prefix_range(item: &Item<'_>) -> Option<PrefixRange> {
    let text = item.text()?;
    let range: PrefixRange = item.parsed()?;
    let bare = text.split_once('{').map_or(text, |(prefix, _)| prefix);
    unmasked(bare, range.prefix).map_err(|what| item.error(what)).ok()?;
    Some(range)
}

fn as_path() -> With<AsPathPattern> {
    With { read: |item| item.parsed(), show: |pattern| pattern.as_str().into(), shape: || Shape::Text }
}

fn origin_as() -> With<Asn> {
    let shape = || Shape::Number { min: 1, max: 4_294_967_294 };
    With { read: asn, show: |asn| (*asn).into(), shape }
}

/// An address, a link-local one with its interface, or the interface of an unnumbered neighbor.
fn neighbor(item: &Item<'_>) -> Option<PeerKey> {
    let text = item.text()?;
    match values::at(text) {
        Ok(NeighborId::Address(addr)) => return Some(PeerKey::Address(addr)),
        Ok(NeighborId::LinkLocal(addr, interface)) => return Some(PeerKey::LinkLocal(addr, interface)),
        Ok(_) => item.error("gateways have addresses of their own; write those"),
        Err(_) if !text.contains(['.', ':', '%']) && values::interface_name_is_good(text).is_ok() => {
            return Some(PeerKey::Interface(text.to_owned()));
        }
        Err(what) => item.error(what),
    }
    None
}

fn address_or_prefix(item: &Item<'_>) -> Option<Prefix> {
    if item.text()?.contains('/') { values::prefix(item) } else { values::address(item).map(Prefix::host) }
}

fn next_hop() -> With<NextHopSetting> {
    With {
        read: |item| match item.text()? {
            "self" => Some(NextHopSetting::Own),
            _ => values::address(item).map(NextHopSetting::Address),
        },
        show: |next_hop| match next_hop {
            NextHopSetting::Own => "self".into(),
            NextHopSetting::Address(address) => address.to_string().into(),
        },
        shape: || Shape::Text,
    }
}
