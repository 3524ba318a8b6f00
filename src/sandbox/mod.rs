//! The privileges of the running daemon: two capabilities, a few folders, and no system calls that
//! only an attacker needs.
//!
//! routelet runs on every node and parses input from strangers. Code that exploits a fault in the
//! parser must reach neither other programs' files nor the kernel beyond routes. The daemon
//! therefore gives up the rights that it does not need, whether systemd, a container runtime or a
//! shell has started it. [`io::enter`] does that once, before there is a second thread; threads and
//! programs that are started later inherit it.
//!
//! Four layers, each useful without the others:
//!
//! - **Capabilities** ([`Capability`]): root without them is a user like any other.
//! - **`no_new_privs`**: no program that is started can gain more.
//! - **Landlock** ([`Rule`]): which folders can be read, written and executed. Linux 5.13.
//! - **seccomp** ([`io::calls`]): system calls that no part of routelet uses and that exploits
//!   want.
//!
//! If the kernel lacks one of them, the daemon runs nevertheless: [`SandboxView`] shows which are
//! in force. `security.sandbox = false` turns all of it off, to debug.

pub mod io;
mod rules;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use rules::{Access, Cni, Demand, Rule};

/// A capability that the daemon keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Routes, nexthop objects, nftables, addresses of the pods' bridge, sysctls of the network,
    /// TCP MD5 and buffers beyond `net.core.rmem_max`.
    NetAdmin,
    /// Port 179, bound again when `bgp.listen` changes or another daemon releases it.
    NetBindService,
    /// ICMPv6 sockets of unnumbered neighbors. Only where they are configured.
    NetRaw,
    /// The real-time priority of BFD's thread, which starts with the first neighbor that uses BFD.
    /// Only if BFD is configured and the limit of real-time priorities cannot be raised instead, as
    /// in a container.
    SysNice,
}

impl Capability {
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysNice => "CAP_SYS_NICE",
        }
    }
}

/// What is in force, in `show summary`.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SandboxView {
    /// `security.sandbox`.
    pub enabled: bool,
    /// The numeric user that the daemon runs as.
    pub user: u32,
    /// Effective capabilities, as `CAP_NET_ADMIN`.
    pub capabilities: Vec<String>,
    /// Whether programs that are run get no further rights.
    pub no_new_privileges: bool,
    /// Whether system calls are restricted.
    pub seccomp: bool,
    /// Whether access to files is restricted.
    pub landlock: bool,
    /// Restrictions that could not be applied, with the reason.
    #[serde(default)]
    pub missing: Vec<String>,
}
