use std::path::PathBuf;

use clap::Args;

use super::{Failure, io};
use crate::config::io::load;

/// Validate a configuration
///
/// Prints every error as file:line:column: key: what is wrong and what is allowed, and exits with
/// 2; prints nothing and exits with 0 when the configuration is good.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Configuration file [default: /etc/routelet/routelet.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check for a daemon under Kubernetes, where bgp.as has a default
    #[arg(long)]
    kubernetes: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let kubernetes = self.kubernetes || io::environment().kubernetes_service_host.is_some();
        let loaded = load(self.config.as_deref(), kubernetes).map_err(|e| Failure::Usage(e.to_string()))?;
        if let Some(warnings) = loaded.warnings {
            io::print_error(&warnings.to_string());
        }
        Ok(())
    }
}
