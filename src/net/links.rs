use std::{collections::BTreeMap, net::IpAddr};

use super::Prefix;

/// The links and addresses of this host, as far as BGP sessions depend on them.
///
/// A snapshot, built by `fib::links` from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// By interface index.
    pub links: BTreeMap<u32, LinkState>,
    /// Destinations on link, with the link's index; longest prefix first.
    on_link: Vec<(Prefix, u32)>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    pub name: String,
    /// Set up by the administrator.
    pub up: bool,
    pub carrier: bool,
    /// Changes after each loss of the link, however short.
    pub generation: u32,
    /// Addresses with their subnets, including tentative ones (RFC 4862 §5.4).
    pub addresses: Vec<(IpAddr, Prefix)>,
}

impl LinkState {
    pub fn can_send(&self) -> bool {
        self.up && self.carrier
    }

    pub fn has(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|(a, _)| *a == addr)
    }
}

impl Links {
    /// Takes links, and destinations on link in any order.
    pub fn new(links: BTreeMap<u32, LinkState>, mut on_link: Vec<(Prefix, u32)>) -> Self {
        on_link.sort_unstable_by_key(|(p, ifindex)| (std::cmp::Reverse(p.len()), *p, *ifindex));
        on_link.dedup();
        Self { links, on_link }
    }

    /// The interface of a directly connected neighbor at `remote`, for packets from `local`: the
    /// one that has `local` in the neighbor's subnet, else that of the longest destination.
    pub fn towards(&self, local: IpAddr, remote: IpAddr) -> Option<u32> {
        let shares = |link: &LinkState| link.addresses.iter().any(|(a, s)| *a == local && s.contains(remote));
        let shared = self.links.iter().find(|(_, link)| shares(link)).map(|(ifindex, _)| *ifindex);
        shared.or_else(|| self.on_link.iter().find(|(p, _)| p.contains(remote)).map(|(_, ifindex)| *ifindex))
    }

    /// The interfaces that have this address.
    pub fn with_address(&self, addr: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.links.iter().filter(move |(_, link)| link.has(addr)).map(|(ifindex, _)| *ifindex)
    }

    /// Whether packets to `remote` can be sent: a link that can send leads there.
    pub fn leads_to(&self, remote: IpAddr) -> bool {
        let alive = |ifindex: &u32| self.links.get(ifindex).is_some_and(LinkState::can_send);
        self.on_link.iter().any(|(p, ifindex)| p.contains(remote) && alive(ifindex))
    }
}
