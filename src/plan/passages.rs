//! The packets for which the packet filters are evaluated: from and to each advertised subnet of
//! containers, over each uplink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Plan;
use crate::{
    bgp::peer::PeerKey,
    fib::{
        host::{Host, Link},
        sysctl::Needs,
    },
    net::{Family, Prefix},
    nft::{passage::Passage, verdict::Forwarded},
};

/// Maximum number of subnets, and of uplinks for each.
const MAX_SUBNETS: usize = 16;
const MAX_UPLINKS: usize = 4;

/// Remote addresses, private and public, for which no rule is likely to exist.
const REMOTE_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 251, 253, 77), Ipv4Addr::new(9, 9, 9, 9)];
const REMOTE_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd5b, 0x77a1, 0x90e3, 0, 0, 0, 0, 0x77),
    Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0x9),
];

/// Both directions of each subnet and uplink.
pub fn passages(host: &Host, needs: &Needs, plan: &Plan) -> Vec<Passage> {
    let bridges = needs.bridges.iter().filter_map(|name| host.link(name)).filter(|l| host.has_carrier(l));
    let subnets = bridges.flat_map(|bridge| bridge.subnets().map(move |subnet| (bridge, subnet)));
    let advertised = subnets.filter(|(_, subnet)| plan.originated.contains_key(subnet));
    let of_subnet = |(bridge, subnet): (&Link, Prefix)| {
        let uplinks = needs.uplinks.iter().filter_map(|name| host.link(name));
        let usable = uplinks.filter(|l| l.up && host.has_carrier(l) && carries(l, subnet.family(), plan));
        let both = |uplink| [true, false].map(|to| passage(host, bridge, subnet, uplink, to));
        usable.take(MAX_UPLINKS).flat_map(both).collect::<Vec<_>>()
    };
    advertised.take(MAX_SUBNETS).flat_map(of_subnet).collect()
}

/// Whether packets of a family can leave by a link: it has an address of the family, or an
/// unnumbered neighbor (RFC 8950).
fn carries(link: &Link, family: Family, plan: &Plan) -> bool {
    let is_unnumbered = |key: &PeerKey| match key {
        PeerKey::LinkLocal(_, name) | PeerKey::Interface(name) => *name == link.name,
        PeerKey::Address(_) => false,
    };
    link.subnets().any(|s| s.family() == family) || plan.peers.keys().any(is_unnumbered)
}

fn passage(host: &Host, bridge: &Link, subnet: Prefix, uplink: &Link, to_containers: bool) -> Passage {
    let near = uplink.subnets().find(|s| s.family() == subnet.family()).map(|s| first_of_others(host, s));
    let remotes: [IpAddr; 2] = match subnet.family() {
        Family::Ipv4Unicast => REMOTE_V4.map(IpAddr::V4),
        Family::Ipv6Unicast => REMOTE_V6.map(IpAddr::V6),
    };
    let remotes = [near.unwrap_or(remotes[0]), remotes[1]];
    let containers = [first_of_others(host, subnet), last(subnet)];
    let packets = containers.into_iter().zip(remotes).map(|(container, remote)| {
        let (bridge, uplink) = (bridge.name.clone(), uplink.name.clone());
        match to_containers {
            true => Forwarded {
                source: remote,
                destination: container,
                arrives_on: uplink,
                leaves_by: bridge,
                is_reply: false,
            },
            false => Forwarded {
                source: container,
                destination: remote,
                arrives_on: bridge,
                leaves_by: uplink,
                is_reply: false,
            },
        }
    });
    Passage { subnet, uplink: uplink.name.clone(), to_containers, packets: packets.collect() }
}

/// The first address of a subnet that this host does not have.
pub fn first_of_others(host: &Host, prefix: Prefix) -> IpAddr {
    let is_own = |a: &IpAddr| host.links.values().any(|l| l.addresses.iter().any(|own| own.addr == *a));
    let next = |n: u8| match prefix.addr() {
        IpAddr::V4(a) => IpAddr::from(Ipv4Addr::from_bits(a.to_bits().wrapping_add(n.into()))),
        IpAddr::V6(a) => IpAddr::from(Ipv6Addr::from_bits(a.to_bits().wrapping_add(n.into()))),
    };
    let inside = (1..=16).map(next).find(|a| prefix.contains(*a) && !is_own(a));
    inside.unwrap_or_else(|| prefix.addr())
}

/// The last address of a subnet, excluding a broadcast address.
fn last(prefix: Prefix) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from_bits((a.to_bits() | mask) & !u32::from(prefix.len() < 31)))
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            IpAddr::from(Ipv6Addr::from_bits(a.to_bits() | mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::AsSetting,
        fib::host::testing::{gateway, host, link},
        plan::{
            PlanInputs, forwarding,
            testing::{Case, config},
        },
    };

    fn passages_of(host: Host) -> Vec<Passage> {
        let mut case = Case::new(config(), None, host);
        case.config.bgp.asn = AsSetting::Number(1000);
        case.config.advertise.interfaces = vec!["br*".into()];
        let plan = case.plan();
        let needs = forwarding(&case.config, &case.host, &PlanInputs::default(), Some(&plan));
        passages(&case.host, &needs, &plan)
    }

    #[test]
    fn each_advertised_subnet_is_tried_in_both_directions_over_each_uplink() {
        let bridge =
            Link { kind: "bridge".into(), ..link(5, "br0").with("172.20.0.1/24").with("fd20::1/64") };
        let port = Link { master: Some(5), ..link(7, "veth7") };
        let links = [link(2, "eth0").with("10.0.0.1/24"), link(3, "eth1").with("10.0.1.1/24"), bridge, port];
        let routes = [gateway("0.0.0.0/0", "10.0.0.2", 2), gateway("0.0.0.0/0", "10.0.1.2", 3)];
        let found = passages_of(host(links, routes));
        let shown: Vec<_> =
            found.iter().map(|p| (p.subnet.to_string(), p.uplink.as_str(), p.to_containers)).collect();
        let v4 = |uplink, to| ("172.20.0.0/24".to_owned(), uplink, to);
        // No uplink has IPv6.
        assert_eq!(shown, [v4("eth0", true), v4("eth0", false), v4("eth1", true), v4("eth1", false)]);
        let packets: Vec<_> =
            found[0].packets.iter().map(|p| (p.source.to_string(), p.destination.to_string())).collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(packets, [pair("10.0.0.2", "172.20.0.2"), pair("9.9.9.9", "172.20.0.254")]);
        assert_eq!((&*found[0].packets[0].arrives_on, &*found[0].packets[0].leaves_by), ("eth0", "br0"));
        assert_eq!((&*found[1].packets[0].arrives_on, &*found[1].packets[0].leaves_by), ("br0", "eth0"));
    }

    #[test]
    fn addresses_are_inside_of_the_subnet() {
        let nobody = host([], []);
        for (prefix, first, end) in [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::1/128", "fd00::1", "fd00::1"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(first_of_others(&nobody, prefix).to_string(), first, "{prefix}");
            assert_eq!(last(prefix).to_string(), end, "{prefix}");
        }
    }
}
