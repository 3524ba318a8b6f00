//! The recent events of a daemon: what `show events` says.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 since the daemon started; never used twice.
    pub number: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub kind: EventKind,
    /// The neighbor, prefix or node it is about.
    pub subject: String,
    /// What happened, in plain words.
    pub text: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Session,
    Route,
    Node,
    Config,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Route => "route",
            Self::Node => "node",
            Self::Config => "config",
        }
    }
}

/// The last so many, oldest first.
#[derive(Clone, Debug)]
pub struct Events {
    kept: VecDeque<Event>,
    next: u64,
}

/// How many are remembered.
pub const KEPT: usize = 1000;

impl Default for Events {
    fn default() -> Self {
        Self { kept: VecDeque::new(), next: 1 }
    }
}

impl Events {
    /// Remembers one; the oldest makes room. `at` is RFC 3339.
    pub fn push(&mut self, at: String, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Event {
            number: self.next,
            at,
            kind,
            subject: subject.into(),
            text: text.into(),
        });
        self.next += 1;
    }

    /// Those with a number above `after`, oldest first.
    pub fn after(&self, after: u64) -> Vec<Event> {
        self.kept.iter().filter(|e| e.number > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_make_room_and_numbers_go_on() {
        let mut events = Events::default();
        for n in 0..KEPT + 5 {
            events.push("2026-11-21T11:00:00Z".into(), EventKind::Session, "10.0.0.1", format!("{n}"));
        }
        let all = events.after(0);
        assert_eq!((all.len(), all[0].number, all[0].text.as_str()), (KEPT, 6, "5"));
        assert_eq!(events.after(KEPT as u64 + 3).len(), 2);
    }
}
