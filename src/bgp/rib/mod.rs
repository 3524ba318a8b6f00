//! All routes of the node, without I/O; one owner.

mod view;

pub use view::{Counts, RouteFilter, RouteView};

pub use crate::bgp::peer::DownCause;
