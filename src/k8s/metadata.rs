//! Deserialises the fields of `metadata` that matter to routing. The managed fields of a Node alone
//! are larger than those.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

use crate::net::text::cut;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lean {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// For `#[serde(deserialize_with)]`.
pub(super) fn lean<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let Lean { name, namespace, uid, resource_version, creation_timestamp, labels, annotations } =
        Lean::deserialize(from)?;
    let (annotations, labels) = (annotations.map(bounded), labels.map(possible));
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        creation_timestamp,
        labels,
        annotations,
        ..ObjectMeta::default()
    })
}

/// Annotations with our prefixes. Others are dropped, and values that are too long are truncated,
/// which makes them invalid.
fn bounded(annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = annotations.into_iter().filter(|(key, _)| PREFIXES.iter().any(|p| key.starts_with(p)));
    let mut ours: BTreeMap<_, _> = ours.take(MAX_ANNOTATIONS).collect();
    ours.values_mut().for_each(|value| cut(value, MAX_ANNOTATION));
    ours
}

/// Labels within the limits of the API server: keys of at most 317 characters, values of at most
/// 63.
fn possible(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|key, value| key.len() <= 317 && value.len() <= 63);
    labels
}

/// Whether it is a valid name of an object or a namespace.
pub(super) fn is_name(name: Option<&str>) -> bool {
    name.is_some_and(|n| {
        !n.is_empty() && n.len() <= 253 && n.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
    })
}

/// Prefixes of annotation keys that are kept.
const PREFIXES: [&str; 2] = ["routelet.io/", "kwok.x-k8s.io/"];
const MAX_ANNOTATIONS: usize = 16;
/// Octets of one annotation.
const MAX_ANNOTATION: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_truncated_and_foreign_ones_dropped() {
        let long = "x".repeat(256 << 10);
        let meta = serde_json::json!({ "name": "web", "managedFields": [{ "manager": long }], "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": long, "routelet.io/advertise": long, "routelet.io/as": "7" } });
        let meta = lean(meta).unwrap();
        assert!(meta.managed_fields.is_none());
        let annotations = meta.annotations.unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["routelet.io/advertise", "routelet.io/as"]);
        assert!(annotations["routelet.io/advertise"].len() <= MAX_ANNOTATION + 3);
        assert!(
            annotations["routelet.io/advertise"].ends_with('…'),
            "a truncated list of keywords is invalid"
        );
        let labels =
            [("app", "web"), ("long", &long), (&long, "key")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(possible(labels.into()), [("app".to_owned(), "web".to_owned())].into());
        let many: BTreeMap<_, _> = (0..1000).map(|n| (format!("routelet.io/a{n}"), String::new())).collect();
        assert_eq!(bounded(many).len(), MAX_ANNOTATIONS);
    }

    #[test]
    fn only_names_that_the_api_server_accepts_are_valid() {
        for (name, good) in
            [("web-1.x", true), ("", false), ("a b", false), ("a\n", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_name(Some(name)), good, "{name:?}");
        }
        assert!(is_name(Some(&"x".repeat(253))) && !is_name(Some(&"x".repeat(254))) && !is_name(None));
    }
}
