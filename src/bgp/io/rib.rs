//! The task that owns the [`Rib`](crate::bgp::rib). Peer tasks talk to it through one bounded channel of
//! [`ToRib`]; it answers through an outbox per peer, which never blocks it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    bgp::{
        peer::{Global, Negotiated, PeerConfig, PeerId},
        rib::{Counts, DownCause, RouteFilter, RouteView},
        wire::update::Update,
    },
    mailbox,
    net::{Convergence, Family, Guard, NextHops, Origination, Prefix, Reachable},
};

pub use super::outbox::{Outbox, OutboxSender, ToPeer, outbox};

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

/// Level-triggered inputs of the rib: the newest value counts.
#[derive(Debug)]
pub struct RibInputs {
    pub global: watch::Receiver<Global>,
    pub originated: watch::Receiver<Arc<BTreeMap<Prefix, Origination>>>,
    pub reachable: watch::Receiver<Arc<Reachable>>,
    pub guard: watch::Receiver<Arc<Guard>>,
}

/// Where changes of the forwarding table go: the new next hops of a prefix, or none.
pub type FibSender = mailbox::Sender<Prefix, Option<Arc<NextHops>>>;

/// The running rib.
#[derive(Debug)]
pub struct RibHandle {
    pub sender: RibSender,
    pub convergence: watch::Receiver<Arc<Convergence>>,
    pub task: JoinHandle<()>,
}

/// Starts the task that owns the table. It ends when all senders are gone.
pub fn spawn(_inputs: RibInputs, _fib: FibSender) -> RibHandle {
    let (sender, mut inbox) = mpsc::channel(TO_RIB);
    let (_publish, convergence) = watch::channel(Arc::default());
    let task = tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    RibHandle { sender, convergence, task }
}
