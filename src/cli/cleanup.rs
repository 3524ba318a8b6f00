use std::path::PathBuf;

use clap::Args;

use super::{Failure, io};
use crate::daemon;

/// Remove routelet's routes, nexthops, conflist and state from this host
///
/// Refuses while a daemon runs. Prints what was removed, a line each.
#[derive(Args, Debug)]
pub(super) struct Cleanup {
    /// Configuration that the daemon had; /etc/routelet/routelet.toml, which may be absent, unless given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cleanup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let removed = daemon::cleanup(self.config.as_deref())?;
        io::print(&removed.iter().map(|line| format!("{line}\n")).collect::<String>())
    }
}
