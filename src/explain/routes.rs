//! Packets to other hosts: the table of BGP, from the longest match to the route in the kernel.

use super::{Facts, Kernel, Outcome, StepName, Used, Walk, listed};
use crate::{
    bgp::{
        rib::view::{PathExplained, PathState, PolicyResult},
        view::SessionState,
    },
    fib::{lookup::Drop, view::FibView},
    net::{Prefix, Unresolved},
};

pub(super) fn steps(facts: &Facts, walk: &mut Walk) {
    if facts.rib.paths.is_empty() {
        return without_paths(facts, walk);
    }
    rib(facts, walk);
    verdicts(facts, walk);
    if let Some(path) = decisive(facts) {
        unusable(facts, path, walk);
    } else if let Some(path) = more_specific(facts) {
        walk.note(name(path.state), format!("not used: {}", line(path)));
    }
    if let Some(prefix) = selected(facts) {
        installed(facts, prefix, walk);
    } else if facts.used().is_none() {
        without_paths(facts, walk);
    }
}

/// The longest prefix with a selected path.
fn selected(facts: &Facts) -> Option<Prefix> {
    let selected = facts.rib.paths.iter().find(|p| p.state == PathState::Selected);
    selected.map(|p| p.route.prefix)
}

/// Names of the neighbors of the selected paths.
pub(super) fn senders(facts: &Facts) -> Vec<&str> {
    let prefix = selected(facts);
    let paths =
        facts.rib.paths.iter().filter(|p| p.state == PathState::Selected && Some(p.route.prefix) == prefix);
    paths.filter_map(|p| p.route.neighbor.as_deref()).collect()
}

/// No neighbor has advertised a route. This only stops the packets if the kernel has no other.
fn without_paths(facts: &Facts, walk: &mut Walk) {
    let address = facts.question.address;
    if facts.kernel != Kernel::Dropped(Drop::Unreachable) {
        return walk.note(StepName::Rib, "no BGP route contains it: other routes decide");
    }
    let down: Vec<_> = facts.neighbors.iter().filter(|n| n.state != SessionState::Established).collect();
    let dead = down.iter().find_map(|n| Some((n, n.link.as_ref().filter(|l| !l.up || !l.carrier)?)));
    if let Some((neighbor, link)) = dead {
        let (what, remedy) = super::kernel::dead(link);
        return walk.stop(
            StepName::Interface,
            format!("no route: {what}, by which neighbor {} is reached", neighbor.name),
            remedy,
        );
    }
    if let Some(neighbor) = down.first() {
        let why = neighbor.last_error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
        return walk.stop(
            StepName::Rib,
            format!(
                "no route to {address}: neighbor {} has no session ({}{why})",
                neighbor.name,
                neighbor.state.as_str()
            ),
            format!("`routelet show neighbor {}` shows why", neighbor.name),
        );
    }
    walk.stop(
        StepName::Rib,
        format!("no route to {address}: no neighbor advertises one, and the kernel has none"),
        "let the router that leads there advertise it to this host, or add a default route",
    );
}

/// All paths to the longest prefix with a selected path, and to longer ones.
fn rib(facts: &Facts, walk: &mut Walk) {
    let best = selected(facts);
    let shown = |p: &&PathExplained| best.is_none_or(|b| p.route.prefix.len() >= b.len());
    let paths: Vec<_> = facts.rib.paths.iter().filter(shown).collect();
    let details = paths.iter().map(|p| line(p)).collect();
    let text = match best {
        Some(prefix) => {
            let n = paths.iter().filter(|p| p.route.prefix == prefix).count();
            format!("longest match {prefix}, {n} path{}", if n == 1 { "" } else { "s" })
        }
        None => "no path can be used".into(),
    };
    let result = if best.is_some() { Outcome::Ok } else { Outcome::Note };
    walk.add(StepName::Rib, result, text, details, None);
}

/// `10.9.0.0/24 from 10.1.1.1, next hop 10.1.1.1, AS path 10000 10009: best: only path`.
fn line(path: &PathExplained) -> String {
    let route = &path.route;
    let from = route.neighbor.as_deref().unwrap_or("this node");
    let hop = route.next_hop.map(|a| format!(", next hop {a}")).unwrap_or_default();
    let numbers = route.as_path.as_array().map(Vec::as_slice).unwrap_or_default();
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    let path = if numbers.is_empty() { String::new() } else { format!(", AS path {}", numbers.join(" ")) };
    format!("{} from {from}{hop}{path}: {}", route.prefix, route.reason)
}

/// The policies and the guard that accepted the selected path.
fn verdicts(facts: &Facts, walk: &mut Walk) {
    let Some(path) = facts.rib.paths.iter().find(|p| p.state == PathState::Selected) else { return };
    let Some(neighbor) = &path.route.neighbor else { return };
    let text = match &path.policies[..] {
        [] => format!("no import policy of {neighbor} decides on it"),
        all => format!("accepted by {}", listed(all.iter().map(policy))),
    };
    walk.ok(StepName::Policy, text);
    walk.ok(StepName::Guard, format!("the route guard accepts {}", path.route.prefix));
}

fn policy(result: &PolicyResult) -> String {
    match result.statement {
        Some(n) => format!("import policy {}, statement {n}", result.policy),
        None => format!("import policy {}, where no statement matches", result.policy),
    }
}

/// The first path that is not used, to a longer prefix than that of the selected path.
fn more_specific(facts: &Facts) -> Option<&PathExplained> {
    let best = selected(facts);
    facts
        .rib
        .paths
        .iter()
        .take_while(|p| best.is_none_or(|b| p.route.prefix.len() > b.len()))
        .find(|p| !matches!(p.state, PathState::Selected | PathState::NotSelected))
}

/// The same path, if the address is unreachable because of it: the kernel has no route, or only a
/// default route with another next hop. It is no problem if the guard protects the route to this
/// very address.
fn decisive(facts: &Facts) -> Option<&PathExplained> {
    let path = more_specific(facts)?;
    let leads_there =
        |used: &Used| used.is_local || path.route.next_hop.is_some_and(|hop| used.leads_over(hop));
    let is_lost = match facts.used() {
        None => true,
        Some(used) => {
            used.prefix.len() == 0
                && path.route.prefix.len() > 0
                && !leads_there(used)
                && facts.protected.is_none()
        }
    };
    is_lost.then_some(path)
}

fn name(state: PathState) -> StepName {
    match state {
        PathState::Guard => StepName::Guard,
        PathState::Policy => StepName::Policy,
        PathState::Refused => StepName::Import,
        PathState::Unresolved(_) | PathState::Held => StepName::NextHop,
        PathState::Selected | PathState::NotSelected => StepName::Rib,
    }
}

/// The step that refuses a path on which the address depends.
fn unusable(facts: &Facts, path: &PathExplained, walk: &mut Walk) {
    let route = &path.route;
    let neighbor = route.neighbor.as_deref().unwrap_or_default();
    let instead = match facts.used() {
        Some(used) => format!("; packets follow the default route {} instead", used.text()),
        None => String::new(),
    };
    let hop = route.next_hop.map(|a| a.to_string()).unwrap_or_default();
    let text = match path.state {
        PathState::Unresolved(_) => {
            format!("{} from {neighbor} is not used: {} ({hop}){instead}", route.prefix, route.reason)
        }
        _ => format!("{} from {neighbor} is refused: {}{instead}", route.prefix, route.reason),
    };
    walk.stop(name(path.state), text, remedy(path, neighbor));
}

fn remedy(path: &PathExplained, neighbor: &str) -> String {
    let hop = path.route.next_hop.map(|a| a.to_string()).unwrap_or_default();
    match path.state {
        PathState::Guard if path.route.prefix.len() == 0 => {
            format!("set accept-default = true on neighbor {neighbor}, if its default route is to be used")
        }
        PathState::Guard => "let the neighbor advertise prefixes that leave out what the guard protects; \
                             docs/security.md lists that"
            .into(),
        PathState::Policy => {
            let rejecting = path.policies.iter().find(|p| !p.accepted);
            match rejecting.and_then(|p| Some((p.statement?, &p.policy))) {
                Some((n, policy)) => {
                    format!("change statement {n} of [[policy.{policy}]], or `import` of neighbor {neighbor}")
                }
                None => format!("change `import` of neighbor {neighbor}"),
            }
        }
        PathState::Refused => format!(
            "`routelet show routes --received {neighbor}` shows the path; allow-own-as, as-sets, role and \
             bgp.require-policy decide what is taken"
        ),
        PathState::Unresolved(Unresolved::OnlyDefault) => format!(
            "add a route or a subnet to {hop}, let {neighbor} set its own address as the next hop, or set \
             fib.resolve-via-default = true"
        ),
        PathState::Unresolved(Unresolved::LinkDown) => {
            format!("bring up the interface to {hop}; `routelet show host` lists them")
        }
        PathState::Unresolved(_) => format!(
            "add a route or a subnet to {hop}, or let {neighbor} set its own address as the next hop \
             (next-hop-self)"
        ),
        PathState::Held => format!("wait for a message from {neighbor}, or look at the link to {hop}"),
        PathState::Selected | PathState::NotSelected => String::new(),
    }
}

/// From the selected path to the route that the kernel uses.
fn installed(facts: &Facts, prefix: Prefix, walk: &mut Walk) {
    let Some(fib) = &facts.fib else {
        if !facts.installs {
            let text = format!("{prefix} is selected and not written to the kernel: fib.install is false");
            return not_written(facts, text, "set fib.install = true, or let another program write it", walk);
        }
        let text = format!("{prefix} is selected and not written to the kernel");
        return not_written(facts, text, "`routelet show fib` lists what is written; see the log", walk);
    };
    let hops = fib
        .next_hops
        .iter()
        .map(|h| format!("{} on {}", h.address.map(|a| a.to_string()).unwrap_or_default(), h.interface));
    let hops = listed(hops);
    if !hops.is_empty() {
        walk.ok(StepName::NextHop, format!("resolved: {hops}"));
    }
    if !fib.in_kernel {
        let why = fib.problem.as_deref().unwrap_or("being written");
        let text = format!("{prefix} is selected and not in the kernel: {why}");
        return not_written(facts, text, "`routelet show fib` lists it; see the log of the daemon", walk);
    }
    walk.ok(StepName::Installed, format!("in the kernel: table {}, metric {}", fib.table, fib.metric));
    if let Some(used) = facts.used().filter(|used| !is_ours(used, fib)) {
        other_route(facts, fib, used, walk);
    }
}

/// Whether the route in the kernel is the one that routelet wrote.
fn is_ours(used: &Used, fib: &FibView) -> bool {
    used.is_ours && used.table == fib.table && used.prefix == fib.prefix
}

/// Stops the packets unless another route leads to the same next hop.
fn not_written(facts: &Facts, text: String, remedy: &str, walk: &mut Walk) {
    let mut hops = facts.rib.paths.iter().filter(|p| p.state == PathState::Selected);
    let mut leads_there = |used: &Used| hops.any(|p| p.route.next_hop.is_some_and(|h| used.leads_over(h)));
    match facts.used() {
        Some(used) if leads_there(used) => {
            walk.warn(
                StepName::Installed,
                format!("{text}; {} leads to the same next hop", used.text()),
                remedy,
            );
        }
        _ => walk.stop(StepName::Installed, text, remedy),
    }
}

/// The kernel uses a route of another program, or another table.
fn other_route(facts: &Facts, fib: &FibView, used: &Used, walk: &mut Walk) {
    let gateways: Vec<_> = fib.next_hops.iter().filter_map(|h| h.address).collect();
    let is_same_way = gateways.iter().any(|g| used.leads_over(*g));
    let who = format!("{} of {}, metric {}, table {}", used.text(), used.protocol, used.metric, used.table);
    let is_longer = used.prefix.len() > fib.prefix.len() && used.table == fib.table;
    if used.dead_end.is_some() {
        // Reported by the step about the kernel's route.
        return;
    }
    if is_same_way || is_longer || used.is_local {
        let text = match is_longer {
            true => format!("a longer prefix is used: {who}"),
            false => format!("another route to the same next hop is used: {who}"),
        };
        return walk.note(StepName::KernelRoute, text);
    }
    let (text, remedy) = match facts.rule.filter(|_| used.table != fib.table) {
        Some(rule) => {
            let selects = if rule.selects { ", for some packets," } else { "" };
            let ip = match facts.family() {
                crate::net::Family::Ipv4Unicast => "ip",
                crate::net::Family::Ipv6Unicast => "ip -6",
            };
            (
                format!(
                    "the rule with priority {}{selects} looks up table {} before table {}, and {who} is used",
                    rule.priority, rule.table, fib.table
                ),
                format!(
                    "remove that rule or the route (`{ip} rule` and `{ip} route show table {}` list them), or run \
                     `{ip} rule add to {} table {} priority {}`",
                    used.table,
                    fib.prefix,
                    fib.table,
                    rule.priority.saturating_sub(1)
                ),
            )
        }
        None => (
            format!("the route in the kernel is not used: {who} is preferred"),
            match used.metric {
                0 | 1 => "remove that route".into(),
                metric => format!("remove that route, or set fib.metric below {metric}"),
            },
        ),
    };
    walk.stop(StepName::KernelRoute, text, remedy);
}
