//! Our own kinds, `routelet.io/v1alpha1`: the schema that the API server validates, as Rust types.
//!
//! The CRDs in `deploy/daemonset.yaml` are generated from these types (`tests/deploy/` compares
//! them, and regenerates them with `ROUTELET_WRITE=1`). The specs have the configuration's keys in
//! camelCase (`fields`), and the configuration's parser reads them. Objects are not parsed into
//! these types, because the definitions in a cluster may be older than the program.
#![allow(clippy::duplicated_attributes, reason = "each printer column has a name and a type")]

use std::collections::BTreeMap;

use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields;

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
    /// TCP MD5 (RFC 2385): a key of a Secret in the namespace of routelet, which its Role must
    /// name.
    pub password_secret_ref: Option<SecretRef>,
    /// The keys of `[[bgp.neighbor]]` in camelCase.
    #[serde(flatten)]
    #[schemars(schema_with = "fields::of_peers")]
    pub keys: BTreeMap<String, Value>,
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
    #[schemars(schema_with = "fields::of_statements")]
    pub statements: Vec<Value>,
}

/// State of the sessions and routes of one node: written by routelet, one object per Node with
/// the Node's name.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "routelet.io",
    version = "v1alpha1",
    kind = "BGPNodeStatus",
    plural = "bgpnodestatuses",
    status = "NodeReport",
    doc = "State of the sessions and routes of one node, written by routelet there.",
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
    /// The first own prefixes, those that are advertised to no neighbor first. Present for large
    /// tables, too.
    pub own: Vec<OwnReport>,
    /// Whether there are more routes than are listed here.
    pub truncated: bool,
    /// Problems for the operator, each with its remedy.
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

/// An own prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnReport {
    /// The prefix.
    pub prefix: String,
    /// Why it is originated: "pod-cidr", "service", "network" or "interface".
    pub source: String,
    /// To how many neighbors it is advertised.
    pub neighbors: u64,
    /// The first of them.
    pub advertised_to: Vec<String>,
    /// Why it is advertised to nobody.
    pub reason: Option<String>,
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

/// Replaces integer formats that OpenAPI does not define and that make the API server warn;
/// `minimum` and `maximum` still limit the values.
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
