//! The socket for requests: many messages per send, acknowledged together.
//!
//! The kernel processes a whole datagram before `send` returns, so all replies are available then:
//! an error message per refused request, matched by sequence number, and the acknowledgement of the
//! last.

use std::{io, sync::Arc};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;

use super::transport::{DATAGRAM, Socket, Transport};
use crate::netlink::{
    decode::{Message, Outcome, messages},
    dump::{Dump, Progress},
    encode::Encoder,
};

/// A protocol, and what a socket for it needs.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub(super) number: isize,
    /// Octets of a send, if they may be more than usual.
    pub(super) send_buffer: Option<usize>,
    /// Octets; enough for the replies to one send if all are refused.
    pub(super) receive_buffer: usize,
    /// Seconds. Replies are available when `send` returns; it keeps a kernel that behaves otherwise
    /// from blocking the task.
    pub(super) timeout: i64,
}

impl Protocol {
    pub const ROUTE: Self =
        Self { number: NETLINK_ROUTE, send_buffer: None, receive_buffer: 4 << 20, timeout: 2 };
    /// A transaction is one send.
    pub const NETFILTER: Self =
        Self { number: NETLINK_NETFILTER, send_buffer: Some(32 << 20), receive_buffer: 32 << 20, timeout: 5 };
}

/// How often a list that changes while it is read is read.
const TRIES: u32 = 5;

/// A socket for requests and dumps. It blocks.
#[derive(Debug)]
pub struct Channel {
    transport: Box<dyn Transport>,
    port: u32,
    encoder: Encoder,
    buf: Vec<u8>,
    /// The last dump.
    dump: Dump,
    /// Whether replies to the last request are outstanding. They are discarded before the next
    /// one, as the request may have failed in between.
    outstanding: bool,
}

/// One request that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Index of the request in the batch.
    pub index: usize,
    pub errno: Errno,
    pub why: Arc<str>,
}

impl Channel {
    /// # Errors
    ///
    /// If the kernel does not have the protocol, or refuses a socket.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let (socket, port) = Socket::open(protocol)?;
        Ok(Self::over(Box::new(socket), port))
    }

    /// Over a connection that is open.
    pub fn over(transport: Box<dyn Transport>, port: u32) -> Self {
        let (encoder, buf) = (Encoder::new(1), Vec::with_capacity(DATAGRAM));
        Self { transport, port, encoder, buf, dump: Dump::new(0), outstanding: false }
    }

    /// Another channel to the same kernel, for a dump that takes several steps.
    ///
    /// # Errors
    ///
    /// As [`Channel::open`].
    pub fn another(&self) -> io::Result<Self> {
        let (transport, port) = self.transport.another()?;
        Ok(Self::over(transport, port))
    }

    /// Port of the socket, which the kernel puts into notifications of the changes made through it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends independent requests; returns those that the kernel refused.
    ///
    /// # Errors
    ///
    /// If the kernel sends no reply.
    pub fn write(&mut self, fill: impl FnOnce(&mut Encoder)) -> io::Result<Vec<Refused>> {
        let mut refused = Vec::new();
        let requests = |encoder: &mut Encoder| {
            fill(encoder);
            encoder.ack_last();
        };
        self.exchange(requests, |index, outcome| {
            if outcome.errno != 0 {
                refused.push(refusal(index, outcome));
            }
            Ok(())
        })?;
        Ok(refused)
    }

    /// Sends a transaction, which the kernel applies as a whole or not at all. `fill` requests the
    /// acknowledgement of its last change.
    ///
    /// # Errors
    ///
    /// The first refusal. Replies that follow it are ignored.
    pub fn commit(&mut self, fill: impl FnOnce(&mut Encoder)) -> io::Result<()> {
        self.exchange(fill, |_, outcome| match outcome.errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        })
    }

    /// Sends requests and passes the outcome of each that has one, until that of the last.
    fn exchange(
        &mut self,
        fill: impl FnOnce(&mut Encoder),
        mut each: impl FnMut(usize, Outcome) -> io::Result<()>,
    ) -> io::Result<()> {
        let first = self.send(fill)?;
        if self.encoder.bytes().is_empty() {
            return Ok(());
        }
        let last = self.encoder.acknowledged();
        let count = self.encoder.next_seq().wrapping_sub(first);
        self.encoder.clear();
        loop {
            self.receive()?;
            for message in messages(&self.buf) {
                // Replies to an earlier request that failed may still arrive.
                let Some(index) = Some(message.seq.wrapping_sub(first)).filter(|n| *n < count) else {
                    continue;
                };
                let Some(outcome) = message.outcome() else { continue };
                each(usize::try_from(index).unwrap_or(usize::MAX), outcome)?;
                if message.seq == last {
                    self.outstanding = false;
                    return Ok(());
                }
            }
        }
    }

    /// Starts a dump, to be continued with [`Channel::dump_step`].
    ///
    /// # Errors
    ///
    /// If the kernel accepts no request.
    pub fn dump_begin(&mut self, request: impl FnOnce(&mut Encoder)) -> io::Result<()> {
        let seq = self.send(request)?;
        self.dump = Dump::new(seq);
        Ok(())
    }

    /// Reads one datagram of the dump. A table that does not exist counts as empty.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request, or cannot complete the dump.
    pub fn dump_step(&mut self, each: impl FnMut(&Message<'_>)) -> io::Result<Progress> {
        self.receive()?;
        let progress = self.dump.datagram(&self.buf, each).map_err(io::Error::from_raw_os_error)?;
        self.outstanding = progress == Progress::More;
        Ok(progress)
    }

    /// Reads a whole dump at once, for small tables.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request, or cannot complete the dump.
    pub fn dump(
        &mut self,
        request: impl FnOnce(&mut Encoder),
        each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.whole_dump(request, each).map(drop)
    }

    /// Does the same, and returns whether the table did not change meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request, or cannot complete the dump.
    pub fn whole_dump(
        &mut self,
        request: impl FnOnce(&mut Encoder),
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.dump_begin(request)?;
        loop {
            if let Progress::Done { consistent } = self.dump_step(&mut each)? {
                return Ok(consistent);
            }
        }
    }

    /// Reads a list with `read`, once more each time that it changed meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request, or with `ErrorKind::Interrupted` if the list changes each
    /// time.
    pub fn list<T>(
        &mut self,
        request: impl Fn(&mut Encoder),
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..TRIES {
            let mut found = Vec::new();
            if self.whole_dump(&request, |message| found.extend(read(message)))? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the list changed while it was read"))
    }

    /// Sends a request for one object; `read` decodes the response of type `wanted`.
    /// `None`: the kernel acknowledged the request, or sent something else.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the request.
    pub fn get<T>(
        &mut self,
        wanted: u16,
        request: impl FnOnce(&mut Encoder),
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let seq = self.send(|encoder| {
            request(encoder);
            encoder.ack_last();
        })?;
        let mut found = None;
        loop {
            self.receive()?;
            for message in messages(&self.buf).filter(|m| m.seq == seq) {
                // The acknowledgement comes last.
                match message.outcome() {
                    Some(Outcome { errno, .. }) => {
                        self.outstanding = false;
                        return match errno {
                            0 => Ok(found),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    None if message.kind == wanted => found = read(&message),
                    None => {}
                }
            }
        }
    }

    /// Sends what `fill` writes; returns the sequence number of the first message.
    fn send(&mut self, fill: impl FnOnce(&mut Encoder)) -> io::Result<u32> {
        self.encoder.clear();
        let first = self.encoder.next_seq();
        fill(&mut self.encoder);
        if self.encoder.bytes().is_empty() {
            return Ok(first);
        }
        if self.outstanding {
            self.transport.discard();
        }
        self.outstanding = true;
        loop {
            match self.transport.send(self.encoder.bytes()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(|()| first),
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.transport.receive(&mut self.buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

fn refusal(index: usize, outcome: Outcome) -> Refused {
    let errno = Errno::from_raw(outcome.errno);
    let why = match outcome.text {
        Some(text) => format!("{text} ({})", errno.desc()),
        None => errno.desc().to_owned(),
    };
    Refused { index, errno, why: why.into() }
}
