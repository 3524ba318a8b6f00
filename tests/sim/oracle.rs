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

/// What one node should hold for a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knows {
    pub own: bool,
    /// By the neighbor that said it, refused ones too.
    pub paths: BTreeMap<usize, Path>,
    /// The neighbor with the best path; none: own, or nothing.
    pub best: Option<usize>,
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
                if let Some(path) = said(world, prefix, a, b, &nodes[a]) {
                    paths.insert(a, path);
                }
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
fn said(world: &World, prefix: Prefix, a: usize, b: usize, knows: &Knows) -> Option<Path> {
    let (ours, theirs) = (world.end(a, b), world.end(b, a));
    let ibgp = internal(ours, theirs);
    if world.policy(a, b).rejects(world, prefix) {
        return None;
    }
    let mut path = if knows.own {
        Path { as_path: vec![], next_hop: a, originator: None, clusters: vec![], refused: false }
    } else {
        let from = knows.best.filter(|from| *from != b)?;
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
        let mut path = knows.paths[&from].clone();
        let reflected = from_internal && ibgp;
        if reflected {
            path.originator.get_or_insert(from);
            path.clusters.insert(0, a);
        } else if ours.next_hop_self.unwrap_or(!ibgp) {
            path.next_hop = a;
        }
        path
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
    let mut left: Vec<(usize, &Path)> = usable.map(|(a, p)| (*a, p)).collect();
    type Key<'a> = &'a dyn Fn(&(usize, &Path)) -> usize;
    let keep = |left: &mut Vec<(usize, &Path)>, key: Key<'_>| {
        let least = left.iter().map(key).min();
        left.retain(|p| Some(key(p)) == least);
    };
    keep(&mut left, &|(_, p)| p.as_path.len());
    keep(&mut left, &|(a, _)| usize::from(internal(world.end(b, *a), world.end(*a, b))));
    let forwards = left.iter().map(|(_, p)| p.next_hop).collect();
    // Router ids and addresses are in the order of the numbers.
    keep(&mut left, &|(a, p)| p.originator.unwrap_or(*a));
    keep(&mut left, &|(_, p)| p.clusters.len());
    let best = left.iter().map(|(a, _)| *a).min();
    (knows.best, knows.forwards) = (best, forwards);
}
