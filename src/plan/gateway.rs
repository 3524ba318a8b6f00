//! The next hops of the default routes, as neighbors: the router that forwards this host's packets
//! to other networks should learn the prefixes of its containers.
//!
//! Default routes change (DHCP, router advertisements, failover), and the neighbors follow: the
//! plan is recomputed on each change of the host. Routes with our own protocol number never count:
//! otherwise a default route learned from a neighbor would make its sender a gateway, and its loss
//! would end the session.
//!
//! Anybody who can send a router advertisement can create such a route. Therefore a next hop on an
//! interface of containers is never a neighbor ([`Refusal`]), and a next hop that is known only
//! from router advertisements carries IPv6 routes only, unless `families` of `[bgp.group.gateway]`
//! is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Context, bridge, unnumbered};
use crate::{
    bgp::peer::PeerKey,
    config::Config,
    fib::host::{ForeignHop, ForeignRoute, Host, Link},
    net::{Diagnostic, Family, Origination, Prefix, Reason, Subject},
};

/// A next hop of a default route that is a neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub key: PeerKey,
    pub ifindex: u32,
    /// Whether all default routes with this next hop come from router advertisements.
    pub advertised: bool,
}

/// The protocol of routes from router advertisements (RTPROT_RA), whether the kernel,
/// systemd-networkd or NetworkManager added them.
const PROTOCOL_RA: u8 = 9;

/// Why a next hop on an interface is never a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    PodBridge,
    /// A port of a bridge.
    Port,
    Advertised,
    /// A bridge whose ports all belong to containers or virtual machines.
    ContainerBridge,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodBridge => "is the pods' bridge",
            Self::Port => "is a port of a bridge",
            Self::Advertised => "is one of advertise.interfaces",
            Self::ContainerBridge => "is a bridge of containers",
        })
    }
}

/// The default routes that are not our own, by family and metric.
fn default_routes(host: &Host, own_protocol: u8) -> impl Iterator<Item = &ForeignRoute> {
    Family::ALL.into_iter().flat_map(move |family| {
        let mut routes: Vec<_> = host
            .routes
            .iter()
            .filter(|r| r.prefix.len() == 0 && r.prefix.family() == family && r.protocol != own_protocol)
            .collect();
        routes.sort_by_key(|r| r.metric);
        routes
    })
}

/// How long a gateway may be without a default route before it is no longer a neighbor. DHCP
/// clients remove the route for some seconds and add it again.
const HOLD: Duration = Duration::from_secs(10);

/// Remembers gateways whose default route is missing for a moment.
#[derive(Clone, Debug, Default)]
pub struct Gateways {
    /// Each gateway, with the time since when it has no route.
    seen: BTreeMap<PeerKey, (Gateway, Option<Instant>)>,
}

impl Gateways {
    /// Applies the present state of the host.
    pub fn handle(&mut self, now: Instant, host: &Host, config: &Config) {
        for (_, since) in self.seen.values_mut() {
            since.get_or_insert(now);
        }
        for gateway in gateways(host, config) {
            self.seen.insert(gateway.key.clone(), (gateway, None));
        }
        let alive = |g: &Gateway| {
            host.links.get(&g.ifindex).is_some_and(|l| host.can_send(l) && refusal(host, config, l).is_none())
        };
        let in_time = |since: &Option<Instant>| since.is_none_or(|at| now < at + HOLD);
        self.seen.retain(|_, (gateway, since)| since.is_none() || alive(gateway) && in_time(since));
    }

    /// The gateways that stay neighbors although no default route has them as next hop.
    pub fn held(&self) -> Vec<Gateway> {
        self.seen.values().filter(|(_, since)| since.is_some()).map(|(gateway, _)| gateway.clone()).collect()
    }

    /// When to call [`Gateways::handle`] again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.seen.values().filter_map(|(_, since)| *since).min().map(|since| since + HOLD)
    }
}

/// The gateways that are neighbors, including those whose route is missing for a moment. A router
/// that is known only from its advertisements, on an interface where unnumbered neighbors are
/// looked for, is left out: it becomes an unnumbered neighbor as soon as routelet receives its
/// advertisement, and a session with it as a gateway, with IPv6 only, would be restarted then.
pub(super) fn neighbors(ctx: &Context<'_>) -> Vec<Gateway> {
    let mut found = gateways(ctx.host, ctx.config);
    let is_own = |key: &PeerKey| matches!(key, PeerKey::Address(a) if is_own(ctx.host, *a));
    let held = ctx.extra.held_gateways.iter();
    let held: Vec<_> = held.filter(|h| found.iter().all(|g| g.key != h.key) && !is_own(&h.key)).collect();
    found.extend(held.into_iter().cloned());
    found.retain(|g| !(g.advertised && unnumbered::is_looked_for_on(ctx, g.ifindex)));
    found
}

/// The next hops of default routes that are not accepted as neighbors, each with the reason and a
/// remedy.
pub(super) fn refused(ctx: &Context<'_>) -> BTreeSet<Diagnostic> {
    let found = hops(ctx.host, ctx.config.fib.protocol).into_iter();
    let refused = found.filter_map(|g| {
        let link = ctx.host.links.get(&g.ifindex)?;
        Some((refusal(ctx.host, ctx.config, link)?, g, link))
    });
    refused.map(|(refusal, gateway, link)| problem(&gateway, link, refusal)).collect()
}

fn problem(gateway: &Gateway, link: &Link, refusal: Refusal) -> Diagnostic {
    let (key, name) = (&gateway.key, &link.name);
    let remedy = if gateway.advertised {
        format!(
            "it comes from a router advertisement, which a container can send: run `sysctl -w \
             net.ipv6.conf.{}.accept_ra=0` and remove the route",
            crate::fib::sysctl::escaped(name)
        )
    } else {
        "remove the route".to_owned()
    };
    Diagnostic::new(
        Reason::GatewayRefused,
        Subject::neighbor(key),
        format!("the default route via {key} uses {name}, which {refusal}: {key} does not become a neighbor"),
        format!("{remedy}, or, if it is a router, give it a [[bgp.neighbor]] with its address"),
    )
}

/// The problem that IPv4 prefixes are advertised to nobody, because the only neighbor is a gateway
/// that is known from router advertisements alone.
pub(super) fn lacks_ipv4(
    ctx: &Context<'_>,
    peers: &super::peering::Peers,
    originated: &BTreeMap<Prefix, Origination>,
) -> Option<Diagnostic> {
    let own = originated.keys().any(|p| p.family() == Family::Ipv4Unicast);
    let carried = peers.values().any(|p| p.families.contains(&Family::Ipv4Unicast));
    let found = neighbors(ctx);
    let gateway =
        found.iter().find(|g| g.advertised && peers.contains_key(&g.key)).filter(|_| own && !carried)?;
    Some(Diagnostic::new(
        Reason::Ipv4NotCarried,
        Subject::neighbor(&gateway.key),
        format!(
            "no neighbor carries IPv4 routes: the gateway {} is known by router advertisements only, which \
             anybody on its link can send, and carries IPv6 routes",
            gateway.key
        ),
        "if you trust it, set families = [\"ipv4-unicast\", \"ipv6-unicast\"] in [bgp.group.gateway]",
    ))
}

/// Whether next hops on this interface are never neighbors: it leads to containers, and any of them
/// could make itself a gateway.
pub(super) fn refusal(host: &Host, config: &Config, link: &Link) -> Option<Refusal> {
    let is_bridge = |index: u32| host.links.get(&index).is_some_and(|l| l.kind == "bridge");
    let patterns = &config.advertise.interfaces;
    // A pattern such as br-* may match the bridge that is the way out.
    let is_advertised = || {
        let is_docker = config.advertise.docker_bridges.contains(&link.name);
        patterns.contains(&link.name)
            || (is_docker || bridge::is_named(patterns, link)) && !leads_out(host, link)
    };
    if link.name == config.cni.bridge {
        Some(Refusal::PodBridge)
    } else if link.master.is_some_and(is_bridge) {
        Some(Refusal::Port)
    } else if is_advertised() {
        Some(Refusal::Advertised)
    } else if is_container_bridge(host, link) {
        Some(Refusal::ContainerBridge)
    } else {
        None
    }
}

/// Whether it is a bridge with ports that all belong to containers or virtual machines.
pub(super) fn is_container_bridge(host: &Host, link: &Link) -> bool {
    let mut ports = ports(host, link).peekable();
    link.kind == "bridge" && ports.peek().is_some() && ports.all(is_of_container)
}

/// Whether it is a bridge with a port that does not belong to a container: it is connected to a
/// network.
pub fn leads_out(host: &Host, link: &Link) -> bool {
    link.kind == "bridge" && ports(host, link).any(|p| !is_of_container(p))
}

fn ports<'a>(host: &'a Host, bridge: &Link) -> impl Iterator<Item = &'a Link> {
    let index = bridge.index;
    host.links.values().filter(move |l| l.master == Some(index))
}

/// Containers are attached by veth, virtual machines by tap devices.
fn is_of_container(port: &Link) -> bool {
    matches!(port.kind.as_str(), "veth" | "tun")
}

/// The gateways as neighbors, in order of preference, each once.
pub(super) fn gateways(host: &Host, config: &Config) -> Vec<Gateway> {
    let is_allowed =
        |g: &Gateway| host.links.get(&g.ifindex).is_none_or(|l| refusal(host, config, l).is_none());
    let mut gateways: Vec<Gateway> = Vec::new();
    for gateway in hops(host, config.fib.protocol).into_iter().filter(is_allowed) {
        match gateways.iter_mut().find(|g| g.key == gateway.key) {
            Some(known) => known.advertised &= gateway.advertised,
            None => gateways.push(gateway),
        }
    }
    gateways
}

/// The next hops of default routes, by interface. Excluded are addresses of this host, and next
/// hops over a link that is down: the kernel keeps such a next hop as long as the route has another
/// one.
fn hops(host: &Host, own_protocol: u8) -> Vec<Gateway> {
    let mut found: Vec<Gateway> = Vec::new();
    let is_down = |hop: &ForeignHop| host.links.get(&hop.ifindex).is_some_and(|link| !link.up);
    for (route, hop) in default_routes(host, own_protocol).flat_map(|r| r.hops.iter().map(move |h| (r, h))) {
        let Some(addr) = hop.gateway.filter(|a| !is_own(host, *a) && !is_down(hop)) else { continue };
        let key = match addr {
            IpAddr::V6(a) if a.is_unicast_link_local() => match host.links.get(&hop.ifindex) {
                Some(link) => PeerKey::LinkLocal(a, link.name.clone()),
                None => continue,
            },
            addr => PeerKey::Address(addr),
        };
        let advertised = route.protocol == PROTOCOL_RA;
        match found.iter_mut().find(|g| g.key == key && g.ifindex == hop.ifindex) {
            Some(known) => known.advertised &= advertised,
            None => found.push(Gateway { key, ifindex: hop.ifindex, advertised }),
        }
    }
    found
}

/// The interfaces with a default route, in order of preference, each once. Bridges of containers
/// are excluded, since a container could have made itself a gateway there.
pub(super) fn uplinks<'a>(host: &'a Host, config: &Config) -> Vec<&'a Link> {
    let is_inner = |link: &Link| {
        let refusal = refusal(host, config, link);
        refusal.is_some_and(|r| r != Refusal::Advertised) || is_container_bridge(host, link)
    };
    let mut links: Vec<&Link> = Vec::new();
    for hop in default_routes(host, config.fib.protocol).flat_map(|r| &r.hops) {
        if let Some(link) = host.links.get(&hop.ifindex)
            && !is_inner(link)
            && !links.iter().any(|l| l.index == link.index)
        {
            links.push(link);
        }
    }
    links
}

fn is_own(host: &Host, addr: IpAddr) -> bool {
    host.links.values().flat_map(|l| &l.addresses).any(|a| a.addr == addr)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "an epoch")]

    use super::*;
    use crate::{
        fib::host::testing::{gateway, host, link},
        plan::testing::{Case, config},
    };

    fn names(host: &Host) -> Vec<String> {
        gateways(host, &Config::default()).iter().map(|g| g.key.to_string()).collect()
    }

    /// A default route from a router advertisement.
    fn advertised(via: &str, ifindex: u32) -> ForeignRoute {
        ForeignRoute { protocol: PROTOCOL_RA, ..gateway("::/0", via, ifindex) }
    }

    fn bridge(index: u32, name: &str) -> Link {
        Link { kind: "bridge".into(), ..link(index, name) }
    }

    fn port(index: u32, kind: &str, master: u32) -> Link {
        Link { kind: kind.into(), master: Some(master), ..link(index, &format!("port{index}")) }
    }

    #[test]
    fn a_next_hop_on_the_containers_side_is_never_a_neighbor() {
        let mut config = config();
        config.advertise.interfaces = vec!["lan*".into(), "br-*".into(), "br-named".into()];
        let links = || {
            [
                link(2, "eth0"),
                bridge(3, "routelet0"),
                port(13, "veth", 3),
                bridge(4, "docker0"),
                port(14, "veth", 4),
                bridge(5, "virbr0"),
                port(15, "tun", 5),
                bridge(6, "br-out"),
                port(16, "", 6),
                port(26, "veth", 6),
                bridge(7, "br-0123"),
                bridge(8, "br-named"),
                port(18, "", 8),
                link(9, "lan1"),
                link(10, "bond0"),
                Link { master: Some(10), ..link(11, "eth1") },
                bridge(12, "br0"),
            ]
        };
        #[rustfmt::skip]
        let cases = [
            (2,  None,                           "a veth that is the host's own interface"),
            (3,  Some(Refusal::PodBridge),       "the pods' bridge"),
            (13, Some(Refusal::Port),            "a port of it"),
            (4,  Some(Refusal::ContainerBridge), "docker0"),
            (14, Some(Refusal::Port),            "a port of docker0"),
            (5,  Some(Refusal::ContainerBridge), "virtual machines"),
            (6,  None,                           "a bridge that is the way out, although a pattern fits"),
            (16, Some(Refusal::Port),            "its port"),
            (7,  Some(Refusal::Advertised),      "a pattern of advertise.interfaces"),
            (8,  Some(Refusal::Advertised),      "named in advertise.interfaces"),
            (9,  Some(Refusal::Advertised),      "no bridge, but a pattern of advertise.interfaces"),
            (11, None,                           "a port of a bond"),
            (12, None,                           "a bridge without ports"),
        ];
        for (ifindex, want, name) in cases {
            for route in [advertised("fe80::9", ifindex), gateway("0.0.0.0/0", "10.9.9.9", ifindex)] {
                let h = host(links(), [route]);
                assert_eq!(refusal(&h, &config, &h.links[&ifindex]), want, "{name}");
                assert_eq!(gateways(&h, &config).is_empty(), want.is_some(), "{name}");
                let case = Case::new(config.clone(), None, h);
                let refused = refused(&case.context());
                assert_eq!(refused.len(), usize::from(want.is_some()), "{name}: {refused:?}");
                assert!(refused.iter().all(|p| p.contains("[[bgp.neighbor]]")), "{name}: {refused:?}");
            }
        }
        let both = host(links(), [gateway("0.0.0.0/0", "10.9.9.9", 4), gateway("0.0.0.0/0", "10.9.9.9", 2)]);
        assert_eq!(gateways(&both, &config).len(), 1, "the same address on the host's own interface");
    }

    #[test]
    fn a_router_that_only_advertises_itself_carries_ipv6_routes_unless_the_group_sets_families() {
        let families = |keys: Option<Vec<Family>>, route: ForeignRoute| {
            let eth0 = link(2, "eth0").with("10.0.0.2/24").with("fe80::2/64");
            let mut case = Case::new(config(), Some(crate::plan::testing::nodes([])), host([eth0], [route]));
            case.config.bgp.router_id = Some([10, 0, 0, 2].into());
            let group = crate::config::NeighborKeys { families: keys, ..Default::default() };
            case.config.bgp.groups.insert("gateway".into(), group);
            case.plan().peers.values().map(|p| p.families.clone()).collect::<Vec<_>>()
        };
        let problem = |keys: Option<Vec<Family>>, routes: &[ForeignRoute]| {
            let eth0 = link(2, "eth0").with("10.0.0.2/24").with("fe80::2/64");
            let own = crate::plan::testing::node("n1", &["10.0.0.2"], &["10.244.1.0/24"]);
            let nodes = crate::plan::testing::nodes([own]);
            let mut case = Case::new(config(), Some(nodes), host([eth0], routes.to_vec()));
            let group = crate::config::NeighborKeys { families: keys, ..Default::default() };
            case.config.bgp.groups.insert("gateway".into(), group);
            case.plan().problems.iter().any(|p| p.reason == Reason::Ipv4NotCarried)
        };
        assert!(problem(None, &[advertised("fe80::1", 2)]));
        assert!(!problem(Some(Family::ALL.to_vec()), &[advertised("fe80::1", 2)]));
        assert!(!problem(None, &[advertised("fe80::1", 2), gateway("0.0.0.0/0", "10.0.0.1", 2)]));
        let (v6, all) = (vec![Family::Ipv6Unicast], Family::ALL.to_vec());
        assert_eq!(families(None, advertised("fe80::1", 2)), std::slice::from_ref(&v6));
        assert_eq!(families(Some(all.clone()), advertised("fe80::1", 2)), std::slice::from_ref(&all));
        assert_eq!(families(None, gateway("::/0", "fe80::1", 2)), std::slice::from_ref(&all));
        assert_eq!(families(None, gateway("0.0.0.0/0", "10.0.0.1", 2)), [all]);
        assert_eq!(families(Some(v6.clone()), gateway("0.0.0.0/0", "10.0.0.1", 2)), [v6]);
    }

    #[test]
    fn a_router_that_advertises_itself_where_unnumbered_neighbors_are_looked_for_is_no_gateway_first() {
        let at = |at| crate::config::Neighbor { at, group: None, limit: 1, keys: Default::default() };
        let links = || [2, 3].map(|n| link(n, &format!("eth{n}")).with(&format!("fe80::{n}/64")));
        let routes = [advertised("fe80::9", 2), advertised("fe80::9", 3), gateway("::/0", "fe80::8", 2)];
        let mut case = Case::new(config(), None, host(links(), routes));
        case.config.bgp.router_id = Some([10, 0, 0, 2].into());
        case.config.bgp.asn = crate::config::AsSetting::Number(65001);
        let unnumbered = crate::config::NeighborId::Interface("eth2".into());
        case.config.bgp.neighbors = vec![at(crate::config::NeighborId::Gateway), at(unnumbered)];
        let keys = |case: &Case| case.plan().peers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(keys(&case), ["fe80::8%eth2", "fe80::9%eth3"]);
        let found = crate::net::OnLink {
            neighbors: ["fe80::9".parse().unwrap()].into(),
            is_overdue: false,
            trouble: None,
        };
        case.extra.found = std::sync::Arc::new([("eth2".to_owned(), found)].into());
        assert_eq!(keys(&case), ["fe80::8%eth2", "fe80::9%eth2", "fe80::9%eth3"]);
    }

    #[test]
    fn gateways_have_ttl_security_where_they_offer_it() {
        use crate::bgp::peer::{Hops, TtlSecurity};
        let hops = |ttl_security, multihop| {
            let eth0 = link(2, "eth0").with("10.0.0.2/24");
            let routes = [gateway("0.0.0.0/0", "10.0.0.1", 2)];
            let mut case = Case::new(config(), Some(crate::plan::testing::nodes([])), host([eth0], routes));
            case.config.bgp.router_id = Some([10, 0, 0, 2].into());
            let group = crate::config::NeighborKeys { ttl_security, multihop, ..Default::default() };
            case.config.bgp.groups.insert("gateway".into(), group);
            case.plan().peers.values().map(|p| p.hops).collect::<Vec<_>>()
        };
        assert_eq!(hops(None, None), [Hops::SecurityWhereOffered]);
        assert_eq!(hops(Some(TtlSecurity::Off), None), [Hops::Direct]);
        assert_eq!(hops(Some(TtlSecurity::Strict(1)), None), [Hops::Security(1)]);
        assert_eq!(hops(None, Some(3)), [Hops::Multihop(3)]);
        assert_eq!(hops(Some(TtlSecurity::Off), Some(3)), [Hops::Multihop(3)]);
    }

    #[test]
    fn a_next_hop_that_becomes_refused_is_not_held() {
        let (config, t0) = (config(), Instant::now());
        let mut held = Gateways::default();
        held.handle(t0, &host([bridge(4, "br9")], [advertised("fe80::9", 4)]), &config);
        held.handle(t0, &host([bridge(4, "br9"), port(14, "veth", 4)], [advertised("fe80::9", 4)]), &config);
        assert!(held.held().is_empty());
    }

    #[test]
    fn a_next_hop_that_only_router_advertisements_name_is_known_as_such_while_its_route_is_away_too() {
        let config = config();
        let eth0 = || link(2, "eth0").with("fe80::2/64");
        let is_advertised = |routes: &[ForeignRoute]| {
            let found = gateways(&host([eth0()], routes.to_vec()), &config);
            found.iter().map(|g| g.advertised).collect::<Vec<_>>()
        };
        assert_eq!(is_advertised(&[advertised("fe80::1", 2)]), [true]);
        assert_eq!(is_advertised(&[advertised("fe80::1", 2), advertised("fe80::3", 2)]), [true, true]);
        assert_eq!(is_advertised(&[advertised("fe80::1", 2), gateway("::/0", "fe80::1", 2)]), [false]);
        assert_eq!(is_advertised(&[gateway("::/0", "fe80::1", 2)]), [false]);
        let (mut held, t0) = (Gateways::default(), Instant::now());
        held.handle(t0, &host([eth0()], [advertised("fe80::1", 2)]), &config);
        held.handle(t0, &host([eth0()], []), &config);
        assert!(held.held()[0].advertised);
    }

    #[test]
    fn every_default_route_gives_its_next_hops_the_preferred_first() {
        let mut backup = gateway("0.0.0.0/0", "10.0.1.1", 3);
        backup.metric = 200;
        let mut both = gateway("0.0.0.0/0", "10.0.0.1", 2);
        both.hops.push(gateway("0.0.0.0/0", "10.0.0.5", 3).hops[0]);
        let host = host(
            [link(2, "eth0").with("10.0.0.2/30"), link(3, "eth1").with("10.0.0.6/30")],
            [
                backup,
                both,
                gateway("::/0", "2001:db8::1", 2),
                gateway("10.0.0.0/8", "10.0.0.9", 2),
                gateway("0.0.0.0/0", "10.0.0.1", 2),
            ],
        );
        assert_eq!(names(&host), ["10.0.0.1", "10.0.0.5", "10.0.1.1", "2001:db8::1"]);
        assert_eq!(
            uplinks(&host, &Config::default()).iter().map(|l| l.name.as_str()).collect::<Vec<_>>(),
            ["eth0", "eth1"]
        );
    }

    #[test]
    fn link_local_gateways_keep_their_interface() {
        let host = host(
            [link(2, "eth0"), link(3, "eth1")],
            [gateway("::/0", "fe80::1", 2), gateway("::/0", "fe80::1", 3), gateway("::/0", "fe80::1", 9)],
        );
        assert_eq!(names(&host), ["fe80::1%eth0", "fe80::1%eth1"], "an unknown interface is none");
    }

    #[test]
    fn own_routes_and_own_addresses_are_no_gateways() {
        let mut ours = gateway("0.0.0.0/0", "10.0.0.1", 2);
        ours.protocol = 179;
        let mut on_link = gateway("0.0.0.0/0", "10.0.0.9", 2);
        on_link.hops[0].gateway = None;
        let own = gateway("0.0.0.0/0", "10.0.0.2", 2);
        let host = host([link(2, "eth0").with("10.0.0.2/30")], [ours, on_link, own]);
        assert!(names(&host).is_empty(), "{:?}", names(&host));
    }

    fn at(host: &Host, held: &mut Gateways, now: Instant) -> Vec<String> {
        held.handle(now, host, &Config::default());
        held.held().iter().map(|g| g.key.to_string()).collect()
    }

    #[test]
    fn dhcpcd_244_a_gateway_stays_while_its_default_route_is_away_for_less_than_ten_seconds() {
        let (t0, ms) = (Instant::now(), Duration::from_millis);
        let eth0 = || link(2, "eth0").with("10.0.0.2/30").with("fe80::2/64");
        let both = host([eth0()], [gateway("0.0.0.0/0", "10.0.0.1", 2), gateway("::/0", "fe80::1", 2)]);
        let neither = host([eth0()], []);
        let mut held = Gateways::default();
        assert!(at(&both, &mut held, t0).is_empty(), "they are there by their routes");
        assert_eq!(at(&neither, &mut held, t0 + ms(10)), ["10.0.0.1", "fe80::1%eth0"]);
        assert_eq!(held.poll_timeout(), Some(t0 + ms(10) + HOLD));
        assert_eq!(at(&neither, &mut held, t0 + ms(10_009)).len(), 2, "further changes begin nothing anew");
        assert!(at(&both, &mut held, t0 + ms(10_009)).is_empty() && held.poll_timeout().is_none());
        at(&neither, &mut held, t0 + ms(20_000));
        assert!(at(&neither, &mut held, t0 + ms(30_000)).is_empty(), "away for ten seconds");

        // Another gateway takes over: both are neighbors for a while.
        let other = host([eth0()], [gateway("0.0.0.0/0", "10.0.0.3", 2)]);
        at(&both, &mut held, t0);
        assert_eq!(at(&other, &mut held, t0), ["10.0.0.1", "fe80::1%eth0"]);
        assert!(at(&other, &mut held, t0 + HOLD).is_empty());
    }

    #[test]
    fn a_gateway_goes_at_once_with_its_link() {
        let t0 = Instant::now();
        let up = host([link(2, "eth0").with("10.0.0.2/30")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let lost = [
            host([link(2, "eth0").with("10.0.0.2/30").no_carrier()], []),
            host([link(2, "eth0").down()], []),
            host([link(3, "eth0").with("10.0.0.2/30")], []),
            host([link(2, "eth0").down()], [gateway("0.0.0.0/0", "10.0.0.1", 2)]),
        ];
        for after in lost {
            let mut held = Gateways::default();
            at(&up, &mut held, t0);
            assert!(at(&after, &mut held, t0).is_empty(), "{after:?}");
            assert_eq!(gateways(&after, &Config::default()), [], "{after:?}");
        }
    }
}
