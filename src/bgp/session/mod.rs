//! One neighbor's conversation (RFC 4271 §8) as a value: octets in, octets out, `now` as an argument.
//!
//! A [`Session`] is one *neighbor*. During a collision (§6.8) it has two connections, one that we dialled
//! ([`Conn::Out`]) and one that we accepted ([`Conn::In`]); after it, one. Framing and codec live inside,
//! because what may be decoded depends on what was negotiated.
//!
//! The driver feeds [`Input`]s, then calls [`Session::poll_output`] until `None`, then comes back with
//! [`Input::Timeout`] when [`Session::poll_timeout`] says so.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    bgp::{
        peer::{DownCause, Global, Negotiated, PeerConfig},
        view::SessionState,
        wire::update::Update,
    },
    net::Family,
};

/// Which of a neighbor's two possible connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conn {
    /// We dialled it.
    Out,
    /// The neighbor dialled it.
    In,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Begin (RFC 4271 §8.1.2, event 1).
    Start,
    /// End, and stay down until [`Input::Start`] (event 2).
    Stop(Stop),
    /// `neighbor reset`: end the session and begin again.
    Reset(Option<String>),
    /// Settings changed. Only what was agreed in the OPEN ends the session.
    Configure(Arc<PeerConfig>, Global),
    /// [`Output::Connect`] succeeded (event 16).
    Connected { local: SocketAddr, remote: SocketAddr, ifindex: u32 },
    /// It failed (event 18), in words: "connection refused: nothing listens on 10.0.0.1:179".
    ConnectFailed { why: String, refused: bool },
    /// The listener handed over a connection of this neighbor (event 17).
    Accepted { local: SocketAddr, remote: SocketAddr, ifindex: u32 },
    /// Octets of one read; whole messages or any piece of one.
    Received(Conn, &'a [u8]),
    /// The neighbor closed the connection, or it broke; the text of the error if there is one.
    Closed(Conn, Option<String>),
    /// So many octets left for the kernel's send buffer.
    Sent(Conn, usize),
    /// Encoded messages of the rib.
    Send { bytes: Bytes, messages: u32 },
    /// Ask the neighbor for its routes again (RFC 2918).
    RequestRefresh(Family),
    /// `max-prefixes` was passed: CEASE/1.
    MaxPrefixes { family: Family, limit: u32 },
    /// BFD lost the neighbor: CEASE/10 (RFC 9384).
    BfdDown,
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
    /// The daemon stops: silence where graceful restart is negotiated, else CEASE/2.
    Leaving,
    /// The machine stops: CEASE/2 for everyone.
    Halting,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Dial the neighbor; answered by `Connected` or `ConnectFailed`.
    Connect,
    /// Stop dialling.
    AbortConnect,
    /// Write these octets, in order.
    Transmit(Conn, Bytes),
    /// Close after what was transmitted is written.
    Close(Conn),
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

/// One neighbor's conversation.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Idle until [`Input::Start`]. `seed` feeds the jitter.
    pub fn new(_now: Instant, _config: Arc<PeerConfig>, _global: Global, _seed: u64) -> Self {
        Self {}
    }

    /// Feeds one input. Never fails: whatever arrives, there is a next state.
    pub fn handle(&mut self, _now: Instant, _input: Input<'_>) {}

    /// What the driver must do next; call until `None` after every `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to come back with [`Input::Timeout`] if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn state(&self) -> SessionState {
        SessionState::Idle
    }
}

/// The longest back-off of ConnectRetry and IdleHold.
pub const MAX_BACKOFF: Duration = Duration::from_secs(120);
