use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One policy of `show policy`.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct PolicyView {
    pub name: String,
    pub used_by: UsedBy,
    pub statements: Vec<StatementView>,
    /// Routes that no statement ended, which are accepted.
    pub otherwise: Matched,
}

/// Names of the neighbors that have a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct UsedBy {
    pub import: Vec<String>,
    pub export: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct StatementView {
    /// As in the configuration.
    pub keys: Map<String, Value>,
    pub matched: Matched,
}

/// How many routes matched, of all present neighbors together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Matched {
    pub import: u64,
    pub export: u64,
}
