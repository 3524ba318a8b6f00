//! BGP messages as octets and as values (RFC 4271 §4). Imports only `net`.

pub mod attr;
pub mod update;

use bytes::Bytes;

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
