use clap::Args;

use super::{Failure, Socket};
use crate::control::Query;

/// Take this node out of traffic gracefully, until `undrain`
///
/// Neighbors are asked to look for other ways (RFC 8326) first. After 10 s Services and networks are withdrawn, pod CIDRs once no pod
/// but those of DaemonSets is left. Sessions stay up, and a restart changes nothing.
#[derive(Args, Debug)]
pub(super) struct Drain {
    /// Withdraw everything at once
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Bring a drained node back
#[derive(Args, Debug)]
pub(super) struct Undrain {
    #[command(flatten)]
    socket: Socket,
}

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.socket.order(Query::Drain { now: self.now })
    }
}

impl Undrain {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.socket.order(Query::Undrain)
    }
}
