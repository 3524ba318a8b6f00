//! The fields of `show neighbors` and `show neighbor` (docs/reference.md), then more.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::net::{Asn, Diagnostic, Family, RouterId};

/// One neighbor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborView {
    /// As it is written in the configuration, `fe80::1%eth0` included; of an unnumbered one the
    /// address found.
    pub address: String,
    pub interface: Option<String>,
    /// Number it has, or that it must have; `null` when any will do and none was seen yet.
    pub remote_as: Option<Asn>,
    pub local_as: Asn,
    pub state: SessionState,
    /// RFC 3339, UTC: when this state began.
    pub since: String,
    pub families: Vec<Family>,
    pub received: BTreeMap<Family, u64>,
    pub accepted: BTreeMap<Family, u64>,
    pub advertised: BTreeMap<Family, u64>,
    /// Seconds; negotiated when established, else configured.
    pub hold_time: u16,
    /// Why the last session ended or the last attempt failed, in plain words.
    pub last_error: Option<String>,

    /// Routes kept back by `max-prefixes-out`.
    #[serde(default)]
    pub withheld: BTreeMap<Family, u64>,
    /// RFC 5082: `enforced`, or `not offered by the neighbor`; `null` where it is off, and before
    /// the first session.
    #[serde(default)]
    pub ttl_security: Option<String>,
    /// Connections refused because of the TTL of their first packet.
    #[serde(default)]
    pub refused_by_ttl: u64,
    pub description: Option<String>,
    /// `configured`, `object`, `gateway`, `mesh`, `reflector` or `range`.
    pub source: String,
    pub router_id: Option<RouterId>,
    pub local_address: Option<IpAddr>,
    /// Names of capabilities, as sent and as received.
    pub capabilities_sent: Vec<String>,
    pub capabilities_received: Vec<String>,
    /// Messages by type (`open`, `update`, `notification`, `keepalive`, `route-refresh`).
    pub messages_sent: BTreeMap<String, u64>,
    pub messages_received: BTreeMap<String, u64>,
    /// Sessions that ended, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Attributes that were wrong and lived through (RFC 7606).
    pub flaws: u64,
    /// Seconds until each running timer is due.
    pub timers: BTreeMap<String, u64>,
    pub last_notification_sent: Option<String>,
    pub last_notification_received: Option<String>,
    /// What BFD reports of it; `null` without.
    #[serde(default)]
    pub bfd: Option<String>,
    /// What the operator should know of this session, with its remedy.
    pub notes: Vec<String>,
    /// Those of them that nothing but the operator will end. Inside the daemon only.
    #[serde(skip)]
    pub needs: Vec<Diagnostic>,
    /// BFD is to be up and is not. Inside the daemon only.
    #[serde(skip)]
    pub bfd_missing: bool,
    /// Seconds since its last OPEN. Inside the daemon only.
    #[serde(skip)]
    pub answered: Option<u64>,
}

/// RFC 4271 §8.2.2, and `disabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
    Disabled,
}
