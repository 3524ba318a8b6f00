//! Start and restart: what the kernel already holds of ours is taken over, and swept when the neighbors have
//! spoken (`fib.on-exit` of the interface page).
//!
//! Nothing is purged at the start. A route found there is stale until the rib wants the same: then it is right
//! and stays untouched. What nobody wants goes neighbor by neighbor, as each finishes its first exchange.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fib::{
        diff::Fib,
        nexthop::Top,
        route::{Content, OWN_METRIC, ObjectId, SeenObject},
        table::Mark,
    },
    net::{Assigned, Convergence, Phase, Prefix},
};

/// After a start, the time in which neighbors usually come up: adopted routes move to no other neighbor's next
/// hops before.
const FRESH: Duration = Duration::from_secs(10);

/// How far the sweep has come.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Stale routes left.
    pub stale: usize,
    convergence: Arc<Convergence>,
    patience: Patience,
    /// What routes lead to the host that their prefix is assigned to.
    assigned: Arc<Assigned>,
}

/// How long neighbors are still waited for, as time goes by.
#[derive(Debug)]
pub struct Wait {
    patience: Patience,
    /// When patience lessens: after [`FRESH`] or three times `restart-time`, whichever is sooner, then after the latter.
    lessens: Option<Instant>,
    /// Three times `restart-time` after the start, or once after the first neighbor was heard, whichever is later.
    over: Instant,
    restart_time: Duration,
    heard: bool,
}

impl Wait {
    pub fn new(now: Instant, restart_time: Duration) -> Self {
        let over = now + restart_time * 3;
        Self {
            patience: Patience::Fresh,
            lessens: Some(over.min(now + FRESH)),
            over,
            restart_time,
            heard: false,
        }
    }

    pub fn patience(&self) -> Patience {
        self.patience
    }

    pub fn due(&self) -> Option<Instant> {
        self.lessens
    }

    /// Whether at least one neighbor has finished its first exchange. When all were away, the first that is back is no sign
    /// that the others stay away: they have some time again.
    pub fn heard(&mut self, now: Instant, any: bool) {
        if any && !self.heard {
            self.over = self.over.max(now + self.restart_time);
            if self.patience != Patience::Fresh {
                (self.patience, self.lessens) = (Patience::Usual, Some(self.over));
            }
        }
        self.heard = any;
    }

    /// Whether patience is less than before.
    pub fn timeout(&mut self, now: Instant) -> bool {
        let is_due = self.lessens.is_some_and(|at| at <= now);
        if is_due {
            (self.patience, self.lessens) = match self.patience {
                Patience::Fresh if now < self.over => (Patience::Usual, Some(self.over)),
                _ => (Patience::Over, None),
            };
        }
        is_due
    }
}

/// How long after the start it is, as far as waiting for neighbors goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// The first seconds: any neighbor may still come up.
    #[default]
    Fresh,
    Usual,
    /// The time of [`Wait`] is over.
    Over,
}

impl Sweep {
    /// Whether all has been heard that can be expected of a neighbor.
    fn done(&self, phase: Phase) -> bool {
        match phase {
            Phase::Converged => true,
            Phase::Up => false,
            // A node that hears nobody keeps what it has, and one that begins to hear again lets the first one finish: a
            // reflector that is back speaks for others as well.
            Phase::Waiting | Phase::Refused => self.patience == Patience::Over && self.convergence.any(),
        }
    }

    fn all_done(&self) -> bool {
        self.convergence.any() && self.convergence.neighbors.values().all(|p| self.done(*p))
    }

    /// Whether nobody will come any more to claim a hop over this gateway. One that is no neighbor's may be
    /// anybody's: all must have spoken.
    fn unclaimed(&self, gateway: IpAddr) -> bool {
        match self.convergence.neighbors.get(&gateway) {
            Some(phase) => self.done(*phase),
            None => self.all_done(),
        }
    }

    /// Whether the route is right although nobody advertises it: it leads to the host that its prefix is assigned to, which
    /// cannot withdraw it, as it has no session here. Neighbors that may have a session with it have all been heard first.
    fn is_right(&self, prefix: Prefix, gateway: IpAddr) -> bool {
        let silent = match self.convergence.neighbors.get(&gateway) {
            Some(phase) => *phase != Phase::Converged,
            None => !self.convergence.all(),
        };
        silent && self.assigned.leads_there(prefix, gateway)
    }

    fn may_go(&self, prefix: Prefix, content: &Content) -> bool {
        match content {
            Content::Hops(hops) => {
                hops.iter().all(|h| self.unclaimed(h.gateway) && !self.is_right(prefix, h.gateway))
            }
            Content::Unreachable | Content::Blackhole => self.all_done(),
        }
    }

    /// Whether a route found at the start would lose hops that their neighbors are about to claim again.
    pub fn moves_too_early(&self, have: Option<&Top>, want: &Content) -> bool {
        let (Some(Content::Hops(have)), Content::Hops(want)) = (have.map(|t| &t.content), want) else {
            return false;
        };
        let narrows = want.iter().all(|h| have.contains(h));
        let mut missing = have.iter().filter(|h| !want.contains(h));
        missing.any(|h| !self.unclaimed(h.gateway) && (narrows || self.is_near(h.gateway)))
    }

    /// Whether the claim for a hop over this gateway is a matter of seconds. Traffic that has another way does
    /// not wait longer for a neighbor that may be gone.
    fn is_near(&self, gateway: IpAddr) -> bool {
        let speaks = match self.convergence.neighbors.get(&gateway) {
            Some(phase) => *phase == Phase::Up,
            None => self.convergence.neighbors.values().any(|p| *p == Phase::Up),
        };
        speaks || self.patience == Patience::Fresh
    }
}

impl Fib {
    /// Takes over the nexthop objects that are in the kernel. Before the routes.
    pub fn adopt_objects(&mut self, seen: &BTreeMap<ObjectId, SeenObject>, protocol: u8) {
        self.objects.adopt_all(seen, protocol);
    }

    /// Takes over one route of ours.
    pub fn adopt_route(&mut self, prefix: Prefix, metric: u32, object: ObjectId, content: Content) {
        if metric == OWN_METRIC && content == Content::Unreachable {
            let own = self.own.entry(prefix).or_default();
            (own.there, own.seen) = (true, true);
        } else if metric == self.settings.metric {
            let top = self.objects.adopt(object, content);
            self.adopted(prefix, top);
        } else {
            // Its object must stay as long as the route does.
            let top = self.objects.adopt(object, content);
            self.objects.hold(top);
            self.strangers.push((prefix, metric, top));
        }
    }

    /// Routes in the place of a former configuration use this object: how many. It stays until [`Fib::release_object`].
    pub fn hold_object(&mut self, object: ObjectId, routes: u32) {
        if let Some(top) = self.objects.by_object(object) {
            (0..routes).for_each(|_| self.objects.hold(top));
        }
    }

    /// They are gone.
    pub fn release_object(&mut self, object: ObjectId, routes: u32) {
        if let Some(top) = self.objects.by_object(object) {
            self.objects.drop_refs(top, routes);
        }
    }

    /// Whether all has been heard that can be expected of the neighbors.
    pub fn all_heard(&mut self, convergence: Arc<Convergence>, patience: Patience) -> bool {
        (self.sweep.convergence, self.sweep.patience) = (convergence, patience);
        self.sweep.all_done()
    }

    /// Which prefixes are assigned to which hosts. [`Fib::converged`] heeds it.
    pub fn assigned(&mut self, assigned: Arc<Assigned>) {
        self.sweep.assigned = assigned;
    }

    /// Whether routes wait to be claimed or swept.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.stale > 0 || !self.strangers.is_empty() || self.own.values().any(|o| o.there && !o.wanted)
    }

    /// Heeds how far the neighbors have come.
    pub fn converged(&mut self, convergence: Arc<Convergence>, patience: Patience) {
        if !self.is_sweeping() {
            return;
        }
        self.sweep.convergence = convergence;
        self.sweep.patience = patience;
        let stale: Vec<_> = self
            .routes
            .iter()
            .filter(|(_, s)| s.is(Mark::Stale))
            .map(|(p, s)| (p, s.want, s.have()))
            .collect();
        for (prefix, want, have) in stale {
            let content = self.objects.top(have).map(|t| &t.content);
            let go = content.is_none_or(|c| self.sweep.may_go(prefix, c));
            match (want, go) {
                // Wanted otherwise: held back until now, so that it kept its hops.
                (1.., _) => self.unhold(prefix, go),
                (0, true) => self.delete(prefix),
                (0, false) => {}
            }
        }
        if self.sweep.all_done() {
            self.delete_strangers();
            let unwanted = self.own.iter().filter(|(_, o)| o.there && !o.wanted).map(|(p, _)| *p);
            for prefix in unwanted.collect::<Vec<_>>() {
                self.delete_own(prefix);
            }
        }
    }
}
