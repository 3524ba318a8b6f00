//! A cluster that grows over the mesh limit, loses reflectors and shrinks again: real plans, sessions and tables; each
//! node has its list of Nodes a little later than the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use routelet::{
    bgp::peer::{PeerConfig, PeerKey},
    config::Config,
    fib::host::{Host, Link, LinkAddress, Scope},
    k8s::node::{NodeView, Nodes, Presence},
    net::Prefix,
    plan::{Election, PlanInputs, Sessions, elect, plan},
};

use crate::{
    net::{Net, address},
    router::Router,
    seeds,
};

/// So many nodes in full mesh have 300 sessions.
const LIMIT: usize = 25;
const STEP: Duration = Duration::from_secs(1);

struct Cluster {
    net: Net,
    config: Config,
    /// The lists that there were, the newest last.
    lists: Vec<(Instant, BTreeMap<usize, Arc<NodeView>>)>,
    daemons: BTreeMap<usize, Daemon>,
    /// Prefixes of nodes that died: theirs may go.
    mortal: BTreeSet<Prefix>,
}

/// What runs on a node beside sessions and table.
struct Daemon {
    election: Election,
    peers: BTreeMap<usize, Arc<PeerConfig>>,
    lag: Duration,
    /// The list of the last turn, by its time, and the sessions.
    seen: Option<(Instant, Sessions)>,
}

fn name(n: usize) -> String {
    format!("node-{n}")
}

fn v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1)
}

/// One family is enough of the many.
fn pod_cidrs(n: usize) -> Vec<Prefix> {
    let v6 = Ipv6Addr::new(0xfd00, 0x244, n as u16, 0, 0, 0, 0, 0);
    let both = [Prefix::v4(Ipv4Addr::new(10, 240 + (n >> 8) as u8, n as u8, 0), 24), Prefix::v6(v6, 64)];
    both[..if n < 60 { 2 } else { 1 }].to_vec()
}

fn host(n: usize) -> Host {
    let on = |addr: IpAddr, len| LinkAddress {
        addr,
        len,
        peer: None,
        scope: Scope::Global,
        tentative: false,
        secondary: false,
        deprecated: false,
    };
    let eth0 = Link {
        index: 2,
        name: "eth0".into(),
        kind: String::new(),
        mtu: 1500,
        up: true,
        lower_up: true,
        loopback: false,
        master: None,
        generation: 0,
        addresses: vec![on(address(n).ip(), 16), on(v6(n).into(), 64)],
    };
    Host { links: [(2, eth0)].into(), ..Host::default() }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let net = Net::with(seed, &[], |_, _| unreachable!("no links yet"));
        let mut config = Config::for_kubernetes();
        config.kubernetes.mesh_limit = LIMIT;
        let lists = vec![(net.now, BTreeMap::new())];
        Self { net, config, lists, daemons: BTreeMap::new(), mortal: BTreeSet::new() }
    }

    fn list(&self) -> &BTreeMap<usize, Arc<NodeView>> {
        &self.lists.last().expect("a list").1
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<usize, Arc<NodeView>>)) {
        let mut list = self.list().clone();
        change(&mut list);
        self.lists.push((self.net.now, list));
    }

    fn join(&mut self, n: usize) {
        self.join_all(n..n + 1);
    }

    fn join_all(&mut self, numbers: Range<usize>) {
        self.list_nodes(numbers.clone(), Presence::Signed);
        for n in numbers {
            let lag = Duration::from_millis(self.net.random(5000));
            let (election, peers) = (Election::default(), BTreeMap::new());
            self.daemons.insert(n, Daemon { election, peers, lag, seen: None });
        }
    }

    /// A node that shows routelet a little after its first list.
    fn is_born(&mut self, n: usize) {
        self.join(n);
        self.show(n, Presence::Unknown);
        self.run(2);
        self.show(n, Presence::Signed);
    }

    fn show(&mut self, n: usize, routelet: Presence) {
        self.change(|list| Arc::make_mut(list.get_mut(&n).expect("a Node")).routelet = routelet);
    }

    /// Nodes on which nothing runs.
    fn fake(&mut self, numbers: Range<usize>, routelet: Presence) {
        self.list_nodes(numbers.clone(), routelet);
        numbers.for_each(|n| self.kill(n));
    }

    fn list_nodes(&mut self, numbers: Range<usize>, routelet: Presence) {
        let view = |n: usize| NodeView {
            name: name(n),
            uid: name(n),
            addresses: vec![address(n).ip(), v6(n).into()],
            pod_cidrs: pod_cidrs(n),
            zone: Some(format!("zone-{}", n % 4)),
            routelet,
            ..NodeView::default()
        };
        self.change(|list| list.extend(numbers.map(|n| (n, Arc::new(view(n))))));
    }

    /// A new image: the daemon ends and comes back with what its kernel has.
    fn roll_out(&mut self) {
        for n in self.living() {
            self.net.kill(n);
            self.run(3);
            self.net.restarting.insert(n);
            self.net.revive(n, true);
            let daemon = self.daemons.get_mut(&n).expect("a daemon");
            (daemon.election, daemon.seen) = (Election::default(), None);
            self.run(30);
            self.net.restarting.remove(&n);
        }
    }

    /// The list of node `n` as of now, and since when it is that.
    fn nodes(&self, n: usize) -> Option<(Instant, Nodes)> {
        let seen = self.net.now - self.daemons[&n].lag.min(self.net.now - self.lists[0].0);
        let (at, list) = self.lists.iter().rev().find(|(at, _)| *at <= seen)?;
        let sessions = self.sessions_of(n);
        let idle = |d: &Daemon| {
            d.seen.as_ref().is_some_and(|(last, up)| last == at && *up == sessions)
                && d.election.poll_timeout().is_none_or(|due| due > self.net.now)
        };
        if idle(&self.daemons[&n]) {
            return None;
        }
        let mut others: BTreeMap<_, _> = list.values().map(|v| (v.name.clone(), Arc::clone(v))).collect();
        let own = Arc::unwrap_or_clone(others.remove(&name(n))?);
        Some((*at, Nodes { own: Some(own), others, complete: true, ..Nodes::default() }))
    }

    /// What node `n` knows of its sessions.
    fn sessions_of(&self, n: usize) -> Sessions {
        let up = self.net.ends_of(n).into_iter().filter(|end| self.net.is_up(*end));
        let up: BTreeSet<_> = up.map(|(_, them)| address(them).ip()).collect();
        Sessions { any: !up.is_empty(), up }
    }

    /// One turn of a node's planner, where it has news or something is due.
    fn plan(&mut self, n: usize) {
        let Some((at, nodes)) = self.nodes(n).filter(|_| !self.net.is_dead(n)) else { return };
        let (now, sessions) = (self.net.now, self.sessions_of(n));
        let daemon = self.daemons.get_mut(&n).expect("a daemon");
        let changed = daemon.seen.as_ref().is_none_or(|(last, _)| *last != at);
        let before = daemon.election.topology().cloned();
        daemon.election.handle(now, &self.config, &nodes, &sessions);
        daemon.seen = Some((at, sessions));
        if let Some(leaving) = daemon.election.removals_to_check(now, &nodes) {
            daemon.election.apply_sole_sources(now, &nodes, self.net.routers[&n].rib.sole_sources(&leaving));
        }
        let topology = daemon.election.topology().cloned();
        if !changed && topology == before {
            return;
        }
        let extra = PlanInputs { kubernetes: true, topology, ..PlanInputs::default() };
        let made = plan(&self.config, Some(&nodes), &host(n), &extra).expect("a plan");
        let of = |key: &PeerKey| match key {
            PeerKey::Address(IpAddr::V4(a)) => Some((a.to_bits() as usize & 0xffff) - 1),
            _ => None,
        };
        let wanted: BTreeMap<_, _> =
            made.peers.iter().map(|(k, c)| (of(k).expect("a node"), c.clone())).collect();
        let old = std::mem::replace(&mut daemon.peers, wanted.clone());
        let own = || pod_cidrs(n).into_iter().collect();
        let router = || Router::new(now, made.global.clone(), BTreeMap::new(), own());
        self.net.routers.entry(n).or_insert_with(router);
        self.net.guard(n, made.guard.clone());
        for them in old.keys().filter(|them| !wanted.contains_key(them)) {
            self.net.withdraw((n, *them));
        }
        for (them, config) in wanted.iter().filter(|(them, config)| old.get(them) != Some(config)) {
            self.net.enter((n, *them), config.clone());
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.net.now + Duration::from_secs(seconds);
        while self.net.now < until {
            for (n, caller) in std::mem::take(&mut self.net.strangers) {
                let daemon = self.daemons.get_mut(&n).expect("a daemon");
                daemon.election.connected(self.net.now, address(caller).ip());
                daemon.seen = None;
            }
            for n in self.daemons.keys().copied().collect::<Vec<_>>() {
                self.plan(n);
            }
            self.net.run(STEP);
            self.nothing_is_lost();
        }
    }

    /// No kernel has lost a route to a node that lives.
    fn nothing_is_lost(&self) {
        for (n, router) in self.net.routers.iter().filter(|(n, _)| !self.net.is_dead(**n)) {
            let lost: Vec<_> = router.losses.iter().filter(|p| !self.mortal.contains(*p)).collect();
            assert!(lost.is_empty(), "node {n} lost {lost:?}\n{}", self.net.trace);
        }
    }

    fn kill(&mut self, n: usize) {
        self.mortal.extend(pod_cidrs(n));
        self.net.kill(n);
    }

    fn delete(&mut self, n: usize) {
        self.change(|list| {
            list.remove(&n);
        });
    }

    fn living(&self) -> Vec<usize> {
        self.list().keys().copied().filter(|n| !self.net.is_dead(*n)).collect()
    }

    /// Everybody reaches everybody.
    fn check(&self, why: &str) {
        for n in self.living() {
            for them in self.living().into_iter().filter(|them| *them != n) {
                let fib = &self.net.routers[&n].fib;
                let there = pod_cidrs(them).iter().all(|p| fib.contains_key(p));
                assert!(there, "{why}: {n} has no route to {them}\n{}", self.net.trace);
            }
        }
    }

    fn sessions(&self) -> usize {
        let living = self.living();
        let peers = living.iter().map(|n| &self.daemons[n].peers);
        peers.map(|p| p.keys().filter(|them| living.contains(them)).count()).sum::<usize>() / 2
    }

    fn reflectors(&self) -> BTreeSet<usize> {
        let nodes = Nodes {
            others: self.list().values().map(|v| (v.name.clone(), Arc::clone(v))).collect(),
            ..Nodes::default()
        };
        elect(&nodes).iter().map(|name| name["node-".len()..].parse().unwrap()).collect()
    }
}

/// NVSentinel#1567, kwok#1744, calico#4595, rke2#9286: Nodes without routelet beside five real ones, whatever marks them.
/// They are elected by nobody, and who joins or has a new image meets all others.
#[test]
fn kwok_1744_a_hundred_nodes_without_routelet_are_neither_counted_nor_elected() {
    for routelet in [Presence::Unknown, Presence::Impossible, Presence::Apart] {
        let mut cluster = Cluster::new(7);
        cluster.config = Config::for_kubernetes();
        (0..4).for_each(|n| cluster.join(n));
        cluster.run(60);
        cluster.check("four");
        cluster.fake(100..200, routelet);
        cluster.run(60);
        cluster.check("beside a hundred others");
        cluster.is_born(4);
        cluster.run(30);
        cluster.check("a fifth one joins");
        assert_eq!(cluster.sessions(), 10);
        cluster.roll_out();
        cluster.check("a new image");
        assert_eq!(cluster.sessions(), 10);
        let dialled = cluster.daemons.values().flat_map(|d| d.peers.keys());
        assert!(dialled.into_iter().all(|them| *them < 100), "nobody dials those that are not there");
    }
}

/// The same, with Nodes on which routelet ran once: the DaemonSet leaves them out now, but all are elected.
#[test]
fn kwok_1744_nodes_that_the_daemonset_leaves_out_now_cut_off_nobody() {
    for seed in seeds(500) {
        let mut cluster = Cluster::new(seed);
        cluster.config = Config::for_kubernetes();
        cluster.fake(100..210, Presence::Signed);
        (0..5).for_each(|n| cluster.is_born(n));
        assert!(cluster.reflectors().iter().all(|n| *n >= 100), "{:?}", cluster.reflectors());
        cluster.run(60);
        cluster.check("no reflector answers");
        cluster.roll_out();
        cluster.check("a new image");
        assert_eq!(cluster.sessions(), 10);
        // They are taken for what they are.
        (100..210).for_each(|n| cluster.show(n, Presence::Unknown));
        cluster.run(120);
        cluster.check("five count");
        let peers: Vec<_> = cluster.daemons.values().map(|d| d.peers.len()).collect();
        assert_eq!(peers, [4; 5]);
    }
}

/// One node alone cannot reach the reflectors: those that can are met by it, and let it in.
#[test]
fn calico_4595_a_node_that_reaches_no_reflector_meets_the_others() {
    for seed in seeds(500) {
        let mut cluster = Cluster::new(seed);
        cluster.join_all(0..LIMIT + 1);
        let reflectors = cluster.reflectors();
        let lonely = (0..=LIMIT).find(|n| !reflectors.contains(n)).unwrap();
        reflectors.iter().for_each(|r| cluster.net.cut(*r, lonely));
        cluster.run(180);
        for n in (0..=LIMIT).filter(|n| *n != lonely && !reflectors.contains(n)) {
            let has =
                |a: usize, b: usize| pod_cidrs(b).iter().all(|p| cluster.net.routers[&a].fib.contains_key(p));
            assert!(has(lonely, n) && has(n, lonely), "{lonely} and {n}\n{}", cluster.net.trace);
        }
        reflectors.iter().for_each(|r| cluster.net.heal(*r, lonely));
        cluster.run(300);
        cluster.check("healed");
        assert_eq!(cluster.sessions(), 3 * (LIMIT + 1 - 3) + 3);
    }
}

/// calico#9976, #1579: 800 nodes at once, for which a full mesh took minutes or never came up. Here they find reflectors by
/// themselves, with no setting, and are done in less than a minute.
#[test]
fn calico_9976_eight_hundred_nodes_at_once_choose_reflectors_and_converge() {
    const NODES: usize = 800;
    let mut cluster = Cluster::new(1);
    cluster.config = Config::for_kubernetes();
    cluster.join_all(0..NODES);
    cluster.run(40);
    assert_eq!(cluster.reflectors().len(), 3);
    assert_eq!(cluster.sessions(), 3 * (NODES - 3) + 3);
    cluster.check("all at once");
}

/// calico#9259: the reflectors' daemons are all off, and nobody tells the cluster, for longer than any hold time and restart
/// time together. No node loses a route then, nor when they come back.
#[test]
fn calico_9259_all_reflectors_off_for_an_hour_costs_no_route() {
    for seed in seeds(500) {
        let mut cluster = Cluster::new(seed);
        (0..LIMIT + 1).for_each(|n| cluster.join(n));
        cluster.run(120);
        cluster.check("below reflectors");
        let off = cluster.reflectors();
        assert_eq!(off.len(), 3);
        off.iter().for_each(|n| cluster.net.kill(*n));
        cluster.run(3600);
        cluster.check("without reflectors");
        let kept = |n: usize| {
            let fib = &cluster.net.routers[&n].fib;
            off.iter().flat_map(|them| pod_cidrs(*them)).all(|p| fib.contains_key(&p))
        };
        assert!(cluster.living().into_iter().all(kept), "the reflectors' own pods are reached, too");
        off.iter().for_each(|n| cluster.net.revive(*n, true));
        cluster.run(400);
        cluster.check("reflectors are back");
        assert_eq!(cluster.sessions(), 3 * (LIMIT + 1 - 3) + 3);
    }
}

/// calico#3819: the switch cost every route for seconds.
#[test]
fn calico_3819_no_route_is_lost_on_the_way_from_mesh_to_reflectors_and_back() {
    for seed in seeds(500) {
        let mut cluster = Cluster::new(seed);
        (0..LIMIT).for_each(|n| cluster.join(n));
        cluster.run(60);
        cluster.check("mesh");
        assert_eq!(cluster.sessions(), 300);

        // Growth.
        cluster.join(LIMIT);
        cluster.run(120);
        cluster.check("above the limit");
        let below = |n: usize| 3 * (n - 3) + 3;
        assert_eq!(cluster.sessions(), below(LIMIT + 1), "each has three reflectors, those have all");
        (LIMIT + 1..LIMIT + 5).for_each(|n| cluster.join(n));
        cluster.run(60);
        cluster.check("more nodes");

        // A reflector dies; after a while its Node is not_reporting of, then deleted.
        let dead = *cluster.reflectors().first().unwrap();
        cluster.kill(dead);
        cluster.run(40);
        cluster.change(|list| Arc::make_mut(list.get_mut(&dead).unwrap()).not_reporting = true);
        cluster.run(120);
        assert!(!cluster.reflectors().contains(&dead));
        cluster.check("a successor");
        cluster.delete(dead);
        cluster.run(60);
        assert_eq!(cluster.sessions(), below(LIMIT + 4));

        // All three are changed at once.
        let old = cluster.reflectors();
        cluster.change(|list| {
            list.iter_mut()
                .filter(|(n, _)| old.contains(n))
                .for_each(|(_, v)| Arc::make_mut(v).reflector = Some(false));
        });
        cluster.run(120);
        assert!(cluster.reflectors().is_disjoint(&old));
        cluster.check("three others");
        assert_eq!(cluster.sessions(), below(LIMIT + 4));

        // Back below 80 %.
        for n in cluster
            .living()
            .into_iter()
            .filter(|n| !cluster.reflectors().contains(n))
            .take(10)
            .collect::<Vec<_>>()
        {
            cluster.kill(n);
            cluster.delete(n);
            cluster.run(3);
        }
        cluster.run(60);
        let n = cluster.living().len();
        assert!(n * 10 < LIMIT * 8);
        cluster.run(400);
        cluster.check("mesh again");
        assert_eq!(cluster.sessions(), n * (n - 1) / 2);
        let reflecting = cluster.daemons.iter().filter(|(n, _)| !cluster.net.is_dead(**n));
        assert!(reflecting.flat_map(|(_, d)| d.peers.values()).all(|c| !c.route_reflector_client));
    }
}
