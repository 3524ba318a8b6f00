//! Decides when the conflist may be written: once this node is ready to serve pods.

use std::time::{Duration, Instant};

use crate::net::{Convergence, Phase, Prefix};

/// The conditions for writing the conflist, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateInputs {
    /// Unreachable routes that the kernel has acknowledged.
    pub unreachable: Vec<Prefix>,
    /// Whether forwarding is enabled for each family in use.
    pub forwarding: bool,
    pub routes: InitialRoutes,
}

/// Progress of the initial exchange of routes with the neighbors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialRoutes {
    /// No established session is still receiving, but some neighbors have no session: they may be
    /// about to connect, or be absent.
    #[default]
    NoSession,
    /// A session is established and its initial routes are being received.
    Receiving,
    /// Every neighbor has sent its initial routes, or refuses connections.
    Complete,
}

impl InitialRoutes {
    /// Computes the progress from the state of the `expected` number of neighbors.
    pub fn of(convergence: &Convergence, expected: usize) -> Self {
        if convergence.neighbors.values().any(|p| *p == Phase::Up) {
            Self::Receiving
        } else if convergence.neighbors.values().all(|p| matches!(p, Phase::Converged | Phase::Refused))
            && convergence.neighbors.len() >= expected
        {
            Self::Complete
        } else {
            Self::NoSession
        }
    }
}

/// Maximum time to wait for initial routes.
const INITIAL_ROUTES_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to wait for sessions: a neighbor that is present connects within it, and an absent
/// one must not keep pods from starting.
const SESSION_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether to write the conflist now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateDecision {
    Write,
    /// Decide again at that time, or when the inputs change.
    Wait {
        until: Option<Instant>,
        /// What is missing, for the operator.
        missing: &'static str,
    },
}

/// Decides whether the conflist may be written. `wanted` is when a conflist was first wanted since
/// the start; the timeouts count from then.
pub fn decide(now: Instant, wanted: Instant, ready: &GateInputs, pod_cidrs: &[Prefix]) -> GateDecision {
    if !pod_cidrs.iter().all(|p| ready.unreachable.contains(p)) {
        let missing = "the unreachable routes of the pod CIDRs are not in the kernel yet";
        return GateDecision::Wait { until: None, missing };
    }
    if !ready.forwarding {
        let missing = "forwarding is off: set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1";
        return GateDecision::Wait { until: None, missing };
    }
    let (timeout, missing) = match ready.routes {
        InitialRoutes::Complete => return GateDecision::Write,
        InitialRoutes::Receiving => (INITIAL_ROUTES_TIMEOUT, "initial routes of the neighbors, at most 10 s"),
        InitialRoutes::NoSession => (SESSION_TIMEOUT, "sessions with the neighbors, at most 1 s"),
    };
    match wanted + timeout {
        until if now < until => GateDecision::Wait { until: Some(until), missing },
        _ => GateDecision::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> [Prefix; 2] {
        ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap())
    }

    fn ready(routes: InitialRoutes) -> GateInputs {
        GateInputs { unreachable: pods().to_vec(), forwarding: true, routes }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
    fn pods_wait_for_initial_routes_but_never_for_an_absent_neighbor() {
        let start = Instant::now();
        let decide = |after: Duration, ready: &GateInputs| decide(start + after, start, ready, &pods());
        let waits_until = |after, routes, until| {
            let v = decide(after, &ready(routes));
            matches!(v, GateDecision::Wait { until: Some(at), .. } if at == start + until)
        };
        assert_eq!(decide(Duration::ZERO, &ready(InitialRoutes::Complete)), GateDecision::Write);
        assert!(waits_until(Duration::ZERO, InitialRoutes::NoSession, SESSION_TIMEOUT));
        assert_eq!(decide(SESSION_TIMEOUT, &ready(InitialRoutes::NoSession)), GateDecision::Write);
        assert!(waits_until(SESSION_TIMEOUT, InitialRoutes::Receiving, INITIAL_ROUTES_TIMEOUT));
        assert_eq!(decide(INITIAL_ROUTES_TIMEOUT, &ready(InitialRoutes::Receiving)), GateDecision::Write);
        let half = GateInputs { unreachable: pods()[..1].to_vec(), ..ready(InitialRoutes::Complete) };
        let off = GateInputs { forwarding: false, ..ready(InitialRoutes::Complete) };
        for never in [half, off] {
            assert!(
                matches!(decide(INITIAL_ROUTES_TIMEOUT, &never), GateDecision::Wait { until: None, .. }),
                "{never:?}"
            );
        }
    }

    #[test]
    fn the_exchange_is_complete_once_all_neighbors_have_finished_it() {
        use Phase::{Converged, Refused, Up, Waiting};
        #[rustfmt::skip]
        let cases: &[(&[Phase], usize, InitialRoutes)] = &[
            (&[],                       0, InitialRoutes::Complete),
            (&[],                       2, InitialRoutes::NoSession),
            (&[Converged],              2, InitialRoutes::NoSession),
            (&[Converged, Waiting],     2, InitialRoutes::NoSession),
            (&[Converged, Up, Waiting], 3, InitialRoutes::Receiving),
            (&[Converged, Converged],   2, InitialRoutes::Complete),
            (&[Converged, Refused],     2, InitialRoutes::Complete),
            (&[Up, Refused],            2, InitialRoutes::Receiving),
            (&[Waiting, Refused],       2, InitialRoutes::NoSession),
        ];
        for (phases, expected, want) in cases {
            let neighbors = (1..).map(|n| std::net::IpAddr::from([10, 0, 0, n])).zip(phases.iter().copied());
            let convergence = Convergence { neighbors: neighbors.collect() };
            assert_eq!(InitialRoutes::of(&convergence, *expected), *want, "{phases:?} of {expected}");
        }
    }
}
