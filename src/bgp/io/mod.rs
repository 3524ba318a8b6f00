//! Sockets, tasks and the clock of BGP. Decides nothing.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod bfd;
mod listener;
mod manager;
pub mod outbox;
pub mod pages;
mod peer;
pub mod rib;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

pub use tcp::reserved_files;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    bgp::{
        io::rib::RibSender,
        peer::{Global, PeerConfig, PeerKey},
        session::Event,
        view::NeighborView,
    },
    liveness,
    net::{Convergence, Diagnostic, Links, Prefix, Reason, Subject},
};

/// Which other processes listen on these TCP ports. Inside of the sandbox that cannot be seen.
pub fn owners_of(listen: &[SocketAddr]) -> Owners {
    let ports: BTreeSet<_> = listen.iter().map(SocketAddr::port).collect();
    ports.into_iter().filter_map(|port| Some((port, listener::owner(port)?))).collect()
}

/// Processes by the port on which they listen: `bgpd (pid 812)`.
pub type Owners = BTreeMap<u16, String>;

/// The problem of an address that another process listens on.
pub fn port_taken(addr: SocketAddr, key: &str, error: &io::Error, owner: Option<&String>) -> Diagnostic {
    let (who, stop) = match owner {
        Some(owner) => (format!("{owner} listens there"), format!("stop {owner}")),
        None => (error.to_string(), format!("see `ss -ltnp 'sport = :{}'`", addr.port())),
    };
    Diagnostic::new(
        Reason::PortTaken,
        Subject::port(format!("TCP {addr}")),
        format!("cannot listen on TCP {addr}: {who}"),
        format!("{stop}, or set {key} to another address; it is tried again by itself"),
    )
}

/// The configured sessions: a snapshot, made by `daemon` from each new plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub global: Global,
    pub listen: Vec<SocketAddr>,
    pub peers: BTreeMap<PeerKey, Arc<PeerConfig>>,
    pub ranges: Vec<Range>,
    /// Interfaces on which a connection from an unknown link-local address may be that of an
    /// unnumbered neighbor.
    pub unnumbered: BTreeSet<String>,
}

/// `[[bgp.listen-range]]`: connections from `prefix` make dynamic neighbors with the settings of
/// `template`.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub prefix: Prefix,
    pub limit: usize,
    pub template: Arc<PeerConfig>,
}

/// Requests to the peer manager.
#[derive(Debug)]
pub enum ToPeers {
    /// The views of all sessions; the rib fills in the prefix counters.
    Status { reply: oneshot::Sender<Vec<NeighborView>> },
    /// `neighbor reset|refresh|disable|enable`.
    Act { neighbor: PeerKey, act: Act, reply: oneshot::Sender<Result<(), UnknownNeighbor>> },
    /// A link came up or an address appeared: retry neighbors without a session now.
    RetryNow,
}

/// An action on one neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Reset { message: Option<String> },
    Refresh,
    Disable { message: Option<String> },
    Enable,
}

/// There is no such neighbor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no neighbor {0}; `routelet show neighbors` lists them")]
pub struct UnknownNeighbor(pub String);

/// Why all sessions are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Only the daemon stops: neighbors with graceful restart see the connection close, others get
    /// CEASE/2.
    Daemon,
    /// The machine stops: CEASE/2 for everyone.
    Machine,
}

/// An event of a neighbor.
#[derive(Clone, Debug)]
pub struct PeerEvent {
    pub neighbor: PeerKey,
    pub event: Event,
}

/// Events that a slow subscriber may be behind before it misses some.
const MAX_QUEUED_EVENTS: usize = 256;

/// Queued unknown addresses; one that does not fit connects again.
const MAX_QUEUED_STRANGERS: usize = 64;

/// The running peer manager.
#[derive(Debug)]
pub struct Handle {
    pub requests: mpsc::Sender<ToPeers>,
    /// Subscribe for the events of sessions.
    pub events: broadcast::Sender<PeerEvent>,
    /// Addresses that connected and are no neighbors, as many as fit, for the choice of neighbors.
    pub strangers: Option<mpsc::Receiver<IpAddr>>,
    /// The same on interfaces of unnumbered neighbors: the index of the interface, and the
    /// link-local address.
    pub on_link: Option<mpsc::Receiver<(u32, Ipv6Addr)>>,
    /// Addresses on which it cannot listen.
    pub problems: watch::Receiver<Vec<Diagnostic>>,
    leave: oneshot::Sender<Leaving>,
    task: JoinHandle<()>,
}

impl Handle {
    /// Closes all sessions and waits until the last messages are written (2 s at most).
    pub async fn shutdown(self, leaving: Leaving) {
        let _ = self.leave.send(leaving);
        let _ = self.task.await;
    }

    /// Resolves if the task ended by itself, which is a bug.
    pub async fn failed(&mut self) {
        let _ = (&mut self.task).await;
    }
}

/// Starts the peer manager: listeners, one task per neighbor. `host`: the links and addresses of
/// this host; `convergence`: how far the table has each neighbor's routes; `liveness`: for
/// neighbors with BFD; `owners`: of the ports that are taken.
pub fn spawn(
    wanted: watch::Receiver<Arc<Wanted>>,
    host: watch::Receiver<Arc<Links>>,
    convergence: watch::Receiver<Arc<Convergence>>,
    rib: RibSender,
    liveness: liveness::Client,
    owners: Owners,
) -> Handle {
    let (requests, inbox) = mpsc::channel(16);
    let (events, _) = broadcast::channel(MAX_QUEUED_EVENTS);
    let (leave, left) = oneshot::channel();
    let (called, strangers) = mpsc::channel(MAX_QUEUED_STRANGERS);
    let (met, on_link) = mpsc::channel(MAX_QUEUED_STRANGERS);
    let (problems_tx, problems) = watch::channel(Vec::new());
    let ports = listener::Ports { problems: problems_tx, owners: Arc::new(owners) };
    let inputs = (host, convergence, liveness, ports);
    let task = tokio::spawn(manager::run(wanted, inputs, rib, events.clone(), (called, met), inbox, left));
    Handle { requests, events, strangers: Some(strangers), on_link: Some(on_link), problems, leave, task }
}
