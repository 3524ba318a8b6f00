use std::path::PathBuf;

use clap::Args;

use super::{Failure, io};
use crate::daemon;

/// Remove routelet's routes, nexthops, conflist and state from this host
///
/// Refuses while a daemon runs. Prints a line for each thing it removed.
#[derive(Args, Debug)]
pub(super) struct Cleanup {
    /// Configuration file of the daemon, optional [default: /etc/routelet/routelet.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cleanup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let removed = daemon::cleanup(self.config.as_deref())?;
        io::print(&removed.iter().map(|line| format!("{line}\n")).collect::<String>())
    }
}
