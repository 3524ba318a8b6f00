//! Publishes problems that only show from several sessions together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::sleep,
};

use super::{planner::publish, queries::add_counts};
use crate::{
    bgp::{
        exchange::{self, Exchanges},
        io::{
            PeerEvent, ToPeers,
            rib::{RibSender, ToRib},
        },
        outage::{GRACE, Outages},
        standing,
    },
    net::Diagnostic,
    pace::tick,
    plan::{NoPlan, Plan},
};

/// How often to check without an event: a condition that lasts for [`GRACE`] is found soon after.
const CHECK_INTERVAL: Duration = GRACE;
/// How often to check the exchanged routes, which costs the routing table more time.
const EXCHANGES_INTERVAL: Duration = Duration::from_secs(3);
/// Events are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Runs until the task of the sessions ends.
pub(super) async fn run(
    problems: watch::Sender<Vec<Diagnostic>>,
    mut plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    (peers, rib): (mpsc::Sender<ToPeers>, RibSender),
    mut events: broadcast::Receiver<PeerEvent>,
    mut bfd: watch::Receiver<Vec<Diagnostic>>,
) {
    let mut outages = Outages::default();
    let (mut exchanges, mut checked) = (Exchanges::new(), None);
    loop {
        let (reply, response) = oneshot::channel();
        if peers.send(ToPeers::Status { reply }).await.is_err() {
            return;
        }
        let mut views = response.await.unwrap_or_default();
        let (reply, response) = oneshot::channel();
        if rib.send(ToRib::Counts { reply }).await.is_err() {
            return;
        }
        add_counts(&mut views, &response.await.unwrap_or_default());
        if checked.is_none_or(|at: Instant| at.elapsed() >= EXCHANGES_INTERVAL) {
            let (reply, response) = oneshot::channel();
            if rib.send(ToRib::Exchanges { reply }).await.is_err() {
                return;
            }
            (exchanges, checked) = (response.await.unwrap_or_default(), Some(Instant::now()));
        }
        let originates = plan.borrow().as_ref().as_ref().is_ok_and(|p| !p.originated.is_empty());
        let mut now = standing::problems(&views);
        now.extend(outages.handle(Instant::now(), &views, &exchanges, originates));
        now.extend(exchange::problems(&views, &exchanges));
        now.extend(bfd.borrow_and_update().iter().cloned());
        publish(&problems, now);
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = plan.changed() => r.is_ok(),
            event = events.recv() => !matches!(event, Err(broadcast::error::RecvError::Closed)),
            Ok(()) = bfd.changed() => true,
            () = tick(CHECK_INTERVAL) => true,
        };
        if !alive {
            return;
        }
        sleep(DEBOUNCE).await;
        while events.try_recv().is_ok() {}
    }
}
