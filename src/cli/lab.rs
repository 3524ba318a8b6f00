use clap::{Args, ValueEnum};

use super::Failure;
use crate::lab::{self, LabOptions, Leaf};

/// Build a leaf switch and hosts with pods on this machine and show how they route
///
/// Everything runs in network namespaces and is removed at the end. Needs root.
#[derive(Args, Debug)]
pub(super) struct Lab {
    /// Hosts below the leaf
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
    /// Keep the lab for inspection
    #[arg(long)]
    keep: bool,
    /// Daemon to run in the leaf
    #[arg(long, value_enum, default_value = "routelet")]
    peer: Peer,
    /// Only remove what earlier labs have left
    #[arg(long, conflicts_with_all = ["nodes", "keep", "peer"])]
    remove: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    Routelet,
    Bird,
    Frr,
}

impl Lab {
    pub(super) fn run(self) -> Result<(), Failure> {
        let peer = match self.peer {
            Peer::Routelet => Leaf::Routelet,
            Peer::Bird => Leaf::Bird,
            Peer::Frr => Leaf::Frr,
        };
        let options = LabOptions { nodes: self.nodes.into(), keep: self.keep, peer, remove: self.remove };
        lab::run(options).map_err(|e| match e {
            lab::Error::Usage(text) => Failure::Usage(text),
            lab::Error::Runtime(text) => Failure::Runtime(text),
        })
    }
}
