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
    /// Whether the kernel holds it; filled in from the fib.
    pub installed: bool,
    pub origin: String,
    /// Numbers; a set is an array inside.
    pub as_path: serde_json::Value,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    pub large_communities: Vec<String>,
    pub ext_communities: Vec<String>,
    /// Why it is best, why it lost, or why it is not used at all.
    pub reason: String,
    /// Seconds.
    pub age: u64,
    /// Its identifier (RFC 7911): with `advertised` ours, else the neighbor's; `null` without.
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

/// Numbers for `show summary`, `show neighbors` and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub prefixes: BTreeMap<Family, u64>,
    pub paths: BTreeMap<Family, u64>,
    /// What all routes take, in octets, and what they may take at the most.
    #[serde(default)]
    pub octets: u64,
    #[serde(default)]
    pub budget: u64,
    /// Paths that are refused, by reason.
    #[serde(default)]
    pub refused: BTreeMap<Family, BTreeMap<String, u64>>,
    /// By neighbor as written in the views.
    pub neighbors: BTreeMap<String, NeighborCounts>,
}

/// Per family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighborCounts {
    pub received: BTreeMap<Family, u64>,
    pub accepted: BTreeMap<Family, u64>,
    pub advertised: BTreeMap<Family, u64>,
    /// What its routes take, in octets.
    #[serde(default)]
    pub octets: u64,
    /// Prefixes of a family that it may send.
    #[serde(default)]
    pub max_prefixes: u32,
    /// Kept back by `max-prefixes-out`.
    #[serde(default)]
    pub withheld: BTreeMap<Family, u64>,
    /// What the operator should know, each with its remedy: for the notes of the neighbor's view.
    #[serde(default)]
    pub notes: Vec<String>,
}
