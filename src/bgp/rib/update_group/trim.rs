//! Frees what a group no longer needs: journal entries sent to all members, slots, path identifiers
//! and memory.

use std::collections::VecDeque;

use super::{At, OutEntry, UpdateGroup};
use crate::bgp::rib::{
    attrs::AttrsTable,
    paths::{PathIds, SlotNo},
    table::{RouteNo, Table, cut},
};

/// Octets counted for one next hop: its entry and the list of its sources.
const NEXT_HOP_OCTETS: usize = 112;

impl UpdateGroup {
    /// Drops journal entries that all members have passed. Calls `vacant` with routes that the
    /// group no longer holds.
    pub(in crate::bgp::rib) fn trim(
        &mut self,
        table: &mut Table,
        ids: &mut PathIds,
        mut vacant: impl FnMut(RouteNo),
    ) {
        if !self.behind {
            return;
        }
        let passed = self.members.iter().map(|m| match m.at {
            At::Journal(place) | At::Head { since: place, .. } | At::Sweep { since: place, .. } => place,
        });
        let passed = passed.min().unwrap_or(self.end());
        while self.base < passed
            && let Some(slot) = self.journal.pop_front()
        {
            let out = &mut self.adj_rib_out[slot as usize];
            if out.place == self.base as u32 && out.attrs.is_none() {
                *out = OutEntry::default();
                self.unpin(slot, table, ids, &mut vacant);
            }
            self.base += 1;
        }
        let end = self.end();
        self.behind = self.members.iter().any(|m| m.is_behind(end));
        if !self.behind {
            self.batches.clear();
        }
        self.give_back();
        self.compact();
    }

    /// Truncates to the number of routes in the table. (With ADD-PATH slots have their own
    /// numbers.)
    pub(in crate::bgp::rib) fn fit(&mut self, routes: usize) {
        match &mut self.paths {
            None if self.adj_rib_out.len() > routes => cut(&mut self.adj_rib_out, routes),
            None => {}
            Some(slots) => slots.fit(routes),
        }
    }

    /// Frees a slot.
    fn unpin(
        &mut self,
        slot: SlotNo,
        table: &mut Table,
        ids: &mut PathIds,
        vacant: &mut impl FnMut(RouteNo),
    ) {
        let (route, last) = match &mut self.paths {
            None => (slot, true),
            Some(slots) => {
                let (gone, last) = slots.remove(slot);
                ids.release(gone.path_id);
                (gone.route, last)
            }
        };
        if last {
            table.get_mut(route).pins -= 1;
            vacant(route);
        }
    }

    fn give_back(&mut self) {
        if self.journal.is_empty() {
            if self.journal.capacity() > 1024 {
                self.journal = VecDeque::new();
            }
            if self.total == 0 && !self.behind {
                self.adj_rib_out = Vec::new();
                if let Some(slots) = &mut self.paths {
                    slots.clear();
                }
            } else if !self.behind
                && let Some(slots) = &mut self.paths
            {
                let places = slots.shrink();
                if places < self.adj_rib_out.len() {
                    cut(&mut self.adj_rib_out, places);
                }
            }
        }
    }

    /// Octets that the group takes: Adj-RIB-Out, journal and encoded batches. (Attributes are
    /// counted in their table.)
    pub(in crate::bgp::rib) fn octets(&self) -> u64 {
        let out = self.adj_rib_out.capacity() * size_of::<OutEntry>()
            + self.journal.capacity() * size_of::<SlotNo>();
        let batches: usize = self.batches.iter().map(|c| c.bytes.len()).sum();
        let sets = (self.too_large.len() + self.withheld.len() + self.ranked.len()) * 16;
        // With ADD-PATH each path has an entry in both maps of the identifiers.
        let paths = self.paths.as_ref().map_or(0, |p| p.octets() + u64::from(self.total) * 48);
        let next_hops = self.by_next_hop.len() * NEXT_HOP_OCTETS;
        (out + batches + sets + next_hops) as u64 + paths
    }

    /// Drops outdated entries once they are the larger part, so that a member that never reads
    /// costs no more than one entry per route.
    fn compact(&mut self) {
        if self.journal.len() < 1024 || self.journal.len() < self.adj_rib_out.len() * 2 {
            return;
        }
        let (base, end) = (self.base, self.end());
        let mut live_before = Vec::with_capacity(self.journal.len() + 1);
        let mut kept = VecDeque::new();
        for (n, &slot) in self.journal.iter().enumerate() {
            live_before.push(kept.len() as u64);
            let out = &mut self.adj_rib_out[slot as usize];
            if out.place == (base + n as u64) as u32 {
                out.place = (end + kept.len() as u64) as u32;
                kept.push_back(slot);
            }
        }
        live_before.push(kept.len() as u64);
        let moved = |place: u64| end + live_before[(place.max(base) - base) as usize];
        for member in &mut self.members {
            member.at = match member.at {
                At::Journal(place) => At::Journal(moved(place)),
                At::Head { next, since } => At::Head { next, since: moved(since) },
                At::Sweep { next, since } => At::Sweep { next, since: moved(since) },
            };
        }
        (self.journal, self.base) = (kept, end);
        self.batches.clear();
    }

    /// Releases everything; the group has no members left.
    pub(in crate::bgp::rib) fn dissolve(
        &mut self,
        table: &mut Table,
        attrs: &mut AttrsTable,
        ids: &mut PathIds,
        mut vacant: impl FnMut(RouteNo),
    ) {
        for (n, out) in std::mem::take(&mut self.adj_rib_out).into_iter().enumerate() {
            if let Some(id) = out.attrs {
                attrs.release(id);
            }
            if out.in_use() {
                self.unpin(n as SlotNo, table, ids, &mut vacant);
            }
        }
        self.journal.clear();
    }
}
