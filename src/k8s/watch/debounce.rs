//! When changes of the watched objects are published.

use std::time::{Duration, Instant};

/// The first change is published at once, and those that follow within the interval together, since
/// each recomputes the whole plan.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    interval: Duration,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Debounce {
    pub fn new(interval: Duration) -> Self {
        Self { interval, due: None, last: None }
    }

    /// When to publish; `None` without a change.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| now.max(last + self.interval));
        self.due.get_or_insert(earliest);
    }

    /// All changes so far were published.
    pub fn published(&mut self, now: Instant) {
        (self.due, self.last) = (None, Some(now));
    }

    /// The changes so far do not matter.
    pub fn discard(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_published_at_once_and_those_that_follow_together() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut debounce = Debounce::new(ms(50));
        assert_eq!(debounce.due(), None);
        debounce.changed(start);
        assert_eq!(debounce.due(), Some(start));
        debounce.published(start);
        assert_eq!(debounce.due(), None);
        for after in [10, 20, 49] {
            debounce.changed(start + ms(after));
            assert_eq!(debounce.due(), Some(start + ms(50)), "{after} ms");
        }
        debounce.published(start + ms(51));
        debounce.changed(start + ms(500));
        assert_eq!(debounce.due(), Some(start + ms(500)), "after a pause, at once");
        debounce.discard();
        assert_eq!(debounce.due(), None);
    }
}
