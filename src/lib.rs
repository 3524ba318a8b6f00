//! routelet.
pub mod bgp;
pub mod config;
pub mod fib;
pub mod k8s;
pub mod mailbox;
pub mod net;
pub mod plan;
