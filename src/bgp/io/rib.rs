//! The task that owns the [`Rib`](crate::bgp::rib). Peer tasks talk to it through one bounded channel of
//! [`ToRib`]; it answers through an outbox per peer, which never blocks it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    bgp::{
        peer::{Negotiated, PeerConfig, PeerId},
        rib::{Counts, DownCause, RouteFilter, RouteView},
        wire::update::Update,
    },
    net::Family,
};

/// What peer tasks and the control socket say to the rib task.
#[derive(Debug)]
pub enum ToRib {
    /// A neighbor is in the plan (again): counted as expected, its settings taken over (soft
    /// reconfiguration when it is up).
    Peer {
        peer: PeerId,
        config: Arc<PeerConfig>,
    },
    /// A neighbor left the plan; its routes go.
    Gone {
        peer: PeerId,
    },
    /// Established.
    Up {
        peer: PeerId,
        negotiated: Arc<Negotiated>,
        outbox: OutboxSender,
    },
    /// UPDATEs in order, from one read of the socket at `read_at`.
    Updates {
        peer: PeerId,
        updates: Vec<Update>,
        read_at: Instant,
    },
    /// ROUTE-REFRESH (RFC 2918, subtype of RFC 7313: 0 request, 1 begin, 2 end).
    Refresh {
        peer: PeerId,
        family: Family,
        subtype: u8,
    },
    /// The outbox was full and has room again.
    Drained {
        peer: PeerId,
    },
    /// No longer Established.
    Down {
        peer: PeerId,
        cause: DownCause,
    },
    Routes {
        filter: RouteFilter,
        reply: oneshot::Sender<Vec<RouteView>>,
    },
    Counts {
        reply: oneshot::Sender<Counts>,
    },
}

/// Room for messages waiting in front of the rib; a peer task that finds it full waits, and TCP slows its
/// neighbor.
pub const TO_RIB: usize = 256;

pub type RibSender = mpsc::Sender<ToRib>;

/// What the rib tells one peer's task. The outbox holds a bounded number of octets; when it is full the rib
/// remembers what is left to say and goes on when told `Drained`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPeer {
    /// Whole encoded messages, shared by all peers of a group; `messages` for the counters.
    Transmit { bytes: Bytes, messages: u32 },
    /// Ask the neighbor for its routes again.
    RequestRefresh { family: Family },
    /// `max-prefixes` was passed: CEASE/1, idle for `max-prefixes-restart`.
    MaxPrefixes { family: Family },
}

/// The rib's end of an outbox.
#[derive(Debug)]
pub struct OutboxSender {}

/// The peer task's end of an outbox.
#[derive(Debug)]
pub struct Outbox {}
