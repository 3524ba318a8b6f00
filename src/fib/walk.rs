//! Lists the routes for `show fib` page by page, sorted by prefix, without copying the table.
//!
//! As in the rib, one search over the whole table finds the next [`BATCH`] routes in order, which
//! are listed page by page before the next search begins. Each route is listed at most once, in its
//! state at that time; a route that exists throughout is listed exactly once.

use std::collections::VecDeque;

use crate::{
    fib::{diff::Fib, route::OWN_METRIC, table::State, view::FibView},
    net::{Family, PerFamily, Prefix, Smallest},
};

/// Number of routes that one search finds.
const BATCH: usize = 8192;
/// Number of routes in one page.
const PAGE: usize = 128;

/// A route's key in our table: prefix and metric.
type Place = (Prefix, u32);

/// Position of a listing. Owned by whoever requested it.
#[derive(Clone, Debug)]
pub struct Walk {
    after: Option<Place>,
    batch: VecDeque<Place>,
    more: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self { after: None, batch: VecDeque::new(), more: true }
    }
}

impl Walk {
    /// Whether everything was listed.
    pub fn is_over(&self) -> bool {
        self.batch.is_empty() && !self.more
    }

    /// Whether [`Fib::search`] has to be called next.
    pub fn is_searching(&self) -> bool {
        self.batch.is_empty() && self.more
    }
}

impl Fib {
    /// Finds the next routes in order. Visits the whole table.
    pub fn search(&self, walk: &mut Walk) {
        let mut smallest = Smallest::new(BATCH);
        let learned =
            self.routes.iter().filter(|(_, s)| is_shown(*s)).map(|(p, _)| (p, self.settings.metric));
        let own = self.own.keys().map(|p| (*p, OWN_METRIC));
        learned
            .chain(own)
            .filter(|place| walk.after.is_none_or(|a| *place > a))
            .for_each(|p| smallest.offer(p));
        let (found, more) = smallest.take();
        walk.after = found.last().copied();
        (walk.batch, walk.more) = (found.into(), more);
    }

    /// The next rows of the routes found. `name` maps interface indexes to names.
    pub fn page(&self, walk: &mut Walk, name: impl Fn(u32) -> String) -> Vec<FibView> {
        let part = walk.batch.drain(..PAGE.min(walk.batch.len()));
        part.filter_map(|(prefix, metric)| self.row(prefix, metric, &name)).collect()
    }

    fn row(&self, prefix: Prefix, metric: u32, name: &impl Fn(u32) -> String) -> Option<FibView> {
        if metric == OWN_METRIC {
            return self.own.get(&prefix).map(|own| self.own_view(prefix, *own, name));
        }
        self.routes.get(prefix).filter(|s| is_shown(*s)).map(|s| self.learned_view(prefix, s, name))
    }

    /// The row of a learned route to this prefix, or of an originated one; `None` if neither is
    /// wanted in the kernel.
    pub fn find(&self, prefix: Prefix, name: impl Fn(u32) -> String) -> Option<FibView> {
        [self.settings.metric, OWN_METRIC].into_iter().find_map(|metric| self.row(prefix, metric, &name))
    }

    /// All rows at once. For tests: a daemon's table may be too large.
    pub fn list(&self, name: impl Fn(u32) -> String) -> Vec<FibView> {
        let (mut walk, mut views) = (Walk::default(), Vec::new());
        while !walk.is_over() {
            if walk.is_searching() {
                self.search(&mut walk);
            }
            views.extend(self.page(&mut walk, &name));
        }
        views
    }

    /// Whether the kernel holds a route of ours to this prefix, as `show fib` reports it.
    pub fn is_in_kernel(&self, prefix: Prefix) -> bool {
        let name = |_| String::new();
        [self.settings.metric, OWN_METRIC]
            .into_iter()
            .any(|metric| self.row(prefix, metric, &name).is_some_and(|row| row.in_kernel))
    }

    /// Number of routes in the kernel, by family.
    pub fn counts(&self) -> PerFamily<usize> {
        let mut counts = PerFamily::of(|family| self.routes.there(family));
        let own = self.own.iter().filter(|(_, o)| o.there);
        own.for_each(|(p, _)| counts[p.family()] += 1);
        counts
    }

    /// Whether a search takes long enough to run in a thread of its own.
    pub fn is_large(&self) -> bool {
        Family::ALL.into_iter().map(|f| self.routes.len(f)).sum::<usize>() > LARGE
    }
}

/// Number of routes that a search covers within about two milliseconds, even in a debug build.
const LARGE: usize = 4096;

fn is_shown(state: State) -> bool {
    state.want != 0 || state.have() != 0
}
