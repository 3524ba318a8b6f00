//! Sockets, tasks and the clock of BGP. Decides nothing.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod rib;
