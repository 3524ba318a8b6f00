//! Which interfaces lead to containers, so that no router on them is trusted.

use super::{Context, bridge, neighbor::is_link_local};
use crate::fib::host::{Host, Link, RouteType};

/// Why unnumbered neighbors can never be on an interface, even if the configuration names it, and
/// what to write instead.
pub(super) fn never_an_uplink(ctx: &Context<'_>, link: &Link) -> Option<String> {
    let name = &link.name;
    if link.loopback {
        return Some(format!("{name} is the loopback: name an uplink"));
    }
    if let Some(master) = link.master.and_then(|index| ctx.host.links.get(&index)) {
        return Some(format!("{name} is a port of {0}, which has the addresses: name {0}", master.name));
    }
    if ctx.extra.kubernetes && *name == ctx.config.cni.bridge {
        return Some(format!("{name} is the pods' bridge: name an uplink"));
    }
    if is_bridge_of_containers(ctx.host, link) {
        return Some(format!("{name} is a bridge to which containers are attached: name an uplink"));
    }
    None
}

/// Whether an interface that only matches a pattern leads to containers, and is therefore skipped.
pub(super) fn carries_containers(ctx: &Context<'_>, link: &Link) -> bool {
    never_an_uplink(ctx, link).is_some()
        || bridge::is_advertised(&ctx.config.advertise, ctx.host, link)
        || link.kind == "veth" && has_host_route(ctx.host, link)
}

/// Whether neighbors are looked for on this interface without being configured: a network card or a
/// bond without an address of its own. In a namespace, which has no cards, ends of veth pairs are
/// used instead.
pub(super) fn is_bare_uplink(ctx: &Context<'_>, link: &Link) -> bool {
    let is_card = |l: &Link| l.kind.is_empty() && !l.loopback;
    let any_card = ctx.host.links.values().any(is_card);
    let of_kind = is_card(link) || link.kind == "bond" || !any_card && link.kind == "veth";
    let numbered = link.addresses.iter().any(|a| !is_link_local(a.addr));
    of_kind && !numbered && !carries_containers(ctx, link)
}

/// A bridge with a port that is one end of a veth pair.
pub(super) fn is_bridge_of_containers(host: &Host, link: &Link) -> bool {
    link.kind == "bridge" && host.links.values().any(|p| p.master == Some(link.index) && p.kind == "veth")
}

/// Whether a route to a single address leads over the link: CNI plugins without a bridge reach
/// their containers this way.
fn has_host_route(host: &Host, link: &Link) -> bool {
    host.routes.iter().any(|r| {
        r.kind == RouteType::Unicast
            && r.prefix.len() == r.prefix.family().max_len()
            && r.hops.iter().any(|h| h.ifindex == link.index && h.gateway.is_none())
            && !link.subnets().any(|s| s == r.prefix)
    })
}
