use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Policy;

/// How many routes each statement of a list of policies has matched.
///
/// Only the task that evaluates the policies adds, so that a counter costs one load and one store;
/// it is atomic only because the type has to be shareable.
#[derive(Debug, Default)]
pub struct Hits(Vec<Counters>);

/// Of one policy.
#[derive(Debug)]
struct Counters {
    /// By statement; the last counter is that of routes that no statement ended.
    matched: Vec<AtomicU64>,
}

/// The counters of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// By statement: routes that it has matched.
    pub statements: Vec<u64>,
    /// Routes that no statement ended, which are accepted.
    pub otherwise: u64,
}

impl Hits {
    /// Counters at 0 for these policies.
    pub fn new(policies: &[Arc<Policy>]) -> Self {
        let counters = |p: &Arc<Policy>| Counters {
            matched: (0..=p.statements.len()).map(|_| AtomicU64::new(0)).collect(),
        };
        Self(policies.iter().map(counters).collect())
    }

    /// The counters, in the order of the policies.
    pub fn counts(&self) -> Vec<PolicyCounts> {
        let counts = |c: &Counters| {
            let mut statements: Vec<u64> = c.matched.iter().map(|n| n.load(Relaxed)).collect();
            let otherwise = statements.pop().unwrap_or_default();
            PolicyCounts { statements, otherwise }
        };
        self.0.iter().map(counts).collect()
    }

    /// Counts a match of a statement of a policy, both by index; after the last statement comes
    /// the end of the policy.
    pub(super) fn add(&self, policy: usize, statement: usize) {
        if let Some(n) = self.0.get(policy).and_then(|c| c.matched.get(statement)) {
            n.store(n.load(Relaxed) + 1, Relaxed);
        }
    }
}
