//! Which Nodes count: towards `mesh-limit`, and as candidates for reflectors.
//!
//! A Node counts if its condition shows that routelet runs there ([`Presence::Signed`]) and no
//! annotation excludes it. The own Node always counts, since its condition is about to be written.
//! Nodes without the condition get sessions if they are few, but do not count: the DaemonSet may
//! exclude them. If the own Node stays without the condition as well, the condition cannot be
//! written (a ServiceAccount without the right to do so), and all Nodes on which routelet could run
//! count.
//!
//! # Which Nodes reflect
//!
//! [`elect`] is rendezvous hashing: each node has a score that depends on nothing but its name, and
//! the best score of each zone wins, up to three in all. It needs no communication and no storage:
//! all nodes with the same list elect the same reflectors, and adding or removing one node changes
//! at most one of the three. If Nodes are labelled "true", these are the reflectors; those labelled
//! "false" never are. Nodes whose condition Ready is Unknown, and those that are about to be
//! removed, do not count unless there are no others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::peering;
use crate::{
    config::Peering,
    k8s::node::{NodeView, Nodes, Presence},
};

/// How many reflectors are elected.
pub const REFLECTORS: usize = 3;

/// The Nodes that take part in peering.
#[derive(Clone, Debug)]
pub(super) struct Members<'a> {
    /// The Nodes that count.
    counted: Vec<&'a NodeView>,
    /// Number of other Nodes that do not show whether routelet runs there.
    unknown: usize,
}

impl<'a> Members<'a> {
    /// `trusting`: no node can write the condition, so Nodes without it count as well.
    pub(super) fn of(nodes: &'a Nodes, trusting: bool) -> Self {
        let own = nodes.own.iter().filter(|own| is_willing(own));
        let others = nodes.others().filter(|o| nodes.own.as_ref().is_none_or(|own| own.name != o.name));
        let (counted, unknown): (Vec<_>, Vec<_>) =
            others.filter(|o| takes_part(o)).partition(|o| trusting || o.routelet == Presence::Signed);
        Self { counted: own.chain(counted).collect(), unknown: unknown.len() }
    }

    pub(super) fn count(&self) -> usize {
        self.counted.len()
    }

    /// Including Nodes that do not show whether routelet runs there.
    pub(super) fn count_all(&self) -> usize {
        self.counted.len() + self.unknown
    }

    /// Below 80 % of the limit.
    pub(super) fn is_few(&self, limit: usize) -> bool {
        self.count() * 10 < limit * 8
    }

    /// Names of the Nodes that a label makes reflectors. If none of them counts, those that do not
    /// show whether routelet runs there.
    pub(super) fn labelled(&self, nodes: &Nodes) -> BTreeSet<String> {
        let counted = self.counted.iter().filter(|n| n.reflector == Some(true));
        let counted: BTreeSet<_> = counted.map(|n| n.name.clone()).collect();
        if !counted.is_empty() {
            return counted;
        }
        let all = nodes.all().filter(|n| n.reflector == Some(true) && takes_part(n));
        all.map(|n| n.name.clone()).collect()
    }

    /// The reflectors of this list: the Nodes with the label, or else `how_many` Nodes by
    /// rendezvous hashing over the zones.
    pub(super) fn elect(&self, how_many: usize) -> BTreeSet<String> {
        let counted = || self.counted.iter().copied();
        let chosen = counted().filter(|n| n.reflector == Some(true) && is_alive(n));
        let chosen: BTreeSet<String> = chosen.map(|n| n.name.clone()).collect();
        if !chosen.is_empty() {
            return chosen;
        }
        let asn = self.usual_asn();
        let eligible =
            counted().filter(|n| n.reflector != Some(false) && n.asn == asn && !n.addresses.is_empty());
        let (here, lost): (Vec<_>, Vec<_>) = eligible.partition(|n| is_alive(n));
        best(if here.is_empty() { lost } else { here }, how_many)
    }

    /// The AS number of most nodes. Nodes with another one cannot reflect, as their sessions are
    /// eBGP.
    fn usual_asn(&self) -> Option<u32> {
        let mut counts = BTreeMap::<Option<u32>, usize>::new();
        self.counted.iter().for_each(|n| *counts.entry(n.asn).or_default() += 1);
        counts.into_iter().max_by_key(|(asn, n)| (*n, Reverse(*asn))).and_then(|(asn, _)| asn)
    }
}

/// The three reflectors of this list.
pub fn elect(nodes: &Nodes) -> BTreeSet<String> {
    Members::of(nodes, false).elect(REFLECTORS)
}

/// Whether a node may take part in any peering among nodes: neither its annotation nor the kind of
/// Node excludes it.
pub(super) fn takes_part(node: &NodeView) -> bool {
    is_willing(node) && !matches!(node.routelet, Presence::Impossible | Presence::Apart)
}

/// Whether a node is in operation. One whose machine shuts down in an orderly way shows it early
/// enough for a successor to be elected.
pub(super) fn is_alive(node: &NodeView) -> bool {
    !node.not_reporting && !node.deleted && node.going.is_none()
}

/// Whether its annotation leaves it in the peering.
fn is_willing(node: &NodeView) -> bool {
    let Some(modes) = node.peering.as_deref().and_then(peering::parse) else { return true };
    peering::is_among_nodes(&modes)
}

/// Whether two nodes have a session in any topology: reflectors do not pass routes on to another
/// AS, and the annotation of one node is enough to request the mesh.
pub(super) fn is_direct(own: &NodeView, other: &NodeView) -> bool {
    own.asn != other.asn || requests_mode(own, Peering::Mesh) || requests_mode(other, Peering::Mesh)
}

fn requests_mode(node: &NodeView, mode: Peering) -> bool {
    node.peering.as_deref().and_then(peering::parse).is_some_and(|modes| modes.contains(&mode))
}

/// The best score of each zone in descending order, then the second best of each, and so on, until
/// there are enough.
fn best(mut eligible: Vec<&NodeView>, how_many: usize) -> BTreeSet<String> {
    eligible.sort_by_cached_key(|n| Reverse((score(&n.name), n.name.clone())));
    let mut seen = BTreeMap::<Option<&str>, usize>::new();
    let mut ranked: Vec<_> = eligible
        .into_iter()
        .map(|n| {
            let rank = seen.entry(n.zone.as_deref()).or_default();
            *rank += 1;
            (*rank, n)
        })
        .collect();
    // A stable sort keeps the order by score within each round.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(how_many).map(|(_, n)| n.name.clone()).collect()
}

/// FNV-1a with the finalizer of MurmurHash3. It must be the same in every version of routelet:
/// during an update, old and new versions elect together.
fn score(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, octet| (h ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{super::testing::cluster, *};

    /// The same list as another node has it.
    fn seen_by(nodes: &Nodes, name: &str) -> Nodes {
        let mut theirs = nodes.clone();
        let own = theirs.own.take().unwrap();
        theirs.others.insert(own.name.clone(), own.into());
        theirs.own = theirs.others.remove(name).map(Arc::unwrap_or_clone);
        theirs
    }

    #[test]
    fn a_reflector_whose_machine_shuts_down_has_a_successor_before_it_goes() {
        let mut nodes = cluster(10, 0);
        let old = elect(&nodes);
        let going = old.iter().find(|name| nodes.others.contains_key(*name)).unwrap().clone();
        Arc::make_mut(nodes.others.get_mut(&going).unwrap()).going = Some(crate::k8s::node::Going::ShutsDown);
        let new = elect(&nodes);
        assert_eq!((new.len(), new.contains(&going), new.intersection(&old).count()), (3, false, 2));
    }

    fn zone<'a>(nodes: &'a Nodes, name: &str) -> Option<&'a str> {
        nodes.all().find(|n| n.name == name).unwrap().zone.as_deref()
    }

    proptest! {
        #[test]
        fn every_node_chooses_the_same(n in 1usize..60, zones in 0usize..6, who in 0usize..60) {
            let ours = cluster(n, zones);
            prop_assert_eq!(elect(&ours), elect(&seen_by(&ours, &format!("node-{}", who % n))));
            prop_assert_eq!(elect(&ours).len(), n.min(REFLECTORS));
        }

        #[test]
        fn zones_are_spread(n in 3usize..80, zones in 1usize..8) {
            let nodes = cluster(n, zones);
            let chosen = elect(&nodes);
            let used: BTreeSet<_> = chosen.iter().map(|name| zone(&nodes, name)).collect();
            prop_assert_eq!(used.len(), zones.min(n).min(REFLECTORS));
        }

        #[test]
        fn one_node_less_moves_at_most_one(n in 4usize..80, zones in 0usize..6, gone in 1usize..80) {
            let before = cluster(n, zones);
            let mut after = before.clone();
            let name = format!("node-{}", 1 + gone % (n - 1));
            after.others.remove(&name);
            let (old, new) = (elect(&before), elect(&after));
            let moved = old.difference(&new).count();
            prop_assert!(moved <= 1, "{old:?} {new:?} without {name}");
            if !old.contains(&name) && zone(&before, &name).is_none() {
                prop_assert_eq!(moved, 0);
            }
        }
    }

    #[test]
    fn the_choice_is_the_same_in_every_version() {
        assert_eq!(score("node-1"), 0x91dd_3f4c_04e1_eb05, "an update must not split the cluster");
        let chosen: Vec<_> = elect(&cluster(20, 4)).into_iter().collect();
        assert_eq!(chosen, ["node-13", "node-14", "node-15"]);
    }

    #[test]
    fn labels_and_annotations_choose() {
        let mut nodes = cluster(10, 0);
        let first = elect(&nodes).into_iter().next_back().unwrap();
        let view = |nodes: &mut Nodes, name: &str, change: &dyn Fn(&mut NodeView)| {
            let view = match name {
                "node-0" => nodes.own.as_mut(),
                _ => nodes.others.get_mut(name).map(Arc::make_mut),
            };
            change(view.unwrap());
        };
        for change in [
            &(|n: &mut NodeView| n.reflector = Some(false)) as &dyn Fn(&mut NodeView),
            &|n| n.asn = Some(65001),
            &|n| n.addresses.clear(),
            &|n| n.not_reporting = true,
            &|n| n.peering = Some("gateway".into()),
            &|n| n.routelet = Presence::Unknown,
            &|n| n.routelet = Presence::Apart,
            &|n| n.routelet = Presence::Impossible,
        ] {
            let mut changed = nodes.clone();
            view(&mut changed, &first, change);
            let chosen = elect(&changed);
            assert!(!chosen.contains(&first) && chosen.len() == REFLECTORS, "{chosen:?}");
        }
        view(&mut nodes, "node-4", &|n| n.reflector = Some(true));
        assert_eq!(elect(&nodes), ["node-4".to_owned()].into());
        view(&mut nodes, "node-4", &|n| n.not_reporting = true);
        assert_eq!(elect(&nodes).len(), REFLECTORS, "who is dead reflects nothing, whatever its label");
    }

    #[test]
    fn kwok_1744_nodes_that_show_no_routelet_count_for_nothing_unless_nobody_can_show_it() {
        let mut nodes = cluster(110, 0);
        for view in nodes.others.values_mut().take(105) {
            Arc::make_mut(view).routelet = Presence::Unknown;
        }
        let members = Members::of(&nodes, false);
        assert_eq!((members.count(), members.count_all()), (5, 110));
        let others = elect(&nodes).into_iter().filter(|name| name != "node-0");
        assert!(others.into_iter().all(|name| nodes.others[&name].routelet == Presence::Signed));
        assert_eq!(Members::of(&nodes, true).count(), 110, "a ServiceAccount that may not write conditions");
        nodes.own.as_mut().unwrap().routelet = Presence::Unknown;
        assert_eq!(Members::of(&nodes, false).count(), 5, "the own sign is on its way");
        for view in nodes.others.values_mut() {
            Arc::make_mut(view).routelet = Presence::Impossible;
        }
        assert_eq!(Members::of(&nodes, true).count(), 1, "Windows never counts");
    }

    #[test]
    fn a_label_on_a_node_without_routelet_makes_no_reflector() {
        let mut nodes = cluster(6, 0);
        let view = Arc::make_mut(nodes.others.get_mut("node-4").unwrap());
        (view.reflector, view.routelet) = (Some(true), Presence::Unknown);
        assert!(!elect(&nodes).contains("node-4") && elect(&nodes).len() == REFLECTORS);
        assert_eq!(
            Members::of(&nodes, false).labelled(&nodes),
            ["node-4".to_owned()].into(),
            "requested by name"
        );
    }

    #[test]
    fn a_cluster_that_nobody_hears_keeps_its_choice() {
        let mut nodes = cluster(9, 3);
        let before = elect(&nodes);
        nodes.own.as_mut().unwrap().not_reporting = true;
        nodes.others.values_mut().for_each(|n| Arc::make_mut(n).not_reporting = true);
        assert_eq!(elect(&nodes), before);
    }
}
