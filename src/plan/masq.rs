//! Which traffic is masqueraded, and to which destinations it is not.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    k8s::node::Nodes,
    net::{Diagnostic, Prefix, Reason, Subject},
    nft::masquerade::{self, Mode, Wanted},
};

/// `served`: the ranges in which this node has pods.
pub(super) fn wanted(ctx: &Context<'_>, served: &[Prefix], problems: &mut Vec<Diagnostic>) -> Wanted {
    let mode = mode(ctx, problems);
    if mode == Mode::Off {
        return Wanted::default();
    }
    let connected = ctx.host.links.values().flat_map(|l| l.subnets());
    let nodes = ctx.nodes.into_iter().flat_map(Nodes::all);
    // A kubelet may add any address to its Node: pods would send packets there with addresses that
    // nobody outside knows.
    let of_nodes =
        nodes.flat_map(|n| n.first_addresses().map(Prefix::host).chain(n.pod_cidrs.iter().copied()));
    let ranges = ctx.nodes.into_iter().flat_map(|n| &n.service_cidrs).copied();
    let services = ctx.extra.services.addresses.keys().map(|addr| Prefix::host(*addr));
    let config = ctx.config.masquerade.exclude.iter().chain(&ctx.config.advertise.networks).copied();
    let keep: BTreeSet<_> = connected
        .chain(of_nodes)
        .chain(ranges)
        .chain(services)
        .chain(config)
        .chain(served.iter().copied())
        .chain(masquerade::multicast())
        .collect();
    Wanted { mode, pods: served.iter().copied().collect(), keep }
}

fn mode(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> Mode {
    let enabled = ctx.config.masquerade.enabled;
    if !ctx.extra.kubernetes {
        if enabled == Some(true) {
            problems.push(Diagnostic::new(
                Reason::KeyWithoutEffect,
                Subject::key("masquerade.enabled"),
                "masquerade.enabled: only pods are masqueraded, and without Kubernetes there are none",
                "remove it: Docker masquerades its own bridges",
            ));
        }
        return Mode::Off;
    }
    match enabled {
        Some(true) => Mode::On,
        Some(false) => Mode::Off,
        None => Mode::Auto,
    }
}
