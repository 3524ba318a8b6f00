//! What `show fib` says: fields of the interface page, then more.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// One route that we want in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FibView {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    /// Empty for unreachable routes.
    pub next_hops: Vec<FibHop>,
    pub in_kernel: bool,
    /// Why it is not there: who holds its place, what the kernel said, or what is missing; or which other route is
    /// used instead of it.
    pub problem: Option<String>,
    /// The kernel's route protocol number (`fib.protocol`).
    pub protocol: u8,
}

/// One next hop of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FibHop {
    pub address: Option<IpAddr>,
    pub interface: String,
    pub weight: u16,
}
