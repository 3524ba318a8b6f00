//! Whose packets are let through where iptables' FORWARD drops what nobody accepts.

use super::{Context, gateway};
use crate::{fib::host::Link, masquerade::forward::Wanted, net::Prefix};

/// `served`: the ranges in which this node has pods.
pub(super) fn wanted(ctx: &Context<'_>, served: &[Prefix]) -> Wanted {
    if !ctx.extra.kubernetes || !ctx.config.kubernetes.accept_forwarded {
        return Wanted::default();
    }
    let bridges = ctx.host.links.values().filter(|l| l.kind == "bridge" && l.name != ctx.config.cni.bridge);
    let closed = bridges.filter(|l| is_of_other_containers(ctx, l, served)).map(|l| l.name.clone());
    Wanted { enabled: true, pods: served.iter().copied().collect(), closed: closed.collect() }
}

/// Not the way out of this host, and no former bridge of the pods.
fn is_of_other_containers(ctx: &Context<'_>, bridge: &Link, served: &[Prefix]) -> bool {
    let mut ports = ctx.host.links.values().filter(|l| l.master == Some(bridge.index));
    let leads_out = ports.any(|port| port.kind != "veth")
        || gateway::uplinks(ctx.host, ctx.config.fib.protocol).iter().any(|l| l.index == bridge.index);
    let of_node = |a| ctx.own_node().is_some_and(|own| own.addresses.contains(a));
    let has_node_address = bridge.addresses.iter().any(|a| of_node(&a.addr));
    let has_pods = bridge.subnets().any(|s| served.iter().any(|p| p.covers(s) || s.covers(*p)));
    !leads_out && !has_node_address && !has_pods
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
}
