//! The delays between attempts.

use std::time::{Duration, Instant};

use crate::net::Random;

/// First and maximum delay.
pub(super) const MIN_BACKOFF: Duration = Duration::from_millis(200);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The back-off restarts after this time without a failure.
const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// Exponential back-off with jitter: each delay is drawn from its upper half, so that nodes do not
/// retry in step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    delay: Duration,
    last: Option<Instant>,
    random: Random,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { delay: MIN_BACKOFF, last: None, random: Random::new(seed) }
    }

    /// The next delay.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_BACKOFF);
        let jitter = (self.random.draw() % 512) as u32;
        delay / 2 + delay / 2 * jitter / 512
    }

    /// The next delay for operations that succeed in between and fail again at once: only a time
    /// without failures restarts the back-off.
    pub(super) fn next_in_a_row(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now >= last + BACKOFF_RESET) {
            self.restart();
        }
        self.last = Some(now);
        self.next()
    }

    /// Begins with the first delay again, after a success.
    pub(super) fn restart(&mut self) {
        self.delay = MIN_BACKOFF;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_are_drawn_from_the_upper_half() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut full = MIN_BACKOFF;
            for _ in 0..10 {
                let delay = backoff.next();
                assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
                full = (full * 2).min(MAX_BACKOFF);
            }
            backoff.restart();
            assert!(backoff.next() <= MIN_BACKOFF);
        }
        let first: std::collections::BTreeSet<_> = (0..20).map(|seed| Backoff::new(seed).next()).collect();
        assert!(first.len() > 10, "nodes retry in step: {first:?}");
    }

    #[test]
    fn failures_in_a_row_restart_after_a_minute_of_peace() {
        let (mut backoff, start) = (Backoff::new(7), Instant::now());
        let delays: Vec<_> =
            (0..8).map(|n| backoff.next_in_a_row(start + Duration::from_secs(n * 59))).collect();
        assert!(delays[7] >= MAX_BACKOFF / 2, "{delays:?}");
        let later = start + Duration::from_secs(7 * 59) + BACKOFF_RESET;
        assert!(backoff.next_in_a_row(later) <= MIN_BACKOFF);
    }
}
