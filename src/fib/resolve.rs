//! BGP next hop → interface and gateway (RFC 4271 §9.1.2.1).
//!
//! An address is looked up by the longest prefix among the connected subnets and the routes of others. One
//! [`Resolver`] answers the fib (which hops?) and, as a [`Reachable`] snapshot, the rib (does it resolve?), so
//! that both always agree. BGP's own routes resolve nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use crate::{
    fib::host::{ForeignHop, ForeignRoute, Host},
    net::{Family, Gateway, Prefix, Reach, Reachable, Unresolved},
};

/// How many routes of others may lie between a next hop and its link.
const MAX_DEPTH: usize = 4;

/// Where the kernel shall send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    pub ifindex: u32,
    pub gateway: IpAddr,
    /// The kernel is told not to look for a subnet that holds the gateway.
    pub onlink: bool,
}

/// A host's answers, prepared once per snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    entries: BTreeMap<Prefix, Entry>,
    /// Lengths in use by family, longest first.
    lens: [Vec<u8>; 2],
    /// Interfaces that can send: up, with a carrier.
    up: Vec<u32>,
    via_default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Connected(u32),
    Routed { metric: u32, hops: Vec<ForeignHop> },
    No(Unresolved),
}

impl Resolver {
    pub fn new(host: &Host, via_default: bool) -> Self {
        let up = host.links.values().filter(|l| host.can_send(l)).map(|l| l.index).collect();
        let mut this = Self { up, via_default, ..Self::default() };
        this.add_routes(&host.routes);
        this.add_subnets(host);
        for family in Family::ALL {
            let lens = &mut this.lens[family.index()];
            lens.extend(this.entries.keys().filter(|p| p.family() == family).map(|p| p.len()));
            lens.sort_unstable_by(|a, b| b.cmp(a));
            lens.dedup();
        }
        this
    }

    /// Of several routes to a prefix the kernel uses the one with the lowest metric.
    fn add_routes(&mut self, routes: &[ForeignRoute]) {
        for route in routes {
            let better = match self.entries.get(&route.prefix) {
                Some(Entry::Routed { metric, .. }) => route.metric < *metric,
                _ => true,
            };
            if better {
                let entry = Entry::Routed { metric: route.metric, hops: route.hops.clone() };
                self.entries.insert(route.prefix, entry);
            }
        }
    }

    /// Connected subnets win over routes of the same prefix, working links over others, own addresses over all.
    fn add_subnets(&mut self, host: &Host) {
        for link in host.links.values() {
            // Every link has the same link-local IPv6 subnet: there, a gateway comes with its interface.
            for subnet in link.subnets().filter(|s| !matches!(s.addr(), IpAddr::V6(a) if is_link_local_v6(a)))
            {
                let entry = match (link.loopback, self.up.contains(&link.index)) {
                    (true, _) => Entry::No(Unresolved::Own),
                    (false, true) => Entry::Connected(link.index),
                    (false, false) => Entry::No(Unresolved::LinkDown),
                };
                let held = self.entries.get(&subnet);
                if !matches!((held, &entry), (Some(Entry::Connected(_)), _)) {
                    self.entries.insert(subnet, entry);
                }
            }
        }
        for address in host.links.values().flat_map(|l| &l.addresses) {
            // A link-local address may well be a neighbor's on another link.
            if !is_link_local(address.addr) {
                self.entries.insert(Prefix::host(address.addr), Entry::No(Unresolved::Own));
            }
        }
    }

    /// The hops that lead to `gateway`: sorted, never empty.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn resolve(&self, gateway: Gateway) -> Result<Vec<Hop>, Unresolved> {
        if gateway.ifindex != 0 {
            // The kernel never asks for a subnet of IPv6 link-local gateways.
            let onlink = !matches!(gateway.addr, IpAddr::V6(a) if is_link_local_v6(a));
            let hop = ForeignHop { ifindex: gateway.ifindex, gateway: Some(gateway.addr), onlink };
            return self.hop(gateway.addr, hop, 0);
        }
        self.address(gateway.addr, 0)
    }

    fn address(&self, addr: IpAddr, depth: usize) -> Result<Vec<Hop>, Unresolved> {
        let (prefix, entry) = self.lookup(addr).ok_or(Unresolved::NoRoute)?;
        match entry {
            Entry::Connected(ifindex) => Ok(vec![Hop { ifindex: *ifindex, gateway: addr, onlink: false }]),
            Entry::No(why) => Err(*why),
            Entry::Routed { .. } if prefix.len() == 0 && !self.via_default => Err(Unresolved::OnlyDefault),
            Entry::Routed { hops, .. } => self.route(addr, hops, depth + 1),
        }
    }

    /// Any hop that works is good; of those that do not, the last says why.
    fn route(&self, addr: IpAddr, hops: &[ForeignHop], depth: usize) -> Result<Vec<Hop>, Unresolved> {
        if depth > MAX_DEPTH {
            return Err(Unresolved::TooDeep);
        }
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
            ForeignHop { ifindex, .. } if !self.up.contains(&ifindex) => Err(Unresolved::LinkDown),
            ForeignHop { ifindex, gateway, onlink } => {
                Ok(vec![Hop { ifindex, gateway: gateway.unwrap_or(addr), onlink }])
            }
        }
    }

    fn lookup(&self, addr: IpAddr) -> Option<(Prefix, &Entry)> {
        self.lens[Family::of(addr).index()].iter().find_map(|&len| {
            let prefix = Prefix::new(addr, len)?;
            Some((prefix, self.entries.get(&prefix)?))
        })
    }

    /// The same answers for the rib.
    pub fn reachable(&self) -> Reachable {
        let reach = |(prefix, entry): (&Prefix, &Entry)| {
            let reach = match entry {
                Entry::Connected(ifindex) => Reach::Connected { ifindex: *ifindex },
                Entry::No(why) => Reach::No(*why),
                Entry::Routed { .. } if prefix.len() == 0 && !self.via_default => {
                    Reach::No(Unresolved::OnlyDefault)
                }
                Entry::Routed { metric, hops } => match self.route(prefix.addr(), hops, 1) {
                    Ok(_) => Reach::Routed { metric: *metric },
                    Err(why) => Reach::No(why),
                },
            };
            (*prefix, reach)
        };
        Reachable::new(self.entries.iter().map(reach).collect()).with_links(self.up.clone())
    }
}

/// What the rib asks: which next hops resolve on this host.
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

    fn answer(resolver: &Resolver, addr: &str) -> String {
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
    fn the_longest_prefix_of_the_host_answers() {
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
            assert_eq!(answer(&resolver, addr), expected, "{name}");
        }
        assert_eq!(answer(&sample(true), "192.0.2.1"), "10.1.0.1%2");
    }

    #[test]
    fn the_rib_hears_the_same() {
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
        assert_eq!(answer(&resolver, "10.9.0.1"), "10.1.0.9%2");
    }
}
