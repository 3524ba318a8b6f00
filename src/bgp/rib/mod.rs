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
mod memory;
mod nexthop;
mod paths;
mod peers;
mod recheck;
mod resolve;
mod share;
mod show;
mod sole_source;
mod table;
mod update_group;
pub mod view;
mod walk;

use std::{borrow::Cow, collections::BTreeMap, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use self::{
    attrs::{AttrsId, AttrsTable},
    best_path::BestPath,
    export::View,
    import::{Refused, Speaker},
    memory::Memory,
    nexthop::{Hops, OnLink, Sets},
    paths::PathIds,
    peers::Peer,
    table::{OWN, Path, PeerNo, RouteNo, Table},
    update_group::{JoinState, UpdateGroup, rank::Rank},
};
pub use self::{
    view::{Counts, Exchange, Explained, NeighborCounts, RouteFilter, RouteView},
    walk::Walk,
};
pub use crate::bgp::peer::DownCause;
use crate::{
    bgp::{
        peer::{Global, MaxPrefixesAction, Negotiated, PeerConfig, PeerId},
        wire::{
            attr::{AsPath, Attrs, ExtraAttrs, Origin, PathNextHop},
            refresh,
            update::{Nlri, Update},
        },
    },
    net::{Convergence, Family, Guard, NextHops, Origination, Prefix, Reach, Reachable},
};

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
    tables: [Table; 2],
    attrs: AttrsTable,
    hops: Hops,
    sets: Sets,
    /// By family; a group keeps its index.
    groups: [Vec<Option<UpdateGroup>>; 2],
    /// By family.
    path_ids: [PathIds; 2],
    dirty: [Vec<RouteNo>; 2],
    originated: Arc<BTreeMap<Prefix, Origination>>,
    reachable: Arc<Reachable>,
    /// The guard of the plan.
    planned_guard: Arc<Guard>,
    /// The same, completed with dynamic neighbors.
    guard: Arc<Guard>,
    /// How often the import policy was reapplied to a path.
    reimports: u64,
    /// By family and import result: number of paths.
    refused: [[u32; Refused::CODES]; 2],
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
            tables: Family::ALL.map(Table::new),
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
            refused: [[0; Refused::CODES]; 2],
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
                let subnets = |r: &Reachable| r.connected(Family::Ipv6Unicast).collect::<Vec<_>>();
                let moved = subnets(&self.reachable) != subnets(&reachable);
                let before = mem::replace(&mut self.reachable, reachable);
                self.relink(moved);
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
            let group = self.groups[family.index()].get_mut(groups[family.index()]?)?.as_mut()?;
            group.next(no, &self.tables[family.index()], &self.attrs)
        })
    }

    /// Drops journal entries that were sent to all neighbors; call after a round of
    /// [`Rib::next_for`].
    pub fn trim(&mut self) {
        for family in Family::ALL {
            let f = family.index();
            let mut vacant = Vec::new();
            for group in self.groups[f].iter_mut().flatten() {
                group.trim(&mut self.tables[f], &mut self.path_ids[f], |route| vacant.push(route));
            }
            vacant.into_iter().for_each(|route| self.tables[f].vacate(route));
            let routes = self.tables[f].numbers().len();
            self.groups[f].iter_mut().flatten().for_each(|group| group.fit(routes));
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
        let entry = self.tables[family.index()].get_mut(route);
        if !mem::replace(&mut entry.dirty, true) {
            self.dirty[family.index()].push(route);
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
            self.tables[family.index()].numbers().for_each(|route| self.mark_dirty_if_used(family, route));
        }
    }

    fn mark_dirty_if_used(&mut self, family: Family, route: RouteNo) {
        if !self.tables[family.index()].get(route).paths().is_empty() {
            self.mark_dirty(family, route);
        }
    }

    // Update groups.

    /// Moves an established neighbor to the update groups that fit its settings. If it was in
    /// another group, routes that the new one does not advertise are withdrawn, and all others are
    /// advertised again.
    fn regroup(&mut self, no: PeerNo) {
        for family in Family::ALL {
            let f = family.index();
            let Some(peer) = self.peer(no).filter(|p| p.up) else { return };
            let Some(session) = peer.session.clone().filter(|s| s.has(family)) else { continue };
            let view = View::new(family, &peer.config, &session, &self.global);
            let old = peer.groups[f];
            if old.and_then(|n| self.groups[f][n].as_ref()).is_some_and(|g| g.view == view) {
                continue;
            }
            // RFC 4724 §2: useful to everyone, whether it restarts gracefully or not.
            let first = old.is_none();
            // Before the old group is removed, so that its paths keep their identifiers.
            let n = self.group_of(view, (no, session.remote_addr));
            let (advertised, pending) = self.leave_group(no, family);
            let end_of_rib_deferred = first && self.is_deferred(family);
            let end_of_rib = pending || (first && !end_of_rib_deferred);
            let Some(group) = self.groups[f][n].as_mut() else { continue };
            let table = &self.tables[f];
            let gone = advertised.into_iter().filter(|nlri| !group.advertises(no, *nlri, table));
            let addr = Some(session.remote_addr);
            group.join(no, JoinState { withdraw: gone.collect(), end_of_rib, addr });
            if let Some(peer) = self.peer_mut(no) {
                peer.groups[f] = Some(n);
                peer.end_of_rib_deferred[f] |= end_of_rib_deferred;
            }
        }
    }

    /// The group with this view, made and filled if there is none.
    fn group_of(&mut self, view: View, first: (PeerNo, std::net::IpAddr)) -> usize {
        let family = view.family;
        let f = family.index();
        let same = |g: &Option<UpdateGroup>| g.as_ref().is_some_and(|g| g.view == view);
        if let Some(n) = self.groups[f].iter().position(same) {
            return n;
        }
        let n = self.groups[f].iter().position(Option::is_none).unwrap_or(self.groups[f].len());
        if n == self.groups[f].len() {
            self.groups[f].push(None);
        }
        let mut group = UpdateGroup::new(view, first);
        let mut memo = None;
        for route in self.tables[f].numbers() {
            self.stage_exports(&mut group, family, route, &mut memo);
        }
        if let Some((_, Some(id))) = memo {
            self.attrs.release(id);
        }
        // The journal is not needed: new members start with a walk over the table.
        group.trim(&mut self.tables[f], &mut self.path_ids[f], |_| {});
        self.groups[f][n] = Some(group);
        n
    }

    /// Removes a neighbor from its group. Returns what may have been advertised to it, and whether
    /// End-of-RIB had not been sent yet.
    fn leave_group(&mut self, no: PeerNo, family: Family) -> (Vec<Nlri>, bool) {
        let f = family.index();
        let none = (Vec::new(), false);
        let Some(n) = self.peer_mut(no).and_then(|p| p.groups[f].take()) else { return none };
        let Some(group) = self.groups[f][n].as_mut() else { return none };
        let mut advertised: Vec<Nlri> = group.possibly_advertised(no, &self.tables[f]).collect();
        let left = group.leave(no);
        advertised.extend(left.withdraw);
        if group.is_empty() {
            let mut vacant = Vec::new();
            let ids = &mut self.path_ids[f];
            group.dissolve(&mut self.tables[f], &mut self.attrs, ids, |route| vacant.push(route));
            self.groups[f][n] = None;
            vacant.into_iter().for_each(|route| self.tables[f].vacate(route));
        }
        (advertised, left.end_of_rib)
    }

    // Paths.

    fn update(&mut self, now: Instant, no: PeerNo, update: &Update) {
        let since = self.clock(now);
        self.sample_growth(now);
        let Some(peer) = self.peer_mut(no).filter(|p| p.up && !p.over_limit) else { return };
        let empty = update.advertised.is_empty() && update.withdrawn.is_empty();
        if !empty {
            peer.last_update = now;
        }
        let (Some(session), config) = (peer.session.clone(), peer.config.clone()) else { return };
        for block in &update.withdrawn {
            block.iter().for_each(|nlri| self.withdraw(no, nlri));
        }
        let global = self.global.clone();
        let from = Speaker { config: &config, session: &session, global: &global };
        for (attrs, block) in &update.advertised {
            let received = self.intern(attrs, no);
            let arrived = from.attributes(attrs);
            for nlri in block.iter() {
                self.announce(no, &from, nlri, received, &arrived, since);
                if self.peer(no).is_none_or(|p| p.over_limit) {
                    break;
                }
            }
            self.attrs.release(received);
            self.enforce_memory_budget();
            if self.peer(no).is_none_or(|p| p.over_limit) {
                return;
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(no, family);
        }
    }

    fn intern(&mut self, attrs: &Arc<Attrs>, from: PeerNo) -> AttrsId {
        let link = self.peer(from).map(|p| p.link).unwrap_or_default();
        let ifindex = nexthop::interface(&attrs.next_hop, link, &self.reachable);
        self.attrs.intern(attrs, ifindex, from)
    }

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
    /// now. `moved`: IPv6 subnets changed as well, which decides whether the global or the
    /// link-local address of a next hop is used.
    fn relink(&mut self, moved: bool) {
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
        let mut any = false;
        for family in Family::ALL {
            let f = family.index();
            for route in self.tables[f].numbers() {
                for n in 0..self.tables[f].get(route).paths().len() {
                    let path = self.tables[f].get(route).paths()[n];
                    if path.peer != no {
                        continue;
                    }
                    let attrs = self.attrs.get(path.received).clone();
                    let received = self.intern(&attrs, no);
                    any |= received != path.received;
                    self.attrs.release(path.received);
                    self.tables[f].get_mut(route).paths_mut()[n].received = received;
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

    /// Applies import to a received path: the effective attributes with a reference, and the code
    /// of the refusal or 0.
    fn imported(
        &mut self,
        no: PeerNo,
        from: &Speaker<'_>,
        prefix: Prefix,
        received: AttrsId,
        arrived: &Result<Cow<'_, Attrs>, Refused>,
    ) -> (AttrsId, u8) {
        let verdict = match arrived {
            Err(why) => Err(*why),
            Ok(attrs) => {
                let mut attrs = Cow::Borrowed(&**attrs);
                let accepted = from.prefix(prefix, &self.guard, &mut attrs);
                accepted.map(|()| matches!(attrs, Cow::Owned(_)).then(|| attrs.into_owned()))
            }
        };
        match (verdict, arrived) {
            (Err(why), _) => (self.attrs.acquire(received), why.code()),
            (Ok(Some(changed)), _) => (self.intern(&Arc::new(changed), no), 0),
            (Ok(None), Ok(Cow::Owned(changed))) => (self.intern(&Arc::new(changed.clone()), no), 0),
            (Ok(None), _) => (self.attrs.acquire(received), 0),
        }
    }

    fn announce(
        &mut self,
        no: PeerNo,
        from: &Speaker<'_>,
        nlri: Nlri,
        received: AttrsId,
        arrived: &Result<Cow<'_, Attrs>, Refused>,
        since: u32,
    ) {
        let family = nlri.prefix.family();
        let f = family.index();
        let (effective, refused) = self.imported(no, from, nlri.prefix, received, arrived);
        let route = self.tables[f].entry(nlri.prefix);
        let before = self.tables[f].get_mut(route).find(no, nlri.path_id).map(|old| old.refused);
        if before.is_none()
            && (self.exceeds(no, family) || self.at_path_limit(no, family, route) || self.has_no_room(no))
        {
            self.attrs.release(effective);
            self.tables[f].vacate(route);
            return;
        }
        let refused = self.share_of(no, nlri.prefix, before, refused);
        let path = Path { peer: no, bits: 0, refused, path_id: nlri.path_id, received, effective, since };
        let entry = self.tables[f].get_mut(route);
        let Some(old) = entry.find(no, nlri.path_id) else {
            self.tables[f].push(route, path);
            self.attrs.acquire(received);
            self.count(no, f, None, Some(refused));
            self.mark_dirty(family, route);
            return;
        };
        old.bits &= !Path::STALE;
        let same = (old.received, old.effective, old.refused) == (received, effective, refused);
        if same && !old.has(Path::LONG_LIVED) {
            self.attrs.release(effective);
            return;
        }
        let before = mem::replace(old, Path { bits: old.bits & !Path::LONG_LIVED, ..path });
        self.attrs.acquire(received);
        self.attrs.release(before.received);
        self.attrs.release(before.effective);
        self.count(no, f, Some(before.refused), Some(refused));
        self.mark_dirty(family, route);
    }

    fn withdraw(&mut self, no: PeerNo, nlri: Nlri) {
        let family = nlri.prefix.family();
        if let Some(route) = self.tables[family.index()].find(nlri.prefix) {
            self.remove_paths(family, route, |p| p.peer == no && p.path_id == nlri.path_id);
        }
    }

    /// Removes the paths of a route that `goes` picks.
    fn remove_paths(&mut self, family: Family, route: RouteNo, goes: impl FnMut(&Path) -> bool) {
        let f = family.index();
        let mut gone: Vec<Path> = Vec::new();
        self.tables[f].extract(route, goes, |path| gone.push(path));
        if gone.is_empty() {
            return;
        }
        for path in gone {
            self.attrs.release(path.received);
            self.attrs.release(path.effective);
            self.count(path.peer, f, Some(path.refused), None);
            if path.peer != OWN {
                let prefix = self.tables[f].prefix(route);
                self.share_of(path.peer, prefix, Some(path.refused), GONE);
            }
        }
        self.mark_dirty(family, route);
    }

    /// Updates the counters after the import result of a path changed from `before` to `after`;
    /// `None`: the path did not exist.
    fn count(&mut self, no: PeerNo, f: usize, before: Option<u8>, after: Option<u8>) {
        let now = self.now;
        for (verdict, difference) in [(before, -1), (after, 1)] {
            if let Some(counter) = verdict.and_then(|v| self.refused[f].get_mut(usize::from(v))) {
                *counter = counter.saturating_add_signed(difference);
            }
        }
        if let Some(peer) = self.peer_mut(no) {
            peer.count(now, f, before, after);
        }
    }

    /// Whether one more prefix exceeds the neighbor's limit (RFC 4486 §3). Logs it once.
    fn exceeds(&mut self, no: PeerNo, family: Family) -> bool {
        let f = family.index();
        let Some(peer) = self.peer_mut(no) else { return no != OWN };
        if peer.received[f] < peer.config.max_prefixes {
            return false;
        }
        let (neighbor, max) = (peer.name(), peer.config.max_prefixes);
        if peer.config.max_prefixes_action == MaxPrefixesAction::Warn {
            if !mem::replace(&mut peer.warned[f], true) {
                tracing::warn!(%neighbor, %family, max, "prefix limit exceeded; accepting further prefixes as max-prefixes-action is warn");
            }
            return false;
        }
        peer.over_limit = true;
        let id = peer.id;
        self.events.push((id, Event::MaxPrefixes { family }));
        tracing::warn!(%neighbor, %family, max, "prefix limit exceeded; restarting the session");
        true
    }

    /// Whether the memory budget is exceeded and this neighbor's session was chosen to be closed.
    fn has_no_room(&mut self, no: PeerNo) -> bool {
        self.enforce_memory_budget();
        self.peer(no).is_some_and(|p| p.over_limit)
    }

    /// Whether a neighbor already has [`MAX_PATHS_PER_PEER`] paths to a prefix. Logs it once.
    fn at_path_limit(&mut self, no: PeerNo, family: Family, route: RouteNo) -> bool {
        let paths = self.tables[family.index()].get(route).paths();
        if paths.len() < MAX_PATHS_PER_PEER
            || paths.iter().filter(|p| p.peer == no).count() < MAX_PATHS_PER_PEER
        {
            return false;
        }
        let prefix = self.tables[family.index()].prefix(route);
        if let Some(peer) = self.peer_mut(no)
            && !mem::replace(&mut peer.path_limit_warned, true)
        {
            let neighbor = peer.name();
            tracing::warn!(
                %neighbor, %prefix, max = MAX_PATHS_PER_PEER,
                "too many paths to one prefix, ignoring further ones; let the neighbor send fewer, \
                 or set add-paths = \"none\""
            );
        }
        true
    }

    /// Applies import again to the paths of one neighbor, or of all.
    fn reapply_import_policy(&mut self, only: Option<PeerNo>) {
        for family in Family::ALL {
            for route in self.tables[family.index()].numbers() {
                self.reapply_import_to_route(family, route, only);
            }
        }
    }

    // Own routes.

    fn originate(&mut self, now: Instant, new: Arc<BTreeMap<Prefix, Origination>>) {
        let since = self.clock(now);
        let old = mem::replace(&mut self.originated, new.clone());
        for prefix in old.keys().filter(|p| !new.contains_key(p)) {
            if let Some(route) = self.tables[prefix.family().index()].find(*prefix) {
                self.remove_paths(prefix.family(), route, |p| p.peer == OWN);
            }
        }
        let mut changed: Vec<_> = new.iter().filter(|(p, o)| old.get(p) != Some(o)).collect();
        changed.sort_by_key(|(_, o)| Rank::of(o.source));
        for (prefix, origination) in changed {
            let id = self.attrs.intern(&Arc::new(own_attrs(*prefix, origination)), 0, OWN);
            let f = prefix.family().index();
            let route = self.tables[f].entry(*prefix);
            self.remove_paths(prefix.family(), route, |p| p.peer == OWN);
            self.attrs.acquire(id);
            let path =
                Path { peer: OWN, bits: 0, refused: 0, path_id: 0, received: id, effective: id, since };
            self.tables[f].push(route, path);
            self.mark_dirty(prefix.family(), route);
        }
    }

    fn refresh(&mut self, now: Instant, no: PeerNo, family: Family, subtype: u8) {
        let f = family.index();
        let Some(peer) = self.peer(no).filter(|p| p.up) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|s| s.enhanced_refresh);
        match subtype {
            refresh::REQUEST => {
                let group = peer.groups[f];
                if let Some(group) = group.and_then(|n| self.groups[f][n].as_mut()) {
                    group.resend(no, enhanced);
                }
            }
            refresh::BEGIN if enhanced => self.begin_refresh(now, no, family),
            refresh::END if enhanced => self.sweep(no, family),
            _ => {}
        }
    }
}

/// The attributes of an originated route before export.
fn own_attrs(prefix: Prefix, origination: &Origination) -> Attrs {
    let addr = match prefix.family() {
        Family::Ipv4Unicast => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6Unicast => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let extra = ExtraAttrs {
        ext_communities: origination.ext_communities.clone(),
        large_communities: origination.large_communities.clone(),
        ..ExtraAttrs::default()
    };
    Attrs {
        origin: Origin::Igp,
        as_path: AsPath::empty(),
        next_hop: PathNextHop { addr, link_local: None },
        med: origination.med,
        local_pref: None,
        communities: origination.communities.clone().into(),
        extra: (extra != ExtraAttrs::default()).then(|| Box::new(extra)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
