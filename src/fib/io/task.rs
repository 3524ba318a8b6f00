//! The fib's task: applies what [`Fib`] decides to the kernel, and reports the kernel's changes to
//! it.
//!
//! When idle it writes a single route at once, in the thread that received it. Under load it writes
//! in batches, in a thread of its own.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    sync::{mpsc, watch},
    task::{spawn_blocking, yield_now},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use super::{
    Inputs, Lost, Place, Request, Settings,
    batch::{BATCH, Channel, Dump},
    change::Switch,
    counters::Counters,
    former::Former,
    netlink,
    repairs::Repairs,
    rules,
};
use crate::{
    fib::{
        diff::{Fib, content},
        former,
        host::Host,
        order::coarse_first,
        resolve::Resolver,
        route::{Held, Op, SeenRoute},
        rules::Bypasses,
        shadow::Shadows,
        sweep::StaleTimer,
        view::FibView,
        walk::Walk,
        wire,
    },
    mailbox::{self, Changes},
    net::{Convergence, Diagnostic, Family, NextHops, PreferredSources, Prefix},
};

/// Time between audits, plus or minus a sixth.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// Minimum time between audits when one is due early.
const AUDIT_MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Time until refused changes are first retried; doubles up to [`AUDIT_INTERVAL`].
const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// Time between a change of routes and the report of those without effect.
const REPORT_DELAY: Duration = Duration::from_secs(1);
/// How long a nexthop object without routes is kept for reuse.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// State of the task.
pub(super) struct Task {
    pub(super) settings: Settings,
    pub(super) fib: Fib,
    pub(super) writer: Channel,
    host: watch::Receiver<Arc<Host>>,
    lost: watch::Receiver<Lost>,
    seen: Arc<Host>,
    pub(super) resolver: Resolver,
    counters: Arc<Counters>,
    own_there: watch::Sender<Arc<BTreeSet<Prefix>>>,
    problems: watch::Sender<Vec<Diagnostic>>,
    /// When `problems` is updated next.
    report: Option<Instant>,
    /// What the routing rules keep from our table.
    pub(super) bypasses: watch::Receiver<Arc<Bypasses>>,
    pub(super) convergence: Arc<Convergence>,
    pub(super) stale_timer: StaleTimer,
    pub(super) audit: Option<Audit>,
    audit_due: Instant,
    audited: Instant,
    pub(super) retry: Option<(Instant, Duration)>,
    /// When idle nexthop objects expire.
    pub(super) idle_expiry: Option<Instant>,
    pub(super) last_refusal: Option<Arc<str>>,
    repairs: Repairs,
    pub(super) left: Option<Left>,
    former: Former,
}

/// Locations of former configurations, and the callback for when they are empty.
pub(super) struct Left {
    pub(super) places: Vec<former::Location>,
    pub(super) swept: Box<dyn FnOnce() + Send>,
}

/// An audit in progress: a dump of one family after the other, read in steps.
pub(super) struct Audit {
    channel: Channel,
    families: &'static [Family],
    consistent: bool,
}

impl Task {
    pub(super) fn new(
        settings: Settings,
        left: Left,
        writer: Channel,
        host: watch::Receiver<Arc<Host>>,
        counters: Arc<Counters>,
        (own_there, problems): (watch::Sender<Arc<BTreeSet<Prefix>>>, watch::Sender<Vec<Diagnostic>>),
    ) -> Self {
        let now = Instant::now();
        Self {
            fib: Fib::new(settings.pure()),
            writer,
            host,
            lost: watch::channel(Lost::default()).1,
            seen: Arc::default(),
            resolver: Resolver::default(),
            counters,
            own_there,
            problems,
            report: None,
            bypasses: rules::follow(settings.table),
            convergence: Arc::default(),
            stale_timer: StaleTimer::new(now.into_std(), settings.restart_time),
            audit: None,
            audit_due: now + AUDIT_INTERVAL,
            audited: now,
            retry: None,
            idle_expiry: None,
            last_refusal: None,
            repairs: Repairs::new(now),
            left: Some(left),
            former: Former::default(),
            settings,
        }
    }

    pub(super) async fn run(
        mut self,
        inputs: Inputs,
        mut observed: mailbox::Receiver<Place, Held>,
        mut requests: mpsc::Receiver<Request>,
        monitor: mpsc::Sender<Switch>,
    ) {
        if let Err(e) = self.adopt() {
            error!(error = %e, "cannot read the kernel's routes; the next audit adopts those of an earlier run");
        }
        let Inputs { mut routes, mut own, mut convergence, mut sources, mut assigned, lost } = inputs;
        self.lost = lost;
        self.host_changed();
        self.own_changed(&mut own).await;
        loop {
            if self.idle_expiry.is_none() && self.fib.has_idle() {
                self.idle_expiry = Some(Instant::now() + IDLE_TIMEOUT);
            }
            let due = self.due();
            // Cancel safe: every branch waits for state that remains until it is taken.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => match request {
                    Request::Page { walk, reply } => {
                        let (task, walk, rows) = self.page(walk).await;
                        self = task;
                        let _ = reply.send((walk, rows));
                    }
                    Request::Settings { settings, reply, .. } if self.settings.pure() == settings.pure() => {
                        self.keep_routes(*settings).await;
                        let _ = reply.send(());
                    }
                    Request::Settings { settings, left, reply } => {
                        // What was seen counts for the former settings.
                        drop(observed.take_now());
                        let (task, desired, complete) = self.change_settings(*settings, left, &monitor).await;
                        self = task;
                        self.apply_observed(observed.take_now()).await;
                        self.fib.prefer(sources.borrow().unwrap_or_default());
                        self.fib.assigned(assigned.borrow().clone());
                        self.own_changed(&mut own).await;
                        self = self.apply_routes(desired).await;
                        if complete {
                            self.remove_former();
                        }
                        self.sweep().await;
                        let _ = reply.send(());
                    }
                    request => if self.handle_request(request).await {
                        return;
                    },
                },
                Ok(()) = self.host.changed() => {
                    self.host_changed();
                    self.write().await;
                }
                Ok(()) = self.bypasses.changed() => {
                    self.report.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
                }
                Ok(()) = self.lost.changed() => {
                    self.lost_changed();
                    self.write().await;
                }
                Ok(()) = own.changed() => self.own_changed(&mut own).await,
                Ok(()) = sources.changed() => {
                    let preferred = *sources.borrow_and_update();
                    self.fib.prefer(preferred.unwrap_or_default());
                    self.write().await;
                }
                Ok(()) = assigned.changed() => {
                    self.fib.assigned(assigned.borrow_and_update().clone());
                    self.sweep().await;
                }
                Ok(()) = convergence.changed() => {
                    self.convergence = convergence.borrow_and_update().clone();
                    self.stale_timer.converged(Instant::now().into_std(), self.convergence.any());
                    // Routes received before the neighbors converged come first; otherwise they
                    // would count as stale.
                    self = self.apply_routes(routes.take_now()).await;
                    self.sweep().await;
                }
                changes = observed.take(), if self.repairs.waits(Instant::now()).is_none() => self.apply_observed(changes).await,
                changes = routes.take() => self = self.apply_routes(changes).await,
                () = sleep_until(due) => self.timeout().await,
                () = std::future::ready(()), if self.audit.is_some() => self.audit_step().await,
            }
        }
    }

    fn due(&self) -> Instant {
        let retry = self.retry.map(|(at, _)| at);
        let repairs = self.repairs.due(Instant::now());
        let grace = self.stale_timer.due().map(Instant::from_std);
        grace
            .into_iter()
            .chain(retry)
            .chain(self.idle_expiry)
            .chain(self.report)
            .chain(repairs)
            .chain(self.audit.is_none().then_some(self.audit_due))
            .min()
            .unwrap_or(self.audit_due)
    }

    /// Adopts what an earlier run left in the kernel.
    pub(super) fn adopt(&mut self) -> io::Result<()> {
        let places = self.left.as_ref().map(|l| l.places.clone()).unwrap_or_default();
        self.former = Former::find(&mut self.writer, places, self.settings.location())?;
        if !self.settings.install {
            // Nothing will replace them.
            self.remove_former();
            return Ok(());
        }
        match netlink::objects(&mut self.writer)? {
            Some(seen) => self.fib.adopt_objects(&seen, self.settings.protocol),
            None => {
                info!("this kernel has no nexthop objects; next hops are written into each route");
                self.fib.disable_objects();
            }
        }
        if self.settings.resilient && !netlink::has_resilient_groups() {
            warn!(
                "this kernel has no resilient nexthop groups, which came with Linux 5.13; plain ones are used"
            );
            self.fib.disable_resilient();
        }
        let (ours, fib_metric) = (self.settings.ours(), self.settings.metric);
        let mut count = 0;
        for family in Family::ALL {
            let fib = &mut self.fib;
            self.writer.dump(
                |encoder, seq| encoder.dump_routes(seq, family, Some(ours.table), Some(ours.protocol)),
                |message| {
                    if let Some(route) = own_route(message, ours) {
                        let leads_to = content(route.kind, &route.seen.hops);
                        let seen = &route.seen;
                        if seen.metric == fib_metric {
                            fib.adopt_source(seen.prefix, &leads_to, seen.source);
                        }
                        fib.adopt_route(seen.prefix, seen.metric, seen.object, leads_to);
                        count += 1;
                    }
                },
            )?;
        }
        if count > 0 {
            info!(routes = count, "routes of an earlier run adopted");
        }
        for (object, routes) in &self.former.uses {
            self.fib.hold_object(*object, *routes);
        }
        Ok(())
    }

    /// Removes what former configurations left.
    pub(super) fn remove_former(&mut self) {
        let Some(left) = self.left.take() else { return };
        if let Err(error) = self.former.remove(&mut self.writer) {
            warn!(%error, "cannot remove routes of a former configuration; retrying");
            self.left = Some(left);
            return;
        }
        // The last look may have found them in the table of an earlier rule.
        if left.places.iter().any(|place| place.table != self.settings.table) {
            self.bypasses = rules::follow(self.settings.table);
        }
        for (object, routes) in std::mem::take(&mut self.former).uses {
            self.fib.release_object(object, routes);
        }
        (left.swept)();
    }

    pub(super) fn host_changed(&mut self) {
        let host = self.host.borrow_and_update().clone();
        let dropped = host.drops != self.seen.drops || host.overruns != self.seen.overruns;
        // With an address, routes that have it as their preferred source are removed without a
        // notification.
        let by_source = self.fib.sources() != PreferredSources::default();
        if host.overruns != self.seen.overruns || dropped && (by_source || !self.fib.has_objects()) {
            self.audit_soon();
        }
        self.seen = host;
        self.report.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
        let resolver = Resolver::new(&self.seen, self.settings.resolve_via_default);
        if resolver == self.resolver && !dropped {
            return;
        }
        let objects = if dropped && self.settings.install && self.fib.has_objects() {
            match netlink::objects(&mut self.writer) {
                Ok(seen) => seen,
                Err(e) => {
                    warn!(error = %e, "cannot read the nexthop objects; auditing all routes");
                    self.audit_soon();
                    None
                }
            }
        } else {
            None
        };
        self.resolver = resolver.clone();
        let before = self.fib.repairs;
        self.fib.host(resolver, objects.as_ref());
        self.fib.finish();
        self.note_repairs(before, "another program changed our nexthop objects");
    }

    pub(super) fn lost_changed(&mut self) {
        let lost = self.lost.borrow_and_update().clone();
        self.fib.lose(&lost);
        self.fib.finish();
    }

    async fn own_changed(&mut self, own: &mut watch::Receiver<Arc<Vec<Prefix>>>) {
        let own = own.borrow_and_update().clone();
        self.fib.set_own(&own);
        self.write().await;
    }

    /// Applies changes. A few are written at once, as a thread hand-over would take longer than
    /// they do. Many are written in another thread, so that the neighbors are read meanwhile.
    async fn apply_routes(mut self, changes: Changes<Prefix, Option<Arc<NextHops>>>) -> Self {
        let mut changes: Vec<_> = changes.into_iter().collect();
        if changes.len() <= BATCH {
            let order = 0..changes.len();
            self.write_in_order(changes, order);
            return self;
        }
        let written = spawn_blocking(move || {
            changes.sort_unstable_by_key(|(prefix, _)| *prefix);
            let order = coarse_first(changes.len());
            self.write_in_order(changes, order);
            self
        });
        written.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    fn write_in_order(
        &mut self,
        changes: Vec<(Prefix, Option<Arc<NextHops>>)>,
        mut order: impl Iterator<Item = usize>,
    ) {
        let since = self.counters.taken();
        loop {
            let part: Vec<_> = order.by_ref().take(BATCH).filter_map(|at| changes.get(at)).collect();
            if part.is_empty() {
                break;
            }
            if part.len() > 1 {
                self.fib.prefetch(part.iter().map(|(prefix, _)| prefix));
            }
            for (prefix, hops) in part {
                self.fib.set_desired(*prefix, hops.as_ref());
            }
            while self.write_batch() {}
            // A lost neighbor does not wait for the rest.
            if self.lost.has_changed().unwrap_or(false) {
                self.lost_changed();
                while self.write_batch() {}
            }
        }
        drop(changes);
        self.fib.finish();
        while self.write_batch() {}
        self.publish_own();
        self.counters.acknowledged(since, std::time::Instant::now());
    }

    async fn apply_observed(&mut self, changes: Changes<Place, Held>) {
        let before = self.fib.repairs;
        for ((prefix, metric), held) in changes {
            self.fib.observe(prefix, metric, held);
        }
        self.fib.finish();
        self.write().await;
        self.note_repairs(before, "another program removed or changed them");
    }

    fn note_repairs(&mut self, before: u64, why: &str) {
        let repaired = self.fib.repairs - before;
        if repaired > 0 {
            self.counters.repairs.fetch_add(repaired, Relaxed);
            self.repairs.add(Instant::now(), repaired);
            self.log_repairs(why);
        }
    }

    fn log_repairs(&mut self, why: &str) {
        match self.repairs.log(Instant::now()) {
            Some((routes, false)) => warn!(routes, why, "routes restored in the kernel"),
            Some((routes, true)) => {
                let protocol = self.settings.protocol;
                warn!(
                    routes,
                    protocol,
                    "another program keeps removing or changing our routes: another routelet, or a daemon that uses this protocol \
                     number; stop it, or change fib.protocol and fib.metric"
                );
            }
            None => {}
        }
    }

    async fn sweep(&mut self) {
        if self.fib.is_sweeping() {
            self.fib.converged(self.convergence.clone(), self.stale_timer.grace());
            self.fib.finish();
            self.write().await;
        }
        // After the routes that replace them are written.
        if self.left.is_some() && self.fib.all_converged(self.convergence.clone(), self.stale_timer.grace()) {
            self.remove_former();
            self.fib.finish();
            self.write().await;
        }
    }

    async fn timeout(&mut self) {
        let now = Instant::now();
        self.log_repairs("another program removed or changed them");
        if self.stale_timer.timeout(now.into_std()) {
            self.sweep().await;
        }
        if let Some((at, wait)) = self.retry.filter(|(at, _)| *at <= now) {
            self.retry = Some((at + wait * 2, (wait * 2).min(AUDIT_INTERVAL)));
            if self.fib.retry() {
                self.fib.finish();
                self.write().await;
            } else {
                self.retry = None;
                self.last_refusal = None;
            }
        }
        if self.report.is_some_and(|at| at <= now) {
            self.report_problems();
        }
        if self.idle_expiry.is_some_and(|at| at <= now) {
            self.idle_expiry = None;
            self.fib.expire_idle();
            self.write().await;
        }
        if self.audit_due <= now && self.audit.is_none() {
            self.audit_begin();
        }
    }

    /// Writes all pending changes, and yields now and then.
    pub(super) async fn write(&mut self) {
        let mut batches = 0;
        while self.write_batch() {
            batches += 1;
            if batches % 4 == 0 {
                yield_now().await;
            }
        }
        self.publish_own();
    }

    /// Publishes which originated prefixes are installed. Valid when everything is written.
    fn publish_own(&mut self) {
        let there = match self.settings.install {
            true => self.fib.own_there(),
            false => self.fib.own_wanted(),
        };
        mailbox::publish(&self.own_there, Arc::new(there));
        // Every change of routes ends here.
        self.report.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
    }

    /// Writes one batch; returns whether there was anything to write.
    fn write_batch(&mut self) -> bool {
        let ops = self.fib.take(BATCH);
        if !ops.is_empty() {
            self.execute(&ops);
        }
        !ops.is_empty()
    }

    fn execute(&mut self, ops: &[Op]) {
        let ours = wire::Ours { sources: self.fib.sources(), ..self.settings.ours() };
        let refused = match self.writer.write(&self.fib, ours, ops) {
            Ok(refused) => refused,
            Err(e) => {
                error!(error = %e, "no reply from the kernel to a batch; auditing all routes");
                return self.audit_soon();
            }
        };
        let (mut puts, mut dels, mut objects) = ([0, 0], [0, 0], [0, 0]);
        for op in ops {
            match op {
                Op::NewRoute { .. } => puts[0] += 1,
                Op::DelRoute { .. } => dels[0] += 1,
                Op::NewNexthop { .. } | Op::DelNexthop { .. } => objects[0] += 1,
            }
        }
        let mut bad = 0;
        for one in &refused {
            let Some(op) = ops.get(one.index) else { continue };
            let gone = matches!(one.errno, Errno::ESRCH | Errno::ENOENT | Errno::ENODEV);
            if self.fib.refused(op, one.errno == Errno::EEXIST, gone, &one.why) {
                self.audit_soon();
            }
            let tally = match op {
                Op::NewRoute { .. } => &mut puts,
                Op::DelRoute { .. } => &mut dels,
                Op::NewNexthop { .. } | Op::DelNexthop { .. } => &mut objects,
            };
            if !(gone && matches!(op, Op::DelRoute { .. } | Op::DelNexthop { .. })) {
                tally[1] += 1;
                bad += 1;
                self.log_refused(op, &one.why);
            }
        }
        for (outcome, [all, bad]) in
            [(&self.counters.put, puts), (&self.counters.del, dels), (&self.counters.nexthop, objects)]
        {
            outcome.add(all - bad, bad);
        }
        if bad > 0 && self.retry.is_none() {
            self.retry = Some((Instant::now() + RETRY_INITIAL, RETRY_INITIAL));
        }
    }

    /// Logs each reason once; `show fib` has the details.
    fn log_refused(&mut self, op: &Op, why: &Arc<str>) {
        if self.last_refusal.as_ref() == Some(why) {
            return debug!(?op, why = %why, "the kernel refused a change");
        }
        self.last_refusal = Some(why.clone());
        warn!(?op, why = %why, "the kernel refused a change; retrying, see `routelet show fib`");
    }

    fn audit_soon(&mut self) {
        self.audit_due = self.audit_due.min((self.audited + AUDIT_MIN_INTERVAL).max(Instant::now()));
    }

    fn audit_begin(&mut self) {
        self.audited = Instant::now();
        let sixth = AUDIT_INTERVAL.as_millis() as u64 / 3;
        let jitter = Duration::from_millis(RandomState::new().hash_one(0) % sixth);
        self.audit_due = self.audited + AUDIT_INTERVAL - Duration::from_millis(sixth / 2) + jitter;
        if !self.settings.install {
            return;
        }
        self.audit_objects();
        match Channel::open().and_then(|channel| self.audit_family(channel, &Family::ALL, true)) {
            Ok(audit) => {
                self.fib.audit_begin();
                self.audit = Some(audit);
            }
            Err(e) => warn!(error = %e, "cannot audit the kernel's routes"),
        }
    }

    /// The audit compares routes by object id; the objects themselves are compared here.
    fn audit_objects(&mut self) {
        if !self.fib.has_objects() {
            return;
        }
        match netlink::objects(&mut self.writer) {
            Ok(objects) => {
                let before = self.fib.repairs;
                self.fib.host(self.resolver.clone(), objects.as_ref());
                self.fib.finish();
                self.note_repairs(before, "another program changed our nexthop objects");
            }
            Err(e) => warn!(error = %e, "cannot audit the kernel's nexthop objects"),
        }
    }

    fn audit_family(
        &self,
        mut channel: Channel,
        families: &'static [Family],
        consistent: bool,
    ) -> io::Result<Audit> {
        let ours = self.settings.ours();
        if let Some(family) = families.first() {
            channel.dump_begin(|encoder, seq| {
                encoder.dump_routes(seq, *family, Some(ours.table), Some(ours.protocol));
            })?;
        }
        Ok(Audit { channel, families, consistent })
    }

    async fn audit_step(&mut self) {
        let Some(mut audit) = self.audit.take() else { return };
        let (ours, before) = (self.settings.ours(), self.fib.repairs);
        let fib = &mut self.fib;
        let step = audit.channel.dump_step(|message| {
            if let Some(route) = own_route(message, ours) {
                let leads_to = content(route.kind, &route.seen.hops);
                let seen = &route.seen;
                fib.audit(seen.prefix, seen.metric, seen.object, leads_to.clone());
                fib.audit_source(seen.prefix, seen.metric, &leads_to, seen.source);
            }
        });
        match step {
            Ok(Dump::More) => {
                self.audit = Some(audit);
                yield_now().await;
            }
            Ok(Dump::Done { consistent }) => {
                let consistent = consistent && audit.consistent;
                let rest = audit.families.get(1..).unwrap_or_default();
                if rest.is_empty() {
                    self.audit_end(consistent).await;
                } else {
                    self.audit = self.audit_family(audit.channel, rest, consistent).ok();
                }
            }
            Err(e) => warn!(error = %e, "cannot audit the kernel's routes"),
        }
        self.note_repairs(before, "the audit found them missing or changed");
    }

    async fn audit_end(&mut self, consistent: bool) {
        // A route missing from an inconsistent dump is not necessarily lost.
        if consistent {
            self.fib.audit_end();
        } else {
            self.audit_soon();
        }
        self.fib.finish();
        self.write().await;
        self.sweep().await;
    }

    /// Delayed after a change, as routes change in bursts.
    fn report_problems(&mut self) {
        self.report = None;
        let bypasses = self.bypasses.borrow().clone();
        let shadows = Shadows::new(&self.seen, self.settings.table, self.settings.metric);
        let problems = self.fib.displaced(&shadows.with_bypasses(&bypasses));
        mailbox::publish(&self.problems, problems);
    }

    /// One step of a listing. A search through a large table runs in another thread, so that the
    /// event loop continues.
    async fn page(mut self, mut walk: Walk) -> (Self, Walk, Vec<FibView>) {
        if walk.is_searching() && self.fib.is_large() {
            let searched = spawn_blocking(move || {
                self.fib.search(&mut walk);
                (self, walk)
            });
            (self, walk) = searched.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        } else if walk.is_searching() {
            self.fib.search(&mut walk);
        }
        let mut rows = self.fib.page(&mut walk, |index| self.interface_name(index));
        self.mark(&mut rows);
        (self, walk, rows)
    }

    fn interface_name(&self, index: u32) -> String {
        self.seen.links.get(&index).map_or_else(|| index.to_string(), |l| l.name.clone())
    }

    /// Adds to each row which other route or rule keeps it from being used.
    fn mark(&self, rows: &mut [FibView]) {
        let bypasses = self.bypasses.borrow().clone();
        let shadows = Shadows::new(&self.seen, self.settings.table, self.settings.metric);
        shadows.with_bypasses(&bypasses).mark(rows, self.settings.metric);
    }

    /// Returns whether to end the task.
    async fn handle_request(&mut self, request: Request) -> bool {
        match request {
            // Handled in `run`, as they may need another thread.
            Request::Page { .. } | Request::Settings { .. } => false,
            Request::Installed { prefixes, reply } => {
                let _ = reply.send(prefixes.into_iter().map(|p| self.fib.is_in_kernel(p)).collect());
                false
            }
            Request::Find { prefix, reply } => {
                let mut row = self.fib.find(prefix, |index| self.interface_name(index));
                self.mark(row.as_mut_slice());
                let _ = reply.send(row);
                false
            }
            Request::Count { reply } => {
                let _ = reply.send(self.fib.counts());
                false
            }
            Request::Shutdown { flush, reply } => {
                if flush && self.settings.install {
                    self.fib.flush();
                    self.write().await;
                }
                let _ = reply.send(());
                true
            }
        }
    }
}

/// A route of ours in a dump.
struct OwnRoute {
    seen: SeenRoute,
    kind: crate::net::RouteKind,
}

/// Checks table and protocol again, since a kernel without strict checking dumps everything.
fn own_route(message: &wire::Message<'_>, ours: wire::Ours) -> Option<OwnRoute> {
    if message.kind != wire::kind::NEW_ROUTE {
        return None;
    }
    let seen = wire::route(message.body)?;
    let kind = seen.kind?.kind()?;
    (seen.table == ours.table && seen.protocol == ours.protocol && !seen.cloned)
        .then_some(OwnRoute { seen, kind })
}
