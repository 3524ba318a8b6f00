//! Our sessions with other daemons, over the real kernel; `tests/run` installs them.
//!
//! `table` plays every case with every daemon and writes `docs/interop.md`; with `$ROUTELET_SPEAKERS` the daemons
//! are those of another release. Elsewhere, `speaker` runs `bgp::io` in a
//! namespace without a rib: the test is the rib.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../kit/mod.rs"]
mod kit;

mod bfd;
mod bfd_scale;
mod bird;
mod convert;
mod frr;
mod others;
mod speaker;
mod table;
mod unnumbered;
