//! Answers as tables and as the JSON of the interface page. Pure: the time is an argument.
//!
//! Tables have a heading and columns, no borders and no colours, so that they read well and `awk` can cut them.

mod bfd;
mod neighbor;
mod node;
mod pages;
mod routes;
mod summary;
mod table;

use jiff::Timestamp;
use serde::Serialize;

use super::{Answer, Event};
pub use pages::Pages;
use table::Table;

/// The answer as JSON, with a line break at the end.
pub fn json(answer: &Answer) -> String {
    match answer {
        Answer::Summary(v) => pretty(v),
        Answer::Neighbors(v) => pretty(v),
        Answer::Neighbor(v) => pretty(v),
        Answer::Routes(_) | Answer::Fib(_) => whole(Pages::json(), answer),
        Answer::Node(v) => pretty(v),
        Answer::Config(v) => pretty(v),
        Answer::Bfd(v) => pretty(v),
        Answer::Events(v) => pretty(v),
        Answer::Done(v) => pretty(v),
        Answer::Refused(v) | Answer::Misconfigured(v) => pretty(v),
        Answer::End => String::new(),
    }
}

/// An answer of one page.
fn whole(mut pages: Pages, answer: &Answer) -> String {
    pages.page(answer) + &pages.end()
}

/// One event per line.
pub fn json_lines(events: &[Event]) -> String {
    events.iter().filter_map(|e| serde_json::to_string(e).ok()).map(|line| line + "\n").collect()
}

fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The answer for the eye, with a line break at the end.
pub fn text(answer: &Answer, now: Timestamp) -> String {
    match answer {
        Answer::Summary(summary) => summary::text(summary, now),
        Answer::Neighbors(list) => neighbor::table(list, now),
        Answer::Neighbor(one) => neighbor::detail(one, now),
        Answer::Routes(_) | Answer::Fib(_) => whole(Pages::text(), answer),
        Answer::Node(node) => node::text(node.as_deref(), now),
        Answer::Config(value) => toml::to_string_pretty(value).unwrap_or_else(|_| pretty(value)),
        Answer::Bfd(list) => bfd::table(list),
        Answer::Events(list) => events(list),
        Answer::Done(text) => text.as_ref().map(|t| format!("{t}\n")).unwrap_or_default(),
        Answer::Refused(text) | Answer::Misconfigured(text) => format!("{text}\n"),
        Answer::End => String::new(),
    }
}

fn events(list: &[Event]) -> String {
    // No heading: `--follow` prints them piece by piece.
    let mut table = Table::plain();
    for Event { at, kind, subject, text, .. } in list {
        table.row([&*to_the_second(at), kind.as_str(), subject.as_str(), text.as_str()]);
    }
    table.to_string()
}

/// Without fractions; as it is written where it is no time.
fn to_the_second(at: &str) -> String {
    let parsed = at.parse::<Timestamp>().and_then(|t| Timestamp::from_second(t.as_second()));
    parsed.map_or_else(|_| at.to_owned(), |t| t.to_string())
}

/// How long ago a moment was; as it is written where it is no time.
fn ago(since: &str, now: Timestamp) -> String {
    match since.parse::<Timestamp>() {
        Ok(since) => span(u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0)),
        Err(_) => since.to_owned(),
    }
}

/// Seconds in the two largest units that they have.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Words with commas, or a dash.
fn listed<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let text = words.into_iter().map(|w| w.to_string()).collect::<Vec<_>>().join(", ");
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
mod tests;
