//! Is a next hop reached, and over which gateways (RFC 4271 §9.1.2.1)?
//!
//! The host answers first. What it cannot reach may be reached over a route of the table itself, at most
//! [`MAX_DEPTH`] deep; a route never resolves its own next hop, nor do two routes resolve each other's.

use super::{
    Rib,
    nexthop::{HopId, Resolution},
    table::{OWN, Path},
};
use crate::net::{Family, Gateway, NextHops, Reach, Unresolved};

/// Routes in a row that one next hop may need.
const MAX_DEPTH: usize = 4;

/// Routes sampled at for one next hop: neighbors may announce a maze in which every way ends.
const MAX_LOOKUPS: usize = 256;

/// Metric of a next hop that only routes of the table lead to. It is the same for all of them: if it followed these
/// routes, best paths and metrics could change each other, and the first to come would decide.
const RECURSIVE_METRIC: u32 = u32::MAX;

/// The metric, and the gateways of connected subnets.
type Found = Result<(u32, Vec<Gateway>), Unresolved>;

/// One resolution under way.
#[derive(Default)]
struct Walk {
    /// The next hops that led here: a way that comes back to one of them ends.
    chain: Vec<Gateway>,
    steps: usize,
    /// Depends on the table.
    recursive: bool,
}

impl Rib {
    /// Asks anew for every next hop: the host changed.
    pub(super) fn resolve_all(&mut self) {
        self.hops.ids().into_iter().for_each(|hop| self.resolve(hop));
    }

    /// Asks anew for those that depend on the table.
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

    /// Asks for one next hop and notes whether the answer changed.
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

    /// Every next hop that depends on the table counts as unresolved from now on.
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

    /// Over the longest route that leads on. The default route does not count.
    fn follow_table(&self, gateway: Gateway, why: Unresolved, walk: &mut Walk) -> Found {
        if walk.chain.len() >= MAX_DEPTH {
            return Err(Unresolved::TooDeep);
        }
        walk.chain.push(gateway);
        let found = self.over_routes(gateway, why, walk);
        walk.chain.pop();
        found
    }

    /// A route all of whose ways come back to where they began, or lead nowhere, leaves it to the next shorter one:
    /// so what is reached never depends on which route came first.
    fn over_routes(&self, gateway: Gateway, why: Unresolved, walk: &mut Walk) -> Found {
        let table = &self.tables[Family::of(gateway.addr).index()];
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

    /// The gateways of those that lead on.
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
