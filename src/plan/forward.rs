//! For which packets to add accept rules, if the policy of iptables' FORWARD chain is DROP.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, bridge, gateway};
use crate::{fib::host::Link, net::Prefix, nft::forward::Wanted};

/// `served`: the ranges in which this node has pods. Advertised subnets are added, with or without
/// a carrier, so that a rule exists before the first packet.
pub(super) fn wanted(ctx: &Context<'_>, served: &[Prefix]) -> Wanted {
    let of_pods = ctx.extra.kubernetes && ctx.config.kubernetes.accept_forwarded;
    let of_docker = ctx.config.docker.accept_forwarded;
    let mut pods: BTreeSet<_> = served.iter().copied().filter(|_| of_pods).collect();
    let routed = advertised(ctx);
    let mut named: BTreeSet<_> = routed.values().flatten().copied().collect();
    if of_docker {
        pods.append(&mut named);
        pods.extend(&ctx.config.advertise.networks);
    }
    if !of_pods && pods.is_empty() {
        return Wanted { named, routed, ..Wanted::default() };
    }
    let names = |l: &Link| l.name.clone();
    let closed = bridges(ctx).filter(|l| is_of_other_containers(ctx, l, &pods)).map(names).collect();
    let inner = bridges(ctx).filter(|l| of_docker && !leads_out(ctx, l)).map(names).collect();
    Wanted { enabled: true, pods, closed, inner, routed, named }
}

/// All bridges except the pods'.
fn bridges<'a>(ctx: &Context<'a>) -> impl Iterator<Item = &'a Link> {
    let (host, pods) = (ctx.host, &ctx.config.cni.bridge);
    host.links.values().filter(move |l| l.kind == "bridge" && l.name != *pods)
}

/// Advertised bridges with their subnets. The subnet of an uplink belongs to the network, not to
/// this host.
fn advertised(ctx: &Context<'_>) -> BTreeMap<String, BTreeSet<Prefix>> {
    let advertise = &ctx.config.advertise;
    let uplinks = gateway::uplinks(ctx.host, ctx.config);
    let is_inner = |l: &&Link| !l.loopback && !uplinks.iter().any(|u| u.index == l.index);
    let links = ctx.host.links.values().filter(is_inner);
    let links = links.filter(|l| bridge::is_advertised(advertise, ctx.host, l));
    links.map(|l| (l.name.clone(), bridge::of_link(l).collect())).collect()
}

/// Whether a bridge is one of other containers: not the way out of this host, and not a former
/// bridge of the pods.
fn is_of_other_containers(ctx: &Context<'_>, bridge: &Link, served: &BTreeSet<Prefix>) -> bool {
    let of_node = |a| ctx.own_node().is_some_and(|own| own.addresses.contains(a));
    let has_node_address = bridge.addresses.iter().any(|a| of_node(&a.addr));
    let has_pods = bridge.subnets().any(|s| served.iter().any(|p| p.covers(s) || s.covers(*p)));
    !leads_out(ctx, bridge) && !has_node_address && !has_pods
}

fn leads_out(ctx: &Context<'_>, bridge: &Link) -> bool {
    let mut ports = ctx.host.links.values().filter(|l| l.master == Some(bridge.index));
    ports.any(|port| port.kind != "veth")
        || gateway::uplinks(ctx.host, ctx.config).iter().any(|l| l.index == bridge.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fib::host::testing::{gateway, host, link},
        plan::testing::{Case, config, node, nodes},
    };

    fn bridge(index: u32, name: &str, address: &str) -> Link {
        Link { kind: "bridge".into(), ..link(index, name).with(address) }
    }

    #[test]
    fn bridges_of_other_containers_stay_shut_and_ways_out_do_not() {
        let port =
            |index, kind: &str, master| Link { kind: kind.into(), master: Some(master), ..link(index, "p") };
        let links = [
            link(2, "eth0").with("10.0.0.5/30"),
            bridge(3, "docker0", "172.17.0.1/16"),
            port(13, "veth", 3),
            bridge(4, "br-of-nobody", "172.18.0.1/16"),
            bridge(5, "routelet0", "10.244.1.1/24"),
            bridge(6, "cni0", "10.244.1.1/24"),
            bridge(7, "br-default", "10.7.0.2/24"),
            bridge(8, "br-node", "10.8.0.2/24"),
            bridge(9, "br-storage", "10.9.0.2/24"),
            port(19, "", 9),
        ];
        let host = host(links, [gateway("0.0.0.0/0", "10.7.0.1", 7)]);
        let own = node("n1", &["10.8.0.2"], &["10.244.1.0/24"]);
        let mut case = Case::new(config(), Some(nodes([own])), host);
        let wanted = case.plan().forward;
        assert_eq!(wanted.closed.iter().map(String::as_str).collect::<Vec<_>>(), ["br-of-nobody", "docker0"]);
        assert!(wanted.enabled && wanted.pods == ["10.244.1.0/24".parse().unwrap()].into());
        case.config.kubernetes.accept_forwarded = false;
        assert_eq!(*case.plan().forward, Wanted::default());
    }

    #[test]
    fn advertised_subnets_are_let_through_on_a_bare_host_and_no_others() {
        let links = [
            link(2, "eth0").with("10.0.0.5/30"),
            bridge(3, "docker0", "172.17.0.1/16").with("fd00:17::1/64").with("fe80::1/64"),
            bridge(4, "br-other", "172.18.0.1/16"),
            bridge(7, "br-out", "10.7.0.2/24"),
        ];
        let host = host(links, [gateway("0.0.0.0/0", "10.7.0.1", 7)]);
        let mut case = Case::new(config(), None, host);
        case.config.bgp.asn = crate::config::AsSetting::Number(1000);
        assert_eq!(*case.plan().forward, Wanted::default(), "nothing is advertised");
        case.config.advertise.interfaces = vec!["docker0".into(), "br-out".into()];
        case.config.advertise.networks = vec!["10.50.0.0/16".parse().unwrap()];
        let wanted = case.plan().forward;
        let open: Vec<_> = wanted.pods.iter().map(ToString::to_string).collect();
        assert_eq!(open, ["10.50.0.0/16", "172.17.0.0/16", "fd00:17::/64"]);
        assert!(wanted.enabled && wanted.closed == ["br-other".to_owned()].into());
        assert_eq!(wanted.inner, ["br-other", "docker0"].map(str::to_owned).into(), "but for the way out");
        let subnets: BTreeSet<_> = wanted.routed["docker0"].iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["172.17.0.0/16", "fd00:17::/64"].map(str::to_owned).into());
        case.config.docker.accept_forwarded = false;
        let left = case.plan().forward;
        assert!(!left.enabled && left.pods.is_empty() && left.named.len() == 2, "{left:?}");
    }
}
