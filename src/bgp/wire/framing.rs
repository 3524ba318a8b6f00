//! The message header (RFC 4271 §4.1) and its errors (§6.1): splits a stream of octets into
//! messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Code, WireError};

/// Length of the header: marker, length, type.
pub const HEADER: usize = 19;
/// Length of the longest message (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;
/// Length of the longest message with RFC 8654, except for OPEN and KEEPALIVE.
pub const MAX_EXTENDED: usize = 65_535;

const MARKER: [u8; 16] = [0xff; 16];

/// Message types (RFC 4271 §4.1, RFC 2918 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl Kind {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Open, Self::Update, Self::Notification, Self::Keepalive, Self::RouteRefresh];

    /// The notation of counters and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Update => "update",
            Self::Notification => "notification",
            Self::Keepalive => "keepalive",
            Self::RouteRefresh => "route-refresh",
        }
    }

    fn from_wire(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == octet)
    }

    /// The valid lengths of a message of this type, including the header.
    ///
    /// [`Refresh::decode`](super::refresh::Refresh::decode) checks the length of ROUTE-REFRESH,
    /// whose length error has a code of its own (RFC 7313 §5).
    fn lengths(self, extended: bool) -> std::ops::RangeInclusive<usize> {
        let max = if extended { MAX_EXTENDED } else { MAX_MESSAGE };
        match self {
            Self::Open => 29..=MAX_MESSAGE,
            Self::Update => 23..=max,
            Self::Notification => 21..=max,
            Self::Keepalive => HEADER..=HEADER,
            Self::RouteRefresh => HEADER..=max,
        }
    }
}

/// One message without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub body: Bytes,
}

/// Takes the next complete message from `input` without copying it; `None` if more octets are
/// needed.
///
/// `extended`: both ends advertised RFC 8654, so messages above 4,096 octets are valid. The header
/// is checked as soon as it is complete, the marker from its first octets on.
///
/// # Errors
///
/// Code 1 with the subcodes of RFC 4271 §6.1. Data contains an invalid length or type.
pub fn split(input: &mut BytesMut, extended: bool) -> Result<Option<Frame>, WireError> {
    if !input.iter().zip(MARKER).all(|(octet, one)| *octet == one) {
        return Err(bad(1, &[], "marker is not all ones"));
    }
    let Some(mut header) = input.get(MARKER.len()..HEADER) else { return Ok(None) };
    let (length, octet) = (header.get_u16(), header.get_u8());
    let bad_length = |what| bad(2, &length.to_be_bytes(), what);
    let max = if extended { MAX_EXTENDED } else { MAX_MESSAGE };
    if !(HEADER..=max).contains(&usize::from(length)) {
        return Err(bad_length("length of no message"));
    }
    let Some(kind) = Kind::from_wire(octet) else {
        return Err(bad(3, &[octet], "unknown message type"));
    };
    if !kind.lengths(extended).contains(&usize::from(length)) {
        return Err(bad_length("length does not fit the message type"));
    }
    if input.len() < usize::from(length) {
        return Ok(None);
    }
    let mut body = input.split_to(usize::from(length)).freeze();
    body.advance(HEADER);
    Ok(Some(Frame { kind, body }))
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut BytesMut) {
    let start = begin(out, Kind::Keepalive);
    finish(out, start);
}

/// Starts a message with a header whose length [`finish`] fills in. Returns its position.
pub(super) fn begin(out: &mut BytesMut, kind: Kind) -> usize {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind as u8);
    start
}

/// Ends the message started at `start`.
pub(super) fn finish(out: &mut BytesMut, start: usize) {
    let length = out.len() - start;
    debug_assert!(length <= MAX_EXTENDED, "a message of {length} octets");
    patch_u16(out, start + MARKER.len(), length);
}

/// Overwrites two octets at `at`, which exist, with `value`, which fits.
pub(super) fn patch_u16(out: &mut BytesMut, at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn bad(subcode: u8, data: &[u8], what: &'static str) -> WireError {
    WireError::new(Code::Header, subcode, data, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of this length and type after a valid marker, followed by zeros up to `have`
    /// octets.
    fn message(length: u16, kind: u8, have: usize) -> BytesMut {
        let mut m = BytesMut::from(&MARKER[..]);
        m.put_u16(length);
        m.put_u8(kind);
        m.resize(have, 0);
        m
    }

    #[test]
    fn header_errors_name_their_notification() {
        #[rustfmt::skip]
        let cases: &[(&str, u16, u8, bool, u8, &[u8])] = &[
            ("below 19",                  18, 4, false, 2, &[0, 18]),
            ("zero",                       0, 2, false, 2, &[0, 0]),
            ("above 4096",              4097, 2, false, 2, &[0x10, 1]),
            ("all ones",               65535, 2, false, 2, &[0xff, 0xff]),
            ("OPEN below 29",             28, 1, false, 2, &[0, 28]),
            ("UPDATE below 23",           22, 2, false, 2, &[0, 22]),
            ("NOTIFICATION below 21",     20, 3, false, 2, &[0, 20]),
            ("KEEPALIVE above 19",        20, 4, false, 2, &[0, 20]),
            ("OPEN above 4096, extended", 4097, 1, true, 2, &[0x10, 1]),
            ("KEEPALIVE, extended",       4097, 4, true, 2, &[0x10, 1]),
            ("OPEN above 4096",         4097, 1, false, 2, &[0x10, 1]),
            ("NOTIFICATION above 4096", 4097, 3, false, 2, &[0x10, 1]),
            ("KEEPALIVE above 4096",    4097, 4, false, 2, &[0x10, 1]),
            ("REFRESH above 4096",      4097, 5, false, 2, &[0x10, 1]),
            ("REFRESH below 19",          18, 5, false, 2, &[0, 18]),
            ("below 19, extended",        18, 2, true,  2, &[0, 18]),
            ("UPDATE below 23, extended", 22, 2, true,  2, &[0, 22]),
            ("NOTIFICATION below 21, extended", 20, 3, true, 2, &[0, 20]),
            ("length before type",        18, 9, false, 2, &[0, 18]),
            ("type 0",                    19, 0, false, 3, &[0]),
            ("type 6",                    19, 6, false, 3, &[6]),
            ("type 255",                4096, 255, false, 3, &[255]),
        ];
        for (name, length, kind, extended, subcode, data) in cases {
            let err = split(&mut message(*length, *kind, 19), *extended).expect_err(name);
            assert_eq!((err.code, err.subcode, &err.data[..]), (Code::Header, *subcode, *data), "{name}");
        }
    }

    #[test]
    fn a_wrong_marker_is_seen_at_its_first_octet() {
        for n in 0..16 {
            let mut m = message(19, 4, 19);
            m[n] = 0xfe;
            assert_eq!(split(&mut m, false).unwrap_err().subcode, 1, "octet {n}");
        }
        assert_eq!(split(&mut BytesMut::from(&b"GET"[..]), false).unwrap_err().subcode, 1);
    }

    /// The bounds of RFC 4271 §6.1 and RFC 8654 §4 are inclusive.
    #[test]
    fn the_longest_messages_pass() {
        #[rustfmt::skip]
        let cases: &[(u8, bool, &[u16])] = &[
            (1, false, &[29, 4096]), (1, true, &[29, 4096]),
            (2, false, &[23, 4096]), (2, true, &[23, 4096, 4097, 65535]),
            (3, false, &[21, 4096]), (3, true, &[21, 4096, 4097, 65535]),
            (4, false, &[19]),       (4, true, &[19]),
            (5, false, &[23, 4096]), (5, true, &[23, 4096, 4097, 65535]),
        ];
        for &(kind, extended, lengths) in cases {
            for &length in lengths {
                let frame = split(&mut message(length, kind, length.into()), extended).unwrap().unwrap();
                assert_eq!((frame.kind as u8, frame.body.len() + HEADER), (kind, usize::from(length)));
            }
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let mut whole = BytesMut::new();
        keepalive(&mut whole);
        whole.extend_from_slice(&message(30, 2, 30));
        keepalive(&mut whole);
        for cut in 0..=whole.len() {
            let (mut input, mut kinds) = (BytesMut::new(), Vec::new());
            for part in [&whole[..cut], &whole[cut..]] {
                input.extend_from_slice(part);
                while let Some(frame) = split(&mut input, false).unwrap() {
                    kinds.push((frame.kind, frame.body.len()));
                }
            }
            assert_eq!(kinds, [(Kind::Keepalive, 0), (Kind::Update, 11), (Kind::Keepalive, 0)], "cut {cut}");
            assert!(input.is_empty());
        }
    }
}
