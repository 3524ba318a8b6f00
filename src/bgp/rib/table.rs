//! One family's table of prefixes and their paths, with little memory per route.
//!
//! A route is a number, under which other parts keep their state of it (Adj-RIBs-Out, the list of
//! dirty routes). Keys are stored apart from the entries: four octets for IPv4. The first path of a
//! prefix is stored in the entry; further ones in a list.

use std::{hash::BuildHasher, net::IpAddr};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{attrs::AttrsId, nexthop::SetId};
use crate::net::{Cover, Family, Prefix};

/// Route numbers per counter of used numbers.
const CHUNK: usize = 1024;

/// Number of a route, valid while it has paths or is pinned.
pub(super) type RouteNo = u32;

/// Number of a neighbor; 0 stands for the node itself.
pub(super) type PeerNo = u16;

/// The node itself, as the source of its own paths.
pub(super) const OWN: PeerNo = 0;

/// One path of one neighbor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) peer: PeerNo,
    pub(super) bits: u8,
    /// [`Refused::code`](super::import::Refused::code), 0 if it was accepted.
    pub(super) refused: u8,
    /// RFC 7911; 0 without.
    pub(super) path_id: u32,
    /// As received.
    pub(super) received: AttrsId,
    /// After import; mostly the same as `received`.
    pub(super) effective: AttrsId,
    /// Seconds since the start of the rib.
    pub(super) since: u32,
}

impl Path {
    /// Stale: removed unless it is advertised again (RFC 4724 §4.2, RFC 7313 §4).
    pub(super) const STALE: u8 = 1;
    /// Long-lived stale (RFC 9494): used only if there is no other path.
    pub(super) const LONG_LIVED: u8 = 2;
    pub(super) const BEST: u8 = 4;
    /// Used for forwarding, including the best path.
    pub(super) const MULTIPATH: u8 = 8;
    /// The link to its next hop was lost, and no message has arrived from its neighbor since.
    pub(super) const HELD: u8 = 16;

    pub(super) fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    pub(super) fn is_usable(&self) -> bool {
        self.refused == 0 && !self.has(Self::HELD)
    }
}

/// The paths of one prefix.
#[derive(Debug, Default)]
enum Paths {
    #[default]
    None,
    One(Path),
    #[expect(clippy::box_collection, reason = "eight octets instead of 24 in each entry")]
    Many(Box<Vec<Path>>),
}

/// One prefix.
#[derive(Debug, Default)]
pub(super) struct Entry {
    paths: Paths,
    len: u8,
    /// Is in the list of dirty routes.
    pub(super) dirty: bool,
    /// Number of update groups that hold it.
    pub(super) pins: u16,
    /// Next hops that were passed to the fib.
    pub(super) installed: Option<SetId>,
}

impl Entry {
    pub(super) fn paths(&self) -> &[Path] {
        match &self.paths {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn paths_mut(&mut self) -> &mut [Path] {
        match &mut self.paths {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn best(&self) -> Option<&Path> {
        self.paths().iter().find(|p| p.has(Path::BEST))
    }

    pub(super) fn find(&mut self, peer: PeerNo, path_id: u32) -> Option<&mut Path> {
        self.paths_mut().iter_mut().find(|p| p.peer == peer && p.path_id == path_id)
    }

    fn push(&mut self, path: Path) {
        self.paths = match std::mem::take(&mut self.paths) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(Box::new(vec![first, path])),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
    }

    /// Removes the paths for which `goes` is true.
    fn extract(&mut self, mut goes: impl FnMut(&Path) -> bool, mut gone: impl FnMut(Path)) {
        match &mut self.paths {
            Paths::None => {}
            Paths::One(path) => {
                if goes(path) {
                    gone(*path);
                    self.paths = Paths::None;
                }
            }
            Paths::Many(paths) => {
                paths.retain(|p| {
                    let go = goes(p);
                    if go {
                        gone(*p);
                    }
                    !go
                });
                match paths[..] {
                    [] => self.paths = Paths::None,
                    [one] => self.paths = Paths::One(one),
                    _ if paths.capacity() > paths.len() * 4 => paths.shrink_to_fit(),
                    _ => {}
                }
            }
        }
    }
}

#[derive(Debug)]
enum Keys {
    V4(Vec<u32>),
    V6(Vec<u128>),
}

impl Keys {
    fn set(&mut self, route: RouteNo, prefix: Prefix) {
        let n = route as usize;
        match (self, prefix) {
            (Self::V4(keys), Prefix::V4 { addr, .. }) => put(keys, n, addr.to_bits()),
            (Self::V6(keys), Prefix::V6 { addr, .. }) => put(keys, n, addr.to_bits()),
            _ => unreachable!("a table holds one family"),
        }
    }

    fn prefix(&self, route: RouteNo, len: u8) -> Prefix {
        let n = route as usize;
        match self {
            Self::V4(keys) => Prefix::V4 { addr: keys[n].into(), len },
            Self::V6(keys) => Prefix::V6 { addr: keys[n].into(), len },
        }
    }
}

/// Truncates a list and frees the memory.
pub(super) fn cut<T>(list: &mut Vec<T>, len: usize) {
    list.truncate(len);
    list.shrink_to_fit();
}

fn put<K: Copy>(keys: &mut Vec<K>, n: usize, key: K) {
    if n == keys.len() { keys.push(key) } else { keys[n] = key }
}

/// One family's routes.
pub(super) struct Table {
    family: Family,
    keys: Keys,
    entries: Vec<Entry>,
    free: Vec<RouteNo>,
    /// How many of each [`CHUNK`] numbers are in use, up to the last chunk in use.
    used: Vec<u16>,
    index: HashTable<RouteNo>,
    hasher: RandomState,
    /// Number of prefixes of each length: a longest match tries lengths in use only.
    lengths: [u32; 129],
    /// Number of routes with paths.
    reached: u64,
    /// Number of paths.
    paths: u64,
}

impl Table {
    pub(super) fn new(family: Family) -> Self {
        let keys = match family {
            Family::Ipv4Unicast => Keys::V4(Vec::new()),
            Family::Ipv6Unicast => Keys::V6(Vec::new()),
        };
        Self {
            family,
            keys,
            entries: Vec::new(),
            free: Vec::new(),
            used: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            lengths: [0; 129],
            reached: 0,
            paths: 0,
        }
    }

    fn hash(&self, prefix: Prefix) -> u64 {
        hash(&self.hasher, prefix)
    }

    pub(super) fn find(&self, prefix: Prefix) -> Option<RouteNo> {
        let same = |n: &RouteNo| self.prefix(*n) == prefix;
        self.index.find(self.hash(prefix), same).copied()
    }

    /// The route of a prefix; a new one if there is none.
    pub(super) fn entry(&mut self, prefix: Prefix) -> RouteNo {
        debug_assert_eq!(prefix.family(), self.family);
        let hash = self.hash(prefix);
        let same = |n: &RouteNo| self.keys.prefix(*n, self.entries[*n as usize].len) == prefix;
        if let Some(&n) = self.index.find(hash, same) {
            return n;
        }
        let n = self.free.pop().unwrap_or(self.entries.len() as RouteNo);
        let entry = Entry { len: prefix.len(), ..Entry::default() };
        if n as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[n as usize] = entry;
        }
        self.keys.set(n, prefix);
        let chunk = n as usize / CHUNK;
        if chunk >= self.used.len() {
            self.used.resize(chunk + 1, 0);
        }
        self.used[chunk] += 1;
        let (keys, entries, hasher) = (&self.keys, &self.entries, &self.hasher);
        let rehash = |n: &RouteNo| self::hash(hasher, keys.prefix(*n, entries[*n as usize].len));
        self.index.insert_unique(hash, n, rehash);
        self.lengths[usize::from(prefix.len())] += 1;
        n
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn prefix(&self, route: RouteNo) -> Prefix {
        self.keys.prefix(route, self.entries[route as usize].len)
    }

    pub(super) fn get(&self, route: RouteNo) -> &Entry {
        &self.entries[route as usize]
    }

    pub(super) fn get_mut(&mut self, route: RouteNo) -> &mut Entry {
        &mut self.entries[route as usize]
    }

    /// Adds a path to a route.
    pub(super) fn push(&mut self, route: RouteNo, path: Path) {
        let entry = &mut self.entries[route as usize];
        self.reached += u64::from(entry.paths().is_empty());
        self.paths += 1;
        entry.push(path);
    }

    /// Removes the paths of a route for which `goes` is true.
    pub(super) fn extract(
        &mut self,
        route: RouteNo,
        goes: impl FnMut(&Path) -> bool,
        gone: impl FnMut(Path),
    ) {
        let entry = &mut self.entries[route as usize];
        let before = entry.paths().len();
        entry.extract(goes, gone);
        let after = entry.paths().len();
        self.paths -= (before - after) as u64;
        self.reached -= u64::from(before > 0 && after == 0);
    }

    /// Number of prefixes with paths, and of paths.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.reached, self.paths)
    }

    /// Whether the prefix of a route may be after `after` and not after `last`. Compares addresses
    /// only, which is cheap enough for a scan of all numbers.
    pub(super) fn is_between(&self, route: RouteNo, after: Option<Prefix>, last: Option<Prefix>) -> bool {
        let n = route as usize;
        match &self.keys {
            Keys::V4(keys) => is_within(keys[n], after.map(v4_bits), last.map(v4_bits)),
            Keys::V6(keys) => is_within(keys[n], after.map(v6_bits), last.map(v6_bits)),
        }
    }

    /// All route numbers, including free ones, which have no paths.
    pub(super) fn numbers(&self) -> std::ops::Range<RouteNo> {
        0..self.entries.len() as RouteNo
    }

    /// Removes those of `routes` that have no paths and no pins. No duplicates.
    pub(super) fn vacate_all(&mut self, routes: &[RouteNo]) {
        if routes.len() >= self.len() && routes.iter().filter(|n| self.is_vacant(**n)).count() == self.len() {
            return self.clear();
        }
        routes.iter().for_each(|route| self.vacate(*route));
    }

    fn is_vacant(&self, route: RouteNo) -> bool {
        self.entries.get(route as usize).is_some_and(|entry| {
            entry.paths().is_empty() && entry.pins == 0 && !entry.dirty && entry.installed.is_none()
        })
    }

    /// Removes a route if it has no paths and no pins.
    pub(super) fn vacate(&mut self, route: RouteNo) {
        if !self.is_vacant(route) {
            return;
        }
        let prefix = self.prefix(route);
        let Ok(found) = self.index.find_entry(self.hash(prefix), |n| *n == route) else { return };
        found.remove();
        self.free.push(route);
        self.used[route as usize / CHUNK] -= 1;
        self.lengths[usize::from(prefix.len())] -= 1;
        self.give_back();
    }

    fn clear(&mut self) {
        *self = Self { hasher: self.hasher.clone(), ..Self::new(self.family) };
    }

    /// Frees memory when few routes are left.
    fn give_back(&mut self) {
        if self.index.is_empty() {
            return self.clear();
        }
        if self.index.capacity() > 1024 && self.index.len() < self.index.capacity() / 8 {
            let (keys, entries, hasher) = (&self.keys, &self.entries, &self.hasher);
            let rehash = |n: &RouteNo| hash(hasher, keys.prefix(*n, entries[*n as usize].len));
            self.index.shrink_to(self.index.len() * 2, rehash);
        }
        while self.used.last() == Some(&0) {
            self.used.pop();
        }
        if self.used.len() * CHUNK <= self.entries.len() / 2 {
            self.forget_end();
        }
    }

    /// Removes the numbers behind the last one in use, when they are the larger half. Low free
    /// numbers are then used first.
    fn forget_end(&mut self) {
        let used = self.used.len() * CHUNK;
        cut(&mut self.entries, used);
        match &mut self.keys {
            Keys::V4(keys) => cut(keys, used),
            Keys::V6(keys) => cut(keys, used),
        }
        self.free.retain(|n| (*n as usize) < used);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        self.free.shrink_to_fit();
    }

    /// Octets that the table takes, without the lists of further paths.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let keys = match &self.keys {
            Keys::V4(keys) => keys.capacity() * size_of::<u32>(),
            Keys::V6(keys) => keys.capacity() * size_of::<u128>(),
        };
        keys + self.entries.capacity() * size_of::<Entry>() + self.index.allocation_size()
    }

    /// Routes equal to or inside one of `regions`: by lookups if few prefixes are possible, else by
    /// one pass over all routes.
    pub(super) fn inside(&self, regions: Vec<Prefix>) -> Vec<RouteNo> {
        let possible = |region: &Prefix| -> u64 {
            self.lengths_inside(*region)
                .map(|len| 1u64.checked_shl((len - region.len()).into()).unwrap_or(u64::MAX))
                .fold(0, u64::saturating_add)
        };
        let lookups = regions.iter().map(possible).fold(0, u64::saturating_add);
        if lookups <= self.len() as u64 {
            let all = regions.iter().flat_map(|region| {
                self.lengths_inside(*region)
                    .flat_map(move |len| region.parts(len))
                    .filter_map(|p| self.find(p))
            });
            return all.collect();
        }
        let regions: Cover = regions.into_iter().collect();
        let used = |route: &RouteNo| !self.is_vacant(*route);
        self.numbers().filter(used).filter(|route| regions.of(self.prefix(*route)).is_some()).collect()
    }

    /// Prefix lengths in use that could be inside.
    fn lengths_inside(&self, region: Prefix) -> impl Iterator<Item = u8> + '_ {
        (region.len()..=self.family.max_len()).filter(|len| self.lengths[usize::from(*len)] > 0)
    }

    /// Routes that cover `addr`, longest first.
    pub(super) fn covering(&self, addr: IpAddr) -> impl Iterator<Item = RouteNo> + '_ {
        (0..=self.family.max_len())
            .rev()
            .filter(|len| self.lengths[usize::from(*len)] > 0)
            .filter_map(move |len| self.find(Prefix::new(addr, len)?))
    }
}

fn is_within<K: Ord>(key: K, least: Option<K>, most: Option<K>) -> bool {
    least.is_none_or(|l| key >= l) && most.is_none_or(|m| key <= m)
}

fn v4_bits(prefix: Prefix) -> u32 {
    match prefix {
        Prefix::V4 { addr, .. } => addr.to_bits(),
        Prefix::V6 { .. } => u32::MAX,
    }
}

fn v6_bits(prefix: Prefix) -> u128 {
    match prefix {
        Prefix::V4 { .. } => 0,
        Prefix::V6 { addr, .. } => addr.to_bits(),
    }
}

fn hash(hasher: &RandomState, prefix: Prefix) -> u64 {
    match prefix {
        Prefix::V4 { addr, len } => hasher.hash_one(u64::from(addr.to_bits()) << 8 | u64::from(len)),
        Prefix::V6 { addr, len } => hasher.hash_one((addr.to_bits(), len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_its_path_is_small() {
        assert_eq!(size_of::<Path>(), 20);
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn a_table_that_was_large_gives_memory_back_though_some_routes_stay() {
        let mut table = Table::new(Family::Ipv4Unicast);
        let prefix = |n: u32| Prefix::v4((0x0a00_0000 + (n << 8)).into(), 24);
        for n in 0..50_000 {
            table.entry(prefix(n));
        }
        let large = table.octets();
        let stays = |n: u32| n < 300 && n.is_multiple_of(3);
        for n in (0..50_000).filter(|n| !stays(*n)) {
            table.vacate(table.find(prefix(n)).unwrap());
        }
        assert!(table.octets() < large / 20, "{large} octets, then {}", table.octets());
        assert!((0..300).all(|n| table.find(prefix(n)).is_some() == stays(n)));
        let again: Vec<_> = (300..600).map(|n| table.entry(prefix(n))).collect();
        assert!(again.iter().all(|n| *n < 600), "{again:?}");
        assert!(again.iter().enumerate().all(|(n, no)| table.prefix(*no) == prefix(300 + n as u32)));
    }

    #[test]
    fn routes_inside_a_region_are_found_by_look_ups_and_by_a_pass() {
        for (family, routes, regions, expected) in [
            (
                Family::Ipv4Unicast,
                &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.2.0.0/16", "11.0.0.0/8"][..],
                &["10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/9"][..],
                &["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"][..],
            ),
            (
                Family::Ipv6Unicast,
                &["fd00::/48", "fd00::/64", "fd00:0:0:1::7/128", "fd00:1::/48", "::/0"],
                &["fd00::/48"],
                &["fd00::/48", "fd00::/64", "fd00:0:0:1::7/128"],
            ),
        ] {
            let p = |s: &&str| s.parse::<Prefix>().unwrap();
            let mut table = Table::new(family);
            let found = |table: &Table| {
                let mut found: Vec<Prefix> = table
                    .inside(regions.iter().map(p).collect())
                    .into_iter()
                    .map(|n| table.prefix(n))
                    .collect();
                found.sort_unstable();
                found.dedup();
                found
            };
            for prefix in routes {
                let route = table.entry(p(prefix));
                table.get_mut(route).dirty = true;
            }
            let expected: Vec<_> = expected.iter().map(p).collect();
            assert_eq!(found(&table), expected, "by a pass");
            if family == Family::Ipv4Unicast {
                for n in 0..70_000u32 {
                    table.entry(Prefix::v4((0x1400_0000 + (n << 8)).into(), 24));
                }
                assert_eq!(found(&table), expected, "by look-ups");
            }
        }
    }

    #[test]
    fn numbers_are_used_again_and_memory_is_given_back() {
        let mut table = Table::new(Family::Ipv4Unicast);
        let prefixes: Vec<Prefix> =
            (0..5000u32).map(|n| Prefix::v4((0x0a00_0000 + (n << 8)).into(), 24)).collect();
        for p in &prefixes {
            table.entry(*p);
        }
        let first = table.find(prefixes[0]).unwrap();
        assert_eq!(table.entry(prefixes[0]), first);
        table.vacate(first);
        assert_eq!(table.find(prefixes[0]), None);
        assert_eq!(table.entry(prefixes[0]), first);
        assert_eq!(table.covering("10.0.7.9".parse().unwrap()).count(), 1);
        for p in &prefixes {
            table.vacate(table.find(*p).unwrap());
        }
        assert_eq!((table.entries.capacity(), table.index.capacity()), (0, 0));
    }
}
