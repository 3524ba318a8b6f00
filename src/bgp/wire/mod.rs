//! Encoding and decoding of BGP messages (RFC 4271 §4). Imports only `net`.
//!
//! Everything here is pure and accepts any input from a neighbor. A message is processed in these
//! steps:
//!
//! 1. [`framing::split`] takes one message from a stream and checks its header (§6.1);
//! 2. the body is decoded by [`open::Open::decode`], [`update::Decoder::decode`],
//!    [`notification::Notification::decode`] or [`refresh::Refresh::decode`];
//! 3. the result is a value, or a [`WireError`], which contains the NOTIFICATION to send.
//!
//! A malformed path attribute is usually not an error but an action returned with the update (RFC
//! 7606): see [`attr`]. In the other direction, values append themselves to a `BytesMut`;
//! [`pack::Packer`] packs UPDATEs.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may"))]

pub mod attr;
pub mod capability;
pub mod framing;
mod nlri;
pub mod notification;
pub mod open;
pub mod pack;
#[cfg(test)]
mod props;
pub mod refresh;
pub mod update;

use bytes::Bytes;

use crate::net::{Asn, Family, PerFamily};

/// A protocol error of a neighbor.
///
/// It contains exactly what the NOTIFICATION will contain (RFC 4271 §4.5), so that the session does
/// not have to derive the code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}/{subcode}: {what}")]
pub struct WireError {
    pub code: Code,
    pub subcode: u8,
    /// Data of the NOTIFICATION; empty unless the RFC requires it.
    pub data: Bytes,
    /// For our log only, never sent.
    pub what: &'static str,
}

impl WireError {
    pub(crate) fn new(code: Code, subcode: u8, data: &[u8], what: &'static str) -> Self {
        Self { code, subcode, data: Bytes::copy_from_slice(data), what }
    }
}

/// Error codes, in the order of RFC 4271 §4.5; RFC 7313 §5 and RFC 9687 §3 add the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Header = 1,
    Open = 2,
    Update = 3,
    HoldTimer = 4,
    Fsm = 5,
    Cease = 6,
    RouteRefresh = 7,
    SendHoldTimer = 8,
}

/// The negotiated parameters that determine the form of UPDATEs. Built by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Both ends are in the same AS, which determines the meaning of LOCAL_PREF, ORIGINATOR_ID and
    /// CLUSTER_LIST (RFC 7606 §7).
    pub ibgp: bool,
    /// AS numbers have four octets in both directions (RFC 6793).
    pub four_octet_as: bool,
    /// Whether the family was negotiated; others are ignored.
    pub families: PerFamily<bool>,
    /// IPv4 NLRI may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages up to 65,535 octets may be *sent* (RFC 8654 §4): the neighbor advertised the
    /// capability.
    pub extended_messages: bool,
    /// Received NLRI have path identifiers (RFC 7911 §3).
    pub add_path_receive: PerFamily<bool>,
    /// Sent NLRI have path identifiers.
    pub add_path_send: PerFamily<bool>,
    /// The AS number that every received path must start with (RFC 4271 §6.3, last rule on
    /// AS_PATH): the neighbor's on eBGP sessions; `None` on iBGP sessions and for route servers
    /// (RFC 7947 §2.2.2.1).
    pub first_as: Option<Asn>,
    /// The neighbor is on this host, so a loopback address is a valid next hop.
    pub on_host: bool,
}

impl Shape {
    pub fn has(&self, family: Family) -> bool {
        self.families[family]
    }

    pub fn add_path_receive(&self, family: Family) -> bool {
        self.add_path_receive[family]
    }

    pub fn add_path_send(&self, family: Family) -> bool {
        self.add_path_send[family]
    }

    /// Length of the longest message that may be sent.
    pub fn max_message(&self) -> usize {
        if self.extended_messages { framing::MAX_EXTENDED } else { framing::MAX_MESSAGE }
    }
}
