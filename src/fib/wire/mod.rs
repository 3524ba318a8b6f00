//! Encodes and decodes rtnetlink messages about routes, nexthop objects, neighbor entries and
//! routing rules.
//!
//! Only what we write and what decisions need. Decoding never fails as a whole: truncated and
//! unknown parts are skipped. Numbers are in host order, as in netlink; addresses are in network
//! order.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{family_of, neighbor_state, object, path_mtu, route};
pub use encode::{
    Ours, del_nexthop, del_route, dump_objects, dump_routes, dump_rules, get_neighbor, get_route,
    new_nexthop, new_route, use_neighbor,
};

use crate::net::Family;

/// `RTM_…`.
pub mod kind {
    pub const NEW_ROUTE: u16 = 24;
    pub const DEL_ROUTE: u16 = 25;
    pub const GET_ROUTE: u16 = 26;
    pub const NEW_NEIGHBOR: u16 = 28;
    pub const GET_NEIGHBOR: u16 = 30;
    pub const NEW_RULE: u16 = 32;
    pub const GET_RULE: u16 = 34;
    pub const NEW_NEXTHOP: u16 = 104;
    pub const DEL_NEXTHOP: u16 = 105;
    pub const GET_NEXTHOP: u16 = 106;
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTNH_F_ONLINK: u8 = 4;

const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_NH_ID: u16 = 30;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_RES_GROUP: u16 = 12;
const NEXTHOP_GRP_TYPE_RES: u16 = 1;

/// The address family number of a family.
fn af(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => AF_INET,
        Family::Ipv6Unicast => AF_INET6,
    }
}
