//! What a watch has shown, by name, bounded in number and in octets: whoever may write objects decides neither how many of
//! them nor how much of each is kept.

use std::{collections::BTreeMap, mem};

/// A change that a watch reports. Those of a listing count once it is whole.
#[derive(Clone, Debug)]
pub enum Change<T> {
    Begin,
    Listed(T),
    Whole,
    Changed(T),
    Gone(T),
}

/// What is kept of an object.
pub(super) trait Kept: PartialEq {
    /// Octets that it takes beside its own size.
    fn octets(&self) -> usize;
}

/// What is known of objects, by name; those that do not matter are not in it.
#[derive(Clone, Debug)]
pub(super) struct Cache<T> {
    known: Bounded<T>,
    listing: Option<Bounded<T>>,
    is_whole: bool,
}

/// Objects within [`MAX_OBJECTS`] and [`MAX_OCTETS`].
#[derive(Clone, Debug)]
struct Bounded<T> {
    objects: BTreeMap<String, T>,
    octets: usize,
    /// Some were left out.
    overflowed: bool,
}

/// Objects of one kind that are kept.
pub(super) const MAX_OBJECTS: usize = 50_000;
/// Octets of all of them.
pub(super) const MAX_OCTETS: usize = 32 << 20;

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), octets: 0, overflowed: false }
    }
}

impl<T: Kept> Bounded<T> {
    fn cost(name: &str, object: &T) -> usize {
        name.len() + size_of::<String>() + size_of::<T>() + object.octets()
    }

    /// Whether something changed. A new object that there is no room for is left out, and a known one that
    /// has grown beyond it goes.
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

    /// Whether it was there.
    fn remove(&mut self, name: &str) -> bool {
        let removed = self.objects.remove_entry(name);
        self.octets -= removed.as_ref().map_or(0, |(name, object)| Self::cost(name, object));
        removed.is_some()
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { known: Bounded::default(), listing: None, is_whole: false }
    }
}

impl<T: Kept> Cache<T> {
    /// Takes a change; whether something changed here.
    pub(super) fn apply<O>(&mut self, change: Change<O>, read: impl Fn(&O) -> (String, Option<T>)) -> bool {
        match change {
            Change::Begin => self.listing = Some(Bounded::default()),
            Change::Listed(object) => {
                if let (name, Some(view)) = read(&object) {
                    self.listing.get_or_insert_default().insert(name, view);
                }
            }
            Change::Whole => {
                let listing = self.listing.take().unwrap_or_default();
                let first = !mem::replace(&mut self.is_whole, true);
                let known = mem::replace(&mut self.known, listing);
                let overflow = known.overflowed != self.known.overflowed;
                return first || overflow || known.objects != self.known.objects;
            }
            Change::Changed(object) => {
                return match read(&object) {
                    (name, Some(view)) => self.known.insert(name, view),
                    (name, None) => self.known.remove(&name),
                };
            }
            Change::Gone(object) => return self.known.remove(&read(&object).0),
        }
        false
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether objects are left out. Those follow with the next listing.
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

    impl Kept for String {
        fn octets(&self) -> usize {
            self.len()
        }
    }

    fn read(object: &(usize, usize)) -> (String, Option<String>) {
        (format!("o{}", object.0), (object.1 > 0).then(|| "x".repeat(object.1)))
    }

    /// Listed, or reported one by one.
    fn cache(objects: impl Iterator<Item = (usize, usize)>, listed: bool) -> Cache<String> {
        let mut cache = Cache::default();
        cache.apply(Change::Begin, read);
        if listed {
            for object in objects {
                cache.apply(Change::Listed(object), read);
            }
            cache.apply(Change::Whole, read);
        } else {
            cache.apply(Change::Whole, read);
            for object in objects {
                cache.apply(Change::Changed(object), read);
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
            assert!(cache.apply(Change::Changed((0, 2000)), read));
            assert!(cache.apply(Change::Changed((0, 1 << 20)), read));
        }
        assert!(!cache.apply(Change::Changed((0, 1 << 20)), read), "no news");
        for n in 0..30 {
            assert!(cache.apply(Change::Gone((n, 1)), read));
        }
        assert_eq!((cache.known.octets, cache.overflowed()), (0, false));
        // Grown beyond all bounds: gone, and not as it was before.
        assert!(cache.apply(Change::Changed((1, 1)), read));
        assert!(cache.apply(Change::Changed((1, MAX_OCTETS)), read));
        assert_eq!((cache.iter().count(), cache.overflowed()), (0, true));
    }
}
