//! Requests to a running daemon and its responses.
//!
//! One [`Query`] per connection of the control socket and one [`Response`], each a line of JSON.
//! Routes, of which there may be a million, come in pages: a line for each, and [`Response::End`]
//! after the last. `render` turns responses into tables and into the JSON of docs/reference.md, and
//! `events` stores recent events. `io` transfers the lines, and serves metrics and probes over
//! HTTP. The daemon supplies the responses.

pub mod changes;
pub mod cluster;
pub mod events;
pub mod host;
pub mod io;
mod neighbor;
pub mod page;
pub mod places;
pub mod policy;
pub mod render;
mod summary;

use serde::{Deserialize, Serialize};

pub use crate::bfd::view::BfdView;
pub use crate::bgp::{
    rib::view::{Counts, PathDetails, RouteFilter, RouteView, Via},
    view::{NeighborView, SessionState},
};
pub use crate::explain::{Explanation, Question, refusal as explain_refusal};
pub use crate::fib::view::FibView;
pub use crate::k8s::view::NodeStatus;
pub use changes::Changes;
pub use events::{Event, EventKind, Events};
pub use host::HostStatus;
pub use neighbor::NeighborReport;
pub use policy::PolicyView;
pub use summary::{LastError, NeighborTotals, OwnPrefix, RouteTotals, Summary};

/// Version of the protocol; a daemon of another version refuses the request.
pub const VERSION: u32 = 3;

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
    /// [`Response::Refused`] with the reason, if the client has another version.
    pub fn read(line: &[u8]) -> Result<Query, Response> {
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
        Err(Response::Refused(why))
    }
}

/// What is requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    Summary,
    Neighbors,
    /// An address, `fe80::1%eth0`, an interface, a description, or the name of a Node.
    Neighbor(String),
    Routes(RouteFilter),
    Fib,
    Node,
    Host,
    /// The interfaces of [`Query::Host`] alone.
    Interfaces,
    Config,
    /// BFD sessions.
    Bfd,
    /// All policies, or the one with this name.
    Policies(Option<String>),
    Explain(Question),
    /// The events after this number; 0 for all that are stored.
    Events {
        after: u64,
    },
    Reset(Target),
    Refresh(Target),
    Disable(Target),
    Enable(Target),
    /// Reads the configuration again.
    Reload(Reload),
    /// Keeps the configuration that a reload put in force for a time.
    ConfirmReload,
    /// Takes the node out of traffic, gracefully or at once.
    Drain {
        now: bool,
    },
    Undrain,
}

/// How the configuration is read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// Only lists what would change.
    pub dry_run: bool,
    /// Seconds after which the former configuration returns unless [`Query::ConfirmReload`] comes.
    pub confirm: Option<u32>,
    /// Even if every session is reset or every own route withdrawn.
    pub force: bool,
}

/// The configuration in force, in two forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// By key, with the effective settings of all neighbors.
    pub effective: serde_json::Value,
    /// A file with the same configuration.
    pub file: String,
}

/// A neighbor to act upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As in [`Query::Neighbor`], or `all`.
    pub neighbor: String,
    /// Shutdown message to the neighbor (RFC 9003).
    pub message: Option<String>,
}

impl Response {
    /// Rows of a page.
    pub fn rows(&self) -> usize {
        match self {
            Self::Routes(list) => list.len(),
            Self::Fib(list) => list.len(),
            _ => 0,
        }
    }
}

/// The daemon's response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    Summary(Box<Summary>),
    Neighbors(Vec<NeighborView>),
    /// Response to [`Query::Neighbor`].
    Neighbor(Box<NeighborReport>),
    /// One page of routes.
    Routes(Vec<RouteView>),
    /// One page of routes.
    Fib(Vec<FibView>),
    /// `null` if the daemon does not run under Kubernetes.
    Node(Option<Box<NodeStatus>>),
    Host(Box<HostStatus>),
    Interfaces(Vec<host::InterfaceStatus>),
    Config(Box<ConfigView>),
    Bfd(Vec<BfdView>),
    Policies(Vec<PolicyView>),
    Explanation(Box<Explanation>),
    Events(Vec<Event>),
    /// Response to [`Query::Reload`].
    Changes(Box<Changes>),
    /// The command was carried out; a text if there is something to report about it.
    Done(Option<String>),
    /// The command was refused: one line with the reason and the remedy.
    Refused(String),
    /// The configuration is invalid; the old one remains in force.
    Misconfigured(String),
    /// All pages were sent. Without it the response is incomplete.
    End,
}
