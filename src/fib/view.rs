//! The rows of `show fib` (docs/reference.md).

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// One route that is desired in the kernel.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct FibView {
    /// Destination.
    pub prefix: Prefix,
    /// Number of the kernel's table.
    pub table: u32,
    /// Metric in the kernel; the lowest wins.
    pub metric: u32,
    /// Empty for unreachable routes.
    pub next_hops: Vec<FibHop>,
    /// Whether the kernel has it.
    pub in_kernel: bool,
    /// Why it is not in the kernel (another route holds its key, the kernel refused it, or
    /// something is missing), or which other route is used instead.
    pub problem: Option<String>,
    /// The kernel's route protocol number (`fib.protocol`).
    pub protocol: u8,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct FibHop {
    /// Address of the gateway; `null` if the destination is on the link.
    pub address: Option<IpAddr>,
    /// Name of the interface that packets leave by.
    pub interface: String,
    /// Share of packets in relation to the other next hops, from 1.
    pub weight: u16,
}
