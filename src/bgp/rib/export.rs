//! Export: which routes are advertised to a neighbor, and with which attributes (RFC 4271 §9.1.3,
//! §9.2, §5.1; RFC 4456; RFC 1997; RFC 9234).
//!
//! A [`View`] is all that export depends on: neighbors with equal views form one update group. The
//! neighbor's AS number is not part of it on purpose. A path that contains it is advertised and
//! discarded by the neighbor's own loop detection; in exchange all switches of a rack share one
//! group.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{
    policies::SharedHits,
    view::{NotAdvertised, Withheld},
};
use crate::{
    bgp::{
        peer::{Global, Hops, Negotiated, PeerConfig, PeerKey, PeerSource, Role},
        policy::{self, Community, Policy, RouteSource, Subject},
        wire::{
            Shape,
            attr::{Attrs, ExtraAttrs, PathNextHop},
        },
    },
    net::{Asn, Family, PerFamily, Prefix, RouterId, Source},
};

/// LOCAL_PREF of routes without one (RFC 4271 §9.1.1 leaves the value to the implementation).
pub(super) const DEFAULT_LOCAL_PREF: u32 = 100;

/// Default of `max-prefixes-out` for neighbors to which own routes only are advertised: a host with
/// more own routes has a leak.
const MAX_OWN_ROUTES: u32 = 10_000;

/// Everything that the export of one family to a neighbor depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) family: Family,
    pub(super) shape: Shape,
    ibgp: bool,
    audience: Audience,
    /// Another node of the cluster.
    is_node: bool,
    client: bool,
    next_hop_self: bool,
    local_as: Asn,
    global_as: Asn,
    cluster_id: RouterId,
    /// The own next hop; without it, only routes with third-party next hops are advertised.
    own: Option<PathNextHop>,
    /// Subnets in which third-party next hops may be; `None`: anywhere.
    third_parties: Option<Vec<Prefix>>,
    role: Option<Role>,
    /// RFC 9494 §4.3: whether long-lived stale routes may be advertised to it.
    long_lived: bool,
    export: Vec<Arc<Policy>>,
    /// Matches of its statements.
    pub(super) hits: SharedHits,
    /// RFC 8212 §2: an export policy is required and there is none.
    denied: bool,
    /// `max-prefixes-out`; 0 is none.
    max_prefixes: u32,
    /// The neighbor, if a policy matches on it, or if a limit counts routes that differ between
    /// neighbors. It then has a group of its own.
    to: Option<PeerKey>,
}

/// Which routes are advertised to a neighbor, apart from reflection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Own routes.
    Own,
    /// Also routes of other ASes (RFC 4271 §9.2), towards iBGP.
    External,
    /// `transit`: all routes that the rules of iBGP allow.
    All,
}

/// Source of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    Own(Source),
    Learned { from: &'a PeerKey, internal: bool, client: bool, router_id: RouterId },
}

impl View {
    pub(super) fn new(family: Family, config: &PeerConfig, session: &Negotiated, global: &Global) -> Self {
        let ibgp = session.is_ibgp();
        let made = matches!(config.source, PeerSource::Gateway | PeerSource::Mesh | PeerSource::Reflector);
        let audience = match (config.transit, ibgp && !made) {
            (true, _) => Audience::All,
            (false, true) => Audience::External,
            (false, false) => Audience::Own,
        };
        let matches_neighbors = config.export.iter().any(|p| p.names_neighbors());
        let own_only = !ibgp && audience == Audience::Own;
        let default = if own_only { MAX_OWN_ROUTES } else { 0 };
        let max_prefixes = config.max_prefixes_out.unwrap_or(default);
        let of_family = |it: bool| PerFamily::of(|f| it && f == family);
        let shape = session.shape();
        let add_path_send = of_family(shape.add_path_send(family));
        Self {
            family,
            shape: Shape {
                families: of_family(true),
                first_as: None,
                add_path_receive: PerFamily::both(false),
                add_path_send,
                on_host: false,
                ..shape
            },
            ibgp,
            audience,
            is_node: matches!(config.source, PeerSource::Mesh | PeerSource::Reflector),
            client: config.route_reflector_client,
            next_hop_self: config.next_hop_self.unwrap_or(!ibgp),
            local_as: config.local_as,
            global_as: config.global_as,
            cluster_id: global.cluster_id,
            own: own_next_hop(family, config, session),
            third_parties: third_parties(family, config, session),
            role: session.role.filter(|_| !ibgp),
            long_lived: config.long_lived_stale_time == 0
                || session.graceful.as_ref().is_some_and(|g| g.long_lived.iter().any(|(f, ..)| *f == family)),
            export: config.export.clone(),
            hits: SharedHits::default(),
            denied: !ibgp && config.lacks_policy.export,
            max_prefixes,
            to: (matches_neighbors || max_prefixes > 0 && !own_only).then(|| config.key.clone()),
        }
    }

    /// Whether there is an own next hop for this family.
    pub(super) fn has_next_hop(&self) -> bool {
        self.own.is_some()
    }

    /// Whether all paths of a prefix are advertised instead of the best (ADD-PATH, RFC 7911).
    pub(super) fn sends_paths(&self) -> bool {
        self.shape.add_path_send(self.family)
    }

    /// Most routes to advertise.
    pub(super) fn max_prefixes(&self) -> Option<u32> {
        (self.max_prefixes > 0).then_some(self.max_prefixes)
    }

    /// Whether it is the view of a single neighbor, whatever the settings of others.
    pub(super) fn is_for_one_neighbor(&self) -> bool {
        self.to.is_some()
    }

    /// Whether the own next hop is the only one that can be advertised.
    pub(super) fn always_own_next_hop(&self) -> bool {
        !self.ibgp && self.next_hop_self && self.export.is_empty()
    }

    /// Whether export has the same result for all prefixes with the same attributes from the same
    /// neighbor.
    pub(super) fn is_uniform(&self) -> bool {
        self.export.is_empty()
    }

    /// The attributes with which a path is advertised, if it is; borrowed if they do not change.
    pub(super) fn export<'a>(
        &self,
        prefix: Prefix,
        attrs: &'a Attrs,
        origin: Origin<'_>,
    ) -> Option<Cow<'a, Attrs>> {
        let reflected = self.may_advertise(attrs, origin)?;
        let mut out = Cow::Borrowed(attrs);
        // RFC 4271 §5.1.4: a received MED is not passed on to other ASes; our own is sent.
        if !self.ibgp && attrs.med.is_some() && matches!(origin, Origin::Learned { .. }) {
            out.to_mut().med = None;
        }
        if !self.export.is_empty() {
            policy::run(&self.export, &self.subject(prefix, origin), &mut out, &self.hits).ok()?;
        }
        let set_by_policy = out.next_hop != attrs.next_hop;
        let next_hop = if set_by_policy { out.next_hop } else { self.next_hop(attrs, origin, reflected)? };
        if out.next_hop != next_hop {
            out.to_mut().next_hop = next_hop;
        }
        if self.ibgp {
            self.finish_internal(&mut out, origin, reflected);
        } else {
            self.finish_external(out.to_mut());
        }
        Some(out)
    }

    /// Why an own route is not advertised, for `explain`; `None` if export allows it.
    pub(super) fn why_not(&self, prefix: Prefix, attrs: &Attrs, source: Source) -> Option<NotAdvertised> {
        let origin = Origin::Own(source);
        if self.denied {
            return Some(NotAdvertised::NoPolicy);
        }
        if self.may_advertise(attrs, origin).is_none() {
            return Some(NotAdvertised::ServiceToNode);
        }
        let mut out = Cow::Borrowed(attrs);
        let decided = policy::trace(&self.export, &self.subject(prefix, origin), &mut out);
        if let Some(last) = decided.last().filter(|d| !d.accepted) {
            let (policy, statement) = (last.policy.name.clone(), last.statement.unwrap_or_default());
            return Some(NotAdvertised::Policy { policy, statement });
        }
        let lacks_next_hop = out.next_hop == attrs.next_hop && self.own.is_none();
        lacks_next_hop.then_some(NotAdvertised::NoNextHop)
    }

    /// The same for problems; `None` also where nobody expects it to be advertised.
    pub(super) fn withholds(&self, prefix: Prefix, attrs: &Attrs, source: Source) -> Option<Withheld> {
        match self.why_not(prefix, attrs, source)? {
            NotAdvertised::NoPolicy => Some(Withheld::PolicyRequired),
            NotAdvertised::Policy { policy, .. } => Some(Withheld::Policy(policy)),
            NotAdvertised::NoNextHop => Some(Withheld::NoNextHop(self.family)),
            NotAdvertised::ServiceToNode
            | NotAdvertised::NoSession
            | NotAdvertised::NoFamily
            | NotAdvertised::Withheld
            | NotAdvertised::Pending => None,
        }
    }

    /// `None` if a path may not be advertised, else whether it is reflected.
    fn may_advertise(&self, attrs: &Attrs, origin: Origin<'_>) -> Option<bool> {
        if self.denied {
            return None;
        }
        let (internal, client) = match origin {
            // Nodes would not use them, as each has kube-proxy. This saves a thousand nodes a
            // thousand Services each.
            Origin::Own(Source::Service) if self.is_node => return None,
            Origin::Own(_) => return Some(false),
            Origin::Learned { internal, client, .. } => (internal, client),
        };
        let has = |c: u32| attrs.communities.contains(&c);
        if has(Community::NO_ADVERTISE) {
            return None;
        }
        // RFC 7999 §3.2: blackhole routes are not passed on to other ASes.
        let stays = [Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED, Community::BLACKHOLE];
        if !self.ibgp && stays.into_iter().any(has) {
            return None;
        }
        if !self.long_lived && has(Community::LLGR_STALE) {
            return None;
        }
        // RFC 9234 §5, egress 2: routes with OTC are advertised to customers only.
        let otc = attrs.extra.as_deref().is_some_and(|r| r.otc.is_some());
        if otc && matches!(self.role, Some(Role::Customer | Role::Peer | Role::RouteServerClient)) {
            return None;
        }
        match (internal, self.ibgp) {
            // RFC 4456 §6: from a client to all, from non-clients to clients.
            (true, true) => (client || self.client).then_some(true),
            (false, true) => (self.audience != Audience::Own).then_some(false),
            (_, false) => (self.audience == Audience::All).then_some(false),
        }
    }

    fn subject<'s>(&'s self, prefix: Prefix, origin: Origin<'s>) -> Subject<'s> {
        let (source, from) = match origin {
            Origin::Own(source) => (RouteSource::from(source), None),
            Origin::Learned { from, .. } => (RouteSource::Bgp, Some(from)),
        };
        let own_next_hop = self.own.map(|n| n.addr);
        Subject { prefix, source, from, to: self.to.as_ref(), own_as: self.local_as, own_next_hop }
    }

    /// The next hop to advertise (RFC 4271 §5.1.3). Reflection does not change it (RFC 4456 §10)
    /// unless the neighbor could not use it.
    fn next_hop(&self, attrs: &Attrs, origin: Origin<'_>, reflected: bool) -> Option<PathNextHop> {
        let usable = match attrs.next_hop.addr {
            IpAddr::V4(a) => !(a.is_unspecified() || a.is_loopback()),
            IpAddr::V6(a) => {
                let crosses = self.family == Family::Ipv4Unicast && !self.shape.extended_next_hop;
                !(a.is_unspecified() || a.is_loopback() || a.is_unicast_link_local() || crosses)
            }
        };
        let addr = attrs.next_hop.addr;
        let shared =
            self.third_parties.as_ref().is_none_or(|subnets| subnets.iter().any(|s| s.contains(addr)));
        let own =
            matches!(origin, Origin::Own(_)) || (self.next_hop_self && !reflected) || !usable || !shared;
        if own { self.own } else { Some(PathNextHop { link_local: None, ..attrs.next_hop }) }
    }

    fn finish_internal(&self, out: &mut Cow<'_, Attrs>, origin: Origin<'_>, reflected: bool) {
        // RFC 8326 §4: external neighbors lower LOCAL_PREF themselves. Inside the AS they do not,
        // so the node that shuts down sends 0.
        let leaves =
            matches!(origin, Origin::Own(_)) && out.communities.contains(&Community::GRACEFUL_SHUTDOWN);
        if leaves {
            out.to_mut().local_pref = Some(0);
        } else if out.local_pref.is_none() {
            out.to_mut().local_pref = Some(DEFAULT_LOCAL_PREF);
        }
        if let Origin::Learned { router_id, .. } = origin
            && reflected
        {
            let extra = out.to_mut().extra.get_or_insert_default();
            extra.originator_id.get_or_insert(router_id);
            extra.cluster_list.insert(0, self.cluster_id.to_bits());
        }
    }

    fn finish_external(&self, out: &mut Attrs) {
        if self.global_as != self.local_as {
            out.as_path = out.as_path.prepended(self.global_as, 1);
        }
        out.as_path = out.as_path.prepended(self.local_as, 1);
        out.local_pref = None;
        if let Some(extra) = out.extra.as_deref_mut() {
            extra.originator_id = None;
            extra.cluster_list.clear();
            // RFC 4360 §6: the T bit keeps a community inside the AS.
            extra.ext_communities.retain(|c| c[0] & 0x40 == 0);
        }
        // RFC 9234 §5, egress 1.
        if matches!(self.role, Some(Role::Provider | Role::Peer | Role::RouteServer)) {
            out.extra.get_or_insert_default().otc.get_or_insert(self.local_as);
        }
        if out.extra.as_deref() == Some(&ExtraAttrs::default()) {
            out.extra = None;
        }
    }
}

/// Subnets of third-party next hops: for a directly connected external neighbor the subnets that it
/// shares (RFC 4271 §5.1.3, item 2); for one that is further away `next-hop-self = false` passes on
/// any next hop (item 3).
fn third_parties(family: Family, config: &PeerConfig, session: &Negotiated) -> Option<Vec<Prefix>> {
    let is_direct = matches!(config.hops, Hops::Direct | Hops::Security(1) | Hops::SecurityWhereOffered);
    let is_limited = !session.is_ibgp() && is_direct && config.next_hop_self == Some(false);
    let neighbor = session.remote_addr;
    // IPv4 routes may have IPv6 next hops (RFC 8950). Neighbors of one listen-range may be on
    // several subnets.
    let can_be = |p: &&Prefix| {
        let is_its = p.family() != Family::of(neighbor) || session.ifindex != 0 || p.contains(neighbor);
        is_its && (family == Family::Ipv4Unicast || p.family() == family)
    };
    is_limited.then(|| config.shared.iter().filter(can_be).copied().collect())
}

/// The own address of the family on the session's interface, or for IPv4 an IPv6 address if RFC
/// 8950 was negotiated. If the neighbor is on the same link, the link-local address is included
/// (RFC 2545 §3).
fn own_next_hop(family: Family, config: &PeerConfig, session: &Negotiated) -> Option<PathNextHop> {
    let (own, unnumbered) = (config.own, session.ifindex != 0);
    let on_session = |addr: IpAddr| match addr {
        IpAddr::V6(a) if a.is_unicast_link_local() => None,
        addr => Some(addr),
    };
    let v4 = own.v4.map(IpAddr::V4).or(on_session(session.local_addr).filter(IpAddr::is_ipv4));
    let v6 = own.v6.map(IpAddr::V6).or(on_session(session.local_addr).filter(IpAddr::is_ipv6));
    let session_ll = match session.local_addr {
        IpAddr::V6(a) if a.is_unicast_link_local() => Some(a),
        _ => None,
    };
    let link_local = session_ll.or(own.link_local);
    // Alone it is understood only where the session itself is link-local.
    let alone = link_local.map(IpAddr::V6).filter(|_| unnumbered);
    let six = v6.or(alone).map(|addr| PathNextHop { addr, link_local });
    match family {
        Family::Ipv6Unicast => six,
        Family::Ipv4Unicast if unnumbered && session.extended_next_hop => six,
        Family::Ipv4Unicast => v4
            .map(|addr| PathNextHop { addr, link_local: None })
            .or(six.filter(|_| session.extended_next_hop)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::{
        peer::OwnAddresses,
        rib::tests::{attrs, config, global, negotiated},
        wire::attr::AsPath,
    };

    const INTERNAL: Asn = 65000;
    const EXTERNAL: Asn = 65001;

    fn view(remote_as: Asn, change: impl FnOnce(&mut PeerConfig)) -> View {
        let mut config = (*config(1)).clone();
        change(&mut config);
        View::new(Family::Ipv4Unicast, &config, &negotiated(1, remote_as), &global())
    }

    fn learned(from: &PeerKey, internal: bool, client: bool) -> Origin<'_> {
        Origin::Learned { from, internal, client, router_id: RouterId::new(9, 9, 9, 9) }
    }

    fn prefix() -> Prefix {
        "10.9.0.0/24".parse().unwrap()
    }

    #[test]
    fn which_routes_are_advertised_to_whom() {
        let from = PeerKey::Address("10.0.0.9".parse().unwrap());
        let mesh = |c: &mut PeerConfig| c.source = PeerSource::Mesh;
        let transit = |c: &mut PeerConfig| c.transit = true;
        let client = |c: &mut PeerConfig| c.route_reflector_client = true;
        let own = Origin::Own(Source::PodCidr);
        let (ext, int, cli) =
            (learned(&from, false, false), learned(&from, true, false), learned(&from, true, true));
        #[rustfmt::skip]
        let cases: &[(&str, View, [bool; 4])] = &[
            // to whom                                        own   eBGP   iBGP   client
            ("eBGP",            view(EXTERNAL, |_| {}),       [true, false, false, false]),
            ("eBGP, transit",   view(EXTERNAL, transit),      [true, true,  true,  true]),
            ("iBGP",            view(INTERNAL, |_| {}),       [true, true,  false, true]),
            ("iBGP, mesh",      view(INTERNAL, mesh),         [true, false, false, true]),
            ("iBGP, transit",   view(INTERNAL, transit),      [true, true,  false, true]),
            ("iBGP, client",    view(INTERNAL, client),       [true, true,  true,  true]),
        ];
        for (name, view, expected) in cases {
            let path = Attrs { as_path: AsPath::sequence(&[7]), ..attrs(0) };
            let got = [own, ext, int, cli].map(|o| view.export(prefix(), &path, o).is_some());
            assert_eq!(got, *expected, "{name}");
            let service = view.export(prefix(), &path, Origin::Own(Source::Service)).is_some();
            assert_eq!(service, !name.contains("mesh"), "{name}: nodes have kube-proxy for Services");
        }
    }

    #[test]
    fn the_guard_outbound_stands_where_only_own_routes_go_out() {
        let transit = |c: &mut PeerConfig| c.transit = true;
        let limit = |n: u32| move |c: &mut PeerConfig| (c.transit, c.max_prefixes_out) = (n > 5, Some(n));
        #[rustfmt::skip]
        let cases = [
            ("eBGP",                       view(EXTERNAL, |_| {}),   Some(10_000), false),
            ("eBGP, transit",              view(EXTERNAL, transit),  None,         false),
            ("iBGP",                       view(INTERNAL, |_| {}),   None,         false),
            ("eBGP, its own limit",        view(EXTERNAL, limit(5)), Some(5),      false),
            ("eBGP, no limit",             view(EXTERNAL, limit(0)), None,         false),
            ("eBGP, transit with a limit", view(EXTERNAL, limit(6)), Some(6),      true),
            ("iBGP with a limit",          view(INTERNAL, limit(5)), Some(5),      true),
        ];
        for (name, view, max, only_member) in cases {
            assert_eq!((view.max_prefixes(), view.is_for_one_neighbor()), (max, only_member), "{name}");
        }
    }

    #[test]
    fn well_known_communities_bind_what_was_learned() {
        let from = PeerKey::Address("10.0.0.9".parse().unwrap());
        let all = |c: &mut PeerConfig| c.transit = true;
        #[rustfmt::skip]
        let cases = [
            (Community::NO_EXPORT,           false, true),
            (Community::NO_ADVERTISE,        false, false),
            (Community::NO_EXPORT_SUBCONFED, false, true),
            (Community::NOPEER,              true,  true),
        ];
        for (community, external, internal) in cases {
            let path = Attrs { communities: [community].into(), ..attrs(0) };
            let exported = |remote, origin| view(remote, all).export(prefix(), &path, origin).is_some();
            assert_eq!(exported(EXTERNAL, learned(&from, false, false)), external, "{community:#x}");
            assert_eq!(exported(INTERNAL, learned(&from, false, false)), internal, "{community:#x}");
            assert!(exported(EXTERNAL, Origin::Own(Source::Network)), "own routes are tagged for others");
        }
    }

    #[test]
    fn attributes_are_made_fit_for_the_other_side() {
        let from = PeerKey::Address("10.0.0.9".parse().unwrap());
        let path = Attrs {
            as_path: AsPath::sequence(&[7]),
            med: Some(5),
            local_pref: Some(200),
            extra: Some(Box::new(ExtraAttrs {
                ext_communities: vec![[0x40, 0, 0, 0, 0, 0, 0, 1], [0, 2, 0, 0, 0, 0, 0, 1]],
                ..ExtraAttrs::default()
            })),
            ..attrs(0)
        };
        let own_address = PathNextHop { addr: "10.0.0.1".parse().unwrap(), link_local: None };

        let out = view(EXTERNAL, |c| c.transit = true).export(prefix(), &path, learned(&from, false, false));
        let out = out.unwrap();
        assert_eq!(out.as_path, AsPath::sequence(&[INTERNAL, 7]));
        assert_eq!((out.med, out.local_pref, out.next_hop), (None, None, own_address));
        assert_eq!(out.extra.as_ref().unwrap().ext_communities, [[0, 2, 0, 0, 0, 0, 0, 1]]);

        let out = view(INTERNAL, |_| {}).export(prefix(), &path, learned(&from, false, false)).unwrap();
        assert_eq!(*out, path, "unchanged towards iBGP");

        let client = |c: &mut PeerConfig| (c.route_reflector_client, c.next_hop_self) = (true, Some(true));
        let out = view(INTERNAL, client).export(prefix(), &path, learned(&from, true, false)).unwrap();
        let extra = out.extra.as_deref().unwrap();
        assert_eq!(extra.originator_id, Some(RouterId::new(9, 9, 9, 9)));
        assert_eq!(extra.cluster_list, [global().cluster_id.to_bits()]);
        assert_eq!(out.next_hop, path.next_hop, "never next-hop-self by reflection");

        let own = Attrs { med: Some(7), as_path: AsPath::empty(), ..attrs(0) };
        let out = view(EXTERNAL, |c| c.local_as = 64999).export(prefix(), &own, Origin::Own(Source::Network));
        let out = out.unwrap();
        assert_eq!((out.med, out.as_path.to_string()), (Some(7), "64999 65000".into()));
    }

    #[test]
    fn inside_who_leaves_lowers_the_preference_itself() {
        let from = PeerKey::Address("10.0.0.9".parse().unwrap());
        let leaving = Attrs {
            communities: [Community::GRACEFUL_SHUTDOWN].into(),
            local_pref: Some(200),
            as_path: AsPath::empty(),
            ..attrs(0)
        };
        let staying = Attrs { communities: Box::default(), ..leaving.clone() };
        let own = Origin::Own(Source::PodCidr);
        #[rustfmt::skip]
        let cases = [
            ("own, leaving",           &leaving, own, INTERNAL, Some(0)),
            ("own, leaving, to eBGP",  &leaving, own, EXTERNAL, None),
            ("own",                    &staying, own, INTERNAL, Some(200)),
            // The router that learned it from outside has checked it; a reflector does not.
            ("learned",                &leaving, learned(&from, false, false), INTERNAL, Some(200)),
            ("reflected",              &leaving, learned(&from, true, true), INTERNAL, Some(200)),
        ];
        for (name, path, origin, to, want) in cases {
            let out = view(to, |_| {}).export(prefix(), path, origin).unwrap();
            assert_eq!(out.local_pref, want, "{name}");
            assert_eq!(out.communities, path.communities, "{name}");
        }
    }

    #[test]
    fn a_third_party_next_hop_goes_out_on_a_common_subnet_only() {
        let from = PeerKey::Address("10.0.0.9".parse().unwrap());
        let shared = |c: &mut PeerConfig, subnets: &[&str]| {
            (c.transit, c.next_hop_self) = (true, Some(false));
            c.shared = subnets.iter().map(|s| s.parse().unwrap()).collect();
        };
        let common = |c: &mut PeerConfig| shared(c, &["10.0.0.0/24"]);
        let foreign = |c: &mut PeerConfig| shared(c, &["10.77.0.0/24", "2001:db8::/64"]);
        let none = |c: &mut PeerConfig| shared(c, &[]);
        let far = |c: &mut PeerConfig| {
            shared(c, &[]);
            c.hops = Hops::Multihop(3);
        };
        let secure = |c: &mut PeerConfig| {
            shared(c, &["10.0.0.0/24"]);
            c.hops = Hops::Security(1);
        };
        #[rustfmt::skip]
        let cases: &[(&str, View, &str, &str)] = &[
            ("on the common subnet",     view(EXTERNAL, common),  "10.0.0.77", "10.0.0.77"),
            ("not on it",                view(EXTERNAL, common),  "10.77.0.9", "10.0.0.1"),
            ("on another's subnet",      view(EXTERNAL, foreign), "10.77.0.9", "10.0.0.1"),
            ("no common subnet",         view(EXTERNAL, none),    "10.0.0.77", "10.0.0.1"),
            ("ttl-security",             view(EXTERNAL, secure),  "10.77.0.9", "10.0.0.1"),
            ("several hops away",        view(EXTERNAL, far),     "10.77.0.9", "10.77.0.9"),
            ("iBGP",                     view(INTERNAL, none),    "10.77.0.9", "10.77.0.9"),
        ];
        for (name, view, next_hop, expected) in cases {
            let addr: IpAddr = next_hop.parse().unwrap();
            let path = Attrs { next_hop: addr.into(), ..attrs(0) };
            let out = view.export(prefix(), &path, learned(&from, false, false)).unwrap();
            assert_eq!(out.next_hop.addr.to_string(), *expected, "{name}");
        }
    }

    #[test]
    fn a_family_without_own_address_goes_by_rfc_8950_or_not_at_all() {
        let own = Origin::Own(Source::PodCidr);
        let mut config = (*config(1)).clone();
        config.own = Default::default();
        config.own.v6 = Some("2001:db8::1".parse().unwrap());
        let mut session = negotiated(1, EXTERNAL);
        session.local_addr = "2001:db8::1".parse().unwrap();
        let path = attrs(0);
        let view = |s: &Negotiated| View::new(Family::Ipv4Unicast, &config, s, &global());
        assert_eq!(view(&session).export(prefix(), &path, own), None);
        session.extended_next_hop = true;
        let out = view(&session).export(prefix(), &path, own).unwrap().into_owned();
        assert_eq!(out.next_hop.addr, session.local_addr);
    }

    /// RFC 2545 §3: "if and only if the BGP speaker shares a common subnet … with the peer".
    #[test]
    fn an_ipv6_next_hop_carries_the_link_local_address_to_neighbors_on_the_link() {
        let own = |v6: Option<&str>, link_local: Option<&str>| OwnAddresses {
            v4: "10.0.0.1".parse().ok(),
            v6: v6.and_then(|a| a.parse().ok()),
            link_local: link_local.and_then(|a| a.parse().ok()),
        };
        let (v6, ll) = (Some("2001:db8::1"), Some("fe80::1"));
        let (over_v4, over_v6) = ("10.0.0.1", "2001:db8::1");
        #[rustfmt::skip]
        let cases = [
            ("IPv6 session, on link",        own(v6, ll),    over_v6,   0, Some((over_v6, ll))),
            ("IPv6 session, off link",       own(v6, None),  over_v6,   0, Some((over_v6, None))),
            ("IPv4 session, on link",        own(v6, ll),    over_v4,   0, Some((over_v6, ll))),
            ("IPv4 session, off link",       own(v6, None),  over_v4,   0, Some((over_v6, None))),
            ("IPv4 session, no IPv6 of ours", own(None, ll), over_v4,   0, None),
            ("link-local session",           own(v6, ll),    "fe80::1", 7, Some((over_v6, ll))),
            ("link-local session alone",     own(None, ll),  "fe80::1", 7, Some(("fe80::1", ll))),
        ];
        for (name, own, local, ifindex, want) in cases {
            let config = PeerConfig { own, ..(*config(1)).clone() };
            let session =
                Negotiated { local_addr: local.parse().unwrap(), ifindex, ..negotiated(1, EXTERNAL) };
            let got = own_next_hop(Family::Ipv6Unicast, &config, &session);
            let want = want.map(|(addr, ll)| PathNextHop {
                addr: addr.parse().unwrap(),
                link_local: ll.map(|a| a.parse().unwrap()),
            });
            assert_eq!(got, want, "{name}");
        }
    }
}
