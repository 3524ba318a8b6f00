use std::{fmt, net::IpAddr, str::FromStr};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Community, PrefixRanges, ValueList};
use crate::{
    bgp::peer::PeerKey,
    net::{Asn, Family, Prefix, Source},
};

/// A statement's conditions, the changes it makes, and whether it ends the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    pub matches: Match,
    pub set: Set,
    /// `None` continues with the next statement.
    pub action: Option<Action>,
}

/// `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Accept,
    Reject,
}

/// Conditions, all of which must hold. An empty list is no condition; of a list one entry must
/// match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub prefixes: PrefixRanges,
    pub families: Vec<Family>,
    /// The neighbor that the route was learned from or, on export, is advertised to.
    pub neighbors: Vec<PeerKey>,
    pub as_path: Option<AsPathPattern>,
    /// The last AS number of the path; the own one for originated routes.
    pub origin_as: ValueList<Asn>,
    pub communities: ValueList<Community>,
    pub source: Vec<RouteSource>,
    /// Addresses (as host prefixes) and prefixes.
    pub next_hop: PrefixRanges,
}

/// Changes, made on import before the decision process and on export before sending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    /// After `remove_communities`.
    pub add_communities: Vec<Community>,
    pub remove_communities: Vec<Community>,
    /// Number of times the own AS is prepended (on export in addition to the one that eBGP
    /// prepends).
    pub prepend_as: u8,
    pub next_hop: Option<NextHopSetting>,
}

/// `set-next-hop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopSetting {
    Address(IpAddr),
    /// `"self"`: the own address on the session.
    Own,
}

/// `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteSource {
    PodCidr,
    Service,
    Network,
    Interface,
    Bgp,
}

impl From<Source> for RouteSource {
    fn from(source: Source) -> Self {
        match source {
            Source::PodCidr => Self::PodCidr,
            Source::Service => Self::Service,
            Source::Network => Self::Network,
            Source::Interface => Self::Interface,
        }
    }
}

impl FromStr for NextHopSetting {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "self" { Ok(Self::Own) } else { text.parse().map(Self::Address) }
    }
}

/// An entry of `prefixes`: exactly this prefix, or with `{ge,le}` all prefixes inside it of these
/// lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixRange {
    pub prefix: Prefix,
    pub ge: u8,
    pub le: u8,
}

/// Why a text is not a prefix range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a prefix range; write 10.0.0.0/8, or 10.0.0.0/8{{24,32}} for lengths of 24 to 32")]
pub struct RangeError(pub String);

impl PrefixRange {
    pub fn exact(prefix: Prefix) -> Self {
        Self { prefix, ge: prefix.len(), le: prefix.len() }
    }

    pub fn matches(&self, prefix: Prefix) -> bool {
        (self.ge..=self.le).contains(&prefix.len()) && self.prefix.covers(prefix)
    }
}

impl FromStr for PrefixRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let parse = || {
            let Some((prefix, lengths)) = text.split_once('{') else {
                return text.parse().ok().map(Self::exact);
            };
            let prefix: Prefix = prefix.parse().ok()?;
            let (ge, le) = lengths.strip_suffix('}')?.split_once(',')?;
            let range = Self { prefix, ge: ge.trim().parse().ok()?, le: le.trim().parse().ok()? };
            let ordered = prefix.len() <= range.ge && range.ge <= range.le;
            (ordered && range.le <= prefix.family().max_len()).then_some(range)
        };
        parse().ok_or_else(|| RangeError(text.to_owned()))
    }
}

impl fmt::Display for PrefixRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        if (self.ge, self.le) != (self.prefix.len(), self.prefix.len()) {
            write!(f, "{{{},{}}}", self.ge, self.le)?;
        }
        Ok(())
    }
}

/// `as-path`: a regular expression over the AS numbers of the path, separated by single spaces,
/// with a set as `{1,2}`. `_` matches a boundary between numbers, as on other routers.
#[derive(Clone, Debug)]
pub struct AsPathPattern {
    text: String,
    regex: Regex,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a regular expression: {why}")]
pub struct PatternError {
    pub text: String,
    pub why: String,
}

impl AsPathPattern {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches the path in text form.
    pub fn is_match(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }
}

impl FromStr for AsPathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let regex = Regex::new(&text.replace('_', "(?:^|[ ,{}()]|$)")).map_err(|e| PatternError {
            text: text.to_owned(),
            why: e.to_string().lines().last().unwrap_or_default().to_owned(),
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

impl PartialEq for AsPathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_match_by_length_inside_the_prefix() {
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.1.0.0/16", false),
            ("10.0.0.0/8{24,32}", "10.1.2.0/24", true),
            ("10.0.0.0/8{24,32}", "10.1.0.0/16", false),
            ("10.0.0.0/8{24,32}", "11.1.2.0/24", false),
            ("0.0.0.0/0{0,32}", "192.0.2.1/32", true),
            ("::/0{0,128}", "192.0.2.1/32", false),
        ];
        for (range, prefix, expected) in cases {
            let range: PrefixRange = range.parse().unwrap();
            assert_eq!(range.matches(prefix.parse().unwrap()), expected, "{range} {prefix}");
        }
        for bad in ["10.0.0.0/8{7,32}", "10.0.0.0/8{24,33}", "10.0.0.0/8{25,24}", "10.0.0.0/8{24}", "x"] {
            assert!(bad.parse::<PrefixRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_see_numbers_and_boundaries() {
        let cases = [
            ("^65001 65002$", "65001 65002", true),
            ("_65002_", "65001 65002 7", true),
            ("_65002_", "165002 650021", false),
            ("^$", "", true),
            ("_7_", "1 {7,8}", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(
                pattern.parse::<AsPathPattern>().unwrap().is_match(path),
                expected,
                "{pattern} {path}"
            );
        }
        assert!("(".parse::<AsPathPattern>().is_err());
    }
}
