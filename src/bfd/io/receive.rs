//! The sockets that receive: one for each family and port, open only while a session needs it.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::{in_pktinfo, in6_pktinfo},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{MULTIHOP_PORT, SINGLE_HOP_PORT};
use crate::{
    bfd::Arrival,
    net::{BfdPath, Diagnostic, Reason, Subject},
};

/// Longer ones are cut: no BFD packet is.
const LONGEST: usize = 256;
/// Octets that may wait while the thread does not run.
const BUFFER: usize = 1 << 20;
/// Between two attempts to open a port that another process has.
const RETRY: Duration = Duration::from_secs(5);
/// Packets taken from one socket before timers and the other sockets have their turn.
const BATCH: usize = 256;

/// Which socket: IPv6, multihop.
type Kind = (bool, bool);

fn kind(path: &BfdPath) -> Kind {
    (path.remote.is_ipv6(), path.is_multihop())
}

/// All sockets that receive.
pub(super) struct Receivers {
    sockets: [Receiver; 4],
    octets: [u8; LONGEST],
    control: Vec<u8>,
}

struct Receiver {
    kind: Kind,
    users: usize,
    socket: Option<UdpSocket>,
    problem: Option<Diagnostic>,
    retry: Option<Instant>,
}

impl Receivers {
    pub(super) fn new() -> Self {
        let kinds = [(false, false), (false, true), (true, false), (true, true)];
        let receiver = |kind| Receiver { kind, users: 0, socket: None, problem: None, retry: None };
        Self {
            sockets: kinds.map(receiver),
            octets: [0; LONGEST],
            control: cmsg_space!(in_pktinfo, in6_pktinfo, i32, i32),
        }
    }

    /// One more session needs the port of this path.
    pub(super) fn hold(&mut self, path: &BfdPath) {
        if let Some(receiver) = self.sockets.iter_mut().find(|r| r.kind == kind(path)) {
            receiver.users += 1;
            if receiver.socket.is_none() {
                receiver.open();
            }
        }
    }

    /// One session less needs it.
    pub(super) fn release(&mut self, path: &BfdPath) {
        if let Some(receiver) = self.sockets.iter_mut().find(|r| r.kind == kind(path)) {
            receiver.users = receiver.users.saturating_sub(1);
            if receiver.users == 0 {
                (receiver.socket, receiver.problem, receiver.retry) = (None, None, None);
            }
        }
    }

    pub(super) fn problem(&self, path: &BfdPath) -> Option<&Diagnostic> {
        self.sockets.iter().find(|r| r.kind == kind(path))?.problem.as_ref()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Diagnostic> {
        self.sockets.iter().filter_map(|r| r.problem.as_ref())
    }

    /// When to try again to open what could not be opened.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.sockets.iter().filter_map(|r| r.retry).min()
    }

    pub(super) fn retry(&mut self, now: Instant) {
        for receiver in self.sockets.iter_mut().filter(|r| r.retry.is_some_and(|at| at <= now)) {
            receiver.open();
        }
    }

    /// Ready when some socket may have something.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let open = self.sockets.iter().filter_map(|r| r.socket.as_ref());
        let ready = open.map(|socket| socket.poll_recv_ready(cx).is_ready());
        // Each is polled, so that each wakes the thread.
        if ready.fold(false, |any, ready| any | ready) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Passes on what waits in the sockets, up to the limit of each.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&Arrival, &[u8])) {
        let Self { sockets, octets, control } = self;
        for receiver in sockets {
            let Some(socket) = &receiver.socket else { continue };
            for _ in 0..BATCH {
                let read = || receive(socket, receiver.kind.1, octets, control);
                match socket.try_io(Interest::READABLE, read) {
                    Ok(Some((arrival, length))) => take(&arrival, octets.get(..length).unwrap_or_default()),
                    // An error that belongs to one packet.
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

fn receive(
    socket: &UdpSocket,
    multihop: bool,
    octets: &mut [u8],
    control: &mut [u8],
) -> io::Result<Option<(Arrival, usize)>> {
    let mut slices = [IoSliceMut::new(octets)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(control), flags)
        .map_err(|e: Errno| io::Error::from(e))?;
    let Some(from) = message.address.as_ref().and_then(address) else { return Ok(None) };
    let mut arrival = Arrival { from, to: None, ifindex: 0, ttl: None, multihop };
    for part in message.cmsgs().map_err(io::Error::from)? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                arrival.ifindex = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                arrival.to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                arrival.ifindex = info.ipi6_ifindex;
                arrival.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                arrival.ttl = u8::try_from(ttl).ok();
            }
            _ => {}
        }
    }
    Ok(Some((arrival, message.bytes)))
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|a| a.ip().into());
    v4.or_else(|| from.as_sockaddr_in6().map(|a| a.ip().into()))
}

impl Receiver {
    fn open(&mut self) {
        let (v6, multihop) = self.kind;
        let port = if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        match open(v6, port).and_then(|socket| UdpSocket::from_std(socket.into())) {
            Ok(socket) => (self.socket, self.problem, self.retry) = (Some(socket), None, None),
            Err(error) => {
                let family = if v6 { "IPv6" } else { "IPv4" };
                let remedy = match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EADDRINUSE) => {
                        "another process has it (`ss -ulpn` shows which): stop its BFD, or remove `bfd` here"
                    }
                    _ => "the session stays down until it can be opened",
                };
                self.problem = Some(Diagnostic::new(
                    Reason::BfdPortTaken,
                    Subject::port(format!("UDP {port} {family}")),
                    format!("BFD cannot receive on UDP port {port} of {family}: {error}"),
                    remedy,
                ));
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }
}

fn open(v6: bool, port: u16) -> io::Result<Socket> {
    let (domain, any) = if v6 {
        (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    let fd = socket.as_fd();
    if v6 {
        socket.set_only_v6(true)?;
        setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&fd, sockopt::Ipv4RecvTtl, &true)?;
        setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
    }
    // More than the default is a help, not a need.
    let _ = socket.set_recv_buffer_size(BUFFER);
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}
