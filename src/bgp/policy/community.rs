use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A community of any of the three kinds, in the notation of policies and `[advertise]`.
///
/// `65001:7` or a well-known name is a standard one (RFC 1997), `large:64496:1:2` a large one (RFC
/// 8092), `ext:rt:65001:7`, `ext:soo:10.0.0.1:7` or `ext:0x0002fde900000007` an extended one (RFC
/// 4360).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    Standard(u32),
    Large([u32; 3]),
    Ext([u8; 8]),
}

/// Why a text is not a community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a community; write 65001:7, a well-known name as no-export, large:64496:1:2, \
     ext:rt:65001:7 or ext:0x and 16 hexadecimal digits"
)]
pub struct CommunityError(pub String);

impl Community {
    /// RFC 8326 §4.
    pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
    /// RFC 9494 §4.6.
    pub const LLGR_STALE: u32 = 0xffff_0006;
    /// RFC 9494 §4.7.
    pub const NO_LLGR: u32 = 0xffff_0007;
    /// RFC 7999 §5.
    pub const BLACKHOLE: u32 = 0xffff_029a;
    /// RFC 1997.
    pub const NO_EXPORT: u32 = 0xffff_ff01;
    /// RFC 1997.
    pub const NO_ADVERTISE: u32 = 0xffff_ff02;
    /// RFC 1997.
    pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
    /// RFC 3765.
    pub const NOPEER: u32 = 0xffff_ff04;
}

/// Names in the IANA registry, in lower case.
const WELL_KNOWN: [(&str, u32); 9] = [
    ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
    ("accept-own", 0xffff_0001),
    ("llgr-stale", Community::LLGR_STALE),
    ("no-llgr", Community::NO_LLGR),
    ("blackhole", Community::BLACKHOLE),
    ("no-export", Community::NO_EXPORT),
    ("no-advertise", Community::NO_ADVERTISE),
    ("no-export-subconfed", Community::NO_EXPORT_SUBCONFED),
    ("nopeer", Community::NOPEER),
];

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parsed = if let Some(large) = text.strip_prefix("large:") {
            large_from(large).map(Self::Large)
        } else if let Some(ext) = text.strip_prefix("ext:") {
            ext_from(ext).map(Self::Ext)
        } else {
            standard_from(text).map(Self::Standard)
        };
        parsed.ok_or_else(|| CommunityError(text.to_owned()))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Standard(c) => write!(f, "{}:{}", c >> 16, c & 0xffff),
            Self::Large([a, b, c]) => write!(f, "large:{a}:{b}:{c}"),
            Self::Ext(octets) => write!(f, "ext:{}", ext_text(octets)),
        }
    }
}

/// Digits only: no sign, no space.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn standard_from(text: &str) -> Option<u32> {
    if let Some(&(_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
        return Some(value);
    }
    let (high, low) = text.split_once(':')?;
    Some(u32::from(number::<u16>(high)?) << 16 | u32::from(number::<u16>(low)?))
}

fn large_from(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split(':');
    let out = [number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?];
    parts.next().is_none().then_some(out)
}

/// `rt:AS:N`, `soo:AS:N` (RFC 4360 §4, §5; four-octet numbers by RFC 5668; addresses too), or
/// `0x…`.
fn ext_from(text: &str) -> Option<[u8; 8]> {
    if let Some(hex) = text.strip_prefix("0x") {
        let valid = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return valid.then(|| u64::from_str_radix(hex, 16).ok()).flatten().map(u64::to_be_bytes);
    }
    let (kind, rest) = text.split_once(':')?;
    let subtype: u8 = match kind {
        "rt" => 2,
        "soo" | "ro" => 3,
        _ => return None,
    };
    let (admin, local) = rest.split_once(':')?;
    let value = if let Ok(addr) = admin.parse::<Ipv4Addr>() {
        wide(1, subtype, addr.to_bits(), number(local)?)
    } else if let Some(asn) = number::<u16>(admin) {
        u64::from(subtype) << 48 | u64::from(asn) << 32 | u64::from(number::<u32>(local)?)
    } else {
        wide(2, subtype, number(admin)?, number(local)?)
    };
    Some(value.to_be_bytes())
}

/// Type, subtype, four octets, two octets.
fn wide(kind: u8, subtype: u8, admin: u32, local: u16) -> u64 {
    u64::from(kind) << 56 | u64::from(subtype) << 48 | u64::from(admin) << 16 | u64::from(local)
}

/// An extended community in the notation of `show routes`: `rt:65001:7`, else all its octets.
pub(crate) fn ext_text(octets: [u8; 8]) -> String {
    let value = u64::from_be_bytes(octets);
    let name = match octets[1] {
        2 => "rt",
        3 => "soo",
        _ => return format!("0x{value:016x}"),
    };
    let (admin, local) = ((value >> 16) as u32, value & 0xffff);
    match octets[0] {
        0 => format!("{name}:{}:{}", (value >> 32) & 0xffff, value & 0xffff_ffff),
        1 => format!("{name}:{}:{local}", Ipv4Addr::from_bits(admin)),
        2 => format!("{name}:{admin}:{local}"),
        _ => format!("0x{value:016x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_written() {
        let cases = [
            ("65001:7", "65001:7"),
            ("no-export", "65535:65281"),
            ("blackhole", "65535:666"),
            ("graceful-shutdown", "65535:0"),
            ("large:4200000000:1:2", "large:4200000000:1:2"),
            ("ext:rt:65001:7", "ext:rt:65001:7"),
            ("ext:soo:10.0.0.1:7", "ext:soo:10.0.0.1:7"),
            ("ext:rt:4200000000:7", "ext:rt:4200000000:7"),
            ("ext:0x0002fde900000007", "ext:rt:65001:7"),
            ("ext:0x4300000000000001", "ext:0x4300000000000001"),
        ];
        for (text, shown) in cases {
            let community: Community = text.parse().expect(text);
            assert_eq!(community.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<Community>(), Ok(community), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "7", "65536:1", "1:65536", "+1:2", "1:2:3", "large:1:2", "large:1:2:3:4", "No-Export"]
        {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        for text in ["ext:", "ext:rt:1", "ext:0x12", "ext:xx:1:2", "ext:rt:4200000000:65536"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }
}
