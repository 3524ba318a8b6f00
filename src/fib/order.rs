//! The order in which many routes are written, which the kernel's time depends on.
//!
//! Its IPv4 table is a trie whose nodes grow as they fill: copied to twice their size, in each level. Sorted prefixes
//! let them grow step by step; when a few from all over come first, nodes have their size early, and the rest only
//! fills them. That rest is sorted: neighboring prefixes share what lies in the processor's caches, when they are written
//! and when they are deleted. Figures are in docs/performance.md.

/// Every so many-th of the sorted prefixes is written first.
const COARSE: usize = 64;
/// Then every so many-th.
const MIDDLE: usize = 8;

/// All indices of a sorted list, those of some from all over first.
pub fn coarse_first(len: usize) -> impl Iterator<Item = usize> {
    let every = move |step: usize| (0..len).step_by(step);
    let middle = every(MIDDLE).filter(|n| !n.is_multiple_of(COARSE));
    let rest = every(1).filter(|n| !n.is_multiple_of(MIDDLE));
    every(COARSE).chain(middle).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_from_all_over_come_first_and_none_is_left_out() {
        for len in [0, 1, 8, 9, 64, 65, 200] {
            let mut order: Vec<_> = coarse_first(len).collect();
            if len == 200 {
                assert_eq!(order[..6], [0, 64, 128, 192, 8, 16]);
                assert!(order[25..].is_sorted());
            }
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
    }
}
