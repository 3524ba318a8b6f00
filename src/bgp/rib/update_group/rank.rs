//! The order in which routes are advertised: the node's own routes before learned ones, and of its
//! own the pod CIDRs first. If `max-prefixes-out` is reached, the last in this order are withheld.
//!
//! Within a rank, advertised routes stay advertised: a new Service does not replace another one.

use std::collections::BTreeSet;

use crate::{
    bgp::rib::{
        paths::SlotNo,
        table::{OWN, PeerNo},
    },
    net::Source,
};

/// Rank of a route; lower ranks are advertised first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::bgp::rib) enum Rank {
    PodCidr,
    Network,
    Interface,
    Service,
    #[default]
    Learned,
}

impl Rank {
    const ALL: [Self; 5] = [Self::PodCidr, Self::Network, Self::Interface, Self::Service, Self::Learned];

    /// The rank of an own route.
    pub(in crate::bgp::rib) fn of(source: Source) -> Self {
        match source {
            Source::PodCidr => Self::PodCidr,
            Source::Network => Self::Network,
            Source::Interface => Self::Interface,
            Source::Service => Self::Service,
        }
    }

    /// The rank of a path; `own` is the rank of the own path of the same route.
    pub(super) fn of_path(source: PeerNo, own: Self) -> Self {
        if source == OWN { own } else { Self::Learned }
    }

    /// Whether such routes are sent to a new member before all others. There are few: they come
    /// from the configuration and the Node.
    pub(super) fn is_first(self) -> bool {
        self < Self::Service
    }
}

/// Slot or route numbers by rank.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranked([BTreeSet<u32>; Rank::ALL.len()]);

impl Ranked {
    pub(super) fn insert(&mut self, rank: Rank, n: u32) {
        self.0[rank as usize].insert(n);
    }

    pub(super) fn remove(&mut self, rank: Rank, n: u32) {
        self.0[rank as usize].remove(&n);
    }

    /// Removes a number, whatever its rank.
    pub(super) fn forget(&mut self, n: u32) {
        for set in &mut self.0 {
            set.remove(&n);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeSet::is_empty)
    }

    /// The number that is advertised first.
    pub(super) fn first(&self) -> Option<(Rank, u32)> {
        Rank::ALL.into_iter().find_map(|rank| Some((rank, *self.0[rank as usize].first()?)))
    }

    /// The number that is withheld first.
    pub(super) fn last(&self) -> Option<(Rank, u32)> {
        Rank::ALL.into_iter().rev().find_map(|rank| Some((rank, *self.0[rank as usize].last()?)))
    }

    /// The numbers that are sent to a new member first, starting with the given one.
    pub(super) fn heads(&self, (from, n): (Rank, SlotNo)) -> impl Iterator<Item = (Rank, SlotNo)> + '_ {
        let heads = Rank::ALL.into_iter().filter(move |rank| rank.is_first() && *rank >= from);
        heads.flat_map(move |rank| {
            let least = if rank == from { n } else { 0 };
            self.0[rank as usize].range(least..).map(move |slot| (rank, *slot))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_cidrs_are_advertised_first_and_learned_routes_withheld_first() {
        let mut ranked = Ranked::default();
        for (rank, n) in [
            (Rank::Service, 1),
            (Rank::Service, 2),
            (Rank::PodCidr, 9),
            (Rank::Learned, 0),
            (Rank::Network, 3),
            (Rank::PodCidr, 4),
        ] {
            ranked.insert(rank, n);
        }
        assert_eq!((ranked.first(), ranked.last()), (Some((Rank::PodCidr, 4)), Some((Rank::Learned, 0))));
        ranked.forget(0);
        assert_eq!(ranked.last(), Some((Rank::Service, 2)));
        let heads: Vec<_> = ranked.heads((Rank::PodCidr, 5)).collect();
        assert_eq!(heads, [(Rank::PodCidr, 9), (Rank::Network, 3)]);
        ranked.remove(Rank::PodCidr, 4);
        assert_eq!((ranked.first(), ranked.len(), ranked.is_empty()), (Some((Rank::PodCidr, 9)), 4, false));
    }
}
