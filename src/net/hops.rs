use std::{fmt, net::IpAddr};

/// Where a packet is sent: a router's address, with its interface if the address alone is
/// ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    pub addr: IpAddr,
    /// Interface index; set for link-local addresses, else 0 (determined by the connected subnets).
    pub ifindex: u32,
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ifindex {
            0 => write!(f, "{}", self.addr),
            n => write!(f, "{}%{n}", self.addr),
        }
    }
}

/// What the kernel does with a packet that matches such a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Forward to one of the gateways.
    Unicast,
    /// Drop and notify the sender: originated prefixes, against loops.
    Unreachable,
    /// Drop without notice (RFC 7999).
    Blackhole,
}

/// The next hops of a route: a sorted set without duplicates, so that equal sets compare equal.
///
/// One value is shared by all routes that use it (`Arc<NextHops>`); it becomes one nexthop object
/// or group in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHops {
    kind: RouteKind,
    gateways: Box<[Gateway]>,
}

impl NextHops {
    /// A route that forwards to these gateways.
    pub fn unicast(mut gateways: Vec<Gateway>) -> Self {
        gateways.sort_unstable();
        gateways.dedup();
        Self { kind: RouteKind::Unicast, gateways: gateways.into() }
    }

    /// An unreachable route.
    pub fn unreachable() -> Self {
        Self { kind: RouteKind::Unreachable, gateways: Box::default() }
    }

    /// A discard route.
    pub fn blackhole() -> Self {
        Self { kind: RouteKind::Blackhole, gateways: Box::default() }
    }

    pub fn kind(&self) -> RouteKind {
        self.kind
    }

    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }
}
