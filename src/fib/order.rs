//! The order in which many routes are written, on which the kernel's time depends.
//!
//! The kernel's IPv4 table is a trie whose nodes double as they fill, which copies each level. With
//! sorted prefixes they grow step by step. If prefixes from all over the range come first, the
//! nodes reach their size early and the rest only fills them. That rest is sorted, because
//! neighboring prefixes share cache lines when they are written and when they are deleted. See
//! docs/performance.md for figures.

/// One in this many of the sorted prefixes is written first.
const COARSE: usize = 64;
/// Then one in this many.
const MIDDLE: usize = 8;

/// Returns all indices of a sorted list, starting with some from all over it.
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
