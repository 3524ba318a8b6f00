//! `interface = …`: on which interfaces neighbors are looked for, and which were found there.
//!
//! An interface belongs to one `[[bgp.neighbor]]`: the one that names it exactly, or else the first
//! whose pattern matches. BGPPeer objects come before the file. A neighbor that is found has the
//! key `fe80::1%eth1`; without one there is no session, and [`Unfound`] has the reason.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Context,
    bridge::is_named,
    containers::{carries_containers, is_bare_uplink, never_an_uplink},
    neighbor::{Draft, is_link_local},
};
use crate::{
    bgp::peer::{PeerConfig, PeerKey, PeerSource},
    config::{Neighbor, NeighborId, implied_by_interface},
    fib::host::Link,
    net::{Diagnostic, OnLink, Reason, Subject},
    unnumbered::{Interface, Interfaces},
};

/// An interface on which no neighbor was found so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfound {
    /// Its name, or the pattern that matches no interface.
    pub interface: String,
    /// Why none was found, with a remedy.
    pub reason: String,
    /// Since when, in RFC 3339; filled in by a caller with a clock.
    pub since: String,
    /// The settings that the neighbor will have.
    pub settings: Arc<PeerConfig>,
}

/// The neighbor that an interface belongs to.
#[derive(Clone, Copy, Debug)]
struct Claim<'a> {
    source: PeerSource,
    neighbor: &'a Neighbor,
}

/// The configured interfaces in order of precedence.
fn named<'a>(ctx: &Context<'a>) -> Vec<Claim<'a>> {
    let objects = ctx.extra.objects.iter().map(|n| (PeerSource::Object, n));
    let file = ctx.config.bgp.neighbors.iter().map(|n| (PeerSource::Configured, n));
    let mut claims: Vec<_> = objects
        .chain(file)
        .filter(|(_, n)| matches!(n.at, NeighborId::Interface(_) | NeighborId::Uplinks))
        .map(|(source, neighbor)| Claim { source, neighbor })
        .collect();
    claims.sort_by_key(|c| match &c.neighbor.at {
        NeighborId::Interface(name) => is_pattern(name).into(),
        _ => 2,
    });
    claims
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Each interface with the neighbor that it belongs to.
fn claimed<'a>(ctx: &Context<'a>) -> Vec<(&'a Link, Claim<'a>)> {
    let claims = named(ctx);
    let claim = |link: &Link| claims.iter().find(|c| fits(ctx, &c.neighbor.at, link)).copied();
    ctx.host.links.values().filter_map(|link| Some((link, claim(link)?))).collect()
}

/// Whether neighbors are looked for on this link.
pub(super) fn is_looked_for_on(ctx: &Context<'_>, ifindex: u32) -> bool {
    let link = ctx.host.links.get(&ifindex);
    link.is_some_and(|link| named(ctx).iter().any(|claim| fits(ctx, &claim.neighbor.at, link)))
}

/// Whether the configured interface matches this link, and neighbors may be there.
fn fits(ctx: &Context<'_>, at: &NeighborId, link: &Link) -> bool {
    match at {
        NeighborId::Interface(pattern) if is_pattern(pattern) => {
            is_named(std::slice::from_ref(pattern), link) && !carries_containers(ctx, link)
        }
        NeighborId::Interface(name) => link.name == *name && never_an_uplink(ctx, link).is_none(),
        NeighborId::Uplinks => is_bare_uplink(ctx, link),
        _ => false,
    }
}

/// Where neighbors are looked for.
pub(super) fn interfaces(ctx: &Context<'_>) -> Interfaces {
    let links = claimed(ctx).into_iter().map(|(link, claim)| {
        let interface = Interface {
            name: link.name.clone(),
            limit: claim.neighbor.limit,
            link_local: link_locals(link, true).next(),
            lacks_address: link_locals(link, false).next().is_none(),
            can_send: ctx.host.can_send(link),
            generation: link.generation,
        };
        (link.index, interface)
    });
    let own = ctx.host.links.values().flat_map(|l| link_locals(l, false)).collect();
    Interfaces { links: links.collect(), own }
}

/// Link-local addresses of an interface: all, or only those that are usable.
fn link_locals(link: &Link, usable: bool) -> impl Iterator<Item = std::net::Ipv6Addr> + '_ {
    let wanted = link.addresses.iter().filter(move |a| is_link_local(a.addr) && !(usable && a.tentative));
    wanted.filter_map(|a| if let IpAddr::V6(addr) = a.addr { Some(addr) } else { None })
}

/// The neighbors that were found.
pub(super) fn drafts<'a>(ctx: &Context<'a>) -> Vec<Draft<'a>> {
    let all = claimed(ctx).into_iter();
    all.flat_map(|(link, claim)| keys_on(ctx, link).into_iter().map(move |key| draft(claim, key))).collect()
}

/// The keys of the neighbors that were found for `at`.
pub(super) fn keys(ctx: &Context<'_>, at: &NeighborId) -> Vec<PeerKey> {
    ctx.host.links.values().filter(|l| fits(ctx, at, l)).flat_map(|l| keys_on(ctx, l)).collect()
}

fn keys_on(ctx: &Context<'_>, link: &Link) -> Vec<PeerKey> {
    let found = ctx.extra.found.get(&link.name).into_iter().flat_map(|on| &on.neighbors);
    found.map(|addr| PeerKey::LinkLocal(*addr, link.name.clone())).collect()
}

fn draft(claim: Claim<'_>, key: PeerKey) -> Draft<'_> {
    Draft {
        key,
        source: claim.source,
        group: claim.neighbor.group.as_deref(),
        implied: implied_by_interface(),
        keys: claim.neighbor.keys.clone(),
    }
}

/// The interfaces on which no neighbor was found, with the reason.
pub(super) fn unfound(ctx: &Context<'_>, problems: &mut Vec<Diagnostic>) -> Vec<Unfound> {
    let mut list = BTreeMap::new();
    for claim in named(ctx) {
        // Uplinks that are not configured by name need no neighbor.
        let NeighborId::Interface(name) = &claim.neighbor.at else { continue };
        if !ctx.host.links.values().any(|l| fits(ctx, &claim.neighbor.at, l)) {
            let reason = nowhere(ctx, name);
            problems.extend((!is_pattern(name)).then(|| problem(name, &reason)));
            list.insert(name.clone(), (claim, reason));
        }
    }
    for (link, claim) in claimed(ctx).into_iter().filter(|(_, c)| c.neighbor.at != NeighborId::Uplinks) {
        let on_link = ctx.extra.found.get(&link.name);
        if on_link.is_none_or(|on| on.neighbors.is_empty()) {
            let reason = why_not_found(ctx, link, on_link);
            let overdue = on_link.is_some_and(|on| on.is_overdue || on.trouble.is_some());
            let disabled = ctx.extra.disabled.contains(&PeerKey::Interface(link.name.clone()));
            problems.extend((overdue && !disabled).then(|| problem(&link.name, &reason)));
            list.insert(link.name.clone(), (claim, reason));
        }
    }
    // Problems of their settings are reported once a neighbor is found.
    let settings = |claim, name: &String| {
        Arc::new(draft(claim, PeerKey::Interface(name.clone())).finish(ctx, &mut Vec::new()))
    };
    let rows = list.into_iter().map(|(interface, (claim, reason))| {
        let settings = settings(claim, &interface);
        Unfound { interface, reason, since: String::new(), settings }
    });
    rows.collect()
}

fn problem(interface: &str, reason: &str) -> Diagnostic {
    Diagnostic::new(
        Reason::NeighborNotFound,
        Subject::interface(interface),
        format!("there is no BGP neighbor on {interface}: {reason}"),
        format!("`routelet show neighbor {interface}` has the details"),
    )
}

/// Why a name matches no interface.
fn nowhere(ctx: &Context<'_>, pattern: &str) -> String {
    if is_pattern(pattern) {
        return format!("no interface of this host that may be an uplink matches `{pattern}` so far");
    }
    match ctx.host.link(pattern) {
        Some(link) => never_an_uplink(ctx, link).unwrap_or_default(),
        None => format!("there is no interface {pattern}; correct `interface`, or wait for it to appear"),
    }
}

/// Why no neighbor was found on an interface.
fn why_not_found(ctx: &Context<'_>, link: &Link, on_link: Option<&OnLink>) -> String {
    let name = &link.name;
    if let Some(trouble) = on_link.and_then(|on| on.trouble.clone()) {
        return trouble;
    }
    if !link.up {
        return format!("{name} is down: run `ip link set {name} up`");
    }
    if !ctx.host.can_send(link) {
        return format!("{name} has no carrier: check the cable, and the port at its other end");
    }
    if link_locals(link, true).next().is_none() {
        return format!("{name} has no usable IPv6 link-local address yet");
    }
    format!(
        "no router advertisement received on {name}: configure unnumbered BGP at its other end, or enable IPv6 router \
         advertisements there"
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, config, node, nodes},
        *,
    };
    use crate::{
        config::{Config, NeighborKeys},
        fib::host::testing::{host, link},
    };

    fn unnumbered(patterns: &[&str]) -> Config {
        let mut c = config();
        c.bgp.router_id = Some([192, 0, 2, 1].into());
        c.bgp.asn = crate::config::AsSetting::Number(64512);
        c.bgp.neighbors = patterns
            .iter()
            .map(|p| Neighbor {
                at: NeighborId::Interface((*p).into()),
                group: None,
                limit: 1,
                keys: NeighborKeys::default(),
            })
            .collect();
        c
    }

    fn on(addrs: &[&str], overdue: bool) -> OnLink {
        let neighbors = addrs.iter().map(|a| a.parse().unwrap()).collect();
        OnLink { neighbors, is_overdue: overdue, trouble: None }
    }

    fn case(patterns: &[&str], links: impl IntoIterator<Item = Link>, found: &[(&str, OnLink)]) -> Case {
        let mut case = Case::new(unnumbered(patterns), None, host(links, []));
        case.extra.found =
            Arc::new(found.iter().map(|(name, on)| ((*name).to_owned(), on.clone())).collect());
        case
    }

    fn names(case: &Case) -> Vec<String> {
        interfaces(&case.context()).links.values().map(|i| i.name.clone()).collect()
    }

    fn card(index: u32, name: &str) -> Link {
        Link { kind: String::new(), ..link(index, name) }
    }

    #[test]
    fn who_was_found_is_a_neighbor_with_the_link_local_address_as_its_own() {
        let eth1 = card(3, "eth1").with("fe80::2/64");
        let case =
            case(&["eth1"], [eth1], &[("eth1", on(&["fe80::1"], false)), ("eth9", on(&["fe80::9"], false))]);
        let plan = case.plan();
        let peer = plan.peers.values().next().unwrap();
        assert_eq!((peer.key.to_string().as_str(), plan.peers.len()), ("fe80::1%eth1", 1));
        assert_eq!((peer.remote_as, peer.allow_own_as), (crate::bgp::peer::RemoteAs::External, 1));
        assert_eq!(peer.own.link_local, "fe80::2".parse().ok());
        assert!(plan.unfound.is_empty() && plan.problems.is_empty(), "{:?}", plan.problems);
    }

    #[test]
    fn the_exact_name_comes_before_a_pattern_and_the_first_pattern_before_others() {
        let links = || [card(3, "eth1"), card(4, "eth2"), card(5, "ens1")];
        let mut case = case(&["e*", "eth*", "eth2"], links(), &[]);
        for (n, limit) in case.config.bgp.neighbors.iter_mut().zip(1..) {
            n.limit = limit;
        }
        let limits: Vec<_> =
            interfaces(&case.context()).links.into_values().map(|i| (i.name, i.limit)).collect();
        assert_eq!(limits, [("eth1".into(), 1), ("eth2".into(), 3), ("ens1".into(), 1)]);
    }

    #[test]
    fn interfaces_of_containers_and_ports_are_no_uplinks_whatever_the_pattern() {
        let port = |index, master: u32, kind: &str| Link {
            master: Some(master),
            kind: kind.into(),
            ..link(index, &format!("p{index}"))
        };
        let bridge = |index, name: &str| Link { kind: "bridge".into(), ..link(index, name) };
        let links = [
            link(1, "lo").with("127.0.0.1/8"),
            card(2, "eth0"),
            Link { kind: "vlan".into(), ..card(3, "eth0.7") },
            Link { kind: "bond".into(), ..card(4, "bond0") },
            port(5, 4, ""),
            bridge(6, "docker0"),
            port(7, 6, "veth"),
            bridge(8, "br-ex"),
            port(9, 8, ""),
            bridge(10, "routelet0"),
            link(11, "veth1"),
            link(12, "cali1"),
            card(13, "dmz0").with("192.0.2.1/24"),
        ];
        let mut pods = crate::fib::host::testing::gateway("10.244.1.5/32", "10.0.0.1", 12);
        pods.hops[0].gateway = None;
        let mut c = unnumbered(&["*"]);
        c.advertise.interfaces = vec!["dmz*".into()];
        let own = nodes([node("n1", &["10.0.0.2"], &[])]);
        let mut case = Case::new(c, Some(own), host(links, [pods]));
        assert_eq!(names(&case), ["eth0", "eth0.7", "bond0", "br-ex", "veth1"]);

        // Configured by name, each is refused for a reason, or accepted.
        #[rustfmt::skip]
        let cases = [
            ("lo",        "lo is the loopback"),
            ("p5",        "p5 is a port of bond0, which has the addresses: name bond0"),
            ("docker0",   "docker0 is a bridge to which containers are attached"),
            ("routelet0", "routelet0 is the pods' bridge"),
            ("eth7",      "there is no interface eth7"),
        ];
        for (name, reason) in cases {
            case.config.bgp.neighbors = unnumbered(&[name]).bgp.neighbors;
            assert!(names(&case).is_empty(), "{name}");
            let mut problems = Vec::new();
            let rows = unfound(&case.context(), &mut problems);
            assert!(rows[0].reason.contains(reason) && problems[0].contains(reason), "{name}: {problems:?}");
        }
        for name in ["cali1", "dmz0"] {
            case.config.bgp.neighbors = unnumbered(&[name]).bgp.neighbors;
            assert_eq!(names(&case), [name]);
        }
    }

    #[test]
    fn where_nobody_is_found_the_reason_is_shown_and_after_a_while_a_problem() {
        let eth1 = || card(3, "eth1").with("fe80::2/64");
        let mut tentative = eth1();
        tentative.addresses[0].tentative = true;
        #[rustfmt::skip]
        let cases = [
            (eth1(),                       "no router advertisement received on eth1"),
            (eth1().no_carrier(),          "eth1 has no carrier"),
            (eth1().down(),                "run `ip link set eth1 up`"),
            (tentative,                    "no usable IPv6 link-local address"),
        ];
        for (link, reason) in cases {
            for overdue in [false, true] {
                let case = case(&["eth1"], [link.clone()], &[("eth1", on(&[], overdue))]);
                let mut problems = Vec::new();
                let rows = unfound(&case.context(), &mut problems);
                assert!(rows.len() == 1 && rows[0].reason.contains(reason), "{rows:?}");
                assert_eq!(problems.len(), usize::from(overdue), "{problems:?}");
            }
        }
    }

    #[test]
    fn a_pattern_that_fits_nothing_yet_is_a_row_and_no_problem() {
        let case = case(&["swp*"], [card(3, "eth1")], &[]);
        let mut problems = Vec::new();
        let rows = unfound(&case.context(), &mut problems);
        assert_eq!((rows[0].interface.as_str(), problems.len()), ("swp*", 0));
    }

    #[test]
    fn own_addresses_of_all_links_are_known_and_tentative_ones_are_not_sent_from() {
        let mut eth1 = card(3, "eth1").with("fe80::2/64");
        eth1.addresses[0].tentative = true;
        let case = case(&["eth1"], [eth1, card(4, "eth2").with("fe80::3/64"), card(5, "eth3")], &[]);
        let all = interfaces(&case.context());
        assert_eq!(all.own, ["fe80::2".parse().unwrap(), "fe80::3".parse().unwrap()].into());
        let eth1 = &all.links[&3];
        assert!(eth1.link_local.is_none() && !eth1.lacks_address && all.links.len() == 1);
    }
}
