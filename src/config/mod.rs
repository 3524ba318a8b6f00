//! The configuration: validated and typed, with every default defined once.
//!
//! `file` has the keys, and makes the configuration from a text, or returns all errors at once.

mod bfd;
mod defaults;
mod file;
pub mod io;
mod nearest;
mod neighbor;
pub mod objects;
mod password;
mod policies;
mod problem;
mod read;
mod services;
mod values;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    bgp::{
        peer::{AddPaths, AsSets, Bfd, MaxPrefixesAction, RemoteAs, Role, Secret, TtlSecurity},
        policy::Policy,
    },
    docker::NetworkSelector,
    net::{Asn, Family, Prefix, RouterId, Selector, ServiceAddresses, ServiceLimits},
};

pub use defaults::{GATEWAY_GROUP, MESH_GROUP, REFLECTORS_GROUP, implied_by_gateway, implied_by_interface};
pub use file::{ParseContext, parse};
pub use problem::{Problem, Problems};
pub use view::effective;

/// The whole file, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub state_dir: PathBuf,
    pub bgp: Bgp,
    pub advertise: Advertise,
    pub policies: BTreeMap<String, Arc<Policy>>,
    pub fib: Fib,
    pub kubernetes: Kubernetes,
    pub cni: Cni,
    pub docker: Docker,
    pub masquerade: Masquerade,
    pub guard: Guard,
    pub security: Security,
    pub metrics: Metrics,
    pub control: Control,
    pub log: Log,
    /// Outside Kubernetes without a file, or with one that has neither `[bgp]` nor `[advertise]`.
    pub is_bare_host: bool,
}

/// `[bgp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bgp {
    pub asn: AsSetting,
    pub router_id: Option<RouterId>,
    pub listen: Vec<SocketAddr>,
    pub max_paths: usize,
    pub multipath_relax: bool,
    pub cluster_id: Option<RouterId>,
    /// RFC 8212.
    pub require_policy: bool,
    /// The session keys of `[bgp]` itself: hold time, retry times, graceful restart.
    pub defaults: NeighborKeys,
    pub groups: BTreeMap<String, NeighborKeys>,
    pub neighbors: Vec<Neighbor>,
    pub ranges: Vec<ListenRange>,
}

/// `bgp.as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsSetting {
    Number(Asn),
    /// Derived from the router id.
    Auto,
    /// Not set: 64512 under Kubernetes. (Standalone it is an error of the file.)
    Default,
}

/// `[[bgp.neighbor]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbor {
    pub at: NeighborId,
    pub group: Option<String>,
    /// Neighbors at most on each interface that `interface` names; 1 unless written.
    pub limit: usize,
    pub keys: NeighborKeys,
}

/// Where a neighbor is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighborId {
    Address(IpAddr),
    LinkLocal(std::net::Ipv6Addr, String),
    /// `address = "gateway"`.
    Gateway,
    /// `interface = "eth0"`, or a pattern.
    Interface(String),
    /// Each physical interface without an address of its own: of a bare host without a file.
    Uplinks,
}

/// `[[bgp.listen-range]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenRange {
    pub prefix: Prefix,
    pub remote_as: RemoteAs,
    pub group: Option<String>,
    pub limit: usize,
}

/// The keys of a neighbor or of a group, each only if written; `plan` lays them over each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NeighborKeys {
    pub remote_as: Option<RemoteAs>,
    pub local_as: Option<Asn>,
    pub local_address: Option<IpAddr>,
    pub port: Option<u16>,
    pub passive: Option<bool>,
    pub description: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub multihop: Option<u8>,
    pub ttl_security: Option<TtlSecurity>,
    pub families: Option<Vec<Family>>,
    pub hold_time: Option<u16>,
    /// Its default follows from the hold time.
    pub send_hold_time: Option<u16>,
    pub connect_retry_time: Option<u16>,
    pub idle_hold_time: Option<u16>,
    pub graceful_restart: Option<bool>,
    pub restart_time: Option<u16>,
    pub long_lived_stale_time: Option<u32>,
    pub route_reflector_client: Option<bool>,
    pub next_hop_self: Option<bool>,
    pub transit: Option<bool>,
    pub max_prefixes: Option<u32>,
    pub max_prefixes_action: Option<MaxPrefixesAction>,
    pub max_prefixes_restart: Option<u32>,
    /// Its default depends on which routes are advertised to the neighbor.
    pub max_prefixes_out: Option<u32>,
    pub add_paths: Option<AddPaths>,
    /// `Some(None)`: written as `false`.
    pub bfd: Option<Option<Bfd>>,
    pub import: Option<Vec<String>>,
    pub export: Option<Vec<String>>,
    /// Its default depends on the session.
    pub fast_failover: Option<bool>,
    pub accept_default: Option<bool>,
    pub allow_own_as: Option<u8>,
    pub as_sets: Option<AsSets>,
    pub role: Option<Role>,
}

/// `[advertise]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertise {
    pub networks: Vec<Prefix>,
    /// Names or globs.
    pub interfaces: Vec<String>,
    /// Bridges to which containers are attached, whatever their names.
    pub containers: bool,
    /// Bridges of `docker.networks` as the engine names them; laid over the file.
    pub docker_bridges: BTreeSet<String>,
    pub require_carrier: bool,
    pub communities: Vec<u32>,
    pub large_communities: Vec<[u32; 3]>,
    pub ext_communities: Vec<[u8; 8]>,
    pub med: Option<u32>,
}

/// `[fib]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fib {
    pub install: bool,
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    pub on_exit: OnExit,
    pub resolve_via_default: bool,
    /// At most one address of each family.
    pub prefer_source: Vec<PreferSource>,
    /// `"auto"` is true: where the kernel has none, plain routes are written.
    pub nexthop_objects: bool,
    /// Resilient nexthop groups.
    pub resilient: bool,
}

/// `fib.prefer-source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PreferSource {
    RouterId,
    Address(IpAddr),
}

/// `fib.on-exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    Keep,
    Flush,
}

/// `[kubernetes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// `None`: when a kubeconfig is given or the service address is in the environment.
    pub enabled: Option<bool>,
    pub peering: Vec<Peering>,
    pub mesh_limit: usize,
    /// What nodes may advertise to each other besides their pod CIDRs and Service addresses.
    pub mesh_accept: Vec<Prefix>,
    pub node_name: Option<String>,
    /// `None`: from ServiceCIDR objects.
    pub service_cidrs: Option<Vec<Prefix>>,
    pub advertise_pod_cidrs: bool,
    /// Key of a taint that is taken off the own Node once it is ready.
    pub startup_taint: Option<String>,
    /// If the policy of iptables' FORWARD is DROP, packets of own pod CIDRs are accepted.
    pub accept_forwarded: bool,
    pub services: Vec<ServiceAddresses>,
    pub service_rules: ServiceRules,
}

/// The keys of `[kubernetes]` for Services, besides the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRules {
    /// `service-selector`.
    pub selector: Selector,
    /// `service-annotations`: what the annotation `routelet.io/advertise` may request.
    pub annotations: Vec<ServiceAddresses>,
    /// `service-aggregates`.
    pub aggregates: Vec<Prefix>,
    /// `service-external-ranges`: where external IPs must lie; anywhere if there are none.
    pub external_ranges: Vec<Prefix>,
    /// `service-limit` and `service-limit-per-namespace`.
    pub limits: ServiceLimits,
    /// `load-balancer-classes`, besides Services without one.
    pub classes: Vec<String>,
    /// `withdraw-when-cordoned`.
    pub when_cordoned: bool,
    /// `withdraw-without-endpoints`.
    pub without_endpoints: bool,
    /// `ignore-exclude-label`.
    pub ignore_exclude_label: bool,
}

/// `kubernetes.peering`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peering {
    Mesh,
    Gateway,
    Reflectors,
    Auto,
    None,
}

/// `[cni]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cni {
    /// `None`: under Kubernetes.
    pub enabled: Option<bool>,
    pub conf_dir: PathBuf,
    pub file: String,
    pub bin_dir: PathBuf,
    pub bridge: String,
    /// `None`: from the host's interfaces.
    pub mtu: Option<u32>,
    pub plugins: Vec<CniPlugin>,
}

/// An entry of `cni.plugins`.
#[derive(Clone, Debug, PartialEq)]
pub enum CniPlugin {
    Name(String),
    /// A whole plugin configuration, passed on as it is.
    Table(serde_json::Map<String, serde_json::Value>),
}

/// `[docker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// Networks of the engine whose subnets are advertised.
    pub networks: Vec<NetworkSelector>,
    /// Of the engine, read for `networks` only.
    pub socket: PathBuf,
    /// Let traffic of the advertised subnets through where FORWARD drops it.
    pub accept_forwarded: bool,
}

/// `[masquerade]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// `None`: `"auto"`.
    pub enabled: Option<bool>,
    pub exclude: Vec<Prefix>,
}

/// `[guard]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub connected: GuardConnected,
    /// Whether forwarded packets of pods to port 179 of neighbors are dropped.
    pub block_pod_bgp: bool,
}

/// `guard.connected`: which prefixes of connected subnets are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardConnected {
    /// The subnet itself, its network and its broadcast address.
    #[default]
    Equal,
    /// Everything inside it, too.
    Inside,
}

/// `[security]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The daemon restricts itself to what it needs. `false`: to debug.
    pub sandbox: bool,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Empty: off.
    pub listen: Vec<SocketAddr>,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub socket: PathBuf,
    pub group: Option<String>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Whether `text` is a log level, or a list of `TARGET=LEVEL` as tracing knows it.
///
/// # Errors
///
/// The error, and what is allowed.
pub fn log_level(text: &str) -> Result<(), String> {
    let known = ["error", "warn", "info", "debug", "trace", "off"];
    let wrong = text.split(',').find(|part| {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        !known.contains(&level.trim())
    });
    match wrong {
        None => Ok(()),
        Some(part) => Err(format!("`{part}` is no log level; write one of {}", known.join(", "))),
    }
}

/// The longest times are small, so they are kept as written, in seconds.
pub fn seconds(n: u16) -> Duration {
    Duration::from_secs(n.into())
}
