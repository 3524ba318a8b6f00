//! The fields of `show neighbors` and `show neighbor` (docs/reference.md), then more.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::{Asn, Diagnostic, Family, RouterId};

/// One neighbor.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct NeighborView {
    /// As it is written in the configuration, `fe80::1%eth0` included; of an unnumbered one the
    /// address found.
    pub address: String,
    /// Interface that the neighbor is bound to; `null` without one.
    pub interface: Option<String>,
    /// Number it has, or that it must have; `null` when any will do and none was seen yet.
    pub remote_as: Option<Asn>,
    /// Own AS number towards this neighbor.
    pub local_as: Asn,
    /// State of the session (RFC 4271 §8.2.2).
    pub state: SessionState,
    /// RFC 3339, UTC: when this state began.
    pub since: String,
    /// Address families of the session; empty without one.
    pub families: Vec<Family>,
    /// Prefixes received, by family.
    pub received: BTreeMap<Family, u64>,
    /// Prefixes received and not refused, by family.
    pub accepted: BTreeMap<Family, u64>,
    /// Prefixes advertised, by family.
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
    /// As configured; `null` without one.
    pub description: Option<String>,
    /// `configured`, `object`, `gateway`, `mesh`, `reflector` or `range`.
    pub source: String,
    /// The neighbor's router id; `null` without a session.
    pub router_id: Option<RouterId>,
    /// Own address of the connection; `null` without one.
    pub local_address: Option<IpAddr>,
    /// Names of capabilities, as sent and as received.
    pub capabilities_sent: Vec<String>,
    /// Names of the capabilities that the neighbor has sent.
    pub capabilities_received: Vec<String>,
    /// Messages by type (`open`, `update`, `notification`, `keepalive`, `route-refresh`).
    pub messages_sent: BTreeMap<String, u64>,
    /// Messages received, by type.
    pub messages_received: BTreeMap<String, u64>,
    /// Sessions that ended, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Attributes that were wrong and lived through (RFC 7606).
    pub flaws: u64,
    /// Seconds until each running timer is due.
    pub timers: BTreeMap<String, u64>,
    /// The last NOTIFICATION sent, as text; `null` if none was.
    pub last_notification_sent: Option<String>,
    /// The last NOTIFICATION received, as text; `null` if none was.
    pub last_notification_received: Option<String>,
    /// What BFD reports of it; `null` without.
    #[serde(default)]
    pub bfd: Option<String>,
    /// What the operator should know of this session, with its remedy.
    pub notes: Vec<String>,
    /// Of the present connection.
    #[serde(default)]
    pub queues: Queues,
    #[serde(flatten)]
    pub history: History,
    /// Those of them that nothing but the operator will end. Inside the daemon only.
    #[serde(skip)]
    pub needs: Vec<Diagnostic>,
    /// Why there is no session and what to do about it, where that is known better than from the
    /// last error. Inside the daemon only.
    #[serde(skip)]
    pub diagnosis: Option<(String, String)>,
    /// BFD is to be up and is not. Inside the daemon only.
    #[serde(skip)]
    pub bfd_missing: bool,
    /// Seconds since its last OPEN. Inside the daemon only.
    #[serde(skip)]
    pub open_age: Option<u64>,
}

/// What waits to be sent, and to be handled, in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Queues {
    /// Messages that the socket has not taken yet.
    pub unsent: u64,
    /// Sent, and not acknowledged by the neighbor's TCP.
    pub unacknowledged: u64,
    /// In the socket, not read yet.
    pub unread: u64,
    /// Read, but not a whole message yet.
    pub partial: u64,
}
/// Why sessions end: the keys of [`NeighborView::drops`].
pub const DROP_REASONS: [&str; 13] = [
    "address-removed",
    "administrative",
    "bfd",
    "closed",
    "collision",
    "hold-timer",
    "link-down",
    "max-prefixes",
    "moved",
    "notification-received",
    "notification-sent",
    "rejected",
    "send-hold-timer",
];

/// The past of a neighbor, since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339, UTC: since when it has had a session, or none.
    #[serde(default)]
    pub up_down_since: Option<String>,
    /// How many of its sessions have ended.
    #[serde(default)]
    pub flaps: u64,
    /// Seconds since the last octets from it; `null` without a session.
    #[serde(default)]
    pub last_read: Option<u64>,
    /// Seconds since the last octets to it; `null` without a session.
    #[serde(default)]
    pub last_written: Option<u64>,
    /// The last sessions that ended, the latest first.
    #[serde(default)]
    pub closings: Vec<Closing>,
    /// Age of `up_down_since`. Inside the daemon only.
    #[serde(skip)]
    pub up_down_for: Duration,
}

/// The end of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Closing {
    /// RFC 3339, UTC.
    pub at: String,
    /// The reason as in `drops`.
    pub reason: String,
    /// Why the session was closed.
    pub text: String,
    /// How long ago. Inside the daemon only.
    #[serde(skip)]
    pub ago: Duration,
}

impl History {
    /// Fills in the times; `at` returns the time of a moment so long ago.
    pub fn date(&mut self, at: impl Fn(Duration) -> String) {
        self.up_down_since = Some(at(self.up_down_for));
        for closing in &mut self.closings {
            closing.at = at(closing.ago);
        }
    }
}

/// RFC 4271 §8.2.2, and `disabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    #[default]
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
    Disabled,
}

impl SessionState {
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
        Self::Disabled,
    ];

    /// As in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
            Self::Disabled => "disabled",
        }
    }
}
