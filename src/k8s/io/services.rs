//! The task that watches Services, and EndpointSlices if needed, and publishes [`Services`]. Like
//! the watch of Nodes it survives every failure: the last known state stays in force, and is saved
//! in the state folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::watcher;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tracing::info;

use super::{
    Options, state,
    watch::{News, Source, Watcher, due, next},
};
use crate::k8s::{
    services::{ApiService, ApiSlice, ServiceCache, ServiceSelection, Services},
    watch::{Cause, Debounce, Report, Role},
};

/// Changes within this time are published together: a rolling update changes many slices at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
const REMEDY: &str =
    "apply the ClusterRole of deploy/daemonset.yaml, or set kubernetes.service-annotations = []";

/// Watches Services.
pub(super) struct ServiceWatcher {
    options: Options,
    selection: watch::Receiver<Arc<ServiceSelection>>,
    /// The selection of the cache.
    selected: Arc<ServiceSelection>,
    cache: ServiceCache,
    output: watch::Sender<Arc<Services>>,
    debounce: Debounce,
    services: Option<Watcher<ApiService>>,
    slices: Option<Watcher<ApiSlice>>,
}

impl ServiceWatcher {
    pub(super) fn new(
        options: Options,
        selection: watch::Receiver<Arc<ServiceSelection>>,
        output: watch::Sender<Arc<Services>>,
    ) -> Self {
        Self {
            cache: ServiceCache::new(options.node_name.clone()),
            options,
            selection,
            selected: Arc::default(),
            output,
            debounce: Debounce::new(DEBOUNCE),
            services: None,
            slices: None,
        }
    }

    /// Runs until the sender of the selection is gone.
    pub(super) async fn run(mut self) {
        self.select();
        loop {
            // Each arm is cancel safe.
            tokio::select! {
                changed = self.selection.changed() => match changed {
                    Ok(()) => self.select(),
                    Err(_) => return,
                },
                () = due(self.debounce.due()) => self.publish(),
                News { change, .. } = next(&mut self.services) => {
                    if change.is_some_and(|change| self.cache.service(change)) {
                        self.watch_slices();
                        self.debounce.changed(Instant::now());
                    }
                }
                News { change, report } = next(&mut self.slices) => {
                    let denied = matches!(report, Some(Report::Failed { cause: Cause::Denied, .. }));
                    let is_new = denied && self.cache.set_slices_forbidden();
                    if is_new || change.is_some_and(|change| self.cache.slice(change)) {
                        self.debounce.changed(Instant::now());
                    }
                }
            }
        }
    }

    /// Lists the Services of another selection.
    fn select(&mut self) {
        let selection = self.selection.borrow_and_update().clone();
        if selection != self.selected {
            self.cache.select(ServiceSelection::clone(&selection));
            self.debounce.discard();
            (self.services, self.slices) = (None, None);
            self.selected = selection;
        }
        if self.selected.is_empty() {
            self.output.send_if_modified(|s| !std::mem::take(s).addresses.is_empty());
        } else if self.services.is_none() {
            self.services = Some(Watcher::new(self.options.clone(), source(watcher::Config::default())));
        }
    }

    /// Watches EndpointSlices while a Service needs them.
    fn watch_slices(&mut self) {
        match (self.cache.needs_slices(), &self.slices) {
            (true, None) => {
                let connection = self.services.as_ref().and_then(Watcher::connection).cloned();
                let source = source(watcher::Config::default().labels(NO_HEADLESS));
                self.slices = Some(Watcher::new(self.options.clone(), source).over(connection));
            }
            (false, Some(_)) => {
                self.slices = None;
                self.cache.forget_slices();
            }
            _ => {}
        }
    }

    fn publish(&mut self) {
        self.debounce.published(Instant::now());
        let Some(services) = self.cache.services() else { return };
        self.output.send_if_modified(|last| {
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

/// The source for a kind that users may write, which is listed in pages.
fn source<K: kube::Resource<DynamicType = ()>>(config: watcher::Config) -> Source<K> {
    Source { kind: (), role: Role::Required, config: config.page_size(PAGE), remedy: REMEDY }
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
