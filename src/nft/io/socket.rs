//! The netlink socket to nf_tables.

use std::{cell::Cell, io};

use nix::errno::Errno;

use super::masquerade::without;
use crate::{
    net::Family,
    netlink::{
        encode::Encoder,
        io::{Channel, Protocol},
    },
    nft::{
        masquerade::Sets,
        wire::{self, Batch, NEW_TABLE, Set, of_nftables},
    },
};

/// The attributes of a chain or a rule.
pub(super) type Listed = Vec<u8>;

pub(super) struct NftSocket(Channel);

impl NftSocket {
    pub(super) fn open() -> io::Result<Self> {
        Channel::open(Protocol::NETFILTER).map(Self)
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
                let (was, want) = (&was[family], &want[family]);
                for (set, at) in [(Set::Keep, 1), (Set::Pods, 0)] {
                    batch.remove_ranges(set, family, &without(&was[at], &want[at]));
                    batch.add(set, family, &without(&want[at], &was[at]));
                }
            }
        })
    }

    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.transact(|batch| batch.remove())
    }

    pub(super) fn exists(&mut self) -> io::Result<bool> {
        self.has_table(wire::TABLE)
    }

    /// Whether this table of family inet exists.
    pub(super) fn has_table(&mut self, table: &str) -> io::Result<bool> {
        let found = self.get(NEW_TABLE, |encoder| wire::get_table(encoder, table))?;
        Ok(found.is_some())
    }

    /// One object, which the kernel describes as in the message that creates it. `None`: it does
    /// not exist.
    pub(super) fn get(
        &mut self,
        kind: u16,
        request: impl FnOnce(&mut Encoder),
    ) -> io::Result<Option<Listed>> {
        match self.0.get(of_nftables(kind), request, |m| Some(wire::body(m).to_vec())) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            found => found,
        }
    }

    /// A list. `ErrorKind::Interrupted`: another program changes it each time.
    pub(super) fn list(&mut self, request: impl Fn(&mut Encoder)) -> io::Result<Vec<Listed>> {
        self.0.list(request, |m| Some(wire::body(m).to_vec()))
    }

    /// The same if it has no more than so many octets, else `None`.
    pub(super) fn list_within(
        &mut self,
        octets: usize,
        request: impl Fn(&mut Encoder),
    ) -> io::Result<Option<Vec<Listed>>> {
        let left = Cell::new(Some(octets));
        // A list that changed is read from its beginning.
        let again = |encoder: &mut Encoder| {
            left.set(Some(octets));
            request(encoder);
        };
        let listed = self.0.list(again, |m| {
            let body = wire::body(m);
            left.set(left.get().and_then(|left| left.checked_sub(body.len())));
            left.get().map(|_| body.to_vec())
        })?;
        Ok(left.get().map(|_| listed))
    }

    pub(super) fn transact(&mut self, fill: impl FnOnce(&mut Batch<'_>)) -> io::Result<()> {
        self.0.commit(|encoder| wire::transaction(encoder, fill))
    }
}
