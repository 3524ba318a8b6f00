//! The kernel's messages: each function decodes a body.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    AF_INET, AF_INET6, NEXTHOP_GRP_TYPE_RES, NHA_BLACKHOLE, NHA_GATEWAY, NHA_GROUP, NHA_GROUP_TYPE, NHA_ID,
    NHA_OIF, RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PREF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTN_BLACKHOLE, RTN_LOCAL, RTN_PROHIBIT, RTN_THROW, RTN_UNICAST,
    RTN_UNREACHABLE, RTNH_F_ONLINK,
};
use crate::{
    fib::{
        host::{ForeignHop, Preference, RouteType},
        route::{GroupKind, Leads, SeenObject, SeenRoute},
    },
    net::{Family, Prefix},
    netlink::decode::{attribute, attributes, ip, u16_at, u32_at},
};

const RTM_F_CLONED: u32 = 0x200;
const RTAX_MTU: u16 = 2;

/// Decodes the body of RTM_NEWROUTE or RTM_DELROUTE.
pub fn route(body: &[u8]) -> Option<SeenRoute> {
    let &[family, len, _, tos, table, protocol, _, rtn] = body.first_chunk()?;
    let flags = u32_at(body, 8)?;
    let mut dst = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let kind = match rtn {
        RTN_UNICAST => Some(RouteType::Unicast),
        RTN_LOCAL => Some(RouteType::Local),
        RTN_BLACKHOLE => Some(RouteType::Blackhole),
        RTN_UNREACHABLE | RTN_PROHIBIT => Some(RouteType::Unreachable),
        RTN_THROW => Some(RouteType::Throw),
        _ => None,
    };
    let (mut table, mut metric, mut object, mut source) = (u32::from(table), 0, 0, None);
    let mut preference = Preference::Medium;
    let mut hop = ForeignHop { ifindex: 0, gateway: None, onlink: flags & u32::from(RTNH_F_ONLINK) != 0 };
    let mut hops = Vec::new();
    for (attribute, value) in attributes(body.get(12..)?) {
        match attribute {
            RTA_DST => dst = ip(value)?,
            RTA_TABLE => table = u32_at(value, 0)?,
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            RTA_NH_ID => object = u32_at(value, 0)?,
            RTA_PREFSRC => source = ip(value),
            RTA_OIF => hop.ifindex = u32_at(value, 0)?,
            RTA_GATEWAY => hop.gateway = ip(value),
            RTA_VIA => hop.gateway = ip(value.get(2..)?),
            RTA_MULTIPATH => hops = multipath(value),
            // RFC 4191 §2.1: two bits, signed.
            RTA_PREF => {
                preference = match value.first() {
                    Some(1) => Preference::High,
                    Some(3) => Preference::Low,
                    _ => Preference::Medium,
                }
            }
            _ => {}
        }
    }
    match kind {
        Some(RouteType::Unicast) if hop.ifindex != 0 && hops.is_empty() => hops.push(hop),
        Some(RouteType::Unicast) => {}
        _ => hops.clear(),
    }
    let prefix = Prefix::new(dst, len)?;
    let cloned = flags & RTM_F_CLONED != 0;
    // The octet is unused in messages about IPv6 routes.
    let tos = if family == AF_INET { tos } else { 0 };
    Some(SeenRoute { prefix, table, metric, protocol, kind, tos, preference, cloned, object, source, hops })
}

/// The path MTU that a response of RTM_GETROUTE contains: that of the route, or what the kernel has
/// learned about the destination.
pub fn path_mtu(body: &[u8]) -> Option<u32> {
    let metrics = attribute(body.get(12..)?, RTA_METRICS)?;
    u32_at(attribute(metrics, RTAX_MTU)?, 0)
}

/// The state (`NUD_…`) in the body of RTM_NEWNEIGH.
pub fn neighbor_state(body: &[u8]) -> Option<u16> {
    u16_at(body, 8)
}

fn multipath(mut value: &[u8]) -> Vec<ForeignHop> {
    let mut hops = Vec::new();
    while let (Some(len), Some(ifindex)) = (u16_at(value, 0), u32_at(value, 4)) {
        let Some(one) = value.get(..len.into()).filter(|one| one.len() >= 8) else { break };
        let mut hop =
            ForeignHop { ifindex, gateway: None, onlink: one.get(2).is_some_and(|f| f & RTNH_F_ONLINK != 0) };
        for (attribute, value) in attributes(one.get(8..).unwrap_or_default()) {
            match attribute {
                RTA_GATEWAY => hop.gateway = ip(value),
                RTA_VIA => hop.gateway = value.get(2..).and_then(ip),
                _ => {}
            }
        }
        hops.push(hop);
        value = value.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// Decodes the body of RTM_NEWNEXTHOP or RTM_DELNEXTHOP.
pub fn object(body: &[u8]) -> Option<SeenObject> {
    let &[_, _, protocol, _] = body.first_chunk()?;
    let onlink = u32_at(body, 4)? & u32::from(RTNH_F_ONLINK) != 0;
    let (mut id, mut group, mut blackhole) = (0, None, false);
    let (mut kind, mut equal) = (0, true);
    let mut hop = ForeignHop { ifindex: 0, gateway: None, onlink };
    for (attribute, value) in attributes(body.get(8..)?) {
        match attribute {
            NHA_ID => id = u32_at(value, 0)?,
            NHA_OIF => hop.ifindex = u32_at(value, 0)?,
            NHA_GATEWAY => hop.gateway = ip(value),
            NHA_BLACKHOLE => blackhole = true,
            // struct nexthop_grp: id, weight - 1 in two parts, a reserved field.
            NHA_GROUP => {
                equal = value.chunks_exact(8).all(|m| m[4..6] == [0, 0]);
                group = Some(value.chunks_exact(8).filter_map(|m| u32_at(m, 0)).collect());
            }
            NHA_GROUP_TYPE => kind = u16_at(value, 0)?,
            _ => {}
        }
    }
    let leads = match group {
        Some(members) => Leads::Group { members, kind: group_kind(kind, equal) },
        None if blackhole => Leads::Blackhole,
        None if hop.ifindex != 0 => Leads::Hop(hop),
        None => Leads::Nowhere,
    };
    Some(SeenObject { id, protocol, leads })
}

fn group_kind(kind: u16, equal_weights: bool) -> GroupKind {
    match kind {
        0 if equal_weights => GroupKind::Plain,
        NEXTHOP_GRP_TYPE_RES if equal_weights => GroupKind::Resilient,
        _ => GroupKind::Other,
    }
}

/// The family with this address family number.
pub fn family_of(af: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| super::af(*family) == af)
}
