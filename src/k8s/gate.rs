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

/// Decides. `started` is when the daemon started, the first writing after it is the only one that waits for routes.
pub fn verdict(now: Instant, started: Instant, ready: Ready) -> Verdict {
    let wait = |missing| Verdict::Wait { until: None, missing };
    let deadline = started + FIRST_ROUTES;
    if !ready.unreachable {
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
    fn pods_wait_for_the_kernel_but_never_for_a_neighbor_that_is_not_there() {
        let started = Instant::now();
        let all = Ready { unreachable: true, forwarding: true, converged: true };
        let alone = Ready { converged: false, ..all };
        let late = started + FIRST_ROUTES;
        assert_eq!(verdict(started, started, all), Verdict::Write);
        assert!(
            matches!(verdict(started, started, alone), Verdict::Wait { until: Some(at), .. } if at == late)
        );
        assert_eq!(verdict(late, started, alone), Verdict::Write);
        for never in [Ready { unreachable: false, ..all }, Ready { forwarding: false, ..all }] {
            assert!(matches!(verdict(late, started, never), Verdict::Wait { until: None, .. }), "{never:?}");
        }
    }
}
