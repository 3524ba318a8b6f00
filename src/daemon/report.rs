//! Maintains the BGPNodeStatus of this node: its sessions and routes, for users of kubectl.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::queries::{QueryHandler, lines};
use crate::{
    bgp::{rib::RouteFilter, view::SessionState},
    control::{NeighborView, OwnPrefix, RouteView},
    k8s::{
        crd::{NodeReport, OwnReport, RouteReport, SessionReport},
        io::{Reporter, Written},
    },
    net::text::{UNTRUSTED_MAX, cut},
};

/// Time before the first report, and how often to check for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between writes, to limit the load on the API server.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// How often an unchanged report is written again: the object may have been deleted together with
/// its Node. The API server stores nothing if nothing changed.
const REWRITE_INTERVAL: Duration = Duration::from_secs(900);
/// Time to the next attempt if the cluster does not have the kind.
const MISSING_KIND_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum routes in a report; none if the table has more than [`LARGE_TABLE`] paths.
const MAX_ROUTES: usize = 200;
/// Maximum sessions in a report.
const MAX_SESSIONS: usize = 500;
const LARGE_TABLE: u64 = 2000;
/// Maximum problems in a report.
const MAX_PROBLEMS: usize = 88;
/// Maximum number of neighbors that are listed for an own prefix, and octets of each name.
const MAX_NAMES: usize = 4;
const MAX_NAME: usize = 64;

/// Never ends.
pub(super) async fn run(queries: QueryHandler, reporter: Reporter) {
    let mut last: Option<(NodeReport, Instant)> = None;
    let mut refused = false;
    let mut pause = CHECK_INTERVAL;
    loop {
        sleep(pause).await;
        pause = CHECK_INTERVAL;
        let Some(uid) = queries.node().and_then(|node| node.uid) else { continue };
        let report = report(&queries).await;
        if last.as_ref().is_some_and(|(written, at)| *written == report && at.elapsed() < REWRITE_INTERVAL) {
            continue;
        }
        match reporter.write(&uid, &report).await {
            Ok(Written::Done) => {
                (last, refused, pause) = (Some((report, Instant::now())), false, WRITE_INTERVAL)
            }
            Ok(Written::NoSuchKind) => (last, pause) = (None, MISSING_KIND_INTERVAL),
            Err(error) => {
                if !refused {
                    tracing::warn!(%error, "cannot write BGPNodeStatus, retrying; allow our ServiceAccount to create bgpnodestatuses and to patch their status");
                }
                (refused, pause) = (true, MISSING_KIND_INTERVAL);
            }
        }
    }
}

async fn report(queries: &QueryHandler) -> NodeReport {
    let neighbors = queries.neighbors().await;
    let counts = queries.counts().await;
    let few = counts.paths.values().sum::<u64>() <= LARGE_TABLE;
    let mut routes = match few {
        true => queries.route_views(RouteFilter::default()).await,
        false => Vec::new(),
    };
    // Own routes first, then selected ones.
    routes.sort_by_key(|r| (r.neighbor.is_some(), !r.best));
    let truncated = !few || routes.len() > MAX_ROUTES;
    routes.truncate(MAX_ROUTES);
    let summary = queries.summary().await;
    let up = |n: &&NeighborView| n.state == SessionState::Established;
    NodeReport {
        asn: summary.asn,
        router_id: summary.router_id.map(|id| id.to_string()),
        sessions_up: neighbors.iter().filter(up).count() as u32,
        sessions_configured: neighbors.len() as u32,
        prefixes: counts.prefixes.values().sum(),
        sessions: listed(neighbors.iter().map(session).collect()),
        routes: routes.iter().map(route).collect(),
        own: summary.own.iter().map(own).collect(),
        truncated,
        problems: lines(&queries.diagnostics(&neighbors)).into_iter().take(MAX_PROBLEMS).collect(),
    }
}

/// Limits the sessions, those that are down first: a reflector has thousands, and an object of the
/// API server is limited to about a megabyte.
fn listed(mut sessions: Vec<SessionReport>) -> Vec<SessionReport> {
    sessions.sort_by_key(|s| s.state == "established");
    sessions.truncate(MAX_SESSIONS);
    sessions
}

fn session(view: &NeighborView) -> SessionReport {
    let short = |text: &Option<String>| text.as_deref().map(shortened);
    SessionReport {
        address: view.address.clone(),
        remote_as: view.remote_as,
        // As in `show neighbors`.
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

fn own(view: &OwnPrefix) -> OwnReport {
    OwnReport {
        prefix: view.prefix.to_string(),
        source: view.source.clone(),
        neighbors: view.neighbors,
        advertised_to: view.advertised_to.iter().take(MAX_NAMES).map(|n| name(n)).collect(),
        reason: view.reason.as_deref().map(shortened),
    }
}

fn name(name: &str) -> String {
    let mut name = name.to_owned();
    cut(&mut name, MAX_NAME);
    name
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
            (MAX_SESSIONS, "active"),
            "those that are down first"
        );
        let route = RouteReport {
            prefix: "2001:db8::/32".into(),
            reason: shortened(&long),
            ..RouteReport::default()
        };
        let problems = vec!["x".repeat(PROBLEM_MAX + 30); MAX_PROBLEMS];
        // As many as in the summary.
        let own = OwnReport {
            prefix: "2001:db8::/32".into(),
            advertised_to: vec![name(&long); MAX_NAMES],
            reason: Some(shortened(&long)),
            ..OwnReport::default()
        };
        let (routes, own) = (vec![route; MAX_ROUTES], vec![own; 10]);
        let report = NodeReport { sessions, routes, own, problems, ..NodeReport::default() };
        let octets = serde_json::to_vec(&report).unwrap().len();
        assert!(octets < 512 * 1024, "{octets}");
    }
}
