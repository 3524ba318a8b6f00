//! What the kernel does with the packets: route, interface, neighbor entry.

use super::{Facts, Kernel, Link, Place, StepName, Used, Walk};
use crate::{
    fib::lookup::{Drop, Entry},
    net::Prefix,
};

pub(super) fn steps(facts: &Facts, walk: &mut Walk) {
    if facts.is_service() {
        let text = "kube-proxy delivers packets to the endpoints of a Service, no route does";
        return walk.note(StepName::KernelRoute, text);
    }
    match &facts.kernel {
        Kernel::Used(used) => route(facts, used, walk),
        Kernel::Dropped(drop) => dropped(facts, *drop, walk),
        Kernel::Unknown(error) => {
            walk.note(StepName::KernelRoute, format!("the kernel's route cannot be read: {error}"));
        }
    }
    if facts.used().is_none_or(|used| used.is_local) {
        return;
    }
    if let Some(link) = &facts.exit {
        interface(facts, link, walk);
    }
    neighbor(facts, walk);
}

fn route(facts: &Facts, used: &Used, walk: &mut Walk) {
    if let (Some("unreachable"), Place::Originated { prefix, .. }) = (used.dead_end, &facts.place) {
        return nobody_has(facts, *prefix, walk);
    }
    if let Some(what) = used.dead_end {
        return walk.stop(
            StepName::KernelRoute,
            format!(
                "the kernel uses a route that ends here: {} is of type {what} ({}, metric {}, table {})",
                used.prefix, used.protocol, used.metric, used.table
            ),
            format!("remove it, or have a route with a longer prefix: `ip route show table {}`", used.table),
        );
    }
    if used.is_local {
        return walk.ok(StepName::KernelRoute, format!("delivered to this host, on {}", used.interface));
    }
    let by = if used.is_ours { "routelet".to_owned() } else { used.protocol.clone() };
    let source = used.source.filter(|_| facts.question.from.is_none());
    let source = source.map(|s| format!(", source {s}")).unwrap_or_default();
    let text = format!("{} ({by}, metric {}, table {}{source})", used.text(), used.metric, used.table);
    walk.ok(StepName::KernelRoute, text);
}

/// Our own route of type unreachable, which stops loops.
fn nobody_has(facts: &Facts, prefix: Prefix, walk: &mut Walk) {
    walk.stop(
        StepName::KernelRoute,
        format!("no interface of this host leads to {}: the route that stops loops for {prefix} drops it", facts.question.address),
        "see that the containers run and that their bridge is up, or remove the prefix from advertise.networks",
    );
}

fn dropped(facts: &Facts, drop: Drop, walk: &mut Walk) {
    if let (Drop::Unreachable, Place::Originated { prefix, .. }) = (drop, &facts.place) {
        return nobody_has(facts, *prefix, walk);
    }
    let address = facts.question.address;
    let (text, remedy) = match drop {
        Drop::Unreachable => (
            format!("the kernel has no route to {address}, or one of type unreachable"),
            format!("`ip route get {address}` and `ip route show table all type unreachable` show it"),
        ),
        Drop::Prohibited => (
            format!("the kernel drops packets to {address}: a route or a rule of type prohibit"),
            "remove it: `ip rule` and `ip route show table all type prohibit` list them".into(),
        ),
        Drop::Invalid => (
            format!("the kernel drops packets to {address}: a route or rule of type blackhole, or a source \
                     address that cannot be right"),
            "`ip rule` and `ip route show table all type blackhole` list them; give the source with --from as it \
             is on the wire"
                .into(),
        ),
        Drop::ReversePath => (
            format!("the kernel drops packets to {address} by rp_filter"),
            "give the interface on which they arrive with --interface".into(),
        ),
    };
    walk.stop(StepName::KernelRoute, text, remedy);
}

fn interface(facts: &Facts, link: &Link, walk: &mut Walk) {
    if link.up && link.carrier {
        return walk.ok(StepName::Interface, format!("{} is up, with carrier, MTU {}", link.name, link.mtu));
    }
    let (what, remedy) = dead(link);
    let what = match &facts.place {
        Place::Container { .. } if link.kind == "bridge" => format!("{what}: no container is attached"),
        _ => what,
    };
    walk.stop(StepName::Interface, what, remedy);
}

/// Why an interface cannot send, and what to do.
pub(super) fn dead(link: &Link) -> (String, String) {
    let name = &link.name;
    match (link.up, link.kind.as_str()) {
        (false, _) => (format!("{name} is down"), format!("run `ip link set {name} up`")),
        (true, "bridge") => {
            (format!("{name} has no carrier"), "attach a container to it, or a port that is up".into())
        }
        (true, _) => (
            format!("{name} has no carrier"),
            format!("look at the cable and the other end; `ip link show {name}` shows the state"),
        ),
    }
}

fn neighbor(facts: &Facts, walk: &mut Walk) {
    let (Some(reached), Some(used)) = (&facts.reached, facts.used()) else { return };
    let (address, interface) = (reached.address, &used.interface);
    let protocol = if address.is_ipv4() { "ARP" } else { "neighbor discovery" };
    match reached.entry {
        Entry::Known => {
            walk.ok(StepName::NeighborEntry, format!("{address} is known on {interface} ({protocol})"));
        }
        Entry::NotNeeded => walk.ok(StepName::NeighborEntry, format!("{interface} needs no {protocol}")),
        Entry::Absent | Entry::Incomplete | Entry::Failed => walk.stop(
            StepName::NeighborEntry,
            format!("{address} does not reply to {protocol} on {interface}"),
            format!(
                "see that it is up and attached to that network: `ip neighbor show {address} dev {interface}`"
            ),
        ),
    }
}

/// ` via 10.1.1.1 on eth0`, for the verdict.
pub(super) fn way(facts: &Facts) -> String {
    match facts.used() {
        _ if facts.is_service() => ", as far as routes decide: kube-proxy delivers".into(),
        Some(used) if used.is_local => " on this host".into(),
        Some(used) => {
            let via = used.gateway.map(|g| format!(" via {g}")).unwrap_or_default();
            format!("{via} on {}", used.interface)
        }
        None => String::new(),
    }
}
