//! The finite state machine of one neighbor (RFC 4271 §8), without I/O: octets in, octets out, and
//! the time as an argument.
//!
//! While a [`Session`] has no connection, its [`Phase`] is Idle, Connect or Active. Each connection
//! has a [`State`] of its own: OpenSent, OpenConfirm or Established. During a collision (§6.8)
//! there are two, an outgoing and an accepted one; `collision` decides which of them survives.
//! Framing and codec are part of it, as decoding depends on what was negotiated.
//!
//! The driver passes [`Input`]s, calls [`Session::poll_output`] until `None`, and passes
//! [`Input::Timeout`] at the time of [`Session::poll_timeout`].
//!
//! Differences from §8: a failed connection attempt leads to Active, not to Idle, as a host keeps
//! listening while its neighbor refuses; only a session that was closed for an error waits in Idle.
//! Deliberately absent: DelayOpen, and manual start as different from automatic start.

mod admin;
mod advice;
mod attachment;
mod bfd;
mod collision;
mod connect;
mod connection;
mod damping;
mod end;
mod gtsm;
mod handover;
mod hints;
mod host;
mod negotiate;
pub mod path;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod timer;

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use self::{
    connection::{Connection, State},
    end::{End, NextStep},
    path::Transport,
    record::Record,
    timer::{Backoff, Jitter, Timer, Timers},
};
use crate::{
    bgp::{
        peer::{DownCause, Global, Negotiated, PeerConfig},
        view::{NeighborView, SessionState},
        wire::update::Update,
    },
    net::{Family, Links},
};

pub use self::{admin::reset_reason, handover::Handover, negotiate::Endpoints, state::OPEN_HOLD_TIME};

/// One TCP connection: a number that the driver chooses and never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u32);

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Begin (RFC 4271 §8.1.2, event 1).
    Start,
    /// End, and stay down until [`Input::Start`] (event 2).
    Stop(Stop),
    /// `neighbor reset`: end the session and begin again.
    Reset(Option<String>),
    /// Settings changed. Only what was agreed in the OPENs ends the session.
    Configure(Arc<PeerConfig>, Global),
    /// A link came up or an address changed: connect now, as the next attempt may succeed.
    RetryNow,
    /// Links or addresses of this host changed.
    Host(Arc<Links>),
    /// Everything sent on this connection was acknowledged: the result of [`Output::Probe`].
    Acknowledged(Conn),
    /// What TCP knows of a connection.
    Transport(Conn, Transport),
    /// [`Output::Connect`] succeeded (event 16).
    Connected(Conn, Endpoints),
    /// It failed (event 18), with the reason: "connection refused: nothing listens on
    /// 10.0.0.1:179".
    ConnectFailed {
        why: String,
        /// Nothing listens there.
        refused: bool,
    },
    /// The listener handed over a connection of this neighbor (event 17).
    Accepted(Conn, Endpoints),
    /// The driver found a likely reason why attempts fail: different passwords.
    Hint(String),
    /// Both neighbors are one router, which keeps one session only: do not connect, for this
    /// reason.
    Yield(String),
    /// The other neighbor's session was closed.
    Resume,
    /// Octets read; complete messages are removed, an incomplete one is left.
    Received(Conn, &'a mut BytesMut),
    /// Octets that the neighbor sent on a connection that we have closed.
    Leftover(&'a mut BytesMut),
    /// The neighbor closed the connection, or it failed with this error.
    Closed(Conn, Option<String>),
    /// Octets that were written to the kernel's send buffer.
    Sent(Conn, usize),
    /// Whether the driver has stopped reading because the rib is busy. The hold timer stops
    /// meanwhile.
    Stalled(bool),
    /// Encoded messages of the rib.
    Send { bytes: Bytes, messages: u32 },
    /// Send ROUTE-REFRESH (RFC 2918).
    RequestRefresh(Family),
    /// `max-prefixes` was exceeded: CEASE/1.
    MaxPrefixes(Family),
    /// Routes exceed the memory budget, and those of this neighbor (`octets`) grew most: CEASE/1.
    MemoryLimit { octets: u64, budget: u64 },
    /// BFD lost the neighbor, for this reason: CEASE/10 (RFC 9384).
    BfdDown(&'static str),
    /// No session may be established while BFD is not up, for this reason; `None`: it may. An
    /// established one stays.
    BfdHold(Option<String>),
    /// A deadline of [`Session::poll_timeout`] has come.
    Timeout,
}

/// Why a session is ended by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `neighbor disable`: CEASE/2 with a text (RFC 9003).
    Disabled(Option<String>),
    /// The neighbor was removed from the configuration: CEASE/3.
    Removed,
    /// The neighbor moved to another address: no NOTIFICATION if it keeps our routes over a
    /// restart, as it may be about to move its end too; else CEASE/3.
    Moved,
    /// The daemon stops: no NOTIFICATION if the neighbor keeps our routes over a restart; else
    /// CEASE/2.
    Leaving,
    /// The machine stops: CEASE/2 for everyone.
    Halting,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Connect to the neighbor; results in `Connected` or `ConnectFailed`.
    Connect,
    /// Abort the connection attempt: it timed out, or is not needed any more.
    AbortConnect { timed_out: bool },
    /// Write these octets, in order.
    Transmit(Conn, Bytes),
    /// Close after what was transmitted is written.
    Close(Conn),
    /// The local address of this connection was removed: keep it as the source of what is still
    /// sent.
    KeepSource(Conn),
    /// Pass [`Input::Acknowledged`] once the neighbor's TCP has acknowledged everything
    /// transmitted.
    Probe(Conn),
    /// Segments that arrive on this connection with a smaller TTL are dropped; 0: none.
    LeastTtl(Conn, u8),
    /// The neighbor's routes over this interface are not used for now; `None`: they are used again.
    Held { ifindex: Option<u32> },
    /// Established. Exactly one `Down` follows, in time.
    Up(Arc<Negotiated>),
    /// UPDATEs of one read, in order.
    Updates(Vec<Update>),
    /// ROUTE-REFRESH received (subtype of RFC 7313).
    Refresh { family: Family, subtype: u8 },
    /// No longer Established.
    Down { cause: DownCause, why: String },
    /// For the log and the list of events.
    Event(Event),
}

/// An event for the log and `show events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub severity: Severity,
    /// Constant text.
    pub message: &'static str,
    pub reason: Option<String>,
    /// Of a session that was established.
    pub negotiated: Option<Arc<Negotiated>>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// Log level of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Debug,
    Info,
    Warn,
}

/// What a neighbor without a connection does (RFC 4271 §8.2.2).
///
/// ```text
///            start, IdleHold over              refused
///   Idle ───────────────────────► Connect ─────────────► Active
///    ▲                              │  ▲    ConnectRetry    │
///    │ error, stop                  │  └───────────────────-┘
///    │                              ▼ connected, accepted   │
///    └──── OpenSent ─► OpenConfirm ─► Established ◄─────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Refuses connections.
    Idle,
    /// A connection attempt is in progress.
    Connect,
    /// Listens, and connects when ConnectRetry expires.
    Active,
}

/// Administrative state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Stopped,
    Disabled,
    Yes,
}

/// The sessions with one neighbor, one after the other.
#[derive(Debug)]
pub struct Session {
    config: Arc<PeerConfig>,
    global: Global,
    running: Running,
    phase: Phase,
    /// At most three: Established, outgoing and accepted.
    connections: Vec<Connection>,
    timers: Timers,
    jitter: Jitter,
    connect_backoff: Backoff,
    damping: damping::Damping,
    /// The neighbor refused our optional parameters (RFC 5492 §3).
    without_capabilities: bool,
    /// Idle because it exceeded `max-prefixes`, not for an error.
    over_limit: bool,
    /// Set while another neighbor, which is the same router, has a session: the reason.
    yielding: Option<String>,
    /// Why no session may be established before BFD is up.
    bfd_hold: Option<String>,
    /// CEASE/7 received since the last session.
    collisions: u32,
    /// Connection attempts that are retried after [`MIN_CONNECT_RETRY`].
    quick_retries: u8,
    /// Links and addresses of the host.
    links: Arc<Links>,
    /// `local-address` changed: until when the session at the former address is kept.
    moving: Option<Instant>,
    /// Closed connections on which a NOTIFICATION is still to be sent.
    pending_closes: Vec<host::PendingClose>,
    /// A session with this neighbor was Established since the daemon started.
    was_established: bool,
    updates: Vec<Update>,
    out: VecDeque<Output>,
    record: Record,
    path: path::PathWatch,
    /// What is known of the neighbor's TTL.
    gtsm: gtsm::Gtsm,
}

/// Lower bound of ConnectRetry, whatever is configured.
const MIN_CONNECT_RETRY: Duration = Duration::from_secs(1);

impl Session {
    /// Stopped until [`Input::Start`]. `seed` feeds the jitter.
    pub fn new(now: Instant, config: Arc<PeerConfig>, global: Global, seed: u64) -> Self {
        Self {
            config,
            global,
            running: Running::Stopped,
            phase: Phase::Idle,
            connections: Vec::new(),
            timers: Timers::default(),
            jitter: Jitter::new(seed),
            connect_backoff: Backoff::default(),
            damping: damping::Damping::default(),
            without_capabilities: false,
            over_limit: false,
            yielding: None,
            bfd_hold: None,
            collisions: 0,
            quick_retries: 0,
            links: Arc::default(),
            moving: None,
            pending_closes: Vec::new(),
            was_established: false,
            updates: Vec::new(),
            out: VecDeque::new(),
            record: Record::new(now),
            gtsm: gtsm::Gtsm::default(),
            path: path::PathWatch::default(),
        }
    }

    /// Handles one input. Never fails: there is a next state for every input.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Start => self.start(now),
            Input::Stop(stop) => self.stop(now, stop),
            Input::Reset(text) => self.reset(now, text.as_deref()),
            Input::Configure(config, global) => self.configure(now, config, global),
            Input::RetryNow => self.retry_now(now),
            Input::Host(links) => self.host_changed(now, links),
            Input::Acknowledged(conn) => self.acknowledged(conn),
            Input::Transport(conn, sample) => self.sampled(now, conn, sample),
            Input::Connected(conn, ends) => self.connected(now, conn, ends),
            Input::ConnectFailed { why, refused } => self.connect_failed(why, refused),
            Input::Accepted(conn, ends) => self.accepted(now, conn, ends),
            Input::Hint(text) => self.hint(text),
            Input::Yield(why) => self.yield_to_another(now, why),
            Input::Resume => self.resume(now),
            Input::Received(conn, octets) => self.received(now, conn, octets),
            Input::Leftover(octets) => self.read_leftover(now, octets),
            Input::Closed(conn, error) => self.closed(now, conn, error),
            Input::Sent(conn, octets) => self.sent(now, conn, octets),
            Input::Stalled(stalled) => self.stalled(now, stalled),
            Input::Send { bytes, messages } => self.send(now, bytes, messages),
            Input::RequestRefresh(family) => self.request_refresh(now, family),
            Input::MaxPrefixes(family) => self.max_prefixes(now, family),
            Input::MemoryLimit { octets, budget } => self.memory_limit(now, octets, budget),
            Input::BfdDown(why) => self.bfd_down(now, why),
            Input::BfdHold(why) => self.bfd_hold(now, why),
            Input::Timeout => self.timeout(now),
        }
        self.end_waiting(now);
        self.keep_bfd_hold(now);
        self.flush_updates();
        self.record.state(now, self.state());
    }

    /// The next action for the driver; call until `None` after every `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to pass [`Input::Timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_connections = self.connections.iter().filter_map(|c| c.timers.next());
        of_connections.chain(self.timers.next()).chain(self.host_timeout()).min()
    }

    /// The state to show: that of the most advanced connection.
    pub fn state(&self) -> SessionState {
        match (self.running, self.connections.iter().map(Connection::shown).max()) {
            (Running::Disabled, _) => SessionState::Disabled,
            (_, Some(state)) => state,
            (_, None) => match self.phase {
                Phase::Idle => SessionState::Idle,
                Phase::Connect => SessionState::Connect,
                Phase::Active => SessionState::Active,
            },
        }
    }

    /// When that state began.
    pub fn since(&self) -> Instant {
        self.record.since()
    }

    /// Whether a session with this neighbor was Established since the daemon started.
    pub fn has_been_up(&self) -> bool {
        self.was_established
    }

    /// The view for `show neighbor`. The caller fills in `since` and the prefix counters.
    pub fn view(&self, now: Instant) -> NeighborView {
        record::view(self, now)
    }

    /// Octets transmitted on the Established connection that the driver has not reported as sent.
    pub fn unsent(&self) -> usize {
        self.established().map_or(0, |c| c.unsent)
    }

    fn start(&mut self, now: Instant) {
        if self.running == Running::Yes {
            return;
        }
        if self.config.disabled {
            self.running = Running::Disabled;
            return;
        }
        self.running = Running::Yes;
        self.begin(now);
    }

    fn hint(&mut self, text: String) {
        if self.connections.is_empty() {
            self.record.caused(None);
            self.report_failure(text);
        }
    }

    /// Records why an attempt failed. Logged as a warning only if the reason is new.
    fn report_failure(&mut self, why: String) {
        let known = self.record.attempt_failed(&why);
        let severity = if known { Severity::Debug } else { Severity::Warn };
        self.event(severity, "session not established", Some(why));
    }

    fn event(&mut self, severity: Severity, message: &'static str, reason: Option<String>) {
        self.out.push_back(Output::Event(Event { severity, message, reason, negotiated: None }));
    }

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::IdleHold => self.begin(now),
                Timer::ConnectRetry => self.connect_retry(now),
                Timer::Hold
                | Timer::Keepalive
                | Timer::SendHold
                | Timer::Collision
                | Timer::Silence
                | Timer::TtlSecurity => {}
            }
        }
        for conn in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            while let Some(timer) = self.connection(conn).and_then(|c| c.timers.expired(now)) {
                self.connection_timeout(now, conn, timer);
            }
        }
        self.host_expired(now);
    }

    fn flush_updates(&mut self) {
        if !self.updates.is_empty() {
            let updates = mem::take(&mut self.updates);
            self.out.push_back(Output::Updates(updates));
        }
    }

    fn connection(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == conn)
    }

    fn established(&self) -> Option<&Connection> {
        self.connections.iter().find(|c| c.is_established())
    }

    /// What was negotiated, while the session is Established.
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.connections.iter().find_map(|c| match &c.state {
            State::Established(up) => Some(&up.negotiated),
            State::OpenSent | State::CollisionPending { .. } | State::OpenConfirm(_) => None,
        })
    }
}
