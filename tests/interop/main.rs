//! Our sessions with other daemons, over the real kernel; `tests/run` installs them.
//!
//! `speaker` runs `bgp::io` in a namespace without a rib: the test is the rib.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/mod.rs"]
mod common;

mod bird;
mod frr;
mod speaker;
