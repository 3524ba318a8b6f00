//! The timers of RFC 4271 §8.1.3 as an array of deadlines, and the jitter of §10.

use std::time::{Duration, Instant};

use crate::net::Random;

/// One timer. The first two belong to the neighbor, the others to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Connect (again).
    ConnectRetry,
    /// Leave Idle.
    IdleHold,
    /// No message was received for too long.
    Hold,
    /// Send KEEPALIVE.
    Keepalive,
    /// Nothing could be sent for too long (RFC 9687).
    SendHold,
    /// This connection waits for the OPEN on another one (RFC 4271 §6.8): continue without it.
    Collision,
    /// Nothing was received on a new connection: time for a hint.
    Silence,
    /// The neighbor has not shown that it sends with TTL 255 (RFC 5082): continue without.
    TtlSecurity,
}

impl Timer {
    pub(super) const ALL: [Self; 8] = [
        Self::ConnectRetry,
        Self::IdleHold,
        Self::Hold,
        Self::Keepalive,
        Self::SendHold,
        Self::Collision,
        Self::Silence,
        Self::TtlSecurity,
    ];

    /// The name in `show neighbor`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRetry => "connect-retry",
            Self::IdleHold => "idle-hold",
            Self::Hold => "hold",
            Self::Keepalive => "keepalive",
            Self::SendHold => "send-hold",
            Self::Collision => "collision",
            Self::Silence => "silence",
            Self::TtlSecurity => "ttl-security",
        }
    }
}

/// When each timer is due; `None`: not running.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; 8]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, due: Instant) {
        self.0[timer as usize] = Some(due);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn due(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Removes and returns a timer that has expired by `now`, earliest first.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let due = |t: &Timer| self.due(*t).filter(|due| *due <= now);
        let timer = Timer::ALL.into_iter().filter(|t| due(t).is_some()).min_by_key(due)?;
        self.stop(timer);
        Some(timer)
    }

    /// Running timers and the time left.
    pub(super) fn running(&self, now: Instant) -> impl Iterator<Item = (Timer, Duration)> + '_ {
        Timer::ALL.into_iter().filter_map(move |t| Some((t, self.due(t)?.saturating_duration_since(now))))
    }
}

/// A factor between 0.75 and 1 (RFC 4271 §10), from a seed: the same seed gives the same session.
#[derive(Clone, Debug)]
pub(super) struct Jitter(Random);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub(super) fn of(&mut self, time: Duration) -> Duration {
        time - time / 4096 * (self.0.draw() >> 54) as u32
    }
}

/// A waiting time that doubles after each failure.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

/// Upper bound of the doubling.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(120);

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The time to wait after one more failure: `base`, then twice that, to [`MAX_BACKOFF`] (or to
    /// `base`, where that is longer).
    pub(super) fn next(&mut self, base: Duration) -> Duration {
        let time = base.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF.max(base));
        self.failures += 1;
        time
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick the epoch")]
mod tests {
    use super::*;

    #[test]
    fn jitter_takes_away_at_most_a_quarter() {
        let (mut jitter, time) = (Jitter::new(7), Duration::from_secs(40));
        let drawn: Vec<_> = (0..1000).map(|_| jitter.of(time)).collect();
        assert!(drawn.iter().all(|t| *t > time * 3 / 4 && *t <= time));
        assert!(drawn.iter().min().unwrap() < &(time * 77 / 100));
        assert!(drawn.iter().max().unwrap() > &(time * 98 / 100));
    }

    #[test]
    fn backoff_doubles_to_its_end_and_is_forgotten() {
        let mut backoff = Backoff::default();
        let base = Duration::from_secs(5);
        let seconds: Vec<_> = (0..8).map(|_| backoff.next(base).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 120, 120, 120]);
        backoff.reset();
        assert_eq!(backoff.next(base), base);
        assert_eq!(
            (backoff.next(Duration::ZERO), backoff.next(MAX_BACKOFF * 2)),
            (Duration::ZERO, MAX_BACKOFF * 2)
        );
    }

    #[test]
    fn the_earliest_timer_runs_out_first() {
        let t0 = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Hold, t0 + Duration::from_secs(9));
        timers.set(Timer::Keepalive, t0 + Duration::from_secs(3));
        assert_eq!(timers.expired(t0), None);
        assert_eq!(timers.next(), Some(t0 + Duration::from_secs(3)));
        let later = t0 + Duration::from_secs(10);
        assert_eq!(timers.expired(later), Some(Timer::Keepalive));
        assert_eq!(timers.expired(later), Some(Timer::Hold));
        assert_eq!((timers.expired(later), timers.next()), (None, None));
    }
}
