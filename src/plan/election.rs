//! Mesh or reflectors, and which: decided alike on every node from the list of Nodes alone, changed make before break.
//!
//! # Who reflects
//!
//! [`elect`] is rendezvous hashing: each node has a score that depends on nothing but its name, and the best score of
//! each zone wins, three in all. Nobody is asked and nothing is stored, so all nodes with the same list choose the same;
//! one node more or less moves at most one of the three. Nodes labelled "true" are the reflectors where there are any,
//! those labelled "false" never are. Nodes of which the cluster has not heard for a while (condition Ready Unknown), and
//! those that are about to go, do not count, unless there are no others.
//!
//! # How it changes
//!
//! Lists differ between nodes for a moment, and a session ends for both when one side lets it go. So:
//!
//! - What is to be added is added at once; what is to go stays until the table has said that nothing hangs on it
//!   ([`Election::question`]). That a reflector tells us another node's prefix proves both halves of the way: that
//!   node and we have a session with it, so ours is told there as well.
//! - Reflectors reflect from 80 % of the limit on, before anybody relies on them, and go on for [`LINGER`] after
//!   the list has fallen below, until the mesh is whole again.
//! - A node that starts between 80 % and the limit begins with the mesh: where the others are still below reflectors
//!   they refuse it, and it has everything from those.
//!
//! A reflector that dies takes nothing with it: there are two more, and its successor is elected when its Node is gone or
//! unheard of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::peering;
use crate::{
    config::{Config, Peering},
    k8s::node::{NodeView, Nodes},
};

/// How many reflectors are elected.
pub const REFLECTORS: usize = 3;
/// Time for new sessions to come up and tell their routes, before anything is let go.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two questions to the table.
const ASK: Duration = Duration::from_secs(5);
/// How long reflectors go on when the mesh is back: longer than any session waits before it dials again.
const LINGER: Duration = Duration::from_secs(300);

/// Between whom there are sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Everybody with everybody.
    pub mesh: bool,
    /// Names of the Nodes that reflect for all others, and have a session with each.
    pub reflectors: BTreeSet<String>,
    /// Neighbors of the former topology whose routes nobody else tells us yet.
    pub kept: BTreeSet<IpAddr>,
    /// Nodes to which nothing can be reflected are met directly.
    pub direct: bool,
}

impl Topology {
    /// What `modes` and the list ask for where there is no history.
    pub(super) fn fresh(modes: &BTreeSet<Peering>, nodes: &Nodes, limit: usize) -> Self {
        let many = count(nodes) > limit;
        Self::wanted(modes, nodes, limit, many)
    }

    fn wanted(modes: &BTreeSet<Peering>, nodes: &Nodes, limit: usize, many: bool) -> Self {
        let auto = modes.contains(&Peering::Auto);
        let mut reflectors = BTreeSet::new();
        if modes.contains(&Peering::Reflectors) {
            reflectors = labelled(nodes);
        }
        if auto && (many || !is_few(nodes, limit)) {
            reflectors.extend(elect(nodes));
        }
        // Without anybody who could reflect there is nothing but the mesh.
        let mesh = modes.contains(&Peering::Mesh) || auto && (!many || reflectors.is_empty());
        let direct = auto || modes.contains(&Peering::Mesh);
        Self { mesh, reflectors, kept: BTreeSet::new(), direct }
    }

    /// Whether two nodes have a session.
    pub(super) fn joins(&self, own: &NodeView, other: &NodeView, addr: IpAddr) -> bool {
        let reflected = self.reflects(own) || self.reflects(other);
        self.mesh || reflected || self.kept.contains(&addr) || self.direct && is_direct(own, other)
    }

    pub(super) fn reflects(&self, node: &NodeView) -> bool {
        self.reflectors.contains(&node.name)
    }
}

/// Follows the list of Nodes, make before break.
#[derive(Clone, Debug, Default)]
pub struct Election {
    now: Topology,
    target: Topology,
    /// Above the limit, and not yet below 80 % of it.
    many: bool,
    begun: bool,
    /// When the table may be asked whether what is to go can go.
    ask_at: Option<Instant>,
    /// Until when reflectors go on although nobody needs them.
    linger: Option<Instant>,
}

impl Election {
    /// The list, or the settings, are these now.
    pub fn handle(&mut self, now: Instant, config: &Config, nodes: &Nodes) {
        if nodes.own.is_none() || !nodes.complete {
            return;
        }
        let limit = config.kubernetes.mesh_limit;
        let modes = peering::modes_of(config, nodes.own.as_ref(), &mut Vec::new());
        let auto = modes.contains(&Peering::Auto);
        self.many = auto && (count(nodes) > limit || self.many && !is_few(nodes, limit));
        let mut target = Topology::wanted(&modes, nodes, limit, self.many);
        if !self.begun {
            // Nobody relies on us yet.
            (self.begun, self.now, self.target) = (true, target.clone(), target);
            return;
        }
        self.linger(now, auto, nodes, &mut target);
        if target != self.target {
            self.ask_at = Some(now + SETTLE);
            self.target = target;
        }
        self.now.mesh |= self.target.mesh;
        self.now.direct |= self.target.direct;
        self.now.reflectors.extend(self.target.reflectors.iter().cloned());
        if self.now == self.target {
            self.ask_at = None;
        }
    }

    /// Below 80 %: whoever reflects goes on for a while.
    fn linger(&mut self, now: Instant, auto: bool, nodes: &Nodes, target: &mut Topology) {
        if !auto || !target.reflectors.is_empty() || self.now.reflectors.is_empty() {
            self.linger = None;
        } else if now < *self.linger.get_or_insert(now + LINGER) {
            target.reflectors = elect(nodes);
        }
    }

    /// What holds now; nothing before a whole list was seen.
    pub fn topology(&self) -> Option<&Topology> {
        self.begun.then_some(&self.now)
    }

    /// When to come back, with [`Election::handle`] first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.linger.filter(|_| !self.target.reflectors.is_empty())).min()
    }

    /// The neighbors that could go now, if it is time to ask which of them are still needed.
    pub fn question(&self, now: Instant, nodes: &Nodes) -> Option<BTreeSet<IpAddr>> {
        let due = self.ask_at.is_some_and(|at| at <= now);
        let own = nodes.own.as_ref().filter(|_| due)?;
        let addr = |other| own.common_address(other);
        let leaving = nodes.others().filter_map(|other| {
            let addr = addr(other)?;
            (self.now.joins(own, other, addr) && !self.target.joins(own, other, addr)).then_some(addr)
        });
        Some(leaving.collect())
    }

    /// Which of them the table still needs: those by whom alone some prefix is known.
    pub fn answer(&mut self, now: Instant, needed: BTreeSet<IpAddr>) {
        if needed.is_empty() {
            (self.now, self.ask_at) = (self.target.clone(), None);
            return;
        }
        // A mesh shrinks neighbor by neighbor; a former reflector does not know who relies on it, and goes on as a whole.
        self.now.mesh = self.target.mesh;
        self.now.kept = needed;
        self.ask_at = Some(now + ASK);
    }
}

/// Whether two nodes have a session whatever the topology: reflectors do not pass routes on to another AS, and a node
/// whose annotation asks for the mesh is met halfway.
fn is_direct(own: &NodeView, other: &NodeView) -> bool {
    own.asn != other.asn || asks_for(own, Peering::Mesh) || asks_for(other, Peering::Mesh)
}

/// Whether a node takes part in any peering among nodes: its annotation may keep it out.
pub(super) fn takes_part(node: &NodeView) -> bool {
    let Some(modes) = node.peering.as_deref().and_then(peering::parse) else { return true };
    peering::is_among_nodes(&modes)
}

fn asks_for(node: &NodeView, mode: Peering) -> bool {
    node.peering.as_deref().and_then(peering::parse).is_some_and(|modes| modes.contains(&mode))
}

fn count(nodes: &Nodes) -> usize {
    all(nodes).count()
}

/// Below 80 % of the limit.
fn is_few(nodes: &Nodes, limit: usize) -> bool {
    count(nodes) * 10 < limit * 8
}

/// Those that take part, our own among them.
fn all(nodes: &Nodes) -> impl Iterator<Item = &NodeView> {
    let own = nodes.own.iter();
    let others = nodes.others().filter(|o| nodes.own.as_ref().is_none_or(|own| own.name != o.name));
    own.chain(others).filter(|n| takes_part(n))
}

/// Nodes whose label makes them reflectors.
pub(super) fn labelled(nodes: &Nodes) -> BTreeSet<String> {
    all(nodes).filter(|n| n.reflector == Some(true)).map(|n| n.name.clone()).collect()
}

/// The reflectors of this list: those that are labelled so, else three by rendezvous hashing over the zones.
pub fn elect(nodes: &Nodes) -> BTreeSet<String> {
    // One whose machine goes down in order says so before: there is a successor by then.
    let heard = |n: &&NodeView| !n.unheard && n.going.is_none();
    let chosen: BTreeSet<String> =
        all(nodes).filter(|n| n.reflector == Some(true)).filter(heard).map(|n| n.name.clone()).collect();
    if !chosen.is_empty() {
        return chosen;
    }
    let asn = usual_asn(nodes);
    let eligible =
        all(nodes).filter(|n| n.reflector != Some(false) && n.asn == asn && !n.addresses.is_empty());
    let (here, lost): (Vec<_>, Vec<_>) = eligible.partition(heard);
    best(if here.is_empty() { lost } else { here })
}

/// One of each zone by falling score, then a second one of each, until there are enough.
fn best(mut eligible: Vec<&NodeView>) -> BTreeSet<String> {
    eligible.sort_by_cached_key(|n| std::cmp::Reverse((score(&n.name), n.name.clone())));
    let mut seen = BTreeMap::<Option<&str>, usize>::new();
    let mut ranked: Vec<_> = eligible
        .into_iter()
        .map(|n| {
            let rank = seen.entry(n.zone.as_deref()).or_default();
            *rank += 1;
            (*rank, n)
        })
        .collect();
    // Stable: the order by score stays within each round.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(REFLECTORS).map(|(_, n)| n.name.clone()).collect()
}

/// Other numbers are for nodes that are no reflectors: their sessions are external.
fn usual_asn(nodes: &Nodes) -> Option<u32> {
    let mut counts = BTreeMap::<Option<u32>, usize>::new();
    all(nodes).for_each(|n| *counts.entry(n.asn).or_default() += 1);
    counts.into_iter().max_by_key(|(asn, n)| (*n, std::cmp::Reverse(*asn))).and_then(|(asn, _)| asn)
}

/// FNV-1a, stirred by the end of MurmurHash3. Every version of routelet must have the same: in an update old and new ones
/// choose together.
fn score(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, octet| (h ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{
        super::testing::{config, node, nodes},
        *,
    };

    /// `n` nodes over so many zones, the first of them our own.
    fn cluster(n: usize, zones: usize) -> Nodes {
        let mut all = nodes([]);
        let mut views = (0..n).map(|i| {
            let addr = format!("10.0.{}.{}", i / 250, i % 250 + 1);
            let zone = (zones > 0).then(|| format!("zone-{}", i % zones.max(1)));
            NodeView { zone, ..node(&format!("node-{i}"), &[&addr], &[]) }
        });
        all.own = views.next();
        all.others = views.map(|v| (v.name.clone(), v.into())).collect();
        all
    }

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
        all(nodes).find(|n| n.name == name).unwrap().zone.as_deref()
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
            &|n| n.unheard = true,
            &|n| n.peering = Some("gateway".into()),
        ] {
            let mut changed = nodes.clone();
            view(&mut changed, &first, change);
            let chosen = elect(&changed);
            assert!(!chosen.contains(&first) && chosen.len() == REFLECTORS, "{chosen:?}");
        }
        view(&mut nodes, "node-4", &|n| n.reflector = Some(true));
        assert_eq!(elect(&nodes), ["node-4".to_owned()].into());
        view(&mut nodes, "node-4", &|n| n.unheard = true);
        assert_eq!(elect(&nodes).len(), REFLECTORS, "who is dead reflects nothing, whatever its label");
    }

    #[test]
    fn a_cluster_that_nobody_hears_keeps_its_choice() {
        let mut nodes = cluster(9, 3);
        let before = elect(&nodes);
        nodes.own.as_mut().unwrap().unheard = true;
        nodes.others.values_mut().for_each(|n| Arc::make_mut(n).unheard = true);
        assert_eq!(elect(&nodes), before);
    }

    /// An election, with a table that needs whom it is told.
    struct Play {
        election: Election,
        config: Config,
        now: Instant,
    }

    impl Play {
        fn new(limit: usize) -> Self {
            let mut config = config();
            config.kubernetes.mesh_limit = limit;
            Self { election: Election::default(), config, now: Instant::now() }
        }

        /// The list is this, for so many seconds, and the table needs these.
        fn list(&mut self, nodes: &Nodes, seconds: u64, needed: &[IpAddr]) -> Topology {
            let until = self.now + Duration::from_secs(seconds);
            loop {
                self.election.handle(self.now, &self.config, nodes);
                if let Some(leaving) = self.election.question(self.now, nodes) {
                    let needed = leaving.into_iter().filter(|a| needed.contains(a)).collect();
                    self.election.answer(self.now, needed);
                }
                match self.election.poll_timeout() {
                    Some(due) if due <= until => self.now = due.max(self.now),
                    _ => break,
                }
            }
            self.now = until;
            self.election.topology().unwrap().clone()
        }
    }

    #[test]
    fn growth_over_the_limit_keeps_the_mesh_until_nobody_needs_it() {
        let mut play = Play::new(10);
        assert_eq!(
            play.list(&cluster(7, 0), 60, &[]),
            Topology { mesh: true, direct: true, ..Topology::default() }
        );
        let early = play.list(&cluster(8, 0), 60, &[]);
        assert!(early.mesh && early.reflectors.len() == 3, "they reflect before anybody relies on them");
        let needed = cluster(11, 0).others["node-5"].addresses[0];
        let first = play.list(&cluster(11, 0), 9, &[needed]);
        assert!(first.mesh, "the new sessions get their time");
        let then = play.list(&cluster(11, 0), 10, &[needed]);
        assert_eq!((then.mesh, then.kept), (false, [needed].into()));
        let last = play.list(&cluster(11, 0), 10, &[]);
        assert_eq!(last.kept, BTreeSet::new());
        assert!(!play.list(&cluster(8, 0), 600, &[]).mesh, "not back before 80 %");
    }

    #[test]
    fn the_way_back_begins_with_the_mesh_and_ends_with_the_reflectors() {
        let mut play = Play::new(10);
        let below = play.list(&cluster(20, 2), 0, &[]);
        assert!(!below.mesh && below.reflectors.len() == 3, "a start above the limit makes no mesh first");
        let both = play.list(&cluster(7, 2), 299, &[]);
        assert!(both.mesh && !both.reflectors.is_empty());
        let end = play.list(&cluster(7, 2), 60, &[]);
        assert_eq!(end, Topology { mesh: true, direct: true, ..Topology::default() });
        assert_eq!(play.election.poll_timeout(), None, "peace");
    }

    #[test]
    fn a_former_reflector_goes_on_until_nobody_needs_it() {
        let mut play = Play::new(10);
        let (all, mut less) = (cluster(20, 0), cluster(20, 0));
        let old = play.list(&all, 60, &[]).reflectors;
        let gone = old.iter().find(|name| *name != "node-0").unwrap();
        let addr = all.others[gone].addresses[0];
        Arc::make_mut(less.others.get_mut(gone).unwrap()).reflector = Some(false);
        let wide = play.list(&less, 60, &[addr]).reflectors;
        assert!(wide.len() == 4 && wide.contains(gone), "{wide:?}");
        let narrow = play.list(&less, 10, &[]).reflectors;
        assert_eq!(narrow, elect(&less));
    }

    #[test]
    fn an_incomplete_list_decides_nothing() {
        let mut election = Election::default();
        let mut nodes = cluster(5, 0);
        nodes.complete = false;
        election.handle(Instant::now(), &config(), &nodes);
        assert_eq!(election.topology(), None);
    }
}
