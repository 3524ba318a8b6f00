//! Keeps recent log events for `show events`, so that both are consistent, and writes them to the
//! state folder, so that they survive a restart.

use std::{
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use tokio::sync::{Notify, futures::Notified};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::{
    control::{Event, EventKind, Events},
    state,
};

/// File in the state folder, with one line per event.
pub(super) const FILE: &str = "events.jsonl";

/// How long events are collected before they are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// The ring buffer of the process.
static RING: OnceLock<Mutex<Events>> = OnceLock::new();

/// Notifies that there are unwritten events.
static UNWRITTEN: Notify = Notify::const_new();

/// Notifies that an event was recorded.
static RECORDED: Notify = Notify::const_new();

fn ring() -> MutexGuard<'static, Events> {
    // A running daemon records less than one event per millisecond, so the numbers of the next run
    // start above all earlier ones.
    let first = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(1);
    RING.get_or_init(|| Mutex::new(Events::starting_at(first())))
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The events with a number above `after`.
pub(super) fn after(after: u64) -> Vec<Event> {
    ring().after(after)
}

/// The newest events, at most this many, oldest first.
pub(super) fn latest(most: usize) -> Vec<Event> {
    let mut events = after(0);
    events.split_off(events.len().saturating_sub(most))
}

/// The number of the newest event.
pub(super) fn last_number() -> u64 {
    ring().last_number()
}

/// Ends when an event is recorded after this call.
pub(super) fn recorded() -> Notified<'static> {
    RECORDED.notified()
}

/// Reads the events of the previous run.
pub(super) fn restore(state_dir: &Path) {
    let path = state_dir.join(FILE);
    let Some(lines) = state::io::read(&path) else { return };
    let broken = ring().restore(&lines);
    if broken > 0 || lines.is_empty() {
        tracing::warn!(path = %path.display(), broken, "event file damaged, ignoring its broken lines");
    }
}

/// Writes events to the state folder, soon after they happen. Never ends.
pub(super) async fn keep(state_dir: &Path) {
    loop {
        UNWRITTEN.notified().await;
        tokio::time::sleep(WRITE_INTERVAL).await;
        save(state_dir);
    }
}

/// Passes all events to the thread that writes to the state folder.
pub(super) fn save(state_dir: &Path) {
    let lines = ring().to_lines();
    if !lines.is_empty() {
        state::io::keep(&state_dir.join(FILE), lines, 0o600);
    }
}

/// A layer of `tracing-subscriber` that records events of level info and above.
#[derive(Debug)]
pub struct RecordLayer;

/// The neighbor of a span, for the events inside it.
struct Subject(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecordLayer {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        attrs.record(&mut fields);
        if let (Some(span), Some(subject)) = (ctx.span(id), fields.subject) {
            span.extensions_mut().insert(Subject(subject));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, S>) {
        let meta = event.metadata();
        let Some(kind) = kind(meta.target()).filter(|_| *meta.level() <= Level::INFO) else { return };
        let mut fields = Fields { kind: Some(kind), ..Fields::default() };
        event.record(&mut fields);
        let of_span = || {
            let mut spans = ctx.event_scope(event).into_iter().flatten();
            spans.find_map(|s| s.extensions().get::<Subject>().map(|subject| subject.0.clone()))
        };
        let subject = fields.subject.or_else(of_span).unwrap_or_default();
        let text = format!("{}{}", fields.message, fields.rest);
        ring().push(jiff::Timestamp::now().to_string(), kind, subject, text);
        UNWRITTEN.notify_one();
        RECORDED.notify_waiters();
    }
}

/// The kind of an event, by the module that logged it.
fn kind(target: &str) -> Option<EventKind> {
    let path = target.strip_prefix("routelet::")?;
    if path.starts_with("daemon::problems") {
        return Some(EventKind::Problem);
    }
    Some(match path.split("::").next()? {
        "bgp" => EventKind::Session,
        "bfd" => EventKind::Bfd,
        "fib" | "route" => EventKind::Route,
        "link" => EventKind::Link,
        "cni" | "k8s" => EventKind::Node,
        _ => EventKind::Config,
    })
}

/// Fields of a log event: its subject, its message, and the rest.
#[derive(Default)]
struct Fields {
    kind: Option<EventKind>,
    subject: Option<String>,
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "peer" | "neighbor" | "prefix" | "node" => self.subject = Some(format!("{value:?}")),
            "interface" if self.kind == Some(EventKind::Link) => self.subject = Some(format!("{value:?}")),
            "subject" if self.kind == Some(EventKind::Problem) => self.subject = Some(format!("{value:?}")),
            name => self.rest.push_str(&format!(", {name} {value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_log_event_has_the_neighbor_of_its_span() {
        let log = tracing_subscriber::registry().with(RecordLayer);
        tracing::subscriber::with_default(log, || {
            let _span =
                tracing::info_span!(target: "routelet::bgp::io", "session", peer = %"192.0.2.77").entered();
            tracing::info!(target: "routelet::bgp::io", families = 2, "established");
            tracing::debug!(target: "routelet::bgp::io", "not remembered");
            tracing::info!(target: "kube", "not ours");
        });
        let mine: Vec<_> = after(0).into_iter().filter(|e| e.subject == "192.0.2.77").collect();
        assert_eq!(mine.len(), 1);
        assert_eq!((mine[0].kind, mine[0].text.as_str()), (EventKind::Session, "established, families 2"));
    }
}
