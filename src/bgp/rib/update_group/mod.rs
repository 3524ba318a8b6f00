//! Groups of neighbors that hear the same of one family: one decision, one encoding, one journal.
//!
//! What the group was told last about each route stands in `out`, under the route's number. The journal lists
//! the routes that changed, each live only at its latest place; every member has its own place in it. A new
//! member first walks over `out` as it is (a sweep), then goes on in the journal from where that stood at its
//! start. A member that is slow or stopped simply stays where it is: it is given fewer and fresher changes
//! later, and costs at most one journal entry per route.
//!
//! Neighbors that take several paths for a prefix (RFC 7911) are grouped among themselves. There `out` and the
//! journal speak of paths instead of routes, each in a slot of [`Slots`]; all else is the same.
//!
//! Split horizon is the one thing in which members differ: the neighbor that a route came from is not told it.
//! The encoding of a stretch of the journal is shared by all members at the same place that no route in it came
//! from.
//!
//! Here is what a group holds and how it changes; `send` is what members are sent of it, `upkeep` what is given back.

pub(super) mod rank;
mod send;
mod trim;

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{
    attrs::{AttrsId, AttrsTable},
    export::View,
    paths::{PathIds, SlotNo, Slots},
    table::{PeerNo, RouteNo, Table},
};
use crate::bgp::wire::update::Nlri;
use rank::{Rank, Ranked};

/// Routes or paths in one stretch at most: enough to fill messages, little enough to be fair.
const MAX_BATCH_SLOTS: usize = 4096;

/// Octets of attributes in one stretch, one set beyond: a full stretch of ordinary ones, five routes to a set.
const OCTETS: usize = 256 * 1024;

/// Encoded stretches that are kept for members that come to the same place a little later.
const MAX_CACHED_BATCHES: usize = 16;

/// What the group was told about one route, or about one of its paths.
#[derive(Clone, Copy, Debug, Default)]
struct OutEntry {
    attrs: Option<AttrsId>,
    /// Its latest place in the journal, low 32 bits.
    place: u32,
    /// The neighbor that it came from, who is not told it.
    source: PeerNo,
    state: SlotState,
    /// When it is advertised, and which others it gives way to.
    rank: Rank,
}

/// Whether a slot is in use: advertised, or its withdrawal not yet passed by all. That pins the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SlotState {
    #[default]
    Free,
    InUse,
    /// In use, and the source changed since the last advertisement: the present source may need a withdrawal.
    SourceChanged,
}

impl OutEntry {
    fn in_use(&self) -> bool {
        self.state != SlotState::Free
    }

    fn source_changed(&self) -> bool {
        self.state == SlotState::SourceChanged
    }
}

/// One neighbor in a group.
#[derive(Debug)]
struct Member {
    peer: PeerNo,
    /// No route leads to it by way of itself (RFC 4271 §5.1.3).
    addr: Option<IpAddr>,
    at: At,
    /// Told before anything else: what another group's view had given it (its settings changed).
    withdraw: Vec<Nlri>,
    begin_refresh: bool,
    end_of_rib: bool,
    end_refresh: bool,
}

impl Member {
    /// RFC 4271 §5.1.3: a neighbor is not told a route by way of itself.
    fn is_next_hop(&self, id: AttrsId, attrs: &AttrsTable) -> bool {
        self.addr == Some(attrs.get(id).next_hop.addr)
    }

    /// Whether there is something to tell it.
    fn is_behind(&self, end: u64) -> bool {
        self.at != At::Journal(end) || self.end_of_rib
    }
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Walking over what goes first; the rest of `out` and the journal from `since` on come after.
    Head {
        next: (Rank, SlotNo),
        since: u64,
    },
    /// Walking over `out`; the journal from `since` on comes after.
    Sweep {
        next: SlotNo,
        since: u64,
    },
    Journal(u64),
}

impl At {
    /// At the beginning of all there is.
    fn start(since: u64) -> Self {
        Self::Head { next: (Rank::PodCidr, 0), since }
    }
}

/// What a slot is to hold, with a reference to the attributes.
#[derive(Clone, Copy, Debug)]
struct NewPath {
    attrs: AttrsId,
    source: PeerNo,
    rank: Rank,
}

/// An encoded stretch.
#[derive(Debug)]
struct Batch {
    from: At,
    to: At,
    /// End of the journal when it was encoded.
    end: u64,
    sources: Vec<PeerNo>,
    bytes: Bytes,
    messages: u32,
}

/// Neighbors with the same view.
pub(super) struct UpdateGroup {
    pub(super) view: View,
    adj_rib_out: Vec<OutEntry>,
    /// Where the group is told several paths; else a slot is a route.
    paths: Option<Slots>,
    journal: VecDeque<SlotNo>,
    /// Place of the journal's first entry.
    base: u64,
    members: Vec<Member>,
    batches: VecDeque<Batch>,
    /// What there is to tell, by source.
    by_source: HashMap<PeerNo, u32, RandomState>,
    /// The same by next hop, where it may be a member's address; by source in it, as there are few.
    by_next_hop: HashMap<IpAddr, Vec<(PeerNo, u32)>, RandomState>,
    total: u32,
    /// What no message has room for: not told to anyone.
    too_large: BTreeSet<SlotNo>,
    /// Routes that `max-prefixes-out` keeps back, of several paths at least one.
    withheld: Ranked,
    /// What is advertised and goes first; with a limit all that is advertised.
    ranked: Ranked,
    /// It was said that there are such routes.
    limit_warned: bool,
    /// The only member that there may be, where a limit counts what it is told.
    only_member: Option<(PeerNo, IpAddr)>,
    /// A member is not at the journal's end.
    behind: bool,
}

/// One path for a group, with references to its number and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathOut {
    pub(super) path_id: u32,
    pub(super) attrs: AttrsId,
    pub(super) source: PeerNo,
}

/// What a new member is given in front of and behind the table.
#[derive(Clone, Debug, Default)]
pub(super) struct JoinState {
    pub(super) withdraw: Vec<Nlri>,
    pub(super) end_of_rib: bool,
    /// Its address.
    pub(super) addr: Option<IpAddr>,
}

impl UpdateGroup {
    /// For neighbors with this view; `first` is one of them.
    pub(super) fn new(view: View, first: (PeerNo, IpAddr)) -> Self {
        Self {
            paths: view.sends_paths().then(Slots::default),
            only_member: (view.is_for_one_neighbor() && view.max_prefixes().is_some()).then_some(first),
            view,
            adj_rib_out: Vec::new(),
            journal: VecDeque::new(),
            base: 0,
            members: Vec::new(),
            batches: VecDeque::new(),
            by_source: HashMap::default(),
            by_next_hop: HashMap::default(),
            total: 0,
            too_large: BTreeSet::new(),
            withheld: Ranked::default(),
            ranked: Ranked::default(),
            limit_warned: false,
            behind: false,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.journal.len() as u64
    }

    /// Whether the group is told all paths of a route, by [`UpdateGroup::stage_paths`], rather than one.
    pub(super) fn is_add_path(&self) -> bool {
        self.paths.is_some()
    }

    /// Takes the new best path of a route whose own path has the rank `own`; `now` comes with its own reference to the
    /// attributes.
    pub(super) fn stage(
        &mut self,
        route: RouteNo,
        own: Rank,
        now: Option<(AttrsId, PeerNo)>,
        table: &mut Table,
        attrs: &mut AttrsTable,
    ) {
        self.withheld.forget(route);
        let now = now.map(|(attrs, source)| NewPath { attrs, source, rank: Rank::of_path(source, own) });
        let now = now.filter(|now| self.admits(route, Some(route), *now, attrs));
        if self.enqueue(route, now, attrs) {
            table.get_mut(route).pins += 1;
        }
    }

    /// Whether a path may be advertised: it may not when it leads back to the only member, nor when there are as many as
    /// `max-prefixes-out` allows and none of a later rank gives way. A refused one's reference is given back.
    fn admits(&mut self, route: RouteNo, slot: Option<SlotNo>, now: NewPath, attrs: &mut AttrsTable) -> bool {
        let Some(max) = self.view.max_prefixes() else { return true };
        let back = |(peer, addr)| now.source == peer || attrs.get(now.attrs).next_hop.addr == addr;
        let leads_back = self.only_member.is_some_and(back);
        let told =
            slot.and_then(|slot| self.adj_rib_out.get(slot as usize)).is_some_and(|out| out.attrs.is_some());
        let withheld = !leads_back && !told && self.total >= max && !self.make_room(now.rank, attrs);
        if withheld {
            self.withheld.insert(now.rank, route);
        }
        if leads_back || withheld {
            attrs.release(now.attrs);
        }
        !leads_back && !withheld
    }

    /// Withdraws the last of those that give way to this rank, if there is any.
    fn make_room(&mut self, rank: Rank, attrs: &mut AttrsTable) -> bool {
        let Some((last, slot)) = self.ranked.last().filter(|(last, _)| *last > rank) else { return false };
        self.withheld.insert(last, self.route_of(slot));
        self.enqueue(slot, None, attrs);
        true
    }

    /// A route that was withheld and for which there is room now, or one of a later rank that gives way: it has to be
    /// advertised anew.
    pub(super) fn next_withheld(&mut self) -> Option<RouteNo> {
        let (rank, route) = self.withheld.first()?;
        let has_room = self.view.max_prefixes().is_none_or(|max| self.total < max);
        if !has_room && self.ranked.last().is_none_or(|(last, _)| last <= rank) {
            return None;
        }
        self.withheld.remove(rank, route);
        Some(route)
    }

    /// How many routes are withheld.
    pub(super) fn withheld(&self) -> u64 {
        self.withheld.len() as u64
    }

    /// Who is to be named where routes are withheld: once.
    pub(super) fn take_limit_warning(&mut self) -> Option<Vec<PeerNo>> {
        if self.limit_warned || self.withheld.is_empty() {
            return None;
        }
        self.limit_warned = true;
        Some(self.members.iter().map(|m| m.peer).collect())
    }

    /// Takes all paths of a route as they are now (RFC 7911 §3): those that are gone are withdrawn by their number,
    /// the others replace what was advertised under theirs. The own path has the rank `own`.
    pub(super) fn stage_paths(
        &mut self,
        route: RouteNo,
        own: Rank,
        mut now: Vec<PathOut>,
        table: &mut Table,
        attrs: &mut AttrsTable,
        ids: &mut PathIds,
    ) {
        let Some(slots) = &self.paths else { return };
        let mut before: Vec<_> = slots.of(route).map(|slot| (slots.get(slot).path_id, slot)).collect();
        before.sort_unstable();
        self.withheld.forget(route);
        now.sort_unstable_by_key(|path| path.path_id);
        for &(id, slot) in &before {
            if now.binary_search_by_key(&id, |path| path.path_id).is_err() {
                self.enqueue(slot, None, attrs);
            }
        }
        for path in now {
            let known = before.binary_search_by_key(&path.path_id, |(id, _)| *id).ok().map(|n| before[n].1);
            let rank = Rank::of_path(path.source, own);
            let admitted = NewPath { attrs: path.attrs, source: path.source, rank };
            if !self.admits(route, known, admitted, attrs) {
                ids.release(path.path_id);
                if let Some(slot) = known {
                    self.enqueue(slot, None, attrs);
                }
                continue;
            }
            let slot = match known {
                Some(slot) => {
                    ids.release(path.path_id);
                    slot
                }
                None => {
                    let Some(slots) = &mut self.paths else { return };
                    let (slot, first) = slots.insert(route, path.path_id);
                    table.get_mut(route).pins += u16::from(first);
                    slot
                }
            };
            self.enqueue(slot, Some(admitted), attrs);
        }
    }

    /// Takes what is advertised of a slot from now on; whether it is in use only since now.
    fn enqueue(&mut self, slot: SlotNo, now: Option<NewPath>, attrs: &mut AttrsTable) -> bool {
        let n = slot as usize;
        let old = self.adj_rib_out.get(n).copied().unwrap_or_default();
        let source = now.map_or(old.source, |now| now.source);
        let rank = now.map_or(old.rank, |now| now.rank);
        // One that begins or ceases to go first is in the journal, as a walk may have passed its place.
        let stays = old.rank == rank || old.attrs.is_none() || old.rank.is_first() == rank.is_first();
        if old.attrs == now.map(|now| now.attrs) && old.source == source && stays {
            if let Some(now) = now {
                attrs.release(now.attrs);
                self.rank(slot, old, Some(rank));
                self.adj_rib_out[n].rank = rank;
            }
            return false;
        }
        self.too_large.remove(&slot);
        if n >= self.adj_rib_out.len() {
            self.adj_rib_out.resize(n + 1, OutEntry::default());
        }
        let pending = old.in_use() && self.is_pending(slot, old.place);
        let moved =
            (pending && old.source_changed()) || (old.source != source && (old.attrs.is_some() || pending));
        let state = if moved { SlotState::SourceChanged } else { SlotState::InUse };
        self.rank(slot, old, now.map(|now| now.rank));
        self.adj_rib_out[n] =
            OutEntry { attrs: now.map(|now| now.attrs), place: self.end() as u32, source, state, rank };
        self.journal.push_back(slot);
        self.behind = true;
        self.count(old.attrs.map(|_| old.source), now.map(|_| source));
        let place = now.map(|now| (now.attrs, now.source));
        self.count_next_hops(old.attrs.map(|id| (id, old.source)), place, attrs);
        if let Some(id) = old.attrs {
            attrs.release(id);
        }
        !old.in_use()
    }

    /// Keeps `ranked` as it is to be: what goes first, and all that counts towards a limit.
    fn rank(&mut self, slot: SlotNo, old: OutEntry, now: Option<Rank>) {
        let before = old.attrs.map(|_| old.rank);
        if before == now {
            return;
        }
        let all = self.view.max_prefixes().is_some();
        if let Some(rank) = before {
            self.ranked.remove(rank, slot);
        }
        if let Some(rank) = now.filter(|rank| all || rank.is_first()) {
            self.ranked.insert(rank, slot);
        }
    }

    /// Whether the slot's latest place is still ahead of a member.
    fn is_pending(&self, slot: SlotNo, place: u32) -> bool {
        let ahead = place.wrapping_sub(self.base as u32) as usize;
        self.journal.get(ahead) == Some(&slot)
    }

    fn count(&mut self, before: Option<PeerNo>, after: Option<PeerNo>) {
        if before == after {
            return;
        }
        if let Some(source) = before {
            self.total -= 1;
            if let Some(n) = self.by_source.get_mut(&source) {
                *n -= 1;
            }
        }
        if let Some(source) = after {
            self.total += 1;
            *self.by_source.entry(source).or_default() += 1;
        }
    }

    fn count_next_hops(
        &mut self,
        before: Option<(AttrsId, PeerNo)>,
        after: Option<(AttrsId, PeerNo)>,
        attrs: &AttrsTable,
    ) {
        if self.view.always_own_next_hop() {
            return;
        }
        let place = |(id, source)| (attrs.get(id).next_hop.addr, source);
        let (before, after) = (before.map(place), after.map(place));
        if before == after {
            return;
        }
        if let Some((addr, source)) = before
            && let Some(sources) = self.by_next_hop.get_mut(&addr)
        {
            sources.iter_mut().filter(|(s, _)| *s == source).for_each(|(_, n)| *n -= 1);
            sources.retain(|(_, n)| *n > 0);
            if sources.is_empty() {
                self.by_next_hop.remove(&addr);
            }
        }
        if let Some((addr, source)) = after {
            let sources = self.by_next_hop.entry(addr).or_default();
            match sources.iter_mut().find(|(s, _)| *s == source) {
                Some((_, n)) => *n += 1,
                None => sources.push((source, 1)),
            }
        }
    }

    /// How many paths are advertised to each member. Not counted one by one, as there may be a million.
    pub(super) fn advertised(&self, attrs: &AttrsTable) -> HashMap<PeerNo, u64, RandomState> {
        let back = |m: &Member| {
            let sources = m.addr.and_then(|addr| self.by_next_hop.get(&addr)).into_iter().flatten();
            sources.filter(|(source, _)| *source != m.peer).map(|(_, n)| n).sum::<u32>()
        };
        let others = |m: &Member| self.total - self.by_source.get(&m.peer).copied().unwrap_or(0) - back(m);
        let mut counts: HashMap<_, _, _> =
            self.members.iter().map(|m| (m.peer, u64::from(others(m)))).collect();
        for &slot in &self.too_large {
            let out = &self.adj_rib_out[slot as usize];
            for member in &self.members {
                let told =
                    out.source != member.peer && out.attrs.is_some_and(|id| !member.is_next_hop(id, attrs));
                if let Some(count) = counts.get_mut(&member.peer).filter(|_| told) {
                    *count -= 1;
                }
            }
        }
        counts
    }

    /// What this member is told about a route: the numbers of the paths (0 where there is but one to tell), whom
    /// they came from, and their attributes.
    pub(super) fn advertised_to(&self, peer: PeerNo, route: RouteNo, attrs: &AttrsTable) -> Vec<PathOut> {
        let Ok(n) = self.position(peer) else { return vec![] };
        let told = |slot: SlotNo, path_id| {
            let out = self.adj_rib_out.get(slot as usize).filter(|out| out.source != peer)?;
            let id = out.attrs.filter(|id| !self.members[n].is_next_hop(*id, attrs))?;
            (!self.too_large.contains(&slot)).then_some(PathOut { path_id, attrs: id, source: out.source })
        };
        match &self.paths {
            None => told(route, 0).into_iter().collect(),
            Some(slots) => slots.of(route).filter_map(|slot| told(slot, slots.get(slot).path_id)).collect(),
        }
    }

    /// Whether the group has something to tell a neighbor about a path.
    pub(super) fn advertises(&self, peer: PeerNo, nlri: Nlri, table: &Table) -> bool {
        let slot = table.find(nlri.prefix).and_then(|route| match &self.paths {
            None => Some(route),
            Some(slots) => slots.find(route, nlri.path_id),
        });
        let out = slot.and_then(|slot| self.adj_rib_out.get(slot as usize));
        out.is_some_and(|out| out.attrs.is_some() && out.source != peer)
    }

    /// Paths of which this member may hold something.
    pub(super) fn possibly_advertised<'a>(
        &'a self,
        peer: PeerNo,
        table: &'a Table,
    ) -> impl Iterator<Item = Nlri> + 'a {
        let concerns = move |o: &OutEntry| o.in_use() && (o.source != peer || o.source_changed());
        let slots = self.adj_rib_out.iter().enumerate().filter(move |(_, o)| concerns(o));
        slots.map(|(n, _)| self.nlri(n as SlotNo, table))
    }

    /// What a slot stands for.
    fn nlri(&self, slot: SlotNo, table: &Table) -> Nlri {
        let path_id = self.paths.as_ref().map_or(0, |slots| slots.get(slot).path_id);
        Nlri { path_id, prefix: table.prefix(self.route_of(slot)) }
    }

    fn route_of(&self, slot: SlotNo) -> RouteNo {
        self.paths.as_ref().map_or(slot, |slots| slots.get(slot).route)
    }

    pub(super) fn join(&mut self, peer: PeerNo, state: JoinState) {
        let at = At::start(self.end());
        let JoinState { withdraw, end_of_rib, addr } = state;
        let member =
            Member { peer, addr, at, withdraw, begin_refresh: false, end_of_rib, end_refresh: false };
        match self.position(peer) {
            Ok(n) => self.members[n] = member,
            Err(n) => self.members.insert(n, member),
        }
        self.behind = true;
    }

    /// End-of-RIB goes to this member as soon as it has been told all that there is.
    pub(super) fn queue_end_of_rib(&mut self, peer: PeerNo) {
        if let Ok(n) = self.position(peer) {
            self.members[n].end_of_rib = true;
            self.behind = true;
        }
    }

    /// Members are sorted.
    fn position(&self, peer: PeerNo) -> Result<usize, usize> {
        self.members.binary_search_by_key(&peer, |m| m.peer)
    }

    /// Takes a member out; returns the withdrawals that it was still to be sent from an earlier group.
    /// What it was not told yet of its state.
    pub(super) fn leave(&mut self, peer: PeerNo) -> JoinState {
        let left = self.position(peer).map(|n| self.members.remove(n));
        left.map(|m| JoinState { withdraw: m.withdraw, end_of_rib: m.end_of_rib, addr: m.addr })
            .unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says everything to a member again (RFC 2918), marked as RFC 7313 asks where it was negotiated.
    pub(super) fn resend(&mut self, peer: PeerNo, enhanced: bool) {
        let since = self.end();
        if let Some(member) = self.members.iter_mut().find(|m| m.peer == peer) {
            // What it has not passed of the journal would be forgotten: withdrawals too. So begin no later.
            let since = match member.at {
                At::Journal(place) | At::Head { since: place, .. } | At::Sweep { since: place, .. } => {
                    place.min(since)
                }
            };
            member.at = At::start(since);
            (member.begin_refresh, member.end_refresh) = (enhanced, enhanced);
            self.behind = true;
        }
    }
}
