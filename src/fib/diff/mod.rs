//! Computes the kernel changes that turn the installed routes into the desired ones.
//!
//! Replacements precede deletions, since a prefix whose next hop changes must never be missing in
//! between. Most changes are decided at once ([`Fib::set_desired`]). Those that remove something
//! are decided at the end of the batch ([`Fib::finish`]), because a batch that moves or deletes
//! *all* routes of one nexthop object then needs a single message.
//!
//! A change that was emitted counts as done until [`Fib::refused`] reverts it. A key that another
//! daemon's route holds is never written.

mod audit;
mod host;
mod own;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use hashbrown::HashMap;

use self::own::{Own, OwnPrefixes};
use crate::{
    fib::{
        nexthop::{NexthopEntryId, NexthopTable, SetId, UNREACHABLE},
        route::{Content, OWN_METRIC, Op, Target},
        source::SourceState,
        sweep::Sweep,
        table::{Mark, State, Table},
    },
    net::{NextHops, Prefix, RouteKind},
};

/// Number of routes from which an object is deleted instead of its routes. Below it, each route is
/// deleted by itself, so that other programs are notified: the kernel sends no notifications for
/// routes that go with their object.
const BULK_DELETE_MIN: u32 = 16;

/// The settings that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// If false, the table is kept up to date but nothing is written.
    pub install: bool,
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    pub nexthop_objects: bool,
    pub resilient: bool,
}

/// All routes of ours: desired and installed.
#[derive(Debug)]
pub struct Fib {
    pub(super) settings: Settings,
    pub(super) source: SourceState,
    pub(super) routes: Table,
    /// Prefixes originated here, as unreachable routes against forwarding loops.
    pub(super) own: OwnPrefixes,
    pub(super) objects: NexthopTable,
    /// Keys that other daemons' routes hold, with their protocol number.
    foreign: HashMap<(Prefix, u32), u8>,
    problems: HashMap<(Prefix, u32), Arc<str>>,
    ops: VecDeque<Op>,
    /// Routes to decide about at the end of the batch.
    later: Vec<Prefix>,
    /// Routes of ours with the metric of another configuration.
    pub(super) foreign_metric_routes: Vec<(Prefix, u32, NexthopEntryId)>,
    pub(super) sweep: Sweep,
    /// Number of routes restored after another program removed or changed them.
    pub repairs: u64,
    /// How often all routes were visited to decide about them again.
    pub rescans: u64,
}

enum RouteAction {
    Keep,
    Write,
    Delete,
    Leave,
}

impl Fib {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            source: SourceState::default(),
            routes: Table::default(),
            own: OwnPrefixes::default(),
            objects: NexthopTable::new(settings.nexthop_objects, settings.resilient, settings.protocol),
            foreign: HashMap::default(),
            problems: HashMap::default(),
            ops: VecDeque::new(),
            later: Vec::new(),
            foreign_metric_routes: Vec::new(),
            sweep: Sweep::default(),
            repairs: 0,
            rescans: 0,
        }
    }

    /// Prefetches the states of prefixes that are about to be passed to [`Fib::set_desired`].
    pub fn prefetch<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        self.routes.prefetch(prefixes);
    }

    /// Sets the next hops that a prefix shall have; `None` removes the route.
    pub fn set_desired(&mut self, prefix: Prefix, hops: Option<&Arc<NextHops>>) {
        let set = hops.map_or(0, |h| self.objects.intern(h));
        let mut slot = self.routes.slot(prefix);
        let old = std::mem::replace(&mut slot.want, set);
        // The common case, a new route, takes a single look-up.
        if set != 0
            && *slot == State::wanted(set)
            && old == 0
            && self.settings.install
            && self.foreign.is_empty()
        {
            if let Some(entry) = self.objects.ensure(set) {
                slot.set_have(entry);
                slot.set(Mark::Seen, true);
                self.objects.hold(entry);
                self.ops.push_back(Op::NewRoute {
                    prefix,
                    metric: self.settings.metric,
                    entry,
                    replace: false,
                });
            }
            return;
        }
        let state = *slot;
        drop(slot);
        self.objects.release(old);
        if set == 0 {
            self.problems.remove(&(prefix, self.settings.metric));
        }
        self.settle_from(prefix, state, false);
    }

    /// The next hops that each prefix shall have.
    pub fn desired(&self) -> Vec<(Prefix, Arc<NextHops>)> {
        let wanted = self.routes.iter().filter(|(_, state)| state.want != 0);
        wanted.filter_map(|(prefix, state)| Some((prefix, self.objects.hops(state.want)?.clone()))).collect()
    }

    /// Continues without nexthop objects, which this kernel does not have. Must be called before
    /// anything is written.
    pub fn disable_objects(&mut self) {
        self.objects.disable();
    }

    /// Continues with plain groups, as this kernel has no resilient ones.
    pub fn disable_resilient(&mut self) {
        self.objects.disable_resilient();
    }

    pub fn has_objects(&self) -> bool {
        self.objects.enabled()
    }

    /// Decides about one route: an addition is emitted at once, anything else at the end of the
    /// batch. `replace`: a route of ours may hold its key.
    fn settle(&mut self, prefix: Prefix, replace: bool) {
        if let Some(state) = self.routes.get(prefix) {
            self.settle_from(prefix, state, replace);
        }
    }

    fn settle_from(&mut self, prefix: Prefix, state: State, replace: bool) {
        match self.action(state) {
            RouteAction::Keep if state.is(Mark::Stale) => self.claim(prefix, state),
            RouteAction::Keep => {}
            RouteAction::Leave => self.routes.tidy(prefix),
            RouteAction::Write if state.have() == 0 => self.put(prefix, state.want, replace),
            RouteAction::Write | RouteAction::Delete if state.is(Mark::Queued) => {}
            RouteAction::Write | RouteAction::Delete => {
                self.routes.slot(prefix).set(Mark::Queued, true);
                self.later.push(prefix);
            }
        }
    }

    fn action(&mut self, state: State) -> RouteAction {
        if !self.settings.install {
            return RouteAction::Leave;
        }
        let (want, have) = (state.want, state.have());
        if want != 0 && have != 0 && self.objects.matches(have, want) {
            return RouteAction::Keep;
        }
        let held = state.is(Mark::Stale) && have != 0;
        match self.objects.path(want) {
            _ if want == 0 && have == 0 => RouteAction::Leave,
            // The sweep decides about adopted routes that are not desired.
            _ if want == 0 && held => RouteAction::Leave,
            Ok(content) if held && self.sweep.moves_too_early(self.objects.entry(have), content) => {
                RouteAction::Leave
            }
            Ok(_) => RouteAction::Write,
            Err(_) if have == 0 || held => RouteAction::Leave,
            Err(_) => RouteAction::Delete,
        }
    }

    /// Writes a route to the entry of its set.
    fn put(&mut self, prefix: Prefix, set: SetId, replace: bool) {
        let metric = self.settings.metric;
        if !self.foreign.is_empty() && self.foreign.contains_key(&(prefix, metric)) {
            return;
        }
        let Some(entry) = self.objects.ensure(set) else { return };
        let mut slot = self.routes.slot(prefix);
        let (old, stale) = (slot.have(), slot.is(Mark::Stale));
        slot.set_have(entry);
        slot.set(Mark::Stale, false);
        slot.set(Mark::Seen, true);
        self.sweep.stale -= usize::from(stale);
        self.objects.hold(entry);
        self.objects.drop_refs(old, 1);
        self.ops.push_back(Op::NewRoute { prefix, metric, entry, replace: replace || old != 0 });
    }

    /// Keeps an adopted route that has the desired next hops, unless its source may differ.
    fn claim(&mut self, prefix: Prefix, state: State) {
        if self.has_right_source(prefix) {
            self.confirm(prefix);
        } else {
            self.put(prefix, state.want, true);
        }
    }

    /// Marks an adopted route as no longer stale.
    fn confirm(&mut self, prefix: Prefix) {
        let before = self.routes.change(prefix, |s| s.set(Mark::Stale, false));
        self.sweep.stale -= usize::from(before.is(Mark::Stale));
    }

    /// Records that a route is no longer installed.
    fn mark_missing(&mut self, prefix: Prefix) {
        self.lost_and(prefix, |_| {});
    }

    fn lost_and(&mut self, prefix: Prefix, and: impl FnOnce(&mut State)) {
        let before = self.routes.change(prefix, |state| {
            state.set_have(0);
            state.set(Mark::Stale, false);
            and(state);
        });
        self.sweep.stale -= usize::from(before.is(Mark::Stale));
        self.objects.drop_refs(before.have(), u32::from(before.have() != 0));
    }

    pub(super) fn delete(&mut self, prefix: Prefix) {
        self.lost_and(prefix, |state| state.set(Mark::Queued, false));
        self.ops.push_back(Op::DelRoute { prefix, metric: self.settings.metric });
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push_back(op);
    }

    /// Ends a batch: decides about replacements and deletions.
    pub fn finish(&mut self) {
        let later = std::mem::take(&mut self.later);
        let later: Vec<_> = later.into_iter().filter_map(|p| Some((p, self.routes.get(p)?))).collect();
        let whole = self.whole_objects(&later);
        let mut gone = Vec::new();
        let unqueue = |state: &mut State| state.set(Mark::Queued, false);
        for (prefix, state) in later {
            match self.action(state) {
                RouteAction::Keep if state.is(Mark::Stale) => {
                    self.routes.change(prefix, unqueue);
                    self.claim(prefix, state);
                }
                RouteAction::Write => {
                    self.routes.change(prefix, unqueue);
                    self.put(prefix, state.want, false);
                }
                RouteAction::Delete if whole.contains(&state.have()) => {}
                RouteAction::Delete => gone.push(prefix),
                RouteAction::Keep | RouteAction::Leave => {
                    self.routes.change(prefix, unqueue);
                }
            }
        }
        gone.into_iter().for_each(|prefix| self.delete(prefix));
        self.lose_routes_of(&whole, true);
        let unused = self.objects.sweep(&whole);
        if self.settings.install {
            self.ops.extend(unused);
        }
        self.routes.shrink();
    }

    /// Whether objects without routes are kept for reuse; [`Fib::expire_idle`] deletes them.
    pub fn has_idle(&self) -> bool {
        self.objects.has_idle()
    }

    /// Deletes the objects that no route came back to.
    pub fn expire_idle(&mut self) {
        let unused = self.objects.expire_idle();
        if self.settings.install {
            self.ops.extend(unused);
        }
    }

    /// Finds the objects all of whose routes move to one other set, and changes those objects
    /// instead; returns the objects all of whose routes are deleted.
    fn whole_objects(&mut self, later: &[(Prefix, State)]) -> BTreeSet<NexthopEntryId> {
        let mut tally: BTreeMap<NexthopEntryId, (u32, Option<SetId>)> = BTreeMap::new();
        for (_, state) in later {
            let to = match self.action(*state) {
                RouteAction::Write => state.want,
                RouteAction::Delete => 0,
                RouteAction::Keep | RouteAction::Leave => continue,
            };
            let (count, target) = tally.entry(state.have()).or_insert((0, Some(to)));
            *count += 1;
            *target = target.filter(|t| *t == to);
        }
        let mut gone = BTreeSet::new();
        for (entry, (count, target)) in tally {
            if count < BULK_DELETE_MIN
                || self.objects.entry(entry).is_none_or(|t| t.refs != count || !t.alive)
            {
                continue;
            }
            match (target, self.objects.object_of(entry)) {
                // The object is deleted with its last reference, and its routes with it.
                (Some(0), Some(_)) => drop(gone.insert(entry)),
                (Some(set), Some(_)) => drop(self.objects.retarget(entry, set)),
                _ => {}
            }
        }
        gone
    }

    /// Returns the next changes to write. Object changes come first and in a batch of their own, as
    /// their routes depend on whether they succeed. Empty when all is written.
    pub fn take(&mut self, max: usize) -> Vec<Op> {
        if !self.settings.install {
            self.ops.clear();
            return Vec::new();
        }
        let objects = self.objects.writes();
        if !objects.is_empty() {
            return objects;
        }
        let mut ops = Vec::with_capacity(max.min(self.ops.len()));
        while ops.len() < max {
            match self.ops.pop_front() {
                Some(Op::NewRoute { prefix, metric, entry, .. })
                    if !self.objects.entry(entry).is_some_and(|t| t.alive) =>
                {
                    if metric == self.settings.metric
                        && self.routes.get(prefix).is_some_and(|s| s.have() == entry)
                    {
                        self.mark_missing(prefix);
                    }
                }
                Some(op) => ops.push(op),
                None => {
                    self.ops.shrink_to(max);
                    break;
                }
            }
        }
        ops
    }

    /// Whether changes are left to write.
    pub fn is_dirty(&self) -> bool {
        !self.ops.is_empty() || self.objects.is_dirty()
    }

    pub fn target(&self, entry: NexthopEntryId) -> Option<Target<'_>> {
        self.objects.target(entry)
    }

    /// Reverts a change that the kernel refused. `taken`: another route holds the key (EEXIST);
    /// `gone`: what was to be deleted does not exist. Returns whether an audit is due because our
    /// view of the kernel was wrong.
    pub fn refused(&mut self, op: &Op, taken: bool, gone: bool, why: &Arc<str>) -> bool {
        match op {
            Op::NewNexthop { id, replace, .. } => {
                self.objects.refused(*id, *replace, taken, why);
                *replace
            }
            Op::NewRoute { prefix, metric, entry, .. } => {
                let unknown = taken && !self.foreign.contains_key(&(*prefix, *metric));
                if *metric == OWN_METRIC {
                    if let Some(own) = self.own.get_mut(prefix) {
                        own.there = false;
                    }
                } else if self.routes.get(*prefix).is_some_and(|s| s.have() == *entry) {
                    self.mark_missing(*prefix);
                }
                self.problems.insert((*prefix, *metric), why.clone());
                unknown
            }
            Op::DelNexthop { id } => {
                if !gone {
                    self.objects.doubt(*id);
                }
                !gone
            }
            Op::DelRoute { .. } => !gone,
        }
    }

    /// Records that the kernel may or may not have executed these changes. An audit shows it.
    pub fn unacknowledged(&mut self, ops: &[Op]) {
        for op in ops {
            if let Op::DelNexthop { id } = op {
                self.objects.doubt(*id);
            }
        }
    }

    /// Retries what the kernel refused. Returns whether there was anything to retry.
    pub fn retry(&mut self) -> bool {
        let again = self.objects.retry() || !self.problems.is_empty();
        if again {
            let failed: Vec<_> =
                self.problems.drain().map(|((prefix, metric), _)| (prefix, metric)).collect();
            for (prefix, metric) in failed {
                if metric == OWN_METRIC {
                    let missing = self.own.get(&prefix).is_some_and(|o| o.wanted && !o.there);
                    if missing {
                        self.put_own(prefix, false);
                    }
                }
            }
            self.rescan();
        }
        again
    }

    /// Removes every route and object of ours.
    pub fn flush(&mut self) {
        let all: Vec<_> = self.routes.iter().filter(|(_, s)| s.want != 0 || s.have() != 0).collect();
        for (prefix, state) in all {
            self.objects.release(state.want);
            self.routes.slot(prefix).want = 0;
            if state.have() != 0 {
                self.delete(prefix);
            }
        }
        for prefix in self.own.keys().copied().collect::<Vec<_>>() {
            self.delete_own(prefix);
        }
        self.delete_foreign_metric_routes();
        self.later.clear();
        let unused = self.objects.sweep(&BTreeSet::new());
        self.ops.extend(unused);
        self.expire_idle();
    }

    /// Decides again about a stale route that is desired. `clear`: its next hops will not be
    /// advertised again, so it is no longer stale.
    pub(super) fn release_stale(&mut self, prefix: Prefix, clear: bool) {
        if clear {
            let mut slot = self.routes.slot(prefix);
            slot.set(Mark::Stale, false);
            self.sweep.stale -= 1;
        }
        self.settle(prefix, false);
    }

    pub(super) fn delete_foreign_metric_routes(&mut self) {
        for (prefix, metric, entry) in std::mem::take(&mut self.foreign_metric_routes) {
            self.ops.push_back(Op::DelRoute { prefix, metric });
            self.objects.drop_refs(entry, 1);
        }
    }

    pub(super) fn adopted(&mut self, prefix: Prefix, entry: NexthopEntryId) {
        let mut slot = self.routes.slot(prefix);
        slot.set_have(entry);
        slot.set(Mark::Stale, true);
        slot.set(Mark::Seen, true);
        self.sweep.stale += 1;
        self.objects.hold(entry);
    }
}

/// The content of a route that the kernel reported.
pub fn content(kind: RouteKind, hops: &[crate::fib::host::ForeignHop]) -> Content {
    match kind {
        RouteKind::Unreachable => Content::Unreachable,
        RouteKind::Blackhole => Content::Blackhole,
        RouteKind::Unicast => {
            let hop = |h: &crate::fib::host::ForeignHop| {
                Some(crate::fib::resolve::Hop { ifindex: h.ifindex, gateway: h.gateway?, onlink: h.onlink })
            };
            let mut hops: Vec<_> = hops.iter().filter_map(hop).collect();
            hops.sort_unstable();
            Content::Hops(hops.into())
        }
    }
}
