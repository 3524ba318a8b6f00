use serde::{Deserialize, Serialize};

/// Where an originated prefix comes from: `source` in policies and in `show routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    PodCidr,
    Service,
    Network,
    Interface,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PodCidr => "pod-cidr",
            Self::Service => "service",
            Self::Network => "network",
            Self::Interface => "interface",
        }
    }
}

/// An originated prefix with its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origination {
    pub source: Source,
    pub med: Option<u32>,
    pub communities: Vec<u32>,
    pub large_communities: Vec<[u32; 3]>,
    pub ext_communities: Vec<[u8; 8]>,
}
