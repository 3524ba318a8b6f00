//! Want × have → what to tell the kernel.
//!
//! Replacements come before deletions: a prefix that moves must never be missing in between. Most changes are
//! decided at once ([`Fib::want`]); those that take something away wait for the end of the batch
//! ([`Fib::finish`]), since a batch that moves or deletes *all* routes of one nexthop object needs one message
//! for it.
//!
//! What is told is taken as done; [`Fib::refused`] takes it back. A place that somebody else's route holds is
//! never written.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    fib::{
        adopt::Sweep,
        nexthop::{Objects, SetId, TopId, UNREACHABLE},
        resolve::Resolver,
        route::{Content, Held, OWN_METRIC, ObjectId, Op, SeenObject, Target, protocol_name},
        shadow::{Shadows, problem},
        source::SourceState,
        table::{Mark, State, Table},
        view::{FibHop, FibView},
    },
    net::{NextHops, Prefix, RouteKind},
};

/// So many routes of one object make it worth deleting that instead. Below, others hear of each deletion: of an
/// object's routes the kernel tells nobody.
const MANY: u32 = 16;

/// What decisions need of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Without, everything is known and nothing written.
    pub install: bool,
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    pub nexthop_objects: bool,
}

/// All routes that are ours, wanted and there.
#[derive(Debug)]
pub struct Fib {
    pub(super) settings: Settings,
    pub(super) source: SourceState,
    pub(super) routes: Table,
    /// Own prefixes: unreachable routes against loops.
    pub(super) own: BTreeMap<Prefix, Own>,
    pub(super) objects: Objects,
    /// Places that somebody else's routes hold: his protocol number.
    foreign: HashMap<(Prefix, u32), u8>,
    problems: HashMap<(Prefix, u32), Arc<str>>,
    ops: VecDeque<Op>,
    /// Routes to look at when the batch ends.
    later: Vec<Prefix>,
    /// Routes of ours with a metric that another configuration had.
    pub(super) strangers: Vec<(Prefix, u32, TopId)>,
    pub(super) sweep: Sweep,
    /// Routes that were put back because somebody took them away.
    pub repairs: u64,
}

/// One own prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) wanted: bool,
    pub(super) there: bool,
    pub(super) seen: bool,
}

enum Verdict {
    Right,
    Put,
    Delete,
    Leave,
}

impl Fib {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            source: SourceState::default(),
            routes: Table::default(),
            own: BTreeMap::new(),
            objects: Objects::new(settings.nexthop_objects, settings.protocol),
            foreign: HashMap::default(),
            problems: HashMap::default(),
            ops: VecDeque::new(),
            later: Vec::new(),
            strangers: Vec::new(),
            sweep: Sweep::default(),
            repairs: 0,
        }
    }

    /// Before many calls of [`Fib::want`].
    pub fn approach<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        self.routes.approach(prefixes);
    }

    /// Says what a prefix shall lead to; `None`: nowhere.
    pub fn want(&mut self, prefix: Prefix, hops: Option<&Arc<NextHops>>) {
        let set = hops.map_or(0, |h| self.objects.intern(h));
        let mut slot = self.routes.slot(prefix);
        let old = std::mem::replace(&mut slot.want, set);
        // The common case, in one look-up: a route that is new.
        if set != 0
            && *slot == State::wanted(set)
            && old == 0
            && self.settings.install
            && self.foreign.is_empty()
        {
            if let Some(top) = self.objects.ensure(set) {
                slot.set_have(top);
                slot.set(Mark::Seen, true);
                self.objects.hold(top);
                self.ops.push_back(Op::Put { prefix, metric: self.settings.metric, top, replace: false });
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

    /// Own prefixes that shall be unreachable; replaces those of the last call.
    pub fn want_own(&mut self, prefixes: &[Prefix]) {
        let wanted: BTreeSet<_> = prefixes.iter().copied().collect();
        for prefix in &wanted {
            self.own.entry(*prefix).or_default();
        }
        let all: Vec<_> = self.own.keys().copied().collect();
        for prefix in all {
            let Some(own) = self.own.get_mut(&prefix) else { continue };
            let was = std::mem::replace(&mut own.wanted, wanted.contains(&prefix));
            match (own.wanted, own.there) {
                (true, false) => self.put_own(prefix, false),
                // One that was found at the start and never wanted waits for the sweep.
                (false, true) if was => self.delete_own(prefix),
                (false, false) => drop(self.own.remove(&prefix)),
                _ => {}
            }
        }
        self.delete_stale_inside_own();
    }

    /// What the last run left to a node that has since given this range to us would draw our own pods' packets away: a
    /// connected route of IPv6 is weaker. No neighbor may claim it either.
    fn delete_stale_inside_own(&mut self) {
        if self.sweep.stale == 0 {
            return;
        }
        let own: Vec<_> = self.own.iter().filter(|(_, o)| o.wanted).map(|(p, _)| *p).collect();
        let stale = self.routes.iter().filter(|(_, s)| s.is(Mark::Stale) && s.want == 0);
        let inside: Vec<_> = stale.map(|(p, _)| p).filter(|p| own.iter().any(|o| o.covers(*p))).collect();
        inside.into_iter().for_each(|prefix| self.delete(prefix));
    }

    fn put_own(&mut self, prefix: Prefix, replace: bool) {
        if !self.settings.install || self.foreign.contains_key(&(prefix, OWN_METRIC)) {
            return;
        }
        if let Some(own) = self.own.get_mut(&prefix) {
            (own.there, own.seen) = (true, true);
            self.ops.push_back(Op::Put { prefix, metric: OWN_METRIC, top: UNREACHABLE, replace });
        }
    }

    pub(super) fn delete_own(&mut self, prefix: Prefix) {
        self.own.remove(&prefix);
        self.ops.push_back(Op::Del { prefix, metric: OWN_METRIC });
    }

    /// Own prefixes whose unreachable route the kernel has taken. Ask when nothing is left to write.
    pub fn own_there(&self) -> BTreeSet<Prefix> {
        self.own.iter().filter(|(_, o)| o.wanted && o.there).map(|(p, _)| *p).collect()
    }

    /// All of them, there or not.
    pub fn own_wanted(&self) -> BTreeSet<Prefix> {
        self.own.iter().filter(|(_, o)| o.wanted).map(|(p, _)| *p).collect()
    }

    /// Goes on without nexthop objects: this kernel has none. Only before anything is written.
    pub fn disable_objects(&mut self) {
        self.objects.disable();
    }

    pub fn has_objects(&self) -> bool {
        self.objects.enabled()
    }

    /// Decides about one route: adds it at once, leaves the rest to the end of the batch. `replace`: a route of
    /// ours may be in its place.
    fn settle(&mut self, prefix: Prefix, replace: bool) {
        if let Some(state) = self.routes.get(prefix) {
            self.settle_from(prefix, state, replace);
        }
    }

    fn settle_from(&mut self, prefix: Prefix, state: State, replace: bool) {
        match self.verdict(state) {
            Verdict::Right if state.is(Mark::Stale) => self.claim(prefix, state),
            Verdict::Right => {}
            Verdict::Leave => self.routes.tidy(prefix),
            Verdict::Put if state.have() == 0 => self.put(prefix, state.want, replace),
            Verdict::Put | Verdict::Delete if state.is(Mark::Queued) => {}
            Verdict::Put | Verdict::Delete => {
                self.routes.slot(prefix).set(Mark::Queued, true);
                self.later.push(prefix);
            }
        }
    }

    fn verdict(&mut self, state: State) -> Verdict {
        if !self.settings.install {
            return Verdict::Leave;
        }
        let (want, have) = (state.want, state.have());
        if want != 0 && have != 0 && self.objects.right(have, want) {
            return Verdict::Right;
        }
        let held = state.is(Mark::Stale) && have != 0;
        match self.objects.path(want) {
            _ if want == 0 && have == 0 => Verdict::Leave,
            // The sweep decides about routes that we found and nobody has spoken of.
            _ if want == 0 && held => Verdict::Leave,
            Ok(content) if held && self.sweep.moves_too_early(self.objects.top(have), content) => {
                Verdict::Leave
            }
            Ok(_) => Verdict::Put,
            Err(_) if have == 0 || held => Verdict::Leave,
            Err(_) => Verdict::Delete,
        }
    }

    /// Writes a route to its set's top.
    fn put(&mut self, prefix: Prefix, set: SetId, replace: bool) {
        let metric = self.settings.metric;
        if !self.foreign.is_empty() && self.foreign.contains_key(&(prefix, metric)) {
            return;
        }
        let Some(top) = self.objects.ensure(set) else { return };
        let mut slot = self.routes.slot(prefix);
        let (old, stale) = (slot.have(), slot.is(Mark::Stale));
        slot.set_have(top);
        slot.set(Mark::Stale, false);
        slot.set(Mark::Seen, true);
        self.sweep.stale -= usize::from(stale);
        self.objects.hold(top);
        self.objects.drop_refs(old, 1);
        self.ops.push_back(Op::Put { prefix, metric, top, replace: replace || old != 0 });
    }

    /// A route that was found at the start leads to the next hops that are wanted: it stays, unless its source may differ.
    fn claim(&mut self, prefix: Prefix, state: State) {
        if self.has_right_source(prefix) {
            self.confirm(prefix);
        } else {
            self.put(prefix, state.want, true);
        }
    }

    /// A route that was found at the start is claimed.
    fn confirm(&mut self, prefix: Prefix) {
        let before = self.routes.change(prefix, |s| s.set(Mark::Stale, false));
        self.sweep.stale -= usize::from(before.is(Mark::Stale));
    }

    /// Takes note that a route is no longer there.
    fn lost(&mut self, prefix: Prefix) {
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
        self.ops.push_back(Op::Del { prefix, metric: self.settings.metric });
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push_back(op);
    }

    /// Ends a batch: what replaces or deletes is decided now.
    pub fn finish(&mut self) {
        let later = std::mem::take(&mut self.later);
        let later: Vec<_> = later.into_iter().filter_map(|p| Some((p, self.routes.get(p)?))).collect();
        let whole = self.whole_objects(&later);
        let mut gone = Vec::new();
        let unqueue = |state: &mut State| state.set(Mark::Queued, false);
        for (prefix, state) in later {
            match self.verdict(state) {
                Verdict::Right if state.is(Mark::Stale) => {
                    self.routes.change(prefix, unqueue);
                    self.claim(prefix, state);
                }
                Verdict::Put => {
                    self.routes.change(prefix, unqueue);
                    self.put(prefix, state.want, false);
                }
                Verdict::Delete if whole.contains(&state.have()) => {}
                Verdict::Delete => gone.push(prefix),
                Verdict::Right | Verdict::Leave => {
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

    /// Whether [`Fib::retire`] is due in a moment.
    pub fn is_resting(&self) -> bool {
        self.objects.is_resting()
    }

    /// Deletes the objects that no route came back to.
    pub fn retire(&mut self) {
        let unused = self.objects.retire();
        if self.settings.install {
            self.ops.extend(unused);
        }
    }

    /// Finds the objects all of whose routes move to one other set, and changes them instead; returns those all
    /// of whose routes go.
    fn whole_objects(&mut self, later: &[(Prefix, State)]) -> BTreeSet<TopId> {
        let mut tally: BTreeMap<TopId, (u32, Option<SetId>)> = BTreeMap::new();
        for (_, state) in later {
            let to = match self.verdict(*state) {
                Verdict::Put => state.want,
                Verdict::Delete => 0,
                Verdict::Right | Verdict::Leave => continue,
            };
            let (count, target) = tally.entry(state.have()).or_insert((0, Some(to)));
            *count += 1;
            *target = target.filter(|t| *t == to);
        }
        let mut gone = BTreeSet::new();
        for (top, (count, target)) in tally {
            if count < MANY || self.objects.top(top).is_none_or(|t| t.refs != count || !t.alive) {
                continue;
            }
            match (target, self.objects.object_of(top)) {
                // With its last reference the object is swept, and its routes go with it.
                (Some(0), Some(_)) => drop(gone.insert(top)),
                (Some(set), Some(_)) => drop(self.objects.retarget(top, set)),
                _ => {}
            }
        }
        gone
    }

    /// The next changes to write, objects first and by themselves: whether they succeed decides about their
    /// routes. Empty: all is written.
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
                Some(Op::Put { prefix, metric, top, .. })
                    if !self.objects.top(top).is_some_and(|t| t.alive) =>
                {
                    if metric == self.settings.metric
                        && self.routes.get(prefix).is_some_and(|s| s.have() == top)
                    {
                        self.lost(prefix);
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

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        !self.ops.is_empty() || self.objects.is_dirty()
    }

    pub fn target(&self, top: TopId) -> Option<Target<'_>> {
        self.objects.target(top)
    }

    /// The kernel refused this. `taken`: the place is held by somebody (EEXIST); `gone`: what was to be deleted
    /// is not there. Returns whether a look at the kernel is due: our picture of it was wrong.
    pub fn refused(&mut self, op: &Op, taken: bool, gone: bool, why: &Arc<str>) -> bool {
        match op {
            Op::SetObject { id, replace, .. } => {
                self.objects.refused(*id, *replace, taken, why);
                *replace
            }
            Op::Put { prefix, metric, top, .. } => {
                let unknown = taken && !self.foreign.contains_key(&(*prefix, *metric));
                if *metric == OWN_METRIC {
                    if let Some(own) = self.own.get_mut(prefix) {
                        own.there = false;
                    }
                } else if self.routes.get(*prefix).is_some_and(|s| s.have() == *top) {
                    self.lost(*prefix);
                }
                self.problems.insert((*prefix, *metric), why.clone());
                unknown
            }
            Op::Del { .. } | Op::DelObject { .. } => !gone,
        }
    }

    /// Tries again what the kernel refused. Returns whether there was anything.
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

    /// What the kernel told of one place in our table.
    pub fn heard(&mut self, prefix: Prefix, metric: u32, held: Held) {
        let key = (prefix, metric);
        let before = match held {
            Held::Other { protocol } => self.foreign.insert(key, protocol),
            Held::Ours { .. } | Held::Nobody => self.foreign.remove(&key),
        };
        let ours_there = match held {
            Held::Ours { object } => Some(object),
            Held::Other { .. } | Held::Nobody => None,
        };
        match metric {
            OWN_METRIC => self.heard_own(prefix, ours_there.is_some(), before.is_none()),
            m if m == self.settings.metric => self.heard_learned(prefix, ours_there, before.is_none()),
            _ => {}
        }
    }

    fn heard_own(&mut self, prefix: Prefix, there: bool, repair: bool) {
        let Some(own) = self.own.get_mut(&prefix) else { return };
        if there {
            return;
        }
        own.there = false;
        if own.wanted {
            self.repairs += u64::from(repair);
            self.put_own(prefix, repair);
        }
    }

    fn heard_learned(&mut self, prefix: Prefix, object: Option<ObjectId>, repair: bool) {
        let Some(state) = self.routes.get(prefix) else { return };
        let written = self.objects.target(state.have());
        let right = match (object, written) {
            (Some(id), Some(Target::Object(ours))) => id == ours,
            (Some(id), Some(_)) => id == 0,
            _ => false,
        };
        if right && state.have() != 0 {
            return;
        }
        self.lost(prefix);
        if state.want != 0 && state.have() != 0 {
            self.repairs += 1;
        }
        self.settle(prefix, repair);
    }

    /// Takes a new view of the host, and what the kernel's nexthop objects are now.
    pub fn host(&mut self, resolver: Resolver, seen: Option<&BTreeMap<ObjectId, SeenObject>>) {
        if let Some(seen) = seen {
            let before = self.objects.mended;
            let lost = self.objects.observe(seen);
            self.repairs += self.objects.mended - before;
            self.lose_routes_of(&lost, false);
        }
        self.objects.resolve(resolver);
        // Of the others the table knows that they are missing.
        self.problems.retain(|(_, metric), _| *metric == OWN_METRIC);
        self.rescan();
    }

    /// Gateways that BFD has lost: groups with others go on without them, by one message for all routes of each.
    pub fn lose(&mut self, lost: &BTreeSet<(IpAddr, u32)>) {
        self.objects.lose(lost);
        if !self.objects.enabled() {
            self.rescan();
        }
    }

    /// These objects take their routes with them. `decided`: that is what was decided about these routes.
    fn lose_routes_of(&mut self, tops: &BTreeSet<TopId>, decided: bool) {
        if tops.is_empty() {
            return;
        }
        let (objects, sweep) = (&mut self.objects, &mut self.sweep);
        self.routes.change_all(|state| {
            let have = state.have();
            if tops.contains(&have) {
                objects.drop_refs(have, 1);
                sweep.stale -= usize::from(state.is(Mark::Stale));
                state.set_have(0);
                state.set(Mark::Stale, false);
                state.set(Mark::Queued, state.is(Mark::Queued) && !decided);
            }
        });
    }

    /// Looks at all routes again.
    pub(super) fn rescan(&mut self) {
        let all: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| {
                let top = self.objects.top(s.have());
                top.is_none_or(|t| t.owner != s.want || !t.alive) || self.objects.path(s.want).is_err()
            })
            .map(|(p, _)| p)
            .collect();
        for prefix in all {
            // In the place of a route that an object took with it may stand none or ours, by `observe`.
            self.settle(prefix, false);
        }
    }

    /// Begins to compare with a dump of our routes.
    pub fn audit_begin(&mut self) {
        self.routes.change_all(|s| s.set(Mark::Seen, false));
        self.own.values_mut().for_each(|o| o.seen = false);
    }

    /// One route of ours from the dump.
    pub fn audit(&mut self, prefix: Prefix, metric: u32, object: ObjectId, content: Content) {
        if metric == OWN_METRIC {
            let own = self.own.entry(prefix).or_default();
            (own.there, own.seen) = (true, true);
            return;
        }
        match self.routes.get(prefix).filter(|s| s.have() != 0 && metric == self.settings.metric) {
            // Written since the audit began: the dump may be older.
            Some(state) if state.is(Mark::Seen) => {}
            Some(state) if self.objects.looks_like(state.have(), object, &content) => {
                self.routes.slot(prefix).set(Mark::Seen, true);
            }
            Some(state) => {
                self.lost(prefix);
                self.repairs += u64::from(state.want != 0);
                self.adopt_route(prefix, metric, object, content);
                self.routes.slot(prefix).set(Mark::Stale, false);
                self.sweep.stale -= 1;
                self.settle(prefix, true);
            }
            None => {
                self.adopt_route(prefix, metric, object, content);
                self.settle(prefix, true);
            }
        }
    }

    /// Ends it: what the dump did not have is put back.
    pub fn audit_end(&mut self) {
        let missing: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| s.have() != 0 && !s.is(Mark::Seen))
            .map(|(p, s)| (p, s.want != 0))
            .collect();
        for (prefix, wanted) in missing {
            self.lost(prefix);
            self.repairs += u64::from(wanted);
            self.settle(prefix, true);
        }
        let missing: Vec<_> = self.own.iter().filter(|(_, o)| o.there && !o.seen).map(|(p, _)| *p).collect();
        for prefix in missing {
            self.heard_own(prefix, false, true);
        }
    }

    /// Routes that are wanted and have no effect, since others hold their place or are preferred: what the operator
    /// should know, in a line each.
    pub fn displaced(&self, shadows: &Shadows<'_>) -> Vec<String> {
        if !self.settings.install {
            return Vec::new();
        }
        let metric = self.settings.metric;
        let wanted = |p: Prefix| self.routes.get(p).is_some_and(|s| s.want != 0);
        let held = self.foreign.iter().filter(|((p, m), _)| *m == metric && wanted(*p));
        let mut held: Vec<_> = held.map(|((p, _), who)| (*p, protocol_name(*who))).collect();
        held.sort_unstable();
        // The host's own default route is preferred to a learned one by design.
        let shadowed = shadows.prefixes().filter(|p| p.len() > 0);
        let shadowed = shadowed.filter(|p| self.routes.get(*p).is_some_and(|s| s.have() != 0));
        let who = |p: Prefix| Some((p, shadows.of(p)?));
        let shadowed: Vec<_> = shadowed
            .filter_map(who)
            .map(|(p, by)| (p, format!("{}, metric {}", protocol_name(by.protocol), by.metric)))
            .collect();
        let not_there = problem(
            &format!("not in the kernel, as other routes hold their prefix with metric {metric}"),
            "change fib.metric, or remove those routes",
            &held,
        );
        let not_used = problem(
            "in the kernel, but not used, as routes of others to the same prefix are preferred",
            "remove those, or set fib.metric below theirs; `routelet show fib` has all of them",
            &shadowed,
        );
        not_there.into_iter().chain(not_used).chain(self.bypassed(shadows)).collect()
    }

    /// What the routing rules of the host keep from our table: each rule in a line. A default route is not counted, as above.
    fn bypassed(&self, shadows: &Shadows<'_>) -> Vec<String> {
        let learned =
            |(prefix, state): (Prefix, State)| (prefix.len() > 0 && state.is_there()).then_some(prefix);
        let mut by_rule: BTreeMap<String, Vec<Prefix>> = BTreeMap::new();
        for (prefix, why) in shadows.bypasses() {
            by_rule.entry(why).or_default().push(prefix);
        }
        let concerns = |destinations: &[Prefix]| {
            let inside = |p: Prefix| destinations.iter().any(|d| d.covers(p));
            // Of a whole family any route is one of them: no search through a million.
            destinations.iter().any(|d| d.len() == 0 && self.routes.there(d.family()) > 0)
                || !self.is_large() && self.routes.iter().filter_map(learned).any(inside)
        };
        let concerned = by_rule.into_iter().filter(|(_, destinations)| concerns(destinations));
        concerned
            .map(|(why, destinations)| {
                let first = destinations.first().map_or_else(String::new, ToString::to_string);
                let more = if destinations.len() > 1 {
                    format!(" and {} more", destinations.len() - 1)
                } else {
                    String::new()
                };
                format!("learned routes inside {first}{more} are in the kernel, but not used: {why}")
            })
            .collect()
    }

    /// Removes all that is ours.
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
        self.delete_strangers();
        self.later.clear();
        let unused = self.objects.sweep(&BTreeSet::new());
        self.ops.extend(unused);
        self.retire();
    }

    /// A learned route as `show fib` describes it. `name` gives interfaces their names.
    pub(super) fn learned_view(&self, prefix: Prefix, s: State, name: &impl Fn(u32) -> String) -> FibView {
        let top = self.objects.top(s.have());
        let content = top.map(|t| &t.content).or_else(|| self.objects.path(s.want).ok());
        let in_kernel = top.is_some_and(|t| t.alive);
        let problem =
            if in_kernel && !s.is(Mark::Stale) { None } else { self.problem(prefix, s.want, s.have()) };
        self.view(prefix, self.settings.metric, content, in_kernel, problem, name)
    }

    /// An own prefix as `show fib` describes it.
    pub(super) fn own_view(&self, prefix: Prefix, own: Own, name: &impl Fn(u32) -> String) -> FibView {
        let problem = if own.there { None } else { self.place_problem(prefix, OWN_METRIC) };
        self.view(prefix, OWN_METRIC, Some(&Content::Unreachable), own.there, problem, name)
    }

    fn view(
        &self,
        prefix: Prefix,
        metric: u32,
        content: Option<&Content>,
        in_kernel: bool,
        problem: Option<String>,
        name: impl Fn(u32) -> String,
    ) -> FibView {
        let hops = match content {
            Some(Content::Hops(hops)) => &**hops,
            _ => &[],
        };
        let hop =
            |address: IpAddr, ifindex| FibHop { address: Some(address), interface: name(ifindex), weight: 1 };
        let next_hops = hops.iter().map(|h| hop(h.gateway, h.ifindex)).collect();
        let Settings { table, protocol, .. } = self.settings;
        FibView { prefix, table, metric, protocol, next_hops, in_kernel, problem }
    }

    fn problem(&self, prefix: Prefix, want: SetId, have: TopId) -> Option<String> {
        if have != 0 {
            return Some("from before the start; waiting for its neighbor".into());
        }
        if !self.settings.install {
            return Some("fib.install is false".into());
        }
        self.place_problem(prefix, self.settings.metric)
            .or_else(|| self.objects.path(want).err().map(|why| why.as_str().into()))
            .or_else(|| self.objects.error_of(want).map(|e| e.to_string()))
            .or_else(|| Some("being written".into()))
    }

    fn place_problem(&self, prefix: Prefix, metric: u32) -> Option<String> {
        match self.foreign.get(&(prefix, metric)) {
            Some(protocol) => Some(format!(
                "a route of {} holds this prefix with metric {metric}; it is left alone",
                protocol_name(*protocol)
            )),
            None => self.problems.get(&(prefix, metric)).map(|why| format!("the kernel refused it: {why}")),
        }
    }

    /// Decides again about a stale route that is wanted; `clear`: nobody will claim what it has.
    pub(super) fn unhold(&mut self, prefix: Prefix, clear: bool) {
        if clear {
            let mut slot = self.routes.slot(prefix);
            slot.set(Mark::Stale, false);
            self.sweep.stale -= 1;
        }
        self.settle(prefix, false);
    }

    pub(super) fn delete_strangers(&mut self) {
        for (prefix, metric, top) in std::mem::take(&mut self.strangers) {
            self.ops.push_back(Op::Del { prefix, metric });
            self.objects.drop_refs(top, 1);
        }
    }

    pub(super) fn adopted(&mut self, prefix: Prefix, top: TopId) {
        let mut slot = self.routes.slot(prefix);
        slot.set_have(top);
        slot.set(Mark::Stale, true);
        slot.set(Mark::Seen, true);
        self.sweep.stale += 1;
        self.objects.hold(top);
    }
}

/// What a route that the kernel told of leads to.
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
