//! Adopts routes that an earlier run left in the kernel, and sweeps them after the neighbors have
//! sent their initial updates (`fib.on-exit`).
//!
//! Nothing is removed at the start. An adopted route is stale until the rib selects the same next
//! hops; it is then kept as it is. Stale routes that are no longer selected are removed neighbor by
//! neighbor, as each neighbor completes its initial exchange.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    fib::{
        diff::Fib,
        route::{Content, OWN_METRIC, ObjectId, SeenObject},
        sweep::Grace,
        table::Mark,
    },
    net::{Assigned, Convergence, Prefix},
};

impl Fib {
    /// Adopts the nexthop objects that are in the kernel. Must be called before
    /// [`Fib::adopt_route`].
    pub fn adopt_objects(&mut self, seen: &BTreeMap<ObjectId, SeenObject>, protocol: u8) {
        self.objects.adopt_all(seen, protocol);
    }

    /// Leaves the adoption of objects and routes to an audit, as they could not be read.
    pub fn adopt_later(&mut self) {
        self.objects.doubt_all();
    }

    /// Adopts one route that an earlier run installed.
    pub fn adopt_route(&mut self, prefix: Prefix, metric: u32, object: ObjectId, content: Content) {
        if metric == OWN_METRIC && content == Content::Unreachable {
            let own = self.own.entry(prefix).or_default();
            (own.there, own.seen) = (true, true);
        } else if metric == self.settings.metric {
            let entry = self.objects.adopt(object, content);
            self.adopted(prefix, entry);
        } else {
            // The object must remain for as long as the route does.
            let entry = self.objects.adopt(object, content);
            self.objects.hold(entry);
            self.foreign_metric_routes.push((prefix, metric, entry));
        }
    }

    /// Records that `routes` routes of a former configuration use this object. It is kept until
    /// [`Fib::release_object`].
    pub fn hold_object(&mut self, object: ObjectId, routes: u32) {
        if let Some(entry) = self.objects.by_object(object) {
            (0..routes).for_each(|_| self.objects.hold(entry));
        }
    }

    /// Records that those routes are gone.
    pub fn release_object(&mut self, object: ObjectId, routes: u32) {
        if let Some(entry) = self.objects.by_object(object) {
            self.objects.drop_refs(entry, routes);
        }
    }

    /// Whether no more initial updates are expected from any neighbor.
    pub fn all_converged(&mut self, convergence: Arc<Convergence>, grace: Grace) -> bool {
        (self.sweep.convergence, self.sweep.grace) = (convergence, grace);
        self.sweep.all_done()
    }

    /// Sets which prefixes are assigned to which hosts, for [`Fib::converged`].
    pub fn assigned(&mut self, assigned: Arc<Assigned>) {
        self.sweep.assigned = assigned;
    }

    /// Whether stale routes are left.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.stale > 0
            || !self.foreign_metric_routes.is_empty()
            || self.own.values().any(|o| o.there && !o.wanted)
    }

    /// Removes the stale routes whose neighbors have converged.
    pub fn converged(&mut self, convergence: Arc<Convergence>, grace: Grace) {
        if !self.is_sweeping() {
            return;
        }
        self.sweep.convergence = convergence;
        self.sweep.grace = grace;
        let stale: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| s.is(Mark::Stale))
            .map(|(p, s)| (p, s.want, s.have()))
            .collect();
        for (prefix, want, have) in stale {
            let content = self.objects.entry(have).map(|t| &t.content);
            let go = content.is_none_or(|c| self.sweep.may_sweep(prefix, c));
            match (want, go) {
                // Selected with other next hops: held back until now to keep the stale ones.
                (1.., _) => self.release_stale(prefix, go),
                (0, true) => self.delete(prefix),
                (0, false) => {}
            }
        }
        if self.sweep.all_done() {
            self.delete_foreign_metric_routes();
            let unwanted = self.own.iter().filter(|(_, o)| o.there && !o.wanted).map(|(p, _)| *p);
            for prefix in unwanted.collect::<Vec<_>>() {
                self.delete_own(prefix);
            }
        }
    }
}
