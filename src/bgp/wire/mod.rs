//! BGP messages as octets and as values (RFC 4271 §4). Imports only `net`.
//!
//! Everything here is pure and takes whatever a neighbor may send. The way of a message:
//!
//! 1. [`framing::split`] cuts one message off a stream and judges its header (§6.1);
//! 2. the body goes to [`open::Open::decode`], [`update::Decoder::decode`],
//!    [`notification::Notification::decode`] or [`refresh::Refresh::decode`];
//! 3. what comes back is a value, or a [`WireError`] that is the NOTIFICATION to answer with.
//!
//! A broken path attribute is usually no error but a verdict beside the update (RFC 7606): see [`attr`].
//! The other way, values append themselves to a `BytesMut`; UPDATEs are packed by [`pack::Packer`].
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

use crate::net::{Asn, Family};

/// A neighbor broke the protocol.
///
/// It carries exactly what the NOTIFICATION will carry (RFC 4271 §4.5), so the session never has
/// to guess which code a parser meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}/{subcode}: {what}")]
pub struct WireError {
    pub code: Code,
    pub subcode: u8,
    /// Echo of the offending octets; empty unless the RFC asks for them.
    pub data: Bytes,
    /// For our log only, never sent.
    pub what: &'static str,
}

impl WireError {
    pub(crate) fn new(code: Code, subcode: u8, data: &[u8], what: &'static str) -> Self {
        Self { code, subcode, data: Bytes::copy_from_slice(data), what }
    }
}

/// Error codes, in RFC 4271 §4.5 order; RFC 7313 §5 and RFC 9687 §3 add the last two.
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

/// What both ends agreed on, as far as it shapes UPDATEs. Made by the caller from what was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Same AS on both ends: decides what LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST mean (RFC 7606 §7).
    pub ibgp: bool,
    /// AS numbers take four octets in both directions (RFC 6793).
    pub four_octet_as: bool,
    /// By [`Family::index`]: what was negotiated; the rest is ignored.
    pub families: [bool; 2],
    /// IPv4 NLRI may come with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages up to 65,535 octets may be *sent* (RFC 8654 §4): the neighbor announced the capability.
    pub extended_messages: bool,
    /// By family index: NLRI that come carry path identifiers (RFC 7911 §3).
    pub add_path_receive: [bool; 2],
    /// By family index: NLRI that go carry path identifiers.
    pub add_path_send: [bool; 2],
    /// The number every received AS path has to begin with (RFC 4271 §6.3, last rule on AS_PATH): the
    /// neighbor's on eBGP sessions, `None` on iBGP ones and from route servers (RFC 7947 §2.2.2.1).
    pub first_as: Option<Asn>,
    /// The neighbor is on this host: a next hop on the loopback is one that both of them mean.
    pub on_host: bool,
}

impl Shape {
    pub fn has(&self, family: Family) -> bool {
        self.families.get(family.index()).copied().unwrap_or(false)
    }

    pub fn add_path_receive(&self, family: Family) -> bool {
        self.add_path_receive.get(family.index()).copied().unwrap_or(false)
    }

    pub fn add_path_send(&self, family: Family) -> bool {
        self.add_path_send.get(family.index()).copied().unwrap_or(false)
    }

    /// Longest message that may be sent.
    pub fn max_message(&self) -> usize {
        if self.extended_messages { framing::MAX_EXTENDED } else { framing::MAX_MESSAGE }
    }
}
