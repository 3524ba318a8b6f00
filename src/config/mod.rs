//! The configuration: validated and typed.
//!
//! `keys` defines each key once. `file` makes the configuration from a text, or returns all errors
//! at once.

mod as_file;
mod bfd;
mod defaults;
mod file;
pub mod io;
pub(crate) mod keys;
mod nearest;
mod neighbor;
pub mod objects;
mod password;
mod policies;
mod problem;
mod read;
pub mod reference;
mod values;
mod view;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    bgp::{peer::RemoteAs, policy::Policy},
    net::{Asn, Prefix},
};

pub use as_file::as_file;
pub use defaults::{GATEWAY_GROUP, MESH_GROUP, REFLECTORS_GROUP, implied_by_gateway, implied_by_interface};
pub use file::parse;
pub use keys::{
    Advertise, Bgp, Cni, Control, Docker, Fib, Guard, Kubernetes, Log, Masquerade, Metrics, NeighborKeys,
    Security, ServiceRules,
};
pub use problem::{Problem, Problems};
pub use read::{ParseContext, PasswordFileError};
pub use view::{effective, statements};

keys::section! {
    /// The whole file, defaults filled in.
    pub struct Config at "" {
        /// Folder for what a restart needs: the last known cluster, sessions, own nexthop ids, boot
        /// id.
        "state-dir" state_dir: PathBuf = "/var/lib/routelet".into(), path(), Restart;
        also
        bgp: Bgp = Bgp::default();
        advertise: Advertise = Advertise::default();
        policies: BTreeMap<String, Arc<Policy>> = BTreeMap::new();
        fib: Fib = Fib::default();
        kubernetes: Kubernetes = Kubernetes::default();
        cni: Cni = Cni::default();
        docker: Docker = Docker::default();
        masquerade: Masquerade = Masquerade::default();
        guard: Guard = Guard::default();
        security: Security = Security::default();
        metrics: Metrics = Metrics::default();
        control: Control = Control::default();
        log: Log = Log::default();
        /// Outside Kubernetes without a file, or with one that has neither `[bgp]` nor
        /// `[advertise]`.
        is_bare_host: bool = false;
    }
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
    /// Maximum number of neighbors on each interface that `interface` matches; 1 by default.
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

/// `kubernetes.peering`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peering {
    Mesh,
    Gateway,
    Reflectors,
    Auto,
    None,
}

/// An entry of `cni.plugins`.
#[derive(Clone, Debug, PartialEq)]
pub enum CniPlugin {
    Name(String),
    /// A whole plugin configuration, passed on as it is.
    Table(serde_json::Map<String, serde_json::Value>),
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

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The part of a text that is no log level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is not a log level; write one of {}", LOG_LEVELS.join(", "))]
pub struct LogLevelError {
    part: String,
}

/// Whether `text` is a log level, or a list of `TARGET=LEVEL` as tracing knows it.
///
/// # Errors
///
/// The error, and what is allowed.
pub fn log_level(text: &str) -> Result<(), LogLevelError> {
    let wrong = text.split(',').find(|part| {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        !LOG_LEVELS.contains(&level.trim())
    });
    match wrong {
        None => Ok(()),
        Some(part) => Err(LogLevelError { part: part.to_owned() }),
    }
}

/// A time of the file as a duration: all of them are in seconds and fit into 16 bits.
pub fn seconds(n: u16) -> Duration {
    Duration::from_secs(n.into())
}
