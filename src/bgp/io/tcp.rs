//! TCP as BGP wants it: passwords (RFC 2385), TTL (RFC 5082), precedence, own addresses.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    libc,
    sys::resource::{Resource, getrlimit},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use zeroize::Zeroize;

use crate::{
    bgp::{
        md5::Dropped,
        peer::{PeerConfig, PeerKey, Secret},
        session::path::Transport,
    },
    net::Prefix,
};

/// Class selector 6, internetwork control (RFC 4594 §3.1), as TOS octet.
const CS6: u32 = 0xc0;
/// A thousand neighbors may connect at once.
const BACKLOG: i32 = 1024;
/// Linux: `IPV6_MINHOPCOUNT`, which libc does not name for all targets.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// Linux: `TCP_SAVE_SYN` and `TCP_SAVED_SYN`, which libc does not name for all targets either.
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;

/// Where a neighbor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addr: SocketAddr,
    /// Interface of a link-local address, else 0.
    pub(super) ifindex: u32,
}

/// Why it is unknown where a neighbor is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// Nobody was found on the interface of an unnumbered neighbor.
    #[error("{0} is no address")]
    NoAddress(String),
}

/// Finds the neighbor: a link-local address needs the number of its interface.
///
/// # Errors
///
/// When there is no such interface.
pub(super) fn place(config: &PeerConfig) -> Result<Place, PlaceError> {
    let on_link = |addr: Ipv6Addr, interface: &str| {
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| PlaceError::NoInterface(interface.to_owned()))?;
        Ok(Place { addr: SocketAddrV6::new(addr, config.port, 0, ifindex).into(), ifindex })
    };
    match &config.key {
        PeerKey::Address(addr) => Ok(Place { addr: SocketAddr::new(*addr, config.port), ifindex: 0 }),
        PeerKey::LinkLocal(addr, interface) => on_link(*addr, interface),
        PeerKey::Interface(interface) => Err(PlaceError::NoAddress(interface.clone())),
    }
}

/// Dials. Cancel safe: dropping the future closes the socket.
///
/// # Errors
///
/// In words for the operator.
pub(super) async fn connect(config: &PeerConfig, place: Place) -> Result<TcpStream, Failed> {
    let socket = dialling(config, place).map_err(|e| match (e.kind(), config.local_address) {
        (ErrorKind::AddrNotAvailable, Some(own)) => {
            format!("local-address {own} is not an address of this host")
        }
        _ => format!("cannot make a socket towards {}: {e}", place.addr),
    })?;
    let stream = socket.connect(place.addr).await.map_err(|e| Failed {
        refused: e.kind() == ErrorKind::ConnectionRefused,
        why: explain(place.addr, &e),
    })?;
    if leads_back(&stream) {
        return Err(format!("{} is an address of this host", place.addr.ip()).into());
    }
    Ok(stream)
}

/// Whether a connection ends at this host again: the neighbor's address has become ours while it
/// was dialled. Other speakers on this host are reached over the loopback.
pub(super) fn leads_back(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) => local.ip() == peer.ip() && !peer.ip().to_canonical().is_loopback(),
        _ => false,
    }
}

/// Why there is no connection.
pub(super) struct Failed {
    /// In words for the operator.
    pub(super) why: String,
    /// The other end refused the connection.
    pub(super) refused: bool,
}

impl From<PlaceError> for Failed {
    fn from(error: PlaceError) -> Self {
        error.to_string().into()
    }
}

/// Of a connection that is gone already.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, refused: false }
    }
}

fn explain(to: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("connection refused: nothing listens on {to}"),
        ErrorKind::TimedOut => format!("no reply from {to}"),
        ErrorKind::NetworkUnreachable => format!("no route to {to}"),
        ErrorKind::HostUnreachable => format!("{to} is unreachable: no reply from that address"),
        ErrorKind::ConnectionReset => format!("connection reset by {to}"),
        _ => format!("cannot connect to {to}: {error}"),
    }
}

fn dialling(config: &PeerConfig, place: Place) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(place.addr), Type::STREAM, Some(Protocol::TCP))?;
    leaves_files(socket.as_fd())?;
    socket.set_nonblocking(true)?;
    configure_socket(&socket, place.addr.ip(), config)?;
    if let Some(password) = &config.password {
        set_password(socket.as_fd(), Prefix::host(place.addr.ip()), Some(password))?;
    }
    if let Some(own) = config.local_address {
        let own = match own {
            IpAddr::V6(own) if own.is_unicast_link_local() => {
                SocketAddrV6::new(own, 0, 0, place.ifindex).into()
            }
            own => SocketAddr::new(own, 0),
        };
        socket.bind(&own.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Open files that sessions leave to the kernel's routes, the state folder, the API server, `show`
/// and probes, of so many that the process may have.
#[must_use]
pub fn reserved_files(limit: u64) -> u64 {
    (limit / 2).min(256)
}

/// Whether a new connection leaves enough open files for everything else. The kernel gives the
/// lowest free number, so all below it are in use.
///
/// # Errors
///
/// With the remedy, when it does not.
pub(super) fn leaves_files(connection: BorrowedFd<'_>) -> io::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let reserved = reserved_files(limit);
    if u64::try_from(connection.as_raw_fd()).is_ok_and(|number| number >= limit - reserved) {
        return Err(io::Error::other(format!(
            "open files are used up ({limit} allowed, {reserved} of them not for sessions); raise the limit \
             (LimitNOFILE= of the unit)"
        )));
    }
    Ok(())
}

/// Settings of a connection, dialled or accepted.
///
/// # Errors
///
/// When the kernel refuses one.
pub(super) fn configure_accepted(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    let remote = stream.peer_addr()?.ip();
    configure_socket(&socket2::SockRef::from(stream), remote, config)
}

fn configure_socket(socket: &Socket, remote: IpAddr, config: &PeerConfig) -> io::Result<()> {
    let ttl = config.ttl().into();
    socket.set_tcp_nodelay(true)?;
    match remote {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(ttl)?;
            socket.set_tos_v4(CS6)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(ttl)?;
            socket.set_tclass_v6(CS6)?;
        }
    }
    // Accepted connections inherit the value of the listening socket, so it is always set.
    set_least_ttl(socket.as_fd(), remote, config.hops.least_ttl().unwrap_or(0))
}

/// Lets a connection go on with its local address although the host no longer has it: without this,
/// Linux sends no IPv4 packet from it. Needs the capability NET_ADMIN.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn keep_source(stream: &TcpStream) -> io::Result<()> {
    match stream.local_addr()?.ip().to_canonical() {
        IpAddr::V4(_) => set_option(stream.as_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, &1_i32),
        IpAddr::V6(_) => set_option(stream.as_fd(), libc::SOL_IPV6, libc::IPV6_TRANSPARENT, &1_i32),
    }
}

/// Closing ends the connection at once for both ends.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}

/// Octets that were written and that the other end has not acknowledged.
///
/// # Errors
///
/// When the kernel call fails.
#[allow(unsafe_code, reason = "no crate that we use has this request")]
pub(super) fn unacknowledged(stream: &TcpStream) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, the same number as TIOCOUTQ, writes one integer to `octets`, which lives
    // and is ours alone. The stream is borrowed, so its descriptor is open.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut octets) };
    if result == 0 { Ok(octets.unsigned_abs() as usize) } else { Err(io::Error::last_os_error()) }
}

/// How many octets are in the socket and were not read yet.
///
/// # Errors
///
/// When the kernel call fails.
#[allow(unsafe_code, reason = "no crate that we use has this request")]
pub(super) fn unread(stream: &TcpStream) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: SIOCINQ, the same number as FIONREAD, writes one integer to `octets`, which lives
    // and is ours alone. The stream is borrowed, so its descriptor is open.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &mut octets) };
    if result == 0 { Ok(octets.unsigned_abs() as usize) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel knows of a connection.
///
/// # Errors
///
/// When a kernel call fails.
pub(super) fn transport(stream: &TcpStream) -> io::Result<Transport> {
    let unacknowledged = u32::try_from(unacknowledged(stream)?).unwrap_or(u32::MAX);
    Ok(Transport { unacknowledged, ..decode_info(&tcp_info(stream.as_fd())?) })
}

/// Octets of `struct tcp_info` of linux/tcp.h up to `tcpi_snd_wnd`. Older kernels fill in less.
const TCP_INFO_OCTETS: usize = 232;

fn decode_info(info: &[u8; TCP_INFO_OCTETS]) -> Transport {
    let u32_at =
        |at: usize| info.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let u64_at =
        |at: usize| info.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    Transport {
        unacknowledged: 0,
        retransmits: info.get(2).copied().unwrap_or(0),
        segment: u32_at(16),
        received: u64_at(128),
        segments: u32_at(140),
        data_segments: u32_at(152),
        // What a filter of this host drops is probed for likewise, but the window is open.
        is_window_closed: info.get(3).is_some_and(|probes| *probes > 0) && u32_at(228) == 0,
        out_of_order: u32_at(224),
    }
}

#[allow(unsafe_code, reason = "no crate that we use has all fields of this option")]
fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<[u8; TCP_INFO_OCTETS]> {
    let mut info = [0; TCP_INFO_OCTETS];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `info`, and to `len` how many; both live
    // and are ours alone. The descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut len),
        )
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// TTL or hop limit of the SYN that began an accepted connection, if the kernel has kept it: it
/// forgets it with the first call.
pub(super) fn first_ttl(stream: &TcpStream) -> Option<u8> {
    let mut header = [0; 128];
    let len = saved_syn(stream.as_fd(), &mut header).ok()?;
    match header[0] >> 4 {
        _ if len < 20 => None,
        4 => Some(header[8]),
        6 => Some(header[7]),
        _ => None,
    }
}

/// The same as [`set_least_ttl`], for a connection.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn limit_ttl(stream: &TcpStream, least: u8) -> io::Result<()> {
    set_least_ttl(stream.as_fd(), stream.peer_addr()?.ip(), least)
}

/// Segments with a smaller TTL are dropped; 0: none are.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn set_least_ttl(socket: BorrowedFd<'_>, family: IpAddr, least: u8) -> io::Result<()> {
    let least = libc::c_int::from(least);
    match family {
        IpAddr::V4(_) => set_option(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        IpAddr::V6(_) => set_option(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &least),
    }
}

/// A listening socket. Its SYN/ACKs leave with TTL 255, so that neighbors with RFC 5082 take them.
/// With a `device` it takes what comes in there before the socket that takes all; that one must
/// allow it by [`share_port`].
///
/// # Errors
///
/// `AddrInUse` when somebody else listens there.
pub(super) fn listen(addr: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_tclass_v6(CS6)?;
    } else {
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(CS6)?;
    }
    // For `first_ttl`. On a kernel without it, only the setting of the accepted connection applies.
    let _ = set_option(socket.as_fd(), libc::IPPROTO_TCP, TCP_SAVE_SYN, &1);
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Lets our sockets of single devices listen on the same port, or no more.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn share_port(listener: &TcpListener, shared: bool) -> io::Result<()> {
    socket2::SockRef::from(listener).set_reuse_port(shared)
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Signature {
    /// `struct sockaddr_storage`.
    addr: [u8; 128],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: libc::c_int,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

const MD5_PREFIX: u8 = 1;

/// Sets the password (RFC 2385) for a neighbor or a range of them, or removes it. The kernel looks
/// for it by the address alone: TCP_MD5SIG_FLAG_IFINDEX is for VRF devices, and EINVAL with the
/// interface of a link-local address. Two such neighbors are distinguished by the socket: each
/// outgoing connection has its own, and so have links that need it among the listeners.
///
/// # Errors
///
/// When the kernel refuses: no TCP MD5 in it, or a key to be removed that is not there.
pub(super) fn set_password(socket: BorrowedFd<'_>, who: Prefix, password: Option<&Secret>) -> io::Result<()> {
    let key = password.map_or(&[][..], |p| p.0.as_bytes());
    let mut signature = Md5Signature {
        addr: [0; 128],
        flags: 0,
        prefix_len: who.len(),
        key_len: key.len() as u16,
        ifindex: 0,
        key: [0; libc::TCP_MD5SIG_MAXKEYLEN],
    };
    let room =
        signature.key.get_mut(..key.len()).ok_or_else(|| io::Error::other("password above 80 octets"))?;
    room.copy_from_slice(key);
    let (family, at, octets) = match who.addr() {
        IpAddr::V4(a) => (libc::AF_INET, 4, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6, 8, a.octets().to_vec()),
    };
    signature.addr[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    signature.addr[at..at + octets.len()].copy_from_slice(&octets);
    signature.flags |= if who.is_host() { 0 } else { MD5_PREFIX };
    let option = if signature.flags == 0 { libc::TCP_MD5SIG } else { libc::TCP_MD5SIG_EXT };
    let result = set_option(socket, libc::IPPROTO_TCP, option, &signature);
    signature.key.zeroize();
    result
}

/// `setsockopt` for what neither socket2 nor nix offers: TCP_MD5SIG, IP_MINTTL.
#[allow(unsafe_code, reason = "these options have no safe interface in any crate that we use")]
fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` is a live reference to a plain `repr(C)` value or an integer; the kernel
    // reads `size_of::<T>()` octets of it and keeps none. The descriptor is borrowed, so it is
    // open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The headers of the SYN that an accepted connection began with, and how many octets they have.
#[allow(unsafe_code, reason = "no crate that we use has this option")]
fn saved_syn(socket: BorrowedFd<'_>, headers: &mut [u8; 128]) -> io::Result<usize> {
    let mut len = headers.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `headers`, and to `len` how many; both live
    // and are ours alone. The descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut len),
        )
    };
    if result == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

/// Segments that the kernel has dropped so far for their TCP MD5 signature, all connections
/// together.
pub(super) fn md5_dropped() -> Dropped {
    let Ok(text) = std::fs::read_to_string("/proc/self/net/netstat") else { return Dropped::default() };
    md5_counters(&text)
}

fn md5_counters(netstat: &str) -> Dropped {
    let mut dropped = Dropped::default();
    let mut rows = netstat.lines().filter(|l| l.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return dropped };
    for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
        let counter = match name {
            "TCPMD5NotFound" => &mut dropped.unsigned,
            "TCPMD5Unexpected" => &mut dropped.unexpected,
            "TCPMD5Failure" => &mut dropped.wrong,
            _ => continue,
        };
        *counter = value.parse().unwrap_or(0);
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_has_the_size_that_the_kernel_wants() {
        assert_eq!(size_of::<Md5Signature>(), 216);
    }

    #[test]
    fn md5_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure Other\n\
                    TcpExt: 9 1 2 4 8\nIpExt: InOctets\nIpExt: 7\n";
        assert_eq!(md5_counters(text), Dropped { unsigned: 1, unexpected: 2, wrong: 4 });
        assert_eq!(md5_counters(""), Dropped::default());
    }

    #[tokio::test]
    async fn what_the_kernel_knows_of_a_connection_is_read() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(&[7; 100]).await.unwrap();
        near.read_exact(&mut [0; 100]).await.unwrap();
        let found = transport(&near).unwrap();
        assert_eq!((found.received, found.out_of_order, found.retransmits), (100, 0, 0), "{found:?}");
        assert!(found.segment > 500 && found.segments > 0, "{found:?}");
        assert_eq!(found.unacknowledged, 0);
    }

    #[tokio::test]
    async fn a_password_is_set_changed_and_removed() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let host = Prefix::host([10, 9, 9, 9].into());
        let range: Prefix = "10.8.0.0/16".parse().unwrap();
        for who in [host, range] {
            for password in ["one", "two"] {
                set_password(listener.as_fd(), who, Some(&Secret(password.into()))).unwrap();
            }
            set_password(listener.as_fd(), who, None).unwrap();
            assert!(set_password(listener.as_fd(), who, None).is_err(), "{who} has none any more");
        }
        assert!(set_password(listener.as_fd(), host, Some(&Secret("x".repeat(81)))).is_err());
    }
}
