//! Unnumbered neighbors: who is at the other end of a link, found by IPv6 router advertisements.
//!
//! `interface = "eth1"` names no address. Both ends send router advertisements (RFC 4861), and each
//! learns the other's link-local address from their source. The BGP session runs between these
//! addresses and carries IPv4 routes with IPv6 next hops (RFC 8950). FRR, Cumulus Linux, SONiC,
//! Arista EOS and others work the same way. A neighbor that sends no advertisements, as GoBGP, is
//! found by its first connection.
//!
//! A [`Link`] decides for one interface when to send and who is a neighbor; [`packet`] reads and
//! checks what comes; `io` has the sockets. Neither radvd nor the kernel's `accept_ra` is needed,
//! and our advertisements have the router lifetime 0 and no prefix, so that no host on the link
//! takes this one as its default router.
//!
//! # What is deliberately absent
//!
//! A last advertisement at the end (RFC 4861 §6.2.5): its router lifetime would be 0, as in all
//! others. Prefixes, MTU, DNS servers: whoever wants those runs radvd.

mod advertise;
pub mod io;
mod link;
mod neighbors;
pub mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

pub use advertise::Send;
pub use link::{Act, Change, Input, Link};

/// The interfaces on which neighbors are looked for: a snapshot, made by `plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// By interface index.
    pub links: BTreeMap<u32, Interface>,
    /// All link-local addresses of this host.
    pub own: BTreeSet<Ipv6Addr>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Neighbors at most.
    pub limit: usize,
    /// Our address there, once duplicate address detection has passed.
    pub link_local: Option<Ipv6Addr>,
    /// There is none, not even one under detection.
    pub lacks_address: bool,
    /// Set up, with a carrier.
    pub can_send: bool,
    /// Another number after each loss of the link.
    pub generation: u32,
}
