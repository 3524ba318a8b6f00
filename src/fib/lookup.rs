//! What the kernel does with one packet: the route that it uses, or why it drops the packet. Only
//! the types; `fib::io::lookup` reads them.

use std::net::IpAddr;

use super::route::SeenRoute;

/// One packet, as far as routing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub destination: IpAddr,
    pub source: Option<IpAddr>,
    /// Index of the interface on which it arrives, to be forwarded; `None`: this host sends it.
    pub arrives_on: Option<u32>,
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    Route(Box<Used>),
    Dropped(Drop),
    /// The kernel sent no response that could be used; the error as text.
    Unknown(String),
}

/// The route that the kernel uses for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// As it is in the table. IPv4 addresses of this host have their routes in table 255.
    pub route: SeenRoute,
    /// With the next hop that was selected for the packet, and the source address that this host
    /// would give it.
    pub selected: SeenRoute,
    /// Octets; `None`: that of the interface.
    pub mtu: Option<u32>,
}

/// Why the kernel drops a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// No route, or one of type `unreachable`. For a packet that is to be forwarded also: the
    /// interface on which it arrives does not forward.
    Unreachable,
    /// A route or a rule of type `prohibit`.
    Prohibited,
    /// A route or a rule of type `blackhole`. For a packet that is to be forwarded also: its source
    /// address cannot be right (an own address, a martian), and with newer kernels any other cause.
    Invalid,
    /// rp_filter: packets to its source leave by another interface than it arrives on.
    ReversePath,
}

/// A routing rule that looks up a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookUp {
    pub priority: u32,
    pub table: u32,
    /// Whether it fits some packets to a destination and others not.
    pub selects: bool,
}

/// State of a neighbor entry (ARP, neighbor discovery).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// There is none.
    Absent,
    /// A request was sent, and no reply has come yet.
    Incomplete,
    /// Its link-layer address is known.
    Known,
    /// No reply came.
    Failed,
    /// The interface needs none.
    NotNeeded,
}

impl Entry {
    /// From `NUD_…` of the kernel.
    pub fn from_state(state: u16) -> Self {
        const INCOMPLETE: u16 = 0x01;
        const FAILED: u16 = 0x20;
        const NOARP: u16 = 0x40;
        match state {
            0 => Self::Absent,
            s if s & FAILED != 0 => Self::Failed,
            s if s & INCOMPLETE != 0 => Self::Incomplete,
            s if s & NOARP != 0 => Self::NotNeeded,
            _ => Self::Known,
        }
    }
}
