//! One neighbor's conversation (RFC 4271 §8) as a value: octets in, octets out, `now` as an argument.
//!
//! A [`Session`] is one *neighbor*. While it has no connection its [`Phase`] is Idle, Connect or Active; each
//! connection then has a [`State`] of its own: OpenSent, OpenConfirm or Established. During a collision (§6.8)
//! there are two of them, one that we dialled and one that we accepted; `collision` says which survives.
//! Framing and codec live inside, because what may be decoded depends on what was negotiated.
//!
//! The driver feeds [`Input`]s, then calls [`Session::poll_output`] until `None`, then comes back with
//! [`Input::Timeout`] when [`Session::poll_timeout`] says so.
//!
//! Where this differs from the letter of §8: a dial that fails leads to Active, not to Idle, since a host goes
//! on listening while its neighbor refuses; and only a session that ended in an error waits in Idle.
//! Deliberately absent: DelayOpen, and manual start as different from automatic start.

mod admin;
mod attachment;
mod bfd;
mod collision;
mod damping;
mod gtsm;
mod handover;
mod hints;
mod host;
mod negotiate;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod timer;

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

pub use self::{handover::Handover, negotiate::Ends, state::OPEN_HOLD};
use self::{
    record::Record,
    state::{Connection, State},
    timer::{Backoff, Jitter, Timer, Timers},
};
use crate::{
    bgp::{
        peer::{DownCause, Global, Negotiated, PeerConfig},
        view::{NeighborView, SessionState},
        wire::{
            framing::Kind,
            notification::{Notification, cease},
            update::Update,
        },
    },
    net::{Family, Links},
};

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
    /// A link came up, an address changed: what failed before may work now.
    Nudge,
    /// Links or addresses of this host changed.
    Host(Arc<Links>),
    /// Everything that was sent on this connection is acknowledged: the answer to [`Output::Probe`].
    Acknowledged(Conn),
    /// [`Output::Connect`] succeeded (event 16).
    Connected(Conn, Ends),
    /// It failed (event 18), in words: "connection refused: nothing listens on 10.0.0.1:179".
    ConnectFailed(String),
    /// The listener handed over a connection of this neighbor (event 17).
    Accepted(Conn, Ends),
    /// The driver suspects why nothing works: passwords that differ.
    Suspect(String),
    /// Another neighbor's session ends whenever this one's begins: stay out of it, for this reason.
    Yield(String),
    /// The other one's session is over.
    Resume,
    /// What was read; whole messages are taken off, a piece of one is left.
    Received(Conn, &'a mut BytesMut),
    /// What the neighbor still sent on a connection that we have closed.
    Leftover(&'a mut BytesMut),
    /// The neighbor closed the connection, or it broke; the text of the error if there is one.
    Closed(Conn, Option<String>),
    /// So many octets left for the kernel's send buffer.
    Sent(Conn, usize),
    /// Whether the driver has stopped reading, because nobody takes what it has read. The neighbor's
    /// silence does not count meanwhile.
    Stalled(bool),
    /// Encoded messages of the rib.
    Send { bytes: Bytes, messages: u32 },
    /// Ask the neighbor for its routes again (RFC 2918).
    RequestRefresh(Family),
    /// `max-prefixes` was passed: CEASE/1.
    MaxPrefixes(Family),
    /// All routes take more memory than they may, `budget`, and this neighbor's, `octets`, are those that grew: CEASE/1.
    MemoryLimit { octets: u64, budget: u64 },
    /// BFD lost the neighbor, for this reason: CEASE/10 (RFC 9384).
    BfdDown(&'static str),
    /// No session may begin while BFD is not up, for this reason; `None`: one may. An established one goes on.
    BfdHold(Option<String>),
    /// A deadline of [`Session::poll_timeout`] has come.
    Timeout,
}

/// Why a session is ended by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `neighbor disable`: CEASE/2 with a text (RFC 9003).
    Disabled(Option<String>),
    /// The neighbor left the configuration: CEASE/3.
    Removed,
    /// The neighbor is reached at another address by now: silence where it keeps our routes over a restart, as it may
    /// be about to move its end, too; else CEASE/3.
    Moved,
    /// The daemon stops: silence where the neighbor keeps our routes over a restart, else CEASE/2.
    Leaving,
    /// The machine stops: CEASE/2 for everyone.
    Halting,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Dial the neighbor; answered by `Connected` or `ConnectFailed`.
    Connect,
    /// Stop dialling: no answer came in time, or none is needed any more.
    AbortConnect { timed_out: bool },
    /// Write these octets, in order.
    Transmit(Conn, Bytes),
    /// Close after what was transmitted is written.
    Close(Conn),
    /// The local address of this connection is gone: what is still sent must leave with it nevertheless.
    KeepSource(Conn),
    /// Say [`Input::Acknowledged`] once all that was transmitted is acknowledged by the neighbor's end of TCP.
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

/// Something that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub severity: Severity,
    pub text: String,
}

/// How loud.
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
    /// A dial is under way.
    Connect,
    /// Listens, and dials when ConnectRetry runs out.
    Active,
}

/// Whether the neighbor is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Stopped,
    Disabled,
    Yes,
}

/// One neighbor's conversation.
#[derive(Debug)]
pub struct Session {
    config: Arc<PeerConfig>,
    global: Global,
    running: Running,
    phase: Phase,
    /// At most three: Established, dialled and accepted.
    connections: Vec<Connection>,
    timers: Timers,
    jitter: Jitter,
    connect_backoff: Backoff,
    damping: damping::Damping,
    /// The neighbor refused our optional parameters (RFC 5492 §3).
    plain: bool,
    /// Idle because it sent more than `max-prefixes`, not for an error.
    over_limit: bool,
    /// Why it stays out of the way of another neighbor's session.
    yielding: Option<String>,
    /// Why no session may begin before BFD is up.
    bfd_hold: Option<String>,
    /// Ends by CEASE/7 since the last session.
    collisions: u32,
    /// Dials that are tried again soon.
    brisk: u8,
    /// The host, when it last changed.
    links: Arc<Links>,
    /// The session is to move to `local-address`: until when the one at another address stays for it.
    moving: Option<Instant>,
    /// Connections that are over, but for a last word.
    partings: Vec<host::Parting>,
    /// A session with this neighbor was Established since the daemon started.
    been_up: bool,
    updates: Vec<Update>,
    out: VecDeque<Output>,
    record: Record,
    /// What is known of the neighbor's TTL.
    gtsm: gtsm::Gtsm,
}

/// ConnectRetry is never shorter, whatever the configuration says.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// Why and how a connection ends.
struct End {
    /// Last word to the neighbor.
    notify: Option<Notification>,
    cause: DownCause,
    /// Name of the counter.
    reason: &'static str,
    why: String,
    after: After,
}

/// What comes after the last connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Stay out of it.
    Off,
    /// Listen, dial after a moment: a collision that took both.
    Soon,
    /// Listen, dial after ConnectRetry.
    Retry,
    /// Idle for `idle-hold-time`, longer and longer.
    IdleHold,
    /// Idle for so long.
    Idle(Duration),
}

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
            plain: false,
            over_limit: false,
            yielding: None,
            bfd_hold: None,
            collisions: 0,
            brisk: 0,
            links: Arc::default(),
            moving: None,
            partings: Vec::new(),
            been_up: false,
            updates: Vec::new(),
            out: VecDeque::new(),
            record: Record::new(now),
            gtsm: gtsm::Gtsm::default(),
        }
    }

    /// Feeds one input. Never fails: whatever arrives, there is a next state.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Start => self.start(now),
            Input::Stop(stop) => self.stop(now, stop),
            Input::Reset(text) => self.reset(now, text.as_deref()),
            Input::Configure(config, global) => self.configure(now, config, global),
            Input::Nudge => self.nudge(now),
            Input::Host(links) => self.host_changed(now, links),
            Input::Acknowledged(conn) => self.acknowledged(conn),
            Input::Connected(conn, ends) => self.connected(now, conn, ends),
            Input::ConnectFailed(why) => self.connect_failed(why),
            Input::Accepted(conn, ends) => self.accepted(now, conn, ends),
            Input::Suspect(text) => self.suspect(text),
            Input::Yield(why) => self.yield_to_another(now, why),
            Input::Resume => self.resume(now),
            Input::Received(conn, octets) => self.received(now, conn, octets),
            Input::Leftover(octets) => self.overheard(octets),
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

    /// What the driver must do next; call until `None` after every `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come back with [`Input::Timeout`] if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_connections = self.connections.iter().filter_map(|c| c.timers.next());
        of_connections.chain(self.timers.next()).chain(self.host_timeout()).min()
    }

    /// The state to show: that of the connection that has come farthest.
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
        self.been_up
    }

    /// What the session knows for `show neighbor`. `since` and the prefix counters are the caller's to fill in.
    pub fn view(&self, now: Instant) -> NeighborView {
        record::view(self, now)
    }

    /// Octets transmitted on the Established connection of which the driver has not said that they are sent.
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

    /// Leaves Idle.
    fn begin(&mut self, now: Instant) {
        self.timers.stop(Timer::IdleHold);
        self.over_limit = false;
        self.yielding = None;
        if self.bfd_hold.is_some() {
            self.phase = Phase::Idle;
        } else if self.config.passive {
            self.phase = Phase::Active;
        } else {
            self.dial(now);
        }
    }

    fn dial(&mut self, now: Instant) {
        self.phase = Phase::Connect;
        self.retry_later(now);
        self.out.push_back(Output::Connect);
    }

    fn abort_dial(&mut self, timed_out: bool) {
        if self.phase == Phase::Connect {
            self.phase = Phase::Active;
            self.out.push_back(Output::AbortConnect { timed_out });
        }
    }

    /// ConnectRetry, longer after each failure.
    fn retry_later(&mut self, now: Instant) {
        let base = self.config.connect_retry_time.max(SHORTEST_RETRY);
        let wait = match self.brisk.checked_sub(1) {
            Some(left) => {
                self.brisk = left;
                SHORTEST_RETRY
            }
            None => self.connect_backoff.next(base),
        };
        self.timers.set(Timer::ConnectRetry, now + self.jitter.of(wait));
    }

    fn nudge(&mut self, now: Instant) {
        if self.running == Running::Yes
            && self.connections.is_empty()
            && self.phase != Phase::Idle
            && !self.config.passive
        {
            self.connect_backoff.reset();
            self.abort_dial(false);
            self.dial(now);
        }
    }

    /// Event 16. Where an accepted connection has its OPEN already, ours comes too late: without an OPEN on it, it is
    /// no collision yet, and the neighbor cannot decide otherwise than we do.
    fn connected(&mut self, now: Instant, conn: Conn, ends: Ends) {
        let late = self.connections.iter().any(|c| c.negotiated().is_some() && !self.leaves(c));
        if self.phase != Phase::Connect || late {
            self.abort_dial(false);
            self.out.push_back(Output::Close(conn));
            return;
        }
        self.phase = Phase::Active;
        self.timers.stop(Timer::ConnectRetry);
        self.open(now, Connection::new(now, conn, true, ends));
    }

    /// Event 18. ConnectRetry is running.
    fn connect_failed(&mut self, why: String) {
        if self.phase == Phase::Connect {
            self.phase = Phase::Active;
            if self.connections.is_empty() {
                let why = self.with_hint(why);
                self.complain(why);
            }
        }
    }

    /// Event 17. A disabled neighbor is told (RFC 4486 §4), an idle one is refused in silence (§8.2.2).
    fn accepted(&mut self, now: Instant, conn: Conn, ends: Ends) {
        if self.phase == Phase::Idle {
            if self.running == Running::Disabled {
                let rejected = Notification::cease(cease::REJECTED, None);
                self.out.push_back(Output::Transmit(conn, state::notification(&rejected)));
            }
            self.out.push_back(Output::Close(conn));
            return;
        }
        if let Err(why) = self.check_distance(&ends) {
            self.out.push_back(Output::Close(conn));
            self.refused_distance(now, why);
            return;
        }
        // A neighbor that dials again has given up its last attempt.
        if let Some(older) = self.connections.iter().position(|c| !c.dialled && !c.is_established()) {
            let older = self.connections.remove(older);
            self.out.push_back(Output::Close(older.id));
        }
        if self.phase == Phase::Active {
            self.timers.stop(Timer::ConnectRetry);
        }
        self.open(now, Connection::new(now, conn, false, ends));
    }

    fn suspect(&mut self, text: String) {
        if self.connections.is_empty() {
            self.complain(text);
        }
    }

    /// An attempt failed: loud the first time, quiet while it is the same.
    fn complain(&mut self, why: String) {
        let known = self.record.attempt_failed(&why);
        self.event(if known { Severity::Debug } else { Severity::Warn }, why);
    }

    fn event(&mut self, severity: Severity, text: String) {
        self.out.push_back(Output::Event(Event { severity, text }));
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

    /// Event 9.
    fn connect_retry(&mut self, now: Instant) {
        let was_dialling = self.phase == Phase::Connect;
        self.abort_dial(true);
        if self.connections.iter().any(|c| !self.leaves(c)) {
            return;
        }
        if was_dialling {
            self.no_answer();
        }
        self.dial(now);
    }

    /// Ends one connection: last word, close, news, and what comes after.
    fn end(&mut self, now: Instant, conn: Conn, end: End) {
        let Some(at) = self.connections.iter().position(|c| c.id == conn) else { return };
        let was_up = self.connections[at].is_established();
        if let Some(notification) = &end.notify {
            self.record.notification_sent(notification);
            self.transmit(now, conn, Kind::Notification, state::notification(notification), 1);
        }
        self.connections.remove(at);
        if !self.partings.iter().any(|p| p.conn == conn) {
            self.out.push_back(Output::Close(conn));
        }
        if was_up {
            self.flush_updates();
            self.record.dropped(end.reason, &end.why);
            self.event(Severity::Warn, format!("session down: {}", end.why));
            self.out.push_back(Output::Down { cause: end.cause, why: end.why });
        } else if self.connections.is_empty() && end.after != After::Soon && end.after != After::Off {
            self.complain(end.why);
        } else {
            self.event(Severity::Debug, end.why);
        }
        self.after(now, end.after, was_up);
    }

    fn after(&mut self, now: Instant, after: After, was_up: bool) {
        match after {
            After::Off => {
                self.abort_dial(false);
                self.phase = Phase::Idle;
                self.timers = Timers::default();
            }
            // Another connection goes on.
            _ if self.connections.iter().any(|c| !self.leaves(c)) => {}
            _ if !self.connections.is_empty() => self.move_again(now),
            // The dial under way is the next attempt.
            After::Soon | After::Retry if self.phase == Phase::Connect => {}
            After::Soon | After::Retry => {
                self.phase = Phase::Active;
                if was_up {
                    self.connect_backoff.reset();
                }
                if !self.config.passive && after == After::Retry {
                    self.retry_later(now);
                } else if !self.config.passive {
                    self.timers.set(Timer::ConnectRetry, now + self.jitter.of(SHORTEST_RETRY));
                }
            }
            After::IdleHold => {
                let wait = self.damping.penalty(now, self.config.idle_hold_time);
                self.idle(now, self.config.idle_hold_time.min(wait), wait);
            }
            After::Idle(time) => self.idle(now, time, time),
        }
    }

    /// Idle for about `wait`; a `base` of 0 means not at all: then listen, and dial as usual.
    fn idle(&mut self, now: Instant, base: Duration, wait: Duration) {
        self.abort_dial(false);
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
            State::OpenSent | State::Waiting { .. } | State::OpenConfirm(_) => None,
        })
    }
}
