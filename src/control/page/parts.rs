//! The sections of the status page.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Kernel, MAX_EVENTS, MAX_NEIGHBORS, MAX_PROBLEMS, Routes, Status, chart, html::Html, trends::Trends,
};
use crate::{
    bgp::view::{NeighborView, SessionState},
    control::{
        Event, OwnPrefix, RouteView, Summary,
        render::{ago, as_path},
    },
    net::{Diagnostic, Family, Reason, Severity},
};

/// A link for each section, with its heading.
const SECTIONS: [(&str, &str); 7] = [
    ("problems", "Problems"),
    ("neighbors", "Neighbors"),
    ("own", "Own prefixes"),
    ("routes", "Routes"),
    ("kernel", "Kernel"),
    ("trends", "Trends"),
    ("events", "Events"),
];

pub(super) fn header(html: &mut Html, status: &Status<'_>) {
    html.element("h1", &status.summary.node);
    live(html, "live-summary", |html| {
        html.raw("<dl>");
        summary(html, status);
        html.raw("</dl>");
    });
    // Without the script there is nothing to pause.
    html.raw("\n<button id=\"pause\" type=\"button\" hidden>Pause updates</button>\n");
    html.raw("<p id=\"state\" class=\"soft\" role=\"status\">Reload the page for the present state.</p>\n");
    html.raw("<nav aria-label=\"Sections\"><ul>");
    for (id, name) in SECTIONS {
        html.raw("<li><a href=\"#").raw(id).raw("\">").raw(name).raw("</a></li>");
    }
    html.raw("</ul></nav>");
}

fn summary(html: &mut Html, status: &Status<'_>) {
    let summary = status.summary;
    let (class, state) = match (&summary.not_ready, summary.ready) {
        (_, true) => ("good", "ready".to_owned()),
        (Some(missing), false) => ("bad", format!("not ready: {missing}")),
        (None, false) => ("bad", "not ready".to_owned()),
    };
    html.element("dt", "State").classed("dd", class, state);
    let (totals, routes) = (&summary.neighbors, &summary.routes);
    let sessions =
        format!("{} of {} established, {} disabled", totals.up, totals.configured, totals.disabled);
    let paths = format!(
        "{} received, {} installed, {} of {} own ones advertised",
        routes.received, routes.installed, routes.advertised, routes.originated
    );
    for (name, value) in [
        ("Version", format!("routelet {}, up {}", summary.version, ago(&summary.started, status.now))),
        ("AS number", or_dash(summary.asn)),
        ("Router id", or_dash(summary.router_id)),
        ("Addresses", joined(&summary.addresses)),
        ("Modes", joined(&summary.modes)),
        ("Neighbors", sessions),
        ("Routes", paths),
        ("As of", format!("{:.0}", status.now)),
    ] {
        html.element("dt", name).element("dd", value);
    }
}

/// A section with its heading.
fn section(html: &mut Html, id: &'static str, content: impl FnOnce(&mut Html)) {
    let name = SECTIONS.iter().find(|(of, _)| *of == id).map_or("", |(_, name)| name);
    html.raw("<section aria-labelledby=\"").raw(id).raw("\"><h2 id=\"").raw(id).raw("\">").raw(name);
    html.raw("</h2>\n");
    content(html);
    html.raw("</section>\n");
}

/// A part that the script renews as a whole.
fn live(html: &mut Html, id: &'static str, content: impl FnOnce(&mut Html)) {
    html.raw("<div id=\"").raw(id).raw("\" data-live>");
    content(html);
    html.raw("</div>");
}

pub(super) fn problems(html: &mut Html, summary: &Summary) {
    section(html, "problems", |html| {
        live(html, "live-problems", |html| {
            if summary.diagnostics.is_empty() {
                html.classed("p", "good", "No problems.");
                return;
            }
            html.raw("<ul class=\"problems\">");
            summary.diagnostics.iter().take(MAX_PROBLEMS).for_each(|problem| one_problem(html, problem));
            html.raw("</ul>");
            left_out(html, summary.diagnostics.len(), MAX_PROBLEMS, "routelet show summary");
        });
    });
}

fn one_problem(html: &mut Html, problem: &Diagnostic) {
    let class = match problem.severity {
        Severity::Error => "bad",
        Severity::Warning => "warn",
        Severity::Info => "soft",
    };
    let name = format_args!("{}: {} ({})", problem.severity, problem.reason, problem.subject);
    html.raw("<li>").classed("strong", class, name).raw("<br>").text(&problem.text);
    if !problem.remedy.is_empty() {
        html.raw("<br>Remedy: ").text(&problem.remedy);
    }
    html.raw("</li>\n");
}

pub(super) fn neighbors(html: &mut Html, status: &Status<'_>) {
    let mut list: Vec<_> = status.neighbors.iter().collect();
    list.sort_by_key(|n| n.state == SessionState::Established);
    section(html, "neighbors", |html| {
        live(html, "live-neighbors", |html| {
            if list.is_empty() {
                html.element("p", "No neighbor is configured or found.");
                return;
            }
            chart::topology(html, &status.summary.node, &list);
            html.table("Sessions, those that are down first", &SESSIONS, |html| {
                list.iter().take(MAX_NEIGHBORS).for_each(|neighbor| one_neighbor(html, neighbor, status.now));
            });
            left_out(html, list.len(), MAX_NEIGHBORS, "routelet show neighbors");
        });
    });
}

/// The columns of [`one_neighbor`].
const SESSIONS: [&str; 9] =
    ["Neighbor", "AS", "State", "For", "Received", "Used", "Advertised", "Description", "Last error"];

fn one_neighbor(html: &mut Html, n: &NeighborView, now: Timestamp) {
    let class = match n.state {
        SessionState::Established => "good",
        SessionState::Disabled => "soft",
        _ => "bad",
    };
    let sum = |counts: &BTreeMap<Family, u64>| counts.values().sum::<u64>();
    html.row(&n.address).element("td", or_dash(n.remote_as)).classed("td", class, n.state.as_str());
    html.element("td", ago(n.history.up_down_since.as_deref().unwrap_or(&n.since), now));
    html.element("td", sum(&n.received)).element("td", sum(&n.accepted)).element("td", sum(&n.advertised));
    html.element("td", n.description.as_deref().unwrap_or_default());
    let error = n.last_error.as_deref().filter(|_| n.state != SessionState::Established);
    html.element("td", error.unwrap_or_default()).raw("</tr>\n");
}

pub(super) fn own(html: &mut Html, summary: &Summary) {
    section(html, "own", |html| {
        live(html, "live-own", |html| {
            if summary.own.is_empty() {
                html.raw("<p>No prefix to advertise; <code>routelet show interfaces</code> shows why.</p>");
                return;
            }
            let caption = "Prefixes of this node, those that are advertised to nobody first";
            html.table(caption, &["Prefix", "Source", "Advertised to"], |html| {
                summary.own.iter().for_each(|own| one_own(html, own));
            });
            let all = usize::try_from(summary.own_prefixes).unwrap_or(usize::MAX);
            left_out(html, all, summary.own.len(), "routelet show interfaces");
        });
    });
}

fn one_own(html: &mut Html, own: &OwnPrefix) {
    html.row(own.prefix).element("td", own.interface.as_ref().unwrap_or(&own.source));
    let neighbors = joined(&own.advertised_to);
    let others = own.neighbors.saturating_sub(own.advertised_to.len() as u64);
    match (&own.reason, own.advertised_to.is_empty()) {
        (Some(why), true) => html.classed("td", "warn", format_args!("nobody: {why}")),
        (None, true) => html.classed("td", "warn", "nobody"),
        _ if others > 0 => html.element("td", format_args!("{neighbors} and {others} more")),
        _ => html.element("td", neighbors),
    };
    html.raw("</tr>\n");
}

pub(super) fn routes(html: &mut Html, routes: &Routes<'_>) {
    section(html, "routes", |html| {
        html.raw("<form action=\"#routes\" method=\"get\" role=\"search\">");
        html.raw("<label for=\"q\">Prefix or address</label> ");
        html.raw("<input id=\"q\" name=\"q\" maxlength=\"64\" autocomplete=\"off\" spellcheck=\"false\"");
        html.raw(" value=\"").text(routes.search).raw("\"> <button>Search</button></form>\n");
        live(html, "live-routes", |html| {
            match (&routes.error, routes.rows.is_empty()) {
                (Some(error), _) => html.classed("p", "bad", error),
                (None, true) => html.element("p", "No path."),
                (None, false) => html.table("Paths", &PATHS, |html| {
                    routes.rows.iter().for_each(|route| one_route(html, route))
                }),
            };
            if routes.has_more {
                html.raw("<p class=\"soft\">There are more paths: search for a prefix, or use ");
                html.raw("<code>routelet show routes</code>.</p>");
            }
        });
    });
}

/// The columns of [`one_route`].
const PATHS: [&str; 7] = ["Prefix", "Next hop", "From", "AS path", "Best", "Kernel", "Reason"];

fn one_route(html: &mut Html, r: &RouteView) {
    let best = match (r.best, r.multipath) {
        (true, _) => "best",
        (false, true) => "multipath",
        _ if r.refused => "refused",
        _ => "",
    };
    html.row(r.prefix).element("td", or_dash(r.next_hop));
    html.element("td", r.neighbor.as_ref().unwrap_or(&r.source)).element("td", as_path(&r.as_path));
    html.element("td", best).element("td", if r.installed { "yes" } else { "no" });
    html.element("td", &r.reason).raw("</tr>\n");
}

pub(super) fn kernel(html: &mut Html, status: &Status<'_>) {
    let Kernel { installs, prefixes, routes, refused, repairs } = status.kernel;
    let differ = status.summary.diagnostics.iter().filter(|problem| KERNEL.contains(&problem.reason)).count();
    section(html, "kernel", |html| {
        live(html, "live-kernel", |html| {
            match (installs, differ) {
                (false, _) => html.element("p", "Routes are not installed: fib.install is false."),
                (true, 0) => {
                    html.classed("p", "good", "The kernel has and uses all routes that it should have.")
                }
                (true, _) => {
                    let text = "The kernel does not have or use all routes: see the problems above.";
                    html.classed("p", "bad", text)
                }
            };
            html.raw("<dl>").element("dt", "Prefixes in the table").element("dd", prefixes);
            html.element("dt", "Routes of routelet in the kernel").element("dd", routes);
            html.element("dt", "Operations that the kernel refused").element("dd", refused);
            html.element("dt", "Routes restored after other programs").element("dd", repairs).raw("</dl>");
        });
    });
}

/// Problems that indicate that the kernel's routes differ from the table, or may do so.
const KERNEL: [Reason; 4] =
    [Reason::RouteNotInstalled, Reason::RouteShadowed, Reason::RouteBypassed, Reason::KernelUnreadable];

pub(super) fn trends(html: &mut Html, trends: &Trends) {
    section(html, "trends", |html| {
        live(html, "live-trends", |html| {
            html.raw(
                "<p class=\"soft\">The last 20 minutes, a sample each 15 s.</p><div class=\"charts\">\n",
            );
            chart::sparkline(html, "BGP messages per second", &trends.messages);
            chart::sparkline(html, "Milliseconds from an UPDATE to the kernel", &trends.convergence);
            chart::sparkline(html, "Operations of the kernel per second", &trends.operations);
            html.raw("</div>");
        });
    });
}

/// The script adds events to this table, so the table itself is never replaced.
pub(super) fn events(html: &mut Html, events: &[Event]) {
    section(html, "events", |html| {
        let last = events.last().map_or(0, |event| event.number);
        html.raw("<div id=\"event-table\" data-after=\"").text(last).raw("\">");
        html.table("Events, the latest first", &["Time", "Kind", "Subject", "Event"], |html| {
            for event in events.iter().rev().take(MAX_EVENTS) {
                html.raw("<tr>").element("td", &event.at).element("td", event.kind.as_str());
                html.element("td", &event.subject).element("td", &event.text).raw("</tr>\n");
            }
        });
        html.raw("</div>\n");
    });
}

/// How many rows the table leaves out, and the command that lists them.
fn left_out(html: &mut Html, all: usize, shown: usize, command: &'static str) {
    if all > shown {
        html.raw("<p class=\"soft\">").text(all - shown).raw(" more: ");
        html.element("code", command).raw("</p>");
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "–".into(), |value| value.to_string())
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
