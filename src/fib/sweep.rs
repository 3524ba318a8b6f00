//! Decides how long adopted routes wait for their neighbors, and which of them may be swept.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fib::{nexthop::NexthopEntry, route::Content},
    net::{Assigned, Convergence, Phase, Prefix},
};

/// Time after the start in which neighbors usually establish their sessions. Before it has passed,
/// an adopted route is not moved to another neighbor's next hops.
const FRESH: Duration = Duration::from_secs(10);

/// Progress of the sweep of stale routes.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Number of stale routes that are left.
    pub stale: usize,
    pub(super) convergence: Arc<Convergence>,
    pub(super) grace: Grace,
    /// Assignments of prefixes to hosts.
    pub(super) assigned: Arc<Assigned>,
}

/// Measures how long the sweep still waits for neighbors.
#[derive(Debug)]
pub struct StaleTimer {
    grace: Grace,
    /// When the grace period is next reduced: first after [`FRESH`] or three times `restart-time`,
    /// whichever is sooner, then at `over`.
    reduced_at: Option<Instant>,
    /// Three times `restart-time` after the start, or once `restart-time` after the first neighbor
    /// converged, whichever is later.
    over: Instant,
    restart_time: Duration,
    converged: bool,
}

impl StaleTimer {
    pub fn new(now: Instant, restart_time: Duration) -> Self {
        let over = now + restart_time * 3;
        Self {
            grace: Grace::Fresh,
            reduced_at: Some(over.min(now + FRESH)),
            over,
            restart_time,
            converged: false,
        }
    }

    pub fn grace(&self) -> Grace {
        self.grace
    }

    pub fn due(&self) -> Option<Instant> {
        self.reduced_at
    }

    /// Reports whether at least one neighbor has completed its initial exchange. If all neighbors
    /// were away, the return of the first does not mean that the others stay away, so they get more
    /// time.
    pub fn converged(&mut self, now: Instant, any: bool) {
        if any && !self.converged {
            self.over = self.over.max(now + self.restart_time);
            if self.grace != Grace::Fresh {
                (self.grace, self.reduced_at) = (Grace::Usual, Some(self.over));
            }
        }
        self.converged = any;
    }

    /// Reduces the grace period if that is due, and returns whether it was.
    pub fn timeout(&mut self, now: Instant) -> bool {
        let is_due = self.reduced_at.is_some_and(|at| at <= now);
        if is_due {
            (self.grace, self.reduced_at) = match self.grace {
                Grace::Fresh if now < self.over => (Grace::Usual, Some(self.over)),
                _ => (Grace::Over, None),
            };
        }
        is_due
    }
}

/// How much longer neighbors are waited for after the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grace {
    /// The first seconds: any neighbor may still establish its session.
    #[default]
    Fresh,
    Usual,
    /// The time measured by [`StaleTimer`] is over.
    Over,
}

impl Sweep {
    /// Whether no more initial updates are expected from a neighbor in this phase.
    fn done(&self, phase: Phase) -> bool {
        match phase {
            Phase::Converged => true,
            Phase::Up => false,
            // While no neighbor has converged, every route is kept. Once one is converging, the
            // sweep waits for it: a route reflector that returns also advertises the routes of
            // others.
            Phase::Waiting | Phase::Refused => self.grace == Grace::Over && self.convergence.any(),
        }
    }

    pub(super) fn all_done(&self) -> bool {
        self.convergence.any() && self.convergence.neighbors.values().all(|p| self.done(*p))
    }

    /// Whether no neighbor can still advertise a path over this gateway. A gateway that is no
    /// neighbor's address may be advertised by any of them, so all must have converged.
    fn unclaimed(&self, gateway: IpAddr) -> bool {
        match self.convergence.neighbors.get(&gateway) {
            Some(phase) => self.done(*phase),
            None => self.all_done(),
        }
    }

    /// Whether a route is kept although no neighbor advertises it: it leads to the host that its
    /// prefix is assigned to, which cannot withdraw it, as it has no session here. Neighbors that
    /// may have a session with it have all converged first.
    fn is_assigned(&self, prefix: Prefix, gateway: IpAddr) -> bool {
        let silent = match self.convergence.neighbors.get(&gateway) {
            Some(phase) => *phase != Phase::Converged,
            None => !self.convergence.all(),
        };
        silent && self.assigned.leads_there(prefix, gateway)
    }

    pub(super) fn may_sweep(&self, prefix: Prefix, content: &Content) -> bool {
        match content {
            // Of a group whose next hops are not known: any neighbor may advertise them.
            Content::Hops(hops) if hops.is_empty() => self.all_done(),
            Content::Hops(hops) => {
                hops.iter().all(|h| self.unclaimed(h.gateway) && !self.is_assigned(prefix, h.gateway))
            }
            Content::Unreachable | Content::Blackhole => self.all_done(),
        }
    }

    /// Whether an adopted route would lose next hops that their neighbors are about to advertise
    /// again.
    pub fn moves_too_early(&self, have: Option<&NexthopEntry>, want: &Content) -> bool {
        let (Some(Content::Hops(have)), Content::Hops(want)) = (have.map(|t| &t.content), want) else {
            return false;
        };
        let narrows = want.iter().all(|h| have.contains(h));
        let mut missing = have.iter().filter(|h| !want.contains(h));
        missing.any(|h| !self.unclaimed(h.gateway) && (narrows || self.is_expected_soon(h.gateway)))
    }

    /// Whether a path over this gateway is expected within seconds. Traffic that has another path
    /// does not wait longer for a neighbor that may be gone.
    fn is_expected_soon(&self, gateway: IpAddr) -> bool {
        let is_converging = match self.convergence.neighbors.get(&gateway) {
            Some(phase) => *phase == Phase::Up,
            None => self.convergence.neighbors.values().any(|p| *p == Phase::Up),
        };
        is_converging || self.grace == Grace::Fresh
    }
}
