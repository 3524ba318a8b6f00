use std::fmt::Write;

use jiff::Timestamp;

use super::{Table, ago, listed, or_dash};
use crate::control::{LastError, Summary};

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
    let mut text = table.to_string();
    for problem in &summary.problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {problem}");
    }
    text
}

fn last_error(error: Option<&LastError>, now: Timestamp) -> String {
    let Some(LastError { at, neighbor, text }) = error else { return "none".into() };
    let neighbor = neighbor.as_ref().map(|n| format!("{n}: ")).unwrap_or_default();
    format!("{neighbor}{text} ({} ago)", ago(at, now))
}
