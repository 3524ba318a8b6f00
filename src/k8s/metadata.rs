//! `metadata` without what only the API server and its clients ask for. The managed fields of a Node are larger than all
//! that routing wants of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

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
