//! The tasks that run on every host, started in an order in which each finds what it needs.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{net::TcpListener, sync::watch};

use super::{
    Error,
    cluster::Cluster,
    context::Context,
    filters,
    forwarding::{self, Forwarding},
    listeners, masquerade,
    planner::{ClusterInputs, Inputs, Outputs},
    problems::{self, Reports},
    readiness,
    routing::{Routing, spawn_neighbors},
    sessions, unnumbered,
};
use crate::{
    bgp::{self, peer::PeerKey},
    cni::io::spawn_plugins,
    control::io::http,
    docker, fib, nft,
    plan::{Drain, NoPlan, Plan, Sessions},
    unnumbered::io::Found,
};

/// The tasks that run on every host, with what they publish.
pub(super) struct Core {
    pub(super) context: Context,
    pub(super) routing: Routing,
    pub(super) peers: bgp::io::Handle,
    /// The plan in force, or why there is none yet.
    pub(super) plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    /// The sysctls that are set.
    pub(super) forwarding: watch::Receiver<Forwarding>,
    pub(super) reports: Reports,
    /// For metrics and probes.
    pub(super) listeners: Vec<TcpListener>,
    /// Whether the first exchange of routes is over.
    pub(super) begun: watch::Sender<bool>,
    pub(super) ready: watch::Sender<bool>,
    /// Established sessions, kept up to date under Kubernetes.
    pub(super) established: watch::Sender<Arc<Sessions>>,
}

impl Core {
    /// # Errors
    ///
    /// If netlink is denied.
    pub(super) async fn start(
        context: Context,
        outputs: &Outputs,
        budget: watch::Receiver<u64>,
    ) -> Result<Self, Error> {
        let routing = Routing::start(&context, outputs, budget).await?;
        let (state, forwarding) = watch::channel(Forwarding::default());
        let file = context.state_dir.join(forwarding::FILE);
        tokio::spawn(forwarding::run(state, outputs.needs.subscribe(), routing.host.clone(), file));
        // Before sessions use up descriptors.
        let (listeners, taken) = http::bind(&context.config.metrics.listen).await;
        let reports = Reports::default();
        reports.metrics_port.send_replace(listeners::taken_ports(&taken));
        let peers = spawn_neighbors(&context, outputs, &routing);
        Ok(Self {
            context,
            routing,
            peers,
            plan: outputs.plan.subscribe(),
            forwarding,
            reports,
            listeners,
            begun: watch::Sender::new(false),
            ready: watch::Sender::new(false),
            established: watch::Sender::default(),
        })
    }

    /// Watches the packet filters of other programs.
    pub(super) fn watch_filters(&self, outputs: &Outputs) {
        tokio::spawn(filters::run(outputs.passages.subscribe(), self.reports.filters.clone()));
    }

    /// Watches sessions for problems, and looks for unnumbered neighbors on interfaces. Returns the
    /// neighbors found.
    pub(super) fn watch_sessions(&mut self, outputs: &Outputs) -> watch::Receiver<Arc<Found>> {
        let peers = &mut self.peers;
        tokio::spawn(sessions::run(
            self.reports.sessions.clone(),
            self.plan.clone(),
            (peers.requests.clone(), self.routing.rib.sender.clone()),
            peers.events.subscribe(),
            self.routing.bfd.problems.clone(),
        ));
        let (found_tx, found) = watch::channel(Arc::default());
        let sessions = (peers.requests.clone(), peers.events.subscribe());
        let connections = peers.on_link.take().expect("taken once");
        let interfaces = outputs.interfaces.subscribe();
        unnumbered::spawn(interfaces, found_tx, sessions, connections, &self.context.state_dir);
        found
    }

    /// All sources of problems; that of the conflist is added under Kubernetes.
    pub(super) fn problems(&self) -> problems::Sources {
        let Reports {
            firewall,
            firewall_notes,
            filters,
            pod_bgp,
            pod_bgp_notes,
            pods,
            file,
            metrics_port,
            sessions,
        } = &self.reports;
        problems::Sources {
            plan: self.plan.clone(),
            conflist: None,
            forwarding: self.forwarding.clone(),
            sessions: sessions.subscribe(),
            others: vec![
                firewall.subscribe(),
                firewall_notes.subscribe(),
                filters.subscribe(),
                pod_bgp.subscribe(),
                pod_bgp_notes.subscribe(),
                pods.subscribe(),
                self.routing.fib.problems(),
                self.routing.rib.problems.clone(),
                self.context.unsaved.clone(),
                self.context.descriptors.clone(),
                self.context.survey.clone(),
                file.subscribe(),
                self.peers.problems.clone(),
                metrics_port.subscribe(),
            ],
        }
    }

    /// Inputs of the planner. `found`: the unnumbered neighbors on each interface.
    pub(super) fn planner_inputs(
        &mut self,
        outputs: &Outputs,
        cluster: Option<&Cluster>,
        drain: watch::Receiver<Option<Drain>>,
        disabled: watch::Receiver<BTreeSet<PeerKey>>,
        found: watch::Receiver<Arc<Found>>,
    ) -> Inputs {
        Inputs {
            config: self.context.in_force.clone(),
            host: self.routing.host.clone(),
            cluster: cluster.map(|cluster| ClusterInputs {
                nodes: cluster.watch.nodes.clone(),
                objects: cluster.objects.clone(),
                held: cluster.conflist.held.clone(),
                services: cluster.services.services.clone(),
                plugins: spawn_plugins(outputs.plugins.subscribe()),
                sessions: self.established.subscribe(),
            }),
            resolvers: fib::io::resolvers::follow(),
            disabled,
            found,
            docker: docker::io::spawn(outputs.docker.subscribe(), &self.context.state_dir),
            strangers: self.peers.strangers.take().expect("taken once"),
            drain,
            restarting: self.routing.restarting.clone(),
            peers: self.peers.requests.clone(),
            rib: self.routing.rib.sender.clone(),
        }
    }

    /// Under Kubernetes, packets of pods leave with the node's address while external neighbors
    /// have no route to them.
    pub(super) fn spawn_masquerade(&mut self) {
        let Some(learned) = self.routing.learned.take() else { return };
        let (want_tx, want) = watch::channel(None);
        let inputs = masquerade::Inputs {
            plan: self.plan.clone(),
            config: self.context.in_force.clone(),
            peers: self.peers.requests.clone(),
            rib: self.routing.rib.sender.clone(),
        };
        tokio::spawn(masquerade::run(inputs, want_tx));
        let ready = self.begun.subscribe();
        nft::io::masquerade::spawn(nft::io::masquerade::Inputs { want, learned, ready });
    }

    /// Accepts packets of containers that another program would drop, and drops packets from pods
    /// to the BGP port of neighbors.
    pub(super) fn spawn_firewall(
        &self,
        wanted: watch::Receiver<Option<Arc<nft::forward::Wanted>>>,
        block_bgp: watch::Receiver<Option<Arc<nft::pod_bgp::Wanted>>>,
    ) {
        let reports = &self.reports;
        let inputs = nft::io::forward::Inputs { wanted, ready: self.begun.subscribe() };
        let notes = reports.firewall_notes.clone();
        nft::io::forward::spawn_with_notes(inputs, reports.firewall.clone(), notes);
        nft::io::pod_bgp::spawn(block_bgp, reports.pod_bgp.clone(), reports.pod_bgp_notes.clone());
    }

    /// Tracks readiness. With `cluster`, this includes its conflist.
    pub(super) fn spawn_readiness(&self, cluster: Option<&Cluster>) {
        let waits = self.context.config.cni.enabled != Some(false);
        let written = cluster.filter(|_| waits).map(|cluster| cluster.conflist.status.clone());
        tokio::spawn(readiness::readiness(
            self.begun.clone(),
            self.ready.clone(),
            self.established.subscribe(),
            self.routing.rib.convergence.clone(),
            self.plan.clone(),
            written,
        ));
        tokio::spawn(readiness::watchdog());
    }
}
