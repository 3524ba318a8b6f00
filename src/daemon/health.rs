//! Readiness, the gate of the conflist, and the watchdog of systemd.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{forwarding::Forwarding, restart_time};
use crate::{
    bgp::{io::ToPeers, view::SessionState},
    config::Config,
    fib::io::{FibClient, sysctl},
    k8s::{
        condition::Facts,
        gate::{FirstRoutes, Ready},
        view::{ConflistState, ConflistStatus},
    },
    net::{Convergence, Prefix},
    plan::Plan,
};

/// Longest wait for neighbors that are not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says once that the node is ready: the conflist is written where asked, and each neighbor has finished its
/// first exchange or 10 s have passed since the start. Nothing takes it back.
pub(super) async fn readiness(
    ready: watch::Sender<bool>,
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

/// Of an input that may not be there: then it never resolves. `false`: its sender is gone.
pub(super) async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) -> bool {
    match receiver {
        Some(r) => r.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Keeps the gate of the conflist up to date.
pub(super) async fn gate(
    gate: watch::Sender<Ready>,
    mut acknowledged: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    mut forwarding: watch::Receiver<Forwarding>,
    mut convergence: watch::Receiver<Arc<Convergence>>,
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
) {
    loop {
        let now = Ready {
            unreachable: acknowledged.borrow_and_update().iter().copied().collect(),
            forwarding: forwarding.borrow_and_update().on || forwards(&plan.borrow()),
            routes: FirstRoutes::of(&convergence.borrow_and_update(), expected(&plan.borrow_and_update())),
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

/// How often sessions are looked at for the Node's condition, which knows minutes only.
const FACTS: Duration = Duration::from_secs(5);

/// Keeps the facts of the Node's condition up to date.
pub(super) async fn facts(
    facts: watch::Sender<Facts>,
    mut ready: watch::Receiver<bool>,
    peers: mpsc::Sender<ToPeers>,
    plan: watch::Receiver<Arc<Result<Plan, String>>>,
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
        met = met.union(&up).filter(|n| wanted.contains(*n)).cloned().collect();
        let silent = plan.borrow().as_ref().as_ref().map(|p| p.silent.clone()).unwrap_or_default();
        let now = Facts {
            ready: *ready.borrow_and_update(),
            neighbors: wanted.len(),
            up: up.len(),
            lost: met.difference(&up).filter(|n| !n.parse().is_ok_and(|a| silent.contains(&a))).count(),
        };
        facts.send_if_modified(|old| {
            let new = *old != now;
            *old = now;
            new
        });
        // Cancel safe, each. Once the node is ready nobody is left to say so again.
        tokio::select! {
            r = ready.changed(), if !now.ready => if r.is_err() { return },
            () = tokio::time::sleep(FACTS) => {}
        }
    }
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
