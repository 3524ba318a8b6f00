//! The fields of Services and EndpointSlices that matter to routing, as the API server sends them.

use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;

use super::LocalEndpoints;

/// The fields of a Service that matter to routing.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = Service)]
pub struct ApiService {
    #[serde(deserialize_with = "crate::k8s::metadata::lean")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ApiServiceSpec,
    #[serde(default)]
    pub status: ApiServiceStatus,
}

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub external_traffic_policy: Option<String>,
    pub internal_traffic_policy: Option<String>,
    pub load_balancer_class: Option<String>,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServiceStatus {
    pub load_balancer: ApiLoadBalancer,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiLoadBalancer {
    pub ingress: Vec<ApiIngress>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiIngress {
    pub ip: Option<String>,
    pub ip_mode: Option<String>,
}

/// The fields of an EndpointSlice that matter to routing.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = EndpointSlice)]
#[serde(rename_all = "camelCase")]
pub struct ApiSlice {
    #[serde(deserialize_with = "crate::k8s::metadata::lean")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub address_type: String,
    /// `null` if there are none.
    #[serde(default)]
    pub endpoints: Option<Vec<ApiEndpoint>>,
}

/// An entry of `endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiEndpoint {
    pub node_name: Option<String>,
    pub conditions: ApiEndpointConditions,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiEndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

impl ApiEndpointConditions {
    /// A missing condition means ready, and serving if ready, as the API defines.
    pub(super) fn state(&self) -> LocalEndpoints {
        let ready = self.ready != Some(false);
        match (ready, self.serving.unwrap_or(ready), self.terminating.unwrap_or(false)) {
            (true, _, _) => LocalEndpoints::Ready,
            (false, true, true) => LocalEndpoints::Terminating,
            (false, _, _) => LocalEndpoints::None,
        }
    }
}
