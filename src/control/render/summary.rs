use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;

use super::{Table, ago, listed, or_dash};
use crate::{
    control::{LastError, Summary},
    fib::sysctl::Change,
    sandbox::SandboxView,
};

pub(super) fn text(summary: &Summary, now: Timestamp) -> String {
    let Summary { neighbors, routes, .. } = summary;
    let mut table = Table::plain();
    let ready = if summary.ready { "ready" } else { "not ready" };
    let up = ago(&summary.started, now);
    table.pair("node", format!("{}, routelet {}, up {up}, {ready}", summary.node, summary.version));
    let (asn, id) = (or_dash(summary.asn), or_dash(summary.router_id));
    table.pair("as", format!("{asn}, router id {id}, addresses {}", listed(&summary.addresses)));
    table.pair("modes", listed(&summary.modes));
    let disabled = match neighbors.disabled {
        0 => String::new(),
        n => format!(", {n} disabled"),
    };
    table.pair("neighbors", format!("{} up of {} configured{disabled}", neighbors.up, neighbors.configured));
    table.pair(
        "routes",
        format!(
            "{} received, {} installed, {} of {} own advertised",
            routes.received, routes.installed, routes.advertised, routes.originated
        ),
    );
    table.pair("last error", last_error(summary.last_error.as_ref(), now));
    for (change, keys) in changed(&summary.sysctls) {
        table.pair("sysctl", format!("{change}: {}", keys.join(", ")));
    }
    if let Some(view) = &summary.sandbox {
        table.pair("sandbox", sandbox(view));
    }
    let mut text = table.to_string();
    if let Some(missing) = &summary.not_ready {
        let _ = writeln!(text, "! not ready: {missing}");
    }
    for problem in &summary.problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {problem}");
    }
    text
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

fn last_error(error: Option<&LastError>, now: Timestamp) -> String {
    let Some(LastError { at, neighbor, text }) = error else { return "none".into() };
    let neighbor = neighbor.as_ref().map(|n| format!("{n}: ")).unwrap_or_default();
    format!("{neighbor}{text} ({} ago)", ago(at, now))
}
