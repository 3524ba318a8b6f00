//! API Node → NodeView.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::net::{Asn, Prefix, RouterId};

/// What we know of the cluster. Level-triggered: each change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Our own Node, once it was seen.
    pub own: Option<NodeView>,
    /// The others by name; empty where the peering does not need them.
    pub others: BTreeMap<String, NodeView>,
    /// Whether the list of the others is whole (the first listing is done).
    pub complete: bool,
    /// Service ranges, from ServiceCIDR objects or the configuration.
    pub service_cidrs: Vec<Prefix>,
    /// Addresses of the API server, for the route guard.
    pub api_servers: Vec<IpAddr>,
}

/// The parts of a Node that matter to routing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    /// `spec.podCIDRs`, valid ones.
    pub pod_cidrs: Vec<Prefix>,
    /// InternalIP addresses in the Node's order.
    pub addresses: Vec<IpAddr>,
    /// Annotation `routelet.io/as`.
    pub asn: Option<Asn>,
    /// Annotation `routelet.io/router-id`.
    pub router_id: Option<RouterId>,
    /// Annotation `routelet.io/peering`.
    pub peering: Option<String>,
    /// Label `routelet.io/route-reflector`.
    pub reflector: Option<bool>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// What could not be understood, in plain words.
    pub problems: Vec<String>,
}
