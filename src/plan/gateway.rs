//! The next hops of the default routes, as neighbors: whoever carries this host's packets to the rest of the world
//! is the router that should learn of its containers.
//!
//! Default routes change (DHCP, router advertisements, failover), and the neighbors follow: the plan is made anew
//! on each change of the host. A route with our own protocol number never counts, else a default route learned
//! from a neighbor would make its sender a gateway, and its loss would end the session.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Context;
use crate::{
    bgp::peer::PeerKey,
    fib::host::{ForeignRoute, Host, Link},
    net::Family,
};

/// The default routes that count: of others, those of each family by metric.
fn default_routes(host: &Host, own_protocol: u8) -> impl Iterator<Item = &ForeignRoute> {
    Family::ALL.into_iter().flat_map(move |family| {
        let mut routes: Vec<_> = host
            .routes
            .iter()
            .filter(|r| r.prefix.len() == 0 && r.prefix.family() == family && r.protocol != own_protocol)
            .collect();
        routes.sort_by_key(|r| r.metric);
        routes
    })
}

/// How long a gateway may be without a default route before it is no neighbor any more. DHCP clients take the route
/// away for some seconds to add it again.
const HOLD: Duration = Duration::from_secs(10);

/// Gateways whose default route is away for a moment.
#[derive(Clone, Debug, Default)]
pub struct Gateways {
    /// With the interface, and since when there is no route any more.
    seen: BTreeMap<PeerKey, (u32, Option<Instant>)>,
}

impl Gateways {
    /// The host is this now.
    pub fn handle(&mut self, now: Instant, host: &Host, own_protocol: u8) {
        for (_, since) in self.seen.values_mut() {
            since.get_or_insert(now);
        }
        for (key, ifindex) in hops(host, own_protocol) {
            self.seen.insert(key, (ifindex, None));
        }
        let alive = |ifindex: &u32| host.links.get(ifindex).is_some_and(|l| host.can_send(l));
        let in_time = |since: &Option<Instant>| since.is_none_or(|at| now < at + HOLD);
        self.seen.retain(|_, (ifindex, since)| since.is_none() || alive(ifindex) && in_time(since));
    }

    /// Those that are neighbors although no default route names them.
    pub fn held(&self) -> Vec<PeerKey> {
        self.seen.iter().filter(|(_, (_, since))| since.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// When to come back with [`Gateways::handle`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.seen.values().filter_map(|(_, since)| *since).min().map(|since| since + HOLD)
    }
}

/// The gateways that are neighbors, those among them whose route is away for a moment.
pub(super) fn neighbors(ctx: &Context<'_>) -> Vec<PeerKey> {
    let mut keys = gateways(ctx.host, ctx.config.fib.protocol);
    let is_own = |key: &PeerKey| matches!(key, PeerKey::Address(a) if is_own(ctx.host, *a));
    let held = ctx.extra.held_gateways.iter().filter(|k| !keys.contains(k) && !is_own(k));
    let held: Vec<_> = held.cloned().collect();
    keys.extend(held);
    keys
}

/// The gateways as neighbors, in order of preference, each once. One that is an address of this host is none.
pub(super) fn gateways(host: &Host, own_protocol: u8) -> Vec<PeerKey> {
    hops(host, own_protocol).into_iter().map(|(key, _)| key).collect()
}

/// The same, each with its interface.
fn hops(host: &Host, own_protocol: u8) -> Vec<(PeerKey, u32)> {
    let mut found: Vec<(PeerKey, u32)> = Vec::new();
    for hop in default_routes(host, own_protocol).flat_map(|r| &r.hops) {
        let Some(addr) = hop.gateway.filter(|a| !is_own(host, *a)) else { continue };
        let key = match addr {
            IpAddr::V6(a) if a.is_unicast_link_local() => match host.links.get(&hop.ifindex) {
                Some(link) => PeerKey::LinkLocal(a, link.name.clone()),
                None => continue,
            },
            addr => PeerKey::Address(addr),
        };
        if !found.iter().any(|(known, _)| *known == key) {
            found.push((key, hop.ifindex));
        }
    }
    found
}

/// The interfaces that hold a default route, in order of preference, each once.
pub(super) fn uplinks(host: &Host, own_protocol: u8) -> Vec<&Link> {
    let mut links: Vec<&Link> = Vec::new();
    for hop in default_routes(host, own_protocol).flat_map(|r| &r.hops) {
        if let Some(link) = host.links.get(&hop.ifindex)
            && !links.iter().any(|l| l.index == link.index)
        {
            links.push(link);
        }
    }
    links
}

fn is_own(host: &Host, addr: IpAddr) -> bool {
    host.links.values().flat_map(|l| &l.addresses).any(|a| a.addr == addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::host::testing::{gateway, host, link};

    fn names(host: &Host) -> Vec<String> {
        gateways(host, 179).iter().map(PeerKey::to_string).collect()
    }

    #[test]
    fn every_default_route_gives_its_next_hops_the_preferred_first() {
        let mut backup = gateway("0.0.0.0/0", "10.0.1.1", 3);
        backup.metric = 200;
        let mut both = gateway("0.0.0.0/0", "10.0.0.1", 2);
        both.hops.push(gateway("0.0.0.0/0", "10.0.0.5", 3).hops[0]);
        let host = host(
            [link(2, "eth0").with("10.0.0.2/30"), link(3, "eth1").with("10.0.0.6/30")],
            [
                backup,
                both,
                gateway("::/0", "2001:db8::1", 2),
                gateway("10.0.0.0/8", "10.0.0.9", 2),
                gateway("0.0.0.0/0", "10.0.0.1", 2),
            ],
        );
        assert_eq!(names(&host), ["10.0.0.1", "10.0.0.5", "10.0.1.1", "2001:db8::1"]);
        assert_eq!(uplinks(&host, 179).iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
    }

    #[test]
    fn link_local_gateways_keep_their_interface() {
        let host = host(
            [link(2, "eth0"), link(3, "eth1")],
            [gateway("::/0", "fe80::1", 2), gateway("::/0", "fe80::1", 3), gateway("::/0", "fe80::1", 9)],
        );
        assert_eq!(names(&host), ["fe80::1%eth0", "fe80::1%eth1"], "an unknown interface is none");
    }

    #[test]
    fn own_routes_and_own_addresses_are_no_gateways() {
        let mut ours = gateway("0.0.0.0/0", "10.0.0.1", 2);
        ours.protocol = 179;
        let mut on_link = gateway("0.0.0.0/0", "10.0.0.9", 2);
        on_link.hops[0].gateway = None;
        let own = gateway("0.0.0.0/0", "10.0.0.2", 2);
        let host = host([link(2, "eth0").with("10.0.0.2/30")], [ours, on_link, own]);
        assert!(names(&host).is_empty(), "{:?}", names(&host));
    }

    fn at(host: &Host, held: &mut Gateways, now: Instant) -> Vec<String> {
        held.handle(now, host, 179);
        held.held().iter().map(PeerKey::to_string).collect()
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an epoch")]
    fn dhcpcd_244_bc13_a_gateway_stays_while_its_default_route_is_away_for_less_than_ten_seconds() {
        let (t0, ms) = (Instant::now(), Duration::from_millis);
        let eth0 = || link(2, "eth0").with("10.0.0.2/30").with("fe80::2/64");
        let both = host([eth0()], [gateway("0.0.0.0/0", "10.0.0.1", 2), gateway("::/0", "fe80::1", 2)]);
        let neither = host([eth0()], []);
        let mut held = Gateways::default();
        assert!(at(&both, &mut held, t0).is_empty(), "they are there by their routes");
        assert_eq!(at(&neither, &mut held, t0 + ms(10)), ["10.0.0.1", "fe80::1%eth0"]);
        assert_eq!(held.poll_timeout(), Some(t0 + ms(10) + HOLD));
        assert_eq!(at(&neither, &mut held, t0 + ms(10_009)).len(), 2, "further changes begin nothing anew");
        assert!(at(&both, &mut held, t0 + ms(10_009)).is_empty() && held.poll_timeout().is_none());
        at(&neither, &mut held, t0 + ms(20_000));
        assert!(at(&neither, &mut held, t0 + ms(30_000)).is_empty(), "away for ten seconds");

        // Another gateway takes over: both are neighbors for a while.
        let other = host([eth0()], [gateway("0.0.0.0/0", "10.0.0.3", 2)]);
        at(&both, &mut held, t0);
        assert_eq!(at(&other, &mut held, t0), ["10.0.0.1", "fe80::1%eth0"]);
        assert!(at(&other, &mut held, t0 + HOLD).is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an epoch")]
    fn a_gateway_goes_at_once_with_its_link() {
        let t0 = Instant::now();
        let up = host([link(2, "eth0").with("10.0.0.2/30")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let lost = [
            host([link(2, "eth0").with("10.0.0.2/30").no_carrier()], []),
            host([link(2, "eth0").down()], []),
            host([link(3, "eth0").with("10.0.0.2/30")], []),
        ];
        for after in lost {
            let mut held = Gateways::default();
            at(&up, &mut held, t0);
            assert!(at(&after, &mut held, t0).is_empty(), "{after:?}");
        }
    }
}
