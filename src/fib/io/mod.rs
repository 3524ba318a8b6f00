//! Netlink: the task that owns the kernel's routes, and its inputs.
//!
//! [`Kernel::open`] starts to watch the host, so that a plan can be made; [`Kernel::spawn`] starts
//! to write. There are three kinds of sockets: for requests, for notifications (`monitor`) and for
//! dumps.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod batch;
mod change;
mod cleanup;
mod counters;
mod former;
pub mod lookup;
pub mod machine;
mod monitor;
mod netlink;
mod repairs;
pub mod resolvers;
mod rules;
pub mod sysctl;
mod task;

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
};

pub use self::{
    cleanup::{Removed, cleanup, cleanup_former},
    counters::{BUCKETS, Counters, Outcome},
};
use crate::{
    fib::{diff, former::Location, host::Host, route::Held, view::FibView, walk::Walk, wire::Ours},
    mailbox,
    net::{Assigned, Convergence, Diagnostic, Family, NextHops, PerFamily, PreferredSources, Prefix},
    netlink::io::{Channel, Protocol},
};

/// `[fib]`, and the other settings that the task needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub install: bool,
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    pub resolve_via_default: bool,
    pub nexthop_objects: bool,
    /// Groups of next hops keep flows where they are while others come and go.
    pub resilient: bool,
    /// `bgp.restart-time`; adopted routes of neighbors that never return are kept for three times
    /// as long.
    pub restart_time: Duration,
}

impl Settings {
    fn ours(&self) -> Ours {
        Ours { table: self.table, protocol: self.protocol, sources: PreferredSources::default() }
    }

    /// Location of our routes; `None` if none are installed.
    pub fn location(&self) -> Option<Location> {
        let location = Location { table: self.table, protocol: self.protocol, metric: self.metric };
        self.install.then_some(location)
    }

    fn pure(&self) -> diff::Settings {
        diff::Settings {
            install: self.install,
            table: self.table,
            protocol: self.protocol,
            metric: self.metric,
            nexthop_objects: self.nexthop_objects,
            resilient: self.resilient,
        }
    }
}

/// File in the state folder that holds a [`crate::fib::former::Record`].
pub const FORMER_FILE: &str = "fib.json";

/// A route's key in our table: prefix and metric.
pub type Place = (Prefix, u32);

/// The inputs that the daemon connects.
pub struct Inputs {
    /// Best paths from the rib.
    pub routes: mailbox::Receiver<Prefix, Option<Arc<NextHops>>>,
    /// Originated prefixes that get an unreachable route, from the plan.
    pub own: watch::Receiver<Arc<Vec<Prefix>>>,
    pub convergence: watch::Receiver<Arc<Convergence>>,
    /// From the plan; `None` until there is one.
    pub sources: watch::Receiver<Option<PreferredSources>>,
    /// Prefixes assigned to hosts, whose routes stay while these hosts have no session.
    pub assigned: watch::Receiver<Arc<Assigned>>,
    /// Gateways that BFD has lost.
    pub lost: watch::Receiver<Lost>,
}

/// Gateways that are not reached any more, with their interface where they are directly connected.
pub type Lost = Arc<BTreeSet<(IpAddr, u32)>>;

/// The kernel, watched and not yet written to.
pub struct Kernel {
    settings: Settings,
    former: Vec<Location>,
    writer: Channel,
    monitor: monitor::Monitor,
    host: watch::Receiver<Arc<Host>>,
    observed: mailbox::Receiver<Place, Held>,
    counters: Arc<Counters>,
}

impl Kernel {
    /// Opens the sockets and reads the host.
    ///
    /// # Errors
    ///
    /// If the kernel provides no netlink socket or sends no reply.
    pub async fn open(settings: Settings) -> io::Result<Self> {
        Self::open_after(settings, Vec::new()).await
    }

    /// Does the same after configurations that had their routes at these locations, which are ours
    /// too.
    ///
    /// # Errors
    ///
    /// If the kernel provides no netlink socket or sends no reply.
    pub async fn open_after(settings: Settings, former: Vec<Location>) -> io::Result<Self> {
        let mut writer = Channel::open(Protocol::ROUTE)?;
        if let Some(now) = settings.location()
            && let Err(error) = former::take_over(&mut writer, &former, now)
        {
            tracing::warn!(%error, "cannot replace routes of a former configuration");
        }
        let (observations, observed) = mailbox::mailbox();
        let (monitor, host) =
            monitor::Monitor::start(settings.clone(), former.clone(), writer.port(), observations).await?;
        Ok(Self { settings, former, writer, monitor, host, observed, counters: Arc::default() })
    }

    /// The host, kept up to date after [`Kernel::spawn`].
    pub fn host(&self) -> watch::Receiver<Arc<Host>> {
        self.host.clone()
    }

    /// The counters; the rib records in them when an UPDATE was read.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Adopts the routes in the kernel and starts to write.
    pub fn spawn(self, inputs: Inputs) -> FibHandle {
        self.spawn_and(inputs, || {})
    }

    /// Does the same, and calls `swept` once when nothing is left at the former locations.
    pub fn spawn_and(self, inputs: Inputs, swept: impl FnOnce() + Send + 'static) -> FibHandle {
        let (requests, receiver) = mpsc::channel(16);
        let (own_there, watch_own) = watch::channel(Arc::default());
        let (problems, watch_problems) = watch::channel(Vec::new());
        let counters = self.counters;
        let outputs = (own_there, problems);
        let left = task::Left { places: self.former, swept: Box::new(swept) };
        let (switch, switches) = mpsc::channel(1);
        let task = task::Task::new(self.settings, left, self.writer, self.host, counters.clone(), outputs);
        FibHandle {
            client: FibClient { requests },
            own_there: watch_own,
            problems: watch_problems,
            counters,
            task: tokio::spawn(task.run(inputs, self.observed, receiver, switch)),
            monitor: tokio::spawn(self.monitor.run(switches)),
        }
    }
}

/// Requests to the task.
enum Request {
    /// One step of a listing.
    Page {
        walk: Walk,
        reply: oneshot::Sender<(Walk, Vec<FibView>)>,
    },
    /// Which of these prefixes the kernel holds.
    Installed {
        prefixes: Vec<Prefix>,
        reply: oneshot::Sender<Vec<bool>>,
    },
    /// The row of one prefix.
    Find {
        prefix: Prefix,
        reply: oneshot::Sender<Option<FibView>>,
    },
    Count {
        reply: oneshot::Sender<PerFamily<usize>>,
    },
    Settings {
        settings: Box<Settings>,
        left: task::Left,
        reply: oneshot::Sender<()>,
    },
    Shutdown {
        flush: bool,
        reply: oneshot::Sender<()>,
    },
}

/// Client of the running fib.
#[derive(Clone, Debug)]
pub struct FibClient {
    requests: mpsc::Sender<Request>,
}

impl FibClient {
    /// The next rows of `show fib`, some dozens; none when all were listed or when the fib has
    /// ended.
    pub async fn page(&self, walk: &mut Option<Walk>) -> Vec<FibView> {
        while let Some(now) = walk.take() {
            let Some((now, rows)) = self.request(|reply| Request::Page { walk: now, reply }).await else {
                break;
            };
            *walk = (!now.is_over()).then_some(now);
            // Lets the runtime poll its sockets and timers before the next step.
            yield_now().await;
            if !rows.is_empty() {
                return rows;
            }
        }
        Vec::new()
    }

    /// All rows at once. For tests: there may be a million.
    pub async fn list(&self) -> Vec<FibView> {
        let (mut walk, mut views) = (Some(Walk::default()), Vec::new());
        while walk.is_some() {
            views.append(&mut self.page(&mut walk).await);
        }
        views
    }

    /// Number of routes of a family in the kernel.
    pub async fn count(&self, family: Family) -> usize {
        self.counts().await[family]
    }

    /// Which of these prefixes the kernel holds; none once the fib has ended.
    pub async fn installed(&self, prefixes: Vec<Prefix>) -> Vec<bool> {
        let none = vec![false; prefixes.len()];
        self.request(|reply| Request::Installed { prefixes, reply }).await.unwrap_or(none)
    }

    /// The row of `show fib` for this prefix; `None` if it is not wanted in the kernel.
    pub async fn find(&self, prefix: Prefix) -> Option<FibView> {
        self.request(|reply| Request::Find { prefix, reply }).await.flatten()
    }

    /// Number of routes in the kernel, by family.
    pub async fn counts(&self) -> PerFamily<usize> {
        self.request(|reply| Request::Count { reply }).await.unwrap_or_default()
    }

    /// Moves the routes to other settings, after those that had them at `former`. Calls `swept`
    /// when nothing is left there.
    pub async fn change(
        &self,
        settings: Settings,
        former: Vec<Location>,
        swept: impl FnOnce() + Send + 'static,
    ) {
        let left = task::Left { places: former, swept: Box::new(swept) };
        let _ = self.request(|reply| Request::Settings { settings: Box::new(settings), left, reply }).await;
    }

    async fn request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, response) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        response.await.ok()
    }
}

/// The running fib.
#[derive(Debug)]
pub struct FibHandle {
    client: FibClient,
    own_there: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    problems: watch::Receiver<Vec<Diagnostic>>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
    monitor: JoinHandle<()>,
}

impl FibHandle {
    pub fn client(&self) -> FibClient {
        self.client.clone()
    }

    /// Originated prefixes whose unreachable route the kernel has acknowledged. Without
    /// `fib.install` all of them, since none will ever be installed.
    pub fn own_there(&self) -> watch::Receiver<Arc<BTreeSet<Prefix>>> {
        self.own_there.clone()
    }

    /// Routes that have no effect because other routes hold or shadow their prefixes, with the
    /// remedy.
    pub fn problems(&self) -> watch::Receiver<Vec<Diagnostic>> {
        self.problems.clone()
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Waits until a task ends, which happens only because of a bug.
    pub async fn ended(&mut self) {
        tokio::select! {
            _ = &mut self.task => {}
            _ = &mut self.monitor => {}
        }
    }

    /// Stops the fib; the routes stay, unless `flush` (`fib.on-exit`).
    pub async fn shutdown(self, flush: bool) {
        let _ = self.client.request(|reply| Request::Shutdown { flush, reply }).await;
        self.monitor.abort();
        let _ = self.task.await;
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Page { .. } => "Page",
            Self::Installed { .. } => "Installed",
            Self::Find { .. } => "Find",
            Self::Count { .. } => "Count",
            Self::Settings { .. } => "Settings",
            Self::Shutdown { .. } => "Shutdown",
        })
    }
}
