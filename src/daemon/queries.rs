//! Handles queries of the control socket: collects state from the tasks that own it, and assembles
//! the responses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    drain::Drainer,
    forwarding::Forwarding,
    problems,
    reload::{Reloader, Report},
    unnumbered,
};
use crate::{
    bfd,
    bgp::{
        io::{
            Act, ToPeers,
            pages::{Pages, Stopped},
            rib::{RibSender, ToRib},
        },
        peer::PeerKey,
        rib::{Counts, RouteFilter},
        standing,
        view::SessionState,
    },
    cni::view::{ConflistState, ConflistStatus},
    config::{self, Config},
    control::{
        HostStatus, LastError, NeighborTotals, NeighborView, NodeStatus, Query, Response, RouteTotals,
        RouteView, Summary, Target,
        io::{http, http::Page, server::Reply},
    },
    fib::{
        self,
        host::Host,
        io::{BUCKETS, Counters, FibClient, Outcome},
    },
    k8s::{node::Nodes, services::Eligibility, view::ApiStatus},
    metrics::{self, Cluster, Latency, Snapshot},
    net::{Diagnostic, Family, Prefix, Reachable, Reason, Subject},
    plan::Plan,
    sandbox::SandboxView,
};

/// The sources of all responses. Cheap to clone: channels and snapshots.
#[derive(Clone)]
pub(super) struct QueryHandler {
    pub(super) started: String,
    pub(super) node_name: String,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) plan: watch::Receiver<Arc<Result<Plan, String>>>,
    /// Links and addresses.
    pub(super) host: watch::Receiver<Arc<Host>>,
    pub(super) reachable: watch::Receiver<Arc<Reachable>>,
    pub(super) rib: RibSender,
    pub(super) peers: mpsc::Sender<ToPeers>,
    pub(super) fib: FibClient,
    pub(super) counters: Arc<Counters>,
    pub(super) own_there: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    pub(super) forwarding: watch::Receiver<Forwarding>,
    /// What is found by the tasks.
    pub(super) problems: problems::Sources,
    pub(super) bfd: bfd::io::Handle,
    pub(super) kubernetes: Option<Kubernetes>,
    pub(super) sandbox: SandboxView,
    pub(super) disabled: watch::Sender<BTreeSet<PeerKey>>,
    pub(super) ready: watch::Receiver<bool>,
    pub(super) reloader: Reloader,
    /// The file on disk, and what is in force.
    pub(super) reloaded: watch::Receiver<Report>,
    pub(super) drainer: Drainer,
}

/// The sources that exist under Kubernetes only.
#[derive(Clone)]
pub(super) struct Kubernetes {
    pub(super) nodes: watch::Receiver<Arc<Nodes>>,
    pub(super) api: watch::Receiver<ApiStatus>,
    pub(super) conflist: watch::Receiver<ConflistStatus>,
}

impl QueryHandler {
    pub(super) async fn handle(self, query: Query) -> Reply {
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
            // In pages: see `handle`.
            Query::Routes(_) | Query::Fib => Response::End,
            Query::Node => Response::Node(self.node_given(&self.neighbors().await).map(Box::new)),
            Query::Bfd => Response::Bfd(self.bfd.status().await.sessions),
            Query::Host => Response::Host(Box::new(self.host().await)),
            Query::Config => Response::Config(self.effective()),
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
}

impl QueryHandler {
    /// `/metrics` and the probes.
    pub(super) async fn page(self, page: Page) -> http::Reply {
        match page {
            // Any response shows that the process is alive.
            Page::Livez => http::Reply { ok: true, text: "alive\n".into() },
            Page::Startupz => http::Reply { ok: true, text: "started\n".into() },
            Page::Readyz => {
                let ok = *self.ready.borrow();
                let missing = if ok { None } else { self.missing(&self.neighbors().await) };
                let text = missing.map_or_else(|| "ready\n".into(), |what| format!("not ready: {what}\n"));
                http::Reply { ok, text }
            }
            Page::Metrics => http::Reply { ok: true, text: metrics::text(self.snapshot().await) },
        }
    }

    fn effective(&self) -> serde_json::Value {
        let plan = self.plan.borrow().clone();
        match plan.as_ref() {
            Ok(plan) => {
                config::effective(&plan.config, Some(&plan.global), plan.peers.values().map(|p| &**p))
            }
            Err(_) => config::effective(&self.config.borrow(), None, []),
        }
    }

    async fn snapshot(&self) -> Snapshot {
        let neighbors = self.neighbors().await;
        let mut snapshot = Snapshot {
            problems: self.diagnostics(&neighbors),
            neighbors,
            counts: self.counts().await,
            operations: operations(&self.counters),
            repairs: self.counters.repairs.load(Relaxed),
            convergence: convergence(&self.counters),
            bfd: self.bfd_metrics().await,
            reload: self.last_reload(),
            ..Snapshot::default()
        };
        let installed = self.fib.counts().await;
        for family in Family::ALL {
            snapshot.fib_routes.insert(family, installed[family.index()] as u64);
        }
        if let Some(kubernetes) = &self.kubernetes {
            let nodes = kubernetes.nodes.borrow();
            let known = nodes.others.len() + usize::from(nodes.own.is_some());
            snapshot.kubernetes =
                Some(Cluster { connected: kubernetes.api.borrow().connected, nodes: known as u64 });
            let conflist = kubernetes.conflist.borrow();
            snapshot.conflist = conflist.path.clone().filter(|_| conflist.state == ConflistState::Written);
        }
        snapshot
    }

    fn last_reload(&self) -> metrics::Reload {
        let report = self.reloaded.borrow();
        metrics::Reload { successful: report.successful, at: report.at }
    }

    async fn bfd_metrics(&self) -> metrics::Bfd {
        let status = self.bfd.status().await;
        let name = |view: &bfd::view::BfdView| match &view.interface {
            Some(interface) if view.neighbor.starts_with("fe80:") => format!("{}%{interface}", view.neighbor),
            _ => view.neighbor.clone(),
        };
        metrics::Bfd {
            sessions: status.sessions.into_iter().map(|view| (name(&view), view)).collect(),
            discarded: status.totals.discarded,
        }
    }

    pub(super) async fn counts(&self) -> Counts {
        let (reply, response) = oneshot::channel();
        if self.rib.send(ToRib::Counts { reply }).await.is_err() {
            return Counts::default();
        }
        response.await.unwrap_or_default()
    }

    /// The state of the sessions.
    async fn sessions(&self) -> Vec<NeighborView> {
        let (reply, response) = oneshot::channel();
        if self.peers.send(ToPeers::Status { reply }).await.is_err() {
            return Vec::new();
        }
        response.await.unwrap_or_default()
    }

    /// The state of the sessions, with the counters of the RIB.
    pub(super) async fn neighbors(&self) -> Vec<NeighborView> {
        let mut views = self.sessions().await;
        add_counts(&mut views, &self.counts().await);
        if let Ok(plan) = self.plan.borrow().as_ref() {
            views.extend(plan.unfound.iter().map(unnumbered::view));
        }
        views
    }

    async fn neighbor(&self, name: &str) -> Response {
        let views = self.neighbors().await;
        let wanted = |v: &NeighborView| v.address == name || v.interface.as_deref() == Some(name);
        match views.into_iter().find(wanted) {
            Some(view) => Response::Neighbor(Box::new(view)),
            None => Response::Refused(unknown_neighbor(name)),
        }
    }

    async fn host(&self) -> HostStatus {
        let neighbors = self.neighbors().await;
        let (plan, host) = (self.plan.borrow().clone(), self.host.borrow().clone());
        super::host::status(plan.as_ref().as_ref(), &host, &neighbors, lines(&self.diagnostics(&neighbors)))
    }

    async fn act(&self, target: &Target, act: Act) -> Response {
        let Ok(key) = target.neighbor.parse::<PeerKey>();
        if let PeerKey::Interface(name) = &key {
            return self.act_on_interface(name, &act).await;
        }
        self.act_on(key, act).await
    }

    /// Acts on all unnumbered neighbors of an interface. Disabling also applies to neighbors found
    /// later.
    async fn act_on_interface(&self, name: &str, act: &Act) -> Response {
        let found = self.sessions().await.into_iter().filter(|v| v.interface.as_deref() == Some(name));
        let keys: Vec<PeerKey> = found.filter_map(|v| v.address.parse().ok()).collect();
        let is_sought = self.plan.borrow().as_ref().as_ref().is_ok_and(|p| p.seeks_on(name));
        if keys.is_empty() && !is_sought {
            return Response::Refused(unknown_neighbor(name));
        }
        let whole = PeerKey::Interface(name.to_owned());
        match act {
            Act::Disable { .. } if is_sought => self.disabled.send_modify(|d| {
                d.insert(whole);
            }),
            Act::Enable => self.disabled.send_modify(|d| {
                d.remove(&whole);
            }),
            _ if keys.is_empty() => {
                return Response::Refused(format!(
                    "no neighbor was found on {name} yet; `routelet show neighbor {name}` shows why"
                ));
            }
            _ => {}
        }
        for key in keys {
            match self.act_on(key, act.clone()).await {
                Response::Done(_) => {}
                other => return other,
            }
        }
        Response::Done(None)
    }

    async fn act_on(&self, key: PeerKey, act: Act) -> Response {
        let (reply, response) = oneshot::channel();
        let request = ToPeers::Act { neighbor: key.clone(), act: act.clone(), reply };
        if self.peers.send(request).await.is_err() {
            return Response::Refused("the daemon is stopping".into());
        }
        match response.await {
            Ok(Ok(())) => {
                // Recorded for the plan too, so that a new plan does not start the session again.
                match act {
                    Act::Disable { .. } => self.disabled.send_modify(|d| {
                        d.insert(key);
                    }),
                    Act::Enable => self.disabled.send_modify(|d| {
                        d.remove(&key);
                    }),
                    Act::Reset { .. } | Act::Refresh => {}
                }
                Response::Done(None)
            }
            Ok(Err(unknown)) => Response::Refused(unknown.to_string()),
            Err(_) => Response::Refused("the daemon is stopping".into()),
        }
    }

    async fn routes(&self, filter: RouteFilter) -> Reply {
        let names = [&filter.neighbor, &filter.received, &filter.advertised];
        for name in names.into_iter().flatten() {
            if !self.sessions().await.iter().any(|v| v.address == *name) {
                return Response::Refused(unknown_neighbor(name)).into();
            }
        }
        let large = filter.prefix.is_none() || filter.longer;
        let rows = self.route_pages(filter);
        let pages = stream::unfold(Some(rows), async |rows| {
            let mut rows = rows?;
            match rows.next().await {
                Ok(list) if list.is_empty() => None,
                Ok(list) => Some((Response::Routes(list), Some(rows))),
                Err(Stopped) => Some((Response::Refused("the daemon is stopping".into()), None)),
            }
        });
        // An empty first page, so that the table has its heading even without rows.
        let pages = stream::iter([Response::Routes(Vec::new())]).chain(pages);
        Reply::Pages { large, pages: pages.boxed() }
    }

    fn fib_pages(&self) -> BoxStream<'static, Response> {
        let start = (self.fib.clone(), Some(fib::walk::Walk::default()));
        let pages = stream::unfold(start, async |(fib, mut walk)| {
            let rows = fib.page(&mut walk).await;
            (!rows.is_empty()).then_some((Response::Fib(rows), (fib, walk)))
        });
        stream::iter([Response::Fib(Vec::new())]).chain(pages).boxed()
    }

    fn route_pages(&self, filter: RouteFilter) -> RoutePages {
        RoutePages {
            rib: Pages::new(self.rib.clone(), filter),
            fib: self.fib.clone(),
            plan: self.plan.borrow().clone(),
        }
    }

    /// All paths at once, for filters that match few.
    pub(super) async fn route_views(&self, filter: RouteFilter) -> Vec<RouteView> {
        let (mut pages, mut views) = (self.route_pages(filter), Vec::new());
        while let Ok(mut list) = pages.next().await
            && !list.is_empty()
        {
            views.append(&mut list);
        }
        views
    }

    /// What prevents the node from being ready.
    fn missing(&self, neighbors: &[NeighborView]) -> Option<String> {
        if *self.ready.borrow() {
            return None;
        }
        let kubernetes = self.kubernetes.as_ref();
        let api = kubernetes.map(|k| k.api.borrow().clone());
        let conflist = kubernetes.map(|k| k.conflist.borrow().clone());
        let plan = self.plan.borrow().clone();
        let unplanned = plan.as_ref().as_ref().err().map(String::as_str);
        let wanted = neighbors.len() as u64 - count_state(neighbors, SessionState::Disabled);
        let up = count_state(neighbors, SessionState::Established);
        Some(not_ready(api.as_ref(), unplanned, conflist.as_ref(), (up, wanted)))
    }

    pub(super) fn node(&self) -> Option<NodeStatus> {
        let kubernetes = self.kubernetes.as_ref()?;
        let nodes = kubernetes.nodes.borrow().clone();
        let (services, problems, reflectors) = match self.plan.borrow().as_ref() {
            Ok(plan) => {
                (plan.services.clone(), plan.diagnostics(), plan.reflectors.iter().cloned().collect())
            }
            // Without the API server there is no Node, so problems of the configuration are
            // premature.
            Err(_) if nodes.own.is_none() && !kubernetes.api.borrow().connected => Default::default(),
            Err(missing) => (Vec::new(), vec![incomplete(missing)], Vec::new()),
        };
        let problems = [problems, self.problems.of_host(), self.problems.of_sessions()].concat();
        let mut nodes = Nodes::clone(&nodes);
        if let (Some(own), Ok(plan)) = (&mut nodes.own, self.plan.borrow().as_ref()) {
            own.addresses.clone_from(&plan.node_addresses);
        }
        let status = NodeStatus::new(
            &self.node_name,
            &nodes,
            &self.reachable.borrow(),
            kubernetes.api.borrow().clone(),
            kubernetes.conflist.borrow().clone(),
            services,
            problems,
        );
        Some(NodeStatus { reflectors, ..status })
    }

    /// The same, given the sessions: nodes behind the default route are no problem while a session
    /// with a gateway is established.
    fn node_given(&self, neighbors: &[NeighborView]) -> Option<NodeStatus> {
        let mut node = self.node()?;
        if neighbors.iter().any(|v| v.state == SessionState::Established && v.source == "gateway") {
            node.remedy = None;
        }
        Some(node)
    }

    /// All problems that an operator should know, the most urgent first: those of the sessions as
    /// of now, the others as the tasks found them last.
    pub(super) fn diagnostics(&self, neighbors: &[NeighborView]) -> Vec<Diagnostic> {
        let node = self.node_given(neighbors);
        let unconnected = node.as_ref().is_some_and(|n| n.uid.is_none() && !n.api.connected);
        let cluster = node.map(|node| node.diagnostics()).unwrap_or_default();
        let planned = match self.plan.borrow().as_ref() {
            Ok(plan) => plan.diagnostics(),
            Err(_) if unconnected => Vec::new(),
            Err(missing) => vec![incomplete(missing)],
        };
        let mut sessions = [standing::problems(neighbors), self.bfd.problems.borrow().clone()].concat();
        let known: BTreeSet<_> = sessions.iter().map(Diagnostic::key).map(|(r, s)| (r, s.clone())).collect();
        let later = self.problems.of_sessions().into_iter();
        sessions.extend(
            later.filter(|d| is_current(d, neighbors) && !known.contains(&(d.reason, d.subject.clone()))),
        );
        let mut all = [cluster, planned, self.problems.of_host(), sessions].concat();
        all.sort_by_key(|problem| problem.severity);
        all
    }

    pub(super) async fn summary(&self) -> Summary {
        let neighbors = self.neighbors().await;
        let counts = self.counts().await;
        let plan = self.plan.borrow().clone();
        let config = self.config.borrow().clone();
        let diagnostics = self.diagnostics(&neighbors);
        let (mut asn, mut router_id, mut addresses, mut originated) = (None, None, Vec::new(), Vec::new());
        if let Ok(plan) = plan.as_ref() {
            asn = Some(plan.global.asn);
            router_id = Some(plan.global.router_id);
            addresses = plan.peers.values().flat_map(|p| own_addresses(&p.own)).collect();
            addresses.sort_unstable();
            addresses.dedup();
            originated = plan.originated.keys().copied().collect();
        }
        let advertised = neighbors
            .iter()
            .filter(|v| v.state == SessionState::Established)
            .map(|v| v.advertised.values().sum());
        let installed: usize = self.fib.counts().await.iter().sum();
        let installed = (installed as u64).saturating_sub(self.own_there.borrow().len() as u64);
        Summary {
            node: self.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            asn,
            router_id,
            addresses,
            started: self.started.clone(),
            modes: modes(&config, self.kubernetes.is_some()),
            ready: *self.ready.borrow(),
            not_ready: self.missing(&neighbors),
            neighbors: NeighborTotals {
                configured: neighbors.len() as u64,
                up: count_state(&neighbors, SessionState::Established),
                disabled: count_state(&neighbors, SessionState::Disabled),
            },
            routes: RouteTotals {
                received: counts.neighbors.values().flat_map(|n| n.received.values()).sum(),
                installed,
                advertised: advertised.max().unwrap_or(0u64).min(originated.len() as u64),
                originated: originated.len() as u64,
            },
            last_error: last_error(&neighbors),
            problems: lines(&diagnostics),
            diagnostics,
            sysctls: self.forwarding.borrow().changed.clone(),
            sandbox: Some(self.sandbox.clone()),
        }
    }
}

/// The first cause that prevents a node from being ready.
fn not_ready(
    api: Option<&ApiStatus>,
    unplanned: Option<&str>,
    conflist: Option<&ConflistStatus>,
    (up, wanted): (u64, u64),
) -> String {
    if let (Some(_), Some(ApiStatus { connected: false, last_error: Some(error), .. })) = (unplanned, api) {
        return format!("no connection to the API server: {error}");
    }
    if let Some(missing) = unplanned {
        return missing.into();
    }
    if let Some(ConflistStatus { state: ConflistState::Waiting | ConflistState::Failed, problem, .. }) =
        conflist
    {
        let problem = problem.as_deref().unwrap_or("in progress");
        return format!("the conflist is not written: {problem}");
    }
    match up {
        0 if wanted == 0 => "the state of the neighbors is not known yet".into(),
        0 => format!("none of {wanted} sessions is established"),
        up => format!(
            "initial routes of the neighbors are incomplete ({up} of {wanted} sessions are established)"
        ),
    }
}

/// Pages of paths from the RIB, with their installation from the FIB and their Services from the
/// plan.
struct RoutePages {
    rib: Pages,
    fib: FibClient,
    plan: Arc<Result<Plan, String>>,
}

impl RoutePages {
    /// The next page; empty after the last one.
    async fn next(&mut self) -> Result<Vec<RouteView>, Stopped> {
        let mut views = self.rib.next().await?;
        let used = |view: &RouteView| view.best || view.multipath;
        let prefixes = views.iter().filter(|v| used(v)).map(|v| v.prefix).collect();
        let mut installed = self.fib.installed(prefixes).await.into_iter();
        for view in views.iter_mut().filter(|v| used(v)) {
            view.installed = installed.next().unwrap_or(false);
        }
        self.name_services(&mut views);
        Ok(views)
    }

    fn name_services(&self, views: &mut [RouteView]) {
        if views.iter().all(|v| v.source != "service") {
            return;
        }
        let mut served: BTreeMap<Prefix, Vec<&Eligibility>> = BTreeMap::new();
        for service in self.plan.as_ref().as_ref().map_or(&[][..], |plan| &plan.services) {
            service.announced.into_iter().for_each(|p| served.entry(p).or_default().push(service));
        }
        for view in views.iter_mut().filter(|v| v.source == "service") {
            if let Some([first, more @ ..]) = served.get(&view.prefix).map(Vec::as_slice) {
                let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                view.reason = format!("{}; for {}{more}", view.reason, first.services.join(", "));
            }
        }
    }
}

/// Whether a problem that was found a moment ago may still stand.
fn is_current(problem: &Diagnostic, neighbors: &[NeighborView]) -> bool {
    let is_up = |n: &NeighborView| n.state == SessionState::Established;
    let state = neighbors.iter().find(|n| n.address == problem.subject.name).map(is_up);
    match problem.reason {
        Reason::NeighborDown => state == Some(false),
        Reason::NothingReceived | Reason::NothingAdvertised => state == Some(true),
        _ => false,
    }
}

/// Fills in what the table counts of each neighbor.
pub(super) fn add_counts(views: &mut [NeighborView], counts: &Counts) {
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

/// There is no plan yet.
fn incomplete(missing: &str) -> Diagnostic {
    Diagnostic::new(Reason::StartIncomplete, Subject::host(), missing, "")
}

/// As `show` prints them.
pub(super) fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

fn done(result: Result<Option<String>, String>) -> Response {
    result.map_or_else(Response::Refused, Response::Done)
}

/// Counters by operation and result.
fn operations(counters: &Counters) -> Vec<(&'static str, &'static str, u64)> {
    let all = [("replace", &counters.put), ("delete", &counters.del), ("nexthop", &counters.nexthop)];
    let both = |(name, outcome): (&'static str, &Outcome)| {
        [(name, "ok", outcome.ok.load(Relaxed)), (name, "error", outcome.error.load(Relaxed))]
    };
    all.into_iter().flat_map(both).collect()
}

fn convergence(counters: &Counters) -> Latency {
    let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
    Latency {
        sum: counters.convergence_sum_micros.load(Relaxed) as f64 / 1e6,
        buckets: bounds.zip(&counters.convergence).map(|(le, n)| (le, n.load(Relaxed))).collect(),
    }
}

fn own_addresses(own: &crate::bgp::peer::OwnAddresses) -> impl Iterator<Item = std::net::IpAddr> + use<> {
    [own.v4.map(Into::into), own.v6.map(Into::into)].into_iter().flatten()
}

fn count_state(neighbors: &[NeighborView], state: SessionState) -> u64 {
    neighbors.iter().filter(|v| v.state == state).count() as u64
}

/// The latest error of a session that is not established.
fn last_error(neighbors: &[NeighborView]) -> Option<LastError> {
    let failed = neighbors.iter().filter_map(|v| Some((v, v.last_error.clone()?)));
    let (view, text) = failed.max_by(|a, b| a.0.since.cmp(&b.0.since))?;
    Some(LastError { at: view.since.clone(), neighbor: Some(view.address.clone()), text })
}

fn modes(config: &Config, kubernetes: bool) -> Vec<String> {
    let mut modes = Vec::new();
    if kubernetes {
        let peering: Vec<_> =
            config.kubernetes.peering.iter().map(|p| format!("{p:?}").to_lowercase()).collect();
        modes.push(format!("kubernetes (peering {})", peering.join(", ")));
        if config.cni.enabled != Some(false) {
            modes.push("cni".into());
        }
    } else {
        modes.push("standalone".into());
    }
    modes.push(if config.fib.install {
        format!("fib (table {})", config.fib.table)
    } else {
        "fib off".into()
    });
    modes
}

fn unknown_neighbor(name: &str) -> String {
    format!("there is no neighbor {name}; `routelet show neighbors` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readyz_reports_the_first_missing_condition_only() {
        let away = ApiStatus { last_error: Some("401 Unauthorized".into()), ..ApiStatus::default() };
        let there = ApiStatus { connected: true, ..ApiStatus::default() };
        let conflist = |state, problem: &str| ConflistStatus {
            state,
            problem: (!problem.is_empty()).then(|| problem.into()),
            ..ConflistStatus::default()
        };
        let waiting = conflist(ConflistState::Waiting, "the CNI plugin `bridge` is missing");
        let failed = conflist(ConflistState::Failed, "read-only file system");
        let written = conflist(ConflistState::Written, "");
        #[rustfmt::skip]
        let cases: [(&str, String); 7] = [
            ("no connection to the API server: 401 Unauthorized", not_ready(Some(&away), Some("no Node"), Some(&waiting), (0, 0))),
            ("no Node",                             not_ready(Some(&there), Some("no Node"), Some(&waiting), (0, 0))),
            ("the CNI plugin `bridge` is missing",  not_ready(Some(&there), None, Some(&waiting), (1, 2))),
            ("read-only file system",               not_ready(Some(&there), None, Some(&failed), (1, 2))),
            ("1 of 2 sessions are established",     not_ready(Some(&there), None, Some(&written), (1, 2))),
            ("none of 1 sessions is established",   not_ready(Some(&there), None, Some(&written), (0, 1))),
            ("the state of the neighbors",          not_ready(None, None, None, (0, 0))),
        ];
        for (part, text) in cases {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
