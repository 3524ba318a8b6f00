//! What `explain` needs of the table: all paths that cover an address, with the statements of
//! import policies that decided on them, and to which neighbors own prefixes are advertised.

use std::{net::IpAddr, time::Instant};

use super::{
    Rib, RouteFilter, RouteView,
    import::{Refused, Speaker},
    nexthop::Resolution,
    peers::Peer,
    table::{OWN, Path, PeerNo},
    view::{Advertised, Explained, NotAdvertised, PathExplained, PathState, PolicyResult},
};
use crate::{bgp::policy::Decided, net::Prefix};

/// Most paths that are returned. Beyond them are those of the shortest prefixes.
const MAX_PATHS: usize = 256;

impl Rib {
    /// Looks up `address`, and to whom the prefixes `own`, which this node originates, are
    /// advertised.
    pub fn explain(&mut self, now: Instant, address: IpAddr, own: &[Prefix]) -> Explained {
        self.run_decision_process();
        let host = Prefix::host(address);
        let covering = (0..=host.len()).rev().filter_map(|len| Prefix::new(address, len));
        let table = &self.tables[host.family()];
        let known: Vec<_> = covering.filter(|p| table.find(*p).is_some()).collect();
        let mut paths = Vec::new();
        for prefix in known {
            if paths.len() < MAX_PATHS {
                paths.extend(self.paths_explained(now, prefix));
            }
        }
        paths.truncate(MAX_PATHS);
        let advertised = own.iter().flat_map(|p| self.advertisements(*p)).collect();
        Explained { paths, advertised }
    }

    fn paths_explained(&mut self, now: Instant, prefix: Prefix) -> Vec<PathExplained> {
        let filter = RouteFilter { prefix: Some(prefix), ..RouteFilter::default() };
        let routes = self.routes(now, &filter);
        let table = &self.tables[prefix.family()];
        let stored = table.find(prefix).map_or(&[][..], |route| table.get(route).paths());
        let explained = |route: RouteView| {
            let is_it = |p: &&Path| {
                self.peer(p.peer).map(Peer::name) == route.neighbor
                    && p.path_id == route.path_id.unwrap_or_default()
            };
            let path = stored.iter().find(is_it)?;
            Some(PathExplained { policies: self.trace(prefix, path), state: self.state(path), route })
        };
        routes.into_iter().filter_map(explained).collect()
    }

    fn state(&self, path: &Path) -> PathState {
        let resolution = self.attrs.hop(path.effective).map(|hop| self.hops.get(hop).resolution);
        match (Refused::from_code(path.refused), resolution) {
            (Some(Refused::Guard(_) | Refused::NotOfNode), _) => PathState::Guard,
            (Some(Refused::Policy), _) => PathState::Policy,
            (Some(_), _) => PathState::Refused,
            _ if path.has(Path::BEST) || path.has(Path::MULTIPATH) => PathState::Selected,
            _ if path.has(Path::HELD) => PathState::Held,
            (None, Some(Resolution::No(why))) => PathState::Unresolved(why),
            _ => PathState::NotSelected,
        }
    }

    fn trace(&self, prefix: Prefix, path: &Path) -> Vec<PolicyResult> {
        let Some(peer) = self.peer(path.peer) else { return Vec::new() };
        let Some(session) = peer.session.as_deref() else { return Vec::new() };
        let speaker = Speaker { config: &peer.config, session, global: &self.global };
        let result = |d: Decided<'_>| PolicyResult {
            policy: d.policy.name.clone(),
            statement: d.statement,
            accepted: d.accepted,
        };
        speaker.trace(prefix, self.attrs.get(path.received)).into_iter().map(result).collect()
    }

    /// For each neighbor whether it has this own prefix.
    pub(super) fn advertisements(&self, prefix: Prefix) -> Vec<Advertised> {
        let neighbors = (0..).zip(&self.peers).filter_map(|(no, peer)| Some((no, peer.as_ref()?)));
        let one = |(no, peer): (PeerNo, &Peer)| Advertised {
            prefix,
            neighbor: peer.name(),
            why_not: self.why_not_advertised(prefix, no, peer),
        };
        neighbors.map(one).collect()
    }

    fn why_not_advertised(&self, prefix: Prefix, no: PeerNo, peer: &Peer) -> Option<NotAdvertised> {
        let family = prefix.family();
        if !peer.up {
            return Some(NotAdvertised::NoSession);
        }
        let Some(group) = peer.groups[family].and_then(|n| self.groups[family].get(n)?.as_ref()) else {
            return Some(NotAdvertised::NoFamily);
        };
        let table = &self.tables[family];
        let Some(route) = table.find(prefix) else { return Some(NotAdvertised::Pending) };
        if !group.advertised_to(no, route, &self.attrs).is_empty() {
            return None;
        }
        let own = table.get(route).paths().iter().find(|p| p.peer == OWN);
        let (Some(path), Some(origination)) = (own, self.originated.get(&prefix)) else {
            return Some(NotAdvertised::Pending);
        };
        let attrs = self.attrs.get(path.effective);
        let by_export = group.view.why_not(prefix, attrs, origination.source);
        let limited = if group.withheld() > 0 { NotAdvertised::Withheld } else { NotAdvertised::Pending };
        Some(by_export.unwrap_or(limited))
    }
}
