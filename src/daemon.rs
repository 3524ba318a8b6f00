//! The wiring: builds the channels, spawns the tasks, keeps the order of shutdown. Read this second.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the wiring")]

use std::path::PathBuf;

use crate::config::LogFormat;

/// What the command line of `run` says.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub config: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub node_name: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<String>,
    /// Of the environment: `NODE_NAME`, `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`.
    pub environment: Environment,
}

/// The variables that `run` heeds, read once in `cli`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub node_name: Option<String>,
    pub kubernetes_service_host: Option<String>,
    pub kubernetes_service_port: Option<String>,
}

/// Why the daemon could not start or had to stop: one line that says what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Exit status 2.
    #[error("{0}")]
    Config(String),
    /// Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

/// Runs until told to stop.
///
/// # Errors
///
/// When the configuration is wrong or the host refuses what the daemon cannot do without.
pub fn run(_options: RunOptions) -> Result<(), Error> {
    Err(Error::Runtime("being built".into()))
}
