//! Kernel routes and nexthop objects, as the kernel sees them.

use std::net::IpAddr;

use crate::{
    fib::{
        host::{ForeignHop, Preference, RouteType},
        resolve::Hop,
    },
    net::Prefix,
};

/// Metric of the unreachable routes against loops: the highest, so that a connected route of either
/// family is preferred (docs/kernel.md, section 6: connected IPv6 routes have metric 256).
pub const OWN_METRIC: u32 = u32::MAX;

/// Id of a kernel nexthop object. All daemons of a network namespace share one range of ids.
pub type ObjectId = u32;

/// What a route of ours leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Sorted, never empty.
    Hops(Box<[Hop]>),
    Unreachable,
    Blackhole,
}

/// One change of the kernel's tables, named after its rtnetlink message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates a nexthop object, or changes the one with this id. `replace` is only set for objects
    /// known to be ours, so that no other is overwritten.
    NewNexthop {
        id: ObjectId,
        object: Object,
        replace: bool,
    },
    DelNexthop {
        id: ObjectId,
    },
    /// Adds a route, which the kernel refuses if the key exists, or replaces one that is known to
    /// be ours.
    NewRoute {
        prefix: Prefix,
        metric: u32,
        entry: u32,
        replace: bool,
    },
    DelRoute {
        prefix: Prefix,
        metric: u32,
    },
}

/// Content of a nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Hop(Hop),
    Group(Vec<ObjectId>),
    /// A group whose flows keep their next hop while others come and go (`fib.resilient`).
    ResilientGroup(Vec<ObjectId>),
}

/// How a route specifies its next hops in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Object(ObjectId),
    Hops(&'a [Hop]),
    Unreachable,
    Blackhole,
}

/// A route that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    pub protocol: u8,
    /// `None` for types that routing daemons do not handle (broadcast, multicast, …).
    pub kind: Option<RouteType>,
    /// Type of service that the route is limited to. IPv4 only.
    pub tos: u8,
    pub preference: Preference,
    /// A cached copy rather than a route.
    pub cloned: bool,
    /// The route's nexthop object; 0 for none.
    pub object: ObjectId,
    /// RTA_PREFSRC.
    pub source: Option<IpAddr>,
    pub hops: Vec<ForeignHop>,
}

/// A nexthop object that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenObject {
    pub id: ObjectId,
    pub protocol: u8,
    pub leads: Leads,
}

/// What a nexthop object leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    Hop(ForeignHop),
    Group {
        members: Vec<ObjectId>,
        kind: GroupKind,
    },
    Blackhole,
    /// The object does not forward packets.
    Nowhere,
}

/// The kind of a group that the kernel reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    Plain,
    Resilient,
    /// Of a type that we never create, or with weights that differ.
    Other,
}

impl SeenObject {
    /// The object as we would have created it; `None` if we never create such objects.
    pub fn object(&self) -> Option<Object> {
        match &self.leads {
            Leads::Hop(hop) => {
                let gateway = hop.gateway?;
                Some(Object::Hop(Hop { ifindex: hop.ifindex, gateway, onlink: hop.onlink }))
            }
            Leads::Group { members, kind: GroupKind::Plain } => Some(Object::Group(members.clone())),
            Leads::Group { members, kind: GroupKind::Resilient } => {
                Some(Object::ResilientGroup(members.clone()))
            }
            Leads::Group { .. } | Leads::Blackhole | Leads::Nowhere => None,
        }
    }
}

/// The holder of a key (prefix, metric) in our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Nobody,
    /// A route with our protocol number, using this object (0 for none).
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
