//! Readiness, the gate of the conflist, and the watchdog of systemd.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{forwarding::Forwarding, planner::publish, restart_time};
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
    plan::{Plan, Sessions},
};

/// Longest wait for neighbors that are not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reports once that the first exchange is over (`begun`): the conflist is written where asked, and each neighbor has
/// finished it or 10 s have passed since the start. Then that the node is ready: where routelet runs on other nodes
/// that this one should have sessions with, at least one session of any kind has come up. Nothing takes either back.
pub(super) async fn readiness(
    begun: watch::Sender<bool>,
    ready: watch::Sender<bool>,
    sessions: watch::Receiver<Arc<Sessions>>,
    mut convergence: watch::Receiver<Arc<Convergence>>,
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
    mut conflist: Option<watch::Receiver<ConflistStatus>>,
) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let converged = {
            let convergence = convergence.borrow_and_update();
            convergence.all() && convergence.neighbors.len() >= expected(&plan.borrow_and_update())
        };
        let written = conflist.as_mut().is_none_or(|c| {
            matches!(c.borrow_and_update().state, ConflistState::Written | ConflistState::Disabled)
        });
        let late = Instant::now() >= patience;
        if written && (converged || late) {
            begun.send_replace(true);
            first_session(sessions, plan).await;
            ready.send_replace(true);
            tracing::info!("ready");
            return;
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = convergence.changed() => r.is_ok(),
            r = plan.changed() => r.is_ok(),
            r = changed(conflist.as_mut()) => r,
            () = sleep_until(patience), if !late => true,
        };
        if !alive {
            return;
        }
    }
}

/// Waits for a session, unless no other node is there to have one with. Logs that it waits.
async fn first_session(
    mut sessions: watch::Receiver<Arc<Sessions>>,
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
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
                "not ready: no BGP session is up, and routelet runs on other nodes"
            );
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = sessions.changed() => r.is_ok(),
            r = plan.changed() => r.is_ok(),
        };
        if !alive {
            return std::future::pending().await;
        }
    }
}

/// Of an input that may not be there: then it never resolves. `false`: its sender is gone.
pub(super) async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) -> bool {
    match receiver {
        Some(r) => r.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Keeps the gate of the conflist up to date.
pub(super) async fn gate(
    gate: watch::Sender<GateInputs>,
    mut acknowledged: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    mut forwarding: watch::Receiver<Forwarding>,
    mut convergence: watch::Receiver<Arc<Convergence>>,
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
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

/// Whether packets of the pods of the conflist are forwarded: a family that the host has switched off is not in it, and keeps
/// nobody waiting.
fn forwards(plan: &Result<Plan, String>) -> bool {
    let Ok(Plan { conflist: Some(conflist), .. }) = plan else { return false };
    conflist.pod_cidrs.iter().all(|p| sysctl::is_forwarding(p.family()))
}

/// How often sessions are looked at while nothing is heard of them.
const LOOK: Duration = Duration::from_secs(5);
/// Sessions come and go together: they are looked at once for so long a time.
const GATHER: Duration = Duration::from_millis(300);

/// Follows which sessions are up, and keeps the facts of the Node's condition up to date.
pub(super) async fn facts(
    facts: watch::Sender<Facts>,
    established: watch::Sender<Arc<Sessions>>,
    (mut begun, mut ready): (watch::Receiver<bool>, watch::Receiver<bool>),
    (peers, mut events): (mpsc::Sender<ToPeers>, broadcast::Receiver<PeerEvent>),
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
) {
    let mut met = BTreeSet::new();
    loop {
        let (reply, answer) = oneshot::channel();
        if peers.send(ToPeers::Status { reply }).await.is_err() {
            return;
        }
        let sessions = answer.await.unwrap_or_default();
        let wanted: BTreeSet<_> = sessions
            .iter()
            .filter(|n| n.state != SessionState::Disabled)
            .map(|n| n.address.clone())
            .collect();
        let up = sessions.iter().filter(|n| n.state == SessionState::Established);
        let up: BTreeSet<_> = up.map(|n| n.address.clone()).collect();
        publish(&established, Arc::new(sessions_of(&up)));
        met = met.union(&up).filter(|n| wanted.contains(*n)).cloned().collect();
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
                lost: met.difference(&up).filter(|n| !is_silent(n)).count(),
            }
        };
        publish(&facts, now);
        // Cancel safe, each. Once the node is ready nothing is left to be reported there.
        tokio::select! {
            r = begun.changed(), if !now.begun => if r.is_err() { return },
            r = ready.changed(), if !now.ready => if r.is_err() { return },
            r = plan.changed() => if r.is_err() { return },
            // Whatever was missed is seen at the next look.
            _ = events.recv() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// A second speaker on the loopback is nobody who would bring packets to the node.
fn sessions_of(up: &BTreeSet<String>) -> Sessions {
    let addresses = up.iter().filter_map(|n| n.parse::<IpAddr>().ok());
    let up_there: BTreeSet<_> = addresses.filter(|a| !a.is_loopback()).collect();
    let link_local = up.iter().any(|n| n.parse::<IpAddr>().is_err());
    Sessions { any: !up_there.is_empty() || link_local, up: up_there }
}

/// How many neighbors are planned. Without a plan nobody is known who could be through.
fn expected(plan: &Result<Plan, String>) -> usize {
    plan.as_ref().map_or(usize::MAX, |p| p.peers.values().filter(|p| !p.disabled).count())
}

/// Whether this start is a restart in the sense of RFC 4724 §3: our own routes were found in the kernel. It is over
/// when each neighbor has converged, or after the restart time.
pub(super) async fn restart(
    fib: &FibClient,
    config: &Config,
    mut convergence: watch::Receiver<Arc<Convergence>>,
) -> watch::Receiver<bool> {
    let found: usize = fib.counts().await.iter().sum();
    let (tx, rx) = watch::channel(found > 0);
    if found > 0 {
        tracing::info!(routes = found, "a restart: routes of the last run are kept");
        let limit = restart_time(config);
        tokio::spawn(async move {
            let done = convergence.wait_for(|c| !c.neighbors.is_empty() && c.all());
            let _ = tokio::time::timeout(limit, done).await;
            tx.send_replace(false);
            // The value must outlive this task for those who watch it.
            tx.closed().await;
        });
    } else {
        tokio::spawn(async move { tx.closed().await });
    }
    rx
}

/// Tells systemd that we live, twice per period; returns at once where it did not ask.
pub(super) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
}
