//! Remembers what was logged lately, for `show events`: the log and the events tell one story.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, OnceLock},
};

use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::control::{Event, EventKind, Events};

/// The one ring of the process, as the log is one.
static RING: OnceLock<Mutex<Events>> = OnceLock::new();

fn ring() -> MutexGuard<'static, Events> {
    RING.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Those with a number above `after`.
pub(super) fn after(after: u64) -> Vec<Event> {
    ring().after(after)
}

/// Takes part in the log (`tracing-subscriber`): events of level info and above are remembered.
#[derive(Debug)]
pub struct Remember;

/// A span's neighbor, kept for the events inside it.
struct Subject(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Remember {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut words = Words::default();
        attrs.record(&mut words);
        if let (Some(span), Some(subject)) = (ctx.span(id), words.subject) {
            span.extensions_mut().insert(Subject(subject));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, S>) {
        let meta = event.metadata();
        let Some(kind) = kind(meta.target()).filter(|_| *meta.level() <= Level::INFO) else { return };
        let mut words = Words::default();
        event.record(&mut words);
        let of_span = || {
            let mut spans = ctx.event_scope(event).into_iter().flatten();
            spans.find_map(|s| s.extensions().get::<Subject>().map(|subject| subject.0.clone()))
        };
        let subject = words.subject.or_else(of_span).unwrap_or_default();
        let text = format!("{}{}", words.message, words.rest);
        ring().push(jiff::Timestamp::now().to_string(), kind, subject, text);
    }
}

/// By the area that speaks.
fn kind(target: &str) -> Option<EventKind> {
    let area = target.strip_prefix("routelet::")?.split("::").next()?;
    Some(match area {
        "bgp" => EventKind::Session,
        "bfd" => EventKind::Bfd,
        "fib" => EventKind::Route,
        "cni" | "k8s" => EventKind::Node,
        _ => EventKind::Config,
    })
}

/// Fields of a log line: what it is about, what it says, and the rest.
#[derive(Default)]
struct Words {
    subject: Option<String>,
    message: String,
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "peer" | "neighbor" | "prefix" | "node" => self.subject = Some(format!("{value:?}")),
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
    fn a_line_of_the_log_is_an_event_with_the_neighbor_of_its_span() {
        let log = tracing_subscriber::registry().with(Remember);
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
