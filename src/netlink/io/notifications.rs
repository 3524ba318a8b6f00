//! Sockets for the kernel's notifications of changes.

use std::{future::poll_fn, io};

use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use nix::{
    libc::MSG_DONTWAIT,
    sys::socket::{setsockopt, sockopt},
};
use tracing::debug;

use super::Protocol;

/// Makes a socket receive notifications of these groups. `receive_buffer`: octets, if they may be
/// many. Only what comes after `prepare`, which may attach a filter, is received.
///
/// # Errors
///
/// If the kernel refuses. A group that it does not have is left out.
pub fn subscribe(
    socket: &mut Socket,
    groups: &[u32],
    receive_buffer: Option<usize>,
    prepare: impl FnOnce(&Socket),
) -> io::Result<()> {
    socket.bind(&SocketAddr::new(0, 0))?;
    if let Some(size) = receive_buffer
        && setsockopt(&*socket, sockopt::RcvBufForce, &size).is_err()
    {
        let _ = setsockopt(&*socket, sockopt::RcvBuf, &size);
    }
    prepare(socket);
    for group in groups {
        if let Err(error) = socket.add_membership(*group) {
            debug!(%error, group, "kernel does not have this notification group");
        }
    }
    Ok(())
}

/// Notifications with their content.
#[allow(missing_debug_implementations, reason = "its socket has none")]
pub struct Monitor(TokioSocket);

impl Monitor {
    /// # Errors
    ///
    /// If the kernel provides no socket.
    pub fn open(
        protocol: Protocol,
        groups: &[u32],
        receive_buffer: Option<usize>,
        prepare: impl FnOnce(&Socket),
    ) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol.number)?;
        subscribe(socket.socket_mut(), groups, receive_buffer, prepare)?;
        Ok(Self(socket))
    }

    /// Waits for a datagram and appends what `buf` has room for. Cancel safe: it is read completely
    /// or not at all.
    ///
    /// # Errors
    ///
    /// ENOBUFS, when notifications were lost.
    pub async fn receive(&mut self, buf: &mut Vec<u8>) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_recv(cx, buf)).await
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// `ErrorKind::WouldBlock` if there is no datagram, ENOBUFS when notifications were lost.
    pub fn try_receive(&mut self, buf: &mut Vec<u8>) -> io::Result<()> {
        self.0.socket_ref().recv(buf, MSG_DONTWAIT).map(drop)
    }
}

/// Notifications whose content is not used, as reading the present state is cheap.
#[allow(missing_debug_implementations, reason = "its socket has none")]
pub struct Notifications(Option<Monitor>);

/// Octets of a notification that are read: the rest is truncated.
const START: usize = 64;

impl Notifications {
    /// Of these groups. Without a socket nothing is ever notified, so those who wait also look
    /// from time to time. `what` is for the log.
    pub fn open(protocol: Protocol, groups: &[u32], what: &str) -> Self {
        let socket = Monitor::open(protocol, groups, None, |_| {});
        Self(socket.inspect_err(|error| debug!(%error, what, "no notifications; polling")).ok())
    }

    /// Waits for a change. Cancel safe: a notification that is lost only means that the state has
    /// to be read.
    pub async fn changed(&mut self) {
        let Some(monitor) = &mut self.0 else { return std::future::pending().await };
        // An overrun (ENOBUFS) is a notification too.
        let _ = monitor.receive(&mut Vec::with_capacity(START)).await;
    }

    /// Drops pending notifications: the state is about to be read anyway.
    pub fn forget(&mut self) {
        let Some(monitor) = &mut self.0 else { return };
        while monitor.try_receive(&mut Vec::with_capacity(START)).is_ok() {}
    }
}
