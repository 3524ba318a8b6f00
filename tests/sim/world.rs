//! Networks as they are built, drawn from a seed: who is whose neighbor, by which settings, with which prefixes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use routelet::{
    bgp::{
        peer::{AddPaths, OwnAddresses, PeerConfig, PeerSource, RemoteAs},
        policy::{Action, Match, Policy, PrefixRange, Set, Statement},
        session::Input,
    },
    net::{Asn, Prefix},
};

use crate::{
    net::{End, Net, address, config, global, id},
    oracle,
    router::Router,
};

/// What a node's export policy for one neighbor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Export {
    #[default]
    All,
    /// Every second prefix is kept back.
    Half,
    /// The own number once more.
    Longer,
}

impl Export {
    pub fn rejects(self, world: &World, prefix: Prefix) -> bool {
        self == Self::Half && world.prefixes.iter().step_by(2).any(|p| *p == prefix)
    }

    pub fn prepends(self) -> bool {
        self == Self::Longer
    }

    fn policies(self, prefixes: &[Prefix]) -> Vec<Arc<Policy>> {
        let half: Vec<_> = prefixes.iter().step_by(2).map(|p| PrefixRange::exact(*p)).collect();
        let statement = match self {
            Self::All => return vec![],
            Self::Half => Statement {
                matches: Match { prefixes: half.into(), ..Match::default() },
                action: Some(Action::Reject),
                ..Statement::default()
            },
            Self::Longer => {
                Statement { set: Set { prepend_as: 1, ..Set::default() }, ..Statement::default() }
            }
        };
        vec![Arc::new(Policy::new("export", vec![statement]))]
    }
}

/// A network: all that the outcome depends on.
pub struct World {
    pub name: &'static str,
    pub nodes: usize,
    pub links: Vec<(usize, usize)>,
    pub prefixes: Vec<Prefix>,
    /// What each node announces now.
    pub own: Vec<BTreeSet<Prefix>>,
    ends: BTreeMap<End, PeerConfig>,
    policies: BTreeMap<End, Export>,
}

/// The AS of the meshes.
pub const AS: Asn = 64512;

fn v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1)
}

/// The node with this address as next hop.
fn node_of(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(a) => (a.to_bits() & 0xffff) as usize - 1,
        IpAddr::V6(a) => usize::from(a.segments()[7]) - 1,
    }
}

impl World {
    fn new(
        name: &'static str,
        nodes: usize,
        links: Vec<(usize, usize)>,
        asn: impl Fn(usize) -> Asn,
        change: impl Fn(usize, usize, &mut PeerConfig),
    ) -> Self {
        let mut ends = BTreeMap::new();
        for &(a, b) in &links {
            for (us, them) in [(a, b), (b, a)] {
                let mut c = config(us, them, |_| AS);
                (c.local_as, c.global_as) = (asn(us), asn(us));
                c.remote_as = RemoteAs::Number(asn(them));
                let v4 = Ipv4Addr::from(id(us));
                c.max_prefixes = 100_000;
                c.own = OwnAddresses { v4: Some(v4), v6: Some(v6(us)), link_local: None };
                change(us, them, &mut c);
                ends.insert((us, them), c);
            }
        }
        let policies = BTreeMap::new();
        Self { name, nodes, links, prefixes: vec![], own: vec![BTreeSet::new(); nodes], ends, policies }
    }

    /// All nodes of a cluster with all others.
    pub fn mesh(n: usize) -> Self {
        let links = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        Self::new("mesh", n, links, |_| AS, |_, _, _| {})
    }

    /// The first `r` nodes reflect for all others.
    pub fn reflectors(r: usize, clients: usize) -> Self {
        let n = r + clients;
        let links = (0..r).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        Self::new(
            "reflectors",
            n,
            links,
            |_| AS,
            |us, them, c| {
                c.source = PeerSource::Reflector;
                c.route_reflector_client = us < r && them >= r;
            },
        )
    }

    /// Two spines, two leaves, hosts with a foot on each leaf: an AS for each but the spines.
    pub fn fabric(hosts: usize) -> Self {
        let mut links = vec![(0, 2), (0, 3), (1, 2), (1, 3)];
        links.extend((4..4 + hosts).flat_map(|h| [(2, h), (3, h)]));
        let asn = |n: usize| if n < 2 { 65000 } else { 65000 + n as Asn };
        Self::new("fabric", 4 + hosts, links, asn, |us, _, c| {
            c.source = PeerSource::Configured;
            c.transit = us < 4;
        })
    }

    /// Three routers of one AS in a mesh, two of them with neighbors outside.
    pub fn border(outside: usize) -> Self {
        let mut links = vec![(0, 1), (0, 2), (1, 2)];
        links.extend((3..3 + outside).map(|n| (n % 2, n)));
        let asn = |n: usize| if n < 3 { AS } else { 65000 + n as Asn };
        Self::new("border", 3 + outside, links, asn, |us, them, c| {
            c.source = PeerSource::Configured;
            c.next_hop_self = Some(us < 3);
            c.transit = us < 3 && them >= 3;
        })
    }

    /// Hosts of one AS in a mesh below one switch that is their gateway, as `peering = "auto"` makes them.
    pub fn gateway(hosts: usize) -> Self {
        let n = hosts + 1;
        let links = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        let asn = |n: usize| if n == 0 { 65000 } else { AS };
        Self::new("gateway", n, links, asn, |us, them, c| {
            (c.transit, c.allow_own_as) = (us == 0, u8::from(them == 0));
            c.source = if them == 0 { PeerSource::Gateway } else { PeerSource::Mesh };
        })
    }

    /// One of the shapes above, small.
    pub fn drawn(seed: u64) -> Self {
        let size = (seed / 5 % 3) as usize;
        let mut world = match seed % 5 {
            0 => Self::mesh(3 + size),
            1 => Self::reflectors(1 + size % 2, 3 + size),
            2 => Self::fabric(1 + size),
            3 => Self::border(2 + size),
            _ => Self::gateway(2 + size),
        };
        world.give_prefixes(2);
        if seed / 15 % 2 == 1 {
            world.advertise_all_paths();
        }
        if seed.is_multiple_of(7) {
            world.ends.values_mut().for_each(|c| c.graceful_restart = false);
        }
        world
    }

    /// ADD-PATH where several paths meet: reflectors with everybody, and leaves with hosts, of which every second
    /// only receives.
    pub fn advertise_all_paths(&mut self) {
        for ((us, them), config) in &mut self.ends {
            let (leaf, host) = (*us.min(them), *us.max(them));
            config.add_paths = match self.name {
                "reflectors" => AddPaths { send: true, receive: true },
                "fabric" if host >= 4 && host % 2 == 0 => AddPaths { send: true, receive: true },
                "fabric" if host >= 4 => AddPaths { send: *us == leaf, receive: *us == host },
                _ => AddPaths::default(),
            };
        }
    }

    /// Each node gets so many of its own, of both families in turn.
    pub fn give_prefixes(&mut self, each: usize) {
        for n in 0..self.nodes {
            for k in 0..each {
                let at = (n * each + k) as u32;
                let prefix = if k % 2 == 0 {
                    Prefix::v4(Ipv4Addr::from_bits(0x1400_0000 + (at << 8)), 24)
                } else {
                    Prefix::v6(Ipv6Addr::new(0x2001, 0xdb8, at as u16, 0, 0, 0, 0, 0), 48)
                };
                self.prefixes.push(prefix);
                self.own[n].insert(prefix);
            }
        }
    }

    pub fn restart_gracefully(&mut self) {
        self.ends.values_mut().for_each(|c| c.graceful_restart = true);
    }

    pub fn end(&self, us: usize, them: usize) -> &PeerConfig {
        &self.ends[&(us, them)]
    }

    pub fn neighbors(&self, n: usize) -> impl Iterator<Item = usize> + '_ {
        self.ends.range((n, 0)..(n + 1, 0)).map(|((_, them), _)| *them)
    }

    pub fn policy(&self, us: usize, them: usize) -> Export {
        self.policies.get(&(us, them)).copied().unwrap_or_default()
    }

    /// The network with all its tables, all sessions started.
    pub fn build(&self, seed: u64) -> Net {
        let mut net = Net::with(seed, &self.links, |us, them| self.end(us, them).clone());
        for n in 0..self.nodes {
            let peers: BTreeMap<_, _> =
                self.neighbors(n).map(|them| (them, Arc::new(self.end(n, them).clone()))).collect();
            let global = global(n, peers.values().next().expect("a neighbor"));
            net.routers.insert(n, Router::new(net.now, global, peers, self.own[n].clone()));
        }
        for end in net.ends() {
            net.feed(end, Input::Start);
        }
        net
    }

    /// The operator changes a policy.
    pub fn set_policy(&mut self, net: &mut Net, end: End, export: Export) {
        net.note(format_args!("{end:?} exports {export:?}"));
        self.policies.insert(end, export);
        let policies = export.policies(&self.prefixes);
        let config = self.ends.get_mut(&end).expect("an end");
        config.export = policies;
        net.configure(end, Arc::new(config.clone()));
    }

    /// A node begins or ceases to announce a prefix.
    pub fn toggle(&mut self, net: &mut Net, n: usize, prefix: Prefix) {
        if !self.own[n].remove(&prefix) {
            self.own[n].insert(prefix);
        }
        net.note(format_args!("{n} announces {:?}", self.own[n]));
        net.originate(n, self.own[n].clone());
    }

    /// Panics with what differs between the tables and the oracle.
    pub fn check(&self, net: &mut Net, seed: u64) {
        let names: BTreeMap<String, usize> =
            (0..self.nodes).map(|n| (address(n).ip().to_string(), n)).collect();
        let mut told = vec![BTreeMap::<usize, u64>::new(); self.nodes];
        let mut seen = (0..self.nodes).map(|n| held(net, n, &names)).collect::<Vec<_>>();
        for &prefix in &self.prefixes {
            for (n, expected) in oracle::prefix(self, prefix).into_iter().enumerate() {
                let found = seen[n].remove(&prefix).unwrap_or_default();
                let expected = Held::expected(&expected);
                assert_eq!(
                    found, expected,
                    "seed {seed}, {}: node {n} about {prefix} (left: what it holds, right: what it should)\n{}",
                    self.name, net.trace
                );
                for (from, paths) in &expected.paths {
                    *told[*from].entry(n).or_default() += paths.len() as u64;
                }
            }
        }
        for (n, told) in told.into_iter().enumerate() {
            assert!(seen[n].is_empty(), "seed {seed}: node {n} has more: {:?}\n{}", seen[n], net.trace);
            let counts = net.routers[&n].rib.counts().neighbors;
            for them in self.neighbors(n) {
                let advertised: u64 = counts[&address(them).ip().to_string()].advertised.values().sum();
                let expected = told.get(&them).copied().unwrap_or(0);
                assert_eq!(advertised, expected, "seed {seed}: what {n} says it told {them}\n{}", net.trace);
            }
        }
    }
}

/// What a node holds for a prefix.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    own: bool,
    /// By neighbor: AS path, next hop, refused, of each path that it told.
    paths: BTreeMap<usize, Vec<(Vec<Asn>, usize, bool)>>,
    best: Option<usize>,
    forwards: BTreeSet<usize>,
    stale: bool,
}

impl Held {
    fn expected(knows: &oracle::Knows) -> Self {
        let forwards = knows.forwards.clone();
        let best = knows.best.as_ref().map(|way| way[0]);
        let mut held = Self { own: knows.own, best, forwards, ..Self::default() };
        for (way, p) in &knows.paths {
            held.paths.entry(way[0]).or_default().push((p.as_path.clone(), p.next_hop, p.refused));
        }
        held.sorted()
    }

    fn sorted(mut self) -> Self {
        self.paths.values_mut().for_each(|paths| paths.sort());
        self
    }
}

fn held(net: &mut Net, n: usize, names: &BTreeMap<String, usize>) -> BTreeMap<Prefix, Held> {
    let now = net.now;
    let router = net.routers.get_mut(&n).expect("a table");
    let mut all = BTreeMap::<Prefix, Held>::new();
    for view in router.rib.routes(now, &Default::default()) {
        let held = all.entry(view.prefix).or_default();
        let Some(neighbor) = view.neighbor else {
            held.own = true;
            continue;
        };
        let path = serde_json::from_value(view.as_path).expect("numbers");
        let next_hop = node_of(view.next_hop.expect("a next hop"));
        let neighbor = names[&neighbor];
        held.paths.entry(neighbor).or_default().push((path, next_hop, view.reason.starts_with("loop")));
        held.stale |= view.stale;
        if view.best {
            held.best = Some(neighbor);
        }
    }
    for (prefix, hops) in &router.fib {
        let hops = hops.gateways().iter().map(|g| node_of(g.addr)).collect();
        all.entry(*prefix).or_default().forwards = hops;
    }
    all.into_iter().map(|(prefix, held)| (prefix, held.sorted())).collect()
}

/// Long enough for every patience with stale routes to end.
pub const PATIENCE: Duration = Duration::from_secs(430);
