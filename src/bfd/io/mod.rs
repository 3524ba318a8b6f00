//! Sockets, the thread and the clock of BFD. Decides nothing.
//!
//! The thread is started when the first path is to be watched; before, no port is open. It has
//! real-time priority where that is permitted, and never waits for anything but packets, its timers
//! and its clients' requests. It writes no log, as standard error may block:
//! [`Handle::changes`] and [`Handle::problems`] are for others to report.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod receive;
mod send;
#[cfg(test)]
mod tests;
mod thread;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{Change, Totals, view::BfdView};
use crate::{
    liveness::WatchRequests,
    net::{Diagnostic, Reason, Subject},
};

/// RFC 5881 §4.
pub(super) const SINGLE_HOP_PORT: u16 = 3784;
/// RFC 5883 §5.
pub(super) const MULTIHOP_PORT: u16 = 4784;
/// Changes that a slow reader may be behind before it misses some.
const CHANGES: usize = 1024;
/// How long the thread may take to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long before the end of a session its neighbor may have seen the end of the connection. FRR
/// takes the end of BFD for a loss, and a loss before it ends the session without graceful restart.
const TCP_FIRST: Duration = Duration::from_millis(100);

/// The neighbors that were lost: address, and interface where it is directly connected.
pub type Lost = Arc<BTreeSet<(IpAddr, u32)>>;

/// The kernel refused real-time priority.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PriorityError(#[from] thread_priority::Error);

/// Everything that `show bfd` and the metrics need.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub sessions: Vec<BfdView>,
    pub totals: Totals,
    /// Whether the thread has real-time priority; `None`: it does not run.
    pub realtime: Option<Result<(), PriorityError>>,
}

/// The running BFD.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    pub lost: watch::Receiver<Lost>,
    /// State changes of sessions.
    pub changes: broadcast::Sender<Change>,
    /// Why sessions cannot work, with remedies.
    pub problems: watch::Receiver<Vec<Diagnostic>>,
}

/// Requests to the thread.
#[derive(Debug)]
enum Request {
    Status(oneshot::Sender<Status>),
    /// No requests are carried out before the end. The reply: whether there are sessions.
    Hold(oneshot::Sender<bool>),
    /// Ends all sessions in order, then the thread.
    Stop(oneshot::Sender<()>),
}

impl Handle {
    /// All sessions, by neighbor. Empty where nothing is watched.
    pub async fn status(&self) -> Status {
        let (reply, response) = oneshot::channel();
        if self.requests.try_send(Request::Status(reply)).is_err() {
            return Status::default();
        }
        let status = tokio::time::timeout(RESPONSE_TIMEOUT, response).await;
        status.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Before the clients close their connections: sessions go on without them. Returns whether
    /// there are any.
    pub async fn hold(&self) -> bool {
        let (reply, response) = oneshot::channel();
        if self.requests.try_send(Request::Hold(reply)).is_err() {
            return false;
        }
        tokio::time::timeout(RESPONSE_TIMEOUT, response).await.is_ok_and(|held| held == Ok(true))
    }

    /// After the clients have closed their connections: neighbors are informed of the end of each
    /// session, then the ports are closed.
    pub async fn shutdown(&self, held: bool) {
        if held {
            tokio::time::sleep(TCP_FIRST).await;
        }
        let (reply, done) = oneshot::channel();
        if self.requests.try_send(Request::Stop(reply)).is_ok() {
            let _ = tokio::time::timeout(RESPONSE_TIMEOUT, done).await;
        }
    }
}

/// Waits for the first request, then runs the thread. `seed`: for discriminators and jitter.
pub fn spawn(mut watch_requests: WatchRequests, seed: u64) -> Handle {
    let (requests, mut inbox) = mpsc::channel(16);
    let (lost_tx, lost) = watch::channel(Lost::default());
    let (problems_tx, problems) = watch::channel(Vec::new());
    let (changes, _) = broadcast::channel(CHANGES);
    let outputs = thread::Outputs { lost: lost_tx, problems: problems_tx, changes: changes.clone() };
    tokio::spawn(async move {
        let first = loop {
            // Cancel safe, both.
            tokio::select! {
                first = watch_requests.take() => if first.values().any(Option::is_some) {
                    break first;
                },
                request = inbox.recv() => match request {
                    Some(Request::Status(reply)) => drop(reply.send(Status::default())),
                    Some(Request::Hold(reply)) => drop(reply.send(false)),
                    Some(Request::Stop(reply)) => {
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
            }
        };
        let problems = outputs.problems.clone();
        let run = move || thread::run(first, watch_requests, inbox, outputs, seed);
        if let Err(error) = std::thread::Builder::new().name("bfd".into()).spawn(run) {
            let text = format!("BFD does not run: no thread can be started: {error}");
            problems.send_replace(vec![not_running(text, "raise the limit of processes")]);
        }
    });
    Handle { requests, lost, changes, problems }
}

/// The problem that there is no BFD at all.
fn not_running(text: String, remedy: &str) -> Diagnostic {
    Diagnostic::new(Reason::BfdNotRunning, Subject::host(), text, remedy)
}
