//! The task that watches Nodes and publishes [`Nodes`]. It outlives every failure of the API server: what was last known
//! stays in force, and the node goes on.

use std::{
    collections::BTreeSet,
    mem,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Options,
    client::{self, Connection},
};
use crate::{
    k8s::{
        cluster::{Cluster, Scope},
        node::{ApiNode, Nodes},
        view::ApiStatus,
    },
    net::Prefix,
};

/// A watch ends after so many seconds and is begun again where it was: a connection that died without a word is noticed.
pub(super) const WATCH_SECONDS: u32 = 180;
/// A listing that makes no progress for so long has hung.
const LISTING_STALLS: Duration = Duration::from_secs(30);
/// Changes within this time are published together.
const GATHER: Duration = Duration::from_millis(50);
/// A watch that has not failed for so long stands: longer than a connection may take.
const STANDS: Duration = Duration::from_secs(8);
/// How long the first listing waits until it is known whether kubelets can set labels of ours.
const GUARDED_WAIT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// After so long a time without a failure the next one is a first one.
const PEACE: Duration = Duration::from_secs(60);
/// How often the log repeats what the node waits for.
const REMIND: Duration = Duration::from_secs(60);
/// So many different reasons are logged until the API server is back.
const REASONS: usize = 8;

/// The watch with its outlets.
pub(super) struct Watcher {
    pub(super) options: Options,
    pub(super) all_nodes: watch::Receiver<bool>,
    /// What ServiceCIDR objects say, once they were listed.
    pub(super) ranges: watch::Receiver<Option<Vec<Prefix>>>,
    /// Whether kubelets are kept from setting labels and annotations of ours, once that is known.
    pub(super) guarded: watch::Receiver<Option<bool>>,
    pub(super) cluster: Cluster,
    pub(super) nodes: watch::Sender<Arc<Nodes>>,
    pub(super) status: watch::Sender<ApiStatus>,
    pub(super) saying: Saying,
    /// Whether the API server has streaming lists (1.32 with etcd 3.6); found out by asking.
    pub(super) streaming: bool,
    /// Pauses between listings that expired.
    pub(super) expiries: Retry,
    pub(super) gathering: Gathering,
}

/// A change is published at once, those that follow it soon together: each makes the whole plan anew.
#[derive(Default)]
pub(super) struct Gathering {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Gathering {
    fn changed(&mut self, now: Instant) {
        self.due.get_or_insert(self.last.map_or(now, |last| now.max(last + GATHER)));
    }

    fn published(&mut self, now: Instant) {
        *self = Self { due: None, last: Some(now) };
    }
}

/// What the log was told last.
#[derive(Default)]
pub(super) struct Saying {
    missing: Option<&'static str>,
    at: Option<Instant>,
    ready: bool,
    /// Why the API server could not be used since it was lost: each reason once.
    reasons: BTreeSet<String>,
}

/// Why a stream is left.
enum Left {
    /// Ask for other Nodes, or in another manner.
    Changed,
    /// New credentials are due.
    Credentials,
}

impl Watcher {
    /// Never ends.
    pub(super) async fn run(mut self) {
        let mut retry = Retry::default();
        loop {
            let connection = match client::connect(&self.options).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.lost(error);
                    sleep(retry.next()).await;
                    continue;
                }
            };
            self.cluster.nodes_mut().api_servers.clone_from(&connection.servers);
            while !matches!(self.follow(&connection, &mut retry).await, Left::Credentials) {}
        }
    }

    /// One stream of events, until it must be another one.
    async fn follow(&mut self, connection: &Connection, retry: &mut Retry) -> Left {
        let scope = if *self.all_nodes.borrow_and_update() { Scope::All } else { Scope::Own };
        let config = self.config(scope);
        let mut stream = pin!(watcher(Api::<ApiNode>::all(connection.client.clone()), config));
        let mut remind = tokio::time::interval(REMIND);
        // Whether a listing is still owed.
        let mut owed = true;
        loop {
            let lost = !owed && !self.status.borrow().connected;
            let patience = if lost { STANDS } else { LISTING_STALLS };
            // Cancel safe: the stream keeps its own state, whoever stops waiting for it.
            let item = tokio::select! {
                item = timeout(patience, stream.next()) => item,
                _ = remind.tick() => {
                    self.remind();
                    continue;
                }
                () = flipped(&mut self.all_nodes, scope) => return Left::Changed,
                _ = self.ranges.changed() => {
                    self.take_ranges();
                    continue;
                }
                _ = self.guarded.changed() => {
                    if self.take_guarded() {
                        self.publish();
                    }
                    continue;
                }
                () = due(self.gathering.due) => {
                    self.publish();
                    continue;
                }
                () = due(self.cluster.next_expiry()) => {
                    self.cluster.expire(Instant::now());
                    self.publish();
                    continue;
                }
            };
            match item {
                Ok(Some(Ok(event))) => {
                    if self.take(event, scope) {
                        *retry = Retry::default();
                        if mem::replace(&mut owed, false) {
                            self.wait_for_guarded().await;
                        }
                    }
                }
                Ok(Some(Err(error))) if self.streaming && refuses_streaming(&error) => {
                    debug!("API server has no streaming lists, falling back to list and watch");
                    self.streaming = false;
                    return Left::Changed;
                }
                Ok(Some(Err(error))) => {
                    let refused = refusal(&error);
                    if refused == Some(410) {
                        // Too old a resource version: the stream lists anew by itself.
                        owed = true;
                        sleep(self.expiries.next_in_a_row(Instant::now())).await;
                        continue;
                    }
                    self.lost(explain(&error, refused));
                    self.wait_for_answer(connection, retry, refused.is_some()).await;
                    if refused == Some(401) || connection.is_stale(&self.options) {
                        return Left::Credentials;
                    }
                }
                Ok(None) => return Left::Changed,
                Err(_) if owed => {
                    self.lost("the listing of Nodes makes no progress".into());
                    self.streaming = false;
                    return Left::Changed;
                }
                // A watch that goes on where it was says nothing until some Node changes.
                Err(_) => {
                    *retry = Retry::default();
                    self.answered();
                }
            }
        }
    }

    fn config(&self, scope: Scope) -> watcher::Config {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let config = if self.streaming { config.streaming_lists() } else { config };
        match scope {
            Scope::All => config,
            Scope::Own => config.fields(&format!("metadata.name={}", self.options.node_name)),
        }
    }

    /// Whether what is known is whole after it.
    fn take(&mut self, event: Event<ApiNode>, scope: Scope) -> bool {
        let now = Instant::now();
        let whole = match event {
            Event::Init => {
                self.cluster.begin(scope);
                false
            }
            Event::InitApply(node) => {
                self.cluster.found(now, &node, true);
                false
            }
            Event::InitDone => {
                self.cluster.end(now);
                true
            }
            Event::Apply(node) => {
                self.cluster.found(now, &node, false);
                true
            }
            Event::Delete(node) => {
                self.cluster.gone(now, &node);
                true
            }
        };
        if whole {
            self.answered();
            self.status.send_if_modified(|s| mem::take(&mut s.from_state));
            self.gathering.changed(now);
        }
        whole
    }

    fn take_ranges(&mut self) {
        if let Some(ranges) = self.ranges.borrow_and_update().clone() {
            self.cluster.nodes_mut().service_cidrs = ranges;
        }
        self.publish();
    }

    /// Who reflects depends on it: the first plan should be the right one.
    async fn wait_for_guarded(&mut self) {
        if self.cluster.nodes().guarded.is_none() {
            let _ = timeout(GUARDED_WAIT, self.guarded.wait_for(Option::is_some)).await;
            self.take_guarded();
        }
    }

    /// Whether it is news.
    fn take_guarded(&mut self) -> bool {
        let guarded = *self.guarded.borrow_and_update();
        guarded.is_some_and(|guarded| self.cluster.set_guarded(guarded))
    }

    fn publish(&mut self) {
        self.gathering.published(Instant::now());
        let nodes = self.cluster.nodes();
        self.nodes.send_if_modified(|last| {
            let changed = **last != *nodes;
            if changed {
                *last = Arc::new(nodes.clone());
            }
            changed
        });
        self.say();
    }

    /// Sleeps and asks until the API server answers anything, so that an outage costs one small request per interval,
    /// and its end is seen even when no Node changes.
    async fn wait_for_answer(&mut self, connection: &Connection, retry: &mut Retry, refused: bool) {
        loop {
            sleep(retry.next()).await;
            if refused || connection.is_stale(&self.options) {
                return;
            }
            let request =
                hyper::http::Request::get("/readyz").body(Vec::new()).expect("a constant request is valid");
            match timeout(Duration::from_secs(3), connection.client.request_text(request)).await {
                Ok(Ok(_)) => return self.answered(),
                Ok(Err(kube::Error::Api(status))) if status.code != 500 => return self.answered(),
                Ok(Err(error)) => self.lost(super::chain(&error)),
                Err(_) => self.lost("no answer within 3 s".into()),
            }
        }
    }

    fn answered(&mut self) {
        self.status.send_if_modified(|s| {
            let news = !s.connected;
            if news {
                info!("API server answers");
                s.connected = true;
                s.since = Some(super::timestamp());
            }
            news
        });
        self.saying.reasons.clear();
    }

    fn lost(&mut self, error: String) {
        if self.saying.reasons.len() < REASONS && self.saying.reasons.insert(error.clone()) {
            warn!(%error, "API server is away; what was last known stays in force, trying again");
        }
        self.status.send_if_modified(|s| {
            if s.connected || s.since.is_none() {
                s.connected = false;
                s.since = Some(super::timestamp());
            }
            let news = s.last_error.as_ref() != Some(&error);
            s.last_error = Some(error);
            news
        });
    }

    /// Says once what the node waits for, and once that it need not wait any longer.
    fn say(&mut self) {
        let missing = self.cluster.nodes().missing();
        match missing {
            Some(what) if self.saying.missing != missing => {
                info!(node = self.options.node_name, what, "waiting");
                self.saying.at = Some(Instant::now());
                self.saying.ready = false;
            }
            None if !self.saying.ready => {
                if let Some(own) = &self.cluster.nodes().own {
                    info!(node = own.name, pod_cidrs = ?own.pod_cidrs, addresses = ?own.addresses, "node is known");
                }
                self.saying.ready = true;
            }
            _ => {}
        }
        self.saying.missing = missing;
    }

    fn remind(&mut self) {
        let due = self.saying.at.is_some_and(|at| at.elapsed() >= REMIND / 2);
        if let Some(what) = self.saying.missing.filter(|_| due) {
            info!(node = self.options.node_name, what, "still waiting");
        }
    }
}

/// Waits until then; for ever when there is nothing to wait for. Cancel safe.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until other Nodes are asked for. Cancel safe.
async fn flipped(all_nodes: &mut watch::Receiver<bool>, scope: Scope) {
    loop {
        if all_nodes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *all_nodes.borrow() != (scope == Scope::All) {
            return;
        }
    }
}

/// The status code with which the server itself refused, if it did answer.
pub(super) fn refusal(error: &watcher::Error) -> Option<u16> {
    use watcher::Error as E;
    match error {
        E::InitialListFailed(kube::Error::Api(s))
        | E::WatchStartFailed(kube::Error::Api(s))
        | E::WatchFailed(kube::Error::Api(s)) => Some(s.code),
        E::WatchError(s) => Some(s.code),
        _ => None,
    }
}

/// An API server without streaming lists calls the question invalid.
pub(super) fn refuses_streaming(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && matches!(refusal(error), Some(400 | 422))
}

fn explain(error: &watcher::Error, refused: Option<u16>) -> String {
    let text = super::chain(error);
    match refused {
        Some(401) => format!("{text}; the API server does not know our token or certificate"),
        Some(403) => format!("{text}; allow our ServiceAccount to list and watch nodes"),
        _ => text,
    }
}

/// Delays that double, each drawn from its upper half so that nodes do not come back in step.
pub(super) struct Retry {
    delay: Duration,
    last: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { delay: FIRST_RETRY, last: None }
    }
}

impl Retry {
    /// For what succeeds in between, and fails again at once: only a while of peace begins anew.
    pub(super) fn next_in_a_row(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now >= last + PEACE) {
            *self = Self::default();
        }
        self.last = Some(now);
        self.next()
    }

    pub(super) fn next(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST_RETRY);
        let dice = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_micros() % 512);
        delay / 2 + delay / 2 * dice / 512
    }
}
