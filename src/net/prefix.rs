use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An address family with SAFI unicast (RFC 4760 §3, §6): the two that a host routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

impl Family {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::Ipv4Unicast } else { Self::Ipv6Unicast }
    }

    /// Address family identifier (AFI).
    pub fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// Subsequent address family identifier (SAFI): unicast.
    pub fn safi(self) -> u8 {
        1
    }

    /// The family with these identifiers, if it is one of ours.
    pub fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4Unicast),
            (2, 1) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }

    /// Longest prefix, in bits.
    pub fn max_len(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }

    /// 0 or 1, for arrays that hold one entry per family.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The notation of the configuration and of JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An IP prefix, always with its host bits zero (RFC 4271 §4.3: trailing bits are irrelevant).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    V4 { addr: Ipv4Addr, len: u8 },
    V6 { addr: Ipv6Addr, len: u8 },
}

/// Why a text or a pair of numbers is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a prefix; write an address and a length, as in 10.1.0.0/24 or 2001:db8::/64")]
pub struct PrefixError(pub String);

impl Prefix {
    /// The prefix of `addr` with `len` bits. Host bits are masked; `None` if `len` is too long.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        match addr {
            IpAddr::V4(a) if len <= 32 => Some(Self::v4(a, len)),
            IpAddr::V6(a) if len <= 128 => Some(Self::v6(a, len)),
            _ => None,
        }
    }

    /// IPv4, host bits masked; `len` above 32 counts as 32.
    pub fn v4(addr: Ipv4Addr, len: u8) -> Self {
        let len = len.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        Self::V4 { addr: (addr.to_bits() & mask).into(), len }
    }

    /// IPv6, host bits masked; `len` above 128 counts as 128.
    pub fn v6(addr: Ipv6Addr, len: u8) -> Self {
        let len = len.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Self::V6 { addr: (addr.to_bits() & mask).into(), len }
    }

    /// The prefix of a single address: /32 or /128.
    pub fn host(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => Self::v4(a, 32),
            IpAddr::V6(a) => Self::v6(a, 128),
        }
    }

    pub fn family(self) -> Family {
        match self {
            Self::V4 { .. } => Family::Ipv4Unicast,
            Self::V6 { .. } => Family::Ipv6Unicast,
        }
    }

    pub fn addr(self) -> IpAddr {
        match self {
            Self::V4 { addr, .. } => addr.into(),
            Self::V6 { addr, .. } => addr.into(),
        }
    }

    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix is no count")]
    pub fn len(self) -> u8 {
        match self {
            Self::V4 { len, .. } | Self::V6 { len, .. } => len,
        }
    }

    /// Whether this is a single address.
    pub fn is_host(self) -> bool {
        self.len() == self.family().max_len()
    }

    /// The prefixes of `len` bits that it consists of; empty if `len` is shorter. Their number
    /// doubles with each bit, so `len` should be close to its own length.
    pub fn parts(self, len: u8) -> impl Iterator<Item = Self> {
        let longer = len.checked_sub(self.len()).filter(|_| len <= self.family().max_len());
        let count = longer.map_or(0, |bits| 1u128.checked_shl(bits.into()).unwrap_or(u128::MAX));
        (0..count).map(move |n| match self {
            Self::V4 { addr, .. } => {
                let part = n.checked_shl((32 - len).into()).unwrap_or(0) as u32;
                Self::V4 { addr: (addr.to_bits() | part).into(), len }
            }
            Self::V6 { addr, .. } => {
                let part = n.checked_shl((128 - len).into()).unwrap_or(0);
                Self::V6 { addr: (addr.to_bits() | part).into(), len }
            }
        })
    }

    /// Whether `addr` is inside.
    pub fn contains(self, addr: IpAddr) -> bool {
        Self::new(addr, self.len()) == Some(self)
    }

    /// Whether `other` is equal to this prefix or inside it.
    pub fn covers(self, other: Self) -> bool {
        other.len() >= self.len() && self.contains(other.addr())
    }
}

/// Hashed as one number rather than octet by octet, since tables hash often.
impl Hash for Prefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::V4 { addr, len } => state.write_u64(u64::from(addr.to_bits()) << 8 | u64::from(*len)),
            Self::V6 { addr, len } => {
                state.write_u128(addr.to_bits());
                state.write_u8(*len);
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr(), self.len()))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let bad = || PrefixError(s.to_owned());
        let (addr, len) = s.split_once('/').ok_or_else(bad)?;
        let addr = addr.parse().map_err(|_| bad())?;
        if !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Self::new(addr, len.parse().map_err(|_| bad())?).ok_or_else(bad)
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An address and a length: `10.0.0.0/8`." })
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn host_bits_are_masked() {
        assert_eq!(p("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(p("1.2.3.4/0").to_string(), "0.0.0.0/0");
        assert_eq!(p("2001:db8::1/64").to_string(), "2001:db8::/64");
        assert_eq!(p("::1/128").to_string(), "::1/128");
    }

    #[test]
    fn containment_is_by_bits() {
        assert!(p("10.0.0.0/8").covers(p("10.255.0.0/16")));
        assert!(p("10.0.0.0/8").covers(p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/16").covers(p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/8").covers(p("2001:db8::/64")));
        assert!(p("::/0").contains("fe80::1".parse().unwrap()));
    }

    #[test]
    fn parts_make_up_the_whole() {
        let parts = |s: &str, len| p(s).parts(len).map(|p| p.to_string()).collect::<Vec<_>>();
        assert_eq!(
            parts("10.1.2.0/24", 26),
            ["10.1.2.0/26", "10.1.2.64/26", "10.1.2.128/26", "10.1.2.192/26"]
        );
        assert_eq!(parts("10.1.2.0/24", 24), ["10.1.2.0/24"]);
        assert_eq!(parts("0.0.0.0/0", 1), ["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(parts("::/0", 1), ["::/1", "8000::/1"]);
        assert_eq!(parts("fd00::/127", 128), ["fd00::/128", "fd00::1/128"]);
        assert_eq!((parts("10.0.0.0/24", 23).len(), parts("10.0.0.0/24", 33).len()), (0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for s in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "a/8", "10.0.0.0/"] {
            assert!(s.parse::<Prefix>().is_err(), "{s}");
        }
    }

    #[test]
    fn an_ipv4_prefix_is_small() {
        assert!(size_of::<Prefix>() <= 20);
    }
}
