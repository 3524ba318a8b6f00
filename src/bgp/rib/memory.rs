//! How much memory routes take, and whose session ends before there is none left.
//!
//! The octets are counted, not measured: at each moment what the parts of the table take at most, with what a route costs
//! beyond it (the fib's own table, the kernel's route, which counts for our memory limit too, and what is on the
//! way from one to the other). Reaching the budget closes one session with CEASE/1, as `max-prefixes` does: the one
//! that floods. Whatever others have stays.

use std::time::{Duration, Instant};

use super::{
    Event, Rib, foreign,
    peers::Peer,
    share::Share,
    table::{OWN, PeerNo},
    update_group::UpdateGroup,
};
use crate::{
    bgp::peer::PeerId,
    net::{Diagnostic, Family, Reason, Subject},
};

/// One route with its first path, by family: 36 and 48 octets in the table and up to 40 in its index, 16 and 28 in the
/// fib's table with as many for its growth, 120 and 340 in the kernel (Linux 6.18, over nexthop objects), 90 while it is
/// on its way there, or back when it goes.
const ROUTE: [u64; 2] = [330, 600];
/// A route without paths that others are still to be told of: its places, and the kernel's route on its way out.
const GONE: u64 = 150;
/// One more path: 20 octets in a list that grows by doubling.
const PATH: u64 = 48;
/// A next hop: itself, its set, and the kernel's object with what the fib knows of it.
const HOP: u64 = 1024;
/// A session that is up: what is read, decoded and written at a time by one that is not idle.
const SESSION: u64 = 64 * 1024;

/// Between two looks at what each neighbor has: the growth that counts is that since the last look but one.
const GROWTH_INTERVAL: Duration = Duration::from_secs(60);

/// What the allocator takes for a block of so many octets (glibc: eight more, in steps of sixteen).
pub(super) fn block(octets: usize) -> usize {
    if octets == 0 { 0 } else { (octets + 8).next_multiple_of(16).max(32) }
}

/// What is kept of a neighbor's very short prefixes.
fn shares(peer: &Peer) -> u64 {
    peer.shares.iter().map(Share::octets).sum()
}

/// How much of a limit is near it.
fn is_near(value: u64, limit: u64, was: bool) -> bool {
    // What swings around the mark is one event and not many.
    let percent = if was { 75 } else { 80 };
    value.saturating_mul(100) >= limit.saturating_mul(percent)
}

/// So much of `whole` as `some` is of `all`.
fn part(whole: u64, some: u64, all: u64) -> u64 {
    let part = u128::from(whole) * u128::from(some) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// What a neighbor has, over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// At the last look, and at the one before.
    last: u64,
    before: u64,
}

/// Limits that are near.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Near {
    budget: bool,
    /// The neighbors by their `max-prefixes`.
    peers: Vec<(PeerNo, Family, u32)>,
    /// Neighbors that advertise what is not their Node's.
    foreign: Vec<(PeerNo, PeerId)>,
}

/// What all routes may take, and how near they are.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Octets.
    pub(super) budget: u64,
    /// Octets of groups and of sessions, at the end of the last turn.
    groups: u64,
    sessions: u64,
    sampled: Instant,
    near: Near,
}

impl Memory {
    pub(super) fn new(now: Instant) -> Self {
        Self { budget: u64::MAX, groups: 0, sessions: 0, sampled: now, near: Near::default() }
    }
}

impl Rib {
    /// Octets that all routes take.
    pub(super) fn octets(&self) -> u64 {
        let table = |f: Family| {
            let table = &self.tables[f.index()];
            let (reached, paths) = table.counts();
            reached * ROUTE[f.index()] + (paths - reached) * PATH + (table.len() as u64 - reached) * GONE
        };
        let tables: u64 = Family::ALL.into_iter().map(table).sum();
        tables + self.attrs.octets() + self.hop_octets() + self.memory.groups + self.memory.sessions
    }

    fn hop_octets(&self) -> u64 {
        self.hops.len() as u64 * HOP
    }

    /// Octets of a neighbor's routes, with their part of what others are sent of them.
    pub(super) fn octets_of(&self, no: PeerNo) -> u64 {
        let Some(peer) = self.peer(no) else { return 0 };
        let cost = |f: Family| u64::from(peer.received[f.index()]) * ROUTE[f.index()];
        let routes: u64 = Family::ALL.into_iter().map(cost).sum();
        let attrs = self.attrs.octets_of(no);
        let received: u64 = peer.received.iter().map(|n| u64::from(*n)).sum();
        let all: u64 = self.tables.iter().map(|t| t.counts().1.max(t.len() as u64)).sum();
        let of_groups = part(self.memory.groups, received, all);
        routes + attrs + of_groups + shares(peer) + part(self.hop_octets(), attrs, self.attrs.octets())
    }

    /// What sessions and groups hold: it changes at the end of a turn only, and is not asked for with each route.
    pub(super) fn measure(&mut self) {
        self.memory.groups = self.groups.iter().flatten().flatten().map(UpdateGroup::octets).sum();
        let session = |peer: &Peer| if peer.up { SESSION } else { 0 } + shares(peer);
        self.memory.sessions = self.peers.iter().flatten().map(session).sum();
    }

    /// Closes sessions, one at a time, for as long as routes take more than they may.
    pub(super) fn enforce_memory_budget(&mut self) {
        let budget = self.memory.budget;
        let octets = self.octets();
        if octets <= budget {
            return;
        }
        let going: u64 = self.numbers_of(|p| p.over_limit).map(|no| self.octets_of(no)).sum();
        let mut octets = octets.saturating_sub(going);
        while octets > budget
            && let Some(no) = self.heaviest()
        {
            let theirs = self.octets_of(no);
            octets = octets.saturating_sub(theirs);
            self.close_heaviest(no, theirs);
        }
    }

    /// The neighbor that grew most of late, if that is a good part of the budget; else the one that has most. Nobody where all
    /// have little: then what takes the memory is on its way out.
    fn heaviest(&self) -> Option<PeerNo> {
        let holding = || self.numbers_of(|p| !p.over_limit).filter(|no| self.octets_of(*no) > 0);
        let little = self.memory.budget / (2 * holding().count().max(1) as u64);
        let growth = |no: PeerNo| {
            let before = self.peer(no).map_or(0, |p| p.growth.before);
            self.octets_of(no).saturating_sub(before)
        };
        let fastest =
            holding().max_by_key(|no| growth(*no)).filter(|no| growth(*no) >= self.memory.budget / 16);
        fastest.or_else(|| {
            holding().max_by_key(|no| self.octets_of(*no)).filter(|no| self.octets_of(*no) >= little)
        })
    }

    fn close_heaviest(&mut self, no: PeerNo, octets: u64) {
        let budget = self.memory.budget;
        let Some(peer) = self.peer_mut(no) else { return };
        let (neighbor, up) = (peer.name(), peer.up);
        if up {
            peer.over_limit = true;
            let event = (peer.id, Event::MemoryLimit { octets, budget });
            self.events.push(event);
            tracing::warn!(
                %neighbor, octets, budget,
                "routes take all memory that there is for them; the session that takes most is closed: let the neighbor \
                 send less, or give routelet more memory"
            );
            return;
        }
        tracing::warn!(%neighbor, octets, budget, "stale routes are dropped, they take memory that others need");
        Family::ALL.into_iter().for_each(|family| self.flush(no, family));
    }

    fn numbers_of(&self, which: impl Fn(&Peer) -> bool) -> std::vec::IntoIter<PeerNo> {
        let peers = self.peers.iter().enumerate().skip(usize::from(OWN) + 1);
        let those = peers.filter(|(_, p)| p.as_ref().is_some_and(&which));
        let numbers: Vec<_> = those.filter_map(|(n, _)| PeerNo::try_from(n).ok()).collect();
        numbers.into_iter()
    }

    /// Takes note of what each neighbor has, now and then.
    pub(super) fn sample_growth(&mut self, now: Instant) {
        if now.saturating_duration_since(self.memory.sampled) < GROWTH_INTERVAL {
            return;
        }
        self.memory.sampled = now;
        for no in self.numbers_of(|_| true) {
            let octets = self.octets_of(no);
            if let Some(peer) = self.peer_mut(no) {
                peer.growth = Growth { last: octets, before: peer.growth.last };
            }
        }
    }

    /// What the operator should know of limits that are near and of nodes that advertise what is
    /// not theirs, if that changed since the last call. Call at the end of a turn.
    pub fn take_problems(&mut self) -> Option<Vec<Diagnostic>> {
        let old = &self.memory.near;
        let budget = is_near(self.octets(), self.memory.budget, old.budget);
        let mut near = Near { budget, ..Near::default() };
        for (n, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            if peer.foreign.stands() {
                near.foreign.push((n as PeerNo, peer.id));
            }
            let max = peer.config.max_prefixes;
            for family in Family::ALL {
                let key = (n as PeerNo, family, max);
                let received = peer.received[family.index()];
                if received > 0 && is_near(received.into(), max.into(), old.peers.contains(&key)) {
                    near.peers.push(key);
                }
            }
        }
        if near == *old {
            return None;
        }
        self.memory.near = near;
        Some(self.problems())
    }

    fn problems(&self) -> Vec<Diagnostic> {
        let near = &self.memory.near;
        let budget = near.budget.then(|| {
            Diagnostic::new(
                Reason::MemoryLimitNear,
                Subject::host(),
                format!(
                    "routes take more than 80 % of the memory that there is for them ({} MiB); at 100 % the \
                     session that floods is closed",
                    self.memory.budget / (1024 * 1024)
                ),
                "give routelet more memory, or let neighbors send less",
            )
        });
        let of_peer = |(no, family, max): &(PeerNo, Family, u32)| {
            let name = self.peer(*no).map(Peer::name).unwrap_or_default();
            Diagnostic::new(
                Reason::PrefixLimitNear,
                Subject::neighbor(&name),
                format!(
                    "neighbor {name} has sent more than 80 % of the {family} prefixes that it may \
                     (max-prefixes {max})"
                ),
                "let it send fewer, or raise max-prefixes",
            )
        };
        let of_node = |(no, _): &(PeerNo, PeerId)| {
            let peer = self.peer(*no)?;
            Some(foreign::problem(&peer.name(), peer.config.description.as_deref()))
        };
        let nodes = near.foreign.iter().filter_map(of_node).take(foreign::MAX_NAMED_NODES);
        let more = near.foreign.len().saturating_sub(foreign::MAX_NAMED_NODES);
        let more = (more > 0).then(|| {
            Diagnostic::new(
                Reason::ForeignPrefixes,
                Subject::host(),
                format!("{more} more nodes advertise prefixes that are not theirs"),
                "mend those that are named first",
            )
        });
        budget.into_iter().chain(near.peers.iter().map(of_peer)).chain(nodes).chain(more).collect()
    }
}
