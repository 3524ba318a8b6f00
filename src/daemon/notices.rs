//! Gathers what the operator should know, for the Events of the cluster.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{forwarding::Forwarding, planner::publish};
use crate::{
    k8s::{
        notice::{About, Notice},
        services::Mistake,
        view::{ConflistState, ConflistStatus},
    },
    plan::Plan,
};

fn about_service(mistake: &Mistake) -> Notice {
    let Mistake { namespace, name, uid, text } = mistake.clone();
    Notice { about: About::Service { namespace, name, uid }, reason: "NotUnderstood", text }
}

/// Waits for news; for ever once nobody is left to bring some. Cancel safe.
async fn next<T>(news: &mut watch::Receiver<T>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where problems come from.
pub(super) struct Sources {
    pub(super) plan: watch::Receiver<Arc<Result<Plan, String>>>,
    pub(super) conflist: watch::Receiver<ConflistStatus>,
    pub(super) forwarding: watch::Receiver<Forwarding>,
    pub(super) firewall: watch::Receiver<Vec<String>>,
    pub(super) pods: watch::Receiver<Vec<String>>,
    /// Learned routes that have no effect.
    pub(super) without_effect: watch::Receiver<Vec<String>>,
    /// Limits of prefixes and of memory that are near.
    pub(super) limits: watch::Receiver<Vec<String>>,
    pub(super) sessions: watch::Receiver<Vec<String>>,
    /// State that cannot be written, or is out of date.
    pub(super) unkept: watch::Receiver<Vec<String>>,
    /// Open files that are used up.
    pub(super) descriptors: watch::Receiver<Vec<String>>,
}

/// Runs for as long as somebody listens.
pub(super) async fn run(standing: watch::Sender<Arc<BTreeSet<Notice>>>, sources: Sources) {
    let Sources { mut plan, mut conflist, mut forwarding, .. } = sources;
    let Sources {
        mut firewall,
        mut pods,
        mut without_effect,
        mut limits,
        mut sessions,
        mut unkept,
        mut descriptors,
        ..
    } = sources;
    let about_node = |reason, text: &String| Notice { about: About::Node, reason, text: text.clone() };
    loop {
        let mut now = BTreeSet::new();
        if let Ok(plan) = plan.borrow_and_update().as_ref() {
            let of_services = |p: &&String| plan.mistakes.iter().any(|m| m.text == **p);
            let of_node = plan.problems.iter().filter(|p| !of_services(p));
            now.extend(of_node.map(|p| about_node("NeedsAttention", p)));
            now.extend(plan.mistakes.iter().map(about_service));
            now.extend(plan.object_problems.iter().map(|p| Notice {
                about: About::Object { kind: p.kind, name: p.name.clone(), uid: p.uid.clone() },
                reason: p.reason,
                text: p.text.clone(),
            }));
        }
        {
            let conflist = conflist.borrow_and_update();
            // What it waits for is no fault.
            let told = conflist.problem.iter().filter(|_| conflist.state != ConflistState::Waiting);
            now.extend(told.map(|p| about_node("ConflistNeedsAttention", p)));
        }
        now.extend(
            forwarding.borrow_and_update().problems.iter().map(|p| about_node("HostNeedsAttention", p)),
        );
        for problems in [&mut firewall, &mut without_effect] {
            now.extend(problems.borrow_and_update().iter().map(|p| about_node("HostNeedsAttention", p)));
        }
        now.extend(pods.borrow_and_update().iter().map(|p| about_node("PodsNeedAttention", p)));
        now.extend(limits.borrow_and_update().iter().map(|p| about_node("NeedsAttention", p)));
        now.extend(sessions.borrow_and_update().iter().map(|p| about_node("NeighborNeedsAttention", p)));
        now.extend(unkept.borrow_and_update().iter().map(|p| about_node("StateNotWritable", p)));
        now.extend(descriptors.borrow_and_update().iter().map(|p| about_node("NeedsAttention", p)));
        publish(&standing, Arc::new(now));
        // Cancel safe, each.
        let alive = tokio::select! {
            r = plan.changed() => r.is_ok(),
            r = conflist.changed() => r.is_ok(),
            r = forwarding.changed() => r.is_ok(),
            r = firewall.changed() => r.is_ok(),
            // Outside of the conflist's task nobody looks at pods.
            () = next(&mut pods) => true,
            r = without_effect.changed() => r.is_ok(),
            r = limits.changed() => r.is_ok(),
            r = sessions.changed() => r.is_ok(),
            r = unkept.changed() => r.is_ok(),
            r = descriptors.changed() => r.is_ok(),
            () = standing.closed() => false,
        };
        if !alive {
            return;
        }
    }
}
