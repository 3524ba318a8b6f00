//! UPDATE (RFC 4271 §4.3, RFC 4760).

use std::sync::Arc;

use bytes::Bytes;

pub use super::nlri::{Nlri, NlriBlock};
use super::{Shape, WireError, attr::Attrs};
use crate::net::Family;

/// What one UPDATE says, after the verdicts of RFC 7606: NLRI that must be treated as withdrawn already
/// stand among `withdrawn`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub withdrawn: Vec<NlriBlock>,
    pub announced: Vec<(Arc<Attrs>, NlriBlock)>,
    /// RFC 4724 §2.
    pub end_of_rib: Option<Family>,
    /// What was wrong and lived through: for the log and the counters.
    pub flaws: Vec<Flaw>,
}

/// A broken attribute and what was done about it (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub attribute: u8,
    pub verdict: Verdict,
    pub what: &'static str,
}

/// RFC 7606 §2, in rising strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Discard,
    TreatAsWithdraw,
    /// Never in a [`Flaw`]: it becomes a [`WireError`].
    Reset,
}

/// Decodes the UPDATEs of one session. Remembers the last attributes: UPDATEs that repeat them share one
/// [`Attrs`] and cost no parsing.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
}

impl Decoder {
    pub fn new(shape: Shape) -> Self {
        Self { shape }
    }

    /// Decodes the body of an UPDATE, header already stripped.
    ///
    /// # Errors
    ///
    /// Code 3 with subcode and data of RFC 4271 §6.3 where RFC 7606 still asks for a reset.
    pub fn decode(&mut self, _body: &Bytes) -> Result<Update, WireError> {
        todo!("{:?}", self.shape)
    }
}
