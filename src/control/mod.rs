//! What an operator asks of a running daemon and what it answers.
//!
//! One [`Query`] per connection of the control socket, and one [`Answer`], each one line of JSON. Routes, of which there
//! may be a million, come in pages: a line for each, and [`Answer::End`] after the last. `render` turns answers into
//! tables and into the JSON of the interface page, `events` remembers what happened lately; `io` moves the lines, and
//! serves metrics and probes by HTTP. The daemon supplies the answers.

pub mod events;
pub mod io;
pub mod render;
mod summary;

use serde::{Deserialize, Serialize};

pub use crate::bfd::view::BfdView;
pub use crate::bgp::{
    rib::view::{Counts, RouteFilter, RouteView},
    view::{NeighborView, SessionState},
};
pub use crate::fib::view::FibView;
pub use crate::k8s::view::NodeStatus;
pub use events::{Event, EventKind, Events};
pub use summary::{LastError, NeighborTotals, RouteTotals, Summary};

/// The number of this dialect; a daemon of another one says so instead of misunderstanding.
pub const VERSION: u32 = 2;

/// One line from the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub query: Query,
}

impl Request {
    /// Reads a line from the control socket.
    ///
    /// # Errors
    ///
    /// [`Answer::Refused`] with a line for the operator, where the client is of another version.
    pub fn read(line: &[u8]) -> Result<Query, Answer> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if let Ok(Self { version: VERSION, query }) = serde_json::from_slice(line) {
            return Ok(query);
        }
        let why = match serde_json::from_slice::<Versioned>(line) {
            Ok(Versioned { version }) if version != VERSION => format!(
                "the daemon uses version {VERSION} of the control protocol, this command version {version}; \
                 use the same routelet for both"
            ),
            _ => "the daemon does not know this request; use the same routelet for both".into(),
        };
        Err(Answer::Refused(why))
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    Summary,
    Neighbors,
    /// An address, `fe80::1%eth0`, or the interface of an unnumbered neighbor.
    Neighbor(String),
    Routes(RouteFilter),
    Fib,
    Node,
    Config,
    /// Those after this number; 0 for all that are remembered.
    /// Sessions of BFD.
    Bfd,
    Events {
        after: u64,
    },
    Reset(Target),
    Refresh(Target),
    Disable(Target),
    Enable(Target),
    Reload,
    /// Out of traffic, gracefully or at once.
    Drain {
        now: bool,
    },
    Undrain,
}

/// A neighbor to act upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub neighbor: String,
    /// RFC 9003: told to the neighbor.
    pub message: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Summary(Box<Summary>),
    Neighbors(Vec<NeighborView>),
    /// To [`Query::Neighbor`].
    Neighbor(Box<NeighborView>),
    /// One page of them.
    Routes(Vec<RouteView>),
    /// One page of them.
    Fib(Vec<FibView>),
    /// `null` where the daemon does not run under Kubernetes.
    Node(Option<Box<NodeStatus>>),
    Config(serde_json::Value),
    Bfd(Vec<BfdView>),
    Events(Vec<Event>),
    /// An order was carried out; a text where there is something to say about it.
    Done(Option<String>),
    /// It could not be: one line that says why, and what to do.
    Refused(String),
    /// The configuration is wrong; the old one stays in force.
    Misconfigured(String),
    /// All pages were given. Without it something is missing.
    End,
}
