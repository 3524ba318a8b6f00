//! The netlink socket to nf_tables.

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

/// By family: the pod ranges, and the destinations that are never masqueraded.
pub(super) type Sets = [[BTreeSet<Range>; 2]; 2];

pub(super) struct NftSocket {
    socket: Socket,
    seq: u32,
    buf: Vec<u8>,
}

/// The list changed while the kernel was sending it.
#[derive(Debug, thiserror::Error)]
#[error("the list changed while it was read")]
pub(super) struct DumpInterrupted;

/// Size of the socket buffers, octets: a transaction is one send.
const BUFFER_SIZE: usize = 32 << 20;

impl NftSocket {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        // Without the capability the host's limit applies, and only large sets fail.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER_SIZE);
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_SIZE);
        // Replies are queued when `send` returns; the timeout is a safeguard against hanging.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
        Ok(Self { socket, seq: 1, buf: Vec::new() })
    }

    /// Changes the table from `was` to `want` in one transaction. Without pods there is no table.
    pub(super) fn apply(&mut self, was: Option<&Sets>, want: &Sets) -> io::Result<()> {
        if want.iter().all(|[pods, _]| pods.is_empty()) {
            return self.remove();
        }
        let empty = Sets::default();
        let exists = was.filter(|sets| sets.iter().any(|[pods, _]| !pods.is_empty()));
        let was = exists.unwrap_or(&empty);
        self.transact(|batch| {
            if exists.is_none() {
                batch.create();
            }
            for family in Family::ALL {
                let (was, want) = (&was[family.index()], &want[family.index()]);
                for (set, at) in [(Set::Keep, 1), (Set::Pods, 0)] {
                    batch.remove_ranges(set, family, &without(&was[at], &want[at]));
                    batch.add(set, family, &without(&want[at], &was[at]));
                }
            }
        })
    }

    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.transact(Batch::remove)
    }

    pub(super) fn exists(&mut self) -> io::Result<bool> {
        self.has_table(wire::TABLE)
    }

    /// Whether this table of family inet exists.
    pub(super) fn has_table(&mut self, table: &str) -> io::Result<bool> {
        let seq = self.next();
        match self.send(&Batch::get_table(seq, table), seq) {
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

    /// Sends a request. Returns the attributes of each message of the reply.
    pub(super) fn request(&mut self, octets: &[u8]) -> io::Result<Vec<Vec<u8>>> {
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
                    // Another program made a change during the dump.
                    None if message.is_interrupted() => return Err(io::Error::other(DumpInterrupted)),
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

    /// Sends a transaction and waits for the acknowledgement of its last message. The first
    /// rejected message is the error: the kernel then reverts the whole transaction.
    fn send(&mut self, octets: &[u8], last: u32) -> io::Result<()> {
        self.drain();
        self.socket.send(octets, 0)?;
        let mut rejected = None;
        loop {
            self.buf.clear();
            self.buf.reserve(64 << 10);
            match self.socket.recv(&mut self.buf, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // After an error the kernel may not reply to the rest.
                Err(e) => return Err(rejected.unwrap_or(e)),
                Ok(_) => {}
            }
            for message in wire::messages(&self.buf) {
                let Some(errno) = message.errno() else { continue };
                if errno != 0 {
                    rejected = rejected.or_else(|| Some(io::Error::from_raw_os_error(errno)));
                }
                if message.seq == last {
                    return rejected.map_or(Ok(()), Err);
                }
            }
            if let Some(error) = rejected.take() {
                return Err(error);
            }
        }
    }

    /// Discards replies to an earlier transaction that failed.
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
