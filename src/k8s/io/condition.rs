//! Writes the condition `NetworkUnavailable` to the own Node, when it does not say so already.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Options, client};
use crate::k8s::{
    condition::{Condition, Facts, Watchman},
    node::{ApiNode, Nodes},
};

/// How often time is looked at while facts stay the same.
const TICK: Duration = Duration::from_secs(5);
/// Between attempts, and between two writes where somebody else keeps changing it.
const AGAIN: Duration = Duration::from_secs(10);

/// Never ends.
pub(super) async fn run(
    options: Options,
    mut facts: watch::Receiver<Facts>,
    mut nodes: watch::Receiver<Arc<Nodes>>,
) {
    let mut watchman = Watchman::default();
    let mut refused = false;
    let mut wrote = None;
    loop {
        let now = Instant::now();
        let said = watchman.judge(now, *facts.borrow_and_update());
        let held = nodes.borrow_and_update().own.as_ref().map(|own| own.network_unavailable);
        let due = wrote.is_none_or(|at| now >= at + AGAIN);
        if let (Some(condition), Some(held)) = (said, held)
            && held != Some(condition.unavailable)
            && due
        {
            wrote = Some(now);
            match write(&options, condition).await {
                Ok(()) => {
                    info!(
                        unavailable = condition.unavailable,
                        reason = condition.reason,
                        "condition NetworkUnavailable written"
                    );
                    refused = false;
                }
                Err(error) => {
                    if !refused {
                        warn!(%error, "cannot write the condition NetworkUnavailable, trying again; allow our ServiceAccount to patch nodes/status");
                    }
                    refused = true;
                }
            }
        }
        // Cancel safe, each.
        tokio::select! {
            r = facts.changed() => if r.is_err() { return },
            r = nodes.changed() => if r.is_err() { return },
            () = sleep(TICK) => {}
        }
    }
}

async fn write(options: &Options, condition: Condition) -> Result<(), String> {
    let connection = client::connect(options).await?;
    let now = super::timestamp();
    let patch = serde_json::json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable",
        "status": if condition.unavailable { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }] } });
    let nodes = Api::<ApiNode>::all(connection.client);
    // `status.conditions` is a map by type for a strategic merge: the conditions of others stay.
    let params = PatchParams::default();
    let (patch, name) = (Patch::Strategic(patch), &options.node_name);
    let written = nodes.patch_status(name, &params, &patch);
    match timeout(Duration::from_secs(10), written).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(super::chain(&error)),
        Err(_) => Err("no answer within 10 s".into()),
    }
}
