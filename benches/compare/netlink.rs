//! The part of netlink that the measurements need.

use std::{io, net::Ipv4Addr};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::common::net::Ns;

const NEW_LINK: u16 = 16;
pub const NEW_ROUTE: u16 = 24;
pub const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
pub const REQUEST: u16 = 1;
pub const ACK: u16 = 4;
/// RTM_F_FIB_MATCH: the reply is the route itself, with all its next hops.
const FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;

/// A netlink socket in a namespace.
pub struct Netlink {
    socket: Socket,
    seq: u32,
    buf: Vec<u8>,
}

impl Netlink {
    /// `groups`: a bit per multicast group.
    pub fn open(ns: &Ns, groups: u32) -> Self {
        let socket = ns.enter(|| {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("netlink");
            socket.bind(&SocketAddr::new(0, groups)).expect("netlink");
            setsockopt(&socket, RcvBufForce, &(64 << 20)).expect("root may have a large buffer");
            let _ = socket.set_cap_ack(true);
            socket
        });
        Self { socket, seq: 0, buf: Vec::with_capacity(64 << 10) }
    }

    pub fn receive(&mut self, flags: i32) -> io::Result<()> {
        self.buf.clear();
        self.socket.recv(&mut self.buf, flags).map(drop)
    }

    /// The last message received: its type, and the destination of an IPv4 route.
    pub fn last_message(&self) -> (u16, Option<Ipv4Addr>) {
        let destination = attributes(self.buf.get(28..).unwrap_or_default()).find(|a| a.0 == RTA_DST);
        let address = destination.and_then(|(_, octets)| <[u8; 4]>::try_from(octets).ok());
        (self.kind(), address.map(Into::into))
    }

    fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.buf[4], self.buf[5]])
    }

    /// Queries the route to an address; the reply is in the buffer. Returns whether there is one.
    pub fn route(&mut self, address: &[u8], flags: u32) -> bool {
        let family = if address.len() == 4 { 2 } else { 10 };
        let mut message = Vec::new();
        self.seq += 1;
        let mut body = [family, address.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        body[8..].copy_from_slice(&flags.to_ne_bytes());
        put(&mut message, GET_ROUTE, REQUEST, self.seq, &body, &[(RTA_DST, address)]);
        self.socket.send(&message, 0).expect("netlink");
        self.receive(0).expect("a reply");
        self.kind() == NEW_ROUTE
    }

    /// Whether the route for an address has this prefix length.
    pub fn matches(&mut self, address: Ipv4Addr, len: u8) -> bool {
        self.route(&address.octets(), FIB_MATCH) && self.buf[17] == len
    }

    /// Whether the route for an address uses an interface.
    pub fn uses(&mut self, address: Ipv4Addr, interface: u32) -> bool {
        if !self.route(&address.octets(), FIB_MATCH) {
            return false;
        }
        let wanted = interface.to_ne_bytes();
        attributes(&self.buf[28..]).any(|(code, value)| match code {
            RTA_OIF => value == wanted,
            RTA_MULTIPATH => next_hops(value).any(|index| index == wanted),
            _ => false,
        })
    }

    /// Sends a batch whose last message requests an acknowledgement, and waits for it.
    pub fn transact(&mut self, batch: &[u8]) {
        self.socket.send(batch, 0).expect("netlink");
        self.receive(0).expect("a reply");
        let errno = i32::from_ne_bytes(self.buf[16..20].try_into().expect("four octets"));
        assert_eq!(errno, 0, "the kernel refused");
    }

    /// Sets an interface down; its other end loses carrier.
    pub fn down(&mut self, interface: u32) {
        let (none, up) = (0u32.to_ne_bytes(), 1u32.to_ne_bytes());
        let body = [[0; 4], interface.to_ne_bytes(), none, up].concat();
        let mut message = Vec::new();
        put(&mut message, NEW_LINK, REQUEST | ACK, 1, &body, &[]);
        self.transact(&message);
    }
}

/// Appends a message.
pub fn put(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, body: &[u8], attributes: &[(u16, &[u8])]) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    for (code, value) in attributes {
        out.extend((value.len() as u16 + 4).to_ne_bytes());
        out.extend(code.to_ne_bytes());
        out.extend(*value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let len = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let one = split(&mut rest)?;
        Some((u16::from_ne_bytes([one[2], one[3]]), &one[4..]))
    })
}

/// The interfaces of a route's next hops.
fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    std::iter::from_fn(move || split(&mut rest)?.get(4..8)?.try_into().ok())
}

/// Splits off an item that starts with its length in two octets.
fn split<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
    let one = rest.get(..len).filter(|one| one.len() >= 4)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some(one)
}
