//! Pod CIDRs → bytes of the conflist.

use std::net::IpAddr;

use crate::net::Prefix;

/// The file that the container runtime reads, as far as it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflist {
    pub bytes: Vec<u8>,
    pub pod_cidrs: Vec<Prefix>,
    /// Own addresses that pods see as their gateway.
    pub gateways: Vec<IpAddr>,
    /// Name of the bridge that the plugin makes.
    pub bridge: String,
}
