//! Best-path selection and multipath (RFC 4271 §9.1).
//!
//! Each step, a [`BestPathReason`], drops the paths that are worse than the best of those left.
//! Paths that are left after [`BestPathReason::IgpMetric`] are equally good for forwarding; the
//! last steps only select the one to advertise. MED is compared among all paths of one neighbor AS
//! at once, so the result does not depend on the order of arrival (RFC 4271 §9.1.2.2 c).

use std::net::{IpAddr, Ipv4Addr};

use super::nexthop::HopId;
use crate::{bgp::wire::attr::Origin, net::Asn};

/// What is compared of a usable path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// RFC 9494 §4.3.
    pub(super) long_lived_stale: bool,
    pub(super) local_pref: u32,
    pub(super) own: bool,
    pub(super) path_length: usize,
    pub(super) origin: Origin,
    pub(super) neighbor_as: Option<Asn>,
    pub(super) med: u32,
    pub(super) external: bool,
    pub(super) igp_metric: u32,
    /// ORIGINATOR_ID if present (RFC 4456 §9).
    pub(super) router_id: Ipv4Addr,
    pub(super) cluster_list_length: usize,
    pub(super) address: IpAddr,
    pub(super) path_id: u32,
    pub(super) hop: Option<HopId>,
    pub(super) as_path: &'a [u8],
}

/// The steps, in order. The last one that dropped a path is the reason for the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BestPathReason {
    /// There was only one path.
    Only,
    /// First: no neighbor may take over a route that this node originates.
    Own,
    LongLivedStale,
    LocalPref,
    PathLength,
    Origin,
    Med,
    External,
    IgpMetric,
    RouterId,
    ClusterList,
    Address,
    PathId,
}

impl BestPathReason {
    /// In which way the best path is better than the others.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only path",
            Self::LongLivedStale => "not stale",
            Self::LocalPref => "highest LOCAL_PREF",
            Self::Own => "own route",
            Self::PathLength => "shortest AS path",
            Self::Origin => "lowest origin",
            Self::Med => "lowest MED",
            Self::External => "eBGP over iBGP",
            Self::IgpMetric => "lowest metric to the next hop",
            Self::RouterId => "lowest router id",
            Self::ClusterList => "shortest cluster list",
            Self::Address => "lowest neighbor address",
            Self::PathId => "lowest path id",
        }
    }
}

/// Result of the selection; its memory is reused.
#[derive(Debug, Default)]
pub(super) struct BestPath {
    /// Index of the best path.
    pub(super) best: usize,
    /// For each candidate the step that dropped it; `None` for the best path.
    pub(super) lost: Vec<Option<BestPathReason>>,
    /// Indices of the paths used for forwarding, best first.
    pub(super) multipath: Vec<usize>,
    alive: Vec<usize>,
}

impl BestPath {
    /// Selects among `candidates`, of which there must be at least one.
    pub(super) fn run(&mut self, candidates: &[Candidate<'_>], relax: bool, max_paths: usize) {
        self.lost.clear();
        self.lost.resize(candidates.len(), None);
        self.alive.clear();
        self.alive.extend(0..candidates.len());
        let c = candidates;
        self.keep_least(BestPathReason::Own, |n| !c[n].own);
        self.keep_least(BestPathReason::LongLivedStale, |n| c[n].long_lived_stale);
        self.keep_least(BestPathReason::LocalPref, |n| std::cmp::Reverse(c[n].local_pref));
        self.keep_least(BestPathReason::PathLength, |n| c[n].path_length);
        self.keep_least(BestPathReason::Origin, |n| c[n].origin);
        self.keep_least_med(c);
        self.keep_least(BestPathReason::External, |n| !c[n].external);
        self.keep_least(BestPathReason::IgpMetric, |n| c[n].igp_metric);
        let equal = self.alive.clone();
        self.keep_least(BestPathReason::RouterId, |n| c[n].router_id);
        self.keep_least(BestPathReason::ClusterList, |n| c[n].cluster_list_length);
        self.keep_least(BestPathReason::Address, |n| c[n].address);
        self.keep_least(BestPathReason::PathId, |n| c[n].path_id);
        self.best = self.alive[0];
        self.pick_multipath(c, equal, relax, max_paths);
    }

    /// Sets the result for a single candidate.
    pub(super) fn only(&mut self) {
        self.best = 0;
        self.lost.clear();
        self.lost.push(None);
        self.multipath.clear();
        self.multipath.push(0);
    }

    /// The reason for the selection: the last step that dropped a path.
    pub(super) fn rule(&self) -> BestPathReason {
        self.lost.iter().flatten().max().copied().unwrap_or(BestPathReason::Only)
    }

    fn keep_least<K: Ord>(&mut self, rule: BestPathReason, key: impl Fn(usize) -> K) {
        if self.alive.len() < 2 {
            return;
        }
        let Some(least) = self.alive.iter().map(|n| key(*n)).min() else { return };
        let lost = &mut self.lost;
        self.alive.retain(|n| {
            let stays = key(*n) == least;
            if !stays {
                lost[*n] = Some(rule);
            }
            stays
        });
    }

    fn keep_least_med(&mut self, c: &[Candidate<'_>]) {
        if self.alive.len() < 2 {
            return;
        }
        let all = self.alive.clone();
        let beaten =
            |n: usize| all.iter().any(|m| c[*m].neighbor_as == c[n].neighbor_as && c[*m].med < c[n].med);
        let lost = &mut self.lost;
        self.alive.retain(|n| {
            let stays = !beaten(*n);
            if !stays {
                lost[*n] = Some(BestPathReason::Med);
            }
            stays
        });
    }

    /// Up to `max_paths` paths with different next hops among the equal ones, the best first.
    fn pick_multipath(&mut self, c: &[Candidate<'_>], mut equal: Vec<usize>, relax: bool, max_paths: usize) {
        self.multipath.clear();
        self.multipath.push(self.best);
        let best = &c[self.best];
        if best.own || max_paths < 2 || equal.len() < 2 {
            return;
        }
        let order = |n: &usize| (c[*n].router_id, c[*n].cluster_list_length, c[*n].address, c[*n].path_id);
        equal.sort_by_key(order);
        let mut hops = vec![best.hop];
        for n in equal {
            if hops.len() >= max_paths {
                break;
            }
            if hops.contains(&c[n].hop) || !(relax || c[n].as_path == best.as_path) {
                continue;
            }
            hops.push(c[n].hop);
            self.multipath.push(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base<'a>() -> Candidate<'a> {
        Candidate {
            long_lived_stale: false,
            local_pref: 100,
            own: false,
            path_length: 2,
            origin: Origin::Egp,
            neighbor_as: Some(1),
            med: 10,
            external: false,
            igp_metric: 10,
            router_id: Ipv4Addr::new(2, 2, 2, 2),
            cluster_list_length: 1,
            address: "10.0.0.2".parse().unwrap(),
            path_id: 2,
            hop: None,
            as_path: &[],
        }
    }

    fn decide(candidates: &[Candidate<'_>], relax: bool, max_paths: usize) -> BestPath {
        let mut decision = BestPath::default();
        decision.run(candidates, relax, max_paths);
        decision
    }

    #[test]
    fn each_rule_decides_when_all_before_it_are_equal() {
        type Better = fn(&mut Candidate<'_>);
        let ladder: [(BestPathReason, Better); 12] = [
            (BestPathReason::Own, |c| c.own = true),
            (BestPathReason::LongLivedStale, |_| {}),
            (BestPathReason::LocalPref, |c| c.local_pref = 200),
            (BestPathReason::PathLength, |c| c.path_length = 1),
            (BestPathReason::Origin, |c| c.origin = Origin::Igp),
            (BestPathReason::Med, |c| c.med = 5),
            (BestPathReason::External, |c| c.external = true),
            (BestPathReason::IgpMetric, |c| c.igp_metric = 5),
            (BestPathReason::RouterId, |c| c.router_id = Ipv4Addr::new(1, 1, 1, 1)),
            (BestPathReason::ClusterList, |c| c.cluster_list_length = 0),
            (BestPathReason::Address, |c| c.address = "10.0.0.1".parse().unwrap()),
            (BestPathReason::PathId, |c| c.path_id = 1),
        ];
        for (n, (rule, better)) in ladder.iter().enumerate() {
            // The winner is better in this step only; the loser in all later ones.
            let (mut winner, mut loser) = (base(), base());
            better(&mut winner);
            loser.long_lived_stale = *rule == BestPathReason::LongLivedStale;
            ladder[n + 1..].iter().for_each(|(_, better)| better(&mut loser));
            for (candidates, best) in [([winner, loser], 0), ([loser, winner], 1)] {
                let decision = decide(&candidates, true, 1);
                assert_eq!((decision.best, decision.rule()), (best, *rule));
                assert_eq!(decision.lost[1 - best], Some(*rule));
            }
        }
    }

    #[test]
    fn med_counts_only_among_paths_of_one_neighbor_as() {
        let a = Candidate { med: 50, neighbor_as: Some(1), router_id: [3, 0, 0, 0].into(), ..base() };
        let b = Candidate { med: 10, neighbor_as: Some(2), router_id: [2, 0, 0, 0].into(), ..base() };
        let c = Candidate { med: 60, neighbor_as: Some(1), router_id: [1, 0, 0, 0].into(), ..base() };
        // Whatever the order: c falls to a by MED, then b wins by router id.
        for order in [[a, b, c], [c, b, a], [b, a, c], [c, a, b]] {
            let decision = decide(&order, true, 1);
            assert_eq!(order[decision.best].router_id, b.router_id);
        }
    }

    #[test]
    fn equal_paths_forward_together_as_far_as_allowed() {
        let mut hops = super::super::nexthop::Hops::default();
        let mut hop =
            |s: &str| Some(hops.intern(crate::net::Gateway { addr: s.parse().unwrap(), ifindex: 0 }).0);
        let (h1, h2, h3) = (hop("10.0.0.1"), hop("10.0.0.2"), hop("10.0.0.3"));
        let a = Candidate { hop: h1, router_id: [1, 0, 0, 0].into(), as_path: &[1], ..base() };
        let b = Candidate { hop: h2, router_id: [2, 0, 0, 0].into(), as_path: &[2], ..base() };
        let c = Candidate { hop: h3, router_id: [3, 0, 0, 0].into(), as_path: &[1], ..base() };
        let same = Candidate { hop: h1, router_id: [4, 0, 0, 0].into(), as_path: &[1], ..base() };
        let far = Candidate { hop: h2, igp_metric: 11, ..base() };
        #[rustfmt::skip]
        let cases: &[(&str, &[Candidate<'_>], bool, usize, &[usize])] = &[
            ("relaxed",            &[c, b, a],    true,  64, &[2, 1, 0]),
            ("same path only",     &[c, b, a],    false, 64, &[2, 0]),
            ("two at most",        &[c, b, a],    true,  2,  &[2, 1]),
            ("one",                &[c, b, a],    true,  1,  &[2]),
            ("same next hop",      &[a, same],    true,  64, &[0]),
            ("longer to next hop", &[a, far],     true,  64, &[0]),
        ];
        for (name, candidates, relax, max, expected) in cases {
            assert_eq!(decide(candidates, *relax, *max).multipath, *expected, "{name}");
        }
    }
}
