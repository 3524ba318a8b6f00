//! BGPPeer and BGPPolicy objects → the same values as the file's, by the same reader: their keys
//! are those of the file in camelCase, and errors have the same texts.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use toml::de::DeTable;

use super::{
    Config, Neighbor, Problem,
    keys::camel,
    neighbor, policies,
    read::{ParseContext, PasswordFileError, Report, Section},
};
use crate::bgp::policy::Policy;

/// All that is wrong with the spec of an object, on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("cannot be read: {0}; is a list of mixed values in it?")]
    Unreadable(#[from] toml::ser::Error),
    #[error("{}", listed(.0))]
    Fields(Vec<Problem>),
    #[error("describes no neighbor")]
    NoNeighbor,
    #[error("has no statements")]
    NoStatements,
}

fn listed(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|p| format!("{}: {}", field(&p.key), p.what)).collect();
    lines.join("; ")
}

/// The neighbor of a BGPPeer's `spec` (without the fields for the cluster).
///
/// # Errors
///
/// All that is wrong with it, on one line.
pub fn neighbor(spec: &Map<String, Value>, config: &Config) -> Result<Neighbor, ObjectError> {
    let mut bgp = config.bgp.clone();
    bgp.neighbors.clear();
    let tree = Value::Array(vec![Value::Object(spec.clone())]);
    read("neighbor", &tree, |root| neighbor::neighbors(root, &mut bgp, &config.policies))?;
    bgp.neighbors.pop().ok_or(ObjectError::NoNeighbor)
}

/// The policy `name` of a BGPPolicy's `spec.statements`.
///
/// # Errors
///
/// All that is wrong with it, on one line.
pub fn policy(name: &str, spec: &Map<String, Value>) -> Result<Arc<Policy>, ObjectError> {
    let statements = spec.get("statements").cloned().unwrap_or_default();
    let mut found = BTreeMap::new();
    read("policy", &serde_json::json!({ name: statements }), |root| {
        if let Some(section) = root.section("policy") {
            found = policies::read(&section);
        }
    })?;
    found.remove(name).ok_or(ObjectError::NoStatements)
}

fn read(key: &str, value: &Value, take: impl FnOnce(&Section<'_>)) -> Result<(), ObjectError> {
    let text = toml::to_string(&serde_json::json!({ key: kebab(value) }))?;
    let (tree, _) = DeTable::parse_recoverable(&text);
    // A Secret is named instead; files are not read for an object.
    let context = ParseContext { kubernetes: true, read_password: &|_| Err(PasswordFileError::InObject) };
    let report = Report::new(&text, &context);
    let root = Section::root(&report, tree.get_ref());
    take(&root);
    root.close();
    let (problems, _) = report.into_lists();
    if problems.is_empty() { Ok(()) } else { Err(ObjectError::Fields(problems)) }
}

/// The keys as in the file, without those that are null.
fn kebab(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let there = map.iter().filter(|(_, v)| !v.is_null());
            there.map(|(k, v)| (kebab_case(k), kebab(v))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(kebab).collect(),
        other => other.clone(),
    }
}

fn kebab_case(key: &str) -> String {
    let mut kebab = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

/// `neighbor[0].hold-time` → `spec.holdTime`.
fn field(key: &str) -> String {
    let key = key.strip_prefix("neighbor[0]").or_else(|| key.strip_prefix("policy")).unwrap_or(key);
    format!("spec{}", camel(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bgp::peer::RemoteAs;

    fn peer(spec: Value) -> Result<Neighbor, ObjectError> {
        neighbor(spec.as_object().unwrap(), &Config::for_kubernetes())
    }

    #[test]
    fn a_peer_is_read_as_a_neighbor_of_the_file() {
        let found = peer(json!({ "address": "10.1.1.1", "remoteAs": 65000, "holdTime": 9, "password": "x",
            "families": ["ipv4-unicast"], "bfd": false, "role": null }))
        .unwrap();
        assert_eq!((found.keys.remote_as, found.keys.hold_time), (Some(RemoteAs::Number(65000)), Some(9)));
        assert!(found.keys.role.is_none() && found.keys.bfd == Some(None));
    }

    #[test]
    fn mistakes_are_named_by_the_keys_of_the_object() {
        #[rustfmt::skip]
        let cases = [
            (json!({ "address": "10.1.1.1", "remoteAs": 65000, "holdTime": 2 }), "spec.holdTime: must be 0, or 3"),
            (json!({ "address": "10.1.1", "remoteAs": 65000 }),                  "spec.address: `10.1.1` is not an IP address"),
            (json!({ "address": "10.1.1.1" }),                                   "spec.remoteAs: required"),
            (json!({ "address": "10.1.1.1", "remoteAs": 1, "group": "no" }),     "spec.group: no such group"),
            (json!({ "address": "10.1.1.1", "remoteAs": 1, "import": ["no"] }),  "no policy `no`"),
            (json!({ "address": "10.1.1.1", "remoteAs": 1, "holdTim": 9 }),      "did you mean `hold-time`?"),
            (json!({ "address": "10.1.1.1", "remoteAs": 1, "passwordFile": "/etc/shadow" }), "write passwordSecretRef"),
        ];
        for (spec, want) in cases {
            let messages = peer(spec.clone()).unwrap_err().to_string();
            assert!(messages.contains(want) && !messages.contains('\n'), "{spec}: {messages}");
        }
    }

    #[test]
    fn policies_too() {
        let read = |spec: Value| policy("p-1", spec.as_object().unwrap());
        let good =
            json!({ "statements": [{ "prefixes": ["10.0.0.0/8{24,32}"], "setMed": 7, "action": "accept" }] });
        assert_eq!(read(good).unwrap().name, "p-1");
        let messages = read(json!({ "statements": [{ "action": "perhaps" }] })).unwrap_err().to_string();
        assert!(messages.contains("statement") || messages.contains("`perhaps`"), "{messages}");
        assert!(read(json!({})).is_err());
    }
}
