//! Renders responses as tables and as the JSON of docs/reference.md. Pure: the time is an argument.
//!
//! Tables have a heading and columns, but no borders and no colours, so that `awk` can split them.

mod bfd;
mod changes;
pub mod cluster;
mod explain;
mod host;
mod layout;
mod neighbor;
mod node;
mod pages;
pub mod pair;
mod path;
mod policy;
mod problems;
mod routes;
mod summary;
mod table;
mod yaml;

use jiff::Timestamp;
use serde::Serialize;

use super::{Event, Response};
use crate::net::Diagnostic;
pub use layout::Layout;
pub use pages::Pages;
pub(super) use routes::as_path;
use table::Table;

/// The response as JSON, followed by a line break.
pub fn json(response: &Response) -> String {
    match response {
        Response::Summary(v) => pretty(v),
        Response::Neighbors(v) => pretty(v),
        Response::Neighbor(v) => pretty(v),
        Response::Routes(_) | Response::Fib(_) => whole(Pages::json(), response),
        Response::Node(v) => pretty(v),
        Response::Host(v) => pretty(v),
        Response::Interfaces(v) => pretty(v),
        Response::Config(v) => pretty(&v.effective),
        Response::Bfd(v) => pretty(v),
        Response::Policies(v) => pretty(v),
        Response::Explanation(v) => pretty(v),
        Response::Events(v) => pretty(v),
        Response::Changes(v) => pretty(v),
        Response::Done(v) => pretty(v),
        Response::Refused(v) | Response::Misconfigured(v) => pretty(v),
        Response::End => String::new(),
    }
}

/// The same as YAML.
pub fn yaml(response: &Response) -> String {
    match response {
        Response::Routes(_) | Response::Fib(_) => whole(Pages::yaml(), response),
        other => serde_json::from_str(&json(other)).map(|value| yaml::document(&value)).unwrap_or_default(),
    }
}

/// The output of `doctor`.
pub fn problems(list: &[Diagnostic], layout: Layout) -> String {
    problems::text(list, layout)
}

pub fn problems_json(list: &[Diagnostic]) -> String {
    pretty(&list)
}

/// A response that consists of one page.
fn whole(mut pages: Pages, response: &Response) -> String {
    pages.page(response) + &pages.end()
}

/// One event per line.
pub fn json_lines(events: &[Event]) -> String {
    events.iter().filter_map(|e| serde_json::to_string(e).ok()).map(|line| line + "\n").collect()
}

fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The response as text, followed by a line break.
pub fn text(response: &Response, now: Timestamp, layout: Layout) -> String {
    match response {
        Response::Summary(summary) => summary::text(summary, now, layout),
        Response::Neighbors(list) => neighbor::table(list, now, layout),
        Response::Neighbor(one) => neighbor::detail(one, now, layout),
        Response::Routes(_) | Response::Fib(_) => whole(Pages::text(layout), response),
        Response::Node(node) => node::text(node.as_deref(), now, layout),
        Response::Host(host) => host::text(host, layout),
        Response::Interfaces(list) => host::interfaces(list, layout),
        Response::Config(config) => config.file.clone(),
        Response::Bfd(list) => bfd::table(list, layout),
        Response::Policies(list) => policy::text(list, layout),
        Response::Explanation(one) => explain::text(one, layout),
        Response::Events(list) => events(list, layout),
        Response::Changes(changes) => changes::text(changes, layout),
        Response::Done(text) => text.as_ref().map(|t| format!("{t}\n")).unwrap_or_default(),
        Response::Refused(text) | Response::Misconfigured(text) => format!("{text}\n"),
        Response::End => String::new(),
    }
}

fn events(list: &[Event], layout: Layout) -> String {
    // Without a heading, as `--follow` prints the table in parts.
    let mut table = Table::new(Layout { headings: false, ..layout }, [""; 4]);
    for Event { at, kind, subject, text, .. } in list {
        table.row([to_the_second(at), kind.as_str().to_owned(), subject.clone(), text.clone()]);
    }
    table.to_string()
}

/// A time without fractions of a second; any other text unchanged.
fn to_the_second(at: &str) -> String {
    let parsed = at.parse::<Timestamp>().and_then(|t| Timestamp::from_second(t.as_second()));
    parsed.map_or_else(|_| at.to_owned(), |t| t.to_string())
}

/// The time elapsed since a moment; any other text unchanged.
pub(super) fn ago(since: &str, now: Timestamp) -> String {
    match since.parse::<Timestamp>() {
        Ok(since) => span(u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0)),
        Err(_) => since.to_owned(),
    }
}

/// A duration in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Values separated by commas, or a dash if there are none.
fn listed<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let text = values.into_iter().map(|w| w.to_string()).collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".into() } else { text }
}

/// A value, or a dash.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[cfg(test)]
mod narrow;
#[cfg(test)]
mod tests;
