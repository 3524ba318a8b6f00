//! The wiring: creates the channels, spawns the tasks, and shuts them down in order.
//!
//! Nothing is decided here. A change of host, Nodes or configuration passes through `planner` and
//! `plan()` to the sessions, the RIB, the FIB and the conflist. Routes pass from the socket through
//! session, RIB, mailbox and FIB to the kernel.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the wiring")]

mod bfd;
mod cleanup;
mod doctor;
mod drain;
pub mod events;
mod forwarding;
mod host;
mod kernel_routes;
mod limits;
mod listeners;
mod machine;
mod masquerade;
mod memory;
mod notices;
mod planner;
mod pods;
mod problems;
mod queries;
mod readiness;
mod reload;
mod report;
mod room;
mod sandbox;
mod sessions;
mod state;
mod unnumbered;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use self::forwarding::Forwarding;
use crate::{
    bgp::{
        self,
        io::{
            Leaving, Wanted,
            rib::{Hooks, RibInputs},
        },
        peer::Global,
    },
    cli::log::{self, LogLevel},
    cni,
    config::{self, Config, LogFormat, OnExit},
    control::{
        Reload,
        io::{http, server},
    },
    fib, k8s, liveness,
    mailbox::mailbox,
    net::RouterId,
    plan,
};
pub use cleanup::cleanup;
pub use doctor::doctor;
use queries::{Kubernetes, QueryHandler};
use reload::{Reloader, Started};
use room::Limit;

/// Options of `run` from the command line.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub config: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub node_name: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<String>,
    /// From the environment: `NODE_NAME`, `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`.
    pub environment: Environment,
}

/// The environment variables that `run` uses, read once in `cli`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub node_name: Option<String>,
    pub kubernetes_service_host: Option<String>,
    pub kubernetes_service_port: Option<String>,
}

/// Why the daemon could not start or had to stop: one line with what failed, why, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Exit status 2.
    #[error("{0}")]
    Config(String),
    /// Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

/// Runs the daemon until it receives SIGTERM or SIGINT.
///
/// # Errors
///
/// If the configuration is invalid, or the host denies what the daemon requires.
pub fn run(options: RunOptions) -> Result<(), Error> {
    memory::tune();
    let offered = options.kubeconfig.is_some() || options.environment.kubernetes_service_host.is_some();
    let limit = Limit::read();
    let started = reload::at_start(options.config.as_deref(), offered, limit)
        .map_err(|p| Error::Config(p.to_string()))?;
    let level = options.log_level.as_deref().unwrap_or(&started.config.log.level);
    let log = log::init(level, options.log_format.unwrap_or(started.config.log.format));
    for note in &started.notes {
        tracing::warn!(warnings = %note, "configuration");
    }
    limits::raise_descriptors();
    limits::allow_real_time();
    // One thread reads and decides: a single route passes from neighbor to kernel without waking
    // another thread. Long operations use temporary threads: writing tables to the kernel, files,
    // large responses.
    tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(4)
        .thread_name("routelet")
        .enable_all()
        .build()
        .map_err(|e| Error::Runtime(format!("cannot start threads: {e}; check the limit of processes")))?
        .block_on(daemon(options, started, offered, log, limit))
}

async fn daemon(
    options: RunOptions,
    started: Started,
    offered: bool,
    log: LogLevel,
    limit: Limit,
) -> Result<(), Error> {
    let config = started.config.clone();
    let kubernetes = config.kubernetes.enabled.unwrap_or(offered);
    let node_name = node_name(&options, &config);
    // Before anything is changed: a signal that arrives during the start is handled after it.
    let mut hangup = on(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    // First: a second daemon must fail here, before it changes anything.
    let control = server::bind(&config.control.socket, config.control.group.as_deref())
        .await
        .map_err(|e| Error::Runtime(e.to_string()))?;
    if config.is_bare_host && !kubernetes {
        tracing::info!("{}", host::bare_host(&config));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %node_name, kubernetes, "routelet starting");
    tracing::info!(?limit, budget = limit.budget(), max_prefixes = limit.max_prefixes(), "memory for routes");

    let interfaces = fib::io::machine::interfaces().await.unwrap_or_default();
    let mark = state::Mark::new(&interfaces, kubernetes.then_some(node_name.as_str()));
    let state_dir = state::claim(&config.state_dir, &mark, &interfaces.addresses);
    // The owner of a port is only visible outside of the sandbox.
    let owners = bgp::io::owners_of(&config.bgp.listen);
    let (sandbox, _held) = sandbox::enter(&options, &config, kubernetes);
    state::mark(&state_dir, &mark);
    let (unkept, descriptors) = (crate::state::io::problems(), limits::follow());

    let (config_tx, config_rx) = watch::channel(Arc::new(config.clone()));
    let (wanted_tx, wanted) = watch::channel(Arc::new(empty_plan()));
    let (global_tx, global) = watch::channel(empty_plan().global);
    let (originated_tx, originated) = watch::channel(Arc::default());
    let (reachable_tx, reachable) = watch::channel(Arc::default());
    let (links_tx, links) = watch::channel(Arc::default());
    let (guard_tx, guard) = watch::channel(Arc::default());
    let (budget_tx, budget) = watch::channel(limit.budget());
    let (unreachable_tx, unreachable) = watch::channel(Arc::default());
    let (sources_tx, sources) = watch::channel(None);
    let (assigned_tx, assigned) = watch::channel(Arc::default());
    let (conflist_tx, conflist) = watch::channel(None);
    let (no_conflist_tx, no_conflist) = watch::channel("the first plan is being computed".to_owned());
    let (plugins_tx, plugins) = watch::channel(None);
    let (accepted_tx, accepted) = watch::channel(None);
    let (firewall_tx, firewall) = watch::channel(Vec::new());
    let (block_bgp_tx, block_bgp) = watch::channel(None);
    let (pod_bgp_tx, pod_bgp) = watch::channel(Vec::new());
    let (pod_bgp_notes_tx, pod_bgp_notes) = watch::channel(Vec::new());
    let (firewall_notes_tx, firewall_notes) = watch::channel(Vec::new());
    let (pods_tx, pods) = watch::channel(Vec::new());
    let (sessions_tx, sessions) = watch::channel(Vec::new());
    let (interfaces_tx, interfaces) = watch::channel(Arc::default());
    let (found_tx, found) = watch::channel(Arc::default());
    let (docker_tx, docker) = watch::channel(crate::docker::Wanted::default());
    let (all_nodes_tx, all_nodes) = watch::channel(plan::starts_with_all_nodes(&config, kubernetes));
    let (selection_tx, selection) = watch::channel(plan::service_selection(&config, kubernetes));
    let (plan_tx, plan) = watch::channel(Arc::new(Err("starting".to_owned())));
    let (basis_tx, basis) = watch::channel(None);
    let (disabled_tx, disabled) = watch::channel(BTreeSet::new());
    let (begun_tx, begun) = watch::channel(false);
    let (ready_tx, ready) = watch::channel(false);
    let (established_tx, established) = watch::channel(Arc::default());
    let (fib_tx, fib_rx) = mailbox();
    let (gate_tx, gate) = watch::channel(cni::gate::GateInputs::default());

    // From the RIB to the kernel.
    let no_netlink = |e: std::io::Error| {
        Error::Runtime(format!("netlink: {e}; routelet needs root, or the capability NET_ADMIN"))
    };
    let settings = kernel_routes::settings(&config);
    let (record, place) = (state::former(&state_dir), settings.location());
    state::keep_former(&state_dir, &record.with(place));
    let kernel = fib::io::Kernel::open_after(settings, record.former(place)).await.map_err(no_netlink)?;
    let host = kernel.host();
    let fib_host = host.clone();
    let (learned_tx, learned) = mailbox();
    let inputs = RibInputs {
        global,
        originated: originated.clone(),
        reachable: reachable.clone(),
        guard,
        budget,
        learned: kubernetes.then_some(learned_tx),
    };
    let counters = kernel.counters();
    let shrunk = Arc::new(Notify::new());
    tokio::spawn(memory::trim_heap(shrunk.clone()));
    let hooks = Hooks {
        on_post: Box::new(move |read_at| counters.update_read(read_at)),
        on_less: Box::new(move || shrunk.notify_one()),
    };
    let rib = bgp::io::rib::spawn(inputs, fib_tx, hooks);
    let (liveness, wishes) = liveness::channel();
    let bfd = crate::bfd::io::spawn(wishes, RandomState::new().hash_one(std::process::id()));
    tokio::spawn(bfd::report(bfd.clone()));
    let inputs = fib::io::Inputs {
        routes: fib_rx,
        own: unreachable.clone(),
        convergence: rib.convergence.clone(),
        sources,
        assigned,
        lost: bfd.lost.clone(),
    };
    let folder = state_dir.clone();
    let mut fib = kernel.spawn_and(inputs, move || state::keep_former(&folder, &record.swept(place)));
    tokio::spawn(kernel_routes::follow(config_rx.clone(), fib.client(), state_dir.clone()));
    let restarting = readiness::restart(&fib.client(), &config, rib.convergence.clone()).await;
    let (forwarding_tx, forwarding) = watch::channel(Forwarding::default());
    let (needs_tx, needs) = watch::channel(None);
    tokio::spawn(forwarding::run(forwarding_tx, needs, host.clone(), state_dir.join(forwarding::FILE)));

    // Before sessions use up descriptors.
    let (listeners, taken) = http::bind(&config.metrics.listen).await;
    let (metrics_port_tx, metrics_port) = watch::channel(listeners::taken_ports(&taken));

    // From the neighbors to the RIB.
    let mut peers =
        bgp::io::spawn(wanted, links, rib.convergence.clone(), rib.sender.clone(), liveness, owners);
    let (requests, events) = (peers.requests.clone(), peers.events.subscribe());
    let of_sessions = (requests, rib.sender.clone());
    tokio::spawn(sessions::run(sessions_tx, plan.clone(), of_sessions, events, bfd.problems.clone()));
    let sessions_of = (peers.requests.clone(), peers.events.subscribe());
    let connections = peers.on_link.take().expect("taken once");
    unnumbered::spawn(interfaces, found_tx, sessions_of, connections, &state_dir);

    let (of_file_tx, of_file) = watch::channel(Vec::new());
    let mut problems = problems::Sources {
        plan: plan.clone(),
        conflist: None,
        forwarding: forwarding.clone(),
        sessions,
        others: vec![
            firewall,
            firewall_notes,
            pod_bgp,
            pod_bgp_notes,
            pods,
            fib.problems(),
            rib.problems.clone(),
            unkept,
            descriptors,
            of_file,
            peers.problems.clone(),
            metrics_port,
        ],
    };

    // The cluster.
    let (mut cluster, mut api, mut objects, mut reporter) = (None, None, None, None);
    if kubernetes {
        let options = api_options(&options, &config, &state_dir);
        let watch = k8s::io::spawn(options.clone(), all_nodes);
        let services = k8s::io::spawn_services(options.clone(), selection);
        let (facts_tx, facts) = watch::channel(k8s::condition::Facts::default());
        tokio::spawn(readiness::facts(
            facts_tx,
            established_tx,
            (begun.clone(), ready.clone()),
            (peers.requests.clone(), peers.events.subscribe()),
            plan.clone(),
        ));
        api = Some(options.clone());
        k8s::io::spawn_condition(options.clone(), facts.clone(), watch.nodes.clone());
        if let Some(key) = config.kubernetes.startup_taint.clone() {
            k8s::io::spawn_taint(options.clone(), key, facts, watch.nodes.clone());
        }
        let (bridge_tx, bridge) = watch::channel(cni::bridge::BridgeSnapshot::default());
        tokio::spawn(pods::run(bridge_tx, host.clone(), config_rx.clone()));
        let conflist_task = cni::io::spawn_conflist_in(
            conflist_options(&config, &state_dir),
            conflist,
            gate,
            cni::io::ConflistContext {
                bridge,
                no_conflist,
                problems: pods_tx,
                leases: Some(cni::io::LEASES.into()),
            },
        );
        objects = Some(k8s::io::spawn_objects(options.clone(), watch.nodes.clone()));
        let (notices_tx, notices) = watch::channel(Arc::default());
        reporter = Some(k8s::io::reporter(options.clone()));
        k8s::io::spawn_events(options, notices, watch.nodes.clone());
        problems.conflist = Some(conflist_task.status.clone());
        tokio::spawn(notices::run(notices_tx, problems.clone()));
        tokio::spawn(readiness::gate(
            gate_tx,
            fib.own_there(),
            forwarding.clone(),
            rib.convergence.clone(),
            plan.clone(),
        ));
        cluster = Some((watch, conflist_task, services));
    }
    tokio::spawn(problems::log(problems.clone()));
    let views = cluster.as_ref().map(|(watch, conflist, _)| Kubernetes {
        nodes: watch.nodes.clone(),
        api: watch.status.clone(),
        conflist: conflist.status.clone(),
    });

    let (drainer, drain) = drain::Drainer::new(&state_dir);
    tokio::spawn(drainer.clone().run(api));
    let planner = tokio::spawn(planner::run(
        planner::Inputs {
            config: config_rx.clone(),
            host,
            nodes: views.as_ref().map(|v| v.nodes.clone()),
            objects,
            held: cluster.as_ref().map(|(_, conflist, _)| conflist.held.clone()),
            services: cluster.as_ref().map(|(.., services)| services.services.clone()),
            plugins: kubernetes.then(|| cni::io::spawn_plugins(plugins)),
            resolvers: fib::io::resolvers::follow(),
            disabled,
            found,
            docker: crate::docker::io::spawn(docker, &state_dir),
            sessions: kubernetes.then(|| established.clone()),
            strangers: peers.strangers.take().expect("taken once"),
            drain,
            restarting,
            peers: peers.requests.clone(),
            rib: rib.sender.clone(),
        },
        planner::Outputs {
            wanted: wanted_tx,
            global: global_tx,
            originated: originated_tx,
            reachable: reachable_tx,
            links: links_tx,
            guard: guard_tx,
            unreachable: unreachable_tx,
            sources: sources_tx,
            assigned: assigned_tx,
            conflist: conflist_tx,
            forward: accepted_tx,
            block_bgp: block_bgp_tx,
            needs: needs_tx,
            docker: docker_tx,
            interfaces: interfaces_tx,
            all_nodes: all_nodes_tx,
            service_selection: selection_tx,
            plugins: plugins_tx,
            no_conflist: no_conflist_tx,
            basis: basis_tx,
            plan: plan_tx,
        },
        kubernetes,
        state_dir.clone(),
    ));

    // Packets of pods leave with the node's address while external neighbors have no route to them.
    if kubernetes {
        let (want_tx, want) = watch::channel(None);
        let inputs = masquerade::Inputs {
            plan: plan.clone(),
            config: config_rx.clone(),
            peers: peers.requests.clone(),
            rib: rib.sender.clone(),
        };
        tokio::spawn(masquerade::run(inputs, want_tx));
        crate::nft::io::masquerade::spawn(crate::nft::io::masquerade::Inputs {
            want,
            learned,
            ready: begun.clone(),
        });
    }
    let inputs = crate::nft::io::forward::Inputs { wanted: accepted, ready: begun };
    crate::nft::io::forward::spawn_with_notes(inputs, firewall_tx, firewall_notes_tx);
    crate::nft::io::pod_bgp::spawn(block_bgp, pod_bgp_tx, pod_bgp_notes_tx);

    // Control socket and HTTP.
    let (moves_tx, moves) = mpsc::channel(1);
    let connections = reload::Connections {
        file: options.config.clone(),
        kubernetes: offered,
        state_dir,
        config: config_tx,
        budget: budget_tx,
        log,
        basis,
        peers: peers.requests.clone(),
        moves: moves_tx,
        problems: of_file_tx,
    };
    let (reloader, reloaded) = Reloader::new(connections, started);
    tokio::spawn(reloader.clone().follow());
    let in_force = config_rx.clone();
    let mut forwarded = forwarding.clone();
    let queries = QueryHandler {
        started: jiff::Timestamp::now().to_string(),
        node_name,
        config: config_rx,
        plan: plan.clone(),
        host: fib_host,
        reachable,
        rib: rib.sender.clone(),
        peers: peers.requests.clone(),
        fib: fib.client(),
        counters: fib.counters(),
        own_there: fib.own_there(),
        forwarding,
        problems,
        bfd: bfd.clone(),
        kubernetes: views.clone(),
        sandbox,
        disabled: disabled_tx,
        ready: ready.clone(),
        reloader: reloader.clone(),
        reloaded,
        drainer,
    };
    if let Some(reporter) = reporter {
        tokio::spawn(report::run(queries.clone(), reporter));
    }
    tokio::spawn(listeners::control(control, config.control.clone(), moves, queries.clone()));
    tokio::spawn(listeners::metrics(listeners, in_force.clone(), metrics_port_tx, queries));
    let written =
        (kubernetes && config.cni.enabled != Some(false)).then(|| views.map(|v| v.conflist)).flatten();
    tokio::spawn(readiness::readiness(
        begun_tx,
        ready_tx,
        established,
        rib.convergence.clone(),
        plan,
        written,
    ));
    tokio::spawn(readiness::watchdog());
    // Services that start after us may check forwarding, as Docker does.
    let _ = tokio::time::timeout(SYSCTL_TIMEOUT, forwarded.wait_for(|f| f.checked)).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let mut rib_task = rib.task;
    let failed = loop {
        // Cancel safe, each: signals are counted, handles are borrowed.
        tokio::select! {
            _ = hangup.recv() => drop(reloader.reload(PLAIN).await),
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            () = ended(&mut rib_task) => break Some("the task of the RIB"),
            () = fib.ended() => break Some("the task of the FIB"),
            () = peers.failed() => break Some("the task of the neighbors"),
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    planner.abort();
    let mut node_leaves = false;
    if let Some((watch, conflist, services)) = cluster {
        watch.task.abort();
        conflist.task.abort();
        services.task.abort();
        node_leaves = watch.nodes.borrow().own.as_ref().is_some_and(|own| own.going.is_some());
    }
    let leaving = if node_leaves || machine::stops().await { Leaving::Machine } else { Leaving::Daemon };
    tracing::info!(?leaving, "routelet stopping");
    if failed.is_none() {
        let watched = bfd.hold().await;
        peers.shutdown(leaving).await;
        bfd.shutdown(watched).await;
    }
    let on_exit = in_force.borrow().fib.on_exit;
    fib.shutdown(on_exit == OnExit::Flush && failed.is_none()).await;
    crate::state::io::flush(Duration::from_secs(2));
    match failed {
        None => Ok(()),
        Some(what) => Err(Error::Runtime(format!(
            "{what} ended unexpectedly, which is a bug; routes stay in the kernel, and the service manager restarts routelet"
        ))),
    }
}

/// By a signal, which has no options: even if every session is reset.
const PLAIN: Reload = Reload { dry_run: false, confirm: None, force: true };

/// How long the start waits until the host's sysctls were checked.
const SYSCTL_TIMEOUT: Duration = Duration::from_secs(2);

/// The state before the first plan: no sessions, and a router ID that is never sent.
fn empty_plan() -> Wanted {
    let global = Global {
        asn: 0,
        router_id: RouterId::UNSPECIFIED,
        cluster_id: RouterId::UNSPECIFIED,
        max_paths: 1,
        multipath_relax: true,
        restarting: false,
    };
    Wanted {
        global,
        listen: Vec::new(),
        peers: Default::default(),
        ranges: Vec::new(),
        unnumbered: Default::default(),
    }
}

fn restart_time(config: &Config) -> Duration {
    config::seconds(config.bgp.defaults.restart_time.unwrap_or(120))
}

fn node_name(options: &RunOptions, config: &Config) -> String {
    let given = options.node_name.clone().or_else(|| config.kubernetes.node_name.clone());
    given.or_else(|| options.environment.node_name.clone()).unwrap_or_else(|| {
        let host = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
        host.unwrap_or_default().to_lowercase()
    })
}

/// How to find the API server, and our Node.
fn api_options(options: &RunOptions, config: &Config, state_dir: &Path) -> k8s::io::Options {
    let Environment { kubernetes_service_host: host, kubernetes_service_port: port, .. } =
        options.environment.clone();
    k8s::io::Options {
        kubeconfig: options.kubeconfig.clone(),
        service: host.map(|host| (host, port.unwrap_or_else(|| "443".into()))),
        node_name: node_name(options, config),
        state_dir: state_dir.to_owned(),
        service_cidrs: config.kubernetes.service_cidrs.clone(),
    }
}

fn conflist_options(config: &Config, state_dir: &Path) -> cni::io::ConflistOptions {
    cni::io::ConflistOptions {
        enabled: config.cni.enabled != Some(false),
        conf_dir: config.cni.conf_dir.clone(),
        file: config.cni.file.clone(),
        state_dir: state_dir.to_owned(),
    }
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).map_err(|e| Error::Runtime(format!("cannot handle signals: {e}")))
}

async fn ended(task: &mut JoinHandle<()>) {
    let _ = task.await;
}
