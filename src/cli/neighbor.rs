use clap::{Args, Subcommand};

use super::{Failure, Socket, neighbor_name};
use crate::control::{Query, Target};

#[derive(Debug, Subcommand)]
pub(super) enum Neighbor {
    /// Close the session and establish it again
    Reset(Order),
    /// Request the neighbor's routes again, and advertise ours again
    Refresh(Order),
    /// Administrative shutdown: close the session and keep it down until `enable`
    Disable(Order),
    /// Allow a disabled session to be established again
    Enable(Order),
}

#[derive(Args, Debug)]
pub(super) struct Order {
    /// Address of the neighbor (fe80::1%eth0), its interface, description or Node; or `all`
    #[arg(value_parser = neighbor_name)]
    address: String,
    /// Shutdown message to send (RFC 9003), up to 255 bytes
    #[arg(long, value_name = "TEXT", value_parser = message)]
    message: Option<String>,
    #[command(flatten)]
    socket: Socket,
}

/// A shutdown message that does not fit into the NOTIFICATION.
#[derive(Debug, thiserror::Error)]
#[error("has {octets} octets; RFC 9003 allows 255")]
struct TooLong {
    octets: usize,
}

fn message(text: &str) -> Result<String, TooLong> {
    match text.len() {
        0..=255 => Ok(text.to_owned()),
        octets => Err(TooLong { octets }),
    }
}

impl Neighbor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (make, order): (fn(Target) -> Query, Order) = match self {
            Self::Reset(order) => (Query::Reset, order),
            Self::Refresh(order) => (Query::Refresh, order),
            Self::Disable(order) => (Query::Disable, order),
            Self::Enable(order) => (Query::Enable, order),
        };
        order.socket.order(make(Target { neighbor: order.address, message: order.message }))
    }
}
