//! The tasks that maintain our nftables tables and our chains in tables of iptables, and their
//! socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod forward;
mod iptables_legacy;
pub mod masquerade;
pub mod pod_bgp;
mod socket;
pub mod verdict;
