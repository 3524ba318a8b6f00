//! The whole daemon on a real kernel, with real and with hostile neighbors.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests of the real world")]

#[path = "../common/mod.rs"]
mod common;

mod bad_neighbors;
mod bare;
mod bfd;
#[path = "../common/blocks.rs"]
mod blocks;
mod browser;
mod busy_links;
mod carried;
mod clock;
mod documented;
mod doors;
mod explain;
mod firewalld;
mod former;
mod full_disk;
mod gateways;
mod guard;
mod host;
mod kernel;
#[path = "../kit/mod.rs"]
mod kit;
mod links;
mod load;
mod metrics;
mod monitoring;
mod next_hops;
mod overload;
mod paths;
mod pitfalls;
mod problems;
mod promql;
mod reload;
mod reported;
mod sandbox;
mod schema;
mod screens;
mod signatures;
mod source;
mod state;
mod status_page;
mod stopped;
mod strangers;
mod surroundings;
mod switch;
mod sysctl;
mod unnumbered;
mod upgrade;
mod uplinks;
