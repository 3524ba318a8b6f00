//! A program that only fills the kernel's table: nexthop objects, 64 messages per send.

use std::time::Instant;

use routelet::fib::order::coarse_first;

use super::{
    messages::{Mode, NEXT_HOP6, SECOND, address, prefix6},
    netlink::{ACK, DEL_ROUTE, NEW_ROUTE, Netlink, REQUEST, put},
    testbed::index,
};
use crate::common::net::Ns;

const NEW_NEXTHOP: u16 = 104;
const DEL_NEXTHOP: u16 = 105;
const CREATE: u16 = 0x400;
/// Route protocol number of what is written here, used by nothing else.
const PROTOCOL: u8 = 99;
const BATCH: u32 = 64;
/// Id of the first link's nexthop object.
const OBJECT: u32 = 7;

pub struct Writer {
    netlink: Netlink,
    mode: Mode,
}

impl Writer {
    pub fn new(ns: &Ns, mode: Mode) -> Self {
        Self { netlink: Netlink::open(ns, 0), mode }
    }

    fn family(&self) -> u8 {
        if self.mode == Mode::Ipv6 { 10 } else { 2 }
    }

    fn object(&mut self, family: u8, attributes: &[(u16, &[u8])]) {
        let mut message = Vec::new();
        let body = [family, 0, PROTOCOL, 0, 0, 0, 0, 0];
        put(&mut message, NEW_NEXTHOP, REQUEST | ACK | CREATE, 1, &body, attributes);
        self.netlink.transact(&message);
    }

    fn next_hop(&mut self, id: u32, interface: u32, gateway: &[u8]) {
        let family = self.family();
        self.object(family, &[(1, &id.to_ne_bytes()), (5, &interface.to_ne_bytes()), (6, gateway)]);
    }

    /// Creates a group of two next hops.
    fn group(&mut self, id: u32, members: [u32; 2]) {
        let members: Vec<u8> = members.iter().flat_map(|m| [m.to_ne_bytes(), [0; 4]].concat()).collect();
        self.object(0, &[(1, &id.to_ne_bytes()), (2, &members)]);
    }

    /// Seconds to install all routes over the first link.
    pub fn load(&mut self, host: &Ns, routes: u32) -> f64 {
        let gateway = match self.mode {
            Mode::Ipv6 => NEXT_HOP6.octets().to_vec(),
            _ => address(1).octets().to_vec(),
        };
        self.next_hop(OBJECT, index(host, "eth0"), &gateway);
        self.again(routes)
    }

    /// Installs them once more.
    pub fn again(&mut self, routes: u32) -> f64 {
        self.all(NEW_ROUTE, CREATE, routes, OBJECT)
    }

    /// Seconds to delete them message by message.
    pub fn withdraw(&mut self, routes: u32) -> f64 {
        self.all(DEL_ROUTE, 0, routes, OBJECT)
    }

    /// Seconds to delete them with their nexthop object.
    pub fn lose(&mut self) -> f64 {
        let mut message = Vec::new();
        put(&mut message, DEL_NEXTHOP, REQUEST | ACK, 1, &[0; 8], &[(1, &OBJECT.to_ne_bytes())]);
        let start = Instant::now();
        self.netlink.transact(&message);
        start.elapsed().as_secs_f64()
    }

    /// Sends the same message for each route; returns the seconds.
    fn all(&mut self, kind: u16, flags: u16, routes: u32, id: u32) -> f64 {
        let mut sorted: Vec<_> = (0..routes).collect();
        if self.mode != Mode::Ipv6 {
            sorted.sort_unstable_by_key(|n| self.mode.prefix(*n));
        }
        // The best order known; computing it is not measured.
        let ordered: Vec<_> = coarse_first(sorted.len()).map(|at| sorted[at]).collect();
        let start = Instant::now();
        let mut batch = Vec::new();
        for (at, n) in (1..).zip(ordered) {
            let last = at % BATCH == 0 || at == routes;
            let flags = REQUEST | flags | if last { ACK } else { 0 };
            let mut add = |len, destination: &[u8]| {
                let body = [self.family(), len, 0, 0, 254, PROTOCOL, 0, 1, 0, 0, 0, 0];
                put(&mut batch, kind, flags, n, &body, &[(1, destination), (30, &id.to_ne_bytes())]);
            };
            match self.mode {
                Mode::Ipv6 => add(64, &[prefix6(n), [0; 8]].concat()),
                mode => {
                    let (network, len) = mode.prefix(n);
                    add(len, &network.octets());
                }
            }
            if last {
                self.netlink.transact(&batch);
                batch.clear();
            }
        }
        start.elapsed().as_secs_f64()
    }
}

/// Routes over both links.
pub fn multipath(host: &Ns, routes: u32) {
    let mut writer = Writer::new(host, Mode::Table);
    writer.next_hop(OBJECT, index(host, "eth0"), &address(1).octets());
    writer.next_hop(8, index(host, "eth1"), &address(SECOND).octets());
    writer.group(9, [OBJECT, 8]);
    writer.all(NEW_ROUTE, CREATE, routes, 9);
}
