//! A program that only fills the kernel's table: nexthop objects, 64 messages per send.

use std::time::Instant;

use routelet::{
    fib::{
        order::coarse_first,
        wire::kind::{DEL_NEXTHOP, DEL_ROUTE, NEW_NEXTHOP, NEW_ROUTE},
    },
    netlink::{encode::Encoder, flag::CREATE},
};

use super::{
    messages::{Mode, NEXT_HOP6, SECOND, address, prefix6},
    netlink::Netlink,
    testbed::index,
};
use crate::common::net::Ns;

/// Route protocol number of what is written here, used by nothing else.
const PROTOCOL: u8 = 99;
const BATCH: usize = 64;
/// Id of the first link's nexthop object.
const OBJECT: u32 = 7;

pub struct Writer {
    netlink: Netlink,
    mode: Mode,
}

impl Writer {
    pub fn new(ns: &Ns, mode: Mode) -> Self {
        Self { netlink: Netlink::open(ns), mode }
    }

    fn family(&self) -> u8 {
        if self.mode == Mode::Ipv6 { 10 } else { 2 }
    }

    fn object(&mut self, family: u8, attributes: &[(u16, &[u8])]) {
        self.netlink.write(|encoder| {
            encoder.message(NEW_NEXTHOP, CREATE, |m| {
                m.fields([family, 0, PROTOCOL, 0, 0, 0, 0, 0]);
                attributes.iter().for_each(|(kind, value)| m.octets(*kind, value));
            });
        });
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
        let start = Instant::now();
        self.netlink.write(|encoder| {
            encoder.message(DEL_NEXTHOP, 0, |m| {
                m.fields([0; 8]);
                m.u32(1, OBJECT);
            });
        });
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
        let (family, mode) = (self.family(), self.mode);
        let add = |encoder: &mut Encoder, len, destination: &[u8]| {
            encoder.message(kind, flags, |m| {
                m.fields([family, len, 0, 0, 254, PROTOCOL, 0, 1, 0, 0, 0, 0]);
                m.octets(1, destination);
                m.u32(30, id);
            });
        };
        let start = Instant::now();
        for batch in ordered.chunks(BATCH) {
            self.netlink.write(|encoder| {
                for n in batch {
                    match mode {
                        Mode::Ipv6 => add(encoder, 64, &[prefix6(*n), [0; 8]].concat()),
                        mode => {
                            let (network, len) = mode.prefix(*n);
                            add(encoder, len, &network.octets());
                        }
                    }
                }
            });
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
