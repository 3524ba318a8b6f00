//! Reads messages from the kernel.
//!
//! Decoding never fails as a whole: it ends at the first invalid length, and truncated parts are
//! skipped.

use std::net::IpAddr;

use super::flag;

/// Octets of struct nlmsghdr.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Where the kernel's error cannot be read.
const EIO: i32 = 5;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// Port of the socket that caused it; 0 for the kernel itself.
    pub port: u32,
    /// After the header.
    pub body: &'a [u8],
    /// The message with its header.
    pub whole: &'a [u8],
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// 0: an acknowledgement.
    pub errno: i32,
    /// The kernel's explanation, if any.
    pub text: Option<String>,
}

impl Message<'_> {
    /// What NLMSG_ERROR reports; `None` for any other message.
    pub fn outcome(&self) -> Option<Outcome> {
        (self.kind == NLMSG_ERROR).then(|| match u32_at(self.body, 0) {
            Some(code) => Outcome { errno: code.cast_signed().wrapping_neg(), text: self.explanation() },
            None => Outcome { errno: EIO, text: None },
        })
    }

    /// The errno with which NLMSG_DONE ends a dump, 0 for success; `None` for any other message.
    pub fn end_of_dump(&self) -> Option<i32> {
        let code = || u32_at(self.body, 0).map_or(0, u32::cast_signed);
        (self.kind == NLMSG_DONE).then(|| code().wrapping_neg())
    }

    /// Whether the table changed during the dump that this message belongs to.
    pub fn is_interrupted(&self) -> bool {
        self.flags & flag::DUMP_INTR != 0
    }

    /// The text of an extended acknowledgement.
    fn explanation(&self) -> Option<String> {
        if self.flags & flag::ACK_TLVS == 0 {
            return None;
        }
        let quoted = if self.flags & flag::CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(u32_at(self.body, 4)?).ok()?.checked_next_multiple_of(4)?
        };
        let text = attribute(self.body.get(4usize.checked_add(quoted)?..)?, NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches(['\0', '.']).to_owned())
    }
}

/// The messages of a datagram; ends at the first invalid length.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let whole = datagram.get(..len)?;
        let body = whole.get(HEADER..)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            seq: u32_at(whole, 8)?,
            port: u32_at(whole, 12)?,
            body,
            whole,
        })
    })
}

/// Type (without flags) and value of each attribute; ends at the first invalid length.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn attribute(octets: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(octets).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// The address in an attribute.
pub fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|&o| o.into()),
        16 => octets.first_chunk::<16>().map(|&o| o.into()),
        _ => None,
    }
}

/// A number in host order.
pub fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|&o| u16::from_ne_bytes(o))
}

/// A number in host order.
pub fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().map(|&o| u32::from_ne_bytes(o))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::encode::Encoder;

    /// A message with this body.
    fn message(kind: u16, flags: u16, body: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::new(1);
        encoder.message(kind, flags, body);
        encoder.bytes().to_vec()
    }

    fn outcome(octets: &[u8]) -> Option<Outcome> {
        messages(octets).next().and_then(|m| m.outcome())
    }

    #[test]
    fn results_of_requests_have_the_kernels_explanation() {
        let request = [0_u8; 20];
        let text = |m: &mut Encoder| m.octets(NLMSGERR_ATTR_MSG, b"Nexthop id does not exist.\0");
        let is = |errno, text: Option<&str>| Some(Outcome { errno, text: text.map(str::to_owned) });
        let plain = message(NLMSG_ERROR, 0, |m| m.fields((-17_i32).to_ne_bytes()));
        let capped = message(NLMSG_ERROR, flag::ACK_TLVS | flag::CAPPED, |m| {
            m.fields((-22_i32).to_ne_bytes());
            m.fields([0; HEADER]);
            text(m);
        });
        // The request is repeated, and starts with its length.
        let whole = message(NLMSG_ERROR, flag::ACK_TLVS, |m| {
            m.fields((-22_i32).to_ne_bytes());
            m.fields(20_u32.to_ne_bytes());
            m.fields::<16>(request[4..].try_into().unwrap());
            text(m);
        });
        let endless = message(NLMSG_ERROR, flag::ACK_TLVS, |m| {
            m.fields((-22_i32).to_ne_bytes());
            m.fields(u32::MAX.to_ne_bytes());
        });
        let explained = is(22, Some("Nexthop id does not exist"));
        let cases = [
            ("an acknowledgement", message(NLMSG_ERROR, 0, |m| m.fields([0; 4])), is(0, None)),
            ("without text", plain, is(17, None)),
            ("with text", capped, explained.clone()),
            ("with the request and text", whole, explained),
            ("an impossible length of the request", endless, is(22, None)),
            ("truncated", message(NLMSG_ERROR, 0, |m| m.fields([0; 2])), is(EIO, None)),
            ("another message", message(NLMSG_DONE, 0, |m| m.fields([0; 4])), None),
        ];
        for (name, octets, expected) in cases {
            assert_eq!(outcome(&octets), expected, "{name}");
        }
    }

    #[test]
    fn a_dump_ends_with_its_result() {
        let end = |octets: &[u8]| messages(octets).next().and_then(|m| m.end_of_dump());
        assert_eq!(end(&message(NLMSG_DONE, 0, |m| m.fields((-2_i32).to_ne_bytes()))), Some(2));
        assert_eq!(end(&message(NLMSG_DONE, 0, |m| m.fields([0; 4]))), Some(0));
        assert_eq!(end(&message(NLMSG_DONE, 0, |_| {})), Some(0));
        assert_eq!(end(&message(NLMSG_ERROR, 0, |m| m.fields([0; 4]))), None);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&octets) {
                let _ = (message.outcome(), message.end_of_dump(), attributes(message.body).count());
            }
            let _ = attributes(&octets).count();
        }
    }
}
