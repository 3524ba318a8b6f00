//! The Kubernetes API server: the objects that routelet watches there, and those that it writes.
//!
//! From the API server come Nodes: our own, watched by name, and all of them only while the peering needs them. Views of some
//! hundred octets are kept ([`node`], [`cluster`]), never whole objects. The rights that it takes are list and watch of
//! `nodes`. Services are watched while any could be announced, EndpointSlices while one of these wants local endpoints
//! ([`services`]): list and watch of both. Written there are the condition `NetworkUnavailable` of our own Node ([`condition`]),
//! which takes the right to patch `nodes/status`, and Events ([`notice`]), which takes the right to create them, and
//! the BGPNodeStatus of our Node. BGPPeer and BGPPolicy ([`objects`]) are read where the cluster knows them.
//!
//! The API server may be away for any length of time, also at the start. What was last known stays in force, and is kept in
//! the state folder. Nothing here ends the daemon or holds anything else up.

mod bounded;
pub mod cluster;
pub mod condition;
pub mod crd;
pub mod io;
mod metadata;
pub mod node;
pub mod notice;
pub mod objects;
pub mod pods;
pub mod service_limits;
pub mod services;
pub mod view;

/// Of our own kinds.
pub const API_VERSION: &str = "routelet.io/v1alpha1";
