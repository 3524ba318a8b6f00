//! BGPPeer and BGPPolicy objects as they are in the cluster, and the Secrets that they reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Objects of our own kinds. Level-triggered and saved across restarts; empty if the cluster does
/// not have the kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    pub peers: BTreeMap<String, Object>,
    pub policies: BTreeMap<String, Object>,
    /// Secrets referenced by peers, by name.
    pub secrets: BTreeMap<String, SecretState>,
}

/// One object, with its unparsed `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub uid: String,
    pub spec: Map<String, Value>,
}

/// A Secret: its content when it was last read, and why it cannot be read now.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SecretState {
    pub data: BTreeMap<String, String>,
    pub error: Option<String>,
}

/// Does not print the content.
impl fmt::Debug for SecretState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretState").field("error", &self.error).finish_non_exhaustive()
    }
}

impl Object {
    /// Name and key of the Secret in `passwordSecretRef`.
    pub fn secret(&self) -> Option<(&str, &str)> {
        let reference = self.spec.get("passwordSecretRef")?;
        let key = reference.get("key").and_then(Value::as_str).unwrap_or("password");
        Some((reference.get("name")?.as_str()?, key))
    }

    /// Whether `nodeSelector` matches a Node with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let Some(wanted) = self.spec.get("nodeSelector").and_then(Value::as_object) else { return true };
        wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    }
}

impl Objects {
    /// Secrets referenced by the peers of a Node with these labels.
    pub fn wanted_secrets(&self, labels: &BTreeMap<String, String>) -> BTreeSet<String> {
        let peers = self.peers.values().filter(|p| p.selects(labels));
        peers.filter_map(|p| Some(p.secret()?.0.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value) -> Object {
        Object { spec: spec.as_object().unwrap().clone(), ..Object::default() }
    }

    #[test]
    fn a_peer_is_for_nodes_with_all_its_labels() {
        let peer = object(serde_json::json!({ "nodeSelector": { "rack": "a", "tor": "yes" } }));
        let labels = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(peer.selects(&labels(&[("rack", "a"), ("tor", "yes"), ("more", "")])));
        assert!(!peer.selects(&labels(&[("rack", "b"), ("tor", "yes")])));
        assert!(!peer.selects(&labels(&[("rack", "a")])));
        assert!(object(serde_json::json!({})).selects(&labels(&[])));
    }

    #[test]
    fn secrets_are_wanted_by_name_and_never_printed() {
        let peer = object(serde_json::json!({ "passwordSecretRef": { "name": "tor" } }));
        assert_eq!(peer.secret(), Some(("tor", "password")));
        let objects = Objects { peers: [("a".into(), peer)].into(), ..Objects::default() };
        assert_eq!(objects.wanted_secrets(&BTreeMap::new()), ["tor".to_owned()].into());
        let state = SecretState { data: [("password".into(), "hush".into())].into(), error: None };
        assert!(!format!("{state:?}").contains("hush"));
    }
}
