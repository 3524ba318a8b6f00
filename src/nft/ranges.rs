//! Converts prefixes to disjoint address ranges, as nftables interval sets require.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::net::{Family, Prefix};

/// First and last address, inclusive, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub first: u128,
    pub last: u128,
}

/// The ranges covered by the prefixes of a family: sorted, with adjacent ones merged.
pub fn ranges<'a>(family: Family, prefixes: impl IntoIterator<Item = &'a Prefix>) -> BTreeSet<Range> {
    let mut all: Vec<_> = prefixes.into_iter().filter(|p| p.family() == family).map(range).collect();
    all.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(all.len());
    for next in all {
        match merged.last_mut() {
            Some(last) if next.first <= last.last.saturating_add(1) => last.last = last.last.max(next.last),
            _ => merged.push(next),
        }
    }
    merged.into_iter().collect()
}

fn range(prefix: &Prefix) -> Range {
    let first = match prefix.addr() {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let host = u32::from(prefix.family().max_len() - prefix.len());
    let mask = if host == 128 { u128::MAX } else { (1 << host) - 1 };
    Range { first, last: first | mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(prefixes: &[&str], family: Family) -> Vec<String> {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        let show = |r: &Range| match family {
            Family::Ipv4Unicast => {
                let a = |n: u128| std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap());
                format!("{}-{}", a(r.first), a(r.last))
            }
            Family::Ipv6Unicast => {
                let a = std::net::Ipv6Addr::from_bits;
                format!("{}-{}", a(r.first), a(r.last))
            }
        };
        ranges(family, &prefixes).iter().map(show).collect()
    }

    #[test]
    fn adjacent_prefixes_are_merged() {
        let v4 = ["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "10.0.3.0/24", "fd00::/64"];
        assert_eq!(shown(&v4, Family::Ipv4Unicast), ["10.0.0.0-10.0.1.255", "10.0.3.0-10.0.3.255"]);
        assert_eq!(shown(&v4, Family::Ipv6Unicast), ["fd00::-fd00::ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn the_first_and_last_address_are_handled() {
        assert_eq!(
            shown(&["0.0.0.0/0", "255.255.255.255/32"], Family::Ipv4Unicast),
            ["0.0.0.0-255.255.255.255"]
        );
        let whole = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(shown(&["::/0", "ff00::/8"], Family::Ipv6Unicast), [whole]);
    }
}
