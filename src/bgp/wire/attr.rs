//! Path attributes (RFC 4271 §4.3, §5; RFC 7606): one row per attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

pub use super::as_path::AsPath;
use crate::net::{Asn, RouterId};

/// The attributes of a path, shared by all prefixes that came with the same ones.
///
/// Kept small: the common ones in line, rare ones behind one pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attrs {
    pub origin: Origin,
    pub as_path: AsPath,
    /// Of the NLRI that these attributes belong to: from NEXT_HOP or MP_REACH_NLRI.
    pub next_hop: PathNextHop,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    /// RFC 1997, in the order received.
    pub communities: Box<[u32]>,
    pub rare: Option<Box<Rare>>,
}

/// Attributes that most paths do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rare {
    pub atomic_aggregate: bool,
    pub aggregator: Option<(Asn, Ipv4Addr)>,
    pub originator_id: Option<RouterId>,
    pub cluster_list: Vec<u32>,
    /// RFC 4360, eight octets each.
    pub ext_communities: Vec<[u8; 8]>,
    /// RFC 8092.
    pub large_communities: Vec<[u32; 3]>,
    /// Only to customer (RFC 9234 §5).
    pub otc: Option<Asn>,
    /// Unknown optional transitive attributes, passed on with the Partial bit (RFC 4271 §5).
    pub unknown: Vec<UnknownAttr>,
}

/// One attribute that we do not know, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttr {
    pub flags: u8,
    pub code: u8,
    pub value: Bytes,
}

/// RFC 4271 §4.3 a; the order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    Igp = 0,
    Egp = 1,
    Incomplete = 2,
}

/// The next hop of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNextHop {
    pub addr: IpAddr,
    /// The second address of a 32-octet next hop (RFC 2545 §3), when it is link-local.
    pub link_local: Option<Ipv6Addr>,
}
