use serde::{Deserialize, Serialize};

/// Kinds of addresses that a Service has: words of `kubernetes.services` and of the annotation `routelet.io/advertise`.
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
