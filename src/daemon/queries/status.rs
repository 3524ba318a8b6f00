//! The state of the daemon and of the node, with all problems for the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{QueryHandler, lines};
use crate::{
    bgp::{peer::OwnAddresses, rib::Counts, standing, view::SessionState},
    cni::view::{ConflistState, ConflistStatus},
    config::Config,
    control::{LastError, NeighborTotals, NeighborView, NodeStatus, RouteTotals, Summary},
    k8s::{node::Nodes, view::ApiStatus},
    net::{Diagnostic, Reason, Subject},
    plan::NoPlan,
};

/// Maximum number of sessions in the summary.
const MAX_SESSIONS: usize = 10;

impl QueryHandler {
    /// Why the node is not ready, if so.
    pub(super) fn missing(&self, neighbors: &[NeighborView]) -> Option<String> {
        if *self.ready.borrow() {
            return None;
        }
        let kubernetes = self.kubernetes.as_ref();
        let api = kubernetes.map(|k| k.api.borrow().clone());
        let conflist = kubernetes.map(|k| k.conflist.borrow().clone());
        let plan = self.plan.borrow().clone();
        let unplanned = plan.as_ref().as_ref().err().map(ToString::to_string);
        let wanted = neighbors.len() as u64 - count_state(neighbors, SessionState::Disabled);
        let up = count_state(neighbors, SessionState::Established);
        Some(not_ready(api.as_ref(), unplanned.as_deref(), conflist.as_ref(), (up, wanted)))
    }

    pub(in crate::daemon) fn node(&self) -> Option<NodeStatus> {
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

    /// The same, given the sessions: nodes that are reached over the default route only are no
    /// problem while a session with a gateway is established.
    pub(super) fn node_given(&self, neighbors: &[NeighborView]) -> Option<NodeStatus> {
        let mut node = self.node()?;
        if neighbors.iter().any(|v| v.state == SessionState::Established && v.source == "gateway") {
            node.remedy = None;
        }
        Some(node)
    }

    /// All problems for the operator, the most urgent first: those of the sessions as of now, the
    /// others as last reported by the tasks.
    pub(in crate::daemon) fn diagnostics(&self, neighbors: &[NeighborView]) -> Vec<Diagnostic> {
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

    pub(in crate::daemon) async fn summary(&self) -> Summary {
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
        let (own, own_prefixes) = match plan.as_ref() {
            Ok(plan) => self.own(plan, &neighbors).await,
            Err(_) => Default::default(),
        };
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
            sessions: first_sessions(&neighbors),
            refused: refused(&counts),
            routes: RouteTotals {
                received: counts.neighbors.values().flat_map(|n| n.received.values()).sum(),
                installed,
                advertised: advertised.max().unwrap_or(0u64).min(originated.len() as u64),
                originated: originated.len() as u64,
            },
            own,
            own_prefixes,
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

/// Whether a problem that was found a moment ago may still be present.
fn is_current(problem: &Diagnostic, neighbors: &[NeighborView]) -> bool {
    let is_up = |n: &NeighborView| n.state == SessionState::Established;
    let state = neighbors.iter().find(|n| n.address == problem.subject.name).map(is_up);
    match problem.reason {
        Reason::NeighborDown => state == Some(false),
        Reason::NothingReceived
        | Reason::NothingAdvertised
        | Reason::PrefixesRefused
        | Reason::NextHopUnresolved
        | Reason::PrefixesNotAdvertised
        | Reason::PrefixesFiltered
        | Reason::GracefulShutdown
        | Reason::RouterIdShared => state == Some(true),
        _ => false,
    }
}

/// The problem that there is no plan yet.
fn incomplete(missing: &NoPlan) -> Diagnostic {
    Diagnostic::new(Reason::StartIncomplete, Subject::host(), missing.to_string(), "")
}

fn own_addresses(own: &OwnAddresses) -> impl Iterator<Item = IpAddr> + use<> {
    [own.v4.map(Into::into), own.v6.map(Into::into)].into_iter().flatten()
}

fn count_state(neighbors: &[NeighborView], state: SessionState) -> u64 {
    neighbors.iter().filter(|v| v.state == state).count() as u64
}

/// Sessions that fit on one screen, those that are down first.
fn first_sessions(neighbors: &[NeighborView]) -> Vec<NeighborView> {
    let mut list: Vec<_> = neighbors.iter().collect();
    list.sort_by_key(|n| n.state == SessionState::Established);
    list.into_iter().take(MAX_SESSIONS).cloned().collect()
}

/// The number of refused prefixes of both families, by reason.
fn refused(counts: &Counts) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (reason, count) in counts.refused.values().flatten().filter(|(_, count)| **count > 0) {
        *all.entry(reason.clone()).or_default() += count;
    }
    all
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
