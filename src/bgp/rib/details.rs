//! What `show routes PREFIX` has of each path beyond a table of routes: how its next hop is
//! resolved, and to whom it is advertised.

use super::{
    Rib,
    nexthop::Resolution,
    peers::Peer,
    table::{OWN, Path, PeerNo, RouteNo},
    view::{NotAdvertisedTo, PathDetails, Via},
};
use crate::net::{Family, Gateway, Prefix};

/// Neighbors that are named for not having an own route.
const MAX_WITHOUT: usize = 16;

impl Rib {
    /// Names of the neighbors to which the best path of a prefix is advertised.
    pub fn advertised_to(&self, prefix: Prefix) -> Vec<String> {
        let family = prefix.family();
        let table = &self.tables[family];
        let Some(route) = table.find(prefix) else { return Vec::new() };
        let Some(best) = table.get(route).best() else { return Vec::new() };
        self.neighbors_with(family, route, best)
    }

    pub(super) fn details(&self, family: Family, route: RouteNo, path: &Path) -> PathDetails {
        let hop = self.attrs.hop(path.effective).map(|hop| self.hops.get(hop).resolution);
        let (metric, via) = match hop {
            Some(Resolution::Via { metric, set }) => {
                let gateways = self.sets.get(set).gateways().iter();
                let one = |g: &Gateway| Via { address: g.addr, interface: None, ifindex: g.ifindex };
                (Some(metric), gateways.map(one).collect())
            }
            _ => (None, Vec::new()),
        };
        let advertised_to = self.neighbors_with(family, route, path);
        let is_own = path.peer == OWN;
        let not_advertised_to = if is_own { self.neighbors_without(family, route) } else { Vec::new() };
        PathDetails { metric, via, advertised_to, not_advertised_to }
    }

    /// The first neighbors to which an own route is not advertised.
    fn neighbors_without(&self, family: Family, route: RouteNo) -> Vec<NotAdvertisedTo> {
        let all = self.advertisements(self.tables[family].prefix(route)).into_iter();
        let without = all.filter_map(|one| {
            Some(NotAdvertisedTo { reason: one.why_not?.text(family), neighbor: one.neighbor })
        });
        without.take(MAX_WITHOUT).collect()
    }

    fn neighbors_with(&self, family: Family, route: RouteNo, path: &Path) -> Vec<String> {
        let neighbors = (0..).zip(&self.peers).filter_map(|(no, peer)| Some((no, peer.as_ref()?)));
        let has_it = |(no, peer): &(PeerNo, &Peer)| self.has_path(*no, peer, family, route, path);
        neighbors.filter(has_it).map(|(_, peer)| peer.name()).collect()
    }

    /// Whether a path is advertised to a neighbor.
    fn has_path(&self, no: PeerNo, peer: &Peer, family: Family, route: RouteNo, path: &Path) -> bool {
        let group = peer.groups[family].and_then(|n| self.groups[family].get(n)?.as_ref());
        let sent = group.map(|g| g.advertised_to(no, route, &self.attrs)).unwrap_or_default();
        sent.iter().any(|out| {
            let behind = self.path_behind(family, route, out.path_id);
            behind.is_some_and(|p| (p.peer, p.path_id) == (path.peer, path.path_id))
        })
    }
}
