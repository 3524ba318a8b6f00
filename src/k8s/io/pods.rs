//! Counts the pods that are left on a drained node.

use std::time::Duration;

use kube::{Api, api::ListParams};
use tokio::time::timeout;

use super::{Options, client};
use crate::k8s::pods::ApiPod;

/// The number of pods that need the pod CIDRs of this node.
///
/// # Errors
///
/// If the API server cannot be reached or denies the request.
pub(super) async fn left(options: &Options) -> Result<usize, String> {
    let connection = client::connect(options).await?;
    let mine = ListParams::default().fields(&format!("spec.nodeName={}", options.node_name));
    let pods = Api::<ApiPod>::all(connection.client);
    match timeout(Duration::from_secs(10), pods.list(&mine)).await {
        Ok(Ok(list)) => Ok(list.items.iter().filter(|pod| pod.needs_pod_cidr()).count()),
        Ok(Err(error)) => Err(super::chain(&error)),
        Err(_) => Err("no response within 10 s".into()),
    }
}
