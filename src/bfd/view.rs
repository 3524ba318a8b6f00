//! What `show bfd` and the metrics know of BFD.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One session, as `show bfd --json` prints it. Times are milliseconds unless their name has
/// another unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct BfdView {
    pub neighbor: String,
    /// Of a directly connected neighbor.
    pub interface: Option<String>,
    pub local_address: Option<String>,
    pub multihop: bool,
    /// "down", "init", "up" or "admin-down".
    pub state: String,
    /// Seconds in this state.
    pub for_seconds: u64,
    pub remote_state: String,
    pub local_discriminator: u32,
    pub remote_discriminator: u32,
    pub min_tx: u64,
    pub min_rx: u64,
    pub multiplier: u8,
    pub remote_min_tx: u64,
    pub remote_min_rx: u64,
    pub remote_multiplier: u8,
    /// Between two packets that are sent, before jitter; `null`: none is sent by itself.
    pub tx_interval: Option<u64>,
    pub detection_time: u64,
    pub diagnostic: String,
    pub diagnostic_code: u8,
    pub remote_diagnostic: String,
    /// The neighbor's C bit.
    pub remote_control_plane_independent: bool,
    pub authentication: Option<String>,
    pub passive: bool,
    /// It is up, but was lost too often lately to count as up.
    pub dampened: bool,
    pub failures: u64,
    pub packets_sent: u64,
    pub packets_received: u64,
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
