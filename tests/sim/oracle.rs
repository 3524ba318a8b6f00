//! Who should know which prefix by which next hop: computed from the settings alone, by the words of the RFCs,
//! prefix by prefix until nothing changes any more. Shares no code with the table.

use std::collections::{BTreeMap, BTreeSet};

use routelet::{
    bgp::{peer::PeerConfig, peer::PeerSource},
    net::{Asn, Family, Prefix},
};

use crate::world::World;

/// A path as one node holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub as_path: Vec<Asn>,
    /// The node that is the next hop.
    pub next_hop: usize,
    originator: Option<usize>,
    /// Reflectors passed, the last one first.
    clusters: Vec<usize>,
    pub refused: bool,
}

/// Who said a path, and where the path was told under its own number (RFC 7911), from whom that one had it, and so
/// on.
pub type Way = Vec<usize>;

/// What one node should hold for a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knows {
    pub own: bool,
    /// By the neighbor that said it, refused ones too.
    pub paths: BTreeMap<Way, Path>,
    /// The best path; none: own, or nothing.
    pub best: Option<Way>,
    /// Next hops that forward.
    pub forwards: BTreeSet<usize>,
}

/// Everything about one prefix, by node.
pub fn prefix(world: &World, prefix: Prefix) -> Vec<Knows> {
    let mut nodes = vec![Knows::default(); world.nodes];
    for (n, knows) in nodes.iter_mut().enumerate() {
        knows.own = world.own[n].contains(&prefix);
    }
    for _ in 0..100 {
        let before = nodes.clone();
        for b in 0..world.nodes {
            let mut paths = BTreeMap::new();
            for a in world.neighbors(b) {
                paths.extend(advertised(world, prefix, a, b, &nodes[a]));
            }
            nodes[b].paths = paths;
            decide(world, b, &mut nodes[b]);
        }
        if nodes == before {
            return nodes;
        }
    }
    panic!("{prefix} never comes to rest: a world that has no single outcome");
}

fn internal(config: &PeerConfig, other: &PeerConfig) -> bool {
    config.local_as == other.local_as
}

/// What `a` tells `b`, and whether `b` may take it.
fn advertised(world: &World, prefix: Prefix, a: usize, b: usize, knows: &Knows) -> Vec<(Way, Path)> {
    if world.policy(a, b).rejects(world, prefix) {
        return vec![];
    }
    if !(world.end(a, b).add_paths.send && world.end(b, a).add_paths.receive) {
        let way = if knows.own { None } else { knows.best.as_ref() };
        let path = if knows.own || way.is_some() { passed_on(world, prefix, a, b, knows, way) } else { None };
        return path.map(|path| (vec![a], path)).into_iter().collect();
    }
    let learned = knows.paths.iter().filter(|(_, p)| !p.refused).map(|(way, _)| Some(way));
    let all = knows.own.then_some(None).into_iter().chain(learned);
    let named = |way: Option<&Way>| std::iter::once(a).chain(way.into_iter().flatten().copied()).collect();
    all.filter_map(|way| Some((named(way), passed_on(world, prefix, a, b, knows, way)?))).collect()
}

/// One path of `a`'s, or its own word, as `b` hears it.
fn passed_on(
    world: &World,
    prefix: Prefix,
    a: usize,
    b: usize,
    knows: &Knows,
    way: Option<&Way>,
) -> Option<Path> {
    let (ours, theirs) = (world.end(a, b), world.end(b, a));
    let ibgp = internal(ours, theirs);
    let mut path = if let Some(way) = way {
        let from = way[0];
        if from == b {
            return None;
        }
        let source = world.end(a, from);
        let from_internal = internal(source, world.end(from, a));
        let hears = match (from_internal, ibgp) {
            (true, true) => source.route_reflector_client || ours.route_reflector_client,
            (false, true) => ours.transit || ours.source == PeerSource::Configured,
            (_, false) => ours.transit,
        };
        if !hears {
            return None;
        }
        let mut path = knows.paths[way].clone();
        let reflected = from_internal && ibgp;
        if reflected {
            path.originator.get_or_insert(from);
            path.clusters.insert(0, a);
        } else if ours.next_hop_self.unwrap_or(!ibgp) {
            path.next_hop = a;
        }
        path
    } else {
        Path { as_path: vec![], next_hop: a, originator: None, clusters: vec![], refused: false }
    };
    // RFC 4271 §5.1.3: nobody is told a route by way of itself. Sessions run over IPv4, so only there is it known.
    if path.next_hop == b && prefix.family() == Family::Ipv4Unicast {
        return None;
    }
    let times = usize::from(!ibgp) + usize::from(world.policy(a, b).prepends());
    for _ in 0..times {
        path.as_path.insert(0, ours.local_as);
    }
    if !ibgp {
        (path.originator, path.clusters) = (None, vec![]);
    }
    let loops = path.as_path.iter().filter(|n| **n == theirs.local_as).count();
    path.refused =
        loops > usize::from(theirs.allow_own_as) || path.originator == Some(b) || path.clusters.contains(&b);
    Some(path)
}

/// RFC 4271 §9.1.2.2, RFC 4456 §9: no two neighbors of these worlds differ in LOCAL_PREF, origin, MED or metric.
fn decide(world: &World, b: usize, knows: &mut Knows) {
    (knows.best, knows.forwards) = (None, BTreeSet::new());
    if knows.own {
        return;
    }
    let usable = knows.paths.iter().filter(|(_, p)| !p.refused);
    let mut left: Vec<(&Way, &Path)> = usable.collect();
    type Key<'a> = &'a dyn Fn(&(&Way, &Path)) -> usize;
    let keep = |left: &mut Vec<(&Way, &Path)>, key: Key<'_>| {
        let least = left.iter().map(key).min();
        left.retain(|p| Some(key(p)) == least);
    };
    keep(&mut left, &|(_, p)| p.as_path.len());
    keep(&mut left, &|(a, _)| usize::from(internal(world.end(b, a[0]), world.end(a[0], b))));
    let forwards = left.iter().map(|(_, p)| p.next_hop).collect();
    // Router ids and addresses are in the order of the numbers.
    keep(&mut left, &|(a, p)| p.originator.unwrap_or(a[0]));
    keep(&mut left, &|(_, p)| p.clusters.len());
    // Among equal paths of one neighbor their numbers decide, which are not foreseen here: only nodes that pass
    // nothing on are told several of them.
    let best = left.iter().map(|(a, _)| (*a).clone()).min();
    (knows.best, knows.forwards) = (best, forwards);
}
