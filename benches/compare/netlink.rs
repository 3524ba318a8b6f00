//! The part of netlink that the measurements need.

use std::net::{IpAddr, Ipv4Addr};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use routelet::{
    fib::{
        lookup::Packet,
        route::SeenRoute,
        wire::{self, kind},
    },
    netlink::{
        decode::messages,
        encode::Encoder,
        io::{Channel, Protocol, subscribe},
    },
};

use crate::common::net::Ns;

const NEW_LINK: u16 = 16;
/// RTNLGRP_IPV4_ROUTE
const IPV4_ROUTES: u32 = 7;
const RECEIVE_BUFFER: usize = 64 << 20;
const DATAGRAM: usize = 64 << 10;

/// A socket for requests in a namespace.
pub struct Netlink(Channel);

impl Netlink {
    pub fn open(ns: &Ns) -> Self {
        Self(ns.enter(|| Channel::open(Protocol::ROUTE).expect("netlink")))
    }

    /// The route to an address, as it is in the table (`matched`) or with the next hop selected.
    fn route(&mut self, address: IpAddr, matched: bool) -> Option<SeenRoute> {
        let packet = Packet { destination: address, source: None, arrives_on: None };
        let found = self.0.get(
            kind::NEW_ROUTE,
            |encoder| wire::get_route(encoder, &packet, matched),
            |message| wire::route(message.body),
        );
        found.ok().flatten()
    }

    /// Whether there is a route to an address.
    pub fn reaches(&mut self, address: IpAddr) -> bool {
        self.route(address, false).is_some()
    }

    /// Whether the route for an address has this prefix length.
    pub fn matches(&mut self, address: Ipv4Addr, len: u8) -> bool {
        self.route(address.into(), true).is_some_and(|route| route.prefix.len() == len)
    }

    /// Whether the route for an address uses an interface.
    pub fn uses(&mut self, address: Ipv4Addr, interface: u32) -> bool {
        let route = self.route(address.into(), true);
        route.is_some_and(|route| route.hops.iter().any(|hop| hop.ifindex == interface))
    }

    /// Sends a batch, and waits for the acknowledgement of its last message.
    pub fn write(&mut self, fill: impl FnOnce(&mut Encoder)) {
        let refused = self.0.write(fill).expect("netlink");
        assert!(refused.is_empty(), "the kernel refused: {refused:?}");
    }

    /// Sets an interface down; its other end loses carrier.
    pub fn down(&mut self, interface: u32) {
        const IFF_UP: u32 = 1;
        self.write(|encoder| {
            encoder.message(NEW_LINK, 0, |m| {
                // struct ifinfomsg: family, type, interface, flags, and which of them to change.
                m.fields([0; 4]);
                m.fields(interface.to_ne_bytes());
                m.fields([0; 4]);
                m.fields(IFF_UP.to_ne_bytes());
            });
        });
    }
}

/// Notifications of changed IPv4 routes in a namespace.
pub struct Changes {
    socket: Socket,
    buf: Vec<u8>,
}

impl Changes {
    pub fn open(ns: &Ns) -> Self {
        let socket = ns.enter(|| {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("netlink");
            subscribe(&mut socket, &[IPV4_ROUTES], Some(RECEIVE_BUFFER), |_| {}).expect("netlink");
            socket
        });
        Self { socket, buf: Vec::with_capacity(DATAGRAM) }
    }

    /// Waits for the next one: its type, and the destination of the route.
    pub fn next(&mut self) -> (u16, Option<IpAddr>) {
        self.buf.clear();
        self.socket.recv(&mut self.buf, 0).expect("the kernel's buffer holds all notifications");
        let message = messages(&self.buf).next().expect("a notification");
        (message.kind, wire::route(message.body).map(|route| route.prefix.addr()))
    }
}
