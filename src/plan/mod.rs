//! What should this node do? (Config, Nodes, Host) → Plan. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    bgp::peer::{Global, PeerConfig, PeerKey},
    config::Config,
    fib::host::Host,
    k8s::node::Nodes,
    net::{Guard, Origination, Prefix, RouterId},
};

pub use crate::k8s::cni::Conflist;

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
    /// Whether the peering needs the Nodes of the others: goes to `k8s::io::spawn`.
    pub all_nodes: bool,
    /// What the operator should know, each in plain words with its remedy; shown by `show summary`, logged once.
    pub problems: Vec<String>,
}

/// What else decides, from the command line, the state folder and the folders of the container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Under Kubernetes: `kubernetes.enabled`, or else `--kubeconfig` or `KUBERNETES_SERVICE_HOST`.
    pub kubernetes: bool,
    /// The router id of the last run, from the state folder. `Plan::global` holds the one to store.
    pub stored_router_id: Option<RouterId>,
    /// Our own routes were found in the kernel at the start (RFC 4724 §3).
    pub restarting: bool,
    /// Sessions that `neighbor disable` holds down.
    pub disabled: BTreeSet<PeerKey>,
    /// Names of the programs in `cni.bin-dir`; `None`: the folder could not be read.
    pub cni_programs: Option<BTreeSet<String>>,
}

/// Decides. `nodes` is `None` outside of Kubernetes; `None` comes back while the router id or the AS
/// number cannot be known yet (no Node address, no address at all), with the reason.
///
/// # Errors
///
/// What is missing, in plain words with its remedy.
pub fn plan(config: &Config, nodes: Option<&Nodes>, host: &Host, extra: &Extra) -> Result<Plan, String> {
    let _ = (config, nodes, host, extra);
    Err("being built".into())
}
