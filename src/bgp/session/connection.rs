//! One connection of a neighbor, its state and its timers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Conn, Endpoints,
    attachment::Attachment,
    host::Probe,
    timer::{Timer, Timers},
};
use crate::bgp::{
    peer::Negotiated,
    view::SessionState,
    wire::{open::Open, update::Decoder},
};

/// Default of the send hold time (RFC 9687 §4.3: 8 minutes, or twice the hold time if that is
/// longer).
const DEFAULT_SEND_HOLD_TIME: Duration = Duration::from_secs(480);

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: Conn,
    /// We opened it.
    pub(super) outgoing: bool,
    pub(super) since: Instant,
    pub(super) ends: Endpoints,
    /// The link and the address that it depends on.
    pub(super) attachment: Attachment,
    pub(super) probe: Option<Probe>,
    pub(super) state: State,
    pub(super) timers: Timers,
    /// Our OPEN on it.
    pub(super) sent: Open,
    /// The neighbor's.
    pub(super) received: Option<Open>,
    /// When the last KEEPALIVE was sent.
    pub(super) kept_alive: Option<Instant>,
    /// Octets that the driver has not sent yet.
    pub(super) unsent: usize,
    /// Only segments with TTL 255 are accepted on it.
    pub(super) secured: bool,
}

/// State of a connection.
#[derive(Debug)]
pub(super) enum State {
    /// Our OPEN is sent, the neighbor's has not arrived.
    OpenSent,
    /// The OPENs match, but the other connection survives if an OPEN arrives on it. `confirmed`: a
    /// KEEPALIVE was received already.
    CollisionPending {
        negotiated: Arc<Negotiated>,
        confirmed: bool,
    },
    /// The OPENs match, and the KEEPALIVE has not arrived.
    OpenConfirm(Arc<Negotiated>),
    Established(Box<Up>),
}

/// An established session.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) negotiated: Arc<Negotiated>,
    pub(super) decoder: Decoder,
    pub(super) since: Instant,
    /// A malformed attribute was logged; further ones are counted only.
    pub(super) flawed: bool,
}

impl Connection {
    pub(super) fn new(now: Instant, id: Conn, outgoing: bool, ends: Endpoints) -> Self {
        let sent = Open { my_as: 0, hold_time: 0, router_id: [0; 4].into(), capabilities: vec![] };
        Self {
            id,
            outgoing,
            since: now,
            ends,
            attachment: Attachment::new(ends),
            probe: None,
            state: State::OpenSent,
            timers: Timers::default(),
            sent,
            received: None,
            kept_alive: None,
            unsent: 0,
            secured: false,
        }
    }

    pub(super) fn shown(&self) -> SessionState {
        match self.state {
            State::OpenSent | State::CollisionPending { .. } => SessionState::OpenSent,
            State::OpenConfirm(_) => SessionState::OpenConfirm,
            State::Established(_) => SessionState::Established,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    pub(super) fn established_since(&self) -> Option<Instant> {
        match &self.state {
            State::Established(up) => Some(up.since),
            State::OpenSent | State::CollisionPending { .. } | State::OpenConfirm(_) => None,
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match &self.state {
            State::OpenSent => None,
            State::OpenConfirm(negotiated) | State::CollisionPending { negotiated, .. } => Some(negotiated),
            State::Established(up) => Some(&up.negotiated),
        }
    }

    /// Whether messages above 4,096 octets may be received: both sides have the capability of
    /// RFC 8654. Otherwise a larger length is an error at once, not after 65,535 octets.
    pub(super) fn extended(&self) -> bool {
        self.negotiated().is_some_and(|n| n.extended_messages)
    }

    pub(super) fn hold(&self) -> Option<Duration> {
        let seconds = self.negotiated().map(|n| n.hold_time)?;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// A message was received.
    pub(super) fn restart_hold_timer(&mut self, now: Instant) {
        if let Some(hold) = self.hold() {
            self.timers.set(Timer::Hold, now + hold);
        }
    }

    /// RFC 9687 §4.3: never shorter than the hold time.
    pub(super) fn send_hold(&self, configured: Option<u16>) -> Duration {
        let hold = self.hold().unwrap_or_default();
        configured.map_or(DEFAULT_SEND_HOLD_TIME.max(hold * 2), |seconds| {
            hold.max(Duration::from_secs(seconds.into()))
        })
    }
}
