//! Bidirectional Forwarding Detection (RFC 5880), over one hop (RFC 5881) and several (RFC 5883):
//! whether packets reach a neighbor, known within a fraction of a second.
//!
//! ```text
//! neighbor ◄─UDP 3784, 4784─► io: a thread of its own ─octets─► Engine ─by discriminator─► Session
//!                               ▲ paths to watch                │ reports
//! bgp/io, a task per neighbor ──┴──── src/liveness.rs ◄─────────┘
//! ```
//!
//! [`Engine`] is a value: packets and `now` in, packets and reports out. One session serves all
//! that watch the same path. A neighbor is lost when nothing came from it for the detection time;
//! that is reported straight to the task of the BGP session, past the routing table and whatever it
//! is busy with.
//!
//! Deliberately absent: demand mode and the echo function of our own, simple passwords and MD5,
//! multipoint.

mod auth;
mod dampening;
mod engine;
pub mod io;
mod packet;
mod random;
mod session;
#[cfg(test)]
mod tests;
pub mod view;

pub use engine::{Arrival, Change, ClientId, Engine, MAX_SESSIONS, Output, TooMany, Totals, Watch};
pub use packet::{Discard, Encoded, Packet, State};
