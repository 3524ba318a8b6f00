use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{Action, Community, Hits, Match, NextHopSetting, Policy, RouteSource, Set, ValueList};
use crate::{
    bgp::{
        peer::PeerKey,
        wire::attr::{Attrs, ExtraAttrs, PathNextHop},
    },
    net::{Asn, Prefix},
};

/// What conditions depend on besides the attributes.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub prefix: Prefix,
    pub source: RouteSource,
    /// The neighbor the route was learned from; `None` for originated routes.
    pub from: Option<&'a PeerKey>,
    /// The neighbor the route is advertised to, on export.
    pub to: Option<&'a PeerKey>,
    /// Prepended to the path by `prepend-as`; also the origin of originated routes.
    pub own_as: Asn,
    /// Value of `set-next-hop = "self"`.
    pub own_next_hop: Option<IpAddr>,
}

/// Runs `policies` in order over a route; `Err` is the policy that rejected it. Changes are in
/// `attrs`, which is copied only if something changes. The statements that match are counted in
/// `hits`.
pub fn run<'p>(
    policies: &'p [Arc<Policy>],
    subject: &Subject<'_>,
    attrs: &mut Cow<'_, Attrs>,
    hits: &Hits,
) -> Result<(), &'p Policy> {
    for (n, policy) in policies.iter().enumerate() {
        if !policy.decide(subject, attrs, |statement| hits.add(n, statement)).1 {
            return Err(policy);
        }
    }
    Ok(())
}

/// How one policy ended for a route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decided<'p> {
    pub policy: &'p Policy,
    /// Number of the statement that ended it, from 1; `None`: no statement did.
    pub statement: Option<usize>,
    pub accepted: bool,
}

/// Runs `policies` like [`run`], and returns how each of them ended, up to one that rejects.
/// Nothing is counted.
pub fn trace<'p>(
    policies: &'p [Arc<Policy>],
    subject: &Subject<'_>,
    attrs: &mut Cow<'_, Attrs>,
) -> Vec<Decided<'p>> {
    let mut decided = Vec::new();
    for policy in policies {
        let (statement, accepted) = policy.decide(subject, attrs, |_| {});
        decided.push(Decided { policy, statement, accepted });
        if !accepted {
            break;
        }
    }
    decided
}

impl Policy {
    /// The number of the statement that ends the policy, from 1, and whether the route is accepted.
    /// `matched` gets the index of each statement that matches, and the number of statements if
    /// none ends the policy.
    fn decide(
        &self,
        subject: &Subject<'_>,
        attrs: &mut Cow<'_, Attrs>,
        matched: impl Fn(usize),
    ) -> (Option<usize>, bool) {
        for (number, statement) in (1..).zip(&self.statements) {
            if !statement.matches.holds(subject, attrs) {
                continue;
            }
            matched(number - 1);
            if statement.action != Some(Action::Reject) {
                statement.set.apply(subject, attrs);
            }
            match statement.action {
                Some(action) => return (Some(number), action == Action::Accept),
                None => continue,
            }
        }
        matched(self.statements.len());
        (None, true)
    }
}

impl Match {
    fn holds(&self, subject: &Subject<'_>, attrs: &Attrs) -> bool {
        (self.prefixes.is_empty() || self.prefixes.matches(subject.prefix))
            && any(&self.families, |f| *f == subject.prefix.family())
            && any(&self.neighbors, |n| [subject.from, subject.to].into_iter().flatten().any(|key| key.is(n)))
            && any(&self.source, |s| *s == subject.source)
            && (self.next_hop.is_empty() || self.next_hop.matches(Prefix::host(attrs.next_hop.addr)))
            && self.fits(attrs, subject.own_as)
    }

    /// Whether the conditions on communities and the AS path hold.
    pub fn fits(&self, attrs: &Attrs, own_as: Asn) -> bool {
        (self.communities.is_empty() || has_one_of(attrs, &self.communities))
            && (self.origin_as.is_empty()
                || self.origin_as.contains(&attrs.as_path.origin_as().unwrap_or(own_as)))
            && self.as_path.as_ref().is_none_or(|p| p.is_match(&attrs.as_path.to_string()))
    }
}

/// An empty list is no condition.
fn any<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

/// Looks each community of the route up, as the list may be longer than the attribute.
fn has_one_of(attrs: &Attrs, list: &ValueList<Community>) -> bool {
    let extra = attrs.extra.as_deref();
    attrs.communities.iter().any(|c| list.contains(&Community::Standard(*c)))
        || extra.is_some_and(|e| e.large_communities.iter().any(|c| list.contains(&Community::Large(*c))))
        || extra.is_some_and(|e| e.ext_communities.iter().any(|c| list.contains(&Community::Ext(*c))))
}

fn has_community(attrs: &Attrs, community: Community) -> bool {
    let extra = attrs.extra.as_deref();
    match community {
        Community::Standard(c) => attrs.communities.contains(&c),
        Community::Large(c) => extra.is_some_and(|r| r.large_communities.contains(&c)),
        Community::Ext(c) => extra.is_some_and(|r| r.ext_communities.contains(&c)),
    }
}

impl Set {
    fn apply(&self, subject: &Subject<'_>, attrs: &mut Cow<'_, Attrs>) {
        if *self == Self::default() {
            return;
        }
        let attrs = attrs.to_mut();
        attrs.local_pref = self.local_pref.or(attrs.local_pref);
        attrs.med = self.med.or(attrs.med);
        self.remove_communities.iter().for_each(|c| remove_community(attrs, *c));
        self.add_communities.iter().for_each(|c| add_community(attrs, *c));
        if self.prepend_as > 0 {
            attrs.as_path = attrs.as_path.prepended(subject.own_as, self.prepend_as.into());
        }
        let addr = match self.next_hop {
            Some(NextHopSetting::Address(addr)) => Some(addr),
            Some(NextHopSetting::Own) => subject.own_next_hop,
            None => None,
        };
        if let Some(addr) = addr {
            attrs.next_hop = PathNextHop { addr, link_local: None };
        }
    }
}

fn remove_community(attrs: &mut Attrs, community: Community) {
    match (community, attrs.extra.as_deref_mut()) {
        (Community::Standard(c), _) if attrs.communities.contains(&c) => {
            attrs.communities = attrs.communities.iter().copied().filter(|have| *have != c).collect();
        }
        (Community::Large(c), Some(extra)) => extra.large_communities.retain(|have| *have != c),
        (Community::Ext(c), Some(extra)) => extra.ext_communities.retain(|have| *have != c),
        _ => {}
    }
    // So that equal attributes compare equal.
    if attrs.extra.as_deref() == Some(&ExtraAttrs::default()) {
        attrs.extra = None;
    }
}

/// Adds a community unless it is present.
fn add_community(attrs: &mut Attrs, community: Community) {
    if has_community(attrs, community) {
        return;
    }
    match community {
        Community::Standard(c) => {
            attrs.communities = attrs.communities.iter().copied().chain([c]).collect();
        }
        Community::Large(c) => attrs.extra.get_or_insert_default().large_communities.push(c),
        Community::Ext(c) => attrs.extra.get_or_insert_default().ext_communities.push(c),
    }
}
