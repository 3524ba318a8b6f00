//! What must never be learned from a neighbor: own prefixes, and the addresses to protect.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Context, peering::Peers};
use crate::{
    bgp::peer::PeerKey,
    config::GuardConnected,
    fib::{
        guard::{self, Known},
        host::Host,
    },
    k8s::node::NodeView,
    net::{Cover, Family, Guard, Origination, Prefix, guard::NodePrefixes},
};

pub(super) fn guard(
    ctx: &Context<'_>,
    unreachable: &BTreeSet<Prefix>,
    originated: &BTreeMap<Prefix, Origination>,
    peers: &Peers,
    of_nodes: NodePrefixes,
) -> Guard {
    let neighbors = peers.keys().filter_map(|k| match k {
        PeerKey::Address(a) => Some(*a),
        // Link-local addresses are martians, which are refused anyway.
        PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
    });
    let known = Known {
        own: unreachable.iter().chain(originated.keys()).copied().collect(),
        former_gateways: ctx.extra.former_gateways.iter().copied().collect(),
        neighbors: neighbors.collect(),
        api_servers: ctx.nodes.map(|n| n.api_servers.clone()).unwrap_or_default(),
        nodes: node_addresses(ctx),
        resolvers: ctx.extra.resolvers.iter().copied().collect(),
        inside_connected: ctx.config.guard.connected == GuardConnected::Inside,
        metric: ctx.config.fib.metric,
        prefixes: Arc::new(of_nodes),
    };
    guard::guard(ctx.host, known)
}

/// The default gateways since the start. A default route that is renewed is missing for a moment,
/// and the kernel accepts it again only while its gateway is on link. A host route to the gateway
/// that was learned in between would prevent this.
#[derive(Clone, Debug, Default)]
pub struct FormerGateways {
    /// The latest first.
    seen: Vec<IpAddr>,
}

impl FormerGateways {
    /// Maximum number of gateways that are remembered.
    const MOST: usize = 16;

    /// Records the present default gateways. Returns all.
    pub fn see(&mut self, host: &Host) -> BTreeSet<IpAddr> {
        for (gateway, _) in Family::ALL.into_iter().flat_map(|f| host.default_gateways(f)) {
            self.seen.retain(|g| *g != gateway);
            self.seen.insert(0, gateway);
        }
        self.seen.truncate(Self::MOST);
        self.seen.iter().copied().collect()
    }
}

/// InternalIPs of the other Nodes, which are protected. A kubelet can report any address as its
/// own, and the routes to it would no longer be learned. Addresses inside pod CIDRs, addresses of
/// Services, and addresses that the Node did not report originally are therefore left out.
fn node_addresses(ctx: &Context<'_>) -> Vec<IpAddr> {
    let Some(nodes) = ctx.nodes else { return Vec::new() };
    let pods = nodes.all().flat_map(|n| &n.pod_cidrs);
    let taken: Cover = pods.chain(&nodes.service_cidrs).copied().collect();
    let services = &ctx.extra.services.addresses;
    let addresses = nodes.others().flat_map(NodeView::first_addresses);
    addresses.filter(|a| taken.of(Prefix::host(*a)).is_none() && !services.contains_key(a)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::testing::{Case, config, node, nodes},
        FormerGateways,
    };
    use crate::{
        config::GuardConnected,
        fib::host::testing::{gateway, host, link},
        net::{Refusal, guard::AddressRole},
    };

    fn case() -> Case {
        let all = nodes([
            node("n1", &["10.0.0.5"], &["10.244.1.0/24"]),
            node("n2", &["10.9.0.6"], &["10.244.2.0/24"]),
            // As reported by a compromised kubelet, or by virtual nodes.
            node("n3", &["10.244.2.7", "10.96.0.20"], &["10.244.3.0/24"]),
        ]);
        let links = [link(2, "eth0").with("10.0.0.5/24")];
        let mut case = Case::new(config(), Some(all), host(links, [gateway("0.0.0.0/0", "10.0.0.1", 2)]));
        case.nodes.as_mut().unwrap().service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
        case
    }

    fn refusal(case: &Case, prefix: &str) -> Option<Refusal> {
        case.plan().guard.refuses(prefix.parse().unwrap(), false)
    }

    #[test]
    fn addresses_that_a_node_claims_in_the_ranges_of_others_are_not_protected() {
        let case = case();
        assert_eq!(refusal(&case, "10.9.0.6/32"), Some(Refusal::Protected(AddressRole::Node)));
        assert_eq!(refusal(&case, "10.244.2.0/24"), None, "the pods of n2");
        assert_eq!(refusal(&case, "10.96.0.20/32"), None, "a Service");
    }

    #[test]
    fn resolvers_and_the_api_server_are_protected() {
        let mut case = case();
        assert_eq!(refusal(&case, "192.0.2.0/24"), None);
        case.extra.resolvers = Arc::new(["192.0.2.53".parse().unwrap()].into());
        assert_eq!(refusal(&case, "192.0.2.0/24"), Some(Refusal::Protected(AddressRole::Resolver)));
        case.nodes.as_mut().unwrap().api_servers = vec!["198.51.100.1".parse().unwrap()];
        assert_eq!(refusal(&case, "198.51.100.0/24"), Some(Refusal::Protected(AddressRole::ApiServer)));
    }

    #[test]
    fn a_default_gateway_is_protected_while_its_route_is_away() {
        let mut case = case();
        let mut gateways = FormerGateways::default();
        case.extra.former_gateways = Arc::new(gateways.see(&case.host));
        case.host.routes.clear();
        case.extra.former_gateways = Arc::new(gateways.see(&case.host));
        assert_eq!(refusal(&case, "10.0.0.1/32"), Some(Refusal::Protected(AddressRole::FormerGateway)));
        assert_eq!(refusal(&case, "10.0.0.0/31"), Some(Refusal::Protected(AddressRole::FormerGateway)));
        // While its link is down, or before its address is back, the subnet may be learned.
        case.host = host([link(3, "eth1").with("10.7.0.5/24")], [gateway("0.0.0.0/0", "10.7.0.1", 3)]);
        case.extra.former_gateways = Arc::new(gateways.see(&case.host));
        assert_eq!(refusal(&case, "10.0.0.1/32"), Some(Refusal::Protected(AddressRole::FormerGateway)));
        assert_eq!((refusal(&case, "10.0.0.0/24"), refusal(&case, "10.0.0.0/31")), (None, None));
        assert_eq!(refusal(&case, "10.7.0.1/32"), Some(Refusal::Protected(AddressRole::DefaultGateway)));

        for n in 0..100 {
            gateways.see(&host([], [gateway("0.0.0.0/0", &format!("10.8.0.{n}"), 2)]));
        }
        let kept = gateways.see(&host([], []));
        assert_eq!((kept.len(), kept.last().unwrap().to_string()), (16, "10.8.0.99".into()));
    }

    #[test]
    fn what_is_inside_a_connected_subnet_is_refused_on_demand() {
        let mut case = case();
        assert_eq!(refusal(&case, "10.0.0.128/25"), None);
        case.config.guard.connected = GuardConnected::Inside;
        assert_eq!(refusal(&case, "10.0.0.128/25"), Some(Refusal::Connected));
    }
}
