//! Encoding and decoding of prefixes (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).

use bytes::{BufMut, Bytes, BytesMut};

use crate::net::{Family, Prefix};

/// One prefix as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// RFC 7911 §3; 0 without ADD-PATH.
    pub path_id: u32,
    pub prefix: Prefix,
}

/// A list of NLRI with its syntax validated but not decoded: iteration allocates nothing and cannot
/// fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NlriBlock {
    pub family: Family,
    /// Whether each entry starts with a path identifier (RFC 7911 §3).
    pub add_path: bool,
    pub bytes: Bytes,
}

/// Whether no length exceeds 32 or 128 and the last prefix is complete (RFC 7606 §5.3).
pub(super) fn is_valid(family: Family, add_path: bool, octets: &[u8]) -> bool {
    let mut walk = Walk { family, add_path, rest: octets };
    while walk.next().is_some() {}
    walk.rest.is_empty()
}

impl NlriBlock {
    /// The prefixes with host bits masked.
    pub fn iter(&self) -> impl Iterator<Item = Nlri> + '_ {
        Walk { family: self.family, add_path: self.add_path, rest: &self.bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Stops at the end, or before the first malformed entry.
struct Walk<'a> {
    family: Family,
    add_path: bool,
    rest: &'a [u8],
}

impl Iterator for Walk<'_> {
    type Item = Nlri;

    fn next(&mut self) -> Option<Nlri> {
        let (path_id, rest) = match (self.add_path, self.rest) {
            (false, rest) => (0, rest),
            (true, [a, b, c, d, rest @ ..]) => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
            (true, _) => return None,
        };
        let (&len, rest) = rest.split_first()?;
        if len > self.family.max_len() {
            return None;
        }
        let (octets, rest) = rest.split_at_checked(octets(len))?;
        self.rest = rest;
        let prefix = match self.family {
            Family::Ipv4Unicast => Prefix::v4(padded::<4>(octets).into(), len),
            Family::Ipv6Unicast => Prefix::v6(padded::<16>(octets).into(), len),
        };
        Some(Nlri { path_id, prefix })
    }
}

/// Number of octets of a prefix of `len` bits.
fn octets(len: u8) -> usize {
    usize::from(len).div_ceil(8)
}

/// At most `N` octets, padded with zeros.
fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    whole.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
    whole
}

impl Nlri {
    /// A prefix without a path identifier.
    pub fn new(prefix: Prefix) -> Self {
        Self { path_id: 0, prefix }
    }

    /// Encoded length in octets.
    pub(super) fn wire_len(self, add_path: bool) -> usize {
        1 + octets(self.prefix.len()) + if add_path { 4 } else { 0 }
    }

    pub(super) fn encode(self, add_path: bool, out: &mut BytesMut) {
        if add_path {
            out.put_u32(self.path_id);
        }
        out.put_u8(self.prefix.len());
        let used = octets(self.prefix.len());
        match self.prefix {
            Prefix::V4 { addr, .. } => out.put_slice(addr.octets().get(..used).unwrap_or_default()),
            Prefix::V6 { addr, .. } => out.put_slice(addr.octets().get(..used).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(family: Family, add_path: bool, octets: &'static [u8]) -> Option<String> {
        let block = NlriBlock { family, add_path, bytes: Bytes::from_static(octets) };
        if !is_valid(family, add_path, octets) {
            return None;
        }
        let one =
            |n: Nlri| if add_path { format!("{}@{}", n.prefix, n.path_id) } else { n.prefix.to_string() };
        Some(block.iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn prefixes_are_read_with_host_bits_masked() {
        use Family::{Ipv4Unicast as V4, Ipv6Unicast as V6};
        #[rustfmt::skip]
        let cases: &[(Family, bool, &[u8], Option<&str>)] = &[
            (V4, false, &[],                                 Some("")),
            (V4, false, &[0],                                Some("0.0.0.0/0")),
            (V4, false, &[8, 10, 24, 192, 0, 2],             Some("10.0.0.0/8 192.0.2.0/24")),
            (V4, false, &[20, 10, 1, 0xff],                  Some("10.1.240.0/20")),
            (V4, false, &[1, 0xff],                          Some("128.0.0.0/1")),
            (V4, false, &[32, 192, 0, 2, 1],                 Some("192.0.2.1/32")),
            (V4, false, &[33, 192, 0, 2, 1, 0],              None),
            (V4, false, &[255],                              None),
            (V4, false, &[24, 192, 0],                       None),
            (V4, false, &[8, 10, 8],                         None),
            (V4, true,  &[0, 0, 0, 7, 8, 10, 0, 0, 0, 0, 0], Some("10.0.0.0/8@7 0.0.0.0/0@0")),
            (V4, true,  &[0, 0, 0],                          None),
            (V4, true,  &[0, 0, 0, 1],                       None),
            (V4, true,  &[0, 0, 0, 1, 8],                    None),
            (V6, false, &[32, 0x20, 1, 0xd, 0xb8],           Some("2001:db8::/32")),
            (V6, false, &[9, 0x20, 0xff],                    Some("2080::/9")),
            (V6, false, &[129],                              None),
            (V6, false, &[64, 0x20, 1],                      None),
        ];
        for (family, add_path, octets, want) in cases {
            assert_eq!(list(*family, *add_path, octets).as_deref(), *want, "{octets:?}");
        }
    }
}
