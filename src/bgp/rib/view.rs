//! The fields of `show routes` (docs/reference.md), in their order.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::net::{Family, Prefix};

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    pub prefix: Prefix,
    /// `null` for own routes.
    pub neighbor: Option<String>,
    /// `pod-cidr`, `service`, `network`, `interface` or `bgp`.
    pub source: String,
    pub next_hop: Option<IpAddr>,
    pub best: bool,
    pub multipath: bool,
    pub stale: bool,
    /// Whether it is installed in the kernel; filled in from the fib.
    pub installed: bool,
    pub origin: String,
    /// AS numbers; a set is a nested array.
    pub as_path: serde_json::Value,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    pub large_communities: Vec<String>,
    pub ext_communities: Vec<String>,
    /// Why it is best, why it was not selected, or why it is not used at all.
    pub reason: String,
    /// Seconds.
    pub age: u64,
    /// Path identifier (RFC 7911): with `advertised` ours, else the neighbor's; `null` if none.
    #[serde(default)]
    pub path_id: Option<u32>,
}

/// Which paths to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteFilter {
    pub prefix: Option<Prefix>,
    /// With `prefix`: also everything inside it.
    pub longer: bool,
    /// With `prefix`: the most specific route that covers it, instead of this one alone.
    #[serde(default)]
    pub longest: bool,
    pub family: Option<Family>,
    /// Loc-RIB paths of one neighbor.
    pub neighbor: Option<String>,
    /// Adj-RIB-In of one neighbor, refused paths too.
    pub received: Option<String>,
    /// Adj-RIB-Out of one neighbor.
    pub advertised: Option<String>,
}

/// Counters for `show summary`, `show neighbors` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub prefixes: BTreeMap<Family, u64>,
    pub paths: BTreeMap<Family, u64>,
    /// Octets that all routes take; `budget`: the most that they may take.
    #[serde(default)]
    pub octets: u64,
    #[serde(default)]
    pub budget: u64,
    /// Refused paths by reason.
    #[serde(default)]
    pub refused: BTreeMap<Family, BTreeMap<String, u64>>,
    /// By the name of the neighbor.
    pub neighbors: BTreeMap<String, NeighborCounts>,
}

/// Per family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighborCounts {
    pub received: BTreeMap<Family, u64>,
    pub accepted: BTreeMap<Family, u64>,
    pub advertised: BTreeMap<Family, u64>,
    /// Octets that its routes take.
    #[serde(default)]
    pub octets: u64,
    /// Most prefixes per family (`max-prefixes`).
    #[serde(default)]
    pub max_prefixes: u32,
    /// Routes withheld by `max-prefixes-out`.
    #[serde(default)]
    pub withheld: BTreeMap<Family, u64>,
    /// Notes for the operator, each with a remedy; shown with the neighbor.
    #[serde(default)]
    pub notes: Vec<String>,
}
