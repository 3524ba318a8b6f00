//! The Node's condition `NetworkUnavailable`: whether pods of this node are reachable.
//!
//! Cloud controllers set it to True on a new Node and expect the routing component to set it to
//! False; until then the node is tainted. We keep it up to date: it becomes True again when all
//! sessions are lost, and False when they return. None of our own functions depends on it, and our
//! pods tolerate the taint.
//!
//! # Presence
//!
//! The condition's reason shows other nodes that routelet runs here ([`presence`]): they peer with
//! such Nodes, count them, and elect reflectors among them. The reason is therefore written as soon
//! as there is a plan, before any session can be established, while the status is left unchanged
//! until the facts are known. A node without sessions among nodes has separate reasons.

use std::time::{Duration, Instant};

use super::node::Presence;

/// The facts that determine the condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether there is a plan, so that it is known with which nodes to peer.
    pub planned: bool,
    /// Whether there are no sessions among nodes: peering `none` or `gateway`.
    pub apart: bool,
    /// Whether the conflist is written, and initial routes were received or 10 s have passed.
    pub begun: bool,
    /// `begun`, and a session was established if other nodes run routelet.
    pub ready: bool,
    /// Number of configured neighbors.
    pub neighbors: usize,
    /// Number of those with an established session.
    pub up: usize,
    /// Number of those that are nodes known to run routelet.
    pub expected: usize,
    /// Number of sessions that were established before and are closed, with neighbors that still
    /// exist in the cluster: a Node that is powered off does not count.
    pub lost: usize,
}

/// How long all sessions must be down before the node is tainted: a switch that restarts returns
/// within it, and routes are kept meanwhile.
pub const DOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// The condition to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `None` leaves the status unchanged, or Unknown if there is none.
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
    message: "no session was established since the start: pods of this node reach each other and the node",
};
const CUT_OFF: Condition = Condition {
    unavailable: Some(true),
    reason: NO_NEIGHBOR,
    message: "every BGP session of this node has been down for a minute: see `routelet show neighbors` there",
};
const NEVER_MET: Condition = Condition {
    unavailable: Some(true),
    reason: NO_NEIGHBOR,
    message: "no BGP session of this node is established, and other nodes run routelet: see `routelet show node` there",
};
const STARTED: Condition = Condition {
    unavailable: None,
    reason: STARTING,
    message: "routelet is starting: initial routes of its neighbors are not complete",
};

/// Whether routelet runs on a Node, from the reason of its condition.
pub fn presence(reason: &str) -> Presence {
    match reason {
        UP | STARTING | NO_NEIGHBOR => Presence::Signed,
        UP_APART | NO_NEIGHBOR_APART => Presence::Apart,
        _ => Presence::Unknown,
    }
}

impl Condition {
    /// Whether a Node with this status and reason must be updated.
    pub fn differs(&self, unavailable: Option<bool>, reason: Option<&str>) -> bool {
        reason != Some(self.reason) || self.unavailable.is_some_and(|wanted| unavailable != Some(wanted))
    }

    fn apart(self) -> Self {
        let reason = if self.reason == NO_NEIGHBOR { NO_NEIGHBOR_APART } else { UP_APART };
        Self { reason, ..self }
    }
}

/// Tracks the facts over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkCondition {
    /// Whether a session was ever established.
    was_up: bool,
    /// Since when no session is established although one should be.
    down: Option<Instant>,
}

impl NetworkCondition {
    /// The condition that the Node should have now; `shown` is the presence that it shows already.
    /// `None` leaves it unchanged.
    pub fn update(&mut self, now: Instant, facts: Facts, shown: Presence) -> Option<Condition> {
        if facts.up > 0 {
            (self.was_up, self.down) = (true, None);
        } else if self.was_up || facts.expected > 0 {
            self.down.get_or_insert(now);
        } else {
            self.down = None;
        }
        if !facts.planned {
            return None;
        }
        let condition = match self.down {
            _ if !facts.begun => None,
            Some(since) if facts.lost > 0 && now >= since + DOWN_TIMEOUT => Some(CUT_OFF),
            Some(since) if facts.expected > 0 && now >= since + DOWN_TIMEOUT => Some(NEVER_MET),
            Some(_) if !self.was_up => None,
            _ if !self.was_up && facts.neighbors > 0 => Some(ALONE),
            _ => Some(AVAILABLE),
        };
        let condition = if facts.apart { condition.map(Condition::apart) } else { condition };
        // Presence is shown before the facts are known, and is not withdrawn.
        condition.or_else(|| (!facts.apart && shown != Presence::Signed).then_some(STARTED))
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

    /// The update for a Node that shows routelet already.
    fn update(w: &mut NetworkCondition, now: Instant, facts: Facts) -> Option<Condition> {
        w.update(now, facts, Presence::Signed)
    }

    #[test]
    fn nothing_is_written_before_the_node_is_ready_and_then_it_is_available() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        assert_eq!(update(&mut w, t, facts(false, 2, 1)), None);
        assert_eq!(update(&mut w, t, facts(true, 2, 1)), Some(AVAILABLE));
        let mut alone = NetworkCondition::default();
        assert_eq!(update(&mut alone, t, facts(true, 0, 0)), Some(AVAILABLE), "a cluster of one node");
    }

    #[test]
    fn presence_is_written_before_the_first_session_and_leaves_the_status_unchanged() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        assert_eq!(w.update(t, Facts::default(), Presence::Unknown), None, "without a plan nothing is known");
        assert_eq!(w.update(t, facts(false, 2, 0), Presence::Unknown), Some(STARTED));
        assert_eq!(w.update(t, facts(false, 2, 0), Presence::Signed), None, "a restart writes nothing");
        for (unavailable, reason, differs) in [
            (None, None, true),
            (Some(true), Some("NoRouteCreated"), true),
            (Some(false), Some("FlannelIsUp"), true),
            (Some(true), Some(STARTING), false),
        ] {
            assert_eq!(STARTED.differs(unavailable, reason), differs, "{reason:?}");
        }
        assert!(AVAILABLE.differs(Some(false), Some(STARTING)) && AVAILABLE.differs(Some(true), Some(UP)));
        assert!(!AVAILABLE.differs(Some(false), Some(UP)));
    }

    #[test]
    fn a_node_without_sessions_among_nodes_has_separate_reasons() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        let apart = |begun| Facts { apart: true, ..facts(begun, 1, 0) };
        assert_eq!(w.update(t, apart(false), Presence::Unknown), None);
        let condition = w.update(t, apart(true), Presence::Unknown).unwrap();
        assert_eq!((condition.unavailable, presence(condition.reason)), (Some(false), Presence::Apart));
    }

    #[test]
    fn neighbors_without_a_session_since_the_start_do_not_taint_the_node() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        assert_eq!(update(&mut w, t, facts(true, 1, 0)), Some(ALONE));
        assert_eq!(
            update(&mut w, t + DOWN_TIMEOUT * 9, facts(true, 1, 0)),
            Some(ALONE),
            "a gateway without BGP"
        );
    }

    /// A node whose reflectors were all Windows Nodes reported an available network.
    #[test]
    fn calico_4595_a_node_without_any_session_is_not_available() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        let never = Facts { expected: 2, lost: 0, ..facts(true, 3, 0) };
        assert_eq!(update(&mut w, t, never), None, "not known yet");
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT, never), Some(NEVER_MET));
        let up = Facts { up: 1, ..never };
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT, up), Some(AVAILABLE));
        assert_eq!(
            update(&mut w, t + DOWN_TIMEOUT, Facts { expected: 0, ..never }),
            Some(AVAILABLE),
            "they are gone"
        );
    }

    #[test]
    fn a_node_that_lost_all_sessions_is_unavailable_after_a_minute_and_recovers() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        update(&mut w, t, facts(true, 2, 2));
        assert_eq!(update(&mut w, t, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT / 2, facts(true, 2, 0)), Some(AVAILABLE));
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT, facts(true, 2, 0)), Some(CUT_OFF));
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT, facts(true, 2, 1)), Some(AVAILABLE));
        update(&mut w, t + DOWN_TIMEOUT, facts(true, 2, 0));
        assert_eq!(
            update(&mut w, t + DOWN_TIMEOUT * 3, facts(true, 0, 0)),
            Some(AVAILABLE),
            "no neighbors are left"
        );
    }

    /// cilium#13550: a taint that is never removed.
    #[test]
    fn calico_7788_the_node_that_is_left_is_not_cut_off_by_those_that_went() {
        let (mut w, t) = (NetworkCondition::default(), Instant::now());
        update(&mut w, t, facts(true, 2, 1));
        // The Node of the lost neighbor does not report; the other one is a gateway without a
        // session.
        let left = Facts { lost: 0, ..facts(true, 2, 0) };
        update(&mut w, t, left);
        assert_eq!(update(&mut w, t + DOWN_TIMEOUT * 9, left), Some(AVAILABLE));
    }
}
