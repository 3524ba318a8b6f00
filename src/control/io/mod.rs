//! The control socket, both ends, and the HTTP server for metrics and probes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod client;
pub mod http;
pub mod server;
