//! Records where the kernel may hold routes of ours: the `[fib]` settings in force, and former ones
//! whose routes are not swept yet. Pure; the record is a file in the state folder.
//!
//! `[fib]` may change between two starts. Routes of the former configuration then have another
//! table, protocol number or metric, and only this record identifies them as ours. It is written
//! before the first route, so that a crash leaves no unknown routes, and it is valid for one boot,
//! which routes do not survive.

use serde::{Deserialize, Serialize};

use crate::fib::route::{OWN_METRIC, SeenRoute};

/// What distinguishes routes of ours from other routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub table: u32,
    pub protocol: u8,
    /// Metric of learned routes. Unreachable routes against loops have [`OWN_METRIC`].
    pub metric: u32,
}

impl Location {
    /// Whether a kernel route is one that we installed at this location.
    pub fn holds(&self, route: &SeenRoute) -> bool {
        self.has_key_of(route) && route.protocol == self.protocol && !route.cloned
    }

    /// Whether a route has a key that one of ours could have. The kernel's key is table, prefix and
    /// metric, without the protocol.
    pub fn has_key_of(&self, route: &SeenRoute) -> bool {
        route.table == self.table && (route.metric == self.metric || route.metric == OWN_METRIC)
    }
}

/// All locations used since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    boot: String,
    /// Newest last.
    places: Vec<Location>,
}

/// Number of locations kept, more than configurations change before a sweep; the oldest are
/// dropped.
const MAX_LOCATIONS: usize = 32;

impl Record {
    pub fn new(boot: &str) -> Self {
        Self { boot: boot.to_owned(), places: Vec::new() }
    }

    /// Whether the record was written in this boot.
    pub fn is_of(&self, boot: &str) -> bool {
        self.boot == boot
    }

    /// All locations.
    pub fn places(&self) -> &[Location] {
        &self.places
    }

    /// The locations that are no longer in force. `now` is `None` if nothing is installed.
    pub fn former(&self, now: Option<Location>) -> Vec<Location> {
        self.places.iter().copied().filter(|p| Some(*p) != now).collect()
    }

    /// The record to write before the first route: the new location beside the former ones.
    #[must_use]
    pub fn with(&self, now: Option<Location>) -> Self {
        let mut places = self.former(now);
        places.extend(now);
        places.drain(..places.len().saturating_sub(MAX_LOCATIONS));
        Self { boot: self.boot.clone(), places }
    }

    /// The record to write when the former locations are empty.
    #[must_use]
    pub fn swept(&self, now: Option<Location>) -> Self {
        Self { boot: self.boot.clone(), places: now.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::{Preference, RouteType};

    fn place(table: u32, protocol: u8, metric: u32) -> Location {
        Location { table, protocol, metric }
    }

    #[test]
    fn places_are_known_until_they_are_swept() {
        let (first, second, third) = (place(254, 179, 179), place(1000, 179, 179), place(1000, 181, 50));
        let record = Record::new("boot").with(Some(first));
        assert!(record.former(Some(first)).is_empty(), "nothing has changed");
        // Two changes, and a crash before either was swept.
        let record = record.with(Some(second)).with(Some(third));
        assert_eq!(record.former(Some(third)), [first, second]);
        // Back to the first.
        let back = record.with(Some(first));
        assert_eq!(back.former(Some(first)), [second, third]);
        assert_eq!(back.former(None), [second, third, first], "nothing is installed any longer");
        assert_eq!(back.with(None).places(), [second, third, first]);
        assert_eq!(back.swept(Some(first)).places(), [first]);
        assert_eq!(back.swept(None).places(), []);
        let many = (0..100).fold(Record::new("boot"), |r, n| r.with(Some(place(n, 179, 179))));
        assert!(many.places().len() == MAX_LOCATIONS && many.places().last() == Some(&place(99, 179, 179)));
        let text = serde_json::to_string(&back).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), back);
        assert!(back.is_of("boot") && !back.is_of("another"));
    }

    #[test]
    fn only_what_was_written_there_counts() {
        let route = |table, protocol, metric, cloned| SeenRoute {
            prefix: "10.9.0.0/16".parse().unwrap(),
            table,
            metric,
            protocol,
            kind: Some(RouteType::Unicast),
            tos: 0,
            preference: Preference::default(),
            source: None,
            cloned,
            object: 0,
            hops: Vec::new(),
        };
        let there = place(254, 179, 50);
        #[rustfmt::skip]
        let cases = [
            ("learned",                    route(254, 179, 50, false),         true),
            ("against loops",              route(254, 179, OWN_METRIC, false), true),
            ("of another daemon",          route(254, 12, 50, false),          false),
            ("somebody else's metric",     route(254, 179, 20, false),         false),
            ("another table",              route(100, 179, 50, false),         false),
            ("a cached copy",              route(254, 179, 50, true),          false),
        ];
        for (name, route, expected) in &cases {
            assert_eq!(there.holds(route), *expected, "{name}");
        }
        assert!(there.has_key_of(&cases[2].1) && !there.has_key_of(&cases[3].1));
    }
}
