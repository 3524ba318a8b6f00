//! Kubernetes: what we read from the API server and what we write.

pub mod cluster;
pub mod cni;
pub mod gate;
pub mod io;
pub mod node;
pub mod view;
