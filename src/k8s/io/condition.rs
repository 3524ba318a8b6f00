//! Writes the condition `NetworkUnavailable` of our own Node when it differs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    Options, client,
    error::{ApiError, request},
};
use crate::k8s::{
    condition::{Condition, Facts, NetworkCondition, presence},
    node::{ApiNode, Nodes},
};

/// How often to check for timeouts while the facts stay the same.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time between attempts, and between writes while another program keeps changing the condition.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Never ends.
pub(super) async fn run(
    options: Options,
    mut facts: watch::Receiver<Facts>,
    mut nodes: watch::Receiver<Arc<Nodes>>,
) {
    let mut tracker = NetworkCondition::default();
    let mut refused = false;
    let mut wrote = None;
    loop {
        let now = Instant::now();
        let own = nodes.borrow_and_update().own.clone().unwrap_or_default();
        let (held, reason) = (own.network_unavailable, own.network_reason.as_deref());
        let shown = reason.map(presence).unwrap_or_default();
        let wanted = tracker.update(now, *facts.borrow_and_update(), shown).filter(|_| !own.uid.is_empty());
        let due = |c| wrote.is_none_or(|(at, what)| what != c || now >= at + WRITE_INTERVAL);
        if let Some(condition) = wanted.filter(|c| c.differs(held, reason) && due(*c)) {
            wrote = Some((now, condition));
            match write(&options, condition, held).await {
                Ok(()) => {
                    info!(
                        unavailable = condition.unavailable.or(held),
                        reason = condition.reason,
                        "condition NetworkUnavailable written"
                    );
                    refused = false;
                }
                Err(error) => {
                    if !refused {
                        warn!(%error, "cannot write condition NetworkUnavailable, retrying; allow our ServiceAccount to patch nodes/status");
                    }
                    refused = true;
                }
            }
        }
        // Each arm is cancel safe.
        tokio::select! {
            r = facts.changed() => if r.is_err() { return },
            r = nodes.changed() => if r.is_err() { return },
            () = sleep(CHECK_INTERVAL) => {}
        }
    }
}

/// `held` is the present status. It is kept if the condition has none; if both are missing, Unknown
/// is written.
async fn write(options: &Options, condition: Condition, held: Option<bool>) -> Result<(), ApiError> {
    let connection = client::connect(options).await?;
    let now = super::timestamp();
    let patch = serde_json::json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable",
        "status": match condition.unavailable.or(held) {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }] } });
    let nodes = Api::<ApiNode>::all(connection.client);
    // In a strategic merge `status.conditions` is a map by type: other conditions are preserved.
    let params = PatchParams::default();
    let (patch, name) = (Patch::Strategic(patch), &options.node_name);
    request(nodes.patch_status(name, &params, &patch)).await?;
    Ok(())
}
