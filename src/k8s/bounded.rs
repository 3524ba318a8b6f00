//! A cache of watched objects by name, bounded in number and size: users who may write objects
//! cannot determine how much memory this node spends on them.

use std::{collections::BTreeMap, mem};

use super::watch::Change;

/// The cached part of an object.
pub(super) trait CacheEntry: PartialEq {
    /// Octets that it occupies besides `size_of::<Self>()`.
    fn octets(&self) -> usize;
}

/// Cached objects by name. Objects that do not matter here are not stored.
#[derive(Clone, Debug)]
pub(super) struct Cache<T> {
    known: Bounded<T>,
    listing: Option<Bounded<T>>,
    is_synced: bool,
}

/// Objects within [`MAX_OBJECTS`] and [`MAX_OCTETS`].
#[derive(Clone, Debug)]
struct Bounded<T> {
    objects: BTreeMap<String, T>,
    octets: usize,
    /// Whether objects were left out.
    overflowed: bool,
}

/// Maximum number of cached objects of one kind.
pub(super) const MAX_OBJECTS: usize = 50_000;
/// Maximum octets of all cached objects of one kind.
pub(super) const MAX_OCTETS: usize = 32 << 20;

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), octets: 0, overflowed: false }
    }
}

impl<T: CacheEntry> Bounded<T> {
    fn cost(name: &str, object: &T) -> usize {
        name.len() + size_of::<String>() + size_of::<T>() + object.octets()
    }

    /// Returns whether something changed. A new object that does not fit is left out, and a known
    /// one that has grown too large is removed.
    fn insert(&mut self, name: String, object: T) -> bool {
        if self.objects.get(&name) == Some(&object) {
            return false;
        }
        let known = self.remove(&name);
        let cost = Self::cost(&name, &object);
        if self.objects.len() >= MAX_OBJECTS || self.octets + cost > MAX_OCTETS {
            return !mem::replace(&mut self.overflowed, true) || known;
        }
        self.octets += cost;
        self.objects.insert(name, object);
        true
    }

    /// Returns whether it existed.
    fn remove(&mut self, name: &str) -> bool {
        let removed = self.objects.remove_entry(name);
        self.octets -= removed.as_ref().map_or(0, |(name, object)| Self::cost(name, object));
        removed.is_some()
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { known: Bounded::default(), listing: None, is_synced: false }
    }
}

impl<T: CacheEntry> Cache<T> {
    /// Applies a change. Returns whether the cache changed.
    pub(super) fn apply<O>(&mut self, change: Change<O>, read: impl Fn(&O) -> (String, Option<T>)) -> bool {
        match change {
            Change::ListStarted => self.listing = Some(Bounded::default()),
            Change::Listed(object) => {
                if let (name, Some(view)) = read(&object) {
                    self.listing.get_or_insert_default().insert(name, view);
                }
            }
            Change::ListDone => {
                let listing = self.listing.take().unwrap_or_default();
                let first = !mem::replace(&mut self.is_synced, true);
                let known = mem::replace(&mut self.known, listing);
                let overflow = known.overflowed != self.known.overflowed;
                return first || overflow || known.objects != self.known.objects;
            }
            Change::Applied(object) => {
                return match read(&object) {
                    (name, Some(view)) => self.known.insert(name, view),
                    (name, None) => self.known.remove(&name),
                };
            }
            Change::Deleted(object) => return self.known.remove(&read(&object).0),
        }
        false
    }

    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether objects are left out. They may be added with the next list.
    pub(super) fn overflowed(&self) -> bool {
        self.known.overflowed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.known.objects.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.known.objects.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CacheEntry for String {
        fn octets(&self) -> usize {
            self.len()
        }
    }

    fn read(object: &(usize, usize)) -> (String, Option<String>) {
        (format!("o{}", object.0), (object.1 > 0).then(|| "x".repeat(object.1)))
    }

    /// A cache of objects that were listed, or reported one by one.
    fn cache(objects: impl Iterator<Item = (usize, usize)>, listed: bool) -> Cache<String> {
        let mut cache = Cache::default();
        cache.apply(Change::ListStarted, read);
        if listed {
            for object in objects {
                cache.apply(Change::Listed(object), read);
            }
            cache.apply(Change::ListDone, read);
        } else {
            cache.apply(Change::ListDone, read);
            for object in objects {
                cache.apply(Change::Applied(object), read);
            }
        }
        cache
    }

    #[test]
    fn objects_are_bounded_in_number_and_octets() {
        for listed in [true, false] {
            let many = cache((0..MAX_OBJECTS + 10).map(|n| (n, 1)), listed);
            assert_eq!((many.iter().count(), many.overflowed()), (MAX_OBJECTS, true));
            let long = cache((0..100).map(|n| (n, 1 << 20)), listed);
            assert_eq!((long.iter().count(), long.overflowed()), (31, true));
            let few = cache((0..100).map(|n| (n, 1)), listed);
            assert_eq!((few.iter().count(), few.overflowed()), (100, false));
        }
    }

    #[test]
    fn what_changes_and_goes_gives_its_octets_back() {
        let mut cache = cache((0..30).map(|n| (n, 1 << 20)), true);
        for _ in 0..1000 {
            assert!(cache.apply(Change::Applied((0, 2000)), read));
            assert!(cache.apply(Change::Applied((0, 1 << 20)), read));
        }
        assert!(!cache.apply(Change::Applied((0, 1 << 20)), read), "no news");
        for n in 0..30 {
            assert!(cache.apply(Change::Deleted((n, 1)), read));
        }
        assert_eq!((cache.known.octets, cache.overflowed()), (0, false));
        // Grown beyond the bounds: removed, rather than kept as it was.
        assert!(cache.apply(Change::Applied((1, 1)), read));
        assert!(cache.apply(Change::Applied((1, MAX_OCTETS)), read));
        assert_eq!((cache.iter().count(), cache.overflowed()), (0, true));
    }
}
