//! The start: creates the channels and spawns the tasks. Where the order matters, a comment gives
//! the reason.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{
    Error, RunOptions,
    cluster::Cluster,
    context::Context,
    core::Core,
    drain::Drainer,
    events, journal,
    listeners::{self, Move},
    planner::{Outputs, Planner},
    problems,
    queries::QueryHandler,
    reload::{self, Reloader, Started},
    report,
    room::Limit,
    shutdown::{Running, Signals},
    trends,
};
use crate::{
    bgp::peer::PeerKey,
    cli::log::LogLevel,
    control::io::server::{self, ControlSocket},
    net::Reachable,
};

/// How long the start waits until the host's sysctls were checked.
const SYSCTL_TIMEOUT: Duration = Duration::from_secs(2);

/// What `run` has read before any task starts.
pub(super) struct Launch {
    pub(super) options: RunOptions,
    pub(super) started: Started,
    /// Whether options or environment refer to an API server.
    pub(super) offered: bool,
    pub(super) log: LogLevel,
    pub(super) limit: Limit,
}

/// Starts all tasks, and runs until a signal arrives.
///
/// # Errors
///
/// If the host denies what the daemon requires, or a task ends unexpectedly.
pub(super) async fn daemon(launch: Launch) -> Result<(), Error> {
    // Before anything is changed: a signal that arrives during the start is handled after it.
    let signals = Signals::new()?;
    let running = start(launch).await?;
    // Services that start after us may check forwarding, as Docker does.
    let mut forwarding = running.core.forwarding.clone();
    let _ = tokio::time::timeout(SYSCTL_TIMEOUT, forwarding.wait_for(|f| f.checked)).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    running.until_stopped(signals).await
}

async fn start(launch: Launch) -> Result<Running, Error> {
    let Launch { options, started, offered, log, limit } = launch;
    let config = started.config.clone();
    // First: a second daemon must fail here, before it changes anything.
    let control = server::bind(&config.control.socket, config.control.group.as_deref());
    let control = control.await.map_err(|e| Error::Runtime(e.to_string()))?;
    let kubernetes = config.kubernetes.enabled.unwrap_or(offered);
    let (config_tx, in_force) = watch::channel(Arc::new(config.clone()));
    let (budget_tx, budget) = watch::channel(limit.budget());
    let context = Context::enter(options, config, in_force, kubernetes, limit).await;

    events::restore(&context.state_dir);
    let state_dir = context.state_dir.clone();
    tokio::spawn(async move { events::keep(&state_dir).await });

    let outputs = Outputs::new(&context.config, kubernetes);
    let mut core = Core::start(context, &outputs, budget).await?;
    core.watch_filters(&outputs);
    let found = core.watch_sessions(&outputs);
    tokio::spawn(journal::log(outputs.originated.subscribe(), core.routing.host.clone()));
    let (cluster, problems) = start_cluster(&core, &outputs);
    let (drainer, drain) = Drainer::new(&core.context.state_dir);
    tokio::spawn(drainer.clone().run(cluster.as_ref().map(|cluster| cluster.api.clone())));
    let disabled = watch::Sender::default();
    let inputs = core.planner_inputs(&outputs, cluster.as_ref(), drain, disabled.subscribe(), found);
    let (forward, block_bgp) = (outputs.forward.subscribe(), outputs.block_bgp.subscribe());
    let (basis, reachable) = (outputs.basis.subscribe(), outputs.reachable.subscribe());
    let planner = Planner::new(inputs, outputs, kubernetes, core.context.state_dir.clone());
    let planner = tokio::spawn(planner.run());
    core.spawn_masquerade();
    core.spawn_firewall(forward, block_bgp);

    let (moves_tx, moves) = mpsc::channel(1);
    let connections = reload::Connections {
        file: core.context.options.config.clone(),
        kubernetes: offered,
        state_dir: core.context.state_dir.clone(),
        config: config_tx,
        budget: budget_tx,
        log,
        basis,
        peers: core.peers.requests.clone(),
        moves: moves_tx,
        problems: core.reports.file.clone(),
    };
    let (reloader, reloaded) = Reloader::new(connections, started);
    tokio::spawn(reloader.clone().follow());
    let served = Served { reachable, problems, disabled, reloader: reloader.clone(), reloaded, drainer };
    let queries = query_handler(&core, cluster.as_ref(), served);
    if let Some(cluster) = &cluster {
        tokio::spawn(report::run(queries.clone(), cluster.reporter()));
    }
    serve(&mut core, control, moves, queries);
    core.spawn_readiness(cluster.as_ref());
    Ok(Running { core, cluster, planner, reloader })
}

/// Under Kubernetes also starts the tasks of the cluster. Returns all sources of problems, which
/// are logged from here on.
fn start_cluster(core: &Core, outputs: &Outputs) -> (Option<Cluster>, problems::Sources) {
    let mut problems = core.problems();
    let cluster = core.context.kubernetes.then(|| Cluster::start(core, outputs));
    if let Some(cluster) = &cluster {
        problems.conflist = Some(cluster.conflist.status.clone());
        cluster.spawn_events(problems.clone());
    }
    tokio::spawn(problems::log(problems.clone()));
    (cluster, problems)
}

/// Serves the control socket, metrics and probes.
fn serve(core: &mut Core, control: ControlSocket, moves: mpsc::Receiver<Move>, queries: QueryHandler) {
    let settings = core.context.config.control.clone();
    tokio::spawn(listeners::control(control, settings, moves, queries.clone()));
    tokio::spawn(trends::run(queries.clone()));
    let sockets = std::mem::take(&mut core.listeners);
    let problems = core.reports.metrics_port.clone();
    tokio::spawn(listeners::metrics(sockets, core.context.in_force.clone(), problems, queries));
}

/// The inputs of queries besides the running tasks.
struct Served {
    reachable: watch::Receiver<Arc<Reachable>>,
    problems: problems::Sources,
    disabled: watch::Sender<BTreeSet<PeerKey>>,
    reloader: Reloader,
    reloaded: watch::Receiver<reload::Report>,
    drainer: Drainer,
}

fn query_handler(core: &Core, cluster: Option<&Cluster>, served: Served) -> QueryHandler {
    let fib = &core.routing.fib;
    QueryHandler {
        started: jiff::Timestamp::now().to_string(),
        node_name: core.context.node_name.clone(),
        config: core.context.in_force.clone(),
        plan: core.plan.clone(),
        host: core.routing.host.clone(),
        reachable: served.reachable,
        rib: core.routing.rib.sender.clone(),
        peers: core.peers.requests.clone(),
        fib: fib.client(),
        counters: fib.counters(),
        own_there: fib.own_there(),
        forwarding: core.forwarding.clone(),
        problems: served.problems,
        bfd: core.routing.bfd.clone(),
        kubernetes: cluster.map(Cluster::views),
        sandbox: core.context.sandbox.clone(),
        disabled: served.disabled,
        ready: core.ready.subscribe(),
        reloader: served.reloader,
        reloaded: served.reloaded,
        drainer: served.drainer,
        trends: watch::Sender::default(),
    }
}
