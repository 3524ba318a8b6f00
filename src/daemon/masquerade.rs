//! Decides whether masquerading is still needed, from what was advertised to external neighbors.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    bgp::{
        io::{ToPeers, pages::Pages, rib::RibSender},
        rib::RouteFilter,
        view::{NeighborView, SessionState},
    },
    config::Config,
    net::{Family, PerFamily, Prefix},
    nft::masquerade::{self, Auto, Mode, Want},
    pace::tick,
    plan::{NoPlan, Plan},
};

/// How often advertised routes are checked while `auto` has not ended masquerading.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Inputs of the task.
pub(super) struct Inputs {
    pub(super) plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    /// Each change is a reload, which makes `auto` start again.
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) peers: mpsc::Sender<ToPeers>,
    pub(super) rib: RibSender,
}

pub(super) async fn run(mut inputs: Inputs, want: watch::Sender<Option<Arc<Want>>>) {
    let mut auto = Auto::default();
    loop {
        let wanted = inputs.plan.borrow_and_update().as_ref().as_ref().ok().map(|p| p.masquerade.clone());
        let mut undecided = false;
        if let Some(wanted) = wanted {
            undecided = wanted.mode == Mode::Auto && wanted.pods.iter().any(|p| !auto.is_over(p.family()));
            if undecided {
                let advertised = advertised_outside(&inputs, &wanted.pods).await;
                for family in Family::ALL {
                    let was_over = auto.is_over(family);
                    auto.observe(Instant::now(), family, advertised[family]);
                    if auto.is_over(family) && !was_over {
                        tracing::info!(%family, "masquerading ended, an external neighbor has the pod CIDRs");
                    }
                }
            }
            let now = Want { pods: masquerade::pods(&wanted, &auto), keep: wanted.keep.clone() };
            want.send_if_modified(|last| {
                let changed = last.as_deref() != Some(&now);
                if changed {
                    *last = Some(Arc::new(now));
                }
                changed
            });
        }
        // Each arm is cancel safe.
        let alive = tokio::select! {
            r = inputs.plan.changed() => r.is_ok(),
            r = inputs.config.changed() => {
                auto = Auto::default();
                r.is_ok()
            }
            () = tick(CHECK_INTERVAL), if undecided => true,
        };
        if !alive {
            return;
        }
    }
}

/// For each family, whether one neighbor outside the cluster has all its pod CIDRs.
async fn advertised_outside(inputs: &Inputs, pods: &BTreeSet<Prefix>) -> PerFamily<bool> {
    let mut advertised = PerFamily::both(false);
    for neighbor in neighbors(inputs).await {
        if !is_outside(&neighbor) {
            continue;
        }
        for family in Family::ALL {
            let all: Vec<_> = pods.iter().copied().filter(|p| p.family() == family).collect();
            let mut has = !all.is_empty() && !advertised[family];
            for prefix in all {
                has = has && is_advertised(inputs, &neighbor, prefix).await;
            }
            advertised[family] |= has;
        }
    }
    advertised
}

/// Whether the neighbor is established, in another AS, and not a node of the cluster.
fn is_outside(n: &NeighborView) -> bool {
    n.state == SessionState::Established
        && n.remote_as.is_some_and(|asn| asn != n.local_as)
        && !matches!(n.source.as_str(), "mesh" | "reflector")
}

async fn neighbors(inputs: &Inputs) -> Vec<NeighborView> {
    let (reply, response) = oneshot::channel();
    match inputs.peers.send(ToPeers::Status { reply }).await {
        Ok(()) => response.await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

async fn is_advertised(inputs: &Inputs, neighbor: &NeighborView, prefix: Prefix) -> bool {
    let filter = RouteFilter {
        prefix: Some(prefix),
        advertised: Some(neighbor.address.clone()),
        ..RouteFilter::default()
    };
    Pages::new(inputs.rib.clone(), filter).next().await.is_ok_and(|routes| !routes.is_empty())
}
