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
    condition::{Condition, Facts, Watchman, presence},
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
        let own = nodes.borrow_and_update().own.clone().unwrap_or_default();
        let (held, reason) = (own.network_unavailable, own.network_reason.as_deref());
        let shown = reason.map(presence).unwrap_or_default();
        let wanted = watchman.judge(now, *facts.borrow_and_update(), shown).filter(|_| !own.uid.is_empty());
        let due = |c| wrote.is_none_or(|(at, what)| what != c || now >= at + AGAIN);
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

/// `held` is the status now: a condition that leaves it as it is leaves it Unknown where there is none.
async fn write(options: &Options, condition: Condition, held: Option<bool>) -> Result<(), String> {
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
