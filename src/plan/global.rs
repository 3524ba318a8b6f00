//! Settings of all sessions: AS number and router id, and where each comes from.

use std::net::{IpAddr, Ipv4Addr};

use super::{NoPlan, PlanInputs, addresses, gateway, neighbor};
use crate::{
    bgp::peer::Global,
    config::{AsSetting, Config, NeighborId},
    fib::host::{Host, Link, LinkAddress, Scope},
    k8s::node::Nodes,
    net::{Asn, Family, RouterId},
};

/// The settings, or the reason why there are none.
pub(super) fn global(
    config: &Config,
    nodes: Option<&Nodes>,
    host: &Host,
    extra: &PlanInputs,
) -> Result<Global, NoPlan> {
    let router_id = router_id(config, nodes, host, extra)?;
    let annotated = nodes.and_then(|n| n.own.as_ref()).and_then(|own| own.asn);
    let asn = annotated.map_or_else(|| file_asn(config, router_id, extra.kubernetes), Ok)?;
    Ok(Global {
        asn,
        router_id,
        cluster_id: config.bgp.cluster_id.unwrap_or(router_id),
        max_paths: config.bgp.max_paths,
        multipath_relax: config.bgp.multipath_relax,
        restarting: extra.restarting,
    })
}

/// The AS number from the file for each node; under Kubernetes, that of all nodes without the
/// annotation.
pub(super) fn file_asn(config: &Config, router_id: RouterId, kubernetes: bool) -> Result<Asn, NoPlan> {
    match config.bgp.asn {
        AsSetting::Number(n) => Ok(n),
        AsSetting::Auto => Ok(derived_asn(router_id)),
        AsSetting::Default if kubernetes => Ok(KUBERNETES_AS),
        AsSetting::Default => Err(NoPlan::NoAs),
    }
}

/// A private four-octet number (RFC 6996 §5) from the low 26 bits of the router id: two hosts in
/// the same /6 never share it.
fn derived_asn(router_id: RouterId) -> Asn {
    4_200_000_000 + (router_id.to_bits() & 0x03ff_ffff)
}

/// The router id from the annotation, the file, the last run, the Node's address, or the host's
/// addresses, in this order.
///
/// The id of the last run is kept so that a changed lease resets no session. One that belongs to
/// another Node, as in a copied state folder, is not used.
fn router_id(
    config: &Config,
    nodes: Option<&Nodes>,
    host: &Host,
    extra: &PlanInputs,
) -> Result<RouterId, NoPlan> {
    let own = nodes.and_then(|n| n.own.as_ref());
    let of_others = |id: &RouterId| {
        nodes.is_some_and(|n| {
            n.others().any(|o| o.router_id == Some(*id) || o.addresses.contains(&IpAddr::V4(*id)))
        })
    };
    let configured = own.and_then(|o| o.router_id).or(config.bgp.router_id);
    if let Some(id) = configured.or(extra.stored_router_id.filter(|id| !of_others(id))) {
        return Ok(id);
    }
    if let Some(own) = own.filter(|o| o.addresses.is_empty() && !o.external.is_empty()) {
        let external = addresses::named(own.external.iter().map(ToString::to_string));
        return Err(NoPlan::ExternalElsewhere { external });
    }
    if nodes.is_some() && own.is_none_or(|o| o.addresses.is_empty()) {
        return Err(NoPlan::NoNodeAddress);
    }
    let node_address = |family| own.and_then(|o| o.address(family));
    node_address(Family::Ipv4Unicast)
        .or_else(|| host_address(host, config, Family::Ipv4Unicast))
        .or_else(|| node_address(Family::Ipv6Unicast))
        .or_else(|| host_address(host, config, Family::Ipv6Unicast))
        .or_else(|| link_local(config, host, extra))
        .map(identifier)
        .ok_or(NoPlan::NoAddress)
}

/// The address of the interface with the default route, or else the lowest address of an interface
/// that is not a bridge.
fn host_address(host: &Host, config: &Config, family: Family) -> Option<IpAddr> {
    let on = |link: &Link| link.addresses.iter().find(|a| is_stable(a, family)).map(|a| a.addr);
    gateway::uplinks(host, config).into_iter().find_map(on).or_else(|| {
        let links = host.links.values().filter(|l| l.kind != "bridge" && !l.loopback);
        let of_links =
            links.flat_map(|l| &l.addresses).filter(|a| is_stable(a, family)).map(|a| a.addr).min();
        of_links.or_else(|| loopback_address(host, family))
    })
}

/// The lowest address of `lo` outside of 127.0.0.0/8 and other than ::1, for hosts whose uplinks
/// are unnumbered.
fn loopback_address(host: &Host, family: Family) -> Option<IpAddr> {
    let all = host.links.values().filter(|l| l.loopback).flat_map(|l| &l.addresses);
    all.filter(|a| is_stable(a, family) && !a.addr.is_loopback()).map(|a| a.addr).min()
}

/// A link-local address, preferably of a network card, for a host that has unnumbered neighbors and
/// no other address. Until there is a neighbor, any other address of the host replaces it.
fn link_local(config: &Config, host: &Host, extra: &PlanInputs) -> Option<IpAddr> {
    let of_file = config.bgp.neighbors.iter().chain(&extra.objects);
    if !of_file.into_iter().any(|n| matches!(n.at, NeighborId::Interface(_) | NeighborId::Uplinks)) {
        return None;
    }
    let links = host.links.values().filter(|l| !l.loopback && l.kind != "bridge" && l.master.is_none());
    let with_address = links.filter_map(|l| {
        let usable = l.addresses.iter().filter(|a| !a.tentative && a.addr.is_ipv6());
        Some((!l.kind.is_empty(), l.index, usable.map(|a| a.addr).find(|a| neighbor::is_link_local(*a))?))
    });
    with_address.min().map(|(_, _, addr)| addr)
}

/// Whether the router id is kept, while the daemon runs and for later starts. A router id that was
/// derived from a link-local address is kept once there is a neighbor: the AS number is derived
/// from it as well, and its link may go down while others have sessions.
pub(super) fn is_lasting(
    config: &Config,
    nodes: Option<&Nodes>,
    host: &Host,
    extra: &PlanInputs,
    id: RouterId,
    has_neighbors: bool,
) -> bool {
    has_neighbors
        || extra.stored_router_id == Some(id)
        || nodes.is_some()
        || config.bgp.router_id.is_some()
        || link_local(config, host, extra).map(identifier) != Some(id)
}

fn is_stable(address: &LinkAddress, family: Family) -> bool {
    Family::of(address.addr) == family
        && address.scope == Scope::Global
        && !neighbor::is_link_local(address.addr)
        && !(address.tentative || address.deprecated || address.secondary)
}

/// An IPv4 address as it is; an IPv6 address by a hash (FNV-1a) that is the same at every start and
/// never 0.
fn identifier(addr: IpAddr) -> RouterId {
    match addr {
        IpAddr::V4(a) => a,
        IpAddr::V6(a) => {
            let hash =
                a.octets().iter().fold(0x811c_9dc5_u32, |h, o| (h ^ u32::from(*o)).wrapping_mul(0x0100_0193));
            Ipv4Addr::from_bits(hash.max(1))
        }
    }
}

/// Default AS number of a cluster (RFC 6996: the first private one).
const KUBERNETES_AS: Asn = 64512;

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{config, extra, node, nodes},
        *,
    };
    use crate::fib::host::testing::{gateway, host, link};

    fn id(s: &str) -> RouterId {
        s.parse().unwrap()
    }

    fn bridge(index: u32, name: &str) -> Link {
        Link { kind: "bridge".into(), ..link(index, name) }
    }

    #[test]
    fn the_router_id_follows_its_order_of_precedence() {
        let h = host(
            [
                bridge(4, "docker0").with("10.0.0.1/24"),
                link(3, "eth1").with("10.3.0.1/24"),
                link(2, "eth0").with("10.9.0.1/24"),
            ],
            [gateway("0.0.0.0/0", "10.9.0.254", 2)],
        );
        let mut c = config();
        let k = extra(true);
        let mut n = nodes([node("n1", &["10.99.0.11", "fd00::11"], &[]), node("n2", &["10.99.0.12"], &[])]);
        let of = |c: &Config, n: Option<&Nodes>, e: &PlanInputs| router_id(c, n, &h, e).unwrap();

        assert_eq!(of(&c, None, &extra(false)), id("10.9.0.1"), "the interface with the default route");
        assert_eq!(of(&c, Some(&n), &k), id("10.99.0.11"), "the InternalIP");
        let stored = PlanInputs { stored_router_id: Some(id("9.9.9.9")), ..extra(true) };
        assert_eq!(of(&c, Some(&n), &stored), id("9.9.9.9"), "kept over a changed lease");
        let copied = PlanInputs { stored_router_id: Some(id("10.99.0.12")), ..extra(true) };
        assert_eq!(of(&c, Some(&n), &copied), id("10.99.0.11"), "another node's is not taken");
        c.bgp.router_id = Some(id("1.1.1.1"));
        assert_eq!(of(&c, Some(&n), &stored), id("1.1.1.1"), "the file");
        n.own.as_mut().unwrap().router_id = Some(id("2.2.2.2"));
        assert_eq!(of(&c, Some(&n), &stored), id("2.2.2.2"), "the annotation");
    }

    #[test]
    fn without_a_default_route_the_lowest_address_that_is_no_bridges_is_taken() {
        let h = host(
            [
                bridge(4, "docker0").with("10.0.0.1/24"),
                link(3, "eth1").with("10.3.0.1/24"),
                link(2, "eth0").with("10.9.0.1/24"),
            ],
            [],
        );
        assert_eq!(router_id(&config(), None, &h, &extra(false)), Ok(id("10.3.0.1")));
    }

    #[test]
    fn a_host_with_ipv6_alone_hashes_its_address() {
        let h = host([link(2, "eth0").with("fe80::1/64").with("2001:db8::1/64")], []);
        let first = router_id(&config(), None, &h, &extra(false)).unwrap();
        assert_eq!(Ok(first), router_id(&config(), None, &h, &extra(false)));
        assert_ne!(first, identifier("2001:db8::2".parse().unwrap()));
        assert!(!first.is_unspecified());
    }

    #[test]
    fn where_uplinks_have_no_address_that_of_lo_is_taken_and_else_a_link_local_one_for_the_time_being() {
        let mut c = config();
        let lo = || link(1, "lo").with("127.0.0.1/8").with("::1/128");
        let card = Link { kind: String::new(), ..link(3, "eth1").with("fe80::3/64") };
        let bare = host([lo(), link(2, "veth1").with("fe80::2/64"), card.clone()], []);
        let e = extra(false);
        assert!(
            router_id(&c, None, &bare, &e).unwrap_err().to_string().contains("bgp.router-id"),
            "only for unnumbered ones"
        );
        c.bgp.neighbors = vec![crate::config::Neighbor {
            at: NeighborId::Interface("eth1".into()),
            group: None,
            limit: 1,
            keys: Default::default(),
        }];
        let first = router_id(&c, None, &bare, &e).unwrap();
        assert_eq!(first, identifier("fe80::3".parse().unwrap()), "the card's");
        assert!(!is_lasting(&c, None, &bare, &e, first, false));
        assert!(is_lasting(&c, None, &bare, &e, first, true), "with a neighbor");
        let with_lo = host([lo().with("192.0.2.1/32"), card], []);
        assert_eq!(router_id(&c, None, &with_lo, &e), Ok(id("192.0.2.1")));
        assert!(is_lasting(&c, None, &with_lo, &e, id("192.0.2.1"), false));
    }

    #[test]
    fn what_is_missing_is_reported() {
        let e = extra(true);
        assert!(
            router_id(&config(), Some(&Nodes::default()), &host([], []), &e)
                .unwrap_err()
                .to_string()
                .contains("Node")
        );
        assert!(
            router_id(&config(), None, &host([], []), &extra(false))
                .unwrap_err()
                .to_string()
                .contains("bgp.router-id")
        );
        assert_eq!(file_asn(&config(), id("1.1.1.1"), false), Err(NoPlan::NoAs));
        assert_eq!(file_asn(&config(), id("1.1.1.1"), true), Ok(64512));
    }

    #[test]
    fn derived_numbers_are_private_and_differ_within_a_slash_6() {
        assert_eq!(derived_asn(id("10.0.0.1")), 4_200_000_000 + 0x0200_0001);
        for (a, b) in
            [("10.0.0.1", "10.0.0.2"), ("8.0.0.0", "11.255.255.255"), ("192.168.1.1", "192.168.2.1")]
        {
            assert_ne!(derived_asn(id(a)), derived_asn(id(b)), "{a} {b}");
        }
        for extreme in ["0.0.0.1", "255.255.255.255"] {
            assert!((4_200_000_000..=4_294_967_294).contains(&derived_asn(id(extreme))), "{extreme}");
        }
    }
}
