//! `routelet lab`: a leaf switch and hosts with pods in network namespaces of this machine.
//!
//! The real daemon runs in each host, so that what is seen here is what a fabric sees. `topology` decides names,
//! addresses and configurations; `io` builds them with netlink, runs the story and takes everything away again.
//!
//! Deliberately absent: `ip(8)`, Docker, Kubernetes. A lab needs root and a kernel with veth and bridges.

mod io;
mod topology;

pub use topology::Leaf;

/// What the command line of `lab` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// Hosts below the leaf, 2 to 50.
    pub nodes: usize,
    /// Leave the lab standing.
    pub keep: bool,
    /// What runs in the leaf.
    pub peer: Leaf,
    /// Only take away what an earlier lab left (`--remove`).
    pub remove: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { nodes: 3, keep: false, peer: Leaf::Routelet, remove: false }
    }
}

/// Why a lab failed: one line that says what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

/// Builds the lab, tells its story on standard output and removes it.
///
/// # Errors
///
/// When it cannot be built, when the network does not converge, or when a ping stays unanswered.
pub fn run(options: LabOptions) -> Result<(), Error> {
    io::run(options)
}
