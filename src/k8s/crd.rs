//! Our own kinds, `routelet.io/v1alpha1`: the schema that the API server validates, as Rust types.
//!
//! The CRDs in `deploy/daemonset.yaml` are generated from these types (`tests/deploy/` compares
//! them, and regenerates them with `ROUTELET_WRITE=1`). Objects are interpreted by the reader of
//! the configuration, which has the same keys in kebab-case: a cluster may have older definitions
//! than the program, so objects are not parsed into these types.
#![allow(clippy::duplicated_attributes, reason = "each printer column has a name and a type")]

use std::collections::BTreeMap;

use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A neighbor of the nodes that `nodeSelector` picks: the keys of `[[bgp.neighbor]]` in camelCase.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "routelet.io",
    version = "v1alpha1",
    kind = "BGPPeer",
    plural = "bgppeers",
    doc = "A BGP neighbor of the nodes that nodeSelector picks, of all without one.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Remote-AS", type_ = "string", json_path = ".spec.remoteAs"),
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "Description", type_ = "string", json_path = ".spec.description", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.address) != has(self.interface)", "message": "write one of address (an IP address, fe80::1%eth0 or \"gateway\") and interface" },
    { "rule": "has(self.remoteAs) || has(self.group) || has(self.interface)", "message": "write remoteAs, or a group that has one" },
    { "rule": "!has(self.limit) || has(self.interface)", "message": "limit is the number of neighbors on an interface" },
    { "rule": "!(has(self.multihop) && has(self.ttlSecurity))", "message": "multihop and ttlSecurity exclude each other" },
    { "rule": "!has(self.holdTime) || self.holdTime == 0 || self.holdTime >= 3", "message": "holdTime is 0, or 3 to 65535" }
]))]
pub struct BGPPeerSpec {
    /// Labels that a Node must have; all Nodes without any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// An IP address, fe80::1%eth0, or "gateway".
    pub address: Option<String>,
    /// Instead of address, the name of an interface or a pattern: the neighbors there are found by
    /// IPv6 router advertisements.
    pub interface: Option<String>,
    /// Limit of neighbors on each such interface, 1 by default.
    #[schemars(range(min = 1, max = 64))]
    pub limit: Option<u8>,
    /// A [bgp.group.NAME] of the configuration whose keys apply unless set here.
    pub group: Option<String>,
    /// A number, "external", "internal" or "any"; "external" by default beside interface.
    #[schemars(schema_with = "int_or_string")]
    pub remote_as: Option<Value>,
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub local_as: Option<u32>,
    pub local_address: Option<String>,
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    pub passive: Option<bool>,
    pub description: Option<String>,
    /// TCP MD5 (RFC 2385): a key of a Secret in the namespace of routelet, which its Role must
    /// name.
    pub password_secret_ref: Option<SecretRef>,
    #[schemars(range(min = 1, max = 255))]
    pub multihop: Option<u8>,
    /// RFC 5082: the largest number of hops allowed, 0 for none, or "where-offered".
    #[schemars(schema_with = "int_or_string")]
    pub ttl_security: Option<Value>,
    /// "ipv4-unicast", "ipv6-unicast".
    pub families: Option<Vec<String>>,
    /// Seconds: 0, or 3 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub hold_time: Option<u16>,
    /// Seconds (RFC 9687).
    #[schemars(range(min = 1, max = 65535))]
    pub send_hold_time: Option<u16>,
    #[schemars(range(min = 1, max = 65535))]
    pub connect_retry_time: Option<u16>,
    #[schemars(range(min = 1, max = 65535))]
    pub idle_hold_time: Option<u16>,
    pub graceful_restart: Option<bool>,
    #[schemars(range(min = 0, max = 4095))]
    pub restart_time: Option<u16>,
    #[schemars(range(min = 0, max = 16777215))]
    pub long_lived_stale_time: Option<u32>,
    pub route_reflector_client: Option<bool>,
    pub next_hop_self: Option<bool>,
    pub transit: Option<bool>,
    #[schemars(range(min = 1))]
    pub max_prefixes: Option<u32>,
    /// "warn" or "restart".
    pub max_prefixes_action: Option<String>,
    #[schemars(range(min = 1))]
    pub max_prefixes_restart: Option<u32>,
    /// Limit of prefixes advertised to the neighbor, against leaks of our own.
    #[schemars(range(min = 0))]
    pub max_prefixes_out: Option<u32>,
    /// "none", "receive", "send" or "both" (RFC 7911).
    pub add_paths: Option<String>,
    /// `{}` turns BFD on (RFC 5880).
    pub bfd: Option<BfdSpec>,
    /// Names of policies, run in order.
    pub import: Option<Vec<String>>,
    pub export: Option<Vec<String>>,
    /// Close the session when its link or its own address is lost; by default for directly
    /// connected eBGP.
    pub fast_failover: Option<bool>,
    pub accept_default: Option<bool>,
    #[schemars(range(min = 0, max = 255))]
    pub allow_own_as: Option<u8>,
    /// "withdraw" or "accept" (RFC 9774).
    pub as_sets: Option<String>,
    /// Own role (RFC 9234): "provider", "customer", "peer", "rs" or "rs-client".
    pub role: Option<String>,
}

/// BFD of a neighbor.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdSpec {
    /// Milliseconds between two packets.
    #[schemars(range(min = 10, max = 60000))]
    pub min_tx: Option<u32>,
    #[schemars(range(min = 10, max = 60000))]
    pub min_rx: Option<u32>,
    /// The neighbor is lost after so many packets.
    #[schemars(range(min = 1, max = 255))]
    pub multiplier: Option<u8>,
    /// No session before BFD is up.
    pub strict: Option<bool>,
    /// Send nothing before the neighbor does.
    pub passive: Option<bool>,
}

/// Where a password is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    pub name: String,
    /// "password" by default.
    pub key: Option<String>,
}

/// A policy that neighbors name in `import` and `export`: its name is the object's.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "routelet.io",
    version = "v1alpha1",
    kind = "BGPPolicy",
    plural = "bgppolicies",
    doc = "A routing policy: the first statement that matches and has an action ends it; what falls through is accepted.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.statements) && size(self.statements) > 0", "message": "write at least one statement" }
]))]
pub struct BGPPolicySpec {
    #[schemars(length(max = 200))]
    pub statements: Vec<Statement>,
}

/// The keys of `[[policy.NAME]]` in camelCase.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Statement {
    /// As "10.0.0.0/8" or "10.0.0.0/8{24,32}".
    pub prefixes: Option<Vec<String>>,
    pub families: Option<Vec<String>>,
    pub neighbors: Option<Vec<String>>,
    /// A regular expression over the AS numbers.
    pub as_path: Option<String>,
    pub origin_as: Option<Vec<u32>>,
    pub communities: Option<Vec<String>>,
    /// "pod-cidr", "service", "network", "interface", "bgp".
    pub source: Option<Vec<String>>,
    pub next_hop: Option<Vec<String>>,
    pub set_local_pref: Option<u32>,
    pub set_med: Option<u32>,
    pub add_communities: Option<Vec<String>>,
    pub remove_communities: Option<Vec<String>>,
    #[schemars(range(min = 1, max = 50))]
    pub prepend_as: Option<u8>,
    pub set_next_hop: Option<String>,
    /// "accept" or "reject".
    pub action: Option<String>,
}

/// What the sessions and routes of one node are like: written by routelet, one object per Node with
/// the Node's name.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "routelet.io",
    version = "v1alpha1",
    kind = "BGPNodeStatus",
    plural = "bgpnodestatuses",
    status = "NodeReport",
    doc = "What the sessions and routes of one node are like, written by routelet there.",
    printcolumn(name = "AS", type_ = "integer", json_path = ".status.asn"),
    printcolumn(name = "Router-ID", type_ = "string", json_path = ".status.routerId"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.sessionsUp"),
    printcolumn(name = "Configured", type_ = "integer", json_path = ".status.sessionsConfigured"),
    printcolumn(name = "Prefixes", type_ = "integer", json_path = ".status.prefixes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct BGPNodeStatusSpec {}

/// `status` of a BGPNodeStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    pub asn: Option<u32>,
    pub router_id: Option<String>,
    pub sessions_up: u32,
    pub sessions_configured: u32,
    /// Prefixes in the table, own ones among them.
    pub prefixes: u64,
    pub sessions: Vec<SessionReport>,
    /// Own prefixes, then received ones, up to a limit.
    pub routes: Vec<RouteReport>,
    /// Whether there are more routes than are named here.
    pub truncated: bool,
    /// What needs the operator, each with its remedy.
    pub problems: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionReport {
    pub address: String,
    pub remote_as: Option<u32>,
    pub state: String,
    /// Origin of the session: "configured", "object", "gateway", "mesh", "reflector" or "range".
    pub source: String,
    pub description: Option<String>,
    pub accepted: u64,
    pub advertised: u64,
    pub last_error: Option<String>,
}

/// One path of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteReport {
    pub prefix: String,
    /// The neighbor it was learned from; null for own prefixes, which are advertised.
    pub neighbor: Option<String>,
    pub next_hop: Option<String>,
    pub best: bool,
    /// Whether the kernel has it.
    pub installed: bool,
    /// Why it is best, why it lost, or why it is not used at all.
    pub reason: String,
}

/// The CustomResourceDefinitions to apply to a cluster.
pub fn definitions() -> Vec<Value> {
    let definitions = [BGPPeer::crd(), BGPPolicy::crd(), BGPNodeStatus::crd()];
    let labelled = definitions.into_iter().map(|mut crd| {
        let label = |key: &str, value: &str| (format!("app.kubernetes.io/{key}"), value.to_owned());
        let labels = [label("name", "routelet"), label("component", "routing"), label("part-of", "routelet")];
        crd.metadata.labels = Some(labels.into());
        let mut definition = serde_json::to_value(crd).expect("a definition is JSON");
        known_formats(&mut definition);
        definition
    });
    labelled.collect()
}

/// Replaces formats that OpenAPI does not define, of which the API server warns; minimum and
/// maximum restrict the values.
fn known_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(format)) = map.get_mut("format") {
                match format.as_str() {
                    "uint8" | "uint16" => *format = "int32".into(),
                    "uint32" | "uint64" => *format = "int64".into(),
                    _ => {}
                }
            }
            map.values_mut().for_each(known_formats);
        }
        Value::Array(list) => list.iter_mut().for_each(known_formats),
        _ => {}
    }
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "nullable": true })
}
