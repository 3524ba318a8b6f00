use clap::Args;

use super::{Failure, Socket};
use crate::control::Query;

/// Make the daemon read its configuration again (same as SIGHUP)
///
/// Sessions that did not change stay up. If the configuration is invalid, the old one remains in
/// force.
#[derive(Args, Debug)]
pub(super) struct Reload {
    #[command(flatten)]
    socket: Socket,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.socket.order(Query::Reload)
    }
}
