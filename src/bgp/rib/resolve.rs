//! Resolution of next hops (RFC 4271 §9.1.2.1).
//!
//! A next hop is looked up in the routes of the host first. If the host has no route, it may
//! resolve over a route of the table, at most [`MAX_DEPTH`] levels deep. A route never resolves its
//! own next hop, nor do two routes resolve each other's.

use super::{
    Rib,
    nexthop::{HopId, Resolution},
    table::{OWN, Path},
};
use crate::net::{Family, Gateway, NextHops, Reach, Unresolved};

/// Most levels of recursion for one next hop.
const MAX_DEPTH: usize = 4;

/// Routes sampled at for one next hop: neighbors may announce a maze in which every way ends.
const MAX_LOOKUPS: usize = 256;

/// Metric of all next hops that resolve over routes of the table. If it depended on these routes,
/// best paths and metrics could change each other, and the result would depend on the order of
/// arrival.
const RECURSIVE_METRIC: u32 = u32::MAX;

/// The metric, and the directly connected gateways.
type Found = Result<(u32, Vec<Gateway>), Unresolved>;

/// State of one resolution.
#[derive(Default)]
struct Walk {
    /// The next hops on the way here; a loop back to one of them is not followed.
    chain: Vec<Gateway>,
    steps: usize,
    /// The result depends on the table.
    recursive: bool,
}

impl Rib {
    /// Resolves every next hop again after the host's routes changed.
    pub(super) fn resolve_all(&mut self) {
        self.hops.ids().into_iter().for_each(|hop| self.resolve(hop));
    }

    /// Resolves the next hops again that depend on the table.
    pub(super) fn resolve_recursive(&mut self) {
        if self.hops.iter().any(|h| h.recursive) {
            let ids = self.hops.ids();
            ids.into_iter()
                .filter(|h| self.hops.get(*h).recursive)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|hop| self.resolve(hop));
        }
    }

    /// Resolves one next hop, and marks it if the result changed.
    pub(super) fn resolve(&mut self, id: HopId) {
        let gateway = self.hops.get(id).gateway;
        let mut walk = Walk::default();
        let found = self.follow(gateway, &mut walk);
        let resolution = match found {
            Ok((metric, gateways)) => {
                Resolution::Via { metric, set: self.sets.intern(NextHops::unicast(gateways)) }
            }
            Err(why) => Resolution::No(why),
        };
        let hop = self.hops.get_mut(id);
        let old = std::mem::replace(&mut hop.resolution, resolution);
        hop.recursive = walk.recursive;
        if old != resolution {
            hop.changed = true;
            self.hops_changed = true;
        }
        if let Resolution::Via { set, .. } = old {
            self.sets.release(set);
        }
    }

    /// Sets every next hop that depends on the table to unresolved.
    pub(super) fn forget_recursive(&mut self) {
        for id in self.hops.ids() {
            let hop = self.hops.get_mut(id);
            if !hop.recursive {
                continue;
            }
            if let Resolution::Via { set, .. } =
                std::mem::replace(&mut hop.resolution, Resolution::No(Unresolved::NoRoute))
            {
                hop.changed = true;
                self.hops_changed = true;
                self.sets.release(set);
            }
        }
    }

    fn follow(&self, gateway: Gateway, walk: &mut Walk) -> Found {
        if matches!(gateway.addr, std::net::IpAddr::V6(a) if a.is_unicast_link_local()) {
            return match gateway.ifindex {
                0 => Err(Unresolved::NoRoute),
                n if self.reachable.link_up(n) => Ok((0, vec![gateway])),
                _ => Err(Unresolved::LinkDown),
            };
        }
        match self.reachable.lookup(gateway.addr) {
            Reach::Connected { .. } => Ok((0, vec![gateway])),
            Reach::Routed { metric } => Ok((metric, vec![gateway])),
            Reach::No(why @ (Unresolved::NoRoute | Unresolved::OnlyDefault)) => {
                walk.recursive = true;
                self.follow_table(gateway, why, walk)
            }
            Reach::No(why) => Err(why),
        }
    }

    /// Resolves over the longest matching route whose own next hop is resolved. The default route
    /// does not count.
    fn follow_table(&self, gateway: Gateway, why: Unresolved, walk: &mut Walk) -> Found {
        if walk.chain.len() >= MAX_DEPTH {
            return Err(Unresolved::TooDeep);
        }
        walk.chain.push(gateway);
        let found = self.over_routes(gateway, why, walk);
        walk.chain.pop();
        found
    }

    /// If all next hops of a route are part of a loop or unresolved, the next shorter match is
    /// tried, so the result does not depend on the order of arrival.
    fn over_routes(&self, gateway: Gateway, why: Unresolved, walk: &mut Walk) -> Found {
        let table = &self.tables[Family::of(gateway.addr)];
        let mut failed = None;
        for route in table.covering(gateway.addr) {
            let entry = table.get(route);
            let Some(best) = entry.best() else { continue };
            if table.prefix(route).len() == 0 || best.peer == OWN {
                break;
            }
            let forwarding = entry.paths().iter().filter(|p| p.has(Path::MULTIPATH));
            let mut hops: Vec<Gateway> = forwarding
                .filter_map(|p| Some(self.hops.get(self.attrs.hop(p.effective)?).gateway))
                .filter(|hop| !walk.chain.contains(hop))
                .collect();
            hops.sort_unstable();
            hops.dedup();
            match self.over_hops(&hops, walk) {
                Ok(gateways) if gateways.is_empty() => {}
                Ok(gateways) => return Ok((RECURSIVE_METRIC, gateways)),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        Err(failed.unwrap_or(why))
    }

    /// The gateways of the next hops that are resolved.
    fn over_hops(&self, hops: &[Gateway], walk: &mut Walk) -> Result<Vec<Gateway>, Unresolved> {
        let (mut all, mut failed) = (Vec::new(), None);
        for hop in hops {
            walk.steps += 1;
            if walk.steps > MAX_LOOKUPS {
                failed = Some(Unresolved::TooDeep);
                break;
            }
            match self.follow(*hop, walk) {
                Ok((_, gateways)) => all.extend(gateways),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        match failed {
            Some(e) if all.is_empty() => Err(e),
            _ => Ok(all),
        }
    }
}
