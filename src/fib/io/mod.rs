//! Netlink: the task that owns the kernel's routes, and what feeds it.
//!
//! [`Kernel::open`] begins to watch the host, so that a plan can be made; [`Kernel::spawn`] begins to write. Three
//! kinds of socket: one that writes, one that hears notifications (`monitor`), one for dumps.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod batch;
mod cleanup;
mod counters;
mod former;
pub mod machine;
mod monitor;
pub mod netconf;
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
    net::{Assigned, Convergence, Family, NextHops, PreferredSources, Prefix},
};

/// `[fib]`, and what else the task must know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub install: bool,
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    pub resolve_via_default: bool,
    pub nexthop_objects: bool,
    /// `bgp.restart-time`: adopted routes whose neighbor never came stay for three times as long.
    pub restart_time: Duration,
}

impl Settings {
    fn ours(&self) -> Ours {
        Ours { table: self.table, protocol: self.protocol, sources: PreferredSources::default() }
    }

    /// Where our routes are; `None`: nowhere.
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
        }
    }
}

/// In the state folder: a [`crate::fib::former::Record`].
pub const FORMER_FILE: &str = "fib.json";

/// A place in our table: prefix and metric.
pub type Place = (Prefix, u32);

/// What the daemon connects to the fib.
pub struct Inputs {
    /// Best routes from the rib.
    pub routes: mailbox::Receiver<Prefix, Option<Arc<NextHops>>>,
    /// Own prefixes that get an unreachable route, from the plan.
    pub own: watch::Receiver<Arc<Vec<Prefix>>>,
    pub convergence: watch::Receiver<Arc<Convergence>>,
    /// From the plan; `None` before there is one.
    pub sources: watch::Receiver<Option<PreferredSources>>,
    /// Prefixes of hosts that stay while these hosts are silent.
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
    writer: batch::Channel,
    monitor: monitor::Monitor,
    host: watch::Receiver<Arc<Host>>,
    heard: mailbox::Receiver<Place, Held>,
    counters: Arc<Counters>,
}

impl Kernel {
    /// Opens the sockets and reads the host.
    ///
    /// # Errors
    ///
    /// When the kernel gives no netlink socket or no answer.
    pub async fn open(settings: Settings) -> io::Result<Self> {
        Self::open_after(settings, Vec::new()).await
    }

    /// The same, after configurations that had their routes in these places: they are ours, too.
    ///
    /// # Errors
    ///
    /// When the kernel gives no netlink socket or no answer.
    pub async fn open_after(settings: Settings, former: Vec<Location>) -> io::Result<Self> {
        let mut writer = batch::Channel::open()?;
        if let Some(now) = settings.location()
            && let Err(error) = former::take_over(&mut writer, &former, now)
        {
            tracing::warn!(%error, "routes of a former configuration could not be taken over");
        }
        let (tell, heard) = mailbox::mailbox();
        let (monitor, host) =
            monitor::Monitor::start(settings.clone(), former.clone(), writer.port(), tell).await?;
        Ok(Self { settings, former, writer, monitor, host, heard, counters: Arc::default() })
    }

    /// The host, kept up to date once [`Kernel::spawn`] was called.
    pub fn host(&self) -> watch::Receiver<Arc<Host>> {
        self.host.clone()
    }

    /// What will be counted; the rib tells it when an UPDATE was read.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Adopts what is in the kernel and begins to write.
    pub fn spawn(self, inputs: Inputs) -> FibHandle {
        self.spawn_and(inputs, || {})
    }

    /// The same; calls `swept` once when nothing is left in the former places.
    pub fn spawn_and(self, inputs: Inputs, swept: impl FnOnce() + Send + 'static) -> FibHandle {
        let (requests, receiver) = mpsc::channel(16);
        let (own_there, watch_own) = watch::channel(Arc::default());
        let (problems, watch_problems) = watch::channel(Vec::new());
        let counters = self.counters;
        let outputs = (own_there, problems);
        let left = task::Left { places: self.former, swept: Box::new(swept) };
        let task = task::Task::new(self.settings, left, self.writer, self.host, counters.clone(), outputs);
        FibHandle {
            client: FibClient { requests },
            own_there: watch_own,
            problems: watch_problems,
            counters,
            task: tokio::spawn(task.run(inputs, self.heard, receiver)),
            monitor: tokio::spawn(self.monitor.run()),
        }
    }
}

/// Questions and orders.
enum Request {
    /// One step of an answer.
    Page {
        walk: Walk,
        reply: oneshot::Sender<(Walk, Vec<FibView>)>,
    },
    /// Which of these prefixes the kernel holds.
    Installed {
        prefixes: Vec<Prefix>,
        reply: oneshot::Sender<Vec<bool>>,
    },
    Count {
        reply: oneshot::Sender<[usize; 2]>,
    },
    Shutdown {
        flush: bool,
        reply: oneshot::Sender<()>,
    },
}

/// Asks the running fib.
#[derive(Clone, Debug)]
pub struct FibClient {
    requests: mpsc::Sender<Request>,
}

impl FibClient {
    /// The next rows of what `show fib` shows, some dozens; none when all were given, or when the fib has ended.
    pub async fn page(&self, walk: &mut Option<Walk>) -> Vec<FibView> {
        while let Some(now) = walk.take() {
            let Some((now, rows)) = self.ask(|reply| Request::Page { walk: now, reply }).await else { break };
            *walk = (!now.is_over()).then_some(now);
            // The runtime looks at its sockets and timers before the next step.
            yield_now().await;
            if !rows.is_empty() {
                return rows;
            }
        }
        Vec::new()
    }

    /// All rows at once, for tests: there may be a million.
    pub async fn list(&self) -> Vec<FibView> {
        let (mut walk, mut views) = (Some(Walk::default()), Vec::new());
        while walk.is_some() {
            views.append(&mut self.page(&mut walk).await);
        }
        views
    }

    /// Routes of a family that are in the kernel.
    pub async fn count(&self, family: Family) -> usize {
        self.counts().await[family.index()]
    }

    /// Which of these prefixes the kernel holds; none once the fib has ended.
    pub async fn installed(&self, prefixes: Vec<Prefix>) -> Vec<bool> {
        let none = vec![false; prefixes.len()];
        self.ask(|reply| Request::Installed { prefixes, reply }).await.unwrap_or(none)
    }

    /// Routes that are in the kernel, by family.
    pub async fn counts(&self) -> [usize; 2] {
        self.ask(|reply| Request::Count { reply }).await.unwrap_or_default()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// The running fib.
#[derive(Debug)]
pub struct FibHandle {
    client: FibClient,
    own_there: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    problems: watch::Receiver<Vec<String>>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
    monitor: JoinHandle<()>,
}

impl FibHandle {
    pub fn client(&self) -> FibClient {
        self.client.clone()
    }

    /// Own prefixes whose unreachable route the kernel has acknowledged. Without `fib.install` all that are
    /// wanted, since nothing will ever be.
    pub fn own_there(&self) -> watch::Receiver<Arc<BTreeSet<Prefix>>> {
        self.own_there.clone()
    }

    /// Routes that have no effect since others hold or shadow their prefixes, with the remedy.
    pub fn problems(&self) -> watch::Receiver<Vec<String>> {
        self.problems.clone()
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Waits until a task ends, which none does by itself: a bug.
    pub async fn ended(&mut self) {
        tokio::select! {
            _ = &mut self.task => {}
            _ = &mut self.monitor => {}
        }
    }

    /// Stops; the routes stay, unless `flush` (`fib.on-exit`).
    pub async fn shutdown(self, flush: bool) {
        let _ = self.client.ask(|reply| Request::Shutdown { flush, reply }).await;
        self.monitor.abort();
        let _ = self.task.await;
    }
}

fn publish<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|old| {
        let differs = *old != value;
        if differs {
            *old = value;
        }
        differs
    });
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Page { .. } => "Page",
            Self::Installed { .. } => "Installed",
            Self::Count { .. } => "Count",
            Self::Shutdown { .. } => "Shutdown",
        })
    }
}
