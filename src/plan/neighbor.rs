//! The settings of one neighbor: defaults, `[bgp]`, those of its kind, its group and its own keys,
//! each overriding the ones before.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Context, Drain};
use crate::{
    bgp::{
        peer::{Hops, Lacks, OwnAddresses, PeerConfig, PeerKey, PeerSource, RemoteAs, TtlSecurity},
        policy::Policy,
    },
    config::{NeighborKeys, OnExit, seconds},
    fib::host::{Host, Link, LinkAddress, Scope},
    net::{Asn, Diagnostic, Family, Prefix, Reason, Subject},
};

/// A neighbor before the file's settings are applied.
#[derive(Clone, Debug)]
pub(super) struct Draft<'a> {
    pub(super) key: PeerKey,
    pub(super) source: PeerSource,
    pub(super) group: Option<&'a str>,
    /// Settings that its kind implies; weaker than the group's.
    pub(super) implied: NeighborKeys,
    /// The file's settings of this neighbor alone.
    pub(super) keys: NeighborKeys,
}

impl Draft<'_> {
    /// The settings in force. Names of policies that do not exist are returned as problems.
    pub(super) fn finish(mut self, ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> PeerConfig {
        let group = self.group.and_then(|g| ctx.config.bgp.groups.get(g)).cloned().unwrap_or_default();
        let own_keys = std::mem::take(&mut self.keys);
        let implied = std::mem::take(&mut self.implied);
        let mut keys = own_keys.or(group).or(implied).or(ctx.config.bgp.defaults.clone());
        let local_address = keys.local_address;
        let policies = self.policies(ctx, &mut keys, problems);
        let settings = self.settings(ctx, keys, policies);
        problems
            .extend(settings.lacks_policy.explain(&settings.key).filter(|_| settings.is_surely_external()));
        let behind = if settings.ttl() == 1 { router_before(ctx.host, &settings.key) } else { None };
        let is_here = ends_here(ctx, &settings.key, settings.port);
        problems.extend(Some(&settings).filter(|_| is_here).and_then(neighbor_is_this_host));
        problems.extend(local_address.and_then(|address| local_address_missing(ctx, &settings.key, address)));
        PeerConfig { behind, is_here, passive: settings.passive || is_here, ..settings }
    }

    /// Its policies in each direction.
    fn policies(
        &self,
        ctx: &Context<'_>,
        keys: &mut NeighborKeys,
        problems: &mut Vec<Diagnostic>,
    ) -> [Vec<Arc<Policy>>; 2] {
        [keys.import.take(), keys.export.take()].map(|names| {
            let named = names.unwrap_or_default();
            named.iter().filter_map(|n| policy(ctx, n, &self.key, problems)).collect()
        })
    }

    /// The keys, and what follows from the host.
    fn settings(self, ctx: &Context<'_>, keys: NeighborKeys, policies: [Vec<Arc<Policy>>; 2]) -> PeerConfig {
        let [mut import, export] = policies;
        let required = ctx.config.bgp.require_policy;
        let lacks_policy =
            Lacks { import: required && import.is_empty(), export: required && export.is_empty() };
        let is_second_speaker = matches!(&self.key, PeerKey::Address(a) if a.is_loopback());
        import.extend(ctx.extra.drain.filter(|_| is_second_speaker).map(Drain::of_second_speaker));
        let link = link_towards(ctx.host, &self.key);
        let own = own_addresses(ctx, &self.key, self.source, link);
        let local_address = keys.local_address.or_else(|| source_address(ctx, &self.key, self.source, &own));
        let base = configured(keys, self.key, ctx.global.asn);
        PeerConfig {
            local_address,
            // A daemon that flushes its routes at exit must not promise to preserve forwarding.
            graceful_restart: base.graceful_restart && ctx.config.fib.on_exit != OnExit::Flush,
            import,
            export,
            lacks_policy,
            is_node: matches!(self.source, PeerSource::Mesh | PeerSource::Reflector),
            disabled: ctx.extra.disabled.iter().any(|name| base.key.is(name)),
            group: self.group.map(str::to_owned),
            source: self.source,
            own,
            shared: link.map_or_else(Vec::new, |link| shared_subnets(ctx.host, &base.key, link)),
            ..base
        }
    }
}

/// The settings that follow from the keys alone. `asn` is the own AS number.
fn configured(keys: NeighborKeys, key: PeerKey, asn: Asn) -> PeerConfig {
    let base = PeerConfig::new(key, keys.remote_as.unwrap_or(RemoteAs::Any), asn);
    PeerConfig {
        local_as: keys.local_as.unwrap_or(base.local_as),
        port: keys.port.unwrap_or(base.port),
        passive: keys.passive.unwrap_or(base.passive),
        hops: match (keys.ttl_security, keys.multihop) {
            (Some(TtlSecurity::Strict(n)), _) => Hops::Security(n),
            (_, Some(n)) => Hops::Multihop(n),
            (Some(TtlSecurity::WhereOffered), None) => Hops::SecurityWhereOffered,
            (Some(TtlSecurity::Off) | None, None) => Hops::Direct,
        },
        families: keys.families.unwrap_or(base.families),
        hold_time: keys.hold_time.unwrap_or(base.hold_time),
        send_hold_time: keys.send_hold_time,
        connect_retry_time: keys.connect_retry_time.map_or(base.connect_retry_time, seconds),
        idle_hold_time: keys.idle_hold_time.map_or(base.idle_hold_time, seconds),
        graceful_restart: keys.graceful_restart.unwrap_or(base.graceful_restart),
        restart_time: keys.restart_time.unwrap_or(base.restart_time),
        long_lived_stale_time: keys.long_lived_stale_time.unwrap_or(base.long_lived_stale_time),
        route_reflector_client: keys.route_reflector_client.unwrap_or(base.route_reflector_client),
        next_hop_self: keys.next_hop_self,
        transit: keys.transit.unwrap_or(base.transit),
        max_prefixes: keys.max_prefixes.unwrap_or(base.max_prefixes),
        max_prefixes_action: keys.max_prefixes_action.unwrap_or(base.max_prefixes_action),
        max_prefixes_restart: keys
            .max_prefixes_restart
            .map_or(base.max_prefixes_restart, |s| Duration::from_secs(s.into())),
        max_prefixes_out: keys.max_prefixes_out,
        add_paths: keys.add_paths.unwrap_or(base.add_paths),
        bfd: keys.bfd.flatten(),
        fast_failover: keys.fast_failover,
        accept_default: keys.accept_default.unwrap_or(base.accept_default),
        allow_own_as: keys.allow_own_as.unwrap_or(base.allow_own_as),
        as_sets: keys.as_sets.unwrap_or(base.as_sets),
        role: keys.role,
        password: keys.password,
        description: keys.description,
        ..base
    }
}

/// A configured neighbor at an address of this host, unless it is meant to connect to us.
fn neighbor_is_this_host(settings: &PeerConfig) -> Option<Diagnostic> {
    let key = &settings.key;
    let is_mistake =
        !settings.passive && matches!(settings.source, PeerSource::Configured | PeerSource::Object);
    is_mistake.then(|| {
        Diagnostic::new(
            Reason::NeighborIsThisHost,
            Subject::neighbor(key),
            format!("neighbor {key} is an address of this host and is not dialled"),
            "correct `address`; for another BGP speaker on this host set its `port`, or `passive = true`",
        )
    })
}

fn local_address_missing(ctx: &Context<'_>, key: &PeerKey, address: IpAddr) -> Option<Diagnostic> {
    link_with(ctx.host, address).is_none().then(|| {
        Diagnostic::new(
            Reason::LocalAddressMissing,
            Subject::neighbor(key),
            format!("local-address {address} of neighbor {key} is on no interface of this host"),
            "correct it, or give the host the address",
        )
    })
}

/// Whether a connection to it would end at our own listening socket.
fn ends_here(ctx: &Context<'_>, key: &PeerKey, port: u16) -> bool {
    let (addr, own) = match key {
        PeerKey::Address(addr) => (*addr, addr.is_loopback() || link_with(ctx.host, *addr).is_some()),
        PeerKey::LinkLocal(addr, name) => {
            let of_link = |l: &Link| l.addresses.iter().any(|a| a.addr == *addr);
            (IpAddr::V6(*addr), ctx.host.link(name).is_some_and(of_link))
        }
        PeerKey::Interface(_) => return false,
    };
    let takes = |at: &SocketAddr| {
        at.port() == port && (at.ip() == addr || at.ip().is_unspecified() && at.is_ipv4() == addr.is_ipv4())
    };
    own && ctx.config.bgp.listen.iter().any(takes)
}

/// Whether the neighbor is on this link, with no router in between.
fn is_direct(host: &Host, key: &PeerKey, link: &Link) -> bool {
    let PeerKey::Address(addr) = key else { return true };
    let by_route = || host.first_hop(host.route_to(*addr)?)?.gateway.filter(|gateway| gateway == addr);
    let on_link = || host.connected_link(*addr).is_some_and(|l| l.index == link.index);
    link.subnets().any(|s| s.contains(*addr)) || on_link() || by_route().is_some()
}

/// The first router on the way to this neighbor, if the host knows one. A subnet counts as
/// connected even if its link is down: the neighbor is there once the link is up.
fn router_before(host: &Host, key: &PeerKey) -> Option<IpAddr> {
    let PeerKey::Address(addr) = key else { return None };
    let on_subnet = host.links.values().any(|l| l.subnets().any(|s| s.contains(*addr)));
    let own = link_with(host, *addr).is_some() || addr.is_loopback();
    if on_subnet || own || host.connected_link(*addr).is_some() {
        return None;
    }
    host.first_hop(host.route_to(*addr)?)?.gateway.filter(|gateway| gateway != addr)
}

/// The connected subnets that a directly connected neighbor shares with us: those that contain its
/// address. In the other family its address is not known, so all subnets of its link.
fn shared_subnets(host: &Host, key: &PeerKey, link: &Link) -> Vec<Prefix> {
    let global = link.subnets().filter(|p| !is_link_local(p.addr()));
    let mut shared: Vec<_> = match key {
        PeerKey::Address(addr) if host.connected_link(*addr).is_some_and(|l| l.index == link.index) => {
            global.filter(|p| p.family() != Family::of(*addr) || p.contains(*addr)).collect()
        }
        PeerKey::Address(_) => Vec::new(),
        PeerKey::LinkLocal(..) | PeerKey::Interface(_) => global.collect(),
    };
    shared.sort_unstable();
    shared.dedup();
    shared
}

fn policy(
    ctx: &Context<'_>,
    name: &str,
    key: &PeerKey,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<Policy>> {
    let found = ctx.config.policies.get(name).cloned();
    if found.is_none() {
        problems.push(Diagnostic::new(
            Reason::PolicyUnknown,
            Subject::neighbor(key),
            format!("neighbor {key} names policy `{name}`, which does not exist; it is left out"),
            "define it as [[policy.NAME]] or as a BGPPolicy, or correct the name",
        ));
    }
    found
}

/// The link over which a neighbor is reached: that of its connected subnet, else of the best route
/// to it.
pub(super) fn link_towards<'a>(host: &'a Host, key: &PeerKey) -> Option<&'a Link> {
    match key {
        PeerKey::LinkLocal(_, name) | PeerKey::Interface(name) => host.link(name),
        PeerKey::Address(addr) => {
            link_with(host, *addr).or_else(|| host.connected_link(*addr)).or_else(|| {
                let hop = host.first_hop(host.route_to(*addr)?)?;
                host.links.get(&hop.ifindex).or_else(|| host.connected_link(hop.gateway?))
            })
        }
    }
}

/// Our addresses on that link: the next hops that we advertise. Under Kubernetes the Node's
/// InternalIP is preferred, and is used if the link has no address of the family.
fn own_addresses(ctx: &Context<'_>, key: &PeerKey, source: PeerSource, link: Option<&Link>) -> OwnAddresses {
    let towards = match key {
        PeerKey::Address(a) => Some(*a),
        _ => None,
    };
    let best = |family| {
        let node = ctx.own_node().and_then(|n| n.address(family));
        // Other nodes accept a reflected route only for the Node that has its next hop as
        // InternalIP.
        let reflected = node.filter(|n| source == PeerSource::Reflector && link_with(ctx.host, *n).is_some());
        reflected.or_else(|| {
            link.filter(|l| !l.loopback).and_then(|l| best_address(l, family, towards, node)).or(node)
        })
    };
    OwnAddresses {
        v4: best(Family::Ipv4Unicast).and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }),
        v6: best(Family::Ipv6Unicast).and_then(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }),
        // Only a neighbor on the same link can send to it (RFC 2545 §3).
        link_local: link.filter(|l| is_direct(ctx.host, key, l)).and_then(|l| {
            l.addresses.iter().filter(|a| !a.tentative).find_map(|a| match a.addr {
                IpAddr::V6(a) if a.is_unicast_link_local() => Some(a),
                _ => None,
            })
        }),
    }
}

pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// The Node's address if the link has it, or else one on the neighbor's subnet, or else the first
/// that is neither deprecated nor secondary.
fn best_address(
    link: &Link,
    family: Family,
    towards: Option<IpAddr>,
    node: Option<IpAddr>,
) -> Option<IpAddr> {
    let usable = |a: &&LinkAddress| {
        Family::of(a.addr) == family && a.scope == Scope::Global && !a.tentative && !is_link_local(a.addr)
    };
    let rank = |a: &&LinkAddress| {
        let shared = towards.is_some_and(|t| Prefix::new(a.addr, a.len).is_some_and(|p| p.contains(t)));
        (Some(a.addr) != node, !shared, a.deprecated, a.secondary)
    };
    link.addresses.iter().filter(usable).min_by_key(rank).map(|a| a.addr)
}

/// The local address of a session is the Node's address if the host has it: other nodes expect this
/// address, and switches are configured with it. Otherwise the kernel chooses.
fn source_address(
    ctx: &Context<'_>,
    key: &PeerKey,
    source: PeerSource,
    own: &OwnAddresses,
) -> Option<IpAddr> {
    let PeerKey::Address(neighbor) = key else { return None };
    let node = ctx.own_node()?.address(Family::of(*neighbor))?;
    let held = ctx.host.links.values().flat_map(|l| &l.addresses).any(|a| a.addr == node && !a.tentative);
    let of_link = own.v4.map(IpAddr::V4) == Some(node) || own.v6.map(IpAddr::V6) == Some(node);
    let by_address = matches!(source, PeerSource::Mesh | PeerSource::Reflector);
    (held && !neighbor.is_loopback() && (of_link || by_address)).then_some(node)
}

/// The link that has this address.
pub(super) fn link_with(host: &Host, addr: IpAddr) -> Option<&Link> {
    host.links.values().find(|l| l.addresses.iter().any(|a| a.addr == addr))
}

/// Whether `addr` is reached without a gateway.
pub(super) fn is_on_link(host: &Host, addr: IpAddr) -> bool {
    host.connected_link(addr).is_some_and(|l| !l.loopback)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::fib::host::testing::{gateway, host, link};

    fn draft(key: &str) -> Draft<'static> {
        Draft {
            key: key.parse().unwrap(),
            source: PeerSource::Configured,
            group: None,
            implied: NeighborKeys::default(),
            keys: NeighborKeys::default(),
        }
    }

    #[test]
    fn the_more_specific_setting_wins() {
        let mut c = config();
        c.bgp.defaults.hold_time = Some(30);
        c.bgp.defaults.restart_time = Some(60);
        let group = NeighborKeys { hold_time: Some(20), allow_own_as: Some(3), ..NeighborKeys::default() };
        c.bgp.groups.insert("tor".into(), group);
        let case = Case::new(c, None, host([], []));
        let keys = NeighborKeys { hold_time: Some(10), ..NeighborKeys::default() };
        let d = Draft {
            group: Some("tor"),
            implied: crate::config::implied_by_gateway(),
            keys,
            ..draft("10.0.0.1")
        };
        let p = d.finish(&case.context(), &mut Vec::new());
        assert_eq!((p.hold_time, p.allow_own_as, p.restart_time), (10, 3, 60));
        assert_eq!(
            (p.remote_as, p.port, p.connect_retry_time),
            (RemoteAs::External, 179, Duration::from_secs(5))
        );
    }

    #[test]
    fn a_policy_that_does_not_exist_is_named() {
        let case = Case::new(config(), None, host([], []));
        let keys = NeighborKeys { import: Some(vec!["nope".into()]), ..NeighborKeys::default() };
        let mut problems = Vec::new();
        let p = Draft { keys, ..draft("10.0.0.1") }.finish(&case.context(), &mut problems);
        assert!(p.import.is_empty() && problems[0].contains("`nope`"), "{problems:?}");
    }

    /// RFC 8212.
    #[test]
    fn an_external_neighbor_without_the_policies_that_are_required_is_a_problem() {
        let policy = "keep".to_owned();
        let named = || Some(vec![policy.clone()]);
        let cases = [
            ("external", RemoteAs::External, None, None, (true, true), 1),
            ("another AS", RemoteAs::Number(65000), named(), None, (false, true), 1),
            ("with both", RemoteAs::External, named(), named(), (false, false), 0),
            ("internal", RemoteAs::Internal, None, None, (true, true), 0),
        ];
        for required in [false, true] {
            for (name, remote_as, import, export, lacks, problem) in &cases {
                let mut c = config();
                c.bgp.require_policy = required;
                c.policies.insert(policy.clone(), Arc::new(Policy::new(&policy, Vec::new())));
                let case = Case::new(c, None, host([], []));
                let keys = NeighborKeys {
                    remote_as: Some(*remote_as),
                    import: import.clone(),
                    export: export.clone(),
                    ..NeighborKeys::default()
                };
                let mut problems = Vec::new();
                let p = Draft { keys, ..draft("10.0.0.1") }.finish(&case.context(), &mut problems);
                let wanted = if required { *lacks } else { (false, false) };
                assert_eq!((p.lacks_policy.import, p.lacks_policy.export), wanted, "{name}");
                assert_eq!(problems.len(), if required { *problem } else { 0 }, "{name}: {problems:?}");
            }
        }
    }

    #[test]
    fn next_hops_are_our_addresses_on_the_link_to_the_neighbor() {
        let h = host(
            [
                link(2, "eth0")
                    .with("10.0.9.2/24")
                    .with("10.0.0.2/30")
                    .with("fe80::2/64")
                    .with("2001:db8::2/64"),
                link(3, "eth1").with("10.1.0.2/24"),
            ],
            [gateway("192.0.2.0/24", "10.1.0.1", 0), gateway("0.0.0.0/0", "10.0.0.1", 2)],
        );
        let case = Case::new(config(), None, h);
        let own = |key: &str| draft(key).finish(&case.context(), &mut Vec::new()).own;
        let direct = own("10.0.0.1");
        assert_eq!(direct.v4, Some([10, 0, 0, 2].into()), "the address on the shared subnet");
        assert_eq!((direct.v6, direct.link_local), ("2001:db8::2".parse().ok(), "fe80::2".parse().ok()));
        assert_eq!(own("192.0.2.7").v4, Some([10, 1, 0, 2].into()), "over the route to it");
        assert_eq!(own("198.51.100.1").v4, Some([10, 0, 9, 2].into()), "over the default route");
    }

    #[test]
    fn the_subnets_shared_with_a_neighbor_are_those_of_its_address() {
        let eth0 =
            link(2, "eth0").with("10.0.0.2/24").with("10.7.0.2/24").with("fe80::2/64").with("2001:db8::2/64");
        let routes = [gateway("0.0.0.0/0", "10.0.0.1", 2), gateway("192.0.2.0/24", "10.0.0.1", 2)];
        let h = host([eth0, link(3, "eth1").with("10.1.0.2/24")], routes);
        let case = Case::new(config(), None, h);
        let cases: [(PeerKey, &[&str]); 5] = [
            (PeerKey::Address("10.0.0.1".parse().unwrap()), &["10.0.0.0/24", "2001:db8::/64"]),
            (PeerKey::Address("10.1.0.1".parse().unwrap()), &["10.1.0.0/24"]),
            (
                PeerKey::Address("2001:db8::1".parse().unwrap()),
                &["10.0.0.0/24", "10.7.0.0/24", "2001:db8::/64"],
            ),
            (PeerKey::Address("192.0.2.7".parse().unwrap()), &[]),
            (
                PeerKey::LinkLocal("fe80::1".parse().unwrap(), "eth0".into()),
                &["10.0.0.0/24", "10.7.0.0/24", "2001:db8::/64"],
            ),
        ];
        for (key, expected) in cases {
            let peer =
                Draft { key: key.clone(), ..draft("10.0.0.1") }.finish(&case.context(), &mut Vec::new());
            let shared: Vec<_> = peer.shared.iter().map(ToString::to_string).collect();
            assert_eq!(shared, expected, "{key}");
        }
    }

    #[test]
    fn the_advertised_next_hop_is_of_the_link_that_the_kernel_uses() {
        let mut h = host([link(2, "eth0").with("10.5.0.2/24"), link(3, "eth1").with("10.5.0.3/24")], []);
        let own = |h: &Host| {
            let case = Case::new(config(), None, h.clone());
            draft("10.5.0.254").finish(&case.context(), &mut Vec::new()).own.v4
        };
        assert_eq!(own(&h), Some([10, 5, 0, 2].into()));
        h.routes.reverse();
        assert_eq!(own(&h), Some([10, 5, 0, 3].into()), "eth1's address came first");
        h.routes[0].metric = 600;
        assert_eq!(own(&h), Some([10, 5, 0, 2].into()), "its route has the higher metric");
    }

    #[test]
    fn own_addresses_are_those_of_the_link_of_an_onlink_gateway() {
        let links = [link(2, "eth0").with("203.0.113.5/32"), link(3, "eth1").with("10.1.0.2/24")];
        let h = host(links, [gateway("0.0.0.0/0", "172.31.1.1", 2)]);
        assert!(is_on_link(&h, "172.31.1.1".parse().unwrap()));
        assert!(!is_on_link(&h, "172.31.1.2".parse().unwrap()));
        let case = Case::new(config(), None, h);
        let own = draft("172.31.1.1").finish(&case.context(), &mut Vec::new()).own;
        assert_eq!(own.v4, Some([203, 0, 113, 5].into()));
    }

    #[test]
    fn under_kubernetes_the_node_address_is_preferred_and_stands_in() {
        let h = host(
            [
                link(2, "eth0").with("10.99.0.50/24").with("10.99.0.11/24"),
                link(3, "eth1").with("10.1.0.2/24"),
            ],
            [],
        );
        let n = nodes([node("n1", &["10.99.0.11", "fd00::11"], &[])]);
        let case = Case::new(config(), Some(n), h);
        let peer = |key: &str| draft(key).finish(&case.context(), &mut Vec::new());
        let p = peer("10.99.0.1");
        assert_eq!((p.own.v4, p.own.v6), (Some([10, 99, 0, 11].into()), "fd00::11".parse().ok()));
        assert_eq!(p.local_address, Some([10, 99, 0, 11].into()));
        let p = peer("10.1.0.1");
        assert_eq!(
            (p.own.v4, p.local_address),
            (Some([10, 1, 0, 2].into()), None),
            "another link has its own"
        );
    }

    /// A Node with another's address, a VIP that moved here, a typing error: routelet never
    /// connects to itself.
    #[test]
    fn an_address_of_our_own_is_never_dialled() {
        let mut c = config();
        c.bgp.listen = vec!["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()];
        let h = host(
            [
                link(1, "lo").with("127.0.0.1/8"),
                link(2, "eth0").with("10.0.0.2/24").with("fd00::2/64").with("fe80::2/64"),
            ],
            [],
        );
        let case = Case::new(c, None, h);
        let made = |key: &str, keys: NeighborKeys| {
            let mut problems = Vec::new();
            let config = Draft { keys, ..draft(key) }.finish(&case.context(), &mut problems);
            (config.is_here, config.passive, problems.len())
        };
        let none = NeighborKeys::default;
        #[rustfmt::skip]
        let cases = [
            ("10.0.0.2",      none(), (true, true, 1)),
            ("fd00::2",       none(), (true, true, 1)),
            ("fe80::2%eth0",  none(), (true, true, 1)),
            ("127.0.0.1",     none(), (true, true, 1)),
            ("10.0.0.3",      none(), (false, false, 0)),
            ("fe80::2%eth1",  none(), (false, false, 0)),
            // A second speaker on this host, which listens on another port, or connects to us.
            ("127.0.0.1",     NeighborKeys { port: Some(1790), ..none() }, (false, false, 0)),
            ("10.0.0.2",      NeighborKeys { port: Some(1790), ..none() }, (false, false, 0)),
            ("10.0.0.2",      NeighborKeys { passive: Some(true), ..none() }, (true, true, 0)),
        ];
        for (key, keys, want) in cases {
            assert_eq!(made(key, keys.clone()), want, "{key} {:?}", keys.port);
        }
    }

    #[test]
    fn a_neighbor_behind_a_router_needs_multihop() {
        let mut on_link = gateway("10.77.0.9/32", "10.0.0.1", 2);
        on_link.hops[0].gateway = None;
        let h = host(
            [link(2, "eth0").with("10.0.0.2/24").with("fd00::2/64")],
            [
                gateway("10.255.0.9/32", "10.0.0.254", 2),
                gateway("0.0.0.0/0", "10.0.0.1", 2),
                gateway("::/0", "fd00::1", 2),
                gateway("10.78.0.9/32", "10.78.0.9", 2),
                on_link,
            ],
        );
        let case = Case::new(config(), None, h);
        let behind = |key: &str, keys: NeighborKeys| {
            let draft = Draft { keys, ..draft(key) };
            draft.finish(&case.context(), &mut Vec::new()).behind.map(|a| a.to_string())
        };
        let external = || NeighborKeys { remote_as: Some(RemoteAs::External), ..NeighborKeys::default() };
        let router = |a: &str| Some(a.to_owned());
        assert_eq!(behind("10.255.0.9", external()), router("10.0.0.254"));
        assert_eq!(behind("192.0.2.1", external()), router("10.0.0.1"), "over the default route");
        assert_eq!(behind("2001:db8::9", external()), router("fd00::1"));
        #[rustfmt::skip]
        let fine = [
            ("10.0.0.9",    external(),  "on the subnet"),
            ("10.77.0.9",   external(),  "by a link route"),
            ("10.78.0.9",   external(),  "its own gateway, onlink"),
            ("10.0.0.2",    external(),  "an own address"),
            ("127.0.0.1",   external(),  "the loopback"),
            ("10.255.0.9",  NeighborKeys { multihop: Some(3), ..external() }, "multihop"),
            ("10.255.0.9",  NeighborKeys { ttl_security: Some(TtlSecurity::Strict(3)), ..external() }, "ttl-security"),
            ("10.255.0.9",  NeighborKeys { remote_as: Some(RemoteAs::Internal), ..external() }, "iBGP"),
        ];
        for (key, keys, name) in fine {
            assert_eq!(behind(key, keys), None, "{name}");
        }
    }

    #[test]
    fn addresses_not_yet_ours_are_not_announced() {
        let mut h = host([link(2, "eth0").with("2001:db8::2/64").with("2001:db8::3/64")], []);
        let eth0 = h.links.get_mut(&2).unwrap();
        eth0.addresses[0].tentative = true;
        let case = Case::new(config(), None, h);
        let own = draft("2001:db8::1").finish(&case.context(), &mut Vec::new()).own;
        assert_eq!(own.v6, "2001:db8::3".parse().ok());
    }
}
