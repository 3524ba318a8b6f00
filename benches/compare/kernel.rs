//! Reads the kernel's table: the number of routes, when one arrives, which links they use.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use routelet::fib::wire::kind::{DEL_ROUTE, NEW_ROUTE};

use super::{
    messages::{self, Mode},
    netlink::{Changes, Netlink},
};
use crate::common::net::Ns;

/// Number of routes that represent all, where querying each would take too long.
const SAMPLES: u32 = 64;

/// The samples, from the last route on; none of them contains others.
fn sample(mode: Mode, routes: u32, n: u32) -> u32 {
    let last = (routes - 1) - n * (routes / SAMPLES);
    (0..=last).rev().find(|n| mode.prefix(*n).1 == 24).unwrap_or(last)
}

/// Watches the routes of the daemon's namespace. Counting walks the whole table, so it is done only
/// once the samples are there, or gone.
pub struct Watch {
    netlink: Netlink,
    pid: u32,
    others: u32,
    mode: Mode,
}

impl Watch {
    pub fn new(ns: &Ns, pid: u32, mode: Mode) -> Self {
        Self { netlink: Netlink::open(ns), pid, others: total(pid, mode), mode }
    }

    fn reaches(&mut self, n: u32) -> bool {
        if self.mode == Mode::Ipv6 {
            let mut address = [0; 16];
            address[..8].copy_from_slice(&messages::prefix6(n));
            address[15] = 9;
            self.netlink.reaches(Ipv6Addr::from(address).into())
        } else {
            let (network, len) = self.mode.prefix(n);
            self.netlink.matches(host_in(network), len)
        }
    }

    /// Waits until all `routes` are there, or none of them, and returns the time.
    pub fn wait(&mut self, routes: u32, there: bool) -> Instant {
        let mut sampled = 0;
        loop {
            while sampled < SAMPLES && self.reaches(sample(self.mode, routes, sampled)) == there {
                sampled += 1;
            }
            if sampled == SAMPLES {
                let now = Instant::now();
                // The kernel's own routes of IPv6 links may appear meanwhile.
                let ours = total(self.pid, self.mode).saturating_sub(self.others);
                if if there { ours >= routes } else { ours < 16 } {
                    return now;
                }
            }
            thread::sleep(Duration::from_micros(500));
        }
    }
}

fn host_in(network: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.to_bits() + 9)
}

/// An address within route `n` of the table.
pub fn host_of(n: u32) -> Ipv4Addr {
    host_in(Mode::Table.prefix(n).0)
}

/// Waits until all routes use an interface.
pub fn wait_on(netlink: &mut Netlink, routes: u32, interface: u32) {
    for n in 0..SAMPLES {
        while !netlink.uses(host_of(sample(Mode::Table, routes, n)), interface) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until no route uses an interface, and returns the time.
pub fn wait_off(netlink: &mut Netlink, routes: u32, interface: u32) -> Instant {
    for n in 0..SAMPLES {
        while netlink.uses(host_of(sample(Mode::Table, routes, n)), interface) {
            thread::yield_now();
        }
    }
    Instant::now()
}

/// Prefixes in the kernel's tables of the namespace of a process.
fn total(pid: u32, mode: Mode) -> u32 {
    if mode == Mode::Ipv6 {
        let text = fs::read_to_string(format!("/proc/{pid}/net/rt6_stats")).expect("it runs");
        let entries = text.split_whitespace().nth(3).expect("seven counters");
        return u32::from_str_radix(entries, 16).expect("hexadecimal");
    }
    // The main table comes first; the local one may be the same trie and would count twice.
    let text = fs::read_to_string(format!("/proc/{pid}/net/fib_triestat")).expect("it runs");
    let count = text.lines().find_map(|l| l.trim().strip_prefix("Prefixes:"));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Receives notifications of IPv4 routes.
pub struct Monitor(Changes);

impl Monitor {
    pub fn new(ns: &Ns) -> Self {
        Self(Changes::open(ns))
    }

    /// Waits until the kernel notifies of this prefix.
    pub fn wait(&mut self, address: Ipv4Addr, there: bool) {
        let wanted = (if there { NEW_ROUTE } else { DEL_ROUTE }, Some(address.into()));
        while self.0.next() != wanted {}
    }
}

/// Counts changes of IPv4 routes, continuously, in a thread of its own.
pub struct Touches {
    count: Arc<AtomicU32>,
    seen: Arc<AtomicBool>,
}

impl Touches {
    /// `last` is not counted: it marks the end.
    pub fn of(ns: &Ns, last: Ipv4Addr) -> Self {
        let this = Self { count: Arc::default(), seen: Arc::default() };
        let (count, seen) = (this.count.clone(), this.seen.clone());
        let mut changes = Changes::open(ns);
        thread::spawn(move || {
            loop {
                match changes.next() {
                    (NEW_ROUTE, Some(address)) if address == last => seen.store(true, Ordering::Release),
                    (NEW_ROUTE | DEL_ROUTE, _) => drop(count.fetch_add(1, Ordering::Relaxed)),
                    _ => {}
                }
            }
        });
        this
    }

    pub fn wait(&self) -> Instant {
        while !self.seen.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(200));
        }
        Instant::now()
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}
