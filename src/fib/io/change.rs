//! Other `[fib]` settings while the task runs: what a restart does, with the routes that are known.
//!
//! The former routes stay until those of the new settings are installed. The monitor changes first,
//! so that it takes neither the former nor the new ones for another daemon's.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::Instant,
};
use tracing::{info, warn};

use super::{
    Settings, former, rules,
    task::{Left, Task},
};
use crate::{
    fib::{diff::Fib, former::Location, resolve::Resolver, sweep::StaleTimer},
    mailbox::Changes,
    net::{NextHops, Prefix},
};

/// Settings and former locations for the monitor: which routes are ours from now on.
pub(super) struct Switch {
    pub(super) settings: Settings,
    pub(super) former: Vec<Location>,
    pub(super) done: oneshot::Sender<()>,
}

impl Task {
    /// Takes the new settings over, up to the routes that shall be installed, which it returns with
    /// whether they are all that there are: after a start some may not have arrived yet.
    pub(super) async fn change_settings(
        mut self: Box<Self>,
        settings: Settings,
        left: Left,
        monitor: &mpsc::Sender<Switch>,
    ) -> (Box<Self>, Changes<Prefix, Option<Arc<NextHops>>>, bool) {
        let (done, switched) = oneshot::channel();
        let switch = Switch { settings: settings.clone(), former: left.places.clone(), done };
        if monitor.send(switch).await.is_ok() {
            let _ = switched.await;
        }
        let changed = spawn_blocking(move || {
            let complete = !self.fib.is_sweeping();
            let desired = self.fib.desired();
            self.adopt_settings(settings, left);
            (self, desired.into_iter().map(|(prefix, hops)| (prefix, Some(hops))).collect(), complete)
        });
        changed.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Takes settings over that have the routes where they are.
    pub(super) async fn keep_routes(&mut self, settings: Settings) {
        self.settings = settings;
        self.host_changed();
        self.write().await;
    }

    fn adopt_settings(&mut self, settings: Settings, left: Left) {
        if let Some(now) = settings.location()
            && let Err(error) = former::take_over(&mut self.writer, &left.places, now)
        {
            warn!(%error, "cannot replace routes of a former configuration");
        }
        let Settings { install, table, protocol, metric, .. } = settings;
        info!(install, table, protocol, metric, "routes move to other settings of `[fib]`");
        if table != self.settings.table {
            self.bypasses = rules::follow(table);
        }
        let now = Instant::now().into_std();
        self.stale_timer = StaleTimer::new(now, settings.restart_time);
        self.stale_timer.converged(now, self.convergence.any());
        self.fib = Fib::new(settings.pure());
        self.settings = settings;
        self.left = Some(left);
        (self.audit, self.retry, self.idle_expiry, self.last_refusal) = (None, None, None, None);
        self.adopt_or_audit();
        self.resolver = Resolver::default();
        self.host_changed();
        self.lost_changed();
    }
}
