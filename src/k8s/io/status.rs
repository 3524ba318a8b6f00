//! Writes the BGPNodeStatus of our own Node.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Options, client,
    error::{ApiError, REQUEST_TIMEOUT},
};
use crate::k8s::{
    API_VERSION,
    crd::{BGPNodeStatus, NodeReport},
};

/// Writes the status object.
#[derive(Debug)]
pub struct Reporter {
    pub(super) options: Options,
}

/// Result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The cluster does not have the kind, which is not an error.
    NoSuchKind,
}

impl Reporter {
    /// Replaces the status. A missing object is created, owned by the Node with this UID.
    ///
    /// # Errors
    ///
    /// The error of the API server, or a timeout.
    pub async fn write(&self, uid: &str, report: &NodeReport) -> Result<Written, ApiError> {
        let late = |_| Err(ApiError::Timeout(REQUEST_TIMEOUT));
        timeout(REQUEST_TIMEOUT, self.replace(uid, report)).await.unwrap_or_else(late)
    }

    async fn replace(&self, uid: &str, report: &NodeReport) -> Result<Written, ApiError> {
        let connection = client::connect(&self.options).await?;
        let name = &self.options.node_name;
        let api =
            Api::<DynamicObject>::all_with(connection.client, &ApiResource::erase::<BGPNodeStatus>(&()));
        // Absent values are null in the report: a merge removes these fields.
        let patch = Patch::Merge(json!({ "status": report }));
        for _ in 0..2 {
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Written::Done),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
            let object = serde_json::from_value(json!({
                "apiVersion": API_VERSION,
                "kind": "BGPNodeStatus",
                "metadata": { "name": name, "ownerReferences":
                    [{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid }] },
                "spec": {},
            }));
            let object: DynamicObject = object.map_err(|e| ApiError::failed(&e))?;
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Written::NoSuchKind),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Deleted)
    }
}
