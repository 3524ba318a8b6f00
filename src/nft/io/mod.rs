//! The tasks that keep our nftables tables and our chain in iptables' FORWARD, and their socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod forward;
mod iptables_legacy;
pub mod masquerade;
pub mod pod_bgp;
mod socket;
