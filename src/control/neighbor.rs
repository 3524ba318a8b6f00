use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NeighborView;
use crate::bgp::rib::view::NeighborDetails;

/// Response to `show neighbor`: its session, and what the routing table has of it.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct NeighborReport {
    #[serde(flatten)]
    pub session: NeighborView,
    /// `null` while an unnumbered neighbor is not found.
    #[serde(default)]
    pub details: Option<Box<NeighborDetails>>,
}
