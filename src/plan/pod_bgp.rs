//! Sources whose forwarded packets to port 179 of neighbors are dropped: `guard.block-pod-bgp`.

use std::collections::BTreeSet;

use super::{Context, Range, bridge, gateway, peering::Peers};
use crate::{bgp::peer::PeerKey, fib::host::Link, net::Prefix, nft::pod_bgp::Wanted};

/// `served`: the ranges in which this node has pods. A listen range that contains pods is left out:
/// pods may have BGP sessions with each other.
pub(super) fn wanted(ctx: &Context<'_>, served: &[Prefix], peers: &Peers, ranges: &[Range]) -> Wanted {
    if !ctx.config.guard.block_pod_bgp {
        return Wanted::default();
    }
    let addresses = peers.values().filter(|p| !p.is_here).filter_map(|p| match &p.key {
        PeerKey::Address(addr) if !addr.is_loopback() => Some(Prefix::host(*addr)),
        // Packets to link-local addresses are never forwarded.
        PeerKey::Address(_) | PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
    });
    let holds_pods = |range: Prefix| served.iter().any(|p| p.covers(range) || range.covers(*p));
    let ranges = ranges.iter().map(|r| r.prefix).filter(|range| !holds_pods(*range));
    Wanted {
        bridges: bridges(ctx),
        pods: served.iter().copied().collect(),
        neighbors: addresses.chain(ranges).collect(),
    }
}

/// The pods' bridge, whether it exists or not, and the advertised bridges.
fn bridges(ctx: &Context<'_>) -> BTreeSet<String> {
    let uplinks = gateway::uplinks(ctx.host, ctx.config);
    let is_inner = |l: &&Link| l.kind == "bridge" && uplinks.iter().all(|u| u.index != l.index);
    let links = ctx.host.links.values().filter(is_inner).filter(|l| !gateway::leads_out(ctx.host, l));
    let advertised = links.filter(|l| bridge::is_advertised(&ctx.config.advertise, ctx.host, l));
    let pods = ctx.extra.kubernetes.then(|| ctx.config.cni.bridge.clone());
    advertised.map(|l| l.name.clone()).chain(pods).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fib::host::testing::{gateway, host, link},
        plan::testing::{Case, config, node, nodes},
    };

    fn texts(prefixes: &BTreeSet<Prefix>) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pods_do_not_reach_the_gateway_and_the_nodes_by_bgp() {
        let h = host([link(2, "eth0").with("10.0.0.5/24")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let own = node("n1", &["10.0.0.5"], &["10.244.1.0/24"]);
        let other = node("n2", &["10.0.0.6"], &["10.244.2.0/24"]);
        let mut case = Case::new(config(), Some(nodes([own, other])), h);
        let wanted = case.plan().block_bgp;
        assert_eq!(wanted.bridges, ["routelet0".to_owned()].into());
        assert_eq!(texts(&wanted.pods), ["10.244.1.0/24"]);
        assert_eq!(texts(&wanted.neighbors), ["10.0.0.1/32", "10.0.0.6/32"]);
        case.config.guard.block_pod_bgp = false;
        assert!(case.plan().block_bgp.is_empty());
    }

    #[test]
    fn on_a_bare_host_only_bridges_of_containers_that_are_advertised_count() {
        let bridge = |index, name: &str| Link { kind: "bridge".into(), ..link(index, name) };
        let port =
            |index, kind: &str, master| Link { kind: kind.into(), master: Some(master), ..link(index, "p") };
        let links = [
            link(2, "eth0").with("10.0.0.5/24"),
            bridge(3, "docker0").with("172.17.0.1/16"),
            port(13, "veth", 3),
            bridge(4, "br-lan").with("10.7.0.1/24"),
            port(14, "", 4),
            bridge(5, "virbr0").with("192.168.122.1/24"),
            link(6, "lan1").with("10.8.0.1/24"),
        ];
        let mut c = config();
        c.bgp.asn = crate::config::AsSetting::Number(1000);
        c.advertise.interfaces = ["docker0", "br-*", "lan1"].map(Into::into).into();
        let range = |text: &str| crate::config::ListenRange {
            prefix: text.parse().unwrap(),
            remote_as: crate::bgp::peer::RemoteAs::Any,
            group: None,
            limit: 1,
        };
        c.bgp.ranges = vec![range("10.9.0.0/16")];
        let case = Case::new(c, None, host(links, []));
        let wanted = case.plan().block_bgp;
        assert_eq!(
            wanted.bridges,
            ["docker0".to_owned()].into(),
            "what leads out and what is no bridge is not"
        );
        assert_eq!(
            (texts(&wanted.pods).len(), texts(&wanted.neighbors)),
            (0, vec!["10.9.0.0/16".to_owned()])
        );
    }
}
