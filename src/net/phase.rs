use std::{collections::BTreeMap, net::IpAddr};

/// How far the first exchange with each neighbor has come since this start.
///
/// A snapshot published by the rib: it decides which adopted routes may be swept, whether the node is
/// ready, and how long the conflist waits for first routes. A later loss of the session takes nothing back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    pub neighbors: BTreeMap<IpAddr, Phase>,
}

/// One neighbor's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No session since the start.
    Waiting,
    /// No session since the start, and it refuses connections: nobody speaks BGP there now.
    Refused,
    /// Established, first exchange not over.
    Up,
    /// End-of-RIB came for each family, or 5 s passed after the session came up without a further UPDATE.
    Converged,
}

impl Convergence {
    /// Whether every neighbor has finished its first exchange.
    pub fn all(&self) -> bool {
        self.neighbors.values().all(|p| *p == Phase::Converged)
    }

    /// Whether at least one neighbor has finished its first exchange.
    pub fn any(&self) -> bool {
        self.neighbors.values().any(|p| *p == Phase::Converged)
    }
}
