//! What is asked of the kernel: how many routes there are, when one arrives, and how fast it takes them from a
//! program that does nothing else.

use std::{
    fs, io,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::neighbor::{self, Mode};
use crate::common::net::Ns;

const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEXTHOP: u16 = 104;
const DEL_NEXTHOP: u16 = 105;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;

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
            let _ = socket.set_rx_buf_sz(8 << 20);
            let _ = socket.set_cap_ack(true);
            socket
        });
        Self { socket, seq: 0, buf: Vec::with_capacity(64 << 10) }
    }

    fn receive(&mut self, flags: i32) -> io::Result<usize> {
        self.buf.clear();
        self.socket.recv(&mut self.buf, flags)
    }

    /// Whether the kernel has a way to this address.
    fn reaches(&mut self, address: &[u8]) -> bool {
        let family = if address.len() == 4 { 2 } else { 10 };
        let mut message = Vec::new();
        self.seq += 1;
        let body = [family, address.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        put(&mut message, GET_ROUTE, REQUEST, self.seq, &body, &[(1, address)]);
        self.socket.send(&message, 0).expect("netlink");
        self.receive(0).expect("an answer");
        u16::from_ne_bytes([self.buf[4], self.buf[5]]) == NEW_ROUTE
    }

    /// Sends a batch whose last message asks for an acknowledgement, and waits for it.
    fn transact(&mut self, batch: &[u8]) {
        self.socket.send(batch, 0).expect("netlink");
        self.receive(0).expect("an answer");
        let errno = i32::from_ne_bytes(self.buf[16..20].try_into().expect("four octets"));
        assert_eq!(errno, 0, "the kernel refused");
    }
}

fn put(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, body: &[u8], attributes: &[(u16, &[u8])]) {
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

/// Watches the routes of the daemon's namespace. Counting walks the whole table, so it is done only when a few
/// routes that stand for all have come, or gone.
pub struct Watch {
    netlink: Netlink,
    pid: u32,
    others: u32,
    mode: Mode,
}

impl Watch {
    pub fn new(ns: &Ns, pid: u32, mode: Mode) -> Self {
        Self { netlink: Netlink::open(ns, 0), pid, others: total(pid, mode), mode }
    }

    fn sample(&mut self, n: u32) -> bool {
        match self.mode {
            Mode::Ipv6 => {
                let mut address = [0; 16];
                address[..8].copy_from_slice(&neighbor::prefix6(n));
                address[15] = 9;
                self.netlink.reaches(&address)
            }
            _ => self.netlink.reaches(&(neighbor::prefix(n).0.to_bits() + 9).to_be_bytes()),
        }
    }

    /// Until all `routes` are there, or none of them: when that was seen.
    pub fn wait(&mut self, routes: u32, there: bool, seconds: u64) -> Option<Instant> {
        let start = Instant::now();
        let mut sampled = 0;
        while start.elapsed().as_secs() < seconds {
            while sampled < 64 && self.sample((routes - 1) - sampled * (routes / 64)) == there {
                sampled += 1;
            }
            let now = Instant::now();
            // IPv6 link-local routes of the kernel itself may come meanwhile.
            let ours = total(self.pid, self.mode).saturating_sub(self.others);
            if sampled == 64 && if there { ours >= routes } else { ours < 16 } {
                return Some(now);
            }
            thread::sleep(Duration::from_micros(500));
        }
        None
    }
}

/// Prefixes in the kernel's tables of the namespace of a process.
fn total(pid: u32, mode: Mode) -> u32 {
    if matches!(mode, Mode::Ipv6) {
        let text = fs::read_to_string(format!("/proc/{pid}/net/rt6_stats")).expect("it runs");
        let entries = text.split_whitespace().nth(3).expect("seven counters");
        return u32::from_str_radix(entries, 16).expect("hexadecimal");
    }
    // The main table stands first; the local one may be the same trie and would count twice.
    let text = fs::read_to_string(format!("/proc/{pid}/net/fib_triestat")).expect("it runs");
    let count = text.lines().find_map(|l| l.trim().strip_prefix("Prefixes:"));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Hears of IPv4 routes as they change.
pub struct Monitor(Netlink);

impl Monitor {
    pub fn new(ns: &Ns) -> Self {
        // RTNLGRP_IPV4_ROUTE is group 7.
        Self(Netlink::open(ns, 1 << 6))
    }

    /// Waits until the kernel tells of this prefix.
    pub fn wait(&mut self, address: Ipv4Addr, there: bool) {
        let kind = if there { NEW_ROUTE } else { DEL_ROUTE };
        loop {
            self.0.receive(0).expect("a notification");
            let message = &self.0.buf;
            let told = u16::from_ne_bytes([message[4], message[5]]);
            if told == kind
                && message.windows(8).skip(28).any(|w| w[..4] == [8, 0, 1, 0] && w[4..] == address.octets())
            {
                return;
            }
        }
    }
}

/// A program that does nothing but fill the table: one nexthop object, 64 messages in a send. Seconds for all
/// routes, and until they are gone by messages.
pub fn bare_writer(ns: &Ns, routes: u32) -> (f64, f64) {
    let link = ns.ip("-o link show eth0");
    let index = link.split(':').next().and_then(|n| n.parse::<u32>().ok()).expect("an interface index");
    let mut netlink = Netlink::open(ns, 0);
    let (id, oif, gateway) = (7u32.to_ne_bytes(), index.to_ne_bytes(), neighbor::address(1).octets());
    let mut message = Vec::new();
    put(
        &mut message,
        NEW_NEXTHOP,
        REQUEST | ACK | CREATE,
        1,
        &[2, 0, 99, 0, 0, 0, 0, 0],
        &[(1, &id), (5, &oif), (6, &gateway)],
    );
    netlink.transact(&message);
    let mut all = |kind: u16, flags: u16| {
        let start = Instant::now();
        let mut batch = Vec::new();
        for n in 0..routes {
            let last = n % 64 == 63 || n + 1 == routes;
            let body = [2, 24, 0, 0, 254, 99, 0, 1, 0, 0, 0, 0];
            let destination = neighbor::prefix(n).0.octets();
            let flags = REQUEST | flags | if last { ACK } else { 0 };
            put(&mut batch, kind, flags, n, &body, &[(1, &destination), (30, &id)]);
            if last {
                netlink.transact(&batch);
                batch.clear();
            }
        }
        start.elapsed().as_secs_f64()
    };
    let took = (all(NEW_ROUTE, CREATE), all(DEL_ROUTE, 0));
    message.clear();
    put(&mut message, DEL_NEXTHOP, REQUEST | ACK, 2, &[2, 0, 0, 0, 0, 0, 0, 0], &[(1, &id)]);
    netlink.transact(&message);
    took
}
