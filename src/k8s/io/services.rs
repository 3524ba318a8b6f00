//! The task that watches Services, and EndpointSlices where they matter, and publishes [`Services`]. Like the watch of Nodes
//! it outlives every failure: what was last known stays in force, and is kept in the state folder.

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
    state,
    watch::{Retry, WATCH_SECONDS, due, refusal, refuses_streaming},
};
use crate::k8s::services::{ApiService, ApiSlice, Asked, Catalog, Change, Services};

/// Changes within this time are published together: a Deployment that rolls changes many slices at once.
const GATHER: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(5);
/// So many different reasons are logged until the API server answers again.
const REASONS: usize = 8;

/// The watch with its outlet.
pub(super) struct Watcher {
    options: Options,
    asked: watch::Receiver<Arc<Asked>>,
    catalog: Catalog,
    services: watch::Sender<Arc<Services>>,
    /// When what changed is published.
    publish_at: Option<Instant>,
    published: Option<Instant>,
    reasons: BTreeSet<String>,
    streaming: bool,
}

type Words<T> = BoxStream<'static, Result<Event<T>, watcher::Error>>;

/// What an error of a stream leads to.
enum Then {
    /// The stream goes on by itself.
    Wait,
    /// New streams, or a new connection.
    Anew,
}

impl Watcher {
    pub(super) fn new(
        options: Options,
        asked: watch::Receiver<Arc<Asked>>,
        services: watch::Sender<Arc<Services>>,
    ) -> Self {
        Self {
            catalog: Catalog::new(options.node_name.clone()),
            options,
            asked,
            services,
            publish_at: None,
            published: None,
            reasons: BTreeSet::new(),
            streaming: true,
        }
    }

    /// Ends only with whoever asks.
    pub(super) async fn run(mut self) {
        let mut last = None;
        loop {
            let asked = self.asked.borrow_and_update().clone();
            if last.as_ref() != Some(&asked) {
                self.catalog.ask(Asked::clone(&asked));
                self.publish_at = None;
                last = Some(asked.clone());
            }
            if asked.is_empty() {
                self.services.send_if_modified(|s| !std::mem::take(s).offers.is_empty());
                if self.asked.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match client::connect(&self.options).await {
                Ok(connection) => self.follow(&connection).await,
                // The watch of Nodes says so.
                Err(_) => sleep(RETRY).await,
            }
            if self.asked.has_changed().is_err() {
                return;
            }
        }
    }

    /// Both streams, until other Services are asked for or the connection must be made anew.
    async fn follow(&mut self, connection: &Connection) {
        let mut services = words::<ApiService>(connection, self.config());
        let mut slices: Option<Words<ApiSlice>> = None;
        loop {
            match (self.catalog.needs_slices(), &slices) {
                (true, None) => slices = Some(words(connection, self.config().labels(NO_HEADLESS))),
                (false, Some(_)) => {
                    slices = None;
                    self.catalog.forget_slices();
                }
                _ => {}
            }
            // Cancel safe: streams keep their own state, whoever stops waiting for them.
            let then = tokio::select! {
                _ = self.asked.changed() => Then::Anew,
                () = due(self.publish_at) => {
                    self.publish();
                    Then::Wait
                }
                item = services.next() => match item {
                    Some(Ok(event)) => {
                        let changed = self.catalog.service(change(event));
                        self.answered(changed)
                    }
                    Some(Err(error)) => self.failed(connection, &error, "services"),
                    None => Then::Anew,
                },
                item = next(&mut slices) => match item {
                    Some(Ok(event)) => {
                        let changed = self.catalog.slice(change(event));
                        self.answered(changed)
                    }
                    Some(Err(error)) => {
                        if refusal(&error) == Some(403) && self.catalog.no_slices() {
                            self.changed();
                        }
                        self.failed(connection, &error, "endpointslices")
                    }
                    None => Then::Anew,
                },
            };
            if matches!(then, Then::Anew) {
                return;
            }
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        if self.streaming { config.streaming_lists() } else { config }
    }

    fn answered(&mut self, changed: bool) -> Then {
        self.reasons.clear();
        if changed {
            self.changed();
        }
        Then::Wait
    }

    fn changed(&mut self) {
        let earliest = self.published.map_or_else(Instant::now, |at| at + GATHER);
        self.publish_at.get_or_insert(earliest);
    }

    fn failed(&mut self, connection: &Connection, error: &watcher::Error, what: &str) -> Then {
        if self.streaming && refuses_streaming(error) {
            debug!("API server has no streaming lists, falling back to list and watch");
            self.streaming = false;
            return Then::Anew;
        }
        let refused = refusal(error);
        let text = super::chain(error);
        if refused != Some(410) && self.reasons.len() < REASONS && self.reasons.insert(text.clone()) {
            match refused {
                Some(403) => warn!(
                    error = %text,
                    "Services are not followed; allow our ServiceAccount to list and watch {what} (deploy/daemonset.yaml), or set kubernetes.service-annotations = []"
                ),
                _ => debug!(error = %text, what, "watch failed, trying again"),
            }
        }
        if refused == Some(401) || connection.is_stale(&self.options) { Then::Anew } else { Then::Wait }
    }

    fn publish(&mut self) {
        self.publish_at = None;
        let Some(services) = self.catalog.services() else { return };
        self.published = Some(Instant::now());
        self.services.send_if_modified(|last| {
            let changed = **last != services;
            if changed {
                if last.offers.len() != services.offers.len() {
                    info!(addresses = services.offers.len(), "Services are known");
                }
                *last = Arc::new(services);
            }
            changed
        });
    }
}

/// A stream that waits before it tries again.
fn words<T>(connection: &Connection, config: watcher::Config) -> Words<T>
where
    T: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let patience = Patience(Retry::default());
    watcher(Api::<T>::all(connection.client.clone()), config).backoff(patience).boxed()
}

/// How long a stream waits between attempts: as the watch of Nodes does.
struct Patience(Retry);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next_in_a_row(Instant::now()))
    }
}

impl Backoff for Patience {
    /// A listing that begins is a success to the stream, before anybody was asked.
    fn reset(&mut self) {}
}

/// Waits for ever where there is no stream. Cancel safe.
async fn next<T>(stream: &mut Option<Words<T>>) -> Option<Result<Event<T>, watcher::Error>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

fn change<T>(event: Event<T>) -> Change<T> {
    match event {
        Event::Init => Change::Begin,
        Event::InitApply(object) => Change::Listed(object),
        Event::InitDone => Change::Whole,
        Event::Apply(object) => Change::Changed(object),
        Event::Delete(object) => Change::Gone(object),
    }
}

/// `services.json`.
#[derive(Serialize, Deserialize)]
struct Saved<A, S> {
    version: u32,
    node: String,
    asked: A,
    services: S,
}

/// What the last run knew, if it was the same node and looked for the same. Anything unreadable counts as nothing.
pub(super) fn load(dir: &Path, node: &str, asked: &Asked) -> Option<Services> {
    let saved: Saved<Asked, Services> = serde_json::from_slice(&crate::state::io::read(&file(dir))?).ok()?;
    (saved.version == VERSION && saved.node == node && saved.asked == *asked).then_some(saved.services)
}

/// Writes each state that is published, until the watch ends.
pub(super) async fn keep(
    dir: PathBuf,
    node: String,
    asked: watch::Receiver<Arc<Asked>>,
    mut services: watch::Receiver<Arc<Services>>,
) {
    while services.changed().await.is_ok() {
        let (services, asked) = (services.borrow_and_update().clone(), asked.borrow().clone());
        let (dir, node) = (dir.clone(), node.clone());
        let _ = tokio::task::spawn_blocking(move || save(&dir, node, &asked, &services)).await;
        sleep(state::GATHER).await;
    }
}

fn save(dir: &Path, node: String, asked: &Asked, services: &Services) {
    let saved = Saved { version: VERSION, node, asked, services };
    crate::state::io::keep(&file(dir), serde_json::to_vec(&saved).unwrap_or_default(), 0o600);
}

fn file(dir: &Path) -> PathBuf {
    dir.join("services.json")
}

const VERSION: u32 = 1;
/// Objects in one page of a listing, since whoever may write them can make each megabytes long.
const PAGE: u32 = 50;
const NO_HEADLESS: &str = "!service.kubernetes.io/headless";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        k8s::services::{Here, Offer, Places},
        net::ServiceAddresses,
    };

    #[test]
    fn what_was_known_is_read_back_where_the_same_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked { kinds: [ServiceAddresses::ClusterIp].into(), ..Asked::default() };
        let places = Places { here: Here::Ready, elsewhere: ["n2".to_owned()].into(), ..Places::default() };
        let offer = Offer {
            service: "default/web".into(),
            kind: ServiceAddresses::ClusterIp,
            local: Some(places),
            served: None,
            excess: None,
        };
        let offers = [("10.96.0.7".parse().unwrap(), vec![offer])].into();
        let services = Services { offers, problems: vec!["x".into()], ..Services::default() };
        save(dir.path(), "n1".into(), &asked, &services);
        crate::state::io::flush(Duration::from_secs(10));
        assert_eq!(load(dir.path(), "n1", &asked), Some(services));
        assert_eq!(load(dir.path(), "n2", &asked), None, "a copied state folder");
        assert_eq!(load(dir.path(), "n1", &Asked::default()), None, "another configuration");
    }
}
