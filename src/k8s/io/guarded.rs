//! Whether the API server keeps kubelets from changing `routelet.io/` labels and annotations of
//! their Nodes: the binding of the admission policy that `deploy/` brings is there. Where it cannot
//! be read, nobody knows, and they do not count.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding as Binding;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::watch, time::sleep};
use tracing::info;

use super::{
    Options, client,
    watch::{Retry, WATCH_SECONDS, refusal},
};

/// The name of the policy and of its binding.
const POLICY: &str = "routelet-nodes";
/// Between two attempts where the API server does not know the kind, or does not let it be read.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// At the least, after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Never ends while somebody listens. While the API server is away what was last known stays.
pub(super) async fn run(options: Options, guarded: watch::Sender<Option<bool>>) {
    tokio::select! {
        () = follow(&options, &guarded) => {}
        () = guarded.closed() => {}
    }
}

async fn follow(options: &Options, guarded: &watch::Sender<Option<bool>>) {
    let mut failures = Retry::default();
    loop {
        let Ok(connection) = client::connect(options).await else {
            sleep(RETRY).await;
            continue;
        };
        let api = Api::<Binding>::all(connection.client.clone());
        let config =
            watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={POLICY}"));
        let mut stream = pin!(watcher(api, config));
        let mut listed = false;
        let refused = loop {
            match stream.next().await {
                Some(Ok(Event::Init)) => listed = false,
                Some(Ok(Event::InitApply(binding))) => listed |= denies(&binding),
                Some(Ok(Event::InitDone)) => publish(guarded, listed),
                Some(Ok(Event::Apply(binding))) => publish(guarded, denies(&binding)),
                Some(Ok(Event::Delete(_))) => publish(guarded, false),
                Some(Err(error)) if refusal(&error) == Some(410) => {
                    sleep(failures.next_in_a_row(Instant::now())).await;
                }
                Some(Err(error)) => break refusal(&error),
                None => break None,
            }
        };
        match refused {
            // API servers before 1.30 do not have the kind.
            Some(403 | 404) => {
                publish(guarded, false);
                sleep(NOW_AND_THEN).await;
            }
            _ => sleep(failures.next_in_a_row(Instant::now()).max(RETRY)).await,
        }
    }
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
        info!(policy = POLICY, in_force = now, "admission policy for labels and annotations of Nodes");
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
            assert_eq!(denies(&serde_json::from_value(object).unwrap()), expected, "{name}");
        }
    }
}
