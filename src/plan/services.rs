//! Which Services are looked for, and which of their addresses this node announces.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Context, peering::Peers};
use crate::{
    bgp::peer::PeerKey,
    config::Config,
    fib::guard,
    k8s::{
        node::NodeView,
        services::{self, Asked, Rules, Verdict},
    },
    net::{Family, Prefix, ServiceAddresses, Source},
};

/// What the watch looks for: nothing outside of Kubernetes.
pub fn asked(config: &Config, kubernetes: bool) -> Arc<Asked> {
    let (k, rules) = (&config.kubernetes, &config.kubernetes.service_rules);
    if !kubernetes {
        return Arc::default();
    }
    Arc::new(Asked {
        kinds: k.services.iter().copied().collect(),
        selector: rules.selector.clone(),
        by_annotation: rules.annotations.iter().copied().collect(),
        classes: rules.classes.clone(),
        whereabouts: rules.when_cordoned,
    })
}

/// What becomes of each address that is known.
pub(super) fn verdicts(
    ctx: &Context<'_>,
    peers: &Peers,
    asked: &Asked,
    problems: &mut Vec<String>,
) -> Vec<Verdict> {
    let (Some(nodes), known) = (ctx.nodes, &ctx.extra.services) else { return Vec::new() };
    problems.extend(known.mistakes.iter().map(|m| &m.text).chain(&known.problems).cloned());
    let taken = Taken::new(ctx, peers);
    let rules = Rules {
        asked,
        aggregates: &ctx.config.kubernetes.service_rules.aggregates,
        withheld: ctx.extra.drain.filter(|d| !d.leaves(Source::Service)).map(|_| "this node is drained"),
        refused: &|addr, kind| taken.by(addr, kind),
    };
    let verdicts = services::verdicts(known, nodes, rules);
    let refused = verdicts.iter().filter(|v| v.announced.is_none() && v.reason.starts_with(NEVER));
    problems.extend(refused.take(NAMED).map(|v| {
        format!("{} of Service {}: {}; give it another address", v.address, v.services.join(", "), v.reason)
    }));
    verdicts
}

/// Addresses that belong to somebody: announcing them would take them away.
struct Taken<'a> {
    ctx: &'a Context<'a>,
    neighbors: BTreeSet<IpAddr>,
}

impl<'a> Taken<'a> {
    fn new(ctx: &'a Context<'a>, peers: &Peers) -> Self {
        let gateways =
            Family::ALL.into_iter().flat_map(|f| ctx.host.default_gateways(f)).map(|(addr, _)| addr);
        let peers = peers.keys().filter_map(|k| match k {
            PeerKey::Address(a) => Some(*a),
            PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
        });
        Self { ctx, neighbors: gateways.chain(peers).collect() }
    }

    /// By whom, in words. Cluster IPs come from a range of the API server, whose own address may be one of them.
    fn by(&self, addr: IpAddr, kind: ServiceAddresses) -> Option<String> {
        let nodes = self.ctx.nodes?;
        let is_of =
            |n: &&NodeView| n.addresses.contains(&addr) || n.pod_cidrs.iter().any(|p| p.contains(addr));
        let what = if let Some(node) = nodes.all().find(is_of) {
            format!("it is an address of node {} or of its pods", node.name)
        } else if guard::is_martian(Prefix::host(addr)) {
            "no network routes such an address".into()
        } else if self.neighbors.contains(&addr) {
            "it is the address of a neighbor or a gateway".into()
        } else if kind != ServiceAddresses::ClusterIp && nodes.api_servers.contains(&addr) {
            "it is the address of the API server".into()
        } else {
            return None;
        };
        Some(format!("{NEVER}: {what}"))
    }
}

const NEVER: &str = "never announced";
/// So many addresses are named for it.
const NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::{
        fib::host::testing::{gateway, host, link},
        k8s::services::{Offer, Services},
        net::Refusal,
    };
    use ServiceAddresses::{ClusterIp, ExternalIp, LoadBalancerIp};

    fn case(offers: &[(&str, ServiceAddresses)]) -> Case {
        let host = host([link(2, "eth0").with("10.0.0.2/24")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let mut cluster = nodes([
            node("n1", &["10.0.0.2"], &["10.244.1.0/24"]),
            node("n2", &["10.0.0.3"], &["10.244.2.0/24"]),
        ]);
        cluster.api_servers = vec!["10.96.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap()];
        let mut case = Case::new(config(), Some(cluster), host);
        case.config.kubernetes.services = ServiceAddresses::ALL.to_vec();
        let mut services = Services::default();
        for (addr, kind) in offers {
            let offer = Offer { service: "default/web".into(), kind: *kind, local: None };
            services.offers.entry(addr.parse().unwrap()).or_default().push(offer);
        }
        case.extra.services = Arc::new(services);
        case
    }

    #[test]
    fn service_addresses_are_announced_and_never_put_into_the_kernel() {
        let plan = case(&[("10.96.0.1", ClusterIp), ("192.0.2.7", LoadBalancerIp)]).plan();
        let told: Vec<_> = plan.originated.iter().map(|(p, o)| (p.to_string(), o.source)).collect();
        let expected = [
            ("10.96.0.1/32".to_owned(), Source::Service),
            ("10.244.1.0/24".to_owned(), Source::PodCidr),
            ("192.0.2.7/32".to_owned(), Source::Service),
        ];
        assert_eq!(told, expected);
        assert_eq!(plan.unreachable, ["10.244.1.0/24".parse().unwrap()]);
        let theirs = "192.0.2.7/32".parse().unwrap();
        assert_eq!(plan.guard.refuses(theirs, false), Some(Refusal::Own), "another node's path is not taken");
        assert!(plan.masquerade.keep.contains(&theirs));
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
    }

    #[test]
    fn addresses_that_belong_to_somebody_are_refused_and_named() {
        let offers = [
            ("10.0.0.3", ExternalIp, "node n2"),
            ("10.244.2.9", ExternalIp, "node n2"),
            ("10.0.0.1", ExternalIp, "gateway"),
            ("10.0.0.9", LoadBalancerIp, "API server"),
            ("127.0.0.1", ExternalIp, "no network"),
            ("fe80::7", ExternalIp, "no network"),
        ];
        let plan = case(&offers.map(|(addr, kind, _)| (addr, kind))).plan();
        assert!(plan.originated.values().all(|o| o.source == Source::PodCidr), "{:?}", plan.originated);
        for (addr, _, why) in offers {
            let named =
                |p: &&String| p.starts_with(&format!("{addr} of Service default/web")) && p.contains(why);
            assert_eq!(plan.problems.iter().filter(named).count(), 1, "{addr}: {:?}", plan.problems);
        }
    }

    #[test]
    fn what_is_looked_for_follows_the_configuration() {
        let mut case = case(&[("192.0.2.7", ExternalIp)]);
        assert_eq!(case.plan().services.len(), 1);
        case.config.kubernetes.services = vec![ClusterIp];
        assert!(case.plan().services.is_empty(), "known from before, and no longer asked for");
        let asked = case.plan().asked;
        assert_eq!((asked.kinds.len(), asked.by_annotation.len(), asked.is_empty()), (1, 2, false));
        assert!(super::asked(&case.config, false).is_empty(), "not under Kubernetes");
    }
}
