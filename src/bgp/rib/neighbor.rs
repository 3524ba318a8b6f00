//! What `show neighbor` has besides the session: End-of-RIB, stale routes, security, limits and
//! policies.

use std::time::Instant;

use super::{
    Rib,
    peers::Peer,
    table::PeerNo,
    view::{EndOfRib, Limits, NeighborDetails, Security, StaleRoutes},
};
use crate::{
    bgp::peer::{Hops, MaxPrefixesAction, PeerConfig},
    net::Family,
};

impl Rib {
    /// The details of the neighbor with this name.
    pub fn neighbor_details(&self, now: Instant, name: &str) -> Option<NeighborDetails> {
        let all = (0..).zip(&self.peers);
        let (no, peer) = all.filter_map(|(no, p)| Some((no, p.as_ref()?))).find(|(_, p)| p.name() == name)?;
        let (export, export_shared_by) = self.shared_hits(peer);
        let session = peer.session.as_ref().filter(|_| peer.up);
        let families = session.map_or(&[][..], |s| &s.families);
        let stale = |family: Family| {
            let stale = peer.stale[family]?;
            let routes = peer.stale_routes[family].into();
            let seconds = stale.until.saturating_duration_since(now).as_secs();
            Some((family, StaleRoutes { routes, seconds, long_lived: stale.long_lived }))
        };
        Some(NeighborDetails {
            end_of_rib: families.iter().map(|f| (*f, self.end_of_ribs(no, peer, *f))).collect(),
            stale: Family::ALL.into_iter().filter_map(stale).collect(),
            security: security(peer),
            limits: self.limits(peer),
            import: self.import_hits(peer),
            export,
            export_shared_by,
        })
    }

    fn end_of_ribs(&self, no: PeerNo, peer: &Peer, family: Family) -> EndOfRib {
        let group = peer.groups[family].and_then(|n| self.groups[family].get(n)?.as_ref());
        let sent = group.is_some_and(|g| !peer.end_of_rib_deferred[family] && !g.owes_end_of_rib(no));
        EndOfRib { sent, received: peer.end_of_rib[family] }
    }

    fn limits(&self, peer: &Peer) -> Limits {
        let config = &peer.config;
        let restarts = config.max_prefixes_action == MaxPrefixesAction::Restart;
        let of_family = |family| self.groups[family].get(peer.groups[family]?)?.as_ref();
        let mut groups = Family::ALL.into_iter().filter_map(of_family);
        Limits {
            max_prefixes: config.max_prefixes,
            restart_after: restarts.then_some(config.max_prefixes_restart.as_secs()),
            is_exceeded: peer.over_limit,
            max_prefixes_out: groups
                .find_map(|g| g.view.max_prefixes())
                .or(config.max_prefixes_out)
                .filter(|n| *n > 0),
        }
    }
}

fn security(peer: &Peer) -> Security {
    let PeerConfig { hops, lacks_policy, password, .. } = &*peer.config;
    let external = peer.session.as_ref().map_or(peer.config.is_surely_external(), |s| !s.is_ibgp());
    let missing = [("import", lacks_policy.import), ("export", lacks_policy.export)];
    Security {
        tcp_md5: password.is_some(),
        max_hops: match *hops {
            Hops::Direct => (external).then_some(1),
            Hops::Multihop(n) | Hops::Security(n) => Some(n),
            Hops::SecurityWhereOffered => Some(1),
        },
        missing_policies: missing
            .into_iter()
            .filter(|(_, is_missing)| external && *is_missing)
            .map(|(direction, _)| direction.to_owned())
            .collect(),
    }
}
