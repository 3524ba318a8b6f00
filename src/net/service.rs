use serde::{Deserialize, Serialize};

/// Kinds of addresses of a Service: values of `kubernetes.services` and of the annotation
/// `routelet.io/advertise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceAddresses {
    ClusterIp,
    ExternalIp,
    LoadBalancerIp,
}

impl ServiceAddresses {
    pub const ALL: [Self; 3] = [Self::ClusterIp, Self::ExternalIp, Self::LoadBalancerIp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster-ip",
            Self::ExternalIp => "external-ip",
            Self::LoadBalancerIp => "load-balancer-ip",
        }
    }
}

/// How many addresses of Services are advertised; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceLimits {
    /// `kubernetes.service-limit`.
    pub total: u32,
    /// `kubernetes.service-limit-per-namespace`.
    pub per_namespace: u32,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self { total: 1000, per_namespace: 100 }
    }
}
