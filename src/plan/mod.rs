//! What should this node do? (Config, Nodes, Host) → Plan. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    bgp::peer::{Global, PeerConfig, PeerKey},
    net::{Guard, Origination, Prefix},
};

/// Everything that this node should do now. Level-triggered: `daemon` makes a new one on each change of
/// the configuration, the cluster or the host, and hands its parts on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub global: Global,
    pub peers: BTreeMap<PeerKey, Arc<PeerConfig>>,
    /// What this node announces of its own.
    pub originated: BTreeMap<Prefix, Origination>,
    /// Own prefixes that get an unreachable route in the kernel against loops.
    pub unreachable: Vec<Prefix>,
    /// What must never be taken from a neighbor.
    pub guard: Arc<Guard>,
    /// Bytes of the conflist, once pod CIDRs of every family are known.
    pub conflist: Option<Arc<Conflist>>,
    /// What the operator should know, each in plain words with its remedy; shown by `show summary`, logged once.
    pub problems: Vec<String>,
}

/// The file that the container runtime reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflist {
    pub bytes: Vec<u8>,
    pub pod_cidrs: Vec<Prefix>,
    /// Own addresses that pods see as their gateway.
    pub gateways: Vec<IpAddr>,
}
