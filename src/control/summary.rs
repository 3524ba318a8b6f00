use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    bgp::view::NeighborView,
    fib::sysctl::Change,
    net::{Asn, Diagnostic, Prefix, RouterId},
    sandbox::SandboxView,
};

/// `show summary`: one screen about this node.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the Kubernetes node, else of the host.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// `None` if not known yet.
    pub asn: Option<Asn>,
    /// BGP identifier; `null` until it is known.
    pub router_id: Option<RouterId>,
    /// Own addresses that neighbors see as next hops.
    pub addresses: Vec<IpAddr>,
    /// Start of the daemon; RFC 3339, UTC.
    pub started: String,
    /// Modes as text: `kubernetes (peering auto)`, `standalone`, `fib`, `cni`, ….
    pub modes: Vec<String>,
    /// Whether `/readyz` reports success.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Numbers of neighbors.
    pub neighbors: NeighborTotals,
    /// The first sessions as in `show neighbors`, those that are down first.
    #[serde(default)]
    pub sessions: Vec<NeighborView>,
    /// Numbers of routes.
    pub routes: RouteTotals,
    /// Refused paths by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// The first own prefixes, those that are advertised to no neighbor first.
    #[serde(default)]
    pub own: Vec<OwnPrefix>,
    /// Number of own prefixes.
    #[serde(default)]
    pub own_prefixes: u64,
    /// The last error of a session; `null` if there was none.
    pub last_error: Option<LastError>,
    /// Problems for the operator, each with its remedy.
    pub problems: Vec<String>,
    /// The same by reason, severity and subject.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
    /// Sysctls that routelet has changed since the host was booted.
    #[serde(default)]
    pub sysctls: Vec<Change>,
    /// What the daemon may do; `None` of a daemon of a version that restricted nothing.
    #[serde(default)]
    pub sandbox: Option<SandboxView>,
}

/// A prefix that this node originates, or would originate if its interface were up.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct OwnPrefix {
    /// Prefix that this host originates.
    pub prefix: Prefix,
    /// As in `show routes`.
    pub source: String,
    /// Interface whose subnet it is; `null` for others.
    pub interface: Option<String>,
    /// To how many neighbors it is advertised, and the first of them.
    pub neighbors: u64,
    /// Neighbors that have it.
    pub advertised_to: Vec<String>,
    /// Why it is advertised to no neighbor.
    pub reason: Option<String>,
}

/// Numbers of sessions that are configured and established.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct NeighborTotals {
    /// Neighbors by configuration, peering and listen ranges.
    pub configured: u64,
    /// Those with an established session.
    pub up: u64,
    /// Those that are disabled.
    pub disabled: u64,
}

/// Numbers of routes by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct RouteTotals {
    /// Paths received from neighbors.
    pub received: u64,
    /// Learned routes in the kernel.
    pub installed: u64,
    /// Own prefixes that are advertised to at least one neighbor.
    pub advertised: u64,
    /// Own prefixes.
    pub originated: u64,
}

/// The most recent error of any neighbor.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct LastError {
    /// RFC 3339, UTC.
    pub at: String,
    /// `null` if it does not concern a neighbor.
    pub neighbor: Option<String>,
    /// What went wrong.
    pub text: String,
}
