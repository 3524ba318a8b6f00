//! The state of one watch of the API server: when to list, to wait and to retry, and what an error
//! means. Every watch goes through the same states, whatever its objects are.
//!
//! ```text
//!   Disconnected ──client──► Starting ──stream──► Listing ──list complete──► Following
//!        ▲                      ▲                    │  error, expiry, silence   │
//!        │ 401, new credentials │ new selection      ▼                           │
//!        └──────────────────────┴───────────────── Waiting ◄─────────────────────┘
//!                                                    │ ▲
//!                                                    ▼ │ no response
//!                                                  Probing
//! ```
//!
//! The last known objects stay in force in every state. A stream that failed is resumed where it
//! was, so that an outage costs no list. `k8s/io/watch.rs` carries out the [`Step`]s.

mod backoff;
mod debounce;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests;

use std::{
    collections::BTreeSet,
    mem,
    time::{Duration, Instant},
};

use self::backoff::Backoff;
pub use self::debounce::Debounce;

/// A watch ends after this many seconds and is resumed, to detect connections that died silently.
pub const WATCH_SECONDS: u32 = 180;
/// Maximum time without progress of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// A resumed watch without an error for this long is considered connected; longer than connecting
/// takes.
const CONNECTED_AFTER: Duration = Duration::from_secs(8);
/// Minimum time to the next attempt to connect, except for the watch that reports outages.
const CONNECT_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum time to the next attempt for an optional kind.
const OPTIONAL_INTERVAL: Duration = Duration::from_secs(5);
/// Time to the next list of a kind that the cluster does not have, or to which access is denied.
const MISSING_KIND_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum delay that the API server can request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Maximum number of different errors that are logged during one outage.
const MAX_LOGGED_ERRORS: usize = 8;

/// A change of the watched objects. Objects of a list take effect once the list is complete.
#[derive(Clone, Debug)]
pub enum Change<T> {
    ListStarted,
    Listed(T),
    ListDone,
    Applied(T),
    Deleted(T),
}

/// What depends on a watch, and whether the kind is optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its outages are reported as those of the API server; small requests detect their end.
    Leading,
    /// Another kind that every cluster has.
    Required,
    /// A kind that the cluster may not have, with few objects.
    Optional,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The credentials were read, and there is a client.
    Connected,
    NotConnected(&'a str),
    /// The stream was started.
    Started,
    /// A list began, or continues.
    Listed,
    /// A list is complete, or an object changed.
    Changed,
    Failed(Failure),
    /// The stream ended.
    Ended,
    /// The time of [`Step::Receive`] or [`Step::Wait`] has come.
    Timeout {
        /// Whether the credentials changed, or have expired.
        stale: bool,
    },
    /// The API server responded to [`Step::Probe`].
    Responded,
    NoResponse(&'a str),
    /// Other objects are needed.
    Reselected,
}

/// An error of the stream.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// The status code of the response, if there was one.
    pub code: Option<u16>,
    pub text: String,
    /// Whether the request for a watch failed, rather than a list or a watch that had begun.
    pub at_start: bool,
    /// When the API server wants the next request.
    pub retry_after: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the credentials and create a client.
    Connect,
    /// Start a stream, with a streaming list or with pages.
    Start { streaming: bool },
    /// Receive from the stream, until then.
    Receive { until: Option<Instant> },
    /// Wait until then, without using the stream.
    Wait { until: Instant },
    /// Send a small request.
    Probe,
}

/// What became known about the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It responds again.
    Connected,
    /// It does not respond, or refuses the request. The watch is retried.
    Failed {
        cause: Cause,
        text: String,
        /// Whether to log it: once per outage.
        is_new: bool,
    },
    /// It does not support streaming lists.
    NoStreaming,
}

/// Why a watch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No response, or an error of the API server.
    Unreachable,
    /// Access is denied.
    Denied,
    /// The cluster does not have the kind, or the API server is still starting.
    Missing,
    /// The cluster does not have the kind, for the second time at least.
    Absent,
}

/// The state of one watch.
#[derive(Clone, Debug)]
pub struct WatchState {
    role: Role,
    /// Plural name of the kind, for messages.
    resource: String,
    state: State,
    /// Whether there is a stream that can be resumed.
    has_stream: bool,
    /// Whether the list of the stream is incomplete.
    is_listing: bool,
    /// Whether the API server supports streaming lists (1.32 with etcd 3.6), as far as known.
    streaming: bool,
    connected: bool,
    backoff: Backoff,
    /// Back-off between lists after an expired resource version.
    expiries: Backoff,
    /// Errors logged during the present outage.
    logged: BTreeSet<String>,
    /// How often in a row the kind was missing.
    missing: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Disconnected,
    Starting,
    Listing { until: Instant },
    Following { until: Option<Instant> },
    Waiting { until: Instant, then: Then },
    Probing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Connect,
    Resume,
    Probe,
}

impl WatchState {
    /// `seed` is for jitter.
    pub fn new(role: Role, resource: impl Into<String>, seed: u64) -> Self {
        Self {
            role,
            resource: resource.into(),
            state: State::Disconnected,
            has_stream: false,
            is_listing: true,
            streaming: role != Role::Optional,
            connected: false,
            backoff: Backoff::new(seed),
            expiries: Backoff::new(!seed),
            logged: BTreeSet::new(),
            missing: 0,
        }
    }

    /// What to do next.
    pub fn step(&self) -> Step {
        match self.state {
            State::Disconnected => Step::Connect,
            State::Starting => Step::Start { streaming: self.streaming },
            State::Listing { until } => Step::Receive { until: Some(until) },
            State::Following { until } => Step::Receive { until },
            State::Waiting { until, .. } => Step::Wait { until },
            State::Probing => Step::Probe,
        }
    }

    /// Applies one input.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Option<Report> {
        match input {
            Input::Connected => {
                (self.state, self.has_stream) = (State::Starting, false);
                None
            }
            Input::NotConnected(error) => Some(self.on_no_client(now, error)),
            Input::Started => {
                (self.has_stream, self.is_listing) = (true, true);
                self.resume(now);
                None
            }
            Input::Listed => {
                self.is_listing = true;
                self.resume(now);
                None
            }
            Input::Changed => self.on_change(),
            Input::Failed(failure) => self.on_failure(now, failure),
            Input::Ended => {
                self.has_stream = false;
                self.wait_backoff(now, Then::Resume);
                None
            }
            Input::Timeout { stale } => self.on_timeout(now, stale),
            Input::Responded => {
                let report = self.responded();
                self.resume(now);
                report
            }
            Input::NoResponse(error) => {
                self.wait_backoff(now, Then::Probe);
                Some(self.failed(Cause::Unreachable, error.to_owned()))
            }
            Input::Reselected => {
                self.on_selection();
                None
            }
        }
    }

    fn on_no_client(&mut self, now: Instant, error: &str) -> Report {
        let delay = match self.role {
            Role::Leading => self.backoff.next(),
            Role::Required | Role::Optional => self.backoff.next().max(CONNECT_INTERVAL),
        };
        self.wait(now + delay, Then::Connect);
        self.failed(Cause::Unreachable, error.to_owned())
    }

    fn on_change(&mut self) -> Option<Report> {
        (self.is_listing, self.missing) = (false, 0);
        self.state = State::Following { until: None };
        self.backoff.restart();
        self.responded()
    }

    /// A delay in progress is kept: the API server may be overloaded.
    fn on_selection(&mut self) {
        self.has_stream = false;
        if matches!(self.state, State::Listing { .. } | State::Following { .. }) {
            self.state = State::Starting;
        }
    }

    fn on_failure(&mut self, now: Instant, failure: Failure) -> Option<Report> {
        let Failure { code, at_start, retry_after, .. } = failure;
        if self.streaming && at_start && matches!(code, Some(400 | 422)) {
            (self.streaming, self.state) = (false, State::Starting);
            return Some(Report::NoStreaming);
        }
        // The resource version has expired: the stream lists again by itself. No outage.
        if code == Some(410) {
            self.is_listing = true;
            let delay = self.expiries.next_in_a_row(now);
            self.wait(now + delay, Then::Resume);
            return None;
        }
        let cause = self.cause(code);
        let requested = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let delay = match (self.role, cause) {
            (Role::Optional, Cause::Unreachable) => self.backoff.next().max(OPTIONAL_INTERVAL),
            (Role::Optional, _) => {
                // The kind may be gone, and with it the objects that the stream knows.
                self.has_stream = false;
                MISSING_KIND_INTERVAL
            }
            _ => self.backoff.next(),
        };
        let then = match (code, self.role) {
            (Some(401), _) => Then::Connect,
            (None, Role::Leading) => Then::Probe,
            _ => Then::Resume,
        };
        self.wait(now + delay.max(requested), then);
        let text = self.explain(code, failure.text);
        Some(self.failed(cause, text))
    }

    fn cause(&mut self, code: Option<u16>) -> Cause {
        match (code, self.role) {
            (Some(403), _) => Cause::Denied,
            (Some(404), Role::Optional) => {
                self.missing = self.missing.saturating_add(1);
                if self.missing == 1 { Cause::Missing } else { Cause::Absent }
            }
            _ => Cause::Unreachable,
        }
    }

    fn explain(&self, code: Option<u16>, text: String) -> String {
        match code {
            Some(401) => format!("{text}; the API server rejects our token or certificate"),
            Some(403) => {
                format!("{text}; allow our ServiceAccount to list and watch {}", self.resource)
            }
            _ => text,
        }
    }

    fn on_timeout(&mut self, now: Instant, stale: bool) -> Option<Report> {
        match self.state {
            State::Waiting { .. } if stale => self.state = State::Disconnected,
            State::Waiting { then: Then::Connect, .. } => self.state = State::Disconnected,
            State::Waiting { then: Then::Resume, .. } => self.resume(now),
            State::Waiting { then: Then::Probe, .. } => self.state = State::Probing,
            State::Listing { until } if now >= until => {
                // A server that hangs on a streaming list may respond to a list with pages.
                (self.streaming, self.has_stream) = (false, false);
                self.wait_backoff(now, Then::Resume);
                let text = format!("list of {} timed out", self.resource);
                return Some(self.failed(Cause::Unreachable, text));
            }
            // A resumed watch receives nothing until an object changes.
            State::Following { until: Some(until) } if now >= until => {
                self.state = State::Following { until: None };
                self.backoff.restart();
                return self.responded();
            }
            _ => {}
        }
        None
    }

    fn wait(&mut self, until: Instant, then: Then) {
        self.state = State::Waiting { until, then };
    }

    fn wait_backoff(&mut self, now: Instant, then: Then) {
        let delay = self.backoff.next();
        self.wait(now + delay, then);
    }

    /// Continues with the stream, or with a new one.
    fn resume(&mut self, now: Instant) {
        self.state = match (self.has_stream, self.is_listing) {
            (false, _) => State::Starting,
            (true, true) => State::Listing { until: now + LIST_TIMEOUT },
            (true, false) => State::Following { until: (!self.connected).then(|| now + CONNECTED_AFTER) },
        };
    }

    fn responded(&mut self) -> Option<Report> {
        self.logged.clear();
        (!mem::replace(&mut self.connected, true)).then_some(Report::Connected)
    }

    fn failed(&mut self, cause: Cause, text: String) -> Report {
        self.connected = false;
        let is_new = match cause {
            // Reported only from the second time on, and once.
            Cause::Missing => false,
            Cause::Absent => self.missing == 2,
            Cause::Unreachable | Cause::Denied => {
                self.logged.len() < MAX_LOGGED_ERRORS && self.logged.insert(text.clone())
            }
        };
        Report::Failed { cause, text, is_new }
    }
}
