//! Problems that only the sessions of all neighbors together show.

use std::collections::BTreeMap;

use super::view::{NeighborView, SessionState};
use crate::net::{Diagnostic, Reason, Subject};

/// For how many seconds the OPEN of a neighbor without a session counts.
const RECENT: u64 = 300;

/// Everything that keeps sessions down, or ends them, until the operator changes something.
pub fn problems(views: &[NeighborView]) -> Vec<Diagnostic> {
    let needs = views.iter().flat_map(|v| v.needs.iter().cloned());
    needs.chain(one_router(views)).chain(without_bfd(views)).collect()
}

/// How long BFD may take after BGP has a session.
const BFD_START: u64 = 30;

/// Neighbors that have a session, and no BFD although it is configured.
fn without_bfd(views: &[NeighborView]) -> impl Iterator<Item = Diagnostic> {
    let settled = |v: &&NeighborView| {
        let up = v.state == SessionState::Established;
        up && v.bfd_missing && v.open_age.is_some_and(|seconds| seconds >= BFD_START)
    };
    views.iter().filter(settled).map(|view| {
        Diagnostic::new(
            Reason::BfdDown,
            Subject::neighbor(&view.address),
            format!("neighbor {} has a session, but BFD is not up", view.address),
            "enable BFD for this host there and let UDP port 3784 (over several hops 4784) through, or remove \
             `bfd` here; `routelet show bfd` has the details",
        )
    })
}

/// Finds neighbors with one router id and one AS number on the same address of ours. A router
/// identifies its neighbors by address, so it can have one session with us over that address: each
/// further one is refused, or ends the one before. Sessions of another family or over another link
/// use another address of ours, and are correct.
fn one_router(views: &[NeighborView]) -> Vec<Diagnostic> {
    let mut routers: BTreeMap<_, Vec<&NeighborView>> = BTreeMap::new();
    for view in views {
        let up = view.state == SessionState::Established;
        let lately = up || view.open_age.is_some_and(|seconds| seconds < RECENT);
        let disabled = view.state == SessionState::Disabled;
        if let (Some(id), Some(asn), Some(local)) = (view.router_id, view.remote_as, view.local_address)
            && lately
            && !disabled
        {
            routers.entry((id, asn, local, view.interface.as_deref())).or_default().push(view);
        }
    }
    let several = routers
        .into_iter()
        .filter(|(_, list)| list.len() > 1 && list.iter().any(|v| v.state == SessionState::Established));
    several
        .map(|((id, asn, ..), list)| {
            let names: Vec<_> = list.iter().map(|v| v.address.as_str()).collect();
            Diagnostic::new(
                Reason::RouterIdShared,
                Subject::neighbor(names.join(", ")),
                format!("neighbors {} have the same router id, {id} of AS {asn}", and(&names)),
                "where they are one router, keep one of its addresses; where they are not, give each a router \
                 id of its own",
            )
        })
        .collect()
}

/// `a, b and c`.
fn and(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;

    use super::*;
    use crate::bgp::{
        peer::{Global, PeerConfig, RemoteAs},
        session::Session,
    };

    #[expect(clippy::disallowed_methods, reason = "an epoch")]
    pub(in crate::bgp) fn view(
        address: &str,
        state: SessionState,
        local: &str,
        id: &str,
        open_age: Option<u64>,
    ) -> NeighborView {
        let now = std::time::Instant::now();
        let config = PeerConfig::new(address.parse().unwrap(), RemoteAs::Any, 65000);
        let global = Global {
            asn: 65000,
            router_id: [10, 0, 0, 1].into(),
            cluster_id: [10, 0, 0, 1].into(),
            max_paths: 1,
            multipath_relax: true,
            restarting: false,
        };
        let empty = Session::new(now, Arc::new(config), global, 1).view(now);
        NeighborView {
            state,
            router_id: id.parse().ok(),
            remote_as: Some(65001),
            local_address: local.parse().ok(),
            open_age,
            ..empty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::view, *};

    #[test]
    fn a_session_whose_bfd_stays_down_is_a_problem() {
        let one = |state, seconds, bfd_missing| NeighborView {
            bfd_missing,
            ..view("10.0.0.2", state, "10.0.0.1", "10.9.9.9", Some(seconds))
        };
        use SessionState::{Active, Established};
        let found = problems(&[one(Established, 30, true)]);
        assert!(found[0].contains("10.0.0.2") && found[0].contains("3784"), "{found:?}");
        for quiet in [one(Established, 29, true), one(Established, 30, false), one(Active, 30, true)] {
            assert_eq!(problems(&[quiet]), []);
        }
    }

    #[test]
    fn several_neighbors_with_one_router_id_are_one_problem() {
        use SessionState::{Active, Disabled, Established};
        let one = |state, open_age| view("10.0.0.2", state, "10.0.0.1", "10.9.9.9", open_age);
        let other = |state, open_age| view("10.0.0.3", state, "10.0.0.1", "10.9.9.9", open_age);
        let third = view("10.0.0.4", Established, "10.0.0.1", "10.9.9.9", Some(1));
        let found = problems(&[one(Established, Some(9)), other(Established, Some(1)), third]);
        assert_eq!(found.len(), 1, "{found:?}");
        let text = "neighbors 10.0.0.2, 10.0.0.3 and 10.0.0.4 have the same router id, 10.9.9.9 of AS 65001";
        assert_eq!((found[0].reason, found[0].text.as_str()), (Reason::RouterIdShared, text));
        #[rustfmt::skip]
        let cases = [
            ("one is refused now",     vec![one(Established, Some(900)), other(Active, Some(3))], 1),
            ("one was, long ago",      vec![one(Established, Some(900)), other(Active, Some(301))], 0),
            ("one never sent an OPEN", vec![one(Established, Some(900)), other(Active, None)], 0),
            ("both are down",          vec![one(Active, Some(3)), other(Active, Some(3))], 0),
            ("one is disabled",        vec![one(Established, Some(3)), other(Disabled, Some(3))], 0),
            ("another family",         vec![one(Established, Some(3)), view("fd00::2", Established, "fd00::1", "10.9.9.9", Some(1))], 0),
            ("another link",           vec![one(Established, Some(3)), view("10.0.1.2", Established, "10.0.1.1", "10.9.9.9", Some(1))], 0),
            ("link-local, two links",  vec![view("fe80::2%eth0", Established, "fe80::1", "10.9.9.9", Some(1)), view("fe80::2%eth1", Established, "fe80::1", "10.9.9.9", Some(1))], 0),
            ("another router",         vec![one(Established, Some(3)), view("10.0.0.5", Established, "10.0.0.1", "10.9.9.8", Some(1))], 0),
        ];
        for (name, views, want) in cases {
            assert_eq!(problems(&views).len(), want, "{name}: {:?}", problems(&views));
        }
    }
}
