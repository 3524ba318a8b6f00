//! How a connection is closed, and what follows.

use std::time::{Duration, Instant};

use super::{
    Conn, MIN_CONNECT_RETRY, Output, Phase, Session, Severity,
    advice::Cause,
    state,
    timer::{Timer, Timers},
};
use crate::bgp::{
    peer::DownCause,
    wire::{framing::Kind, notification::Notification},
};

impl Session {
    /// Closes one connection: NOTIFICATION, close, event, and the next step.
    pub(super) fn end(&mut self, now: Instant, conn: Conn, end: End) {
        let Some(at) = self.connections.iter().position(|c| c.id == conn) else { return };
        let was_up = self.connections[at].is_established();
        self.caused(now, &end);
        if let Some(notification) = &end.notify {
            self.record.notification_sent(notification);
            self.transmit(now, conn, Kind::Notification, state::notification(notification), 1);
        }
        self.connections.remove(at);
        if !self.pending_closes.iter().any(|p| p.conn == conn) {
            self.out.push_back(Output::Close(conn));
        }
        if was_up {
            self.flush_updates();
            self.record.dropped(now, end.reason, &end.why);
            self.event(Severity::Warn, "session closed", Some(end.why.clone()));
            self.out.push_back(Output::Down { cause: end.cause, why: end.why });
        } else if self.connections.is_empty()
            && end.after != NextStep::RetrySoon
            && end.after != NextStep::StayDown
        {
            self.report_failure(end.why);
        } else {
            self.event(Severity::Debug, "connection closed", Some(end.why));
        }
        self.after(now, end.after, was_up);
    }

    /// Records what a connection ends for. What the neighbor did was recorded before.
    fn caused(&mut self, now: Instant, end: &End) {
        match (&end.notify, end.cause) {
            (_, DownCause::Administrative) => self.record.caused(None),
            // Recorded before, with what TCP shows.
            (_, DownCause::HoldTimer) => {}
            (Some(sent), _) => self.record.caused(Some(Cause::Sent(sent.clone()))),
            (None, DownCause::Received { .. } | DownCause::Closed) => {}
            (None, _) => self.record.caused(None),
        }
        if let Some(cause) = self.record.cause().filter(|cause| cause.has_reason()).cloned() {
            self.record.judged(now, cause, &end.why);
        }
    }

    pub(super) fn after(&mut self, now: Instant, after: NextStep, was_up: bool) {
        match after {
            NextStep::StayDown => {
                self.abort_connect(false);
                self.phase = Phase::Idle;
                self.timers = Timers::default();
            }
            // Another connection goes on.
            _ if self.connections.iter().any(|c| !self.leaves(c)) => {}
            _ if !self.connections.is_empty() => self.move_again(now),
            // An attempt is in progress already.
            NextStep::RetrySoon | NextStep::Retry if self.phase == Phase::Connect => {}
            NextStep::RetrySoon | NextStep::Retry => {
                self.phase = Phase::Active;
                if was_up {
                    self.connect_backoff.reset();
                }
                if !self.config.passive && after == NextStep::Retry {
                    self.retry_later(now);
                } else if !self.config.passive {
                    self.timers.set(Timer::ConnectRetry, now + self.jitter.of(MIN_CONNECT_RETRY));
                }
            }
            NextStep::IdleHold => {
                let wait = self.damping.penalty(now, self.config.idle_hold_time);
                self.idle(now, self.config.idle_hold_time.min(wait), wait);
            }
            NextStep::Idle(time) => self.idle(now, time, time),
        }
    }

    /// Idle for about `wait`. A `base` of 0 means no Idle: listen, and connect as usual.
    fn idle(&mut self, now: Instant, base: Duration, wait: Duration) {
        self.abort_connect(false);
        self.timers.stop(Timer::ConnectRetry);
        if base.is_zero() {
            self.phase = Phase::Active;
            if !self.config.passive {
                self.retry_later(now);
            }
        } else {
            self.phase = Phase::Idle;
            let wait = self.jitter.of(wait);
            self.timers.set(Timer::IdleHold, now + wait);
        }
    }
}

/// Why and how a connection is closed.
pub(super) struct End {
    /// NOTIFICATION to send.
    pub(super) notify: Option<Notification>,
    pub(super) cause: DownCause,
    /// Name of the counter.
    pub(super) reason: &'static str,
    pub(super) why: String,
    pub(super) after: NextStep,
}

/// What follows when the last connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// No session until [`Input::Start`](super::Input::Start) or the like.
    StayDown,
    /// Listen, and connect after [`MIN_CONNECT_RETRY`]: a collision closed both connections.
    RetrySoon,
    /// Listen, and connect after ConnectRetry.
    Retry,
    /// Idle for `idle-hold-time`, with back-off.
    IdleHold,
    /// Idle for this time.
    Idle(Duration),
}
