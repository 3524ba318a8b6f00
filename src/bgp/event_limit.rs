//! How many of one neighbor's events are logged: a neighbor whose session flaps must not fill the
//! log, nor push the events of others out of `show events`.

use std::time::{Duration, Instant};

/// Events that may follow each other at once: what one change of a session brings.
const BURST: u32 = 5;
/// Beyond, one in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// The events of one neighbor.
#[derive(Clone, Debug)]
pub struct EventLimit {
    tokens: u32,
    /// When the next token is due.
    refill: Option<Instant>,
    suppressed: u64,
}

impl Default for EventLimit {
    fn default() -> Self {
        Self { tokens: BURST, refill: None, suppressed: 0 }
    }
}

impl EventLimit {
    /// Whether an event is logged now, and with how many that were not since the last one.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        while let Some(due) = self.refill.filter(|due| *due <= now) {
            self.tokens += 1;
            self.refill = (self.tokens < BURST).then(|| due + INTERVAL);
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                self.refill.get_or_insert(now + INTERVAL);
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick the epoch")]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_and_then_one_event_a_second_with_the_number_of_those_left_out() {
        let (mut limit, t0) = (EventLimit::default(), Instant::now());
        let at = |ms| t0 + Duration::from_millis(ms);
        let logged: Vec<_> = (0..100).filter_map(|n| limit.admit(at(n))).collect();
        assert_eq!(logged, [0; BURST as usize]);
        let logged: Vec<_> = (100..10_100).filter_map(|n| limit.admit(at(n))).collect();
        assert_eq!(logged.len(), 10);
        assert_eq!(logged.iter().sum::<u64>() + limit.suppressed, 95 + 10_000 - 10);
        let quiet = at(60_000);
        assert!(limit.admit(quiet).is_some_and(|suppressed| suppressed > 0), "the next one names them");
        assert_eq!(
            (1..BURST).filter_map(|_| limit.admit(quiet)).count(),
            BURST as usize - 1,
            "all is forgotten"
        );
        assert_eq!(limit.admit(quiet), None);
    }
}
