use std::{collections::BTreeMap, net::IpAddr};

/// Progress of the initial exchange with each neighbor since the start.
///
/// A snapshot published by the rib. It decides which adopted routes may be swept, whether the node
/// is ready, and how long the conflist waits for the first routes. A later loss of the session does
/// not revert it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    pub neighbors: BTreeMap<IpAddr, Phase>,
}

/// Progress of one neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No session since the start.
    Waiting,
    /// No session since the start, and the neighbor refuses connections: no BGP speaker listens
    /// there now.
    Refused,
    /// Established, the initial exchange is not complete.
    Up,
    /// End-of-RIB was received for each family, or 5 s have passed since the session was
    /// established without a further UPDATE.
    Converged,
}

impl Convergence {
    /// Whether every neighbor has completed its initial exchange.
    pub fn all(&self) -> bool {
        self.neighbors.values().all(|p| *p == Phase::Converged)
    }

    /// Whether at least one neighbor has completed its initial exchange.
    pub fn any(&self) -> bool {
        self.neighbors.values().any(|p| *p == Phase::Converged)
    }
}
