//! What `show node` says.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// The Kubernetes side of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name under which the Node is looked for.
    pub node: String,
    /// `null` until the Node was seen.
    pub uid: Option<String>,
    pub pod_cidrs: Vec<Prefix>,
    pub addresses: Vec<IpAddr>,
    pub conflist: ConflistStatus,
    /// The other nodes that a mesh would peer with; empty where the peering does not need them.
    pub mesh_members: Vec<MeshMember>,
    pub api: ApiStatus,
    /// Nodes whose paths lead over the default route only, and so are not used.
    pub unresolved_nodes: usize,
    /// What to do about them.
    pub remedy: Option<String>,
    /// What the operator should know, each with its remedy.
    pub problems: Vec<String>,
}

/// Another node as a mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshMember {
    pub node: String,
    /// Where its session goes; `null` while it has no InternalIP.
    pub address: Option<IpAddr>,
    pub pod_cidrs: Vec<Prefix>,
}

/// The connection to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatus {
    pub connected: bool,
    /// RFC 3339, UTC: when this connection, or this outage, began.
    pub since: Option<String>,
    pub last_error: Option<String>,
    /// What is known comes from the state folder, not yet from the API server.
    pub from_state: bool,
}

/// How far the file for the container runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflistStatus {
    /// `null` where routelet writes none.
    pub path: Option<String>,
    pub state: ConflistState,
    /// What is in the way, or what the operator should know, with its remedy.
    pub problem: Option<String>,
}

/// Of [`ConflistStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflistState {
    /// `cni.enabled = false`, or not under Kubernetes.
    #[default]
    Disabled,
    /// Not yet: the problem says for what.
    Waiting,
    /// As we want it.
    Written,
    /// The last attempt failed; tried again.
    Failed,
}
