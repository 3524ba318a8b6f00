//! Encodes and decodes rtnetlink messages about routes and nexthop objects.
//!
//! Only what we write and what decisions need. Decoding never fails as a whole: truncated and
//! unknown parts are skipped. Numbers are in host order, as in netlink; addresses are in network
//! order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    fib::{
        host::{ForeignHop, Preference, RouteType},
        lookup::Packet,
        resolve::Hop,
        route::{GroupKind, Leads, Object, ObjectId, SeenObject, SeenRoute, Target},
    },
    net::{Family, PreferredSources, Prefix},
};

/// `NLMSG_ERROR`, `NLMSG_DONE` and the `RTM_…` types.
pub mod kind {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
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

/// `NLM_F_…`.
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    /// The table changed during the dump.
    pub const DUMP_INTR: u16 = 0x10;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    /// On NLMSG_ERROR: the request is not repeated, attributes follow.
    pub const CAPPED: u16 = 0x100;
    pub const ACK_TLVS: u16 = 0x200;
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_UNSPEC: u8 = 0;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTNH_F_ONLINK: u8 = 4;
const RTM_F_CLONED: u32 = 0x200;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const RTM_F_FIB_MATCH: u32 = 0x2000;
const NTF_USE: u8 = 1;

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

const RTAX_MTU: u16 = 2;

const NDA_DST: u16 = 1;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_RES_GROUP: u16 = 12;
const NLA_F_NESTED: u16 = 0x8000;
const NHA_RES_GROUP_BUCKETS: u16 = 1;
const NEXTHOP_GRP_TYPE_RES: u16 = 1;
/// Of a resilient group: flows are spread over its next hops in parts of 1/256.
const BUCKETS: u16 = 256;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

const NLMSGERR_ATTR_MSG: u16 = 1;

const HEADER: usize = 16;

/// Fields that all our routes share.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    pub table: u32,
    pub protocol: u8,
    /// Of learned routes.
    pub sources: PreferredSources,
}

/// Builds several messages for one send.
#[derive(Debug, Default)]
pub struct Encoder {
    buf: Vec<u8>,
    /// Start of the last message.
    last: usize,
}

impl Encoder {
    pub fn clear(&mut self) {
        self.buf.clear();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Requests an acknowledgement of the last message, which covers all before it.
    pub fn ack_last(&mut self) {
        if let Some(flags) = self.buf.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | flag::ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
    }

    /// Adds a route, or replaces the one with its key.
    pub fn new_route(
        &mut self,
        seq: u32,
        ours: Ours,
        route: (Prefix, u32),
        target: Target<'_>,
        replace: bool,
    ) {
        let how = if replace { flag::REPLACE } else { flag::EXCL };
        self.begin(kind::NEW_ROUTE, flag::CREATE | how, seq);
        let (prefix, metric) = route;
        let (rtn, onlink) = match target {
            Target::Unreachable => (RTN_UNREACHABLE, false),
            Target::Blackhole => (RTN_BLACKHOLE, false),
            Target::Hops([hop]) => (RTN_UNICAST, hop.onlink),
            Target::Object(_) | Target::Hops(_) => (RTN_UNICAST, false),
        };
        self.route(ours, prefix, 0, rtn, if onlink { RTNH_F_ONLINK } else { 0 });
        self.u32(RTA_PRIORITY, metric);
        match target {
            Target::Object(id) => self.u32(RTA_NH_ID, id),
            Target::Hops([hop]) => {
                self.u32(RTA_OIF, hop.ifindex);
                self.gateway(prefix, hop.gateway);
            }
            Target::Hops(hops) => self.multipath(prefix, hops),
            Target::Unreachable | Target::Blackhole => {}
        }
        if rtn == RTN_UNICAST
            && let Some(source) = ours.sources.of(prefix.family())
        {
            self.addr(RTA_PREFSRC, source);
        }
        self.end();
    }

    /// Deletes a route if it has our protocol number.
    pub fn del_route(&mut self, seq: u32, ours: Ours, prefix: Prefix, metric: u32) {
        self.begin(kind::DEL_ROUTE, 0, seq);
        self.route(ours, prefix, RT_SCOPE_NOWHERE, 0, 0);
        self.u32(RTA_PRIORITY, metric);
        self.end();
    }

    pub fn new_nexthop(&mut self, seq: u32, protocol: u8, id: ObjectId, object: &Object, replace: bool) {
        let how = if replace { flag::REPLACE } else { flag::EXCL };
        self.begin(kind::NEW_NEXTHOP, flag::CREATE | how, seq);
        let (family, onlink) = match object {
            Object::Hop(hop) => (af(Family::of(hop.gateway)), hop.onlink),
            Object::Group(_) | Object::ResilientGroup(_) => (0, false),
        };
        self.buf.extend([family, 0, protocol, 0]);
        self.buf.extend(u32::from(if onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
        self.u32(NHA_ID, id);
        match object {
            Object::Hop(hop) => {
                self.u32(NHA_OIF, hop.ifindex);
                self.addr(NHA_GATEWAY, hop.gateway);
            }
            Object::Group(members) | Object::ResilientGroup(members) => {
                let at = self.open(NHA_GROUP);
                for member in members {
                    self.buf.extend(member.to_ne_bytes());
                    // Weight 1 is encoded as 0.
                    self.buf.extend([0; 4]);
                }
                self.close(at);
            }
        }
        if matches!(object, Object::ResilientGroup(_)) {
            self.resilient(replace);
        }
        self.end();
    }

    /// The number of buckets of a group never changes, so only the first message has it.
    fn resilient(&mut self, replace: bool) {
        self.u16(NHA_GROUP_TYPE, NEXTHOP_GRP_TYPE_RES);
        if !replace {
            // The kernel insists on the flag here.
            let at = self.open(NHA_RES_GROUP | NLA_F_NESTED);
            self.u16(NHA_RES_GROUP_BUCKETS, BUCKETS);
            self.close(at);
        }
    }

    pub fn del_nexthop(&mut self, seq: u32, id: ObjectId) {
        self.begin(kind::DEL_NEXTHOP, 0, seq);
        self.buf.extend([0; 8]);
        self.u32(NHA_ID, id);
        self.end();
    }

    /// Requests a dump of the routes of a family, optionally limited to one table or protocol. The
    /// kernel applies these filters only with strict checking enabled.
    pub fn dump_routes(&mut self, seq: u32, family: Family, table: Option<u32>, protocol: Option<u8>) {
        self.begin(kind::GET_ROUTE, flag::DUMP, seq);
        self.buf.extend([af(family), 0, 0, 0, RT_TABLE_UNSPEC, protocol.unwrap_or(0), 0, 0]);
        self.buf.extend([0; 4]);
        if let Some(table) = table {
            self.u32(RTA_TABLE, table);
        }
        self.end();
    }

    /// Requests the route that the kernel uses for one packet: as it is in the table (`matched`),
    /// or the next hop that was selected for the packet.
    pub fn get_route(&mut self, seq: u32, packet: &Packet, matched: bool) {
        self.begin(kind::GET_ROUTE, 0, seq);
        let family = Family::of(packet.destination);
        let len = family.max_len();
        let source_len = if packet.source.is_some() { len } else { 0 };
        self.buf.extend([af(family), len, source_len, 0, RT_TABLE_UNSPEC, 0, 0, 0]);
        // The kernel always reports the table of an IPv6 route, and refuses the flag there.
        let table = if family == Family::Ipv4Unicast { RTM_F_LOOKUP_TABLE } else { 0 };
        let flags = table | if matched { RTM_F_FIB_MATCH } else { 0 };
        self.buf.extend(flags.to_ne_bytes());
        self.addr(RTA_DST, packet.destination);
        if let Some(source) = packet.source {
            self.addr(RTA_SRC, source);
        }
        if let Some(ifindex) = packet.arrives_on {
            self.u32(RTA_IIF, ifindex);
        }
        self.end();
    }

    /// Requests the neighbor entry (ARP, neighbor discovery) of an address on an interface.
    pub fn get_neighbor(&mut self, seq: u32, ifindex: u32, addr: IpAddr) {
        self.begin(kind::GET_NEIGHBOR, 0, seq);
        self.neighbor(ifindex, addr, 0);
    }

    /// Makes the kernel resolve an address on an interface, as a packet to it would.
    pub fn use_neighbor(&mut self, seq: u32, ifindex: u32, addr: IpAddr) {
        self.begin(kind::NEW_NEIGHBOR, flag::CREATE, seq);
        self.neighbor(ifindex, addr, NTF_USE);
    }

    /// struct ndmsg, and the address.
    fn neighbor(&mut self, ifindex: u32, addr: IpAddr, flags: u8) {
        self.buf.extend([af(Family::of(addr)), 0, 0, 0]);
        self.buf.extend(ifindex.to_ne_bytes());
        self.buf.extend([0, 0, flags, 0]);
        self.addr(NDA_DST, addr);
        self.end();
    }

    /// Requests a dump of all routing rules of a family.
    pub fn dump_rules(&mut self, seq: u32, family: Family) {
        self.begin(kind::GET_RULE, flag::DUMP, seq);
        self.buf.extend([af(family), 0, 0, 0, 0, 0, 0, 0]);
        self.buf.extend([0; 4]);
        self.end();
    }

    /// Requests a dump of all nexthop objects.
    pub fn dump_objects(&mut self, seq: u32) {
        self.begin(kind::GET_NEXTHOP, flag::DUMP, seq);
        self.buf.extend([0; 8]);
        self.end();
    }

    fn route(&mut self, ours: Ours, prefix: Prefix, scope: u8, rtn: u8, flags: u8) {
        let small = u8::try_from(ours.table).unwrap_or(RT_TABLE_UNSPEC);
        self.buf.extend([af(prefix.family()), prefix.len(), 0, 0, small, ours.protocol, scope, rtn]);
        self.buf.extend(u32::from(flags).to_ne_bytes());
        self.addr(RTA_DST, prefix.addr());
        if small == RT_TABLE_UNSPEC {
            self.u32(RTA_TABLE, ours.table);
        }
    }

    /// Writes `RTA_GATEWAY`, or `RTA_VIA` for a gateway of the other family (docs/kernel.md,
    /// section 5).
    fn gateway(&mut self, prefix: Prefix, gateway: IpAddr) {
        let family = Family::of(gateway);
        if family == prefix.family() {
            return self.addr(RTA_GATEWAY, gateway);
        }
        let at = self.open(RTA_VIA);
        self.buf.extend(u16::from(af(family)).to_ne_bytes());
        self.octets(gateway);
        self.close(at);
    }

    fn multipath(&mut self, prefix: Prefix, hops: &[Hop]) {
        let at = self.open(RTA_MULTIPATH);
        for hop in hops {
            // struct rtnexthop: length, flags, weight - 1, interface.
            let start = self.buf.len();
            self.buf.extend([0, 0, if hop.onlink { RTNH_F_ONLINK } else { 0 }, 0]);
            self.buf.extend(hop.ifindex.to_ne_bytes());
            self.gateway(prefix, hop.gateway);
            self.patch_u16(start, self.buf.len() - start);
        }
        self.close(at);
    }

    fn begin(&mut self, kind: u16, flags: u16, seq: u32) {
        self.last = self.buf.len();
        self.buf.extend(0u32.to_ne_bytes());
        self.buf.extend(kind.to_ne_bytes());
        self.buf.extend((flag::REQUEST | flags).to_ne_bytes());
        self.buf.extend(seq.to_ne_bytes());
        self.buf.extend(0u32.to_ne_bytes());
    }

    fn end(&mut self) {
        let len = u32::try_from(self.buf.len() - self.last).expect("messages are small");
        self.buf[self.last..self.last + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn u32(&mut self, kind: u16, value: u32) {
        self.buf.extend(8u16.to_ne_bytes());
        self.buf.extend(kind.to_ne_bytes());
        self.buf.extend(value.to_ne_bytes());
    }

    fn u16(&mut self, kind: u16, value: u16) {
        self.buf.extend(6u16.to_ne_bytes());
        self.buf.extend(kind.to_ne_bytes());
        self.buf.extend(value.to_ne_bytes());
        self.buf.extend([0; 2]);
    }

    fn addr(&mut self, kind: u16, addr: IpAddr) {
        let at = self.open(kind);
        self.octets(addr);
        self.close(at);
    }

    fn octets(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(a) => self.buf.extend(a.octets()),
            IpAddr::V6(a) => self.buf.extend(a.octets()),
        }
    }

    fn open(&mut self, kind: u16) -> usize {
        let at = self.buf.len();
        self.buf.extend([0, 0]);
        self.buf.extend(kind.to_ne_bytes());
        at
    }

    fn close(&mut self, at: usize) {
        self.patch_u16(at, self.buf.len() - at);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    fn patch_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("attributes are small");
        self.buf[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
}

fn af(family: Family) -> u8 {
    match family {
        Family::Ipv4Unicast => AF_INET,
        Family::Ipv6Unicast => AF_INET6,
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// Port of the socket that caused it; 0 for the kernel itself.
    pub port: u32,
    pub body: &'a [u8],
    /// The message with its header.
    pub whole: &'a [u8],
}

/// The messages of a datagram; ends at the first invalid length.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let whole = datagram.get(..len)?;
        let body = whole.get(HEADER..)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            seq: u32_at(whole, 8)?,
            port: u32_at(whole, 12)?,
            body,
            whole,
        })
    })
}

/// The result of a request: errno (0 for success) and the kernel's error text, if any.
pub fn error(message: &Message<'_>) -> Option<(i32, Option<String>)> {
    let errno = u32_at(message.body, 0)?.cast_signed();
    let mut text = None;
    if message.flags & flag::ACK_TLVS != 0 {
        let quoted = if message.flags & flag::CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(u32_at(message.body, 4)?).ok()?.next_multiple_of(4)
        };
        let rest = message.body.get(4usize.checked_add(quoted)?..).unwrap_or_default();
        text = attributes(rest)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, octets)| String::from_utf8_lossy(octets).trim_end_matches(['\0', '.']).to_owned());
    }
    Some((errno.wrapping_neg(), text))
}

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
    let (_, metrics) = attributes(body.get(12..)?).find(|(kind, _)| *kind == RTA_METRICS)?;
    let (_, mtu) = attributes(metrics).find(|(kind, _)| *kind == RTAX_MTU)?;
    u32_at(mtu, 0)
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
pub(super) fn family_of(af: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| self::af(*family) == af)
}

/// The attributes of a body; ends at the first invalid length.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        // Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|&o| o.into()),
        16 => octets.first_chunk::<16>().map(|&o| o.into()),
        _ => None,
    }
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|&o| u16::from_ne_bytes(o))
}

pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().map(|&o| u32::from_ne_bytes(o))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Ours = Ours { table: 254, protocol: 179, sources: PreferredSources { v4: None, v6: None } };

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn hop(ifindex: u32, gateway: &str) -> Hop {
        Hop { ifindex, gateway: gateway.parse().unwrap(), onlink: false }
    }

    /// Our encoder against our decoder; `tests/netns` covers the kernel's view.
    #[test]
    fn routes_read_back_as_written() {
        let (one, via) = ([hop(3, "10.0.0.1")], [hop(3, "fe80::1")]);
        let two = [hop(3, "10.0.0.1"), hop(4, "10.0.1.1")];
        #[rustfmt::skip]
        let cases: &[(&str, u32, Target<'_>, Option<RouteType>, usize)] = &[
            ("10.0.0.0/8",      254, Target::Hops(&one),    Some(RouteType::Unicast), 1),
            ("10.0.0.0/8",      254, Target::Hops(&via),    Some(RouteType::Unicast), 1),
            ("10.0.0.0/8",     1000, Target::Hops(&two),    Some(RouteType::Unicast), 2),
            ("2001:db8::/32",   254, Target::Hops(&via),    Some(RouteType::Unicast), 1),
            ("10.1.0.0/16",     254, Target::Unreachable,   Some(RouteType::Unreachable), 0),
            ("2001:db8::1/128", 254, Target::Blackhole,     Some(RouteType::Blackhole), 0),
            ("0.0.0.0/0",       254, Target::Object(77),    Some(RouteType::Unicast), 0),
        ];
        for (prefix, table, target, kind, hops) in cases {
            let mut encoder = Encoder::default();
            encoder.new_route(9, Ours { table: *table, ..OURS }, (p(prefix), 179), *target, false);
            let message = messages(encoder.bytes()).next().unwrap();
            assert_eq!((message.kind, message.seq), (kind::NEW_ROUTE, 9), "{prefix}");
            let seen = route(message.body).unwrap();
            assert_eq!((seen.prefix, seen.table, seen.metric), (p(prefix), *table, 179));
            assert_eq!((seen.protocol, seen.kind, seen.hops.len()), (179, *kind, *hops), "{prefix}");
            assert_eq!(seen.object, if matches!(target, Target::Object(_)) { 77 } else { 0 });
            if let Target::Hops(wanted) = target {
                let same =
                    |(a, b): (&ForeignHop, &Hop)| a.ifindex == b.ifindex && a.gateway == Some(b.gateway);
                assert!(seen.hops.iter().zip(*wanted).all(same), "{prefix}");
            }
        }
    }

    #[test]
    fn objects_read_back_as_written() {
        let objects = [
            Object::Hop(Hop { onlink: true, ..hop(3, "10.0.0.1") }),
            Object::Hop(hop(3, "fe80::1")),
            Object::Group(vec![1, 2]),
            Object::ResilientGroup(vec![1, 2]),
        ];
        for object in objects {
            let mut encoder = Encoder::default();
            encoder.new_nexthop(1, 179, 42, &object, false);
            let message = messages(encoder.bytes()).next().unwrap();
            let seen = super::object(message.body);
            let seen = seen.expect("an object");
            assert_eq!((seen.id, seen.protocol, seen.object()), (42, 179, Some(object)));
        }
    }

    #[test]
    fn only_the_last_message_of_a_batch_requests_an_acknowledgement() {
        let mut encoder = Encoder::default();
        for seq in 0..3 {
            encoder.del_route(seq, OURS, p("10.0.0.0/8"), 179);
        }
        encoder.ack_last();
        let acks: Vec<_> = messages(encoder.bytes()).map(|m| m.flags & flag::ACK != 0).collect();
        assert_eq!(acks, [false, false, true]);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&octets) {
                let _ = (route(message.body), object(message.body), error(&message));
            }
            let _ = (route(&octets), object(&octets));
        }

        #[test]
        fn a_spoiled_route_is_survived(at in 0usize..60, octet: u8) {
            let mut encoder = Encoder::default();
            let hops = [hop(3, "10.0.0.1"), hop(4, "10.0.1.1")];
            encoder.new_route(9, OURS, (p("10.0.0.0/8"), 179), Target::Hops(&hops), false);
            let mut octets = encoder.bytes().to_vec();
            if let Some(o) = octets.get_mut(at) {
                *o = octet;
            }
            for message in messages(&octets) {
                let _ = (route(message.body), object(message.body), error(&message));
            }
        }
    }
}
