//! Attribute sets, each stored once however many paths have it.

use std::{collections::BTreeMap, hash::BuildHasher, net::IpAddr, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{
    memory::block,
    nexthop::HopId,
    table::{PeerNo, cut},
};
use crate::bgp::wire::attr::{Attrs, ExtraAttrs, UnknownAttr};

/// A shared attribute set. Four octets, as is an `Option` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttrsId(NonZeroU32);

/// All attribute sets in use, with their reference counts.
#[derive(Default)]
pub(super) struct AttrsTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    last: u32,
    orphans: Vec<HopId>,
    /// Octets of all sets; `owned`: of those that each neighbor sent first, by its number.
    octets: u64,
    owned: Vec<u64>,
    /// Next hops that have a link-local address beside them (RFC 2545 §3), with their sets.
    pairs: BTreeMap<IpAddr, u32>,
}

struct Slot {
    attrs: Option<Arc<Attrs>>,
    hash: u64,
    refs: u32,
    /// Octets that the set takes.
    octets: u32,
    /// The neighbor that sent it first.
    owner: PeerNo,
    /// Interface of a link-local next hop, else 0. Part of the identity.
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
    /// The id of these attributes, with a reference. A new set counts for the neighbor `owner`.
    pub(super) fn intern(&mut self, attrs: &Arc<Attrs>, ifindex: u32, owner: PeerNo) -> AttrsId {
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
        let octets = octets(attrs);
        self.octets += u64::from(octets);
        if usize::from(owner) >= self.owned.len() {
            self.owned.resize(usize::from(owner) + 1, 0);
        }
        self.owned[usize::from(owner)] += u64::from(octets);
        if attrs.next_hop.link_local.is_some() {
            *self.pairs.entry(attrs.next_hop.addr).or_default() += 1;
        }
        let slot = Slot { attrs: Some(attrs.clone()), hash, refs: 1, octets, owner, ifindex, hop: None };
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

    /// Releases a reference; the last one frees the set. Its next hop is then returned by
    /// `take_orphans`.
    pub(super) fn release(&mut self, id: AttrsId) {
        let slot = &mut self.slots[id.slot()];
        slot.refs -= 1;
        if slot.refs > 0 {
            return;
        }
        let next_hop = slot.attrs.take().map(|attrs| attrs.next_hop);
        if let Some(pair) = next_hop.filter(|hop| hop.link_local.is_some())
            && let Some(sets) = self.pairs.get_mut(&pair.addr)
        {
            *sets -= 1;
            if *sets == 0 {
                self.pairs.remove(&pair.addr);
            }
        }
        self.octets -= u64::from(slot.octets);
        self.owned[usize::from(slot.owner)] -= u64::from(slot.octets);
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

    /// Frees memory when few sets are left.
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

    /// Next hops that have a link-local address beside them.
    pub(super) fn paired_next_hops(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.pairs.keys().copied()
    }

    /// All sets, each with its next hop.
    pub(super) fn sets(&self) -> impl Iterator<Item = (AttrsId, &Attrs, Option<HopId>)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(n, slot)| Some((AttrsId::new(n), &**slot.attrs.as_ref()?, slot.hop)))
    }

    /// Octets that all sets take.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Octets of the sets that this neighbor sent first.
    pub(super) fn octets_of(&self, owner: PeerNo) -> u64 {
        self.owned.get(usize::from(owner)).copied().unwrap_or(0)
    }

    /// Octets that this set takes.
    pub(super) fn size(&self, id: AttrsId) -> usize {
        self.slots[id.slot()].octets as usize
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Octets of a slot, of its share of the index, and of the allocations of a set.
fn octets(attrs: &Attrs) -> u32 {
    let mut octets = size_of::<Slot>() + 16 + block(size_of::<Attrs>() + 16);
    octets += block(attrs.as_path.as_bytes().len()) + block(size_of_val(&*attrs.communities));
    if let Some(extra) = &attrs.extra {
        let lists = [
            extra.cluster_list.capacity() * 4,
            extra.ext_communities.capacity() * 8,
            extra.large_communities.capacity() * 12,
            extra.ipv6_ext_communities.capacity() * 20,
            extra.unknown.capacity() * size_of::<UnknownAttr>(),
            extra.partial.capacity(),
        ];
        octets += block(size_of::<ExtraAttrs>()) + lists.into_iter().map(block).sum::<usize>();
        octets += extra.unknown.iter().map(|u| block(u.value.len()) + block(24)).sum::<usize>();
    }
    u32::try_from(octets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::rib::tests::attrs;

    #[test]
    fn equal_sets_are_one_and_the_last_reference_frees_it() {
        let mut table = AttrsTable::default();
        let one = table.intern(&Arc::new(attrs(1)), 0, 1);
        let again = table.intern(&Arc::new(attrs(1)), 0, 1);
        let elsewhere = table.intern(&Arc::new(attrs(1)), 7, 2);
        assert_eq!(one, again);
        assert_ne!(one, elsewhere, "another interface is another next hop");
        let size = table.octets_of(1);
        assert!(size > 100 && table.octets() == 2 * size && table.octets_of(2) == size);
        table.release(one);
        assert_eq!(**table.get(again), attrs(1));
        table.release(again);
        assert_eq!((table.len(), table.octets(), table.octets_of(1)), (1, size, 0));
        table.release(elsewhere);
        assert_eq!(table.octets(), 0);
        assert_eq!((table.len(), table.slots.capacity()), (0, 0));
    }
}
