//! The Kubernetes API server: the objects that routelet watches there, and those that it writes.
//!
//! Watched are:
//!
//! - Nodes ([`node`], [`cluster`]): our own by name, and all of them only while the peering needs
//!   them. Views of some hundred octets are kept, never whole objects.
//! - Services while any could be advertised, and EndpointSlices while one of these requires local
//!   endpoints ([`services`]).
//! - BGPPeer and BGPPolicy objects ([`objects`]), if the cluster has these kinds.
//!
//! Written are the condition `NetworkUnavailable` of our own Node ([`condition`]), which requires
//! the right to patch `nodes/status`; Events ([`notice`]); and the BGPNodeStatus of our Node.
//!
//! Every watch has the same states and the same back-off ([`watch`]); only the processing of the
//! objects differs.
//!
//! The API server may be unreachable for any length of time, including at the start. The last known
//! state stays in force, and is saved in the state folder. Nothing here ends the daemon or blocks
//! other tasks.

mod bounded;
pub mod cluster;
pub mod condition;
pub mod crd;
mod fields;
pub mod io;
mod metadata;
pub mod node;
pub mod notice;
pub mod objects;
pub mod pods;
pub mod progress;
pub mod reports;
pub mod service_limits;
pub mod services;
pub mod view;
pub mod watch;

/// API version of our own kinds.
pub const API_VERSION: &str = "routelet.io/v1alpha1";
