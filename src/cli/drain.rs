use clap::Args;

use super::{Failure, Socket};
use crate::control::Query;

/// Take this node out of traffic gracefully, until `undrain`
///
/// First, routes are advertised with GRACEFUL_SHUTDOWN (RFC 8326), so that neighbors prefer other
/// paths. After 10 s Services and networks are withdrawn, and pod CIDRs once only pods of
/// DaemonSets are left. Sessions stay up. A restart does not end the drain.
#[derive(Args, Debug)]
pub(super) struct Drain {
    /// Withdraw everything at once
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Bring a drained node back into traffic
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
