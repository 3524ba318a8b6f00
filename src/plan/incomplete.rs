//! Why there is no plan, or no conflist in it.

/// Why there is no plan: the last one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// The daemon has just started.
    #[error("starting")]
    Starting,
    #[error("the first plan is being computed")]
    Pending,
    #[error("bgp.as is not set: give the AS number of this host")]
    NoAs,
    /// The Node has only ExternalIPs, and none of them is an address of this host.
    #[error(
        "the router id is taken from the Node, which has no InternalIP, and none of its ExternalIPs ({external}) is on \
         this host: start the kubelet with --node-ip, or set bgp.router-id"
    )]
    ExternalElsewhere { external: String },
    #[error(
        "the router id is taken from the Node, whose address is not known yet; to begin without it, set bgp.router-id"
    )]
    NoNodeAddress,
    #[error("no interface has an address to take the router id from; set bgp.router-id")]
    NoAddress,
}

/// Why there is no conflist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoConflist {
    #[error("not under Kubernetes")]
    NoCluster,
    /// What the Node lacks.
    #[error("{0}")]
    Node(&'static str),
    #[error("cni.enabled is false")]
    Disabled,
    #[error("no pod CIDR of the Node can be used")]
    NoPodCidr,
    #[error("the CNI plugins are being scanned")]
    PluginsPending,
    #[error("{}", missing(.names, .folder))]
    PluginsMissing { names: Vec<&'static str>, folder: String },
}

fn missing(names: &[&str], folder: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [one] => format!("the CNI plugin {one} is missing in {folder}; install the CNI plugins there"),
        _ => format!("the CNI plugins {} are missing in {folder}; install them there", names.join(" and ")),
    }
}
