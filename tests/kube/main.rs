//! Kubernetes with real parts: API server, controller manager, etcd and CNI plugins of the test kit, each test with a
//! control plane of its own in its own namespaces.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod conflist;
mod pods;
mod watch;
