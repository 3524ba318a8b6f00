//! OPEN (RFC 4271 §4.2) with optional parameters in both lengths (RFC 9072).

use bytes::{BufMut, BytesMut};
use nom::{
    IResult, Parser,
    combinator::{all_consuming, rest},
    multi::{length_data, many0},
    number::complete::{be_u8, be_u16, be_u32},
};

use super::{
    Code, WireError,
    capability::Capability,
    framing::{self, Kind},
};
use crate::net::{AS_TRANS, Asn, RouterId};

const VERSION: u8 = 4;
/// Optional parameter that carries capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// In place of the first parameter's type: lengths take two octets (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// What an OPEN says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; [`Open::asn`] is the real number.
    pub my_as: u16,
    /// Seconds; 0, or 3 and more.
    pub hold_time: u16,
    pub router_id: RouterId,
    /// In the order received, repetitions included.
    pub capabilities: Vec<Capability>,
}

/// The fixed fields and what follows the length of the optional parameters.
type Fields<'a> = (u8, u16, u16, u32, u8, &'a [u8]);

impl Open {
    /// Our own OPEN: sets both AS number fields (RFC 6793 §4.1).
    pub fn new(asn: Asn, hold_time: u16, router_id: RouterId, mut capabilities: Vec<Capability>) -> Self {
        capabilities.push(Capability::FourOctetAs(asn));
        let my_as = u16::try_from(asn).unwrap_or(AS_TRANS as u16);
        Self { my_as, hold_time, router_id, capabilities }
    }

    /// The sender's AS number: of the capability where it is there (RFC 6793 §4.1).
    pub fn asn(&self) -> Asn {
        let four = |c: &Capability| if let Capability::FourOctetAs(n) = c { Some(*n) } else { None };
        self.capabilities.iter().find_map(four).unwrap_or_else(|| self.my_as.into())
    }

    /// Decodes the body of an OPEN, header already stripped.
    ///
    /// The AS number and a router id equal to our own (RFC 6286 §2.2) are for the session to judge.
    ///
    /// # Errors
    ///
    /// Code 2 with the subcode of RFC 4271 §6.2; an unsupported version carries the version we
    /// do speak in `data`.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let (_, (version, my_as, hold_time, id, length, params)) =
            fields(body).map_err(|_| bad(0, &[], "OPEN shorter than its fields"))?;
        if version != VERSION {
            return Err(bad(1, &u16::from(VERSION).to_be_bytes(), "version is not 4"));
        }
        if id == 0 {
            return Err(bad(3, &[], "BGP identifier is 0"));
        }
        if hold_time == 1 || hold_time == 2 {
            return Err(bad(6, &[], "hold time of 1 or 2 seconds"));
        }
        let mut capabilities = Vec::new();
        for (kind, value) in parameters(length, params)? {
            if kind != CAPABILITIES {
                return Err(bad(4, &[], "unsupported optional parameter"));
            }
            capabilities.append(
                &mut Capability::decode_all(value).ok_or_else(|| bad(0, &[], "malformed capabilities"))?,
            );
        }
        Ok(Self { my_as, hold_time, router_id: RouterId::from_bits(id), capabilities })
    }

    /// Appends the message: all capabilities in one parameter, in the form of RFC 9072 only where the
    /// older one has no room.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut capabilities = BytesMut::new();
        self.capabilities.iter().for_each(|c| c.encode(&mut capabilities));
        let start = framing::begin(out, Kind::Open);
        out.put_u8(VERSION);
        out.put_u16(self.my_as);
        out.put_u16(self.hold_time);
        out.put_u32(self.router_id.to_bits());
        match (u8::try_from(capabilities.len() + 2), u16::try_from(capabilities.len())) {
            (Ok(2), _) => out.put_u8(0),
            (Ok(total), Ok(_)) if total < EXTENDED => {
                out.put_slice(&[total, CAPABILITIES, total - 2]);
                out.put_slice(&capabilities);
            }
            (_, length) => {
                let length = length.unwrap_or(u16::MAX);
                out.put_slice(&[EXTENDED, EXTENDED]);
                out.put_u16(length + 3);
                out.put_u8(CAPABILITIES);
                out.put_u16(length);
                out.put_slice(&capabilities);
            }
        }
        framing::finish(out, start);
    }
}

/// Shape only; what the numbers mean is judged by the caller.
fn fields(input: &[u8]) -> IResult<&[u8], Fields<'_>> {
    (be_u8, be_u16, be_u16, be_u32, be_u8, rest).parse(input)
}

/// The optional parameters in either form. `length` is the one-octet field: it must be right in the older
/// form, and once the first type is 255 it counts no more (RFC 9072 §2).
fn parameters(length: u8, input: &[u8]) -> Result<Vec<(u8, &[u8])>, WireError> {
    let parsed: IResult<&[u8], Vec<(u8, &[u8])>> = match input {
        [EXTENDED, after @ ..] if length != 0 => extended(after),
        _ if input.len() != usize::from(length) => {
            return Err(bad(0, &[], "length of the optional parameters"));
        }
        _ => all_consuming(many0((be_u8, length_data(be_u8)))).parse(input),
    };
    parsed.map(|(_, list)| list).map_err(|_| bad(0, &[], "optional parameters do not fit their length"))
}

fn extended(input: &[u8]) -> IResult<&[u8], Vec<(u8, &[u8])>> {
    let (_, list) = all_consuming(length_data(be_u16)).parse(input)?;
    all_consuming(many0((be_u8, length_data(be_u16)))).parse(list)
}

fn bad(subcode: u8, data: &[u8], what: &'static str) -> WireError {
    WireError::new(Code::Open, subcode, data, what)
}
