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
    /// them. Members of groups are left until their groups are gone, as a group goes with its last
    /// member, and its routes with the group.
    pub(super) fn adopt_doubtful(&mut self, seen: &BTreeMap<ObjectId, SeenObject>) {
        let ours = || seen.values().filter(|s| s.protocol == self.protocol);
        let unread = std::mem::take(&mut self.unread);
        if unread {
            self.doubtful.extend(ours().map(|s| s.id));
        }
        if self.doubtful.is_empty() {
            return;
        }
        let in_groups: BTreeSet<ObjectId> = ours().flat_map(members).collect();
        for id in std::mem::take(&mut self.doubtful) {
            let is_used = self.by_id.contains_key(&id) || self.members.values().any(|m| m.id == id);
            let Some(seen) = seen.get(&id).filter(|s| !is_used && s.protocol == self.protocol) else {
                continue;
            };
            if in_groups.contains(&id) {
                self.doubtful.insert(id);
                continue;
            }
            let (kind, hops) = match seen.object() {
                Some(Object::Hop(hop)) => (NexthopKind::Single(id), vec![hop]),
                // Without hops it is reused for no set.
                Some(Object::Group(_)) => (NexthopKind::Group(id), Vec::new()),
                Some(Object::ResilientGroup(_)) => (NexthopKind::Resilient(id), Vec::new()),
                None => continue,
            };
            let (content, refs) = (Content::Hops(hops.into()), u32::from(unread));
            let entry = NexthopEntry { kind, content, owner: 0, refs, alive: true, error: None };
            let entry = self.entries.insert(entry);
            self.by_id.insert(id, entry);
            let list = if unread { &mut self.held } else { &mut self.unreferenced };
            list.push(entry);
        }
    }

    /// All routes were read: objects of an earlier run without any may be deleted.
    pub fn release_unread(&mut self) {
        for entry in std::mem::take(&mut self.held) {
            self.drop_refs(entry, 1);
        }
    }

    /// Adopts the objects of ours that are in the kernel, and reserves the ids of all others.
    pub fn adopt_all(&mut self, seen: &BTreeMap<ObjectId, SeenObject>, protocol: u8) {
        self.foreign = seen.values().filter(|s| s.protocol != protocol).map(|s| s.id).collect();
        let ours = || seen.values().filter(|s| s.protocol == protocol);
        let members: BTreeSet<ObjectId> = ours().flat_map(members).collect();
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

/// The members of a group; none of any other object.
fn members(seen: &SeenObject) -> Vec<ObjectId> {
    match seen.object() {
        Some(Object::Group(ids) | Object::ResilientGroup(ids)) => ids,
        _ => Vec::new(),
    }
}
