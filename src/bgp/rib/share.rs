//! How much of the address space one neighbor may cover with very short prefixes.
//!
//! 220 prefixes of length 8 amount to a default route. Prefixes shorter than /11 (IPv6 /20) that
//! are long enough to be accepted one by one may cover a quarter of the address space (IPv6: of
//! 2000::/3) per neighbor without `accept-default`. In a full Internet table they cover an eighth.
//!
//! Space that several prefixes cover counts once. Prefixes are accepted in order of address,
//! shorter ones first, up to the first that does not fit: which ones are refused depends on the set
//! alone, not on the order of arrival. Adding or removing a prefix moves this boundary past few
//! others, as each covers at least one and at most eight of the units in which space is counted.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use crate::net::{Family, Prefix, guard};

/// The prefixes of one neighbor and family that count.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// Each with the number of its paths.
    prefixes: BTreeMap<Prefix, u32>,
    /// Prefixes up to this one are accepted; `None`: none.
    last: Option<Prefix>,
    /// Units that the accepted prefixes cover.
    covered: u32,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The shortest length that counts; the longest is the unit of space.
    shortest: u8,
    unit: u8,
    /// Units that may be covered.
    most: u32,
}

impl Limits {
    fn new(family: Family) -> Self {
        let (unit, most) = match family {
            // A quarter of 2^10 units, and of the 2^16 in 2000::/3.
            Family::Ipv4Unicast => (10, 1 << 8),
            Family::Ipv6Unicast => (19, 1 << 14),
        };
        Self { shortest: guard::shortest(family), unit, most }
    }
}

impl Share {
    pub(super) fn new(family: Family) -> Self {
        Self { prefixes: BTreeMap::new(), last: None, covered: 0, limits: Limits::new(family) }
    }

    /// Octets that it takes, for a tree that is at least half full.
    pub(super) fn octets(&self) -> u64 {
        const ENTRY: u64 = 64;
        self.prefixes.len() as u64 * ENTRY
    }

    /// Whether a prefix counts: shorter ones are refused without `accept-default`, longer ones
    /// never are.
    pub(super) fn counts(prefix: Prefix) -> bool {
        let limits = Limits::new(prefix.family());
        (limits.shortest..=limits.unit).contains(&prefix.len())
    }

    /// Whether a prefix of the set is accepted.
    pub(super) fn accepts(&self, prefix: Prefix) -> bool {
        self.last.is_some_and(|last| prefix <= last)
    }

    /// Adds a path to `prefix`. Returns the prefixes whose acceptance may have changed.
    pub(super) fn add(&mut self, prefix: Prefix) -> Vec<Prefix> {
        let paths = self.prefixes.entry(prefix).or_default();
        *paths += 1;
        if *paths > 1 {
            return Vec::new();
        }
        if self.accepts(prefix) {
            self.covered += self.alone(prefix);
        }
        let mut changed = vec![prefix];
        self.move_boundary(&mut changed);
        changed
    }

    /// Removes a path to `prefix`. Returns the prefixes whose acceptance may have changed.
    pub(super) fn remove(&mut self, prefix: Prefix) -> Vec<Prefix> {
        let mut changed = Vec::new();
        let Some(paths) = self.prefixes.get_mut(&prefix) else { return changed };
        *paths -= 1;
        if *paths > 0 {
            return changed;
        }
        if self.accepts(prefix) {
            self.covered -= self.alone(prefix);
        }
        if self.last == Some(prefix) {
            self.last = self.before(prefix);
        }
        self.prefixes.remove(&prefix);
        self.move_boundary(&mut changed);
        changed
    }

    fn move_boundary(&mut self, changed: &mut Vec<Prefix>) {
        while let Some(last) = self.last.filter(|_| self.covered > self.limits.most) {
            self.covered -= self.alone(last);
            self.last = self.before(last);
            changed.push(last);
        }
        while let Some(next) = self.after(self.last) {
            let covered = self.covered + self.alone(next);
            if covered > self.limits.most {
                break;
            }
            (self.covered, self.last) = (covered, Some(next));
            changed.push(next);
        }
    }

    /// Units that only this one of all accepted prefixes covers.
    fn alone(&self, prefix: Prefix) -> u32 {
        let around = (self.limits.shortest..prefix.len()).filter_map(|len| Prefix::new(prefix.addr(), len));
        if around.into_iter().any(|p| self.prefixes.contains_key(&p)) {
            return 0;
        }
        let mut units = self.units(prefix);
        let mut inside: Option<Prefix> = None;
        let behind = self.prefixes.range((Excluded(prefix), Unbounded)).map(|(p, _)| *p);
        for p in behind.take_while(|p| prefix.covers(*p) && self.accepts(*p)) {
            if inside.is_none_or(|outer| !outer.covers(p)) {
                units -= self.units(p);
                inside = Some(p);
            }
        }
        units
    }

    fn units(&self, prefix: Prefix) -> u32 {
        1 << (self.limits.unit - prefix.len())
    }

    fn before(&self, prefix: Prefix) -> Option<Prefix> {
        self.prefixes.range(..prefix).next_back().map(|(p, _)| *p)
    }

    fn after(&self, prefix: Option<Prefix>) -> Option<Prefix> {
        match prefix {
            None => self.prefixes.keys().next().copied(),
            Some(prefix) => self.prefixes.range((Excluded(prefix), Unbounded)).next().map(|(p, _)| *p),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn accepted(share: &Share) -> Vec<Prefix> {
        share.prefixes.keys().copied().filter(|p| share.accepts(*p)).collect()
    }

    #[test]
    fn two_hundred_and_twenty_prefixes_of_eight_bits_are_a_quarter_of_the_space_at_most() {
        let mut share = Share::new(Family::Ipv4Unicast);
        for n in 1..=220 {
            share.add(Prefix::v4([n, 0, 0, 0].into(), 8));
        }
        assert_eq!(accepted(&share).len(), 64);
        for n in 1..=60 {
            share.remove(Prefix::v4([n, 0, 0, 0].into(), 8));
        }
        assert_eq!(accepted(&share).len(), 64, "others come in for those that went");
        assert_eq!(accepted(&share)[0], p("61.0.0.0/8"));

        let mut share = Share::new(Family::Ipv6Unicast);
        for n in 0..0x2000 {
            share.add(Prefix::v6([0x2000 + n, 0, 0, 0, 0, 0, 0, 0].into(), 16));
        }
        assert_eq!(accepted(&share).len(), 0x800, "a quarter of 2000::/3");
    }

    #[test]
    fn what_several_prefixes_cover_counts_once() {
        let mut share = Share::new(Family::Ipv4Unicast);
        for n in 1..=64 {
            for (len, step) in [(8, 0), (9, 128), (10, 64), (10, 64)] {
                share.add(Prefix::v4([n, step, 0, 0].into(), len));
            }
        }
        assert_eq!(accepted(&share).len(), 3 * 64);
        share.add(p("200.0.0.0/10"));
        assert!(!share.accepts(p("200.0.0.0/10")));
        share.remove(p("7.0.0.0/8"));
        assert!(share.accepts(p("200.0.0.0/10")), "a quarter of 7/8 is not covered any longer");
        share.remove(p("8.64.0.0/10"));
        share.add(p("201.0.0.0/10"));
        assert!(!share.accepts(p("201.0.0.0/10")), "8/8 and one more path cover it");
    }

    #[test]
    fn those_that_count_are_neither_refused_one_by_one_nor_long() {
        let counted = ["8.0.0.0/8", "8.0.0.0/10", "2000::/16", "2000::/19", "fd00::/16"];
        let others = ["0.0.0.0/0", "8.0.0.0/7", "8.0.0.0/11", "2000::/15", "2000::/20"];
        assert!(counted.iter().all(|s| Share::counts(p(s))) && !others.iter().any(|s| Share::counts(p(s))));
    }

    /// The expected result, from the set alone, by adding up single units.
    fn expected(all: &BTreeSet<Prefix>, limits: Limits) -> Vec<Prefix> {
        let mut units = BTreeSet::new();
        let mut fits = Vec::new();
        for prefix in all {
            let first = match prefix {
                Prefix::V4 { addr, .. } => addr.to_bits() >> (32 - limits.unit),
                Prefix::V6 { addr, .. } => (addr.to_bits() >> (128 - limits.unit)) as u32,
            };
            units.extend((0..1 << (limits.unit - prefix.len())).map(|n| first + n));
            if units.len() > limits.most as usize {
                break;
            }
            fits.push(*prefix);
        }
        fits
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_accepted_ones_follow_from_the_set_and_every_change_is_returned(
            steps in prop::collection::vec((any::<bool>(), 0..=255u8, 8..=10u8), 1..400),
            small in prop::sample::select(vec![8u32, 40, 256]),
        ) {
            let mut share = Share::new(Family::Ipv4Unicast);
            share.limits.most = small;
            let mut paths: BTreeMap<Prefix, u32> = BTreeMap::new();
            let mut seen: BTreeSet<Prefix> = BTreeSet::new();
            for (add, n, len) in steps {
                let prefix = Prefix::v4([n / 2, n << 7, 0, 0].into(), len);
                let changed = if add {
                    *paths.entry(prefix).or_default() += 1;
                    share.add(prefix)
                } else if let Some(count) = paths.get_mut(&prefix) {
                    *count -= 1;
                    if *count == 0 {
                        paths.remove(&prefix);
                        seen.remove(&prefix);
                    }
                    share.remove(prefix)
                } else {
                    continue;
                };
                for p in changed {
                    if share.accepts(p) { seen.insert(p) } else { seen.remove(&p) };
                }
                let fits = expected(&paths.keys().copied().collect(), share.limits);
                prop_assert_eq!(&accepted(&share), &fits);
                prop_assert_eq!(seen.iter().copied().collect::<Vec<_>>(), fits, "as derived from the returned changes");
            }
        }

        /// A few prefixes change with one, whatever comes and goes.
        #[test]
        fn a_change_moves_few_others(
            steps in prop::collection::vec((any::<bool>(), any::<u16>(), 16..=19u8), 1..2000),
        ) {
            let mut share = Share::new(Family::Ipv6Unicast);
            share.limits.most = 64;
            for (add, n, len) in steps {
                let prefix = Prefix::v6([0x2000 + n % 64, (n >> 6) << 13, 0, 0, 0, 0, 0, 0].into(), len);
                let changed = if add { share.add(prefix) } else { share.remove(prefix) };
                prop_assert!(changed.len() <= 40, "{} of {}", changed.len(), share.prefixes.len());
            }
        }
    }

    #[test]
    fn what_it_takes_is_counted_until_it_is_given_back() {
        let mut share = Share::new(Family::Ipv6Unicast);
        let prefixes: Vec<Prefix> =
            (1..8u16).map(|n| format!("{:x}::/19", n * 0x2000).parse().unwrap()).collect();
        prefixes.iter().for_each(|p| drop(share.add(*p)));
        assert!(share.octets() >= 7 * size_of::<(Prefix, u32)>() as u64);
        prefixes.iter().for_each(|p| drop(share.remove(*p)));
        assert_eq!(share.octets(), 0);
    }
}
