use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;

use super::{
    ago,
    layout::Layout,
    listed, neighbor, or_dash,
    table::{Pairs, Table},
};
use crate::{
    control::{OwnPrefix, Summary},
    fib::sysctl::Change,
    sandbox::SandboxView,
};

pub(super) fn text(summary: &Summary, now: Timestamp, layout: Layout) -> String {
    let mut text = identity(summary, now, layout);
    if let Some(missing) = &summary.not_ready {
        text += &layout.mark(&format!("not ready: {missing}"));
    }
    text += &sessions(summary, now, layout);
    text += &layout.wrap(&learned(summary), "learned    ", "           ");
    text += &own(summary, layout);
    text += &rest(summary, layout).to_string();
    for problem in &summary.problems {
        text += &layout.mark(problem);
    }
    text
}

fn identity(summary: &Summary, now: Timestamp, layout: Layout) -> String {
    let ready = if summary.ready { "READY" } else { "NOT READY" };
    let up = ago(&summary.started, now);
    let (asn, id) = (or_dash(summary.asn), or_dash(summary.router_id));
    let line =
        format!("{}  routelet {}  up {up}  {ready}  AS {asn}  router-id {id}", summary.node, summary.version);
    layout.wrap(&line, "", "  ")
}

/// The sessions in the summary, and the number of the others.
fn sessions(summary: &Summary, now: Timestamp, layout: Layout) -> String {
    let totals = &summary.neighbors;
    if totals.configured == 0 {
        return "no neighbors\n".into();
    }
    let mut text = match summary.sessions.as_slice() {
        // The daemon is of an earlier version, which does not send them.
        [] => String::new(),
        list => neighbor::table(list, now, layout),
    };
    let others = totals.configured.saturating_sub(summary.sessions.len() as u64);
    if others > 0 {
        let disabled =
            if totals.disabled > 0 { format!(", {} disabled", totals.disabled) } else { String::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} neighbors in all, {} up{disabled}: routelet show neighbors",
            totals.configured, totals.up
        );
    }
    text
}

/// `6 received: 4 in the kernel, 2 refused (AS loop 1, guard 1)`.
fn learned(summary: &Summary) -> String {
    let refused: u64 = summary.refused.values().sum();
    let mut text =
        format!("{} received: {} in the kernel", summary.routes.received, summary.routes.installed);
    if refused > 0 {
        let reasons = listed(summary.refused.iter().map(|(reason, count)| format!("{reason} {count}")));
        text += &format!(", {refused} refused ({reasons}): show routes --refused");
    }
    text
}

/// A line for each own prefix, and the number of the others.
fn own(summary: &Summary, layout: Layout) -> String {
    if summary.own.is_empty() {
        return layout.wrap("no prefix to advertise: routelet show interfaces", "own        ", "           ");
    }
    let mut table = Table::new(Layout { headings: false, ..layout }, [""; 4]);
    for (n, one) in summary.own.iter().enumerate() {
        let first = if n == 0 { "own      " } else { "" };
        let name = one.interface.as_ref().unwrap_or(&one.source);
        table.row([first.to_owned(), name.clone(), one.prefix.to_string(), advertised(one)]);
    }
    let others = summary.own_prefixes.saturating_sub(summary.own.len() as u64);
    if others > 0 {
        table.row([String::new(), format!("and {others} more"), String::new(), String::new()]);
    }
    table.to_string()
}

fn advertised(own: &OwnPrefix) -> String {
    let others = own.neighbors.saturating_sub(own.advertised_to.len() as u64);
    match (own.advertised_to.as_slice(), &own.reason) {
        ([], Some(why)) => format!("not advertised: {why}"),
        ([], None) => "not advertised".into(),
        (neighbors, _) if others > 0 => format!("to {} and {others} more", listed(neighbors)),
        (neighbors, _) => format!("to {}", listed(neighbors)),
    }
}

fn rest(summary: &Summary, layout: Layout) -> Pairs {
    let mut pairs = Pairs::new(layout);
    pairs.add("modes", listed(&summary.modes));
    pairs.add("addresses", listed(&summary.addresses));
    for (change, keys) in changed(&summary.sysctls) {
        pairs.add("sysctl", format!("{change}: {}", keys.join(", ")));
    }
    if let Some(view) = &summary.sandbox {
        pairs.add("sandbox", sandbox(view));
    }
    pairs
}

fn sandbox(view: &SandboxView) -> String {
    if !view.enabled {
        return format!("off (security.sandbox), user {}", view.user);
    }
    let layers =
        [("no_new_privs", view.no_new_privileges), ("seccomp", view.seccomp), ("landlock", view.landlock)];
    let layers = layers.into_iter().filter_map(|(name, is_on)| is_on.then_some(name.to_owned()));
    let what: Vec<_> = view.capabilities.iter().cloned().chain(layers).collect();
    let missing: String = view.missing.iter().map(|why| format!("; without {why}")).collect();
    format!("user {}, {}{missing}", view.user, what.join(", "))
}

/// Settings that were changed in the same way share a line; the JSON lists them individually.
fn changed(changes: &[Change]) -> BTreeMap<String, Vec<String>> {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Change { key, old, new } in changes {
        let of_one = key.strip_suffix(".accept_ra").and_then(|k| k.rsplit_once('.'));
        let (what, name) = match of_one {
            Some((_, interface)) => ("accept_ra set from", interface),
            None => ("set from", key.as_str()),
        };
        lines.entry(format!("{what} {old} to {new}")).or_default().push(name.to_owned());
    }
    lines
}
