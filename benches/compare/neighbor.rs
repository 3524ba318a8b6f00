//! The neighbors: raw octets made before the clock starts, so that writing them costs next to nothing.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::common::{
    net::Ns,
    speaker::{attributes, end_of_rib, message, open, update},
    wait_for,
};

/// The daemon's address and AS number.
pub const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 1);
pub const DAEMON_AS: u32 = 1000;

pub fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + n)
}

pub fn asn(n: u32) -> u32 {
    10000 + n
}

/// The next hop of IPv6 routes.
pub const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// What a neighbor says: how many routes, and how many share an attribute set.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Five per attribute set, like the Internet's table.
    Table,
    /// One each, told apart by MED.
    Pods,
    /// IPv6 /64, five per set.
    Ipv6,
}

pub fn prefix(n: u32) -> (Ipv4Addr, u8) {
    (Ipv4Addr::from_bits(0x1400_0000 + (n << 8)), 24)
}

pub fn prefix6(n: u32) -> [u8; 8] {
    (0x2001_0000_0000_0000u64 + (u64::from(n) << 8)).to_be_bytes()
}

fn set(n: u32, med: u32) -> Vec<u8> {
    attributes(&[asn(n), 64600 + med % 300, 4_200_000_000 + med], address(n), med)
}

fn update6(attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).expect("short").to_be_bytes());
    body.extend(attributes);
    message(2, &body)
}

fn attribute(code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x90, code];
    out.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    out.extend(value);
    out
}

fn nlri6(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|n| std::iter::once(64).chain(prefix6(n))).collect()
}

/// Routes as neighbor `n` announces them, End-of-RIB at the end.
pub fn announcements(n: u32, mode: Mode, routes: u32) -> Vec<u8> {
    let per_set = if matches!(mode, Mode::Pods) { 1 } else { 5 };
    let mut out = Vec::new();
    for med in 0..routes / per_set {
        let range = med * per_set..(med + 1) * per_set;
        let attributes = set(n, med);
        if matches!(mode, Mode::Ipv6) {
            let mut reach = vec![0, 2, 1, 16];
            reach.extend(NEXT_HOP6.octets());
            reach.push(0);
            reach.extend(nlri6(range));
            // ORIGIN and AS_PATH, without NEXT_HOP: seven octets of it stand before the seven of MED.
            let (path, rest) = attributes.split_at(attributes.len() - 14);
            out.extend(update6(&[path, &rest[7..], &attribute(14, &reach)].concat()));
        } else {
            out.extend(update(&[], &attributes, &range.map(prefix).collect::<Vec<_>>()));
        }
    }
    out.extend(end_of_rib());
    out
}

/// The same routes withdrawn, messages full.
pub fn withdrawals(mode: Mode, routes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for first in (0..routes).step_by(400) {
        let range = first..(first + 400).min(routes);
        if matches!(mode, Mode::Ipv6) {
            let unreach = [&[0, 2, 1][..], &nlri6(range)].concat();
            out.extend(update6(&attribute(15, &unreach)));
        } else {
            out.extend(update(&range.map(prefix).collect::<Vec<_>>(), &[], &[]));
        }
    }
    out
}

/// One neighbor: a connection and what was read of it.
pub struct Neighbor {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    /// Prefixes announced and withdrawn so far.
    pub heard: (usize, usize),
}

impl Neighbor {
    /// Connects from the address of neighbor `n`; waits until somebody listens.
    pub fn dial(ns: &Ns, n: u32) -> Self {
        let stream = ns.enter(|| {
            wait_for("the daemon takes connections", 30.0, || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
                socket.bind(&SocketAddr::new(IpAddr::V4(address(n)), 0).into()).ok()?;
                let to = SocketAddr::new(IpAddr::V4(DAEMON), 179);
                socket.connect_timeout(&to.into(), Duration::from_secs(2)).ok()?;
                Some(TcpStream::from(socket))
            })
        });
        stream.set_nodelay(true).expect("a socket");
        Self { stream, buffer: Vec::new(), heard: (0, 0) }
    }

    /// A session; dials again where a daemon closes what comes too early.
    pub fn up(ns: &Ns, n: u32) -> Self {
        for _ in 0..100 {
            let mut neighbor = Self::dial(ns, n);
            if neighbor.establish(n) {
                return neighbor;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("neighbor {n} is refused again and again");
    }

    fn establish(&mut self, n: u32) -> bool {
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(10)));
        if self.stream.write_all(&open(asn(n), 180, address(n))).is_err() {
            return false;
        }
        loop {
            match self.message() {
                Some(1) => {
                    let _ = self.stream.write_all(&message(4, &[]));
                }
                Some(4) => return true,
                Some(3) | None => return false,
                Some(_) => {}
            }
        }
    }

    /// The type of the next message, waiting for it; UPDATEs are counted.
    pub fn message(&mut self) -> Option<u8> {
        loop {
            if let Some(kind) = self.take() {
                return Some(kind);
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (kind, len) = frame(&self.buffer)?;
        if kind == 2 {
            count(&self.buffer[19..len], &mut self.heard);
        }
        self.buffer.drain(..len);
        Some(kind)
    }

    /// Reads what is there, without waiting; `chunk` is lent so that many share one.
    pub fn drain(&mut self, chunk: &mut [u8]) -> bool {
        match self.stream.read(chunk) {
            Ok(0) => panic!("the daemon closed the session"),
            Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) => panic!("the daemon closed the session: {e}"),
        }
        let mut at = 0;
        while let Some((kind, len)) = frame(&self.buffer[at..]) {
            assert!(kind != 3, "a NOTIFICATION: {:?}", &self.buffer[at..at + len]);
            if kind == 2 {
                count(&self.buffer[at + 19..at + len], &mut self.heard);
            }
            at += len;
        }
        self.buffer.drain(..at);
        true
    }

    pub fn send(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(e) => panic!("the daemon does not read: {e}"),
            }
        }
    }
}

fn frame(octets: &[u8]) -> Option<(u8, usize)> {
    let header = octets.get(..19)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    (octets.len() >= len).then_some((header[18], len))
}

/// Counts IPv4 prefixes of an UPDATE.
fn count(body: &[u8], heard: &mut (usize, usize)) {
    let walk = |mut list: &[u8]| {
        let mut n = 0;
        while let Some((len, rest)) = list.split_first() {
            list = &rest[usize::from(len.div_ceil(8))..];
            n += 1;
        }
        n
    };
    let field = |octets: &[u8]| usize::from(u16::from_be_bytes([octets[0], octets[1]]));
    let withdrawn = field(body);
    let attributes = field(&body[2 + withdrawn..]);
    heard.1 += walk(&body[2..2 + withdrawn]);
    heard.0 += walk(&body[4 + withdrawn + attributes..]);
}

/// Reads with all of them until each has heard `routes`; panics when that takes too long.
pub fn hear_all(neighbors: &mut [Neighbor], routes: usize, seconds: u64) {
    let start = Instant::now();
    let mut chunk = vec![0; 256 * 1024];
    for n in neighbors.iter() {
        n.stream.set_nonblocking(true).expect("a socket");
    }
    loop {
        let mut idle = true;
        let mut behind = 0;
        for n in neighbors.iter_mut() {
            if n.heard.0 < routes {
                behind += 1;
                idle &= !n.drain(&mut chunk);
            }
        }
        if behind == 0 {
            return;
        }
        let least = neighbors.iter().map(|n| n.heard.0).min();
        assert!(
            start.elapsed().as_secs() < seconds,
            "{behind} neighbors wait; the last has {least:?} of {routes}"
        );
        if idle {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

/// How long the octets take when nobody works with them: written by one end and read by the other.
pub fn bare_transfer(switch: &Ns, host: &Ns, octets: &[u8]) -> f64 {
    let listener = host.enter(|| TcpListener::bind((DAEMON, 1790))).expect("a free port");
    let mut stream = switch.enter(|| TcpStream::connect((DAEMON, 1790))).expect("a listener");
    let (mut other, _) = listener.accept().expect("a connection");
    let start = Instant::now();
    thread::scope(|s| {
        s.spawn(move || stream.write_all(octets).expect("a reader"));
        let mut chunk = vec![0; 256 * 1024];
        while other.read(&mut chunk).expect("a writer") > 0 {}
    });
    start.elapsed().as_secs_f64()
}
