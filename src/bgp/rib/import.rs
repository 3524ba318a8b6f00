//! Import: from a received path to its effective attributes, or to the reason why it is refused.
//!
//! A refused path stays in the table with its reason (the table is the Adj-RIB-In), so that a
//! change of settings needs no route refresh and `show routes` can show the reason.

use std::borrow::Cow;

use crate::{
    bgp::{
        peer::{AsSets, Global, Negotiated, PeerConfig, Role},
        policy::{self, Community, Hits, RouteSource, Subject},
        wire::attr::Attrs,
    },
    net::{
        Asn, Guard, Prefix, Refusal,
        guard::{AddressRole, Sender},
    },
};

/// Why a received path is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Guard(Refusal),
    /// The Node may not advertise this prefix.
    NotOfNode,
    /// The AS path contains the own AS number (RFC 4271 §9.1.2).
    AsLoop,
    /// RFC 4456 §8.
    OriginatorLoop,
    ClusterLoop,
    /// RFC 9774 §3.
    AsSet,
    /// RFC 4271 §6.3.
    FirstAs,
    /// RFC 9234 §5.
    Leak,
    Policy,
    /// RFC 8212 §2.
    NoPolicy,
}

impl Refused {
    const ALL: [Self; 22] = [
        Self::Guard(Refusal::Martian),
        Self::Guard(Refusal::TooShort),
        Self::Guard(Refusal::TooMuch),
        Self::Guard(Refusal::Own),
        Self::Guard(Refusal::Connected),
        Self::Guard(Refusal::Protected(AddressRole::OwnAddress)),
        Self::Guard(Refusal::Protected(AddressRole::DefaultGateway)),
        Self::Guard(Refusal::Protected(AddressRole::FormerGateway)),
        Self::Guard(Refusal::Protected(AddressRole::Neighbor)),
        Self::Guard(Refusal::Protected(AddressRole::ApiServer)),
        Self::Guard(Refusal::Protected(AddressRole::Node)),
        Self::Guard(Refusal::Protected(AddressRole::Resolver)),
        Self::Guard(Refusal::Protected(AddressRole::Metadata)),
        Self::NotOfNode,
        Self::AsLoop,
        Self::OriginatorLoop,
        Self::ClusterLoop,
        Self::AsSet,
        Self::FirstAs,
        Self::Leak,
        Self::Policy,
        Self::NoPolicy,
    ];

    /// Number of codes, including 0.
    pub(super) const CODES: usize = Self::ALL.len() + 1;

    /// The code that paths store, never 0.
    pub(super) fn code(self) -> u8 {
        Self::ALL.iter().position(|r| *r == self).map_or(u8::MAX, |n| n as u8 + 1)
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// The reason in `show routes` and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Guard(why) => why.as_str(),
            Self::NotOfNode => "guard: not in the pod CIDRs of the node",
            Self::AsLoop => "loop: own AS number in the AS path",
            Self::OriginatorLoop => "loop: ORIGINATOR_ID is this node",
            Self::ClusterLoop => "loop: own cluster id in the cluster list",
            Self::AsSet => "AS_SET in the AS path (as-sets = \"withdraw\")",
            Self::FirstAs => "AS path does not begin with the neighbor's AS number",
            Self::Leak => "route leak: OTC does not allow it from this neighbor",
            Self::Policy => "rejected by import policy",
            Self::NoPolicy => "no import policy (bgp.require-policy, RFC 8212)",
        }
    }
}

/// A neighbor, as far as import depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker<'a> {
    pub(super) config: &'a PeerConfig,
    pub(super) session: &'a Negotiated,
    pub(super) global: &'a Global,
}

impl Speaker<'_> {
    /// The part of import that holds for all prefixes of an UPDATE: loop detection, OTC and
    /// GRACEFUL_SHUTDOWN. `Cow::Owned` only if attributes changed.
    pub(super) fn attributes<'a>(&self, attrs: &'a Attrs) -> Result<Cow<'a, Attrs>, Refused> {
        self.check(attrs)?;
        let mut attrs = Cow::Borrowed(attrs);
        if let Some(otc) = self.otc_on_arrival(&attrs)? {
            attrs.to_mut().extra.get_or_insert_default().otc = Some(otc);
        }
        // RFC 8326 §4: last choice while the neighbor shuts down.
        if !self.session.is_ibgp() && attrs.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
            attrs.to_mut().local_pref = Some(0);
        }
        Ok(attrs)
    }

    fn check(&self, attrs: &Attrs) -> Result<(), Refused> {
        let (config, session, path) = (self.config, self.session, &attrs.as_path);
        let ebgp = !session.is_ibgp();
        if ebgp && config.lacks_policy.import {
            return Err(Refused::NoPolicy);
        }
        if self.own_numbers_in(attrs) > usize::from(config.allow_own_as) {
            return Err(Refused::AsLoop);
        }
        if config.as_sets == AsSets::Withdraw && path.has_set() {
            return Err(Refused::AsSet);
        }
        // A route server does not put itself into the path (RFC 7947 §2.2.2.1).
        let route_server = config.role == Some(Role::RouteServerClient);
        if ebgp && !route_server && path.first() != Some(session.remote_as) {
            return Err(Refused::FirstAs);
        }
        let Some(extra) = attrs.extra.as_deref().filter(|_| !ebgp) else { return Ok(()) };
        if extra.originator_id == Some(self.global.router_id) {
            return Err(Refused::OriginatorLoop);
        }
        if extra.cluster_list.contains(&self.global.cluster_id.to_bits()) {
            return Err(Refused::ClusterLoop);
        }
        Ok(())
    }

    /// How often the AS path contains the AS number towards this neighbor or that of the node: the
    /// larger of the two.
    fn own_numbers_in(&self, attrs: &Attrs) -> usize {
        let local = attrs.as_path.count(self.config.local_as);
        if self.config.global_as == self.config.local_as {
            local
        } else {
            local.max(attrs.as_path.count(self.config.global_as))
        }
    }

    /// RFC 9234 §5, ingress: the AS number to add as OTC, if any.
    fn otc_on_arrival(&self, attrs: &Attrs) -> Result<Option<Asn>, Refused> {
        let otc = attrs.extra.as_deref().and_then(|r| r.otc);
        let remote = self.session.remote_as;
        match (self.session.role.filter(|_| !self.session.is_ibgp()), otc) {
            (Some(Role::Provider | Role::RouteServer), Some(_)) => Err(Refused::Leak),
            (Some(Role::Peer), Some(n)) if n != remote => Err(Refused::Leak),
            (Some(Role::Customer | Role::Peer | Role::RouteServerClient), None) => Ok(Some(remote)),
            _ => Ok(None),
        }
    }

    /// The part of import that depends on the prefix: the guard, then the import policies,
    /// whose matches are counted in `hits`.
    pub(super) fn prefix(
        &self,
        prefix: Prefix,
        guard: &Guard,
        attrs: &mut Cow<'_, Attrs>,
        hits: &Hits,
    ) -> Result<(), Refused> {
        match guard.refuses(prefix, self.config.accept_default) {
            None => {}
            // A second BGP speaker on this host may advertise an address of an interface, so that
            // it is passed on to other neighbors.
            Some(Refusal::Protected(AddressRole::OwnAddress))
                if prefix.is_host() && self.session.is_on_host() => {}
            Some(why) => return Err(Refused::Guard(why)),
        }
        if let Some(sender) = self.sender(attrs)
            && !guard.nodes().allows(prefix, sender)
        {
            return Err(Refused::NotOfNode);
        }
        if self.config.import.is_empty() {
            return Ok(());
        }
        policy::run(&self.config.import, &self.subject(prefix), attrs, hits).map_err(|_| Refused::Policy)
    }

    /// The Node of the cluster to which a route leads: the neighbor, or for a reflected route
    /// (RFC 4456) its next hop.
    pub(super) fn sender(&self, attrs: &Attrs) -> Option<Sender> {
        if !self.config.is_node {
            return None;
        }
        let extra = attrs.extra.as_deref().filter(|_| self.session.is_ibgp());
        let is_reflected = extra.is_some_and(|r| r.originator_id.is_some());
        let next_hop = is_reflected.then_some(attrs.next_hop.addr);
        Some(Sender { neighbor: self.session.remote_addr, next_hop })
    }

    /// The policy that rejected a path and the number of its statement, for `show routes`.
    pub(super) fn rejected_by(&self, prefix: Prefix, attrs: &Attrs) -> Option<String> {
        let last = self.trace(prefix, attrs).pop().filter(|last| !last.accepted)?;
        let statement = last.statement.map(|n| format!(", statement {n}")).unwrap_or_default();
        Some(format!("{}{statement}", last.policy.name))
    }

    /// How each import policy ended for a path, for `explain`.
    pub(super) fn trace(&self, prefix: Prefix, attrs: &Attrs) -> Vec<policy::Decided<'_>> {
        let Ok(mut attrs) = self.attributes(attrs) else { return Vec::new() };
        policy::trace(&self.config.import, &self.subject(prefix), &mut attrs)
    }

    fn subject(&self, prefix: Prefix) -> Subject<'_> {
        Subject {
            prefix,
            source: RouteSource::Bgp,
            from: Some(&self.config.key),
            to: None,
            own_as: self.config.local_as,
            own_next_hop: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::{
        rib::tests::{attrs, config, global, negotiated},
        wire::attr::{AsPath, ExtraAttrs},
    };

    #[test]
    fn every_reason_has_its_code() {
        for why in Refused::ALL {
            assert_eq!(Refused::from_code(why.code()), Some(why));
        }
        assert_eq!(Refused::from_code(0), None);
    }

    #[test]
    fn loops_and_wrong_paths_are_refused_by_name() {
        // We are 65000, router id 10.0.0.1; the eBGP neighbor is 65001.
        let extra = |r: ExtraAttrs| Some(Box::new(r));
        let own = global().router_id;
        let set = AsPath::from_wire(&[2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 9]).unwrap();
        #[rustfmt::skip]
        let cases = [
            ("plain",             65001, AsPath::sequence(&[65001]), None, Ok(())),
            ("own number",        65001, AsPath::sequence(&[65001, 65000]), None, Err(Refused::AsLoop)),
            ("own number, iBGP",  65000, AsPath::sequence(&[65000]), None, Err(Refused::AsLoop)),
            ("first AS",          65001, AsPath::sequence(&[65002]), None, Err(Refused::FirstAs)),
            ("no path, eBGP",     65001, AsPath::empty(), None, Err(Refused::FirstAs)),
            ("no path, iBGP",     65000, AsPath::empty(), None, Ok(())),
            ("set",               65001, set, None, Err(Refused::AsSet)),
            ("own originator",    65000, AsPath::empty(), extra(ExtraAttrs { originator_id: Some(own), ..ExtraAttrs::default() }), Err(Refused::OriginatorLoop)),
            ("own cluster",       65000, AsPath::empty(), extra(ExtraAttrs { cluster_list: vec![own.to_bits()], ..ExtraAttrs::default() }), Err(Refused::ClusterLoop)),
        ];
        for (name, remote_as, as_path, extra, expected) in cases {
            let (config, session, global) = (config(1), negotiated(1, remote_as), global());
            let from = Speaker { config: &config, session: &session, global: &global };
            let path = Attrs { as_path, extra, ..attrs(0) };
            assert_eq!(from.attributes(&path).map(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn own_numbers_are_allowed_as_often_as_configured() {
        let (mut config, session, global) = ((*config(1)).clone(), negotiated(1, 65001), global());
        config.allow_own_as = 1;
        for (path, ok) in [(&[65001, 65000][..], true), (&[65001, 65000, 65000], false)] {
            let from = Speaker { config: &config, session: &session, global: &global };
            let path = Attrs { as_path: AsPath::sequence(path), ..attrs(0) };
            assert_eq!(from.attributes(&path).is_ok(), ok, "{path:?}");
        }
    }

    #[test]
    fn only_to_customer_is_checked_and_set_by_role() {
        #[rustfmt::skip]
        let cases = [
            (Role::Provider,          Some(9),     Err(Refused::Leak)),
            (Role::Provider,          None,        Ok(None)),
            (Role::RouteServer,       Some(65001), Err(Refused::Leak)),
            (Role::Peer,              Some(9),     Err(Refused::Leak)),
            (Role::Peer,              Some(65001), Ok(Some(65001))),
            (Role::Peer,              None,        Ok(Some(65001))),
            (Role::Customer,          None,        Ok(Some(65001))),
            (Role::Customer,          Some(9),     Ok(Some(9))),
            (Role::RouteServerClient, None,        Ok(Some(65001))),
        ];
        for (role, otc, expected) in cases {
            let (config, global) = (config(1), global());
            let session = Negotiated { role: Some(role), ..negotiated(1, 65001) };
            let from = Speaker { config: &config, session: &session, global: &global };
            let mut path = Attrs { as_path: AsPath::sequence(&[65001]), ..attrs(0) };
            path.extra = otc.map(|n| Box::new(ExtraAttrs { otc: Some(n), ..ExtraAttrs::default() }));
            let got = from.attributes(&path).map(|a| a.extra.as_deref().and_then(|r| r.otc));
            assert_eq!(got, expected, "{role:?} {otc:?}");
        }
    }
}
