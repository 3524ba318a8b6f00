//! Starts the tasks that only run under Kubernetes: the watches of the API server, the writers of
//! its objects, and the conflist with its gate.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

use super::{
    Environment, RunOptions,
    context::{Context, node_name},
    core::Core,
    notices,
    planner::Outputs,
    pods, problems,
    queries::Kubernetes,
    readiness,
};
use crate::{
    cni::{self, bridge::BridgeSnapshot, gate::GateInputs, io::ConflistTask},
    config::Config,
    k8s::{
        self,
        condition::Facts,
        io::{Options, Reporter, ServiceWatch, Watch},
        objects::Objects,
    },
};

/// The tasks that run under Kubernetes.
pub(super) struct Cluster {
    pub(super) api: Options,
    pub(super) watch: Watch,
    pub(super) services: ServiceWatch,
    pub(super) objects: watch::Receiver<Arc<Objects>>,
    pub(super) conflist: ConflistTask,
}

impl Cluster {
    pub(super) fn start(core: &Core, outputs: &Outputs) -> Self {
        let context = &core.context;
        let api = api_options(&context.options, &context.config, &context.state_dir);
        let watch = k8s::io::spawn(api.clone(), outputs.all_nodes.subscribe());
        let services = k8s::io::spawn_services(api.clone(), outputs.service_selection.subscribe());
        let facts = watch::Sender::new(Facts::default());
        spawn_condition(context, &api, &watch, facts.subscribe());
        tokio::spawn(readiness::facts(
            facts,
            core.established.clone(),
            (core.begun.subscribe(), core.ready.subscribe()),
            (core.peers.requests.clone(), core.peers.events.subscribe()),
            core.plan.clone(),
        ));
        let objects = k8s::io::spawn_objects(api.clone(), watch.nodes.clone());
        let conflist = spawn_conflist(core, outputs);
        Self { api, watch, services, objects, conflist }
    }

    /// The inputs of queries.
    pub(super) fn views(&self) -> Kubernetes {
        Kubernetes {
            nodes: self.watch.nodes.clone(),
            api: self.watch.status.clone(),
            conflist: self.conflist.status.clone(),
        }
    }

    pub(super) fn reporter(&self) -> Reporter {
        k8s::io::reporter(self.api.clone())
    }

    /// Reports problems as Events.
    pub(super) fn spawn_events(&self, problems: problems::Sources) {
        let notices = watch::Sender::<Arc<_>>::default();
        k8s::io::spawn_events(self.api.clone(), notices.subscribe(), self.watch.nodes.clone());
        tokio::spawn(notices::run(notices, problems));
    }

    /// Stops the tasks. Returns whether the Node is about to be removed.
    pub(super) fn stop(self) -> bool {
        self.watch.task.abort();
        self.conflist.task.abort();
        self.services.task.abort();
        self.watch.nodes.borrow().own.as_ref().is_some_and(|own| own.going.is_some())
    }
}

/// Keeps the Node's condition and its startup taint up to date.
fn spawn_condition(context: &Context, api: &Options, watch: &Watch, facts: watch::Receiver<Facts>) {
    k8s::io::spawn_condition(api.clone(), facts.clone(), watch.nodes.clone());
    if let Some(key) = context.config.kubernetes.startup_taint.clone() {
        k8s::io::spawn_taint(api.clone(), key, facts, watch.nodes.clone());
    }
}

/// Writes the conflist once its gate is open.
fn spawn_conflist(core: &Core, outputs: &Outputs) -> ConflistTask {
    let Core { context, routing, .. } = core;
    let (bridge_tx, bridge) = watch::channel(BridgeSnapshot::default());
    tokio::spawn(pods::run(bridge_tx, routing.host.clone(), context.in_force.clone()));
    let (gate_tx, gate) = watch::channel(GateInputs::default());
    let task = cni::io::spawn_conflist_in(
        conflist_options(&context.config, &context.state_dir),
        outputs.conflist.subscribe(),
        gate,
        cni::io::ConflistContext {
            bridge,
            no_conflist: outputs.no_conflist.subscribe(),
            problems: core.reports.pods.clone(),
            leases: Some(cni::io::LEASES.into()),
        },
    );
    tokio::spawn(readiness::gate(
        gate_tx,
        routing.fib.own_there(),
        core.forwarding.clone(),
        routing.rib.convergence.clone(),
        core.plan.clone(),
    ));
    task
}

/// How to find the API server, and our Node.
pub(super) fn api_options(options: &RunOptions, config: &Config, state_dir: &Path) -> Options {
    let Environment { kubernetes_service_host: host, kubernetes_service_port: port, .. } =
        options.environment.clone();
    Options {
        kubeconfig: options.kubeconfig.clone(),
        service: host.map(|host| (host, port.unwrap_or_else(|| "443".into()))),
        node_name: node_name(options, config),
        state_dir: state_dir.to_owned(),
        service_cidrs: config.kubernetes.service_cidrs.clone(),
    }
}

pub(super) fn conflist_options(config: &Config, state_dir: &Path) -> cni::io::ConflistOptions {
    cni::io::ConflistOptions {
        enabled: config.cni.enabled != Some(false),
        conf_dir: config.cni.conf_dir.clone(),
        file: config.cni.file.clone(),
        state_dir: state_dir.to_owned(),
    }
}
