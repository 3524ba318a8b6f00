//! Packets that this node forwards: MTU, forwarding, rp_filter, packet filters.

use super::{Facts, Firewall, Flow, Kernel, Outcome, Place, StepName, Walk, listed};
use crate::fib::lookup::Drop;

pub(super) fn steps(facts: &Facts, walk: &mut Walk) {
    if facts.is_service() {
        return;
    }
    mtu(facts, walk);
    forwarding(facts, walk);
    reverse_path(facts, walk);
    not_routed(facts, walk);
    firewall(facts, walk);
}

/// Large packets of containers must be fragmented if the path has a smaller MTU than their bridge.
fn mtu(facts: &Facts, walk: &mut Walk) {
    let (Some(used), Some(exit)) = (facts.used(), &facts.exit) else { return };
    if used.is_local || matches!(facts.place, Place::Container { .. }) {
        return;
    }
    let path = used.mtu.map_or(exit.mtu, |mtu| mtu.min(exit.mtu));
    let links = facts.sources.iter().filter_map(|s| s.link.as_ref());
    let mut wider: Vec<_> = links.filter(|(_, mtu)| *mtu > path).collect();
    wider.dedup();
    match wider.first() {
        None => walk.ok(StepName::Mtu, format!("{path} octets by {}", exit.name)),
        Some((name, mtu)) => walk.warn(
            StepName::Mtu,
            format!(
                "{path} octets by {}, while {name} has {mtu}: larger packets need fragmentation",
                exit.name
            ),
            format!("set the MTU of {name} and of its containers to {path}"),
        ),
    }
}

fn forwarded(facts: &Facts) -> impl Iterator<Item = &Flow> {
    facts.flows.iter().filter(|f| !f.to_host)
}

fn forwarding(facts: &Facts, walk: &mut Walk) {
    let off = forwarded(facts).find_map(|f| Some((f, f.forwarding_off.as_ref()?)));
    match off {
        Some((flow, key)) => walk.stop(
            StepName::Forwarding,
            format!("{key} is 0: packets from {} are not forwarded", flow.name),
            format!("run `sysctl -w {key}=1`"),
        ),
        None if forwarded(facts).next().is_some() => {
            let mut on: Vec<_> = forwarded(facts).map(|f| &f.arrives_on).collect();
            on.sort_unstable();
            on.dedup();
            walk.ok(StepName::Forwarding, format!("on, for what arrives on {}", listed(on)));
        }
        None => {}
    }
}

fn reverse_path(facts: &Facts, walk: &mut Walk) {
    let refused = |f: &&Flow| f.kernel == Kernel::Dropped(Drop::ReversePath);
    if let Some(flow) = facts.flows.iter().find(refused) {
        let name = &flow.arrives_on;
        return walk.stop(
            StepName::RpFilter,
            format!(
                "rp_filter drops packets from {} on {name}: replies to their source leave by another interface",
                flow.name
            ),
            format!("run `sysctl -w net.ipv4.conf.{name}.rp_filter=2` (and `all` likewise, if it is 1)"),
        );
    }
    let strict: Vec<_> = facts.flows.iter().filter(|f| f.rp_filter == 1).map(|f| &f.arrives_on).collect();
    match strict.first() {
        Some(name) => walk.ok(StepName::RpFilter, format!("strict on {name}, and these packets pass")),
        None if !facts.flows.is_empty() && facts.question.address.is_ipv4() => {
            walk.ok(StepName::RpFilter, "not strict");
        }
        None => {}
    }
}

/// Other causes that keep packets from being routed.
fn not_routed(facts: &Facts, walk: &mut Walk) {
    for flow in &facts.flows {
        match &flow.kernel {
            Kernel::Dropped(Drop::Unreachable) => walk.stop(
                StepName::KernelRoute,
                format!("packets from {} have no route once they arrive on {}", flow.name, flow.arrives_on),
                "`ip rule` and `ip route show table all` list what decides",
            ),
            Kernel::Dropped(Drop::Prohibited | Drop::Invalid) => walk.stop(
                StepName::KernelRoute,
                format!(
                    "packets from {} are dropped as they arrive on {}: a rule or route of type prohibit or \
                     blackhole, or a source address that cannot be right there",
                    flow.name, flow.arrives_on
                ),
                "`ip rule` and `ip route show table all` list what decides",
            ),
            Kernel::Used(used) if used.dead_end.is_some() => walk.stop(
                StepName::KernelRoute,
                format!(
                    "packets from {} end at the route {} of type {} ({})",
                    flow.name,
                    used.prefix,
                    used.dead_end.unwrap_or_default(),
                    used.protocol
                ),
                format!("remove it: `ip route show table {}`", used.table),
            ),
            _ => {}
        }
    }
}

fn firewall(facts: &Facts, walk: &mut Walk) {
    let drops = |wanted: bool| {
        forwarded(facts).find_map(move |f| match &f.firewall {
            Firewall::Dropped { by, certain } if *certain == wanted => Some((f, by)),
            _ => None,
        })
    };
    let remedy = |flow: &Flow| {
        // Replies that arrive for a container of this host count as packets to it.
        let to = flow.is_back != matches!(facts.place, Place::Container { .. });
        let what = if to { "to the containers" } else { "from the containers" };
        format!(
            "accept forwarded packets {what}: set accept-forwarded = true in [docker] or [kubernetes], or add a \
             rule (`iptables -S FORWARD`, `nft list ruleset`)"
        )
    };
    if let Some((flow, by)) = drops(true) {
        return walk.stop(
            StepName::Firewall,
            format!("packets from {} are dropped by {by}", flow.name),
            remedy(flow),
        );
    }
    if let Some((flow, by)) = drops(false) {
        return walk.warn(
            StepName::Firewall,
            format!(
                "packets from {} are dropped by {by} unless a rule that depends on more than addresses and \
                 interfaces accepts them",
                flow.name
            ),
            remedy(flow),
        );
    }
    if let Some(error) = &facts.filters_unread {
        return walk.note(StepName::Firewall, format!("packet filters cannot be read: {error}"));
    }
    if forwarded(facts).any(|f| f.firewall == Firewall::Accepted) {
        walk.add(StepName::Firewall, Outcome::Ok, "no rule that can be judged drops them", Vec::new(), None);
    }
}
