//! All routes by prefix, stored compactly: 16 octets per IPv4 route and 28 per IPv6 route, plus the
//! empty slots of a hash table.

use std::{
    hash::{BuildHasher, Hash},
    net::IpAddr,
    ops::{Deref, DerefMut},
};

use hashbrown::{HashTable, hash_table::Entry};

use crate::net::{Family, PerFamily, Prefix};

/// Desired set and installed entry of a route, as numbers in the tables of `nexthop`; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub want: u32,
    /// The low 24 bits are the number, the others are [`Mark`]s.
    have: u32,
}

/// A flag in a route's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// Adopted at the start and not confirmed since.
    Stale = 1 << 31,
    /// Waiting for the end of the batch.
    Queued = 1 << 30,
    /// Seen by the audit.
    Seen = 1 << 29,
}

/// Highest number that fits.
pub const MAX: u32 = (1 << 24) - 1;

impl State {
    /// The state of a new desired route.
    pub fn wanted(want: u32) -> Self {
        Self { want, have: 0 }
    }

    pub fn have(self) -> u32 {
        self.have & MAX
    }

    pub fn is_there(self) -> bool {
        self.have() != 0
    }

    pub fn set_have(&mut self, have: u32) {
        self.have = self.have & !MAX | have & MAX;
    }

    pub fn is(self, mark: Mark) -> bool {
        self.have & mark as u32 != 0
    }

    pub fn set(&mut self, mark: Mark, on: bool) {
        self.have = if on { self.have | mark as u32 } else { self.have & !(mark as u32) };
    }

    /// Whether nothing is desired or installed, so that the slot can be removed.
    pub fn is_empty(self) -> bool {
        self.want == 0 && self.have() == 0 && !self.is(Mark::Queued)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<A> {
    addr: A,
    len: u8,
    state: State,
}

/// The routes of both families.
#[derive(Debug, Default)]
pub struct Table {
    v4: HashTable<Slot<[u8; 4]>>,
    v6: HashTable<Slot<[u8; 16]>>,
    /// Number of installed routes by family.
    there: PerFamily<usize>,
    hasher: foldhash::fast::RandomState,
}

/// A state that is being changed.
pub struct StateMut<'a> {
    state: &'a mut State,
    was_there: bool,
    there: &'a mut usize,
}

impl Deref for StateMut<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl DerefMut for StateMut<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state
    }
}

impl Drop for StateMut<'_> {
    fn drop(&mut self) {
        count(self.there, self.was_there, self.state.is_there());
    }
}

fn count(there: &mut usize, was: bool, is: bool) {
    match (was, is) {
        (false, true) => *there += 1,
        (true, false) => *there -= 1,
        (false, false) | (true, true) => {}
    }
}

impl Table {
    pub fn len(&self, family: Family) -> usize {
        match family {
            Family::Ipv4Unicast => self.v4.len(),
            Family::Ipv6Unicast => self.v6.len(),
        }
    }

    /// Number of installed routes of a family.
    pub fn there(&self, family: Family) -> usize {
        self.there[family]
    }

    pub fn get(&self, prefix: Prefix) -> Option<State> {
        let len = prefix.len();
        match prefix.addr() {
            IpAddr::V4(a) => find(&self.v4, &self.hasher, a.octets(), len),
            IpAddr::V6(a) => find(&self.v6, &self.hasher, a.octets(), len),
        }
    }

    /// The state of a prefix, created if necessary. The caller must not leave an empty one: see
    /// [`Table::tidy`].
    pub fn slot(&mut self, prefix: Prefix) -> StateMut<'_> {
        let len = prefix.len();
        let state = match prefix.addr() {
            IpAddr::V4(a) => slot(&mut self.v4, &self.hasher, a.octets(), len),
            IpAddr::V6(a) => slot(&mut self.v6, &self.hasher, a.octets(), len),
        };
        StateMut { was_there: state.is_there(), state, there: &mut self.there[prefix.family()] }
    }

    /// Changes the state of a prefix that has one, and removes it if it becomes empty; returns the
    /// former state.
    pub fn change(&mut self, prefix: Prefix, change: impl FnOnce(&mut State)) -> State {
        let (len, there) = (prefix.len(), &mut self.there[prefix.family()]);
        let change = |state: &mut State| {
            let was = state.is_there();
            change(state);
            count(there, was, state.is_there());
        };
        match prefix.addr() {
            IpAddr::V4(a) => self::change(&mut self.v4, &self.hasher, a.octets(), len, change),
            IpAddr::V6(a) => self::change(&mut self.v6, &self.hasher, a.octets(), len, change),
        }
    }

    /// Removes the slot of a prefix if it is empty.
    pub fn tidy(&mut self, prefix: Prefix) {
        self.change(prefix, |_| {});
    }

    /// Looks up many prefixes ahead of use, so that their cache misses overlap instead of following
    /// one another.
    pub fn prefetch<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        std::hint::black_box(prefixes.filter(|p| self.get(**p).is_some()).count());
    }

    /// Changes all states, and removes those that become empty.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut State)) {
        let mut keep = |state: &mut State, there: &mut usize| {
            let was = state.is_there();
            change(state);
            count(there, was, state.is_there());
            !state.is_empty()
        };
        let there = &mut self.there;
        self.v4.retain(|s| keep(&mut s.state, &mut there[Family::Ipv4Unicast]));
        self.v6.retain(|s| keep(&mut s.state, &mut there[Family::Ipv6Unicast]));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Prefix, State)> + '_ {
        let v4 = self.v4.iter().map(|s| (Prefix::v4(s.addr.into(), s.len), s.state));
        v4.chain(self.v6.iter().map(|s| (Prefix::v6(s.addr.into(), s.len), s.state)))
    }

    /// Releases memory after many routes were removed.
    pub fn shrink(&mut self) {
        let hasher = &self.hasher;
        if self.v4.len() < self.v4.capacity() / 4 {
            self.v4.shrink_to_fit(|s| hash(hasher, &s.addr, s.len));
        }
        if self.v6.len() < self.v6.capacity() / 4 {
            self.v6.shrink_to_fit(|s| hash(hasher, &s.addr, s.len));
        }
    }
}

type Hasher = foldhash::fast::RandomState;

/// An address, in the form that is hashed.
trait Addr: Copy + Eq {
    type Bits: Hash;
    fn bits(self) -> Self::Bits;
}

impl Addr for [u8; 4] {
    type Bits = u32;

    fn bits(self) -> u32 {
        u32::from_ne_bytes(self)
    }
}

impl Addr for [u8; 16] {
    type Bits = u128;

    fn bits(self) -> u128 {
        u128::from_ne_bytes(self)
    }
}

fn hash<A: Addr>(hasher: &Hasher, addr: &A, len: u8) -> u64 {
    hasher.hash_one((addr.bits(), len))
}

fn find<A: Addr>(table: &HashTable<Slot<A>>, hasher: &Hasher, addr: A, len: u8) -> Option<State> {
    table.find(hash(hasher, &addr, len), |s| s.addr == addr && s.len == len).map(|s| s.state)
}

fn slot<'a, A: Addr>(table: &'a mut HashTable<Slot<A>>, hasher: &Hasher, addr: A, len: u8) -> &'a mut State {
    let same = |s: &Slot<A>| s.addr == addr && s.len == len;
    let entry = table.entry(hash(hasher, &addr, len), same, |s| hash(hasher, &s.addr, s.len));
    match entry {
        Entry::Occupied(e) => &mut e.into_mut().state,
        Entry::Vacant(e) => &mut e.insert(Slot { addr, len, state: State::default() }).into_mut().state,
    }
}

fn change<A: Addr>(
    table: &mut HashTable<Slot<A>>,
    hasher: &Hasher,
    addr: A,
    len: u8,
    change: impl FnOnce(&mut State),
) -> State {
    let same = |s: &Slot<A>| s.addr == addr && s.len == len;
    let Ok(mut entry) = table.find_entry(hash(hasher, &addr, len), same) else { return State::default() };
    let before = entry.get().state;
    change(&mut entry.get_mut().state);
    if entry.get().state.is_empty() {
        entry.remove();
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_small() {
        assert_eq!(size_of::<Slot<[u8; 4]>>(), 16);
        assert_eq!(size_of::<Slot<[u8; 16]>>(), 28);
    }

    #[test]
    fn number_and_marks_do_not_touch_each_other() {
        let mut state = State::default();
        state.set_have(MAX);
        state.set(Mark::Stale, true);
        assert_eq!((state.have(), state.is(Mark::Stale), state.is(Mark::Queued)), (MAX, true, false));
        state.set_have(0);
        assert!(state.is(Mark::Stale));
        state.set(Mark::Stale, false);
        assert_eq!(state, State::default());
    }

    #[test]
    fn slots_come_and_go() {
        let mut table = Table::default();
        let prefixes = ["10.0.0.0/8", "10.0.0.0/9", "2001:db8::/32"].map(|s| s.parse::<Prefix>().unwrap());
        for p in prefixes {
            table.slot(p).want = 7;
        }
        assert_eq!((table.len(Family::Ipv4Unicast), table.len(Family::Ipv6Unicast)), (2, 1));
        table.tidy(prefixes[0]);
        assert_eq!(table.get(prefixes[0]).map(|s| s.want), Some(7));
        table.slot(prefixes[0]).want = 0;
        table.tidy(prefixes[0]);
        assert_eq!((table.get(prefixes[0]), table.iter().count()), (None, 2));
    }

    #[test]
    fn what_the_kernel_has_is_counted_however_it_changes() {
        let mut table = Table::default();
        let counts = |t: &Table| Family::ALL.map(|f| t.there(f));
        let [a, b, c] = ["10.0.0.0/8", "10.0.0.0/9", "2001:db8::/32"].map(|s| s.parse::<Prefix>().unwrap());
        [a, b, c].into_iter().for_each(|p| table.slot(p).set_have(7));
        table.slot(a).set_have(9);
        table.slot(a).set(Mark::Stale, true);
        assert_eq!(counts(&table), [2, 1]);
        table.change(a, |s| s.set_have(0));
        table.slot(b).set_have(0);
        table.tidy(b);
        assert_eq!(counts(&table), [0, 1]);
        table.change(b, |_| unreachable!("it has no state"));
        table.slot(b).set_have(1);
        table.change_all(|s| s.set_have(0));
        assert_eq!((counts(&table), table.iter().count()), ([0, 0], 0));
    }
}
