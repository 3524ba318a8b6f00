//! `routelet lab`: a leaf switch and hosts with pods in network namespaces of this machine.
//!
//! The real daemon runs in each host, so that the lab behaves like a fabric. `topology` decides
//! names, addresses and configurations; `io` builds them with netlink, runs the demonstration and
//! removes everything again.
//!
//! Deliberately absent: `ip(8)`, Kubernetes, and the Docker engine of this machine: the scene
//! `docker` starts an engine of its own. A lab needs root and a kernel with veth and bridges.

mod io;
mod topology;

pub use topology::{Fabric, Leaf};

/// Arguments of `lab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// Hosts below the leaf, 2 to 50.
    pub nodes: usize,
    /// Keep the lab.
    pub keep: bool,
    /// Daemon in the leaf.
    pub peer: Leaf,
    /// How leaves and hosts are connected.
    pub fabric: Fabric,
    /// A scene instead of the whole demonstration.
    pub scene: Option<Scene>,
    /// Only remove what an earlier lab left (`--remove`).
    pub remove: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        let (fabric, scene) = (Fabric::Numbered, None);
        Self { nodes: 3, keep: false, peer: Leaf::Routelet, fabric, scene, remove: false }
    }
}

/// One thing to see, in less than 20 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A host whose daemon is stopped, while its links stay up.
    Bfd,
    /// An uplink is cut under a stream of packets.
    Failover,
    /// Hosts without addresses on their uplinks.
    Unnumbered,
    /// A host is taken out of traffic and back.
    Drain,
    /// One of two route reflectors ends under a stream of packets.
    Reflectors,
    /// A network of Docker, with and without a container.
    Docker,
}

impl Scene {
    /// The fabric of the scene.
    pub fn fabric(self) -> Fabric {
        match self {
            Self::Failover | Self::Unnumbered => Fabric::Unnumbered,
            Self::Bfd | Self::Drain | Self::Docker => Fabric::Numbered,
            Self::Reflectors => Fabric::Reflected,
        }
    }
}

/// Why a lab failed: one line with the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

/// Builds the lab, runs the demonstration on standard output and removes the lab.
///
/// # Errors
///
/// If it cannot be built, the network does not converge, or a ping gets no reply.
pub fn run(options: LabOptions) -> Result<(), Error> {
    io::run(options)
}
