//! Shared vocabulary: families, prefixes, next hops.
//!
//! Nothing here decides anything. Data between areas (`bgp`, `fib` and `k8s` never import one
//! another) consists of these types.

mod assigned;
mod bfd;
mod cover;
mod diagnostic;
pub mod guard;
mod hops;
mod links;
mod on_link;
mod origin;
mod per_family;
mod phase;
mod preferred;
mod prefix;
mod prefix_map;
mod random;
mod reach;
mod selector;
mod service;
mod smallest;
pub mod text;

pub use assigned::Assigned;
pub use bfd::{BfdAuth, BfdParams, BfdPath, BfdReport, BfdStatus, bfd_diagnostic};
pub use cover::Cover;
pub use diagnostic::{Diagnostic, Reason, Severity, Subject, SubjectKind};
pub use guard::{Guard, Refusal};
pub use hops::{Gateway, NextHops, RouteKind};
pub use links::{LinkState, Links};
pub use on_link::OnLink;
pub use origin::{Origination, Source};
pub use per_family::PerFamily;
pub use phase::{Convergence, Phase};
pub use preferred::PreferredSources;
pub use prefix::{Family, Prefix, PrefixError};
pub use prefix_map::PrefixMap;
#[cfg(test)]
pub(crate) use prefix_map::testing::any_prefix;
pub use random::Random;
pub use reach::{Reach, Reachable, Unresolved};
pub use selector::{Selector, SelectorError};
pub use service::{ServiceAddresses, ServiceLimits};
pub use smallest::Smallest;

/// BGP identifier (RFC 6286): any 32-bit value but 0, written as an IPv4 address.
pub type RouterId = std::net::Ipv4Addr;

/// Autonomous system number, four octets (RFC 6793).
pub type Asn = u32;

/// Replaces a number that does not fit into two octets (RFC 6793 §9).
pub const AS_TRANS: Asn = 23456;
