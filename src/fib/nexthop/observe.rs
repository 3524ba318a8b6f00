//! Objects that the kernel has lost, changed or refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hashbrown::HashMap;

use super::{NexthopEntry, NexthopEntryId, NexthopKind, NexthopTable};
use crate::fib::{
    resolve::Hop,
    route::{Content, Object, ObjectId, SeenObject},
};

impl NexthopTable {
    /// Records that the kernel refused to create an object: the entry does not exist and holds the
    /// reason. An object that the kernel refused to *change* stays as it was until
    /// [`NexthopTable::observe`].
    pub fn refused(&mut self, id: ObjectId, replace: bool, taken: bool, why: &Arc<str>) {
        if let Some(entry) = self.by_object(id) {
            if !replace {
                self.mark_missing(entry);
            }
            if let Some(t) = self.entry_mut(entry) {
                t.error = Some(why.clone());
            }
        }
        self.members.values_mut().filter(|m| m.id == id).for_each(|m| m.alive = false);
        if taken && !replace {
            self.foreign.insert(id);
            self.renumber(id);
        }
    }

    /// Gives our object another id because another daemon uses this one.
    fn renumber(&mut self, id: ObjectId) {
        let fresh = self.fresh_id();
        self.members.values_mut().filter(|m| m.id == id).for_each(|m| m.id = fresh);
        let Some(entry) = self.by_id.remove(&id) else { return };
        self.by_id.insert(fresh, entry);
        if let Some(t) = self.entry_mut(entry) {
            t.kind = match t.kind {
                NexthopKind::Inline => NexthopKind::Inline,
                NexthopKind::Single(_) => NexthopKind::Single(fresh),
                NexthopKind::Group(_) => NexthopKind::Group(fresh),
                NexthopKind::Resilient(_) => NexthopKind::Resilient(fresh),
            };
        }
    }

    fn mark_missing(&mut self, id: NexthopEntryId) {
        let Some(entry) = self.entry_mut(id).filter(|t| t.alive) else { return };
        entry.alive = false;
        let (group, content) = (entry.kind.is_group(), entry.content.clone());
        self.moved = true;
        if group {
            self.use_members(&content, -1);
        }
    }

    /// Compares with the kernel's objects: the kernel deletes objects and shrinks groups without
    /// notifications (docs/kernel.md, section 2), and other programs may change objects with our
    /// ids. Returns the entries that are gone with all their routes.
    pub fn observe(&mut self, seen: &BTreeMap<ObjectId, SeenObject>) -> BTreeSet<NexthopEntryId> {
        self.adopt_doubtful(seen);
        for (hop, member) in &mut self.members {
            match seen.get(&member.id) {
                Some(s) if s.object() == Some(Object::Hop(*hop)) && s.protocol == self.protocol => {
                    member.alive = true;
                }
                Some(_) if member.alive => drop(self.changed_members.insert(*hop)),
                _ => member.alive = false,
            }
        }
        self.repaired += self.changed_members.len() as u64;
        let by_member: HashMap<ObjectId, Hop> = self.members.iter().map(|(hop, m)| (m.id, *hop)).collect();
        let mut lost = BTreeSet::new();
        for id in self.entries.ids() {
            let Some(object) = self.entry(id).filter(|t| t.alive).and_then(|t| t.kind.id()) else { continue };
            let Some(seen) = seen.get(&object) else {
                self.mark_missing(id);
                lost.insert(id);
                continue;
            };
            let hops = self.hops_of(seen, &by_member);
            let content = Content::Hops(hops.clone().unwrap_or_default().into());
            // The kernel removes members from groups; any other change is another program's.
            let is_single =
                |t: &NexthopEntry| matches!(t.kind, NexthopKind::Single(_)) && t.content != content;
            // One that was to be deleted leads anywhere.
            let is_known = |t: &NexthopEntry| t.content != Content::Hops(Box::default());
            let changed = hops.is_none() && self.entry(id).is_some_and(is_known);
            if changed || self.entry(id).is_some_and(is_single) {
                self.repaired += 1;
            }
            self.shrunk(id, content);
        }
        lost
    }

    /// The present hops of an object of ours; `None` if it was changed to what we never create.
    fn hops_of(&self, seen: &SeenObject, by_member: &HashMap<ObjectId, Hop>) -> Option<Vec<Hop>> {
        let mut hops = match seen.object().filter(|_| seen.protocol == self.protocol)? {
            Object::Hop(hop) => vec![hop],
            Object::Group(ids) | Object::ResilientGroup(ids) => {
                ids.iter().map(|i| by_member.get(i).copied()).collect::<Option<_>>()?
            }
        };
        hops.sort_unstable();
        Some(hops)
    }

    /// Records that an existing object has other content than we wrote; empty if another program
    /// changed it.
    fn shrunk(&mut self, id: NexthopEntryId, content: Content) {
        let Some(entry) = self.entry(id).filter(|t| t.content != content) else { return };
        let (old, group) = (entry.content.clone(), entry.kind.is_group());
        if group {
            self.use_members(&content, 1);
            self.use_members(&old, -1);
        }
        if let Some(t) = self.entry_mut(id) {
            t.content = content;
        }
    }
}
