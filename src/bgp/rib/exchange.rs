//! What of the routes exchanged with each neighbor is not used or not advertised, and why.

use std::collections::BTreeMap;

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
    bgp::policy::Community,
    net::{Origination, Prefix, Unresolved},
};

/// So many own prefixes are looked at.
const LOOKED_AT: usize = 1000;
/// So many next hops of a neighbor are named.
const NAMED: usize = 3;

/// Refusals that every neighbor which sends back what it learned causes, and those that have a
/// problem of their own.
const EXPECTED: [Refused; 5] =
    [Refused::AsLoop, Refused::OriginatorLoop, Refused::ClusterLoop, Refused::NotOfNode, Refused::NoPolicy];

impl Rib {
    /// By the name of each neighbor with a session.
    pub fn exchanges(&self) -> BTreeMap<String, Exchange> {
        let mut of_sets = self.of_attributes();
        let up = self.peers.iter().enumerate().skip(usize::from(OWN) + 1);
        let up = up.filter_map(|(n, p)| Some((n as PeerNo, p.as_ref().filter(|p| p.up)?)));
        up.map(|(no, peer)| {
            let of_sets = of_sets.remove(&no).unwrap_or_default();
            let originator_shared = self.exceeds_own_sent_back(no, peer, Refused::OriginatorLoop);
            let exchange = Exchange {
                refused: refused(peer),
                withheld: self.withheld(peer),
                ended: peer.all_ended(),
                returned: self.own_sent_back(no, Refused::AsLoop)
                    + self.own_sent_back(no, Refused::OriginatorLoop),
                originator_shared,
                ..of_sets
            };
            (peer.name(), exchange)
        })
        .collect()
    }

    /// What the attributes of each neighbor's routes show. A set that several neighbors sent counts
    /// for the first of them.
    fn of_attributes(&self) -> BTreeMap<PeerNo, Exchange> {
        let mut found: BTreeMap<PeerNo, Exchange> = BTreeMap::new();
        for (owner, attrs, hop) in self.attrs.sets().filter(|(owner, ..)| *owner != OWN) {
            let resolution = hop.map(|hop| self.hops.get(hop)).map(|hop| (hop.gateway.addr, hop.resolution));
            if let Some((addr, Resolution::No(why))) = resolution
                && !(why == Unresolved::Own && self.peer(owner).is_some_and(Peer::is_on_host))
            {
                let list = &mut found.entry(owner).or_default().unresolved;
                if list.len() < NAMED && !list.iter().any(|(known, _)| *known == addr) {
                    list.push((addr, why));
                }
            }
            if attrs.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
                found.entry(owner).or_default().shutting_down = true;
            }
        }
        found
    }

    fn withheld(&self, peer: &Peer) -> BTreeMap<Withheld, (u64, Prefix)> {
        let mut withheld = BTreeMap::new();
        for (prefix, own) in self.originated.iter().take(LOOKED_AT) {
            if let Some(why) = self.withholds(peer, *prefix, own) {
                withheld.entry(why).or_insert((0, *prefix)).0 += 1;
            }
        }
        withheld
    }

    fn withholds(&self, peer: &Peer, prefix: Prefix, own: &Origination) -> Option<Withheld> {
        let family = prefix.family();
        let Some(group) = peer.groups[family.index()] else {
            let wanted = peer.config.families.contains(&family);
            return wanted.then_some(Withheld::NotNegotiated(family));
        };
        let group = self.groups[family.index()].get(group)?.as_ref()?;
        group.view.withholds(prefix, &own_attrs(prefix, own), own.source)
    }
}

fn refused(peer: &Peer) -> BTreeMap<&'static str, u64> {
    let mut refused = BTreeMap::new();
    for (code, n) in (0..).zip(peer.verdicts).filter(|(_, n)| *n > 0) {
        if let Some(why) = Refused::from_code(code).filter(|why| !EXPECTED.contains(why)) {
            *refused.entry(why.as_str()).or_default() += u64::from(n);
        }
    }
    refused
}
