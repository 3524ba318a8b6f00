//! Routes from a Node that it may not advertise: how many were refused, and for how long.
//!
//! A Node may learn of a new Service or pod CIDR before we do, so refused routes are reported as a
//! problem only after [`FOREIGN_ROUTES_GRACE`].

use std::time::{Duration, Instant};

use crate::net::{Diagnostic, Family, PerFamily, Reason, Subject};

/// How long refused routes are not reported.
const FOREIGN_ROUTES_GRACE: Duration = Duration::from_secs(10);
/// Most Nodes that are named in problems.
pub(super) const MAX_NAMED_NODES: usize = 10;

/// Refused routes of one neighbor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreign {
    counts: PerFamily<u32>,
    since: Option<Instant>,
    /// They were there for longer than the grace time.
    persists: bool,
}

impl Foreign {
    pub(super) fn count(&mut self, now: Instant, family: Family, difference: i32) {
        self.counts[family] = self.counts[family].saturating_add_signed(difference);
        match (self.total(), self.since) {
            (0, _) => *self = Self::default(),
            (_, None) => self.since = Some(now),
            _ => {}
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    pub(super) fn of_family(&self, family: Family) -> u32 {
        self.counts[family]
    }

    /// When [`Foreign::timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.filter(|_| !self.persists).map(|since| since + FOREIGN_ROUTES_GRACE)
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        self.persists |= self.deadline().is_some_and(|due| due <= now);
    }

    /// Whether it is to be reported as a problem.
    pub(super) fn persists(&self) -> bool {
        self.persists
    }
}

/// The text of the problem. It does not depend on the refused routes, so that it stays the same
/// while they change.
pub(super) fn problem(neighbor: &str, description: Option<&str>) -> Diagnostic {
    let node = description.map(|d| format!(" ({d})")).unwrap_or_default();
    Diagnostic::new(
        Reason::ForeignPrefixes,
        Subject::neighbor(neighbor),
        format!(
            "neighbor {neighbor}{node} advertises prefixes that are not in the pod CIDRs of its Node, and are \
             refused: see `routelet show routes --received {neighbor}`"
        ),
        "list in kubernetes.mesh-accept what nodes may advertise, and where it is nothing of yours, take the \
         node out of the cluster",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_routes_are_a_problem_once_they_have_stood_for_a_while() {
        #[expect(clippy::disallowed_methods, reason = "an epoch")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut foreign = Foreign::default();
        foreign.count(at(0), Family::Ipv4Unicast, 1);
        foreign.count(at(1), Family::Ipv6Unicast, 1);
        assert_eq!((foreign.total(), foreign.deadline()), (2, Some(at(10))));
        foreign.count(at(2), Family::Ipv4Unicast, -1);
        foreign.timeout(at(9));
        assert!(!foreign.persists());
        foreign.timeout(at(10));
        assert!(foreign.persists() && foreign.deadline().is_none());
        foreign.count(at(11), Family::Ipv6Unicast, -1);
        assert_eq!(foreign, Foreign::default());
        foreign.count(at(12), Family::Ipv4Unicast, 1);
        assert_eq!(foreign.deadline(), Some(at(22)));
    }
}
