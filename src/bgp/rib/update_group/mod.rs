//! Update groups: neighbors to which the same routes of one family are advertised share the export,
//! the encoding and the journal.
//!
//! `adj_rib_out` holds what the group advertises of each route, by route number. The journal lists
//! the routes that changed; only the latest entry of a route counts. Each member has its own
//! position in the journal. A new member first gets all of `adj_rib_out` (a sweep), then continues
//! in the journal from its end at that time. A member that reads slowly stays where it is: it gets
//! fewer and newer changes later, and costs at most one journal entry per route.
//!
//! Neighbors to which several paths of a prefix are advertised (ADD-PATH, RFC 7911) have groups of
//! their own. Their `adj_rib_out` and journal contain paths instead of routes, each in a slot of
//! [`Slots`].
//!
//! Members differ in one respect: a route is not advertised to the neighbor that it was learned
//! from. An encoded batch of the journal is shared by all members at the same position from which
//! no route in it was learned.
//!
//! This file holds the state of a group; `send` makes the messages for its members, and `trim`
//! frees what is no longer needed.

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

/// Most routes or paths in one batch: enough to fill messages, few enough to be fair to other
/// neighbors.
const MAX_BATCH_SLOTS: usize = 4096;

/// Most octets of attributes in one batch, which one attribute set may exceed. A full batch of
/// ordinary sets fits, with five routes to a set.
const MAX_BATCH_OCTETS: usize = 256 * 1024;

/// Encoded batches that are kept for members that reach the same position a little later.
const MAX_CACHED_BATCHES: usize = 16;

/// What the group advertises of one route, or of one of its paths.
#[derive(Clone, Copy, Debug, Default)]
struct OutEntry {
    attrs: Option<AttrsId>,
    /// Its latest position in the journal, low 32 bits.
    place: u32,
    /// The neighbor that it was learned from, to which it is not advertised.
    source: PeerNo,
    state: SlotState,
    /// Its place in the order in which routes are advertised and withheld.
    rank: Rank,
}

/// Whether a slot is in use: advertised, or its withdrawal not yet sent to all members. A slot in
/// use pins the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SlotState {
    #[default]
    Free,
    InUse,
    /// In use, and the source changed since the last advertisement: the present source may need a
    /// withdrawal.
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
    /// Its address: routes with this next hop are not advertised to it (RFC 4271 §5.1.3).
    addr: Option<IpAddr>,
    at: At,
    /// Sent first: withdrawals of routes that another group advertised before its settings changed.
    withdraw: Vec<Nlri>,
    begin_refresh: bool,
    end_of_rib: bool,
    end_refresh: bool,
}

impl Member {
    /// Whether it is the next hop of these attributes. Such a route is not advertised to it
    /// (RFC 4271 §5.1.3).
    fn is_next_hop(&self, id: AttrsId, attrs: &AttrsTable) -> bool {
        self.addr == Some(attrs.get(id).next_hop.addr)
    }

    /// Whether there is anything to send to it.
    fn is_behind(&self, end: u64) -> bool {
        self.at != At::Journal(end) || self.end_of_rib
    }
}

/// Position of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the routes of the first ranks; the rest of `adj_rib_out` and the journal from `since` on
    /// follow.
    Head {
        next: (Rank, SlotNo),
        since: u64,
    },
    /// In `adj_rib_out`; the journal from `since` on follows.
    Sweep {
        next: SlotNo,
        since: u64,
    },
    Journal(u64),
}

impl At {
    /// The position of a new member.
    fn start(since: u64) -> Self {
        Self::Head { next: (Rank::PodCidr, 0), since }
    }
}

/// The new content of a slot, with a reference to the attributes.
#[derive(Clone, Copy, Debug)]
struct NewPath {
    attrs: AttrsId,
    source: PeerNo,
    rank: Rank,
}

/// An encoded batch.
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
    /// With ADD-PATH; without, a slot is a route.
    paths: Option<Slots>,
    journal: VecDeque<SlotNo>,
    /// Position of the journal's first entry.
    base: u64,
    members: Vec<Member>,
    batches: VecDeque<Batch>,
    /// Number of advertised paths by source.
    by_source: HashMap<PeerNo, u32, RandomState>,
    /// The same by next hop and source, if next hops may be members' addresses. There are few
    /// sources per next hop.
    by_next_hop: HashMap<IpAddr, Vec<(PeerNo, u32)>, RandomState>,
    total: u32,
    /// Routes whose attributes do not fit into a message: not advertised.
    too_large: BTreeSet<SlotNo>,
    /// Routes of which `max-prefixes-out` withholds at least one path.
    withheld: Ranked,
    /// Advertised slots of the first ranks; with a limit all advertised slots.
    ranked: Ranked,
    /// The warning about withheld routes was logged.
    limit_warned: bool,
    /// The only possible member, if a limit counts the routes advertised to it.
    only_member: Option<(PeerNo, IpAddr)>,
    /// Some member is not at the end of the journal.
    behind: bool,
}

/// One path that a group advertises, with references to its identifier and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathOut {
    pub(super) path_id: u32,
    pub(super) attrs: AttrsId,
    pub(super) source: PeerNo,
}

/// What is sent to a new member before and after the table.
#[derive(Clone, Debug, Default)]
pub(super) struct JoinState {
    pub(super) withdraw: Vec<Nlri>,
    pub(super) end_of_rib: bool,
    /// Its address.
    pub(super) addr: Option<IpAddr>,
}

impl UpdateGroup {
    /// A group for neighbors with this view; `first` is one of them.
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

    /// Whether the group advertises all paths of a route (see [`UpdateGroup::stage_paths`]).
    pub(super) fn is_add_path(&self) -> bool {
        self.paths.is_some()
    }

    /// Stages the new best path of a route whose own path has the rank `own`. `now` comes with a
    /// reference to the attributes.
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

    /// Whether a path may be advertised. It may not if it leads back to the only member, nor if
    /// `max-prefixes-out` is reached and there is no route of a later rank to withdraw instead.
    /// Releases the reference if not.
    fn admits(&mut self, route: RouteNo, slot: Option<SlotNo>, now: NewPath, attrs: &mut AttrsTable) -> bool {
        let Some(max) = self.view.max_prefixes() else { return true };
        let back = |(peer, addr)| now.source == peer || attrs.get(now.attrs).next_hop.addr == addr;
        let leads_back = self.only_member.is_some_and(back);
        let advertised =
            slot.and_then(|slot| self.adj_rib_out.get(slot as usize)).is_some_and(|out| out.attrs.is_some());
        let withheld = !leads_back && !advertised && self.total >= max && !self.make_room(now.rank, attrs);
        if withheld {
            self.withheld.insert(now.rank, route);
        }
        if leads_back || withheld {
            attrs.release(now.attrs);
        }
        !leads_back && !withheld
    }

    /// Withdraws the last route of a later rank than this one, if there is any.
    fn make_room(&mut self, rank: Rank, attrs: &mut AttrsTable) -> bool {
        let Some((last, slot)) = self.ranked.last().filter(|(last, _)| *last > rank) else { return false };
        self.withheld.insert(last, self.route_of(slot));
        self.enqueue(slot, None, attrs);
        true
    }

    /// A withheld route for which there is room now, or a route of a later rank to withdraw
    /// instead. It has to be staged again.
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

    /// The members to name in the warning about withheld routes; once.
    pub(super) fn take_limit_warning(&mut self) -> Option<Vec<PeerNo>> {
        if self.limit_warned || self.withheld.is_empty() {
            return None;
        }
        self.limit_warned = true;
        Some(self.members.iter().map(|m| m.peer).collect())
    }

    /// Stages all paths of a route (RFC 7911 §3). Paths that no longer exist are withdrawn by their
    /// identifier; the others replace what was advertised under theirs. The own path has the rank
    /// `own`.
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

    /// Sets what is advertised of a slot, and appends it to the journal if that is a change.
    /// Returns whether the slot was not in use before.
    fn enqueue(&mut self, slot: SlotNo, now: Option<NewPath>, attrs: &mut AttrsTable) -> bool {
        let n = slot as usize;
        let old = self.adj_rib_out.get(n).copied().unwrap_or_default();
        let source = now.map_or(old.source, |now| now.source);
        let rank = now.map_or(old.rank, |now| now.rank);
        // A slot that enters or leaves the first ranks goes into the journal, as a sweep may have
        // passed its place.
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

    /// Updates `ranked` for a slot.
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

    /// Whether some member has not passed the slot's latest journal entry.
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

    /// How many paths are advertised to each member. Computed from totals, as there may be a
    /// million.
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
                let counted =
                    out.source != member.peer && out.attrs.is_some_and(|id| !member.is_next_hop(id, attrs));
                if let Some(count) = counts.get_mut(&member.peer).filter(|_| counted) {
                    *count -= 1;
                }
            }
        }
        counts
    }

    /// The paths of a route that are advertised to this member. The identifier is 0 without
    /// ADD-PATH.
    pub(super) fn advertised_to(&self, peer: PeerNo, route: RouteNo, attrs: &AttrsTable) -> Vec<PathOut> {
        let Ok(n) = self.position(peer) else { return vec![] };
        let path = |slot: SlotNo, path_id| {
            let out = self.adj_rib_out.get(slot as usize).filter(|out| out.source != peer)?;
            let id = out.attrs.filter(|id| !self.members[n].is_next_hop(*id, attrs))?;
            (!self.too_large.contains(&slot)).then_some(PathOut { path_id, attrs: id, source: out.source })
        };
        match &self.paths {
            None => path(route, 0).into_iter().collect(),
            Some(slots) => slots.of(route).filter_map(|slot| path(slot, slots.get(slot).path_id)).collect(),
        }
    }

    /// Whether the group advertises a path to a neighbor.
    pub(super) fn advertises(&self, peer: PeerNo, nlri: Nlri, table: &Table) -> bool {
        let slot = table.find(nlri.prefix).and_then(|route| match &self.paths {
            None => Some(route),
            Some(slots) => slots.find(route, nlri.path_id),
        });
        let out = slot.and_then(|slot| self.adj_rib_out.get(slot as usize));
        out.is_some_and(|out| out.attrs.is_some() && out.source != peer)
    }

    /// Paths that may have been advertised to this member.
    pub(super) fn possibly_advertised<'a>(
        &'a self,
        peer: PeerNo,
        table: &'a Table,
    ) -> impl Iterator<Item = Nlri> + 'a {
        let concerns = move |o: &OutEntry| o.in_use() && (o.source != peer || o.source_changed());
        let slots = self.adj_rib_out.iter().enumerate().filter(move |(_, o)| concerns(o));
        slots.map(|(n, _)| self.nlri(n as SlotNo, table))
    }

    /// The route or path of a slot.
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

    /// Whether End-of-RIB was not sent to this member yet.
    pub(super) fn owes_end_of_rib(&self, peer: PeerNo) -> bool {
        self.members.iter().any(|m| m.peer == peer && m.end_of_rib)
    }

    /// Sends End-of-RIB to this member once everything was advertised to it.
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

    /// Removes a member. Returns what had not been sent yet of its [`JoinState`].
    pub(super) fn leave(&mut self, peer: PeerNo) -> JoinState {
        let left = self.position(peer).map(|n| self.members.remove(n));
        left.map(|m| JoinState { withdraw: m.withdraw, end_of_rib: m.end_of_rib, addr: m.addr })
            .unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Advertises everything to a member again (RFC 2918), with the markers of RFC 7313 if
    /// negotiated.
    pub(super) fn resend(&mut self, peer: PeerNo, enhanced: bool) {
        let since = self.end();
        if let Some(member) = self.members.iter_mut().find(|m| m.peer == peer) {
            // Journal entries that it has not been sent, withdrawals among them, must not be lost.
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
