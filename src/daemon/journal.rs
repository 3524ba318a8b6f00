//! Logs changes of links and of the routes that this node originates, so that `show events` has
//! them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};

use crate::{
    fib::host::{Host, Link},
    net::{Origination, Prefix},
};

/// Maximum routes of one change that are logged by prefix; beyond that, only their number is
/// logged.
const MAX_NAMED: usize = 16;

/// Minimum and maximum time between two comparisons of state that changes all the time, like the
/// Services of a tenant or a link with a loose contact. A change that is reverted by the next
/// comparison is not logged.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// When the next changes are logged.
#[derive(Debug, Default)]
struct Pace {
    pause: Duration,
    /// When the pause after the last changes ends.
    until: Option<Instant>,
}

impl Pace {
    /// Called when changes were logged: the pause doubles while the next changes follow soon after
    /// its end.
    fn logged(&mut self, now: Instant) {
        let goes_on = self.until.is_some_and(|until| now < until + self.pause);
        self.pause = if goes_on { (self.pause * 2).min(MAX_PAUSE) } else { MIN_PAUSE };
        self.until = Some(now + self.pause);
    }

    /// Waits for the end of the pause. Cancel safe.
    async fn wait(&self) {
        if let Some(until) = self.until {
            sleep_until(until.into()).await;
        }
    }
}

/// Waits for the next change that is to be logged. Cancel safe: a change is kept by its channel.
async fn next<T>(pace: &Pace, changes: &mut watch::Receiver<T>) -> Result<(), watch::error::RecvError> {
    pace.wait().await;
    changes.changed().await
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkChange {
    Added,
    Up,
    Down,
    /// Down and up again since the last comparison.
    Flapped,
    Removed,
}

/// Logs changes. Never ends.
pub(super) async fn log(
    mut originated: watch::Receiver<Arc<BTreeMap<Prefix, Origination>>>,
    mut host: watch::Receiver<Arc<Host>>,
) {
    let mut own = originated.borrow_and_update().clone();
    let mut links = host.borrow_and_update().clone();
    let (mut pace_of_routes, mut pace_of_links) = (Pace::default(), Pace::default());
    loop {
        // Each arm is cancel safe.
        tokio::select! {
            Ok(()) = next(&pace_of_routes, &mut originated) => {
                let now = originated.borrow_and_update().clone();
                if log_routes(&own, &now) {
                    pace_of_routes.logged(Instant::now());
                }
                own = now;
            }
            Ok(()) = next(&pace_of_links, &mut host) => {
                let now = host.borrow_and_update().clone();
                if log_links(&links, &now) {
                    pace_of_links.logged(Instant::now());
                }
                links = now;
            }
            else => return,
        }
    }
}

/// Returns whether there was anything to log.
fn log_routes(before: &BTreeMap<Prefix, Origination>, now: &BTreeMap<Prefix, Origination>) -> bool {
    let (added, removed) = route_changes(before, now);
    let changed = !added.is_empty() || !removed.is_empty();
    if removed.len() > MAX_NAMED {
        tracing::info!(target: "routelet::route", count = removed.len(), "own routes withdrawn");
    } else {
        for prefix in removed {
            tracing::info!(target: "routelet::route", %prefix, "own route withdrawn");
        }
    }
    if added.len() > MAX_NAMED {
        tracing::info!(target: "routelet::route", count = added.len(), "own routes originated");
    } else {
        for (prefix, source) in added {
            tracing::info!(target: "routelet::route", %prefix, source, "own route originated");
        }
    }
    changed
}

/// The routes that are new, with their sources, and those that are gone.
fn route_changes(
    before: &BTreeMap<Prefix, Origination>,
    now: &BTreeMap<Prefix, Origination>,
) -> (Vec<(Prefix, &'static str)>, Vec<Prefix>) {
    let added = now.iter().filter(|(prefix, _)| !before.contains_key(prefix));
    let removed = before.keys().filter(|prefix| !now.contains_key(prefix));
    (added.map(|(prefix, own)| (*prefix, own.source.as_str())).collect(), removed.copied().collect())
}

/// Returns whether there was anything to log.
fn log_links(before: &Host, now: &Host) -> bool {
    let changes = link_changes(before, now);
    let changed = !changes.is_empty();
    for (interface, change) in changes {
        match change {
            LinkChange::Added => tracing::info!(target: "routelet::link", %interface, "link added"),
            LinkChange::Up => tracing::info!(target: "routelet::link", %interface, "link up"),
            LinkChange::Down => tracing::info!(target: "routelet::link", %interface, "link down"),
            LinkChange::Flapped => {
                tracing::info!(target: "routelet::link", %interface, "link flapped");
            }
            LinkChange::Removed => tracing::info!(target: "routelet::link", %interface, "link removed"),
        }
    }
    changed
}

/// The changes of links. Ports of bridges and bonds are left out, as each pod has one; so are the
/// loopback, and a new veth, which becomes a port later.
fn link_changes(before: &Host, now: &Host) -> Vec<(String, LinkChange)> {
    let counts = |link: &Link| link.master.is_none() && !link.loopback;
    let is_up = |host: &Host, link: &Link| link.up && host.has_carrier(link);
    let change = |link: &Link| {
        let Some(old) = before.links.get(&link.index) else {
            return (link.kind != "veth").then_some(LinkChange::Added);
        };
        match (is_up(before, old), is_up(now, link)) {
            (false, true) => Some(LinkChange::Up),
            (true, false) => Some(LinkChange::Down),
            (true, true) if old.generation != link.generation => Some(LinkChange::Flapped),
            _ => None,
        }
    };
    let changed = now.links.values().filter(|link| counts(link));
    let changed = changed.filter_map(|link| Some((link.name.clone(), change(link)?)));
    let gone = before.links.values().filter(|link| counts(link) && !now.links.contains_key(&link.index));
    changed.chain(gone.map(|link| (link.name.clone(), LinkChange::Removed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fib::host::testing::{host, link},
        net::Source,
    };

    #[test]
    fn changes_of_links_are_named_but_not_those_of_ports() {
        let port = |up: bool| {
            let link = Link { master: Some(9), ..link(3, "vethpod") };
            if up { link } else { link.down() }
        };
        let eth0 = || link(2, "eth0");
        let bridge = || Link { kind: "bridge".into(), ..link(9, "br0") };
        let flapped = Link { generation: 1, ..eth0() };
        #[rustfmt::skip]
        let cases: &[(&str, Vec<Link>, Vec<Link>, &[(&str, LinkChange)])] = &[
            ("nothing",            vec![eth0()],               vec![eth0()],               &[]),
            ("down",               vec![eth0()],               vec![eth0().down()],        &[("eth0", LinkChange::Down)]),
            ("up",                 vec![eth0().down()],        vec![eth0()],               &[("eth0", LinkChange::Up)]),
            ("down and up",        vec![eth0()],               vec![flapped],              &[("eth0", LinkChange::Flapped)]),
            ("removed",            vec![eth0()],               vec![],                     &[("eth0", LinkChange::Removed)]),
            ("a bridge",           vec![],                     vec![bridge()],             &[("br0", LinkChange::Added)]),
            ("a veth",             vec![],                     vec![eth0()],               &[]),
            ("the last port",      vec![bridge(), port(true)], vec![bridge()],             &[("br0", LinkChange::Down)]),
            ("the first port",     vec![bridge()],             vec![bridge(), port(true)], &[("br0", LinkChange::Up)]),
            ("a port is set down", vec![port(true)],           vec![port(false)],          &[]),
            ("the loopback",       vec![link(1, "lo")],        vec![link(1, "lo").down()], &[]),
        ];
        for (name, before, now, expected) in cases {
            let got = link_changes(&host(before.clone(), []), &host(now.clone(), []));
            let got: Vec<_> = got.iter().map(|(name, change)| (name.as_str(), *change)).collect();
            assert_eq!(got, *expected, "{name}");
        }
    }

    #[test]
    fn what_changes_all_the_time_is_logged_more_and_more_rarely() {
        let start = Instant::now();
        let (mut pace, mut now, mut logged) = (Pace::default(), start, 0);
        while now < start + Duration::from_secs(3600) {
            pace.logged(now);
            logged += 1;
            // Ten changes per second: one comes soon after each pause.
            now = pace.until.unwrap() + Duration::from_millis(100);
        }
        assert!(logged < 70, "{logged} an hour");
        // After a minute without changes, the next one is logged without a long pause.
        pace.logged(now + MAX_PAUSE * 2);
        assert_eq!(pace.pause, MIN_PAUSE);
    }

    #[test]
    fn own_routes_that_come_and_go_are_found() {
        let own = |prefixes: &[&str]| -> BTreeMap<Prefix, Origination> {
            let origination = |source| Origination {
                source,
                med: None,
                communities: Vec::new(),
                large_communities: Vec::new(),
                ext_communities: Vec::new(),
            };
            prefixes.iter().map(|p| (p.parse().unwrap(), origination(Source::Interface))).collect()
        };
        let (added, removed) =
            route_changes(&own(&["10.1.0.0/16", "10.2.0.0/16"]), &own(&["10.2.0.0/16", "10.3.0.0/16"]));
        assert_eq!(added, [("10.3.0.0/16".parse().unwrap(), "interface")]);
        assert_eq!(removed, ["10.1.0.0/16".parse().unwrap()]);
    }
}
