//! Determines which pods still need the pod CIDRs of a drained node: those with an address of them
//! that a drain moves elsewhere.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

/// The fields of a Pod that matter to a drain.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = Pod)]
pub struct ApiPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ApiPodSpec,
    #[serde(default)]
    pub status: ApiPodStatus,
}

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiPodSpec {
    pub host_network: bool,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiPodStatus {
    pub phase: String,
}

impl ApiPod {
    /// Whether the node's pod CIDRs must stay advertised for it: not for pods of a DaemonSet, which
    /// a drain does not move, for pods with the node's address, and for pods that have ended.
    pub fn needs_pod_cidr(&self) -> bool {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let stays = owners.any(|o| matches!(o.kind.as_str(), "DaemonSet" | "Node"));
        let ended = matches!(self.status.phase.as_str(), "Succeeded" | "Failed");
        !(stays || ended || self.spec.host_network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_a_drain_moves_need_the_pod_cidr() {
        let owned = |kind: &str| {
            format!(
                r#""ownerReferences": [{{"apiVersion": "x", "kind": "{kind}", "name": "o", "uid": "u"}}]"#
            )
        };
        #[rustfmt::skip]
        let cases = [
            (owned("ReplicaSet"), r#""spec": {}, "status": {"phase": "Running"}"#,      true),
            (owned("ReplicaSet"), r#""spec": {}, "status": {"phase": "Pending"}"#,      true),
            (owned("Job"),        r#""spec": {}, "status": {"phase": "Succeeded"}"#,    false),
            (owned("Job"),        r#""spec": {}, "status": {"phase": "Failed"}"#,       false),
            (owned("DaemonSet"),  r#""spec": {}, "status": {"phase": "Running"}"#,      false),
            (owned("Node"),       r#""spec": {}, "status": {"phase": "Running"}"#,      false),
            (owned("ReplicaSet"), r#""spec": {"hostNetwork": true}"#,                   false),
            (r#""name": "bare""#.into(), r#""status": {"phase": "Running"}"#,           true),
        ];
        for (meta, rest, want) in cases {
            let pod: ApiPod =
                serde_json::from_str(&format!(r#"{{"metadata": {{{meta}}}, {rest}}}"#)).unwrap();
            assert_eq!(pod.needs_pod_cidr(), want, "{meta} {rest}");
        }
    }
}
