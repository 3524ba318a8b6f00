//! Runs until a signal arrives or a task fails, and ends the tasks in order: first those that
//! change sessions, then the sessions, then the kernel's routes.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use super::{Error, cluster::Cluster, core::Core, events, machine, reload::Reloader, routing::Routing};
use crate::{bgp::io::Leaving, config::OnExit, control::Reload};

/// How long the shutdown waits for state that is being written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A reload by a signal, which has no options: it is applied even if all sessions are reset.
const PLAIN: Reload = Reload { dry_run: false, confirm: None, force: true };

pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on signals are counted instead of ending the process.
    ///
    /// # Errors
    ///
    /// If the kernel denies handlers.
    pub(super) fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(|e| Error::Runtime(format!("cannot handle signals: {e}")));
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }
}

/// The daemon once everything has started.
pub(super) struct Running {
    pub(super) core: Core,
    pub(super) cluster: Option<Cluster>,
    pub(super) planner: JoinHandle<()>,
    pub(super) reloader: Reloader,
}

impl Running {
    /// Returns after the end of all tasks that must end in order.
    ///
    /// # Errors
    ///
    /// If a task ended unexpectedly.
    pub(super) async fn until_stopped(mut self, mut signals: Signals) -> Result<(), Error> {
        let failed = loop {
            // Cancel safe, each: signals are counted, handles are borrowed.
            tokio::select! {
                _ = signals.hangup.recv() => drop(self.reloader.reload(PLAIN).await),
                _ = signals.terminate.recv() => break None,
                _ = signals.interrupt.recv() => break None,
                () = ended(&mut self.core.routing.rib.task) => break Some("the task of the RIB"),
                () = self.core.routing.fib.ended() => break Some("the task of the FIB"),
                () = self.core.peers.failed() => break Some("the task of the neighbors"),
            }
        };
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.shutdown(failed.is_some()).await;
        failed.map_or(Ok(()), |what| {
            Err(Error::Runtime(format!(
                "{what} ended unexpectedly, which is a bug; routes stay in the kernel, and the service manager restarts routelet"
            )))
        })
    }

    /// Routes stay in the kernel after a failure, whatever `fib.on-exit` is.
    async fn shutdown(self, failed: bool) {
        self.planner.abort();
        let node_leaves = self.cluster.is_some_and(Cluster::stop);
        let leaving = if node_leaves || machine::stops().await { Leaving::Machine } else { Leaving::Daemon };
        tracing::info!(?leaving, "routelet stopping");
        let Core { context, routing: Routing { bfd, fib, .. }, peers, .. } = self.core;
        if !failed {
            let watched = bfd.hold().await;
            peers.shutdown(leaving).await;
            bfd.shutdown(watched).await;
        }
        let on_exit = context.in_force.borrow().fib.on_exit;
        fib.shutdown(on_exit == OnExit::Flush && !failed).await;
        events::save(&context.state_dir);
        crate::state::io::flush(WRITE_TIMEOUT);
    }
}

async fn ended(task: &mut JoinHandle<()>) {
    let _ = task.await;
}
