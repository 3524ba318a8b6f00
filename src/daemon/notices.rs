//! Collects the problems that become Events of the cluster.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{planner::publish, problems::Sources};
use crate::net::{Diagnostic, Severity};

/// Runs until all receivers are dropped.
pub(super) async fn run(standing: watch::Sender<Arc<BTreeSet<Diagnostic>>>, mut sources: Sources) {
    loop {
        sources.mark_seen();
        let all = sources.all().into_iter();
        publish(&standing, Arc::new(all.filter(|p| p.severity != Severity::Info).collect()));
        // Both arms are cancel safe.
        tokio::select! {
            () = sources.changed() => {}
            () = standing.closed() => return,
        }
    }
}
