//! Keeps the node's BGPNodeStatus: what its sessions and routes are like, for those who have kubectl and no shell there.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answers::Answers;
use crate::{
    bgp::{rib::RouteFilter, view::SessionState},
    control::{NeighborView, RouteView},
    k8s::{
        crd::{NodeReport, RouteReport, SessionReport},
        io::{Reporter, Written},
    },
};

/// Before the first look, and between two looks while nothing changes.
const LOOK: Duration = Duration::from_secs(10);
/// After a write, so that a busy cluster costs the API server little.
const REST: Duration = Duration::from_secs(30);
/// What was written may be gone: the object goes with the Node that it belonged to, also when that is made anew. Where nothing
/// changed the API server stores nothing.
const AGAIN: Duration = Duration::from_secs(900);
/// Where the cluster does not know the kind.
const ABSENT: Duration = Duration::from_secs(60);
/// So many routes are named; of a table with more than [`LARGE`] paths only the counts.
const ROUTES: usize = 200;
const LARGE: u64 = 2000;

/// Never ends.
pub(super) async fn run(answers: Answers, reporter: Reporter) {
    let mut last: Option<(NodeReport, Instant)> = None;
    let mut refused = false;
    let mut pause = LOOK;
    loop {
        sleep(pause).await;
        pause = LOOK;
        let Some(uid) = answers.node().and_then(|node| node.uid) else { continue };
        let report = report(&answers).await;
        if last.as_ref().is_some_and(|(said, at)| *said == report && at.elapsed() < AGAIN) {
            continue;
        }
        match reporter.write(&uid, &report).await {
            Ok(Written::Done) => (last, refused, pause) = (Some((report, Instant::now())), false, REST),
            Ok(Written::NoSuchKind) => (last, pause) = (None, ABSENT),
            Err(error) => {
                if !refused {
                    tracing::warn!(%error, "cannot write our BGPNodeStatus, trying again; allow our ServiceAccount to create bgpnodestatuses and to patch their status");
                }
                (refused, pause) = (true, ABSENT);
            }
        }
    }
}

async fn report(answers: &Answers) -> NodeReport {
    let neighbors = answers.neighbors().await;
    let counts = answers.counts().await;
    let few = counts.paths.values().sum::<u64>() <= LARGE;
    let mut routes = match few {
        true => answers.route_views(RouteFilter::default()).await,
        false => Vec::new(),
    };
    // Own ones first, then those that are used.
    routes.sort_by_key(|r| (r.neighbor.is_some(), !r.best));
    let truncated = !few || routes.len() > ROUTES;
    routes.truncate(ROUTES);
    let summary = answers.summary().await;
    let up = |n: &&NeighborView| n.state == SessionState::Established;
    NodeReport {
        asn: summary.asn,
        router_id: summary.router_id.map(|id| id.to_string()),
        sessions_up: neighbors.iter().filter(up).count() as u32,
        sessions_configured: neighbors.len() as u32,
        prefixes: counts.prefixes.values().sum(),
        sessions: neighbors.iter().map(session).collect(),
        routes: routes.iter().map(route).collect(),
        truncated,
        problems: answers.node().map(|node| node.problems).unwrap_or_default(),
    }
}

fn session(view: &NeighborView) -> SessionReport {
    SessionReport {
        address: view.address.clone(),
        remote_as: view.remote_as,
        // As `show neighbors` writes it.
        state: serde_json::to_value(view.state)
            .ok()
            .and_then(|s| Some(s.as_str()?.to_owned()))
            .unwrap_or_default(),
        source: view.source.clone(),
        description: view.description.clone(),
        accepted: view.accepted.values().sum(),
        advertised: view.advertised.values().sum(),
        last_error: view.last_error.clone(),
    }
}

fn route(view: &RouteView) -> RouteReport {
    RouteReport {
        prefix: view.prefix.to_string(),
        neighbor: view.neighbor.clone(),
        next_hop: view.next_hop.map(|a| a.to_string()),
        best: view.best,
        installed: view.installed,
        reason: view.reason.clone(),
    }
}
