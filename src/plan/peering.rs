//! The neighbors of this node: those of the file, and those that follow from `kubernetes.peering`.
//!
//! The latter come first, so that a configured neighbor with the same address replaces them. Among
//! them a node of the cluster comes after the gateway, and replaces it if the node is the default
//! gateway as well.
//!
//! In `auto`, gateway and mesh do not duplicate work: nodes on one segment reach each other
//! directly, and a mesh path to a node behind the gateway has a next hop that only the default
//! route reaches, which the fib does not accept. There the gateway's own path is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Context, Range,
    addresses::{self, Claims},
    candidates::{Members, takes_part},
    election::Topology,
    gateway, neighbor, unnumbered,
};
use crate::{
    bgp::peer::{PeerConfig, PeerKey, PeerSource, RemoteAs},
    config::{Config, GATEWAY_GROUP, Neighbor, NeighborId, NeighborKeys, Peering, implied_by_gateway},
    k8s::node::{GUARDED_AS_LABEL, GUARDED_REFLECTOR_LABEL, NodeView, Nodes, Presence, REFLECTOR_LABEL},
    net::{Asn, Diagnostic, Family, Reason, Subject},
};
use gateway::Gateway;
use neighbor::Draft;

/// How long routes that a node of the cluster advertised or reflected stay as the last choice after
/// it has become unreachable (RFC 9494). Its kernel forwards without routelet, and packets do not
/// pass reflectors: if all reflectors are down, or an update takes long, routes stay. A deleted
/// Node is no longer a neighbor, and its routes are removed at once. It is part of the OPEN, so it
/// is the same in mesh and with reflectors.
const AWAY: u32 = 7 * 24 * 3600;

/// All neighbors by key.
pub(super) type Peers = BTreeMap<PeerKey, Arc<PeerConfig>>;

/// The effective modes: the file's, unless the Node's annotation overrides them.
pub(super) fn modes(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> BTreeSet<Peering> {
    if !ctx.extra.kubernetes {
        return BTreeSet::new();
    }
    modes_of(ctx.config, ctx.own_node(), problems)
}

/// The same, if the node is known to be under Kubernetes.
pub(super) fn modes_of(
    config: &Config,
    own: Option<&NodeView>,
    problems: &mut Vec<Diagnostic>,
) -> BTreeSet<Peering> {
    let file = || config.kubernetes.peering.iter().copied().collect();
    let Some(text) = own.and_then(|n| n.peering.as_deref()) else { return file() };
    parse(text).unwrap_or_else(|| {
        problems.push(Diagnostic::new(
            Reason::NodeMarkInvalid,
            Subject::mark("routelet.io/peering"),
            format!(
                "annotation routelet.io/peering: `{text}` is none of mesh, gateway, reflectors, auto and none, \
                 nor a list of them; it is ignored"
            ),
            "correct or remove it",
        ));
        file()
    })
}

/// An annotation: one mode, or a list of them.
pub(super) fn parse(text: &str) -> Option<BTreeSet<Peering>> {
    text.split(',').map(|name| mode(name.trim())).collect()
}

fn mode(name: &str) -> Option<Peering> {
    Some(match name {
        "mesh" => Peering::Mesh,
        "gateway" => Peering::Gateway,
        "reflectors" => Peering::Reflectors,
        "auto" => Peering::Auto,
        "none" => Peering::None,
        _ => return None,
    })
}

/// Whether there are sessions among nodes, so that the other Nodes are needed.
pub(super) fn is_among_nodes(modes: &BTreeSet<Peering>) -> bool {
    modes.iter().any(|m| matches!(m, Peering::Mesh | Peering::Auto | Peering::Reflectors))
}

/// Every neighbor that this node should have.
pub(super) fn peers(
    ctx: &Context<'_>,
    modes: &BTreeSet<Peering>,
    topology: &Topology,
    claims: &Claims<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Peers {
    let mut drafts = Vec::new();
    let made = modes.contains(&Peering::Gateway) || modes.contains(&Peering::Auto);
    let mut written = ctx.config.bgp.neighbors.iter().chain(&ctx.extra.objects);
    if made || written.any(|n| n.at == NeighborId::Gateway) {
        problems.extend(gateway::refused(ctx));
    }
    if made {
        drafts.extend(gateways(ctx));
        if drafts.is_empty() && !modes.contains(&Peering::Auto) {
            problems.push(Diagnostic::new(
                Reason::NoGateway,
                Subject::key("kubernetes.peering"),
                "peering with the gateway, but no default route has a next hop",
                "add one, or set kubernetes.peering = \"mesh\"",
            ));
        }
    }
    drafts.extend(nodes(ctx, modes, topology, claims, problems));
    drafts.extend(configured(ctx));

    // If a BGPPeer cannot be used, its neighbor gets no session at all, rather than one without its
    // password or policy.
    let of_objects = |at: &NeighborId| ctx.extra.objects.iter().any(|n| n.at == *at);
    let broken = ctx.extra.broken.iter().filter(|at| !of_objects(at));
    let broken: BTreeSet<_> = broken.flat_map(|at| keys(ctx, at)).collect();
    drafts.retain(|draft| !broken.contains(&draft.key));

    let mut peers = Peers::new();
    for draft in drafts {
        let key = draft.key.clone();
        let settings = draft.finish(ctx, problems);
        // A Node that has one of our addresses is no neighbor; its wrong address is reported
        // elsewhere.
        if settings.is_here && matches!(settings.source, PeerSource::Mesh | PeerSource::Reflector) {
            continue;
        }
        peers.insert(key, Arc::new(settings));
    }
    peers
}

/// Nodes whose missing session does not indicate a problem of this node.
pub(super) fn unreachable_nodes(ctx: &Context<'_>) -> BTreeSet<IpAddr> {
    let others = ctx.nodes.into_iter().flat_map(|n| n.others());
    let (silent, live): (Vec<_>, Vec<_>) =
        others.partition(|n| n.not_reporting || n.deleted || n.going.is_some());
    let live: BTreeSet<IpAddr> = live.into_iter().flat_map(|n| n.addresses.iter().copied()).collect();
    silent.into_iter().flat_map(|n| n.addresses.iter().copied()).filter(|a| !live.contains(a)).collect()
}

/// Addresses of other nodes on which routelet runs, as far as the Nodes show: at least one of them
/// needs a session for this node to reach their pods. Nodes whose session the operator disabled are
/// left out.
pub(super) fn expected(
    ctx: &Context<'_>,
    modes: &BTreeSet<Peering>,
    topology: &Topology,
) -> BTreeSet<IpAddr> {
    if !is_among_nodes(modes) {
        return BTreeSet::new();
    }
    let others = ctx.nodes.into_iter().flat_map(|n| n.others());
    let expected = others.filter(|o| takes_part(o) && topology.expects(o));
    let addresses = expected.filter_map(|o| ctx.own_node()?.common_address(o));
    addresses.filter(|a| !ctx.extra.disabled.contains(&PeerKey::Address(*a))).collect()
}

/// `[[bgp.listen-range]]`.
pub(super) fn ranges(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> Vec<Range> {
    let template = |range: &crate::config::ListenRange, problems: &mut Vec<Diagnostic>| {
        let draft = Draft {
            key: PeerKey::Address(range.prefix.addr()),
            source: PeerSource::Range,
            group: range.group.as_deref(),
            implied: implied_by_group(range.group.as_deref()),
            keys: NeighborKeys {
                remote_as: Some(range.remote_as),
                passive: Some(true),
                ..NeighborKeys::default()
            },
        };
        Arc::new(PeerConfig { local_address: None, ..draft.finish(ctx, problems) })
    };
    let ranges = ctx.config.bgp.ranges.iter();
    ranges.map(|r| Range { prefix: r.prefix, limit: r.limit, template: template(r, problems) }).collect()
}

fn gateways<'a>(ctx: &Context<'_>) -> Vec<Draft<'a>> {
    let draft = |gateway: Gateway| Draft {
        implied: implied_by(&gateway),
        key: gateway.key,
        source: PeerSource::Gateway,
        group: Some(GATEWAY_GROUP),
        keys: NeighborKeys::default(),
    };
    gateway::neighbors(ctx).into_iter().map(draft).collect()
}

/// Anybody on the link can send a router advertisement, which creates an IPv6 default route. That
/// is no reason to accept IPv4 routes from its sender.
fn implied_by(gateway: &Gateway) -> NeighborKeys {
    let families = gateway.advertised.then(|| vec![Family::Ipv6Unicast]);
    NeighborKeys { families, ..implied_by_gateway() }
}

/// Which nodes have sessions with each other.
pub(super) fn topology(ctx: &Context<'_>, modes: &BTreeSet<Peering>) -> Topology {
    let fresh = || Topology::fresh(modes, ctx.nodes?, ctx.config.kubernetes.mesh_limit).into();
    let topology = if is_among_nodes(modes) { ctx.extra.topology.clone().or_else(fresh) } else { None };
    topology.unwrap_or_default()
}

/// Neighbors among the nodes: all of them (mesh), or the reflectors.
fn nodes<'a>(
    ctx: &Context<'_>,
    modes: &BTreeSet<Peering>,
    topology: &Topology,
    claims: &Claims<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Draft<'a>> {
    let (Some(nodes), Some(own)) = (ctx.nodes, ctx.own_node()) else { return Vec::new() };
    if !is_among_nodes(modes) {
        return Vec::new();
    }
    name_problems(ctx, modes, topology, problems);
    let mut drafts = Vec::new();
    let others = || nodes.others().filter(|o| o.name != own.name && takes_part(o));
    // A Node whose addresses are all claimed by other Nodes as well is still a neighbor, at an
    // address that none of them uses for its session.
    let wrong_at_best =
        |other: &NodeView| own.common_address_but(other, |a| claims.is_wrong(other, a)).is_none();
    let (met, claimed): (Vec<_>, Vec<_>) = others().partition(|other| !wrong_at_best(other));
    for (other, is_claimed) in
        met.into_iter().map(|o| (o, false)).chain(claimed.into_iter().map(|o| (o, true)))
    {
        let wrong = |addr| if is_claimed { claims.is_ours(addr) } else { claims.is_wrong(other, addr) };
        let primary = own.common_address_but(other, wrong);
        let inbound = topology.inbound.iter().copied().filter(|a| other.addresses.contains(a) && !wrong(*a));
        let met: BTreeSet<_> = primary.into_iter().chain(inbound).collect();
        let taken = |addr: &IpAddr| drafts.iter().any(|d: &Draft<'_>| d.key == PeerKey::Address(*addr));
        let met: Vec<IpAddr> = met.into_iter().filter(|a| !is_claimed || !taken(a)).collect();
        for addr in met.into_iter().filter(|a| topology.has_session(own, other, *a)) {
            let reflected = topology.reflects(own) || topology.reflects(other);
            let source = if reflected { PeerSource::Reflector } else { PeerSource::Mesh };
            let mut draft = node_draft(ctx, other, addr, source);
            if reflected {
                // Routes are passed on to another AS as to any external neighbor.
                let client = topology.reflects(own) && !topology.reflects(other) && own.asn == other.asn;
                draft.implied.route_reflector_client = Some(client);
            }
            // A Node that only connected to us is a passive neighbor: it alone knows why the
            // session is needed.
            let dials = Some(addr) == primary && topology.dials(own, other, addr);
            draft.implied.passive = (!dials).then_some(true);
            drafts.push(draft);
        }
    }
    drafts
}

/// Reports problems of the peering among nodes.
fn name_problems(
    ctx: &Context<'_>,
    modes: &BTreeSet<Peering>,
    topology: &Topology,
    problems: &mut Vec<Diagnostic>,
) {
    let Some(nodes) = ctx.nodes else { return };
    problems.extend(no_reflector(ctx, nodes, modes, topology));
    if ctx.own_node().is_some_and(|own| own.routelet == Presence::Impossible) {
        problems.push(Diagnostic::new(
            Reason::NodeExcluded,
            Subject::host(),
            "labels, annotations or taints of this Node are those of a Node on which routelet cannot run \
             (another operating system, KWOK, a virtual kubelet, Fargate): other nodes do not peer with it",
            "correct them",
        ));
    }
    problems.extend(ignored_marks(nodes));
    problems.extend(unreachable(nodes, topology));
}

/// No node can reflect, although the mode or the number of nodes requires it.
fn no_reflector(
    ctx: &Context<'_>,
    nodes: &Nodes,
    modes: &BTreeSet<Peering>,
    topology: &Topology,
) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let limit = ctx.config.kubernetes.mesh_limit;
    let members = Members::of(nodes, topology.trusting);
    if modes.contains(&Peering::Auto) && members.count() > limit && topology.reflectors.is_empty() {
        problems.push(Diagnostic::new(
            Reason::NoReflector,
            Subject::key("kubernetes.mesh-limit"),
            format!(
                "there are more nodes than kubernetes.mesh-limit = {limit}, and none of them can reflect routes"
            ),
            "remove the label routelet.io/route-reflector=false from some Nodes, or raise the limit",
        ));
    }
    if modes.contains(&Peering::Reflectors) && nodes.complete && members.labelled(nodes).is_empty() {
        problems.push(Diagnostic::new(
            Reason::NoReflector,
            Subject::key("kubernetes.peering"),
            "peering by reflectors, but no node has the label routelet.io/route-reflector=true",
            "set the label on two Nodes, or set kubernetes.peering = \"auto\"",
        ));
    }
    problems
}

/// Sessions that should be established and are not.
fn unreachable(nodes: &Nodes, topology: &Topology) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if topology.reflectors_down {
        let names = addresses::named(topology.reflectors.iter().map(String::as_str));
        problems.push(Diagnostic::new(
            Reason::ReflectorsUnreachable,
            Subject::host(),
            format!("no route reflector can be reached ({names}): nodes peer without them"),
            "check whether routelet runs there and TCP port 179 is open, or label nodes without routelet \
             routelet.io/route-reflector=false",
        ));
    }
    if topology.cut_off {
        let expected = nodes.others().filter(|o| takes_part(o) && topology.expects(o));
        let names = addresses::named(expected.map(|o| o.name.as_str()));
        problems.push(Diagnostic::new(
            Reason::NoSession,
            Subject::host(),
            format!("this node has no BGP session, and routelet runs on other nodes ({names})"),
            "see `routelet show neighbors`, and whether TCP port 179 is open between the nodes",
        ));
    }
    problems
}

/// Labels and annotations that a kubelet may have set.
fn ignored_marks(nodes: &Nodes) -> Option<Diagnostic> {
    let ignored_marks = nodes.all().filter(|n| n.marks.or(n.open_marks) != n.marks);
    let names: Vec<&str> = ignored_marks.map(|n| n.name.as_str()).collect();
    (nodes.guarded == Some(false) && !names.is_empty()).then(|| {
        Diagnostic::new(
            Reason::NodeMarkIgnored,
            Subject::host(),
            format!(
                "the label {REFLECTOR_LABEL} and the annotation routelet.io/as of node {} are ignored, since a \
                 kubelet could have set them",
                addresses::named(names)
            ),
            format!(
                "use the labels {GUARDED_REFLECTOR_LABEL} and {GUARDED_AS_LABEL}, or apply the admission policy \
                 routelet-nodes of deploy/ and let our ServiceAccount read its binding"
            ),
        )
    })
}

fn node_draft<'a>(ctx: &Context<'_>, other: &NodeView, addr: IpAddr, source: PeerSource) -> Draft<'a> {
    let asn: Asn = other.asn.unwrap_or(ctx.cluster_as);
    let external = asn != ctx.global.asn;
    // eBGP needs multihop, as nodes may be more than one hop apart.
    let multihop = (external && !neighbor::is_on_link(ctx.host, addr)).then_some(255);
    let group = if source == PeerSource::Mesh { "mesh" } else { "reflectors" };
    Draft {
        key: PeerKey::Address(addr),
        source,
        group: Some(group),
        implied: NeighborKeys {
            remote_as: Some(RemoteAs::Number(asn)),
            multihop,
            long_lived_stale_time: Some(AWAY),
            description: Some(format!("node {}", other.name)),
            ..NeighborKeys::default()
        },
        keys: NeighborKeys::default(),
    }
}

/// `[[bgp.neighbor]]` and BGPPeer objects. Neighbors that are found come first (unnumbered ones,
/// and those with `address = "gateway"`), so that those with a configured address replace them.
fn configured<'a>(ctx: &Context<'a>) -> Vec<Draft<'a>> {
    let of_file = ctx.config.bgp.neighbors.iter().map(|n| (PeerSource::Configured, n));
    let of_objects = ctx.extra.objects.iter().map(|n| (PeerSource::Object, n));
    let all: Vec<_> = of_file.chain(of_objects).collect();
    let draft = |source, n: &'a Neighbor, key, implied| Draft {
        key,
        source,
        group: n.group.as_deref(),
        implied,
        keys: n.keys.clone(),
    };
    let mut drafts = Vec::new();
    for (_, n) in all.iter().filter(|(_, n)| n.at == NeighborId::Gateway) {
        let made = |g: Gateway| draft(PeerSource::Gateway, n, g.key.clone(), implied_by(&g));
        drafts.extend(gateway::neighbors(ctx).into_iter().map(made));
    }
    drafts.extend(unnumbered::drafts(ctx));
    let is_named = |n: &Neighbor| matches!(n.at, NeighborId::Address(_) | NeighborId::LinkLocal(..));
    for (source, n) in all.into_iter().filter(|(_, n)| is_named(n)) {
        let implied = implied_by_group(n.group.as_deref());
        drafts.extend(keys(ctx, &n.at).into_iter().map(|key| draft(source, n, key, implied.clone())));
    }
    drafts
}

fn keys(ctx: &Context<'_>, at: &NeighborId) -> Vec<PeerKey> {
    match at {
        NeighborId::Address(a) => vec![PeerKey::Address(*a)],
        NeighborId::LinkLocal(a, i) => vec![PeerKey::LinkLocal(*a, i.clone())],
        NeighborId::Interface(_) | NeighborId::Uplinks => unnumbered::keys(ctx, at),
        NeighborId::Gateway => gateway::neighbors(ctx).into_iter().map(|g| g.key).collect(),
    }
}

fn implied_by_group(group: Option<&str>) -> NeighborKeys {
    match group {
        Some(GATEWAY_GROUP) => implied_by_gateway(),
        _ => NeighborKeys::default(),
    }
}
