//! Notifications of changed forwarding settings and of interfaces that get settings of their own,
//! or of other things that are read anew when they change.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`.
const GROUPS: [u32; 2] = [24, 25];

/// The content of notifications is not used, as reading the settings is cheap.
#[allow(missing_debug_implementations, reason = "its socket has none")]
pub struct Notifications(Option<TokioSocket>);

impl Notifications {
    /// Of changed forwarding settings.
    pub fn of_sysctls() -> Self {
        Self::open(&GROUPS, "sysctls")
    }

    /// Of these groups.
    pub(super) fn open(groups: &[u32], what: &str) -> Self {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            for group in groups {
                socket.socket_mut().add_membership(*group)?;
            }
            Ok::<_, io::Error>(socket)
        };
        // Without the socket the settings are polled.
        Self(open().inspect_err(|error| tracing::debug!(%error, what, "no notifications; polling")).ok())
    }

    /// Waits for a change. Cancel safe: a notification that is lost only means that the settings
    /// have to be read.
    pub async fn changed(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        // An overrun (ENOBUFS) is a notification too.
        let _ = socket.recv_from(&mut Vec::with_capacity(SOME)).await;
    }

    /// Drops pending notifications: the settings are about to be read anyway.
    pub fn forget(&mut self) {
        let Some(socket) = &mut self.0 else { return };
        while socket.socket_mut().recv(&mut Vec::with_capacity(SOME), nix::libc::MSG_DONTWAIT).is_ok() {}
    }
}

/// The rest of a notification is truncated.
const SOME: usize = 64;
