//! The socket that a session sends with: its source port is the session's own (RFC 5881 §4), and it
//! is bound to the link that the session watches.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use nix::net::if_::if_indextoname;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{MULTIHOP_PORT, SINGLE_HOP_PORT};
use crate::net::BfdPath;

/// RFC 5881 §4: 49152 to 65535.
const FIRST_PORT: u16 = 49152;
/// Ports that are tried.
const ATTEMPTS: u16 = 64;
/// RFC 5881 §5; multihop packets leave with it, too.
const TTL: u32 = 255;
/// CS6, for network control.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Sends for one session.
#[derive(Debug)]
pub(super) struct Sender {
    path: BfdPath,
    port: u16,
    socket: Option<Socket>,
    pub(super) problem: Option<String>,
}

impl Sender {
    /// `number`: where to begin to look for a free port.
    pub(super) fn new(path: BfdPath, number: u32) -> Self {
        let port = FIRST_PORT | u16::try_from(number % (1 << 14)).unwrap_or(0);
        Self { path, port, socket: None, problem: None }
    }

    pub(super) fn path(&self) -> &BfdPath {
        &self.path
    }

    /// Sends, on a new socket if the old one no longer works, since its link may have been created
    /// again. If that fails, the next packet tries again. The socket is not connected, so that the
    /// kernel chooses the source of each packet: an address that was gone for a moment is used as
    /// soon as it is back, within the neighbor's detection time.
    pub(super) fn send(&mut self, octets: &[u8]) {
        if let Some(socket) = &self.socket {
            match socket.send_to(octets, &self.to()) {
                Ok(_) => {
                    self.problem = None;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => self.failed(&e),
            }
        }
        match self.open().and_then(|socket| socket.send_to(octets, &self.to()).map(|_| socket)) {
            Ok(socket) => (self.socket, self.problem) = (Some(socket), None),
            Err(error) => self.failed(&error),
        }
    }

    fn to(&self) -> SockAddr {
        let port = if self.path.is_multihop() { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        scoped(self.path.remote, port, self.path.ifindex).into()
    }

    fn failed(&mut self, error: &io::Error) {
        self.socket = None;
        self.problem = Some(format!("cannot send to {}: {error}", self.path.remote));
    }

    fn open(&mut self) -> io::Result<Socket> {
        let path = self.path;
        let domain = if path.remote.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        if path.remote.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            let _ = socket.set_tclass_v6(TRAFFIC_CLASS);
        } else {
            socket.set_ttl_v4(TTL)?;
            let _ = socket.set_tos_v4(TRAFFIC_CLASS);
        }
        if !path.is_multihop() {
            let name = if_indextoname(path.ifindex)?;
            match socket.bind_device(Some(name.as_bytes())) {
                // Before Linux 5.7 that needs CAP_NET_RAW. Routes lead to the link all the same.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                bound => bound?,
            }
        }
        // Nothing is read from it: what others send there takes as little memory as may be.
        let _ = socket.set_recv_buffer_size(0);
        self.bind(&socket)?;
        Ok(socket)
    }

    /// The port that it had, else the next free one.
    fn bind(&mut self, socket: &Socket) -> io::Result<()> {
        let any: IpAddr = match self.path.remote {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.path.local.unwrap_or(any);
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match socket.bind(&scoped(local, self.port, self.path.ifindex).into()) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
                Err(e) => return Err(e),
            }
            self.port = FIRST_PORT | self.port.wrapping_add(1);
        }
        Err(last)
    }
}

/// The scope of a link-local address is its link.
fn scoped(addr: IpAddr, port: u16, ifindex: u32) -> SocketAddr {
    match addr {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, ifindex).into(),
        _ => SocketAddr::new(addr, port),
    }
}
