//! Path attributes (RFC 4271 §4.3, §5; RFC 7606).
//!
//! [`Attrs`] is what the table stores for a path. The encoding of each attribute, and the handling
//! of an UPDATE in which it is malformed, is one row of `table.rs`.

mod as_path;
pub(super) mod decode;
pub(super) mod encode;
mod mp;
mod table;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use table::{code, name};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use crate::net::{Asn, RouterId};

/// The attributes of a path, shared by all prefixes that have the same ones.
///
/// Kept small: common attributes are inline, extra ones behind one pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attrs {
    pub origin: Origin,
    pub as_path: AsPath,
    /// From NEXT_HOP or MP_REACH_NLRI, whichever carried the prefix.
    pub next_hop: PathNextHop,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    /// RFC 1997, in the order received.
    pub communities: Box<[u32]>,
    pub extra: Option<Box<ExtraAttrs>>,
}

impl Attrs {
    /// The attributes of an originated route: IGP origin, empty path.
    pub fn new(next_hop: PathNextHop) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::empty(),
            next_hop,
            med: None,
            local_pref: None,
            communities: Box::default(),
            extra: None,
        }
    }

    /// The extra attributes; an empty set if there are none.
    pub fn extra(&self) -> &ExtraAttrs {
        static NONE: ExtraAttrs = ExtraAttrs::NONE;
        self.extra.as_deref().unwrap_or(&NONE)
    }

    /// The extra attributes, mutable.
    pub fn extra_mut(&mut self) -> &mut ExtraAttrs {
        self.extra.get_or_insert_default()
    }

    /// Drops an empty set of extra attributes, so that equal paths compare equal.
    pub fn tidy(&mut self) {
        self.extra.take_if(|r| **r == ExtraAttrs::NONE);
    }
}

/// Attributes that most paths do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtraAttrs {
    pub atomic_aggregate: bool,
    pub aggregator: Option<(Asn, Ipv4Addr)>,
    pub originator_id: Option<RouterId>,
    pub cluster_list: Vec<u32>,
    /// RFC 4360, eight octets each.
    pub ext_communities: Vec<[u8; 8]>,
    /// RFC 8092.
    pub large_communities: Vec<[u32; 3]>,
    /// RFC 5701, twenty octets each.
    pub ipv6_ext_communities: Vec<[u8; 20]>,
    /// Only to customer (RFC 9234 §5).
    pub otc: Option<Asn>,
    /// Unknown optional transitive attributes, advertised with the Partial bit (RFC 4271 §5).
    ///
    /// In the order of their codes.
    pub unknown: Vec<UnknownAttr>,
    /// Codes of known attributes received with the Partial bit, which is kept (RFC 4271 §4.3).
    pub partial: Vec<u8>,
}

impl ExtraAttrs {
    const NONE: Self = Self {
        atomic_aggregate: false,
        aggregator: None,
        originator_id: None,
        cluster_list: Vec::new(),
        ext_communities: Vec::new(),
        large_communities: Vec::new(),
        ipv6_ext_communities: Vec::new(),
        otc: None,
        unknown: Vec::new(),
        partial: Vec::new(),
    };
}

/// One unknown attribute, as received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttr {
    pub flags: u8,
    pub code: u8,
    pub value: Bytes,
}

/// RFC 4271 §4.3 a; in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    Igp = 0,
    Egp = 1,
    Incomplete = 2,
}

impl Origin {
    /// The notation of `show routes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The next hop of a path.
///
/// Switches send several encodings over IPv6 (RFC 2545 §3 and variants). A global address is in
/// `addr`, with or without its link-local companion; a link-local one that was sent alone, twice,
/// or after `::` is in `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNextHop {
    pub addr: IpAddr,
    /// The second address of a 32-octet next hop (RFC 2545 §3), if it is link-local and the first
    /// is not.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for PathNextHop {
    fn from(addr: IpAddr) -> Self {
        Self { addr, link_local: None }
    }
}
