//! Gathers what the operator should know, for the Events of the cluster.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{planner::publish, problems};
use crate::{
    cni::view::{ConflistState, ConflistStatus},
    k8s::{
        notice::{About, Notice},
        services::Mistake,
    },
    net::Severity,
    plan::Plan,
};

fn about_service(mistake: &Mistake) -> Notice {
    let Mistake { namespace, name, uid, text } = mistake.clone();
    Notice { about: About::Service { namespace, name, uid }, reason: "NotUnderstood", text }
}

fn about_node(reason: &'static str, text: &str) -> Notice {
    Notice { about: About::Node, reason, text: text.to_owned() }
}

/// Where problems come from.
pub(super) struct Sources {
    pub(super) plan: watch::Receiver<Arc<Result<Plan, String>>>,
    pub(super) conflist: watch::Receiver<ConflistStatus>,
    pub(super) problems: problems::Sources,
}

/// Runs for as long as somebody listens.
pub(super) async fn run(standing: watch::Sender<Arc<BTreeSet<Notice>>>, sources: Sources) {
    let Sources { mut plan, mut conflist, mut problems } = sources;
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
        problems.mark_seen();
        let all = problems.all();
        let events = all.iter().filter(|p| p.severity != Severity::Info);
        now.extend(events.map(|p| about_node(p.reason.as_str(), &p.line())));
        publish(&standing, Arc::new(now));
        // Cancel safe, each.
        let alive = tokio::select! {
            r = plan.changed() => r.is_ok(),
            r = conflist.changed() => r.is_ok(),
            () = problems.changed() => true,
            () = standing.closed() => false,
        };
        if !alive {
            return;
        }
    }
}
