//! How often routes are put back that somebody else keeps removing, and how often that is said.

use std::time::Duration;

use tokio::time::Instant;

/// Between two repairs once the first [`BURST`] are spent: two daemons that fight over the same routes must cost
/// neither the machine nor the log, and still each deletion is answered within a tenth of a second.
const SPACING: Duration = Duration::from_millis(50);
const BURST: u32 = 100;
/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(10);

/// The repairs so far.
#[derive(Debug)]
pub(super) struct Repairs {
    /// When the last one would have been due at an even pace.
    paced: Instant,
    said: Option<Instant>,
    unsaid: u64,
}

impl Repairs {
    pub(super) fn new(now: Instant) -> Self {
        Self { paced: now, said: None, unsaid: 0 }
    }

    /// Until when the next one must wait, if it must.
    pub(super) fn waits(&self, now: Instant) -> Option<Instant> {
        let from = self.paced.checked_sub(SPACING * BURST)?;
        (from > now).then_some(from)
    }

    pub(super) fn add(&mut self, now: Instant, routes: u64) {
        self.paced = self.paced.max(now) + SPACING;
        self.unsaid += routes;
    }

    /// What is to be logged now: so many routes, and whether it goes on and on.
    pub(super) fn say(&mut self, now: Instant) -> Option<(u64, bool)> {
        if self.unsaid == 0 || self.said.is_some_and(|at| now < at + QUIET) {
            return None;
        }
        self.said = Some(now);
        Some((std::mem::take(&mut self.unsaid), self.waits(now).is_some()))
    }

    /// When there is something to do without a further event.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let say = self.said.filter(|_| self.unsaid > 0).map(|at| at + QUIET);
        self.waits(now).into_iter().chain(say).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_slowed_down_and_said_now_and_then() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        let (mut now, mut rounds, mut lines) = (start, 0_u32, Vec::new());
        while now < start + Duration::from_secs(25) {
            assert!(repairs.waits(now).is_none_or(|at| at <= now + SPACING), "never longer than the spacing");
            if repairs.waits(now).is_none() {
                repairs.add(now, 6);
                rounds += 1;
            }
            lines.extend(repairs.say(now));
            now += Duration::from_millis(1);
        }
        assert!((BURST + 450..BURST + 510).contains(&rounds), "{rounds}");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], (6, false), "the first one is said at once");
        assert!(lines[1].1 && lines[2].1);
    }

    #[test]
    fn a_loop_that_deletes_a_hundred_routes_is_answered_at_once() {
        let now = Instant::now();
        let mut repairs = Repairs::new(now);
        for _ in 0..BURST {
            assert_eq!(repairs.waits(now), None);
            repairs.add(now, 1);
        }
        // All have been put back; what is not said yet will be.
        assert_eq!(repairs.say(now), Some((100, false)));
        assert_eq!(repairs.due(now), None);
        repairs.add(now, 1);
        assert_eq!(repairs.say(now), None);
        assert!(repairs.due(now).is_some());
    }
}
