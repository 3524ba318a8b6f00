//! The routes that `show fib` asks for, page by page: sorted by prefix, without a copy of the table.
//!
//! As in the rib: one search over the whole table finds the next [`BATCH`] routes in order, which are shown page by
//! page before the next search begins. Each route is shown at most once, as it is when its turn comes; one that is
//! there all the time is shown exactly once.

use std::collections::VecDeque;

use crate::{
    fib::{diff::Fib, route::OWN_METRIC, table::State, view::FibView},
    net::{Family, Prefix, Smallest},
};

/// Routes that one search finds.
const BATCH: usize = 8192;
/// Routes in one page.
const PAGE: usize = 128;

/// A route's place in our table: prefix and metric.
type Place = (Prefix, u32);

/// How far an answer has come. It belongs to whoever asks.
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
    /// Whether all has been shown.
    pub fn is_over(&self) -> bool {
        self.batch.is_empty() && !self.more
    }

    /// Whether [`Fib::search`] comes next.
    pub fn is_searching(&self) -> bool {
        self.batch.is_empty() && self.more
    }
}

impl Fib {
    /// Finds the next routes in order. Looks at the whole table.
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

    /// The next rows of what was found. `name` gives interfaces their names.
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

    /// All rows at once, for tests: a daemon's table may be too large for that.
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

    /// Whether the kernel holds a route of ours to this prefix, as `show fib` says.
    pub fn is_in_kernel(&self, prefix: Prefix) -> bool {
        let name = |_| String::new();
        [self.settings.metric, OWN_METRIC]
            .into_iter()
            .any(|metric| self.row(prefix, metric, &name).is_some_and(|row| row.in_kernel))
    }

    /// Routes in the kernel, by family.
    pub fn counts(&self) -> [usize; 2] {
        let mut counts = Family::ALL.map(|family| self.routes.there(family));
        let own = self.own.iter().filter(|(_, o)| o.there);
        own.for_each(|(p, _)| counts[p.family().index()] += 1);
        counts
    }

    /// Whether a search takes so long that it must not hold up others.
    pub fn is_large(&self) -> bool {
        Family::ALL.into_iter().map(|f| self.routes.len(f)).sum::<usize>() > LARGE
    }
}

/// Routes that are searched within a millisecond or two, even by code that is not optimised.
const LARGE: usize = 4096;

fn is_shown(state: State) -> bool {
    state.want != 0 || state.have() != 0
}
