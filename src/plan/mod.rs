//! The desired state of this node: `(Config, Nodes, Host)` → [`Plan`], without I/O.
//!
//! The plan combines configuration, cluster and host. It is computed as a whole on each change of
//! any of them, and every other part of the daemon follows it: sessions ([`Plan::peers`]),
//! originated routes ([`Plan::originated`]), refused routes ([`Plan::guard`]), and the file for the
//! container runtime ([`Plan::conflist`]). Equal inputs give equal plans, so computing it again
//! changes nothing.
//!
//! # Precedence
//!
//! From weak to strong: built-in defaults, `[bgp]`, those of the neighbor's kind, its
//! `[bgp.group]`, its own keys; then BGPPeer and BGPPolicy objects; then annotations of the Node.
//! If the same neighbor comes from several sources, the last of these replaces the others as a
//! whole: gateway, mesh and reflectors, `[[bgp.neighbor]]`, BGPPeer. The same holds for a prefix:
//! Services, `advertise.interfaces`, `advertise.networks`, pod CIDRs.
//!
//! # What is deliberately absent
//!
//! Time. Decisions that depend on it (waiting for routes, back-off) are made by the parts that
//! follow the plan.

mod addresses;
mod bridge;
mod candidates;
mod containers;
mod drain;
mod election;
mod forward;
mod forwarding;
mod gateway;
mod global;
mod guard;
pub mod host;
mod incomplete;
mod masq;
mod neighbor;
mod node;
mod objects;
mod origins;
mod passages;
mod peering;
mod pod_bgp;
mod services;
mod source;
mod taken;
mod unnumbered;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    bgp::{
        peer::{Global, PeerConfig, PeerKey},
        policy::Community,
    },
    cni::conflist::Plugins,
    config::{Advertise, Config, Neighbor, NeighborId, Peering},
    fib::host::Host,
    k8s::{
        node::{NodeView, Nodes},
        services::{Eligibility, ServiceSelection, Services},
    },
    net::{
        Asn, Assigned, Diagnostic, Family, Guard, OnLink, Origination, PreferredSources, Prefix, Reason,
        RouterId, Source, Subject, guard::NodePrefixes,
    },
    nft,
    unnumbered::Interfaces,
};

pub use self::{
    candidates::{REFLECTORS, elect},
    election::{Election, Sessions, Topology},
    gateway::{Gateway, Gateways},
    node::cni_plugin_missing,
    objects::{Overlay, overlay},
    unnumbered::Unfound,
};
pub use crate::cni::conflist::Conflist;
use addresses::Claims;
pub use addresses::settle;
pub use drain::Drain;
pub use forwarding::forwarding;
pub use guard::FormerGateways;
pub use incomplete::NoPlan;
pub use passages::{first_of_others, passages};
pub use services::service_selection;
use taken::Taken;

/// Whether all Nodes are needed, as far as this follows from the configuration alone, so that the
/// first list has the right scope.
pub fn starts_with_all_nodes(config: &Config, kubernetes: bool) -> bool {
    let modes = peering::modes_of(config, None, &mut Vec::new());
    kubernetes && (peering::is_among_nodes(&modes) || config.masquerade.enabled == Some(true))
}

/// Everything that this node should do now. Level-triggered: `daemon` computes a new one on each
/// change of the configuration, the cluster or the host, and distributes its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The configuration in force: the file, overlaid with objects and annotations of the Node.
    pub config: Arc<Config>,
    pub global: Global,
    /// Whether the router id may be kept for later starts.
    pub keeps_router_id: bool,
    pub peers: BTreeMap<PeerKey, Arc<PeerConfig>>,
    /// Nodes that reflect for the others; empty in a mesh.
    pub reflectors: BTreeSet<String>,
    /// Addresses of nodes whose condition Ready is Unknown, or that are being removed or have been.
    pub unreachable_nodes: BTreeSet<IpAddr>,
    /// Whether there are sessions among nodes at all.
    pub among_nodes: bool,
    /// Addresses of other nodes on which routelet runs, as far as the Nodes show.
    pub expected: BTreeSet<IpAddr>,
    /// The own Node's addresses that are used.
    pub node_addresses: Vec<IpAddr>,
    /// Where unnumbered neighbors are looked for.
    pub interfaces: Arc<Interfaces>,
    /// Interfaces on which no unnumbered neighbor was found.
    pub unfound: Vec<Unfound>,
    /// `[[bgp.listen-range]]`.
    pub ranges: Vec<Range>,
    /// Own prefixes to advertise.
    pub originated: BTreeMap<Prefix, Origination>,
    /// Own prefixes that get an unreachable route in the kernel against loops.
    pub unreachable: Vec<Prefix>,
    /// Source addresses of learned routes.
    pub sources: PreferredSources,
    /// Pod CIDRs of the other nodes by their addresses.
    pub assigned: Arc<Assigned>,
    /// What must never be learned from a neighbor.
    pub guard: Arc<Guard>,
    /// The conflist, once there are a pod CIDR and the plugins.
    pub conflist: Option<Arc<Conflist>>,
    /// Why there is no conflist.
    pub no_conflist: String,
    /// Which traffic leaves with the node's address, and to which destinations it does not.
    pub masquerade: Arc<nft::masquerade::Wanted>,
    /// For which packets to add accept rules, if the policy of iptables' FORWARD chain is DROP.
    pub forward: Arc<nft::forward::Wanted>,
    /// Sources whose forwarded packets to neighbors' port 179 are dropped.
    pub block_bgp: Arc<nft::pod_bgp::Wanted>,
    /// Whether the peering needs the other Nodes: input of `k8s::io::spawn`.
    pub all_nodes: bool,
    /// Which Services are watched: input of `k8s::io::spawn_services`.
    pub service_selection: Arc<ServiceSelection>,
    /// Whether each address of a Service is advertised, and why.
    pub services: Vec<Eligibility>,
    /// Addresses that belonged to a Service before any Node reported them: input of the next plan.
    pub held_services: Arc<BTreeSet<IpAddr>>,
    /// What the operator should know of this node.
    pub problems: Vec<Diagnostic>,
    /// Problems of single objects, which other users write. They have a bound of their own.
    pub object_problems: Vec<Diagnostic>,
}

/// Connections from `prefix` become neighbors with the settings of `template`, at most `limit` of
/// them.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub prefix: Prefix,
    pub limit: usize,
    pub template: Arc<PeerConfig>,
}

impl Plan {
    /// Adds problems of objects, up to the number that is reported at once: users who may write
    /// objects could cause any number.
    pub fn add_object_problems(&mut self, more: Vec<Diagnostic>) {
        let room = MAX_PROBLEMS.saturating_sub(self.object_problems.len());
        self.object_problems.extend(more.into_iter().take(room));
    }

    /// Whether unnumbered neighbors are looked for on this interface.
    pub fn seeks_on(&self, interface: &str) -> bool {
        self.interfaces.links.values().any(|i| i.name == interface)
            || self.unfound.iter().any(|u| u.interface == interface)
    }

    /// The interfaces on which unnumbered neighbors are looked for.
    pub fn sought_on(&self) -> Vec<String> {
        self.interfaces.links.values().map(|i| i.name.clone()).collect()
    }

    /// Everything that `show` and BGPNodeStatus report, bounded in number and octets.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = [&self.problems[..], &self.object_problems].concat();
        bound(&mut all);
        all
    }
}

/// Maximum number of problems reported at once.
const MAX_PROBLEMS: usize = 100;

/// Keeps what is reported to operators, and to the API server, below about 100 KiB.
fn bound(problems: &mut Vec<Diagnostic>) {
    if problems.len() > MAX_PROBLEMS {
        problems.truncate(MAX_PROBLEMS);
        problems.push(Diagnostic::new(
            Reason::TooManyProblems,
            Subject::host(),
            format!("more problems than the {MAX_PROBLEMS} that are listed"),
            "fix those first",
        ));
    }
}

/// The other inputs, from the command line, the state folder and the folders of the container
/// runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanInputs {
    /// Under Kubernetes: `kubernetes.enabled`, or else `--kubeconfig` or `KUBERNETES_SERVICE_HOST`.
    pub kubernetes: bool,
    /// The router id of the last plan, kept in the state folder. `Plan::global` has the one to
    /// store: a plan that is computed after the Node was removed needs it as well.
    pub stored_router_id: Option<RouterId>,
    /// Whether our own routes were found in the kernel at the start (RFC 4724 §3).
    pub restarting: bool,
    /// Gateways whose default route is missing for a moment: [`Gateways::held`].
    pub held_gateways: Vec<Gateway>,
    /// Unnumbered neighbors that were found, by the name of the interface.
    pub found: Arc<BTreeMap<String, OnLink>>,
    /// Sessions that `neighbor disable` keeps down.
    pub disabled: BTreeSet<PeerKey>,
    /// The programs in `cni.bin-dir`.
    pub plugins: Arc<Plugins>,
    /// Families that are disabled on the host, each with the responsible setting.
    pub off: BTreeMap<Family, String>,
    /// Ranges in which pods may have addresses: those of the conflist on disk, and of former pod
    /// CIDRs.
    pub held: Arc<BTreeSet<Prefix>>,
    /// Which nodes have sessions with each other, from [`Election`]; `None`: from the list alone,
    /// without history.
    pub topology: Option<Topology>,
    /// The known Services.
    pub services: Arc<Services>,
    /// From the last plan: [`Plan::held_services`].
    pub held_services: Arc<BTreeSet<IpAddr>>,
    /// Default gateways since the start: [`FormerGateways`].
    pub former_gateways: Arc<BTreeSet<IpAddr>>,
    /// Resolvers of the host, from resolv.conf.
    pub resolvers: Arc<BTreeSet<IpAddr>>,
    /// How far `routelet drain` has come.
    pub drain: Option<Drain>,
    /// Neighbors of BGPPeer objects: [`Overlay::neighbors`].
    pub objects: Vec<Neighbor>,
    /// Neighbors without a session, because the BGPPeer object for them cannot be used:
    /// [`Overlay::broken`].
    pub broken: Vec<NeighborId>,
}

/// The interfaces over which pods leave this host: those with a default route, else those with an
/// address of the Node.
pub fn uplinks(config: &Config, nodes: Option<&Nodes>, host: &Host) -> Vec<String> {
    let by_default: Vec<_> = gateway::uplinks(host, config).into_iter().map(|l| l.name.clone()).collect();
    if !by_default.is_empty() {
        return by_default;
    }
    let addresses = nodes.and_then(|n| n.own.as_ref()).into_iter().flat_map(|own| &own.addresses);
    let links = addresses.filter_map(|a| neighbor::link_with(host, *a)).filter(|l| !l.loopback);
    links.map(|l| l.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Computes the plan. `nodes` is `None` outside of Kubernetes.
///
/// # Errors
///
/// There is no plan while the router id or the AS number cannot be determined (no Node address, no
/// address at all). The error has the reason and the remedy. The last plan stays in force.
pub fn plan(config: &Config, nodes: Option<&Nodes>, host: &Host, extra: &PlanInputs) -> Result<Plan, NoPlan> {
    let settled = nodes.map(|nodes| settle(nodes, host));
    let nodes = settled.as_deref();
    let global = global::global(config, nodes, host, extra)?;
    let cluster_as = global::file_asn(config, global.router_id, extra.kubernetes).unwrap_or(global.asn);
    let ctx = Context { config, nodes, host, extra, global: &global, cluster_as };

    let mut problems = Vec::new();
    let modes = peering::modes(&ctx, &mut problems);
    let topology = peering::topology(&ctx, &modes);
    let claims = Claims::of(&ctx);
    let peers = peering::peers(&ctx, &modes, &topology, &claims, &mut problems);
    let unfound = unnumbered::unfound(&ctx, &mut problems);
    let ranges = peering::ranges(&ctx, &mut problems);
    let mut object_problems = Vec::new();
    addresses::check(&ctx, &claims, &mut problems, &mut object_problems);
    let pods = node::pod_cidrs(&ctx, &mut problems, &mut object_problems);
    let former = node::former(&ctx, &pods, &mut problems);
    let served: Vec<_> = pods.iter().chain(&former).copied().collect();
    let selection = services::selection_among(config, extra.kubernetes, peering::is_among_nodes(&modes));
    let taken = Taken::new(&ctx, &peers);
    let services = services::verdicts(&ctx, &taken, &selection, &mut problems, &mut object_problems);
    let announced = services.iter().filter_map(|v| v.announced);
    object_problems.extend(taken.claims(&extra.services.addresses));
    let held_services = Arc::new(taken.held(&extra.services.addresses));
    let originated = originated(&ctx, announced, &served, &mut problems);
    problems.extend(gateway::lacks_ipv4(&ctx, &peers, &originated));
    let unreachable: BTreeSet<_> = served.iter().chain(&config.advertise.networks).copied().collect();
    let among_nodes = peers.values().any(|p| p.is_node);
    let of_nodes =
        if among_nodes { origins::node_prefixes(&ctx, &taken, &selection) } else { NodePrefixes::default() };
    let guard = guard::guard(&ctx, &unreachable, &originated, &peers, of_nodes);
    let masquerade = Arc::new(masq::wanted(&ctx, &served, &mut problems));
    let forward = Arc::new(forward::wanted(&ctx, &served));
    let block_bgp = Arc::new(pod_bgp::wanted(&ctx, &served, &peers, &ranges));
    let all_nodes = needs_all_nodes(&modes, &masquerade, &selection, &services);
    let conflist = node::conflist(&ctx, &pods, &mut problems).map(Arc::new);
    let sources = source::preferred(&ctx, &mut problems);
    problems.extend(extra.drain.map(Drain::note));
    bound(&mut problems);
    object_problems.truncate(MAX_PROBLEMS);

    Ok(Plan {
        config: Arc::new(in_force(&ctx, &modes)),
        keeps_router_id: global::is_lasting(config, nodes, host, extra, global.router_id, !peers.is_empty()),
        reflectors: topology.reflectors.clone(),
        unreachable_nodes: peering::unreachable_nodes(&ctx),
        among_nodes: peering::is_among_nodes(&modes),
        expected: peering::expected(&ctx, &modes, &topology),
        peers,
        interfaces: Arc::new(unnumbered::interfaces(&ctx)),
        unfound,
        node_addresses: ctx.own_node().map(|own| own.addresses.clone()).unwrap_or_default(),
        ranges,
        originated,
        unreachable: unreachable.into_iter().collect(),
        sources,
        assigned: Arc::new(node::assigned(&ctx)),
        guard: Arc::new(guard),
        no_conflist: conflist.as_ref().err().map(ToString::to_string).unwrap_or_default(),
        conflist: conflist.ok(),
        masquerade,
        forward,
        block_bgp,
        all_nodes,
        service_selection: selection,
        services,
        held_services,
        problems,
        object_problems,
        global,
    })
}

/// Whether the other Nodes are needed. Masquerading needs them, since traffic to Node addresses is
/// never masqueraded. In mode `auto` it does not justify a list of all Nodes on each node: it is
/// inactive where the switch has the pod CIDRs, and without them no reply would reach a pod.
fn needs_all_nodes(
    modes: &BTreeSet<Peering>,
    masquerade: &nft::masquerade::Wanted,
    selection: &ServiceSelection,
    services: &[Eligibility],
) -> bool {
    peering::is_among_nodes(modes)
        || masquerade.mode == nft::masquerade::Mode::On
        || selection.track_remote_endpoints && !services.is_empty()
        || services::needs_all_nodes(selection, services)
}

/// The configuration in force: overlaid with objects already, and with the Node's annotations.
fn in_force(ctx: &Context<'_>, modes: &BTreeSet<Peering>) -> Config {
    let mut config = ctx.config.clone();
    if ctx.own_node().is_some_and(|own| own.peering.is_some()) {
        config.kubernetes.peering = modes.iter().copied().collect();
    }
    config
}

/// The inputs that are shared by all parts of the plan.
#[derive(Clone, Copy, Debug)]
struct Context<'a> {
    config: &'a Config,
    nodes: Option<&'a Nodes>,
    host: &'a Host,
    extra: &'a PlanInputs,
    global: &'a Global,
    /// The AS number of nodes without annotation.
    cluster_as: Asn,
}

impl<'a> Context<'a> {
    fn own_node(&self) -> Option<&'a NodeView> {
        self.nodes?.own.as_ref()
    }
}

/// Own prefixes, with the attributes that `[advertise]` sets; of several sources the strongest one
/// replaces the others.
fn originated(
    ctx: &Context<'_>,
    services: impl Iterator<Item = Prefix>,
    pods: &[Prefix],
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<Prefix, Origination> {
    let advertise = &ctx.config.advertise;
    let drain = ctx.extra.drain;
    let origination = |source| origination(advertise, drain, source);
    for name in bridge::unmatched(advertise, ctx.host) {
        problems.push(Diagnostic::new(
            Reason::InterfaceMissing,
            Subject::interface(name),
            format!("advertise.interfaces: `{name}` matches no interface of this host yet"),
            format!("correct the name, or wait for it to appear; there are {}", bridge::candidates(ctx.host)),
        ));
    }
    problems.extend(bridge::without_carrier(advertise, ctx.host));
    problems.extend(bridge::larger_than_uplink(ctx));
    let interfaces = bridge::subnets(advertise, ctx.host).into_iter().map(|p| (p, Source::Interface));
    let networks = advertise.networks.iter().map(|p| (*p, Source::Network));
    let pod_cidrs =
        pods.iter().filter(|_| ctx.config.kubernetes.advertise_pod_cidrs).map(|p| (*p, Source::PodCidr));
    let services = services.map(|p| (p, Source::Service));
    let all = services.chain(interfaces).chain(networks).chain(pod_cidrs);
    all.filter(|(_, source)| drain.is_none_or(|d| d.leaves(*source)))
        .map(|(p, s)| (p, origination(s)))
        .collect()
}

/// The attributes that `[advertise]` and a drain set on an own prefix.
fn origination(advertise: &Advertise, drain: Option<Drain>, source: Source) -> Origination {
    let mut origination = Origination {
        source,
        med: advertise.med,
        communities: Vec::new(),
        large_communities: Vec::new(),
        ext_communities: Vec::new(),
    };
    for community in &advertise.communities {
        match *community {
            Community::Standard(c) => origination.communities.push(c),
            Community::Large(c) => origination.large_communities.push(c),
            Community::Ext(c) => origination.ext_communities.push(c),
        }
    }
    let communities = &mut origination.communities;
    if drain.is_some() && !communities.contains(&Community::GRACEFUL_SHUTDOWN) {
        communities.push(Community::GRACEFUL_SHUTDOWN);
    }
    origination
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
