//! The wiring: creates the channels, spawns the tasks, and shuts them down in order.
//!
//! Nothing is decided here. A change of host, Nodes or configuration passes through `planner` and
//! `plan()` to the sessions, the RIB, the FIB and the conflist. Routes pass from the socket through
//! session, RIB, mailbox and FIB to the kernel.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the wiring")]

mod bfd;
mod cleanup;
mod cluster;
mod context;
mod core;
mod doctor;
mod drain;
pub mod events;
mod explain;
mod filters;
mod forwarding;
mod host;
mod journal;
mod kernel_routes;
mod limits;
mod listeners;
mod machine;
mod masquerade;
mod memory;
mod notices;
mod planner;
mod plugin;
mod pods;
mod problems;
mod queries;
mod readiness;
mod reload;
mod report;
mod room;
mod routing;
mod sandbox;
mod sessions;
mod shutdown;
mod start;
mod state;
mod survey;
mod trends;
mod unnumbered;

use std::path::PathBuf;

use crate::{cli::log, config::LogFormat};
pub use cleanup::cleanup;
pub use doctor::doctor;
pub use plugin::{cluster_endpoints, cluster_reports};
use room::Limit;
use start::Launch;

/// Options of `run` from the command line.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub config: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub node_name: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<String>,
    /// From the environment: `NODE_NAME`, `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`.
    pub environment: Environment,
}

/// The environment variables that `run` uses, read once in `cli`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub node_name: Option<String>,
    pub kubernetes_service_host: Option<String>,
    pub kubernetes_service_port: Option<String>,
}

/// Why the daemon could not start or had to stop: one line with what failed, why, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Exit status 2.
    #[error("{0}")]
    Config(String),
    /// Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

/// Runs the daemon until it receives SIGTERM or SIGINT.
///
/// # Errors
///
/// If the configuration is invalid, or the host denies what the daemon requires.
pub fn run(options: RunOptions) -> Result<(), Error> {
    memory::tune();
    let offered = options.kubeconfig.is_some() || options.environment.kubernetes_service_host.is_some();
    let limit = Limit::read();
    let started = reload::at_start(options.config.as_deref(), offered, limit)
        .map_err(|p| Error::Config(p.to_string()))?;
    let level = options.log_level.as_deref().unwrap_or(&started.config.log.level);
    let log = log::init(level, options.log_format.unwrap_or(started.config.log.format));
    for note in &started.notes {
        tracing::warn!(warnings = %note, "configuration");
    }
    limits::raise_descriptors();
    limits::allow_real_time();
    // One thread reads and decides: a single route passes from neighbor to kernel without waking
    // another thread. Long operations use temporary threads: writing tables to the kernel, files,
    // large responses.
    tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(4)
        .thread_name("routelet")
        .enable_all()
        .build()
        .map_err(no_threads)?
        .block_on(start::daemon(Launch { options, started, offered, log, limit }))
}

/// Runs the work of a command, which needs no thread besides this one.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(no_threads)?.block_on(work))
}

fn no_threads(error: std::io::Error) -> Error {
    Error::Runtime(format!("cannot start threads: {error}; check the limit of processes"))
}
