//! All problems in one place: gathered from the tasks that find them, logged when they appear and
//! when they are gone, and handed on to `show`, Events and metrics.

use std::collections::BTreeSet;

use futures::future::select_all;
use tokio::sync::watch;

use super::forwarding::Forwarding;
use crate::net::{Diagnostic, Reason, Severity, Subject};

/// Problems of one task.
pub(super) type Found = watch::Receiver<Vec<Diagnostic>>;

/// Where problems come from. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) forwarding: watch::Receiver<Forwarding>,
    /// Of the sessions, BFD included.
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

    pub(super) fn all(&self) -> Vec<Diagnostic> {
        [self.of_host(), self.of_sessions()].concat()
    }

    /// Waits for news. A task that has ended has none. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let others = self.others.iter_mut().chain([&mut self.sessions]);
        let any = select_all(others.map(|found| Box::pin(next(found))));
        tokio::select! {
            _ = any => {}
            () = next(&mut self.forwarding) => {}
        }
    }

    pub(super) fn mark_seen(&mut self) {
        self.forwarding.mark_unchanged();
        self.others.iter_mut().chain([&mut self.sessions]).for_each(watch::Receiver::mark_unchanged);
    }
}

/// Waits for a change; for ever once nobody is left to make one. Cancel safe.
async fn next<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Logs them. Never ends.
pub(super) async fn log(mut sources: Sources) {
    let mut standing = Standing::default();
    loop {
        sources.mark_seen();
        standing.update(sources.all());
        sources.changed().await;
    }
}

/// What was logged as found and not yet as gone.
#[derive(Default)]
struct Standing(BTreeSet<(Reason, Subject)>);

impl Standing {
    fn update(&mut self, now: Vec<Diagnostic>) {
        let (new, gone) = self.changes(&now);
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

    /// Those that were not there before, and the keys of those that are not any more.
    fn changes<'a>(&mut self, now: &'a [Diagnostic]) -> (Vec<&'a Diagnostic>, Vec<(Reason, Subject)>) {
        let key = |d: &Diagnostic| (d.reason, d.subject.clone());
        let mut keys = BTreeSet::new();
        let mut new = Vec::new();
        for diagnostic in now {
            let first = keys.insert(key(diagnostic));
            new.extend((first && !self.0.contains(&key(diagnostic))).then_some(diagnostic));
        }
        let old = std::mem::replace(&mut self.0, keys);
        let gone = old.into_iter().filter(|key| !self.0.contains(key)).collect();
        (new, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(subject: &str, text: &str) -> Diagnostic {
        Diagnostic::new(Reason::PrefixLimitNear, Subject::neighbor(subject), text, "")
    }

    #[test]
    fn a_problem_is_logged_when_it_appears_and_when_it_is_gone_whatever_its_text() {
        let mut standing = Standing::default();
        let mut turn = |now: &[Diagnostic]| {
            let (new, gone) = standing.changes(now);
            let new: Vec<_> = new.into_iter().map(|d| d.subject.name.clone()).collect();
            (new.concat(), gone.into_iter().map(|(_, s)| s.name).collect::<String>())
        };
        let result = |new: &str, gone: &str| (new.to_owned(), gone.to_owned());
        assert_eq!(turn(&[one("a", "81 %")]), result("a", ""));
        assert_eq!(turn(&[one("a", "82 %"), one("b", "90 %")]), result("b", ""));
        assert_eq!(turn(&[one("b", "90 %"), one("b", "again")]), result("", "a"));
        assert_eq!(turn(&[one("a", "81 %")]), result("a", "b"));
    }

    #[tokio::test]
    async fn news_of_any_task_wakes_and_an_ended_one_does_not() {
        let (forwarding_tx, forwarding) = watch::channel(Forwarding::default());
        let (sessions_tx, sessions) = watch::channel(Vec::new());
        let (tx, other) = watch::channel(Vec::new());
        let (ended, gone) = watch::channel(vec![one("gone", "x")]);
        drop(ended);
        let mut sources = Sources { forwarding, sessions, others: vec![other, gone] };
        sources.mark_seen();
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), sources.changed()).await;
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
