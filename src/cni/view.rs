//! State of the conflist, as `show node` displays it.

use serde::{Deserialize, Serialize};

/// How far the file for the container runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflistStatus {
    /// `null` where routelet writes none.
    pub path: Option<String>,
    pub state: ConflistState,
    /// What is in the way, or what the operator should know, with its remedy.
    pub problem: Option<String>,
    /// Files of other agents in the folder, in the order in which runtimes look.
    #[serde(default)]
    pub others: Vec<String>,
}

/// Of [`ConflistStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflistState {
    /// `cni.enabled = false`, or not under Kubernetes.
    #[default]
    Disabled,
    /// Not yet: the problem says for what.
    Waiting,
    /// As we want it.
    Written,
    /// The last attempt failed; tried again.
    Failed,
}
