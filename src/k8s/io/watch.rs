//! The task that watches Nodes and publishes [`Nodes`]. It survives every failure of the API
//! server: the last known state stays in force.

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
    error::{chain, response},
};
use crate::{
    k8s::{
        cluster::{Cluster, Scope},
        node::{ApiNode, Nodes},
        view::ApiStatus,
    },
    net::Prefix,
};

/// A watch ends after this many seconds and is resumed, to detect connections that died silently.
pub(super) const WATCH_SECONDS: u32 = 180;
/// Maximum time without progress of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Changes within this time are published together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A resumed watch without an error for this long is considered connected; longer than connecting
/// takes.
const CONNECTED_AFTER: Duration = Duration::from_secs(8);
/// How long to wait after the first list for the state of the admission policy.
const GUARDED_TIMEOUT: Duration = Duration::from_secs(1);
/// First and maximum delay of the back-off.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The back-off restarts after this time without a failure.
const BACKOFF_RESET: Duration = Duration::from_secs(60);
/// How often the log repeats what the node is waiting for.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of different errors that are logged during one outage.
const MAX_LOGGED_ERRORS: usize = 8;

/// The watch and its outputs.
pub(super) struct Watcher {
    pub(super) options: Options,
    pub(super) all_nodes: watch::Receiver<bool>,
    /// Ranges of ServiceCIDR objects, once they were listed.
    pub(super) ranges: watch::Receiver<Option<Vec<Prefix>>>,
    /// Whether kubelets are prevented from setting our labels and annotations, once that is known.
    pub(super) guarded: watch::Receiver<Option<bool>>,
    pub(super) cluster: Cluster,
    pub(super) nodes: watch::Sender<Arc<Nodes>>,
    pub(super) status: watch::Sender<ApiStatus>,
    pub(super) log: LogState,
    /// Whether the API server supports streaming lists (1.32 with etcd 3.6), as far as known.
    pub(super) streaming: bool,
    /// Back-off between lists after an expired resource version.
    pub(super) expiries: Retry,
    pub(super) debounce: Debounce,
}

/// The first change is published at once, and those that follow within [`DEBOUNCE`] together, since
/// each recomputes the whole plan.
#[derive(Default)]
pub(super) struct Debounce {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Debounce {
    fn changed(&mut self, now: Instant) {
        self.due.get_or_insert(self.last.map_or(now, |last| now.max(last + DEBOUNCE)));
    }

    fn published(&mut self, now: Instant) {
        *self = Self { due: None, last: Some(now) };
    }
}

/// What was logged last.
#[derive(Default)]
pub(super) struct LogState {
    missing: Option<&'static str>,
    at: Option<Instant>,
    ready: bool,
    /// Errors logged during the present outage.
    errors: BTreeSet<String>,
}

/// Why a stream ended.
enum StreamEnd {
    /// A new stream with other parameters is needed.
    Changed,
    /// A new connection with new credentials is needed.
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
                    self.connection_lost(error.to_string());
                    sleep(retry.next()).await;
                    continue;
                }
            };
            self.cluster.nodes_mut().api_servers.clone_from(&connection.servers);
            while !matches!(self.follow(&connection, &mut retry).await, StreamEnd::Credentials) {}
        }
    }

    /// Processes one stream of events until another one is needed.
    async fn follow(&mut self, connection: &Connection, retry: &mut Retry) -> StreamEnd {
        let scope = if *self.all_nodes.borrow_and_update() { Scope::All } else { Scope::Own };
        let config = self.config(scope);
        let mut stream = pin!(watcher(Api::<ApiNode>::all(connection.client.clone()), config));
        let mut remind = tokio::time::interval(REMINDER_INTERVAL);
        // Whether the list is incomplete.
        let mut listing = true;
        loop {
            let lost = !listing && !self.status.borrow().connected;
            let wait = if lost { CONNECTED_AFTER } else { LIST_TIMEOUT };
            // Cancel safe: the stream keeps its own state.
            let item = tokio::select! {
                item = timeout(wait, stream.next()) => item,
                _ = remind.tick() => {
                    self.remind();
                    continue;
                }
                () = scope_changed(&mut self.all_nodes, scope) => return StreamEnd::Changed,
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
                () = due(self.debounce.due) => {
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
                    if self.apply(event, scope) {
                        *retry = Retry::default();
                        if mem::replace(&mut listing, false) {
                            self.wait_for_guarded().await;
                        }
                    }
                }
                Ok(Some(Err(error))) if self.streaming && refuses_streaming(&error) => {
                    debug!("streaming lists not supported by the API server, using list and watch");
                    self.streaming = false;
                    return StreamEnd::Changed;
                }
                Ok(Some(Err(error))) => {
                    let refused = refusal(&error);
                    if refused == Some(410) {
                        // Expired resource version: the stream lists again by itself.
                        listing = true;
                        sleep(self.expiries.next_in_a_row(Instant::now())).await;
                        continue;
                    }
                    self.connection_lost(explain(&error, refused));
                    self.wait_for_response(connection, retry, refused.is_some()).await;
                    if refused == Some(401) || connection.is_stale(&self.options) {
                        return StreamEnd::Credentials;
                    }
                }
                Ok(None) => return StreamEnd::Changed,
                Err(_) if listing => {
                    self.connection_lost("list of Nodes timed out".into());
                    self.streaming = false;
                    return StreamEnd::Changed;
                }
                // A resumed watch sends nothing until a Node changes.
                Err(_) => {
                    *retry = Retry::default();
                    self.connected();
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

    /// Applies an event. Returns whether the list is complete afterwards.
    fn apply(&mut self, event: Event<ApiNode>, scope: Scope) -> bool {
        let now = Instant::now();
        let complete = match event {
            Event::Init => {
                self.cluster.begin_list(scope);
                false
            }
            Event::InitApply(node) => {
                self.cluster.apply(now, &node, true);
                false
            }
            Event::InitDone => {
                self.cluster.end_list(now);
                true
            }
            Event::Apply(node) => {
                self.cluster.apply(now, &node, false);
                true
            }
            Event::Delete(node) => {
                self.cluster.delete(now, &node);
                true
            }
        };
        if complete {
            self.connected();
            self.status.send_if_modified(|s| mem::take(&mut s.from_state));
            self.debounce.changed(now);
        }
        complete
    }

    fn take_ranges(&mut self) {
        if let Some(ranges) = self.ranges.borrow_and_update().clone() {
            self.cluster.nodes_mut().service_cidrs = ranges;
        }
        self.publish();
    }

    /// The election of reflectors depends on it, so the first plan should include it.
    async fn wait_for_guarded(&mut self) {
        if self.cluster.nodes().guarded.is_none() {
            let _ = timeout(GUARDED_TIMEOUT, self.guarded.wait_for(Option::is_some)).await;
            self.take_guarded();
        }
    }

    /// Returns whether it changed.
    fn take_guarded(&mut self) -> bool {
        let guarded = *self.guarded.borrow_and_update();
        guarded.is_some_and(|guarded| self.cluster.set_guarded(guarded))
    }

    fn publish(&mut self) {
        self.debounce.published(Instant::now());
        let nodes = self.cluster.nodes();
        self.nodes.send_if_modified(|last| {
            let changed = **last != *nodes;
            if changed {
                *last = Arc::new(nodes.clone());
            }
            changed
        });
        self.log_progress();
    }

    /// Waits until the API server responds, by a small request per interval, so that the end of an
    /// outage is detected even if no Node changes. Returns after one interval if the server
    /// `responded` with an error.
    async fn wait_for_response(&mut self, connection: &Connection, retry: &mut Retry, responded: bool) {
        loop {
            sleep(retry.next()).await;
            if responded || connection.is_stale(&self.options) {
                return;
            }
            let request =
                hyper::http::Request::get("/readyz").body(Vec::new()).expect("a constant request is valid");
            match timeout(Duration::from_secs(3), connection.client.request_text(request)).await {
                Ok(Ok(_)) => return self.connected(),
                Ok(Err(kube::Error::Api(status))) if status.code != 500 => return self.connected(),
                Ok(Err(error)) => self.connection_lost(chain(&error)),
                Err(_) => self.connection_lost("no response within 3 s".into()),
            }
        }
    }

    fn connected(&mut self) {
        self.status.send_if_modified(|s| {
            let changed = !s.connected;
            if changed {
                info!("connected to the API server");
                s.connected = true;
                s.since = Some(super::timestamp());
            }
            changed
        });
        self.log.errors.clear();
    }

    fn connection_lost(&mut self, error: String) {
        if self.log.errors.len() < MAX_LOGGED_ERRORS && self.log.errors.insert(error.clone()) {
            warn!(%error, "API server unreachable, last known state stays in force, retrying");
        }
        self.status.send_if_modified(|s| {
            if s.connected || s.since.is_none() {
                s.connected = false;
                s.since = Some(super::timestamp());
            }
            let changed = s.last_error.as_ref() != Some(&error);
            s.last_error = Some(error);
            changed
        });
    }

    /// Logs once what the node is waiting for, and once that it is known.
    fn log_progress(&mut self) {
        let missing = self.cluster.nodes().missing();
        match missing {
            Some(what) if self.log.missing != missing => {
                info!(node = self.options.node_name, missing = what, "waiting for the Node");
                self.log.at = Some(Instant::now());
                self.log.ready = false;
            }
            None if !self.log.ready => {
                if let Some(own) = &self.cluster.nodes().own {
                    info!(node = own.name, pod_cidrs = ?own.pod_cidrs, addresses = ?own.addresses, "Node is known");
                }
                self.log.ready = true;
            }
            _ => {}
        }
        self.log.missing = missing;
    }

    fn remind(&mut self) {
        let due = self.log.at.is_some_and(|at| at.elapsed() >= REMINDER_INTERVAL / 2);
        if let Some(what) = self.log.missing.filter(|_| due) {
            info!(node = self.options.node_name, missing = what, "still waiting for the Node");
        }
    }
}

/// Waits until then; forever without a time. Cancel safe.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until the scope must change. Cancel safe.
async fn scope_changed(all_nodes: &mut watch::Receiver<bool>, scope: Scope) {
    loop {
        if all_nodes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *all_nodes.borrow() != (scope == Scope::All) {
            return;
        }
    }
}

/// The status code of the server's response, if there was one.
pub(super) fn refusal(error: &watcher::Error) -> Option<u16> {
    response(error).map(|status| status.code)
}

/// Whether the error means that the API server does not support streaming lists.
pub(super) fn refuses_streaming(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && matches!(refusal(error), Some(400 | 422))
}

fn explain(error: &watcher::Error, refused: Option<u16>) -> String {
    let text = chain(error);
    match refused {
        Some(401) => format!("{text}; the API server rejects our token or certificate"),
        Some(403) => format!("{text}; allow our ServiceAccount to list and watch nodes"),
        _ => text,
    }
}

/// Exponential back-off with jitter: each delay is drawn from its upper half, so that nodes do not
/// retry in step.
pub(super) struct Retry {
    delay: Duration,
    last: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { delay: MIN_BACKOFF, last: None }
    }
}

impl Retry {
    /// The next delay for operations that succeed in between and fail again at once: only a time
    /// without failures restarts the back-off.
    pub(super) fn next_in_a_row(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now >= last + BACKOFF_RESET) {
            *self = Self::default();
        }
        self.last = Some(now);
        self.next()
    }

    /// The next delay.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_BACKOFF);
        let jitter = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_micros() % 512);
        delay / 2 + delay / 2 * jitter / 512
    }
}
