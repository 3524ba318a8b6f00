//! Values that several formats use: durations, addresses, communities, prefixes.

use std::net::IpAddr;

use crate::{
    bgp::policy::{Community, PrefixRange},
    convert::router::{Keys, append, set},
    net::{Family, Prefix},
};

/// Seconds of `90s`, `1m30s`, `500ms`, or `0s`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (mut millis, mut rest) = (0_u64, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..end)?.parse().ok()?;
        let unit = rest.get(end..)?;
        let letters = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
        let scale = match unit.get(..letters)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        millis = millis.checked_add(number.checked_mul(scale)?)?;
        rest = unit.get(letters..)?;
    }
    (millis % 1000 == 0).then_some(millis / 1000)
}

/// An AS number, also as `1.10`.
pub(super) fn asn(text: &str) -> Option<u32> {
    match text.split_once('.') {
        Some((high, low)) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
        None => text.parse().ok(),
    }
    .filter(|n| !matches!(n, 0 | 23456 | 65535 | &u32::MAX))
}

/// A community as other daemons write it: `65001:7`, `64496:1:2`, `large:64496:1:2`, a number, or a
/// well-known name.
pub(super) fn community(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match text {
        "no-peer" => "nopeer",
        "planned-shut" => "graceful-shutdown",
        other => other,
    };
    let written = match (text.parse::<u32>(), text.matches(':').count()) {
        (Ok(number), _) => format!("{}:{}", number >> 16, number & 0xffff),
        (Err(_), 2) => format!("large:{text}"),
        _ => text.to_owned(),
    };
    written.parse::<Community>().ok().map(|_| written)
}

/// All prefixes inside a prefix, including itself.
pub(super) fn inside(prefix: Prefix) -> PrefixRange {
    PrefixRange { prefix, ge: prefix.len(), le: prefix.family().max_len() }
}

/// A statement that matches these ranges.
pub(super) fn about(ranges: &[PrefixRange]) -> Keys {
    let mut keys = Keys::new();
    append(&mut keys, "prefixes", ranges.iter().map(ToString::to_string));
    keys
}

/// The key `families` with the family of an address alone.
pub(super) fn only_family_of(keys: &mut Keys, address: IpAddr) {
    set(keys, "families", vec![Family::of(address).as_str().to_owned()]);
}

/// The prefixes that `192.0.2.0/24`, an address, or `192.0.2.10-192.0.2.20` consist of.
pub(super) fn prefixes(text: &str) -> Option<Vec<Prefix>> {
    let text = text.trim();
    let Some((first, last)) = text.split_once('-') else {
        let address = text.parse::<IpAddr>().map(Prefix::host);
        return text.parse::<Prefix>().or(address).ok().map(|p| vec![p]);
    };
    let (first, last) = (first.trim().parse::<IpAddr>().ok()?, last.trim().parse::<IpAddr>().ok()?);
    let (mut at, end, bits) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32_u8),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return None,
    };
    let mut found = Vec::new();
    while at <= end {
        // The largest block that begins here and ends in the range.
        let mut size = at.trailing_zeros().min(u32::from(bits));
        let last_of = |size: u32| at.checked_add(1_u128.checked_shl(size).map_or(u128::MAX, |s| s - 1));
        while last_of(size).is_none_or(|last| last > end) {
            size = size.checked_sub(1)?;
        }
        let len = bits - u8::try_from(size).ok()?;
        found.push(match bits {
            32 => Prefix::v4(u32::try_from(at).ok()?.into(), len),
            _ => Prefix::v6(at.into(), len),
        });
        let Some(next) = last_of(size).and_then(|last| last.checked_add(1)) else { break };
        at = next;
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_numbers_and_communities_have_one_form() {
        let times = [
            ("90s", Some(90)),
            ("1m30s", Some(90)),
            ("3m0s", Some(180)),
            ("2000ms", Some(2)),
            ("500ms", None),
            ("90", None),
            ("", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in times {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!((asn("64512"), asn("1.10"), asn("0"), asn("x")), (Some(64512), Some(65546), None, None));
        let communities = [
            ("65001:7", Some("65001:7")),
            ("64496:1:2", Some("large:64496:1:2")),
            ("large:64496:1:2", Some("large:64496:1:2")),
            ("4294967041", Some("65535:65281")),
            ("no-export", Some("no-export")),
            ("no-peer", Some("nopeer")),
            ("70000:1", None),
            ("vpn-only", None),
        ];
        for (text, expected) in communities {
            assert_eq!(community(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_range_of_addresses_is_the_prefixes_that_it_consists_of() {
        let shown = |text: &str| {
            prefixes(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        let cases = [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("192.0.2.0-192.0.2.255", Some("192.0.2.0/24")),
            ("192.0.2.10 - 192.0.2.20", Some("192.0.2.10/31 192.0.2.12/30 192.0.2.16/30 192.0.2.20/32")),
            ("255.255.255.254-255.255.255.255", Some("255.255.255.254/31")),
            ("0.0.0.0-255.255.255.255", Some("0.0.0.0/0")),
            ("2001:db8::-2001:db8::1", Some("2001:db8::/127")),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("::/0")),
            ("192.0.2.20-192.0.2.10", None),
            ("192.0.2.20-2001:db8::1", None),
            ("x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
