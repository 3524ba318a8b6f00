//! Readiness, the inputs of the conflist's gate, and the watchdog of systemd.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{forwarding::Forwarding, kernel_routes::restart_time, planner::publish};
use crate::{
    bgp::{
        io::{PeerEvent, ToPeers},
        view::SessionState,
    },
    cni::{
        gate::{GateInputs, InitialRoutes},
        view::{ConflistState, ConflistStatus},
    },
    config::Config,
    fib::io::{FibClient, sysctl},
    k8s::condition::Facts,
    net::{Convergence, Prefix},
    pace::tick,
    plan::{NoPlan, Plan, Sessions},
};

/// Maximum time to wait for absent neighbors.
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets `begun` once the conflist is written, if configured, and each neighbor has sent its initial
/// routes or 10 s have passed since the start. Then sets `ready`: if routelet runs on other nodes
/// that this one should peer with, once at least one session of any kind was established. Neither
/// is reset.
pub(super) async fn readiness(
    begun: watch::Sender<bool>,
    ready: watch::Sender<bool>,
    sessions: watch::Receiver<Arc<Sessions>>,
    mut convergence: watch::Receiver<Arc<Convergence>>,
    mut plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    mut conflist: Option<watch::Receiver<ConflistStatus>>,
) {
    let deadline = Instant::now() + NEIGHBOR_TIMEOUT;
    loop {
        let converged = {
            let convergence = convergence.borrow_and_update();
            convergence.all() && convergence.neighbors.len() >= expected(&plan.borrow_and_update())
        };
        let written = conflist.as_mut().is_none_or(|c| {
            matches!(c.borrow_and_update().state, ConflistState::Written | ConflistState::Disabled)
        });
        let late = Instant::now() >= deadline;
        if written && (converged || late) {
            begun.send_replace(true);
            first_session(sessions, plan).await;
            ready.send_replace(true);
            tracing::info!("ready");
            return;
        }
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = convergence.changed() => r.is_ok(),
            r = plan.changed() => r.is_ok(),
            r = changed(conflist.as_mut()) => r,
            () = sleep_until(deadline), if !late => true,
        };
        if !alive {
            return;
        }
    }
}

/// Waits for an established session, unless no other node runs routelet. Logs that it waits.
async fn first_session(
    mut sessions: watch::Receiver<Arc<Sessions>>,
    mut plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
) {
    let mut logged = false;
    loop {
        let expected = plan.borrow_and_update().as_ref().as_ref().map_or(0, |p| p.expected.len());
        if sessions.borrow_and_update().any || expected == 0 {
            return;
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::warn!(
                nodes = expected,
                "not ready, no BGP session is established although other nodes run routelet"
            );
        }
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = sessions.changed() => r.is_ok(),
            r = plan.changed() => r.is_ok(),
        };
        if !alive {
            return std::future::pending().await;
        }
    }
}

/// Waits for a change of an optional input; forever if there is none. Returns `false` if its sender
/// is gone.
pub(super) async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) -> bool {
    match receiver {
        Some(r) => r.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Keeps the inputs of the conflist's gate up to date.
pub(super) async fn gate(
    gate: watch::Sender<GateInputs>,
    mut acknowledged: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    mut forwarding: watch::Receiver<Forwarding>,
    mut convergence: watch::Receiver<Arc<Convergence>>,
    mut plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
) {
    loop {
        let now = GateInputs {
            unreachable: acknowledged.borrow_and_update().iter().copied().collect(),
            forwarding: forwarding.borrow_and_update().on || forwards(&plan.borrow()),
            routes: InitialRoutes::of(&convergence.borrow_and_update(), expected(&plan.borrow_and_update())),
        };
        gate.send_if_modified(|old| {
            let new = *old != now;
            *old = now;
            new
        });
        let alive = tokio::select! {
            r = acknowledged.changed() => r.is_ok(),
            r = forwarding.changed() => r.is_ok(),
            r = convergence.changed() => r.is_ok(),
            r = plan.changed() => r.is_ok(),
        };
        if !alive {
            return;
        }
    }
}

/// Whether forwarding is enabled for all families of the conflist. A family that is disabled on the
/// host is not in it, and does not delay it.
fn forwards(plan: &Result<Plan, NoPlan>) -> bool {
    let Ok(Plan { conflist: Some(conflist), .. }) = plan else { return false };
    conflist.pod_cidrs.iter().all(|p| sysctl::is_forwarding(p.family()).unwrap_or(false))
}

/// How often to read the sessions without an event.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Events of sessions are collected for this long: many sessions change together.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Tracks established sessions, and keeps the facts of the Node's condition up to date.
pub(super) async fn facts(
    facts: watch::Sender<Facts>,
    established: watch::Sender<Arc<Sessions>>,
    (mut begun, mut ready): (watch::Receiver<bool>, watch::Receiver<bool>),
    (peers, mut events): (mpsc::Sender<ToPeers>, broadcast::Receiver<PeerEvent>),
    mut plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
) {
    let mut were_up = BTreeSet::new();
    loop {
        let (reply, response) = oneshot::channel();
        if peers.send(ToPeers::Status { reply }).await.is_err() {
            return;
        }
        let sessions = response.await.unwrap_or_default();
        let wanted: BTreeSet<_> = sessions
            .iter()
            .filter(|n| n.state != SessionState::Disabled)
            .map(|n| n.address.clone())
            .collect();
        let up = sessions.iter().filter(|n| n.state == SessionState::Established);
        let up: BTreeSet<_> = up.map(|n| n.address.clone()).collect();
        publish(&established, Arc::new(sessions_of(&up)));
        were_up = were_up.union(&up).filter(|n| wanted.contains(*n)).cloned().collect();
        let now = {
            let plan = plan.borrow_and_update();
            let plan = plan.as_ref().as_ref().ok();
            let is_silent = |n: &str| {
                plan.is_some_and(|p| n.parse().is_ok_and(|a: IpAddr| p.unreachable_nodes.contains(&a)))
            };
            Facts {
                planned: plan.is_some(),
                apart: plan.is_some_and(|p| !p.among_nodes),
                begun: *begun.borrow_and_update(),
                ready: *ready.borrow_and_update(),
                neighbors: wanted.len(),
                up: up.len(),
                expected: plan.map_or(0, |p| p.expected.len()),
                lost: were_up.difference(&up).filter(|n| !is_silent(n)).count(),
            }
        };
        publish(&facts, now);
        // Each arm is cancel safe. Readiness does not change once it is reached.
        tokio::select! {
            r = begun.changed(), if !now.begun => if r.is_err() { return },
            r = ready.changed(), if !now.ready => if r.is_err() { return },
            r = plan.changed() => if r.is_err() { return },
            // Missed events are covered by the next read.
            _ = events.recv() => tokio::time::sleep(DEBOUNCE).await,
            () = tick(CHECK_INTERVAL) => {}
        }
    }
}

/// The established sessions, without a second speaker on the loopback, which attracts no packets to
/// the node.
fn sessions_of(up: &BTreeSet<String>) -> Sessions {
    let addresses = up.iter().filter_map(|n| n.parse::<IpAddr>().ok());
    let up_there: BTreeSet<_> = addresses.filter(|a| !a.is_loopback()).collect();
    let link_local = up.iter().any(|n| n.parse::<IpAddr>().is_err());
    Sessions { any: !up_there.is_empty() || link_local, up: up_there }
}

/// The number of planned neighbors; without a plan, a number that is never reached.
fn expected(plan: &Result<Plan, NoPlan>) -> usize {
    plan.as_ref().map_or(usize::MAX, |p| p.peers.values().filter(|p| !p.disabled).count())
}

/// Whether this start is a restart in the sense of RFC 4724 §3: our own routes were found in the
/// kernel. It ends when each neighbor has converged, or after the restart time.
pub(super) async fn restart(
    fib: &FibClient,
    config: &Config,
    mut convergence: watch::Receiver<Arc<Convergence>>,
) -> watch::Receiver<bool> {
    let found: usize = fib.counts().await.iter().sum();
    let (tx, rx) = watch::channel(found > 0);
    if found > 0 {
        tracing::info!(routes = found, "graceful restart, keeping routes of the previous run");
        let limit = restart_time(config);
        tokio::spawn(async move {
            let done = convergence.wait_for(|c| !c.neighbors.is_empty() && c.all());
            let _ = tokio::time::timeout(limit, done).await;
            tx.send_replace(false);
            // The sender must outlive the timeout for the receivers.
            tx.closed().await;
        });
    } else {
        tokio::spawn(async move { tx.closed().await });
    }
    rx
}

/// Notifies the watchdog of systemd twice per period; returns at once if it is not enabled.
pub(super) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
}
