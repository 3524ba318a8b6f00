//! Whether masquerade is still needed: asks who has the pod CIDRs, and hands on what the kernel is to hold.

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
    net::{Family, Prefix},
    nft::{
        io::masquerade::Want,
        masquerade::{self, Auto, Mode},
    },
    plan::Plan,
};

/// How often the question is asked while it is open.
const ASK: Duration = Duration::from_secs(5);

/// Who is asked.
pub(super) struct Inputs {
    pub(super) plan: watch::Receiver<Arc<Result<Plan, String>>>,
    /// Each change is a reload, and with it `auto` begins anew.
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) peers: mpsc::Sender<ToPeers>,
    pub(super) rib: RibSender,
}

pub(super) async fn run(mut inputs: Inputs, want: watch::Sender<Option<Arc<Want>>>) {
    let mut auto = Auto::default();
    loop {
        let wanted = inputs.plan.borrow_and_update().as_ref().as_ref().ok().map(|p| p.masquerade.clone());
        let mut open = false;
        if let Some(wanted) = wanted {
            open = wanted.mode == Mode::Auto && wanted.pods.iter().any(|p| !auto.is_over(p.family()));
            if open {
                let known = known_outside(&inputs, &wanted.pods).await;
                for family in Family::ALL {
                    let was_over = auto.is_over(family);
                    auto.told(Instant::now(), family, known[family.index()]);
                    if auto.is_over(family) && !was_over {
                        tracing::info!(%family, "a neighbor outside has had the pod CIDRs for a minute: masquerade ends");
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
        // Cancel safe, each.
        let alive = tokio::select! {
            r = inputs.plan.changed() => r.is_ok(),
            r = inputs.config.changed() => {
                auto = Auto::default();
                r.is_ok()
            }
            () = tokio::time::sleep(ASK), if open => true,
        };
        if !alive {
            return;
        }
    }
}

/// For each family, whether one neighbor outside of the cluster has all pod CIDRs of it.
async fn known_outside(inputs: &Inputs, pods: &BTreeSet<Prefix>) -> [bool; 2] {
    let mut known = [false; 2];
    for neighbor in neighbors(inputs).await {
        if !is_outside(&neighbor) {
            continue;
        }
        for family in Family::ALL {
            let all: Vec<_> = pods.iter().copied().filter(|p| p.family() == family).collect();
            let mut has = !all.is_empty() && !known[family.index()];
            for prefix in all {
                has = has && is_told(inputs, &neighbor, prefix).await;
            }
            known[family.index()] |= has;
        }
    }
    known
}

/// Up, of another AS, and no node: another node does not speak for what is outside.
fn is_outside(n: &NeighborView) -> bool {
    n.state == SessionState::Established
        && n.remote_as.is_some_and(|asn| asn != n.local_as)
        && !matches!(n.source.as_str(), "mesh" | "reflector")
}

async fn neighbors(inputs: &Inputs) -> Vec<NeighborView> {
    let (reply, answer) = oneshot::channel();
    match inputs.peers.send(ToPeers::Status { reply }).await {
        Ok(()) => answer.await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

async fn is_told(inputs: &Inputs, neighbor: &NeighborView, prefix: Prefix) -> bool {
    let filter = RouteFilter {
        prefix: Some(prefix),
        advertised: Some(neighbor.address.clone()),
        ..RouteFilter::default()
    };
    Pages::new(inputs.rib.clone(), filter).next().await.is_ok_and(|routes| !routes.is_empty())
}
