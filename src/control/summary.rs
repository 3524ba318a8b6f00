use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    fib::sysctl::Change,
    net::{Asn, RouterId},
    sandbox::SandboxView,
};

/// `show summary`: one screen about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the Kubernetes node, else of the host.
    pub node: String,
    pub version: String,
    /// `None`: not known yet.
    pub asn: Option<Asn>,
    pub router_id: Option<RouterId>,
    /// Own addresses that neighbors see as next hops.
    pub addresses: Vec<IpAddr>,
    /// RFC 3339, UTC: when the daemon started.
    pub started: String,
    /// What it does, in words: `kubernetes (peering auto)`, `standalone`, `fib`, `cni`, ….
    pub modes: Vec<String>,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// What is missing for that.
    #[serde(default)]
    pub not_ready: Option<String>,
    pub neighbors: NeighborTotals,
    pub routes: RouteTotals,
    pub last_error: Option<LastError>,
    /// What the operator should know, each with its remedy.
    pub problems: Vec<String>,
    /// Sysctls of the host that routelet has changed since it was booted.
    #[serde(default)]
    pub sysctls: Vec<Change>,
    /// What the daemon may do; `None` of a daemon of a version that restricted nothing.
    #[serde(default)]
    pub sandbox: Option<SandboxView>,
}

/// How many sessions there should be and how many are up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborTotals {
    pub configured: u64,
    pub up: u64,
    pub disabled: u64,
}

/// Routes by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTotals {
    /// Paths that neighbors have sent.
    pub received: u64,
    /// Learned routes in the kernel.
    pub installed: u64,
    /// Own prefixes that are announced to at least one neighbor.
    pub advertised: u64,
    /// Own prefixes.
    pub originated: u64,
}

/// The error that came last, of any neighbor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// RFC 3339, UTC.
    pub at: String,
    /// `null` where it is not of a neighbor.
    pub neighbor: Option<String>,
    pub text: String,
}
