//! The recent events of a daemon, for `show events`.

use std::collections::{HashMap, VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::text::cut;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Event {
    /// Numbers grow, also over a restart of the daemon unless the clock is set back.
    pub number: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// What happened.
    pub kind: EventKind,
    /// The neighbor, prefix or node that the event is about.
    pub subject: String,
    /// Description of the event.
    pub text: String,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Session,
    Route,
    Node,
    Config,
    Bfd,
    Link,
    Problem,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Route => "route",
            Self::Node => "node",
            Self::Config => "config",
            Self::Bfd => "bfd",
            Self::Link => "link",
            Self::Problem => "problem",
        }
    }
}

/// The recent events, stored by kind so that a flapping session does not displace events about
/// routes.
#[derive(Clone, Debug)]
pub struct Events {
    rings: [Ring; KINDS],
    next: u64,
}

/// How many kinds there are.
const KINDS: usize = EventKind::Problem as usize + 1;

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

/// Limit of the texts of each kind, in octets.
pub const MAX_OCTETS: usize = 128 * 1024;

/// Limit of the events that are kept over a restart, in octets.
pub const MAX_KEPT: usize = 256 * 1024;

/// Limit of one event's text, and of its subject, in octets.
const MAX_TEXT: usize = 1024;

impl Default for Events {
    fn default() -> Self {
        Self { rings: Default::default(), next: 1 }
    }
}

impl Events {
    /// Numbers events from this one on.
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

    /// The newest events as lines of JSON within [`MAX_KEPT`], oldest first: see
    /// [`Events::restore`].
    pub fn to_lines(&self) -> Vec<u8> {
        let mut room = MAX_KEPT;
        let lines = self.after(0).into_iter().rev().filter_map(|e| serde_json::to_string(&e).ok());
        let mut kept: Vec<String> = lines
            .map_while(|line| {
                room = room.checked_sub(line.len() + 1)?;
                Some(line + "\n")
            })
            .collect();
        kept.reverse();
        kept.concat().into_bytes()
    }

    /// Puts the events of a former run before those of this one, whose numbers continue after them.
    /// Returns the number of lines that are not events.
    pub fn restore(&mut self, lines: &[u8]) -> usize {
        let lines = lines.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
        let (read, broken): (Vec<_>, Vec<_>) =
            lines.map(serde_json::from_slice::<Event>).partition(Result::is_ok);
        let is_sane = |e: &Event| e.number < u64::MAX / 2;
        let mut former: Vec<Event> = read.into_iter().flatten().collect();
        let wrong = broken.len() + former.iter().filter(|e| !is_sane(e)).count();
        former.retain(is_sane);
        former.sort_by_key(|e| e.number);
        former.dedup_by_key(|e| e.number);
        let Some(last) = former.last().map(|e| e.number) else { return wrong };
        let mut present = self.after(0);
        let first = present.first().map_or(self.next, |e| e.number);
        // The clock was set back meanwhile.
        let shift = (last + 1).saturating_sub(first);
        present.iter_mut().for_each(|e| e.number += shift);
        self.next += shift;
        self.rings = Default::default();
        for mut event in former.into_iter().chain(present) {
            cut(&mut event.subject, MAX_TEXT);
            cut(&mut event.text, MAX_TEXT);
            self.rings[event.kind as usize].push(event);
        }
        wrong
    }

    /// The number of the newest event, or of the last one before the first.
    pub fn last_number(&self) -> u64 {
        self.next - 1
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

    /// The event to drop: the oldest of the subject with the most events, if that has more than its
    /// share; otherwise the oldest of all.
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
    fn a_restart_goes_on_with_the_events_and_numbers_of_the_former_run() {
        let mut former = Events::starting_at(1000);
        push(&mut former, EventKind::Session, "first");
        push(&mut former, EventKind::Link, "second\nline");
        let lines = former.to_lines();
        for (name, start, numbers) in
            [("later", 5000, [1000, 1001, 5000]), ("with the clock set back", 7, [1000, 1001, 1002])]
        {
            let mut events = Events::starting_at(start);
            push(&mut events, EventKind::Config, "starting");
            assert_eq!(events.restore(&lines), 0, "{name}");
            let all = events.after(0);
            assert_eq!(all.iter().map(|e| e.number).collect::<Vec<_>>(), numbers, "{name}");
            assert_eq!(all[1].text, "second\nline", "{name}");
            push(&mut events, EventKind::Config, "next");
            assert_eq!(events.after(numbers[2]).len(), 1, "{name}");
        }
    }

    #[test]
    fn a_torn_file_costs_the_lines_that_are_torn() {
        let mut former = Events::starting_at(1000);
        (0..3).for_each(|n| push(&mut former, EventKind::Route, format!("{n}")));
        let lines = former.to_lines();
        let mut events = Events::starting_at(5000);
        assert_eq!(events.restore(&lines[..lines.len() - 4]), 1);
        assert_eq!(events.after(0).len(), 2);
        let huge = format!(
            "{{\"number\":{},\"at\":\"\",\"kind\":\"link\",\"subject\":\"\",\"text\":\"\"}}",
            u64::MAX
        );
        assert_eq!(events.restore(huge.as_bytes()), 1, "a number that leaves none for later events");
        assert_eq!(events.restore(&[0xff; 100]), 1);
        assert_eq!((events.restore(b""), events.after(0).len()), (0, 2));
    }

    #[test]
    fn what_is_kept_is_the_newest_within_its_bound() {
        let mut events = Events::default();
        for kind in [EventKind::Session, EventKind::Route, EventKind::Node, EventKind::Problem] {
            (0..200).for_each(|n| push(&mut events, kind, format!("{n} {}", "x".repeat(900))));
        }
        let lines = events.to_lines();
        assert!(lines.len() <= MAX_KEPT && lines.len() > MAX_KEPT / 2, "{}", lines.len());
        let mut restored = Events::default();
        assert_eq!(restored.restore(&lines), 0);
        let (all, last) = (restored.after(0), events.after(0).pop());
        assert_eq!(all.last(), last.as_ref());
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
