//! `show host`: which subnets of this host are advertised, and why the others are not.

pub use super::gateway::leads_out;
use super::{
    Plan,
    bridge::{is_advertised, of_link},
    gateway::{self, is_container_bridge},
};
use crate::{
    config::Config,
    fib::host::{Host, Link},
    net::Prefix,
};

/// An interface, and why its subnets are or are not advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceView {
    pub name: String,
    pub kind: String,
    pub up: bool,
    pub carrier: bool,
    pub default_route: bool,
    /// Whether its subnets are advertised while it is up and has a carrier.
    pub is_selected: bool,
    /// Each subnet, with the reason why it is not advertised, or `None` if it is.
    pub subnets: Vec<(Prefix, Option<String>)>,
    /// Why nothing is advertised, if it has no subnets.
    pub reason: Option<String>,
}

/// All interfaces except for ports of bridges, and for the loopback if it is not advertised.
pub fn interfaces(plan: &Plan, host: &Host) -> Vec<InterfaceView> {
    let config = &plan.config;
    let counts = |l: &&Link| l.master.is_none() && (!l.loopback || is_advertised(&config.advertise, host, l));
    let uplinks = gateway::uplinks(host, config);
    host.links.values().filter(counts).map(|link| interface(plan, &uplinks, host, link)).collect()
}

fn interface(plan: &Plan, uplinks: &[&Link], host: &Host, link: &Link) -> InterfaceView {
    let config = &plan.config;
    let default_route = uplinks.iter().any(|u| u.index == link.index);
    let is_uplink = default_route || plan.interfaces.links.contains_key(&link.index);
    let reason = reason(config, host, link, is_uplink);
    let subnet = |p: Prefix| (p, (!plan.originated.contains_key(&p)).then(|| reason.clone()));
    let mut subnets: Vec<_> = of_link(link).map(subnet).collect();
    subnets.dedup();
    InterfaceView {
        name: link.name.clone(),
        kind: if link.kind.is_empty() { "physical".into() } else { link.kind.clone() },
        up: link.up,
        carrier: host.has_carrier(link),
        default_route,
        is_selected: is_advertised(&config.advertise, host, link)
            || !is_uplink && config.advertise.containers && link.kind == "bridge" && !leads_out(host, link),
        reason: subnets.is_empty().then(|| without_subnets(config, host, link, is_uplink)),
        subnets,
    }
}

/// Why a subnet of this interface is not advertised.
fn reason(config: &Config, host: &Host, link: &Link, is_uplink: bool) -> String {
    if is_advertised(&config.advertise, host, link) {
        return match (link.up, host.has_carrier(link)) {
            (false, _) => "the interface is down".into(),
            (true, false) => "no container is attached, or it has no carrier".into(),
            (true, true) => "draining, or the address is still being checked".into(),
        };
    }
    if is_uplink {
        return "uplink: its subnet is the network's".into();
    }
    if config.advertise.containers && link.kind == "bridge" {
        let has_ports = host.links.values().any(|p| p.master == Some(link.index));
        return if has_ports {
            "a network card is a port of this bridge"
        } else {
            "no container is attached"
        }
        .into();
    }
    format!("not in advertise.interfaces: add \"{}\" to advertise it", link.name)
}

fn without_subnets(config: &Config, host: &Host, link: &Link, is_uplink: bool) -> String {
    match () {
        () if is_uplink => "uplink without address".into(),
        () if config.advertise.containers && is_container_bridge(host, link) => {
            "a bridge of containers without address: nothing to advertise".into()
        }
        () => "no address".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Case, *};
    use crate::fib::host::testing::{gateway as default, host, link};

    /// Docker, an OpenShift-like br-ex with a card in it, a bridge without containers, and two
    /// uplinks.
    fn case() -> Case {
        let bridge = |index, name: &str| Link { kind: "bridge".into(), ..link(index, name) };
        let port = |index: u32, master, kind: &str| Link {
            kind: kind.into(),
            master: Some(master),
            ..link(index, &format!("port{index}"))
        };
        let card = |index, name: &str| Link { kind: String::new(), ..link(index, name) };
        let links = [
            card(1, "lo").with("127.0.0.1/8"),
            card(2, "eth0").with("10.0.0.2/30"),
            card(3, "eth1").with("fe80::3/64"),
            bridge(4, "docker0").with("172.17.0.1/16"),
            port(5, 4, "veth"),
            bridge(6, "br-ex").with("192.0.2.2/24"),
            port(7, 6, ""),
            bridge(8, "lxdbr0").with("10.9.0.1/24"),
            bridge(9, "virbr0").with("192.168.122.1/24"),
            port(10, 9, "tun"),
            link(11, "veth11").with("10.77.0.1/24"),
        ];
        Case::new(Config::for_bare_host(), None, host(links, [default("0.0.0.0/0", "10.0.0.1", 2)]))
    }

    #[test]
    fn bridges_are_known_by_their_ports_and_not_by_their_names() {
        let plan = case().plan();
        let own: Vec<_> = plan.originated.keys().map(Prefix::to_string).collect();
        assert_eq!(own, ["172.17.0.0/16", "192.168.122.0/24"]);
        let peers: Vec<_> = plan.peers.keys().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.1"]);
        let sought: Vec<_> = plan.interfaces.links.values().map(|i| i.name.as_str()).collect();
        assert_eq!(sought, ["eth1"], "a card without address; nobody need be there");
        assert!(plan.unfound.is_empty() && plan.problems.is_empty(), "{:?}", plan.problems);
    }

    #[test]
    fn each_interface_has_its_subnets_and_the_reason_why_they_are_not_advertised() {
        let case = case();
        let views = interfaces(&case.plan(), &case.host);
        let text: Vec<_> = views
            .iter()
            .map(|v| {
                let subnets = v
                    .subnets
                    .iter()
                    .map(|(p, why)| format!("{p} {}", why.as_deref().unwrap_or("advertised")));
                format!("{}: {}", v.name, subnets.chain(v.reason.clone()).collect::<Vec<_>>().join(", "))
            })
            .collect();
        assert_eq!(
            text,
            [
                "eth0: 10.0.0.0/30 uplink: its subnet is the network's",
                "eth1: uplink without address",
                "docker0: 172.17.0.0/16 advertised",
                "br-ex: 192.0.2.0/24 a network card is a port of this bridge",
                "lxdbr0: 10.9.0.0/24 no container is attached",
                "virbr0: 192.168.122.0/24 advertised",
                "veth11: 10.77.0.0/24 not in advertise.interfaces: add \"veth11\" to advertise it",
            ]
        );
    }

    #[test]
    fn in_a_namespace_without_cards_ends_of_veth_pairs_are_uplinks() {
        let links = [link(1, "lo").with("127.0.0.1/8"), link(2, "eth0").with("fe80::2/64"), link(3, "eth1")];
        let mut case = Case::new(Config::for_bare_host(), None, host(links, []));
        case.config.bgp.router_id = Some([10, 0, 0, 9].into());
        let sought: Vec<_> = case.plan().interfaces.links.values().map(|i| i.name.clone()).collect();
        assert_eq!(sought, ["eth0", "eth1"]);
        let card = Link { kind: String::new(), ..link(4, "ens1") };
        case.host.links.insert(4, card);
        let sought: Vec<_> = case.plan().interfaces.links.values().map(|i| i.name.clone()).collect();
        assert_eq!(sought, ["ens1"]);
    }
}
