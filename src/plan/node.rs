//! The node's part for its own pods: the ranges that it serves, and the conflist for the container
//! runtime.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use serde_json::{Map, Value};

use super::{Context, gateway, incomplete::NoConflist, neighbor};
use crate::{
    cni::conflist::{self, Conflist, Spec},
    config::CniPlugin,
    fib::host::Link,
    k8s::node::{NodeView, Nodes},
    net::{Assigned, Diagnostic, Family, Prefix, Reason, Subject},
};

/// The pod CIDRs that can be used. A pod CIDR that overlaps the host's own subnet would cut the
/// node off; one that an older Node already has would cut off that node's pods. Both are left out.
pub(super) fn pod_cidrs(
    ctx: &Context<'_>,
    problems: &mut Vec<Diagnostic>,
    clashes: &mut Vec<Diagnostic>,
) -> Vec<Prefix> {
    let Some(own) = ctx.own_node() else { return Vec::new() };
    problems.extend(own.problems.iter().cloned());
    let mut usable = own.pod_cidrs.clone();
    let others = ctx.nodes.into_iter().flat_map(Nodes::others).filter(|o| o.uid != own.uid);
    for other in others.filter(|o| overlapping(own, o).next().is_some()) {
        let (first, second) = if own.comes_before(other) { (own, other) } else { (other, own) };
        if second.name == own.name {
            usable.retain(|p| !overlapping(own, other).any(|clashing| clashing == *p));
        }
        // A clash with a deleted Node is about to end, and is not reported.
        clashes.extend((!second.deleted).then(|| clash(first, second)));
    }
    usable.retain(|p| is_free(ctx, *p, problems));
    usable
}

/// The pod CIDRs that the API server assigns to the other nodes, regardless of what these
/// advertise.
pub(super) fn assigned(ctx: &Context<'_>) -> Assigned {
    let others = ctx.nodes.into_iter().flat_map(|n| n.others()).filter(|n| !n.deleted);
    let mut assigned = Assigned::default();
    for node in others {
        for address in &node.addresses {
            node.pod_cidrs.iter().for_each(|cidr| assigned.add(*address, *cidr));
        }
    }
    assigned
}

/// The pod CIDRs of `node` that overlap one of `other`.
fn overlapping<'a>(node: &'a NodeView, other: &'a NodeView) -> impl Iterator<Item = Prefix> + 'a {
    let clashes = |p: &&Prefix| other.pod_cidrs.iter().any(|theirs| p.covers(*theirs) || theirs.covers(**p));
    node.pod_cidrs.iter().filter(clashes).copied()
}

/// Both nodes report this with the same text for the same Node, so that it is one Event.
fn clash(first: &NodeView, second: &NodeView) -> Diagnostic {
    let list = |prefixes: Vec<String>| prefixes.join(", ");
    let theirs = list(overlapping(second, first).map(|p| p.to_string()).collect());
    let taken = list(overlapping(first, second).map(|p| p.to_string()).collect());
    Diagnostic::new(
        Reason::OverlappingPodCIDR,
        Subject::node(&second.name, &second.uid),
        format!(
            "pod CIDR {theirs} of node {} overlaps {taken} of node {}, which was there first: node {} neither \
             uses nor advertises it",
            second.name, first.name, second.name
        ),
        format!("delete and re-create Node {}", second.name),
    )
}

/// Whether this node can use a pod CIDR. A range that would cut the node off is always refused: one
/// that contains an address of the node itself, its default gateway, or the subnet of an uplink.
/// Other Nodes and interfaces inside only keep a node from *beginning* to use the range: a range
/// with running pods is not given up for a stray Node or interface, which is reported instead.
fn is_free(ctx: &Context<'_>, pod_cidr: Prefix, problems: &mut Vec<Diagnostic>) -> bool {
    if let Some(what) = cut_off(ctx, pod_cidr) {
        problems.push(Diagnostic::new(
            Reason::PodCidrUnusable,
            Subject::prefix(pod_cidr),
            format!("pod CIDR {pod_cidr} holds {what}: it is neither used nor advertised"),
            "give the cluster's pods a range of their own (--cluster-cidr of the controller manager)",
        ));
        return false;
    }
    let used = is_in_use(ctx, pod_cidr);
    for link in ctx.host.links.values().filter(|l| is_foreign(ctx, l)) {
        let Some(subnet) = link.subnets().find(|s| is_inside(pod_cidr, *s)) else { continue };
        if link.kind == "bridge" {
            problems.push(Diagnostic::new(
                Reason::PodCidrInUse,
                Subject::interface(&link.name),
                format!("pod CIDR {pod_cidr} is already on bridge {}", link.name),
                format!("set cni.bridge = \"{}\" to take it over, or remove it", link.name),
            ));
            continue;
        }
        let host = subnet.len() == subnet.family().max_len();
        let (thing, effect) = match (host, used) {
            (true, _) => ("address", "a pod that gets this address is not reached"),
            (false, true) => {
                ("subnet", "the range is in use and stays so, but pods with such addresses are not reached")
            }
            (false, false) => ("subnet", "it is neither used nor advertised"),
        };
        problems.push(Diagnostic::new(
            Reason::PodCidrInUse,
            Subject::interface(&link.name),
            format!("pod CIDR {pod_cidr} holds the {thing} {subnet} of interface {}: {effect}", link.name),
            "remove it from the interface, or give the cluster's pods another range",
        ));
        if !host && !used {
            return false;
        }
    }
    nodes_inside(ctx, pod_cidr, used, problems)
}

/// What the node cannot do without, if it lies in the range: described with its subnet if that lies
/// inside as well.
fn cut_off(ctx: &Context<'_>, pod_cidr: Prefix) -> Option<String> {
    let gateways = ctx.host.default_gateways(pod_cidr.family()).into_iter();
    let gateways = gateways.map(|(addr, _)| (addr, "the default gateway"));
    let own = ctx.own_node().into_iter().flat_map(|own| own.addresses.iter());
    let own = own.map(|addr| (*addr, "the node's own address"));
    // The kubelet may have taken the bridge's address for the node's.
    let served = |a: IpAddr| own_bridge(ctx).is_some_and(|l| l.addresses.iter().any(|held| held.addr == a));
    let (addr, what) = gateways.chain(own).find(|(a, _)| pod_cidr.contains(*a) && !served(*a))?;
    let links = ctx.host.links.values().filter(|l| is_foreign(ctx, l));
    let mut subnets = links.flat_map(|l| l.subnets().map(move |s| (l, s)));
    let around = subnets.find(|(_, s)| pod_cidr.covers(*s) && s.contains(addr));
    Some(match around {
        Some((link, subnet)) => format!("the subnet {subnet} of interface {}, with {what} {addr}", link.name),
        None => format!("{what} {addr}"),
    })
}

/// Reports addresses of other Nodes inside the range. If one is on link, there is a machine that
/// the range would hide; any other is a pod that acts as a Node, as with a virtual kubelet.
fn nodes_inside(ctx: &Context<'_>, pod_cidr: Prefix, used: bool, problems: &mut Vec<Diagnostic>) -> bool {
    let others = ctx.nodes.into_iter().flat_map(Nodes::others).filter(|n| !n.deleted);
    let inside = others.flat_map(|n| n.addresses.iter().map(move |a| (n, *a)));
    let mut free = true;
    for (node, addr) in inside.filter(|(_, a)| pod_cidr.contains(*a)).take(MAX_NAMED) {
        let hidden = !used && is_on_link(ctx, addr);
        free &= !hidden;
        problems.push(if hidden {
            Diagnostic::new(
                Reason::PodCidrUnusable,
                Subject::address(addr),
                format!(
                    "pod CIDR {pod_cidr} holds the address {addr} of node {}: it is neither used nor advertised",
                    node.name
                ),
                "give the cluster's pods a range that holds no node (--cluster-cidr of the controller manager)",
            )
        } else {
            Diagnostic::new(
                Reason::NodeInsidePodCidr,
                Subject::address(addr),
                format!(
                    "node {} has the address {addr} inside this node's pod CIDR {pod_cidr}: packets for it go \
                     to the pods of this node",
                    node.name
                ),
                format!(
                    "unless a pod with this address acts as that node, correct its InternalIP, or delete Node {}",
                    node.name
                ),
            )
        });
    }
    free
}

/// Whether pods have addresses of it: it is in the conflist on disk, or the bridge has its gateway
/// address.
fn is_in_use(ctx: &Context<'_>, range: Prefix) -> bool {
    let served = |l: &Link| {
        l.addresses.iter().any(|a| a.len == range.len() && Some(a.addr) == conflist::gateway(range))
    };
    ctx.extra.held.contains(&range) || own_bridge(ctx).is_some_and(served)
}

fn own_bridge<'a>(ctx: &Context<'a>) -> Option<&'a Link> {
    ctx.host.link(&ctx.config.cni.bridge)
}

fn is_foreign(ctx: &Context<'_>, link: &Link) -> bool {
    link.up && !link.loopback && link.name != ctx.config.cni.bridge
}

/// Whether addresses of a subnet could be assigned to pods. Addresses that `host-local` never
/// assigns are harmless: flannel has the first one of the range on its tunnel, as a host address.
fn is_inside(pod_cidr: Prefix, subnet: Prefix) -> bool {
    let host = subnet.len() == subnet.family().max_len();
    let reserved =
        host && (subnet.addr() == pod_cidr.addr() || Some(subnet.addr()) == conflist::gateway(pod_cidr));
    pod_cidr.covers(subnet) && !reserved
}

/// Whether a subnet of the host, other than the pods' own, leads to it.
fn is_on_link(ctx: &Context<'_>, addr: IpAddr) -> bool {
    let mut subnets = ctx.host.links.values().filter(|l| is_foreign(ctx, l)).flat_map(Link::subnets);
    subnets.any(|s| s.contains(addr))
}

/// Maximum number of addresses of other Nodes that are reported.
const MAX_NAMED: usize = 10;

/// Former pod CIDRs in which pods still run: they are served until the last pod is gone. Pods are
/// attached to the bridge; without ports it has no pods.
pub(super) fn former(ctx: &Context<'_>, pods: &[Prefix], problems: &mut Vec<Diagnostic>) -> Vec<Prefix> {
    let bridge = ctx.host.link(&ctx.config.cni.bridge).map(|l| l.index);
    let has_pods = bridge.is_some() && ctx.host.links.values().any(|l| l.master == bridge);
    // Without a pod CIDR of the Node, nothing is known about its pods; a removed Node has no pod
    // CIDR.
    let known = ctx.own_node().is_some_and(|own| !own.pod_cidrs.is_empty());
    if !has_pods || !known {
        return Vec::new();
    }
    let held = ctx.extra.held.iter().copied().filter(|p| !pods.contains(p));
    held.filter(|range| is_still_ours(ctx, *range, problems)).collect()
}

fn is_still_ours(ctx: &Context<'_>, range: Prefix, problems: &mut Vec<Diagnostic>) -> bool {
    let theirs = |n: &&NodeView| n.pod_cidrs.iter().any(|p| p.covers(range) || range.covers(*p));
    let others = ctx.nodes.into_iter().flat_map(Nodes::others);
    let taken = others.into_iter().find(theirs);
    let (reason, text, remedy) = match taken {
        Some(other) => (
            Reason::FormerPodCidrTaken,
            format!(
                "pods of the former pod CIDR {range} still run, and node {} has it now: they are not reached \
                 from other nodes",
                other.name
            ),
            "delete these pods",
        ),
        None => (
            Reason::FormerPodCidrInUse,
            format!(
                "pods of the former pod CIDR {range} still run: it is advertised until the last of them is gone"
            ),
            "delete these pods to end this sooner",
        ),
    };
    problems.push(Diagnostic::new(reason, Subject::prefix(range), text, remedy));
    taken.is_none()
}

/// The conflist, once there are a usable pod CIDR and the plugins that it names; until then, the
/// reason why there is none.
///
/// If one family cannot be used, pods get the other one only.
pub(super) fn conflist(
    ctx: &Context<'_>,
    usable: &[Prefix],
    problems: &mut Vec<Diagnostic>,
) -> Result<Conflist, NoConflist> {
    let cni = &ctx.config.cni;
    let missing = ctx.nodes.map_or(Some(NoConflist::NoCluster), |n| n.missing().map(NoConflist::Node));
    if let Some(missing) = missing.filter(|_| usable.is_empty()) {
        return Err(missing);
    }
    if !cni.enabled.unwrap_or(ctx.extra.kubernetes) {
        return Err(NoConflist::Disabled);
    }
    let mut pods = Vec::new();
    for pod_cidr in usable {
        if let Some(why) = ctx.extra.off.get(&pod_cidr.family()) {
            problems.push(Diagnostic::new(
                Reason::PodCidrFamilyOff,
                Subject::prefix(pod_cidr),
                format!(
                    "pods get no address of pod CIDR {pod_cidr}: {} is disabled on this host by {why}",
                    label(pod_cidr.family())
                ),
                "set it to 0 to enable it, or give the cluster no such pod CIDRs",
            ));
        } else if conflist::gateway(*pod_cidr).is_none() {
            problems.push(Diagnostic::new(
                Reason::PodCidrTooSmall,
                Subject::prefix(pod_cidr),
                format!(
                    "pod CIDR {pod_cidr} has no room for a gateway and a pod: it is left out of the conflist"
                ),
                "give the nodes larger ones (--node-cidr-mask-size)",
            ));
        } else {
            pods.push(*pod_cidr);
        }
    }
    if pods.is_empty() {
        return Err(NoConflist::NoPodCidr);
    }
    if ctx.extra.plugins.pending {
        return Err(NoConflist::PluginsPending);
    }
    let names = missing_plugins(ctx, problems);
    if !names.is_empty() {
        let folder = cni.bin_dir.display().to_string();
        return Err(NoConflist::PluginsMissing { names, folder });
    }
    let chained: Vec<_> = cni.plugins.iter().filter_map(|p| chained(ctx, p, problems)).collect();
    let version = version(ctx, &chained, problems);
    let spec = Spec { pod_cidrs: &pods, bridge: &cni.bridge, mtu: mtu(ctx), chained };
    Ok(Conflist::in_version(spec, version))
}

fn label(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "IPv4",
        Family::Ipv6Unicast => "IPv6",
    }
}

/// The problem that a required plugin is not in this folder.
pub fn cni_plugin_missing(name: &str, dir: &Path) -> Diagnostic {
    let what = format!("is missing in {}: no pod can start, and no conflist is written", dir.display());
    plugin_problem(Reason::CniPluginMissing, name, &what, "install the CNI plugins there")
}

fn plugin_problem(reason: Reason, name: &str, what: &str, remedy: &str) -> Diagnostic {
    Diagnostic::new(reason, Subject::program(name), format!("CNI plugin `{name}` {what}"), remedy)
}

/// The plugins that every pod needs and that are missing.
fn missing_plugins(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> Vec<&'static str> {
    let missing: Vec<_> = conflist::REQUIRED.into_iter().filter(|name| is_absent(ctx, name)).collect();
    for name in &missing {
        problems.push(cni_plugin_missing(name, &ctx.config.cni.bin_dir));
    }
    missing
}

/// The newest version of CNI that all plugins of the file support.
fn version(
    ctx: &Context<'_>,
    chained: &[Map<String, Value>],
    problems: &mut Vec<Diagnostic>,
) -> &'static str {
    let (plugins, dir) = (&ctx.extra.plugins, ctx.config.cni.bin_dir.display());
    let types = chained.iter().filter_map(|p| p.get("type")?.as_str());
    let used: BTreeSet<_> = conflist::REQUIRED
        .into_iter()
        .chain(types)
        .chain(plugins.chained.iter().map(String::as_str))
        .collect();
    for name in &used {
        if let Some(why) = plugins.unusable.get(*name) {
            let what = format!(
                "in {dir} does not report the CNI versions that it supports ({why}); 0.4.0 is assumed"
            );
            let remedy = "reinstall it where pods do not start";
            problems.push(plugin_problem(Reason::CniPluginBroken, name, &what, remedy));
        }
    }
    conflist::common_version(used.iter().map(|name| plugins.versions.get(*name))).unwrap_or_else(|| {
        let names: Vec<_> = used.iter().copied().collect();
        problems.push(Diagnostic::new(
            Reason::CniVersionsDiffer,
            Subject::key("cni.bin-dir"),
            format!("the CNI plugins {} have no CNI version in common: no pod can start", names.join(", ")),
            "install plugins of one release",
        ));
        conflist::FALLBACK
    })
}

fn chained(
    ctx: &Context<'_>,
    plugin: &CniPlugin,
    problems: &mut Vec<Diagnostic>,
) -> Option<Map<String, Value>> {
    let table = match plugin {
        CniPlugin::Name(name) => conflist::plugin(name),
        CniPlugin::Table(table) => table.clone(),
    };
    let name = table.get("type")?.as_str()?;
    if is_absent(ctx, name) {
        let dir = ctx.config.cni.bin_dir.display();
        let what = format!("is missing in {dir}: it is left out of the conflist");
        let remedy = "install it there, or remove it from cni.plugins";
        problems.push(plugin_problem(Reason::CniPluginLeftOut, name, &what, remedy));
        return None;
    }
    Some(table)
}

/// Whether a program is known to be absent; unknown if the folder cannot be read (not mounted).
fn is_absent(ctx: &Context<'_>, program: &str) -> bool {
    ctx.extra.plugins.programs.as_ref().is_some_and(|p| !p.contains(program))
}

/// The smallest MTU of the interfaces with a default route, or else that of the interface with the
/// node's address.
fn mtu(ctx: &Context<'_>) -> Option<u32> {
    let uplinks = gateway::uplinks(ctx.host, ctx.config);
    let of_node = || {
        let addresses = ctx.own_node()?.addresses.iter();
        let link = |a: &IpAddr| neighbor::link_with(ctx.host, *a).filter(|l| !l.loopback);
        addresses.filter_map(link).map(|l| l.mtu).min()
    };
    ctx.config.cni.mtu.or_else(|| uplinks.iter().map(|l| l.mtu).min()).or_else(of_node)
}
