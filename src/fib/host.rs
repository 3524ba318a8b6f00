//! The host as routelet sees it: links, addresses, default routes. A snapshot, made by `fib::io::monitor`.

use std::{collections::BTreeMap, net::IpAddr};

use crate::net::{Family, Prefix};

/// Everything about the host that decisions need. Level-triggered: each change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub links: BTreeMap<u32, Link>,
    /// Routes of others in the table that we write to, and default routes: what next hops resolve over.
    /// Never one with our own protocol number.
    pub routes: Vec<ForeignRoute>,
    /// How often a link lost its carrier, its state or an address, or a nexthop object went, since we watch: the
    /// kernel deletes nexthop objects then without a word. Counted, as the link may be back already.
    pub drops: u32,
    /// How often notifications were lost because too many came.
    pub overruns: u32,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; empty for a physical one.
    pub kind: String,
    pub mtu: u32,
    /// IFF_UP: set so by the administrator.
    pub up: bool,
    /// IFF_LOWER_UP: there is a signal.
    pub lower_up: bool,
    pub loopback: bool,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    pub addresses: Vec<LinkAddress>,
}

/// One address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    pub addr: IpAddr,
    pub len: u8,
    /// The other end, where the subnet is made of it (point to point).
    pub peer: Option<IpAddr>,
    pub scope: Scope,
    /// IPv6 duplicate address detection not done, or failed: not to be used yet.
    pub tentative: bool,
    /// `secondary` or `temporary`.
    pub secondary: bool,
    pub deprecated: bool,
}

/// Scope of an address, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Global,
    Link,
    Host,
}

/// A route that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRoute {
    pub prefix: Prefix,
    pub metric: u32,
    pub protocol: u8,
    /// Empty for routes that lead nowhere (unreachable, blackhole, prohibit).
    pub hops: Vec<ForeignHop>,
}

/// One next hop of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignHop {
    pub ifindex: u32,
    /// `None`: on link.
    pub gateway: Option<IpAddr>,
    /// The gateway lies on the link although no subnet says so.
    pub onlink: bool,
}

impl Host {
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|l| l.name == name)
    }

    /// Whether `link` really has a carrier: a bridge only when a port of it is up (kernel.md 17), since a new
    /// bridge without ports is `LOWER_UP` too.
    pub fn has_carrier(&self, link: &Link) -> bool {
        link.up
            && link.lower_up
            && (link.kind != "bridge"
                || self.links.values().any(|p| p.master == Some(link.index) && p.up && p.lower_up))
    }

    /// Whether packets can leave over `link`: what a next hop on it needs. Unlike [`Host::has_carrier`] a bridge
    /// counts as the kernel says, which is what the kernel itself goes by.
    pub fn can_send(&self, link: &Link) -> bool {
        link.up && link.lower_up
    }

    /// Next hops of the default routes of a family, lowest metric first: (gateway, interface index).
    pub fn default_gateways(&self, family: Family) -> Vec<(IpAddr, u32)> {
        let mut routes: Vec<_> =
            self.routes.iter().filter(|r| r.prefix.len() == 0 && r.prefix.family() == family).collect();
        routes.sort_by_key(|r| r.metric);
        routes.iter().flat_map(|r| &r.hops).filter_map(|h| Some((h.gateway?, h.ifindex))).collect()
    }
}

impl Link {
    /// The connected subnets that its addresses make.
    pub fn subnets(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.addresses.iter().filter_map(|a| Prefix::new(a.peer.unwrap_or(a.addr), a.len))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Hosts for the tests of other files.

    use super::*;

    pub(crate) fn host(
        links: impl IntoIterator<Item = Link>,
        routes: impl IntoIterator<Item = ForeignRoute>,
    ) -> Host {
        Host {
            links: links.into_iter().map(|l| (l.index, l)).collect(),
            routes: routes.into_iter().collect(),
            drops: 0,
            overruns: 0,
        }
    }

    /// A link that is up and has a carrier.
    pub(crate) fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            kind: "veth".into(),
            mtu: 1500,
            up: true,
            lower_up: true,
            loopback: name == "lo",
            master: None,
            addresses: Vec::new(),
        }
    }

    impl Link {
        pub(crate) fn with(mut self, address: &str) -> Self {
            let (addr, len) = address.split_once('/').unwrap();
            self.addresses.push(LinkAddress {
                addr: addr.parse().unwrap(),
                len: len.parse().unwrap(),
                peer: None,
                scope: Scope::Global,
                tentative: false,
                secondary: false,
                deprecated: false,
            });
            self
        }

        pub(crate) fn down(mut self) -> Self {
            (self.up, self.lower_up) = (false, false);
            self
        }

        pub(crate) fn no_carrier(mut self) -> Self {
            self.lower_up = false;
            self
        }
    }

    /// A static route with one hop; interface 0 leaves it to be resolved.
    pub(crate) fn gateway(prefix: &str, via: &str, ifindex: u32) -> ForeignRoute {
        let hop = ForeignHop { ifindex, gateway: Some(via.parse().unwrap()), onlink: false };
        ForeignRoute { prefix: prefix.parse().unwrap(), metric: 0, protocol: 4, hops: vec![hop] }
    }
}
