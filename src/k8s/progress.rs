//! Decides what is logged about our own Node: what it lacks, repeated at intervals, and finally
//! that nothing is missing.

use std::time::{Duration, Instant};

/// How often the log repeats what the node is waiting for.
pub const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// What was logged last.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    missing: Option<&'static str>,
    since: Option<Instant>,
    is_ready: bool,
}

/// What to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The Node lacks this.
    Waiting(&'static str),
    /// Nothing is missing.
    Known,
}

impl Progress {
    /// Applies what is missing now. Returns what to log.
    pub fn update(&mut self, now: Instant, missing: Option<&'static str>) -> Option<Note> {
        let changed = self.missing != missing;
        self.missing = missing;
        match missing {
            Some(what) if changed => {
                (self.since, self.is_ready) = (Some(now), false);
                Some(Note::Waiting(what))
            }
            None if !self.is_ready => {
                self.is_ready = true;
                Some(Note::Known)
            }
            _ => None,
        }
    }

    /// What has been missing for so long that the log repeats it.
    pub fn reminder(&self, now: Instant) -> Option<&'static str> {
        let is_due = self.since.is_some_and(|since| now >= since + REMINDER_INTERVAL / 2);
        self.missing.filter(|_| is_due)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_logged_once_and_repeated_while_it_lasts() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        assert_eq!(progress.reminder(start), None);
        assert_eq!(progress.update(start, Some("Node")), Some(Note::Waiting("Node")));
        assert_eq!(progress.update(start, Some("Node")), None);
        assert_eq!(progress.reminder(start), None, "it was logged just now");
        let later = start + REMINDER_INTERVAL;
        assert_eq!(progress.reminder(later), Some("Node"));
        assert_eq!(progress.update(later, Some("podCIDRs")), Some(Note::Waiting("podCIDRs")));
        assert_eq!(progress.update(later, None), Some(Note::Known));
        assert_eq!(progress.update(later, None), None);
        assert_eq!(progress.reminder(later + REMINDER_INTERVAL), None);
        assert_eq!(progress.update(later, Some("Node")), Some(Note::Waiting("Node")));
        assert_eq!(progress.update(later, None), Some(Note::Known), "known again");
    }
}
