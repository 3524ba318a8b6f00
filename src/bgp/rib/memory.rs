//! How much memory routes take, and whose session is closed before memory runs out.
//!
//! Octets are computed, not measured: the most that the parts of the table may take, and what a
//! route costs elsewhere (in the fib's own table, in the kernel, which counts against our memory
//! limit too, and in the queue between them). When the budget is reached, one session is closed
//! with CEASE/1, as for `max-prefixes`: that of the neighbor that floods. Other routes stay.

use std::time::{Duration, Instant};

use super::{
    Event, Rib,
    duplicate::Duplicate,
    foreign,
    peers::Peer,
    share::Share,
    table::{OWN, PeerNo},
    update_group::UpdateGroup,
};
use crate::{
    bgp::peer::{MaxPrefixesAction, PeerId},
    net::{Diagnostic, Family, PerFamily, Reason, Subject},
};

/// Octets of a route with its first path, by family: 36 and 48 in the table, up to 40 in its index,
/// 16 and 28 in the fib's table with as many again while that grows, 120 and 340 in the kernel
/// (Linux 6.18, with nexthop objects), 90 in the queue to the fib.
const ROUTE_OCTETS: PerFamily<u64> = PerFamily::new(330, 600);
/// Octets of a route without paths whose withdrawal is not sent yet: its slots, and the kernel's
/// route until it is removed.
const VACANT_ROUTE_OCTETS: u64 = 150;
/// Octets of a further path: 20 in a list that grows by doubling.
const PATH_OCTETS: u64 = 48;
/// Octets of a next hop: its entry, its set, and the nexthop object in the kernel and the fib.
const NEXT_HOP_OCTETS: u64 = 1024;
/// Octets of an established session: what it reads, decodes and writes at a time.
const SESSION_OCTETS: u64 = 64 * 1024;

/// Interval between samples of what each neighbor has. Growth is counted since the last sample but
/// one.
const GROWTH_INTERVAL: Duration = Duration::from_secs(60);

/// Octets that the allocator takes for a block (glibc: eight more, in steps of sixteen).
pub(super) fn block(octets: usize) -> usize {
    if octets == 0 { 0 } else { (octets + 8).next_multiple_of(16).max(32) }
}

/// Octets of the list of a neighbor's very short prefixes.
fn shares(peer: &Peer) -> u64 {
    peer.shares.iter().map(Share::octets).sum()
}

/// Percent of a limit from which a value is near it: of memory, and of `max-prefixes`.
const MEMORY_NEAR: u64 = 80;
const PREFIXES_NEAR: u64 = 75;

/// Whether a value is near its limit.
fn is_near(value: u64, limit: u64, percent: u64, was: bool) -> bool {
    // Hysteresis: a value around the threshold is reported once.
    let percent = if was { percent - 5 } else { percent };
    value.saturating_mul(100) >= limit.saturating_mul(percent)
}

/// The share `some / all` of `whole`.
fn part(whole: u64, some: u64, all: u64) -> u64 {
    let part = u128::from(whole) * u128::from(some) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Samples of the octets that a neighbor's routes take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// The last sample; `before`: the one before it.
    last: u64,
    before: u64,
}

/// A neighbor near its `max-prefixes`, or `over` it: then with `max-prefixes-action = "warn"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limited {
    peer: PeerNo,
    family: Family,
    max: u32,
    over: bool,
}

/// Limits that are nearly reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Near {
    budget: bool,
    /// Neighbors near their `max-prefixes`, or beyond it where that is allowed.
    peers: Vec<Limited>,
    /// Nodes that advertise prefixes that are not theirs.
    foreign: Vec<(PeerNo, PeerId)>,
    /// Own subnets that another host advertises, too.
    duplicates: Vec<Duplicate>,
    /// Neighbors that send routes of hosts with the same AS number.
    numbers: Vec<(PeerNo, Option<PeerId>)>,
}

/// The memory budget of all routes, and its use.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Octets.
    pub(super) budget: u64,
    /// Octets of update groups and of sessions, at the end of the last turn.
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
            let table = &self.tables[f];
            let (reached, paths) = table.counts();
            reached * ROUTE_OCTETS[f]
                + (paths - reached) * PATH_OCTETS
                + (table.len() as u64 - reached) * VACANT_ROUTE_OCTETS
        };
        let tables: u64 = Family::ALL.into_iter().map(table).sum();
        tables + self.attrs.octets() + self.hop_octets() + self.memory.groups + self.memory.sessions
    }

    fn hop_octets(&self) -> u64 {
        self.hops.len() as u64 * NEXT_HOP_OCTETS
    }

    /// Octets of a neighbor's routes, including their share of the update groups.
    pub(super) fn octets_of(&self, no: PeerNo) -> u64 {
        let Some(peer) = self.peer(no) else { return 0 };
        let cost = |f: Family| u64::from(peer.received[f]) * ROUTE_OCTETS[f];
        let routes: u64 = Family::ALL.into_iter().map(cost).sum();
        let attrs = self.attrs.octets_of(no);
        let received: u64 = peer.received.iter().map(|n| u64::from(*n)).sum();
        let all: u64 = self.tables.iter().map(|t| t.counts().1.max(t.len() as u64)).sum();
        let of_groups = part(self.memory.groups, received, all);
        routes + attrs + of_groups + shares(peer) + part(self.hop_octets(), attrs, self.attrs.octets())
    }

    /// Updates the octets of sessions and update groups. They change at the end of a turn only, and
    /// are not computed for each route.
    pub(super) fn measure(&mut self) {
        self.memory.groups = self.groups.iter().flatten().flatten().map(UpdateGroup::octets).sum();
        let session = |peer: &Peer| if peer.up { SESSION_OCTETS } else { 0 } + shares(peer);
        self.memory.sessions = self.peers.iter().flatten().map(session).sum();
    }

    /// Closes sessions, one at a time, while routes exceed the budget.
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

    /// The neighbor whose routes grew most recently, if by a sixteenth of the budget; else the one
    /// with most. `None` if all have little: then the memory is about to be freed.
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
                "memory budget for routes exceeded, closing the session that takes most; let the neighbor send fewer \
                 routes, or give routelet more memory"
            );
            return;
        }
        tracing::warn!(%neighbor, octets, budget, "memory budget for routes exceeded, removing stale routes");
        Family::ALL.into_iter().for_each(|family| self.flush(no, family));
    }

    fn numbers_of(&self, which: impl Fn(&Peer) -> bool) -> std::vec::IntoIter<PeerNo> {
        let peers = self.peers.iter().enumerate().skip(usize::from(OWN) + 1);
        let those = peers.filter(|(_, p)| p.as_ref().is_some_and(&which));
        let numbers: Vec<_> = those.filter_map(|(n, _)| PeerNo::try_from(n).ok()).collect();
        numbers.into_iter()
    }

    /// Samples what each neighbor has, once per [`GROWTH_INTERVAL`].
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

    /// Problems for the operator: limits that are nearly reached, nodes that advertise prefixes
    /// that are not theirs, and subnets or AS numbers that another host has, too. `None` if nothing
    /// changed since the last call. Call at the end of a turn.
    pub fn take_problems(&mut self) -> Option<Vec<Diagnostic>> {
        let old = &self.memory.near;
        let budget = is_near(self.octets(), self.memory.budget, MEMORY_NEAR, old.budget);
        let numbers = self.shared_numbers().into_iter().map(|no| (no, self.peer(no).map(|p| p.id)));
        let (duplicates, numbers) = (self.duplicates(), numbers.collect());
        let mut near = Near { budget, duplicates, numbers, ..Near::default() };
        for (n, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            if peer.foreign.persists() {
                near.foreign.push((n as PeerNo, peer.id));
            }
            let max = peer.config.max_prefixes;
            let warns = peer.config.max_prefixes_action == MaxPrefixesAction::Warn;
            for family in Family::ALL {
                let received = peer.received[family];
                let limited = Limited { peer: n as PeerNo, family, max, over: warns && received > max };
                let was = old.peers.iter().any(|l| (l.peer, l.family, l.max) == (n as PeerNo, family, max));
                if received > 0 && is_near(received.into(), max.into(), PREFIXES_NEAR, was) {
                    near.peers.push(limited);
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
        let limits = budget
            .into_iter()
            .chain(near.peers.iter().map(|limited| self.limit_problem(*limited)))
            .chain(nodes)
            .chain(more);
        let duplicates = near.duplicates.iter().map(|d| self.duplicate_problem(d));
        let numbers = near.numbers.iter().map(|(no, _)| self.shared_number_problem(*no));
        limits.chain(duplicates).chain(numbers).collect()
    }

    fn limit_problem(&self, Limited { peer, family, max, over }: Limited) -> Diagnostic {
        let name = self.peer(peer).map(Peer::name).unwrap_or_default();
        let (reason, text) = if over {
            let text = format!(
                "neighbor {name} has sent more {family} prefixes than it may (max-prefixes {max}); they are \
                 accepted because of max-prefixes-action = \"warn\""
            );
            (Reason::PrefixLimitExceeded, text)
        } else {
            let text = format!(
                "neighbor {name} has sent {PREFIXES_NEAR} % or more of the {family} prefixes that it may \
                 (max-prefixes {max})"
            );
            (Reason::PrefixLimitNear, text)
        };
        Diagnostic::new(reason, Subject::neighbor(&name), text, "let it send fewer, or raise max-prefixes")
    }
}
