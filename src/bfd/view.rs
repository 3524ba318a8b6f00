//! What `show bfd` and the metrics know of BFD.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One session, as `show bfd --json` prints it. Times are milliseconds unless their name has
/// another unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct BfdView {
    /// Address of the neighbor.
    pub neighbor: String,
    /// Of a directly connected neighbor.
    pub interface: Option<String>,
    /// Own address; `null` if the kernel chooses it.
    pub local_address: Option<String>,
    /// Whether the neighbor may be more than one hop away (RFC 5883).
    pub multihop: bool,
    /// "down", "init", "up" or "admin-down".
    pub state: String,
    /// Seconds in this state.
    pub for_seconds: u64,
    /// State that the neighbor sends.
    pub remote_state: String,
    /// Own discriminator.
    pub local_discriminator: u32,
    /// The neighbor's discriminator; 0 if it is unknown.
    pub remote_discriminator: u32,
    /// Milliseconds between packets that this host wants to send at least.
    pub min_tx: u64,
    /// Milliseconds between packets that this host can receive at least.
    pub min_rx: u64,
    /// Intervals without a packet after which the neighbor detects a failure.
    pub multiplier: u8,
    /// What the neighbor wants to send at least, in milliseconds.
    pub remote_min_tx: u64,
    /// What the neighbor can receive at least, in milliseconds.
    pub remote_min_rx: u64,
    /// The neighbor's multiplier.
    pub remote_multiplier: u8,
    /// Between two packets that are sent, before jitter; `null`: none is sent by itself.
    pub tx_interval: Option<u64>,
    /// Milliseconds without a packet after which the session is down.
    pub detection_time: u64,
    /// Own diagnostic (RFC 5880 §4.1).
    pub diagnostic: String,
    /// The same as a number.
    pub diagnostic_code: u8,
    /// The neighbor's diagnostic.
    pub remote_diagnostic: String,
    /// The neighbor's C bit.
    pub remote_control_plane_independent: bool,
    /// Type of authentication; `null` without one.
    pub authentication: Option<String>,
    /// Whether it waits for the neighbor's first packet.
    pub passive: bool,
    /// It is up, but was lost too often lately to count as up.
    pub dampened: bool,
    /// How often the session went down.
    pub failures: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets refused by authentication.
    pub authentication_failures: u64,
    /// Why nothing can be sent or received.
    pub problem: Option<String>,
}

/// Packets of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) not_authentic: u64,
}
