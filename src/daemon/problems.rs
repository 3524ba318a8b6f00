//! Collects the problems of all tasks, logs them when they appear and when they are resolved, and
//! provides them to `show`, Events and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::select_all;
use tokio::sync::watch;

use super::{forwarding::Forwarding, readiness::changed};
use crate::{
    cni::view::ConflistStatus,
    net::{Diagnostic, Reason, Severity, Subject},
    plan::{NoPlan, Plan},
};

/// Problems of one task.
pub(super) type Found = watch::Receiver<Vec<Diagnostic>>;

/// Where tasks report their problems.
#[derive(Default)]
pub(super) struct Reports {
    pub(super) firewall: watch::Sender<Vec<Diagnostic>>,
    pub(super) firewall_notes: watch::Sender<Vec<Diagnostic>>,
    /// Of packet filters of other programs.
    pub(super) filters: watch::Sender<Vec<Diagnostic>>,
    pub(super) pod_bgp: watch::Sender<Vec<Diagnostic>>,
    pub(super) pod_bgp_notes: watch::Sender<Vec<Diagnostic>>,
    /// Of the conflist and its bridge.
    pub(super) pods: watch::Sender<Vec<Diagnostic>>,
    pub(super) sessions: watch::Sender<Vec<Diagnostic>>,
    /// Of the configuration file.
    pub(super) file: watch::Sender<Vec<Diagnostic>>,
    pub(super) metrics_port: watch::Sender<Vec<Diagnostic>>,
}

/// Sources of problems. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) plan: watch::Receiver<Arc<Result<Plan, NoPlan>>>,
    /// Under Kubernetes.
    pub(super) conflist: Option<watch::Receiver<ConflistStatus>>,
    pub(super) forwarding: watch::Receiver<Forwarding>,
    /// Problems of sessions, including BFD.
    pub(super) sessions: Found,
    /// All others.
    pub(super) others: Vec<Found>,
}

impl Sources {
    /// Without those of the sessions, in a fixed order.
    pub(super) fn of_host(&self) -> Vec<Diagnostic> {
        let others = self.others.iter().flat_map(|found| found.borrow().clone());
        self.forwarding.borrow().problems.iter().cloned().chain(others).collect()
    }

    pub(super) fn of_sessions(&self) -> Vec<Diagnostic> {
        self.sessions.borrow().clone()
    }

    pub(super) fn of_plan(&self) -> Vec<Diagnostic> {
        self.plan.borrow().as_ref().as_ref().map(Plan::diagnostics).unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<Diagnostic> {
        let conflist = self.conflist.as_ref().and_then(|c| c.borrow().diagnostic.clone());
        let conflist = conflist.into_iter().collect();
        [conflist, self.of_host(), self.of_plan(), self.of_sessions()].concat()
    }

    /// Waits for a change; tasks that have ended are ignored. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let others = self.others.iter_mut().chain([&mut self.sessions]);
        let any = select_all(others.map(|found| Box::pin(next(found))));
        tokio::select! {
            _ = any => {}
            () = next(&mut self.forwarding) => {}
            () = next(&mut self.plan) => {}
            true = changed(self.conflist.as_mut()) => {}
            else => std::future::pending().await,
        }
    }

    pub(super) fn mark_seen(&mut self) {
        self.forwarding.mark_unchanged();
        self.plan.mark_unchanged();
        self.conflist.iter_mut().for_each(watch::Receiver::mark_unchanged);
        self.others.iter_mut().chain([&mut self.sessions]).for_each(watch::Receiver::mark_unchanged);
    }
}

/// Waits for a change; forever if the sender is gone. Cancel safe.
async fn next<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Logs all problems. Never ends.
pub(super) async fn log(mut sources: Sources) {
    let mut standing = Standing::default();
    loop {
        sources.mark_seen();
        standing.update(Instant::now(), sources.all());
        sources.changed().await;
    }
}

/// Minimum time between two log lines about one object: a tenant may change its texts ten times a
/// second.
const OBJECT_INTERVAL: Duration = Duration::from_secs(60);

/// The problems that are present.
#[derive(Default)]
struct Standing {
    keys: BTreeSet<(Reason, Subject)>,
    /// Objects of the API server, and when each was last logged.
    objects: BTreeMap<Subject, Instant>,
}

impl Standing {
    fn update(&mut self, now: Instant, found: Vec<Diagnostic>) {
        let (new, gone) = self.changes(now, &found);
        for (reason, subject) in gone {
            tracing::info!(%reason, %subject, "problem resolved");
        }
        for Diagnostic { reason, severity, subject, text, remedy } in new {
            match severity {
                Severity::Info => tracing::info!(%reason, %subject, problem = text, remedy, "problem found"),
                _ => tracing::warn!(%reason, %subject, problem = text, remedy, "problem found"),
            }
        }
    }

    /// The problems to log as found, and the keys of those to log as resolved.
    fn changes<'a>(
        &mut self,
        now: Instant,
        found: &'a [Diagnostic],
    ) -> (Vec<&'a Diagnostic>, Vec<(Reason, Subject)>) {
        self.objects.retain(|_, logged| now.duration_since(*logged) < OBJECT_INTERVAL);
        let mut keys = BTreeSet::new();
        let mut new = Vec::new();
        for problem in found {
            let key = (problem.reason, problem.subject.clone());
            if keys.insert(key.clone()) && !self.keys.contains(&key) && self.is_due(now, &key.1) {
                new.push(problem);
            }
        }
        let old = std::mem::replace(&mut self.keys, keys);
        let is_gone = |key: &(Reason, Subject)| !self.keys.contains(key) && !key.1.is_object();
        (new, old.into_iter().filter(is_gone).collect())
    }

    fn is_due(&mut self, now: Instant, subject: &Subject) -> bool {
        let is_object = subject.is_object();
        let is_due = !is_object || !self.objects.contains_key(subject);
        if is_object && is_due {
            self.objects.insert(subject.clone(), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SubjectKind;

    fn one(subject: &str, text: &str) -> Diagnostic {
        Diagnostic::new(Reason::PrefixLimitNear, Subject::neighbor(subject), text, "")
    }

    #[test]
    fn a_problem_is_logged_when_it_appears_and_when_it_is_gone_whatever_its_text() {
        let mut standing = Standing::default();
        let start = Instant::now();
        let mut turn = |found: &[Diagnostic]| {
            let (new, gone) = standing.changes(start, found);
            let new: Vec<_> = new.into_iter().map(|d| d.subject.name.clone()).collect();
            (new.concat(), gone.into_iter().map(|(_, s)| s.name).collect::<String>())
        };
        let result = |new: &str, gone: &str| (new.to_owned(), gone.to_owned());
        assert_eq!(turn(&[one("a", "81 %")]), result("a", ""));
        assert_eq!(turn(&[one("a", "82 %"), one("b", "90 %")]), result("b", ""));
        assert_eq!(turn(&[one("b", "90 %"), one("b", "again")]), result("", "a"));
        assert_eq!(turn(&[one("a", "81 %")]), result("a", "b"));
    }

    #[test]
    fn an_object_is_logged_once_a_minute_however_often_it_changes() {
        let mut standing = Standing::default();
        let start = Instant::now();
        let mut lines = 0;
        // Ten changes per second for three minutes; every other time the object has no problem.
        for n in 0..1800_u32 {
            let now = start + Duration::from_millis(100) * n;
            let subject = Subject::object(SubjectKind::Service, Some("a"), "b", "");
            let problem = Diagnostic::new(Reason::NotUnderstood, subject, format!("text {n}"), "");
            let (new, gone) =
                standing.changes(now, if n % 2 == 0 { std::slice::from_ref(&problem) } else { &[] });
            lines += new.len() + gone.len();
        }
        assert_eq!(lines, 3);
    }

    #[tokio::test]
    async fn news_of_any_task_wakes_and_an_ended_one_does_not() {
        let (forwarding_tx, forwarding) = watch::channel(Forwarding::default());
        let (sessions_tx, sessions) = watch::channel(Vec::new());
        let (tx, other) = watch::channel(Vec::new());
        let (ended, gone) = watch::channel(vec![one("gone", "x")]);
        drop(ended);
        let (_plan, plan) = watch::channel(Arc::new(Err(NoPlan::Starting)));
        let others = vec![other, gone];
        let mut sources = Sources { plan, conflist: None, forwarding, sessions, others };
        sources.mark_seen();
        let quiet = tokio::time::timeout(Duration::from_millis(20), sources.changed()).await;
        assert!(quiet.is_err());
        tx.send_replace(vec![one("a", "x")]);
        sources.changed().await;
        assert_eq!(sources.of_host().len(), 2);
        sessions_tx.send_replace(vec![one("s", "x")]);
        sources.changed().await;
        assert_eq!(sources.all().len(), 3);
        forwarding_tx.send_modify(|f| f.problems.push(one("f", "x")));
        sources.changed().await;
        assert_eq!(sources.all()[0].subject.name, "f");
    }
}
