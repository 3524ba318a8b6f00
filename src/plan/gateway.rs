//! The next hops of the default routes, as neighbors: whoever carries this host's packets to the rest of the world
//! is the router that should learn of its containers.
//!
//! Default routes change (DHCP, router advertisements, failover), and the neighbors follow: the plan is made anew
//! on each change of the host. A route with our own protocol number never counts, else a default route learned
//! from a neighbor would make its sender a gateway, and its loss would end the session.

use std::net::IpAddr;

use crate::{
    bgp::peer::PeerKey,
    fib::host::{ForeignRoute, Host, Link},
    net::Family,
};

/// The default routes that count: of others, those of each family by metric.
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

/// The gateways as neighbors, in order of preference, each once. One that is an address of this host is none.
pub(super) fn gateways(host: &Host, own_protocol: u8) -> Vec<PeerKey> {
    let mut keys = Vec::new();
    for hop in default_routes(host, own_protocol).flat_map(|r| &r.hops) {
        let Some(addr) = hop.gateway.filter(|a| !is_own(host, *a)) else { continue };
        let key = match addr {
            IpAddr::V6(a) if a.is_unicast_link_local() => match host.links.get(&hop.ifindex) {
                Some(link) => PeerKey::LinkLocal(a, link.name.clone()),
                None => continue,
            },
            addr => PeerKey::Address(addr),
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The interfaces that hold a default route, in order of preference, each once.
pub(super) fn uplinks(host: &Host, own_protocol: u8) -> Vec<&Link> {
    let mut links: Vec<&Link> = Vec::new();
    for hop in default_routes(host, own_protocol).flat_map(|r| &r.hops) {
        if let Some(link) = host.links.get(&hop.ifindex)
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
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn names(host: &Host) -> Vec<String> {
        gateways(host, 179).iter().map(PeerKey::to_string).collect()
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
        assert_eq!(uplinks(&host, 179).iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
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
}
