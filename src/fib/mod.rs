//! From best routes to kernel routes.
//!
//! What is ours in the kernel: the routes with our protocol number in our table, and the nexthop objects with
//! our protocol number. Nothing else is ever changed. The kernel's key of a route is (table, prefix, metric)
//! and *not* the protocol, so `NLM_F_REPLACE` would overwrite another daemon's route: who holds a key is
//! looked up before it is written.
//!
//! The kernel does not say all it does: objects on a link that loses its carrier vanish in silence, groups
//! shrink in silence, and IPv4 routes of a link that is set down are deleted in silence. So [`host`] changes
//! are read as "assume they are gone", and a slow audit compares with a dump.
//!
//! ```text
//! rib ─ NextHops ─► diff (want × have) ─ Op ─► io::batch ─► kernel
//!                    │ nexthop: sets, objects        │
//! Host ─ resolve ────┘ adopt: start and sweep        ▼
//!   ▲──────────────────────────────── io::monitor ◄─ notifications
//! ```

pub mod adopt;
pub mod diff;
pub mod foreign;
pub mod former;
pub mod guard;
pub mod host;
pub mod io;
pub mod links;
pub mod nexthop;
pub mod order;
pub mod resolve;
pub mod resolvers;
pub mod route;
pub mod rules;
pub mod shadow;
mod source;
pub mod sysctl;
pub mod table;
pub mod view;
pub mod walk;
pub mod wire;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests;
