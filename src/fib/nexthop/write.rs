//! Messages to the kernel: new objects first, deletions last, idle objects after a delay.

use std::collections::BTreeSet;

use super::{NexthopEntry, NexthopEntryId, NexthopKind, NexthopTable, UNREACHABLE};
use crate::fib::{
    resolve::Hop,
    route::{Content, Object, ObjectId, Op},
};

impl NexthopTable {
    /// The pending object changes, members before the groups that use them.
    pub fn writes(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for hop in std::mem::take(&mut self.changed_members) {
            let Some(member) = self.members.get(&hop).filter(|m| m.alive) else { continue };
            ops.push(Op::NewNexthop { id: member.id, object: Object::Hop(hop), replace: true });
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entry(id) else { continue };
            let (kind, content, replace) = (entry.kind, entry.content.clone(), entry.alive);
            let Content::Hops(hops) = &content else { continue };
            match kind {
                NexthopKind::Inline => continue,
                NexthopKind::Single(id) => {
                    let Some(&hop) = hops.first() else { continue };
                    ops.push(Op::NewNexthop { id, object: Object::Hop(hop), replace });
                }
                NexthopKind::Group(id) | NexthopKind::Resilient(id) => {
                    if !replace {
                        self.use_members(&content, 1);
                    }
                    let members = self.group(hops, &mut ops);
                    let object = match kind {
                        NexthopKind::Resilient(_) => Object::ResilientGroup(members),
                        _ => Object::Group(members),
                    };
                    ops.push(Op::NewNexthop { id, object, replace });
                }
            }
            let Some(entry) = self.entry_mut(id) else { continue };
            entry.alive = true;
            entry.error = None;
            // One that was refused before: its routes may have moved to another object meanwhile.
            if entry.refs == 0 {
                self.unreferenced.push(id);
            }
        }
        ops
    }

    pub(super) fn group(&mut self, hops: &[Hop], ops: &mut Vec<Op>) -> Vec<ObjectId> {
        let mut ids = Vec::new();
        for hop in hops {
            let Some(member) = self.members.get_mut(hop) else { continue };
            if !member.alive {
                ops.push(Op::NewNexthop { id: member.id, object: Object::Hop(*hop), replace: false });
                member.alive = true;
            }
            ids.push(member.id);
        }
        ids
    }

    /// Deletes the objects that are no longer used, and those whose routes are deleted with them
    /// (`whole`). The others stay idle for a while.
    pub fn sweep(&mut self, whole: &BTreeSet<NexthopEntryId>) -> Vec<Op> {
        let mut ops = Vec::new();
        for id in std::mem::take(&mut self.unreferenced) {
            // One that the kernel refused is kept with the reason for as long as its set is wanted.
            let is_of_set = |t: &NexthopEntry| self.set(t.owner).is_some_and(|s| s.entry == id);
            let keep = |t: &NexthopEntry| t.refs > 0 || t.error.is_some() && is_of_set(t);
            if id == UNREACHABLE || self.entry(id).is_none_or(keep) {
                continue;
            }
            let may_stay_idle = self.entry(id).is_some_and(|t| t.alive && t.kind != NexthopKind::Inline);
            if may_stay_idle && !whole.contains(&id) {
                self.make_idle(id);
                continue;
            }
            let object = self.object_of(id);
            let alive = self.entry(id).is_some_and(|t| t.alive);
            self.forget(id);
            ops.extend(object.filter(|_| alive).map(|id| Op::DelNexthop { id }));
        }
        self.members.retain(|_, m| {
            if m.users == 0 && m.alive && !self.by_id.contains_key(&m.id) {
                ops.push(Op::DelNexthop { id: m.id });
            }
            m.users > 0
        });
        ops
    }

    fn make_idle(&mut self, id: NexthopEntryId) {
        if !self.idle.contains(&id) {
            self.idle.push(id);
        }
    }

    /// Whether objects without routes are kept for reuse until [`NexthopTable::expire_idle`].
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Deletes the idle objects that no route came back to.
    pub fn expire_idle(&mut self) -> Vec<Op> {
        let expired: BTreeSet<_> = std::mem::take(&mut self.idle).into_iter().collect();
        self.unreferenced.extend(&expired);
        self.sweep(&expired)
    }

    /// Removes an entry without routes; deleting its object is up to the caller.
    fn forget(&mut self, id: NexthopEntryId) {
        let Some(entry) = self.entries.remove(id) else { return };
        if let Some(set) = self.set_mut(entry.owner).filter(|s| s.entry == id) {
            set.entry = 0;
        }
        if let Some(object) = entry.kind.id() {
            self.by_id.remove(&object);
        }
        if entry.kind.is_group() && entry.alive {
            self.use_members(&entry.content, -1);
        }
        self.dirty.retain(|d| *d != id);
        self.idle.retain(|r| *r != id);
    }
}
