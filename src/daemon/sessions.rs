//! Problems of the sessions, as all neighbors together show them: handed on.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::sleep,
};

use super::planner::publish;
use crate::{
    bgp::{
        io::{PeerEvent, ToPeers},
        standing,
    },
    net::Diagnostic,
    plan::Plan,
};

/// Between two looks while nothing happens.
const LOOK: Duration = Duration::from_secs(10);
/// After something happened: more of it follows.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs for as long as there are sessions.
pub(super) async fn run(
    problems: watch::Sender<Vec<Diagnostic>>,
    mut plan: watch::Receiver<Arc<Result<Plan, String>>>,
    peers: mpsc::Sender<ToPeers>,
    mut events: broadcast::Receiver<PeerEvent>,
    mut bfd: watch::Receiver<Vec<Diagnostic>>,
) {
    loop {
        let (reply, response) = oneshot::channel();
        if peers.send(ToPeers::Status { reply }).await.is_err() {
            return;
        }
        let mut now = standing::problems(&response.await.unwrap_or_default());
        now.extend(bfd.borrow_and_update().iter().cloned());
        publish(&problems, now);
        // Cancel safe, each.
        let alive = tokio::select! {
            r = plan.changed() => r.is_ok(),
            event = events.recv() => !matches!(event, Err(broadcast::error::RecvError::Closed)),
            Ok(()) = bfd.changed() => true,
            () = sleep(LOOK) => true,
        };
        if !alive {
            return;
        }
        sleep(PAUSE).await;
        while events.try_recv().is_ok() {}
    }
}
