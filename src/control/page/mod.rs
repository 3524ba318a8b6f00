//! The status page of one node, as HTML that is readable without script. Pure: the state and the
//! time are arguments, and every text is escaped and bounded by [`html`].
//!
//! The page loads nothing from other servers: the style sheet, the script and the icon are
//! [`file()`]s of the daemon, and the content security policy ([`POLICY`]) allows nothing else. The
//! script adds events as they happen and renews the other sections.

mod chart;
mod host;
mod html;
mod parts;
pub mod search;
#[cfg(test)]
mod tests;
pub mod trends;

use jiff::Timestamp;

use super::{Event, NeighborView, RouteView, Summary};
pub use host::is_own_host;
use html::Html;
use trends::Trends;

/// `Content-Security-Policy` of all responses.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The response to a request whose `Host` header is not accepted by [`is_own_host`].
pub const WRONG_HOST: &str = "the status page is served to addresses and to localhost only: \
     write the address of this host instead of its name\n";

/// The type and the content of the file at this path: the parts of the page besides its HTML.
pub fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/status.css" => ("text/css; charset=utf-8", include_str!("style.css")),
        "/status.js" => ("text/javascript; charset=utf-8", include_str!("script.js")),
        "/status.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return None,
    })
}

/// Whether this path belongs to the status page.
pub fn has(path: &str) -> bool {
    matches!(path, "/" | "/events") || file(path).is_some()
}

/// Maximum number of events in the table.
pub const MAX_EVENTS: usize = 50;
/// Maximum number of paths in the table of routes.
pub const MAX_ROUTES: usize = 100;
/// Maximum number of neighbors in the table.
const MAX_NEIGHBORS: usize = 200;
/// Maximum number of problems in the list.
const MAX_PROBLEMS: usize = 100;

/// What the page shows.
#[derive(Debug)]
pub struct Status<'a> {
    pub now: Timestamp,
    pub summary: &'a Summary,
    pub neighbors: &'a [NeighborView],
    pub routes: Routes<'a>,
    pub kernel: Kernel,
    pub trends: &'a Trends,
    /// Oldest first.
    pub events: &'a [Event],
}

/// The result of the search for paths.
#[derive(Debug, Default)]
pub struct Routes<'a> {
    /// The search as entered.
    pub search: &'a str,
    /// At most [`MAX_ROUTES`].
    pub rows: &'a [RouteView],
    /// Whether there are more paths than these.
    pub has_more: bool,
    /// The error of the search.
    pub error: Option<String>,
}

/// Whether the kernel agrees with the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// Whether routes are installed at all (`fib.install`).
    pub installs: bool,
    /// Prefixes in the table.
    pub prefixes: u64,
    /// Routes of routelet in the kernel.
    pub routes: u64,
    /// Operations that the kernel refused.
    pub refused: u64,
    /// Routes restored after other programs removed or changed them.
    pub repairs: u64,
}

/// The whole page.
pub fn render(status: &Status<'_>) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    html.text(&status.summary.node).raw(" – routelet</title>\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.raw("<link rel=\"icon\" href=\"status.svg\"><link rel=\"stylesheet\" href=\"status.css\">\n");
    html.raw("<script src=\"status.js\" defer></script></head>\n");
    html.raw("<body><a class=\"skip\" href=\"#main\">Skip to content</a>\n<header>");
    parts::header(&mut html, status);
    html.raw("</header>\n<main id=\"main\" tabindex=\"-1\">\n");
    parts::problems(&mut html, status.summary);
    parts::neighbors(&mut html, status);
    parts::own(&mut html, status.summary);
    parts::routes(&mut html, &status.routes);
    parts::kernel(&mut html, status);
    parts::trends(&mut html, status.trends);
    parts::events(&mut html, status.events);
    html.raw("</main></body></html>\n");
    html.finish()
}

/// The beginning of a stream of events: milliseconds until a browser connects again after its end.
pub const STREAM_START: &str = "retry: 2000\n\n";

/// Sent when no event happens, so that a dead connection is detected.
pub const STREAM_COMMENT: &str = ":\n\n";

/// Events as a part of a stream of the type `text/event-stream`.
pub fn stream_part(events: &[Event]) -> String {
    let part = |event: &Event| {
        // JSON has no line breaks, so the event is one line of data.
        let data = serde_json::to_string(event).unwrap_or_default();
        format!("id: {}\ndata: {data}\n\n", event.number)
    };
    events.iter().map(part).collect()
}
