//! The search field of the status page: from the query of a request to a filter for paths.

use std::net::IpAddr;

use crate::{
    bgp::rib::view::RouteFilter,
    net::{Prefix, PrefixError},
};

/// Maximum octets of a search. A prefix has at most 43.
const MAX_SEARCH: usize = 64;

/// The value of a field in the query of a request, decoded from its form
/// (`application/x-www-form-urlencoded`). Invalid UTF-8 is replaced, and too long values are cut.
pub fn field(query: Option<&str>, name: &str) -> String {
    let mut fields = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = fields.find(|(of, _)| *of == name).map_or("", |(_, value)| value);
    let mut octets = Vec::new();
    let mut rest = value.bytes();
    while let Some(octet) = rest.next().filter(|_| octets.len() < MAX_SEARCH) {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let mut ahead = rest.clone();
                match (ahead.next().and_then(hex), ahead.next().and_then(hex)) {
                    (Some(high), Some(low)) => {
                        rest = ahead;
                        high << 4 | low
                    }
                    _ => octet,
                }
            }
            octet => octet,
        });
    }
    String::from_utf8_lossy(&octets).trim().to_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The search is neither a prefix nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write a prefix as 10.1.0.0/16, or an address")]
pub struct NoSearch(#[from] PrefixError);

/// The filter for a search: all paths if it is empty, the longest match of an address, or a prefix
/// and all more specific ones.
///
/// # Errors
///
/// [`NoSearch`] for any other text.
pub fn filter(search: &str) -> Result<RouteFilter, NoSearch> {
    if search.is_empty() {
        return Ok(RouteFilter::default());
    }
    if let Ok(address) = search.parse::<IpAddr>() {
        let prefix = Some(Prefix::host(address));
        return Ok(RouteFilter { prefix, longest: true, ..RouteFilter::default() });
    }
    let prefix = search.parse()?;
    Ok(RouteFilter { prefix: Some(prefix), longer: true, ..RouteFilter::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_decoded_and_bounded() {
        for (query, expected) in [
            (None, ""),
            (Some(""), ""),
            (Some("q=10.0.0.0%2F8"), "10.0.0.0/8"),
            (Some("a=b&q=2001%3adb8%3A%3A1&q=x"), "2001:db8::1"),
            (Some("q=+10.1.2.3+"), "10.1.2.3"),
            (Some("q=%zz%4"), "%zz%4"),
            (Some("q=%ff"), "\u{fffd}"),
            (Some("Q=x&qq=y"), ""),
        ] {
            assert_eq!(field(query, "q"), expected, "{query:?}");
        }
        assert_eq!(field(Some(&format!("q={}", "x".repeat(9000))), "q").len(), MAX_SEARCH);
    }

    #[test]
    fn a_search_is_an_address_or_a_prefix() {
        assert_eq!(filter(""), Ok(RouteFilter::default()));
        assert!(filter("10.1.2.3").is_ok_and(|f| f.longest && !f.longer));
        assert!(filter("10.0.0.0/8").is_ok_and(|f| f.longer && !f.longest));
        for wrong in ["10.0.0.0/40", "web", "<script>", "10.0.0.0/8 "] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
