//! Builds the input of the [route guard](crate::net::guard) from the host: its subnets, its routes,
//! and the addresses to protect.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{
    fib::{
        host::{ForeignRoute, Host},
        resolve::is_link_local,
    },
    net::{
        Cover, Family, Guard, Prefix,
        guard::{AddressRole, GuardInputs, HostRoute, NodePrefixes, Subnet},
    },
};

pub use crate::net::guard::is_martian;

/// The metadata service of cloud providers.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Inputs of the guard that the plan provides.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Prefixes that this node originates.
    pub own: Vec<Prefix>,
    /// Addresses that were default gateways.
    pub former_gateways: Vec<IpAddr>,
    /// Addresses of all neighbors, on link or not.
    pub neighbors: Vec<IpAddr>,
    pub api_servers: Vec<IpAddr>,
    /// InternalIP addresses of Nodes.
    pub nodes: Vec<IpAddr>,
    /// The host's DNS resolvers, from resolv.conf.
    pub resolvers: Vec<IpAddr>,
    /// Value of `guard.connected` is "inside".
    pub inside_connected: bool,
    /// Value of `fib.metric`.
    pub metric: u32,
    /// What Nodes may advertise to one another.
    pub prefixes: Arc<NodePrefixes>,
}

/// Builds the guard.
pub fn guard(host: &Host, known: Known) -> Guard {
    let subnets = subnets(host);
    let protected = protected(host, &known, &subnets);
    let routes = host.routes.iter().map(|r| HostRoute {
        prefix: r.prefix,
        metric: r.metric,
        leads_on: !r.hops.is_empty(),
    });
    Guard::new(GuardInputs {
        own: known.own,
        subnets,
        inside_connected: known.inside_connected,
        routes: routes.collect(),
        protected,
        metric: known.metric,
        nodes: known.prefixes,
    })
}

/// The connected subnets. A link that is set down has none; one that merely lost carrier keeps its
/// own. Link-local subnets are left out: they are martians, and the same on each link.
fn subnets(host: &Host) -> Vec<Subnet> {
    let up = host.links.values().filter(|l| l.up && !l.loopback);
    let all =
        up.flat_map(|link| link.subnets().map(|prefix| Subnet { prefix, interface: link.name.clone() }));
    all.filter(|s| !is_link_local(s.prefix.addr())).collect()
}

fn protected(host: &Host, known: &Known, subnets: &[Subnet]) -> Vec<(IpAddr, AddressRole)> {
    use AddressRole::*;
    let own = host.links.values().flat_map(|l| &l.addresses).map(|a| (a.addr, OwnAddress));
    let gateways = Family::ALL.into_iter().flat_map(|f| host.default_gateways(f));
    let former = known.former_gateways.iter().map(|a| (*a, FormerGateway));
    let on_link: Cover = subnets
        .iter()
        .map(|s| s.prefix)
        .chain(host.routes.iter().filter(is_on_link).map(|r| r.prefix))
        .collect();
    let is_on_link = |addr: &&IpAddr| on_link.of(Prefix::host(**addr)).is_some();
    let neighbors = known.neighbors.iter().filter(is_on_link).map(|a| (*a, Neighbor));
    let others = [(&known.api_servers, ApiServer), (&known.nodes, Node), (&known.resolvers, Resolver)];
    let others = others.into_iter().flat_map(|(list, role)| list.iter().map(move |a| (*a, role)));
    own.chain(gateways.map(|(addr, _)| (addr, DefaultGateway)))
        .chain(former)
        .chain(neighbors)
        .chain(others)
        // Martians are refused anyway, and each pod's interface has a link-local address.
        .filter(|(addr, _)| !is_martian(Prefix::host(*addr)))
        .chain([(METADATA.into(), Metadata)])
        .collect()
}

/// Whether a route, by having no gateway, shows that its addresses are on link. A default route of
/// this kind does not show where a neighbor is.
fn is_on_link(route: &&ForeignRoute) -> bool {
    route.prefix.len() > 0 && route.hops.iter().any(|h| h.gateway.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fib::host::testing::{gateway, host, link},
        net::Refusal,
    };

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn addrs(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn on_link(prefix: &str, ifindex: u32) -> ForeignRoute {
        let mut route = gateway(prefix, "10.1.1.1", ifindex);
        route.hops[0].gateway = None;
        route
    }

    const METRIC: u32 = 179;

    #[test]
    fn refusals_name_their_reason_and_the_rest_passes() {
        let host = host(
            [
                link(1, "lo").with("127.0.0.1/8").with("10.255.0.1/32").with("10.254.0.1/24"),
                link(2, "eth0").with("10.1.1.2/24").with("2001:db8:1::2/64").with("fe80::2/64"),
                link(3, "eth1").with("10.2.0.1/16").down(),
                link(4, "eth2").with("10.3.0.1/24").no_carrier(),
            ],
            [gateway("0.0.0.0/0", "10.1.1.1", 2), gateway("::/0", "fe80::1", 2), on_link("10.5.0.0/24", 2)],
        );
        let guard = guard(
            &host,
            Known {
                own: vec![p("10.244.1.0/24"), p("0.0.0.0/0")],
                neighbors: addrs(&["10.1.1.9", "10.5.0.9", "10.9.9.9"]),
                api_servers: addrs(&["10.7.7.7"]),
                nodes: addrs(&["10.1.1.8", "10.8.8.8"]),
                resolvers: addrs(&["127.0.0.53", "10.0.0.53", "2001:db8:53::53"]),
                metric: METRIC,
                ..Known::default()
            },
        );
        use AddressRole::*;
        let protected = |role| Some(Refusal::Protected(role));
        #[rustfmt::skip]
        let cases: &[(&str, Option<Refusal>)] = &[
            ("0.0.0.0/0",          Some(Refusal::TooShort)),
            ("::/0",               Some(Refusal::TooShort)),
            ("8.0.0.0/7",          Some(Refusal::TooShort)),
            ("8.0.0.0/8",          None),
            ("0.0.0.0/8",          Some(Refusal::Martian)),
            ("127.1.0.0/16",       Some(Refusal::Martian)),
            ("169.254.1.0/24",     Some(Refusal::Martian)),
            ("169.254.0.0/15",     Some(Refusal::Martian)),
            ("224.0.0.0/8",        Some(Refusal::Martian)),
            ("240.0.0.0/4",        Some(Refusal::Martian)),
            ("255.255.255.255/32", Some(Refusal::Martian)),
            ("::1/128",            Some(Refusal::Martian)),
            ("::/80",              Some(Refusal::Martian)),
            ("fe80::/64",          Some(Refusal::Martian)),
            ("10.244.1.5/32",      Some(Refusal::Own)),
            ("10.244.0.0/16",      None),
            ("10.1.1.0/24",        Some(Refusal::Connected)),
            ("10.1.1.255/32",      Some(Refusal::Connected)),
            ("2001:db8:1::/64",    Some(Refusal::Connected)),
            ("10.3.0.0/24",        Some(Refusal::Connected)),
            ("10.1.1.128/25",      None),
            ("10.1.0.0/16",        None),
            ("10.2.0.0/16",        None),
            ("10.1.1.2/32",        protected(OwnAddress)),
            ("10.2.0.1/32",        protected(OwnAddress)),
            ("10.255.0.1/32",      protected(OwnAddress)),
            ("10.255.0.0/31",      None),
            ("10.254.0.0/25",      None),
            ("10.1.1.1/32",        protected(DefaultGateway)),
            ("10.1.1.0/31",        protected(DefaultGateway)),
            ("10.1.1.9/32",        protected(Neighbor)),
            ("10.1.1.8/31",        protected(Node)),
            ("10.5.0.8/31",        protected(Neighbor)),
            ("10.5.0.0/24",        None),
            ("10.9.9.9/32",        None),
            ("10.7.7.0/24",        protected(ApiServer)),
            ("10.8.8.8/32",        protected(Node)),
            ("10.0.0.53/32",       protected(Resolver)),
            ("2001:db8::/32",      protected(Resolver)),
            ("192.0.2.0/24",       None),
            ("100.64.0.0/10",      None),
        ];
        for (prefix, refusal) in cases {
            assert_eq!(guard.refuses(p(prefix), false), *refusal, "{prefix}");
        }
        assert_eq!(guard.refuses(p("0.0.0.0/0"), true), Some(Refusal::Own), "it originates one itself");
        assert_eq!(
            guard.refuses(p("128.0.0.0/1"), true),
            protected(Metadata),
            "reached by the host's default route"
        );
    }

    /// FRR#16877, cilium#17463: without another daemon's route, the learned host route is the only
    /// path.
    #[test]
    fn cilium_17463_what_nothing_else_leads_to_is_learned() {
        let links = [
            link(1, "lo").with("127.0.0.1/8").with("10.9.9.1/32").with("2001:db8:9::1/128"),
            link(2, "eth0").with("10.1.1.2/31").with("2001:db8:1::2/127"),
        ];
        let known = || Known {
            neighbors: addrs(&["10.1.1.3", "2001:db8:1::3", "10.255.0.9", "2001:db8:255::9"]),
            api_servers: addrs(&["10.7.7.7", "2001:db8:7::7"]),
            nodes: addrs(&["10.9.9.2", "2001:db8:9::2"]),
            resolvers: addrs(&["10.0.0.53", "2001:db8:53::53"]),
            metric: METRIC,
            ..Known::default()
        };
        #[rustfmt::skip]
        let learned = [
            ("10.255.0.9/32", None), ("2001:db8:255::9/128", None),
            ("10.7.7.7/32", Some(AddressRole::ApiServer)), ("2001:db8:7::7/128", Some(AddressRole::ApiServer)),
            ("10.9.9.2/32", Some(AddressRole::Node)), ("2001:db8:9::2/128", Some(AddressRole::Node)),
            ("10.0.0.0/24", Some(AddressRole::Resolver)), ("2001:db8:53::/48", Some(AddressRole::Resolver)),
        ];
        let alone = guard(&host(links.clone(), []), known());
        let mut dead = [gateway("0.0.0.0/0", "10.1.1.3", 2), gateway("::/0", "2001:db8:1::3", 2)];
        let defaults = guard(&host(links.clone(), dead.clone()), known());
        dead.iter_mut().for_each(|r| r.hops.clear());
        let unreachable = guard(&host(links, dead), known());
        for (prefix, role) in learned {
            assert_eq!(alone.refuses(p(prefix), false), None, "{prefix}");
            assert_eq!(unreachable.refuses(p(prefix), false), None, "{prefix}: packets end there");
            assert_eq!(defaults.refuses(p(prefix), false), role.map(Refusal::Protected), "{prefix}");
        }
        // Own addresses, and neighbors on link, are protected regardless of routes.
        for guard in [alone, unreachable, defaults] {
            for (prefix, role) in [
                ("10.9.9.1/32", AddressRole::OwnAddress),
                ("2001:db8:9::1/128", AddressRole::OwnAddress),
                ("10.1.1.2/32", AddressRole::OwnAddress),
            ] {
                assert_eq!(guard.refuses(p(prefix), false), Some(Refusal::Protected(role)), "{prefix}");
            }
            for prefix in ["10.1.1.3/32", "2001:db8:1::3/128"] {
                assert!(matches!(guard.refuses(p(prefix), false), Some(Refusal::Protected(_))), "{prefix}");
            }
        }
    }

    #[test]
    fn a_learned_route_in_place_of_one_with_a_higher_metric_is_refused() {
        for (metric, refused) in [(0, false), (METRIC, false), (METRIC + 1, true), (1024, true)] {
            for (prefix, via, resolver) in [
                ("10.0.0.0/24", "10.1.1.1", "10.0.0.53"),
                ("2001:db8:53::/48", "2001:db8:1::1", "2001:db8:53::53"),
            ] {
                let links = [link(2, "eth0").with("10.1.1.2/24").with("2001:db8:1::2/64")];
                let routes = [ForeignRoute { metric, ..gateway(prefix, via, 2) }];
                let known = Known { resolvers: addrs(&[resolver]), metric: METRIC, ..Known::default() };
                let guard = guard(&host(links, routes), known);
                assert_eq!(guard.refuses(p(prefix), false).is_some(), refused, "{prefix} {metric}");
            }
        }
    }
}
