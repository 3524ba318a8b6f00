//! Overlays the configuration with BGPPeer and BGPPolicy objects: stronger than the file, weaker
//! than the Node's annotations.
//!
//! An object that cannot be used is left out and reported with a remedy; everything else stays in
//! force.

use serde_json::{Map, Value};

use crate::{
    config::{
        Config, Neighbor, NeighborId,
        objects::{self, ObjectError},
    },
    k8s::{
        node::NodeView,
        objects::{Object, Objects},
    },
    net::{
        Diagnostic, Reason, Subject, SubjectKind,
        text::{PROBLEM_MAX, escaped, untrusted},
    },
};

/// The configuration, overlaid with the objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    pub config: Config,
    /// Neighbors from BGPPeer objects for this node.
    pub neighbors: Vec<Neighbor>,
    /// The neighbors of BGPPeer objects that cannot be used.
    pub broken: Vec<NeighborId>,
    pub problems: Vec<Diagnostic>,
}

/// Applies the objects for this Node.
pub fn overlay(config: &Config, own: Option<&NodeView>, objects: &Objects) -> Overlay {
    let mut over =
        Overlay { config: config.clone(), neighbors: Vec::new(), broken: Vec::new(), problems: Vec::new() };
    for (name, object) in &objects.policies {
        match objects::policy(name, &object.spec) {
            Ok(policy) => drop(over.config.policies.insert(name.clone(), policy)),
            Err(error) => {
                let text = error.to_string();
                over.problems.push(problem(SubjectKind::BgpPolicy, name, object, Reason::Invalid, text));
            }
        }
    }
    // Which objects apply is unknown until the Node is known.
    let Some(own) = own else { return over };
    for (name, object) in objects.peers.iter().filter(|(_, o)| o.selects(&own.labels)) {
        match neighbor(object, objects, &over.config) {
            Ok(neighbor) if over.neighbors.iter().any(|n| n.at == neighbor.at) => {
                let text =
                    "another BGPPeer of this node has the same address; the first by name counts".into();
                let kind = SubjectKind::BgpPeer;
                over.problems.push(problem(kind, name, object, Reason::Duplicate, text));
            }
            Ok(neighbor) => over.neighbors.push(neighbor),
            Err(error) => {
                let (reason, text) = (error.reason(), error.to_string());
                over.broken.extend(place(object, config));
                over.problems.push(problem(SubjectKind::BgpPeer, name, object, reason, text));
            }
        }
    }
    over
}

/// Why a BGPPeer is not used.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error("password `{key}` of Secret {secret}: {why}; there is no session until it is there")]
    Password { key: String, secret: String, why: String },
    #[error(transparent)]
    Spec(#[from] ObjectError),
}

impl PeerError {
    fn reason(&self) -> Reason {
        match self {
            Self::Password { .. } => Reason::MissingSecret,
            Self::Spec(_) => Reason::Invalid,
        }
    }
}

fn neighbor(object: &Object, objects: &Objects, config: &Config) -> Result<Neighbor, PeerError> {
    Ok(objects::neighbor(&with_password(object, objects)?, config)?)
}

/// The neighbor of a spec that cannot be used as a whole.
fn place(object: &Object, config: &Config) -> Option<NeighborId> {
    let mut spec = object.spec.clone();
    spec.retain(|key, _| key == "address" || key == "interface");
    spec.insert("remoteAs".into(), 1.into());
    objects::neighbor(&spec, config).ok().map(|n| n.at)
}

/// The spec with the keys that the configuration's parser knows, and with the password.
fn with_password(object: &Object, objects: &Objects) -> Result<Map<String, Value>, PeerError> {
    let mut spec = object.spec.clone();
    spec.remove("nodeSelector");
    spec.remove("passwordSecretRef");
    if let Some((name, key)) = object.secret() {
        let state = objects.secrets.get(name);
        let password = state.and_then(|s| s.data.get(key)).ok_or_else(|| {
            let why = state.and_then(|s| s.error.clone()).unwrap_or_else(|| "it has no such key".into());
            PeerError::Password { key: key.into(), secret: name.into(), why }
        })?;
        spec.insert("password".into(), password.clone().into());
    }
    Ok(spec)
}

fn problem(kind: SubjectKind, name: &str, object: &Object, reason: Reason, text: String) -> Diagnostic {
    let remedy = match reason {
        Reason::MissingSecret => "make the Secret, or correct passwordSecretRef",
        Reason::Duplicate => "delete one of them",
        _ => "correct the object",
    };
    Diagnostic::new(
        reason,
        Subject::object(kind, None, &untrusted(name), &object.uid),
        format!("{} {}: {}", kind.as_str(), untrusted(name), escaped(&text, PROBLEM_MAX)),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::testing::node, *};
    use crate::{bgp::peer::Secret, k8s::objects::SecretState};

    fn object(spec: Value) -> Object {
        Object { uid: "u".into(), spec: spec.as_object().unwrap().clone() }
    }

    fn peers(list: &[(&str, Value)]) -> Objects {
        Objects {
            peers: list.iter().map(|(n, spec)| ((*n).into(), object(spec.clone()))).collect(),
            ..Objects::default()
        }
    }

    fn own() -> NodeView {
        NodeView { labels: [("rack".into(), "a".into())].into(), ..node("n1", &["10.0.0.2"], &[]) }
    }

    fn lay(objects: &Objects) -> Overlay {
        overlay(&Config::for_kubernetes(), Some(&own()), objects)
    }

    #[test]
    fn a_bad_object_is_named_and_left_out_and_nothing_else_is() {
        let over = lay(&peers(&[
            ("bad", json!({ "address": "10.0.0.3", "remoteAs": 0 })),
            ("elsewhere", json!({ "address": "10.0.0.4", "remoteAs": 1, "nodeSelector": { "rack": "b" } })),
            ("good", json!({ "address": "10.0.0.1", "remoteAs": 65000, "nodeSelector": { "rack": "a" } })),
            ("same", json!({ "address": "10.0.0.1", "remoteAs": 65001 })),
        ]));
        assert_eq!(over.neighbors.len(), 1);
        assert_eq!(over.broken, [NeighborId::Address([10, 0, 0, 3].into())]);
        let reasons: Vec<_> = over.problems.iter().map(|p| (p.subject.name.as_str(), p.reason)).collect();
        assert_eq!(reasons, [("bad", Reason::Invalid), ("same", Reason::Duplicate)]);
    }

    #[test]
    fn a_missing_secret_holds_its_own_peer_up_and_a_known_password_stays() {
        let spec =
            json!({ "address": "10.0.0.1", "remoteAs": 1, "passwordSecretRef": { "name": "s", "key": "k" } });
        let mut objects = peers(&[("p", spec)]);
        let over = lay(&objects);
        assert!(
            over.neighbors.is_empty() && over.problems[0].reason == Reason::MissingSecret,
            "{:?}",
            over.problems
        );
        let error = Some("not found".to_owned());
        let known = SecretState { data: [("k".into(), "hush".into())].into(), error };
        objects.secrets.insert("s".into(), known);
        let over = lay(&objects);
        assert_eq!(over.neighbors[0].keys.password, Some(Secret("hush".into())));
    }

    #[test]
    fn a_policy_object_replaces_that_of_the_file_and_peers_find_it() {
        let mut objects =
            peers(&[("p", json!({ "address": "10.0.0.1", "remoteAs": 1, "import": ["guard"] }))]);
        assert_eq!(lay(&objects).problems.len(), 1);
        objects.policies.insert("guard".into(), object(json!({ "statements": [{ "action": "reject" }] })));
        let over = lay(&objects);
        assert!(over.problems.is_empty() && over.config.policies.contains_key("guard"));
        assert_eq!(over.neighbors[0].keys.import, Some(vec!["guard".into()]));
    }
}
