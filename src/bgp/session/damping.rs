//! Damping of sessions that flap: the neighbor stays in Idle, longer each time (RFC 4271 §8.1.1,
//! DampPeerOscillations).
//!
//! An error leads to Idle at once. A CEASE or a closed connection does not: the neighbor may have
//! restarted or its operator may have reset the session, and it should be back at once. After
//! [`FREE_RESTARTS`] sessions that were closed within [`SHORT_SESSION`], these lead to Idle as
//! well.

use std::time::{Duration, Instant};

use super::{Conn, NextStep, Session, timer::Backoff};

/// Time without errors after which the back-off is reset.
const BACKOFF_RESET: Duration = Duration::from_secs(300);
/// A session that is closed sooner after it was established counts as short.
const SHORT_SESSION: Duration = Duration::from_secs(10);
/// Short sessions without penalty: a neighbor that restarts, an upgrade in several steps.
const FREE_RESTARTS: u32 = 5;

/// Recent penalties of a neighbor.
#[derive(Clone, Debug, Default)]
pub(super) struct Damping {
    backoff: Backoff,
    /// End of the last penalty or of the last short session.
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

    /// A session that was established for `lasted` was closed. Returns whether Idle follows.
    fn session_ended(&mut self, now: Instant, lasted: Duration) -> bool {
        if lasted >= SHORT_SESSION {
            return false;
        }
        self.look(now);
        self.short += 1;
        self.last = Some(now);
        self.short > FREE_RESTARTS
    }

    /// Whether a further restart of the neighbor would lead to Idle.
    pub(super) fn is_flapping(&self, now: Instant) -> bool {
        self.short >= FREE_RESTARTS
            && self.last.is_some_and(|at| now.saturating_duration_since(at) < BACKOFF_RESET)
    }

    fn look(&mut self, now: Instant) {
        if self.last.is_some_and(|at| now.saturating_duration_since(at) >= BACKOFF_RESET) {
            self.forget();
        }
    }
}

/// The reason why a session was closed, and that it is in Idle now.
pub(super) fn with_reason(why: String, after: NextStep) -> String {
    match after {
        NextStep::IdleHold => {
            format!("{why}; sessions with it keep ending after a few seconds, so it waits in Idle")
        }
        NextStep::StayDown | NextStep::RetrySoon | NextStep::Retry | NextStep::Idle(_) => why,
    }
}

impl Session {
    /// The next step after the neighbor closed a session by CEASE, or closed the connection.
    pub(super) fn after_end_by_neighbor(&mut self, now: Instant, conn: Conn) -> NextStep {
        let since = self.connections.iter().find(|c| c.id == conn).and_then(|c| c.established_since());
        let costs =
            since.is_some_and(|at| self.damping.session_ended(now, now.saturating_duration_since(at)));
        if costs { NextStep::IdleHold } else { NextStep::Retry }
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
        for n in 1..=FREE_RESTARTS {
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
