//! How long a dynamic neighbor stays without a session, and when another may take its place in the
//! listen-range.

use std::time::{Duration, Instant};

/// How long a dynamic neighbor is listed after its session was closed.
const LINGER: Duration = Duration::from_secs(30);

/// A dynamic neighbor that has not sent an OPEN within this time may be evicted when its
/// listen-range is full. (RFC 4271 §8.2.2 suggests 4 minutes.)
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a neighbor at one time.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// It connected from a listen-range; others stay for as long as they are configured.
    pub is_dynamic: bool,
    /// Whether it has a TCP connection.
    pub is_connected: bool,
    /// Whether its session is up.
    pub is_up: bool,
    /// Whether it ever had a session.
    pub has_been_up: bool,
    /// When its session last changed its state.
    pub since: Instant,
    /// Until when the RIB keeps its routes after its session was closed.
    pub routes_kept_until: Option<Instant>,
}

impl Retention {
    /// When it is removed if it does not connect again: not before its stale routes expire.
    pub fn removal(&self) -> Option<Instant> {
        let listed = self.since + LINGER;
        let at = self.routes_kept_until.map_or(listed, |kept| kept.max(listed));
        (self.is_dynamic && !self.is_connected).then_some(at)
    }

    /// Whether it is to be removed now.
    pub fn is_over(&self, now: Instant) -> bool {
        self.removal().is_some_and(|at| at <= now)
    }

    /// Whether another neighbor may have its place: it has neither a connection nor routes, or has
    /// not sent an OPEN in time.
    pub fn is_evictable(&self, now: Instant) -> bool {
        let is_gone = !self.is_connected && !self.has_routes(now);
        let sent_no_open = !self.has_been_up && self.since + OPEN_TIMEOUT <= now;
        self.is_dynamic && (is_gone || sent_no_open)
    }

    /// Whether the RIB may have its routes, of its session or of the last one.
    pub fn has_routes(&self, now: Instant) -> bool {
        self.is_up || self.routes_kept_until.is_some_and(|kept| now < kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_neighbor_stays_while_it_is_connected_or_its_routes_are_kept() {
        #[expect(clippy::disallowed_methods, reason = "an epoch")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let up = Retention {
            is_dynamic: true,
            is_connected: true,
            is_up: true,
            has_been_up: true,
            since: start,
            routes_kept_until: None,
        };
        let closed = Retention { is_connected: false, is_up: false, ..up };
        let stale = Retention { routes_kept_until: Some(at(120)), ..closed };
        let mute = Retention { is_up: false, has_been_up: false, ..up };
        #[rustfmt::skip]
        let cases = [
            // what; value; removed at; evictable after 0, 9, 10 and 120 s
            ("with a session",                   up,                                  None,      [false; 4]),
            ("closed",                           closed,                              Some(30),  [true; 4]),
            ("closed, routes are kept",          stale,                               Some(120), [false, false, false, true]),
            ("closed, routes are kept shortly",  Retention { routes_kept_until: Some(at(5)), ..closed }, Some(30), [false, true, true, true]),
            ("connected, no OPEN",               mute,                                None,      [false, false, true, true]),
            ("never connected",                  Retention { is_connected: false, ..mute }, Some(30), [true; 4]),
            ("configured, closed",               Retention { is_dynamic: false, ..closed }, None,     [false; 4]),
            ("configured, no OPEN",              Retention { is_dynamic: false, ..mute },   None,     [false; 4]),
        ];
        for (what, retention, removal, evictable) in cases {
            assert_eq!(retention.removal(), removal.map(at), "{what}");
            assert_eq!([0, 9, 10, 120].map(|s| retention.is_evictable(at(s))), evictable, "{what}");
            if let Some(removal) = removal {
                assert!(!retention.is_over(at(removal - 1)) && retention.is_over(at(removal)), "{what}");
            }
        }
        assert!(up.has_routes(at(1000)) && stale.has_routes(at(119)) && !stale.has_routes(at(120)));
    }
}
