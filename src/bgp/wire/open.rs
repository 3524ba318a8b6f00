//! OPEN (RFC 4271 §4.2) with optional parameters in both encodings (RFC 9072).

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
/// Optional parameter that contains capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// In place of the first parameter's type: lengths have two octets (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// Content of an OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; [`Open::asn`] is the actual number.
    pub my_as: u16,
    /// In seconds; 0, or 3 and more.
    pub hold_time: u16,
    pub router_id: RouterId,
    /// In the order received, including duplicates.
    pub capabilities: Vec<Capability>,
}

/// The fixed fields and what follows the length of the optional parameters.
type Fields<'a> = (u8, u16, u16, u32, u8, &'a [u8]);

impl Open {
    /// Our own OPEN, with both AS number fields set (RFC 6793 §4.1).
    pub fn new(asn: Asn, hold_time: u16, router_id: RouterId, mut capabilities: Vec<Capability>) -> Self {
        capabilities.push(Capability::FourOctetAs(asn));
        let my_as = u16::try_from(asn).unwrap_or(AS_TRANS as u16);
        Self { my_as, hold_time, router_id, capabilities }
    }

    /// The sender's AS number, from the capability if present (RFC 6793 §4.1).
    pub fn asn(&self) -> Asn {
        let four = |c: &Capability| if let Capability::FourOctetAs(n) = c { Some(*n) } else { None };
        self.capabilities.iter().find_map(four).unwrap_or_else(|| self.my_as.into())
    }

    /// Decodes the body of an OPEN.
    ///
    /// The session checks the AS number and whether the router id equals our own (RFC 6286 §2.2).
    ///
    /// # Errors
    ///
    /// Code 2 with the subcode of RFC 4271 §6.2; for an unsupported version `data` contains the
    /// supported one.
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

    /// Appends the message with all capabilities in one parameter, using the encoding of RFC 9072
    /// only if the older one has no room.
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

/// Only the structure; the caller checks the values.
fn fields(input: &[u8]) -> IResult<&[u8], Fields<'_>> {
    (be_u8, be_u16, be_u16, be_u32, be_u8, rest).parse(input)
}

/// The optional parameters in either encoding. `length` is the one-octet field: it must be correct
/// in the older encoding and is ignored once the first type is 255 (RFC 9072 §2).
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        bgp::wire::capability::{
            AddPathFamily, GracefulFamily, GracefulRestart, LongLivedFamily, NextHopEncoding,
        },
        net::Family,
    };

    fn body(open: &Open) -> Bytes {
        let mut out = BytesMut::new();
        open.encode(&mut out);
        let frame = framing::split(&mut out, false).unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Open);
        frame.body
    }

    fn every_capability() -> Vec<Capability> {
        vec![
            Capability::family(Family::Ipv4Unicast),
            Capability::family(Family::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![NextHopEncoding { afi: 1, safi: 1, next_hop_afi: 2 }]),
            Capability::ExtendedMessage,
            Capability::Role(3),
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 4095,
                families: vec![GracefulFamily { afi: 2, safi: 1, forwarding: true }],
            }),
            Capability::AddPath(vec![AddPathFamily { afi: 1, safi: 1, mode: 3 }]),
            Capability::EnhancedRefresh,
            Capability::LongLivedGracefulRestart(vec![LongLivedFamily {
                afi: 1,
                safi: 1,
                forwarding: false,
                stale_time: 0xff_ffff,
            }]),
            Capability::Fqdn { host: "leaf1".into(), domain: "example.net".into() },
            Capability::Unknown { code: 128, value: Bytes::from_static(&[1, 2]) },
        ]
    }

    #[test]
    fn an_open_comes_back_as_it_went() {
        for asn in [1, 65534, 70000, u32::MAX] {
            let sent = Open::new(asn, 90, [10, 0, 0, 1].into(), every_capability());
            let got = Open::decode(&body(&sent)).unwrap();
            assert_eq!((&got, got.asn()), (&sent, asn));
            assert_eq!(u32::from(got.my_as), if asn > 65535 { AS_TRANS } else { asn });
        }
    }

    #[test]
    fn an_open_without_capabilities_speaks_two_octets() {
        let old = Open { my_as: 65000, hold_time: 0, router_id: [1, 1, 1, 1].into(), capabilities: vec![] };
        assert_eq!(body(&old)[..], [4, 0xfd, 0xe8, 0, 0, 1, 1, 1, 1, 0]);
        assert_eq!(Open::decode(&body(&old)).unwrap().asn(), 65000);
    }

    /// RFC 9072 §2: the longer encoding starts where the shorter one ends.
    #[test]
    fn long_parameters_take_the_extended_form() {
        for size in 200..=255 {
            let mut capabilities = vec![Capability::Unknown { code: 200, value: vec![7; size].into() }];
            for more in 0..3 {
                let open = Open { my_as: 1, hold_time: 3, router_id: [1, 1, 1, 1].into(), capabilities };
                let octets = body(&open);
                let extended = octets[9] == 255 && octets[10] == 255;
                assert_eq!(extended, (2 + size) * (more + 1) + 2 >= 255, "{size} {more}");
                assert_eq!(Open::decode(&octets), Ok(open.clone()), "{size} {more}");
                capabilities = open.capabilities;
                capabilities.push(capabilities[0].clone());
            }
        }
    }

    /// RFC 4271 §6.2, RFC 5492 §5, RFC 6286 §2.1, RFC 9072 §2: the octets after the BGP identifier.
    #[test]
    fn parameters_in_either_form_are_checked() {
        // One unknown capability each, in the longest list of the older encoding and in a longer
        // one.
        let older: &[u8] = &[&[255, 2, 253, 200, 251], &[7; 251][..]].concat();
        let long: &[u8] = &[&[255, 255, 1, 4, 2, 1, 1, 200, 255], &[7; 255][..]].concat();
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], Result<usize, u8>)] = &[
            ("none",                                   &[0],                                  Ok(0)),
            ("empty capabilities",                     &[2, 2, 0],                            Ok(0)),
            ("two parameters",                         &[8, 2, 2, 2, 0, 2, 2, 70, 0],         Ok(2)),
            ("two capabilities in one",                &[6, 2, 4, 2, 0, 70, 0],               Ok(2)),
            ("length too long",                        &[5, 2, 2, 2, 0],                      Err(0)),
            ("length too short",                       &[3, 2, 2, 2, 0],                      Err(0)),
            ("length 0 with octets behind it",         &[0, 2, 2, 2, 0],                      Err(0)),
            ("parameter longer than the list",         &[4, 2, 3, 2, 0],                      Err(0)),
            ("a single octet",                         &[1, 2],                               Err(0)),
            ("authentication",                         &[2, 1, 0],                            Err(4)),
            ("unknown parameter",                      &[3, 99, 1, 0],                        Err(4)),
            ("capability longer than the parameter",   &[4, 2, 2, 2, 1],                      Err(0)),
            ("capability of one octet",                &[3, 2, 1, 2],                         Err(0)),
            ("multiprotocol of 3",                     &[7, 2, 5, 1, 3, 0, 1, 0],             Err(0)),
            ("multiprotocol of 5",                     &[9, 2, 7, 1, 5, 0, 1, 0, 1, 0],       Err(0)),
            ("refresh of 1",                           &[5, 2, 3, 2, 1, 0],                   Err(0)),
            ("next hop encoding of 5",                 &[9, 2, 7, 5, 5, 0, 1, 0, 1, 0],       Err(0)),
            ("extended message of 1",                  &[5, 2, 3, 6, 1, 0],                   Err(0)),
            ("role of 0",                              &[4, 2, 2, 9, 0],                      Err(0)),
            ("role of 2",                              &[6, 2, 4, 9, 2, 1, 1],                Err(0)),
            ("graceful restart of 1",                  &[5, 2, 3, 64, 1, 0],                  Err(0)),
            ("graceful restart of 3",                  &[7, 2, 5, 64, 3, 0, 1, 2],            Err(0)),
            ("four-octet AS of 2",                     &[6, 2, 4, 65, 2, 0, 1],               Err(0)),
            ("four-octet AS of 5",                     &[9, 2, 7, 65, 5, 0, 0, 0, 1, 0],      Err(0)),
            ("add-path of 3",                          &[7, 2, 5, 69, 3, 0, 1, 1],            Err(0)),
            ("enhanced refresh of 1",                  &[5, 2, 3, 70, 1, 0],                  Err(0)),
            ("long-lived of 6",                        &[10, 2, 8, 71, 6, 0, 1, 1, 0, 0, 0],  Err(0)),
            ("broken host name is only unknown",       &[6, 2, 4, 73, 2, 9, 97],              Ok(1)),
            ("unknown capability",                     &[5, 2, 3, 200, 1, 0],                 Ok(1)),
            // RFC 9072 §2.
            ("extended, none",                         &[255, 255, 0, 0],                     Ok(0)),
            ("extended",                               &[255, 255, 0, 5, 2, 0, 2, 2, 0],      Ok(1)),
            ("extended, first length does not count",  &[4, 255, 0, 5, 2, 0, 2, 2, 0],        Ok(1)),
            ("extended, length too long",              &[255, 255, 0, 6, 2, 0, 2, 2, 0],      Err(0)),
            ("extended, length too short",             &[255, 255, 0, 4, 2, 0, 2, 2, 0],      Err(0)),
            ("extended, length missing",               &[255, 255, 0],                        Err(0)),
            ("extended, parameter too long",           &[255, 255, 0, 5, 2, 0, 3, 2, 0],      Err(0)),
            ("extended, unknown parameter",            &[255, 255, 0, 3, 7, 0, 0],            Err(4)),
            ("extended, type 255 inside",              &[255, 255, 0, 3, 255, 0, 0],          Err(4)),
            ("extended, two parameters",               &[255, 255, 0, 10, 2, 0, 2, 2, 0, 2, 0, 2, 70, 0], Ok(2)),
            ("extended, 260 octets of parameters",     long,                                 Ok(1)),
            ("extended, first length 1",               &[1, 255, 0, 5, 2, 0, 2, 2, 0],        Ok(1)),
            ("extended, first length 0 ends it",       &[0, 255, 0, 0],                       Err(0)),
            ("extended, nothing behind 255",           &[255],                                Err(0)),
            ("extended, nothing behind the type",      &[255, 255],                           Err(0)),
            ("extended, parameter of one octet",       &[255, 255, 0, 1, 2],                  Err(0)),
            ("extended, parameter of two octets",      &[255, 255, 0, 2, 2, 0],               Err(0)),
            ("extended, the older lengths inside",     &[255, 255, 0, 4, 2, 2, 2, 0],         Err(0)),
            ("extended, the second in the older form", &[255, 255, 0, 9, 2, 0, 2, 2, 0, 2, 2, 70, 0], Err(0)),
            ("extended, octets behind the list",       &[255, 255, 0, 0, 2],                  Err(0)),
            ("extended, authentication",               &[255, 255, 0, 3, 1, 0, 0],            Err(4)),
            ("extended, capability too long",          &[255, 255, 0, 5, 2, 0, 2, 2, 1],      Err(0)),
            ("older form, longer lengths inside",      &[5, 2, 0, 2, 2, 0],                   Err(0)),
            ("older form of 255 octets",               older,                                 Ok(1)),
            ("type 255 as the second parameter",       &[4, 2, 0, 255, 0],                    Err(4)),
        ];
        for (name, params, want) in cases {
            let octets = [&[4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1], *params].concat();
            let got = Open::decode(&octets);
            assert_eq!(got.map(|o| o.capabilities.len()).map_err(|e| e.subcode), *want, "{name}");
        }
    }

    #[test]
    fn refusals_name_their_notification() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], u8, &[u8])] = &[
            ("version 3",        &[3, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 0],        1, &[0, 4]),
            ("version 5",        &[5, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 0],        1, &[0, 4]),
            ("version, then all else", &[0, 0, 0, 0, 1, 0, 0, 0, 0, 9],          1, &[0, 4]),
            ("identifier 0",     &[4, 0xfd, 0xe9, 0, 90, 0, 0, 0, 0, 0],         3, &[]),
            ("hold time 1",      &[4, 0xfd, 0xe9, 0,  1, 10, 0, 0, 1, 0],        6, &[]),
            ("hold time 2",      &[4, 0xfd, 0xe9, 0,  2, 10, 0, 0, 1, 0],        6, &[]),
            ("version before the hold time", &[3, 0xfd, 0xe9, 0, 1, 10, 0, 0, 1, 0], 1, &[0, 4]),
            ("one octet short",  &[4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1],           0, &[]),
            ("truncated",        &[4, 0xfd],                                     0, &[]),
            ("empty",            &[],                                            0, &[]),
        ];
        for (name, body, subcode, data) in cases {
            let err = Open::decode(body).expect_err(name);
            assert_eq!((err.code, err.subcode, &err.data[..]), (Code::Open, *subcode, *data), "{name}");
        }
    }

    /// RFC 4271 §6.2, RFC 6286 §2.1: the values next to those that are rejected.
    #[test]
    fn the_least_that_is_acceptable_is_taken() {
        for hold in [0, 3, u16::MAX] {
            for id in [[0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
                let sent = Open { my_as: 1, hold_time: hold, router_id: id.into(), capabilities: vec![] };
                assert_eq!(Open::decode(&body(&sent)), Ok(sent));
            }
        }
    }

    #[test]
    fn capabilities_are_shown_by_name() {
        let names: Vec<_> = every_capability().iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "multiprotocol ipv4-unicast",
                "multiprotocol ipv6-unicast",
                "route-refresh",
                "extended-next-hop ipv4-unicast",
                "extended-message",
                "role customer",
                "graceful-restart 4095 s ipv6-unicast",
                "add-path ipv4-unicast both",
                "enhanced-route-refresh",
                "long-lived-graceful-restart ipv4-unicast 16777215 s",
                "fqdn leaf1.example.net",
                "capability 128 of 2 octets",
            ]
        );
    }
}
