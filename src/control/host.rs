use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// `show host`: what this host does without Kubernetes, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct HostStatus {
    /// Where the configuration comes from, and what follows from it.
    pub configuration: String,
    /// Its interfaces, without the loopback.
    pub interfaces: Vec<InterfaceStatus>,
    /// Problems for the operator, each with its remedy.
    pub problems: Vec<String>,
}

/// One interface, except for the loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name in the kernel.
    pub name: String,
    /// `physical`, `bridge`, `veth`, ….
    pub kind: String,
    /// Set up by the administrator.
    pub up: bool,
    /// Whether the link is up and detects a signal.
    pub carrier: bool,
    /// Whether a default route leads over it.
    pub default_route: bool,
    /// BGP neighbors on it, each with its state.
    pub neighbors: Vec<NeighborOnLink>,
    /// Its subnets.
    pub subnets: Vec<SubnetStatus>,
    /// Why it has neither neighbors nor subnets that are advertised.
    pub reason: Option<String>,
}

/// A neighbor on an interface.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct NeighborOnLink {
    /// Link-local address.
    pub address: String,
    /// State of the session with it.
    pub state: super::SessionState,
}

/// A connected subnet.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SubnetStatus {
    /// The subnet.
    pub prefix: Prefix,
    /// Neighbors with a session to which it is advertised.
    pub advertised_to: Vec<String>,
    /// Why it is advertised to nobody.
    pub reason: Option<String>,
}
