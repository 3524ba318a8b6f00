//! Kernel routes and nexthop objects, as the kernel sees them.

use std::net::IpAddr;

use crate::{
    fib::{
        host::{ForeignHop, Preference, RouteType},
        resolve::Hop,
    },
    net::Prefix,
};

/// Metric of the unreachable routes against loops: the last, so that a connected route of either family wins
/// (kernel.md 16: IPv6 connected routes have metric 256).
pub const OWN_METRIC: u32 = u32::MAX;

/// Id of a kernel nexthop object. All daemons of a namespace share one range of numbers.
pub type ObjectId = u32;

/// Where a route of ours leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Sorted, never empty.
    Hops(Box<[Hop]>),
    Unreachable,
    Blackhole,
}

/// One change of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a nexthop object, or changes the one of this id. Never replaces by accident: `replace` is only
    /// said of objects known to be ours.
    SetObject {
        id: ObjectId,
        object: Object,
        replace: bool,
    },
    DelObject {
        id: ObjectId,
    },
    /// Adds a route (refused by the kernel where the key is taken), or replaces the one that is known to be ours.
    Put {
        prefix: Prefix,
        metric: u32,
        top: u32,
        replace: bool,
    },
    Del {
        prefix: Prefix,
        metric: u32,
    },
}

/// Content of a nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Hop(Hop),
    Group(Vec<ObjectId>),
}

/// How a route names its next hops on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Object(ObjectId),
    Hops(&'a [Hop]),
    Unreachable,
    Blackhole,
}

/// A route that the kernel told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    pub protocol: u8,
    /// `None`: a type that is no business of routing daemons (broadcast, multicast, …).
    pub kind: Option<RouteType>,
    /// IPv4 only; the route is for packets of this type of service.
    pub tos: u8,
    pub preference: Preference,
    /// A cached copy, not a route.
    pub cloned: bool,
    /// 0: none.
    pub object: ObjectId,
    /// RTA_PREFSRC.
    pub source: Option<IpAddr>,
    pub hops: Vec<ForeignHop>,
}

/// A nexthop object that the kernel told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenObject {
    pub id: ObjectId,
    pub protocol: u8,
    pub leads: Leads,
}

/// Where a nexthop object leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    Hop(ForeignHop),
    /// `plain`: no resilient group, and all weights are equal.
    Group {
        members: Vec<ObjectId>,
        plain: bool,
    },
    Blackhole,
    /// It forwards no packets of routes.
    Nowhere,
}

impl SeenObject {
    /// As we would have made it; `None`: of a kind that we never make.
    pub fn object(&self) -> Option<Object> {
        match &self.leads {
            Leads::Hop(hop) => {
                let gateway = hop.gateway?;
                Some(Object::Hop(Hop { ifindex: hop.ifindex, gateway, onlink: hop.onlink }))
            }
            Leads::Group { members, plain: true } => Some(Object::Group(members.clone())),
            Leads::Group { .. } | Leads::Blackhole | Leads::Nowhere => None,
        }
    }
}

/// What the kernel says of the place (prefix, metric) in our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Nobody,
    /// By a route with our protocol number, on this object (0: none).
    Ours {
        object: ObjectId,
    },
    Other {
        protocol: u8,
    },
}

/// The name of a route protocol number, as `ip route` prints it.
pub fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        n => return format!("protocol {n}"),
    };
    format!("protocol {name} ({protocol})")
}
