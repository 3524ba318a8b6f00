//! Router solicitations and advertisements (RFC 4861 §4.1, §4.2), and the checks of §6.1.

use std::net::Ipv6Addr;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// The hop limit of a packet that no router has forwarded.
const HOP_LIMIT: u8 = 255;
/// Octets before the options.
const SOLICITATION_HEADER: usize = 8;
const ADVERTISEMENT_HEADER: usize = 16;
const SOURCE_LINK_LAYER: u8 = 1;

/// A packet that passed the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    Solicitation,
    Advertisement,
}

/// Why a packet is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Invalid {
    #[error("the hop limit is not 255, so a router has forwarded it")]
    Forwarded,
    #[error("the source of a router advertisement is no link-local address")]
    Source,
    #[error("the code is not 0")]
    Code,
    #[error("it is shorter than its fields")]
    Short,
    #[error("an option has no length, or ends behind the packet")]
    Option,
    #[error("it is neither a solicitation nor an advertisement")]
    Type,
}

/// Checks an ICMPv6 message without its IPv6 header. The kernel has verified the checksum.
///
/// # Errors
///
/// The first rule of RFC 4861 §6.1.1 or §6.1.2 that it breaks.
pub fn decode(message: &[u8], source: Ipv6Addr, hop_limit: u8) -> Result<Packet, Invalid> {
    let [kind, code, ..] = message else { return Err(Invalid::Short) };
    let (packet, header) = match *kind {
        SOLICITATION => (Packet::Solicitation, SOLICITATION_HEADER),
        ADVERTISEMENT => (Packet::Advertisement, ADVERTISEMENT_HEADER),
        _ => return Err(Invalid::Type),
    };
    if hop_limit != HOP_LIMIT {
        return Err(Invalid::Forwarded);
    }
    if packet == Packet::Advertisement && !source.is_unicast_link_local() {
        return Err(Invalid::Source);
    }
    if *code != 0 {
        return Err(Invalid::Code);
    }
    let options = message.get(header..).ok_or(Invalid::Short)?;
    let has_link_layer = check_options(options)?;
    // §6.1.1: who has no address yet cannot name a link-layer address for it.
    if source.is_unspecified() && has_link_layer {
        return Err(Invalid::Option);
    }
    Ok(packet)
}

/// Whether a source link-layer address is among the options.
fn check_options(mut options: &[u8]) -> Result<bool, Invalid> {
    let mut has_link_layer = false;
    while let [kind, units, ..] = options {
        let length = usize::from(*units) * 8;
        if length == 0 {
            return Err(Invalid::Option);
        }
        has_link_layer |= *kind == SOURCE_LINK_LAYER;
        options = options.get(length..).ok_or(Invalid::Option)?;
    }
    if options.is_empty() { Ok(has_link_layer) } else { Err(Invalid::Option) }
}

/// A router advertisement. Its router lifetime is 0: who receives it learns that a BGP speaker is
/// here, and no host takes this one as its default router (RFC 4861 §6.2.5). The kernel fills in
/// the checksum.
pub fn advertisement(link_layer: Option<[u8; 6]>) -> Vec<u8> {
    let mut message = vec![0; ADVERTISEMENT_HEADER];
    message[0] = ADVERTISEMENT;
    add_link_layer(&mut message, link_layer);
    message
}

/// A router solicitation.
pub fn solicitation(link_layer: Option<[u8; 6]>) -> Vec<u8> {
    let mut message = vec![0; SOLICITATION_HEADER];
    message[0] = SOLICITATION;
    add_link_layer(&mut message, link_layer);
    message
}

fn add_link_layer(message: &mut Vec<u8>, link_layer: Option<[u8; 6]>) {
    if let Some(octets) = link_layer {
        message.extend([SOURCE_LINK_LAYER, 1]);
        message.extend(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    /// As BIRD 2's radv sends it: lifetime 1800, the options MTU and prefix information.
    const BIRD: [u8; 56] = [
        134, 0, 0xaa, 0xbb, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, //
        5, 1, 0, 0, 0, 0, 0x05, 0xdc, //
        3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0, //
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn what_we_send_passes_the_checks_and_has_lifetime_zero() {
        let mac = Some([2, 0, 0, 0, 0, 7]);
        for link_layer in [None, mac] {
            let ra = advertisement(link_layer);
            assert_eq!(decode(&ra, LINK_LOCAL, 255), Ok(Packet::Advertisement));
            assert_eq!(ra[6..8], [0, 0], "router lifetime");
            assert_eq!(decode(&solicitation(link_layer), LINK_LOCAL, 255), Ok(Packet::Solicitation));
        }
        assert_eq!(advertisement(mac)[16..], [1, 1, 2, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn packets_that_break_a_rule_are_ignored() {
        let changed = |at: usize, to: u8| {
            let mut ra = BIRD.to_vec();
            ra[at] = to;
            ra
        };
        let rs = solicitation(Some([2, 0, 0, 0, 0, 7]));
        #[rustfmt::skip]
        let cases: &[(&str, Vec<u8>, Ipv6Addr, u8, Result<Packet, Invalid>)] = &[
            ("good",                     BIRD.to_vec(),      LINK_LOCAL, 255, Ok(Packet::Advertisement)),
            ("forwarded",                BIRD.to_vec(),      LINK_LOCAL, 64,  Err(Invalid::Forwarded)),
            ("global source",            BIRD.to_vec(),      GLOBAL,     255, Err(Invalid::Source)),
            ("no source",                BIRD.to_vec(),      Ipv6Addr::UNSPECIFIED, 255, Err(Invalid::Source)),
            ("code 1",                   changed(1, 1),      LINK_LOCAL, 255, Err(Invalid::Code)),
            ("lifetime 0",               [&changed(6, 0)[..7], &[0; 9]].concat(), LINK_LOCAL, 255, Ok(Packet::Advertisement)),
            ("header cut",               BIRD[..15].to_vec(), LINK_LOCAL, 255, Err(Invalid::Short)),
            ("empty",                    vec![],             LINK_LOCAL, 255, Err(Invalid::Short)),
            ("option of length 0",       changed(17, 0),     LINK_LOCAL, 255, Err(Invalid::Option)),
            ("option beyond the end",    changed(25, 5),     LINK_LOCAL, 255, Err(Invalid::Option)),
            ("half an option",           BIRD[..17].to_vec(), LINK_LOCAL, 255, Err(Invalid::Option)),
            ("neighbor solicitation",    changed(0, 135),    LINK_LOCAL, 255, Err(Invalid::Type)),
            ("solicitation",             rs.clone(),         GLOBAL,     255, Ok(Packet::Solicitation)),
            ("no address, link layer",   rs.clone(),         Ipv6Addr::UNSPECIFIED, 255, Err(Invalid::Option)),
            ("no address",               rs[..8].to_vec(),   Ipv6Addr::UNSPECIFIED, 255, Ok(Packet::Solicitation)),
            ("solicitation cut",         rs[..7].to_vec(),   LINK_LOCAL, 255, Err(Invalid::Short)),
            ("solicitation, forwarded",  rs,                 LINK_LOCAL, 254, Err(Invalid::Forwarded)),
        ];
        for (name, message, source, hop_limit, expected) in cases {
            assert_eq!(decode(message, *source, *hop_limit), *expected, "{name}");
        }
    }

    #[test]
    fn no_octets_can_panic_the_decoder() {
        let mut state = 7u64;
        for length in 0..64 {
            for _ in 0..2000 {
                let mut message: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 33) as u8
                    })
                    .collect();
                if let Some(first) = message.first_mut() {
                    *first = 133 + (*first & 1);
                }
                let _ = decode(&message, LINK_LOCAL, 255);
            }
        }
    }
}
