//! How `show routes` describes a path, and the counters.

use std::time::Instant;

use super::{
    Counts, NeighborCounts, Rib, RouteView,
    attrs::AttrsId,
    best_path::BestPath,
    import::{Refused, Speaker},
    nexthop::Resolution,
    peers::Peer,
    table::{OWN, Path, PeerNo, RouteNo},
    update_group::UpdateGroup,
};
use crate::{
    bgp::{policy::ext_text, wire::attr::Attrs},
    net::{Family, PerFamily, Prefix, Refusal},
};

impl Rib {
    /// Counters for `show summary`, `show neighbors` and metrics.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { octets: self.octets(), budget: self.memory.budget, ..Counts::default() };
        for family in Family::ALL {
            let (prefixes, paths) = self.tables[family].counts();
            counts.prefixes.insert(family, prefixes);
            counts.paths.insert(family, paths);
            let reasons = counts.refused.entry(family).or_default();
            for (code, n) in (1..).zip(&self.refused[family][1..]) {
                if let Some(why) = Refused::from_code(code) {
                    *reasons.entry(why.as_str().to_owned()).or_default() += u64::from(*n);
                }
            }
        }
        let of_group =
            |g: &Option<UpdateGroup>| g.as_ref().map(|g| g.advertised(&self.attrs)).unwrap_or_default();
        let advertised = PerFamily::of(|f| self.groups[f].iter().map(of_group).collect::<Vec<_>>());
        for (no, peer) in self.peers.iter().enumerate() {
            if let Some(peer) = peer {
                let sent = |family: Family| {
                    advertised[family].get(peer.groups[family]?)?.get(&(no as PeerNo)).copied()
                };
                let mut of_peer = self.neighbor_counts(peer, sent);
                of_peer.octets = self.octets_of(no as PeerNo);
                of_peer.max_prefixes = peer.config.max_prefixes;
                counts.neighbors.insert(peer.name(), of_peer);
            }
        }
        counts
    }

    fn neighbor_counts(&self, peer: &Peer, advertised: impl Fn(Family) -> Option<u64>) -> NeighborCounts {
        let mut counts = NeighborCounts::default();
        for family in Family::ALL {
            let configured = peer.config.families.contains(&family);
            if !configured && peer.received[family] == 0 {
                continue;
            }
            let group = peer.groups[family].and_then(|n| self.groups[family][n].as_ref());
            counts.received.insert(family, peer.received[family].into());
            counts.accepted.insert(family, peer.accepted[family].into());
            counts.advertised.insert(family, advertised(family).unwrap_or(0));
            let foreign = peer.foreign.of_family(family);
            if foreign > 0 {
                counts.notes.push(format!(
                    "{family}: {foreign} routes are refused, they are not in the pod CIDRs of the Node; list in \
                     kubernetes.mesh-accept what nodes may advertise"
                ));
            }
            let withheld = group.map_or(0, |g| g.withheld());
            counts.withheld.insert(family, withheld);
            if withheld > 0 {
                let max = group.and_then(|g| g.view.max_prefixes()).unwrap_or(0);
                counts.notes.push(format!(
                    "{family}: {withheld} routes are withheld, there are more than max-prefixes-out ({max}); find out \
                     where they come from, or raise it"
                ));
            }
            if group.is_some_and(|g| !g.view.has_next_hop()) {
                counts.notes.push(format!(
                    "{family}: not advertised, there is no own address of the family on the session's interface; \
                     add one, or let the neighbor negotiate extended next hops (RFC 8950)"
                ));
            }
        }
        counts
    }

    /// Why a path is best, why it was not selected, or why it is not used at all.
    pub(super) fn reason(
        &self,
        family: Family,
        route: RouteNo,
        path: &Path,
        place: Option<usize>,
        decision: &BestPath,
    ) -> String {
        match (Refused::from_code(path.refused), place) {
            (Some(Refused::Policy), _) => self.rejected_by(family, route, path),
            (Some(Refused::Guard(why)), _) => {
                self.guarded(why, self.tables[family].prefix(route), path)
            }
            (Some(Refused::NotOfNode), _) => {
                let prefix = self.tables[family].prefix(route);
                let reason = self.sender_of(path).and_then(|s| self.guard.nodes().reason(prefix, s));
                reason.unwrap_or_else(|| Refused::NotOfNode.as_str().into())
            }
            (Some(why), _) => why.as_str().into(),
            (None, Some(place)) => match decision.lost.get(place).copied().flatten() {
                None if self.is_from_local_speaker(path) => {
                    format!("best: {}; served on this host", decision.rule().as_str())
                }
                None => format!("best: {}", decision.rule().as_str()),
                Some(rule) if path.has(Path::MULTIPATH) => {
                    format!("multipath: equal but for {}", rule.as_str())
                }
                Some(rule) => format!("lost: {}", rule.as_str()),
            },
            (None, None) if path.has(Path::HELD) => {
                "held back: the link to its next hop was lost, and no message has arrived from the neighbor since".into()
            }
            (None, None) => match self.attrs.hop(path.effective).map(|hop| self.hops.get(hop).resolution) {
                Some(Resolution::No(why)) => why.as_str().into(),
                _ => String::new(),
            },
        }
    }

    /// The reason of the guard, with what it protects.
    fn guarded(&self, why: Refusal, prefix: Prefix, path: &Path) -> String {
        let accept_default = self.peer(path.peer).is_some_and(|p| p.config.accept_default);
        match (why, prefix.family()) {
            (Refusal::TooMuch, Family::Ipv4Unicast) => {
                "guard: beyond a quarter of the address space in prefixes shorter than /11 without accept-default".into()
            }
            (Refusal::TooMuch, Family::Ipv6Unicast) => {
                "guard: beyond a quarter of 2000::/3 in prefixes shorter than /20 without accept-default".into()
            }
            _ => self.guard.reason(prefix, accept_default).unwrap_or_else(|| why.as_str().into()),
        }
    }

    fn rejected_by(&self, family: Family, route: RouteNo, path: &Path) -> String {
        let prefix = self.tables[family].prefix(route);
        let by = self.peer(path.peer).and_then(|peer| {
            let session = peer.session.as_deref()?;
            let speaker = Speaker { config: &peer.config, session, global: &self.global };
            speaker.rejected_by(prefix, self.attrs.get(path.received))
        });
        match by {
            Some(by) => format!("{} {by}", Refused::Policy.as_str()),
            None => Refused::Policy.as_str().into(),
        }
    }

    pub(super) fn view(
        &self,
        now: Instant,
        family: Family,
        route: RouteNo,
        path: &Path,
        id: AttrsId,
    ) -> RouteView {
        let prefix = self.tables[family].prefix(route);
        let attrs: &Attrs = self.attrs.get(id);
        let extra = attrs.extra.as_deref();
        let source = match self.originated.get(&prefix).filter(|_| path.peer == OWN) {
            Some(own) => serde_json::to_value(own.source).ok().and_then(|v| v.as_str().map(str::to_owned)),
            None => Some("bgp".to_owned()),
        };
        let large = extra.map_or(&[][..], |r| &r.large_communities);
        let ext = extra.map_or(&[][..], |r| &r.ext_communities);
        RouteView {
            prefix,
            neighbor: self.peer(path.peer).map(Peer::name),
            source: source.unwrap_or_default(),
            next_hop: Some(attrs.next_hop.addr).filter(|a| !a.is_unspecified()),
            best: path.has(Path::BEST),
            multipath: path.has(Path::MULTIPATH),
            stale: path.has(Path::STALE),
            installed: false,
            origin: attrs.origin.as_str().into(),
            as_path: attrs.as_path.to_json(),
            local_pref: attrs.local_pref,
            med: attrs.med,
            communities: attrs.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect(),
            large_communities: large.iter().map(|[a, b, c]| format!("{a}:{b}:{c}")).collect(),
            ext_communities: ext.iter().map(|c| ext_text(*c)).collect(),
            reason: String::new(),
            age: u64::from(self.clock(now).saturating_sub(path.since)),
            path_id: (path.path_id != 0).then_some(path.path_id),
            refused: path.refused != 0,
            atomic_aggregate: extra.is_some_and(|r| r.atomic_aggregate),
            aggregator: extra.and_then(|r| r.aggregator).map(|(asn, addr)| format!("{asn} {addr}")),
            originator_id: extra.and_then(|r| r.originator_id),
            cluster_list: extra.map_or(&[][..], |r| &r.cluster_list).iter().map(|id| (*id).into()).collect(),
            only_to_customer: extra.and_then(|r| r.otc),
            unknown_attributes: extra.map_or(&[][..], |r| &r.unknown).iter().map(|a| a.code).collect(),
            details: None,
        }
    }
}
