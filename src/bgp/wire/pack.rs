//! Packing routes into as few UPDATEs as they need (RFC 4271 §4.3, §9.2; RFC 4760 §3).

use bytes::BytesMut;

use super::{Shape, attr::Attrs, update::Nlri};
use crate::net::Family;

/// The attributes leave no room for a prefix in the largest message that may be sent: such a route
/// cannot be announced and has to be withdrawn (RFC 8654 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attributes too large for a message")]
pub struct TooLarge;

/// Appends UPDATE messages to a buffer.
#[derive(Debug)]
pub struct Packer<'a> {
    shape: &'a Shape,
    out: &'a mut BytesMut,
    messages: u32,
}

impl<'a> Packer<'a> {
    pub fn new(shape: &'a Shape, out: &'a mut BytesMut) -> Self {
        Self { shape, out, messages: 0 }
    }

    /// Messages appended so far.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Announces prefixes of one family with one attribute set.
    ///
    /// # Errors
    ///
    /// [`TooLarge`]; nothing was appended then.
    pub fn announce(
        &mut self,
        _attrs: &Attrs,
        _family: Family,
        _nlri: impl IntoIterator<Item = Nlri>,
    ) -> Result<(), TooLarge> {
        todo!()
    }

    /// Withdraws prefixes of one family.
    pub fn withdraw(&mut self, _family: Family, _nlri: impl IntoIterator<Item = Nlri>) {
        todo!()
    }

    /// Says that the first exchange is over (RFC 4724 §2).
    pub fn end_of_rib(&mut self, _family: Family) {
        todo!()
    }
}
