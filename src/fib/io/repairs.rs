//! Limits how often routes that another program keeps removing are restored, and how often that is
//! logged.

use std::time::Duration;

use tokio::time::Instant;

/// Time between repairs once [`BURST`] is spent. Two daemons that contend for the same routes must
/// load neither the machine nor the log, while each deletion is still repaired within a tenth of a
/// second.
const SPACING: Duration = Duration::from_millis(50);
const BURST: u32 = 100;
/// Time between log messages.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The repairs so far.
#[derive(Debug)]
pub(super) struct Repairs {
    /// When the last repair would have been due at an even pace.
    paced: Instant,
    logged: Option<Instant>,
    unlogged: u64,
}

impl Repairs {
    pub(super) fn new(now: Instant) -> Self {
        Self { paced: now, logged: None, unlogged: 0 }
    }

    /// Until when the next repair has to wait, if it has to.
    pub(super) fn waits(&self, now: Instant) -> Option<Instant> {
        let from = self.paced.checked_sub(SPACING * BURST)?;
        (from > now).then_some(from)
    }

    pub(super) fn add(&mut self, now: Instant, routes: u64) {
        self.paced = self.paced.max(now) + SPACING;
        self.unlogged += routes;
    }

    /// What to log now: the number of routes, and whether it has happened repeatedly.
    pub(super) fn log(&mut self, now: Instant) -> Option<(u64, bool)> {
        if self.unlogged == 0 || self.logged.is_some_and(|at| now < at + LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some((std::mem::take(&mut self.unlogged), self.waits(now).is_some()))
    }

    /// When the next log message is due without a further event.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let log = self.logged.filter(|_| self.unlogged > 0).map(|at| at + LOG_INTERVAL);
        self.waits(now).into_iter().chain(log).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contention_is_slowed_down_and_logged_now_and_then() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        let (mut now, mut rounds, mut lines) = (start, 0_u32, Vec::new());
        while now < start + Duration::from_secs(25) {
            assert!(repairs.waits(now).is_none_or(|at| at <= now + SPACING), "never longer than the spacing");
            if repairs.waits(now).is_none() {
                repairs.add(now, 6);
                rounds += 1;
            }
            lines.extend(repairs.log(now));
            now += Duration::from_millis(1);
        }
        assert!((BURST + 450..BURST + 510).contains(&rounds), "{rounds}");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], (6, false), "the first one is logged at once");
        assert!(lines[1].1 && lines[2].1);
    }

    #[test]
    fn a_loop_that_deletes_a_hundred_routes_is_repaired_at_once() {
        let now = Instant::now();
        let mut repairs = Repairs::new(now);
        for _ in 0..BURST {
            assert_eq!(repairs.waits(now), None);
            repairs.add(now, 1);
        }
        // All have been restored, and those not logged yet will be.
        assert_eq!(repairs.log(now), Some((100, false)));
        assert_eq!(repairs.due(now), None);
        repairs.add(now, 1);
        assert_eq!(repairs.log(now), None);
        assert!(repairs.due(now).is_some());
    }
}
