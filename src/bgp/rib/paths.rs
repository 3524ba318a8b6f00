//! ADD-PATH (RFC 7911): path identifiers, and the slots of paths in an update group.
//!
//! The origin of a path is its neighbor and the identifier that this one gave it. It is advertised
//! under one identifier, the same to all neighbors, for as long as any group holds it. Identifiers
//! are assigned in sequence, so that a released one is not reused soon.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::table::{PeerNo, RouteNo, cut};

/// Origin of a path: the neighbor, and its identifier there.
pub(super) type Origin = (PeerNo, u32);

/// The identifiers of one family's paths.
#[derive(Debug, Default)]
pub(super) struct PathIds {
    /// The identifier, and its users: one for each group and prefix.
    numbers: HashMap<Origin, (u32, u32), RandomState>,
    origins: HashMap<u32, Origin, RandomState>,
    last: u32,
}

impl PathIds {
    /// The identifier for this origin, with one more user.
    pub(super) fn acquire(&mut self, origin: Origin) -> u32 {
        if let Some((number, users)) = self.numbers.get_mut(&origin) {
            *users += 1;
            return *number;
        }
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.origins.contains_key(&self.last) {
                break;
            }
        }
        self.numbers.insert(origin, (self.last, 1));
        self.origins.insert(self.last, origin);
        self.last
    }

    /// Removes a user; the last one frees the identifier.
    pub(super) fn release(&mut self, number: u32) {
        let Some(origin) = self.origins.get(&number) else { return };
        let Some((_, users)) = self.numbers.get_mut(origin) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        self.numbers.remove(origin);
        self.origins.remove(&number);
        if self.origins.capacity() > 1024 && self.origins.len() < self.origins.capacity() / 8 {
            self.numbers.shrink_to_fit();
            self.origins.shrink_to_fit();
        }
    }

    /// The origin of an identifier in use.
    pub(super) fn origin(&self, number: u32) -> Option<Origin> {
        self.origins.get(&number).copied()
    }

    /// The identifier for this origin, if it is in use.
    #[cfg(test)]
    pub(super) fn find(&self, origin: Origin) -> Option<u32> {
        self.numbers.get(&origin).map(|(number, _)| *number)
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.origins.len()
    }
}

/// Index in the Adj-RIB-Out of a group: that of a route, or with ADD-PATH of a path.
pub(super) type SlotNo = u32;

/// The end of a chain.
const NONE: SlotNo = SlotNo::MAX;

/// The slots of paths in the Adj-RIB-Out of a group with ADD-PATH.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<SlotNo>,
    /// By route: its first slot, which links to the others.
    first: Vec<SlotNo>,
    /// Number of slots and of free ones when [`Slots::shrink`] last found the end in use.
    tried: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) route: RouteNo,
    pub(super) path_id: u32,
    next: SlotNo,
}

impl Slots {
    pub(super) fn get(&self, slot: SlotNo) -> Slot {
        self.slots[slot as usize]
    }

    /// The slots of a route's paths.
    pub(super) fn of(&self, route: RouteNo) -> impl Iterator<Item = SlotNo> + '_ {
        let first = self.first.get(route as usize).copied();
        let some = |slot: SlotNo| (slot != NONE).then_some(slot);
        std::iter::successors(first.and_then(some), move |slot| some(self.get(*slot).next))
    }

    pub(super) fn find(&self, route: RouteNo, path_id: u32) -> Option<SlotNo> {
        self.of(route).find(|slot| self.get(*slot).path_id == path_id)
    }

    /// A slot for a further path of a route; `true` if it is the route's first.
    pub(super) fn insert(&mut self, route: RouteNo, path_id: u32) -> (SlotNo, bool) {
        let n = route as usize;
        if n >= self.first.len() {
            self.first.resize(n + 1, NONE);
        }
        let slot = Slot { route, path_id, next: self.first[n] };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as SlotNo - 1
            }
        };
        let first = self.first[n] == NONE;
        self.first[n] = place;
        (place, first)
    }

    /// Frees a slot; returns its content, and `true` if it was the route's last.
    pub(super) fn remove(&mut self, slot: SlotNo) -> (Slot, bool) {
        let gone = self.get(slot);
        let first = &mut self.first[gone.route as usize];
        if *first == slot {
            *first = gone.next;
        } else {
            let mut at = *first;
            while self.slots[at as usize].next != slot {
                at = self.slots[at as usize].next;
            }
            self.slots[at as usize].next = gone.next;
        }
        self.free.push(slot);
        (gone, self.first[gone.route as usize] == NONE)
    }

    /// Frees memory if most slots are free: removes those at the end. Returns the number of slots.
    pub(super) fn shrink(&mut self) -> usize {
        let (many, free) = (self.slots.len(), self.free.len());
        if free < 1024 || free < many / 8 * 7 || (self.tried.0 == many && free < self.tried.1 + 1024) {
            return many;
        }
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        let at_end = |(n, slot): &(usize, &SlotNo)| **slot as usize + n + 1 == many;
        let gone = self.free.iter().enumerate().take_while(at_end).count();
        self.free.drain(..gone);
        self.free.shrink_to_fit();
        cut(&mut self.slots, many - gone);
        self.tried = (self.slots.len(), self.free.len());
        self.slots.len()
    }

    /// Truncates to the number of routes in the table.
    pub(super) fn fit(&mut self, routes: usize) {
        if self.first.len() > routes {
            cut(&mut self.first, routes);
        }
    }

    /// Octets that the slots take.
    pub(super) fn octets(&self) -> u64 {
        let places = self.slots.capacity() * size_of::<Slot>();
        (places + (self.free.capacity() + self.first.capacity()) * size_of::<SlotNo>()) as u64
    }

    /// Removes all slots, of which none is in use.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_number_while_it_is_used_and_others_never_get_it_at_once() {
        let mut ids = PathIds::default();
        let a = ids.acquire((1, 0));
        let b = ids.acquire((1, 7));
        assert_eq!((ids.acquire((1, 0)), ids.find((1, 7)), ids.find((2, 7))), (a, Some(b), None));
        assert!(a != b && a != 0 && b != 0);
        ids.release(a);
        assert_eq!(ids.find((1, 0)), Some(a), "used once more");
        ids.release(a);
        assert_eq!(ids.find((1, 0)), None);
        assert!(![a, b].contains(&ids.acquire((1, 0))), "not the number of before");
        // All numbers were handed out once: 0 and those in use are passed over.
        ids.last = u32::MAX;
        assert_eq!(ids.acquire((3, 0)), 1);
        ids.last = b - 1;
        assert_eq!(ids.acquire((4, 0)), 4);
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn places_at_the_end_are_given_back_when_most_are_free() {
        let mut slots = Slots::default();
        let places: Vec<_> = (0..20_000).map(|n| slots.insert(n, 1).0).collect();
        let full = slots.octets();
        places[10..].iter().for_each(|place| _ = slots.remove(*place));
        assert_eq!(slots.shrink(), 10);
        slots.fit(10);
        assert!(slots.octets() < full / 1000, "{}", slots.octets());
        assert_eq!((slots.insert(3, 2).0, slots.find(3, 1)), (10, Some(3)));
        // The last one is in use: nothing can go, and that is not found out again and again.
        let places: Vec<_> = (0..20_000).map(|n| slots.insert(n, 7).0).collect();
        places[..19_999].iter().for_each(|place| _ = slots.remove(*place));
        assert_eq!((slots.shrink(), slots.tried), (20_011, (20_011, 19_999)));
    }

    #[test]
    fn places_are_chained_by_route_and_used_again() {
        let mut slots = Slots::default();
        let of = |s: &Slots, route| {
            let mut ids: Vec<_> = s.of(route).map(|slot| s.get(slot).path_id).collect();
            ids.sort_unstable();
            ids
        };
        let (one, first) = slots.insert(5, 1);
        assert!(first);
        let (two, first) = slots.insert(5, 2);
        assert!(!first && one != two);
        let (three, _) = slots.insert(5, 3);
        assert!(slots.insert(0, 1).1);
        assert_eq!((of(&slots, 5), of(&slots, 0), of(&slots, 9)), (vec![1, 2, 3], vec![1], vec![]));
        assert_eq!(slots.find(5, 2), Some(two));
        assert!(!slots.remove(two).1);
        assert_eq!((slots.insert(0, 9).0, of(&slots, 5)), (two, vec![1, 3]));
        assert!(!slots.remove(three).1 && slots.remove(one).1);
        assert_eq!((of(&slots, 5), of(&slots, 0)), (vec![], vec![1, 9]));
    }
}
