//! Import and export policies: match, set, accept or reject.
//!
//! A [`Policy`] is one `[[policy.NAME]]`: statements in order. The first that matches *and* has an
//! action ends it. A matching statement without an action only sets attributes, which later
//! statements see. A route that no statement ends is accepted. A neighbor's list of policies runs
//! in order until one rejects.

mod community;
mod hits;
mod lists;
mod run;
mod statement;

pub(crate) use community::ext_text;
pub use community::{Community, CommunityError};
pub use hits::{Hits, PolicyCounts};
pub use lists::{PrefixRanges, ValueList};
pub use run::{Decided, Subject, run, trace};
pub use statement::{
    Action, AsPathPattern, Match, NextHopSetting, PatternError, PrefixRange, RangeError, RouteSource, Set,
    Statement,
};

/// One `[[policy.NAME]]`: its statements in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    pub name: String,
    pub statements: Vec<Statement>,
}

impl Policy {
    pub fn new(name: impl Into<String>, statements: Vec<Statement>) -> Self {
        Self { name: name.into(), statements }
    }

    /// Whether a statement has a condition on the neighbor.
    pub fn names_neighbors(&self) -> bool {
        self.statements.iter().any(|s| !s.matches.neighbors.is_empty())
    }
}
