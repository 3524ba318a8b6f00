//! Objects that the previous run left in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{ID_BITS, Member, NexthopEntry, NexthopEntryId, NexthopKind, NexthopTable, UNREACHABLE, is_ours};
use crate::fib::route::{Content, Object, ObjectId, SeenObject};

impl NexthopTable {
    /// Returns the entry for a route that is already in the kernel: that of its object if it is
    /// ours, else one with its hops inline.
    pub fn adopt(&mut self, object: ObjectId, content: Content) -> NexthopEntryId {
        match (self.by_object(object), &content) {
            (Some(entry), _) => return entry,
            (None, Content::Unreachable) => return UNREACHABLE,
            _ => {}
        }
        let same = |t: &NexthopEntry| t.kind == NexthopKind::Inline && t.owner == 0 && t.content == content;
        if let Some(found) = self.entries.ids().find(|id| self.entry(*id).is_some_and(same)) {
            return found;
        }
        self.entries.insert(NexthopEntry {
            kind: NexthopKind::Inline,
            content,
            owner: 0,
            refs: 0,
            alive: true,
            error: None,
        })
    }

    /// Whether a route with this object (0 for none) and these hops is a route of `entry`.
    pub fn looks_like(&self, entry: NexthopEntryId, object: ObjectId, content: &Content) -> bool {
        self.entry(entry).is_some_and(|t| match t.kind.id() {
            Some(id) => id == object,
            None => object == 0 && t.content == *content,
        })
    }

    /// Records that the kernel may still have an object that was to be deleted.
    pub fn doubt(&mut self, id: ObjectId) {
        self.doubtful.insert(id);
    }

    /// Records that objects of an earlier run could not be read: the kernel may have any.
    pub fn doubt_all(&mut self) {
        self.unread = true;
    }

    /// Adopts those of them that the kernel still has: they are deleted again once no route uses
    /// them.
    pub(super) fn adopt_doubtful(&mut self, seen: &BTreeMap<ObjectId, SeenObject>) {
        if std::mem::take(&mut self.unread) {
            self.doubtful.extend(seen.values().filter(|s| s.protocol == self.protocol).map(|s| s.id));
        }
        for id in std::mem::take(&mut self.doubtful) {
            let is_used = self.by_id.contains_key(&id) || self.members.values().any(|m| m.id == id);
            let Some(seen) = seen.get(&id).filter(|s| !is_used && s.protocol == self.protocol) else {
                continue;
            };
            let (kind, hops) = match seen.object() {
                Some(Object::Hop(hop)) => (NexthopKind::Single(id), vec![hop]),
                // Without hops it is reused for no set.
                Some(Object::Group(_)) => (NexthopKind::Group(id), Vec::new()),
                Some(Object::ResilientGroup(_)) => (NexthopKind::Resilient(id), Vec::new()),
                None => continue,
            };
            let content = Content::Hops(hops.into());
            let entry = NexthopEntry { kind, content, owner: 0, refs: 0, alive: true, error: None };
            let entry = self.entries.insert(entry);
            self.by_id.insert(id, entry);
            self.unreferenced.push(entry);
        }
    }

    /// Adopts the objects of ours that are in the kernel, and reserves the ids of all others.
    pub fn adopt_all(&mut self, seen: &BTreeMap<ObjectId, SeenObject>, protocol: u8) {
        self.foreign = seen.values().filter(|s| s.protocol != protocol).map(|s| s.id).collect();
        let ours = || seen.values().filter(|s| s.protocol == protocol);
        let mut members = BTreeSet::new();
        for seen in ours() {
            if let Some(Object::Group(ids) | Object::ResilientGroup(ids)) = seen.object() {
                members.extend(ids);
            }
        }
        let hop_of = |id: &ObjectId| match seen.get(id).and_then(SeenObject::object) {
            Some(Object::Hop(hop)) => Some(hop),
            _ => None,
        };
        for id in &members {
            if let Some(hop) = hop_of(id) {
                self.members.insert(hop, Member { id: *id, users: 0, alive: true });
            }
        }
        for one in ours().filter(|s| !members.contains(&s.id)) {
            let (kind, mut hops) = match one.object() {
                Some(Object::Hop(hop)) => (NexthopKind::Single(one.id), vec![hop]),
                Some(Object::Group(ids)) => {
                    (NexthopKind::Group(one.id), ids.iter().filter_map(hop_of).collect())
                }
                Some(Object::ResilientGroup(ids)) => {
                    (NexthopKind::Resilient(one.id), ids.iter().filter_map(hop_of).collect())
                }
                None => continue,
            };
            hops.sort_unstable();
            let content = Content::Hops(hops.into());
            if kind.is_group() {
                self.use_members(&content, 1);
            }
            let entry = NexthopEntry { kind, content, owner: 0, refs: 0, alive: true, error: None };
            let id = self.entries.insert(entry);
            self.by_id.insert(one.id, id);
            self.unreferenced.push(id);
        }
        let last = seen.keys().copied().filter(|id| is_ours(*id, self.protocol)).max();
        self.next_id = last.map_or(u32::from(self.protocol) << ID_BITS, |id| self.id_after(id));
    }
}
