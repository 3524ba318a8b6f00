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

mod send;
mod upkeep;

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

/// Routes or paths in one stretch at most: enough to fill messages, little enough to be fair.
const STRETCH: usize = 4096;

/// Octets of attributes in one stretch, one set beyond: a full stretch of ordinary ones, five routes to a set.
const OCTETS: usize = 256 * 1024;

/// Encoded stretches that are kept for members that come to the same place a little later.
const KEPT: usize = 16;

/// What the group was told about one route, or about one of its paths.
#[derive(Clone, Copy, Debug, Default)]
struct Out {
    attrs: Option<AttrsId>,
    /// Its latest place in the journal, low 32 bits.
    place: u32,
    /// The neighbor that it came from, who is not told it.
    source: PeerNo,
    /// Whether the slot is in use: advertised, or its withdrawal not yet passed by all. That pins the route.
    held: bool,
    /// The source changed since all were told: the present one may have to be sent a withdrawal.
    moved: bool,
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
    /// Walking over `out`; the journal from `since` on comes after.
    Sweep {
        next: SlotNo,
        since: u64,
    },
    Journal(u64),
}

/// An encoded stretch.
#[derive(Debug)]
struct Chunk {
    from: At,
    to: At,
    /// End of the journal when it was encoded.
    end: u64,
    sources: Vec<PeerNo>,
    bytes: Bytes,
    messages: u32,
}

/// Neighbors with the same view.
pub(super) struct Group {
    pub(super) view: View,
    out: Vec<Out>,
    /// Where the group is told several paths; else a slot is a route.
    paths: Option<Slots>,
    journal: VecDeque<SlotNo>,
    /// Place of the journal's first entry.
    base: u64,
    members: Vec<Member>,
    chunks: VecDeque<Chunk>,
    /// What there is to tell, by source.
    by_source: HashMap<PeerNo, u32, RandomState>,
    total: u32,
    /// What no message has room for: not told to anyone.
    too_large: BTreeSet<SlotNo>,
    /// Routes that `max-prefixes-out` keeps back, of several paths at least one.
    withheld: BTreeSet<RouteNo>,
    /// It was said that there are such routes.
    alarmed: bool,
    /// The only member that there may be, where a limit counts what it is told.
    lone: Option<(PeerNo, IpAddr)>,
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
pub(super) struct Welcome {
    pub(super) withdraw: Vec<Nlri>,
    pub(super) end_of_rib: bool,
    /// Its address.
    pub(super) addr: Option<IpAddr>,
}

impl Group {
    /// For neighbors with this view; `first` is one of them.
    pub(super) fn new(view: View, first: (PeerNo, IpAddr)) -> Self {
        Self {
            paths: view.sends_paths().then(Slots::default),
            lone: (view.is_lone() && view.max_prefixes().is_some()).then_some(first),
            view,
            out: Vec::new(),
            journal: VecDeque::new(),
            base: 0,
            members: Vec::new(),
            chunks: VecDeque::new(),
            by_source: HashMap::default(),
            total: 0,
            too_large: BTreeSet::new(),
            withheld: BTreeSet::new(),
            alarmed: false,
            behind: false,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.journal.len() as u64
    }

    /// Whether the group is told all paths of a route, by [`Group::set_paths`], rather than one.
    pub(super) fn takes_paths(&self) -> bool {
        self.paths.is_some()
    }

    /// Takes the new word on a route; `now` comes with its own reference to the attributes.
    pub(super) fn set(
        &mut self,
        route: RouteNo,
        now: Option<(AttrsId, PeerNo)>,
        table: &mut Table,
        attrs: &mut AttrsTable,
    ) {
        self.withheld.remove(&route);
        let now = now.filter(|(id, source)| self.admits(route, Some(route), *id, *source, attrs));
        if self.say(route, now, attrs) {
            table.get_mut(route).pins += 1;
        }
    }

    /// Whether a path may be told: it may not when it leads back to the only member, nor when there are as many as
    /// `max-prefixes-out` allows. A refused one's reference is given back.
    fn admits(
        &mut self,
        route: RouteNo,
        slot: Option<SlotNo>,
        id: AttrsId,
        source: PeerNo,
        attrs: &mut AttrsTable,
    ) -> bool {
        let Some(max) = self.view.max_prefixes() else { return true };
        let back = |(peer, addr)| source == peer || attrs.get(id).next_hop.addr == addr;
        let leads_back = self.lone.is_some_and(back);
        let told = slot.and_then(|slot| self.out.get(slot as usize)).is_some_and(|out| out.attrs.is_some());
        let withheld = !leads_back && !told && self.total >= max;
        if withheld {
            self.withheld.insert(route);
        }
        if leads_back || withheld {
            attrs.release(id);
        }
        !leads_back && !withheld
    }

    /// A route that was withheld and for which there is room now: it has to be told anew.
    pub(super) fn next_withheld(&mut self) -> Option<RouteNo> {
        let room = self.view.max_prefixes().is_none_or(|max| self.total < max);
        if room { self.withheld.pop_first() } else { None }
    }

    /// How many routes are withheld.
    pub(super) fn withheld(&self) -> u64 {
        self.withheld.len() as u64
    }

    /// Who is to be named where routes are withheld: once.
    pub(super) fn alarm(&mut self) -> Option<Vec<PeerNo>> {
        if self.alarmed || self.withheld.is_empty() {
            return None;
        }
        self.alarmed = true;
        Some(self.members.iter().map(|m| m.peer).collect())
    }

    /// Takes the new word on all paths of a route (RFC 7911 §3): those that are gone are withdrawn by their number,
    /// the others replace what was said under theirs.
    pub(super) fn set_paths(
        &mut self,
        route: RouteNo,
        mut now: Vec<PathOut>,
        table: &mut Table,
        attrs: &mut AttrsTable,
        ids: &mut PathIds,
    ) {
        let Some(slots) = &self.paths else { return };
        let mut before: Vec<_> = slots.of(route).map(|slot| (slots.get(slot).path_id, slot)).collect();
        before.sort_unstable();
        self.withheld.remove(&route);
        now.sort_unstable_by_key(|path| path.path_id);
        for &(id, slot) in &before {
            if now.binary_search_by_key(&id, |path| path.path_id).is_err() {
                self.say(slot, None, attrs);
            }
        }
        for path in now {
            let known = before.binary_search_by_key(&path.path_id, |(id, _)| *id).ok().map(|n| before[n].1);
            if !self.admits(route, known, path.attrs, path.source, attrs) {
                ids.release(path.path_id);
                if let Some(slot) = known {
                    self.say(slot, None, attrs);
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
            self.say(slot, Some((path.attrs, path.source)), attrs);
        }
    }

    /// Takes the new word on a slot; whether it is in use only from now on.
    fn say(&mut self, slot: SlotNo, now: Option<(AttrsId, PeerNo)>, attrs: &mut AttrsTable) -> bool {
        let n = slot as usize;
        let old = self.out.get(n).copied().unwrap_or_default();
        let source = now.map_or(old.source, |(_, source)| source);
        if old.attrs == now.map(|(id, _)| id) && old.source == source {
            if let Some((id, _)) = now {
                attrs.release(id);
            }
            return false;
        }
        self.too_large.remove(&slot);
        if n >= self.out.len() {
            self.out.resize(n + 1, Out::default());
        }
        let pending = old.held && self.is_pending(slot, old.place);
        let moved = (pending && old.moved) || (old.source != source && (old.attrs.is_some() || pending));
        self.out[n] =
            Out { attrs: now.map(|(id, _)| id), place: self.end() as u32, source, held: true, moved };
        self.journal.push_back(slot);
        self.behind = true;
        self.count(old.attrs.map(|_| old.source), now.map(|_| source));
        if let Some(id) = old.attrs {
            attrs.release(id);
        }
        !old.held
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

    /// How many paths each member is told.
    pub(super) fn advertised(&self, attrs: &AttrsTable) -> HashMap<PeerNo, u64, RandomState> {
        let others = |m: &Member| self.total - self.by_source.get(&m.peer).copied().unwrap_or(0);
        let mut counts: HashMap<_, _, _> =
            self.members.iter().map(|m| (m.peer, u64::from(others(m)))).collect();
        if !self.view.always_own_next_hop() {
            let by_addr = self.members.iter().filter_map(|m| Some((m.addr?, m.peer)));
            let by_addr: HashMap<_, _, RandomState> = by_addr.collect();
            for out in &self.out {
                let hop = out.attrs.and_then(|id| by_addr.get(&attrs.get(id).next_hop.addr));
                if let Some(count) = hop.filter(|m| **m != out.source).and_then(|m| counts.get_mut(m)) {
                    *count -= 1;
                }
            }
        }
        for &slot in &self.too_large {
            let out = &self.out[slot as usize];
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
    pub(super) fn told(&self, peer: PeerNo, route: RouteNo, attrs: &AttrsTable) -> Vec<PathOut> {
        let Ok(n) = self.position(peer) else { return vec![] };
        let told = |slot: SlotNo, path_id| {
            let out = self.out.get(slot as usize).filter(|out| out.source != peer)?;
            let id = out.attrs.filter(|id| !self.members[n].is_next_hop(*id, attrs))?;
            (!self.too_large.contains(&slot)).then_some(PathOut { path_id, attrs: id, source: out.source })
        };
        match &self.paths {
            None => told(route, 0).into_iter().collect(),
            Some(slots) => slots.of(route).filter_map(|slot| told(slot, slots.get(slot).path_id)).collect(),
        }
    }

    /// Whether the group has something to tell a neighbor about a path.
    pub(super) fn tells(&self, peer: PeerNo, nlri: Nlri, table: &Table) -> bool {
        let slot = table.find(nlri.prefix).and_then(|route| match &self.paths {
            None => Some(route),
            Some(slots) => slots.find(route, nlri.path_id),
        });
        let out = slot.and_then(|slot| self.out.get(slot as usize));
        out.is_some_and(|out| out.attrs.is_some() && out.source != peer)
    }

    /// Paths of which this member may hold something.
    pub(super) fn touched<'a>(&'a self, peer: PeerNo, table: &'a Table) -> impl Iterator<Item = Nlri> + 'a {
        let concerns = move |o: &Out| o.held && (o.source != peer || o.moved);
        let slots = self.out.iter().enumerate().filter(move |(_, o)| concerns(o));
        slots.map(|(n, _)| self.nlri(n as SlotNo, table))
    }

    /// What a slot stands for.
    fn nlri(&self, slot: SlotNo, table: &Table) -> Nlri {
        let (route, path_id) = match &self.paths {
            None => (slot, 0),
            Some(slots) => {
                let slot = slots.get(slot);
                (slot.route, slot.path_id)
            }
        };
        Nlri { path_id, prefix: table.prefix(route) }
    }

    pub(super) fn join(&mut self, peer: PeerNo, welcome: Welcome) {
        let at = At::Sweep { next: 0, since: self.end() };
        let Welcome { withdraw, end_of_rib, addr } = welcome;
        let member =
            Member { peer, addr, at, withdraw, begin_refresh: false, end_of_rib, end_refresh: false };
        match self.position(peer) {
            Ok(n) => self.members[n] = member,
            Err(n) => self.members.insert(n, member),
        }
        self.behind = true;
    }

    /// End-of-RIB goes to this member as soon as it has been told all that there is.
    pub(super) fn owe_end_of_rib(&mut self, peer: PeerNo) {
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
    /// What it was not told yet of its welcome.
    pub(super) fn leave(&mut self, peer: PeerNo) -> Welcome {
        let left = self.position(peer).map(|n| self.members.remove(n));
        left.map(|m| Welcome { withdraw: m.withdraw, end_of_rib: m.end_of_rib, addr: m.addr })
            .unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says everything to a member again (RFC 2918), marked as RFC 7313 asks where it was negotiated.
    pub(super) fn repeat(&mut self, peer: PeerNo, enhanced: bool) {
        let since = self.end();
        if let Some(member) = self.members.iter_mut().find(|m| m.peer == peer) {
            // What it has not passed of the journal would be forgotten: withdrawals too. So begin no later.
            let since = match member.at {
                At::Journal(place) | At::Sweep { since: place, .. } => place.min(since),
            };
            member.at = At::Sweep { next: 0, since };
            (member.begin_refresh, member.end_refresh) = (enhanced, enhanced);
            self.behind = true;
        }
    }
}
