//! A snapshot of the host: links, addresses, and other daemons' routes. Produced by
//! `fib::io::monitor`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::net::{Family, Prefix, RouteKind};

/// Everything about the host that decisions need. Level-triggered: each change makes a new
/// snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub links: BTreeMap<u32, Link>,
    /// Other daemons' routes in the main table and in `fib.table`, including the kernel's own for
    /// connected subnets and ranges delivered to this host (`ip route add local`). Routes of the
    /// same prefix, table and metric are in the kernel's order. Routes with our protocol number are
    /// left out.
    pub routes: Routes,
    /// How often a link in use lost carrier, was set down or lost an address, or a nexthop object
    /// was deleted: the kernel then deletes nexthop objects without a notification. A count rather
    /// than a flag, because the link may be up again by the time of the snapshot.
    pub drops: u32,
    /// How often an address was removed that may be a preferred source: the kernel deletes the
    /// routes that have it without a notification.
    pub lost_addresses: u32,
    /// How often notifications were lost because the socket's buffer was full.
    pub overruns: u32,
}

/// Other daemons' routes, which snapshots share while none changes.
#[derive(Clone, Debug, Default)]
pub struct Routes(Arc<Vec<ForeignRoute>>);

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; empty for a physical interface.
    pub kind: String,
    pub mtu: u32,
    /// IFF_UP: set up by the administrator.
    pub up: bool,
    /// IFF_LOWER_UP: the link has carrier.
    pub lower_up: bool,
    pub loopback: bool,
    /// Index of the bridge or bond that the interface is a port of.
    pub master: Option<u32>,
    pub addresses: Vec<LinkAddress>,
    /// Changes after each loss of carrier, each time the link is set down and when it is created
    /// again. Taken from [`Host::drops`], because the link may be up again by the time of the
    /// snapshot.
    pub generation: u32,
}

/// One address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    pub addr: IpAddr,
    pub len: u8,
    /// The remote address of a point-to-point link, which the subnet is derived from.
    pub peer: Option<IpAddr>,
    pub scope: Scope,
    /// Duplicate address detection (IPv6) is not complete or has failed: not usable.
    pub tentative: bool,
    /// Flag `secondary` or `temporary`.
    pub secondary: bool,
    pub deprecated: bool,
}

/// Scope of an address, as the kernel defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Global,
    Link,
    Host,
}

/// A route that is not ours, possibly the kernel's own for a connected subnet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRoute {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    pub protocol: u8,
    pub kind: RouteType,
    /// RFC 4191: among IPv6 routes of the same metric, the one with the highest preference is used.
    pub preference: Preference,
    /// The nexthop object that `hops` are taken from; 0 for none.
    pub object: u32,
    /// Sorted; empty for all but unicast routes.
    pub hops: Vec<ForeignHop>,
}

/// What the kernel does with packets that match a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteType {
    Unicast,
    /// Delivered to this host.
    Local,
    Blackhole,
    /// Type `unreachable` or `prohibit`.
    Unreachable,
    /// The look-up continues in the next table.
    Throw,
}

/// Preference of an IPv6 route (RFC 4191 §2.1), highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    High,
    #[default]
    Medium,
    Low,
}

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignHop {
    pub ifindex: u32,
    /// `None` if the destination is on link.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link even if no subnet contains it.
    pub onlink: bool,
}

impl Deref for Routes {
    type Target = Vec<ForeignRoute>;

    fn deref(&self) -> &Vec<ForeignRoute> {
        &self.0
    }
}

/// Copies the routes if another snapshot has them too.
impl DerefMut for Routes {
    fn deref_mut(&mut self) -> &mut Vec<ForeignRoute> {
        Arc::make_mut(&mut self.0)
    }
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Routes {}

impl From<Vec<ForeignRoute>> for Routes {
    fn from(routes: Vec<ForeignRoute>) -> Self {
        Self(Arc::new(routes))
    }
}

impl FromIterator<ForeignRoute> for Routes {
    fn from_iter<I: IntoIterator<Item = ForeignRoute>>(routes: I) -> Self {
        routes.into_iter().collect::<Vec<_>>().into()
    }
}

impl Host {
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|l| l.name == name)
    }

    /// Whether `link` has carrier. A bridge has only if one of its ports has (docs/kernel.md,
    /// section 7): a new bridge without ports is `LOWER_UP` too.
    pub fn has_carrier(&self, link: &Link) -> bool {
        link.up
            && link.lower_up
            && (link.kind != "bridge"
                || self.links.values().any(|p| p.master == Some(link.index) && p.up && p.lower_up))
    }

    /// All links that have carrier ([`Host::has_carrier`]), each looked at once.
    pub fn links_with_carrier(&self) -> impl Iterator<Item = &Link> {
        let ports = self.links.values().filter(|p| p.up && p.lower_up);
        let bridges: BTreeSet<u32> = ports.filter_map(|p| p.master).collect();
        let can_send = self.links.values().filter(|l| l.up && l.lower_up);
        can_send.filter(move |l| l.kind != "bridge" || bridges.contains(&l.index))
    }

    /// Whether packets can leave over `link`, as a next hop on it requires. Unlike
    /// [`Host::has_carrier`] this uses the kernel's flag for bridges as well, because the kernel
    /// itself does.
    pub fn can_send(&self, link: &Link) -> bool {
        link.up && link.lower_up
    }

    /// Next hops of the default routes of a family, lowest metric first, as (gateway, interface
    /// index).
    pub fn default_gateways(&self, family: Family) -> Vec<(IpAddr, u32)> {
        let mut routes: Vec<_> =
            self.routes.iter().filter(|r| r.prefix.len() == 0 && r.prefix.family() == family).collect();
        routes.sort_by_key(|r| r.rank());
        routes.iter().flat_map(|r| &r.hops).filter_map(|h| Some((h.gateway?, h.ifindex))).collect()
    }

    /// The route that the kernel uses for `addr`: the longest prefix, then [`Host::preferred`].
    /// `None` if `addr` is delivered to this host.
    pub fn route_to(&self, addr: IpAddr) -> Option<&ForeignRoute> {
        let mut covering: Vec<_> = self.routes.iter().filter(|r| r.prefix.contains(addr)).collect();
        if covering.iter().any(|r| r.kind == RouteType::Local) {
            return None;
        }
        covering.sort_by_key(|r| std::cmp::Reverse(r.prefix.len()));
        covering.chunk_by(|a, b| a.prefix == b.prefix).find_map(|same| self.preferred(same))
    }

    /// Among routes of one prefix, the one in use: lowest metric, highest preference, then the
    /// kernel's order. One over links that cannot send is used only if there is no other.
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

    /// Whether packets can leave over this hop. A hop without an interface is resolved in turn.
    fn sends(&self, hop: &ForeignHop) -> bool {
        hop.ifindex == 0 || self.links.get(&hop.ifindex).is_some_and(|l| self.can_send(l))
    }

    /// The first hop of a route that can send, else its first.
    pub fn first_hop<'a>(&self, route: &'a ForeignRoute) -> Option<&'a ForeignHop> {
        route.hops.iter().find(|h| self.sends(h)).or(route.hops.first())
    }

    /// The link on which `addr` is reached without a gateway: that of the route to it, or, if no
    /// more than a default route leads there, of the route that has it as its `onlink` gateway.
    pub fn connected_link(&self, addr: IpAddr) -> Option<&Link> {
        if let Some(route) = self.route_to(addr).filter(|r| r.prefix.len() > 0) {
            let hop = self.first_hop(route).filter(|h| h.gateway.is_none_or(|g| g == addr))?;
            return self.links.get(&hop.ifindex);
        }
        let named = self.gateways().filter(|(_, _, gateway)| *gateway == addr);
        let (_, hop, _) = named.min_by_key(|(r, h, _)| self.gateway_rank(r, h))?;
        self.links.get(&hop.ifindex)
    }

    /// Gateways of routes with their interface: the kernel has accepted the route, so the gateway
    /// is on that link. If several routes have the same gateway, default routes come first, then
    /// the lowest metric.
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
            // Each link has its own addresses in fe80::/64.
            let gateway = hop.gateway?;
            (!matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local())).then_some((route, hop, gateway))
        })
    }

    fn gateway_rank(&self, route: &ForeignRoute, hop: &ForeignHop) -> (bool, bool, (u32, Preference)) {
        (!self.sends(hop), route.prefix.len() > 0, route.rank())
    }
}

impl ForeignRoute {
    /// Sort key among routes of one prefix; the lowest is used.
    pub fn rank(&self) -> (u32, Preference) {
        (self.metric, self.preference)
    }
}

impl RouteType {
    /// The kind of a route of ours that has this type.
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
    /// The connected subnets of its addresses.
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
    fn the_connected_route_of_the_lowest_metric_then_the_first_names_the_link() {
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
    //! Hosts for tests of other files.

    use super::*;

    /// A host with the kernel's routes for the links' addresses, followed by `routes`.
    pub(crate) fn host(
        links: impl IntoIterator<Item = Link>,
        routes: impl IntoIterator<Item = ForeignRoute>,
    ) -> Host {
        let links: BTreeMap<u32, Link> = links.into_iter().map(|l| (l.index, l)).collect();
        let routes = links.values().flat_map(connected).chain(routes).collect();
        Host { links, routes, ..Host::default() }
    }

    /// The routes that the kernel adds for the addresses of a link that is up.
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

    /// A static route with one hop; with interface 0 the hop has to be resolved.
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
