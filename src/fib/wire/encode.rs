//! Requests: each function appends one message.

use std::net::IpAddr;

use super::{
    NEXTHOP_GRP_TYPE_RES, NHA_GATEWAY, NHA_GROUP, NHA_GROUP_TYPE, NHA_ID, NHA_OIF, NHA_RES_GROUP, RTA_DST,
    RTA_GATEWAY, RTA_IIF, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_SRC, RTA_TABLE,
    RTA_VIA, RTN_BLACKHOLE, RTN_UNICAST, RTN_UNREACHABLE, RTNH_F_ONLINK, af, kind,
};
use crate::{
    fib::{
        lookup::Packet,
        resolve::Hop,
        route::{Object, ObjectId, Target},
    },
    net::{Family, PreferredSources, Prefix},
    netlink::{
        encode::{Encoder, NESTED},
        flag,
    },
};

const RT_TABLE_UNSPEC: u8 = 0;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const RTM_F_FIB_MATCH: u32 = 0x2000;
const NTF_USE: u8 = 1;
const NDA_DST: u16 = 1;
const NHA_RES_GROUP_BUCKETS: u16 = 1;
/// Of a resilient group: flows are spread over its next hops in parts of 1/256.
const BUCKETS: u16 = 256;

/// Fields that all our routes share.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    pub table: u32,
    pub protocol: u8,
    /// Of learned routes.
    pub sources: PreferredSources,
}

/// Adds a route, or replaces the one with its key.
pub fn new_route(
    encoder: &mut Encoder,
    ours: Ours,
    (prefix, metric): (Prefix, u32),
    target: Target<'_>,
    replace: bool,
) {
    let how = if replace { flag::REPLACE } else { flag::EXCL };
    let (rtn, onlink) = match target {
        Target::Unreachable => (RTN_UNREACHABLE, false),
        Target::Blackhole => (RTN_BLACKHOLE, false),
        Target::Hops([hop]) => (RTN_UNICAST, hop.onlink),
        Target::Object(_) | Target::Hops(_) => (RTN_UNICAST, false),
    };
    encoder.message(kind::NEW_ROUTE, flag::CREATE | how, |m| {
        route(m, ours, prefix, 0, rtn, onlink_flag(onlink));
        m.u32(RTA_PRIORITY, metric);
        match target {
            Target::Object(id) => m.u32(RTA_NH_ID, id),
            Target::Hops([hop]) => {
                m.u32(RTA_OIF, hop.ifindex);
                gateway(m, prefix, hop.gateway);
            }
            Target::Hops(hops) => multipath(m, prefix, hops),
            Target::Unreachable | Target::Blackhole => {}
        }
        if rtn == RTN_UNICAST
            && let Some(source) = ours.sources.of(prefix.family())
        {
            m.addr(RTA_PREFSRC, source);
        }
    });
}

/// Deletes a route if it has our protocol number.
pub fn del_route(encoder: &mut Encoder, ours: Ours, prefix: Prefix, metric: u32) {
    encoder.message(kind::DEL_ROUTE, 0, |m| {
        route(m, ours, prefix, RT_SCOPE_NOWHERE, 0, 0);
        m.u32(RTA_PRIORITY, metric);
    });
}

/// Adds a nexthop object, or replaces the one with its id.
pub fn new_nexthop(encoder: &mut Encoder, protocol: u8, id: ObjectId, object: &Object, replace: bool) {
    let how = if replace { flag::REPLACE } else { flag::EXCL };
    let (family, onlink) = match object {
        Object::Hop(hop) => (af(Family::of(hop.gateway)), hop.onlink),
        Object::Group(_) | Object::ResilientGroup(_) => (0, false),
    };
    encoder.message(kind::NEW_NEXTHOP, flag::CREATE | how, |m| {
        m.fields([family, 0, protocol, 0]);
        m.fields(u32::from(onlink_flag(onlink)).to_ne_bytes());
        m.u32(NHA_ID, id);
        match object {
            Object::Hop(hop) => {
                m.u32(NHA_OIF, hop.ifindex);
                m.addr(NHA_GATEWAY, hop.gateway);
            }
            Object::Group(members) | Object::ResilientGroup(members) => m.nested(NHA_GROUP, |group| {
                for member in members {
                    group.fields(member.to_ne_bytes());
                    // Weight 1 is encoded as 0.
                    group.fields([0; 4]);
                }
            }),
        }
        if matches!(object, Object::ResilientGroup(_)) {
            resilient(m, replace);
        }
    });
}

/// The number of buckets of a group never changes, so only the first message has it.
fn resilient(m: &mut Encoder, replace: bool) {
    m.u16(NHA_GROUP_TYPE, NEXTHOP_GRP_TYPE_RES);
    if !replace {
        // The kernel insists on the flag here.
        m.nested(NHA_RES_GROUP | NESTED, |group| group.u16(NHA_RES_GROUP_BUCKETS, BUCKETS));
    }
}

/// Deletes a nexthop object, and with it the routes that use it.
pub fn del_nexthop(encoder: &mut Encoder, id: ObjectId) {
    encoder.message(kind::DEL_NEXTHOP, 0, |m| {
        m.fields([0; 8]);
        m.u32(NHA_ID, id);
    });
}

/// Requests a dump of the routes of a family, optionally limited to one table or protocol. The
/// kernel applies these filters only with strict checking enabled.
pub fn dump_routes(encoder: &mut Encoder, family: Family, table: Option<u32>, protocol: Option<u8>) {
    encoder.message(kind::GET_ROUTE, flag::DUMP, |m| {
        m.fields([af(family), 0, 0, 0, RT_TABLE_UNSPEC, protocol.unwrap_or(0), 0, 0]);
        m.fields([0; 4]);
        if let Some(table) = table {
            m.u32(RTA_TABLE, table);
        }
    });
}

/// Requests the route that the kernel uses for one packet: as it is in the table (`matched`), or
/// the next hop that was selected for the packet.
pub fn get_route(encoder: &mut Encoder, packet: &Packet, matched: bool) {
    let family = Family::of(packet.destination);
    let len = family.max_len();
    let source_len = if packet.source.is_some() { len } else { 0 };
    // The kernel always reports the table of an IPv6 route, and refuses the flag there.
    let table = if family == Family::Ipv4Unicast { RTM_F_LOOKUP_TABLE } else { 0 };
    let flags = table | if matched { RTM_F_FIB_MATCH } else { 0 };
    encoder.message(kind::GET_ROUTE, 0, |m| {
        m.fields([af(family), len, source_len, 0, RT_TABLE_UNSPEC, 0, 0, 0]);
        m.fields(flags.to_ne_bytes());
        m.addr(RTA_DST, packet.destination);
        if let Some(source) = packet.source {
            m.addr(RTA_SRC, source);
        }
        if let Some(ifindex) = packet.arrives_on {
            m.u32(RTA_IIF, ifindex);
        }
    });
}

/// Requests the neighbor entry (ARP, neighbor discovery) of an address on an interface.
pub fn get_neighbor(encoder: &mut Encoder, ifindex: u32, addr: IpAddr) {
    encoder.message(kind::GET_NEIGHBOR, 0, |m| neighbor(m, ifindex, addr, 0));
}

/// Makes the kernel resolve an address on an interface, as a packet to it would.
pub fn use_neighbor(encoder: &mut Encoder, ifindex: u32, addr: IpAddr) {
    encoder.message(kind::NEW_NEIGHBOR, flag::CREATE, |m| neighbor(m, ifindex, addr, NTF_USE));
}

/// struct ndmsg, and the address.
fn neighbor(m: &mut Encoder, ifindex: u32, addr: IpAddr, flags: u8) {
    m.fields([af(Family::of(addr)), 0, 0, 0]);
    m.fields(ifindex.to_ne_bytes());
    m.fields([0, 0, flags, 0]);
    m.addr(NDA_DST, addr);
}

/// Requests a dump of all routing rules of a family.
pub fn dump_rules(encoder: &mut Encoder, family: Family) {
    encoder.message(kind::GET_RULE, flag::DUMP, |m| {
        m.fields([af(family), 0, 0, 0, 0, 0, 0, 0]);
        m.fields([0; 4]);
    });
}

/// Requests a dump of all nexthop objects.
pub fn dump_objects(encoder: &mut Encoder) {
    encoder.message(kind::GET_NEXTHOP, flag::DUMP, |m| m.fields([0; 8]));
}

/// struct rtmsg, and the attributes of the route's key.
fn route(m: &mut Encoder, ours: Ours, prefix: Prefix, scope: u8, rtn: u8, flags: u8) {
    let small = u8::try_from(ours.table).unwrap_or(RT_TABLE_UNSPEC);
    m.fields([af(prefix.family()), prefix.len(), 0, 0, small, ours.protocol, scope, rtn]);
    m.fields(u32::from(flags).to_ne_bytes());
    m.addr(RTA_DST, prefix.addr());
    if small == RT_TABLE_UNSPEC {
        m.u32(RTA_TABLE, ours.table);
    }
}

/// Writes `RTA_GATEWAY`, or `RTA_VIA` for a gateway of the other family (docs/kernel.md, section
/// 5).
fn gateway(m: &mut Encoder, prefix: Prefix, gateway: IpAddr) {
    let family = Family::of(gateway);
    if family == prefix.family() {
        return m.addr(RTA_GATEWAY, gateway);
    }
    m.nested(RTA_VIA, |via| {
        via.fields(u16::from(af(family)).to_ne_bytes());
        match gateway {
            IpAddr::V4(a) => via.fields(a.octets()),
            IpAddr::V6(a) => via.fields(a.octets()),
        }
    });
}

fn multipath(m: &mut Encoder, prefix: Prefix, hops: &[Hop]) {
    m.nested(RTA_MULTIPATH, |list| {
        for hop in hops {
            // struct rtnexthop: length, flags, weight - 1, interface.
            list.sized(|one| {
                one.fields([onlink_flag(hop.onlink), 0]);
                one.fields(hop.ifindex.to_ne_bytes());
                gateway(one, prefix, hop.gateway);
            });
        }
    });
}

fn onlink_flag(onlink: bool) -> u8 {
    if onlink { RTNH_F_ONLINK } else { 0 }
}
