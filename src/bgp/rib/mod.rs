//! The routing table of the node, without I/O.
//!
//! ```text
//!  UPDATE ──► import.rs ──► table.rs ──► best_path.rs ──► nexthop.rs sets ──► changes for the fib
//!             (Adj-RIB-In,               (Loc-RIB)     └─► export.rs, update_group ──► messages
//!              with refused paths)
//! ```
//!
//! [`Rib::handle`] takes inputs and only marks routes as dirty. [`Rib::run_decision_process`]
//! processes each dirty route once, however often it changed. The results are fetched by
//! [`Rib::take_fib`] and [`Rib::next_for`]. So a burst is coalesced, and a single route is not
//! delayed.
//!
//! Deliberately absent: timers between changes (MinRouteAdvertisementInterval is 0), route flap
//! damping (RFC 7196 advises against its defaults), confederations, aggregation.

mod adj_in;
mod advertise;
mod attrs;
mod best_path;
mod decision;
mod details;
mod duplicate;
mod exchange;
mod explain;
mod export;
mod filter;
mod foreign;
mod graceful;
mod import;
mod membership;
mod memory;
mod neighbor;
mod nexthop;
mod originate;
mod paths;
mod peers;
mod policies;
mod recheck;
mod resolve;
mod share;
mod show;
mod sole_source;
mod table;
mod update_group;
pub mod view;
mod walk;

use std::{collections::BTreeMap, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use self::{
    attrs::AttrsTable,
    best_path::BestPath,
    import::Refused,
    memory::Memory,
    nexthop::{Hops, OnLink, Sets},
    paths::PathIds,
    peers::Peer,
    policies::ExportHits,
    table::{PeerNo, RouteNo, Table},
    update_group::UpdateGroup,
};
use crate::{
    bgp::{
        peer::{Global, Negotiated, PeerConfig, PeerId},
        policy::Hits,
        wire::{refresh, update::Update},
    },
    net::{Convergence, Family, Guard, NextHops, Origination, PerFamily, Prefix, Reach, Reachable},
};

pub use self::{
    view::{Counts, Exchange, Explained, NeighborCounts, RouteFilter, RouteView},
    walk::Walk,
};
pub use crate::bgp::peer::DownCause;

/// Paths to one prefix that are accepted from one neighbor (RFC 7911). Each path slows down the
/// decision process for its prefix.
const MAX_PATHS_PER_PEER: usize = 256;

/// Stands for the import result of a path that was removed.
const GONE: u8 = u8::MAX;

/// What happens to the rib.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A neighbor was configured, or its settings changed.
    Peer {
        peer: PeerId,
        config: Arc<PeerConfig>,
    },
    /// A neighbor is no longer configured.
    Gone {
        peer: PeerId,
    },
    /// A neighbor refuses connections.
    Refused {
        peer: PeerId,
    },
    Up {
        peer: PeerId,
        negotiated: Arc<Negotiated>,
    },
    Update {
        peer: PeerId,
        update: &'a Update,
    },
    /// ROUTE-REFRESH with its subtype (RFC 7313 §3.2).
    Refresh {
        peer: PeerId,
        family: Family,
        subtype: u8,
    },
    Down {
        peer: PeerId,
        cause: DownCause,
    },
    /// Paths over this interface are not used until a message arrives from the neighbor; `None`:
    /// all paths may be used.
    Held {
        peer: PeerId,
        ifindex: Option<u32>,
    },
    /// The routes that this node originates.
    Originated(Arc<BTreeMap<Prefix, Origination>>),
    /// Which next hops the host can reach.
    Reachable(Arc<Reachable>),
    Guard(Arc<Guard>),
    Global(Global),
    /// Octets that routes may take.
    Budget(u64),
    /// [`Rib::poll_timeout`] is due.
    Timeout,
}

/// What a neighbor's session has to do besides sending routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    RequestRefresh {
        family: Family,
    },
    /// `max-prefixes` was exceeded, and the session has to be restarted.
    MaxPrefixes {
        family: Family,
    },
    /// The routes exceed the memory budget, and those of this neighbor (`octets`) grew most.
    MemoryLimit {
        octets: u64,
        budget: u64,
    },
}

/// A change of the forwarding table: the new next hops of a prefix, or none.
pub type FibChange = (Prefix, Option<Arc<NextHops>>);

/// The routing table of the node: Adj-RIBs-In, Loc-RIB and Adj-RIBs-Out.
pub struct Rib {
    started: Instant,
    /// Time of the last input.
    now: Instant,
    global: Global,
    /// By [`PeerNo`]; index 0 stands for the node itself.
    peers: Vec<Option<Peer>>,
    numbers: HashMap<PeerId, PeerNo, RandomState>,
    tables: PerFamily<Table>,
    attrs: AttrsTable,
    hops: Hops,
    sets: Sets,
    /// A group keeps its index.
    groups: PerFamily<Vec<Option<UpdateGroup>>>,
    path_ids: PerFamily<PathIds>,
    dirty: PerFamily<Vec<RouteNo>>,
    originated: Arc<BTreeMap<Prefix, Origination>>,
    reachable: Arc<Reachable>,
    /// The guard of the plan.
    planned_guard: Arc<Guard>,
    /// The same, completed with dynamic neighbors.
    guard: Arc<Guard>,
    /// How often the import policy was reapplied to a path.
    reimports: u64,
    /// How often the next hops of all paths of a neighbor were determined again.
    relinked: u64,
    /// By import result: number of paths.
    refused: PerFamily<[u32; Refused::CODES]>,
    export_hits: ExportHits,
    /// For paths of neighbors that are gone.
    no_hits: Hits,
    fib: Vec<FibChange>,
    events: Vec<(PeerId, Event)>,
    decision: BestPath,
    memory: Memory,
    hops_changed: bool,
    convergence_changed: bool,
}

impl Rib {
    pub fn new(now: Instant, global: Global) -> Self {
        Self {
            started: now,
            now,
            global,
            peers: vec![None],
            numbers: HashMap::default(),
            tables: PerFamily::of(Table::new),
            attrs: AttrsTable::default(),
            hops: Hops::default(),
            sets: Sets::default(),
            groups: Default::default(),
            path_ids: Default::default(),
            dirty: Default::default(),
            originated: Arc::default(),
            reachable: Arc::default(),
            planned_guard: Arc::default(),
            guard: Arc::default(),
            reimports: 0,
            relinked: 0,
            refused: PerFamily::both([0; Refused::CODES]),
            export_hits: ExportHits::default(),
            no_hits: Hits::default(),
            fib: Vec::new(),
            events: Vec::new(),
            decision: BestPath::default(),
            memory: Memory::new(now),
            hops_changed: false,
            convergence_changed: false,
        }
    }

    /// Takes one input. Paths are selected by [`Rib::run_decision_process`] only.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Peer { peer, config } => self.configure(now, peer, config),
            Input::Gone { peer } => self.remove(now, peer),
            Input::Up { peer, negotiated } => {
                if let Some(no) = self.number(peer) {
                    self.up(now, no, negotiated);
                }
            }
            Input::Refused { peer } => {
                if let Some(no) = self.number(peer) {
                    self.refused(no);
                }
            }
            Input::Update { peer, update } => {
                if let Some(no) = self.number(peer) {
                    self.update(now, no, update);
                }
            }
            Input::Refresh { peer, family, subtype } => {
                if let Some(no) = self.number(peer) {
                    self.refresh(now, no, family, subtype);
                }
            }
            Input::Down { peer, cause } => {
                if let Some(no) = self.number(peer) {
                    self.down(now, no, cause);
                }
            }
            Input::Held { peer, ifindex } => {
                if let Some(no) = self.number(peer) {
                    self.hold(no, ifindex);
                }
            }
            Input::Originated(originated) => self.originate(now, originated),
            Input::Reachable(reachable) => {
                let before = mem::replace(&mut self.reachable, reachable);
                self.relink(&before);
                self.resolve_all();
                let lost = self.reachable.lost_since(&before);
                if !lost.is_empty() {
                    self.links_lost(&lost, &before);
                }
            }
            Input::Guard(guard) => self.set_guard(guard),
            Input::Global(global) => self.set_global(global),
            Input::Budget(octets) => {
                self.memory.budget = octets;
                self.enforce_memory_budget();
            }
            Input::Timeout => self.timeout(now),
        }
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes for the forwarding table since the last call.
    pub fn take_fib(&mut self) -> Vec<FibChange> {
        mem::take(&mut self.fib)
    }

    /// Events since the last call.
    pub fn take_events(&mut self) -> Vec<(PeerId, Event)> {
        mem::take(&mut self.events)
    }

    /// Neighbors with messages to send.
    pub fn behind(&self) -> Vec<PeerId> {
        let groups = self.groups.iter().flatten().flatten();
        let mut behind: Vec<PeerNo> = groups.flat_map(UpdateGroup::behind).collect();
        behind.sort_unstable();
        behind.dedup();
        behind.into_iter().filter_map(|no| self.peer(no)).map(|p| p.id).collect()
    }

    /// The next complete messages for a neighbor, and their number; `None` if it is up to date.
    pub fn next_for(&mut self, peer: PeerId) -> Option<(Bytes, u32)> {
        let no = self.number(peer)?;
        let groups = self.peer(no)?.groups;
        Family::ALL.into_iter().find_map(|family| {
            let group = self.groups[family].get_mut(groups[family]?)?.as_mut()?;
            group.next(no, &self.tables[family], &self.attrs)
        })
    }

    /// Drops journal entries that were sent to all neighbors; call after a round of
    /// [`Rib::next_for`].
    pub fn trim(&mut self) {
        for family in Family::ALL {
            let mut vacant = Vec::new();
            for group in self.groups[family].iter_mut().flatten() {
                group.trim(&mut self.tables[family], &mut self.path_ids[family], |route| vacant.push(route));
            }
            vacant.into_iter().for_each(|route| self.tables[family].vacate(route));
            let routes = self.tables[family].numbers().len();
            self.groups[family].iter_mut().flatten().for_each(|group| group.fit(routes));
        }
        // Memory that the groups freed no longer counts against the budget.
        self.measure();
    }

    /// When to come back with [`Input::Timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.iter().flatten().filter_map(Peer::deadline).min()
    }

    /// Progress of the initial exchange with each neighbor, if it changed since the last call.
    pub fn take_convergence(&mut self) -> Option<Convergence> {
        mem::take(&mut self.convergence_changed).then(|| self.convergence())
    }

    pub fn convergence(&self) -> Convergence {
        let counted = self.peers.iter().flatten().filter(|p| !p.config.disabled);
        Convergence { neighbors: counted.filter_map(|p| Some((p.config.key.addr()?, p.phase))).collect() }
    }

    fn number(&self, peer: PeerId) -> Option<PeerNo> {
        self.numbers.get(&peer).copied()
    }

    fn peer(&self, no: PeerNo) -> Option<&Peer> {
        self.peers.get(usize::from(no))?.as_ref()
    }

    fn peer_mut(&mut self, no: PeerNo) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(no))?.as_mut()
    }

    /// Seconds since the start, as paths keep them.
    fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_secs() as u32
    }

    fn mark_dirty(&mut self, family: Family, route: RouteNo) {
        let entry = self.tables[family].get_mut(route);
        if !mem::replace(&mut entry.dirty, true) {
            self.dirty[family].push(route);
        }
    }

    // Neighbors.

    fn configure(&mut self, now: Instant, id: PeerId, config: Arc<PeerConfig>) {
        self.convergence_changed = true;
        let Some(no) = self.number(id) else {
            let peer = Some(Peer::new(id, config, now));
            let free = self.peers.iter().skip(1).position(Option::is_none).map(|n| n + 1);
            let n = free.unwrap_or(self.peers.len());
            let Ok(no) = PeerNo::try_from(n) else { return };
            if n == self.peers.len() {
                self.peers.push(peer)
            } else {
                self.peers[n] = peer
            }
            self.numbers.insert(id, no);
            self.refresh_guard();
            return;
        };
        let Some(peer) = self.peer_mut(no) else { return };
        let old = mem::replace(&mut peer.config, config.clone());
        if old.import != config.import {
            peer.import_hits = Hits::new(&config.import);
        }
        if old.export != config.export {
            self.retain_export_hits();
        }
        let Some(peer) = self.peer(no) else { return };
        if !peer.up {
            return;
        }
        let import = |c: &PeerConfig| {
            (c.accept_default, c.is_node, c.allow_own_as, c.as_sets, c.role, c.local_as, c.global_as)
        };
        if import(&old) != import(&config)
            || old.import != config.import
            || old.lacks_policy != config.lacks_policy
        {
            self.reapply_import_policy(Some(no));
        }
        self.regroup(no);
    }

    fn remove(&mut self, now: Instant, id: PeerId) {
        if let Some(no) = self.number(id) {
            self.down(now, no, DownCause::Administrative);
            self.peers[usize::from(no)] = None;
            self.numbers.remove(&id);
            self.retain_export_hits();
            self.convergence_changed = true;
            self.refresh_guard();
        }
    }

    fn set_global(&mut self, global: Global) {
        self.global.restarting = global.restarting;
        if self.global == global {
            return;
        }
        self.global = global;
        self.reapply_import_policy(None);
        for no in 1..self.peers.len() as PeerNo {
            self.regroup(no);
        }
        for family in Family::ALL {
            self.tables[family].numbers().for_each(|route| self.mark_dirty_if_used(family, route));
        }
    }

    fn mark_dirty_if_used(&mut self, family: Family, route: RouteNo) {
        if !self.tables[family].get(route).paths().is_empty() {
            self.mark_dirty(family, route);
        }
    }

    // Update groups.

    // Paths.

    /// The link over which the host reaches the other end of a session, if that is on a connected
    /// subnet.
    fn link_of(&self, session: &Negotiated) -> OnLink {
        match self.reachable.lookup(session.remote_addr) {
            _ if session.ifindex != 0 => OnLink { ifindex: session.ifindex, link_local: true },
            Reach::Connected { ifindex } => OnLink { ifindex, link_local: false },
            _ => OnLink::default(),
        }
    }

    /// Connected subnets changed, so neighbors and their link-local next hops may be on other links
    /// now. Whether the subnet of a global next hop is connected decides whether it or the
    /// link-local address beside it is used.
    fn relink(&mut self, before: &Reachable) {
        let differs = |addr| before.is_connected(addr) != self.reachable.is_connected(addr);
        let moved = self.attrs.paired_next_hops().any(differs);
        for no in 1..self.peers.len() as PeerNo {
            let Some(session) = self.peer(no).filter(|p| p.up).and_then(|p| p.session.clone()) else {
                continue;
            };
            let link = self.link_of(&session);
            if link.ifindex == 0 {
                // The link is down: next hops over it become unresolved by themselves.
                continue;
            }
            let Some(peer) = self.peer_mut(no) else { continue };
            let changed = mem::replace(&mut peer.link, link) != link;
            if changed || moved && !link.link_local {
                self.reintern(no);
            }
        }
    }

    /// Determines the interface of one neighbor's link-local next hops again.
    fn reintern(&mut self, no: PeerNo) {
        self.relinked += 1;
        let mut any = false;
        for family in Family::ALL {
            for route in self.tables[family].numbers() {
                for n in 0..self.tables[family].get(route).paths().len() {
                    let path = self.tables[family].get(route).paths()[n];
                    if path.peer != no {
                        continue;
                    }
                    let attrs = self.attrs.get(path.received).clone();
                    let received = self.intern(&attrs, no);
                    any |= received != path.received;
                    self.attrs.release(path.received);
                    self.tables[family].get_mut(route).paths_mut()[n].received = received;
                }
            }
        }
        if any {
            self.reapply_import_policy(Some(no));
        }
    }

    fn release_orphans(&mut self) {
        for hop in self.attrs.take_orphans() {
            if let Some(set) = self.hops.release(hop) {
                self.sets.release(set);
            }
        }
    }

    // Own routes.

    fn refresh(&mut self, now: Instant, no: PeerNo, family: Family, subtype: u8) {
        let Some(peer) = self.peer(no).filter(|p| p.up) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|s| s.enhanced_refresh);
        match subtype {
            refresh::REQUEST => {
                let group = peer.groups[family];
                if let Some(group) = group.and_then(|n| self.groups[family][n].as_mut()) {
                    group.resend(no, enhanced);
                }
            }
            refresh::BEGIN if enhanced => self.begin_refresh(now, no, family),
            refresh::END if enhanced => self.sweep(no, family),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
