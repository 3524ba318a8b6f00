use super::Prefix;

/// Values by prefix, built once: a trie in which the prefixes that contain another are found in a
/// few steps, however many there are beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMap<T> {
    /// Sorted by address, shorter first, so that a prefix precedes all prefixes inside it.
    nodes: Vec<Node<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<T> {
    prefix: Prefix,
    /// The longest prefix of the map that contains this one.
    parent: Option<usize>,
    value: T,
}

impl<T> PrefixMap<T> {
    /// The prefixes that are equal to this one or contain it, longest first.
    pub fn covering(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> {
        let inside = self.chain(prefix).skip_while(move |node| !node.prefix.covers(prefix));
        inside.map(|node| (node.prefix, &node.value))
    }

    /// All entries, sorted by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        self.nodes.iter().map(|node| (node.prefix, &node.value))
    }

    /// The last prefix that does not sort after this one, and those that contain it, longest first.
    /// No other can contain this one.
    fn chain(&self, prefix: Prefix) -> impl Iterator<Item = &Node<T>> {
        let after = self.nodes.partition_point(|node| node.prefix <= prefix);
        let last = after.checked_sub(1).and_then(|at| self.nodes.get(at));
        std::iter::successors(last, |node| self.nodes.get(node.parent?))
    }
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

/// Takes entries in any order; of several values of one prefix, the first.
impl<T> FromIterator<(Prefix, T)> for PrefixMap<T> {
    fn from_iter<I: IntoIterator<Item = (Prefix, T)>>(entries: I) -> Self {
        let mut sorted: Vec<(Prefix, T)> = entries.into_iter().collect();
        sorted.sort_by_key(|(prefix, _)| *prefix);
        sorted.dedup_by_key(|(prefix, _)| *prefix);
        let mut nodes: Vec<Node<T>> = Vec::with_capacity(sorted.len());
        for (prefix, value) in sorted {
            let mut parent = nodes.len().checked_sub(1);
            while let Some(node) = parent.map(|at| &nodes[at]).filter(|n| !n.prefix.covers(prefix)) {
                parent = node.parent;
            }
            nodes.push(Node { prefix, parent, value });
        }
        Self { nodes }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Prefixes for tests of other files.

    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use crate::net::Prefix;

    /// Prefixes that often contain one another.
    pub(crate) fn any_prefix() -> impl Strategy<Value = Prefix> {
        let bits = prop_oneof![Just(0u32), Just(0x0a00_0000), Just(0x0a01_0000), 0x0a00_0000..0x0a02_0000u32];
        (bits, 0u8..=32, any::<bool>()).prop_map(|(bits, len, six)| match six {
            true => Prefix::v6(Ipv6Addr::from_bits(u128::from(bits) << 96), len),
            false => Prefix::v4(Ipv4Addr::from_bits(bits), len),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::{testing::any_prefix, *};

    proptest! {
        #[test]
        fn the_prefixes_around_another_are_those_that_a_scan_finds(
            entries in prop::collection::vec((any_prefix(), any::<u8>()), 0..40),
            probes in prop::collection::vec(any_prefix(), 1..40),
        ) {
            let map: PrefixMap<u8> = entries.iter().copied().collect();
            for probe in probes.into_iter().chain(entries.iter().map(|(p, _)| *p)) {
                let mut scanned: Vec<_> = entries.iter().copied().filter(|(p, _)| p.covers(probe)).collect();
                scanned.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
                scanned.dedup_by_key(|(p, _)| *p);
                let found: Vec<_> = map.covering(probe).map(|(p, value)| (p, *value)).collect();
                prop_assert_eq!(found, scanned, "{}", probe);
            }
        }
    }

    #[test]
    fn a_look_up_passes_as_many_prefixes_in_a_large_map_as_in_a_small_one() {
        let one = |n: u32| (Prefix::v4(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)), 24), ());
        for probe in ["10.0.0.0/24", "10.0.0.7/32", "192.0.2.0/24", "0.0.0.0/0", "10.0.0.0/8"] {
            let probe: Prefix = probe.parse().unwrap();
            let counts = [10, 1_000, 20_000].map(|n| {
                let map: PrefixMap<()> = (0..n).map(one).collect();
                map.chain(probe).count()
            });
            assert!(counts.iter().all(|n| *n <= 1), "{probe}: {counts:?}");
        }
    }
}
