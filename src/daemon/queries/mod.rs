//! Handles queries of the control socket: collects state from the tasks that own it, and assembles
//! the responses.

mod actions;
mod metrics;
mod names;
pub(super) mod own;
mod page;
mod policies;
mod routes;
mod status;

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    drain::{DrainError, Drainer},
    forwarding::Forwarding,
    host::State,
    problems,
    reload::{Reloader, Report},
    unnumbered,
};
use crate::{
    bfd,
    bgp::{
        io::{
            Act, ToPeers,
            rib::{RibSender, ToRib},
        },
        peer::PeerKey,
        rib::{Counts, view::NeighborDetails},
    },
    cni::view::ConflistStatus,
    config::{self, Config},
    control::{
        ConfigView, HostStatus, NeighborReport, NeighborView, Query, Response, io::server::Reply,
        page::trends::Trends,
    },
    fib::{
        host::Host,
        io::{Counters, FibClient},
    },
    k8s::{node::Nodes, view::ApiStatus},
    net::{Diagnostic, Prefix, Reachable},
    plan::{NoPlan, Plan, host::interfaces},
    sandbox::SandboxView,
};

/// The sources of all responses. Cheap to clone: channels and snapshots.
#[derive(Clone)]
pub(in crate::daemon) struct QueryHandler {
    pub(in crate::daemon) started: String,
    pub(in crate::daemon) node_name: String,
    pub(in crate::daemon) config: watch::Receiver<Arc<Config>>,
    pub(in crate::daemon) plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    /// Links and addresses.
    pub(in crate::daemon) host: watch::Receiver<Arc<Host>>,
    pub(in crate::daemon) reachable: watch::Receiver<Arc<Reachable>>,
    pub(in crate::daemon) rib: RibSender,
    pub(in crate::daemon) peers: mpsc::Sender<ToPeers>,
    pub(in crate::daemon) fib: FibClient,
    pub(in crate::daemon) counters: Arc<Counters>,
    pub(in crate::daemon) own_there: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    pub(in crate::daemon) forwarding: watch::Receiver<Forwarding>,
    /// Problems found by the tasks.
    pub(in crate::daemon) problems: problems::Sources,
    pub(in crate::daemon) bfd: bfd::io::Handle,
    pub(in crate::daemon) kubernetes: Option<Kubernetes>,
    pub(in crate::daemon) sandbox: SandboxView,
    pub(in crate::daemon) disabled: watch::Sender<BTreeSet<PeerKey>>,
    pub(in crate::daemon) ready: watch::Receiver<bool>,
    pub(in crate::daemon) reloader: Reloader,
    /// The result of the last reload, for metrics.
    pub(in crate::daemon) reloaded: watch::Receiver<Report>,
    pub(in crate::daemon) drainer: Drainer,
    pub(in crate::daemon) trends: watch::Sender<Arc<Trends>>,
}

/// The sources that exist under Kubernetes only.
#[derive(Clone)]
pub(in crate::daemon) struct Kubernetes {
    pub(in crate::daemon) nodes: watch::Receiver<Arc<Nodes>>,
    pub(in crate::daemon) api: watch::Receiver<ApiStatus>,
    pub(in crate::daemon) conflist: watch::Receiver<ConflistStatus>,
}

impl QueryHandler {
    pub(in crate::daemon) async fn handle(self, query: Query) -> Reply {
        match query {
            Query::Routes(filter) => self.routes(filter).await,
            Query::Fib => Reply::Pages { large: true, pages: self.fib_pages() },
            query => self.single(query).await.into(),
        }
    }

    /// Handles queries whose response is one message.
    async fn single(self, query: Query) -> Response {
        match query {
            Query::Summary => Response::Summary(Box::new(self.summary().await)),
            Query::Neighbors => Response::Neighbors(self.neighbors().await),
            Query::Neighbor(name) => self.neighbor(&name).await,
            // These are sent in pages, see `handle`.
            Query::Routes(_) | Query::Fib => Response::End,
            Query::Node => Response::Node(self.node_given(&self.neighbors().await).map(Box::new)),
            Query::Policies(name) => self.policies(name).await,
            Query::Bfd => Response::Bfd(self.bfd.status().await.sessions),
            Query::Explain(question) => self.explain(question).await,
            Query::Host => Response::Host(Box::new(self.host().await)),
            Query::Interfaces => Response::Interfaces(self.host().await.interfaces),
            Query::Config => Response::Config(Box::new(self.config_view())),
            Query::Events { after } => Response::Events(super::events::after(after)),
            Query::Reset(t) => self.act(&t, Act::Reset { message: t.message.clone() }).await,
            Query::Refresh(t) => self.act(&t, Act::Refresh).await,
            Query::Disable(t) => self.act(&t, Act::Disable { message: t.message.clone() }).await,
            Query::Enable(t) => self.act(&t, Act::Enable).await,
            Query::Reload(order) => self.reloader.reload(order).await,
            Query::ConfirmReload => self.reloader.confirm().await,
            Query::Drain { now } => done(self.drainer.drain(now).map(Some)),
            Query::Undrain => done(self.drainer.undrain().map(|()| None)),
        }
    }

    fn config_view(&self) -> ConfigView {
        let plan = self.plan.borrow().clone();
        let in_force = plan.as_ref().as_ref().ok();
        let config = in_force.map_or_else(|| self.config.borrow().clone(), |plan| plan.config.clone());
        let global = in_force.map(|plan| &plan.global);
        let peers = || in_force.into_iter().flat_map(|plan| plan.peers.values()).map(|peer| &**peer);
        ConfigView {
            effective: config::effective(&config, global, peers()),
            file: config::as_file(&config, global, peers()),
        }
    }

    pub(in crate::daemon) async fn counts(&self) -> Counts {
        let (reply, response) = oneshot::channel();
        if self.rib.send(ToRib::Counts { reply }).await.is_err() {
            return Counts::default();
        }
        response.await.unwrap_or_default()
    }

    /// The state of the sessions.
    pub(in crate::daemon) async fn sessions(&self) -> Vec<NeighborView> {
        let (reply, response) = oneshot::channel();
        if self.peers.send(ToPeers::Status { reply }).await.is_err() {
            return Vec::new();
        }
        response.await.unwrap_or_default()
    }

    /// The state of the sessions, with the counters of the RIB.
    pub(in crate::daemon) async fn neighbors(&self) -> Vec<NeighborView> {
        let mut views = self.sessions().await;
        add_counts(&mut views, &self.counts().await);
        if let Ok(plan) = self.plan.borrow().as_ref() {
            views.extend(plan.unfound.iter().map(unnumbered::view));
        }
        views
    }

    async fn neighbor(&self, name: &str) -> Response {
        let views = self.neighbors().await;
        match names::resolve(name, &views).cloned() {
            Ok(session) => {
                let details = self.neighbor_details(session.address.clone()).await;
                Response::Neighbor(Box::new(NeighborReport { session, details }))
            }
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    async fn neighbor_details(&self, name: String) -> Option<Box<NeighborDetails>> {
        let (reply, response) = oneshot::channel();
        self.rib.send(ToRib::Neighbor { name, reply }).await.ok()?;
        response.await.ok().flatten().map(Box::new)
    }

    async fn host(&self) -> HostStatus {
        let neighbors = self.neighbors().await;
        let (plan, host) = (self.plan.borrow().clone(), self.host.borrow().clone());
        let subnets: Vec<_> = match plan.as_ref() {
            Ok(plan) => interfaces(plan, &host)
                .into_iter()
                .flat_map(|i| i.subnets)
                .filter_map(|(p, why)| why.is_none().then_some(p))
                .collect(),
            Err(_) => Vec::new(),
        };
        let state = State { host: &host, neighbors: &neighbors, sent: &self.advertised_to(&subnets).await };
        super::host::status(plan.as_ref().as_ref(), &state, lines(&self.diagnostics(&neighbors)))
    }
}

/// Adds the table's counters of each neighbor.
pub(in crate::daemon) fn add_counts(views: &mut [NeighborView], counts: &Counts) {
    for view in views {
        if let Some(n) = counts.neighbors.get(&view.address) {
            view.received = n.received.clone();
            view.accepted = n.accepted.clone();
            view.advertised = n.advertised.clone();
            view.withheld = n.withheld.clone();
            view.notes.extend(n.notes.iter().cloned());
        }
    }
}

/// As `show` prints them.
pub(in crate::daemon) fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

fn done(result: Result<Option<String>, DrainError>) -> Response {
    result.map_or_else(|error| Response::Refused(error.to_string()), Response::Done)
}
