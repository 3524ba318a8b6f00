//! The Node's condition `NetworkUnavailable`: whether pods of this node can be reached, in the cluster's own words.
//!
//! Cloud controllers set it True on a new Node and wait for whoever brings the routes to set it False; until then the node
//! is tainted. It is a statement of fact, so it is set True again when the fact ends, and back by itself. It never
//! holds up anything of ours, and our own pods tolerate the taint.

use std::time::{Duration, Instant};

/// What is known now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The conflist is in place and the first exchange with the neighbors is over, or nobody came to it.
    pub ready: bool,
    /// Neighbors that the node should have.
    pub neighbors: usize,
    /// Of those, sessions that are up.
    pub up: usize,
    /// Of those, sessions that were up before and are not, with somebody who is still there as far as the cluster knows: a Node
    /// that is powered off is its own fault.
    pub lost: usize,
}

/// Sessions that are down for less are not worth a taint: a switch that restarts comes back, and routes are kept meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub unavailable: bool,
    pub reason: &'static str,
    pub message: &'static str,
}

const AVAILABLE: Condition = Condition {
    unavailable: false,
    reason: "RouteletIsUp",
    message: "the node's pod CIDRs are exchanged with its neighbors",
};
const ALONE: Condition = Condition {
    unavailable: false,
    reason: "RouteletIsUp",
    message: "no neighbor has answered since the start: pods of this node reach each other and the node",
};
const CUT_OFF: Condition = Condition {
    unavailable: true,
    reason: "RouteletHasNoNeighbor",
    message: "every BGP session of this node has been down for a minute: see `routelet show neighbors` there",
};

/// Follows the facts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watchman {
    /// A session was up before: that none is now means something.
    met: bool,
    /// Since when none is up.
    down: Option<Instant>,
}

impl Watchman {
    /// What to say now; `None`: nothing yet, what the Node says stays.
    pub fn judge(&mut self, now: Instant, facts: Facts) -> Option<Condition> {
        if facts.up > 0 {
            (self.met, self.down) = (true, None);
        } else if self.met {
            self.down.get_or_insert(now);
        }
        if !facts.ready {
            return None;
        }
        Some(match self.down {
            Some(since) if facts.lost > 0 && now >= since + PATIENCE => CUT_OFF,
            _ if !self.met && facts.neighbors > 0 => ALONE,
            _ => AVAILABLE,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    fn facts(ready: bool, neighbors: usize, up: usize) -> Facts {
        Facts { ready, neighbors, up, lost: neighbors - up }
    }

    #[test]
    fn nothing_is_said_before_the_node_is_ready_and_then_it_is_available() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        assert_eq!(w.judge(t, facts(false, 2, 1)), None);
        assert_eq!(w.judge(t, facts(true, 2, 1)), Some(AVAILABLE));
        assert_eq!(Watchman::default().judge(t, facts(true, 0, 0)), Some(AVAILABLE), "a cluster of one node");
    }

    #[test]
    fn neighbors_that_never_answered_do_not_taint_the_node() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        assert_eq!(w.judge(t, facts(true, 1, 0)), Some(ALONE));
        assert_eq!(w.judge(t + PATIENCE * 9, facts(true, 1, 0)), Some(ALONE), "a gateway without BGP");
    }

    #[test]
    fn a_node_that_lost_all_is_cut_off_after_a_minute_and_comes_back_by_itself() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        w.judge(t, facts(true, 2, 2));
        assert_eq!(w.judge(t, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(w.judge(t + PATIENCE / 2, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(w.judge(t + PATIENCE, facts(true, 2, 0)), Some(CUT_OFF));
        assert_eq!(w.judge(t + PATIENCE, facts(true, 2, 1)), Some(AVAILABLE));
        w.judge(t + PATIENCE, facts(true, 2, 0));
        assert_eq!(
            w.judge(t + PATIENCE * 3, facts(true, 0, 0)),
            Some(AVAILABLE),
            "nobody is left to speak with"
        );
    }

    /// cilium#13550: a taint that nothing takes off again.
    #[test]
    fn trouble_20_the_node_that_is_left_is_not_cut_off_by_those_that_went() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        w.judge(t, facts(true, 2, 1));
        // Its Node is not heard of any more; the other neighbor is a gateway that never answered.
        let left = Facts { ready: true, neighbors: 2, up: 0, lost: 0 };
        w.judge(t, left);
        assert_eq!(w.judge(t + PATIENCE * 9, left), Some(AVAILABLE));
    }
}
