//! NOTIFICATION (RFC 4271 §4.5): names of codes, texts for operators (RFC 9003), Hard Reset (RFC
//! 8538).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Code, WireError,
    framing::{self, Kind},
};
use crate::net::Family;

/// Subcodes of Cease (RFC 4486 §3, RFC 8538 §3, RFC 9384 §2).
pub mod cease {
    pub const MAX_PREFIXES: u8 = 1;
    pub const SHUTDOWN: u8 = 2;
    pub const DECONFIGURED: u8 = 3;
    pub const RESET: u8 = 4;
    pub const REJECTED: u8 = 5;
    pub const CONFIG_CHANGE: u8 = 6;
    pub const COLLISION: u8 = 7;
    pub const OUT_OF_RESOURCES: u8 = 8;
    pub const HARD_RESET: u8 = 9;
    pub const BFD_DOWN: u8 = 10;
}

/// Limit of a shutdown communication (RFC 9003 §2): the largest value of one octet.
pub const MAX_TEXT: usize = 255;

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    pub data: Bytes,
}

impl From<&WireError> for Notification {
    fn from(e: &WireError) -> Self {
        Self { code: e.code as u8, subcode: e.subcode, data: e.data.clone() }
    }
}

impl Notification {
    /// A NOTIFICATION without data.
    pub fn new(code: Code, subcode: u8) -> Self {
        Self { code: code as u8, subcode, data: Bytes::new() }
    }

    /// Cease with a text for the neighbor's operator (RFC 9003 §2): shutdown or reset. A text that
    /// is too long is truncated between two characters.
    pub fn cease(subcode: u8, text: Option<&str>) -> Self {
        let mut data = BytesMut::new();
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
            data.put_u8(u8::try_from(text.len()).unwrap_or_default());
            data.put_slice(text.as_bytes());
        }
        Self { code: Code::Cease as u8, subcode, data: data.freeze() }
    }

    /// Wraps this one in a Hard Reset, which ends graceful restart (RFC 8538 §3.1).
    pub fn hard(self) -> Self {
        let mut data = BytesMut::with_capacity(2 + self.data.len());
        data.put_slice(&[self.code, self.subcode]);
        data.put_slice(&self.data);
        Self { code: Code::Cease as u8, subcode: cease::HARD_RESET, data: data.freeze() }
    }

    /// Whether it is a Hard Reset.
    pub fn is_hard(&self) -> bool {
        (self.code, self.subcode) == (Code::Cease as u8, cease::HARD_RESET)
    }

    /// The NOTIFICATION inside a Hard Reset (RFC 8538 §3.1); `None` if that is another Hard Reset.
    /// Those are invalid, and a message full of nested ones would take as many steps to decode.
    pub fn inner(&self) -> Option<Self> {
        match (self.is_hard(), &self.data[..]) {
            (true, &[code, subcode, ..]) => {
                Some(Self { code, subcode, data: self.data.slice(2..) }).filter(|inner| !inner.is_hard())
            }
            _ => None,
        }
    }

    /// The shutdown communication (RFC 9003 §2), also of one inside a Hard Reset; `None` if there
    /// is none or it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.text_octets()?).ok()
    }

    fn text_octets(&self) -> Option<&[u8]> {
        let (code, subcode, data) = match &self.data[..] {
            [code, subcode, data @ ..] if self.is_hard() => (*code, *subcode, data),
            data => (self.code, self.subcode, data),
        };
        let carries = code == Code::Cease as u8 && matches!(subcode, cease::SHUTDOWN | cease::RESET);
        let (length, text) = data.split_first().filter(|_| carries)?;
        text.get(..usize::from(*length)).filter(|t| !t.is_empty())
    }

    /// Decodes the body; never fails, since no NOTIFICATION may be sent about a malformed one (RFC
    /// 4271 §6.4).
    pub fn decode(body: &Bytes) -> Self {
        let (code, subcode) = (body.first().copied(), body.get(1).copied());
        let data = if body.len() > 2 { body.slice(2..) } else { Bytes::new() };
        Self { code: code.unwrap_or(0), subcode: subcode.unwrap_or(0), data }
    }

    /// Appends the message; data beyond the largest message is truncated.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = framing::begin(out, Kind::Notification);
        out.put_slice(&[self.code, self.subcode]);
        let room = framing::MAX_MESSAGE - framing::HEADER - 2;
        out.put_slice(self.data.get(..room).unwrap_or(&self.data));
        framing::finish(out, start);
    }

    /// Name of the code.
    pub fn code_name(&self) -> &'static str {
        code_name(self.code)
    }

    /// Name of the subcode; `None` for 0 and for unknown ones.
    pub fn subcode_name(&self) -> Option<&'static str> {
        subcode_name(self.code, self.subcode)
    }
}

/// `cease/administrative shutdown: "text"`, for logs and `show neighbor`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code_name())?;
        match (self.subcode_name(), self.subcode) {
            (Some(name), _) => write!(f, "/{name}")?,
            (None, 0) => {}
            (None, n) => write!(f, "/{n}")?,
        }
        if let Some(inner) = self.inner() {
            return write!(f, " ({inner})");
        }
        if let Some(limit) = self.limit() {
            return write!(f, ": {limit}");
        }
        match (self.text_octets(), self.text()) {
            (_, Some(text)) => write!(f, ": \"{}\"", text.escape_debug()),
            // RFC 9003 §2: not UTF-8, so escaped to protect terminals.
            (Some(octets), None) => write!(f, ": \"{}\"", octets.escape_ascii()),
            (None, None) => self.fmt_data(f),
        }
    }
}

impl Notification {
    /// Description of the family and limit in CEASE/1 (RFC 4486 §4).
    fn limit(&self) -> Option<String> {
        let &[afi_hi, afi_lo, safi, a, b, c, d] = &self.data[..] else { return None };
        if (self.code, self.subcode) != (Code::Cease as u8, cease::MAX_PREFIXES) {
            return None;
        }
        let afi = u16::from_be_bytes([afi_hi, afi_lo]);
        let family = match Family::from_wire(afi, safi) {
            Some(family) => family.to_string(),
            None => format!("AFI {afi} SAFI {safi}"),
        };
        Some(format!("{family}, limit {}", u32::from_be_bytes([a, b, c, d])))
    }

    /// The data of an error, as far as it fits into a line.
    fn fmt_data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        if self.data.is_empty() {
            return Ok(());
        }
        f.write_str(", data")?;
        self.data.iter().take(SHOWN).try_for_each(|octet| write!(f, " {octet:02x}"))?;
        if self.data.len() > SHOWN { write!(f, " … ({} octets)", self.data.len()) } else { Ok(()) }
    }
}

/// RFC 4271 §4.5 and the IANA registry.
fn code_name(code: u8) -> &'static str {
    match code {
        1 => "message header error",
        2 => "OPEN message error",
        3 => "UPDATE message error",
        4 => "hold timer expired",
        5 => "finite state machine error",
        6 => "cease",
        7 => "ROUTE-REFRESH message error",
        8 => "send hold timer expired",
        _ => "unknown error",
    }
}

fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "connection not synchronized",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (2, 1) => "unsupported version number",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 4) => "unsupported optional parameter",
        (2, 5) => "authentication failure (deprecated)",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (2, 11) => "role mismatch",
        (3, 1) => "malformed attribute list",
        (3, 2) => "unrecognized well-known attribute",
        (3, 3) => "missing well-known attribute",
        (3, 4) => "attribute flags error",
        (3, 5) => "attribute length error",
        (3, 6) => "invalid ORIGIN attribute",
        (3, 7) => "AS routing loop (deprecated)",
        (3, 8) => "invalid NEXT_HOP attribute",
        (3, 9) => "optional attribute error",
        (3, 10) => "invalid network field",
        (3, 11) => "malformed AS_PATH",
        // RFC 6608 §3.
        (5, 1) => "unexpected message in OpenSent",
        (5, 2) => "unexpected message in OpenConfirm",
        (5, 3) => "unexpected message in Established",
        (6, 1) => "maximum number of prefixes reached",
        (6, 2) => "administrative shutdown",
        (6, 3) => "peer de-configured",
        (6, 4) => "administrative reset",
        (6, 5) => "connection rejected",
        (6, 6) => "other configuration change",
        (6, 7) => "connection collision resolution",
        (6, 8) => "out of resources",
        (6, 9) => "hard reset",
        (6, 10) => "BFD down",
        (7, 1) => "invalid message length",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(sent: &Notification) -> Notification {
        let mut out = BytesMut::new();
        sent.encode(&mut out);
        let frame = framing::split(&mut out, false).unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Notification);
        Notification::decode(&frame.body)
    }

    #[test]
    fn a_notification_is_described_in_text() {
        let with = |code, subcode, data: &'static [u8]| Notification {
            code,
            subcode,
            data: Bytes::from_static(data),
        };
        #[rustfmt::skip]
        let cases = [
            (with(2, 2, &[0xfd, 0xe8]), "OPEN message error/bad peer AS, data fd e8"),
            (with(2, 11, &[]), "OPEN message error/role mismatch"),
            (with(4, 0, &[]), "hold timer expired"),
            (with(5, 3, &[]), "finite state machine error/unexpected message in Established"),
            (with(6, 10, &[]), "cease/BFD down"),
            (with(6, 1, &[0, 1, 1, 0, 0, 0, 1]), "cease/maximum number of prefixes reached: ipv4-unicast, limit 1"),
            (with(6, 1, &[0, 2, 1, 0, 1, 0, 0]), "cease/maximum number of prefixes reached: ipv6-unicast, limit 65536"),
            (with(6, 1, &[0, 25, 70, 0, 0, 0, 9]), "cease/maximum number of prefixes reached: AFI 25 SAFI 70, limit 9"),
            (with(6, 1, &[0, 1, 1]), "cease/maximum number of prefixes reached, data 00 01 01"),
            (with(6, 1, &[0, 1, 1, 0, 0, 0, 1]).hard(), "cease/hard reset (cease/maximum number of prefixes reached: ipv4-unicast, limit 1)"),
            (with(6, 99, &[]), "cease/99"),
            (with(7, 1, &[]), "ROUTE-REFRESH message error/invalid message length"),
            (with(8, 0, &[]), "send hold timer expired"),
            (with(200, 7, &[]), "unknown error/7"),
            (Notification::cease(cease::SHUTDOWN, Some("back at 5\n")), "cease/administrative shutdown: \"back at 5\\n\""),
            (with(6, 2, b"\x02\xff\x1b"), "cease/administrative shutdown: \"\\xff\\x1b\""),
            (with(6, 4, b"\x09abc"), "cease/administrative reset, data 09 61 62 63"),
            (with(6, 3, b"\x01a"), "cease/peer de-configured, data 01 61"),
            (Notification::cease(cease::RESET, Some("x")).hard(), "cease/hard reset (cease/administrative reset: \"x\")"),
            (with(6, 9, &[]), "cease/hard reset"),
            (with(3, 1, &[7; 20]), "UPDATE message error/malformed attribute list, data 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 … (20 octets)"),
        ];
        for (n, text) in cases {
            assert_eq!(n.to_string(), text);
            assert_eq!(back(&n), n, "{text}");
        }
    }

    #[test]
    fn texts_for_operators_go_both_ways() {
        for text in ["a", "Zürich", &"x".repeat(255)] {
            assert_eq!(back(&Notification::cease(cease::SHUTDOWN, Some(text))).text(), Some(text));
            assert_eq!(back(&Notification::cease(cease::RESET, Some(text)).hard()).text(), Some(text));
        }
        let cut = Notification::cease(cease::SHUTDOWN, Some(&"é".repeat(200)));
        assert_eq!(cut.text(), Some(&*"é".repeat(127)), "cut between two characters");
        for none in [None, Some("")] {
            assert_eq!(Notification::cease(cease::SHUTDOWN, none).data.len(), 0);
        }
        let zero = Notification { code: 6, subcode: 2, data: Bytes::from_static(&[0]) };
        assert_eq!(zero.text(), None);
    }

    #[test]
    fn a_hard_reset_carries_another_notification() {
        let inner = Notification { code: 3, subcode: 1, data: Bytes::from_static(&[9]) };
        let hard = back(&inner.clone().hard());
        assert!(hard.is_hard() && !inner.is_hard());
        assert_eq!((hard.inner(), inner.inner()), (Some(inner), None));
    }

    #[test]
    fn data_that_do_not_fit_are_cut() {
        let long = Notification { code: 3, subcode: 2, data: vec![1; 60_000].into() };
        assert_eq!(back(&long).data.len(), 4096 - 21);
    }

    /// RFC 4271 §6.4: no content of a NOTIFICATION is an error.
    #[test]
    fn broken_notifications_are_read_as_far_as_they_go() {
        #[rustfmt::skip]
        let cases: &[(&[u8], &str)] = &[
            (&[],           "unknown error"),
            (&[6],          "cease"),
            (&[0, 0],       "unknown error"),
            (&[9, 1],       "unknown error/1"),
            (&[255, 255],   "unknown error/255"),
            (&[1, 9],       "message header error/9"),
            (&[2, 99],      "OPEN message error/99"),
            (&[3, 12],      "UPDATE message error/12"),
            (&[4, 1],       "hold timer expired/1"),
            (&[5, 4],       "finite state machine error/4"),
            (&[6, 2, 9],    "cease/administrative shutdown, data 09"),
            (&[6, 9, 6],    "cease/hard reset, data 06"),
            (&[6, 9, 6, 9, 6, 2], "cease/hard reset, data 06 09 06 02"),
        ];
        let nested = Notification::decode(&[6, 9].repeat(32_000).into());
        assert!(nested.to_string().ends_with("(63998 octets)"), "no matter how deep");
        for (body, text) in cases {
            assert_eq!(Notification::decode(&Bytes::from_static(body)).to_string(), *text, "{body:?}");
        }
    }

    #[test]
    fn every_error_of_ours_becomes_its_notification() {
        let e = WireError::new(Code::Update, 10, &[1, 2], "x");
        assert_eq!(Notification::from(&e), Notification { code: 3, subcode: 10, data: vec![1, 2].into() });
        assert_eq!(
            Notification::decode(&Bytes::new()),
            Notification { code: 0, subcode: 0, data: Bytes::new() }
        );
    }
}
