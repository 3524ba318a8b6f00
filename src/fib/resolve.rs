//! Resolves BGP next hops to interfaces and gateways (RFC 4271 §9.1.2.1).
//!
//! An address is looked up as the kernel does it: addresses delivered to this host first, then the
//! longest prefix among other daemons' and the kernel's own routes, then the lowest metric. One
//! [`Resolver`] serves the fib (which hops?) and, as a [`Reachable`] snapshot, the rib (does it
//! resolve?), so that both always agree. BGP routes never resolve a next hop.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use crate::{
    fib::host::{ForeignHop, ForeignRoute, Host, RouteType},
    net::{Family, Gateway, PerFamily, Prefix, Reach, Reachable, Unresolved},
};

/// Limit of routes between a next hop and its link.
const MAX_DEPTH: usize = 4;

/// One hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    pub ifindex: u32,
    pub gateway: IpAddr,
    /// Installed with `onlink`: the kernel does not require a subnet that contains the gateway.
    pub onlink: bool,
}

/// A look-up table, built once per snapshot of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    entries: BTreeMap<Prefix, Entry>,
    /// Prefix lengths in use, by family, longest first.
    lens: PerFamily<Vec<u8>>,
    /// Interfaces that can send: up, with carrier; sorted.
    up: Vec<u32>,
    via_default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// On link: a connected subnet, or the gateway of a route.
    Connected(Vec<ForeignHop>),
    Routed {
        metric: u32,
        hops: Vec<ForeignHop>,
    },
    No(Unresolved),
}

const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;

/// Whether a route without a gateway is that of a connected subnet, which network managers install
/// themselves with other protocol numbers. Any other has a cost, its metric.
fn is_connected(host: &Host, route: &ForeignRoute) -> bool {
    let of_link =
        |h: &ForeignHop| host.links.get(&h.ifindex).is_some_and(|l| l.subnets().any(|s| s == route.prefix));
    matches!(route.protocol, RTPROT_KERNEL | RTPROT_RA) || route.hops.iter().any(of_link)
}

impl Resolver {
    pub fn new(host: &Host, via_default: bool) -> Self {
        let up = host.links.values().filter(|l| host.can_send(l)).map(|l| l.index).collect();
        let mut this = Self { up, via_default, ..Self::default() };
        this.add_routes(host);
        this.add_gateways(host);
        this.add_lost_subnets(host);
        this.add_own(host);
        this.note_lens();
        this
    }

    fn note_lens(&mut self) {
        for family in Family::ALL {
            let lens = &mut self.lens[family];
            lens.clear();
            lens.extend(self.entries.keys().filter(|p| p.family() == family).map(|p| p.len()));
            lens.sort_unstable_by(|a, b| b.cmp(a));
            lens.dedup();
        }
    }

    /// Among several routes to a prefix, adds the one that the kernel uses.
    fn add_routes(&mut self, host: &Host) {
        let mut by_prefix: BTreeMap<Prefix, Vec<&ForeignRoute>> = BTreeMap::new();
        for route in host.routes.iter() {
            by_prefix.entry(route.prefix).or_default().push(route);
        }
        for (prefix, routes) in by_prefix {
            let Some(route) = host.preferred(&routes) else { continue };
            let (metric, hops) = (route.metric, route.hops.clone());
            let loopback = |h: &ForeignHop| host.links.get(&h.ifindex).is_some_and(|l| l.loopback);
            let on_link = hops.iter().all(|h| h.gateway.is_none()) && is_connected(host, route);
            let entry = match route.kind {
                RouteType::Unicast if hops.iter().any(loopback) => Entry::No(Unresolved::Own),
                RouteType::Unicast if on_link => Entry::Connected(hops),
                RouteType::Unicast => Entry::Routed { metric, hops },
                _ => Entry::No(Unresolved::NoRoute),
            };
            self.entries.insert(prefix, entry);
        }
        self.note_lens();
    }

    /// Adds the gateways of routes as on the link that their route has. They may be covered by no
    /// more than a default route if the gateway is `onlink`.
    fn add_gateways(&mut self, host: &Host) {
        for (gateway, ifindex) in host.gateway_links() {
            if !self.is_covered(Prefix::host(gateway)) {
                let hop = ForeignHop { ifindex, gateway: Some(gateway), onlink: true };
                self.entries.insert(Prefix::host(gateway), Entry::Connected(vec![hop]));
            }
        }
    }

    /// Whether more than a default route covers a prefix.
    fn is_covered(&self, prefix: Prefix) -> bool {
        self.lookup(prefix.addr()).is_some_and(|(found, _)| found.len() > 0 && found.covers(prefix))
    }

    /// Adds the subnets of links that cannot send, whose routes the kernel may have removed, as
    /// lost.
    fn add_lost_subnets(&mut self, host: &Host) {
        for link in host.links.values().filter(|l| !host.can_send(l)) {
            // All links share one link-local IPv6 subnet; a gateway in it is always given with its
            // interface.
            let global = |p: &Prefix| !matches!(p.addr(), IpAddr::V6(a) if is_link_local_v6(a));
            for subnet in link.subnets().filter(global) {
                let by_default = self.via_default && self.lookup(subnet.addr()).is_some();
                if !self.is_covered(subnet) && !by_default {
                    self.entries.insert(subnet, Entry::No(Unresolved::LinkDown));
                }
            }
        }
    }

    /// Adds what is delivered to this host and precedes all other routes: addresses and ranges.
    fn add_own(&mut self, host: &Host) {
        let ranges = host.routes.iter().filter(|r| r.kind == RouteType::Local).map(|r| r.prefix);
        for range in ranges.collect::<Vec<_>>() {
            self.entries.retain(|prefix, _| !range.covers(*prefix));
            self.entries.insert(range, Entry::No(Unresolved::Own));
        }
        for address in host.links.values().flat_map(|l| &l.addresses) {
            // A link-local address may belong to a neighbor on another link.
            if !is_link_local(address.addr) {
                self.entries.insert(Prefix::host(address.addr), Entry::No(Unresolved::Own));
            }
        }
    }

    /// Returns the hops that lead to `gateway`: sorted, never empty.
    ///
    /// # Errors
    ///
    /// Why the gateway cannot be resolved.
    pub fn resolve(&self, gateway: Gateway) -> Result<Vec<Hop>, Unresolved> {
        if gateway.ifindex != 0 {
            // For IPv6 link-local gateways the kernel requires no subnet.
            let onlink = !matches!(gateway.addr, IpAddr::V6(a) if is_link_local_v6(a));
            let hop = ForeignHop { ifindex: gateway.ifindex, gateway: Some(gateway.addr), onlink };
            return self.hop(gateway.addr, hop, 0);
        }
        self.address(gateway.addr, 0)
    }

    fn address(&self, addr: IpAddr, depth: usize) -> Result<Vec<Hop>, Unresolved> {
        let (prefix, entry) = self.lookup(addr).ok_or(Unresolved::NoRoute)?;
        match entry {
            Entry::Connected(hops) => self.hops(addr, hops, depth),
            Entry::No(why) => Err(*why),
            Entry::Routed { .. } if prefix.len() == 0 && !self.via_default => Err(Unresolved::OnlyDefault),
            Entry::Routed { .. } if depth >= MAX_DEPTH => Err(Unresolved::TooDeep),
            Entry::Routed { hops, .. } => self.hops(addr, hops, depth + 1),
        }
    }

    /// Returns all hops that resolve; if none does, the reason of the last.
    fn hops(&self, addr: IpAddr, hops: &[ForeignHop], depth: usize) -> Result<Vec<Hop>, Unresolved> {
        let mut good = Vec::new();
        let mut why = Unresolved::NoRoute;
        for hop in hops {
            match self.hop(addr, *hop, depth) {
                Ok(found) => good.extend(found),
                Err(e) => why = e,
            }
        }
        good.sort_unstable();
        good.dedup();
        if good.is_empty() { Err(why) } else { Ok(good) }
    }

    fn hop(&self, addr: IpAddr, hop: ForeignHop, depth: usize) -> Result<Vec<Hop>, Unresolved> {
        match hop {
            ForeignHop { ifindex: 0, gateway: Some(gateway), .. } => self.address(gateway, depth),
            ForeignHop { ifindex: 0, gateway: None, .. } => Err(Unresolved::NoRoute),
            ForeignHop { ifindex, .. } if self.up.binary_search(&ifindex).is_err() => {
                Err(Unresolved::LinkDown)
            }
            ForeignHop { ifindex, gateway, onlink } => {
                Ok(vec![Hop { ifindex, gateway: gateway.unwrap_or(addr), onlink }])
            }
        }
    }

    fn lookup(&self, addr: IpAddr) -> Option<(Prefix, &Entry)> {
        self.lens[Family::of(addr)].iter().find_map(|&len| {
            let prefix = Prefix::new(addr, len)?;
            Some((prefix, self.entries.get(&prefix)?))
        })
    }

    /// The same results as a snapshot for the rib.
    pub fn reachable(&self) -> Reachable {
        let reach = |(prefix, entry): (&Prefix, &Entry)| {
            let reach = match entry {
                Entry::Connected(hops) => match self.hops(prefix.addr(), hops, 0).as_deref() {
                    Ok([first, ..]) => Reach::Connected { ifindex: first.ifindex },
                    Ok([]) => Reach::No(Unresolved::NoRoute),
                    Err(why) => Reach::No(*why),
                },
                Entry::No(why) => Reach::No(*why),
                Entry::Routed { .. } if prefix.len() == 0 && !self.via_default => {
                    Reach::No(Unresolved::OnlyDefault)
                }
                Entry::Routed { metric, hops } => match self.hops(prefix.addr(), hops, 1) {
                    Ok(_) => Reach::Routed { metric: *metric },
                    Err(why) => Reach::No(why),
                },
            };
            (*prefix, reach)
        };
        Reachable::new(self.entries.iter().map(reach).collect()).with_links(self.up.clone())
    }
}

/// Which next hops resolve on this host, as a snapshot for the rib.
pub fn reachable(host: &Host, via_default: bool) -> Reachable {
    Resolver::new(host, via_default).reachable()
}

pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => is_link_local_v6(a),
    }
}

fn is_link_local_v6(addr: Ipv6Addr) -> bool {
    addr.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn resolved(resolver: &Resolver, addr: &str) -> String {
        match resolver.resolve(Gateway { addr: addr.parse().unwrap(), ifindex: 0 }) {
            Ok(hops) => {
                hops.iter().map(|h| format!("{}%{}", h.gateway, h.ifindex)).collect::<Vec<_>>().join(" ")
            }
            Err(why) => format!("{why:?}"),
        }
    }

    fn sample(via_default: bool) -> Resolver {
        let mut ecmp = gateway("10.30.0.0/16", "10.1.0.8", 2);
        ecmp.hops.extend(gateway("10.30.0.0/16", "10.2.0.8", 3).hops);
        ecmp.hops.extend(gateway("10.30.0.0/16", "10.3.0.8", 4).hops);
        let mut on_link = gateway("10.31.0.0/16", "10.1.0.1", 2);
        on_link.hops[0].gateway = None;
        let mut nowhere = gateway("10.32.0.0/16", "10.1.0.1", 2);
        nowhere.hops.clear();
        let links = [
            link(1, "lo").with("127.0.0.1/8").with("10.255.0.1/32"),
            link(2, "eth0").with("10.1.0.2/24").with("2001:db8::2/64"),
            link(3, "eth1").with("10.2.0.2/24"),
            link(4, "eth2").with("10.3.0.2/24").no_carrier(),
        ];
        let routes = [
            gateway("0.0.0.0/0", "10.1.0.1", 2),
            gateway("10.9.0.0/16", "10.1.0.9", 2),
            gateway("10.20.0.0/16", "10.3.0.9", 4),
            ecmp,
            on_link,
            nowhere,
            gateway("10.40.1.0/24", "10.1.0.1", 0),
            gateway("10.40.2.0/24", "10.40.1.1", 0),
            gateway("10.40.3.0/24", "10.40.2.1", 0),
            gateway("10.40.4.0/24", "10.40.3.1", 0),
            gateway("10.40.5.0/24", "10.40.4.1", 0),
            gateway("10.50.0.0/16", "10.50.0.1", 0),
        ];
        Resolver::new(&host(links, routes), via_default)
    }

    #[test]
    fn the_longest_prefix_of_the_host_is_used() {
        let resolver = sample(false);
        #[rustfmt::skip]
        let cases = [
            ("on a connected subnet",        "10.1.0.77",     "10.1.0.77%2"),
            ("IPv6 on a connected subnet",   "2001:db8::9",   "2001:db8::9%2"),
            ("own address",                  "10.1.0.2",      "Own"),
            ("own loopback address",         "10.255.0.1",    "Own"),
            ("loopback subnet",              "127.0.0.9",     "Own"),
            ("link without carrier",         "10.3.0.9",      "LinkDown"),
            ("over a static route",          "10.9.1.1",      "10.1.0.9%2"),
            ("static over a dead link",      "10.20.1.1",     "LinkDown"),
            ("working hops of a multipath",  "10.30.1.1",     "10.1.0.8%2 10.2.0.8%3"),
            ("route without a gateway",      "10.31.1.1",     "10.31.1.1%2"),
            ("unreachable route",            "10.32.1.1",     "NoRoute"),
            ("only the default route",       "192.0.2.1",     "OnlyDefault"),
            ("no route at all",              "2001:db8:9::1", "NoRoute"),
            ("four routes deep",             "10.40.4.9",     "10.1.0.1%2"),
            ("five routes deep",             "10.40.5.9",     "TooDeep"),
            ("over itself",                  "10.50.0.9",     "TooDeep"),
        ];
        for (name, addr, expected) in cases {
            assert_eq!(resolved(&resolver, addr), expected, "{name}");
        }
        assert_eq!(resolved(&sample(true), "192.0.2.1"), "10.1.0.1%2");
    }

    #[test]
    fn the_gateway_of_an_onlink_default_route_is_on_that_link() {
        let mut second = gateway("0.0.0.0/0", "172.31.2.1", 3);
        second.metric = 200;
        let links = [
            link(2, "eth0").with("203.0.113.5/32").with("2001:db8:5::5/128"),
            link(3, "eth1").with("203.0.113.6/32"),
            link(4, "eth2").with("203.0.113.7/32").no_carrier(),
        ];
        let routes = [
            gateway("0.0.0.0/0", "172.31.1.1", 2),
            second,
            gateway("::/0", "2001:db8:ffff::1", 2),
            gateway("198.51.100.0/24", "172.31.3.1", 4),
            gateway("192.0.2.0/24", "172.31.1.1", 0),
        ];
        let resolver = Resolver::new(&host(links, routes), false);
        let on =
            |addr: &str, ifindex| Ok(vec![Hop { ifindex, gateway: addr.parse().unwrap(), onlink: true }]);
        let cases = [
            ("172.31.1.1", on("172.31.1.1", 2)),
            ("172.31.2.1", on("172.31.2.1", 3)),
            ("2001:db8:ffff::1", on("2001:db8:ffff::1", 2)),
            ("192.0.2.9", on("172.31.1.1", 2)),
            ("172.31.3.1", Err(Unresolved::LinkDown)),
            ("172.31.1.2", Err(Unresolved::OnlyDefault)),
            ("2001:db8:ffff::2", Err(Unresolved::OnlyDefault)),
        ];
        let reachable = resolver.reachable();
        for (addr, expected) in cases {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(resolver.resolve(Gateway { addr, ifindex: 0 }), expected, "{addr}");
            match (reachable.lookup(addr), expected) {
                (Reach::No(why), expected) => assert_eq!(Err(why), expected, "{addr}"),
                (_, expected) => assert!(expected.is_ok(), "{addr}"),
            }
        }
    }

    #[test]
    fn the_kernels_own_connected_routes_decide_between_two_links() {
        let links = || [link(2, "eth0").with("10.5.0.2/24"), link(3, "eth1").with("10.5.0.3/24")];
        let mut wired_first = host(links(), []);
        for (route, metric) in wired_first.routes.iter_mut().zip([600, 100]) {
            route.metric = metric;
        }
        let mut eth1_first = host(links(), []);
        eth1_first.routes.reverse();
        let mut no_route = host(links(), []);
        no_route.routes.clear();
        let mut dead = eth1_first.clone();
        dead.links.get_mut(&3).unwrap().lower_up = false;
        let cases = [
            ("metrics", wired_first, "10.5.0.254%3"),
            ("the kernel's order", eth1_first, "10.5.0.254%3"),
            ("addresses without a route (noprefixroute)", no_route, "NoRoute"),
            ("a link that can send before one that cannot", dead, "10.5.0.254%2"),
        ];
        for (name, host, expected) in cases {
            assert_eq!(resolved(&Resolver::new(&host, false), "10.5.0.254"), expected, "{name}");
        }
    }

    #[test]
    fn a_connected_subnet_costs_nothing_whoever_wrote_its_route() {
        let links = [link(2, "eth0").with("10.1.0.2/24").with("2001:db8:1::2/64"), link(3, "eth1")];
        let mut host = host(links, []);
        host.routes.clear();
        let on_link = |prefix: &str, protocol, ifindex| {
            let mut route = ForeignRoute { protocol, metric: 1024, ..gateway(prefix, "10.1.0.1", ifindex) };
            route.hops[0].gateway = None;
            route
        };
        host.routes = [
            on_link("10.1.0.0/24", 16, 2),
            on_link("2001:db8:1::/64", 9, 2),
            on_link("2001:db8:2::/64", 9, 3),
            on_link("10.9.0.0/24", 4, 3),
        ]
        .into_iter()
        .collect();
        let reachable = Resolver::new(&host, false).reachable();
        let cases = [
            ("10.1.0.9", Reach::Connected { ifindex: 2 }),
            ("2001:db8:1::9", Reach::Connected { ifindex: 2 }),
            ("2001:db8:2::9", Reach::Connected { ifindex: 3 }),
            ("10.9.0.9", Reach::Routed { metric: 1024 }),
        ];
        for (addr, expected) in cases {
            assert_eq!(reachable.lookup(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn routes_that_end_the_lookup_and_those_that_do_not() {
        let mut throw = gateway("10.9.1.0/24", "10.1.0.1", 2);
        (throw.kind, throw.hops) = (RouteType::Throw, Vec::new());
        let mut worse = gateway("10.9.2.0/24", "10.1.0.9", 2);
        worse.metric = 500;
        let mut refused = worse.clone();
        (refused.kind, refused.metric, refused.hops) = (RouteType::Unreachable, 100, Vec::new());
        let mut local = gateway("10.9.128.0/17", "10.1.0.1", 1);
        (local.kind, local.table, local.hops) = (RouteType::Local, 255, Vec::new());
        let longer = gateway("10.9.200.0/24", "10.1.0.9", 2);
        let routes = [gateway("10.9.0.0/16", "10.1.0.7", 2), throw, worse, refused, local, longer];
        let resolver = Resolver::new(&host([link(2, "eth0").with("10.1.0.2/24")], routes), false);
        let cases = [
            ("10.9.0.1", "10.1.0.7%2"),
            ("10.9.1.1", "10.1.0.7%2"),
            ("10.9.2.1", "NoRoute"),
            ("10.9.129.1", "Own"),
            ("10.9.200.1", "Own"),
        ];
        for (addr, expected) in cases {
            assert_eq!(resolved(&resolver, addr), expected, "{addr}");
        }
    }

    #[test]
    fn a_subnet_that_went_with_its_link_is_named_unless_another_way_is_left() {
        let links = || [link(2, "eth0").with("10.1.0.2/24").down(), link(3, "eth1").with("10.2.0.2/24")];
        let default = || gateway("0.0.0.0/0", "10.2.0.1", 3);
        let wide = gateway("10.0.0.0/8", "10.2.0.9", 3);
        let resolver = |routes: Vec<ForeignRoute>, via| Resolver::new(&host(links(), routes), via);
        assert_eq!(resolved(&resolver(vec![], false), "10.1.0.9"), "LinkDown");
        assert_eq!(resolved(&resolver(vec![default()], false), "10.1.0.9"), "LinkDown");
        assert_eq!(resolved(&resolver(vec![default()], true), "10.1.0.9"), "10.2.0.1%3");
        assert_eq!(resolved(&resolver(vec![wide], false), "10.1.0.9"), "10.2.0.9%3");
    }

    #[test]
    fn the_rib_gets_the_same_results() {
        for via_default in [false, true] {
            let resolver = sample(via_default);
            let reachable = resolver.reachable();
            for addr in
                ["10.1.0.77", "10.3.0.9", "10.9.1.1", "10.30.1.1", "10.40.4.9", "10.40.5.9", "192.0.2.1"]
            {
                let resolved = resolver.resolve(Gateway { addr: addr.parse().unwrap(), ifindex: 0 });
                match reachable.lookup(addr.parse().unwrap()) {
                    Reach::No(why) => assert_eq!(resolved, Err(why), "{addr}"),
                    _ => assert!(resolved.is_ok(), "{addr}"),
                }
            }
        }
    }

    #[test]
    fn an_interface_with_a_gateway_needs_no_subnet() {
        let resolver = sample(false);
        let hop = |addr: &str, ifindex| resolver.resolve(Gateway { addr: addr.parse().unwrap(), ifindex });
        let on = |addr: &str, onlink| Ok(vec![Hop { ifindex: 2, gateway: addr.parse().unwrap(), onlink }]);
        assert_eq!(hop("fe80::1", 2), on("fe80::1", false));
        assert_eq!(hop("169.254.0.1", 2), on("169.254.0.1", true));
        assert_eq!(hop("fe80::1", 4), Err(Unresolved::LinkDown));
        assert_eq!(hop("fe80::1", 99), Err(Unresolved::LinkDown));
    }

    #[test]
    fn the_route_with_the_lowest_metric_counts() {
        let mut worse = gateway("10.9.0.0/16", "10.1.0.7", 2);
        worse.metric = 100;
        let routes = [worse.clone(), gateway("10.9.0.0/16", "10.1.0.9", 2), worse];
        let resolver = Resolver::new(&host([link(2, "eth0").with("10.1.0.2/24")], routes), false);
        assert_eq!(resolved(&resolver, "10.9.0.1"), "10.1.0.9%2");
    }
}
