//! Prefix lists, access lists, lists of AS paths and of communities.

use std::collections::BTreeMap;

use super::unfit::{ListName, Unfit};
use crate::{
    bgp::policy::{AsPathPattern, Community, PrefixRange},
    convert::{ledger::LineId, ranges},
    net::{Family, PerFamily, Prefix},
};

/// An entry of a list: whether it permits, and the pattern.
#[derive(Clone, Debug)]
struct Entry<T> {
    sequence: u32,
    permit: bool,
    /// `None`: the pattern is not understood.
    what: Option<T>,
}

/// A list by name, in the order in which it is evaluated.
#[derive(Clone, Debug)]
struct List<T>(BTreeMap<String, Vec<Entry<T>>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// All lists of a configuration.
#[derive(Debug, Default)]
pub(super) struct Lists {
    prefixes: PerFamily<List<PrefixRange>>,
    access: PerFamily<List<PrefixRange>>,
    paths: List<String>,
    communities: List<Vec<Community>>,
    large: List<Vec<Community>>,
}

impl<T: Clone> List<T> {
    fn add(&mut self, name: &str, sequence: Option<u32>, permit: bool, what: Option<T>) {
        let list = self.0.entry(name.to_owned()).or_default();
        let last = list.last().map_or(0, |e| e.sequence);
        let sequence = sequence.unwrap_or_else(|| last.saturating_add(5));
        list.retain(|e| e.sequence != sequence);
        list.push(Entry { sequence, permit, what });
        list.sort_by_key(|e| e.sequence);
    }

    fn entries(&self, kind: &'static str, name: &str) -> Result<Vec<(bool, T)>, Unfit> {
        let Some(list) = self.0.get(name) else { return Ok(Vec::new()) };
        let known = list.iter().map(|e| e.what.clone().map(|what| (e.permit, what)));
        known.collect::<Option<_>>().ok_or_else(|| Unfit::Entry(list_name(kind, name)))
    }
}

impl Lists {
    /// `ip|ipv6 prefix-list NAME [seq N] permit|deny PREFIX [ge N] [le N]`, from the name on.
    pub(super) fn prefix_list(&mut self, family: Family, words: &[&str]) -> Result<(), Unfit> {
        let Some((name, words)) = words.split_first() else { return Err(Unfit::NoName) };
        if words.first() == Some(&"description") {
            return Ok(());
        }
        let (sequence, words) = sequence(words);
        let (permit, words) = permit(words)?;
        let range = range(family, words);
        let list = &mut self.prefixes[family];
        list.add(name, sequence, permit, range.as_ref().ok().copied());
        range.map(|_| ())
    }

    /// `[ip|ipv6] access-list NAME [seq N] permit|deny PREFIX [exact-match]`, from the name on.
    pub(super) fn access_list(&mut self, family: Family, words: &[&str]) -> Result<(), Unfit> {
        let Some((name, words)) = words.split_first() else { return Err(Unfit::NoName) };
        if words.first() == Some(&"remark") {
            return Ok(());
        }
        let (sequence, words) = sequence(words);
        let (permit, words) = permit(words)?;
        let range = access_range(family, words);
        self.access[family].add(name, sequence, permit, range.as_ref().ok().copied());
        range.map(|_| ())
    }

    /// `as-path access-list NAME [seq N] permit|deny REGEX`, from the name on.
    pub(super) fn as_path_list(&mut self, words: &[&str]) -> Result<(), Unfit> {
        let Some((name, words)) = words.split_first() else { return Err(Unfit::NoName) };
        let (sequence, words) = sequence(words);
        let (permit, words) = permit(words)?;
        let pattern = pattern(&words.join(" "));
        self.paths.add(name, sequence, permit, pattern.as_ref().ok().cloned());
        pattern.map(|_| ())
    }

    /// `community-list [standard|expanded] NAME [seq N] permit|deny …`, from the kind on.
    pub(super) fn community_list(&mut self, words: &[&str], large: bool) -> Result<(), Unfit> {
        let (kind, words) = match words.split_first() {
            Some((kind @ (&"standard" | &"expanded"), rest)) => (Some(*kind), rest),
            _ => (None, words),
        };
        let Some((name, words)) = words.split_first() else { return Err(Unfit::NoName) };
        let (sequence, words) = sequence(words);
        let (permit, words) = permit(words)?;
        let number: Option<u32> = name.parse().ok();
        let expanded = kind == Some("expanded") || kind.is_none() && number.is_some_and(|n| n >= 100);
        let communities = if expanded { literal(&words.join(" "), large) } else { communities(words, large) };
        let list = if large { &mut self.large } else { &mut self.communities };
        list.add(name, sequence, permit, communities.as_ref().ok().cloned());
        communities.map(|_| ())
    }

    /// Whether there is such a list.
    pub(super) fn has_prefix_list(&self, family: Family, name: &str) -> bool {
        self.prefixes[family].0.contains_key(name)
    }

    pub(super) fn has_access_list(&self, family: Family, name: &str) -> bool {
        self.access[family].0.contains_key(name)
    }

    pub(super) fn has_path(&self, name: &str) -> bool {
        self.paths.0.contains_key(name)
    }

    pub(super) fn has_community(&self, name: &str, large: bool) -> bool {
        let list = if large { &self.large } else { &self.communities };
        list.0.contains_key(name)
    }

    /// The prefixes that a prefix list permits; none if it does not exist.
    pub(super) fn prefixes(&self, family: Family, name: &str) -> Result<Vec<PrefixRange>, Unfit> {
        let entries = self.prefixes[family].entries("prefix list", name)?;
        ranges::permitted(&entries).ok_or_else(|| too_many("prefix list", name))
    }

    /// The prefixes that an access list permits.
    pub(super) fn access(&self, family: Family, name: &str) -> Result<Vec<PrefixRange>, Unfit> {
        let entries = self.access[family].entries("access list", name)?;
        ranges::permitted(&entries).ok_or_else(|| too_many("access list", name))
    }

    /// The entries of a list of AS paths, in order.
    pub(super) fn path_entries(&self, name: &str) -> Result<Vec<(bool, String)>, Unfit> {
        self.paths.entries("AS path list", name)
    }

    /// A list of AS paths as one pattern.
    pub(super) fn path(&self, name: &str) -> Result<Option<String>, Unfit> {
        let entries = self.path_entries(name)?;
        if entries.iter().any(|(permit, _)| !permit) {
            return Err(Unfit::DenyEntries(list_name("AS path list", name)));
        }
        Ok(match entries.as_slice() {
            [] => None,
            [(_, pattern)] => Some(pattern.clone()),
            _ => Some(entries.iter().map(|(_, p)| format!("({p})")).collect::<Vec<_>>().join("|")),
        })
    }

    /// A list of communities, one of which must be present; empty if nothing can match.
    pub(super) fn community(&self, name: &str, large: bool) -> Result<Vec<Community>, Unfit> {
        let list = if large { &self.large } else { &self.communities };
        let entries = list.entries("community list", name)?;
        let mut one_of = Vec::new();
        for (permit, all_of) in entries {
            match all_of.as_slice() {
                _ if !permit => return Err(Unfit::DenyEntries(list_name("community list", name))),
                [one] => one_of.push(*one),
                _ => return Err(Unfit::SeveralCommunities(list_name("community list", name))),
            }
        }
        Ok(one_of)
    }
}

fn list_name(kind: &'static str, name: &str) -> ListName {
    ListName { kind, name: name.to_owned() }
}

fn too_many(kind: &'static str, name: &str) -> Unfit {
    Unfit::TooManyEntries(list_name(kind, name))
}

fn sequence<'w, 'a>(words: &'w [&'a str]) -> (Option<u32>, &'w [&'a str]) {
    match words {
        ["seq" | "sequence-number", n, rest @ ..] => (n.parse().ok(), rest),
        _ => (None, words),
    }
}

fn permit<'w, 'a>(words: &'w [&'a str]) -> Result<(bool, &'w [&'a str]), Unfit> {
    match words {
        ["permit", rest @ ..] => Ok((true, rest)),
        ["deny", rest @ ..] => Ok((false, rest)),
        _ => Err(Unfit::NoAction),
    }
}

fn range(family: Family, words: &[&str]) -> Result<PrefixRange, Unfit> {
    let unknown = || Unfit::Range(words.join(" "));
    let (prefix, mut bounds) = words.split_first().ok_or_else(unknown)?;
    if *prefix == "any" {
        return if bounds.is_empty() { Ok(ranges::all(family)) } else { Err(unknown()) };
    }
    let prefix: Prefix = prefix.parse().map_err(|_| unknown())?;
    let (mut ge, mut le) = (None, None);
    while let [which, n, rest @ ..] = bounds {
        let bound = match *which {
            "ge" => &mut ge,
            "le" => &mut le,
            _ => return Err(unknown()),
        };
        *bound = Some(n.parse::<u8>().map_err(|_| unknown())?);
        bounds = rest;
    }
    let range = match (ge, le) {
        (None, None) => PrefixRange::exact(prefix),
        (Some(ge), None) => PrefixRange { prefix, ge, le: family.max_len() },
        (ge, Some(le)) => PrefixRange { prefix, ge: ge.unwrap_or(prefix.len()), le },
    };
    let is_good = prefix.family() == family
        && prefix.len() <= range.ge
        && range.ge <= range.le
        && range.le <= family.max_len()
        && bounds.is_empty();
    if is_good { Ok(range) } else { Err(unknown()) }
}

/// An access list matches all prefixes inside the prefix; with `exact-match`, only the prefix
/// itself.
fn access_range(family: Family, words: &[&str]) -> Result<PrefixRange, Unfit> {
    let unknown = || Unfit::AccessPrefix(words.join(" "));
    match words {
        ["any"] => Ok(ranges::all(family)),
        [prefix, rest @ ..] => {
            let prefix: Prefix = prefix.parse().map_err(|_| unknown())?;
            match rest {
                _ if prefix.family() != family => Err(unknown()),
                [] => Ok(PrefixRange { prefix, ge: prefix.len(), le: family.max_len() }),
                ["exact-match"] => Ok(PrefixRange::exact(prefix)),
                _ => Err(unknown()),
            }
        }
        [] => Err(unknown()),
    }
}

/// A regular expression that both daemons understand in the same way.
fn pattern(text: &str) -> Result<String, Unfit> {
    let is_common = |c: char| c.is_ascii_digit() || " _^$.*+?()[]|-".contains(c);
    if text.is_empty() || !text.chars().all(is_common) {
        return Err(Unfit::Regex(text.to_owned()));
    }
    text.parse::<AsPathPattern>()?;
    Ok(text.to_owned())
}

/// An expanded list whose regular expression stands for one community. With `^` and `$` the
/// expression matches all communities of a route together: only this one, and no other.
fn literal(text: &str, large: bool) -> Result<Vec<Community>, Unfit> {
    let regex = || Unfit::CommunityRegex(text.to_owned());
    let inner = text.strip_prefix('_').and_then(|t| t.strip_suffix('_'));
    let inner = inner.filter(|t| t.chars().all(|c| c.is_ascii_digit() || c == ':'));
    communities(&[inner.ok_or_else(regex)?], large).map_err(|_| regex())
}

pub(super) fn communities(words: &[&str], large: bool) -> Result<Vec<Community>, Unfit> {
    let found: Result<Vec<_>, _> = words.iter().map(|word| community(word, large)).collect();
    match found {
        Ok(list) if list.is_empty() => Err(Unfit::NoCommunity),
        found => found,
    }
}

/// A community in FRR's notation.
fn community(word: &str, large: bool) -> Result<Community, Unfit> {
    let unknown = || Unfit::Community(word.to_owned());
    if large {
        return format!("large:{word}").parse().map_err(|_| unknown());
    }
    if let Ok(number) = word.parse::<u32>() {
        return Ok(Community::Standard(number));
    }
    let name = match word {
        "local-AS" | "local-as" => "no-export-subconfed",
        "no-peer" => "nopeer",
        "internet" => return Err(Unfit::Internet),
        other => other,
    };
    name.parse().map_err(|_| unknown())
}

/// Where a list or map is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) name: String,
    pub(super) at: LineId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ranges: Result<Vec<PrefixRange>, Unfit>) -> String {
        ranges.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn prefix_lists_are_what_the_first_match_permits() {
        let mut lists = Lists::default();
        let mut add =
            |line: &str| lists.prefix_list(Family::Ipv4Unicast, &line.split_whitespace().collect::<Vec<_>>());
        add("P seq 20 permit 0.0.0.0/0 le 32").unwrap();
        add("P seq 10 deny 0.0.0.0/0").unwrap();
        add("Q permit 10.0.0.0/8 ge 24").unwrap();
        add("Q permit 10.0.0.0/8 le 9").unwrap();
        assert!(add("Q permit 10.0.0.0/8 ge 7").is_err());
        assert_eq!(shown(lists.prefixes(Family::Ipv4Unicast, "P")), "0.0.0.0/0{1,32}");
        assert!(lists.prefixes(Family::Ipv4Unicast, "Q").is_err());
        assert_eq!(shown(lists.prefixes(Family::Ipv4Unicast, "none")), "");
    }

    #[test]
    fn conditions_that_are_not_the_same_are_refused() {
        let mut lists = Lists::default();
        let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
        lists.as_path_list(&words("A permit ^65001_")).unwrap();
        lists.as_path_list(&words("A permit _7$")).unwrap();
        assert_eq!(lists.path("A").unwrap().as_deref(), Some("(^65001_)|(_7$)"));
        assert!(lists.as_path_list(&words("B permit \\d+")).is_err());
        lists.as_path_list(&words("C deny ^7_")).unwrap();
        assert!(lists.path("B").is_err() && lists.path("C").is_err());
        lists.community_list(&words("standard D permit 65001:1 no-export"), false).unwrap();
        lists.community_list(&words("standard E permit 65001:1"), false).unwrap();
        lists.community_list(&words("expanded E permit _65001:2_"), false).unwrap();
        assert!(lists.community_list(&words("expanded G permit ^65001:2$"), false).is_err());
        assert!(lists.community_list(&words("expanded F permit 65001:.*"), false).is_err());
        assert!(lists.community("D", false).is_err() && lists.community("F", false).is_err());
        assert_eq!(lists.community("E", false).unwrap().len(), 2);
    }
}
