//! Keeps forwarding on for the families in use, and knows what could not be set.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    fib::{
        host::Host,
        io::sysctl::{self, Finding, State},
    },
    net::{Family, Origination, Prefix},
};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// On for each family in use.
    pub(super) on: bool,
    /// What could not be set, with its remedy.
    pub(super) problems: Vec<String>,
}

/// How soon to look again while it is off and may not be set.
const AGAIN: Duration = Duration::from_secs(10);

pub(super) async fn run(
    state: watch::Sender<Forwarding>,
    mut host: watch::Receiver<Arc<Host>>,
    mut originated: watch::Receiver<Arc<BTreeMap<Prefix, Origination>>>,
    mut own: watch::Receiver<Arc<Vec<Prefix>>>,
) {
    loop {
        let families = in_use(&originated.borrow_and_update(), &own.borrow_and_update());
        let findings = sysctl::forwarding(&host.borrow_and_update(), &families);
        for Finding { key, text, .. } in findings.iter().filter(|f| f.state == State::Set) {
            tracing::info!(%key, %text, "forwarding switched on");
        }
        let bad = findings.iter().filter(|f| f.state == State::Bad);
        let problems = bad.map(|f| format!("{}: {}", f.key, f.text)).collect();
        let now = Forwarding { on: families.iter().all(|f| sysctl::is_forwarding(*f)), problems };
        let on = now.on;
        state.send_if_modified(|old| {
            let new = *old != now;
            if new {
                for problem in &now.problems {
                    tracing::warn!(%problem, "forwarding cannot be switched on");
                }
                *old = now;
            }
            new
        });
        // Cancel safe, each. The host matters for its interfaces that take router advertisements.
        let alive = tokio::select! {
            r = host.changed() => r.is_ok(),
            r = originated.changed() => r.is_ok(),
            r = own.changed() => r.is_ok(),
            () = tokio::time::sleep(AGAIN), if !on => true,
        };
        if !alive {
            return;
        }
    }
}

/// Of what is announced, and of the pod CIDRs even where they are not.
fn in_use(originated: &BTreeMap<Prefix, Origination>, own: &[Prefix]) -> Vec<Family> {
    let used = |f: &Family| originated.keys().chain(own).any(|p| p.family() == *f);
    Family::ALL.into_iter().filter(used).collect()
}
