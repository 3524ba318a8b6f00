//! Neighbors without a session, and sessions that carry nothing, once that has lasted a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    exchange::{Exchanges, reasons},
    rib::view::Exchange,
    view::{NeighborView, SessionState},
};
use crate::net::{Diagnostic, Reason, Subject};

/// How long a neighbor may take to come up, and its first routes to arrive.
pub const GRACE: Duration = Duration::from_secs(4);

/// Since when each neighbor is up, or is not.
#[derive(Debug, Default)]
pub struct Outages {
    neighbors: BTreeMap<String, (bool, Instant)>,
}

impl Outages {
    /// The problems at this time. `originates`: whether this host has prefixes to advertise.
    pub fn handle(
        &mut self,
        now: Instant,
        views: &[NeighborView],
        exchanges: &Exchanges,
        originates: bool,
    ) -> Vec<Diagnostic> {
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
                true => problems.extend(silent(view, exchanges.get(&view.address), originates)),
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
    let address = &view.address;
    let (why, remedy) = view.diagnosis.clone().unwrap_or_else(|| {
        let why = view.last_error.as_deref().unwrap_or("no attempt has ended yet");
        let remedy = format!(
            "compare address, AS numbers, password and multihop at both ends, and see that TCP port 179 is \
             open; `routelet show neighbor {address}` has the details"
        );
        (why.into(), remedy)
    });
    Some(Diagnostic::new(
        Reason::NeighborDown,
        Subject::neighbor(address),
        format!("neighbor {address} has no session: {why}"),
        remedy,
    ))
}

fn is_configured(view: &NeighborView) -> bool {
    matches!(view.source.as_str(), "configured" | "object")
}

/// Sessions that are up and carry no routes one way.
fn silent(view: &NeighborView, exchange: Option<&Exchange>, originates: bool) -> Vec<Diagnostic> {
    let sum = |counts: &BTreeMap<_, u64>| counts.values().sum::<u64>();
    let returned = exchange.map_or(0, |e| e.returned);
    let received =
        (is_configured(view) && sum(&view.received) <= returned).then(|| nothing_received(view, exchange));
    let advertised = (originates && sum(&view.advertised) == 0).then(|| nothing_advertised(view, exchange));
    received.into_iter().chain(advertised).collect()
}

fn nothing_received(view: &NeighborView, exchange: Option<&Exchange>) -> Diagnostic {
    let address = &view.address;
    let text = match exchange.is_some_and(|e| e.ended) {
        true => {
            format!("neighbor {address} has sent End-of-RIB and no route: it advertises nothing to this host")
        }
        false => format!("neighbor {address} has a session and has sent no route"),
    };
    let remedy = "where routes are expected, see its export policy and its outbound filters for this host";
    Diagnostic::new(Reason::NothingReceived, Subject::neighbor(address), text, remedy)
}

fn nothing_advertised(view: &NeighborView, exchange: Option<&Exchange>) -> Diagnostic {
    let address = &view.address;
    let (why, remedy) = match exchange.and_then(|e| reasons(view, e)) {
        Some((why, remedy)) => (format!(": {why}"), remedy),
        None => {
            let remedy = format!(
                "see its `export` policies and families: `routelet show neighbor {address}` and `routelet show \
                 routes --advertised {address}`"
            );
            (String::new(), remedy)
        }
    };
    let text = format!("no own prefix is advertised to neighbor {address}{why}");
    Diagnostic::new(Reason::NothingAdvertised, Subject::neighbor(address), text, remedy)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests pick their own epoch")]
mod tests {
    use super::*;
    use crate::{
        bgp::{rib::view::Withheld, standing::testing::view},
        net::Family,
    };

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
            assert!(
                outages.handle(start, &views, &Exchanges::new(), originates).is_empty(),
                "{name}: at once"
            );
            assert!(
                outages.handle(start + GRACE / 2, &views, &Exchanges::new(), originates).is_empty(),
                "{name}: too early"
            );
            let found = outages.handle(start + GRACE, &views, &Exchanges::new(), originates);
            let reasons: Vec<_> = found.iter().map(|d| d.reason).collect();
            assert_eq!(reasons, expected, "{name}");
        }
    }

    #[test]
    fn the_time_begins_anew_with_each_change() {
        let start = Instant::now();
        let (mut outages, none) = (Outages::default(), Exchanges::new());
        let (up, down) = (
            one(SessionState::Established, "configured", 1, 1),
            one(SessionState::Connect, "configured", 0, 0),
        );
        assert!(outages.handle(start, std::slice::from_ref(&up), &none, true).is_empty());
        assert!(outages.handle(start + GRACE, std::slice::from_ref(&down), &none, true).is_empty());
        let found = outages.handle(start + GRACE * 2, std::slice::from_ref(&down), &none, true);
        assert!(found[0].contains("connection refused"), "{found:?}");
        assert!(
            outages.handle(start + GRACE * 3, &[], &none, true).is_empty() && outages.neighbors.is_empty()
        );
    }

    #[test]
    fn the_text_has_what_is_known_of_the_cause() {
        let start = Instant::now();
        let named = |view: NeighborView, exchange: Exchange| {
            let mut outages = Outages::default();
            let (address, views) = (view.address.clone(), [view]);
            let exchanges = Exchanges::from([(address, exchange)]);
            outages.handle(start, &views, &exchanges, true);
            outages.handle(start + GRACE, &views, &exchanges, true).remove(0)
        };
        // The neighbor sends back what this host advertised.
        let ended = Exchange { ended: true, returned: 1, ..Exchange::default() };
        let received = named(one(SessionState::Established, "configured", 1, 1), ended);
        assert!(received.contains("End-of-RIB and no route"), "{received}");
        let prefix = "172.17.0.0/16".parse().unwrap();
        let withheld = BTreeMap::from([(Withheld::Policy("out".into()), (1, prefix))]);
        let withheld = Exchange { withheld, ..Exchange::default() };
        let advertised = named(one(SessionState::Established, "configured", 1, 0), withheld);
        assert!(advertised.contains("172.17.0.0/16 (rejected by export policy out)"), "{advertised}");
        let down = NeighborView {
            diagnosis: Some(("bad peer AS".into(), "set remote-as to 65002".into())),
            ..one(SessionState::Active, "configured", 0, 0)
        };
        let down = named(down, Exchange::default());
        assert!(down.text.ends_with("bad peer AS") && down.remedy == "set remote-as to 65002", "{down}");
    }
}
