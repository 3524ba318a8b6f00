//! Neighbors without a session, and sessions that carry nothing, once that has lasted a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::view::{NeighborView, SessionState};
use crate::net::{Diagnostic, Reason, Subject};

/// How long a neighbor may take to come up, and its first routes to arrive.
const GRACE: Duration = Duration::from_secs(10);

/// Since when each neighbor is up, or is not.
#[derive(Debug, Default)]
pub struct Outages {
    neighbors: BTreeMap<String, (bool, Instant)>,
}

impl Outages {
    /// The problems at this time. `originates`: whether this host has prefixes to advertise.
    pub fn handle(&mut self, now: Instant, views: &[NeighborView], originates: bool) -> Vec<Diagnostic> {
        self.neighbors.retain(|name, _| views.iter().any(|v| v.address == *name));
        let mut problems = Vec::new();
        for view in views {
            let is_up = view.state == SessionState::Established;
            let entry = self.neighbors.entry(view.address.clone()).or_insert((is_up, now));
            if entry.0 != is_up {
                *entry = (is_up, now);
            }
            if now.duration_since(entry.1) < GRACE {
                continue;
            }
            match is_up {
                true => problems.extend(silent(view, originates)),
                false => problems.extend(down(view)),
            }
        }
        problems
    }
}

/// Of neighbors that somebody configured: those that routelet makes for itself may be absent.
fn down(view: &NeighborView) -> Option<Diagnostic> {
    if !is_configured(view) || view.state == SessionState::Disabled || !view.needs.is_empty() {
        return None;
    }
    let why = view.last_error.as_deref().unwrap_or("no attempt has ended yet");
    Some(Diagnostic::new(
        Reason::NeighborDown,
        Subject::neighbor(&view.address),
        format!("neighbor {} has no session: {why}", view.address),
        format!(
            "compare address, AS numbers, password and multihop at both ends, and see that TCP port 179 is \
             open; `routelet show neighbor {}` has the details",
            view.address
        ),
    ))
}

fn is_configured(view: &NeighborView) -> bool {
    matches!(view.source.as_str(), "configured" | "object")
}

/// Sessions that are up and carry no routes one way.
fn silent(view: &NeighborView, originates: bool) -> Vec<Diagnostic> {
    let none = |counts: &BTreeMap<_, u64>| counts.values().all(|n| *n == 0);
    let subject = || Subject::neighbor(&view.address);
    let received = (is_configured(view) && none(&view.received)).then(|| {
        Diagnostic::new(
            Reason::NothingReceived,
            subject(),
            format!("neighbor {} has a session and has sent no route", view.address),
            "where routes are expected, see its export policy and its outbound filters for this host",
        )
    });
    let advertised = (originates && none(&view.advertised)).then(|| {
        Diagnostic::new(
            Reason::NothingAdvertised,
            subject(),
            format!("no own prefix is advertised to neighbor {}", view.address),
            format!(
                "see its `export` policies and families: `routelet show neighbor {0}` and `routelet show \
                 routes --advertised {0}`",
                view.address
            ),
        )
    });
    received.into_iter().chain(advertised).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;
    use crate::{bgp::standing::testing::view, net::Family};

    fn one(state: SessionState, source: &str, received: u64, advertised: u64) -> NeighborView {
        let count = |n| BTreeMap::from([(Family::Ipv4Unicast, n)]);
        NeighborView {
            source: source.into(),
            last_error: Some("connection refused".into()),
            received: count(received),
            advertised: count(advertised),
            ..view("10.0.0.2", state, "10.0.0.1", "10.9.9.9", None)
        }
    }

    #[test]
    fn a_state_that_lasts_is_a_problem() {
        use Reason::{NeighborDown, NothingAdvertised, NothingReceived};
        use SessionState::{Active, Disabled, Established};
        #[rustfmt::skip]
        let cases: [(&str, NeighborView, bool, &[Reason]); 8] = [
            ("down",                     one(Active, "configured", 0, 0),      true,  &[NeighborDown]),
            ("of a BGPPeer",             one(Active, "object", 0, 0),          true,  &[NeighborDown]),
            ("a gateway may be absent",  one(Active, "gateway", 0, 0),         true,  &[]),
            ("disabled",                 one(Disabled, "configured", 0, 0),    true,  &[]),
            ("both ways",                one(Established, "configured", 3, 1), true,  &[]),
            ("nothing received",         one(Established, "configured", 0, 1), true,  &[NothingReceived]),
            ("nothing advertised",       one(Established, "configured", 3, 0), true,  &[NothingAdvertised]),
            ("nothing to advertise",     one(Established, "configured", 3, 0), false, &[]),
        ];
        let start = Instant::now();
        for (name, view, originates, expected) in cases {
            let mut outages = Outages::default();
            let views = [view];
            assert!(outages.handle(start, &views, originates).is_empty(), "{name}: at once");
            assert!(outages.handle(start + GRACE / 2, &views, originates).is_empty(), "{name}: too early");
            let found = outages.handle(start + GRACE, &views, originates);
            let reasons: Vec<_> = found.iter().map(|d| d.reason).collect();
            assert_eq!(reasons, expected, "{name}");
        }
    }

    #[test]
    fn the_time_begins_anew_with_each_change() {
        let start = Instant::now();
        let mut outages = Outages::default();
        let (up, down) = (
            one(SessionState::Established, "configured", 1, 1),
            one(SessionState::Connect, "configured", 0, 0),
        );
        assert!(outages.handle(start, std::slice::from_ref(&up), true).is_empty());
        assert!(outages.handle(start + GRACE, std::slice::from_ref(&down), true).is_empty());
        let found = outages.handle(start + GRACE * 2, std::slice::from_ref(&down), true);
        assert!(found[0].contains("connection refused"), "{found:?}");
        assert!(outages.handle(start + GRACE * 3, &[], true).is_empty() && outages.neighbors.is_empty());
    }
}
