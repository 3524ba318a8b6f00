//! Reads configuration files and password files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

use std::path::{Path, PathBuf};

use super::{Config, Problems};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/routelet/routelet.toml";

/// A configuration in force, with what is worth saying about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file it was read from; `None` where there is none and the defaults hold.
    pub path: Option<PathBuf>,
    /// Not wrong, but probably not meant.
    pub warnings: Option<Problems>,
}

/// Reads the file of `--config`, else [`DEFAULT_PATH`], which may be absent. `kubernetes`: the daemon runs under
/// Kubernetes unless the file says otherwise (a kubeconfig was given, or `KUBERNETES_SERVICE_HOST` is set).
///
/// # Errors
///
/// Everything that is wrong, at once; a file that cannot be read, or an explicit one that is missing.
pub fn load(explicit: Option<&Path>, kubernetes: bool) -> Result<Loaded, Problems> {
    let _ = kubernetes;
    Err(Problems::of_file(explicit.unwrap_or(Path::new(DEFAULT_PATH)).to_owned(), "being built".into()))
}
