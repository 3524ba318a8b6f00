//! Counts the pods that are left on a drained node.

use kube::{Api, api::ListParams};

use super::{
    Options, client,
    error::{ApiError, request},
};
use crate::k8s::pods::ApiPod;

/// Pods per page of the list: each can be megabytes long.
const PAGE: u32 = 50;

/// The number of pods that need the pod CIDRs of this node.
///
/// Pods are listed and not watched, so a drain only requires the right to list pods.
///
/// # Errors
///
/// If the API server cannot be reached or denies the request.
pub(super) async fn left(options: &Options) -> Result<usize, ApiError> {
    let connection = client::connect(options).await?;
    let pods = Api::<ApiPod>::all(connection.client);
    let own = format!("spec.nodeName={}", options.node_name);
    let mut page = ListParams::default().fields(&own).limit(PAGE);
    let mut left = 0;
    loop {
        let list = request(pods.list(&page)).await?;
        left += list.items.iter().filter(|pod| pod.needs_pod_cidr()).count();
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(left),
        }
    }
}
