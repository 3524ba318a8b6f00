//! Decides which connections a listener serves.
//!
//! The number of places is limited. If another connection does not fit, the oldest one that has
//! sent no request yields, or else the oldest of all: a client that sends its request at once is
//! served, no matter how many connections others keep open. Each connection keeps its place for at
//! least [`LEAST`], so that a request that follows at once is read even while others connect all
//! the time; until then the next client waits in the kernel's queue.
//!
//! `accept` fails for lack of a descriptor even when no client waits. Therefore a lack of
//! descriptors only closes connections that had [`GRACE`] to send a request and did not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a connection keeps its descriptor at least.
const GRACE: Duration = Duration::from_millis(200);
/// How long a connection keeps its place at least.
const LEAST: Duration = Duration::from_millis(30);
/// Minimum time between two warnings that no connection can be accepted.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The open connections of one listener. Numbers rise, so the first in the map is the oldest.
#[derive(Debug)]
pub struct Places {
    most: usize,
    since: BTreeMap<u64, Instant>,
    next: u64,
    warned: Option<Instant>,
}

/// What has to happen before another connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Free,
    /// All places are taken by recent connections.
    Wait(Duration),
    /// This connection yields.
    Close(u64),
}

impl Places {
    /// Places for at most this many connections.
    pub fn new(most: usize) -> Self {
        Self { most, since: BTreeMap::new(), next: 0, warned: None }
    }

    /// Whether another connection has a place. `is_silent`: the connection has sent no request.
    pub fn find(&self, now: Instant, is_silent: impl Fn(u64) -> bool) -> Place {
        let oldest = self.since.iter().find(|(n, _)| is_silent(**n)).or_else(|| self.since.iter().next());
        let Some((number, since)) = oldest.filter(|_| self.since.len() >= self.most) else {
            return Place::Free;
        };
        match LEAST.saturating_sub(now.saturating_duration_since(*since)) {
            Duration::ZERO => Place::Close(*number),
            wait => Place::Wait(wait),
        }
    }

    /// The connection to close if no descriptor is left.
    pub fn without_request(&self, now: Instant, is_silent: impl Fn(u64) -> bool) -> Option<u64> {
        let had_grace = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
        self.since.iter().find(|(n, since)| is_silent(**n) && had_grace(since)).map(|(n, _)| *n)
    }

    /// Registers a new connection. Returns its number.
    pub fn take(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.since.insert(number, now);
        number
    }

    /// Removes a connection that has ended.
    pub fn leave(&mut self, number: u64) {
        self.since.remove(&number);
    }

    /// Whether to warn now that no connection can be accepted.
    pub fn warns(&mut self, now: Instant) -> bool {
        let is_due = self.warned.is_none_or(|at| now.saturating_duration_since(at) > WARNING_INTERVAL);
        if is_due {
            self.warned = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_without_a_request_yields_else_the_oldest() {
        let (mut places, start) = (Places::new(3), Instant::now());
        let later = start + LEAST;
        assert_eq!(places.find(start, |_| true), Place::Free);
        for number in 0..3 {
            assert_eq!(places.take(start), number);
        }
        assert_eq!(places.find(later, |n| n > 0), Place::Close(1));
        assert_eq!(places.find(later, |_| false), Place::Close(0));
        places.leave(1);
        assert_eq!(places.find(later, |_| true), Place::Free);
        assert_eq!(places.take(later), 3, "no number is given twice");
    }

    #[test]
    fn a_young_connection_keeps_its_place_and_its_descriptor_for_a_while() {
        let (mut places, start) = (Places::new(1), Instant::now());
        places.take(start);
        assert_eq!(places.find(start, |_| true), Place::Wait(LEAST));
        assert_eq!(places.find(start + LEAST / 3, |_| false), Place::Wait(LEAST - LEAST / 3));
        assert_eq!(places.without_request(start + LEAST, |_| true), None);
        assert_eq!(places.without_request(start + GRACE, |_| true), Some(0));
        assert_eq!(places.without_request(start + GRACE, |_| false), None, "its request is served");
    }

    #[test]
    fn warnings_come_once_a_minute() {
        let (mut places, start) = (Places::new(1), Instant::now());
        let seconds = [0, 1, 60, 61, 62, 121].map(|s| places.warns(start + Duration::from_secs(s)));
        assert_eq!(seconds, [true, false, false, true, false, false]);
    }
}
