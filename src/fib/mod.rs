//! Installs best paths into the kernel.
//!
//! Only two kinds of kernel objects are changed: routes with routelet's protocol number in the
//! configured table, and nexthop objects with that protocol number. The kernel identifies a route
//! by (table, prefix, metric) and *not* by protocol, so `NLM_F_REPLACE` would overwrite another
//! daemon's route. A key's current holder is therefore looked up before the key is written.
//!
//! Several kernel changes cause no notification (docs/kernel.md, section 2): nexthop objects on a
//! link that loses carrier are deleted, groups shrink, and IPv4 routes over a link that is set down
//! are deleted. A [`host`] change is therefore taken to mean that such objects are gone, and a
//! periodic audit compares the table with a dump.
//!
//! ```text
//! rib ─ NextHops ─► diff (desired × installed) ─ Op ─► io::batch ─► kernel
//!                    │ nexthop: sets, objects             │
//! Host ─ resolve ────┘ adopt, sweep: restart              ▼
//!   ▲──────────────────────────────────── io::monitor ◄─ notifications
//! ```

pub mod adopt;
pub mod diff;
pub mod foreign;
pub mod former;
pub mod guard;
pub mod host;
pub mod io;
pub mod links;
pub mod lookup;
pub mod nexthop;
pub mod order;
pub mod resolve;
pub mod resolvers;
pub mod route;
pub mod rules;
pub mod shadow;
mod source;
pub mod sweep;
pub mod sysctl;
pub mod table;
pub mod view;
pub mod walk;
pub mod wire;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests;
