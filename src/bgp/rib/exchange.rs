//! What of the routes exchanged with each neighbor is not used or not advertised, and why.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Rib,
    import::Refused,
    nexthop::Resolution,
    originate::own_attrs,
    peers::Peer,
    table::{OWN, PeerNo},
    view::{Exchange, Withheld},
};
use crate::{
    bgp::{peer::PeerSource, policy::Community, wire::attr::Attrs},
    net::{Prefix, Refusal, Source, Unresolved},
};

/// So many own prefixes are looked at.
const LOOKED_AT: usize = 1000;
/// So many routes of each family.
const SCANNED: usize = 200_000;
/// So many next hops of a neighbor are named.
const MAX_NAMED: usize = 3;

/// Refusals that every neighbor which sends back what it learned causes, and those that have a
/// problem of their own.
const EXPECTED: [Refused; 5] =
    [Refused::AsLoop, Refused::OriginatorLoop, Refused::ClusterLoop, Refused::NotOfNode, Refused::NoPolicy];

/// Refusals of what this host advertised and gets back.
const RETURNED: [Refused; 3] = [Refused::AsLoop, Refused::OriginatorLoop, Refused::Guard(Refusal::Own)];

impl Rib {
    /// By the name of each neighbor with a session.
    pub fn exchanges(&self) -> BTreeMap<String, Exchange> {
        let mut of_sets = self.of_attributes();
        let own = self.originated.iter().take(LOOKED_AT);
        let own: Vec<_> = own.map(|(prefix, own)| (*prefix, own_attrs(*prefix, own), own.source)).collect();
        let up = self.peers.iter().enumerate().skip(usize::from(OWN) + 1);
        let up = up.filter_map(|(n, p)| Some((n as PeerNo, p.as_ref().filter(|p| p.up)?)));
        up.map(|(no, peer)| {
            let of_sets = of_sets.remove(&no).unwrap_or_default();
            let originator_shared = self.exceeds_own_sent_back(no, peer, Refused::OriginatorLoop);
            let exchange = Exchange {
                refused: self.refusals(no, peer),
                withheld: self.withheld(peer, &own),
                ended: peer.all_ended(),
                returned: RETURNED.into_iter().map(|why| self.own_sent_back(no, why)).sum(),
                originator_shared,
                ..of_sets
            };
            (peer.name(), exchange)
        })
        .collect()
    }

    /// By reason. What this host advertised and gets back is none of them, where the own AS number
    /// is allowed in the path, either.
    fn refusals(&self, no: PeerNo, peer: &Peer) -> BTreeMap<&'static str, u64> {
        let own = Refused::Guard(Refusal::Own);
        let mut refused = BTreeMap::new();
        for (code, n) in (0..).zip(peer.verdicts) {
            let Some(why) = Refused::from_code(code).filter(|why| !EXPECTED.contains(why)) else { continue };
            let returned = if why == own { self.own_sent_back(no, why) } else { 0 };
            let n = u64::from(n).saturating_sub(returned);
            if n > 0 {
                *refused.entry(why.as_str()).or_default() += n;
            }
        }
        refused
    }

    /// What the attributes of each neighbor's routes show. Sets that show something are few: only
    /// then are the routes looked at, as other neighbors, policies or nobody may use the set.
    fn of_attributes(&self) -> BTreeMap<PeerNo, Exchange> {
        let (mut unresolved, mut shutting_down) = (HashMap::new(), HashSet::new());
        for (id, attrs, hop) in self.attrs.sets() {
            let hop = hop.map(|hop| self.hops.get(hop)).map(|hop| (hop.gateway.addr, hop.resolution));
            if let Some((addr, Resolution::No(why))) = hop {
                unresolved.insert(id, (addr, why));
            }
            if attrs.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
                shutting_down.insert(id);
            }
        }
        let mut found: BTreeMap<PeerNo, Exchange> = BTreeMap::new();
        if unresolved.is_empty() && shutting_down.is_empty() {
            return found;
        }
        let routes = self.tables.iter().flat_map(|t| t.numbers().take(SCANNED).map(|n| t.get(n)));
        for path in routes.flat_map(|route| route.paths()).filter(|path| path.peer != OWN) {
            if shutting_down.contains(&path.received) {
                found.entry(path.peer).or_default().shutting_down = true;
            }
            if let Some((addr, why)) = unresolved.get(&path.effective).filter(|_| path.refused == 0)
                && !(*why == Unresolved::Own && self.peer(path.peer).is_some_and(Peer::is_on_host))
            {
                let list = &mut found.entry(path.peer).or_default().unresolved;
                if list.len() < MAX_NAMED && !list.iter().any(|(known, _)| known == addr) {
                    list.push((*addr, *why));
                }
            }
        }
        found
    }

    /// Nodes of the mesh follow rules of their own.
    fn withheld(&self, peer: &Peer, own: &[(Prefix, Attrs, Source)]) -> BTreeMap<Withheld, (u64, Prefix)> {
        let mut withheld = BTreeMap::new();
        if matches!(peer.config.source, PeerSource::Mesh | PeerSource::Reflector) {
            return withheld;
        }
        for (prefix, attrs, source) in own {
            if let Some(why) = self.withholds(peer, *prefix, attrs, *source) {
                withheld.entry(why).or_insert((0, *prefix)).0 += 1;
            }
        }
        withheld
    }

    fn withholds(&self, peer: &Peer, prefix: Prefix, attrs: &Attrs, source: Source) -> Option<Withheld> {
        let family = prefix.family();
        let Some(group) = peer.groups[family] else {
            let wanted = peer.config.families.contains(&family);
            return wanted.then_some(Withheld::NotNegotiated(family));
        };
        let group = self.groups[family].get(group)?.as_ref()?;
        group.view.withholds(prefix, attrs, source)
    }
}
