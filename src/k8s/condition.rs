//! The Node's condition `NetworkUnavailable`: whether pods of this node can be reached, in the cluster's own words.
//!
//! Cloud controllers set it True on a new Node and wait for whoever brings the routes to set it False; until then the node
//! is tainted. It is a statement of fact, so it is set True again when the fact ends, and back by itself. It never
//! holds up anything of ours, and our own pods tolerate the taint.
//!
//! # A sign for the other nodes
//!
//! Its reason shows the other nodes that routelet runs here ([`presence`]): they peer with such Nodes, count them, and
//! elect reflectors among them. So the reason is written as soon as there is a plan, before any session could be up, and
//! the status is left as it is until the facts are known. A node without sessions among nodes has a reason of its own.

use std::time::{Duration, Instant};

use super::node::Presence;

/// What is known now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// There is a plan: routelet runs here and knows with which nodes it peers.
    pub planned: bool,
    /// No sessions among nodes: peering `none` or `gateway`.
    pub apart: bool,
    /// The conflist is in place, and the first exchange with the neighbors is over or 10 s have passed.
    pub begun: bool,
    /// The same, and a session was up where other nodes run routelet.
    pub ready: bool,
    /// Neighbors that the node should have.
    pub neighbors: usize,
    /// Of those, sessions that are up.
    pub up: usize,
    /// Of those, nodes that run routelet as far as the cluster knows.
    pub expected: usize,
    /// Sessions that were up before and are not, with somebody who is still there as far as the cluster knows: a Node
    /// that is powered off is its own fault.
    pub lost: usize,
}

/// Sessions that are down for less are not worth a taint: a switch that restarts comes back, and routes are kept meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `None`: as it is, Unknown where there is none.
    pub unavailable: Option<bool>,
    pub reason: &'static str,
    pub message: &'static str,
}

const UP: &str = "RouteletIsUp";
const UP_APART: &str = "RouteletIsUpOutsideMesh";
const STARTING: &str = "RouteletIsStarting";
const NO_NEIGHBOR: &str = "RouteletHasNoNeighbor";
const NO_NEIGHBOR_APART: &str = "RouteletHasNoNeighborOutsideMesh";

const AVAILABLE: Condition = Condition {
    unavailable: Some(false),
    reason: UP,
    message: "the node's pod CIDRs are exchanged with its neighbors",
};
const ALONE: Condition = Condition {
    unavailable: Some(false),
    reason: UP,
    message: "no neighbor has answered since the start: pods of this node reach each other and the node",
};
const CUT_OFF: Condition = Condition {
    unavailable: Some(true),
    reason: NO_NEIGHBOR,
    message: "every BGP session of this node has been down for a minute: see `routelet show neighbors` there",
};
const NEVER_MET: Condition = Condition {
    unavailable: Some(true),
    reason: NO_NEIGHBOR,
    message: "no BGP session of this node is up, and other nodes run routelet: see `routelet show node` there",
};
const SIGN: Condition = Condition {
    unavailable: None,
    reason: STARTING,
    message: "routelet is starting: the first exchange with its neighbors is not over",
};

/// What the reason of the condition shows of a Node.
pub fn presence(reason: &str) -> Presence {
    match reason {
        UP | STARTING | NO_NEIGHBOR => Presence::Signed,
        UP_APART | NO_NEIGHBOR_APART => Presence::Apart,
        _ => Presence::Unknown,
    }
}

impl Condition {
    /// Whether a Node with this condition needs to be written to.
    pub fn differs(&self, unavailable: Option<bool>, reason: Option<&str>) -> bool {
        reason != Some(self.reason) || self.unavailable.is_some_and(|wanted| unavailable != Some(wanted))
    }

    fn apart(self) -> Self {
        let reason = if self.reason == NO_NEIGHBOR { NO_NEIGHBOR_APART } else { UP_APART };
        Self { reason, ..self }
    }
}

/// Follows the facts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watchman {
    /// A session was up before: that none is now means something.
    met: bool,
    /// Since when none is up although one should be.
    down: Option<Instant>,
}

impl Watchman {
    /// What the Node should have now, given what its condition shows already; `None`: what it has stays.
    pub fn judge(&mut self, now: Instant, facts: Facts, shown: Presence) -> Option<Condition> {
        if facts.up > 0 {
            (self.met, self.down) = (true, None);
        } else if self.met || facts.expected > 0 {
            self.down.get_or_insert(now);
        } else {
            self.down = None;
        }
        if !facts.planned {
            return None;
        }
        let condition = match self.down {
            _ if !facts.begun => None,
            Some(since) if facts.lost > 0 && now >= since + PATIENCE => Some(CUT_OFF),
            Some(since) if facts.expected > 0 && now >= since + PATIENCE => Some(NEVER_MET),
            Some(_) if !self.met => None,
            _ if !self.met && facts.neighbors > 0 => Some(ALONE),
            _ => Some(AVAILABLE),
        };
        let condition = if facts.apart { condition.map(Condition::apart) } else { condition };
        // The sign cannot wait for the facts, and is nothing to be taken back.
        condition.or_else(|| (!facts.apart && shown != Presence::Signed).then_some(SIGN))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;

    fn facts(begun: bool, neighbors: usize, up: usize) -> Facts {
        let planned = true;
        Facts { planned, begun, neighbors, up, lost: neighbors - up, ..Facts::default() }
    }

    /// Of a Node that shows routelet already.
    fn judge(w: &mut Watchman, now: Instant, facts: Facts) -> Option<Condition> {
        w.judge(now, facts, Presence::Signed)
    }

    #[test]
    fn nothing_is_said_before_the_node_is_ready_and_then_it_is_available() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        assert_eq!(judge(&mut w, t, facts(false, 2, 1)), None);
        assert_eq!(judge(&mut w, t, facts(true, 2, 1)), Some(AVAILABLE));
        let mut alone = Watchman::default();
        assert_eq!(judge(&mut alone, t, facts(true, 0, 0)), Some(AVAILABLE), "a cluster of one node");
    }

    #[test]
    fn the_sign_is_written_before_the_first_session_and_leaves_the_status_as_it_is() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        assert_eq!(w.judge(t, Facts::default(), Presence::Unknown), None, "without a plan nothing is known");
        assert_eq!(w.judge(t, facts(false, 2, 0), Presence::Unknown), Some(SIGN));
        assert_eq!(w.judge(t, facts(false, 2, 0), Presence::Signed), None, "a restart writes nothing");
        for (unavailable, reason, differs) in [
            (None, None, true),
            (Some(true), Some("NoRouteCreated"), true),
            (Some(false), Some("FlannelIsUp"), true),
            (Some(true), Some(STARTING), false),
        ] {
            assert_eq!(SIGN.differs(unavailable, reason), differs, "{reason:?}");
        }
        assert!(AVAILABLE.differs(Some(false), Some(STARTING)) && AVAILABLE.differs(Some(true), Some(UP)));
        assert!(!AVAILABLE.differs(Some(false), Some(UP)));
    }

    #[test]
    fn a_node_without_sessions_among_nodes_has_a_reason_of_its_own() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        let apart = |begun| Facts { apart: true, ..facts(begun, 1, 0) };
        assert_eq!(w.judge(t, apart(false), Presence::Unknown), None);
        let said = w.judge(t, apart(true), Presence::Unknown).unwrap();
        assert_eq!((said.unavailable, presence(said.reason)), (Some(false), Presence::Apart));
    }

    #[test]
    fn neighbors_that_never_answered_do_not_taint_the_node() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        assert_eq!(judge(&mut w, t, facts(true, 1, 0)), Some(ALONE));
        assert_eq!(judge(&mut w, t + PATIENCE * 9, facts(true, 1, 0)), Some(ALONE), "a gateway without BGP");
    }

    /// A node whose reflectors were all Windows Nodes said that its network was there.
    #[test]
    fn calico_4595_a_node_that_never_met_another_one_does_not_claim_a_network() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        let never = Facts { expected: 2, lost: 0, ..facts(true, 3, 0) };
        assert_eq!(judge(&mut w, t, never), None, "not known yet");
        assert_eq!(judge(&mut w, t + PATIENCE, never), Some(NEVER_MET));
        let up = Facts { up: 1, ..never };
        assert_eq!(judge(&mut w, t + PATIENCE, up), Some(AVAILABLE));
        assert_eq!(judge(&mut w, t + PATIENCE, Facts { expected: 0, ..never }), Some(AVAILABLE), "they went");
    }

    #[test]
    fn a_node_that_lost_all_is_cut_off_after_a_minute_and_comes_back_by_itself() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        judge(&mut w, t, facts(true, 2, 2));
        assert_eq!(judge(&mut w, t, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(judge(&mut w, t + PATIENCE / 2, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(judge(&mut w, t + PATIENCE, facts(true, 2, 0)), Some(CUT_OFF));
        assert_eq!(judge(&mut w, t + PATIENCE, facts(true, 2, 1)), Some(AVAILABLE));
        judge(&mut w, t + PATIENCE, facts(true, 2, 0));
        assert_eq!(
            judge(&mut w, t + PATIENCE * 3, facts(true, 0, 0)),
            Some(AVAILABLE),
            "nobody is left to speak with"
        );
    }

    /// cilium#13550: a taint that nothing takes off again.
    #[test]
    fn calico_7788_the_node_that_is_left_is_not_cut_off_by_those_that_went() {
        let (mut w, t) = (Watchman::default(), Instant::now());
        judge(&mut w, t, facts(true, 2, 1));
        // Its Node is not heard of any more; the other neighbor is a gateway that never answered.
        let left = Facts { lost: 0, ..facts(true, 2, 0) };
        judge(&mut w, t, left);
        assert_eq!(judge(&mut w, t + PATIENCE * 9, left), Some(AVAILABLE));
    }
}
