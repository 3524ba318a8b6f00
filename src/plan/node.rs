//! What this node does for its own pods: which ranges it answers for, and the file for the container runtime.

use serde_json::{Map, Value};

use super::{Context, ObjectProblem, gateway, neighbor};
use crate::{
    config::CniPlugin,
    k8s::{
        cni::{self, Conflist, Spec},
        node::{NodeView, Nodes},
    },
    net::Prefix,
};

/// The pod CIDRs that can be used. One that clashes with the host's own subnet would cut the node off, and one of which
/// another node was there first would cut off that one's pods: they are left out.
pub(super) fn pod_cidrs(
    ctx: &Context<'_>,
    problems: &mut Vec<String>,
    clashes: &mut Vec<ObjectProblem>,
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
        // One that is deleted is no trouble much longer.
        clashes.extend((!second.deleted).then(|| clash(first, second)));
    }
    usable.retain(|p| is_free(ctx, *p, problems));
    usable
}

/// Which pod CIDRs of the first overlap some of the other's.
fn overlapping<'a>(node: &'a NodeView, other: &'a NodeView) -> impl Iterator<Item = Prefix> + 'a {
    let clashes = |p: &&Prefix| other.pod_cidrs.iter().any(|theirs| p.covers(*theirs) || theirs.covers(**p));
    node.pod_cidrs.iter().filter(clashes).copied()
}

/// Both nodes say it in the same words and of the same Node, so that it is one Event.
fn clash(first: &NodeView, second: &NodeView) -> ObjectProblem {
    let list = |prefixes: Vec<String>| prefixes.join(", ");
    let theirs = list(overlapping(second, first).map(|p| p.to_string()).collect());
    let taken = list(overlapping(first, second).map(|p| p.to_string()).collect());
    ObjectProblem {
        kind: "Node",
        name: second.name.clone(),
        uid: second.uid.clone(),
        reason: "OverlappingPodCIDR",
        text: format!(
            "pod CIDR {theirs} of node {} overlaps {taken} of node {}, which was there first: node {} neither uses nor \
             advertises it; delete and re-create Node {}",
            second.name, first.name, second.name, second.name
        ),
    }
}

fn is_free(ctx: &Context<'_>, pod_cidr: Prefix, problems: &mut Vec<String>) -> bool {
    let others = ctx.host.links.values().filter(|l| l.up && !l.loopback && l.name != ctx.config.cni.bridge);
    for link in others {
        let Some(subnet) = link.subnets().find(|s| pod_cidr.covers(*s)) else { continue };
        if link.kind == "bridge" {
            problems.push(format!(
                "pod CIDR {pod_cidr} is already on bridge {}: set cni.bridge = \"{}\" to take it over, or remove it",
                link.name, link.name
            ));
            continue;
        }
        problems.push(format!(
            "pod CIDR {pod_cidr} holds the subnet {subnet} of interface {}: it is neither used nor advertised; give the \
             cluster a range of its own",
            link.name
        ));
        return false;
    }
    if let Some(who) = inhabitant(ctx, pod_cidr) {
        problems.push(format!(
            "pod CIDR {pod_cidr} holds {who}: it is neither used nor advertised; give the cluster a range of its own"
        ));
        return false;
    }
    true
}

/// Whom a pod CIDR inside a larger subnet would hide from this node.
fn inhabitant(ctx: &Context<'_>, pod_cidr: Prefix) -> Option<String> {
    let family = pod_cidr.family();
    let gateways = ctx.host.default_gateways(family).into_iter();
    let gateway = gateways.map(|(addr, _)| addr).find(|a| pod_cidr.contains(*a));
    let of_nodes = || {
        let nodes = ctx.nodes.into_iter().flat_map(Nodes::all);
        nodes.flat_map(|n| n.addresses.iter().map(move |a| (n, *a))).find(|(_, a)| pod_cidr.contains(*a))
    };
    gateway
        .map(|addr| format!("the default gateway {addr}"))
        .or_else(|| of_nodes().map(|(node, addr)| format!("the address {addr} of node {}", node.name)))
}

/// Former pod CIDRs in which pods still run: served until the last of them is gone. Pods hang on the bridge; without a port
/// there is none.
pub(super) fn former(ctx: &Context<'_>, pods: &[Prefix], problems: &mut Vec<String>) -> Vec<Prefix> {
    let bridge = ctx.host.link(&ctx.config.cni.bridge).map(|l| l.index);
    let has_pods = bridge.is_some() && ctx.host.links.values().any(|l| l.master == bridge);
    // A Node without pod CIDR says nothing about its pods; one that is gone has none that are to be reached.
    let known = ctx.own_node().is_some_and(|own| !own.pod_cidrs.is_empty());
    if !has_pods || !known {
        return Vec::new();
    }
    let held = ctx.extra.held.iter().copied().filter(|p| !pods.contains(p));
    held.filter(|range| is_still_ours(ctx, *range, problems)).collect()
}

fn is_still_ours(ctx: &Context<'_>, range: Prefix, problems: &mut Vec<String>) -> bool {
    let theirs = |n: &&NodeView| n.pod_cidrs.iter().any(|p| p.covers(range) || range.covers(*p));
    let others = ctx.nodes.into_iter().flat_map(Nodes::others);
    let taken = others.into_iter().find(theirs);
    problems.push(match taken {
        Some(other) => format!(
            "pods of the former pod CIDR {range} still run, and node {} has it now: they are not reached from other nodes; \
             delete these pods",
            other.name
        ),
        None => format!(
            "pods of the former pod CIDR {range} still run: it is advertised until the last of them is gone; deleting them \
             makes it sooner"
        ),
    });
    taken.is_none()
}

/// The file, once every pod CIDR of the Node can be used.
pub(super) fn conflist(ctx: &Context<'_>, pods: &[Prefix], problems: &mut Vec<String>) -> Option<Conflist> {
    let own = ctx.own_node()?;
    let cni = &ctx.config.cni;
    if !cni.enabled.unwrap_or(ctx.extra.kubernetes) || pods.is_empty() || pods.len() != own.pod_cidrs.len() {
        return None;
    }
    if let Some(p) = pods.iter().find(|p| cni::gateway(**p).is_none()) {
        problems
            .push(format!("pod CIDR {p} has no room for a gateway and a pod; the conflist is not written"));
        return None;
    }
    for required in ["bridge", "host-local"] {
        if is_absent(ctx, required) {
            problems.push(format!(
                "CNI plugin `{required}` is missing in {}: no pod will start; install the CNI plugins there",
                cni.bin_dir.display()
            ));
        }
    }
    let chained = cni.plugins.iter().filter_map(|p| chained(ctx, p, problems)).collect();
    Some(Conflist::new(Spec { pod_cidrs: pods, bridge: &cni.bridge, mtu: mtu(ctx), chained }))
}

fn chained(ctx: &Context<'_>, plugin: &CniPlugin, problems: &mut Vec<String>) -> Option<Map<String, Value>> {
    let table = match plugin {
        CniPlugin::Name(name) => cni::plugin(name),
        CniPlugin::Table(table) => table.clone(),
    };
    let name = table.get("type")?.as_str()?;
    if is_absent(ctx, name) {
        problems.push(format!(
            "CNI plugin `{name}` is missing in {}: it is left out of the conflist",
            ctx.config.cni.bin_dir.display()
        ));
        return None;
    }
    Some(table)
}

/// Known to be absent: a folder that cannot be read (not mounted) says nothing.
fn is_absent(ctx: &Context<'_>, program: &str) -> bool {
    ctx.extra.cni_programs.as_ref().is_some_and(|p| !p.contains(program))
}

/// The smallest MTU of the interfaces that hold a default route, else of the one with the node address.
fn mtu(ctx: &Context<'_>) -> Option<u32> {
    let uplinks = gateway::uplinks(ctx.host, ctx.config.fib.protocol);
    let of_node = || {
        let addresses = ctx.own_node()?.addresses.iter();
        let link = |a: &std::net::IpAddr| neighbor::link_with(ctx.host, *a).filter(|l| !l.loopback);
        addresses.filter_map(link).map(|l| l.mtu).min()
    };
    ctx.config.cni.mtu.or_else(|| uplinks.iter().map(|l| l.mtu).min()).or_else(of_node)
}
