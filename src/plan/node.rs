//! What this node does for its own pods: which ranges it answers for, and the file for the container runtime.

use serde_json::{Map, Value};

use super::{Context, gateway, neighbor};
use crate::{
    config::CniPlugin,
    k8s::{
        cni::{self, Conflist, Spec},
        node::NodeView,
    },
    net::Prefix,
};

/// The pod CIDRs that can be used. One that clashes with the host's own subnet would cut the node off and is left out.
pub(super) fn pod_cidrs(ctx: &Context<'_>, problems: &mut Vec<String>) -> Vec<Prefix> {
    let Some(own) = ctx.own_node() else { return Vec::new() };
    problems.extend(own.problems.iter().cloned());
    overlaps(ctx, own, problems);
    own.pod_cidrs.iter().copied().filter(|p| is_free(ctx, *p, problems)).collect()
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
    true
}

fn overlaps(ctx: &Context<'_>, own: &NodeView, problems: &mut Vec<String>) {
    let others = ctx.nodes.into_iter().flat_map(|n| n.others.values()).filter(|o| o.uid != own.uid);
    for other in others {
        for theirs in &other.pod_cidrs {
            if let Some(ours) = own.pod_cidrs.iter().find(|p| p.covers(*theirs) || theirs.covers(**p)) {
                problems.push(format!(
                    "pod CIDR {ours} overlaps {theirs} of node {}: pods of one of them will not be reached; delete and \
                     re-create one Node",
                    other.name
                ));
            }
        }
    }
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
    let others = ctx.nodes.into_iter().flat_map(|n| n.others.values());
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
