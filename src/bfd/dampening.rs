//! A session that is lost again and again does not count as up until it has stayed up for longer
//! and longer; and however it goes down, it comes up again only so often.

use std::time::{Duration, Instant};

/// Losses in a row that have no consequence.
const FREE: u32 = 2;
/// How long it has to stay up after the first loss that counts; doubles with each further one.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// After so long without a loss the earlier ones are forgotten.
const RESET: Duration = Duration::from_secs(60);
/// Between two times that it comes up, on average: a neighbor could bring it up and down with each
/// packet, and each time costs the table, the kernel and the log.
const PACE: Duration = Duration::from_secs(1);
/// Times that it may come up in a row.
const BURST: u32 = 5;

/// How often one session went down and came up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dampening {
    losses: u32,
    up_since: Option<Instant>,
    /// When all times that it came up have been one [`PACE`] apart.
    paced: Option<Instant>,
}

impl Dampening {
    pub(super) fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
        self.paced = Some(self.paced.map_or(now, |at| at.max(now)) + PACE);
    }

    /// Whether it is held down for now (RFC 5880 §6.8.18).
    pub(super) fn holds_down(&self, now: Instant) -> bool {
        self.paced.is_some_and(|at| at > now + PACE * (BURST - 1))
    }

    pub(super) fn lost(&mut self, now: Instant) {
        let steady =
            self.up_since.take().is_some_and(|since| now.duration_since(since) >= RESET + self.hold());
        self.losses = if steady { 1 } else { self.losses.saturating_add(1) };
    }

    /// Until when a session that is up does not count as such.
    pub(super) fn until(&self) -> Option<Instant> {
        let hold = self.hold();
        self.up_since.filter(|_| !hold.is_zero()).map(|since| since + hold)
    }

    pub(super) fn hold(&self) -> Duration {
        match self.losses.checked_sub(FREE + 1) {
            Some(more) => LONGEST.min(SHORTEST * 2_u32.saturating_pow(more.min(8))),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests pick their epoch")]
    fn the_third_loss_in_a_row_costs_two_seconds_and_peace_forgives() {
        let mut now = Instant::now();
        let mut dampening = Dampening::default();
        let mut holds = Vec::new();
        for _ in 0..9 {
            dampening.up(now);
            holds.push(dampening.until().map_or(0, |until| until.duration_since(now).as_secs()));
            now += Duration::from_secs(1);
            dampening.lost(now);
        }
        assert_eq!(holds, [0, 0, 0, 2, 4, 8, 16, 32, 60]);
        dampening.up(now);
        now += RESET + LONGEST;
        dampening.lost(now);
        dampening.up(now);
        assert_eq!(dampening.until(), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests pick their epoch")]
    fn a_burst_may_come_up_at_once_and_then_one_in_a_second() {
        let epoch = Instant::now();
        let mut dampening = Dampening::default();
        let ups: Vec<_> = (0..4000)
            .filter(|ms| {
                let now = epoch + Duration::from_millis(*ms);
                let comes_up = !dampening.holds_down(now);
                if comes_up {
                    dampening.up(now);
                }
                comes_up
            })
            .collect();
        assert_eq!(ups, [0, 1, 2, 3, 4, 1000, 2000, 3000]);
    }
}
