//! When the conflist may be written: once what pods need of this node is in place.

use std::time::{Duration, Instant};

/// What the conflist waits for, as it stands now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The kernel has acknowledged the unreachable routes of the pod CIDRs.
    pub unreachable: bool,
    /// Forwarding is on for each family in use (or cannot be set, which is reported elsewhere and waits for nobody).
    pub forwarding: bool,
    /// Every neighbor has finished its first exchange.
    pub converged: bool,
}

/// Longest wait for first routes: a neighbor that is not there must not keep pods from starting.
pub const FIRST_ROUTES: Duration = Duration::from_secs(10);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Write,
    /// Ask again then, or when the inputs change; the text says what is missing.
    Wait {
        until: Option<Instant>,
        missing: &'static str,
    },
}
