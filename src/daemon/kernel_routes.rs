//! `[fib]`: where our routes are in the kernel, at present and formerly.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::state;
use crate::{
    config::{self, Config},
    fib::io::{FibClient, Settings},
};

pub(super) fn settings(config: &Config) -> Settings {
    let fib = &config.fib;
    Settings {
        install: fib.install,
        table: fib.table,
        protocol: fib.protocol,
        metric: fib.metric,
        resolve_via_default: fib.resolve_via_default,
        nexthop_objects: fib.nexthop_objects,
        resilient: fib.resilient,
        restart_time: restart_time(config),
    }
}

/// How long routes of the last run stay without a session that confirms them (RFC 4724).
pub(super) fn restart_time(config: &Config) -> Duration {
    config::seconds(config.bgp.defaults.restart_time.unwrap_or(120))
}

/// Moves the routes when the settings change. The former location is recorded first, so that a
/// crash leaves no routes that are not on record.
pub(super) async fn follow(mut config: watch::Receiver<Arc<Config>>, fib: FibClient, state_dir: PathBuf) {
    let mut now = settings(&config.borrow_and_update());
    while config.changed().await.is_ok() {
        let next = settings(&config.borrow_and_update());
        if next == now {
            continue;
        }
        let (record, place) = (state::former(&state_dir), next.location());
        state::keep_former(&state_dir, &record.with(place));
        let (former, folder) = (record.former(place), state_dir.clone());
        fib.change(next.clone(), former, move || state::keep_former(&folder, &record.swept(place))).await;
        now = next;
    }
}
