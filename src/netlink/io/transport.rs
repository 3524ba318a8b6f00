//! The connection below a [`super::Channel`]. Tests put a kernel in its place that fails on demand.

use std::{fmt, io};

use netlink_sys::SocketAddr;
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};

use super::Protocol;

/// Octets of one datagram: the kernel makes those of a dump no longer.
pub(super) const DATAGRAM: usize = 32 << 10;
/// Datagrams that are discarded at once: a dump of the largest table has fewer.
const MAX_DISCARDED: u32 = 1 << 20;

/// A connection to the kernel.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends requests, which the kernel executes before this returns.
    ///
    /// # Errors
    ///
    /// The kernel executed none of them.
    fn send(&mut self, requests: &[u8]) -> io::Result<()>;

    /// Reads one datagram in place of what `into` contains.
    ///
    /// # Errors
    ///
    /// Replies were lost, or there are none.
    fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()>;

    /// Drops what was not read, up to the end of a dump: before that the kernel refuses another
    /// one (EBUSY).
    fn discard(&mut self);

    /// Another connection to the same kernel, and its port.
    ///
    /// # Errors
    ///
    /// The kernel refuses a socket.
    fn another(&self) -> io::Result<(Box<dyn Transport>, u32)>;
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    socket: netlink_sys::Socket,
    protocol: Protocol,
}

impl Socket {
    /// Opens it, and returns its port, too.
    pub(super) fn open(protocol: Protocol) -> io::Result<(Self, u32)> {
        let mut socket = netlink_sys::Socket::new(protocol.number)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Before Linux 4.20 dumps are not filtered; the results are checked in any case.
        let _ = socket.set_netlink_get_strict_chk(true);
        // Without the capability the host's limits apply.
        if setsockopt(&socket, sockopt::RcvBufForce, &protocol.receive_buffer).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &protocol.receive_buffer);
        }
        if let Some(size) = protocol.send_buffer
            && setsockopt(&socket, sockopt::SndBufForce, &size).is_err()
        {
            let _ = setsockopt(&socket, sockopt::SndBuf, &size);
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(protocol.timeout))?;
        Ok((Self { socket, protocol }, port))
    }
}

impl Transport for Socket {
    fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.socket.send(requests, 0).map(drop)
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        into.reserve(DATAGRAM);
        self.socket.recv(into, 0).map(drop)
    }

    fn discard(&mut self) {
        let mut unread = Vec::with_capacity(DATAGRAM);
        for _ in 0..MAX_DISCARDED {
            unread.clear();
            // Another error is reported once, and datagrams may follow.
            let read = self.socket.recv(&mut unread, nix::libc::MSG_DONTWAIT);
            if read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
        }
    }

    fn another(&self) -> io::Result<(Box<dyn Transport>, u32)> {
        let (socket, port) = Self::open(self.protocol)?;
        Ok((Box::new(socket), port))
    }
}

/// Whether the kernel lacked memory, was busy or was interrupted: the same request may succeed a
/// moment later.
pub fn is_transient(error: &io::Error) -> bool {
    use nix::libc::{EBUSY, EINTR, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EBUSY | EINTR | ENOBUFS | ENOMEM))
}
