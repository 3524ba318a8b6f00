//! Changes of links, addresses and lost neighbors, which move routes to other next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Fib;
use crate::fib::{
    nexthop::NexthopEntryId,
    resolve::Resolver,
    route::{OWN_METRIC, ObjectId, SeenObject},
    table::Mark,
};

impl Fib {
    /// Takes a new snapshot of the host, and the kernel's present nexthop objects.
    pub fn host(&mut self, resolver: Resolver, seen: Option<&BTreeMap<ObjectId, SeenObject>>) {
        if let Some(seen) = seen {
            let before = self.objects.repaired;
            let lost = self.objects.observe(seen);
            self.repairs += self.objects.repaired - before;
            self.lose_routes_of(&lost, false);
        }
        self.objects.resolve(resolver);
        // For learned routes the table itself shows that they are missing.
        self.problems.retain(|(_, metric), _| *metric == OWN_METRIC);
        self.rescan();
    }

    /// Takes the gateways that BFD has lost: groups continue without them, with one message for all
    /// routes of each.
    pub fn lose(&mut self, lost: &BTreeSet<(IpAddr, u32)>) {
        self.objects.lose(lost);
        if !self.objects.enabled() {
            self.rescan();
        }
    }

    /// Records that these entries are gone with all their routes. `decided`: the decision about
    /// these routes was to delete them.
    pub(super) fn lose_routes_of(&mut self, entries: &BTreeSet<NexthopEntryId>, decided: bool) {
        if entries.is_empty() {
            return;
        }
        let (objects, sweep) = (&mut self.objects, &mut self.sweep);
        self.routes.change_all(|state| {
            let have = state.have();
            if entries.contains(&have) {
                objects.drop_refs(have, 1);
                sweep.stale -= usize::from(state.is(Mark::Stale));
                state.set_have(0);
                state.set(Mark::Stale, false);
                state.set(Mark::Queued, state.is(Mark::Queued) && !decided);
            }
        });
    }

    /// Decides again about all routes.
    pub(in crate::fib) fn rescan(&mut self) {
        let all: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| {
                let entry = self.objects.entry(s.have());
                entry.is_none_or(|t| t.owner != s.want || !t.alive) || self.objects.path(s.want).is_err()
            })
            .map(|(p, _)| p)
            .collect();
        for prefix in all {
            // If a route went with its object, its key is free or ours, as `observe` has found.
            self.settle(prefix, false);
        }
    }
}
