//! All routes of the node, without I/O; one owner.

pub mod view;

pub use view::{Counts, RouteFilter, RouteView};

pub use crate::bgp::peer::DownCause;
