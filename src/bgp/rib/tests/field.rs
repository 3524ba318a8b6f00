//! What users of BGP daemons reported of routes; each test is named after its report.

use super::*;
use crate::{
    bgp::peer::DownCause,
    net::{Gateway, Reach, Reachable},
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn hop(addr: &str, link_local: Option<&str>) -> PathNextHop {
    PathNextHop { addr: addr.parse().unwrap(), link_local: link_local.map(|a| a.parse().unwrap()) }
}

fn reachable(subnets: &[(&str, u32)], links: &[u32]) -> Input<'static> {
    let entry = |(subnet, ifindex): &(&str, u32)| (p(subnet), Reach::Connected { ifindex: *ifindex });
    let entries = subnets.iter().map(entry).collect();
    Input::Reachable(Arc::new(Reachable::new(entries).with_links(links.to_vec())))
}

fn gateway(bench: &Bench, prefix: &str) -> Option<Gateway> {
    bench.fib.get(&p(prefix)).map(|hops| hops.gateways()[0])
}

fn via(addr: &str, ifindex: u32) -> Option<Gateway> {
    Some(Gateway { addr: addr.parse().unwrap(), ifindex })
}

/// A switch with IPv4 and link-local IPv6 on the link sends IPv6 routes over the IPv4 session.
#[test]
fn link_local_next_hops_count_on_every_directly_connected_session() {
    for (remote, local) in [("10.0.0.11", "10.0.0.1"), ("2001:db8::11", "2001:db8::1")] {
        let mut bench = Bench::new();
        let subnets = [("10.0.0.0/24", 2), ("2001:db8::/64", 2)];
        bench.rib.handle(bench.now, reachable(&subnets, &[2]));
        bench.configure(1, config(1));
        let session = Negotiated {
            remote_addr: remote.parse().unwrap(),
            local_addr: local.parse().unwrap(),
            ..negotiated(1, 65001)
        };
        bench.up(1, session);
        #[rustfmt::skip]
        let cases = [
            ("fd01::/48", hop("fe80::9", None),                     via("fe80::9", 2)),
            ("fd02::/48", hop("2001:db8::9", Some("fe80::9")),      via("2001:db8::9", 0)),
            ("fd03::/48", hop("2001:db8:77::9", Some("fe80::9")),   via("fe80::9", 2)),
            ("fd04::/48", hop("2001:db8:77::9", None),              None),
        ];
        for (prefix, next_hop, _) in cases {
            bench.announce(1, &Attrs { next_hop, ..path(1, 65001) }, &[p(prefix)]);
        }
        bench.run();
        for (prefix, _, want) in cases {
            assert_eq!(gateway(&bench, prefix), want, "{prefix} over {remote}");
        }
        // The interface is made anew under another number while the session stands.
        bench.rib.handle(bench.now, reachable(&[("10.0.0.0/24", 5), ("2001:db8::/64", 5)], &[5]));
        bench.run();
        assert_eq!(gateway(&bench, "fd01::/48"), via("fe80::9", 5), "{remote}");
        assert_eq!(gateway(&bench, "fd03::/48"), via("fe80::9", 5), "{remote}");
        // The subnet of the global address goes, and comes back.
        if remote.starts_with("10.") {
            bench.rib.handle(bench.now, reachable(&[("10.0.0.0/24", 5)], &[5]));
            bench.run();
            assert_eq!(gateway(&bench, "fd02::/48"), via("fe80::9", 5), "the pair's other address");
            bench.rib.handle(bench.now, reachable(&[("10.0.0.0/24", 5), ("2001:db8::/64", 5)], &[5]));
            bench.run();
            assert_eq!(gateway(&bench, "fd02::/48"), via("2001:db8::9", 0));
        }
        bench.down(1, DownCause::Administrative);
        bench.run();
        assert!(bench.fib.is_empty());
    }
}

#[test]
fn a_link_local_next_hop_means_nothing_where_the_neighbor_is_not_on_a_link() {
    let mut bench = Bench::new();
    bench.configure(1, config(1));
    bench.up(1, Negotiated { remote_addr: "10.9.0.1".parse().unwrap(), ..negotiated(1, 65001) });
    bench.announce(1, &Attrs { next_hop: hop("fe80::9", None), ..path(1, 65001) }, &[p("fd01::/48")]);
    bench.run();
    assert_eq!(gateway(&bench, "fd01::/48"), None);
}
