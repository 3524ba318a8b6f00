//! Import and export policies: match, set, accept or reject.
//!
//! A [`Policy`] is one `[[policy.NAME]]`: statements in order, of which the first that matches *and* has an
//! action ends it. A matching statement without an action only sets, and later statements see what it set.
//! What falls through is accepted. A neighbor's list of policies runs in order until one rejects.

mod community;
mod run;
mod statement;

pub(crate) use community::ext_text;
pub use community::{Community, CommunityError};
pub use run::{Subject, run};
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

    /// Whether a statement asks which neighbor it is about.
    pub fn names_neighbors(&self) -> bool {
        self.statements.iter().any(|s| !s.matches.neighbors.is_empty())
    }
}
