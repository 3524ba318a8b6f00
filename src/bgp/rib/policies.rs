//! How many routes the statements of policies have matched, for `show policy` and `show neighbor`.
//!
//! Import is evaluated for each neighbor, so that each has counters of its own. Export is evaluated
//! once for an update group, so that all neighbors with the same export policies share counters,
//! which last longer than the group. Each evaluation counts, also one that is repeated after a
//! change. The counters begin at 0 when a neighbor gets other policies.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Rib,
    peers::Peer,
    view::{PolicyHits, PolicyUse},
};
use crate::bgp::policy::{Hits, Policy, PolicyCounts};

/// Counters that update groups share. Two are equal, so that they do not distinguish groups.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedHits(Arc<Hits>);

impl PartialEq for SharedHits {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::ops::Deref for SharedHits {
    type Target = Hits;

    fn deref(&self) -> &Hits {
        &self.0
    }
}

/// The counters of export by list of policies.
#[derive(Debug, Default)]
pub(super) struct ExportHits(Vec<(Vec<Arc<Policy>>, SharedHits)>);

impl ExportHits {
    /// The counters of these policies, new ones if there are none.
    pub(super) fn of(&mut self, policies: &[Arc<Policy>]) -> SharedHits {
        if policies.is_empty() {
            return SharedHits::default();
        }
        if let Some(known) = self.find(policies) {
            return known.clone();
        }
        let hits = SharedHits(Arc::new(Hits::new(policies)));
        self.0.push((policies.to_vec(), hits.clone()));
        hits
    }

    fn find(&self, policies: &[Arc<Policy>]) -> Option<&SharedHits> {
        self.0.iter().find(|(list, _)| list == policies).map(|(_, hits)| hits)
    }

    /// Drops the counters of policies that no neighbor has.
    fn retain(&mut self, is_used: impl Fn(&[Arc<Policy>]) -> bool) {
        self.0.retain(|(list, _)| is_used(list));
    }
}

impl Rib {
    /// Call after a neighbor was removed or its policies changed.
    pub(super) fn retain_export_hits(&mut self) {
        let peers = &self.peers;
        self.export_hits.retain(|list| peers.iter().flatten().any(|p| p.config.export == list));
    }

    pub(super) fn import_hits(&self, peer: &Peer) -> Vec<PolicyHits> {
        named(&peer.config.import, &peer.import_hits)
    }

    /// The counters that a neighbor shares, and the number of neighbors that share them.
    pub(super) fn shared_hits(&self, peer: &Peer) -> (Vec<PolicyHits>, u64) {
        let list = &peer.config.export;
        let sharing = self.peers.iter().flatten().filter(|p| p.config.export == *list).count() as u64;
        match self.export_hits.find(list) {
            Some(hits) => (named(list, hits), sharing),
            // No session yet.
            None => (named(list, &Hits::new(list)), sharing),
        }
    }

    /// Where each policy is used, and what its statements have matched there.
    pub fn policy_uses(&self) -> BTreeMap<String, PolicyUse> {
        let mut uses: BTreeMap<String, PolicyUse> = BTreeMap::new();
        for peer in self.peers.iter().flatten() {
            for hits in self.import_hits(peer) {
                let used = uses.entry(hits.policy.clone()).or_default();
                used.import.push(peer.name());
                add(&mut used.matched_on_import, hits.counts);
            }
            for policy in &peer.config.export {
                uses.entry(policy.name.clone()).or_default().export.push(peer.name());
            }
        }
        for (list, hits) in &self.export_hits.0 {
            for hits in named(list, hits) {
                add(&mut uses.entry(hits.policy).or_default().matched_on_export, hits.counts);
            }
        }
        uses
    }
}

fn named(policies: &[Arc<Policy>], hits: &Hits) -> Vec<PolicyHits> {
    let one = |(policy, counts): (&Arc<Policy>, _)| PolicyHits { policy: policy.name.clone(), counts };
    policies.iter().zip(hits.counts()).map(one).collect()
}

fn add(sum: &mut PolicyCounts, counts: PolicyCounts) {
    sum.otherwise += counts.otherwise;
    sum.statements.resize(sum.statements.len().max(counts.statements.len()), 0);
    sum.statements.iter_mut().zip(counts.statements).for_each(|(sum, n)| *sum += n);
}
