//! State of the conflist, as `show node` displays it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Diagnostic;

/// State of the file for the container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ConflistStatus {
    /// `null` if routelet does not write one.
    pub path: Option<String>,
    /// State of the file for the container runtime.
    pub state: ConflistState,
    /// What prevents writing it, or another problem, with its remedy.
    pub problem: Option<String>,
    /// The same, unless the file only waits to be written.
    #[serde(default)]
    pub diagnostic: Option<Diagnostic>,
    /// Files of other network agents in the folder, in the order in which runtimes read them.
    #[serde(default)]
    pub others: Vec<String>,
}

/// See [`ConflistStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflistState {
    /// `cni.enabled = false`, or not under Kubernetes.
    #[default]
    Disabled,
    /// Not written yet; `problem` has the reason.
    Waiting,
    /// Up to date.
    Written,
    /// The last attempt failed and is repeated.
    Failed,
}
