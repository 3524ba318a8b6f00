//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    Code, WireError,
    framing::{self, HEADER, Kind},
};
use crate::net::Family;

/// Subtype 0: request to advertise all routes again (RFC 2918).
pub const REQUEST: u8 = 0;
/// Subtype 1: start of the routes (RFC 7313 §3.2).
pub const BEGIN: u8 = 1;
/// Subtype 2: end of the routes.
pub const END: u8 = 2;

/// One ROUTE-REFRESH message. Unknown families and subtypes are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    pub afi: u16,
    pub safi: u8,
    pub subtype: u8,
}

impl Refresh {
    pub fn new(family: Family, subtype: u8) -> Self {
        Self { afi: family.afi(), safi: family.safi(), subtype }
    }

    /// The family, if it is one of ours.
    pub fn family(self) -> Option<Family> {
        Family::from_wire(self.afi, self.safi)
    }

    /// Decodes the body; `enhanced`: RFC 7313 was negotiated.
    ///
    /// Octets after the fourth of a plain request (outbound route filters, RFC 5291, which we never
    /// advertise) are ignored.
    ///
    /// # Errors
    ///
    /// 7/1 with the whole message where RFC 7313 §5 requires it; else 1/2 with the length if it is
    /// too short.
    pub fn decode(body: &Bytes, enhanced: bool) -> Result<Self, WireError> {
        let subtype = body.get(2).copied();
        if enhanced && body.len() != 4 && subtype != Some(REQUEST) {
            let mut whole = BytesMut::new();
            let start = framing::begin(&mut whole, Kind::RouteRefresh);
            whole.put_slice(body);
            framing::finish(&mut whole, start);
            return Err(WireError::new(Code::RouteRefresh, 1, &whole, "ROUTE-REFRESH of a wrong length"));
        }
        let Some(mut fields) = body.get(..4) else {
            let length = u16::try_from(body.len() + HEADER).unwrap_or(u16::MAX);
            return Err(WireError::new(Code::Header, 2, &length.to_be_bytes(), "ROUTE-REFRESH too short"));
        };
        let (afi, subtype, safi) = (fields.get_u16(), fields.get_u8(), fields.get_u8());
        Ok(Self { afi, safi, subtype })
    }

    /// Appends the message.
    pub fn encode(self, out: &mut BytesMut) {
        let start = framing::begin(out, Kind::RouteRefresh);
        out.put_u16(self.afi);
        out.put_u8(self.subtype);
        out.put_u8(self.safi);
        framing::finish(out, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_comes_back_as_it_went() {
        for family in Family::ALL {
            for subtype in [REQUEST, BEGIN, END, 9] {
                let (sent, mut out) = (Refresh::new(family, subtype), BytesMut::new());
                sent.encode(&mut out);
                let frame = framing::split(&mut out, false).unwrap().unwrap();
                assert_eq!(frame.kind, Kind::RouteRefresh);
                assert_eq!(Refresh::decode(&frame.body, true), Ok(sent));
                assert_eq!(sent.family(), Some(family));
            }
        }
    }

    #[test]
    fn a_wrong_length_has_its_own_code_once_rfc_7313_is_negotiated() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], bool, Option<(Code, u8)>)] = &[
            ("begin, 5 octets",            &[0, 1, 1, 1, 0], true,  Some((Code::RouteRefresh, 1))),
            ("end, 3 octets",              &[0, 1, 2],       true,  Some((Code::RouteRefresh, 1))),
            ("nothing",                    &[],              true,  Some((Code::RouteRefresh, 1))),
            ("request, 3 octets",          &[0, 1, 0],       true,  Some((Code::Header, 2))),
            ("request with filters",       &[0, 1, 0, 1, 7], true,  None),
            ("begin, 5 octets, plain",     &[0, 1, 1, 1, 0], false, None),
            ("request, 3 octets, plain",   &[0, 1, 0],       false, Some((Code::Header, 2))),
        ];
        for (name, body, enhanced, want) in cases {
            let got = Refresh::decode(&Bytes::from_static(body), *enhanced);
            assert_eq!(got.as_ref().err().map(|e| (e.code, e.subcode)), *want, "{name}");
            if let Err(e) = got {
                let whole = e.code == Code::RouteRefresh;
                assert_eq!(e.data.len(), if whole { HEADER + body.len() } else { 2 }, "{name}");
            }
        }
    }
}
