//! The speaker by the letter: cases on the wire against the real binary, each named by its RFC and section.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests of the real world")]

#[path = "../common/mod.rs"]
mod common;

mod attributes;
#[path = "../common/bed.rs"]
mod bed;
mod bfd;
mod decision;
mod export;
mod field;
mod fsm;
mod graceful;
mod header;
mod nlri;
mod open;
mod semantics;
mod transport;
#[path = "../common/words.rs"]
mod words;
