//! Attribute sets, each kept once however many paths have it.

use std::{hash::BuildHasher, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{nexthop::HopId, table::cut};
use crate::bgp::wire::attr::Attrs;

/// A shared attribute set; four octets, and so is an `Option` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttrsId(NonZeroU32);

/// All attribute sets in use, counted.
#[derive(Default)]
pub(super) struct AttrsTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    last: u32,
    orphans: Vec<HopId>,
}

struct Slot {
    attrs: Option<Arc<Attrs>>,
    hash: u64,
    refs: u32,
    /// Interface of a link-local next hop, else 0: a part of the identity.
    ifindex: u32,
    /// The next hop, once a path with these attributes was a candidate.
    hop: Option<HopId>,
}

impl AttrsId {
    fn new(slot: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot))
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl AttrsTable {
    /// The id of these attributes, with one more reference to it.
    pub(super) fn intern(&mut self, attrs: &Arc<Attrs>, ifindex: u32) -> AttrsId {
        if let Some(slot) = self.slots.get_mut(self.last as usize)
            && slot.ifindex == ifindex
            && slot.attrs.as_ref().is_some_and(|a| Arc::ptr_eq(a, attrs))
        {
            slot.refs += 1;
            return AttrsId::new(self.last);
        }
        let hash = self.hasher.hash_one((&**attrs, ifindex));
        let slots = &mut self.slots;
        let same = |n: &u32| {
            let slot = &slots[*n as usize];
            slot.hash == hash && slot.ifindex == ifindex && slot.attrs.as_ref() == Some(attrs)
        };
        if let Some(&n) = self.index.find(hash, same) {
            slots[n as usize].refs += 1;
            self.last = n;
            return AttrsId::new(n);
        }
        let slot = Slot { attrs: Some(attrs.clone()), hash, refs: 1, ifindex, hop: None };
        let n = match self.free.pop() {
            Some(n) => {
                slots[n as usize] = slot;
                n
            }
            None => {
                slots.push(slot);
                slots.len() as u32 - 1
            }
        };
        self.index.insert_unique(hash, n, |n| slots[*n as usize].hash);
        self.last = n;
        AttrsId::new(n)
    }

    /// One more reference.
    pub(super) fn acquire(&mut self, id: AttrsId) -> AttrsId {
        self.slots[id.slot()].refs += 1;
        id
    }

    /// One reference less; the last one frees it. The next hop that it used is left in `take_orphans`.
    pub(super) fn release(&mut self, id: AttrsId) {
        let slot = &mut self.slots[id.slot()];
        slot.refs -= 1;
        if slot.refs > 0 {
            return;
        }
        slot.attrs = None;
        let (hash, n) = (slot.hash, id.slot() as u32);
        self.orphans.extend(slot.hop.take());
        if let Ok(found) = self.index.find_entry(hash, |have| *have == n) {
            found.remove();
        }
        self.free.push(n);
        self.give_back();
    }

    /// Next hops that have lost a user since the last call.
    pub(super) fn take_orphans(&mut self) -> Vec<HopId> {
        std::mem::take(&mut self.orphans)
    }

    /// Memory follows what is in use down again.
    fn give_back(&mut self) {
        if self.index.is_empty() {
            (self.slots, self.free, self.index) = Default::default();
        } else if self.index.capacity() > 1024 && self.index.len() < self.index.capacity() / 8 {
            let slots = &self.slots;
            self.index.shrink_to(self.index.len() * 2, |n| slots[*n as usize].hash);
            let used = self.index.iter().max().map_or(0, |last| *last as usize + 1);
            cut(&mut self.slots, used);
            self.free.retain(|n| (*n as usize) < used);
            self.free.sort_unstable_by(|a, b| b.cmp(a));
            self.free.shrink_to_fit();
        }
    }

    pub(super) fn get(&self, id: AttrsId) -> &Arc<Attrs> {
        self.slots[id.slot()].attrs.as_ref().expect("an id is held by a reference")
    }

    pub(super) fn ifindex(&self, id: AttrsId) -> u32 {
        self.slots[id.slot()].ifindex
    }

    pub(super) fn hop(&self, id: AttrsId) -> Option<HopId> {
        self.slots[id.slot()].hop
    }

    pub(super) fn set_hop(&mut self, id: AttrsId, hop: HopId) {
        self.slots[id.slot()].hop = Some(hop);
    }

    /// Octets that the sets take; each with its counts, and 16 for what the allocator adds to two blocks.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let held = self.slots.iter().filter_map(|s| s.attrs.as_ref());
        let sets: usize = held.map(|a| size_of::<Attrs>() + 32 + a.as_path.as_bytes().len()).sum();
        sets + self.slots.capacity() * size_of::<Slot>() + self.index.allocation_size()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::rib::tests::attrs;

    #[test]
    fn equal_sets_are_one_and_the_last_reference_frees_it() {
        let mut table = AttrsTable::default();
        let one = table.intern(&Arc::new(attrs(1)), 0);
        let again = table.intern(&Arc::new(attrs(1)), 0);
        let elsewhere = table.intern(&Arc::new(attrs(1)), 7);
        assert_eq!(one, again);
        assert_ne!(one, elsewhere, "another interface is another next hop");
        table.release(one);
        assert_eq!(**table.get(again), attrs(1));
        table.release(again);
        assert_eq!(table.len(), 1);
        table.release(elsewhere);
        assert_eq!((table.len(), table.slots.capacity()), (0, 0));
    }
}
