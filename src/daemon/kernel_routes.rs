//! `[fib]`: where our routes are in the kernel, now and before.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{restart_time, state};
use crate::{
    config::Config,
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

/// Moves the routes whenever the settings change. The record of former places is written first, so
/// that a crash leaves no routes that nobody knows.
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
