use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use crate::lab::{self, Fabric, LabOptions, Leaf, Scene};

/// Build a leaf switch and hosts with pods on this machine and show how they route
///
/// Everything runs in network namespaces and is removed at the end. Needs root.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
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
    /// Two leaves, and hosts without addresses on their uplinks and without BGP configuration
    #[arg(long, conflicts_with = "peer")]
    unnumbered: bool,
    /// Only remove what earlier labs have left
    #[arg(long, conflicts_with_all = ["nodes", "keep", "peer", "unnumbered"])]
    remove: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one thing in less than 20 seconds
    Scene {
        /// What to show
        #[arg(value_enum)]
        name: SceneName,
        /// Keep the lab for inspection
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    Routelet,
    Bird,
    Frr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SceneName {
    /// A host whose daemon is stopped while its links stay up
    Bfd,
    /// An uplink that is cut under a stream of packets
    Failover,
    /// Hosts without addresses on their uplinks
    Unnumbered,
    /// A host that is taken out of traffic and back
    Drain,
    /// Two route reflectors, of which one ends under a stream of packets
    Reflectors,
    /// A network of a Docker engine, with and without a container
    Docker,
}

impl Lab {
    pub(super) fn run(self) -> Result<(), Failure> {
        lab::run(self.options()).map_err(|e| match e {
            lab::Error::Usage(text) => Failure::Usage(text),
            lab::Error::Runtime(text) => Failure::Runtime(text),
        })
    }

    fn options(&self) -> LabOptions {
        if let Some(Command::Scene { name, keep }) = &self.command {
            let scene = match name {
                SceneName::Bfd => Scene::Bfd,
                SceneName::Failover => Scene::Failover,
                SceneName::Unnumbered => Scene::Unnumbered,
                SceneName::Drain => Scene::Drain,
                SceneName::Reflectors => Scene::Reflectors,
                SceneName::Docker => Scene::Docker,
            };
            let (nodes, fabric) = (2, scene.fabric());
            return LabOptions { nodes, keep: *keep, fabric, scene: Some(scene), ..LabOptions::default() };
        }
        let peer = match self.peer {
            Peer::Routelet => Leaf::Routelet,
            Peer::Bird => Leaf::Bird,
            Peer::Frr => Leaf::Frr,
        };
        let fabric = if self.unnumbered { Fabric::Unnumbered } else { Fabric::Numbered };
        LabOptions {
            nodes: self.nodes.into(),
            keep: self.keep,
            peer,
            fabric,
            scene: None,
            remove: self.remove,
        }
    }
}
