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
    /// AS number to use towards this neighbor in place of the node's own.
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub local_as: Option<u32>,
    /// Own address of the session; by default the one of the interface that leads to the neighbor.
    pub local_address: Option<String>,
    /// TCP port of the neighbor, 179 by default.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Only accept connections, never open one.
    pub passive: Option<bool>,
    /// Text for displays and logs.
    pub description: Option<String>,
    /// TCP MD5 (RFC 2385): a key of a Secret in the namespace of routelet, which its Role must
    /// name.
    pub password_secret_ref: Option<SecretRef>,
    /// TTL of an eBGP session with a neighbor that is not directly connected.
    #[schemars(range(min = 1, max = 255))]
    pub multihop: Option<u8>,
    /// RFC 5082: the largest number of hops allowed, 0 for none, or "where-offered".
    #[schemars(schema_with = "int_or_string")]
    pub ttl_security: Option<Value>,
    /// "ipv4-unicast", "ipv6-unicast"; both by default.
    #[schemars(schema_with = "families")]
    pub families: Option<Vec<String>>,
    /// Seconds: 0, or 3 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub hold_time: Option<u16>,
    /// Seconds (RFC 9687).
    #[schemars(range(min = 1, max = 65535))]
    pub send_hold_time: Option<u16>,
    /// Seconds between two attempts to connect; doubles up to 120 while the neighbor refuses.
    #[schemars(range(min = 1, max = 65535))]
    pub connect_retry_time: Option<u16>,
    /// Seconds without a session after one that ended in an error; doubles up to 120 while the
    /// errors go on.
    #[schemars(range(min = 1, max = 65535))]
    pub idle_hold_time: Option<u16>,
    /// Advertise graceful restart (RFC 4724) and help a neighbor that restarts.
    pub graceful_restart: Option<bool>,
    /// Seconds that the neighbor keeps our routes over a restart.
    #[schemars(range(min = 0, max = 4095))]
    pub restart_time: Option<u16>,
    /// Seconds that stale routes are kept after that (RFC 9494); 0 for none.
    #[schemars(range(min = 0, max = 16777215))]
    pub long_lived_stale_time: Option<u32>,
    /// Reflect routes to and from this neighbor (RFC 4456).
    pub route_reflector_client: Option<bool>,
    /// Advertise this node as next hop; true by default towards eBGP.
    pub next_hop_self: Option<bool>,
    /// Advertise routes learned from other neighbors as well.
    pub transit: Option<bool>,
    /// Limit of prefixes accepted from the neighbor, for each family.
    #[schemars(range(min = 1))]
    pub max_prefixes: Option<u32>,
    /// Beyond maxPrefixes: "restart" closes the session for a while, "warn" only logs.
    #[schemars(schema_with = "max_prefixes_action")]
    pub max_prefixes_action: Option<String>,
    /// Seconds without a session after maxPrefixes was exceeded, 300 by default.
    #[schemars(range(min = 1))]
    pub max_prefixes_restart: Option<u32>,
    /// Limit of prefixes advertised to the neighbor, against leaks of our own.
    #[schemars(range(min = 0))]
    pub max_prefixes_out: Option<u32>,
    /// "none", "receive", "send" or "both" (RFC 7911).
    #[schemars(schema_with = "add_paths")]
    pub add_paths: Option<String>,
    /// `{}` turns BFD on (RFC 5880).
    pub bfd: Option<BfdSpec>,
    /// Names of policies for received routes, run in order.
    pub import: Option<Vec<String>>,
    /// Names of policies for advertised routes, run in order.
    pub export: Option<Vec<String>>,
    /// Close the session when its link or its own address is lost; by default for directly
    /// connected eBGP.
    pub fast_failover: Option<bool>,
    /// Accept a default route from this neighbor.
    pub accept_default: Option<bool>,
    /// How many times the own AS number may be in a received AS path.
    #[schemars(range(min = 0, max = 255))]
    pub allow_own_as: Option<u8>,
    /// A received route with an AS_SET: "withdraw" or "accept" (RFC 9774).
    #[schemars(schema_with = "as_sets")]
    pub as_sets: Option<String>,
    /// Own role (RFC 9234): "provider", "customer", "peer", "rs" or "rs-client".
    #[schemars(schema_with = "role")]
    pub role: Option<String>,
}

/// BFD of a neighbor.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdSpec {
    /// Milliseconds between two packets.
    #[schemars(range(min = 10, max = 60000))]
    pub min_tx: Option<u32>,
    /// Milliseconds between two packets that we can receive.
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
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret, "password" by default.
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
    /// The statements, in order.
    #[schemars(length(max = 200))]
    pub statements: Vec<Statement>,
}

/// The keys of `[[policy.NAME]]` in camelCase.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Statement {
    /// Matches these prefixes, as "10.0.0.0/8" or "10.0.0.0/8{24,32}".
    pub prefixes: Option<Vec<String>>,
    /// Matches these address families: "ipv4-unicast", "ipv6-unicast".
    #[schemars(schema_with = "families")]
    pub families: Option<Vec<String>>,
    /// Matches routes of these neighbors.
    pub neighbors: Option<Vec<String>>,
    /// Matches the AS path: a regular expression over the AS numbers.
    pub as_path: Option<String>,
    /// Matches the last AS number of the path.
    pub origin_as: Option<Vec<u32>>,
    /// Matches routes with one of these communities.
    pub communities: Option<Vec<String>>,
    /// Matches the origin of a route: "pod-cidr", "service", "network", "interface", "bgp".
    #[schemars(schema_with = "sources")]
    pub source: Option<Vec<String>>,
    /// Matches these next hops.
    pub next_hop: Option<Vec<String>>,
    /// Sets LOCAL_PREF.
    pub set_local_pref: Option<u32>,
    /// Sets MED.
    pub set_med: Option<u32>,
    /// Adds communities.
    pub add_communities: Option<Vec<String>>,
    /// Removes communities.
    pub remove_communities: Option<Vec<String>>,
    /// Prepends the own AS number so many times.
    #[schemars(range(min = 1, max = 50))]
    pub prepend_as: Option<u8>,
    /// Sets the next hop.
    pub set_next_hop: Option<String>,
    /// "accept" or "reject"; without one the next statement is evaluated.
    #[schemars(schema_with = "action")]
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
    /// Own AS number.
    pub asn: Option<u32>,
    /// Own BGP identifier.
    pub router_id: Option<String>,
    /// Number of established sessions.
    pub sessions_up: u32,
    /// Number of configured sessions.
    pub sessions_configured: u32,
    /// Prefixes in the table, own ones among them.
    pub prefixes: u64,
    /// The sessions, those that are down first, up to a limit.
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
    /// Address of the neighbor.
    pub address: String,
    /// AS number of the neighbor.
    pub remote_as: Option<u32>,
    /// As in `show neighbors`: "established", "idle", …
    pub state: String,
    /// Origin of the session: "configured", "object", "gateway", "mesh", "reflector" or "range".
    pub source: String,
    /// Description of the neighbor in its configuration.
    pub description: Option<String>,
    /// Number of accepted prefixes.
    pub accepted: u64,
    /// Number of advertised prefixes.
    pub advertised: u64,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
}

/// One path of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteReport {
    /// The prefix.
    pub prefix: String,
    /// The neighbor it was learned from; null for own prefixes, which are advertised.
    pub neighbor: Option<String>,
    /// Next hop of the path; null for own prefixes.
    pub next_hop: Option<String>,
    /// Whether it is the best path.
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

/// One of these texts, or null.
fn choice(of: &[&str]) -> Schema {
    let values: Vec<_> = of.iter().map(|text| Value::from(*text)).chain([Value::Null]).collect();
    json_schema!({ "type": "string", "nullable": true, "enum": values })
}

/// A list of these texts, or null.
fn choices(of: &[&str]) -> Schema {
    json_schema!({ "type": "array", "nullable": true, "items": { "type": "string", "enum": of } })
}

fn families(_: &mut SchemaGenerator) -> Schema {
    choices(&["ipv4-unicast", "ipv6-unicast"])
}

fn sources(_: &mut SchemaGenerator) -> Schema {
    choices(&["pod-cidr", "service", "network", "interface", "bgp"])
}

fn max_prefixes_action(_: &mut SchemaGenerator) -> Schema {
    choice(&["warn", "restart"])
}

fn add_paths(_: &mut SchemaGenerator) -> Schema {
    choice(&["none", "receive", "send", "both"])
}

fn as_sets(_: &mut SchemaGenerator) -> Schema {
    choice(&["withdraw", "accept"])
}

fn role(_: &mut SchemaGenerator) -> Schema {
    choice(&["provider", "customer", "peer", "rs", "rs-client"])
}

fn action(_: &mut SchemaGenerator) -> Schema {
    choice(&["accept", "reject"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of properties that lack a description.
    fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                found.push(path.clone());
            }
            undescribed(&path, property, found);
        }
        if schema["items"].is_object() {
            undescribed(&format!("{path}[]"), &schema["items"], found);
        }
    }

    #[test]
    fn each_field_has_a_description() {
        let mut found = Vec::new();
        for definition in definitions() {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            for part in ["spec", "status"] {
                let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                undescribed(&format!("{kind}.{part}"), &schema["properties"][part], &mut found);
            }
        }
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn fields_with_choices_list_them() {
        let spec = |kind: usize| {
            definitions()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
                .clone()
        };
        let (peer, statement) = (spec(0), spec(1)["statements"]["items"]["properties"].clone());
        for key in ["maxPrefixesAction", "addPaths", "asSets", "role"] {
            assert!(peer[key]["enum"].as_array().is_some_and(|e| e.len() > 2), "{key}: {}", peer[key]);
        }
        assert!(
            peer["families"]["items"]["enum"].is_array() && statement["families"]["items"]["enum"].is_array()
        );
        assert!(statement["action"]["enum"].is_array() && statement["source"]["items"]["enum"].is_array());
    }
}
