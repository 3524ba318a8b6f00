//! Sessions that end again and again: the neighbor waits in Idle, longer each time (RFC 4271 §8.1.1,
//! DampPeerOscillations).
//!
//! An error costs idle time at once. A Cease or a closed connection does not by itself: the neighbor may have restarted,
//! its operator may have reset the session, and it should be back at once. But who goes on to end sessions within
//! [`SHORT_SESSION`] after they were established does cost, from the time after [`RESTARTS`] such ends.

use std::time::{Duration, Instant};

use super::{After, Conn, Session, timer::Backoff};

/// Time without trouble after which earlier trouble is forgotten.
const BACKOFF_RESET: Duration = Duration::from_secs(300);
/// A session that ends sooner after it was established has served nothing.
const SHORT_SESSION: Duration = Duration::from_secs(10);
/// Short sessions that cost nothing: a neighbor that restarts, an upgrade in several steps.
const RESTARTS: u32 = 5;

/// What a neighbor's sessions have cost lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Damping {
    backoff: Backoff,
    /// Until when the last penalty lasted, or when the last short session ended.
    last: Option<Instant>,
    /// Short sessions.
    short: u32,
}

impl Damping {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The time to wait in Idle after one more error.
    pub(super) fn penalty(&mut self, now: Instant, idle_hold_time: Duration) -> Duration {
        self.look(now);
        let wait = self.backoff.next(idle_hold_time);
        self.last = Some(now + wait);
        wait
    }

    /// A session ended that was established for `lasted`; whether that costs idle time.
    fn session_ended(&mut self, now: Instant, lasted: Duration) -> bool {
        if lasted >= SHORT_SESSION {
            return false;
        }
        self.look(now);
        self.short += 1;
        self.last = Some(now);
        self.short > RESTARTS
    }

    /// Whether a further restart of the neighbor would cost idle time.
    pub(super) fn is_flapping(&self, now: Instant) -> bool {
        self.short >= RESTARTS
            && self.last.is_some_and(|at| now.saturating_duration_since(at) < BACKOFF_RESET)
    }

    fn look(&mut self, now: Instant) {
        if self.last.is_some_and(|at| now.saturating_duration_since(at) >= BACKOFF_RESET) {
            self.forget();
        }
    }
}

/// Why a session ended, and that it has to wait now.
pub(super) fn with_reason(why: String, after: After) -> String {
    match after {
        After::IdleHold => {
            format!("{why}; sessions with it keep ending after a few seconds, so it waits in Idle")
        }
        After::Off | After::Soon | After::Retry | After::Idle(_) => why,
    }
}

impl Session {
    /// What follows when the neighbor ends a session by a Cease, or closes the connection.
    pub(super) fn after_end_by_neighbor(&mut self, now: Instant, conn: Conn) -> After {
        let since = self.connections.iter().find(|c| c.id == conn).and_then(|c| c.established_since());
        let costs =
            since.is_some_and(|at| self.damping.session_ended(now, now.saturating_duration_since(at)));
        if costs { After::IdleHold } else { After::Retry }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick the epoch")]
mod tests {
    use super::*;

    #[test]
    fn a_few_short_sessions_are_free_and_all_is_forgotten_after_five_quiet_minutes() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        let short = Duration::from_secs(9);
        for n in 1..=RESTARTS {
            assert!(!damping.session_ended(now, short), "restart {n}");
            now += short;
        }
        assert!(damping.is_flapping(now) && damping.session_ended(now, Duration::ZERO));
        assert!(!damping.session_ended(now, SHORT_SESSION), "a session that lasted");
        assert!(damping.session_ended(now + BACKOFF_RESET - short, short), "not forgotten yet");
        now += BACKOFF_RESET * 2;
        assert!(!damping.is_flapping(now) && !damping.session_ended(now, short));
    }
}
