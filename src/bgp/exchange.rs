//! Problems of what an established session carries: routes that are not used, and own prefixes that
//! are not advertised.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    rib::view::{Exchange, Withheld},
    view::{NeighborView, SessionState},
};
use crate::net::{Diagnostic, Family, Prefix, Reason, Subject, Unresolved};

/// The exchanges of all neighbors, by name.
pub type Exchanges = BTreeMap<String, Exchange>;

/// Of every session that is up.
pub fn problems(views: &[NeighborView], exchanges: &Exchanges) -> Vec<Diagnostic> {
    let up = views.iter().filter(|v| v.state == SessionState::Established);
    up.filter_map(|view| Some((view, exchanges.get(&view.address)?)))
        .flat_map(|(view, exchange)| of_neighbor(view, exchange, views))
        .collect()
}

fn of_neighbor(view: &NeighborView, exchange: &Exchange, all: &[NeighborView]) -> Vec<Diagnostic> {
    let advertises = view.advertised.values().any(|n| *n > 0);
    let withheld = unexpected(view, exchange, all);
    let (filtered, missing): (Vec<_>, Vec<_>) =
        withheld.into_iter().partition(|(why, _)| matches!(why, Withheld::Policy(_)));
    let list = [
        refused(view, exchange),
        unresolved(view, exchange),
        advertises.then(|| not_advertised(view, &missing, Reason::PrefixesNotAdvertised)).flatten(),
        advertises.then(|| not_advertised(view, &filtered, Reason::PrefixesFiltered)).flatten(),
        exchange.shutting_down.then(|| shutting_down(view)),
        exchange.originator_shared.then(|| originator_shared(view)),
    ];
    list.into_iter().flatten().collect()
}

fn refused(view: &NeighborView, exchange: &Exchange) -> Option<Diagnostic> {
    let reasons: Vec<_> = exchange.refused.iter().map(|(why, n)| format!("{n} ({why})")).collect();
    let all: u64 = exchange.refused.values().sum();
    let address = &view.address;
    (all > 0).then(|| {
        Diagnostic::new(
            Reason::PrefixesRefused,
            Subject::neighbor(address),
            format!("of the routes of neighbor {address} are refused: {}", reasons.join(", ")),
            format!(
                "where they are wanted, change the import policy or the key that `routelet show routes \
                 --received {address}` names for each"
            ),
        )
    })
}

/// Nodes of a mesh whose subnets differ reach each other through the switch, whose routes are used.
fn unresolved(view: &NeighborView, exchange: &Exchange) -> Option<Diagnostic> {
    if is_of_mesh(view) {
        return None;
    }
    let (_, first) = exchange.unresolved.first()?;
    let hops: Vec<_> =
        exchange.unresolved.iter().map(|(hop, why)| format!("{hop} ({})", cause(*why))).collect();
    let address = &view.address;
    Some(Diagnostic::new(
        Reason::NextHopUnresolved,
        Subject::neighbor(address),
        format!(
            "routes of neighbor {address} are not used, their next hop is not resolved: {}",
            hops.join(", ")
        ),
        match first {
            Unresolved::LinkDown => "see the link and its cable".to_owned(),
            Unresolved::Own => "let the neighbor advertise a next hop other than this host".to_owned(),
            _ => format!(
                "let the neighbor advertise itself as next hop, or add {}",
                way_to(&exchange.unresolved)
            ),
        },
    ))
}

fn cause(why: Unresolved) -> &'static str {
    match why {
        Unresolved::NoRoute => "no route leads there",
        Unresolved::OnlyDefault => "only the default route leads there",
        Unresolved::LinkDown => "its link is down",
        Unresolved::Own => "it is this host",
        Unresolved::TooDeep => "more than 4 routes lead there one over the other",
    }
}

/// What is missing on this host for the first next hop.
fn way_to(hops: &[(IpAddr, Unresolved)]) -> String {
    match hops.first() {
        Some((IpAddr::V6(a), _)) if a.is_unicast_link_local() => "the interface that it is on".into(),
        Some((addr, _)) => format!("a route to {addr} or an address of its subnet on this host"),
        None => String::new(),
    }
}

fn is_of_mesh(view: &NeighborView) -> bool {
    matches!(view.source.as_str(), "mesh" | "reflector")
}

/// The own prefixes that should be advertised to this neighbor and are not. One router may have a
/// session for each family; nodes of the mesh follow their own rules.
fn unexpected<'a>(
    view: &NeighborView,
    exchange: &'a Exchange,
    all: &[NeighborView],
) -> Vec<(&'a Withheld, &'a (u64, Prefix))> {
    if is_of_mesh(view) {
        return Vec::new();
    }
    let carries = |other: &NeighborView, family: &Family| {
        let is_up = other.state == SessionState::Established && other.address != view.address;
        is_up && other.advertised.get(family).is_some_and(|n| *n > 0)
    };
    let same_router = |v: &&NeighborView| (v.router_id, v.remote_as) == (view.router_id, view.remote_as);
    let is_carried = |why: &Withheld| match why {
        Withheld::NotNegotiated(family) => all.iter().any(|v| carries(v, family)),
        Withheld::NoNextHop(family) => all.iter().filter(same_router).any(|v| carries(v, family)),
        Withheld::Policy(_) | Withheld::PolicyRequired => false,
    };
    exchange.withheld.iter().filter(|(why, _)| !is_carried(why)).collect()
}

/// Why own prefixes are not advertised, and what to do about the first reason.
pub(super) fn reasons(view: &NeighborView, exchange: &Exchange) -> Option<(String, String)> {
    explain(view, &unexpected(view, exchange, &[]))
}

fn explain(view: &NeighborView, withheld: &[(&Withheld, &(u64, Prefix))]) -> Option<(String, String)> {
    let (first, _) = withheld.first()?;
    let reasons: Vec<_> = withheld
        .iter()
        .map(|(why, (n, prefix))| match n {
            1 => format!("{prefix} ({})", why_withheld(why)),
            n => format!("{n} as {prefix} ({})", why_withheld(why)),
        })
        .collect();
    Some((reasons.join(", "), remedy_of(first, view)))
}

fn not_advertised(
    view: &NeighborView,
    withheld: &[(&Withheld, &(u64, Prefix))],
    reason: Reason,
) -> Option<Diagnostic> {
    let (reasons, remedy) = explain(view, withheld)?;
    Some(Diagnostic::new(
        reason,
        Subject::neighbor(&view.address),
        format!("own prefixes are not advertised to neighbor {}: {reasons}", view.address),
        remedy,
    ))
}

fn why_withheld(why: &Withheld) -> String {
    match why {
        Withheld::NotNegotiated(family) => format!("the neighbor does not announce {family}"),
        Withheld::NoNextHop(family) => {
            let version = if *family == Family::Ipv6Unicast { "IPv6" } else { "IPv4" };
            format!("no own {version} address on the session's interface as next hop")
        }
        Withheld::Policy(name) => format!("rejected by export policy {name}"),
        Withheld::PolicyRequired => "no export policy, which bgp.require-policy requires".into(),
    }
}

fn remedy_of(why: &Withheld, view: &NeighborView) -> String {
    match why {
        Withheld::NotNegotiated(family) => format!(
            "activate {family} for this host at the neighbor, or take it out of `families` of this neighbor here"
        ),
        Withheld::NoNextHop(Family::Ipv6Unicast) => {
            "add a global IPv6 address to the interface of the session".into()
        }
        Withheld::NoNextHop(Family::Ipv4Unicast) => {
            "add an IPv4 address to the interface of the session, or let the neighbor negotiate extended next \
             hops (RFC 8950)"
                .into()
        }
        Withheld::Policy(name) => {
            format!("where it is to be advertised, accept it in [[policy.{name}]], or remove the policy from `export`")
        }
        Withheld::PolicyRequired => {
            format!("name a policy in `export` of neighbor {}, or set bgp.require-policy = false", view.address)
        }
    }
}

fn shutting_down(view: &NeighborView) -> Diagnostic {
    Diagnostic::new(
        Reason::GracefulShutdown,
        Subject::neighbor(&view.address),
        format!(
            "neighbor {} is about to shut down: its routes have the community GRACEFUL_SHUTDOWN (RFC 8326) and \
             are the last choice",
            view.address
        ),
        "nothing here; the maintenance there ends it",
    )
}

fn originator_shared(view: &NeighborView) -> Diagnostic {
    Diagnostic::new(
        Reason::RouterIdShared,
        Subject::neighbor(&view.address),
        format!(
            "neighbor {} reflects routes of another router with this host's router id, which are refused as \
             loops",
            view.address
        ),
        "give each router an id of its own (bgp.router-id)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::standing::testing::view;

    const SWITCH: &str = "10.0.0.2";

    fn up(address: &str, id: &str, advertised: &[(Family, u64)]) -> NeighborView {
        NeighborView {
            source: "configured".into(),
            advertised: advertised.iter().copied().collect(),
            ..view(address, SessionState::Established, "10.0.0.1", id, Some(1))
        }
    }

    fn found(views: &[NeighborView], exchange: Exchange) -> Vec<Diagnostic> {
        problems(views, &BTreeMap::from([(SWITCH.to_owned(), exchange)]))
    }

    fn withheld(why: Withheld, prefix: &str) -> Exchange {
        let withheld = BTreeMap::from([(why, (1, prefix.parse().unwrap()))]);
        Exchange { withheld, ..Exchange::default() }
    }

    #[test]
    fn a_session_that_carries_everything_has_no_problem() {
        let one = up(SWITCH, "10.9.9.9", &[(Family::Ipv4Unicast, 1)]);
        assert_eq!(found(std::slice::from_ref(&one), Exchange { ended: true, ..Exchange::default() }), []);
        let down = NeighborView { state: SessionState::Active, ..one };
        assert_eq!(found(&[down], Exchange { shutting_down: true, ..Exchange::default() }), []);
    }

    #[test]
    fn refused_routes_are_one_line_with_their_reasons() {
        let refused = BTreeMap::from([("guard: martian", 2), ("rejected by import policy", 40)]);
        let list = found(&[up(SWITCH, "10.9.9.9", &[])], Exchange { refused, ..Exchange::default() });
        assert_eq!(list.len(), 1, "{list:?}");
        for part in [SWITCH, "2 (guard: martian)", "40 (rejected by import policy)", "--received 10.0.0.2"] {
            assert!(list[0].contains(part), "{part}: {list:?}");
        }
    }

    #[test]
    fn next_hops_are_named_with_what_is_missing() {
        #[rustfmt::skip]
        let cases = [
            ("10.7.7.7",  Unresolved::OnlyDefault, "only the default route leads there", "a route to 10.7.7.7"),
            ("fd00:1::9", Unresolved::NoRoute,     "no route leads there",               "an address of its subnet"),
            ("10.0.0.9",  Unresolved::LinkDown,    "its link is down",                   "cable"),
            ("10.0.0.1",  Unresolved::Own,         "it is this host",                    "other than this host"),
        ];
        for (hop, why, text, remedy) in cases {
            let unresolved = vec![(hop.parse().unwrap(), why)];
            let list = found(&[up(SWITCH, "1.1.1.1", &[])], Exchange { unresolved, ..Exchange::default() });
            assert_eq!(list[0].reason, Reason::NextHopUnresolved);
            assert!(list[0].text.contains(text) && list[0].remedy.contains(remedy), "{list:?}");
        }
    }

    #[test]
    fn nodes_of_the_mesh_that_the_switch_leads_to_are_no_problem() {
        let unresolved = vec![("10.1.2.2".parse().unwrap(), Unresolved::OnlyDefault)];
        let exchange = Exchange { unresolved, ..Exchange::default() };
        for source in ["mesh", "reflector"] {
            let node = NeighborView { source: source.into(), ..up(SWITCH, "1.1.1.1", &[]) };
            assert!(found(&[node], exchange.clone()).is_empty(), "{source}");
        }
    }

    #[test]
    fn a_family_is_missed_only_where_no_other_session_carries_it() {
        use Family::{Ipv4Unicast, Ipv6Unicast};
        use Withheld::{NoNextHop, NotNegotiated};
        let first = || up(SWITCH, "10.9.9.9", &[(Ipv4Unicast, 1)]);
        let second = |id: &str, family| up("fd00::2", id, &[(family, 1)]);
        #[rustfmt::skip]
        let cases = [
            ("alone",                     NotNegotiated(Ipv6Unicast), vec![first()], 1),
            ("the same router has it",    NotNegotiated(Ipv6Unicast), vec![first(), second("10.9.9.9", Ipv6Unicast)], 0),
            ("another router has it",     NotNegotiated(Ipv6Unicast), vec![first(), second("10.9.9.8", Ipv6Unicast)], 0),
            ("the other has none of it",  NotNegotiated(Ipv6Unicast), vec![first(), second("10.9.9.9", Ipv4Unicast)], 1),
            ("no next hop",               NoNextHop(Ipv6Unicast),     vec![first()], 1),
            ("the same router over IPv6", NoNextHop(Ipv6Unicast),     vec![first(), second("10.9.9.9", Ipv6Unicast)], 0),
            ("another router over IPv6",  NoNextHop(Ipv6Unicast),     vec![first(), second("10.9.9.8", Ipv6Unicast)], 1),
        ];
        for (name, why, views, n) in cases {
            let list = found(&views, withheld(why, "fd00:5::/64"));
            assert_eq!(list.len(), n, "{name}: {list:?}");
            assert!(list.iter().all(|d| d.contains("fd00:5::/64")), "{name}: {list:?}");
        }
    }

    #[test]
    fn prefixes_that_a_policy_rejects_are_intended() {
        let exchange = || withheld(Withheld::Policy("out".into()), "172.17.0.0/16");
        let list = found(&[up(SWITCH, "10.9.9.9", &[(Family::Ipv4Unicast, 3)])], exchange());
        assert_eq!(list[0].reason, Reason::PrefixesFiltered);
        assert!(list[0].contains("172.17.0.0/16 (rejected by export policy out)"), "{list:?}");
        // NothingAdvertised has the reasons where nothing is advertised at all.
        let none = up(SWITCH, "10.9.9.9", &[(Family::Ipv4Unicast, 0)]);
        assert_eq!(found(std::slice::from_ref(&none), exchange()), []);
        assert!(reasons(&none, &exchange()).is_some_and(|(text, remedy)| {
            text.contains("export policy out") && remedy.contains("[[policy.out]]")
        }));
        let node = NeighborView { source: "mesh".into(), ..none };
        assert_eq!(reasons(&node, &exchange()), None);
    }
}
