//! The recent events of a daemon, for `show events`.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::net::text::cut;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Numbers grow, also over a restart of the daemon unless the clock is set back.
    pub number: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub kind: EventKind,
    /// The neighbor, prefix or node that the event is about.
    pub subject: String,
    /// Description of the event.
    pub text: String,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Session,
    Route,
    Node,
    Config,
    Bfd,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Route => "route",
            Self::Node => "node",
            Self::Config => "config",
            Self::Bfd => "bfd",
        }
    }
}

/// The recent events, stored by kind so that a flapping session does not displace events about
/// routes.
#[derive(Clone, Debug)]
pub struct Events {
    rings: [Ring; 5],
    next: u64,
}

/// Oldest first.
#[derive(Clone, Debug, Default)]
struct Ring {
    kept: VecDeque<Event>,
    /// Total size of the texts, in octets.
    octets: usize,
}

/// Limit of events of each kind.
pub const MAX_EVENTS: usize = 500;

/// Limit of events of one subject beyond which they are dropped first: a neighbor whose session
/// flaps displaces its own events, not those of others.
const MAX_OF_SUBJECT: usize = 100;

/// Limit of text of each kind, in octets.
pub const MAX_OCTETS: usize = 128 * 1024;

/// Limit of one event's text, and of its subject, in octets.
const MAX_TEXT: usize = 1024;

impl Default for Events {
    fn default() -> Self {
        Self { rings: Default::default(), next: 1 }
    }
}

impl Events {
    /// The first event gets this number.
    pub fn starting_at(number: u64) -> Self {
        Self { next: number.max(1), ..Self::default() }
    }

    /// Adds an event and drops the oldest of its kind beyond the limits. `at` is RFC 3339.
    pub fn push(&mut self, at: String, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        let (mut subject, mut text) = (subject.into(), text.into());
        cut(&mut subject, MAX_TEXT);
        cut(&mut text, MAX_TEXT);
        self.rings[kind as usize].push(Event { number: self.next, at, kind, subject, text });
        self.next += 1;
    }

    /// The events with a number above `after`, oldest first.
    pub fn after(&self, after: u64) -> Vec<Event> {
        let all = self.rings.iter().flat_map(|r| &r.kept);
        let mut events: Vec<_> = all.filter(|e| e.number > after).cloned().collect();
        events.sort_unstable_by_key(|e| e.number);
        events
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        self.octets += event.octets();
        self.kept.push_back(event);
        while self.kept.len() > MAX_EVENTS || self.octets > MAX_OCTETS {
            let Some(oldest) = self.kept.remove(self.victim()) else { return };
            self.octets -= oldest.octets();
        }
        // Releases the memory that a burst of long texts required.
        self.kept.shrink_to(2 * self.kept.len());
    }

    /// The event that makes room: the oldest of the subject with the most events, where it has more
    /// than its share.
    fn victim(&self) -> usize {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for event in &self.kept {
            *counts.entry(&event.subject).or_default() += 1;
        }
        let loudest = counts.into_iter().max_by_key(|(_, count)| *count);
        let subject = loudest.filter(|(_, count)| *count > MAX_OF_SUBJECT).map(|(subject, _)| subject);
        self.kept.iter().position(|e| subject.is_none_or(|s| s == e.subject)).unwrap_or(0)
    }
}

impl Event {
    fn octets(&self) -> usize {
        self.subject.len() + self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(events: &mut Events, kind: EventKind, text: impl Into<String>) {
        events.push("2026-11-21T11:00:00Z".into(), kind, "10.0.0.1", text);
    }

    #[test]
    fn the_oldest_events_make_room_and_numbers_go_on() {
        let mut events = Events::default();
        for n in 0..MAX_EVENTS + 5 {
            push(&mut events, EventKind::Session, format!("{n}"));
        }
        let all = events.after(0);
        assert_eq!((all.len(), all[0].number, all[0].text.as_str()), (MAX_EVENTS, 6, "5"));
        assert_eq!(events.after(MAX_EVENTS as u64 + 3).len(), 2);
    }

    #[test]
    fn a_flapping_session_does_not_push_out_other_kinds() {
        let mut events = Events::default();
        push(&mut events, EventKind::Route, "first");
        (0..10_000).for_each(|n| push(&mut events, EventKind::Session, format!("flap {n}")));
        push(&mut events, EventKind::Config, "last");
        let all = events.after(0);
        assert_eq!((all[0].text.as_str(), all[all.len() - 1].text.as_str()), ("first", "last"));
        assert!(all.is_sorted_by_key(|e| e.number));
    }

    #[test]
    fn a_flapping_session_does_not_push_out_events_of_other_neighbors() {
        let mut events = Events::default();
        let mut push =
            |subject: String| events.push("2026-11-21T11:00:00Z".into(), EventKind::Session, subject, "up");
        (0..300).for_each(|n| push(format!("10.1.0.{n}")));
        (0..10_000).for_each(|_| push("10.0.0.1".into()));
        (300..400).for_each(|n| push(format!("10.1.0.{n}")));
        let all = events.after(0);
        let of_others = all.iter().filter(|e| e.subject != "10.0.0.1").count();
        assert_eq!((all.len(), of_others), (MAX_EVENTS, 400));
    }

    #[test]
    fn long_texts_are_bounded_in_octets() {
        let mut events = Events::default();
        for kind in [EventKind::Session, EventKind::Route, EventKind::Node, EventKind::Config] {
            (0..2_000).for_each(|n| push(&mut events, kind, format!("{n}{}", "x".repeat(250_000))));
        }
        let all = events.after(0);
        let octets: usize = all.iter().map(Event::octets).sum();
        assert!(octets <= 4 * MAX_OCTETS && octets > 3 * MAX_OCTETS, "{octets}");
        assert!(all.iter().all(|e| e.text.len() <= MAX_TEXT + '…'.len_utf8()));
    }
}
