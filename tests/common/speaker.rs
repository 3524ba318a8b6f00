//! A neighbor made of raw octets: says exactly what a test wants said, good or bad.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, net::Ns};

/// One connection, after or before its OPENs.
pub struct Speaker {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A message with its header.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut m = vec![0xff; 16];
    m.extend(u16::try_from(19 + body.len()).expect("short").to_be_bytes());
    m.push(kind);
    m.extend(body);
    m
}

/// OPEN with four-octet AS, IPv4 and IPv6 unicast, route refresh, and graceful restart without families.
pub fn open(asn: u32, hold: u16, id: Ipv4Addr) -> Vec<u8> {
    let mut caps = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 64, 2, 0, 0, 65, 4];
    caps.extend(asn.to_be_bytes());
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id.octets());
    body.extend([u8::try_from(caps.len() + 2).unwrap(), 2, u8::try_from(caps.len()).unwrap()]);
    body.extend(caps);
    message(1, &body)
}

/// ORIGIN, AS_PATH, NEXT_HOP, and a MED that tells attribute sets apart.
pub fn attributes(path: &[u32], next_hop: Ipv4Addr, med: u32) -> Vec<u8> {
    let mut a = vec![
        0x40,
        1,
        1,
        0,
        0x40,
        2,
        u8::try_from(2 + 4 * path.len()).unwrap(),
        2,
        u8::try_from(path.len()).unwrap(),
    ];
    path.iter().for_each(|n| a.extend(n.to_be_bytes()));
    a.extend([0x40, 3, 4]);
    a.extend(next_hop.octets());
    a.extend([0x80, 4, 4]);
    a.extend(med.to_be_bytes());
    a
}

/// UPDATE of IPv4 prefixes of 24 bits or of any length.
pub fn update(withdrawn: &[(Ipv4Addr, u8)], attributes: &[u8], announced: &[(Ipv4Addr, u8)]) -> Vec<u8> {
    let nlri = |list: &[(Ipv4Addr, u8)]| {
        let mut out = Vec::new();
        for (addr, len) in list {
            out.push(*len);
            out.extend(&addr.octets()[..usize::from(len.div_ceil(8))]);
        }
        out
    };
    let mut body = Vec::new();
    let gone = nlri(withdrawn);
    body.extend(u16::try_from(gone.len()).unwrap().to_be_bytes());
    body.extend(gone);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri(announced));
    message(2, &body)
}

/// UPDATE of IPv6 prefixes (RFC 4760 §3).
pub fn update6(path: &[u32], next_hop: Ipv6Addr, announced: &[(Ipv6Addr, u8)]) -> Vec<u8> {
    let mut reach = vec![0, 2, 1, 16];
    reach.extend(next_hop.octets());
    reach.push(0);
    for (addr, len) in announced {
        reach.push(*len);
        reach.extend(&addr.octets()[..usize::from(len.div_ceil(8))]);
    }
    let mut all = vec![0x90, 14];
    all.extend(u16::try_from(reach.len()).unwrap().to_be_bytes());
    all.extend(reach);
    all.extend([0x40, 1, 1, 0, 0x40, 2, u8::try_from(2 + 4 * path.len()).unwrap(), 2]);
    all.push(u8::try_from(path.len()).unwrap());
    path.iter().for_each(|n| all.extend(n.to_be_bytes()));
    update(&[], &all, &[])
}

/// End-of-RIB for IPv4 unicast.
pub fn end_of_rib() -> Vec<u8> {
    message(2, &[0, 0, 0, 0])
}

impl Speaker {
    /// Calls routelet at `to` from inside `ns`. It may listen a moment later than its control socket does.
    pub fn dial(ns: &Ns, to: IpAddr) -> std::io::Result<Self> {
        Self::dial_from(
            ns,
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            to,
        )
    }

    /// The same from an address of its own.
    pub fn dial_from(ns: &Ns, from: IpAddr, to: IpAddr) -> std::io::Result<Self> {
        let call = || -> std::io::Result<TcpStream> {
            let to = SocketAddr::new(to, 179);
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
            Ok(socket.into())
        };
        let start = Instant::now();
        let stream = ns.enter(|| {
            loop {
                match call() {
                    Err(e)
                        if e.kind() == ErrorKind::ConnectionRefused
                            && start.elapsed().as_secs_f64() < PATIENCE =>
                    {
                        thread::sleep(Duration::from_millis(20));
                    }
                    other => return other,
                }
            }
        })?;
        Ok(Self::over(stream))
    }

    /// Waits in `ns` until routelet calls.
    pub fn accept(ns: &Ns) -> Self {
        Self::accept_on(&listen(ns, "0.0.0.0:179"))
    }

    pub fn accept_on(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let stream = super::wait_for("routelet calls", 30.0, || listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Exchanges OPEN and KEEPALIVE until the session stands.
    pub fn establish(&mut self, asn: u32, hold: u16, id: Ipv4Addr) {
        self.send(&open(asn, hold, id));
        assert_eq!(self.expect(1, 10.0).0, 1, "an OPEN");
        self.send(&message(4, &[]));
        assert_eq!(self.expect(4, 10.0).0, 4, "a KEEPALIVE");
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("routelet reads");
    }

    /// The next message: type and body, or `None` when the connection is closed or `seconds` are over.
    pub fn receive(&mut self, seconds: f64) -> Option<(u8, Vec<u8>)> {
        let start = Instant::now();
        let mut chunk = [0; 65536];
        loop {
            if self.buffer.len() >= 19 {
                let len = usize::from(u16::from_be_bytes([self.buffer[16], self.buffer[17]]));
                if self.buffer.len() >= len {
                    let m: Vec<u8> = self.buffer.drain(..len).collect();
                    return Some((m[18], m[19..].to_vec()));
                }
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if start.elapsed().as_secs_f64() > seconds {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    /// Messages until one of this type comes; KEEPALIVEs are answered by nobody.
    pub fn expect(&mut self, kind: u8, seconds: f64) -> (u8, Vec<u8>) {
        let seconds = seconds.max(PATIENCE);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < seconds {
            if let Some(m) = self.receive(seconds)
                && m.0 == kind
            {
                return m;
            }
        }
        panic!("no message of type {kind} within {seconds} s");
    }
}

/// Listens in `ns`. A listener of that address that was closed a moment ago may live on for as long
/// as a child that another test starts needs from fork to exec.
pub fn listen(ns: &Ns, addr: &str) -> TcpListener {
    super::wait_for(format!("{addr} is free"), 5.0, || ns.enter(|| TcpListener::bind(addr)).ok())
}
