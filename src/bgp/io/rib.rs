//! The task that owns the [`Rib`](crate::bgp::rib). Peer tasks send [`ToRib`] through one bounded
//! channel; it sends to them through an outbox per peer, which never blocks it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    net::IpAddr,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use hashbrown::HashMap;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    bgp::{
        peer::{Global, Negotiated, PeerConfig, PeerId},
        rib::{
            Counts, DownCause, Event, Exchange, Explained, Input, Rib, RouteView, Walk,
            view::{NeighborDetails, PolicyUse},
        },
        wire::update::Update,
    },
    mailbox,
    net::{Convergence, Diagnostic, Family, Guard, NextHops, Origination, Prefix, Reachable},
    watched::Watched,
};

pub use super::outbox::{Outbox, OutboxSender, ToPeer, outbox};

/// Messages of peer tasks and the control socket to the rib task.
#[derive(Debug)]
pub enum ToRib {
    /// A neighbor was configured, or its settings changed (soft reconfiguration if it is up).
    Peer {
        peer: PeerId,
        config: Arc<PeerConfig>,
    },
    /// A neighbor is no longer configured; its routes are removed.
    Gone {
        peer: PeerId,
    },
    /// It refuses connections.
    Refused {
        peer: PeerId,
    },
    /// Established.
    Up {
        peer: PeerId,
        negotiated: Arc<Negotiated>,
        outbox: OutboxSender,
    },
    /// UPDATEs in order, from one read of the socket at `read_at`. Dropping `room` lets the
    /// neighbor's task read on.
    Updates {
        peer: PeerId,
        updates: Vec<Update>,
        read_at: Instant,
        room: Option<OwnedSemaphorePermit>,
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
    /// Routes over this interface are not used until a message arrives from the neighbor; `None`:
    /// all may be used.
    Held {
        peer: PeerId,
        ifindex: Option<u32>,
    },
    /// One step of an output: see [`Rib::walk`].
    Routes {
        walk: Box<Walk>,
        reply: oneshot::Sender<(Box<Walk>, Vec<RouteView>)>,
    },
    Counts {
        reply: oneshot::Sender<Counts>,
    },
    /// What the table knows about an address, and to whom own prefixes are advertised:
    /// [`Rib::explain`].
    Explain {
        address: IpAddr,
        own: Vec<Prefix>,
        reply: oneshot::Sender<Explained>,
    },
    /// What `show neighbor` has of a neighbor by its name: [`Rib::neighbor_details`].
    Neighbor {
        name: String,
        reply: oneshot::Sender<Option<NeighborDetails>>,
    },
    /// Where each policy is used: [`Rib::policy_uses`].
    Policies {
        reply: oneshot::Sender<BTreeMap<String, PolicyUse>>,
    },
    /// For each prefix the names of the neighbors to which its best path is advertised.
    AdvertisedTo {
        prefixes: Vec<Prefix>,
        reply: oneshot::Sender<Vec<Vec<String>>>,
    },
    /// What is not used and not advertised: [`Rib::exchanges`].
    Exchanges {
        reply: oneshot::Sender<BTreeMap<String, Exchange>>,
    },
    /// Which of these neighbors are the only source of some route: [`Rib::sole_sources`].
    SoleSources {
        leaving: BTreeSet<IpAddr>,
        reply: oneshot::Sender<BTreeSet<IpAddr>>,
    },
}

/// Messages queued for the rib. If the queue is full, peer tasks wait, and TCP slows their
/// neighbors.
pub const RIB_QUEUE_LENGTH: usize = 256;

pub type RibSender = mpsc::Sender<ToRib>;

/// Level-triggered inputs of the rib: the newest value counts.
#[derive(Debug)]
pub struct RibInputs {
    pub global: watch::Receiver<Global>,
    pub originated: watch::Receiver<Arc<BTreeMap<Prefix, Origination>>>,
    pub reachable: watch::Receiver<Arc<Reachable>>,
    pub guard: watch::Receiver<Arc<Guard>>,
    /// Octets that routes may take.
    pub budget: watch::Receiver<u64>,
    /// Receives which prefixes have learned routes, and which no longer have.
    pub learned: Option<mailbox::Sender<Prefix, bool>>,
}

/// Where changes of the forwarding table go: the new next hops of a prefix, or none.
pub type FibSender = mailbox::Sender<Prefix, Option<Arc<NextHops>>>;

/// Callbacks of the rib task to the daemon.
pub struct Hooks {
    /// When the oldest UPDATE was read whose routes are about to be posted: for
    /// `convergence_seconds`.
    pub on_post: Box<dyn Fn(Instant) + Send>,
    /// Most of a large table was removed: memory can be freed.
    pub on_less: Box<dyn Fn() + Send>,
}

/// The running rib.
#[derive(Debug)]
pub struct RibHandle {
    pub sender: RibSender,
    pub convergence: watch::Receiver<Arc<Convergence>>,
    /// Problems of [`Rib::take_problems`].
    pub problems: watch::Receiver<Vec<Diagnostic>>,
    pub task: JoinHandle<()>,
}

/// Starts the task that owns the table. It ends when all senders are gone.
pub fn spawn(inputs: RibInputs, fib: FibSender, hooks: Hooks) -> RibHandle {
    let (sender, inbox) = mpsc::channel(RIB_QUEUE_LENGTH);
    let rib = Rib::new(Instant::now(), inputs.global.borrow().clone());
    let (publish, convergence) = watch::channel(Arc::default());
    let (problems_tx, problems) = watch::channel(Vec::new());
    let task = Task {
        rib,
        inbox,
        inputs,
        fib,
        publish,
        problems: problems_tx,
        outboxes: HashMap::default(),
        routes: 0,
        hooks,
        oldest: None,
        most: 0,
    };
    RibHandle { sender, convergence, problems, task: tokio::spawn(task.run()) }
}

/// Octets of NLRI after which a turn ends, so that the fib installs the first routes while the next
/// are still being read.
const MAX_TURN_OCTETS: usize = 16 * 1024;

/// Routes from which a table counts as large: freeing memory of smaller ones is not worth it.
const LARGE_TABLE: usize = 10_000;

struct Task {
    rib: Rib,
    inbox: mpsc::Receiver<ToRib>,
    inputs: RibInputs,
    fib: FibSender,
    publish: watch::Sender<Arc<Convergence>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    outboxes: HashMap<PeerId, OutboxSender>,
    /// Octets of NLRI in this turn.
    routes: usize,
    hooks: Hooks,
    /// When the first UPDATE of this turn was read.
    oldest: Option<Instant>,
    /// Most routes that there were since memory was given back.
    most: usize,
}

impl Task {
    /// A turn takes the queued messages, within bounds, and passes on all results at once. No timer
    /// delays a single route.
    async fn run(mut self) {
        self.take_inputs();
        let inputs = &self.inputs;
        let mut watched = Watched::default()
            .with((), &inputs.global)
            .with((), &inputs.originated)
            .with((), &inputs.reachable)
            .with((), &inputs.guard)
            .with((), &inputs.budget);
        loop {
            let due = self.rib.poll_timeout();
            // Every arm is cancel safe: channels and watches lose nothing, the timer is set anew.
            tokio::select! {
                biased;
                () = watched.next() => self.take_inputs(),
                () = reached(due) => self.rib.handle(Instant::now(), Input::Timeout),
                message = self.inbox.recv() => match message {
                    Some(message) => self.take_all(message),
                    None => break,
                },
            }
            self.rib.run_decision_process();
            if self.post_to_fib() {
                // The kernel is written to before the neighbors' messages are made.
                after_the_woken().await;
            }
            self.post_to_neighbors();
        }
    }

    fn take_all(&mut self, first: ToRib) {
        self.routes = 0;
        self.take(first);
        while self.routes < MAX_TURN_OCTETS
            && let Ok(message) = self.inbox.try_recv()
        {
            self.take(message);
        }
    }

    fn take(&mut self, message: ToRib) {
        let now = Instant::now();
        match message {
            ToRib::Peer { peer, config } => self.rib.handle(now, Input::Peer { peer, config }),
            ToRib::Gone { peer } => {
                self.outboxes.remove(&peer);
                self.rib.handle(now, Input::Gone { peer });
            }
            ToRib::Refused { peer } => self.rib.handle(now, Input::Refused { peer }),
            ToRib::Up { peer, negotiated, outbox } => {
                self.outboxes.insert(peer, outbox);
                self.rib.handle(now, Input::Up { peer, negotiated });
            }
            ToRib::Updates { peer, updates, read_at, room } => {
                self.oldest.get_or_insert(read_at);
                for update in &updates {
                    self.routes += octets(update);
                    self.rib.handle(now, Input::Update { peer, update });
                }
                drop((updates, room));
            }
            ToRib::Refresh { peer, family, subtype } => {
                self.rib.handle(now, Input::Refresh { peer, family, subtype });
            }
            // The turn that this message began goes on where the outbox was full.
            ToRib::Drained { .. } => {}
            ToRib::Down { peer, cause } => {
                self.outboxes.remove(&peer);
                self.rib.handle(now, Input::Down { peer, cause });
            }
            ToRib::Held { peer, ifindex } => self.rib.handle(now, Input::Held { peer, ifindex }),
            ToRib::Routes { mut walk, reply } => {
                let rows = self.rib.walk(now, &mut walk);
                let _ = reply.send((walk, rows));
            }
            ToRib::Counts { reply } => {
                let _ = reply.send(self.rib.counts());
            }
            ToRib::Explain { address, own, reply } => {
                let _ = reply.send(self.rib.explain(now, address, &own));
            }
            ToRib::Neighbor { name, reply } => {
                let _ = reply.send(self.rib.neighbor_details(now, &name));
            }
            ToRib::Policies { reply } => {
                let _ = reply.send(self.rib.policy_uses());
            }
            ToRib::AdvertisedTo { prefixes, reply } => {
                let _ = reply.send(prefixes.into_iter().map(|p| self.rib.advertised_to(p)).collect());
            }
            ToRib::Exchanges { reply } => {
                let _ = reply.send(self.rib.exchanges());
            }
            ToRib::SoleSources { leaving, reply } => {
                let _ = reply.send(self.rib.sole_sources(&leaving));
            }
        }
    }

    fn take_inputs(&mut self) {
        let (now, inputs) = (Instant::now(), &mut self.inputs);
        let budget = *inputs.budget.borrow_and_update();
        self.rib.handle(now, Input::Budget(budget));
        let global = inputs.global.borrow_and_update().clone();
        self.rib.handle(now, Input::Global(global));
        let guard = inputs.guard.borrow_and_update().clone();
        self.rib.handle(now, Input::Guard(guard));
        let reachable = inputs.reachable.borrow_and_update().clone();
        self.rib.handle(now, Input::Reachable(reachable));
        let originated = inputs.originated.borrow_and_update().clone();
        self.rib.handle(now, Input::Originated(originated));
    }

    /// Posts changes to the fib; returns whether there were any.
    fn post_to_fib(&mut self) -> bool {
        let changes = self.rib.take_fib();
        let oldest = self.oldest.take();
        if changes.is_empty() {
            return false;
        }
        if let Some(read_at) = oldest {
            (self.hooks.on_post)(read_at);
        }
        if let Some(learned) = &self.inputs.learned {
            // Before the kernel has the route: nothing is masqueraded on its way to a neighbor.
            learned.post_all(changes.iter().map(|(prefix, hops)| (*prefix, hops.is_some())));
        }
        self.fib.post_all(changes);
        true
    }

    fn post_to_neighbors(&mut self) {
        for (peer, event) in self.rib.take_events() {
            if let Some(outbox) = self.outboxes.get(&peer) {
                outbox.push(match event {
                    Event::RequestRefresh { family } => ToPeer::RequestRefresh { family },
                    Event::MaxPrefixes { family } => ToPeer::MaxPrefixes { family },
                    Event::MemoryLimit { octets, budget } => ToPeer::MemoryLimit { octets, budget },
                });
            }
        }
        self.fill_outboxes();
        if let Some(convergence) = self.rib.take_convergence() {
            self.publish.send_replace(Arc::new(convergence));
        }
        if let Some(problems) = self.rib.take_problems() {
            self.problems.send_replace(problems);
        }
        self.shrink();
    }

    /// At the end of a turn: the changes for kernel and neighbors were passed on already.
    fn shrink(&mut self) {
        let routes = self.rib.len();
        self.most = self.most.max(routes);
        if self.most >= LARGE_TABLE && routes < self.most / 8 && self.inbox.is_empty() {
            self.most = routes;
            (self.hooks.on_less)();
        }
    }

    /// One batch for each neighbor in turn, so that those at the same position share its encoding.
    fn fill_outboxes(&mut self) {
        let mut behind = self.rib.behind();
        while !behind.is_empty() {
            behind.retain(|peer| {
                let Some(outbox) = self.outboxes.get(peer).filter(|o| o.has_room()) else { return false };
                match self.rib.next_for(*peer) {
                    Some((bytes, messages)) => {
                        outbox.push(ToPeer::Transmit { bytes, messages });
                        true
                    }
                    None => false,
                }
            });
        }
        self.rib.trim();
    }
}

/// Waits for a time, if there is one.
async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets the tasks run that were woken before. Unlike tokio's own yield, it does not poll the
/// sockets.
async fn after_the_woken() {
    let mut waited = false;
    poll_fn(|cx| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

fn octets(update: &Update) -> usize {
    let announced: usize = update.advertised.iter().map(|(_, block)| block.bytes.len()).sum();
    announced + update.withdrawn.iter().map(|block| block.bytes.len()).sum::<usize>()
}
