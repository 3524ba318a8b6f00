//! Sockets for the kernel's notifications of a running process, with room for a few: those that
//! come while it is stopped are lost, and it finds ENOBUFS.

use std::{
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc::{SYS_pidfd_getfd, SYS_pidfd_open, syscall},
    sys::socket::{setsockopt, sockopt},
};

use super::net::Ns;

/// Octets; less than two notifications.
const CRAMPED: usize = 2048;
/// Octets that routelet requests.
const USUAL: usize = 16 << 20;
/// Changes that are too many.
const CHANGES: u32 = 200;
/// Of the routes that are made for it.
const TABLE: u32 = 999;

/// The sockets of a process. They have the usual room again when it is dropped.
pub struct Cramped {
    ns: Ns,
    sockets: Vec<OwnedFd>,
}

impl Cramped {
    /// Those of process `pid`, which is in `ns`.
    pub fn new(ns: &Ns, pid: u32) -> Self {
        let inodes: Vec<_> = netlink_sockets(ns).into_iter().filter(|s| s.groups).map(|s| s.inode).collect();
        let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours");
        let numbers = folder.filter_map(|entry| {
            let entry = entry.ok()?;
            let target = fs::read_link(entry.path()).ok()?.to_str()?.to_owned();
            let inode: u64 = target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            inodes.contains(&inode).then(|| entry.file_name().to_str()?.parse::<RawFd>().ok()).flatten()
        });
        let sockets: Vec<_> = numbers.map(|number| duplicate(pid, number)).collect();
        assert!(!sockets.is_empty(), "process {pid} has no socket for notifications in {}", ns.name);
        for socket in &sockets {
            setsockopt(socket, sockopt::RcvBufForce, &CRAMPED).expect("a socket");
        }
        Self { ns: ns.clone(), sockets }
    }

    /// Makes notifications, over an interface that is up, until some were lost.
    pub fn overrun(&self, dev: &str) {
        let before = lost(&self.ns);
        let batch: String =
            (0..CHANGES).map(|n| format!("route add 198.19.0.{n}/32 dev {dev} table {TABLE}\n")).collect();
        self.ns.sh(&format!("echo '{batch}' | ip -batch - && ip route flush table {TABLE}"));
        assert!(lost(&self.ns) > before, "every notification had room in {}", self.ns.name);
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = setsockopt(socket, sockopt::RcvBufForce, &USUAL);
        }
    }
}

struct NetlinkSocket {
    groups: bool,
    lost: u64,
    inode: u64,
}

fn netlink_sockets(ns: &Ns) -> Vec<NetlinkSocket> {
    let text = ns.sh("cat /proc/net/netlink");
    let sockets = text.lines().skip(1).filter_map(|line| {
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |n: usize| words.get(n)?.parse().ok();
        Some(NetlinkSocket { groups: words.get(3)? != &"00000000", lost: number(8)?, inode: number(9)? })
    });
    sockets.collect()
}

fn lost(ns: &Ns) -> u64 {
    netlink_sockets(ns).iter().map(|s| s.lost).sum()
}

/// Descriptor `number` of another process.
fn duplicate(pid: u32, number: RawFd) -> OwnedFd {
    let own = |result: i64| -> OwnedFd {
        let number = Errno::result(result).and_then(|n| RawFd::try_from(n).map_err(|_| Errno::EBADF));
        let number = number.unwrap_or_else(|e| panic!("a descriptor of process {pid}: {e}"));
        // SAFETY: the kernel has just made it for us.
        #[allow(unsafe_code, reason = "no crate has these calls")]
        unsafe {
            OwnedFd::from_raw_fd(number)
        }
    };
    // SAFETY: both take numbers alone.
    #[allow(unsafe_code, reason = "no crate has these calls")]
    unsafe {
        let process = own(syscall(SYS_pidfd_open, pid, 0));
        own(syscall(SYS_pidfd_getfd, process.as_raw_fd(), number, 0))
    }
}
