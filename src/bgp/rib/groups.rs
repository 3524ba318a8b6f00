//! Groups of neighbors that hear the same of one family: one decision, one encoding, one journal.
//!
//! What the group was told last about each route stands in `out`, under the route's number. The journal lists
//! the routes that changed, each live only at its latest place; every member has its own place in it. A new
//! member first walks over `out` as it is (a sweep), then goes on in the journal from where that stood at its
//! start. A member that is slow or stopped simply stays where it is: it is given fewer and fresher changes
//! later, and costs at most one journal entry per route.
//!
//! Split horizon is the one thing in which members differ: the neighbor that a route came from is not told it.
//! The encoding of a stretch of the journal is shared by all members at the same place that no route in it came
//! from.

use std::{collections::VecDeque, net::IpAddr};

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{
    attrs::{AttrsId, AttrsTable},
    export::View,
    table::{OWN, PeerNo, RouteNo, Table},
};
use crate::{
    bgp::wire::{
        pack::Packer,
        refresh::{self, Refresh},
        update::Nlri,
    },
    net::Prefix,
};

/// Routes in one stretch at most: enough to fill messages, little enough to be fair.
const STRETCH: usize = 4096;

/// Encoded stretches that are kept for members that come to the same place a little later.
const KEPT: usize = 16;

/// What the group was told about one route.
#[derive(Clone, Copy, Debug, Default)]
struct Out {
    attrs: Option<AttrsId>,
    /// Its latest place in the journal, low 32 bits.
    place: u32,
    /// The neighbor that it came from, who is not told it.
    source: PeerNo,
    /// Whether the route is pinned: advertised, or its withdrawal not yet passed by all.
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
    withdraw: Vec<Prefix>,
    begin_refresh: bool,
    end_of_rib: bool,
    end_refresh: bool,
}

impl Member {
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
        next: RouteNo,
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
    journal: VecDeque<RouteNo>,
    /// Place of the journal's first entry.
    base: u64,
    members: Vec<Member>,
    chunks: VecDeque<Chunk>,
    /// Routes advertised, by source.
    advertised: HashMap<PeerNo, u32, RandomState>,
    total: u32,
    /// A member is not at the journal's end.
    behind: bool,
}

/// What a new member is given in front of and behind the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Welcome {
    pub(super) withdraw: Vec<Prefix>,
    pub(super) end_of_rib: bool,
    /// Its address.
    pub(super) addr: Option<IpAddr>,
}

impl Group {
    pub(super) fn new(view: View) -> Self {
        Self {
            view,
            out: Vec::new(),
            journal: VecDeque::new(),
            base: 0,
            members: Vec::new(),
            chunks: VecDeque::new(),
            advertised: HashMap::default(),
            total: 0,
            behind: false,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.journal.len() as u64
    }

    /// Takes the new word on a route; `now` comes with its own reference to the attributes.
    pub(super) fn set(
        &mut self,
        route: RouteNo,
        now: Option<(AttrsId, PeerNo)>,
        table: &mut Table,
        attrs: &mut AttrsTable,
    ) {
        let n = route as usize;
        let old = self.out.get(n).copied().unwrap_or_default();
        let source = now.map_or(old.source, |(_, source)| source);
        if old.attrs == now.map(|(id, _)| id) && old.source == source {
            if let Some((id, _)) = now {
                attrs.release(id);
            }
            return;
        }
        if n >= self.out.len() {
            self.out.resize(n + 1, Out::default());
        }
        let pending = old.held && self.is_pending(route, old.place);
        let moved = (pending && old.moved) || (old.source != source && (old.attrs.is_some() || pending));
        self.out[n] =
            Out { attrs: now.map(|(id, _)| id), place: self.end() as u32, source, held: true, moved };
        self.journal.push_back(route);
        self.behind = true;
        self.count(old.attrs.map(|_| old.source), now.map(|_| source));
        if !old.held {
            table.get_mut(route).pins += 1;
        }
        if let Some(id) = old.attrs {
            attrs.release(id);
        }
    }

    /// Whether the route's latest place is still ahead of a member.
    fn is_pending(&self, route: RouteNo, place: u32) -> bool {
        let ahead = place.wrapping_sub(self.base as u32) as usize;
        self.journal.get(ahead) == Some(&route)
    }

    fn count(&mut self, before: Option<PeerNo>, after: Option<PeerNo>) {
        if before == after {
            return;
        }
        if let Some(source) = before {
            self.total -= 1;
            if let Some(n) = self.advertised.get_mut(&source) {
                *n -= 1;
            }
        }
        if let Some(source) = after {
            self.total += 1;
            *self.advertised.entry(source).or_default() += 1;
        }
    }

    /// How many routes this member is told.
    pub(super) fn advertised_to(&self, peer: PeerNo) -> u64 {
        (self.total - self.advertised.get(&peer).copied().unwrap_or(0)).into()
    }

    /// What this member is told about a route.
    pub(super) fn told(&self, peer: PeerNo, route: RouteNo) -> Option<AttrsId> {
        let out = self.out.get(route as usize)?;
        out.attrs.filter(|_| out.source != peer)
    }

    /// Routes of which this member may hold something.
    pub(super) fn touched(&self, peer: PeerNo) -> impl Iterator<Item = RouteNo> + '_ {
        let concerns = move |o: &Out| o.held && (o.source != peer || o.moved);
        self.out.iter().enumerate().filter(move |(_, o)| concerns(o)).map(|(n, _)| n as RouteNo)
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

    /// Members with something to be sent.
    pub(super) fn behind(&self) -> impl Iterator<Item = PeerNo> + '_ {
        let end = self.end();
        let members = if self.behind { &self.members[..] } else { &[] };
        members.iter().filter(move |m| m.is_behind(end)).map(|m| m.peer)
    }

    /// The next stretch for a member: whole messages.
    pub(super) fn next(&mut self, peer: PeerNo, table: &Table, attrs: &AttrsTable) -> Option<(Bytes, u32)> {
        let n = self.position(peer).ok()?;
        loop {
            if let Some(marks) = self.before_sweep(n) {
                return Some(marks);
            }
            let at = self.members[n].at;
            match at {
                At::Journal(place) if place >= self.end() => return self.after_sweep(n),
                At::Sweep { next, since } if next as usize >= self.out.len() => {
                    self.members[n].at = At::Journal(since);
                    if let Some(marks) = self.after_sweep(n) {
                        return Some(marks);
                    }
                }
                at => {
                    let (to, bytes, messages) = self.stretch(at, peer, table, attrs);
                    self.members[n].at = to;
                    if messages > 0 {
                        return Some((bytes, messages));
                    }
                }
            }
        }
    }

    fn before_sweep(&mut self, n: usize) -> Option<(Bytes, u32)> {
        let (family, shape) = (self.view.family, self.view.shape);
        let member = &mut self.members[n];
        if !member.begin_refresh && member.withdraw.is_empty() {
            return None;
        }
        let mut out = BytesMut::new();
        let mut messages = 0;
        if std::mem::take(&mut member.begin_refresh) {
            Refresh::new(family, refresh::BEGIN).encode(&mut out);
            messages += 1;
        }
        let gone = std::mem::take(&mut member.withdraw);
        let path_id = path_id(&self.view);
        let mut packer = Packer::new(&shape, &mut out);
        if !gone.is_empty() {
            packer.withdraw(family, gone.into_iter().map(|prefix| Nlri { path_id, prefix }));
        }
        messages += packer.messages();
        Some((out.freeze(), messages))
    }

    fn after_sweep(&mut self, n: usize) -> Option<(Bytes, u32)> {
        let (family, shape) = (self.view.family, self.view.shape);
        let member = &mut self.members[n];
        let mut out = BytesMut::new();
        let mut messages = 0;
        if std::mem::take(&mut member.end_of_rib) {
            let mut packer = Packer::new(&shape, &mut out);
            packer.end_of_rib(family);
            messages += packer.messages();
        }
        if std::mem::take(&mut member.end_refresh) {
            Refresh::new(family, refresh::END).encode(&mut out);
            messages += 1;
        }
        (messages > 0).then(|| (out.freeze(), messages))
    }

    /// The stretch at `at`, shared where it can be.
    fn stretch(&mut self, at: At, peer: PeerNo, table: &Table, attrs: &AttrsTable) -> (At, Bytes, u32) {
        let end = self.end();
        let shared = |c: &&Chunk| {
            // A walk over the table is worth sharing only while nothing has changed since.
            let fresh = matches!(at, At::Journal(_)) || c.end == end;
            c.from == at && fresh && !c.sources.contains(&peer)
        };
        if let Some(chunk) = self.chunks.iter().find(shared) {
            return (chunk.to, chunk.bytes.clone(), chunk.messages);
        }
        let (routes, to) = self.collect(at);
        let mut sources: Vec<PeerNo> = routes.iter().map(|r| self.out[*r as usize].source).collect();
        sources.sort_unstable();
        sources.dedup();
        sources.retain(|s| *s != OWN && self.position(*s).is_ok());
        self.add_next_hops(&mut sources, &routes, attrs);
        let (bytes, messages) = self.encode(&routes, peer, table, attrs);
        if self.members.len() > 1 && !sources.contains(&peer) {
            self.chunks.truncate(KEPT - 1);
            let chunk = Chunk { from: at, to, end, sources, bytes: bytes.clone(), messages };
            self.chunks.push_front(chunk);
        }
        (to, bytes, messages)
    }

    /// Adds the members that are next hops themselves: what others are told is not for them.
    fn add_next_hops(&self, apart: &mut Vec<PeerNo>, routes: &[RouteNo], attrs: &AttrsTable) {
        if self.view.always_own_next_hop() {
            return;
        }
        let mut hops: Vec<IpAddr> = routes
            .iter()
            .filter_map(|r| Some(attrs.get(self.out[*r as usize].attrs?).next_hop.addr))
            .collect();
        hops.sort_unstable();
        hops.dedup();
        let is_hop = |m: &&Member| m.addr.is_some_and(|a| hops.binary_search(&a).is_ok());
        apart.extend(self.members.iter().filter(is_hop).map(|m| m.peer));
    }

    /// The routes of the stretch at `at`, and where it ends.
    fn collect(&self, at: At) -> (Vec<RouteNo>, At) {
        let mut routes = Vec::new();
        match at {
            At::Sweep { next, since } => {
                let mut n = next;
                while let Some(out) = self.out.get(n as usize)
                    && routes.len() < STRETCH
                {
                    if out.attrs.is_some() {
                        routes.push(n);
                    }
                    n += 1;
                }
                (routes, At::Sweep { next: n, since })
            }
            At::Journal(place) => {
                let mut place = place.max(self.base);
                while let Some(&route) = self.journal.get((place - self.base) as usize)
                    && routes.len() < STRETCH
                {
                    if self.out[route as usize].place == place as u32 {
                        routes.push(route);
                    }
                    place += 1;
                }
                (routes, At::Journal(place))
            }
        }
    }

    /// Withdrawals first, then announcements, those with the same attributes together.
    fn encode(&self, routes: &[RouteNo], peer: PeerNo, table: &Table, attrs: &AttrsTable) -> (Bytes, u32) {
        let path_id = path_id(&self.view);
        let nlri = |route: &RouteNo| Nlri { path_id, prefix: table.prefix(*route) };
        let (mut gone, mut here) = (Vec::new(), Vec::with_capacity(routes.len()));
        let addr = self.position(peer).ok().and_then(|n| self.members[n].addr);
        // RFC 4271 §5.1.3: a neighbor is not told a route by way of itself.
        let leads_back = |id: AttrsId| addr == Some(attrs.get(id).next_hop.addr);
        for &route in routes {
            let out = self.out[route as usize];
            match out.attrs {
                Some(id) if out.source != peer && leads_back(id) => gone.push(route),
                Some(id) if out.source != peer => here.push((id, route)),
                // Its own route: it holds another's only if that was told before.
                _ if out.source != peer || out.moved => gone.push(route),
                _ => {}
            }
        }
        here.sort_unstable();
        let mut octets = BytesMut::new();
        let (family, shape) = (self.view.family, self.view.shape);
        let mut packer = Packer::new(&shape, &mut octets);
        let mut too_large = Vec::new();
        if !gone.is_empty() {
            packer.withdraw(family, gone.iter().map(nlri));
        }
        for run in here.chunk_by(|a, b| a.0 == b.0) {
            let prefixes = run.iter().map(|(_, route)| nlri(route));
            if packer.announce(attrs.get(run[0].0), family, prefixes).is_err() {
                too_large.extend(run.iter().map(|(_, route)| *route));
            }
        }
        if !too_large.is_empty() {
            packer.withdraw(family, too_large.iter().map(nlri));
        }
        let messages = packer.messages();
        (octets.freeze(), messages)
    }

    /// Forgets what all members have passed; `vacant` are routes of which nothing is left to say.
    pub(super) fn trim(&mut self, table: &mut Table, mut vacant: impl FnMut(RouteNo)) {
        if !self.behind {
            return;
        }
        let passed = self.members.iter().map(|m| match m.at {
            At::Journal(place) | At::Sweep { since: place, .. } => place,
        });
        let passed = passed.min().unwrap_or(self.end());
        while self.base < passed
            && let Some(route) = self.journal.pop_front()
        {
            let out = &mut self.out[route as usize];
            if out.place == self.base as u32 && out.attrs.is_none() {
                *out = Out::default();
                table.get_mut(route).pins -= 1;
                vacant(route);
            }
            self.base += 1;
        }
        let end = self.end();
        self.behind = self.members.iter().any(|m| m.is_behind(end));
        if !self.behind {
            self.chunks.clear();
        }
        self.give_back();
        self.compact();
    }

    fn give_back(&mut self) {
        if self.journal.is_empty() {
            if self.journal.capacity() > 1024 {
                self.journal = VecDeque::new();
            }
            if self.total == 0 && !self.behind {
                self.out = Vec::new();
            }
        }
    }

    /// Drops dead entries once they are the larger part, so that a member that never reads costs no more than
    /// one entry per route.
    fn compact(&mut self) {
        if self.journal.len() < 1024 || self.journal.len() < self.out.len() * 2 {
            return;
        }
        let (base, end) = (self.base, self.end());
        let mut live_before = Vec::with_capacity(self.journal.len() + 1);
        let mut kept = VecDeque::new();
        for (n, &route) in self.journal.iter().enumerate() {
            live_before.push(kept.len() as u64);
            let out = &mut self.out[route as usize];
            if out.place == (base + n as u64) as u32 {
                out.place = (end + kept.len() as u64) as u32;
                kept.push_back(route);
            }
        }
        live_before.push(kept.len() as u64);
        let moved = |place: u64| end + live_before[(place.max(base) - base) as usize];
        for member in &mut self.members {
            member.at = match member.at {
                At::Journal(place) => At::Journal(moved(place)),
                At::Sweep { next, since } => At::Sweep { next, since: moved(since) },
            };
        }
        (self.journal, self.base) = (kept, end);
        self.chunks.clear();
    }

    /// Lets go of everything; the group has no members left.
    pub(super) fn dissolve(
        &mut self,
        table: &mut Table,
        attrs: &mut AttrsTable,
        mut vacant: impl FnMut(RouteNo),
    ) {
        for (n, out) in std::mem::take(&mut self.out).into_iter().enumerate() {
            if let Some(id) = out.attrs {
                attrs.release(id);
            }
            if out.held {
                table.get_mut(n as RouteNo).pins -= 1;
                vacant(n as RouteNo);
            }
        }
        self.journal.clear();
    }
}

/// With ADD-PATH each entry needs an identifier; we send one path per prefix (RFC 7911 §3).
fn path_id(view: &View) -> u32 {
    u32::from(view.shape.add_path_send[view.family.index()])
}
