//! One neighbor with blocking reads.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::messages::{Inbox, address, asn, daemon};
use crate::common::{
    net::Ns,
    speaker::{message, open},
    wait_for,
};

/// A connection and what was received on it.
pub struct Neighbor {
    pub stream: TcpStream,
    pub inbox: Inbox,
}

/// Connects from the address of neighbor `n` to the daemon's port.
pub fn call(n: u32, port: u16) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::new(IpAddr::V4(address(n)), 0).into()).ok()?;
    let to = SocketAddr::new(IpAddr::V4(daemon(n)), port);
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).ok()?;
    socket.set_tcp_nodelay(true).ok()?;
    Some(socket.into())
}

impl Neighbor {
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, inbox: Inbox::default() }
    }

    /// Establishes a session; reconnects until the daemon listens and accepts it.
    pub fn up(ns: &Ns, n: u32) -> Self {
        wait_for(format!("the daemon takes neighbor {n}"), 50.0, || {
            let mut neighbor = Self::over(ns.enter(|| call(n, 179))?);
            neighbor.establish(n).then_some(neighbor)
        })
    }

    fn establish(&mut self, n: u32) -> bool {
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(5)));
        if self.stream.write_all(&open(asn(n), 180, address(n))).is_err() {
            return false;
        }
        loop {
            match self.read() {
                Some(1) => {
                    let _ = self.stream.write_all(&message(4, &[]));
                }
                Some(4) => return self.stream.set_read_timeout(None).is_ok(),
                Some(3) | None => return false,
                Some(_) => {}
            }
        }
    }

    fn read(&mut self) -> Option<u8> {
        loop {
            if let Some(kind) = self.inbox.next() {
                return Some(kind);
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.inbox.feed(&chunk[..n]),
            }
        }
    }

    /// Reads until this many prefixes were advertised or withdrawn.
    pub fn receive(&mut self, prefixes: usize) {
        while self.inbox.announced + self.inbox.withdrawn < prefixes {
            let kind = self.read();
            assert!(!matches!(kind, None | Some(3)), "the daemon closed the session");
        }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("the daemon reads");
    }
}
