//! The socket for requests: many messages per send, acknowledged together.
//!
//! The kernel processes a whole datagram before `send` returns, so all replies are available then:
//! an error message per refused request, matched by sequence number, and the acknowledgement of the
//! last.

use std::{io, sync::Arc};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::{TimeVal, TimeValLike},
    },
};

use crate::{
    fib::{
        diff::Fib,
        route::{Object, ObjectId, Op, Target},
        wire::{self, Encoder, Message, Ours, flag, kind},
    },
    net::Prefix,
};

/// Messages per send. 512 are no faster than 64 (docs/kernel.md, section 3), and fewer let other
/// work proceed.
pub(super) const BATCH: usize = 128;

/// Octets; enough for the replies to one send if all are refused.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A socket for requests and dumps.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    port: u32,
    seq: u32,
    encoder: Encoder,
    buf: Vec<u8>,
}

/// One request that the kernel refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// Index of the request in the batch.
    pub(super) index: usize,
    pub(super) errno: Errno,
    pub(super) why: Arc<str>,
}

/// Progress of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    More,
    /// `consistent`: the table did not change during the dump.
    Done {
        consistent: bool,
    },
}

impl Channel {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Before Linux 4.20 dumps are not filtered; the results are checked in any case.
        let _ = socket.set_netlink_get_strict_chk(true);
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_rx_buf_sz(i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX))?;
        }
        // Replies are available when `send` returns; the timeout keeps a kernel that behaves
        // otherwise from blocking the task.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(2))?;
        Ok(Self { socket, port, seq: 1, encoder: Encoder::default(), buf: Vec::with_capacity(32 << 10) })
    }

    /// Port of the socket, which the kernel puts into notifications of the changes made through it.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Writes a batch; returns the refused requests.
    pub(super) fn write(&mut self, fib: &Fib, ours: Ours, ops: &[Op]) -> io::Result<Vec<Refused>> {
        self.encoder.clear();
        let first = self.seq;
        for op in ops {
            encode(&mut self.encoder, self.seq, ours, fib, op);
            self.seq = self.seq.wrapping_add(1);
        }
        self.transact(first)
    }

    /// Deletes routes by key.
    pub(super) fn delete_routes(&mut self, ours: Ours, routes: &[(Prefix, u32)]) -> io::Result<Vec<Refused>> {
        self.encoder.clear();
        let first = self.seq;
        for (prefix, metric) in routes {
            self.encoder.del_route(self.seq, ours, *prefix, *metric);
            self.seq = self.seq.wrapping_add(1);
        }
        self.transact(first)
    }

    /// Replaces routes.
    pub(super) fn replace_routes<'a>(
        &mut self,
        ours: Ours,
        routes: impl Iterator<Item = (Prefix, u32, Target<'a>)>,
    ) -> io::Result<Vec<Refused>> {
        self.encoder.clear();
        let first = self.seq;
        for (prefix, metric, target) in routes {
            self.encoder.new_route(self.seq, ours, (prefix, metric), target, true);
            self.seq = self.seq.wrapping_add(1);
        }
        self.transact(first)
    }

    /// Creates one object; returns whether the kernel accepted it.
    pub(super) fn make_object(&mut self, protocol: u8, id: ObjectId, object: &Object) -> io::Result<bool> {
        self.encoder.clear();
        let first = self.seq;
        self.encoder.new_nexthop(first, protocol, id, object, false);
        self.seq = self.seq.wrapping_add(1);
        Ok(self.transact(first)?.is_empty())
    }

    /// Deletes one object; an object that does not exist is no error.
    pub(super) fn delete_object(&mut self, id: ObjectId) -> io::Result<()> {
        self.encoder.clear();
        let first = self.seq;
        self.encoder.del_nexthop(first, id);
        self.seq = self.seq.wrapping_add(1);
        self.transact(first).map(drop)
    }

    fn transact(&mut self, first: u32) -> io::Result<Vec<Refused>> {
        let last = self.seq.wrapping_sub(1);
        self.encoder.ack_last();
        self.socket.send(self.encoder.bytes(), 0)?;
        let mut refused = Vec::new();
        loop {
            self.receive()?;
            for message in wire::messages(&self.buf).filter(|m| m.kind == kind::ERROR) {
                let index = usize::try_from(message.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                let (errno, text) = wire::error(&message).unwrap_or((Errno::EIO as i32, None));
                if errno != 0 {
                    refused.push(refusal(index, Errno::from_raw(errno), text));
                }
                if message.seq == last {
                    return Ok(refused);
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buf.clear();
            self.buf.reserve(32 << 10);
            match self.socket.recv(&mut self.buf, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map(drop),
            }
        }
    }

    /// Starts a dump, to be continued with [`Channel::dump_step`].
    pub(super) fn dump_begin(&mut self, request: impl FnOnce(&mut Encoder, u32)) -> io::Result<()> {
        self.encoder.clear();
        self.seq = self.seq.wrapping_add(1);
        request(&mut self.encoder, self.seq);
        self.socket.send(self.encoder.bytes(), 0).map(drop)
    }

    /// Reads one datagram of the dump. A table that does not exist counts as empty.
    pub(super) fn dump_step(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<Dump> {
        self.receive()?;
        let mut consistent = true;
        for message in wire::messages(&self.buf).filter(|m| m.seq == self.seq) {
            consistent &= message.flags & flag::DUMP_INTR == 0;
            match message.kind {
                kind::DONE => return Ok(Dump::Done { consistent }),
                kind::ERROR => {
                    return match wire::error(&message).map_or(Errno::EIO, |(e, _)| Errno::from_raw(e)) {
                        Errno::ENOENT => Ok(Dump::Done { consistent }),
                        errno => Err(errno.into()),
                    };
                }
                _ => each(&message),
            }
        }
        Ok(Dump::More)
    }

    /// Sends a request for one object; `read` decodes the body of the response of type `wanted`.
    /// `None`: the kernel acknowledged the request, or sent something else.
    pub(super) fn get<T>(
        &mut self,
        wanted: u16,
        request: impl FnOnce(&mut Encoder, u32),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.encoder.clear();
        self.seq = self.seq.wrapping_add(1);
        request(&mut self.encoder, self.seq);
        self.encoder.ack_last();
        self.socket.send(self.encoder.bytes(), 0)?;
        let mut found = None;
        loop {
            self.receive()?;
            for message in wire::messages(&self.buf).filter(|m| m.seq == self.seq) {
                match message.kind {
                    // The acknowledgement comes last.
                    kind::ERROR => {
                        return match wire::error(&message).map_or(Errno::EIO as i32, |(errno, _)| errno) {
                            0 => Ok(found),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    kind if kind == wanted => found = read(message.body),
                    _ => {}
                }
            }
        }
    }

    /// Reads a whole dump at once, for small tables.
    pub(super) fn dump(
        &mut self,
        request: impl FnOnce(&mut Encoder, u32),
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.dump_begin(request)?;
        while self.dump_step(&mut each)? == Dump::More {}
        Ok(())
    }
}

fn encode(encoder: &mut Encoder, seq: u32, ours: Ours, fib: &Fib, op: &Op) {
    match op {
        Op::NewNexthop { id, object, replace } => {
            encoder.new_nexthop(seq, ours.protocol, *id, object, *replace);
        }
        Op::DelNexthop { id } => encoder.del_nexthop(seq, *id),
        Op::DelRoute { prefix, metric } => encoder.del_route(seq, ours, *prefix, *metric),
        Op::NewRoute { prefix, metric, entry, replace } => match fib.target(*entry) {
            Some(target) => encoder.new_route(seq, ours, (*prefix, *metric), target, *replace),
            // `Fib::take` returns no route whose entry is gone.
            None => encoder.del_route(seq, ours, *prefix, *metric),
        },
    }
}

fn refusal(index: usize, errno: Errno, text: Option<String>) -> Refused {
    let why = match text {
        Some(text) => format!("{text} ({})", errno.desc()),
        None => errno.desc().to_owned(),
    };
    Refused { index, errno, why: why.into() }
}
