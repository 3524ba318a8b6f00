//! A neighbor that moves to another of its addresses: the session at the new address is established
//! before the old one is closed.
//!
//! The two ends learn of the change at different times. Closing the old session at once would
//! remove routes that have not been learned from the new one. So the old neighbor stays until the
//! new one has advertised all its routes, and [`SETTLE_TIME`] longer, in which ours are advertised
//! to it; at most for [`MAX_HANDOVER_TIME`]. A neighbor without a session and without routes in the
//! table is removed at once by its task.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    bgp::peer::{PeerConfig, PeerKey, PeerSource},
    net::{Convergence, Phase},
};

/// How long a neighbor stays for its successor at most.
pub(super) const MAX_HANDOVER_TIME: Duration = Duration::from_secs(10);
/// Time to advertise our routes to the successor, once it has advertised its own.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Removed neighbors that stay until their successors have advertised their routes.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    leaving: BTreeMap<PeerKey, Leaving>,
    /// As it was last.
    convergence: Arc<Convergence>,
}

#[derive(Clone, Debug)]
struct Leaving {
    successors: Vec<PeerKey>,
    until: Instant,
}

impl Handover {
    /// Whether `old`, which is wanted no more, stays for now. `wanted`: the neighbors that there
    /// are to be; `known`: whether there is a session, or an attempt, with one of them already.
    pub fn stays(
        &mut self,
        now: Instant,
        old: &PeerConfig,
        wanted: &BTreeMap<PeerKey, Arc<PeerConfig>>,
        known: impl Fn(&PeerKey) -> bool,
    ) -> bool {
        if let Some(leaving) = self.leaving.get_mut(&old.key) {
            leaving.successors.retain(|key| wanted.contains_key(key));
        } else {
            // A Node may go back to an address whose own session has not ended yet, or has just
            // begun.
            let may_succeed = |c: &PeerConfig| is_node(c) || !known(&c.key);
            let new = wanted.values().filter(|c| may_succeed(c) && is_same(old, c) && !c.disabled);
            let successors: Vec<_> = new.map(|c| c.key.clone()).collect();
            let is_there = successors.iter().any(|key| has_converged(&self.convergence, key));
            let until = now + if is_there { SETTLE_TIME } else { MAX_HANDOVER_TIME };
            self.leaving.insert(old.key.clone(), Leaving { successors, until });
        }
        let stays = self.leaving.get(&old.key).is_some_and(|l| !l.successors.is_empty() && now < l.until);
        if !stays {
            self.leaving.remove(&old.key);
        }
        stays
    }

    /// Neighbors that are wanted again do not leave.
    pub fn wanted(&mut self, wanted: &BTreeMap<PeerKey, Arc<PeerConfig>>) {
        self.leaving.retain(|key, _| !wanted.contains_key(key));
    }

    /// The table knows this much of each neighbor's routes.
    pub fn converged(&mut self, now: Instant, convergence: &Arc<Convergence>) {
        self.convergence = convergence.clone();
        for leaving in self.leaving.values_mut() {
            if leaving.successors.iter().any(|key| has_converged(convergence, key)) {
                leaving.until = leaving.until.min(now + SETTLE_TIME);
            }
        }
    }

    /// When to call [`Handover::due`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.leaving.values().map(|l| l.until).min()
    }

    /// Those whose time is over.
    pub fn due(&mut self, now: Instant) -> Vec<PeerKey> {
        self.leaving.extract_if(.., |_, l| l.until <= now).map(|(key, _)| key).collect()
    }
}

fn has_converged(convergence: &Convergence, key: &PeerKey) -> bool {
    key.addr().and_then(|a| convergence.neighbors.get(&a)) == Some(&Phase::Converged)
}

fn is_node(config: &PeerConfig) -> bool {
    matches!(config.source, PeerSource::Mesh | PeerSource::Reflector)
}

/// Whether the settings of two keys are those of one neighbor: the same Node, any gateway, or else
/// one that differs in nothing by which it is known.
fn is_same(a: &PeerConfig, b: &PeerConfig) -> bool {
    let kind = |source| match source {
        PeerSource::Mesh | PeerSource::Reflector => 0,
        PeerSource::Gateway => 1,
        PeerSource::Configured => 2,
        PeerSource::Object => 3,
        PeerSource::Range => 4,
    };
    let nodes = kind(a.source) == 0;
    a.source != PeerSource::Range
        && kind(a.source) == kind(b.source)
        && (a.remote_as, &a.description) == (b.remote_as, &b.description)
        && (nodes || a.group == b.group)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick the epoch")]
mod tests {
    use super::*;
    use crate::bgp::peer::RemoteAs;

    fn neighbor(key: &str, source: PeerSource, description: &str) -> PeerConfig {
        let config = PeerConfig::new(key.parse().unwrap(), RemoteAs::Number(65000), 65000);
        PeerConfig { source, description: Some(description.into()), ..config }
    }

    fn wanted(all: &[&PeerConfig]) -> BTreeMap<PeerKey, Arc<PeerConfig>> {
        all.iter().map(|c| (c.key.clone(), Arc::new(PeerConfig::clone(c)))).collect()
    }

    #[test]
    fn only_the_same_neighbor_at_a_new_address_lets_the_old_one_stay() {
        use PeerSource::{Configured, Gateway, Mesh, Range, Reflector};
        let at = |source, description| neighbor("10.0.0.2", source, description);
        let disabled = PeerConfig { disabled: true, ..at(Mesh, "node a") };
        let other_as = PeerConfig { remote_as: RemoteAs::Number(1), ..at(Configured, "tor") };
        #[rustfmt::skip]
        let cases = [
            ("a Node's other address",         neighbor("10.0.0.1", Mesh, "node a"),    at(Mesh, "node a"),       true),
            ("it reflects from now on",        neighbor("10.0.0.1", Mesh, "node a"),    at(Reflector, "node a"),  true),
            ("another Node",                   neighbor("10.0.0.1", Mesh, "node a"),    at(Mesh, "node b"),       false),
            ("another gateway",                neighbor("10.0.0.1", Gateway, ""),       at(Gateway, ""),          true),
            ("a line of the file changed",     neighbor("10.0.0.1", Configured, "tor"), at(Configured, "tor"),    true),
            ("and its AS number too",          neighbor("10.0.0.1", Configured, "tor"), other_as,                 false),
            ("a gateway that is a node now",   neighbor("10.0.0.1", Gateway, "node a"), at(Mesh, "node a"),       false),
            ("a caller from a range",          neighbor("10.0.0.1", Range, "tor"),      at(Range, "tor"),         false),
            ("the new one is disabled",        neighbor("10.0.0.1", Mesh, "node a"),    disabled,                 false),
        ];
        let now = Instant::now();
        for (name, old, new, stays) in cases {
            let mut handover = Handover::default();
            assert_eq!(handover.stays(now, &old, &wanted(&[&new]), |_| false), stays, "{name}");
            assert_eq!(handover.poll_timeout().is_some(), stays, "{name}");
            assert!(!handover.stays(now, &old, &wanted(&[&new]), |_| true) || stays, "{name}: known before");
        }
    }

    #[test]
    fn the_old_neighbor_is_removed_shortly_after_the_new_one_has_advertised_its_routes() {
        let now = Instant::now();
        let (old, new) =
            (neighbor("10.0.0.1", PeerSource::Mesh, "n"), neighbor("10.0.0.2", PeerSource::Mesh, "n"));
        let phase =
            |phase| Arc::new(Convergence { neighbors: [("10.0.0.2".parse().unwrap(), phase)].into() });
        let mut handover = Handover::default();
        assert!(handover.stays(now, &old, &wanted(&[&new]), |_| false));
        handover.converged(now, &phase(Phase::Up));
        assert_eq!(handover.poll_timeout(), Some(now + MAX_HANDOVER_TIME));
        handover.converged(now + SETTLE_TIME, &phase(Phase::Converged));
        handover.converged(now + SETTLE_TIME * 3, &phase(Phase::Converged));
        assert_eq!(handover.poll_timeout(), Some(now + SETTLE_TIME * 2), "later news change nothing");
        assert!(handover.stays(now + SETTLE_TIME, &old, &wanted(&[&new]), |_| true), "the next plan");
        assert_eq!(
            (handover.due(now + SETTLE_TIME).len(), handover.due(now + SETTLE_TIME * 2)),
            (0, vec![old.key.clone()])
        );

        // One that never comes up, one that is wanted again, and one that has lost its successor.
        assert!(handover.stays(now, &old, &wanted(&[&new]), |_| false));
        assert!(!handover.stays(now + MAX_HANDOVER_TIME, &old, &wanted(&[&new]), |_| true));
        assert!(handover.stays(now, &old, &wanted(&[&new]), |_| false));
        assert!(!handover.stays(now, &old, &wanted(&[]), |_| true));
        assert!(handover.stays(now, &old, &wanted(&[&new]), |_| false));
        handover.wanted(&wanted(&[&old]));
        assert_eq!(handover.poll_timeout(), None);
    }

    #[test]
    fn a_node_that_goes_back_to_an_address_known_before_is_handed_over_as_well() {
        let now = Instant::now();
        let (a, b) =
            (neighbor("10.0.0.1", PeerSource::Mesh, "n"), neighbor("10.0.0.2", PeerSource::Mesh, "n"));
        let mut handover = Handover::default();
        assert!(
            handover.stays(now, &b, &wanted(&[&a]), |_| true),
            "the session at a may just have begun, or end"
        );
        assert_eq!(handover.poll_timeout(), Some(now + MAX_HANDOVER_TIME));
        let there =
            Arc::new(Convergence { neighbors: [("10.0.0.1".parse().unwrap(), Phase::Converged)].into() });
        handover.converged(now, &there);
        assert_eq!(handover.due(now + SETTLE_TIME), vec![b.key.clone()]);
        assert!(handover.stays(now, &b, &wanted(&[&a]), |_| true));
        assert_eq!(handover.poll_timeout(), Some(now + SETTLE_TIME), "its routes are there already");
        let other = |key: &str| neighbor(key, PeerSource::Configured, "tor");
        assert!(!handover.stays(now, &other("10.0.1.1"), &wanted(&[&other("10.0.1.2")]), |_| true));
    }
}
