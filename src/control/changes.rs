use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// What a reload changes, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Changes {
    /// Whether the file is in force; `false` of a dry run.
    pub applied: bool,
    /// Neighbors that are added and removed.
    pub sessions: SessionChanges,
    /// Own routes.
    pub routes: RouteChanges,
    /// Keys with another value, dotted.
    pub keys: Vec<String>,
    /// Keys whose new value takes effect at the next start.
    pub restart: Vec<String>,
    /// Why the reload needs `--force`.
    pub force: Option<String>,
    /// Why there is no plan for the new configuration yet.
    pub missing: Option<String>,
    /// When the former configuration returns unless confirmed; RFC 3339, UTC.
    pub returns_at: Option<String>,
}

/// Neighbors by what happens to them. Neighbors that are not listed are not affected.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SessionChanges {
    /// Established sessions that end and begin again.
    pub reset: Vec<SessionReset>,
    /// Neighbors that are added.
    pub added: Vec<String>,
    /// Neighbors that are removed.
    pub removed: Vec<String>,
    /// Neighbors with other settings, whose sessions stay as they are.
    pub changed: Vec<String>,
}

/// A session that is reset.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SessionReset {
    /// Address or interface of the neighbor.
    pub neighbor: String,
    /// The key that requires it.
    pub reason: String,
}

/// Own routes by what happens to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct RouteChanges {
    /// Prefixes that are newly advertised.
    pub added: Prefixes,
    /// Prefixes that are withdrawn.
    pub withdrawn: Prefixes,
    /// Advertised with other attributes.
    pub changed: Prefixes,
}

/// How many prefixes, and the first [`FIRST`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Prefixes {
    /// Number of prefixes.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Prefix>,
}

/// How many prefixes of each kind are listed.
pub const FIRST: usize = 10;

impl FromIterator<Prefix> for Prefixes {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut all = Self::default();
        for prefix in prefixes {
            all.count += 1;
            if all.first.len() < FIRST {
                all.first.push(prefix);
            }
        }
        all
    }
}

impl Changes {
    /// Whether there is nothing to change.
    pub fn is_none(&self) -> bool {
        self.sessions == SessionChanges::default()
            && self.routes == RouteChanges::default()
            && self.keys.is_empty()
            && self.restart.is_empty()
    }
}
