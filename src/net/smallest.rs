//! The smallest of many values in bounded memory: reads unordered tables in order.

/// Collects the `keep` smallest of the values offered, in any order and number.
#[derive(Clone, Debug)]
pub struct Smallest<T> {
    keep: usize,
    /// At most twice as many as are kept, so that sorting is rare.
    found: Vec<T>,
    /// Once values were dropped: the largest that is still kept.
    largest: Option<T>,
}

impl<T: Copy + Ord> Smallest<T> {
    pub fn new(keep: usize) -> Self {
        Self { keep: keep.max(1), found: Vec::new(), largest: None }
    }

    /// The value above which nothing is kept any more, if any.
    pub fn largest(&self) -> Option<T> {
        self.largest
    }

    pub fn offer(&mut self, value: T) {
        if self.largest.is_some_and(|largest| value > largest) {
            return;
        }
        self.found.push(value);
        if self.found.len() >= self.keep * 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.found.len() > self.keep {
            let (_, largest, _) = self.found.select_nth_unstable(self.keep - 1);
            self.largest = Some(*largest);
            self.found.truncate(self.keep);
        }
    }

    /// Returns the values kept, sorted and without duplicates, and whether larger ones were
    /// dropped. Empty afterwards.
    pub fn take(&mut self) -> (Vec<T>, bool) {
        self.cut();
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable();
        found.dedup();
        (found, self.largest.take().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_order_the_smallest_are_kept_and_the_rest_is_known_to_be_there() {
        let orders: [Vec<u32>; 3] =
            [(0..100).collect(), (0..100).rev().collect(), (0..100).map(|n| n * 37 % 100).collect()];
        for order in orders {
            let mut smallest = Smallest::new(7);
            order.iter().for_each(|n| smallest.offer(*n));
            assert!(smallest.found.capacity() <= 16, "bounded");
            assert_eq!(smallest.take(), ((0..7).collect(), true));
            assert_eq!(smallest.take(), (vec![], false));
        }
    }

    #[test]
    fn as_many_as_are_kept_are_all() {
        let mut smallest = Smallest::new(3);
        [3, 1, 2].into_iter().for_each(|n| smallest.offer(n));
        assert_eq!(smallest.take(), (vec![1, 2, 3], false));
        [5, 5].into_iter().for_each(|n| smallest.offer(n));
        assert_eq!(smallest.take(), (vec![5], false), "once");
    }
}
