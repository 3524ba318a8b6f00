//! Connections that are being made, by us or by the neighbor, and when they are retried.

use std::time::Instant;

use super::{
    Conn, MIN_CONNECT_RETRY, Output, Phase, Running, Session, advice::Cause, connection::Connection,
    negotiate::Endpoints, state, timer::Timer,
};
use crate::bgp::wire::notification::{Notification, cease};

impl Session {
    /// Leaves Idle: connects, or listens only if passive.
    pub(super) fn begin(&mut self, now: Instant) {
        self.timers.stop(Timer::IdleHold);
        self.over_limit = false;
        self.yielding = None;
        if self.bfd_hold.is_some() {
            self.phase = Phase::Idle;
        } else if self.config.passive {
            self.phase = Phase::Active;
        } else {
            self.connect(now);
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        self.phase = Phase::Connect;
        self.retry_later(now);
        self.out.push_back(Output::Connect);
    }

    pub(super) fn abort_connect(&mut self, timed_out: bool) {
        if self.phase == Phase::Connect {
            self.phase = Phase::Active;
            self.out.push_back(Output::AbortConnect { timed_out });
        }
    }

    /// Starts ConnectRetry, with back-off.
    pub(super) fn retry_later(&mut self, now: Instant) {
        let base = self.config.connect_retry_time.max(MIN_CONNECT_RETRY);
        let wait = match self.quick_retries.checked_sub(1) {
            Some(left) => {
                self.quick_retries = left;
                MIN_CONNECT_RETRY
            }
            None => self.connect_backoff.next(base),
        };
        self.timers.set(Timer::ConnectRetry, now + self.jitter.of(wait));
    }

    pub(super) fn retry_now(&mut self, now: Instant) {
        if self.running == Running::Yes
            && self.connections.is_empty()
            && self.phase != Phase::Idle
            && !self.config.passive
        {
            self.connect_backoff.reset();
            self.abort_connect(false);
            self.connect(now);
        }
    }

    /// Event 16. If an OPEN was received on an accepted connection already, the outgoing one is
    /// closed: no OPEN was sent on it, so it is no collision yet, and the neighbor cannot resolve
    /// it differently.
    pub(super) fn connected(&mut self, now: Instant, conn: Conn, ends: Endpoints) {
        let late = self.connections.iter().any(|c| c.negotiated().is_some() && !self.leaves(c));
        if self.phase != Phase::Connect || late {
            self.abort_connect(false);
            self.out.push_back(Output::Close(conn));
            return;
        }
        self.phase = Phase::Active;
        self.timers.stop(Timer::ConnectRetry);
        self.open(now, Connection::new(now, conn, true, ends));
    }

    /// Event 18. ConnectRetry is running.
    pub(super) fn connect_failed(&mut self, why: String, refused: bool) {
        if self.phase == Phase::Connect {
            self.phase = Phase::Active;
            if self.connections.is_empty() {
                let why = self.with_hint(why);
                self.record.caused(refused.then_some(Cause::Refused));
                self.report_failure(why);
            }
        }
    }

    /// Event 17. A connection of a disabled neighbor is rejected with CEASE (RFC 4486 §4), that of
    /// an idle one is closed silently (§8.2.2).
    pub(super) fn accepted(&mut self, now: Instant, conn: Conn, ends: Endpoints) {
        if self.phase == Phase::Idle {
            if self.running == Running::Disabled {
                let rejected = Notification::cease(cease::REJECTED, None);
                self.out.push_back(Output::Transmit(conn, state::notification(&rejected)));
            }
            self.out.push_back(Output::Close(conn));
            return;
        }
        if let Err(error) = self.check_distance(&ends) {
            self.out.push_back(Output::Close(conn));
            self.refused_distance(now, &error);
            return;
        }
        // A neighbor that connects again has given up its last attempt.
        if let Some(older) = self.connections.iter().position(|c| !c.outgoing && !c.is_established()) {
            let older = self.connections.remove(older);
            self.out.push_back(Output::Close(older.id));
        }
        if self.phase == Phase::Active {
            self.timers.stop(Timer::ConnectRetry);
        }
        self.open(now, Connection::new(now, conn, false, ends));
    }

    /// Event 9.
    pub(super) fn connect_retry(&mut self, now: Instant) {
        let was_connecting = self.phase == Phase::Connect;
        self.abort_connect(true);
        if self.connections.iter().any(|c| !self.leaves(c)) {
            return;
        }
        if was_connecting {
            self.report_no_reply();
        }
        self.connect(now);
    }
}
