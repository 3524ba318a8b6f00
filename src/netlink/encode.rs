//! Builds messages, several of them for one send.
//!
//! Numbers are in host order, as in most of netlink; a protocol that has them in network order
//! writes octets.

use std::net::IpAddr;

use super::flag;

/// `NLA_F_NESTED`, where the kernel requires it.
pub const NESTED: u16 = 0x8000;

/// A buffer of messages, which get consecutive sequence numbers.
#[derive(Debug)]
pub struct Encoder {
    buf: Vec<u8>,
    /// Start of the last message.
    last: usize,
    /// Sequence number of the next message.
    seq: u32,
    /// Sequence number of the message that requests an acknowledgement.
    acknowledged: u32,
}

/// Octets that a cleared buffer may keep for the next messages.
const MAX_KEPT: usize = 1 << 20;

impl Encoder {
    /// Without messages. `seq`: the sequence number of the first.
    pub fn new(seq: u32) -> Self {
        Self { buf: Vec::new(), last: 0, seq, acknowledged: 0 }
    }

    /// Removes all messages. Sequence numbers continue.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.buf.shrink_to(MAX_KEPT);
        self.last = 0;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Sequence number of the next message.
    pub fn next_seq(&self) -> u32 {
        self.seq
    }

    /// Sequence number of the message that requests an acknowledgement.
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Requests an acknowledgement of the last message, which covers all before it.
    pub fn ack_last(&mut self) {
        if let Some(flags) = self.buf.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | flag::ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
            self.acknowledged = self.seq.wrapping_sub(1);
        }
    }

    /// Appends a request: its type, flags besides `NLM_F_REQUEST`, and what follows the header.
    ///
    /// # Panics
    ///
    /// If the message is longer than its field for the length allows, which no request is.
    #[inline]
    pub fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buf.len();
        self.last = start;
        // One copy: this is on the path of every route.
        let ([k0, k1], [f0, f1]) = (kind.to_ne_bytes(), (flag::REQUEST | flags).to_ne_bytes());
        let [s0, s1, s2, s3] = self.seq.to_ne_bytes();
        self.fields([0, 0, 0, 0, k0, k1, f0, f1, s0, s1, s2, s3, 0, 0, 0, 0]);
        self.seq = self.seq.wrapping_add(1);
        body(self);
        let len = u32::try_from(self.buf.len() - start).expect("messages are below 4 GiB");
        self.buf[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Appends the fields of a struct.
    #[inline]
    pub fn fields<const N: usize>(&mut self, octets: [u8; N]) {
        self.buf.extend_from_slice(&octets);
    }

    /// Appends an attribute with this value.
    #[inline]
    pub fn octets(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |e| e.buf.extend_from_slice(value));
    }

    #[inline]
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.octets(kind, &value.to_ne_bytes());
    }

    #[inline]
    pub fn u32(&mut self, kind: u16, value: u32) {
        let ([l0, l1], [k0, k1]) = (8_u16.to_ne_bytes(), kind.to_ne_bytes());
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        self.fields([l0, l1, k0, k1, v0, v1, v2, v3]);
    }

    /// Appends an attribute with an address.
    #[inline]
    pub fn addr(&mut self, kind: u16, addr: IpAddr) {
        match addr {
            IpAddr::V4(a) => self.octets(kind, &a.octets()),
            IpAddr::V6(a) => self.octets(kind, &a.octets()),
        }
    }

    /// Appends an attribute with what `body` writes, which for most of them is further attributes.
    #[inline]
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.sized(|e| {
            e.fields(kind.to_ne_bytes());
            body(e);
        });
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// Appends an item that starts with its length in two octets.
    ///
    /// # Panics
    ///
    /// If it is longer than 64 KiB: those who write lists bound them.
    #[inline]
    pub fn sized(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.buf.len();
        self.fields([0; 2]);
        body(self);
        let len = u16::try_from(self.buf.len() - start).expect("lists in attributes are bounded");
        self.buf[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::decode::{attribute, attributes, messages, u32_at};

    #[test]
    fn messages_read_back_as_written() {
        let mut encoder = Encoder::new(u32::MAX);
        encoder.message(26, flag::DUMP, |m| {
            m.fields([2, 0, 0, 0]);
            m.u32(1, 7);
            m.nested(9, |list| {
                list.u16(3, 5);
                list.addr(4, [10, 0, 0, 1].into());
            });
        });
        encoder.message(27, 0, |_| {});
        let all: Vec<_> = messages(encoder.bytes()).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.seq)).collect::<Vec<_>>(), [(26, u32::MAX), (27, 0)]);
        assert_eq!(all[0].flags, flag::REQUEST | flag::DUMP);
        let body = &all[0].body[4..];
        assert_eq!(attribute(body, 1).and_then(|value| u32_at(value, 0)), Some(7));
        let nested: Vec<_> = attributes(attribute(body, 9).unwrap()).collect();
        assert_eq!(nested, [(3, &5_u16.to_ne_bytes()[..]), (4, &[10, 0, 0, 1][..])]);
        assert!(encoder.bytes().len().is_multiple_of(4));
    }

    #[test]
    fn only_the_last_message_of_a_batch_requests_an_acknowledgement() {
        let mut encoder = Encoder::new(5);
        for _ in 0..3 {
            encoder.message(25, 0, |_| {});
        }
        encoder.ack_last();
        let acks: Vec<_> = messages(encoder.bytes()).map(|m| m.flags & flag::ACK != 0).collect();
        assert_eq!((acks, encoder.acknowledged()), (vec![false, false, true], 7));
    }

    #[test]
    fn sequence_numbers_continue_when_messages_are_removed_and_large_buffers_are_freed() {
        let mut encoder = Encoder::new(1);
        encoder.message(25, 0, |m| (0..1 << 18).for_each(|_| m.fields([0; 8])));
        encoder.clear();
        assert!(encoder.bytes().is_empty() && encoder.buf.capacity() <= MAX_KEPT);
        encoder.message(25, 0, |_| {});
        assert_eq!(messages(encoder.bytes()).next().map(|m| m.seq), Some(2));
    }
}
