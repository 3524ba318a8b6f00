//! The host as BGP sessions need it: the link that leads to a neighbor, and its addresses.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    host::{Host, Link},
    resolve::is_link_local,
};
use crate::net::{LinkState, Links, Prefix};

/// Extracts from `host` what sessions depend on.
pub fn links(host: &Host) -> Links {
    let carrier: BTreeSet<u32> = host.links_with_carrier().map(|l| l.index).collect();
    let state = |link: &Link| LinkState {
        name: link.name.clone(),
        up: link.up,
        carrier: link.loopback || carrier.contains(&link.index),
        generation: link.generation,
        addresses: subnets(link).collect(),
    };
    let subnets =
        host.links.values().filter(|l| !l.loopback).flat_map(|l| subnets(l).map(|(_, p)| (p, l.index)));
    // All links share one link-local subnet, so a link-local neighbor is configured with its
    // interface.
    let subnets = subnets.filter(|(p, _)| !is_link_local(p.addr()) || p.addr().is_ipv4());
    let on_link = subnets.chain(routed(host)).collect();
    Links::new(host.links.values().map(|l| (l.index, state(l))).collect(), on_link)
}

/// For each link that can send, its index and generation, on which the next hops over it depend.
pub fn alive(host: &Host) -> Vec<(u32, u32)> {
    host.links.values().filter(|l| host.can_send(l)).map(|l| (l.index, l.generation)).collect()
}

fn subnets(link: &Link) -> impl Iterator<Item = (IpAddr, Prefix)> + '_ {
    link.addresses.iter().filter_map(|a| Some((a.addr, Prefix::new(a.peer.unwrap_or(a.addr), a.len)?)))
}

/// What other daemons' routes show to be on a link: gateways, and destinations without a gateway.
fn routed(host: &Host) -> impl Iterator<Item = (Prefix, u32)> + '_ {
    host.routes.iter().flat_map(|route| {
        let hops = route.hops.iter().filter(|h| h.ifindex != 0);
        hops.filter_map(|hop| match hop.gateway {
            Some(gateway) if is_link_local(gateway) => None,
            Some(gateway) => Some((Prefix::host(gateway), hop.ifindex)),
            None => (route.prefix.len() > 0).then_some((route.prefix, hop.ifindex)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_link_with_the_local_address_in_the_subnet_leads_to_a_neighbor() {
        let mut onlink = gateway("0.0.0.0/0", "172.31.1.1", 4);
        onlink.hops[0].onlink = true;
        let links = links(&host(
            [
                link(1, "lo").with("127.0.0.1/8").with("10.255.0.1/32"),
                link(2, "eth0").with("10.0.0.2/24"),
                link(3, "eth1").with("10.0.0.3/24").with("fe80::3/64"),
                link(4, "eth2").with("192.0.2.9/32"),
            ],
            [onlink],
        ));
        #[rustfmt::skip]
        let cases = [
            ("first of two in one subnet",    "10.0.0.2",   "10.0.0.254",  Some(2)),
            ("second of two in one subnet",   "10.0.0.3",   "10.0.0.254",  Some(3)),
            ("from the loopback address",     "10.255.0.1", "10.0.0.254",  Some(2)),
            ("an onlink gateway",             "192.0.2.9",  "172.31.1.1",  Some(4)),
            ("a neighbor that is far away",   "10.0.0.2",   "198.51.100.1", None),
        ];
        for (name, local, remote, want) in cases {
            assert_eq!(links.towards(ip(local), ip(remote)), want, "{name}");
        }
        assert_eq!(links.with_address(ip("10.0.0.3")).collect::<Vec<_>>(), [3]);
        assert!(links.leads_to(ip("172.31.1.1")) && !links.leads_to(ip("198.51.100.1")));
    }

    #[test]
    fn a_bridge_needs_a_port_to_have_a_carrier() {
        let bridge = Link { kind: "bridge".into(), ..link(2, "br0").with("10.0.0.1/24") };
        let of = |port: Link| links(&host([bridge.clone(), Link { master: Some(2), ..port }], []));
        assert!(of(link(3, "eth0")).links[&2].can_send());
        let cut = of(link(3, "eth0").no_carrier());
        assert_eq!((cut.links[&2].up, cut.links[&2].carrier), (true, false));
        assert!(!cut.leads_to(ip("10.0.0.9")));
    }
}
