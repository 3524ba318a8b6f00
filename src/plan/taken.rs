//! Addresses that are in use elsewhere: a Service with such an address is not advertised, as this
//! would divert its packets.
//!
//! The addresses that Nodes report come from their kubelets, so they are not always their own.
//! Cluster IPs are assigned by the API server. Any other address belongs to whoever had it first: a
//! Service that had it before a Node reported it stays advertised. If it is not known which was
//! first (after a start), a load balancer's address belongs to a Node only if it is the Node's
//! first one of its family, or its ExternalIP, as with the ServiceLB of k3s.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{Context, addresses::named, peering::Peers};
use crate::{
    bgp::peer::PeerKey,
    fib::guard,
    k8s::{
        node::{NodeView, Nodes},
        services::ServiceAddress,
    },
    net::{Cover, Diagnostic, Family, Prefix, Reason, ServiceAddresses, Subject},
};

/// Prefix of the reason, if the address is a problem.
pub(super) const NEVER: &str = "never advertised";
/// Maximum number of Nodes that are reported.
const MAX_NAMED: usize = 10;

/// The owner of each address, indexed for look-ups by many Services.
pub(super) struct Taken<'a> {
    nodes: Option<&'a Nodes>,
    neighbors: BTreeSet<IpAddr>,
    /// InternalIPs, each with the first Node that has it; our own comes first.
    internal: HashMap<IpAddr, Claim<'a>>,
    /// ExternalIPs, likewise.
    external: HashMap<IpAddr, &'a NodeView>,
    pods: HashMap<Prefix, &'a NodeView>,
    /// Prefix lengths of pod CIDRs: each costs one look-up.
    lengths: BTreeSet<u8>,
    /// Subnets of this host: addresses inside belong to machines.
    subnets: Cover,
    /// Addresses that belonged to a Service before a Node reported them.
    held: &'a BTreeSet<IpAddr>,
    /// Ranges of external IPs that the operator configured, if any.
    external_ranges: &'a [Prefix],
    /// Number of entries that were visited, for the test of the cost.
    steps: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Claim<'a> {
    node: &'a NodeView,
    is_own: bool,
    /// Whether it is the Node's first address of its family.
    is_first: bool,
}

impl<'a> Taken<'a> {
    pub(super) fn new(ctx: &Context<'a>, peers: &Peers) -> Self {
        let gateways =
            Family::ALL.into_iter().flat_map(|f| ctx.host.default_gateways(f)).map(|(addr, _)| addr);
        // Sessions with Nodes use whatever addresses these report.
        let peers = peers.values().filter(|p| !p.is_node).filter_map(|p| match &p.key {
            PeerKey::Address(a) => Some(*a),
            PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
        });
        let subnets = ctx.host.links.values().flat_map(|l| l.subnets()).filter(|p| !p.is_host());
        let mut taken = Self {
            nodes: ctx.nodes,
            neighbors: gateways.chain(peers).collect(),
            internal: HashMap::new(),
            external: HashMap::new(),
            pods: HashMap::new(),
            lengths: BTreeSet::new(),
            subnets: subnets.collect(),
            held: &ctx.extra.held_services,
            external_ranges: &ctx.config.kubernetes.service_rules.external_ranges,
            steps: Cell::new(0),
        };
        let own = ctx.own_node().map(|own| own.name.as_str());
        for node in ctx.nodes.into_iter().flat_map(Nodes::all) {
            taken.add(node, own == Some(&node.name));
        }
        taken
    }

    fn add(&mut self, node: &'a NodeView, is_own: bool) {
        for addr in &node.addresses {
            let is_first = node.address(Family::of(*addr)) == Some(*addr);
            self.internal.entry(*addr).or_insert(Claim { node, is_own, is_first });
        }
        for addr in &node.external {
            self.external.entry(*addr).or_insert(node);
        }
        for pods in &node.pod_cidrs {
            self.pods.entry(*pods).or_insert(node);
            self.lengths.insert(pods.len());
        }
        self.step(node.addresses.len() + node.external.len() + node.pod_cidrs.len());
    }

    /// Why a Service must not use the address. Cluster IPs come from a range of the API server,
    /// whose own address may be one of them.
    pub(super) fn by(&self, addr: IpAddr, kind: ServiceAddresses) -> Option<String> {
        let nodes = self.nodes?;
        self.step(1);
        let of_node = self.node_with(addr, kind);
        if kind == ServiceAddresses::LoadBalancerIp
            && let Some(node) = of_node
        {
            // ServiceLB of k3s, or cloud controllers without load balancers: packets reach the node
            // anyway.
            return Some(format!("need not be advertised: it is an address of node {}", node.name));
        }
        let chosen = kind == ServiceAddresses::ExternalIp;
        let what = if let Some(node) = of_node.or_else(|| self.owner(addr)) {
            format!("it is an address of node {} or of its pods", node.name)
        } else if guard::is_martian(Prefix::host(addr)) {
            "no network routes such an address".into()
        } else if self.neighbors.contains(&addr) {
            "it is the address of a neighbor or a gateway".into()
        } else if kind != ServiceAddresses::ClusterIp && nodes.api_servers.contains(&addr) {
            "it is the address of the API server".into()
        } else if let Some(range) = nodes.service_cidrs.iter().find(|p| chosen && p.contains(addr)) {
            format!("it lies in {range}, from which cluster IPs come")
        } else if chosen && self.is_outside(addr) {
            "it lies in no range of kubernetes.service-external-ranges".into()
        } else {
            return None;
        };
        Some(format!("{NEVER}: {what}"))
    }

    /// The Node to which the address belongs, rather than to the Service.
    fn node_with(&self, addr: IpAddr, kind: ServiceAddresses) -> Option<&'a NodeView> {
        let claim = self.internal.get(&addr);
        let on_subnet = || self.subnets.of(Prefix::host(addr)).is_some();
        let is_theirs = |c: &&Claim<'a>| match kind {
            ServiceAddresses::ClusterIp => c.is_own || on_subnet(),
            ServiceAddresses::LoadBalancerIp => c.is_first && !self.held.contains(&addr),
            ServiceAddresses::ExternalIp => !self.held.contains(&addr),
        };
        let external = || {
            let counts = kind != ServiceAddresses::ClusterIp && !self.held.contains(&addr);
            self.external.get(&addr).copied().filter(|_| counts)
        };
        claim.filter(is_theirs).map(|c| c.node).or_else(external)
    }

    /// Whether the operator configured ranges of external IPs and the address is in none of them.
    fn is_outside(&self, addr: IpAddr) -> bool {
        !self.external_ranges.is_empty() && !self.external_ranges.iter().any(|range| range.contains(addr))
    }

    /// Addresses of Services that no Node reports, or that belonged to a Service before one did.
    pub(super) fn held(&self, offers: &BTreeMap<IpAddr, Vec<ServiceAddress>>) -> BTreeSet<IpAddr> {
        let is_free = |addr: &IpAddr| !self.internal.contains_key(addr) && !self.external.contains_key(addr);
        offers.keys().filter(|a| self.held.contains(a) || is_free(a)).copied().collect()
    }

    /// Reports Nodes that claim addresses of Services: all nodes report them with the same text, so
    /// that each is one Event.
    pub(super) fn claims(&self, offers: &BTreeMap<IpAddr, Vec<ServiceAddress>>) -> Vec<Diagnostic> {
        let mut claims = BTreeMap::<&str, (&NodeView, Vec<String>)>::new();
        for (addr, claim) in self.internal.iter().filter(|(_, c)| !c.is_own) {
            self.step(1);
            let ignored =
                offers.get(addr).into_iter().flatten().find(|o| self.node_with(*addr, o.kind).is_none());
            if let Some(offer) = ignored {
                let entry = claims.entry(&claim.node.name).or_insert((claim.node, Vec::new()));
                entry.1.push(format!("{addr} (Service {})", offer.service));
            }
        }
        let problem = |(name, (node, mut list)): (&str, (&NodeView, Vec<String>))| {
            list.sort_unstable();
            Diagnostic::new(
                Reason::ClaimsServiceAddress,
                Subject::node(name, &node.uid),
                format!(
                    "node {name} reports addresses of Services as its InternalIP: {}; they are advertised as \
                     before",
                    named(list)
                ),
                "start its kubelet with --node-ip, and where nobody of yours changed it, take the node out of \
                 the cluster",
            )
        };
        claims.into_iter().take(MAX_NAMED).map(problem).collect()
    }

    /// The Node in whose pod CIDR an address lies.
    fn owner(&self, addr: IpAddr) -> Option<&'a NodeView> {
        self.step(self.lengths.len());
        let around = self.lengths.iter().filter_map(|len| Prefix::new(addr, *len));
        around.filter_map(|pods| self.pods.get(&pods)).copied().next()
    }

    fn step(&self, entries: usize) {
        self.steps.set(self.steps.get() + entries as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::testing::{Case, config, node, nodes, offer},
        *,
    };
    use crate::{
        fib::host::testing::{gateway, host, link},
        k8s::services::Services,
        net::Source,
    };
    use ServiceAddresses::{ClusterIp, ExternalIp, LoadBalancerIp};

    fn case(offers: &[(&str, ServiceAddresses)]) -> Case {
        let host = host([link(2, "eth0").with("10.0.0.1/24")], [gateway("0.0.0.0/0", "10.0.0.254", 2)]);
        let all = nodes([
            node("n1", &["10.0.0.1"], &["10.244.1.0/24"]),
            node("n2", &["10.0.0.2"], &["10.244.2.0/24"]),
            node("n3", &["10.0.0.3"], &["10.244.3.0/24"]),
        ]);
        Case::new(config(), Some(all), host).with_services(offers)
    }

    fn advertised(case: &Case) -> Vec<String> {
        let plan = case.plan();
        let of_services = plan.originated.iter().filter(|(_, o)| o.source == Source::Service);
        of_services.map(|(p, _)| p.addr().to_string()).collect()
    }

    /// Computes another plan, which knows from the last one which addresses were a Service's first.
    fn again(case: &mut Case) {
        case.extra.held_services = case.plan().held_services;
    }

    fn claim(case: &mut Case, name: &str, addresses: &[&str]) {
        case.other(name).addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    }

    const ALL: [(&str, ServiceAddresses); 3] =
        [("10.96.0.20", ClusterIp), ("192.0.2.7", LoadBalancerIp), ("192.0.2.8", ExternalIp)];

    #[test]
    fn a_node_that_claims_the_addresses_of_services_withdraws_none_and_is_named_once() {
        for as_only_ones in [false, true] {
            let mut case = case(&ALL);
            assert_eq!(advertised(&case).len(), 3);
            again(&mut case);
            let own: &[&str] = if as_only_ones { &[] } else { &["10.0.0.3"] };
            claim(&mut case, "n3", &[own, &["10.96.0.20", "192.0.2.7", "192.0.2.8"]].concat());
            for _ in 0..3 {
                assert_eq!(advertised(&case).len(), 3, "only ones: {as_only_ones}");
                again(&mut case);
            }
            let plan = case.plan();
            let [problem] = &plan.object_problems[..] else { panic!("{:?}", plan.object_problems) };
            assert_eq!(
                (problem.subject.kind, &*problem.subject.name, problem.reason),
                (crate::net::SubjectKind::Node, "n3", Reason::ClaimsServiceAddress)
            );
            for part in ["10.96.0.20 (Service default/web)", "192.0.2.7", "192.0.2.8", "--node-ip"] {
                assert!(problem.contains(part), "{problem}");
            }
            claim(&mut case, "n3", &["10.0.0.3"]);
            assert!(case.plan().object_problems.is_empty());
        }
    }

    #[test]
    fn after_a_start_what_a_node_adds_to_its_address_is_no_load_balancer_s() {
        let mut case = case(&ALL);
        claim(&mut case, "n3", &["10.0.0.3", "10.96.0.20", "192.0.2.7"]);
        assert_eq!(advertised(&case), ["10.96.0.20", "192.0.2.7", "192.0.2.8"]);
        // Anyone who may write Services chooses their external IPs.
        claim(&mut case, "n3", &["10.0.0.3", "192.0.2.8"]);
        assert_eq!(advertised(&case), ["10.96.0.20", "192.0.2.7"]);
    }

    #[test]
    fn a_service_that_takes_the_address_of_a_node_is_not_advertised() {
        let mut case = case(&[]);
        claim(&mut case, "n2", &["10.0.0.2", "10.7.0.2"]);
        again(&mut case);
        let offers = [("10.0.0.2", LoadBalancerIp), ("10.7.0.2", ExternalIp), ("10.0.0.3", ClusterIp)];
        case.extra.services = self::case(&offers).extra.services;
        for _ in 0..2 {
            assert!(advertised(&case).is_empty(), "{:?}", advertised(&case));
            again(&mut case);
        }
    }

    #[test]
    fn a_node_that_claims_the_address_of_another_ends_no_session() {
        let sessions = |case: &Case| case.peers();
        let mut case = case(&[]);
        let before = sessions(&case);
        assert_eq!(before.len(), 3, "two nodes and the gateway: {before:?}");
        // The older Node claims it beside its own, then alone, and then that of the gateway, too.
        case.other("n2").created = Some(1);
        case.other("n3").created = Some(2);
        claim(&mut case, "n2", &["10.0.0.2", "10.0.0.3"]);
        assert_eq!(sessions(&case), before);
        claim(&mut case, "n2", &["10.0.0.3"]);
        case.other("n2").added = vec!["10.0.0.3".parse().unwrap()];
        let without_n2: Vec<_> = before.iter().filter(|p| !p.starts_with("10.0.0.2 ")).cloned().collect();
        assert_eq!(sessions(&case), without_n2);
        let plan = case.plan();
        let with_n3 = &plan.peers[&PeerKey::Address("10.0.0.3".parse().unwrap())];
        assert_eq!(with_n3.description.as_deref(), Some("node n3"), "n3 had it first");
        assert_eq!(plan.object_problems.len(), 1, "{:?}", plan.object_problems);
    }

    /// The look-ups of a plan grow with the number of Nodes plus that of Services, not with their
    /// product, and the addresses of one Node count up to its limit.
    #[test]
    fn look_ups_grow_with_nodes_and_services_one_by_one() {
        let steps = |size: usize| {
            let mut case = case(&[]);
            let mut services = Services::default();
            for n in 0..size as u32 {
                let offer = offer(&format!("default/s{n}"), LoadBalancerIp);
                services.addresses.insert(IpAddr::from((0xc612_0000 + n).to_be_bytes()), vec![offer]);
                let name = format!("m{n}");
                let [a, b] = [0x0a01_0000 + n, 0x0a02_0000 + n].map(|a| IpAddr::from(a.to_be_bytes()));
                let view = NodeView { addresses: vec![a, b], ..node(&name, &[], &[]) };
                case.nodes.as_mut().unwrap().others.insert(name, view.into());
            }
            case.extra.services = Arc::new(services);
            let ctx = case.context();
            let taken = Taken::new(&ctx, &Peers::new());
            for (addr, offers) in &case.extra.services.addresses {
                assert!(taken.by(*addr, offers[0].kind).is_none());
            }
            assert!(taken.claims(&case.extra.services.addresses).is_empty());
            taken.steps.get()
        };
        let counts = [1000, 2000, 4000].map(steps);
        for pair in counts.windows(2) {
            let exponent = (pair[1] as f64 / pair[0] as f64).log2();
            println!("{counts:?}: exponent {exponent:.2}");
            assert!(exponent < 1.1, "{counts:?}: exponent {exponent:.2}");
        }
    }
}
