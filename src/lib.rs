//! routelet: advertises the subnets of this host's containers by BGP, and installs learned routes.

pub mod bfd;
pub mod bgp;
pub mod cli;
pub mod cni;
pub mod config;
pub mod control;
pub mod convert;
pub mod daemon;
pub mod docker;
pub mod explain;
pub mod fib;
pub mod k8s;
pub mod lab;
pub mod liveness;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod netlink;
pub mod nft;
pub mod pace;
pub mod plan;
pub mod sandbox;
pub mod state;
pub mod supervise;
pub mod unnumbered;
pub mod watched;
