//! Tasks that exchange objects with the API server and save them in the state folder.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod access;
mod client;
mod condition;
pub mod endpoints;
mod error;
mod events;
mod follow;
mod guarded;
mod nodes;
mod objects;
mod pods;
mod ranges;
pub mod reports;
mod services;
mod state;
mod status;
mod taint;
mod watch;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch::{Receiver, channel},
    task::JoinHandle,
};

pub(crate) use self::client::credentials;
pub use self::{
    error::ApiError,
    status::{Reporter, Written},
};
use super::{
    condition::Facts,
    node::Nodes,
    objects::Objects,
    services::{ServiceSelection, Services},
    view::ApiStatus,
};
use crate::net::{Diagnostic, Prefix};

/// How to find the API server and which Node is ours.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--kubeconfig`; without it the ServiceAccount mounted into the pod is used.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST` and `_PORT`, for the route guard.
    pub service: Option<(String, String)>,
    pub node_name: String,
    /// State folder, with `cluster.json`.
    pub state_dir: PathBuf,
    /// `kubernetes.service-cidrs`: instead of ServiceCIDR objects.
    pub service_cidrs: Option<Vec<Prefix>>,
}

/// The running watch of Nodes.
#[derive(Debug)]
pub struct Watch {
    /// The known cluster; initially from the state folder, if it was saved.
    pub nodes: Receiver<Arc<Nodes>>,
    pub status: Receiver<ApiStatus>,
    /// Never ends by itself.
    pub task: JoinHandle<()>,
}

/// Watches our own Node, or all Nodes while `all_nodes` is true (`Plan::all_nodes`), and
/// ServiceCIDR objects. Never ends and never blocks: an unreachable API server or a missing
/// kubeconfig is retried.
pub fn spawn(options: Options, all_nodes: Receiver<bool>) -> Watch {
    let known = state::load(&options.state_dir, &options.node_name);
    let from_state = known.is_some();
    let mut known = known.unwrap_or_default();
    if let Some(given) = &options.service_cidrs {
        known.service_cidrs.clone_from(given);
    }
    let (ranges_tx, ranges) = channel(None);
    let range_task = ranges::run(options.clone(), ranges_tx);
    let (nodes_tx, nodes) = channel(Arc::new(known.clone()));
    let (status_tx, status) = channel(ApiStatus { from_state, ..ApiStatus::default() });
    let (guarded_tx, guarded) = channel(None);
    let guard_task = guarded::run(options.clone(), status.clone(), guarded_tx);
    let save_task = state::keep(options.state_dir.clone(), options.node_name.clone(), nodes.clone());
    let channels = nodes::Channels { all_nodes, ranges, guarded, nodes: nodes_tx, status: status_tx };
    let watcher = nodes::NodeWatch::new(options, known, channels);
    let task = tokio::spawn(async move {
        tokio::join!(watcher.run(), range_task, guard_task, save_task);
    });
    Watch { nodes, status, task }
}

/// The running watch of Services.
#[derive(Debug)]
pub struct ServiceWatch {
    /// The known Services; initially from the state folder, if the selection is the same.
    pub services: Receiver<Arc<Services>>,
    /// Never ends by itself.
    pub task: JoinHandle<()>,
}

/// Watches Services while the `selection` is not empty, and EndpointSlices while one of them
/// requires local endpoints. Never ends and never blocks.
pub fn spawn_services(options: Options, selection: Receiver<Arc<ServiceSelection>>) -> ServiceWatch {
    let known = services::load(&options.state_dir, &options.node_name, &selection.borrow());
    let (services_tx, services) = channel(Arc::new(known.unwrap_or_default()));
    let save_task = services::keep(
        options.state_dir.clone(),
        options.node_name.clone(),
        selection.clone(),
        services.clone(),
    );
    let watcher = services::ServiceWatcher::new(options, selection, services_tx);
    let task = tokio::spawn(async move {
        tokio::join!(watcher.run(), save_task);
    });
    ServiceWatch { services, task }
}

/// Keeps the condition `NetworkUnavailable` of our own Node up to date with the facts. Ends when
/// their sender is dropped.
pub fn spawn_condition(
    options: Options,
    facts: Receiver<Facts>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(condition::run(options, facts, nodes))
}

/// Watches BGPPeer and BGPPolicy objects and reads the Secrets that they reference; initially those
/// of the previous run. Ends when all receivers are dropped.
pub fn spawn_objects(options: Options, nodes: Receiver<Arc<Nodes>>) -> Receiver<Arc<Objects>> {
    let (tx, rx) = channel(Arc::new(objects::load(&options)));
    tokio::spawn(objects::run(options, nodes, tx));
    rx
}

/// Writes the BGPNodeStatus of our own Node.
pub fn reporter(options: Options) -> Reporter {
    Reporter { options }
}

/// Creates Events for the notices that are present. Ends when their sender is dropped.
pub fn spawn_events(
    options: Options,
    standing: Receiver<Arc<BTreeSet<Diagnostic>>>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(events::run(options, standing, nodes))
}

/// Removes the taint `key` from our own Node whenever it is present and the node is ready. Ends
/// when the sender of the facts is dropped.
pub fn spawn_taint(
    options: Options,
    key: String,
    facts: Receiver<Facts>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(taint::run(options, key, facts, nodes))
}

/// The problems of the connection to the API server, and of the rights there.
pub async fn check_access(options: &Options) -> Vec<Diagnostic> {
    access::check(options).await
}

/// The number of pods that need the pod CIDRs of this node: those that a drain moves elsewhere.
///
/// # Errors
///
/// If the API server cannot be reached or denies the request.
pub async fn pods_left(options: &Options) -> Result<usize, ApiError> {
    pods::left(options).await
}

/// RFC 3339, UTC, whole seconds.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
