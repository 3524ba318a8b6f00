//! The fib's task: applies what [`Fib`] decides to the kernel, and reports the kernel's changes to
//! it.
//!
//! When idle it writes a single route at once, in the thread that received it. Under load it writes
//! in batches, in a thread of its own.

mod audit;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use self::audit::own_route;
use super::{
    Inputs, Lost, Place, Request, Settings, change::Switch, counters::Counters, former::Former, netlink,
    repairs::Repairs, rules,
};
use crate::{
    fib::{
        diff::{Fib, content},
        former,
        host::Host,
        resolve::Resolver,
        route::Held,
        rules::Bypasses,
        shadow::Shadows,
        sweep::StaleTimer,
        view::FibView,
        walk::Walk,
        wire,
    },
    mailbox::{self, Changes},
    net::{Convergence, Diagnostic, Family, NextHops, PreferredSources, Prefix},
    netlink::io::Channel,
    watched::Watched,
};

/// Time between audits, plus or minus a sixth.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// Minimum time between audits when one is due early.
const AUDIT_MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Time until refused changes are first retried; doubles up to [`AUDIT_INTERVAL`].
const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// Time between a change of routes and the report of those without effect.
const REPORT_DELAY: Duration = Duration::from_secs(1);
/// How often the kernel's routes are read at the start before they are left to an audit.
const ADOPT_ATTEMPTS: u32 = 5;
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
    /// Audits in a row that could not be completed.
    audit_failures: u32,
    pub(super) retry: Option<(Instant, Duration)>,
    /// When idle nexthop objects expire.
    pub(super) idle_expiry: Option<Instant>,
    pub(super) last_refusal: Option<Arc<str>>,
    repairs: Repairs,
    pub(super) left: Option<Left>,
    former: Former,
}

/// Values of other tasks that the task follows.
#[derive(Clone, Copy, Debug)]
enum Value {
    Host,
    Lost,
    Own,
    Sources,
    Assigned,
    Convergence,
}

/// Changes of desired routes.
type Routes = Changes<Prefix, Option<Arc<NextHops>>>;

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
    ) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
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
            audit_failures: 0,
            retry: None,
            idle_expiry: None,
            last_refusal: None,
            repairs: Repairs::new(now),
            left: Some(left),
            former: Former::default(),
            settings,
        })
    }

    /// In a box: it moves into a thread and back where there is much to write.
    pub(super) async fn run(
        mut self: Box<Self>,
        mut inputs: Inputs,
        mut observed: mailbox::Receiver<Place, Held>,
        mut requests: mpsc::Receiver<Request>,
        monitor: mpsc::Sender<Switch>,
    ) {
        self.adopt_or_audit();
        self.lost = inputs.lost.clone();
        self.host_changed();
        self.own_changed(&mut inputs.own).await;
        let mut watched = self.watched(&inputs);
        let timer = sleep_until(self.due());
        tokio::pin!(timer);
        loop {
            if self.idle_expiry.is_none() && self.fib.has_idle() {
                self.idle_expiry = Some(Instant::now() + IDLE_TIMEOUT);
            }
            let due = self.due();
            // A timer that fires too early costs one wake-up, less than setting it each time.
            if due < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
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
                        let desired;
                        (self, desired) = self.change(*settings, left, &monitor, &mut observed).await;
                        self.fib.prefer(inputs.sources.borrow().unwrap_or_default());
                        self.fib.assigned(inputs.assigned.borrow().clone());
                        self.own_changed(&mut inputs.own).await;
                        self = self.changed(desired).await;
                        let _ = reply.send(());
                    }
                    request => if self.handle_request(request).await {
                        return;
                    },
                },
                value = watched.next() => self = self.follow(value, &mut inputs).await,
                Ok(()) = self.bypasses.changed() => {
                    self.report.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
                }
                changes = observed.take(), if self.repairs.waits(Instant::now()).is_none() => self.apply_observed(changes).await,
                changes = inputs.routes.take() => self = self.apply_routes(changes).await,
                () = &mut timer => if due <= Instant::now() {
                    self.timeout().await;
                },
                () = std::future::ready(()), if self.audit.is_some() => self.audit_step().await,
            }
        }
    }

    fn watched(&self, inputs: &Inputs) -> Watched<Value> {
        Watched::default()
            .with(Value::Host, &self.host)
            .with(Value::Lost, &self.lost)
            .with(Value::Own, &inputs.own)
            .with(Value::Sources, &inputs.sources)
            .with(Value::Assigned, &inputs.assigned)
            .with(Value::Convergence, &inputs.convergence)
    }

    /// Takes over a value that changed.
    async fn follow(mut self: Box<Self>, value: Value, inputs: &mut Inputs) -> Box<Self> {
        match value {
            Value::Host => {
                self.host_changed();
                self.write().await;
            }
            Value::Lost => {
                self.lost_changed();
                self.write().await;
            }
            Value::Own => self.own_changed(&mut inputs.own).await,
            Value::Sources => {
                let preferred = *inputs.sources.borrow_and_update();
                self.fib.prefer(preferred.unwrap_or_default());
                self.write().await;
            }
            Value::Assigned => {
                self.fib.assigned(inputs.assigned.borrow_and_update().clone());
                self.sweep().await;
            }
            Value::Convergence => {
                let now = inputs.convergence.borrow_and_update().clone();
                self = self.converged(now, inputs.routes.take_now()).await;
            }
        }
        self
    }

    /// `routes`: received before the neighbors converged. They come first; otherwise they would
    /// count as stale.
    async fn converged(mut self: Box<Self>, now: Arc<Convergence>, routes: Routes) -> Box<Self> {
        self.convergence = now;
        self.stale_timer.converged(Instant::now().into_std(), self.convergence.any());
        self = self.apply_routes(routes).await;
        self.sweep().await;
        self
    }

    /// Takes new settings over. Returns the routes that shall be installed, and whether they are
    /// all that there are.
    async fn change(
        self: Box<Self>,
        settings: Settings,
        left: Left,
        monitor: &mpsc::Sender<Switch>,
        observed: &mut mailbox::Receiver<Place, Held>,
    ) -> (Box<Self>, (Routes, bool)) {
        // What was seen counts for the former settings.
        drop(observed.take_now());
        let (mut task, desired, complete) = self.change_settings(settings, left, monitor).await;
        task.apply_observed(observed.take_now()).await;
        (task, (desired, complete))
    }

    /// Installs the routes where the new settings want them, and removes the former ones.
    async fn changed(mut self: Box<Self>, (desired, complete): (Routes, bool)) -> Box<Self> {
        self = self.apply_routes(desired).await;
        if complete {
            self.remove_former();
        }
        self.sweep().await;
        self
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

    /// Adopts what an earlier run, or a former configuration, left in the kernel.
    pub(super) fn adopt_or_audit(&mut self) {
        for attempt in 1..=ADOPT_ATTEMPTS {
            let Err(error) = self.adopt() else { return };
            // What was adopted so far would be adopted twice, and objects without their routes
            // would be deleted as unused.
            self.fib = Fib::new(self.settings.pure());
            if attempt < ADOPT_ATTEMPTS {
                debug!(%error, "cannot read the kernel's routes; retrying");
            } else {
                error!(%error, "cannot read the kernel's routes; an audit adopts those of an earlier run");
            }
        }
        // None of them holds an object.
        self.former.uses.clear();
        self.fib.adopt_later();
        self.audit_soon();
    }

    fn adopt(&mut self) -> io::Result<()> {
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
                |encoder| wire::dump_routes(encoder, family, Some(ours.table), Some(ours.protocol)),
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
        let by_source = host.lost_addresses != self.seen.lost_addresses
            && self.fib.sources() != PreferredSources::default();
        if host.overruns != self.seen.overruns || by_source || dropped && !self.fib.has_objects() {
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

    async fn timeout(&mut self) {
        let now = Instant::now();
        self.log_repairs("another program removed or changed them");
        if self.stale_timer.timeout(now.into_std()) {
            self.sweep().await;
        }
        if let Some((at, wait)) = self.retry.filter(|(at, _)| *at <= now) {
            let wait = (wait * 2).min(AUDIT_INTERVAL);
            self.retry = Some((at + wait, wait));
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
            self.audit_begin().await;
        }
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
    async fn page(mut self: Box<Self>, mut walk: Walk) -> (Box<Self>, Walk, Vec<FibView>) {
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
