//! The host as routelet sees it: links, addresses, default routes. A snapshot, made by `fib::io::monitor`.

use std::{collections::BTreeMap, net::IpAddr};

use crate::net::{Family, Prefix, RouteKind};

/// Everything about the host that decisions need. Level-triggered: each change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub links: BTreeMap<u32, Link>,
    /// Routes of others in the main table and in the one that we write to, the kernel's of connected subnets among
    /// them, and ranges that are delivered to this host (`ip route add local`). Those of one prefix, table and
    /// metric stand in the kernel's order. Never one with our own protocol number.
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
    /// Another number after each loss of carrier or state, and when the link is made anew: counted in
    /// [`Host::drops`], as the link may be back already.
    pub generation: u32,
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

/// A route that is not ours, with the kernel's own of connected subnets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRoute {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    pub protocol: u8,
    pub kind: RouteType,
    /// RFC 4191: of IPv6 routes of one metric the one with the higher preference is used.
    pub preference: Preference,
    /// Its nexthop object, which `hops` are read from; 0: none.
    pub object: u32,
    /// Sorted; empty for all but unicast routes.
    pub hops: Vec<ForeignHop>,
}

/// What the kernel does with the packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteType {
    Unicast,
    /// Delivered to this host.
    Local,
    Blackhole,
    /// Unreachable or prohibited.
    Unreachable,
    /// The lookup goes on in the next table.
    Throw,
}

/// Preference of an IPv6 route (RFC 4191 §2.1), the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    High,
    #[default]
    Medium,
    Low,
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
        routes.sort_by_key(|r| r.rank());
        routes.iter().flat_map(|r| &r.hops).filter_map(|h| Some((h.gateway?, h.ifindex))).collect()
    }

    /// The route of others that leads to `addr`, as the kernel looks it up: the longest prefix, then
    /// [`Host::preferred`]. `None` where `addr` is delivered to this host.
    pub fn route_to(&self, addr: IpAddr) -> Option<&ForeignRoute> {
        let mut covering: Vec<_> = self.routes.iter().filter(|r| r.prefix.contains(addr)).collect();
        if covering.iter().any(|r| r.kind == RouteType::Local) {
            return None;
        }
        covering.sort_by_key(|r| std::cmp::Reverse(r.prefix.len()));
        covering.chunk_by(|a, b| a.prefix == b.prefix).find_map(|same| self.preferred(same))
    }

    /// Of the routes of one prefix the one that is used: the lowest metric, the highest preference, then the
    /// kernel's order. One whose links cannot send is used only where there is no other.
    pub(super) fn preferred<'a>(&self, routes: &[&'a ForeignRoute]) -> Option<&'a ForeignRoute> {
        let mut ranked: Vec<&ForeignRoute> = routes
            .iter()
            .copied()
            .filter(|r| !matches!(r.kind, RouteType::Throw | RouteType::Local))
            .collect();
        ranked.sort_by_key(|r| r.rank());
        let leads_nowhere = |r: &&&ForeignRoute| r.kind != RouteType::Unicast;
        let sends = |r: &&&ForeignRoute| r.hops.iter().any(|h| self.sends(h));
        match ranked.iter().find(|r| leads_nowhere(r) || sends(r)) {
            Some(found) if !leads_nowhere(&found) => Some(*found),
            _ => ranked.first().copied(),
        }
    }

    /// Whether packets can leave over this hop. One without an interface is looked up in turn.
    fn sends(&self, hop: &ForeignHop) -> bool {
        hop.ifindex == 0 || self.links.get(&hop.ifindex).is_some_and(|l| self.can_send(l))
    }

    /// The first hop of a route over which packets can leave, else its first.
    pub fn first_hop<'a>(&self, route: &'a ForeignRoute) -> Option<&'a ForeignHop> {
        route.hops.iter().find(|h| self.sends(h)).or(route.hops.first())
    }

    /// The link on which `addr` is reached without a gateway: by the route that leads there, or, where that is a
    /// default route at best, since a route says that its own gateway is on that link (`onlink`).
    pub fn connected_link(&self, addr: IpAddr) -> Option<&Link> {
        if let Some(route) = self.route_to(addr).filter(|r| r.prefix.len() > 0) {
            let hop = self.first_hop(route).filter(|h| h.gateway.is_none_or(|g| g == addr))?;
            return self.links.get(&hop.ifindex);
        }
        let named = self.gateways().filter(|(_, _, gateway)| *gateway == addr);
        let (_, hop, _) = named.min_by_key(|(r, h, _)| self.gateway_rank(r, h))?;
        self.links.get(&hop.ifindex)
    }

    /// Gateways of routes, each with its interface: the kernel has taken the route, so the gateway is on that link.
    /// Where several routes name one gateway, default routes come first, then the lowest metric.
    pub(super) fn gateway_links(&self) -> BTreeMap<IpAddr, u32> {
        let mut found: Vec<_> = self.gateways().collect();
        found.sort_by_key(|(r, h, _)| self.gateway_rank(r, h));
        let mut links = BTreeMap::new();
        for (_, hop, gateway) in found {
            links.entry(gateway).or_insert(hop.ifindex);
        }
        links
    }

    fn gateways(&self) -> impl Iterator<Item = (&ForeignRoute, &ForeignHop, IpAddr)> {
        let hops = self.routes.iter().flat_map(|r| r.hops.iter().map(move |h| (r, h)));
        hops.filter(|(_, h)| h.ifindex != 0).filter_map(|(route, hop)| {
            // Each link has addresses of its own in fe80::/64.
            let gateway = hop.gateway?;
            (!matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local())).then_some((route, hop, gateway))
        })
    }

    fn gateway_rank(&self, route: &ForeignRoute, hop: &ForeignHop) -> (bool, bool, (u32, Preference)) {
        (!self.sends(hop), route.prefix.len() > 0, route.rank())
    }
}

impl ForeignRoute {
    /// What orders routes of one prefix, the first is used.
    pub fn rank(&self) -> (u32, Preference) {
        (self.metric, self.preference)
    }
}

impl RouteType {
    /// What a route of ours of this type leads to.
    pub fn kind(self) -> Option<RouteKind> {
        match self {
            Self::Unicast => Some(RouteKind::Unicast),
            Self::Blackhole => Some(RouteKind::Blackhole),
            Self::Unreachable | Self::Throw => Some(RouteKind::Unreachable),
            Self::Local => None,
        }
    }
}

impl Link {
    /// The connected subnets that its addresses make.
    pub fn subnets(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.addresses.iter().filter_map(|a| Prefix::new(a.peer.unwrap_or(a.addr), a.len))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{gateway, host, link},
        *,
    };

    fn names(host: &Host, addrs: &[&str]) -> Vec<String> {
        let name =
            |addr: &&str| host.connected_link(addr.parse().unwrap()).map_or("-".into(), |l| l.name.clone());
        addrs.iter().map(name).collect()
    }

    #[test]
    fn bc02_the_connected_route_of_the_lowest_metric_then_the_first_names_the_link() {
        let mut both = host(
            [
                link(2, "eth0").with("10.5.0.2/24").with("fd05::2/64"),
                link(3, "eth1").with("10.5.0.3/24").with("fd05::3/64"),
            ],
            [],
        );
        let neighbors = ["10.5.0.254", "fd05::fe"];
        assert_eq!(names(&both, &neighbors), ["eth0", "eth0"], "the kernel's order");
        both.routes.reverse();
        assert_eq!(names(&both, &neighbors), ["eth1", "eth1"], "the kernel's order, the other way round");
        for route in both.routes.iter_mut().filter(|r| r.hops[0].ifindex == 3) {
            route.metric += 100;
        }
        assert_eq!(names(&both, &neighbors), ["eth0", "eth0"], "the lower metric");
        both.links.get_mut(&2).unwrap().lower_up = false;
        assert_eq!(names(&both, &neighbors), ["eth1", "eth1"], "a link that can send");
        both.links.get_mut(&3).unwrap().lower_up = false;
        assert_eq!(names(&both, &neighbors), ["eth0", "eth0"], "none can");
    }

    #[test]
    fn on_link_is_what_the_kernel_reaches_without_a_gateway() {
        let mut link_route = gateway("203.0.113.7/32", "10.0.0.1", 3);
        link_route.hops[0].gateway = None;
        let routes = [
            gateway("0.0.0.0/0", "172.31.1.1", 2),
            gateway("10.0.0.128/25", "10.0.0.1", 2),
            gateway("192.0.2.0/24", "10.0.0.1", 2),
            gateway("::/0", "2001:db8:ffff::1", 3),
            link_route,
        ];
        let host = host([link(2, "eth0").with("10.0.0.2/24"), link(3, "eth1").with("10.9.0.1/32")], routes);
        let cases = [
            ("10.0.0.7", "eth0"),
            ("10.0.0.200", "-"),
            ("192.0.2.7", "-"),
            ("203.0.113.7", "eth1"),
            ("172.31.1.1", "eth0"),
            ("2001:db8:ffff::1", "eth1"),
            ("172.31.1.2", "-"),
        ];
        for (addr, name) in cases {
            assert_eq!(names(&host, &[addr]), [name], "{addr}");
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Hosts for the tests of other files.

    use super::*;

    /// With the kernel's own routes of the links' addresses, ahead of `routes`.
    pub(crate) fn host(
        links: impl IntoIterator<Item = Link>,
        routes: impl IntoIterator<Item = ForeignRoute>,
    ) -> Host {
        let links: BTreeMap<u32, Link> = links.into_iter().map(|l| (l.index, l)).collect();
        let routes = links.values().flat_map(connected).chain(routes).collect();
        Host { links, routes, drops: 0, overruns: 0 }
    }

    /// What the kernel adds for the addresses of a link that is up.
    pub(crate) fn connected(link: &Link) -> Vec<ForeignRoute> {
        let route = |prefix: Prefix| {
            let local = link.loopback && prefix.family() == Family::Ipv4Unicast;
            let hop = ForeignHop { ifindex: link.index, gateway: None, onlink: false };
            ForeignRoute {
                prefix,
                table: if local { 255 } else { 254 },
                metric: if prefix.family() == Family::Ipv6Unicast { 256 } else { 0 },
                protocol: 2,
                kind: if local { RouteType::Local } else { RouteType::Unicast },
                preference: Preference::Medium,
                object: 0,
                hops: if local { Vec::new() } else { vec![hop] },
            }
        };
        let on_link = |p: &Prefix| !matches!(p.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
        link.subnets().filter(|p| link.up && on_link(p)).map(route).collect()
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
            generation: 0,
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
        ForeignRoute {
            prefix: prefix.parse().unwrap(),
            table: 254,
            metric: 0,
            protocol: 4,
            kind: RouteType::Unicast,
            preference: Preference::Medium,
            object: 0,
            hops: vec![hop],
        }
    }
}
