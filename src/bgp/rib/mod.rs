//! All routes of the node, without I/O; one owner.

mod view;

pub use view::{Counts, RouteFilter, RouteView};

/// Why a session ended: decides whether its routes stay as stale (RFC 4724 §4.2, RFC 8538 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// TCP closed or reset without a NOTIFICATION.
    Closed,
    /// Our hold timer ran out.
    HoldTimer,
    /// NOTIFICATION from the neighbor; `hard` is RFC 8538's Hard Reset.
    Received { hard: bool },
    /// NOTIFICATION sent by us for an error of the neighbor.
    Sent { hard: bool },
    /// Disabled, reset by hand, removed, or BFD said so: never graceful.
    Administrative,
}
