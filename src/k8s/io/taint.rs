//! Removes the startup taint (`kubernetes.startup-taint`) from our own Node once it is ready.
//!
//! Such a taint is added to new nodes when they are created, so that no pod is scheduled before the
//! node has a network.

use std::{sync::Arc, time::Duration};

use hyper::http::Request;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    Options, client,
    error::{ApiError, request},
};
use crate::k8s::{condition::Facts, node::Nodes};

/// Time between attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Never ends.
pub(super) async fn run(
    options: Options,
    key: String,
    mut facts: watch::Receiver<Facts>,
    mut nodes: watch::Receiver<Arc<Nodes>>,
) {
    let mut refused = false;
    loop {
        let ready = facts.borrow_and_update().ready;
        let at =
            nodes.borrow_and_update().own.as_ref().and_then(|own| own.taints.iter().position(|t| *t == key));
        if let Some(at) = at.filter(|_| ready) {
            match remove(&options, &key, at).await {
                Ok(()) => {
                    info!(taint = key, "startup taint removed");
                    refused = false;
                }
                Err(error) => {
                    if !refused {
                        warn!(%error, taint = key, "cannot remove startup taint, retrying; allow our ServiceAccount to patch nodes");
                    }
                    refused = true;
                }
            }
            // Wait for the watch to reflect the change.
            sleep(RETRY_INTERVAL).await;
            continue;
        }
        // Each arm is cancel safe.
        tokio::select! {
            r = facts.changed() => if r.is_err() { return },
            r = nodes.changed() => if r.is_err() { return },
        }
    }
}

/// Removes the taint at this index of the list, only if it is still there: other taints are
/// preserved.
async fn remove(options: &Options, key: &str, at: usize) -> Result<(), ApiError> {
    let connection = client::connect(options).await?;
    let patch = serde_json::json!([
        { "op": "test", "path": format!("/spec/taints/{at}/key"), "value": key },
        { "op": "remove", "path": format!("/spec/taints/{at}") },
    ]);
    let patch = Request::patch(format!("/api/v1/nodes/{}", options.node_name))
        .header("Content-Type", "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|e| ApiError::failed(&e))?;
    request(connection.client.request_text(patch)).await?;
    Ok(())
}
