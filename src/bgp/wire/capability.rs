//! Encoding and decoding of the capabilities of an OPEN (RFC 5492).
//!
//! Families, modes and roles remain numbers here: `session::negotiate` decides about unknown ones.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    IResult, Parser,
    combinator::{all_consuming, map},
    multi::{length_data, many0},
    number::complete::{be_u8, be_u16, be_u24, be_u32},
};

use crate::net::{Asn, Family};

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// 1 (RFC 4760 §8).
    Multiprotocol { afi: u16, safi: u8 },
    /// 2 (RFC 2918).
    RouteRefresh,
    /// 5 (RFC 8950 §4).
    ExtendedNextHop(Vec<NextHopEncoding>),
    /// 6 (RFC 8654).
    ExtendedMessage,
    /// 9 (RFC 9234 §4.1): 0 provider, 1 route server, 2 its client, 3 customer, 4 peer.
    Role(u8),
    /// 64 (RFC 4724 §3, RFC 8538 §2).
    GracefulRestart(GracefulRestart),
    /// 65 (RFC 6793).
    FourOctetAs(Asn),
    /// 69 (RFC 7911 §4).
    AddPath(Vec<AddPathFamily>),
    /// 70 (RFC 7313).
    EnhancedRefresh,
    /// 71 (RFC 9494 §3).
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// 73 (draft-walton-bgp-hostname-capability), shown only.
    Fqdn { host: String, domain: String },
    /// Any other, kept for display.
    Unknown { code: u8, value: Bytes },
}

/// One triple of RFC 8950 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopEncoding {
    pub afi: u16,
    pub safi: u16,
    pub next_hop_afi: u16,
}

/// RFC 4724 §3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit: a NOTIFICATION does not end graceful restart (RFC 8538 §2).
    pub notification: bool,
    /// Seconds, 12 bits.
    pub restart_time: u16,
    pub families: Vec<GracefulFamily>,
}

/// A family with its F bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulFamily {
    pub afi: u16,
    pub safi: u8,
    pub forwarding: bool,
}

/// One tuple of RFC 7911 §4; `mode` is 1 receive, 2 send, 3 both; others must be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathFamily {
    pub afi: u16,
    pub safi: u8,
    pub mode: u8,
}

/// One tuple of RFC 9494 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    pub afi: u16,
    pub safi: u8,
    pub forwarding: bool,
    /// Seconds, 24 bits.
    pub stale_time: u32,
}

impl Capability {
    /// Multiprotocol for one of our families.
    pub fn family(family: Family) -> Self {
        Self::Multiprotocol { afi: family.afi(), safi: family.safi() }
    }

    /// The capability code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol { .. } => 1,
            Self::RouteRefresh => 2,
            Self::ExtendedNextHop(_) => 5,
            Self::ExtendedMessage => 6,
            Self::Role(_) => 9,
            Self::GracefulRestart(_) => 64,
            Self::FourOctetAs(_) => 65,
            Self::AddPath(_) => 69,
            Self::EnhancedRefresh => 70,
            Self::LongLivedGracefulRestart(_) => 71,
            Self::Fqdn { .. } => 73,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Decodes a list of capabilities; `None` if one of them has an invalid length.
    pub(super) fn decode_all(input: &[u8]) -> Option<Vec<Self>> {
        let parsed: IResult<&[u8], Vec<(u8, &[u8])>> =
            all_consuming(many0((be_u8, length_data(be_u8)))).parse(input);
        let (_, raw) = parsed.ok()?;
        raw.into_iter().map(|(code, value)| Self::decode(code, value)).collect()
    }

    fn decode(code: u8, value: &[u8]) -> Option<Self> {
        let decoded = match code {
            1 => map((be_u16, be_u8, be_u8), |(afi, _, safi)| Self::Multiprotocol { afi, safi }).parse(value),
            2 => Ok((value, Self::RouteRefresh)),
            5 => map(many0(next_hop_encoding), Self::ExtendedNextHop).parse(value),
            6 => Ok((value, Self::ExtendedMessage)),
            9 => map(be_u8, Self::Role).parse(value),
            64 => map(graceful_restart, Self::GracefulRestart).parse(value),
            65 => map(be_u32, Self::FourOctetAs).parse(value),
            69 => map(many0(add_path_family), Self::AddPath).parse(value),
            70 => Ok((value, Self::EnhancedRefresh)),
            71 => map(many0(long_lived_family), Self::LongLivedGracefulRestart).parse(value),
            // Only displayed, so a malformed one is no reason to refuse a neighbor.
            73 => return Some(fqdn(value).unwrap_or_else(|| Self::unknown(code, value))),
            _ => return Some(Self::unknown(code, value)),
        };
        decoded.ok().filter(|(rest, _)| rest.is_empty()).map(|(_, capability)| capability)
    }

    fn unknown(code: u8, value: &[u8]) -> Self {
        Self::Unknown { code, value: Bytes::copy_from_slice(value) }
    }

    /// Appends code, length and value. What exceeds 255 octets is left out.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        self.encode_value(&mut value);
        if let Ok(length) = u8::try_from(value.len()) {
            out.put_u8(self.code());
            out.put_u8(length);
            out.put_slice(&value);
        }
    }

    fn encode_value(&self, out: &mut BytesMut) {
        match self {
            Self::Multiprotocol { afi, safi } => {
                out.put_u16(*afi);
                out.put_u8(0);
                out.put_u8(*safi);
            }
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRefresh => {}
            Self::ExtendedNextHop(triples) => {
                for t in triples {
                    out.put_u16(t.afi);
                    out.put_u16(t.safi);
                    out.put_u16(t.next_hop_afi);
                }
            }
            Self::Role(role) => out.put_u8(*role),
            Self::GracefulRestart(g) => {
                let flags = u16::from(g.restarting) << 15 | u16::from(g.notification) << 14;
                out.put_u16(flags | g.restart_time.min(RESTART_TIME));
                for f in &g.families {
                    out.put_u16(f.afi);
                    out.put_u8(f.safi);
                    out.put_u8(u8::from(f.forwarding) << 7);
                }
            }
            Self::FourOctetAs(asn) => out.put_u32(*asn),
            Self::AddPath(families) => {
                for f in families {
                    out.put_u16(f.afi);
                    out.put_u8(f.safi);
                    out.put_u8(f.mode);
                }
            }
            Self::LongLivedGracefulRestart(families) => {
                for f in families {
                    out.put_u16(f.afi);
                    out.put_u8(f.safi);
                    out.put_u32(u32::from(f.forwarding) << 31 | f.stale_time.min(STALE_TIME));
                }
            }
            Self::Fqdn { host, domain } => {
                for name in [host, domain] {
                    let name = name.as_bytes();
                    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    out.put_slice(name.get(..255).unwrap_or(name));
                }
            }
            Self::Unknown { value, .. } => out.put_slice(value),
        }
    }
}

/// Largest restart time: 12 bits.
const RESTART_TIME: u16 = 0x0fff;
/// Largest long-lived stale time: 24 bits.
const STALE_TIME: u32 = 0x00ff_ffff;

fn next_hop_encoding(input: &[u8]) -> IResult<&[u8], NextHopEncoding> {
    map((be_u16, be_u16, be_u16), |(afi, safi, next_hop_afi)| NextHopEncoding { afi, safi, next_hop_afi })
        .parse(input)
}

fn graceful_restart(input: &[u8]) -> IResult<&[u8], GracefulRestart> {
    let family = map((be_u16, be_u8, be_u8), |(afi, safi, flags)| GracefulFamily {
        afi,
        safi,
        forwarding: flags & 0x80 != 0,
    });
    map((be_u16, many0(family)), |(header, families)| GracefulRestart {
        restarting: header & 0x8000 != 0,
        notification: header & 0x4000 != 0,
        restart_time: header & RESTART_TIME,
        families,
    })
    .parse(input)
}

fn add_path_family(input: &[u8]) -> IResult<&[u8], AddPathFamily> {
    map((be_u16, be_u8, be_u8), |(afi, safi, mode)| AddPathFamily { afi, safi, mode }).parse(input)
}

fn long_lived_family(input: &[u8]) -> IResult<&[u8], LongLivedFamily> {
    map((be_u16, be_u8, be_u8, be_u24), |(afi, safi, flags, stale_time)| LongLivedFamily {
        afi,
        safi,
        forwarding: flags & 0x80 != 0,
        stale_time,
    })
    .parse(input)
}

fn fqdn(value: &[u8]) -> Option<Capability> {
    let parsed: IResult<&[u8], (&[u8], &[u8])> = (length_data(be_u8), length_data(be_u8)).parse(value);
    let (rest, (host, domain)) = parsed.ok()?;
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).ok();
    rest.is_empty().then_some(Capability::Fqdn { host: text(host)?, domain: text(domain)? })
}

/// A family by name, or by numbers if it is not one of ours.
struct Named(u16, u16);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u8::try_from(self.1).ok().and_then(|safi| Family::from_wire(self.0, safi)) {
            Some(family) => write!(f, "{family}"),
            None => write!(f, "{}/{}", self.0, self.1),
        }
    }
}

/// The notation of `show neighbor`.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |afi: u16, safi: u8| Named(afi, safi.into());
        match self {
            Self::Multiprotocol { afi, safi } => write!(f, "multiprotocol {}", family(*afi, *safi)),
            Self::RouteRefresh => f.write_str("route-refresh"),
            Self::ExtendedNextHop(triples) => {
                f.write_str("extended-next-hop")?;
                triples.iter().try_for_each(|t| write!(f, " {}", Named(t.afi, t.safi)))
            }
            Self::ExtendedMessage => f.write_str("extended-message"),
            Self::Role(role) => match role {
                0 => f.write_str("role provider"),
                1 => f.write_str("role rs"),
                2 => f.write_str("role rs-client"),
                3 => f.write_str("role customer"),
                4 => f.write_str("role peer"),
                n => write!(f, "role {n}"),
            },
            Self::GracefulRestart(g) => {
                write!(f, "graceful-restart {} s", g.restart_time)?;
                g.families.iter().try_for_each(|x| write!(f, " {}", family(x.afi, x.safi)))
            }
            Self::FourOctetAs(asn) => write!(f, "four-octet-as {asn}"),
            Self::AddPath(families) => {
                f.write_str("add-path")?;
                families.iter().try_for_each(|x| {
                    let mode = match x.mode {
                        1 => "receive",
                        2 => "send",
                        3 => "both",
                        _ => "?",
                    };
                    write!(f, " {} {mode}", family(x.afi, x.safi))
                })
            }
            Self::EnhancedRefresh => f.write_str("enhanced-route-refresh"),
            Self::LongLivedGracefulRestart(families) => {
                f.write_str("long-lived-graceful-restart")?;
                families.iter().try_for_each(|x| write!(f, " {} {} s", family(x.afi, x.safi), x.stale_time))
            }
            Self::Fqdn { host, domain } if domain.is_empty() => write!(f, "fqdn {}", host.escape_default()),
            Self::Fqdn { host, domain } => {
                write!(f, "fqdn {}.{}", host.escape_default(), domain.escape_default())
            }
            Self::Unknown { code, value } => write!(f, "capability {code} of {} octets", value.len()),
        }
    }
}
