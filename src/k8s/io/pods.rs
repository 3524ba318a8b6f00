//! Asks, while the node is drained, whether pods are left.

use std::time::Duration;

use kube::{Api, api::ListParams};
use tokio::time::timeout;

use super::{Options, client};
use crate::k8s::pods::ApiPod;

/// How many pods hold the pod CIDRs of this node.
///
/// # Errors
///
/// Why nobody can say now.
pub(super) async fn left(options: &Options) -> Result<usize, String> {
    let connection = client::connect(options).await?;
    let mine = ListParams::default().fields(&format!("spec.nodeName={}", options.node_name));
    let pods = Api::<ApiPod>::all(connection.client);
    match timeout(Duration::from_secs(10), pods.list(&mine)).await {
        Ok(Ok(list)) => Ok(list.items.iter().filter(|pod| pod.holds()).count()),
        Ok(Err(error)) => Err(super::chain(&error)),
        Err(_) => Err("no answer within 10 s".into()),
    }
}
