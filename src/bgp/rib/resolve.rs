//! Is a next hop reached, and over which gateways (RFC 4271 §9.1.2.1)?
//!
//! The host answers first. What it cannot reach may be reached over a route of the table itself, at most
//! [`DEPTH`] deep; a route never resolves its own next hop.

use super::{
    Rib,
    nexthop::{HopId, Resolution},
    table::{OWN, Path},
};
use crate::net::{Family, Gateway, NextHops, Reach, Unresolved};

/// Routes in a row that one next hop may need.
const DEPTH: usize = 4;

/// The metric, and the gateways of connected subnets.
type Found = Result<(u32, Vec<Gateway>), Unresolved>;

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
        let mut recursive = false;
        let found = self.follow(gateway, &mut Vec::new(), &mut recursive);
        let resolution = match found {
            Ok((metric, gateways)) => {
                Resolution::Via { metric, set: self.sets.intern(NextHops::unicast(gateways)) }
            }
            Err(why) => Resolution::No(why),
        };
        let hop = self.hops.get_mut(id);
        let old = std::mem::replace(&mut hop.resolution, resolution);
        hop.recursive = recursive;
        if old != resolution {
            hop.changed = true;
            self.hops_changed = true;
        }
        if let Resolution::Via { set, .. } = old {
            self.sets.release(set);
        }
    }

    fn follow(&self, gateway: Gateway, chain: &mut Vec<Gateway>, recursive: &mut bool) -> Found {
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
                *recursive = true;
                self.follow_table(gateway, why, chain, recursive)
            }
            Reach::No(why) => Err(why),
        }
    }

    /// Over the longest route whose own next hops are not what is asked for. The default route does not count.
    fn follow_table(
        &self,
        gateway: Gateway,
        why: Unresolved,
        chain: &mut Vec<Gateway>,
        recursive: &mut bool,
    ) -> Found {
        if chain.len() >= DEPTH {
            return Err(Unresolved::TooDeep);
        }
        chain.push(gateway);
        let found = self.over_route(gateway, why, chain, recursive);
        chain.pop();
        found
    }

    fn over_route(
        &self,
        gateway: Gateway,
        why: Unresolved,
        chain: &mut Vec<Gateway>,
        recursive: &mut bool,
    ) -> Found {
        let table = &self.tables[Family::of(gateway.addr).index()];
        for route in table.covering(gateway.addr) {
            let entry = table.get(route);
            let Some(best) = entry.best() else { continue };
            if table.prefix(route).len() == 0 || best.peer == OWN {
                break;
            }
            let forwarding = entry.paths().iter().filter(|p| p.has(Path::MULTIPATH));
            let hops: Vec<Gateway> = forwarding
                .filter_map(|p| Some(self.hops.get(self.attrs.hop(p.effective)?).gateway))
                .collect();
            if hops.iter().any(|h| chain.contains(h)) {
                continue;
            }
            let (mut least, mut all) = (u32::MAX, Vec::new());
            for hop in hops {
                let (metric, gateways) = self.follow(hop, chain, recursive)?;
                least = least.min(metric);
                all.extend(gateways);
            }
            return Ok((least, all));
        }
        Err(why)
    }
}
