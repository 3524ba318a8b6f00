//! When the conflist may be written: once what pods need of this node is in place.

use std::time::{Duration, Instant};

use crate::net::Prefix;

/// What the conflist waits for, as it stands now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The unreachable routes that the kernel has acknowledged.
    pub unreachable: Vec<Prefix>,
    /// Forwarding is on for each family in use.
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

/// Decides. `started` is when the daemon started: only the first writing after it waits for routes.
pub fn verdict(now: Instant, started: Instant, ready: &Ready, pod_cidrs: &[Prefix]) -> Verdict {
    let wait = |missing| Verdict::Wait { until: None, missing };
    let deadline = started + FIRST_ROUTES;
    if !pod_cidrs.iter().all(|p| ready.unreachable.contains(p)) {
        wait("the unreachable routes of the pod CIDRs are not in the kernel yet")
    } else if !ready.forwarding {
        wait("forwarding is off: set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1")
    } else if !ready.converged && now < deadline {
        Verdict::Wait { until: Some(deadline), missing: "first routes of the neighbors, 10 s at most" }
    } else {
        Verdict::Write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
    fn pods_wait_for_the_kernel_but_never_for_a_neighbor_that_is_not_there() {
        let pods: [Prefix; 2] = ["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()];
        let started = Instant::now();
        let late = started + FIRST_ROUTES;
        let all = Ready { unreachable: pods.to_vec(), forwarding: true, converged: true };
        let alone = Ready { converged: false, ..all.clone() };
        assert_eq!(verdict(started, started, &all, &pods), Verdict::Write);
        assert!(
            matches!(verdict(started, started, &alone, &pods), Verdict::Wait { until: Some(at), .. } if at == late)
        );
        assert_eq!(verdict(late, started, &alone, &pods), Verdict::Write);
        let one_family = Ready { unreachable: pods[..1].to_vec(), ..all.clone() };
        for never in [one_family, Ready { forwarding: false, ..all }] {
            assert!(
                matches!(verdict(late, started, &never, &pods), Verdict::Wait { until: None, .. }),
                "{never:?}"
            );
        }
    }
}
