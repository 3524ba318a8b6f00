//! The prefixes that each Node may advertise to the others: from Nodes and Services to
//! [`NodePrefixes`].
//!
//! All nodes compute the same list, so the others accept what an honest node advertises: its pod
//! CIDRs, the addresses of Services (with the traffic policy Local only if it has an endpoint), and
//! the prefixes of `kubernetes.mesh-accept`.

use std::collections::BTreeMap;

use super::{Context, taken::Taken};
use crate::{
    k8s::{
        node::{NodeView, Nodes},
        services::{ServiceAddress, ServiceSelection},
    },
    net::{
        Prefix, ServiceAddresses,
        guard::{NodeInput, NodePrefixes, ServiceInput},
    },
};

/// Empty if there are no sessions among nodes.
pub(super) fn node_prefixes(
    ctx: &Context<'_>,
    taken: &Taken<'_>,
    selection: &ServiceSelection,
) -> NodePrefixes {
    let Some(nodes) = ctx.nodes else { return NodePrefixes::default() };
    let own = ctx.own_node().map(|own| (&own.name, &own.uid));
    let others = nodes.others().filter(|o| own.is_none_or(|(name, uid)| o.name != *name && o.uid != *uid));
    let mut all: Vec<&NodeView> = nodes.own.iter().chain(others).collect();
    // Of two Nodes with overlapping pod CIDRs, the older one keeps its own.
    all.sort_by(|a, b| (a.deleted, a.created, &a.name).cmp(&(b.deleted, b.created, &b.name)));
    let input = |n: &NodeView| NodeInput {
        name: n.name.clone(),
        addresses: n.addresses.clone(),
        pod_cidrs: n.pod_cidrs.clone(),
        former: n.former.clone(),
        excluded: n.excluded,
    };
    let services = services(ctx, nodes, taken, selection);
    let accepted = ctx.config.kubernetes.mesh_accept.iter().copied();
    NodePrefixes::new(all.into_iter().map(input).collect(), services, accepted)
}

/// Addresses of Services, and aggregates of them, with the Nodes that may advertise each.
fn services(
    ctx: &Context<'_>,
    nodes: &Nodes,
    taken: &Taken<'_>,
    selection: &ServiceSelection,
) -> BTreeMap<Prefix, ServiceInput> {
    let rules = &ctx.config.kubernetes.service_rules;
    let mut services = BTreeMap::<Prefix, ServiceInput>::new();
    for (addr, offers) in &ctx.extra.services.addresses {
        let stands = |o: &&ServiceAddress| {
            selection.allows(o.kind) && o.excess.is_none() && taken.by(*addr, o.kind).is_none()
        };
        let offers = offers.iter().filter(stands);
        for offer in offers {
            let for_all = offer.kind == ServiceAddresses::ClusterIp || rules.ignore_exclude_label;
            let aggregate = selection.aggregate_of(*addr).filter(|_| offer.local.is_none());
            for prefix in aggregate.into_iter().chain([Prefix::host(*addr)]) {
                let who = services.entry(prefix).or_default();
                match &offer.local {
                    None if for_all => who.every = true,
                    None => who.unexcluded = true,
                    Some(_) => who.nodes.extend(with_endpoints(offer, nodes, for_all)),
                }
            }
        }
    }
    services
}

/// Other Nodes with a serving endpoint, without those that external load balancers exclude.
fn with_endpoints<'a>(
    offer: &'a ServiceAddress,
    nodes: &'a Nodes,
    for_all: bool,
) -> impl Iterator<Item = String> + 'a {
    let places = offer.local.iter();
    let names = places.flat_map(|p| p.elsewhere.iter().chain(&p.ending));
    let excluded = |name: &str| nodes.others.get(name).is_some_and(|n| n.excluded);
    names.filter(move |name| for_all || !excluded(name)).cloned()
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::{
        config::{Neighbor, NeighborId, NeighborKeys, Peering},
        fib::host::testing::{gateway, host, link},
        k8s::services::{EndpointLocality, LocalEndpoints, Services},
        net::guard::Sender,
    };
    use ServiceAddresses::{ClusterIp, LoadBalancerIp};

    fn case() -> Case {
        let all = nodes([
            node("n1", &["10.0.0.1"], &["10.244.1.0/24"]),
            node("n2", &["10.0.0.2", "fd00::2"], &["10.244.2.0/24", "fd00:244:2::/64"]),
            node("n3", &["10.0.0.3"], &["10.244.3.0/24"]),
        ]);
        let host = host([link(2, "eth0").with("10.0.0.1/24")], [gateway("0.0.0.0/0", "10.0.0.254", 2)]);
        let mut case = Case::new(config(), Some(all), host);
        case.config.kubernetes.services = ServiceAddresses::ALL.to_vec();
        case
    }

    fn offer(case: &mut Case, addr: &str, kind: ServiceAddresses, local: Option<EndpointLocality>) {
        let mut services = Services::clone(&case.extra.services);
        let offer = ServiceAddress { service: "default/web".into(), kind, local, served: None, excess: None };
        services.addresses.entry(addr.parse().unwrap()).or_default().push(offer);
        case.extra.services = Arc::new(services);
    }

    fn places(ready: &[&str], ending: &[&str]) -> Option<EndpointLocality> {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        Some(EndpointLocality { local: LocalEndpoints::None, elsewhere: names(ready), ending: names(ending) })
    }

    /// The nodes, of n2 and n3, from which a prefix is accepted.
    fn accepted(case: &Case, prefix: &str) -> Vec<&'static str> {
        let plan = case.plan();
        let from = |addr: &str| {
            let neighbor: IpAddr = addr.parse().unwrap();
            plan.guard.nodes().allows(prefix.parse().unwrap(), Sender { neighbor, next_hop: None })
        };
        [("n2", "10.0.0.2"), ("n3", "10.0.0.3")].iter().filter(|(_, a)| from(a)).map(|(n, _)| *n).collect()
    }

    #[test]
    fn nodes_may_advertise_their_pod_cidrs_and_what_mesh_accept_adds() {
        let mut case = case();
        assert_eq!(accepted(&case, "10.244.2.0/24"), ["n2"]);
        assert_eq!(accepted(&case, "fd00:244:2::/64"), ["n2"]);
        assert_eq!(accepted(&case, "10.244.3.128/25"), ["n3"]);
        assert!(accepted(&case, "192.0.2.0/24").is_empty() && accepted(&case, "0.0.0.0/0").is_empty());
        case.config.kubernetes.mesh_accept =
            vec!["192.0.2.0/23".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        assert_eq!(accepted(&case, "192.0.2.0/24"), ["n2", "n3"]);
        assert_eq!(accepted(&case, "10.244.2.0/24"), ["n2"], "pods stay their Node's");
        // A recreated Node keeps the prefixes of its pods until another Node has them.
        case.other("n3").former = vec!["10.244.8.0/24".parse().unwrap(), "10.244.2.0/24".parse().unwrap()];
        case.config.kubernetes.mesh_accept.clear();
        assert_eq!(accepted(&case, "10.244.8.0/24"), ["n3"]);
        assert_eq!(accepted(&case, "10.244.2.0/24"), ["n2"]);
        case.other("n3").pod_cidrs.clear();
        assert!(accepted(&case, "10.244.3.0/24").is_empty());
    }

    #[test]
    fn of_overlapping_pod_cidrs_the_elder_node_s_counts() {
        let mut case = case();
        case.other("n2").created = Some(5);
        case.other("n3").created = Some(3);
        case.other("n2").pod_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
        assert_eq!(accepted(&case, "10.244.3.0/24"), ["n3"]);
        assert!(accepted(&case, "10.244.77.0/24").is_empty(), "n2 does not use such a range itself");
        case.other("n3").deleted = true;
        case.nodes.as_mut().unwrap().own.as_mut().unwrap().pod_cidrs = vec!["10.7.0.0/24".parse().unwrap()];
        assert_eq!(accepted(&case, "10.244.3.0/24"), ["n2"]);
    }

    #[test]
    fn service_addresses_are_accepted_from_the_nodes_that_may_advertise_them() {
        let mut case = case();
        offer(&mut case, "10.96.0.10", ClusterIp, None);
        offer(&mut case, "192.0.2.7", LoadBalancerIp, None);
        offer(&mut case, "192.0.2.8", LoadBalancerIp, places(&["n2"], &["n3"]));
        offer(&mut case, "192.0.2.9", LoadBalancerIp, places(&["n3"], &[]));
        offer(&mut case, "10.0.0.3", LoadBalancerIp, None);
        offer(&mut case, "10.244.3.9", ClusterIp, None);
        assert_eq!(accepted(&case, "10.96.0.10/32"), ["n2", "n3"]);
        assert_eq!(accepted(&case, "192.0.2.7/32"), ["n2", "n3"]);
        assert_eq!(accepted(&case, "192.0.2.8/32"), ["n2", "n3"], "one that serves until it ends, too");
        assert_eq!(accepted(&case, "192.0.2.9/32"), ["n3"]);
        assert!(accepted(&case, "10.0.0.3/32").is_empty(), "the address of a node");
        assert_eq!(accepted(&case, "10.244.3.9/32"), ["n3"], "an address of its pods");
        assert!(accepted(&case, "192.0.2.6/32").is_empty() && accepted(&case, "192.0.2.0/24").is_empty());

        case.other("n3").excluded = true;
        assert_eq!(accepted(&case, "10.96.0.10/32"), ["n2", "n3"], "no matter of external load balancers");
        assert_eq!(accepted(&case, "192.0.2.7/32"), ["n2"]);
        assert!(accepted(&case, "192.0.2.9/32").is_empty());
        case.config.kubernetes.service_rules.ignore_exclude_label = true;
        assert_eq!(accepted(&case, "192.0.2.9/32"), ["n3"]);

        let aggregate = || "192.0.2.0/24".parse().unwrap();
        case.config.kubernetes.service_rules.aggregates =
            vec![aggregate(), "198.51.100.0/24".parse().unwrap()];
        assert_eq!(accepted(&case, "192.0.2.0/24"), ["n2", "n3"]);
        assert!(accepted(&case, "198.51.100.0/24").is_empty(), "no Service is in it");
        case.config.kubernetes.services = vec![ClusterIp];
        case.config.kubernetes.service_rules.annotations.clear();
        assert!(accepted(&case, "192.0.2.7/32").is_empty(), "not advertised at all");
    }

    #[test]
    fn only_neighbors_that_peering_made_are_held_to_it() {
        let mut case = case();
        let by_hand = Neighbor {
            at: NeighborId::Address("10.0.0.3".parse().unwrap()),
            group: Some("mesh".into()),
            limit: 1,
            keys: NeighborKeys::default(),
        };
        case.config.bgp.neighbors.push(by_hand);
        let plan = case.plan();
        let nodes: Vec<_> = plan.peers.values().filter(|p| p.is_node).map(|p| p.key.to_string()).collect();
        assert_eq!(nodes, ["10.0.0.2"], "neither the gateway nor what the operator names");
        assert!(plan.service_selection.each_node);
        case.config.kubernetes.peering = vec![Peering::Gateway];
        let plan = case.plan();
        assert!(plan.peers.values().all(|p| !p.is_node) && !plan.service_selection.each_node);
        assert_eq!(*plan.guard.nodes(), NodePrefixes::default(), "and where there are none it costs nothing");
    }
}
