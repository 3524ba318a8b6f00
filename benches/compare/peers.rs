//! Many neighbors in one thread with an event loop, so that they use little of the CPU that the
//! daemon needs.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, event::Event, unix::SourceFd};
use socket2::{Domain, Socket, Type};

use super::messages::{Inbox, address, asn, daemon};
use crate::common::{
    net::Ns,
    speaker::{message, open},
};

/// Time until a neighbor reconnects after its connection was closed.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(200);
/// Keepalives are spread over an interval in this many portions.
const PORTIONS: usize = 100;

pub struct Member {
    n: u32,
    stream: Option<TcpStream>,
    opened: bool,
    pub up: bool,
    pub inbox: Inbox,
    /// Octets sent as soon as the session is established.
    first: Vec<u8>,
    call_at: Instant,
}

pub struct Peers {
    ns: Ns,
    port: u16,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    /// Limit of sessions that are being established at a time.
    window: usize,
    hold: u16,
    alive_at: Instant,
    portion: usize,
    chunk: Vec<u8>,
}

impl Peers {
    /// Neighbors with a hold time and the octets each sends first. They connect in [`Self::until`].
    pub fn new(
        ns: &Ns,
        numbers: impl Iterator<Item = u32>,
        hold: u16,
        first: impl Fn(u32) -> Vec<u8>,
    ) -> Self {
        let now = Instant::now();
        let member = |n| Member {
            n,
            stream: None,
            opened: false,
            up: false,
            inbox: Inbox::default(),
            first: first(n),
            call_at: now,
        };
        Self {
            ns: ns.clone(),
            port: 179,
            poll: Poll::new().expect("epoll"),
            events: Events::with_capacity(1024),
            members: numbers.map(member).collect(),
            window: usize::MAX,
            hold,
            alive_at: now,
            portion: 0,
            chunk: vec![0; 256 * 1024],
        }
    }

    /// Limits how many connect at a time.
    pub fn gently(mut self, window: usize) -> Self {
        self.window = window;
        self
    }

    /// Connects to a reader instead of a daemon: connections count as sessions.
    pub fn bare(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Connects, reads and keeps sessions alive until `done` returns true.
    pub fn until(&mut self, mut done: impl FnMut(&[Member]) -> bool + Send) {
        let ns = self.ns.clone();
        ns.enter(|| {
            while !done(&self.members) {
                self.turn();
            }
        });
    }

    pub fn until_up(&mut self) {
        self.until(|all| all.iter().all(|m| m.up));
    }

    /// Runs until each member has received this many prefixes.
    pub fn until_received(&mut self, prefixes: usize) {
        self.until(|all| all.iter().all(|m| m.inbox.announced >= prefixes));
    }

    pub fn for_seconds(&mut self, seconds: f64) {
        let start = Instant::now();
        self.until(|_| start.elapsed().as_secs_f64() >= seconds);
    }

    pub fn all_up(&self) -> bool {
        self.members.iter().all(|m| m.up)
    }

    fn turn(&mut self) {
        self.call();
        self.keep_alive();
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(10))) {
            Err(e) if e.kind() != ErrorKind::Interrupted => panic!("epoll: {e}"),
            _ => {}
        }
        for event in &self.events {
            let member = &mut self.members[event.token().0];
            if !member.serve(event, self.hold, self.port != 179, &mut self.chunk) {
                member.hang_up();
            }
        }
    }

    fn call(&mut self) {
        let now = Instant::now();
        let mut waiting = self.members.iter().filter(|m| m.stream.is_some() && !m.up).count();
        for (at, member) in self.members.iter_mut().enumerate() {
            if waiting >= self.window {
                return;
            }
            if member.stream.is_some() || member.call_at > now {
                continue;
            }
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            socket.set_tcp_nodelay(true).expect("a socket");
            socket.bind(&SocketAddr::new(IpAddr::V4(address(member.n)), 0).into()).expect("our address");
            // It is still connecting when this returns.
            let _ = socket.connect(&SocketAddr::new(IpAddr::V4(daemon(member.n)), self.port).into());
            let stream = TcpStream::from(socket);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut SourceFd(&stream.as_raw_fd()), Token(at), interest)
                .expect("epoll");
            member.stream = Some(stream);
            waiting += 1;
        }
    }

    fn keep_alive(&mut self) {
        let step = Duration::from_secs_f64(f64::from(self.hold) / 3.0 / PORTIONS as f64);
        let keepalive = message(4, &[]);
        while self.alive_at <= Instant::now() {
            for member in self.members.iter_mut().skip(self.portion).step_by(PORTIONS).filter(|m| m.up) {
                member.write(&keepalive);
            }
            self.portion = (self.portion + 1) % PORTIONS;
            self.alive_at += step;
        }
    }
}

impl Member {
    fn hang_up(&mut self) {
        self.stream = None;
        (self.opened, self.up, self.inbox) = (false, false, Inbox::default());
        self.call_at = Instant::now() + RECONNECT_INTERVAL;
    }

    /// Short messages fit into the buffer; if one does not, the daemon has not read for long, which
    /// reading detects.
    fn write(&mut self, octets: &[u8]) {
        let Some(mut stream) = self.stream.as_ref() else { return };
        if stream.write(octets).is_ok_and(|n| n < octets.len()) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Whether the connection is still open.
    fn serve(&mut self, event: &Event, hold: u16, bare: bool, chunk: &mut [u8]) -> bool {
        let Some(stream) = self.stream.as_ref() else { return true };
        if !self.opened {
            if !matches!(stream.take_error(), Ok(None)) {
                return false;
            }
            if !event.is_writable() {
                return true;
            }
            self.opened = true;
            if bare {
                self.up = true;
            } else {
                self.write(&open(asn(self.n), hold, address(self.n)));
            }
        }
        loop {
            let Some(mut stream) = self.stream.as_ref() else { return true };
            match stream.read(chunk) {
                Ok(0) => return false,
                Ok(n) => self.inbox.feed(&chunk[..n]),
                Err(e) => return matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
            while let Some(kind) = self.inbox.next() {
                match kind {
                    1 => self.write(&message(4, &[])),
                    3 => return false,
                    4 if !self.up => {
                        self.up = true;
                        let first = std::mem::take(&mut self.first);
                        self.write(&first);
                        self.first = first;
                    }
                    _ => {}
                }
            }
        }
    }
}
