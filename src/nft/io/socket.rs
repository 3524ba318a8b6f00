//! The socket to nf_tables.

use std::{collections::BTreeSet, io};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::{TimeVal, TimeValLike},
    },
};

use super::masquerade::without;
use crate::{
    net::Family,
    nft::{
        ranges::Range,
        wire::{self, Batch, Set},
    },
};

/// By family: the pods' ranges, and those that are never masqueraded.
pub(super) type Sets = [[BTreeSet<Range>; 2]; 2];

pub(super) struct Kernel {
    socket: Socket,
    seq: u32,
    buf: Vec<u8>,
}

/// A list that changed while it was told.
#[derive(Debug, thiserror::Error)]
#[error("the list changed while it was read")]
pub(super) struct Torn;

/// A transaction goes in one send.
const SEND_BUFFER: usize = 32 << 20;

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        // Without the capability the limit of the host holds, and only large sets fail.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &SEND_BUFFER);
        // Answers are there when `send` returns; this only keeps a surprise from hanging the task.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
        Ok(Self { socket, seq: 1, buf: Vec::new() })
    }

    /// From one state to the next, in one step. Without pods there is no table.
    pub(super) fn apply(&mut self, was: Option<&Sets>, want: &Sets) -> io::Result<()> {
        if want.iter().all(|[pods, _]| pods.is_empty()) {
            return self.remove();
        }
        let empty = Sets::default();
        let is_there = was.filter(|sets| sets.iter().any(|[pods, _]| !pods.is_empty()));
        let was = is_there.unwrap_or(&empty);
        self.transact(|batch| {
            if is_there.is_none() {
                batch.make();
            }
            for family in Family::ALL {
                let (was, want) = (&was[family.index()], &want[family.index()]);
                for (set, at) in [(Set::Keep, 1), (Set::Pods, 0)] {
                    batch.take(set, family, &without(&was[at], &want[at]));
                    batch.add(set, family, &without(&want[at], &was[at]));
                }
            }
        })
    }

    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.transact(Batch::remove)
    }

    pub(super) fn is_there(&mut self) -> io::Result<bool> {
        self.has_table(wire::TABLE)
    }

    /// Whether there is this table of family inet.
    pub(super) fn has_table(&mut self, table: &str) -> io::Result<bool> {
        let seq = self.next();
        match self.send(&Batch::ask_table(seq, table), seq) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn transact(&mut self, fill: impl FnOnce(&mut Batch)) -> io::Result<()> {
        let mut batch = Batch::new(self.next());
        fill(&mut batch);
        let (octets, last) = batch.finish();
        self.seq = last.wrapping_add(1);
        self.send(&octets, last)
    }

    /// Sends a question: the attributes of each message that answers.
    pub(super) fn ask(&mut self, octets: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.drain();
        self.socket.send(octets, 0)?;
        let mut found = Vec::new();
        loop {
            self.buf.clear();
            self.buf.reserve(64 << 10);
            match self.socket.recv(&mut self.buf, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            for message in wire::messages(&self.buf) {
                match message.errno() {
                    Some(0) => return Ok(found),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    // Somebody wrote while the kernel was listing.
                    None if message.is_interrupted() => return Err(io::Error::other(Torn)),
                    None if message.is_end() => return Ok(found),
                    None => found.push(message.attributes().to_vec()),
                }
            }
        }
    }

    pub(super) fn next(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Sends, and waits for the acknowledgement of the last message. The first refusal is the error: with it the kernel
    /// has undone the whole transaction.
    fn send(&mut self, octets: &[u8], last: u32) -> io::Result<()> {
        self.drain();
        self.socket.send(octets, 0)?;
        let mut refused = None;
        loop {
            self.buf.clear();
            self.buf.reserve(64 << 10);
            match self.socket.recv(&mut self.buf, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // After a refusal the rest need not be answered.
                Err(e) => return Err(refused.unwrap_or(e)),
                Ok(_) => {}
            }
            for message in wire::messages(&self.buf) {
                let Some(errno) = message.errno() else { continue };
                if errno != 0 {
                    refused = refused.or_else(|| Some(io::Error::from_raw_os_error(errno)));
                }
                if message.seq == last {
                    return refused.map_or(Ok(()), Err);
                }
            }
            if let Some(error) = refused.take() {
                return Err(error);
            }
        }
    }

    /// Answers to a transaction that failed half read.
    fn drain(&mut self) {
        const MSG_DONTWAIT: i32 = 0x40;
        loop {
            self.buf.clear();
            self.buf.reserve(64 << 10);
            if self.socket.recv(&mut self.buf, MSG_DONTWAIT).is_err() {
                return;
            }
        }
    }
}
