//! Lists of a condition, found in without reading all entries: a list of 10,000 prefixes costs a
//! route about as much as one of ten.

use std::{ops::Deref, sync::Arc};

use super::PrefixRange;
use crate::net::{Prefix, PrefixMap};

/// Entries in the order of the configuration, with an index. Copies share both.
#[derive(Clone, Debug)]
pub struct ValueList<T> {
    written: Arc<[T]>,
    sorted: Arc<[T]>,
}

impl<T: Ord> ValueList<T> {
    pub fn contains(&self, value: &T) -> bool {
        self.sorted.binary_search(value).is_ok()
    }
}

/// Prefix ranges in the order of the configuration, with a trie of their prefixes.
#[derive(Clone, Debug, Default)]
pub struct PrefixRanges {
    written: Arc<[PrefixRange]>,
    trie: Arc<PrefixMap<Lengths>>,
}

/// Lengths of the prefixes inside a prefix that match, first and last: sorted, disjoint.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lengths(Vec<(u8, u8)>);

impl PrefixRanges {
    /// Ranges that match everything inside one of these prefixes.
    pub fn inside(prefixes: &[Prefix]) -> Self {
        let range = |p: &Prefix| PrefixRange { prefix: *p, ge: p.len(), le: p.family().max_len() };
        prefixes.iter().map(range).collect()
    }

    /// Whether one of the ranges matches.
    pub fn matches(&self, prefix: Prefix) -> bool {
        self.trie.covering(prefix).any(|(_, lengths)| lengths.contain(prefix.len()))
    }
}

impl Lengths {
    /// Those of ranges of one prefix, sorted.
    fn of(ranges: &[PrefixRange]) -> Self {
        let mut lengths: Vec<(u8, u8)> = Vec::new();
        for range in ranges {
            match lengths.last_mut() {
                Some((_, last)) if range.ge <= last.saturating_add(1) => *last = range.le.max(*last),
                _ => lengths.push((range.ge, range.le)),
            }
        }
        Self(lengths)
    }

    fn contain(&self, len: u8) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= len);
        after.checked_sub(1).is_some_and(|at| self.0[at].1 >= len)
    }
}

fn trie(ranges: &[PrefixRange]) -> PrefixMap<Lengths> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let of_prefix = sorted.chunk_by(|a, b| a.prefix == b.prefix);
    of_prefix.map(|ranges| (ranges[0].prefix, Lengths::of(ranges))).collect()
}

impl From<Vec<PrefixRange>> for PrefixRanges {
    fn from(ranges: Vec<PrefixRange>) -> Self {
        Self { trie: Arc::new(trie(&ranges)), written: ranges.into() }
    }
}

impl<T: Ord + Clone> From<Vec<T>> for ValueList<T> {
    fn from(values: Vec<T>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        sorted.dedup();
        Self { written: values.into(), sorted: sorted.into() }
    }
}

impl<T: Ord + Clone> FromIterator<T> for ValueList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl FromIterator<PrefixRange> for PrefixRanges {
    fn from_iter<I: IntoIterator<Item = PrefixRange>>(ranges: I) -> Self {
        ranges.into_iter().collect::<Vec<_>>().into()
    }
}

impl<T> Default for ValueList<T> {
    fn default() -> Self {
        Self { written: Arc::default(), sorted: Arc::default() }
    }
}

/// The entries in the order of the configuration.
impl<T> Deref for ValueList<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.written
    }
}

/// The ranges in the order of the configuration.
impl Deref for PrefixRanges {
    type Target = [PrefixRange];

    fn deref(&self) -> &[PrefixRange] {
        &self.written
    }
}

impl<T: PartialEq> PartialEq for ValueList<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.written, &other.written) || self.written == other.written
    }
}

impl PartialEq for PrefixRanges {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.written, &other.written) || self.written == other.written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::any_prefix;

    fn range() -> impl Strategy<Value = PrefixRange> {
        (any_prefix(), 0u8..=32, 0u8..=32).prop_map(|(prefix, more, most)| {
            let ge = (prefix.len() + more).min(32);
            PrefixRange { prefix, ge, le: (ge + most).min(prefix.family().max_len()) }
        })
    }

    proptest! {
        #[test]
        fn a_list_matches_as_its_ranges_do_one_by_one(
            ranges in prop::collection::vec(range(), 0..40),
            probes in prop::collection::vec(any_prefix(), 1..40),
        ) {
            let list = PrefixRanges::from(ranges.clone());
            for probe in probes.into_iter().chain(ranges.iter().map(|r| r.prefix)) {
                prop_assert_eq!(list.matches(probe), ranges.iter().any(|r| r.matches(probe)), "{}", probe);
            }
            prop_assert_eq!(&list[..], &ranges[..], "in the order of the configuration");
        }

        #[test]
        fn a_value_is_found_wherever_it_is_written(values in prop::collection::vec(0u8..20, 0..20), probe in 0u8..20) {
            let list = ValueList::from(values.clone());
            prop_assert_eq!(list.contains(&probe), values.contains(&probe));
            prop_assert_eq!(&list[..], &values[..]);
        }
    }

    #[test]
    fn copies_of_a_list_share_its_entries() {
        let list: PrefixRanges = vec!["10.0.0.0/8".parse().unwrap()].into();
        let copy = list.clone();
        assert!(Arc::ptr_eq(&list.written, &copy.written) && Arc::ptr_eq(&list.trie, &copy.trie));
    }
}
