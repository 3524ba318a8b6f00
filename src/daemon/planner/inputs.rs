//! What the planner reads, and how it waits for changes.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, watch};

use crate::{
    bgp::{
        io::{ToPeers, rib::RibSender},
        peer::PeerKey,
    },
    cni::conflist::Plugins,
    config::Config,
    docker,
    fib::host::Host,
    k8s::{node::Nodes, objects::Objects, services::Services},
    net::Prefix,
    plan::{Drain, PlanInputs, Sessions},
    unnumbered::io::Found,
};

/// Inputs of the planner.
pub(in crate::daemon) struct Inputs {
    pub(in crate::daemon) config: watch::Receiver<Arc<Config>>,
    pub(in crate::daemon) host: watch::Receiver<Arc<Host>>,
    /// `None` outside of Kubernetes.
    pub(in crate::daemon) cluster: Option<ClusterInputs>,
    /// DNS resolvers of the host, for the route guard.
    pub(in crate::daemon) resolvers: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(in crate::daemon) disabled: watch::Receiver<BTreeSet<PeerKey>>,
    /// Networks of the Docker engine.
    pub(in crate::daemon) docker: watch::Receiver<Arc<docker::Selected>>,
    /// Unnumbered neighbors found on each interface.
    pub(in crate::daemon) found: watch::Receiver<Arc<Found>>,
    /// Sources of connections that are not configured neighbors.
    pub(in crate::daemon) strangers: mpsc::Receiver<IpAddr>,
    /// The drain step of the node.
    pub(in crate::daemon) drain: watch::Receiver<Option<Drain>>,
    pub(in crate::daemon) restarting: watch::Receiver<bool>,
    /// For retrying neighbors at once when a link or an address is added.
    pub(in crate::daemon) peers: mpsc::Sender<ToPeers>,
    /// The RIB, to query which neighbors can be removed.
    pub(in crate::daemon) rib: RibSender,
}

/// Inputs that only exist under Kubernetes.
pub(in crate::daemon) struct ClusterInputs {
    /// Known Nodes.
    pub(in crate::daemon) nodes: watch::Receiver<Arc<Nodes>>,
    /// BGPPeer and BGPPolicy objects.
    pub(in crate::daemon) objects: watch::Receiver<Arc<Objects>>,
    /// Ranges in which pods may have addresses.
    pub(in crate::daemon) held: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    /// Known Services.
    pub(in crate::daemon) services: watch::Receiver<Arc<Services>>,
    /// The CNI plugins on this host.
    pub(in crate::daemon) plugins: watch::Receiver<Arc<Plugins>>,
    /// Established sessions.
    pub(in crate::daemon) sessions: watch::Receiver<Arc<Sessions>>,
}

/// Which input changed.
pub(super) enum Change {
    /// Needs a new plan.
    Plan,
    /// Established sessions, which only change the topology.
    Sessions,
    /// A Node connects that is not a neighbor yet.
    Connected(IpAddr),
    /// A sender is gone.
    End,
}

impl Inputs {
    /// Waits for a change. Cancel safe: `changed` marks nothing as seen until it completes.
    pub(super) async fn changed(&mut self, nodes: Option<&Nodes>) -> Change {
        let Self {
            config,
            host,
            cluster,
            resolvers,
            disabled,
            docker,
            found,
            drain,
            restarting,
            strangers,
            ..
        } = self;
        let alive = tokio::select! {
            r = config.changed() => r.is_ok(),
            r = host.changed() => r.is_ok(),
            change = changed_in(cluster.as_mut()) => return change,
            addr = caller(strangers, nodes) => return Change::Connected(addr),
            r = resolvers.changed() => r.is_ok(),
            r = disabled.changed() => r.is_ok(),
            r = found.changed() => r.is_ok(),
            r = docker.changed() => r.is_ok(),
            r = drain.changed() => r.is_ok(),
            r = restarting.changed() => r.is_ok(),
        };
        if alive { Change::Plan } else { Change::End }
    }

    /// Established sessions; none outside of Kubernetes.
    pub(super) fn sessions(&mut self) -> Arc<Sessions> {
        self.cluster.as_mut().map(|c| c.sessions.borrow_and_update().clone()).unwrap_or_default()
    }

    pub(super) fn nodes(&mut self) -> Option<Arc<Nodes>> {
        self.cluster.as_mut().map(|c| c.nodes.borrow_and_update().clone())
    }

    /// BGPPeer and BGPPolicy objects; none outside of Kubernetes.
    pub(super) fn objects(&mut self) -> Arc<Objects> {
        self.cluster.as_mut().map(|c| c.objects.borrow_and_update().clone()).unwrap_or_default()
    }

    /// Copies the inputs that the plan uses unchanged.
    pub(super) fn copy_to(&mut self, extra: &mut PlanInputs) {
        if let Some(cluster) = &mut self.cluster {
            extra.held = cluster.held.borrow_and_update().clone();
            extra.services = cluster.services.borrow_and_update().clone();
            extra.plugins = cluster.plugins.borrow_and_update().clone();
        }
        extra.resolvers = self.resolvers.borrow_and_update().clone();
        extra.found = self.found.borrow_and_update().clone();
        extra.disabled = self.disabled.borrow_and_update().clone();
        extra.drain = *self.drain.borrow_and_update();
        extra.restarting = *self.restarting.borrow_and_update();
    }
}

/// Waits for a change of the cluster; forever outside of Kubernetes. Cancel safe.
async fn changed_in(cluster: Option<&mut ClusterInputs>) -> Change {
    let Some(ClusterInputs { nodes, objects, held, services, plugins, sessions }) = cluster else {
        return std::future::pending().await;
    };
    let alive = tokio::select! {
        r = nodes.changed() => r.is_ok(),
        r = held.changed() => r.is_ok(),
        r = objects.changed() => r.is_ok(),
        r = services.changed() => r.is_ok(),
        r = plugins.changed() => r.is_ok(),
        r = sessions.changed() => return if r.is_ok() { Change::Sessions } else { Change::End },
    };
    if alive { Change::Plan } else { Change::End }
}

/// The next Node that connects and is not a neighbor yet. Cancel safe: other sources are discarded.
async fn caller(strangers: &mut mpsc::Receiver<IpAddr>, nodes: Option<&Nodes>) -> IpAddr {
    loop {
        match strangers.recv().await {
            Some(addr) if nodes.is_some_and(|n| n.others().any(|o| o.addresses.contains(&addr))) => {
                return addr;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
