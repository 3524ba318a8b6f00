//! Whole racks: hosts below two leaf switches, with containers that reach each other, under probes
//! of 1 kHz per pair, family and direction while each uplink is cut in turn.
//!
//! `ROUTELET_RACKS=all` cuts every uplink in every way; otherwise each is set down at one end, and
//! one uplink per kind of leaf has a silent loss, which lasts for a hold time.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/mod.rs"]
mod common;

mod gobgp;
#[path = "../kit/mod.rs"]
mod kit;
mod lease;
mod unnumbered;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One rack at a time: lost packets are counted.
fn alone() -> MutexGuard<'static, ()> {
    static RACK: Mutex<()> = Mutex::new(());
    RACK.lock().unwrap_or_else(PoisonError::into_inner)
}
