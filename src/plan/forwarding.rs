//! Which packets this host forwards, and over which interfaces.

use std::collections::BTreeSet;

use super::{Plan, PlanInputs, bridge, gateway, neighbor};
use crate::{
    bgp::peer::PeerKey,
    config::Config,
    fib::{
        host::{Host, Link},
        sysctl::Needs,
    },
    net::Family,
};

/// The sysctls to set. `plan` is `None` while there is none: the sysctls that follow from the
/// configuration alone need no router id, and forwarding must be enabled before a container engine
/// checks it (Docker sets the policy of FORWARD to DROP if it is disabled).
pub fn forwarding(config: &Config, host: &Host, extra: &PlanInputs, plan: Option<&Plan>) -> Needs {
    let own = plan.iter().flat_map(|p| p.originated.keys().chain(&p.unreachable));
    let in_use: BTreeSet<_> = own.map(|p| p.family()).collect();
    let mut families = in_use.clone();
    families.extend(config.advertise.networks.iter().map(|p| p.family()));
    let may_come = config.advertise.containers || !config.docker.networks.is_empty();
    if may_come || !config.advertise.interfaces.is_empty() {
        // Containers may be started at any time. IPv6 is only forwarded if the host has IPv6
        // addresses.
        families.insert(Family::Ipv4Unicast);
        families.extend(has_ipv6(host).then_some(Family::Ipv6Unicast));
    }
    let peers: Vec<_> = plan.iter().flat_map(|p| p.peers.keys()).collect();
    let mut uplinks: BTreeSet<_> = gateway::uplinks(host, config).iter().map(|l| l.name.clone()).collect();
    let of_peers = host.links.values().filter(|l| !l.loopback && peers.iter().any(|p| is_towards(l, p)));
    uplinks.extend(of_peers.map(|l| l.name.clone()));
    let of_containers = |l: &&Link| {
        !l.loopback
            && (extra.kubernetes && l.name == config.cni.bridge
                || bridge::is_advertised(&config.advertise, host, l))
    };
    let bridges = host.links.values().filter(of_containers).map(|l| l.name.clone());
    let ports = host.links.values().filter(|l| l.kind == "veth" && l.master.is_some());
    Needs {
        families,
        in_use,
        bridges: bridges.filter(|name| !uplinks.contains(name)).collect(),
        uplinks,
        ports: ports.map(|l| l.name.clone()).collect(),
        pods_bridge: (extra.kubernetes && config.cni.enabled != Some(false))
            .then(|| config.cni.bridge.clone()),
        container_bridges: container_bridges(config, host),
        services: extra.kubernetes && plan.is_some_and(|p| p.conflist.is_some()),
    }
}

/// Bridges of containers or virtual machines, except the pods' bridge.
fn container_bridges(config: &Config, host: &Host) -> BTreeSet<String> {
    let of_others = |l: &&Link| l.name != config.cni.bridge && gateway::is_container_bridge(host, l);
    host.links.values().filter(of_others).map(|l| l.name.clone()).collect()
}

fn has_ipv6(host: &Host) -> bool {
    let links = host.links.values().filter(|l| !l.loopback);
    let mut addresses = links.flat_map(|l| &l.addresses).map(|a| a.addr);
    addresses.any(|a| a.is_ipv6() && !neighbor::is_link_local(a))
}

/// Whether a directly connected neighbor is on this link.
fn is_towards(link: &Link, peer: &PeerKey) -> bool {
    match peer {
        PeerKey::Address(a) => link.subnets().any(|s| s.contains(*a)),
        PeerKey::LinkLocal(_, name) | PeerKey::Interface(name) => *name == link.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fib::host::testing::{gateway, host, link},
        plan::testing::{Case, config},
    };

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    fn needs(config: &Config, host: &Host) -> Needs {
        forwarding(config, host, &PlanInputs::default(), None)
    }

    #[test]
    fn what_is_advertised_is_forwarded_before_a_container_is_there() {
        let bare = host([link(2, "eth0").with("10.0.0.1/30")], []);
        let mut c = config();
        assert!(needs(&c, &bare).families.is_empty(), "nothing is advertised");
        c.advertise.interfaces = vec!["docker*".into()];
        assert_eq!(needs(&c, &bare).families, [Family::Ipv4Unicast].into());
        let dual = host([link(2, "eth0").with("10.0.0.1/30").with("fd00::1/64")], []);
        assert_eq!(needs(&c, &dual).families, Family::ALL.into());
        assert!(needs(&c, &dual).in_use.is_empty());
        c.advertise.interfaces.clear();
        c.docker.networks = vec![crate::docker::NetworkSelector::Name("web".into())];
        assert_eq!(needs(&c, &bare).families, [Family::Ipv4Unicast].into());
        c.docker.networks.clear();
        c.advertise.interfaces.clear();
        c.advertise.networks = ["fd50::/64".parse().unwrap()].into();
        assert_eq!(needs(&c, &bare).families, [Family::Ipv6Unicast].into());
    }

    #[test]
    fn uplinks_are_distinguished_from_bridges_of_containers() {
        let bridge = |index, name, address| Link { kind: "bridge".into(), ..link(index, name).with(address) };
        let links = [
            link(2, "eth0").with("10.0.0.1/30"),
            link(3, "eth1").with("10.0.1.1/30"),
            link(4, "eth2").with("192.168.0.1/24"),
            bridge(5, "docker0", "172.17.0.1/16"),
            bridge(6, "br-lan", "10.7.0.2/24"),
            Link { master: Some(5), ..link(7, "veth7") },
            Link { kind: String::new(), master: Some(6), ..link(8, "eth3") },
        ];
        let host = host(links, [gateway("0.0.0.0/0", "10.0.0.2", 2), gateway("0.0.0.0/0", "10.7.0.1", 6)]);
        let mut case = Case::new(config(), None, host);
        case.config.advertise.interfaces = vec!["docker0".into(), "br-*".into()];
        let needs = needs(&case.config, &case.host);
        assert_eq!(
            names(&needs.uplinks),
            ["br-lan", "eth0"],
            "a bridge that leads out is none of containers"
        );
        assert_eq!(names(&needs.bridges), ["docker0"]);
        assert_eq!(names(&needs.ports), ["veth7"]);
    }

    #[test]
    fn a_neighbor_makes_an_uplink() {
        let eth = link(2, "eth0").with("10.0.0.1/30").with("fd00::1/64");
        let key = |text: &str| text.parse::<PeerKey>().unwrap();
        for (peer, expected) in [
            ("10.0.0.2", true),
            ("fd00::2", true),
            ("10.0.0.9", false),
            ("fe80::1%eth0", true),
            ("eth1", false),
        ] {
            assert_eq!(is_towards(&eth, &key(peer)), expected, "{peer}");
        }
    }
}
