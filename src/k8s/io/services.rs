//! The task that watches Services, and EndpointSlices if needed, and publishes [`Services`]. Like
//! the watch of Nodes it survives every failure: the last known state stays in force, and is saved
//! in the state folder.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::{
    Options,
    client::{self, Connection},
    error::chain,
    state,
    watch::{Retry, WATCH_SECONDS, due, refusal, refuses_streaming},
};
use crate::k8s::services::{ApiService, ApiSlice, Change, ServiceCache, ServiceSelection, Services};

/// Changes within this time are published together: a rolling update changes many slices at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Time to the next attempt to connect.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of different errors that are logged until the API server responds again.
const MAX_LOGGED_ERRORS: usize = 8;

/// The watch and its output.
pub(super) struct Watcher {
    options: Options,
    selection: watch::Receiver<Arc<ServiceSelection>>,
    cache: ServiceCache,
    services: watch::Sender<Arc<Services>>,
    /// When to publish pending changes.
    publish_at: Option<Instant>,
    published: Option<Instant>,
    logged_errors: BTreeSet<String>,
    streaming: bool,
}

type Events<T> = BoxStream<'static, Result<Event<T>, watcher::Error>>;

/// How to proceed after an event.
enum Next {
    /// The streams continue.
    Continue,
    /// New streams, or a new connection.
    Restart,
}

impl Watcher {
    pub(super) fn new(
        options: Options,
        selection: watch::Receiver<Arc<ServiceSelection>>,
        services: watch::Sender<Arc<Services>>,
    ) -> Self {
        Self {
            cache: ServiceCache::new(options.node_name.clone()),
            options,
            selection,
            services,
            publish_at: None,
            published: None,
            logged_errors: BTreeSet::new(),
            streaming: true,
        }
    }

    /// Runs until the sender of the selection is gone.
    pub(super) async fn run(mut self) {
        let mut last = None;
        loop {
            let selection = self.selection.borrow_and_update().clone();
            if last.as_ref() != Some(&selection) {
                self.cache.select(ServiceSelection::clone(&selection));
                self.publish_at = None;
                last = Some(selection.clone());
            }
            if selection.is_empty() {
                self.services.send_if_modified(|s| !std::mem::take(s).addresses.is_empty());
                if self.selection.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match client::connect(&self.options).await {
                Ok(connection) => self.follow(&connection).await,
                // The watch of Nodes reports the error.
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
            if self.selection.has_changed().is_err() {
                return;
            }
        }
    }

    /// Follows both streams until the selection changes or a new connection is needed.
    async fn follow(&mut self, connection: &Connection) {
        let mut services = events::<ApiService>(connection, self.config());
        let mut slices: Option<Events<ApiSlice>> = None;
        loop {
            match (self.cache.needs_slices(), &slices) {
                (true, None) => slices = Some(events(connection, self.config().labels(NO_HEADLESS))),
                (false, Some(_)) => {
                    slices = None;
                    self.cache.forget_slices();
                }
                _ => {}
            }
            // Cancel safe: the streams keep their own state.
            let then = tokio::select! {
                _ = self.selection.changed() => Next::Restart,
                () = due(self.publish_at) => {
                    self.publish();
                    Next::Continue
                }
                item = services.next() => match item {
                    Some(Ok(event)) => {
                        let changed = self.cache.service(change(event));
                        self.received(changed)
                    }
                    Some(Err(error)) => self.failed(connection, &error, "services"),
                    None => Next::Restart,
                },
                item = next(&mut slices) => match item {
                    Some(Ok(event)) => {
                        let changed = self.cache.slice(change(event));
                        self.received(changed)
                    }
                    Some(Err(error)) => {
                        if refusal(&error) == Some(403) && self.cache.set_slices_forbidden() {
                            self.changed();
                        }
                        self.failed(connection, &error, "endpointslices")
                    }
                    None => Next::Restart,
                },
            };
            if matches!(then, Next::Restart) {
                return;
            }
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        if self.streaming { config.streaming_lists() } else { config }
    }

    fn received(&mut self, changed: bool) -> Next {
        self.logged_errors.clear();
        if changed {
            self.changed();
        }
        Next::Continue
    }

    fn changed(&mut self) {
        let earliest = self.published.map_or_else(Instant::now, |at| at + DEBOUNCE);
        self.publish_at.get_or_insert(earliest);
    }

    fn failed(&mut self, connection: &Connection, error: &watcher::Error, what: &str) -> Next {
        if self.streaming && refuses_streaming(error) {
            debug!("streaming lists not supported by the API server, using list and watch");
            self.streaming = false;
            return Next::Restart;
        }
        let refused = refusal(error);
        let text = chain(error);
        if refused != Some(410)
            && self.logged_errors.len() < MAX_LOGGED_ERRORS
            && self.logged_errors.insert(text.clone())
        {
            match refused {
                Some(403) => warn!(
                    resource = what,
                    error = %text,
                    "watch of Services forbidden; allow our ServiceAccount to list and watch this resource (deploy/daemonset.yaml), or set kubernetes.service-annotations = []"
                ),
                _ => debug!(error = %text, resource = what, "watch failed, retrying"),
            }
        }
        if refused == Some(401) || connection.is_stale(&self.options) {
            Next::Restart
        } else {
            Next::Continue
        }
    }

    fn publish(&mut self) {
        self.publish_at = None;
        let Some(services) = self.cache.services() else { return };
        self.published = Some(Instant::now());
        self.services.send_if_modified(|last| {
            let changed = **last != services;
            if changed {
                if last.addresses.len() != services.addresses.len() {
                    info!(addresses = services.addresses.len(), "Service addresses updated");
                }
                *last = Arc::new(services);
            }
            changed
        });
    }
}

/// A stream of events that waits before it retries.
fn events<T>(connection: &Connection, config: watcher::Config) -> Events<T>
where
    T: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let backoff = RetryBackoff(Retry::default());
    watcher(Api::<T>::all(connection.client.clone()), config).backoff(backoff).boxed()
}

/// The back-off of the watch of Nodes, for streams.
struct RetryBackoff(Retry);

impl Iterator for RetryBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next_in_a_row(Instant::now()))
    }
}

impl Backoff for RetryBackoff {
    /// Does nothing: the stream calls it when a list starts, before the API server has responded.
    fn reset(&mut self) {}
}

/// The next event; waits forever if there is no stream. Cancel safe.
async fn next<T>(stream: &mut Option<Events<T>>) -> Option<Result<Event<T>, watcher::Error>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

fn change<T>(event: Event<T>) -> Change<T> {
    match event {
        Event::Init => Change::ListStarted,
        Event::InitApply(object) => Change::Listed(object),
        Event::InitDone => Change::ListDone,
        Event::Apply(object) => Change::Applied(object),
        Event::Delete(object) => Change::Deleted(object),
    }
}

/// `services.json`.
#[derive(Serialize, Deserialize)]
struct Saved<A, S> {
    version: u32,
    node: String,
    #[serde(rename = "asked")]
    selection: A,
    services: S,
}

/// The Services of the previous run, if they are of the same node and selection. An unreadable file
/// is ignored.
pub(super) fn load(dir: &Path, node: &str, selection: &ServiceSelection) -> Option<Services> {
    let saved: Saved<ServiceSelection, Services> =
        serde_json::from_slice(&crate::state::io::read(&file(dir))?).ok()?;
    (saved.version == VERSION && saved.node == node && saved.selection == *selection)
        .then_some(saved.services)
}

/// Saves each published state until the watch ends.
pub(super) async fn keep(
    dir: PathBuf,
    node: String,
    selection: watch::Receiver<Arc<ServiceSelection>>,
    mut services: watch::Receiver<Arc<Services>>,
) {
    while services.changed().await.is_ok() {
        let (services, selection) = (services.borrow_and_update().clone(), selection.borrow().clone());
        let (dir, node) = (dir.clone(), node.clone());
        let _ = tokio::task::spawn_blocking(move || save(&dir, node, &selection, &services)).await;
        sleep(state::SAVE_INTERVAL).await;
    }
}

fn save(dir: &Path, node: String, selection: &ServiceSelection, services: &Services) {
    let saved = Saved { version: VERSION, node, selection, services };
    crate::state::io::keep(&file(dir), serde_json::to_vec(&saved).unwrap_or_default(), 0o600);
}

fn file(dir: &Path) -> PathBuf {
    dir.join("services.json")
}

const VERSION: u32 = 1;
/// Objects per page of a list: users who may write them can make each megabytes long.
const PAGE: u32 = 50;
const NO_HEADLESS: &str = "!service.kubernetes.io/headless";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        k8s::services::{EndpointLocality, LocalEndpoints, ServiceAddress},
        net::{Diagnostic, Reason, ServiceAddresses, Subject},
    };

    #[test]
    fn saved_services_are_loaded_for_the_same_selection() {
        let dir = tempfile::tempdir().unwrap();
        let selection =
            ServiceSelection { kinds: [ServiceAddresses::ClusterIp].into(), ..ServiceSelection::default() };
        let places = EndpointLocality {
            local: LocalEndpoints::Ready,
            elsewhere: ["n2".to_owned()].into(),
            ..EndpointLocality::default()
        };
        let offer = ServiceAddress {
            service: "default/web".into(),
            kind: ServiceAddresses::ClusterIp,
            local: Some(places),
            served: None,
            excess: None,
        };
        let addresses = [("10.96.0.7".parse().unwrap(), vec![offer])].into();
        let problem = Diagnostic::new(Reason::ServiceLimit, Subject::host(), "x", "y");
        let services = Services { addresses, problems: vec![problem], ..Services::default() };
        save(dir.path(), "n1".into(), &selection, &services);
        crate::state::io::flush(Duration::from_secs(10));
        assert_eq!(load(dir.path(), "n1", &selection), Some(services));
        assert_eq!(load(dir.path(), "n2", &selection), None, "a copied state folder");
        assert_eq!(load(dir.path(), "n1", &ServiceSelection::default()), None, "another configuration");
    }
}
