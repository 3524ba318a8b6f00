//! A raw ICMPv6 socket on one interface.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    num::NonZeroU32,
    os::fd::{AsRawFd, RawFd},
};

use nix::{
    cmsg_space,
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What waits to be read. Little: of a flood most is dropped by the kernel.
const RECEIVE_BUFFER: usize = 64 << 10;
/// RFC 4861 §4.1, §4.2.
const HOP_LIMIT: u32 = 255;
/// Octets of a message that are read. Options beyond are not looked at.
pub(super) const MESSAGE: usize = 2048;

/// Class selector 6, as BGP's own packets.
const CS6: u32 = 0xc0;

/// The socket, bound to the interface whatever its name becomes.
pub(super) struct IcmpSocket {
    /// A raw socket that the runtime knows as a UDP one: only readiness is taken from it.
    fd: UdpSocket,
    ifindex: u32,
}

/// A message with what its IPv6 header had.
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) from: Ipv6Addr,
    pub(super) hop_limit: u8,
}

impl IcmpSocket {
    /// Needs the capability NET_RAW.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the interface is gone.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.attach_filter(&only_router_discovery())?;
        socket.set_nonblocking(true)?;
        socket.bind_device_by_index_v6(NonZeroU32::new(ifindex))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_unicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(ifindex)?;
        socket.set_tclass_v6(CS6)?;
        // The kernel is in the first group on each interface; in the second only where it forwards.
        socket.join_multicast_v6(&ALL_NODES, ifindex)?;
        socket.join_multicast_v6(&ALL_ROUTERS, ifindex)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        Ok(Self { fd: UdpSocket::from_std(socket.into())?, ifindex })
    }

    /// Waits for the next message. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the interface went down or away.
    pub(super) async fn receive(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.fd.async_io(Interest::READABLE, || receive(self.fd.as_raw_fd(), buf)).await
    }

    /// Sends from an own address to all nodes, or to all routers. A full queue of the interface
    /// loses it: the next one comes by itself.
    ///
    /// # Errors
    ///
    /// When the interface is down, or the address no longer usable.
    pub(super) fn send(&self, source: Ipv6Addr, message: &[u8], to_routers: bool) -> io::Result<()> {
        let group = if to_routers { ALL_ROUTERS } else { ALL_NODES };
        let to = SockaddrIn6::from(SocketAddrV6::new(group, 0, 0, self.ifindex));
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: self.ifindex,
        };
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        sendmsg(self.fd.as_raw_fd(), &[IoSlice::new(message)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

fn receive(socket: RawFd, buf: &mut [u8]) -> io::Result<Received> {
    let mut space = cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(buf)];
    let message = recvmsg::<SockaddrIn6>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let hop_limit = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    Ok(Received {
        length: message.bytes,
        from: message.address.map_or(Ipv6Addr::UNSPECIFIED, |a| a.ip()),
        // Without it nothing passes the checks.
        hop_limit: hop_limit.unwrap_or(0),
    })
}

/// As ICMP6_FILTER would: of all ICMPv6 only the types 133 and 134 are copied to this socket.
fn only_router_discovery() -> [SockFilter; 5] {
    const LOAD_TYPE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    [
        SockFilter::new(LOAD_TYPE, 0, 0, 0),
        SockFilter::new(IF_EQUAL, 1, 0, 133),
        SockFilter::new(IF_EQUAL, 0, 1, 134),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The Ethernet address of an interface, where it has one.
pub(super) fn link_layer(name: &str) -> Option<[u8; 6]> {
    let mut all = getifaddrs().ok()?.filter(|i| i.interface_name == name);
    let octets = all.find_map(|i| i.address?.as_link_addr()?.addr())?;
    (octets != [0; 6]).then_some(octets)
}
