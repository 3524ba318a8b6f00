//! The API server and files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

use std::{path::PathBuf, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};

use super::{
    cni::Conflist,
    gate::Ready,
    node::Nodes,
    view::{ApiStatus, ConflistStatus},
};

/// How to find the API server and which Node is ours.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--kubeconfig`; without it the ServiceAccount that is mounted into the pod.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST` and `_PORT`, for the in-cluster client and the route guard.
    pub service: Option<(String, String)>,
    pub node_name: String,
    /// `cluster.json` lives here.
    pub state_dir: PathBuf,
    /// `kubernetes.service-cidrs`; `None`: from ServiceCIDR objects.
    pub service_cidrs: Option<Vec<crate::net::Prefix>>,
}

/// The running watch.
#[derive(Debug)]
pub struct Watch {
    pub nodes: watch::Receiver<Arc<Nodes>>,
    pub status: watch::Receiver<ApiStatus>,
    pub task: JoinHandle<()>,
}

/// Watches the own Node, and all Nodes while `all_nodes` says so (`Plan::all_nodes`). Never ends, never blocks: an API
/// server that is away, or a kubeconfig that is not there yet, is tried again.
pub fn spawn(options: Options, all_nodes: watch::Receiver<bool>) -> Watch {
    let (nodes_tx, nodes) = watch::channel(Arc::default());
    let (status_tx, status) = watch::channel(ApiStatus::default());
    let task = tokio::spawn(async move {
        let _keep = (options, all_nodes, nodes_tx, status_tx);
        std::future::pending::<()>().await;
    });
    Watch { nodes, status, task }
}

/// Where the conflist goes.
#[derive(Clone, Debug)]
pub struct ConflistOptions {
    pub conf_dir: PathBuf,
    pub file: String,
    pub bin_dir: PathBuf,
}

/// Keeps the conflist file as `Plan::conflist` wants it, once `ready` allows.
pub fn spawn_conflist(
    options: ConflistOptions,
    want: watch::Receiver<Option<Arc<Conflist>>>,
    ready: watch::Receiver<Ready>,
) -> (watch::Receiver<ConflistStatus>, JoinHandle<()>) {
    let (tx, rx) = watch::channel(ConflistStatus::default());
    let task = tokio::spawn(async move {
        let _keep = (options, want, ready, tx);
        std::future::pending::<()>().await;
    });
    (rx, task)
}
