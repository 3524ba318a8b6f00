//! Sets of prefixes as lists of ranges: the prefixes that a prefix list with `deny` entries
//! permits, expressed without `deny`.

use crate::{
    bgp::policy::PrefixRange,
    net::{Family, Prefix},
};

/// Maximum number of ranges of a set that is expressed.
pub(super) const MAX_RANGES: usize = 500;

/// All prefixes of a family.
pub(super) fn all(family: Family) -> PrefixRange {
    let zero = match family {
        Family::Ipv4Unicast => Prefix::v4([0, 0, 0, 0].into(), 0),
        Family::Ipv6Unicast => Prefix::v6(0.into(), 0),
    };
    PrefixRange { prefix: zero, ge: 0, le: family.max_len() }
}

/// The prefixes that the first matching entry permits. `None`: more ranges than [`MAX_RANGES`].
pub(super) fn permitted(entries: &[(bool, PrefixRange)]) -> Option<Vec<PrefixRange>> {
    let mut denied: Vec<PrefixRange> = Vec::new();
    let mut permitted: Vec<PrefixRange> = Vec::new();
    for (permit, range) in entries {
        if *permit {
            permitted.extend(minus_all(vec![*range], &denied)?);
        } else {
            denied.push(*range);
        }
        if permitted.len() > MAX_RANGES || denied.len() > MAX_RANGES {
            return None;
        }
    }
    permitted.dedup();
    Some(permitted)
}

/// `ranges` without the prefixes in `others`. `None`: too many ranges.
pub(super) fn minus_all(mut ranges: Vec<PrefixRange>, others: &[PrefixRange]) -> Option<Vec<PrefixRange>> {
    for other in others {
        ranges = ranges.into_iter().flat_map(|r| minus(r, *other)).collect();
        if ranges.len() > MAX_RANGES {
            return None;
        }
    }
    Some(ranges)
}

/// The prefixes in both sets. `None`: too many ranges.
pub(super) fn common(a: &[PrefixRange], b: &[PrefixRange]) -> Option<Vec<PrefixRange>> {
    let mut both = Vec::new();
    for one in a {
        both.extend(b.iter().filter_map(|other| overlap(*one, *other)));
        if both.len() > MAX_RANGES {
            return None;
        }
    }
    Some(both)
}

fn overlap(a: PrefixRange, b: PrefixRange) -> Option<PrefixRange> {
    let inner = match (a.prefix.covers(b.prefix), b.prefix.covers(a.prefix)) {
        (true, _) => b.prefix,
        (_, true) => a.prefix,
        _ => return None,
    };
    lengths(inner, a.ge.max(b.ge), a.le.min(b.le))
}

/// The range with these lengths, if there are any.
fn lengths(prefix: Prefix, ge: u8, le: u8) -> Option<PrefixRange> {
    let ge = ge.max(prefix.len());
    (ge <= le).then_some(PrefixRange { prefix, ge, le })
}

fn minus(a: PrefixRange, b: PrefixRange) -> Vec<PrefixRange> {
    let Some(both) = overlap(a, b) else { return vec![a] };
    let below = both.ge.checked_sub(1).and_then(|le| lengths(a.prefix, a.ge, le));
    let above = both.le.checked_add(1).and_then(|ge| lengths(a.prefix, ge, a.le));
    let mut rest: Vec<_> = below.into_iter().chain(above).collect();
    // With these lengths, the prefixes outside of the common part: a sibling at each length on the
    // way.
    for len in a.prefix.len() + 1..=both.prefix.len() {
        rest.extend(sibling(both.prefix, len).and_then(|s| lengths(s, both.ge, both.le)));
    }
    rest
}

/// The other half of the prefix of length `len - 1` that covers `prefix`.
fn sibling(prefix: Prefix, len: u8) -> Option<Prefix> {
    match prefix.addr() {
        std::net::IpAddr::V4(addr) => {
            let bit = 1_u32.checked_shl(u32::from(32_u8.checked_sub(len)?))?;
            Some(Prefix::v4((u32::from(addr) ^ bit).into(), len))
        }
        std::net::IpAddr::V6(addr) => {
            let bit = 1_u128.checked_shl(u32::from(128_u8.checked_sub(len)?))?;
            Some(Prefix::v6((u128::from(addr) ^ bit).into(), len))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> PrefixRange {
        text.parse().unwrap()
    }

    fn shown(ranges: &[PrefixRange]) -> String {
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn deny_entries_are_subtracted() {
        let all_but_default = [(false, range("0.0.0.0/0")), (true, range("0.0.0.0/0{0,32}"))];
        assert_eq!(shown(&permitted(&all_but_default).unwrap()), "0.0.0.0/0{1,32}");
        let all_but_ten = [(false, range("10.0.0.0/8{8,32}")), (true, range("8.0.0.0/6{6,32}"))];
        assert_eq!(
            shown(&permitted(&all_but_ten).unwrap()),
            "8.0.0.0/6{6,7} 8.0.0.0/7{8,32} 11.0.0.0/8{8,32}"
        );
    }

    fn arbitrary() -> impl Strategy<Value = PrefixRange> {
        // Few bits, so that ranges overlap.
        (any::<u32>(), 0_u8..=6, 0_u8..=6, 0_u8..=6).prop_map(|(addr, len, ge, le)| {
            let prefix = Prefix::v4((addr & 0xfc00_0000).into(), len);
            let ge = ge.max(len);
            PrefixRange { prefix, ge, le: le.max(ge) }
        })
    }

    proptest! {
        #[test]
        fn what_is_permitted_is_what_the_first_match_permits(
            entries in proptest::collection::vec((any::<bool>(), arbitrary()), 0..8),
            addr: u32, len in 0_u8..=7,
        ) {
            let prefix = Prefix::v4((addr & 0xfe00_0000).into(), len);
            let first = entries.iter().find(|(_, r)| r.matches(prefix)).is_some_and(|(permit, _)| *permit);
            let ranges = permitted(&entries).unwrap();
            prop_assert_eq!(ranges.iter().any(|r| r.matches(prefix)), first, "{}", shown(&ranges));
        }

        #[test]
        fn common_is_what_both_match(
            a in proptest::collection::vec(arbitrary(), 0..4), b in proptest::collection::vec(arbitrary(), 0..4),
            addr: u32, len in 0_u8..=7,
        ) {
            let prefix = Prefix::v4((addr & 0xfe00_0000).into(), len);
            let is_in = |list: &[PrefixRange]| list.iter().any(|r| r.matches(prefix));
            prop_assert_eq!(is_in(&common(&a, &b).unwrap()), is_in(&a) && is_in(&b));
        }
    }
}
