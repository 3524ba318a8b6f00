//! The rows of `show fib` (docs/reference.md).

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// One route that is desired in the kernel.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct FibView {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    /// Empty for unreachable routes.
    pub next_hops: Vec<FibHop>,
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
    pub address: Option<IpAddr>,
    pub interface: String,
    pub weight: u16,
}
