//! Watches whether the API server prevents kubelets from changing `routelet.io/` labels and
//! annotations of their Nodes, that is, whether the binding of our admission policy (in `deploy/`)
//! exists. If it cannot be read, the labels and annotations are ignored.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding as Binding;
use kube::api::{ApiResource, DynamicObject};
use tokio::sync::watch;
use tracing::info;

use super::{Options, follow::follow};
use crate::k8s::view::ApiStatus;

/// Name of the policy and of its binding.
const POLICY: &str = "routelet-nodes";

/// Starts once the API server was reached: nothing depends on the binding before the Nodes are
/// listed. Runs until all receivers are dropped. The last known state stays while the API server is
/// unreachable; API servers before 1.30 do not have the kind.
pub(super) async fn run(
    options: Options,
    mut status: watch::Receiver<ApiStatus>,
    guarded: watch::Sender<Option<bool>>,
) {
    let kind = ApiResource::erase::<Binding>(&());
    let watch = async {
        if status.wait_for(|s| s.connected).await.is_ok() {
            follow(&options, &kind, Some(POLICY), read, |all| {
                publish(&guarded, all.is_some_and(|all| all.values().any(|denies| *denies)));
            })
            .await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = guarded.closed() => {}
    }
}

fn read(object: DynamicObject) -> bool {
    object.try_parse().is_ok_and(|binding| denies(&binding))
}

fn denies(binding: &Binding) -> bool {
    let spec = &binding.spec;
    let all = spec.match_resources.is_none() && spec.param_ref.is_none();
    let deny = spec.validation_actions.iter().any(|action| action == "Deny");
    binding.metadata.name.as_deref() == Some(POLICY)
        && binding.metadata.deletion_timestamp.is_none()
        && spec.policy_name == POLICY
        && all
        && deny
}

fn publish(guarded: &watch::Sender<Option<bool>>, now: bool) {
    let changed = guarded.send_if_modified(|last| last.replace(now) != Some(now));
    if changed {
        info!(
            policy = POLICY,
            in_force = now,
            "admission policy for labels and annotations of Nodes changed"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binding_counts_that_denies_for_all_nodes() {
        let spec = |more: serde_json::Value| {
            let mut spec = json!({ "policyName": POLICY, "validationActions": ["Deny", "Audit"] });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "metadata": { "name": POLICY }, "spec": spec })
        };
        let cases = [
            ("ours", spec(json!({})), true),
            ("warns", spec(json!({ "validationActions": ["Warn"] })), false),
            ("of another policy", spec(json!({ "policyName": "other" })), false),
            (
                "for some nodes",
                spec(json!({ "matchResources": { "objectSelector": { "matchLabels": { "a": "b" } } } })),
                false,
            ),
            ("another's", json!({ "metadata": { "name": "other" }, "spec": spec(json!({}))["spec"] }), false),
        ];
        for (name, object, expected) in cases {
            assert_eq!(read(serde_json::from_value(object).unwrap()), expected, "{name}");
        }
    }
}
