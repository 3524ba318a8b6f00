//! Sets of next hops, and the kernel's nexthop objects that represent them.
//!
//! ```text
//! route ─desired──► NexthopSet    (BGP gateways, interned) ──resolved on the host──► Content
//!   └───installed─► NexthopEntry  (what the route uses in the kernel)
//!                    Inline       hops in the route itself, unreachable, blackhole
//!                    Single id    a nexthop object with one hop
//!                    Group id     a nexthop group of Members, which all groups share
//! ```
//!
//! An entry belongs to at most one set. When its set resolves to other hops, its object is changed
//! and no route is written. When all routes of an entry are deleted at once, its object is deleted,
//! which takes the routes with it: 100,000 in about 15 ms (docs/kernel.md, section 3). An object
//! whose last route was deleted alone stays idle for a moment, so that a route that is withdrawn
//! and advertised again costs one message rather than two.

mod adopt;
mod observe;
mod slab;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::HashMap;

use self::slab::Slab;
use crate::{
    fib::{
        resolve::{Hop, Resolver},
        route::{Content, ObjectId, Target},
    },
    net::{NextHops, RouteKind, Unresolved},
};

/// Our object ids have the protocol number in their highest octet. That is far from the ids that
/// `ip nexthop` and other daemons allocate, and distinct from those of a second routelet with a
/// protocol number of its own.
const ID_BITS: u32 = 24;

/// Whether an id is in the range of this protocol number.
pub fn is_ours(id: ObjectId, protocol: u8) -> bool {
    id >> ID_BITS == u32::from(protocol)
}

/// The id before the first of this protocol number's range.
pub fn before_first(protocol: u8) -> ObjectId {
    ObjectId::from(protocol) << ID_BITS
}

/// Index of a set plus one; 0 for none.
pub type SetId = u32;
/// Index of an entry plus one; 0 for none.
pub type NexthopEntryId = u32;

/// The entry of unreachable routes, which always exists.
pub const UNREACHABLE: NexthopEntryId = 1;

/// All sets, entries and group members.
#[derive(Debug)]
pub struct NexthopTable {
    /// Whether the kernel has nexthop objects and the configuration allows them.
    enabled: bool,
    /// Whether groups are of the resilient kind.
    resilient: bool,
    protocol: u8,
    sets: Slab<NexthopSet>,
    by_hops: HashMap<Arc<NextHops>, SetId, foldhash::fast::RandomState>,
    /// The last result of `intern`: routes of one neighbor arrive in sequence.
    last: Option<(Arc<NextHops>, SetId)>,
    entries: Slab<NexthopEntry>,
    by_id: BTreeMap<ObjectId, NexthopEntryId>,
    members: BTreeMap<Hop, Member>,
    /// Ids that other daemons use.
    foreign: BTreeSet<ObjectId>,
    next_id: ObjectId,
    resolver: Resolver,
    /// Gateways that BFD has lost, with their interface if they are directly connected.
    lost: BTreeSet<(IpAddr, u32)>,
    /// Entries whose object has to be written.
    dirty: Vec<NexthopEntryId>,
    /// Members whose object another program changed: to be written again, groups unchanged.
    changed_members: BTreeSet<Hop>,
    /// Number of objects that another program changed.
    pub repaired: u64,
    /// Entries that may have lost their last route.
    unreferenced: Vec<NexthopEntryId>,
    /// Entries without routes, kept for reuse.
    idle: Vec<NexthopEntryId>,
    /// Objects that were deleted without success, as far as we know.
    doubtful: BTreeSet<ObjectId>,
    /// Whether the kernel may have any objects of an earlier run, as they could not be read.
    unread: bool,
    /// Entries of those objects, each with one more route than is known, until all routes were
    /// read.
    held: Vec<NexthopEntryId>,
    /// Something changed that the routes of a set or an entry depend on.
    moved: bool,
}

#[derive(Debug)]
struct NexthopSet {
    hops: Arc<NextHops>,
    wanted: u32,
    path: Result<Content, Unresolved>,
    entry: NexthopEntryId,
}

#[derive(Debug)]
pub struct NexthopEntry {
    kind: NexthopKind,
    pub content: Content,
    pub owner: SetId,
    /// Number of routes that use the entry.
    pub refs: u32,
    /// Whether the object exists, as far as we know.
    pub alive: bool,
    /// Why the kernel refused the object.
    pub error: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NexthopKind {
    Inline,
    Single(ObjectId),
    Group(ObjectId),
    /// A group of the kernel's resilient kind.
    Resilient(ObjectId),
}

#[derive(Debug)]
struct Member {
    id: ObjectId,
    users: u32,
    alive: bool,
}

impl NexthopKind {
    fn id(self) -> Option<ObjectId> {
        match self {
            Self::Inline => None,
            Self::Single(id) | Self::Group(id) | Self::Resilient(id) => Some(id),
        }
    }

    fn is_group(self) -> bool {
        matches!(self, Self::Group(_) | Self::Resilient(_))
    }
}

impl NexthopTable {
    pub fn new(enabled: bool, resilient: bool, protocol: u8) -> Self {
        let unreachable = NexthopEntry {
            kind: NexthopKind::Inline,
            content: Content::Unreachable,
            owner: 0,
            refs: 0,
            alive: true,
            error: None,
        };
        let mut entries = Slab::new();
        entries.insert(unreachable);
        Self {
            enabled,
            resilient,
            protocol,
            sets: Slab::new(),
            by_hops: HashMap::default(),
            last: None,
            entries,
            by_id: BTreeMap::new(),
            members: BTreeMap::new(),
            foreign: BTreeSet::new(),
            next_id: u32::from(protocol) << ID_BITS,
            resolver: Resolver::default(),
            lost: BTreeSet::new(),
            dirty: Vec::new(),
            changed_members: BTreeSet::new(),
            repaired: 0,
            unreferenced: Vec::new(),
            idle: Vec::new(),
            doubtful: BTreeSet::new(),
            unread: false,
            held: Vec::new(),
            moved: false,
        }
    }

    /// Continues without nexthop objects, which this kernel does not have. Must be called before
    /// anything is written.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    /// Continues with plain groups. Must be called before anything is written.
    pub fn disable_resilient(&mut self) {
        self.resilient = false;
    }

    pub fn enabled(&self) -> bool {
        self.enabled
    }

    pub fn entry(&self, id: NexthopEntryId) -> Option<&NexthopEntry> {
        self.entries.get(id)
    }

    fn entry_mut(&mut self, id: NexthopEntryId) -> Option<&mut NexthopEntry> {
        self.entries.get_mut(id)
    }

    fn set(&self, id: SetId) -> Option<&NexthopSet> {
        self.sets.get(id)
    }

    fn set_mut(&mut self, id: SetId) -> Option<&mut NexthopSet> {
        self.sets.get_mut(id)
    }

    /// What the routes of a set shall have as their content, or why the set is unresolved.
    pub fn path(&self, set: SetId) -> Result<&Content, Unresolved> {
        self.set(set).map_or(Err(Unresolved::NoRoute), |s| s.path.as_ref().map_err(|e| *e))
    }

    /// How a route of `entry` is written.
    pub fn target(&self, entry: NexthopEntryId) -> Option<Target<'_>> {
        let entry = self.entry(entry)?;
        Some(match (entry.kind.id(), &entry.content) {
            (Some(id), _) => Target::Object(id),
            (None, Content::Hops(hops)) => Target::Hops(hops),
            (None, Content::Unreachable) => Target::Unreachable,
            (None, Content::Blackhole) => Target::Blackhole,
        })
    }

    /// The object of an entry, deleting which deletes the entry's routes.
    pub fn object_of(&self, entry: NexthopEntryId) -> Option<ObjectId> {
        let id = self.entry(entry)?.kind.id()?;
        // If groups use the object too, their routes would be deleted with it.
        (!self.members.values().any(|m| m.id == id)).then_some(id)
    }

    pub fn by_object(&self, id: ObjectId) -> Option<NexthopEntryId> {
        self.by_id.get(&id).copied()
    }

    /// The next hops of a set.
    pub fn hops(&self, set: SetId) -> Option<&Arc<NextHops>> {
        self.set(set).map(|s| &s.hops)
    }

    /// Returns the set with these next hops and counts one more route that wants it.
    pub fn intern(&mut self, hops: &Arc<NextHops>) -> SetId {
        if let Some((_, id)) = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, hops)) {
            let id = *id;
            if let Some(set) = self.set_mut(id) {
                set.wanted += 1;
            }
            return id;
        }
        let id = self.intern_anew(hops);
        self.last = Some((hops.clone(), id));
        id
    }

    fn intern_anew(&mut self, hops: &Arc<NextHops>) -> SetId {
        if let Some(&id) = self.by_hops.get(hops) {
            if let Some(set) = self.set_mut(id) {
                set.wanted += 1;
            }
            return id;
        }
        let path = path(&self.resolver, &self.lost, hops);
        let id = self.sets.insert(NexthopSet { hops: hops.clone(), wanted: 1, path, entry: 0 });
        self.by_hops.insert(hops.clone(), id);
        id
    }

    /// Counts one route less that wants this set, and removes the set after the last.
    pub fn release(&mut self, id: SetId) {
        let Some(set) = self.set_mut(id) else { return };
        set.wanted -= 1;
        if set.wanted > 0 {
            return;
        }
        let hops = set.hops.clone();
        self.by_hops.remove(&hops);
        self.sets.remove(id);
        self.last = None;
        for entry in self.entries.ids() {
            if self.entry(entry).is_some_and(|t| t.owner == id) {
                self.disown(entry);
            }
        }
    }

    /// Whether a route of `entry` is correct for `set`. An adopted entry without an owner becomes
    /// the set's if it has the same hops.
    pub fn matches(&mut self, entry: NexthopEntryId, set: SetId) -> bool {
        match self.entry(entry) {
            Some(t) if t.owner == set && set != 0 => true,
            // An entry of a kind that only another configuration uses is written again.
            Some(t)
                if t.owner == 0
                    && t.alive
                    && self.has_configured_kind(t)
                    && Ok(&t.content) == self.path(set) =>
            {
                if let Some(t) = self.entry_mut(entry).filter(|_| entry != UNREACHABLE) {
                    t.owner = set;
                }
                if let Some(s) = self.set_mut(set).filter(|s| s.entry == 0) {
                    s.entry = entry;
                }
                true
            }
            _ => false,
        }
    }

    /// Whether the next hops are where the configuration puts them: in an object or in the route.
    fn has_configured_kind(&self, entry: &NexthopEntry) -> bool {
        match (&entry.content, entry.kind) {
            (Content::Unreachable | Content::Blackhole, _) => true,
            (_, NexthopKind::Inline) => !self.enabled,
            (_, NexthopKind::Single(_)) => self.enabled,
            (_, NexthopKind::Group(_)) => self.enabled && !self.resilient,
            (_, NexthopKind::Resilient(_)) => self.enabled && self.resilient,
        }
    }

    /// The entry for new routes of a resolved set, created if there is none.
    pub fn ensure(&mut self, id: SetId) -> Option<NexthopEntryId> {
        let set = self.set(id)?;
        let content = set.path.clone().ok()?;
        if self.entry(set.entry).is_some() {
            return Some(set.entry);
        }
        let several = set.hops.gateways().len() > 1;
        let group = several || matches!(&content, Content::Hops(hops) if hops.len() > 1);
        let entry = match self.find_idle(&content, group) {
            Some(entry) => entry,
            None => self.make(content, group),
        };
        self.entry_mut(entry)?.owner = id;
        self.set_mut(id)?.entry = entry;
        Some(entry)
    }

    /// An idle entry with this content, of the kind that a new one would have.
    fn find_idle(&self, content: &Content, group: bool) -> Option<NexthopEntryId> {
        let same = |t: &NexthopEntry| {
            t.owner == 0
                && t.alive
                && t.content == *content
                && t.kind.is_group() == group
                && self.has_configured_kind(t)
        };
        self.idle.iter().copied().find(|id| self.entry(*id).is_some_and(same))
    }

    fn make(&mut self, content: Content, group: bool) -> NexthopEntryId {
        let kind = match &content {
            Content::Hops(_) if self.enabled && group && self.resilient => {
                NexthopKind::Resilient(self.fresh_id())
            }
            Content::Hops(_) if self.enabled && group => NexthopKind::Group(self.fresh_id()),
            Content::Hops(_) if self.enabled => NexthopKind::Single(self.fresh_id()),
            _ => NexthopKind::Inline,
        };
        let alive = kind == NexthopKind::Inline;
        let entry =
            self.entries.insert(NexthopEntry { kind, content, owner: 0, refs: 0, alive, error: None });
        if let Some(object) = kind.id() {
            self.by_id.insert(object, entry);
            self.dirty.push(entry);
        }
        entry
    }

    fn fresh_id(&mut self) -> ObjectId {
        loop {
            let id = self.next_id;
            self.next_id = self.id_after(id);
            let taken = self.by_id.contains_key(&id)
                || self.foreign.contains(&id)
                || self.doubtful.contains(&id)
                || self.members.values().any(|m| m.id == id);
            if !taken {
                return id;
            }
        }
    }

    /// The next id of our range, which wraps around.
    fn id_after(&self, id: ObjectId) -> ObjectId {
        id.checked_add(1)
            .filter(|next| is_ours(*next, self.protocol))
            .unwrap_or(u32::from(self.protocol) << ID_BITS)
    }

    /// Counts one more route of `entry`.
    pub fn hold(&mut self, entry: NexthopEntryId) {
        if let Some(t) = self.entry_mut(entry) {
            t.refs += 1;
        }
    }

    /// Counts `count` routes of `entry` less.
    pub fn drop_refs(&mut self, entry: NexthopEntryId, count: u32) {
        if let Some(t) = self.entry_mut(entry) {
            t.refs = t.refs.saturating_sub(count);
            if t.refs == 0 {
                self.unreferenced.push(entry);
            }
        }
    }

    /// Moves `entry` with all its routes to another set if its object can be changed accordingly.
    pub fn retarget(&mut self, entry: NexthopEntryId, set: SetId) -> bool {
        let Ok(content) = self.path(set).cloned() else { return false };
        let usable = |t: &&NexthopEntry| t.alive && fits(t.kind, &content) && self.has_configured_kind(t);
        let Some(t) = self.entry(entry).filter(usable) else { return false };
        let old = t.owner;
        if let Some(s) = self.set_mut(old).filter(|s| s.entry == entry) {
            s.entry = 0;
        }
        if let Some(s) = self.set_mut(set).filter(|s| s.entry == 0) {
            s.entry = entry;
        }
        self.rewrite(entry, content);
        if let Some(t) = self.entry_mut(entry) {
            t.owner = set;
        }
        true
    }

    fn rewrite(&mut self, entry: NexthopEntryId, content: Content) {
        // The members of a group that does not exist are not counted; `writes` does so when it
        // creates the group.
        if let Some(t) = self.entry(entry).filter(|t| t.alive && t.kind.is_group()) {
            let old = t.content.clone();
            self.use_members(&content, 1);
            self.use_members(&old, -1);
        }
        if let Some(t) = self.entry_mut(entry) {
            t.content = content;
            t.error = None;
        }
        self.dirty.push(entry);
    }

    fn use_members(&mut self, content: &Content, by: i32) {
        let Content::Hops(hops) = content else { return };
        for hop in hops {
            if let Some(m) = self.members.get_mut(hop) {
                m.users = m.users.saturating_add_signed(by);
            } else if by > 0 {
                let id = self.fresh_id();
                self.members.insert(*hop, Member { id, users: 1, alive: false });
            }
        }
    }

    /// Takes a new snapshot of the host: resolves all sets again and updates their objects. Lost
    /// entries are written again. The caller then has to decide again about all routes.
    pub fn resolve(&mut self, resolver: Resolver) {
        self.resolver = resolver;
        self.resolve_sets();
    }

    fn resolve_sets(&mut self) {
        for set in self.sets.values_mut() {
            let path = path(&self.resolver, &self.lost, &set.hops);
            if path != set.path {
                self.moved = true;
                set.path = path;
            }
        }
        self.follow();
    }

    /// Takes gateways that are not reachable: groups continue without them. A route without another
    /// gateway stays as it is until the table has decided.
    pub fn lose(&mut self, lost: &BTreeSet<(IpAddr, u32)>) {
        if self.lost != *lost {
            self.lost.clone_from(lost);
            self.resolve_sets();
        }
    }

    /// Whether routes have to be decided about again after what happened since the last call.
    pub fn take_moved(&mut self) -> bool {
        let is_missing = |id| self.entry(id).is_some_and(|t| t.refs > 0 && (!t.alive || t.owner == 0));
        let missing = self.entries.ids().any(is_missing);
        std::mem::take(&mut self.moved) || missing
    }

    /// Updates each entry to what its set resolves to.
    pub fn follow(&mut self) {
        for id in self.entries.ids() {
            let Some(entry) = self.entry(id).filter(|t| t.owner != 0) else { continue };
            match self.path(entry.owner) {
                Ok(content) if *content == entry.content && entry.alive => {}
                Ok(content) if fits(entry.kind, content) => {
                    let content = content.clone();
                    self.rewrite(id, content);
                }
                _ => {
                    self.moved = true;
                    self.disown(id);
                }
            }
        }
    }

    fn disown(&mut self, id: NexthopEntryId) {
        let Some(owner) = self.entry(id).map(|t| t.owner) else { return };
        if let Some(set) = self.set_mut(owner).filter(|s| s.entry == id) {
            set.entry = 0;
        }
        if let Some(entry) = self.entry_mut(id) {
            entry.owner = 0;
            if entry.refs == 0 {
                self.unreferenced.push(id);
            }
        }
    }

    /// Why the kernel refused the object of a set.
    pub fn error_of(&self, set: SetId) -> Option<&str> {
        self.entry(self.set(set)?.entry)?.error.as_deref()
    }

    /// Whether changes are left to write.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.changed_members.is_empty()
    }

    /// Marks refused objects to be written again. Returns whether there were any.
    pub fn retry(&mut self) -> bool {
        let failed: Vec<_> = self
            .entries
            .ids()
            .filter(|id| self.entry(*id).is_some_and(|t| !t.alive && t.owner != 0 && t.error.is_some()))
            .collect();
        self.dirty.extend(&failed);
        !failed.is_empty()
    }
}

/// Resolves next hops on this host: those that resolve, if any does.
fn path(resolver: &Resolver, lost: &BTreeSet<(IpAddr, u32)>, hops: &NextHops) -> Result<Content, Unresolved> {
    match hops.kind() {
        RouteKind::Unreachable => return Ok(Content::Unreachable),
        RouteKind::Blackhole => return Ok(Content::Blackhole),
        RouteKind::Unicast => {}
    }
    let mut good = BTreeSet::new();
    let mut why = Unresolved::NoRoute;
    for gateway in hops.gateways() {
        match resolver.resolve(*gateway) {
            Ok(found) => good.extend(found),
            Err(e) => why = e,
        }
    }
    if good.is_empty() {
        return Err(why);
    }
    let is_lost = |hop: &Hop| {
        !lost.is_empty() && (lost.contains(&(hop.gateway, hop.ifindex)) || lost.contains(&(hop.gateway, 0)))
    };
    if good.iter().any(|hop| !is_lost(hop)) {
        good.retain(|hop| !is_lost(hop));
    }
    Ok(Content::Hops(good.into_iter().collect()))
}

/// Whether an object of this kind can be changed to this content. A single hop cannot become a
/// group, nor a group a single hop.
fn fits(kind: NexthopKind, content: &Content) -> bool {
    match (kind, content) {
        (NexthopKind::Group(_) | NexthopKind::Resilient(_), Content::Hops(_)) => true,
        (NexthopKind::Single(_), Content::Hops(hops)) => hops.len() == 1,
        _ => false,
    }
}
