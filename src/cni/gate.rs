//! When the conflist may be written: once what pods need of this node is in place.

use std::time::{Duration, Instant};

use crate::net::{Convergence, Phase, Prefix};

/// What the conflist waits for, as it stands now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The unreachable routes that the kernel has acknowledged.
    pub unreachable: Vec<Prefix>,
    /// Forwarding is on for each family in use.
    pub forwarding: bool,
    pub routes: FirstRoutes,
}

/// How far the first exchange with the neighbors is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstRoutes {
    /// Nobody who is up still has something to say, but some have not come up: they may be about to, or not be there.
    #[default]
    Silence,
    /// A neighbor is up and its first exchange is under way.
    Coming,
    /// Every neighbor has finished it, or refuses connections: whoever is not there has nothing to say.
    Done,
}

impl FirstRoutes {
    /// From what the rib has seen of the `expected` neighbors.
    pub fn of(convergence: &Convergence, expected: usize) -> Self {
        if convergence.neighbors.values().any(|p| *p == Phase::Up) {
            Self::Coming
        } else if convergence.neighbors.values().all(|p| matches!(p, Phase::Converged | Phase::Refused))
            && convergence.neighbors.len() >= expected
        {
            Self::Done
        } else {
            Self::Silence
        }
    }
}

/// Longest wait for first routes.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Longest wait for neighbors that do not come up: one that is there answers within this, and one that is not must not keep
/// pods from starting.
const GREETING: Duration = Duration::from_secs(1);

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

/// Decides. `wanted` is when a conflist was first wanted since the start: only then routes are waited for.
pub fn verdict(now: Instant, wanted: Instant, ready: &Ready, pod_cidrs: &[Prefix]) -> Verdict {
    if !pod_cidrs.iter().all(|p| ready.unreachable.contains(p)) {
        let missing = "the unreachable routes of the pod CIDRs are not in the kernel yet";
        return Verdict::Wait { until: None, missing };
    }
    if !ready.forwarding {
        let missing = "forwarding is off: set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1";
        return Verdict::Wait { until: None, missing };
    }
    let (patience, missing) = match ready.routes {
        FirstRoutes::Done => return Verdict::Write,
        FirstRoutes::Coming => (EXCHANGE, "first routes of the neighbors, 10 s at most"),
        FirstRoutes::Silence => (GREETING, "the neighbors to come up, 1 s at most"),
    };
    match wanted + patience {
        until if now < until => Verdict::Wait { until: Some(until), missing },
        _ => Verdict::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> [Prefix; 2] {
        ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap())
    }

    fn ready(routes: FirstRoutes) -> Ready {
        Ready { unreachable: pods().to_vec(), forwarding: true, routes }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
    fn pods_wait_for_first_routes_but_never_for_a_neighbor_that_is_not_there() {
        let start = Instant::now();
        let verdict = |after: Duration, ready: &Ready| verdict(start + after, start, ready, &pods());
        let waits_until = |after, routes, until| {
            let v = verdict(after, &ready(routes));
            matches!(v, Verdict::Wait { until: Some(at), .. } if at == start + until)
        };
        assert_eq!(verdict(Duration::ZERO, &ready(FirstRoutes::Done)), Verdict::Write);
        assert!(waits_until(Duration::ZERO, FirstRoutes::Silence, GREETING));
        assert_eq!(verdict(GREETING, &ready(FirstRoutes::Silence)), Verdict::Write);
        assert!(waits_until(GREETING, FirstRoutes::Coming, EXCHANGE));
        assert_eq!(verdict(EXCHANGE, &ready(FirstRoutes::Coming)), Verdict::Write);
        let half = Ready { unreachable: pods()[..1].to_vec(), ..ready(FirstRoutes::Done) };
        let off = Ready { forwarding: false, ..ready(FirstRoutes::Done) };
        for never in [half, off] {
            assert!(matches!(verdict(EXCHANGE, &never), Verdict::Wait { until: None, .. }), "{never:?}");
        }
    }

    #[test]
    fn the_exchange_is_over_when_all_are_through_it() {
        use Phase::{Converged, Refused, Up, Waiting};
        #[rustfmt::skip]
        let cases: &[(&[Phase], usize, FirstRoutes)] = &[
            (&[],                       0, FirstRoutes::Done),
            (&[],                       2, FirstRoutes::Silence),
            (&[Converged],              2, FirstRoutes::Silence),
            (&[Converged, Waiting],     2, FirstRoutes::Silence),
            (&[Converged, Up, Waiting], 3, FirstRoutes::Coming),
            (&[Converged, Converged],   2, FirstRoutes::Done),
            (&[Converged, Refused],     2, FirstRoutes::Done),
            (&[Up, Refused],            2, FirstRoutes::Coming),
            (&[Waiting, Refused],       2, FirstRoutes::Silence),
        ];
        for (phases, expected, want) in cases {
            let neighbors = (1..).map(|n| std::net::IpAddr::from([10, 0, 0, n])).zip(phases.iter().copied());
            let convergence = Convergence { neighbors: neighbors.collect() };
            assert_eq!(FirstRoutes::of(&convergence, *expected), *want, "{phases:?} of {expected}");
        }
    }
}
