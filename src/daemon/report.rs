//! Keeps the node's BGPNodeStatus: what its sessions and routes are like, for those who have kubectl and no shell there.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answers::{Answers, lines};
use crate::{
    bgp::{rib::RouteFilter, view::SessionState},
    control::{NeighborView, RouteView},
    k8s::{
        crd::{NodeReport, RouteReport, SessionReport},
        io::{Reporter, Written},
    },
    net::text::{UNTRUSTED_MAX, cut},
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
/// So many sessions are named.
const SESSIONS: usize = 500;
const LARGE: u64 = 2000;
/// So many problems.
const PROBLEMS: usize = 96;

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
        sessions: listed(neighbors.iter().map(session).collect()),
        routes: routes.iter().map(route).collect(),
        truncated,
        problems: lines(&answers.diagnostics(&neighbors)).into_iter().take(PROBLEMS).collect(),
    }
}

/// Those that are down first; a reflector has thousands, and an object of the API server has room for about a megabyte.
fn listed(mut sessions: Vec<SessionReport>) -> Vec<SessionReport> {
    sessions.sort_by_key(|s| s.state == "established");
    sessions.truncate(SESSIONS);
    sessions
}

fn session(view: &NeighborView) -> SessionReport {
    let short = |text: &Option<String>| text.as_deref().map(shortened);
    SessionReport {
        address: view.address.clone(),
        remote_as: view.remote_as,
        // As `show neighbors` writes it.
        state: serde_json::to_value(view.state)
            .ok()
            .and_then(|s| Some(s.as_str()?.to_owned()))
            .unwrap_or_default(),
        source: view.source.clone(),
        description: short(&view.description),
        accepted: view.accepted.values().sum(),
        advertised: view.advertised.values().sum(),
        last_error: short(&view.last_error),
    }
}

fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, UNTRUSTED_MAX);
    text
}

fn route(view: &RouteView) -> RouteReport {
    RouteReport {
        prefix: view.prefix.to_string(),
        neighbor: view.neighbor.clone(),
        next_hop: view.next_hop.map(|a| a.to_string()),
        best: view.best,
        installed: view.installed,
        reason: shortened(&view.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::text::PROBLEM_MAX;

    #[test]
    fn the_largest_report_is_below_half_a_megabyte() {
        let long = "x".repeat(1 << 20);
        let session = |n: usize| SessionReport {
            address: format!("2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff"),
            remote_as: Some(u32::MAX),
            state: if n < 4000 { "established".into() } else { "active".into() },
            source: "configured".into(),
            description: Some(shortened(&long)),
            last_error: Some(shortened(&long)),
            ..SessionReport::default()
        };
        let sessions = listed((0..4100).map(session).collect());
        assert_eq!(
            (sessions.len(), sessions[99].state.as_str()),
            (SESSIONS, "active"),
            "those that are down first"
        );
        let route = RouteReport {
            prefix: "2001:db8::/32".into(),
            reason: shortened(&long),
            ..RouteReport::default()
        };
        let problems = vec!["x".repeat(PROBLEM_MAX + 30); PROBLEMS];
        let report = NodeReport { sessions, routes: vec![route; ROUTES], problems, ..NodeReport::default() };
        let octets = serde_json::to_vec(&report).unwrap().len();
        assert!(octets < 512 * 1024, "{octets}");
    }
}
