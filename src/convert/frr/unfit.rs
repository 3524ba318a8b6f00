//! Why a list or a line of a route map has no counterpart in a policy.

use std::fmt;

use super::policies::MAX_PREPEND;
use crate::{bgp::policy::PatternError, net::Asn};

/// A list, as it is called in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListName {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// The text of each is the end of the line's entry in the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("has no name")]
    NoName,
    #[error("neither permit nor deny")]
    NoAction,
    #[error("`{0}` is not a range of prefixes")]
    Range(String),
    #[error("`{0}` is not a prefix; wildcard masks have no counterpart")]
    AccessPrefix(String),
    #[error("the regular expression `{0}` may mean something else in routelet")]
    Regex(String),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("routelet has no regular expressions over communities: `{0}`")]
    CommunityRegex(String),
    #[error("no community")]
    NoCommunity,
    #[error("the community `{0}` is not known")]
    Community(String),
    #[error("the community `internet` has no counterpart")]
    Internet,

    #[error("list {0} is not in the input")]
    Missing(String),
    #[error("{0} has an entry that is not understood")]
    Entry(ListName),
    #[error("{0} has so many entries that its deny entries cannot be subtracted")]
    TooManyEntries(ListName),
    #[error("{0} has deny entries, which a condition cannot have")]
    DenyEntries(ListName),
    #[error("an entry of {0} requires several communities at once, which a condition cannot")]
    SeveralCommunities(ListName),

    #[error("policies have no condition like `match {0}`")]
    Match(String),
    #[error("one statement cannot require communities of two lists")]
    TwoCommunityLists,
    #[error("one statement cannot require two next hops")]
    TwoNextHops,
    #[error("on export a policy matches the neighbor that the route is for")]
    PeerOnExport,
    #[error("policies have no condition on interfaces; name them in advertise.interfaces")]
    Interface,
    #[error("too many ranges of prefixes")]
    TooManyRanges,

    #[error("policies of routelet have no such step")]
    Step,
    #[error("policies cannot `set {0}`")]
    Set(String),
    #[error("communities are added or removed, not replaced; write `additive`")]
    Replaced,
    #[error("policies prepend the own AS number, {0}, up to {MAX_PREPEND} times")]
    Prepend(Asn),
    #[error("the source address of routes is not set by policies, but by fib.prefer-source")]
    Source,
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
