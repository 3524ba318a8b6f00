//! Computes a new plan whenever the configuration, the host or the cluster changes, and publishes
//! its parts.
//!
//! Each part has its own `watch` and is only published when it differs, so that a change of a
//! neighbor's policy does not wake the task of the conflist.

mod basis;
mod inputs;
mod outputs;
mod router_id;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::unnumbered;
pub(super) use crate::mailbox::publish;
use crate::{
    bgp::io::{ToPeers, rib::ToRib},
    config::Config,
    docker,
    fib::{self, host::Host, resolve::Resolver},
    k8s::{node::Nodes, objects::Objects},
    net::{Diagnostic, Reason, Subject},
    plan::{
        self, Election, FormerGateways, Gateways, NoPlan, Plan, PlanInputs, forwarding, overlay, plan,
        uplinks,
    },
};
pub(super) use basis::Basis;
use inputs::Change;
pub(super) use inputs::{ClusterInputs, Inputs};
pub(super) use outputs::Outputs;
pub(super) use router_id::ROUTER_ID_FILE;
use settings::{docker_wanted, plugin_query, switched, switched_off, usable};

/// Computes plans, and keeps the state that one plan needs from the previous ones.
pub(super) struct Planner {
    inputs: Inputs,
    outputs: Outputs,
    state_dir: PathBuf,
    /// The other inputs of the last plan, besides configuration, host and Nodes.
    extra: PlanInputs,
    election: Election,
    gateways: Gateways,
    former_gateways: FormerGateways,
    /// Why there is no plan, as it was logged.
    logged_missing: Option<NoPlan>,
    /// Usable addresses at the last plan.
    source_addresses: Option<BTreeSet<(u32, IpAddr)>>,
    /// Since when no neighbor has been found on an interface.
    alone_since: BTreeMap<String, String>,
}

/// The inputs of one plan.
struct Round {
    /// With the BGPPeer and BGPPolicy objects of this Node.
    config: Config,
    host: Arc<Host>,
    nodes: Option<Arc<Nodes>>,
    objects: Arc<Objects>,
    docker: Arc<docker::Selected>,
    /// Problems of the objects.
    problems: Vec<Diagnostic>,
    uplinks: Vec<String>,
}

impl Planner {
    pub(super) fn new(inputs: Inputs, outputs: Outputs, kubernetes: bool, state_dir: PathBuf) -> Self {
        let stored_router_id = router_id::read(&state_dir);
        Self {
            inputs,
            outputs,
            state_dir,
            extra: PlanInputs { kubernetes, stored_router_id, ..PlanInputs::default() },
            election: Election::default(),
            gateways: Gateways::default(),
            former_gateways: FormerGateways::default(),
            logged_missing: None,
            source_addresses: None,
            alone_since: BTreeMap::new(),
        }
    }

    /// Runs until its inputs are closed.
    pub(super) async fn run(mut self) {
        loop {
            let round = self.read();
            let nodes = round.nodes.as_deref().filter(|_| self.extra.kubernetes);
            // The addresses that the Nodes have at this moment.
            let nodes = nodes.map(|nodes| plan::settle(nodes, &round.host));
            if let Some(nodes) = nodes.as_deref() {
                self.elect(&round.config, nodes).await;
                self.extra.topology = self.election.topology().cloned();
            }
            self.gateways.handle(Instant::now().into_std(), &round.host, &round.config);
            self.extra.held_gateways = self.gateways.held();
            self.publish_host(&round);
            let plan = self.plan(&round);
            self.publish(&round, plan);
            self.retry_neighbors(&round.host);
            if !self.wait(&round, nodes.as_deref()).await {
                return;
            }
        }
    }

    /// Reads the inputs, and publishes what other tasks must find for the next plans.
    fn read(&mut self) -> Round {
        let config = self.inputs.config.borrow_and_update().clone();
        let host = self.inputs.host.borrow_and_update().clone();
        let (nodes, objects) = (self.inputs.nodes(), self.inputs.objects());
        let over = overlay(&config, nodes.as_deref().and_then(|n| n.own.as_ref()), &objects);
        let mut config = over.config;
        let docker = self.inputs.docker.borrow_and_update().clone();
        publish(&self.outputs.docker, docker_wanted(&config));
        config.advertise.docker_bridges.clone_from(&docker.bridges);
        let extra = &mut self.extra;
        extra.objects = over.neighbors;
        extra.broken = over.broken;
        self.inputs.copy_to(extra);
        extra.former_gateways = Arc::new(self.former_gateways.see(&host));
        let uplinks = uplinks(&config, nodes.as_deref(), &host);
        extra.off = switched_off(extra.kubernetes, &uplinks, &config);
        publish(&self.outputs.plugins, extra.kubernetes.then(|| plugin_query(&config)));
        Round { config, host, nodes, objects, docker, problems: over.problems, uplinks }
    }

    /// Updates the election of reflectors. Waiting for the RIB's response is safe, since the RIB
    /// never waits.
    async fn elect(&mut self, config: &Config, nodes: &Nodes) {
        let sessions = self.inputs.sessions();
        let now = Instant::now().into_std();
        self.election.handle(now, config, nodes, &sessions);
        let Some(leaving) = self.election.removals_to_check(now, nodes) else { return };
        let (reply, result) = oneshot::channel();
        if self.inputs.rib.send(ToRib::SoleSources { leaving, reply }).await.is_ok()
            && let Ok(sole_sources) = result.await
        {
            self.election.apply_sole_sources(now, nodes, sole_sources);
        }
    }

    /// Publishes links and resolved next hops, and the inputs of the next plan.
    fn publish_host(&self, round: &Round) {
        let host = &round.host;
        let resolver = Resolver::new(host, round.config.fib.resolve_via_default);
        // Links first: sessions mark routes as stale before their next hops are resolved again.
        publish(&self.outputs.links, Arc::new(fib::links::links(host)));
        let reachable = resolver.reachable().with_lives(fib::links::alive(host));
        publish(&self.outputs.reachable, Arc::new(reachable));
        self.outputs.basis.send_replace(Some(Arc::new(Basis {
            host: host.clone(),
            nodes: round.nodes.clone(),
            objects: round.objects.clone(),
            extra: self.extra.clone(),
            kubernetes: round.config.kubernetes.clone(),
            docker: round.docker.clone(),
        })));
    }

    /// The plan, including the problems of the tasks that provided its inputs.
    fn plan(&mut self, round: &Round) -> Result<Plan, NoPlan> {
        let mut plan = plan(&round.config, round.nodes.as_deref(), &round.host, &self.extra)?;
        if plan.conflist.is_some() && self.extra.plugins.programs.is_none() {
            plan.problems.push(plugins_unknown(&round.config));
        }
        plan.problems.extend(round.docker.problems.iter().cloned());
        plan.add_object_problems(round.problems.clone());
        unnumbered::date(&mut self.alone_since, &mut plan.unfound);
        Ok(plan)
    }

    fn publish(&mut self, round: &Round, result: Result<Plan, NoPlan>) {
        match &result {
            Ok(plan) => {
                self.logged_missing = None;
                self.extra.held_services = plan.held_services.clone();
                self.keep_router_id(round, plan);
                self.outputs.publish_plan(&round.config, plan);
            }
            // Not a problem: at each start the Node and its addresses arrive a little later.
            Err(missing) => {
                publish(&self.outputs.no_conflist, missing.to_string());
                if self.logged_missing.as_ref() != Some(missing) {
                    tracing::info!(%missing, "waiting for inputs of the plan");
                    self.logged_missing = Some(missing.clone());
                }
            }
        }
        let needs = forwarding(&round.config, &round.host, &self.extra, result.as_ref().ok());
        let tried = result.as_ref().map(|plan| plan::passages(&round.host, &needs, plan));
        publish(&self.outputs.passages, Arc::new(tried.unwrap_or_default()));
        publish(&self.outputs.needs, Some(Arc::new(needs)));
        publish(&self.outputs.plan, Arc::new(result));
    }

    /// Saves the router ID unless it is configured.
    fn keep_router_id(&mut self, round: &Round, plan: &Plan) {
        let own = round.nodes.as_ref().and_then(|n| n.own.as_ref());
        let set = round.config.bgp.router_id.is_some() || own.is_some_and(|o| o.router_id.is_some());
        if !set && plan.keeps_router_id {
            router_id::keep(&self.state_dir, &mut self.extra.stored_router_id, plan.global.router_id);
        }
    }

    /// Retries neighbors at once when an address has become usable. Not at the start: all neighbors
    /// are tried then anyway.
    fn retry_neighbors(&mut self, host: &Host) {
        let now = usable(host);
        if self.source_addresses.replace(now.clone()).is_some_and(|before| !now.is_subset(&before)) {
            // If the queue is full, a retry is queued already.
            let _ = self.inputs.peers.try_send(ToPeers::RetryNow);
        }
    }

    /// Waits until a new plan is needed. Sessions and time only affect the topology, so they
    /// require a new plan only if it changed. Returns `false` when the daemon ends.
    async fn wait(&mut self, round: &Round, nodes: Option<&Nodes>) -> bool {
        loop {
            let switched = switched(self.extra.kubernetes, &round.uplinks, &round.config, &self.extra.off);
            // Each arm is cancel safe.
            tokio::select! {
                change = self.inputs.changed(round.nodes.as_deref()) => match change {
                    Change::Plan => return true,
                    Change::Sessions => {}
                    Change::Connected(addr) => self.election.connected(Instant::now().into_std(), addr),
                    Change::End => return false,
                },
                () = switched => return true,
                () = due(self.gateways.poll_timeout()) => return true,
                () = due(self.election.poll_timeout()) => {}
            }
            let Some(nodes) = nodes else { continue };
            self.elect(&round.config, nodes).await;
            if self.election.topology() != self.extra.topology.as_ref() {
                return true;
            }
        }
    }
}

fn plugins_unknown(config: &Config) -> Diagnostic {
    let folder = config.cni.bin_dir.display();
    Diagnostic::new(
        Reason::CniPluginsUnknown,
        Subject::key("cni.bin-dir"),
        format!("cni.bin-dir: {folder} cannot be read, so it is not known which CNI plugins there are"),
        "install them, or mount the folder",
    )
}

/// Waits until then; forever without a time. Cancel safe.
pub(super) async fn due(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
