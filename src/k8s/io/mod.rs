//! The API server and files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod bridge;
mod client;
mod condition;
mod conflist;
mod events;
mod follow;
pub mod former;
mod guarded;
mod leases;
mod objects;
mod plugins;
mod pods;
mod ranges;
mod services;
mod state;
mod status;
mod taint;
mod tend;
mod watch;

use std::{collections::BTreeSet, error::Error, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch::{Receiver, Sender, channel},
    task::JoinHandle,
};

pub(crate) use self::client::credentials;
pub use self::{
    leases::{FILE as LEASES_FILE, FOLDER as LEASES},
    plugins::PluginQuery,
    status::{Reporter, Written},
    tend::FILE as BRIDGE_FILE,
};
use super::{
    bridge::Glance,
    cluster::Cluster,
    cni::{Conflist, Plugins},
    condition::Facts,
    gate::Ready,
    node::Nodes,
    notice::Notice,
    objects::Objects,
    services::{Asked, Services},
    view::{ApiStatus, ConflistState, ConflistStatus},
};
use crate::net::{
    Diagnostic, Prefix,
    text::{PROBLEM_MAX, escaped, untrusted},
};

/// How to find the API server and which Node is ours.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--kubeconfig`; without it the ServiceAccount that is mounted into the pod.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST` and `_PORT`, for the route guard.
    pub service: Option<(String, String)>,
    pub node_name: String,
    /// `cluster.json` lives here.
    pub state_dir: PathBuf,
    /// `kubernetes.service-cidrs`: instead of ServiceCIDR objects.
    pub service_cidrs: Option<Vec<Prefix>>,
}

/// The running watch.
#[derive(Debug)]
pub struct Watch {
    /// What is known of the cluster; from the state folder at first, if there is something.
    pub nodes: Receiver<Arc<Nodes>>,
    pub status: Receiver<ApiStatus>,
    /// Never ends by itself.
    pub task: JoinHandle<()>,
}

/// Watches the own Node, all Nodes while `all_nodes` says so (`Plan::all_nodes`), and ServiceCIDR objects. Never ends, never
/// blocks: an API server that is away, or a kubeconfig that is not there yet, is tried again.
pub fn spawn(options: Options, all_nodes: Receiver<bool>) -> Watch {
    let known = state::load(&options.state_dir, &options.node_name);
    let from_state = known.is_some();
    let mut known = known.unwrap_or_default();
    if let Some(given) = &options.service_cidrs {
        known.service_cidrs.clone_from(given);
    }
    let (ranges_tx, ranges) = channel(None);
    let ranging = ranges::run(options.clone(), ranges_tx);
    let (nodes_tx, nodes) = channel(Arc::new(known.clone()));
    let (status_tx, status) = channel(ApiStatus { from_state, ..ApiStatus::default() });
    let (guarded_tx, guarded) = channel(None);
    let guarding = guarded::run(options.clone(), status.clone(), guarded_tx);
    let keeping = state::keep(options.state_dir.clone(), options.node_name.clone(), nodes.clone());
    let watcher = watch::Watcher {
        cluster: Cluster::new(options.node_name.clone(), known),
        options,
        all_nodes,
        ranges,
        guarded,
        nodes: nodes_tx,
        status: status_tx,
        saying: watch::Saying::default(),
        streaming: true,
        expiries: watch::Retry::default(),
        gathering: watch::Gathering::default(),
    };
    let task = tokio::spawn(async move {
        tokio::join!(watcher.run(), ranging, guarding, keeping);
    });
    Watch { nodes, status, task }
}

/// The running watch of Services.
#[derive(Debug)]
pub struct ServiceWatch {
    /// What is known of Services; from the state folder at first, if the same ones are looked for.
    pub services: Receiver<Arc<Services>>,
    /// Never ends by itself.
    pub task: JoinHandle<()>,
}

/// Watches Services while `asked` (`Plan::services`) asks for any, and EndpointSlices while one of them has local endpoints
/// only. Never ends, never blocks.
pub fn spawn_services(options: Options, asked: Receiver<Arc<Asked>>) -> ServiceWatch {
    let known = services::load(&options.state_dir, &options.node_name, &asked.borrow());
    let (services_tx, services) = channel(Arc::new(known.unwrap_or_default()));
    let keeping =
        services::keep(options.state_dir.clone(), options.node_name.clone(), asked.clone(), services.clone());
    let watcher = services::Watcher::new(options, asked, services_tx);
    let task = tokio::spawn(async move {
        tokio::join!(watcher.run(), keeping);
    });
    ServiceWatch { services, task }
}

/// Where the conflist goes.
#[derive(Clone, Debug)]
pub struct ConflistOptions {
    /// `cni.enabled`.
    pub enabled: bool,
    pub conf_dir: PathBuf,
    pub file: String,
    /// `kept.json` lives here: ranges of former pod CIDRs in which pods still run.
    pub state_dir: PathBuf,
}

/// The task that keeps the file.
#[derive(Debug)]
pub struct ConflistTask {
    pub status: Receiver<ConflistStatus>,
    /// Ranges in which pods may have addresses: those of the file, and former ones. For `plan::Extra`.
    pub held: Receiver<Arc<BTreeSet<Prefix>>>,
    pub task: JoinHandle<()>,
}

/// What the conflist's task is told beside the file that is wanted, and where it puts what the operator should know.
#[derive(Debug)]
pub struct Surroundings {
    /// Changes whenever something happens to the pods' bridge.
    pub bridge: Receiver<Glance>,
    /// Why no conflist is wanted, while none is.
    pub no_conflist: Receiver<String>,
    pub problems: Sender<Vec<Diagnostic>>,
    /// Folder of `host-local`'s leases; `None`: they are not looked after.
    pub leases: Option<PathBuf>,
}

/// Keeps the conflist file as `Plan::conflist` wants it, once `ready` allows.
pub fn spawn_conflist(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<Ready>,
) -> ConflistTask {
    let unknown = "the Node's pod CIDRs are not known, or cannot be used".to_owned();
    let around = Surroundings {
        bridge: channel(Glance::default()).1,
        no_conflist: channel(unknown).1,
        problems: channel(Vec::new()).0,
        leases: None,
    };
    spawn_conflist_in(options, want, ready, around)
}

/// The same, and looks after the bridge of the pods at once when something happens to it.
pub fn spawn_conflist_in(
    options: ConflistOptions,
    want: Receiver<Option<Arc<Conflist>>>,
    ready: Receiver<Ready>,
    around: Surroundings,
) -> ConflistTask {
    let first = match options.enabled {
        true => ConflistStatus {
            path: Some(options.path().display().to_string()),
            state: ConflistState::Waiting,
            ..ConflistStatus::default()
        },
        false => ConflistStatus::default(),
    };
    let (status, seen) = channel(first);
    let (held_tx, held) = channel(Arc::default());
    let former = former::Former::new(&options, held_tx);
    let task = tokio::spawn(async move {
        match options.enabled {
            true => conflist::run(options, want, ready, around, status, former).await,
            false => tokio::join!(status.closed(), former.closed()).0,
        }
    });
    ConflistTask { status: seen, held, task }
}

/// Keeps the condition `NetworkUnavailable` of the own Node true to the facts. Never ends while they are told.
pub fn spawn_condition(
    options: Options,
    facts: Receiver<Facts>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(condition::run(options, facts, nodes))
}

/// Follows BGPPeer and BGPPolicy objects and the Secrets that they name; what the last run knew at first. Never ends while
/// somebody listens.
pub fn spawn_objects(options: Options, nodes: Receiver<Arc<Nodes>>) -> Receiver<Arc<Objects>> {
    let (tx, rx) = channel(Arc::new(objects::load(&options)));
    tokio::spawn(objects::run(options, nodes, tx));
    rx
}

/// Writes the BGPNodeStatus of our own Node.
pub fn reporter(options: Options) -> Reporter {
    Reporter { options }
}

/// Writes Events for what stands. Never ends while it is told.
pub fn spawn_events(
    options: Options,
    standing: Receiver<Arc<BTreeSet<Notice>>>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(events::run(options, standing, nodes))
}

/// Takes the taint `key` off the own Node whenever it is there and the node is ready. Never ends while facts are told.
pub fn spawn_taint(
    options: Options,
    key: String,
    facts: Receiver<Facts>,
    nodes: Receiver<Arc<Nodes>>,
) -> JoinHandle<()> {
    tokio::spawn(taint::run(options, key, facts, nodes))
}

/// How many pods hold the pod CIDRs of this node: those that a drain moves elsewhere.
///
/// # Errors
///
/// Why nobody can say now.
pub async fn pods_left(options: &Options) -> Result<usize, String> {
    pods::left(options).await
}

/// Looks at the CNI plugins that `query` names, again and again, for `plan::Extra`. Ends when nobody listens.
pub fn spawn_plugins(query: Receiver<Option<PluginQuery>>) -> Receiver<Arc<Plugins>> {
    let (tx, rx) = channel(Arc::new(Plugins { pending: true, ..Plugins::default() }));
    tokio::spawn(plugins::run(query, tx));
    rx
}

/// An error with its causes, on one line, each once; where the API server has answered, its code and its own words alone.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            return refused(status);
        }
        let status = error.downcast_ref::<kube::core::Status>();
        if let Some(status) =
            status.or_else(|| error.downcast_ref::<Box<kube::core::Status>>().map(Box::as_ref))
        {
            return refused(status);
        }
        let more = error.to_string();
        match text.contains(&more) {
            true => {}
            false if text.is_empty() => text = more,
            false => text = format!("{text}: {more}"),
        }
        next = error.source();
    }
    escaped(&text.replace('\n', " "), PROBLEM_MAX)
}

fn refused(status: &kube::core::Status) -> String {
    match (status.reason.as_str(), status.message.as_str()) {
        (reason, message) if message.is_empty() || message == reason => format!("{} {reason}", status.code),
        // It may quote what others wrote.
        (reason, message) => {
            format!("{} {}: {}", status.code, untrusted(reason), escaped(message, PROBLEM_MAX))
        }
    }
}

/// RFC 3339, UTC, whole seconds.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher;

    use super::*;

    /// Not as `ApiError: Unauthorized: Unauthorized (Status { status: Some(Failure), code: 401, … })`.
    #[test]
    fn what_the_api_server_refuses_is_one_readable_line() {
        let status = |code, reason: &str, message: &str| {
            Box::new(kube::core::Status {
                code,
                reason: reason.into(),
                message: message.into(),
                ..kube::core::Status::default()
            })
        };
        let cases: [(watcher::Error, &str); 3] = [
            (
                watcher::Error::InitialListFailed(kube::Error::Api(status(
                    401,
                    "Unauthorized",
                    "Unauthorized",
                ))),
                "401 Unauthorized",
            ),
            (
                watcher::Error::WatchStartFailed(kube::Error::Api(status(
                    403,
                    "Forbidden",
                    "nodes is forbidden",
                ))),
                "403 Forbidden: nodes is forbidden",
            ),
            (watcher::Error::WatchError(status(410, "Expired", "too old")), "410 Expired: too old"),
        ];
        for (error, want) in cases {
            assert_eq!(chain(&error), want);
        }
        let long = "\u{1b}[2J".repeat(100_000);
        let quoted = chain(&watcher::Error::WatchError(status(403, "Forbidden", &long)));
        assert!(quoted.len() < 2 * PROBLEM_MAX && !quoted.contains('\u{1b}'), "{quoted}");
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let text = chain(&watcher::Error::WatchFailed(kube::Error::ReadEvents(refused)));
        assert!(text.contains("connection refused") && !text.contains("Status {"), "{text}");
    }
}
