use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One policy of `show policy`.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct PolicyView {
    /// Name of the policy.
    pub name: String,
    /// Neighbors that use it.
    pub used_by: UsedBy,
    /// Its statements, in order.
    pub statements: Vec<StatementView>,
    /// Routes that no statement ended, which are accepted.
    pub otherwise: Matched,
}

/// Names of the neighbors that have a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct UsedBy {
    /// Neighbors that use it on import.
    pub import: Vec<String>,
    /// Neighbors that use it on export.
    pub export: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct StatementView {
    /// As in the configuration.
    pub keys: Map<String, Value>,
    /// How many routes it has matched.
    pub matched: Matched,
}

/// How many routes matched, of all present neighbors together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Matched {
    /// Routes that it matched on import.
    pub import: u64,
    /// Routes that it matched on export.
    pub export: u64,
}
