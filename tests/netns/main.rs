//! The fib on the real kernel: each test builds its own namespaces and needs root.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests of the real world")]

#[path = "../common/mod.rs"]
mod common;
mod docker;
mod ended;
mod fib;
mod forward;
mod links;
mod masquerade;
mod node;
mod others;
