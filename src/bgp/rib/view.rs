//! The fields of `show routes` (docs/reference.md), in their order.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::bgp::policy::PolicyCounts;
use crate::net::{Asn, Family, Prefix, RouterId, Unresolved};

/// One path.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct RouteView {
    /// Destination.
    pub prefix: Prefix,
    /// `null` for own routes.
    pub neighbor: Option<String>,
    /// `pod-cidr`, `service`, `network`, `interface` or `bgp`.
    pub source: String,
    /// Next hop; `null` for own routes.
    pub next_hop: Option<IpAddr>,
    /// Whether it is the best path.
    pub best: bool,
    /// Whether it is used beside the best path.
    pub multipath: bool,
    /// Kept from an earlier session by graceful restart.
    pub stale: bool,
    /// Whether it is installed in the kernel; filled in from the fib.
    pub installed: bool,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// AS numbers; a set is a nested array.
    pub as_path: serde_json::Value,
    /// LOCAL_PREF; `null` without one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; `null` without one.
    pub med: Option<u32>,
    /// Communities (RFC 1997), as `ASN:VALUE`.
    pub communities: Vec<String>,
    /// Large communities (RFC 8092), as `ASN:VALUE:VALUE`.
    pub large_communities: Vec<String>,
    /// Extended communities (RFC 4360).
    pub ext_communities: Vec<String>,
    /// Why it is best, why it was not selected, or why it is not used at all.
    pub reason: String,
    /// Seconds.
    pub age: u64,
    /// Path identifier (RFC 7911): with `advertised` ours, else the neighbor's; `null` if none.
    #[serde(default)]
    pub path_id: Option<u32>,
    /// Import refuses it, for `reason`.
    #[serde(default)]
    pub refused: bool,
    /// Whether it has ATOMIC_AGGREGATE.
    #[serde(default)]
    pub atomic_aggregate: bool,
    /// AS number and address.
    #[serde(default)]
    pub aggregator: Option<String>,
    /// ORIGINATOR_ID (RFC 4456); `null` without one.
    #[serde(default)]
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (RFC 4456); empty without one.
    #[serde(default)]
    pub cluster_list: Vec<Ipv4Addr>,
    /// RFC 9234 §5.
    #[serde(default)]
    pub only_to_customer: Option<Asn>,
    /// Codes of attributes that are passed on unread.
    #[serde(default)]
    pub unknown_attributes: Vec<u8>,
    /// Where one prefix was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<PathDetails>>,
}

/// How the next hop of a path is resolved, and to whom the path is advertised.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct PathDetails {
    /// Metric of the route to the next hop; `null` if it is not resolved.
    pub metric: Option<u32>,
    /// How the next hop resolves; empty if it does not.
    pub via: Vec<Via>,
    /// Names of neighbors.
    pub advertised_to: Vec<String>,
    /// Of an own route: the first neighbors to which it is not advertised.
    #[serde(default)]
    pub not_advertised_to: Vec<NotAdvertisedTo>,
}

/// A neighbor to which an own route is not advertised, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct NotAdvertisedTo {
    /// Address or interface of the neighbor.
    pub neighbor: String,
    /// Why it does not have the prefix.
    pub reason: String,
}

/// A gateway that leads to a next hop.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Via {
    /// Address of the next hop on the link.
    pub address: IpAddr,
    /// Filled in from the host.
    pub interface: Option<String>,
    /// Inside the daemon only; 0 if the connected subnets determine it.
    #[serde(skip)]
    pub ifindex: u32,
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
    /// Best paths that are not in the Adj-RIB-Out of this neighbor.
    #[serde(default)]
    pub not_advertised: Option<String>,
    /// Paths that import refuses.
    #[serde(default)]
    pub refused: bool,
    /// Paths with this community, in the notation of policies.
    #[serde(default)]
    pub community: Option<String>,
    /// Paths whose AS path fits this regular expression, in the notation of policies.
    #[serde(default)]
    pub as_path: Option<String>,
    /// Paths with this last AS number.
    #[serde(default)]
    pub origin_as: Option<Asn>,
}

impl RouteFilter {
    /// Whether at most one prefix is shown.
    pub fn is_single(&self) -> bool {
        self.prefix.is_some() && !self.longer
    }

    /// The names of neighbors in it.
    pub fn neighbors_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let names = [&mut self.neighbor, &mut self.received, &mut self.advertised, &mut self.not_advertised];
        names.into_iter().flatten()
    }
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
    /// Refused paths by reason, each reason that exists.
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

/// What `show neighbor` has besides the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct NeighborDetails {
    /// By family of the session.
    pub end_of_rib: BTreeMap<Family, EndOfRib>,
    /// Families with stale routes, or with a timer that waits for them.
    pub stale: BTreeMap<Family, StaleRoutes>,
    /// Security in force.
    pub security: Security,
    /// Limits in force.
    pub limits: Limits,
    /// Import policies, in order.
    pub import: Vec<PolicyHits>,
    /// Export policies in order, with what they have matched.
    pub export: Vec<PolicyHits>,
    /// Neighbors with the same export policies, this one included: the counters of `export` are
    /// those of all of them together.
    pub export_shared_by: u64,
}

/// RFC 4724 §2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct EndOfRib {
    /// Whether End-of-RIB was sent to the neighbor in this session.
    pub sent: bool,
    /// Whether the neighbor has sent End-of-RIB in this session.
    pub received: bool,
}

/// Routes that are removed unless the neighbor advertises them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct StaleRoutes {
    /// Number of stale routes.
    pub routes: u64,
    /// Until they are removed, or become long-lived stale.
    pub seconds: u64,
    /// RFC 9494.
    pub long_lived: bool,
}

/// What protects a session. `ttl_security` of the neighbor has whether RFC 5082 is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Security {
    /// RFC 2385.
    pub tcp_md5: bool,
    /// How far away the neighbor may be; `null`: any distance.
    pub max_hops: Option<u8>,
    /// Directions (`import`, `export`) without the policy that `bgp.require-policy` requires
    /// (RFC 8212): no route passes in them.
    pub missing_policies: Vec<String>,
}

/// How many routes are exchanged at most, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Limits {
    /// Most prefixes that are accepted from the neighbor.
    pub max_prefixes: u32,
    /// Seconds after which a session that exceeded it is started again; `null`: only a warning is
    /// logged.
    pub restart_after: Option<u64>,
    /// `max_prefixes` or the memory limit was exceeded in this session.
    pub is_exceeded: bool,
    /// `null`: any number of routes is advertised.
    pub max_prefixes_out: Option<u32>,
}

/// A policy of a neighbor, with what its statements have matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct PolicyHits {
    /// Name of the policy.
    pub policy: String,
    #[serde(flatten)]
    pub counts: PolicyCounts,
}

/// Where a policy is used, and what its statements have matched there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyUse {
    /// Names of neighbors.
    pub import: Vec<String>,
    pub export: Vec<String>,
    pub matched_on_import: PolicyCounts,
    pub matched_on_export: PolicyCounts,
}

/// What the table knows about one address, for `explain`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// All paths to prefixes that contain it, the longest prefix first, in the order of `show
    /// routes`.
    pub paths: Vec<PathExplained>,
    /// For each of the requested own prefixes, and each neighbor.
    pub advertised: Vec<Advertised>,
}

/// One path, and what import policies made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PathExplained {
    pub route: RouteView,
    pub state: PathState,
    /// How each import policy ended, up to one that rejects.
    pub policies: Vec<PolicyResult>,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Best or multipath.
    Selected,
    /// Another path is better.
    NotSelected,
    /// Refused by the route guard.
    Guard,
    /// Rejected by an import policy.
    Policy,
    /// Refused for any other reason: loops, RFC 8212, RFC 9234, RFC 9774.
    Refused,
    /// Its next hop cannot be used.
    Unresolved(Unresolved),
    /// Held back until a message arrives from the neighbor, as the link was lost.
    Held,
}

/// How one policy ended for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyResult {
    pub policy: String,
    /// Number of the statement that ended it, from 1; `None`: no statement did.
    pub statement: Option<usize>,
    pub accepted: bool,
}

/// Whether an own prefix is advertised to a neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub prefix: Prefix,
    /// Name of the neighbor.
    pub neighbor: String,
    /// `None`: it is advertised.
    pub why_not: Option<NotAdvertised>,
}

/// Why an own prefix is not advertised to a neighbor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdvertised {
    NoSession,
    /// The session does not carry routes of this family.
    NoFamily,
    /// RFC 8212 §2.
    NoPolicy,
    /// Nodes have Services of their own.
    ServiceToNode,
    /// Number of the statement from 1; 0: no statement, which accepts.
    Policy {
        policy: String,
        statement: usize,
    },
    /// There is no own address of the family on the session.
    NoNextHop,
    /// `max-prefixes-out`.
    Withheld,
    /// Being sent.
    Pending,
}

impl NotAdvertised {
    /// The reason for a route of this family.
    pub fn text(&self, family: Family) -> String {
        match self {
            Self::NoSession => "no session".into(),
            Self::NoFamily => format!("the session does not carry {}", family.as_str()),
            Self::NoPolicy => "no export policy (bgp.require-policy, RFC 8212)".into(),
            Self::ServiceToNode => "Services are not advertised to nodes of the cluster".into(),
            Self::Policy { policy, statement } => {
                format!("rejected by export policy {policy}, statement {statement}")
            }
            Self::NoNextHop => {
                "no own address of the family on the session's interface for the next hop".into()
            }
            Self::Withheld => "withheld by max-prefixes-out".into(),
            Self::Pending => "not sent yet".into(),
        }
    }
}

/// What of the routes exchanged with a neighbor is not used, or not advertised, and why. Inside the
/// daemon only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Paths that are refused, by reason. Routes that come back to this host do not count.
    pub refused: BTreeMap<&'static str, u64>,
    /// Next hops of its routes that are not resolved, within bounds.
    pub unresolved: Vec<(IpAddr, Unresolved)>,
    /// Own prefixes that are not advertised to it: how many, and the first of them.
    pub withheld: BTreeMap<Withheld, (u64, Prefix)>,
    /// Some of its routes have the community GRACEFUL_SHUTDOWN (RFC 8326).
    pub shutting_down: bool,
    /// It sent End-of-RIB for every family.
    pub ended: bool,
    /// Own routes of this host that it sends back, within bounds.
    pub returned: u64,
    /// It sends routes of other routers with this host's router id (RFC 4456 §8).
    pub originator_shared: bool,
}

/// Why an own prefix is not advertised to a neighbor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// The session does not have the family although it is configured.
    NotNegotiated(Family),
    /// There is no own address of the family on the session's interface.
    NoNextHop(Family),
    /// An export policy rejects it.
    Policy(String),
    /// `bgp.require-policy`, and there is no export policy.
    PolicyRequired,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A path with the least that every one has.
    pub(crate) fn route(prefix: &str) -> RouteView {
        RouteView {
            prefix: prefix.parse().unwrap(),
            neighbor: None,
            source: "bgp".into(),
            next_hop: None,
            best: false,
            multipath: false,
            stale: false,
            installed: false,
            origin: "igp".into(),
            as_path: serde_json::json!([]),
            local_pref: None,
            med: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            ext_communities: Vec::new(),
            reason: String::new(),
            age: 0,
            path_id: None,
            refused: false,
            atomic_aggregate: false,
            aggregator: None,
            originator_id: None,
            cluster_list: Vec::new(),
            only_to_customer: None,
            unknown_attributes: Vec::new(),
            details: None,
        }
    }
}
