//! Decides between mesh and reflectors, and which Nodes reflect: alike on every node from the list
//! of Nodes, and with make before break.
//!
//! # Transitions
//!
//! Lists differ between nodes for a moment, and a session ends as soon as one side removes it.
//! Therefore:
//!
//! - Neighbors are added at once, and removed only after the table shows that no route depends on
//!   them ([`Election::removals_to_check`]). A reflector that advertises another node's prefix
//!   proves both directions: that node and we have a session with it, so ours is advertised there
//!   as well. A Node that no longer counts (another program may write the condition by which it
//!   counts) is removed in the same way.
//! - Reflectors reflect from 80 % of the limit on, before any node relies on them. They continue
//!   for [`REFLECTOR_LINGER`] after the list has shrunk below that, until the mesh is complete
//!   again.
//! - A node that starts between 80 % and the limit begins with the mesh. If the other nodes still
//!   peer with reflectors only, they refuse its sessions, and it learns all routes from the
//!   reflectors.
//!
//! The failure of one reflector loses nothing: there are two more, and its successor is elected
//! when its Node is gone or no longer reports.
//!
//! # When the list is wrong
//!
//! The list shows where routelet was started once, not whether it runs now. Two decisions
//! therefore follow from the sessions of this node alone:
//!
//! - If no session with a reflector is established for [`REFLECTOR_TIMEOUT`], this node peers with
//!   the nodes directly until one is; in a cluster too large for that, the next ones in the order
//!   of the election are tried as reflectors, more of them each time.
//! - A Node that connects unexpectedly gets a session too: its list differs, its reflectors are not
//!   reachable, or it could not write its condition. This node never connects to it by itself, so
//!   two nodes do not keep such a session alive mutually.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    candidates::{Members, REFLECTORS, is_alive, is_direct, takes_part},
    peering,
};
use crate::{
    config::{Config, Peering},
    k8s::node::{NodeView, Nodes, Presence},
};

/// Time for new sessions to be established and to learn routes, before any neighbor is removed.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// Interval of checks with the table.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long reflectors stay after the mesh is back: longer than any session waits before it
/// connects again.
const REFLECTOR_LINGER: Duration = Duration::from_secs(300);
/// How long no session with a reflector has been established before nodes peer without reflectors:
/// enough for two attempts to connect, with jitter.
const REFLECTOR_TIMEOUT: Duration = Duration::from_secs(12);
/// Maximum number of nodes that peer with each other directly while no reflector can be reached; a
/// larger cluster tries further reflectors.
const MAX_FALLBACK_MESH: usize = 300;
/// How long a Node that connected stays a neighbor without a session: longer than the first pauses
/// between its attempts.
const INBOUND_LINGER: Duration = Duration::from_secs(60);
/// How long a node has no session at all before this is reported.
const ISOLATION_DELAY: Duration = Duration::from_secs(20);
/// Time within which the condition of the own Node shows routelet, unless it cannot be written.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(15);

/// Which nodes have sessions with each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Each node with each other node.
    pub mesh: bool,
    /// Names of the Nodes that reflect for all others, and have a session with each.
    pub reflectors: BTreeSet<String>,
    /// Neighbors of the former topology whose routes no other neighbor advertises to us yet.
    pub kept: BTreeSet<IpAddr>,
    /// There are sessions with nodes to which nothing can be reflected.
    pub direct: bool,
    /// There are also sessions with nodes that do not show routelet, because they are few.
    pub unknown: bool,
    /// No node can write the condition, so all Nodes count.
    pub trusting: bool,
    /// Addresses of Nodes that connected although no session with them was expected.
    pub inbound: BTreeSet<IpAddr>,
    /// No session with a reflector is established.
    pub reflectors_down: bool,
    /// No session at all is up, although routelet runs on other nodes.
    pub cut_off: bool,
}

/// What the sessions of this node show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Addresses of neighbors whose session is established.
    pub up: BTreeSet<IpAddr>,
    /// Whether any session is established, including those with link-local neighbors.
    pub any: bool,
}

impl Topology {
    /// The topology that follows from `modes` and the list alone, without history.
    pub(super) fn fresh(modes: &BTreeSet<Peering>, nodes: &Nodes, limit: usize) -> Self {
        let members = Members::of(nodes, false);
        Self::wanted(modes, nodes, &members, limit, members.count() > limit)
    }

    fn wanted(
        modes: &BTreeSet<Peering>,
        nodes: &Nodes,
        members: &Members<'_>,
        limit: usize,
        many: bool,
    ) -> Self {
        let auto = modes.contains(&Peering::Auto);
        let mut reflectors = BTreeSet::new();
        if modes.contains(&Peering::Reflectors) {
            reflectors = members.labelled(nodes);
        }
        if auto && (many || !members.is_few(limit)) {
            reflectors.extend(members.elect(REFLECTORS));
        }
        // If no node can reflect, only the mesh is left.
        let mesh = modes.contains(&Peering::Mesh) || auto && (!many || reflectors.is_empty());
        let direct = auto || modes.contains(&Peering::Mesh);
        let unknown = modes.contains(&Peering::Mesh) || auto && members.count_all() <= limit;
        Self { mesh, reflectors, direct, unknown, ..Self::default() }
    }

    /// Whether two nodes have a session.
    pub(super) fn has_session(&self, own: &NodeView, other: &NodeView, addr: IpAddr) -> bool {
        self.dials(own, other, addr) || self.inbound.contains(&addr)
    }

    /// Whether this node connects to the other one. It does not connect to nodes that are only in
    /// `inbound`.
    pub(super) fn dials(&self, own: &NodeView, other: &NodeView, addr: IpAddr) -> bool {
        let counts = self.trusting || other.routelet == Presence::Signed;
        let between =
            if counts { self.mesh || self.reflected(own, other) } else { self.mesh && self.unknown };
        between || self.kept.contains(&addr) || self.direct && is_direct(own, other)
    }

    fn reflected(&self, own: &NodeView, other: &NodeView) -> bool {
        self.reflects(own) || self.reflects(other)
    }

    pub(super) fn reflects(&self, node: &NodeView) -> bool {
        self.reflectors.contains(&node.name)
    }

    /// Whether routelet is expected to run there.
    pub(super) fn expects(&self, other: &NodeView) -> bool {
        (self.trusting || other.routelet == Presence::Signed) && is_alive(other)
    }

    /// Whether both have the same sessions, regardless of the problems that they report.
    fn is_like(&self, other: &Self) -> bool {
        let shape = |t: &Self| (t.mesh, t.direct, t.unknown, t.trusting);
        shape(self) == shape(other) && self.reflectors == other.reflectors && self.kept == other.kept
    }
}

/// Follows the list of Nodes, with make before break.
#[derive(Clone, Debug, Default)]
pub struct Election {
    now: Topology,
    target: Topology,
    /// Whether the number of Nodes exceeded the limit and has not fallen below 80 % of it since.
    many: bool,
    begun: bool,
    /// When to check with the table whether neighbors can be removed.
    check_at: Option<Instant>,
    /// Until when reflectors stay although no node needs them.
    linger: Option<Instant>,
    /// Since when no session with a reflector is established, and how often others were tried.
    outage: Option<(Instant, usize)>,
    /// Since when no session is established although there should be one.
    alone: Option<Instant>,
    /// Since when the condition of the own Node has not shown routelet.
    unsigned: Option<Instant>,
    /// Nodes that connected, each with the time of its last session or connection.
    inbound: BTreeMap<IpAddr, Instant>,
    /// Nodes that this node connected to when the list was last evaluated.
    joined: BTreeSet<IpAddr>,
    /// When to evaluate the list again although nothing changed.
    evaluate_at: Option<Instant>,
}

impl Election {
    /// Evaluates the current list, settings and sessions.
    pub fn handle(&mut self, now: Instant, config: &Config, nodes: &Nodes, sessions: &Sessions) {
        self.evaluate_at = None;
        let Some(own) = nodes.own.as_ref().filter(|_| nodes.complete) else {
            self.check_at = self.check_at.map(|at| at.max(now + CHECK_INTERVAL));
            return;
        };
        let limit = config.kubernetes.mesh_limit;
        let modes = peering::modes_of(config, Some(own), &mut Vec::new());
        let auto = modes.contains(&Peering::Auto);
        let trusting = self.trusts(now, own);
        let members = Members::of(nodes, trusting);
        self.many = auto && (members.count() > limit || self.many && !members.is_few(limit));
        let mut target = Topology::wanted(&modes, nodes, &members, limit, self.many);
        target.trusting = trusting;
        if !self.begun {
            // No node relies on this one yet.
            (self.begun, self.now, self.target) = (true, target.clone(), target.clone());
        }
        self.linger(now, auto, &members, &mut target);
        self.fall_back(now, auto, nodes, &members, &mut target, sessions);
        if !target.is_like(&self.target) {
            self.check_at = Some(now + SETTLE_TIME);
        }
        self.target = target;
        self.widen(now, nodes, own, sessions);
        self.record_sessions(now, nodes, sessions);
        self.detect_isolation(now, peering::is_among_nodes(&modes), nodes, sessions);
        if self.now.is_like(&self.target) {
            self.check_at = None;
        }
    }

    /// Records that a Node connected although no session with it is expected.
    pub fn connected(&mut self, now: Instant, addr: IpAddr) {
        self.inbound.insert(addr, now);
    }

    /// Whether no node can write the condition: that of our own Node has been missing for too long.
    fn trusts(&mut self, now: Instant, own: &NodeView) -> bool {
        if own.routelet != Presence::Unknown {
            self.unsigned = None;
            return false;
        }
        let due = *self.unsigned.get_or_insert(now) + CONDITION_TIMEOUT;
        self.is_due(now, due)
    }

    /// Whether `due` has passed; if not, the list is evaluated again then.
    fn is_due(&mut self, now: Instant, due: Instant) -> bool {
        if now < due {
            self.evaluate_at = Some(self.evaluate_at.map_or(due, |at| at.min(due)));
        }
        now >= due
    }

    /// Keeps the reflectors for a while after the list has fallen below 80 % of the limit.
    fn linger(&mut self, now: Instant, auto: bool, members: &Members<'_>, target: &mut Topology) {
        if !auto || !target.reflectors.is_empty() || self.now.reflectors.is_empty() {
            self.linger = None;
        } else if now < *self.linger.get_or_insert(now + REFLECTOR_LINGER) {
            target.reflectors = members.elect(REFLECTORS);
        }
    }

    /// While no reflector can be reached, adds sessions with all nodes, or with more reflectors.
    fn fall_back(
        &mut self,
        now: Instant,
        auto: bool,
        nodes: &Nodes,
        members: &Members<'_>,
        target: &mut Topology,
        sessions: &Sessions,
    ) {
        let is_reached = |names: &BTreeSet<String>| {
            let is_up = |n: &NodeView| n.addresses.iter().any(|a| sessions.up.contains(a));
            nodes.others().any(|o| names.contains(&o.name) && is_up(o))
        };
        let elected = &target.reflectors;
        let reflecting = nodes.own.as_ref().is_some_and(|own| elected.contains(&own.name));
        // The mesh relies on no reflector, and a reflector has a session with each node anyway.
        if !auto || target.mesh || reflecting || elected.is_empty() || is_reached(elected) {
            self.outage = None;
            return;
        }
        let (since, tries) = *self.outage.get_or_insert((now, 0));
        let few = members.count() <= MAX_FALLBACK_MESH;
        let tried = |tries: usize| members.elect(REFLECTORS << tries.min(16));
        let settled = tries > 0 && (few || is_reached(&tried(tries)));
        let tries = match settled || !self.is_due(now, since + REFLECTOR_TIMEOUT) {
            true => tries,
            false => {
                self.is_due(now, now + REFLECTOR_TIMEOUT);
                self.outage = Some((now, tries + 1));
                tries + 1
            }
        };
        target.reflectors_down = tries > 0;
        match tries {
            0 => {}
            _ if few => target.mesh = true,
            _ => target.reflectors = tried(tries),
        }
    }

    /// Adds sessions at once; they are removed later, one by one.
    fn widen(&mut self, now: Instant, nodes: &Nodes, own: &NodeView, sessions: &Sessions) {
        self.now.mesh |= self.target.mesh;
        self.now.direct |= self.target.direct;
        self.now.trusting |= self.target.trusting;
        self.now.reflectors.extend(self.target.reflectors.iter().cloned());
        self.now.reflectors_down = self.target.reflectors_down;
        // Thousands may be added at once: only those with a session are removed one by one.
        self.now.unknown = self.target.unknown;
        let others = nodes.others().filter(|o| takes_part(o) && o.name != own.name);
        let met = others.filter_map(|o| Some((o, own.common_address(o)?)));
        let was_up = |addr: &IpAddr| self.joined.contains(addr) && sessions.up.contains(addr);
        let lost = met.filter(|(o, addr)| was_up(addr) && !self.now.dials(own, o, *addr));
        let lost: Vec<_> = lost.map(|(_, addr)| addr).collect();
        if !lost.is_empty() {
            self.now.kept.extend(lost);
            self.check_at.get_or_insert(now + SETTLE_TIME);
        }
        self.joined = self.dials(nodes);
    }

    /// Addresses of the nodes that this one connects to now.
    fn dials(&self, nodes: &Nodes) -> BTreeSet<IpAddr> {
        let Some(own) = &nodes.own else { return BTreeSet::new() };
        let others = nodes.others().filter(|o| takes_part(o) && o.name != own.name);
        let met = others.filter_map(|o| Some((o, own.common_address(o)?)));
        met.filter(|(o, addr)| self.now.dials(own, o, *addr)).map(|(_, addr)| addr).collect()
    }

    /// Keeps Nodes that connected while they have a session, and for a while longer. Nodes to which
    /// this node now connects by itself are dropped: such a session does not show that the other
    /// node needs it, and two nodes that once connected to each other would keep it forever.
    fn record_sessions(&mut self, now: Instant, nodes: &Nodes, sessions: &Sessions) {
        if self.inbound.is_empty() {
            self.now.inbound.clear();
            return;
        }
        let there: BTreeSet<_> =
            nodes.others().filter(|o| takes_part(o)).flat_map(|o| o.addresses.iter().copied()).collect();
        let up = self.inbound.iter_mut().filter(|(addr, _)| sessions.up.contains(addr));
        up.for_each(|(_, at)| *at = now);
        let joined = &self.joined;
        self.inbound
            .retain(|addr, at| there.contains(addr) && !joined.contains(addr) && now < *at + INBOUND_LINGER);
        if let Some(first) = self.inbound.values().min().copied() {
            self.is_due(now, first + INBOUND_LINGER);
        }
        self.now.inbound = self.inbound.keys().copied().collect();
    }

    /// Finds out whether this node is cut off.
    fn detect_isolation(&mut self, now: Instant, among: bool, nodes: &Nodes, sessions: &Sessions) {
        let own = nodes.own.as_ref().map(|own| &own.name);
        let expects = |o: &NodeView| takes_part(o) && self.now.expects(o) && Some(&o.name) != own;
        if sessions.any || !among || !nodes.others().any(expects) {
            (self.alone, self.now.cut_off) = (None, false);
            return;
        }
        let due = *self.alone.get_or_insert(now) + ISOLATION_DELAY;
        self.now.cut_off = self.is_due(now, due);
    }

    /// The present topology; `None` before a complete list was received.
    pub fn topology(&self) -> Option<&Topology> {
        self.begun.then_some(&self.now)
    }

    /// When to call [`Election::handle`] again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let linger = self.linger.filter(|_| !self.target.reflectors.is_empty());
        self.check_at.into_iter().chain(linger).chain(self.evaluate_at).min()
    }

    /// The neighbors that may be removed now, if it is time to check which of them are the only
    /// source of some prefix.
    pub fn removals_to_check(&self, now: Instant, nodes: &Nodes) -> Option<BTreeSet<IpAddr>> {
        let due = self.check_at.is_some_and(|at| at <= now);
        let own = nodes.own.as_ref().filter(|_| due)?;
        let addr = |other| own.common_address(other);
        let leaving = nodes.others().filter_map(|other| {
            let addr = addr(other)?;
            (self.now.dials(own, other, addr) && !self.target.dials(own, other, addr)).then_some(addr)
        });
        Some(leaving.collect())
    }

    /// Removes the neighbors to be removed, except for those that are the only source of some
    /// prefix.
    pub fn apply_sole_sources(&mut self, now: Instant, nodes: &Nodes, sole_sources: BTreeSet<IpAddr>) {
        let shown = |topology: Topology| Topology {
            inbound: self.now.inbound.clone(),
            cut_off: self.now.cut_off,
            ..topology
        };
        if sole_sources.is_empty() {
            (self.now, self.check_at) = (shown(self.target.clone()), None);
        } else {
            // A mesh shrinks neighbor by neighbor. A former reflector does not know which nodes
            // rely on it, so it keeps all of its sessions.
            (self.now.mesh, self.now.trusting) = (self.target.mesh, self.target.trusting);
            self.now.kept = sole_sources;
            self.check_at = Some(now + CHECK_INTERVAL);
        }
        // Removed neighbors must not count as lost at the next evaluation.
        self.joined = self.dials(nodes);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{
            candidates::elect,
            testing::{cluster, config},
        },
        *,
    };

    /// An election, with a table that only has the sole sources.
    struct Play {
        election: Election,
        config: Config,
        now: Instant,
        /// Names of Nodes without a session.
        silent: BTreeSet<String>,
    }

    impl Play {
        fn new(limit: usize) -> Self {
            let mut config = config();
            config.kubernetes.mesh_limit = limit;
            Self { election: Election::default(), config, now: Instant::now(), silent: BTreeSet::new() }
        }

        /// Sessions with all other Nodes, whatever the topology.
        fn sessions(&self, nodes: &Nodes) -> Sessions {
            let answering = nodes.others().filter(|o| !self.silent.contains(&o.name));
            let up: BTreeSet<_> = answering.flat_map(|o| o.addresses.iter().copied()).collect();
            Sessions { any: !up.is_empty(), up }
        }

        /// Applies this list for some seconds; the table has these sole sources.
        fn list(&mut self, nodes: &Nodes, seconds: u64, sole_sources: &[IpAddr]) -> Topology {
            let until = self.now + Duration::from_secs(seconds);
            loop {
                self.election.handle(self.now, &self.config, nodes, &self.sessions(nodes));
                if let Some(leaving) = self.election.removals_to_check(self.now, nodes) {
                    let kept = leaving.into_iter().filter(|a| sole_sources.contains(a)).collect();
                    self.election.apply_sole_sources(self.now, nodes, kept);
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

    fn whole_mesh() -> Topology {
        Topology { mesh: true, direct: true, unknown: true, ..Topology::default() }
    }

    #[test]
    fn growth_over_the_limit_keeps_the_mesh_until_nobody_needs_it() {
        let mut play = Play::new(10);
        assert_eq!(play.list(&cluster(7, 0), 60, &[]), whole_mesh());
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
        assert_eq!(end, whole_mesh());
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
        election.handle(Instant::now(), &config(), &nodes, &Sessions::default());
        assert_eq!(election.topology(), None);
    }

    fn set(nodes: &mut Nodes, name: &str, change: impl Fn(&mut NodeView)) {
        change(Arc::make_mut(nodes.others.get_mut(name).unwrap()));
    }

    #[test]
    fn calico_4595_nodes_meet_directly_while_no_reflector_answers() {
        for size in [12, MAX_FALLBACK_MESH] {
            let mut play = Play::new(10);
            let nodes = cluster(size, 0);
            let elected = elect(&nodes);
            play.silent.clone_from(&elected);
            let first = play.list(&nodes, REFLECTOR_TIMEOUT.as_secs() - 1, &[]);
            assert!(!first.mesh && !first.reflectors_down && first.reflectors == elected);
            let then = play.list(&nodes, 2, &[]);
            assert!(then.mesh && then.reflectors_down, "{then:?}");
            assert!(play.list(&nodes, 3600, &[]).mesh, "for as long as it takes");

            // One of them is reached: the others are removed once they are not the sole source of a
            // prefix.
            play.silent.remove(elected.iter().next_back().unwrap());
            let back = play.list(&nodes, SETTLE_TIME.as_secs() - 1, &[]);
            assert!(back.mesh && !back.reflectors_down);
            let end = play.list(&nodes, 60, &[]);
            assert_eq!((end.mesh, &end.reflectors, end.kept.len()), (false, &elected, 0));
        }
    }

    #[test]
    fn a_cluster_too_large_for_a_mesh_tries_more_reflectors_until_some_are_reachable() {
        let mut play = Play::new(10);
        let nodes = cluster(MAX_FALLBACK_MESH + 1, 0);
        let ranks: Vec<_> = [3, 6, 12].map(|n| Members::of(&nodes, false).elect(n)).into();
        play.silent.clone_from(&ranks[1]);
        play.silent.remove("node-0");
        let own_is_tried = ranks[2].contains("node-0");
        let tried = play.list(&nodes, 3600, &[]);
        assert!(!tried.mesh && (own_is_tried || tried.reflectors == ranks[2]), "{}", tried.reflectors.len());
        play.silent.clear();
        assert_eq!(play.list(&nodes, 60, &[]).reflectors, ranks[0]);
    }

    #[test]
    fn kwok_1744_a_hundred_fake_nodes_change_nothing_between_five() {
        for (routelet, unknown) in [(Presence::Impossible, true), (Presence::Unknown, false)] {
            let mut play = Play::new(100);
            let five = cluster(5, 0);
            assert_eq!(play.list(&five, 60, &[]), whole_mesh());
            let mut many = cluster(105, 0);
            for n in 5..105 {
                set(&mut many, &format!("node-{n}"), |view| view.routelet = routelet);
                play.silent.insert(format!("node-{n}"));
            }
            let seen = play.list(&many, 600, &[]);
            assert_eq!(seen, Topology { unknown, ..whole_mesh() });
            let own = many.own.as_ref().unwrap();
            let met = many.others().filter(|o| takes_part(o) && seen.has_session(own, o, o.addresses[0]));
            assert_eq!(met.count(), 4, "and nobody dials them");
            assert_eq!(play.election.poll_timeout(), None, "peace");
        }
    }

    #[test]
    fn a_node_whose_sign_another_program_overwrites_is_let_go_only_when_nobody_needs_it() {
        let mut play = Play::new(10);
        let mut nodes = cluster(12, 0);
        let elected = play.list(&nodes, 60, &[]).reflectors;
        let name = elected.iter().find(|name| *name != "node-0").unwrap().clone();
        let (addr, sign) = (nodes.others[&name].addresses[0], |view: &mut NodeView, p| view.routelet = p);
        set(&mut nodes, &name, |view| sign(view, Presence::Unknown));
        let (own, soon) = (nodes.own.clone().unwrap(), play.list(&nodes, 9, &[]));
        assert!(soon.has_session(&own, &nodes.others[&name], addr), "the session stays");
        set(&mut nodes, &name, |view| sign(view, Presence::Signed));
        assert_eq!(play.list(&nodes, 60, &[]).reflectors, elected);
        set(&mut nodes, &name, |view| sign(view, Presence::Unknown));
        assert!(play.list(&nodes, 60, &[addr]).has_session(&own, &nodes.others[&name], addr), "needed");
        assert!(!play.list(&nodes, 60, &[]).has_session(&own, &nodes.others[&name], addr), "and then not");
    }

    #[test]
    fn where_nobody_can_write_a_sign_all_nodes_count_after_a_while() {
        let mut play = Play::new(10);
        let mut nodes = cluster(12, 0);
        nodes.own.as_mut().unwrap().routelet = Presence::Unknown;
        nodes.others.values_mut().for_each(|n| Arc::make_mut(n).routelet = Presence::Unknown);
        let first = play.list(&nodes, 1, &[]);
        assert!(first.mesh && !first.unknown && first.reflectors.is_empty());
        let then = play.list(&nodes, CONDITION_TIMEOUT.as_secs() + SETTLE_TIME.as_secs() + 5, &[]);
        assert!(then.trusting && !then.mesh && then.reflectors.len() == REFLECTORS, "{then:?}");
        nodes.own.as_mut().unwrap().routelet = Presence::Signed;
        let own_alone = play.list(&nodes, 60, &[]);
        assert!(!own_alone.trusting && own_alone.mesh, "{own_alone:?}");
    }

    #[test]
    fn a_node_that_connects_stays_a_passive_neighbor_until_it_has_been_away_for_a_while() {
        let mut play = Play::new(10);
        let nodes = cluster(12, 0);
        let topology = play.list(&nodes, 60, &[]);
        let own = nodes.own.clone().unwrap();
        let client = nodes.others().find(|o| !topology.has_session(&own, o, o.addresses[0])).unwrap().clone();
        let addr = client.addresses[0];
        play.election.connected(play.now, addr);
        play.election.connected(play.now, [192, 0, 2, 1].into());
        let met = play.list(&nodes, 600, &[]);
        assert!(met.has_session(&own, &client, addr) && !met.dials(&own, &client, addr));
        assert_eq!(met.inbound, [addr].into(), "nobody else");
        play.silent.insert(client.name.clone());
        assert!(play.list(&nodes, INBOUND_LINGER.as_secs() - 1, &[]).has_session(&own, &client, addr));
        assert!(!play.list(&nodes, 2, &[]).has_session(&own, &client, addr));
    }

    /// The other node connected once, when its list was different; later both were without
    /// reflectors for a while.
    #[test]
    fn a_node_that_connected_is_removed_once_this_one_connected_to_it_for_a_while() {
        let mut play = Play::new(10);
        let nodes = cluster(12, 0);
        let topology = play.list(&nodes, 60, &[]);
        let own = nodes.own.clone().unwrap();
        let client = nodes.others().find(|o| !topology.has_session(&own, o, o.addresses[0])).unwrap().clone();
        let addr = client.addresses[0];
        play.election.connected(play.now, addr);
        assert!(play.list(&nodes, 60, &[]).has_session(&own, &client, addr));
        play.silent.clone_from(&topology.reflectors);
        assert!(play.list(&nodes, 60, &[]).dials(&own, &client, addr));
        play.silent.clear();
        assert!(play.list(&nodes, 60, &[addr]).has_session(&own, &client, addr), "the table needs it");
        assert!(!play.list(&nodes, 60, &[]).has_session(&own, &client, addr));
    }

    #[test]
    fn a_node_that_meets_nobody_among_others_is_cut_off_and_an_only_one_is_not() {
        let mut play = Play::new(10);
        let mut nodes = cluster(4, 0);
        play.silent = nodes.others.keys().cloned().collect();
        assert!(!play.list(&nodes, ISOLATION_DELAY.as_secs() - 1, &[]).cut_off);
        assert!(play.list(&nodes, 2, &[]).cut_off);
        for change in [
            &(|n: &mut NodeView| n.routelet = Presence::Unknown) as &dyn Fn(&mut NodeView),
            &|n| n.not_reporting = true,
            &|n| n.peering = Some("none".into()),
        ] {
            let mut excused = nodes.clone();
            excused.others.values_mut().for_each(|n| change(Arc::make_mut(n)));
            assert!(!play.list(&excused, 60, &[]).cut_off);
        }
        assert!(play.list(&nodes, 60, &[]).cut_off);
        play.silent.remove("node-2");
        assert!(!play.list(&nodes, 1, &[]).cut_off, "a later session ends it");
        nodes.others.clear();
        assert!(!play.list(&nodes, 60, &[]).cut_off);
    }
}
