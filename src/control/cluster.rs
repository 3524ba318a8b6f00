//! The JSON of `kubectl routelet`: an object for each row.

use schemars::JsonSchema;
use serde::Serialize;

use crate::k8s::{
    crd::{RouteReport, SessionReport},
    reports::Report,
};

/// One node of `kubectl routelet nodes`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeRow {
    /// Name of the Node.
    node: String,
    /// Own AS number; `null` if it is unknown.
    asn: Option<u32>,
    /// BGP identifier; `null` if it is unknown.
    router_id: Option<String>,
    /// Established sessions.
    sessions_up: u32,
    /// All sessions.
    sessions_configured: u32,
    /// Prefixes in the table.
    prefixes: u64,
    /// Number of problems.
    problems: usize,
    /// Whether the report has only some of the routes.
    truncated: bool,
    /// Why the BGPNodeStatus cannot be read; `null` if it can.
    unreadable: Option<String>,
}

/// One session of `kubectl routelet sessions`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SessionRow {
    /// Name of the Node.
    node: String,
    /// Address of the neighbor.
    address: String,
    /// AS number of the neighbor; `null` if any is accepted and none was seen yet.
    remote_as: Option<u32>,
    /// State as in `show neighbors`.
    state: String,
    /// Origin of the session: `configured`, `object`, `gateway`, `mesh`, `reflector` or `range`.
    source: String,
    /// As configured; `null` without one.
    description: Option<String>,
    /// Number of accepted prefixes.
    accepted: u64,
    /// Number of advertised prefixes.
    advertised: u64,
    /// Why the last session or attempt ended; `null` if none has.
    last_error: Option<String>,
}

/// One problem of `kubectl routelet problems`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProblemRow {
    /// Name of the Node.
    node: String,
    /// Stable name of the problem.
    reason: String,
    /// What is wrong, and what to do about it.
    text: String,
}

/// One path of `kubectl routelet routes`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RouteRow {
    /// Name of the Node.
    node: String,
    /// Destination.
    prefix: String,
    /// The neighbor it was learned from; `null` for own prefixes.
    neighbor: Option<String>,
    /// Next hop; `null` for own prefixes.
    next_hop: Option<String>,
    /// Whether it is the best path.
    best: bool,
    /// Whether the kernel has it.
    installed: bool,
    /// Why it is best, why it lost, or why it is not used at all.
    reason: String,
}

impl From<&Report> for NodeRow {
    fn from(Report { node, report, unreadable }: &Report) -> Self {
        Self {
            node: node.clone(),
            asn: report.asn,
            router_id: report.router_id.clone(),
            sessions_up: report.sessions_up,
            sessions_configured: report.sessions_configured,
            prefixes: report.prefixes,
            problems: report.problems.len(),
            truncated: report.truncated,
            unreadable: unreadable.clone(),
        }
    }
}

impl SessionRow {
    pub(super) fn new(node: &str, session: &SessionReport) -> Self {
        let SessionReport {
            address,
            remote_as,
            state,
            source,
            description,
            accepted,
            advertised,
            last_error,
        } = session.clone();
        let node = node.to_owned();
        Self { node, address, remote_as, state, source, description, accepted, advertised, last_error }
    }
}

impl ProblemRow {
    /// A problem is `Reason: text`, as `show summary` prints it.
    pub(super) fn new(node: &str, problem: &str) -> Self {
        let (reason, text) = problem.split_once(": ").unwrap_or(("", problem));
        Self { node: node.to_owned(), reason: reason.to_owned(), text: text.to_owned() }
    }
}

impl RouteRow {
    pub(super) fn new(node: &str, route: &RouteReport) -> Self {
        let RouteReport { prefix, neighbor, next_hop, best, installed, reason } = route.clone();
        Self { node: node.to_owned(), prefix, neighbor, next_hop, best, installed, reason }
    }
}
