//! Who the BGP neighbors on one interface are.
//!
//! A link-local address becomes a neighbor when a router advertisement or a connection comes from
//! it, as long as there is room. The first one keeps its place for as long as it has a session;
//! without a session it has [`TRIAL`] to bring one up, and then gives way to any other that shows
//! itself. So neither a second router on the link nor a forged advertisement ends a session, and a
//! router that was replaced, or changed its link-local address, does not block the place of its
//! successor.

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

/// How long a neighbor without a session keeps its place against another.
const TRIAL: Duration = Duration::from_secs(10);
/// How long a neighbor without a session is remembered after its last packet. While there is none,
/// it is solicited at least once in a minute, to which every router replies (RFC 4861 §6.2.6): the
/// lifetime in its advertisements, which may be 0, decides only who is a default router.
const SILENCE: Duration = Duration::from_secs(180);

/// The neighbors of one interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbors {
    found: Vec<Neighbor>,
}

#[derive(Clone, Debug)]
struct Neighbor {
    addr: Ipv6Addr,
    seen: Instant,
    established: bool,
    /// When its place is free for another, unless it has a session by then.
    trial_ends: Instant,
}

/// What a packet from an address led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Known,
    New,
    /// It took the place of another.
    Replaced(Ipv6Addr),
    /// All places are taken.
    NoRoom,
}

impl Neighbors {
    /// A packet came from a router at `addr`.
    pub(super) fn seen(&mut self, now: Instant, addr: Ipv6Addr, limit: usize) -> Seen {
        if let Some(known) = self.found.iter_mut().find(|n| n.addr == addr) {
            known.seen = now;
            return Seen::Known;
        }
        let new = Neighbor { addr, seen: now, established: false, trial_ends: now + TRIAL };
        if self.found.len() < limit {
            self.found.push(new);
            return Seen::New;
        }
        let yields = |n: &&mut Neighbor| !n.established && n.trial_ends <= now;
        match self.found.iter_mut().filter(yields).min_by_key(|n| n.seen) {
            Some(place) => Seen::Replaced(std::mem::replace(place, new).addr),
            None => Seen::NoRoom,
        }
    }

    /// Which addresses have an established session now.
    pub(super) fn sessions(&mut self, now: Instant, established: &BTreeSet<Ipv6Addr>) {
        for n in &mut self.found {
            let before = std::mem::replace(&mut n.established, established.contains(&n.addr));
            if before && !n.established {
                (n.seen, n.trial_ends) = (now, now + TRIAL);
            }
        }
    }

    /// The link was lost: who is at its other end may have changed, so nobody has a claim to a
    /// place without a session.
    pub(super) fn link_lost(&mut self, now: Instant) {
        self.found.iter_mut().for_each(|n| n.trial_ends = now);
    }

    /// Forgets who is silent and has no session, and who is beyond the limit. Returns their
    /// addresses.
    pub(super) fn expire(&mut self, now: Instant, limit: usize) -> Vec<Ipv6Addr> {
        let mut gone = Vec::new();
        self.found.retain(|n| {
            let stays = n.established || now < n.seen + SILENCE;
            gone.extend((!stays).then_some(n.addr));
            stays
        });
        if self.found.len() > limit {
            self.found.sort_by_key(|n| !n.established);
            gone.extend(self.found.drain(limit..).map(|n| n.addr));
        }
        gone
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.found.iter().filter(|n| !n.established).map(|n| n.seen + SILENCE).min()
    }

    pub(super) fn addresses(&self) -> BTreeSet<Ipv6Addr> {
        self.found.iter().map(|n| n.addr).collect()
    }

    /// Whether solicitations are worth sending: nobody is there, or somebody has no session.
    pub(super) fn seeks(&self) -> bool {
        self.found.is_empty() || self.found.iter().any(|n| !n.established)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an epoch")]
mod tests {
    use super::*;

    fn addr(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn set(all: &[u16]) -> BTreeSet<Ipv6Addr> {
        all.iter().map(|n| addr(*n)).collect()
    }

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_second_router_waits_until_the_first_has_failed_to_bring_up_a_session() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        assert_eq!(all.seen(t0, addr(1), 1), Seen::New);
        assert_eq!(all.seen(t0 + s(9), addr(2), 1), Seen::NoRoom);
        assert_eq!(all.seen(t0 + s(9), addr(1), 1), Seen::Known);
        assert_eq!(all.seen(t0 + s(10), addr(2), 1), Seen::Replaced(addr(1)));
        assert_eq!(all.seen(t0 + s(11), addr(1), 1), Seen::NoRoom, "now the other one has its trial");
        assert_eq!(all.addresses(), set(&[2]));
    }

    #[test]
    fn a_session_keeps_its_place_although_advertisements_stop_and_others_send_them() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        all.seen(t0, addr(1), 1);
        all.sessions(t0 + s(1), &set(&[1]));
        for i in 0..10_000 {
            assert_eq!(all.seen(t0 + s(i), addr(2), 1), Seen::NoRoom);
        }
        assert!(all.expire(t0 + s(10_000), 1).is_empty());
        assert_eq!((all.poll_timeout(), all.seeks()), (None, false));
        // The session ends: ten seconds for the same neighbor to come back.
        all.sessions(t0 + s(10_000), &set(&[]));
        assert!(all.seeks());
        assert_eq!(all.seen(t0 + s(10_009), addr(2), 1), Seen::NoRoom);
        assert_eq!(all.seen(t0 + s(10_010), addr(2), 1), Seen::Replaced(addr(1)));
    }

    #[test]
    fn after_a_lost_link_whoever_shows_itself_first_has_the_place() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        all.seen(t0, addr(1), 1);
        all.sessions(t0, &set(&[1]));
        all.link_lost(t0 + s(5));
        assert_eq!(all.seen(t0 + s(5), addr(2), 1), Seen::NoRoom, "the session is still there");
        all.sessions(t0 + s(6), &set(&[]));
        all.link_lost(t0 + s(6));
        assert_eq!(all.seen(t0 + s(6), addr(2), 1), Seen::Replaced(addr(1)));
    }

    #[test]
    fn who_is_silent_without_a_session_is_forgotten() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        all.seen(t0, addr(1), 2);
        all.seen(t0 + s(100), addr(2), 2);
        assert_eq!(all.poll_timeout(), Some(t0 + SILENCE));
        assert_eq!(all.expire(t0 + SILENCE, 2), [addr(1)]);
        assert_eq!(all.addresses(), set(&[2]));
        assert_eq!(all.expire(t0 + s(100) + SILENCE, 2), [addr(2)]);
        assert!(all.seeks());
    }

    #[test]
    fn a_smaller_limit_keeps_those_with_a_session() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        for n in 1..=3 {
            all.seen(t0, addr(n), 3);
        }
        all.sessions(t0, &set(&[3]));
        assert_eq!(all.expire(t0, 1).len(), 2);
        assert_eq!(all.addresses(), set(&[3]));
    }

    #[test]
    fn a_hundred_thousand_addresses_take_no_more_places_than_the_limit() {
        let t0 = Instant::now();
        let mut all = Neighbors::default();
        let mut changes = 0;
        for i in 0..100_000u32 {
            let from = Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(i));
            let now = t0 + Duration::from_millis(u64::from(i) / 10);
            changes += u32::from(all.seen(now, from, 2) != Seen::NoRoom);
        }
        assert_eq!(all.addresses().len(), 2);
        assert!(changes <= 4, "{changes} changes in ten seconds");
    }
}
