//! The routes for `show routes`, page by page: sorted by prefix, without a copy of the table.
//!
//! A [`Walk`] is the position in the output. The client keeps it and passes it to each call of
//! [`Rib::walk`], which does a bounded amount of work. The table is a hash table, so it has to be
//! sorted: a scan over all routes finds the next [`BATCH`] prefixes after the last one, these are
//! shown, and the next scan begins. A scan reads keys of four octets in sequence, which is cheap; a
//! copy of a million prefixes per request would not be.
//!
//! The table may change between two steps. Prefixes are shown in order, each at most once with all
//! its paths, as they are at that time. A prefix that exists all the time is shown exactly once;
//! one that is added or removed meanwhile may be shown or not. (The paths of one prefix are spread
//! over several steps only if they take more than a page; those that exist all the time are all
//! shown.)

use std::{collections::VecDeque, time::Instant};

use super::{
    Rib, RouteFilter, RouteView,
    best_path::BestPath,
    filter::PathFilter,
    table::{Path, PeerNo, RouteNo, Table},
    update_group::PathOut,
};
use crate::net::{Family, Prefix, Smallest};

/// Prefixes that one scan finds.
const BATCH: usize = 8192;
/// Work of one step, in units of one key visited: well below a millisecond of optimized code.
const STEP: usize = 32 * 1024;
/// What a prefix of a batch costs, in those units.
const VISIT: usize = 16;
/// What a path costs that is shown.
const ROW: usize = 128;
/// Octets in one page, one path beyond.
const PAGE: usize = 64 * 1024;

/// One path of a prefix: the neighbor that it came from, and its number there.
type PathKey = (PeerNo, u32);

/// A path, and where it was found among those of its prefix.
type Found = (usize, PathKey);

/// Progress of one output.
#[derive(Clone, Debug)]
pub struct Walk {
    filter: RouteFilter,
    conditions: PathFilter,
    /// The first one is walked.
    families: VecDeque<Family>,
    /// Everything up to here was found by an earlier scan.
    after: Option<Prefix>,
    /// Where the present scan stands.
    scan: Option<(RouteNo, Smallest<Prefix>)>,
    /// What scans have found and is still to be shown.
    batch: VecDeque<Prefix>,
    /// There is more behind the batch.
    more: bool,
    /// Paths of the batch's first prefix that are still to be shown, where some were.
    rest: Option<VecDeque<Found>>,
}

/// The rows of one step and what the step may still do.
struct Page {
    rows: Vec<RouteView>,
    work: usize,
    octets: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.work == 0 || self.octets == 0
    }

    fn spend(&mut self, work: usize) {
        self.work = self.work.saturating_sub(work);
    }

    fn push(&mut self, row: RouteView) {
        self.spend(ROW);
        self.octets = self.octets.saturating_sub(octets(&row));
        self.rows.push(row);
    }
}

/// About what a row takes as JSON.
fn octets(row: &RouteView) -> usize {
    let path = row.as_path.as_array().map_or(0, Vec::len);
    let lists =
        row.communities.len() * 16 + row.large_communities.len() * 34 + row.ext_communities.len() * 32;
    560 + row.reason.len() + path * 12 + lists
}

/// Which paths of a prefix are shown.
#[derive(Clone, Copy, Debug)]
enum Of {
    Anyone,
    Peer(PeerNo),
    /// Nobody: the neighbor is not there.
    Nobody,
}

impl Of {
    fn wants(self, path: &Path) -> bool {
        match self {
            Self::Anyone => true,
            Self::Peer(no) => path.peer == no,
            Self::Nobody => false,
        }
    }
}

impl Walk {
    /// A filter with a wrong text ([`RouteFilter::check`]) shows nothing.
    pub fn new(filter: RouteFilter) -> Self {
        let conditions = PathFilter::new(&filter);
        let family = filter.prefix.map(Prefix::family);
        let wanted = |f: &Family| family.is_none_or(|p| p == *f) && filter.family.is_none_or(|w| w == *f);
        let mut families: VecDeque<_> = Family::ALL.into_iter().filter(wanted).collect();
        if conditions.is_err() {
            families.clear();
        }
        let conditions = conditions.unwrap_or_default();
        Self {
            filter,
            conditions,
            families,
            after: None,
            scan: None,
            batch: VecDeque::new(),
            more: true,
            rest: None,
        }
    }

    /// Whether all has been shown.
    pub fn is_over(&self) -> bool {
        self.families.is_empty()
    }

    /// Whether at most one prefix is shown.
    fn is_single(&self) -> bool {
        self.filter.is_single()
    }

    fn take_batch(&mut self, found: Vec<Prefix>, more: bool) {
        self.after = found.last().copied();
        (self.batch, self.more) = (found.into(), more);
    }
}

impl Rib {
    /// One step: the next paths in order, often none while a scan goes on, and the walk moved on.
    pub fn walk(&mut self, now: Instant, walk: &mut Walk) -> Vec<RouteView> {
        self.run_decision_process();
        let mut page = Page { rows: Vec::new(), work: STEP, octets: PAGE };
        while !page.is_full()
            && let Some(&family) = walk.families.front()
        {
            if let Some(&prefix) = walk.batch.front() {
                page.spend(VISIT);
                match self.tables[family].find(prefix) {
                    Some(route) => self.show(now, walk, family, route, &mut page),
                    None => walk.rest = None,
                }
                if walk.rest.is_none() {
                    walk.batch.pop_front();
                }
            } else if walk.more {
                self.search(family, walk, &mut page);
            } else {
                walk.families.pop_front();
                (walk.after, walk.more) = (None, true);
            }
        }
        page.rows
    }

    /// All paths at once, for tests: a daemon's table may be too large for that.
    pub fn routes(&mut self, now: Instant, filter: &RouteFilter) -> Vec<RouteView> {
        let mut walk = Walk::new(filter.clone());
        let mut views = Vec::new();
        while !walk.is_over() {
            views.extend(self.walk(now, &mut walk));
        }
        views
    }

    /// Looks for the next prefixes behind the last one, for as long as the step lasts.
    fn search(&self, family: Family, walk: &mut Walk, page: &mut Page) {
        if walk.is_single() {
            return walk.take_batch(self.single(family, &walk.filter), false);
        }
        let table = &self.tables[family];
        let of = self.peers_shown(&walk.filter);
        let (mut at, mut smallest) = walk.scan.take().unwrap_or_else(|| (0, Smallest::new(BATCH)));
        let end = table.numbers().end;
        while at < end && page.work > 0 {
            page.spend(1);
            if table.is_between(at, walk.after, smallest.largest()) {
                let prefix = table.prefix(at);
                let inside = walk.filter.prefix.is_none_or(|p| p.covers(prefix));
                if walk.after.is_none_or(|a| prefix > a) && inside && is_used(table, at, &walk.filter, of) {
                    smallest.offer(prefix);
                }
            }
            at += 1;
        }
        if at < end {
            walk.scan = Some((at, smallest));
            return;
        }
        let (found, more) = smallest.take();
        walk.take_batch(found, more);
    }

    /// The requested prefix, or the longest that covers it.
    fn single(&self, family: Family, filter: &RouteFilter) -> Vec<Prefix> {
        let Some(prefix) = filter.prefix else { return vec![] };
        let table = &self.tables[family];
        let of = self.peers_shown(filter);
        let shortest = if filter.longest { 0 } else { prefix.len() };
        let candidates = (shortest..=prefix.len()).rev().filter_map(|len| Prefix::new(prefix.addr(), len));
        let found =
            candidates.filter(|p| table.find(*p).is_some_and(|route| is_used(table, route, filter, of)));
        found.take(1).collect()
    }

    /// Whose paths are shown: of one neighbor, or of all.
    fn peers_shown(&self, filter: &RouteFilter) -> Of {
        match filter.received.as_ref().or(filter.neighbor.as_ref()) {
            None => Of::Anyone,
            Some(name) => self.named(name).map_or(Of::Nobody, Of::Peer),
        }
    }

    /// Shows a route's paths, those that were not shown yet.
    fn show(&mut self, now: Instant, walk: &mut Walk, family: Family, route: RouteNo, page: &mut Page) {
        let rest = walk.rest.take();
        walk.rest = match walk.filter.advertised.clone() {
            Some(name) => {
                let filter = (name.as_str(), &walk.conditions);
                self.show_advertised(now, filter, (family, route), rest, page)
            }
            None => {
                let filter = (&walk.filter, &walk.conditions);
                self.show_paths(now, filter, (family, route), rest, page)
            }
        };
    }

    /// Returns the paths that found no room.
    fn show_paths(
        &mut self,
        now: Instant,
        (filter, conditions): (&RouteFilter, &PathFilter),
        (family, route): (Family, RouteNo),
        rest: Option<VecDeque<Found>>,
        page: &mut Page,
    ) -> Option<VecDeque<Found>> {
        let mut decision = BestPath::default();
        let usable = self.compare_paths(family, route, &mut decision);
        let paths = self.tables[family].get(route).paths().to_vec();
        page.spend(paths.len());
        if filter.not_advertised.as_ref().is_some_and(|name| self.has_route(name, family, route)) {
            return None;
        }
        let mut keys = rest.unwrap_or_else(|| in_order(&paths, &usable, &decision, self.peers_shown(filter)));
        while let Some(&key) = keys.front() {
            if page.is_full() {
                return Some(keys);
            }
            keys.pop_front();
            let Some(n) = find_again(&paths, key) else { continue };
            let path = &paths[n];
            let place = usable.binary_search(&n).ok();
            let id = if filter.received.is_some() { path.received } else { path.effective };
            if !conditions.wants(path, self.attrs.get(id), self.global.asn)
                || filter.not_advertised.is_some() && !path.has(Path::BEST)
            {
                page.spend(VISIT);
                continue;
            }
            let reason = self.reason(family, route, path, place, &decision);
            let view = self.view(now, family, route, path, id);
            let details = filter.is_single().then(|| Box::new(self.details(family, route, path)));
            page.push(RouteView { reason, details, ..view });
        }
        None
    }

    /// Returns the paths that found no room.
    fn show_advertised(
        &self,
        now: Instant,
        (name, conditions): (&str, &PathFilter),
        (family, route): (Family, RouteNo),
        rest: Option<VecDeque<Found>>,
        page: &mut Page,
    ) -> Option<VecDeque<Found>> {
        let no = self.named(name)?;
        let group = self.peer(no).and_then(|p| self.groups[family].get(p.groups[family]?)?.as_ref())?;
        let sent = group.advertised_to(no, route, &self.attrs);
        page.spend(sent.len());
        let key = |out: &PathOut| (out.source, out.path_id);
        let mut keys =
            rest.unwrap_or_else(|| sent.iter().enumerate().map(|(n, out)| (n, key(out))).collect());
        while let Some(&(n, wanted)) = keys.front() {
            if page.is_full() {
                return Some(keys);
            }
            keys.pop_front();
            let same = |out: &&PathOut| key(out) == wanted;
            let Some(out) = sent.get(n).filter(same).or_else(|| sent.iter().find(same)) else { continue };
            if let Some(path) = self.path_behind(family, route, out.path_id)
                && conditions.wants(&path, self.attrs.get(out.attrs), self.global.asn)
            {
                let view = self.view(now, family, route, &path, out.attrs);
                let path_id = (out.path_id != 0).then_some(out.path_id);
                page.push(RouteView { reason: "advertised".into(), path_id, ..view });
            }
        }
        None
    }

    /// Whether a path of the route is advertised to the neighbor of this name.
    fn has_route(&self, name: &str, family: Family, route: RouteNo) -> bool {
        let Some(no) = self.named(name) else { return false };
        let group = self.peer(no).and_then(|p| self.groups[family].get(p.groups[family]?)?.as_ref());
        group.is_some_and(|g| !g.advertised_to(no, route, &self.attrs).is_empty())
    }

    /// The path that is advertised under this number, 0 where there is but one.
    pub(super) fn path_behind(&self, family: Family, route: RouteNo, path_id: u32) -> Option<Path> {
        let entry = self.tables[family].get(route);
        if path_id == 0 {
            return entry.best().copied();
        }
        let origin = self.path_ids[family].origin(path_id)?;
        entry.paths().iter().find(|p| (p.peer, p.path_id) == origin).copied()
    }

    /// The neighbor that the views call so.
    fn named(&self, name: &str) -> Option<PeerNo> {
        let found = self.peers.iter().position(|p| p.as_ref().is_some_and(|p| p.name() == name));
        found.and_then(|n| PeerNo::try_from(n).ok())
    }
}

/// Whether a route has anything to show.
fn is_used(table: &Table, route: RouteNo, filter: &RouteFilter, of: Of) -> bool {
    let entry = table.get(route);
    match filter.advertised {
        Some(_) => entry.pins > 0 || !entry.paths().is_empty(),
        None => entry.paths().iter().any(|p| of.wants(p)),
    }
}

/// The paths to show: those used for forwarding, then other usable ones, then the rest.
fn in_order(paths: &[Path], usable: &[usize], decision: &BestPath, of: Of) -> VecDeque<Found> {
    let mut order: Vec<_> = paths
        .iter()
        .enumerate()
        .filter(|(_, path)| of.wants(path))
        .map(|(n, path)| {
            // Sorted, as they come.
            let place = usable.binary_search(&n).ok();
            let rank = decision.multipath.iter().position(|m| Some(*m) == place).unwrap_or(usize::MAX);
            ((rank, place.is_none(), n), (path.peer, path.path_id))
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|((.., n), key)| (n, key)).collect()
}

/// Where a path is now: mostly where it was.
fn find_again(paths: &[Path], (n, key): Found) -> Option<usize> {
    let same = |p: &Path| (p.peer, p.path_id) == key;
    if paths.get(n).is_some_and(same) { Some(n) } else { paths.iter().position(same) }
}
