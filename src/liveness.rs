//! Connects the tasks that depend on a neighbor being reachable with the thread that monitors it by
//! BFD.
//!
//! A task requests a path with [`Client::watch`] and reads reports from its [`Subscription`]. A
//! report goes straight from the thread to the task, and is not delayed by any other work of the
//! daemon.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::{
    mailbox::{self, mailbox},
    net::{BfdParams, BfdPath, BfdReport},
};

/// A path to monitor, and where to send reports; see `bfd::Watch`.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    pub path: BfdPath,
    pub params: BfdParams,
    pub proceed: bool,
    pub reports: watch::Sender<BfdReport>,
}

/// Requests by client; `None`: the client no longer needs its path.
pub type WatchRequests = mailbox::Receiver<u64, Option<WatchRequest>>;

/// Requests paths on behalf of tasks.
#[derive(Clone, Debug)]
pub struct Client {
    requests: Arc<mailbox::Sender<u64, Option<WatchRequest>>>,
    last: Arc<AtomicU64>,
}

/// A client, and the receiver of its requests.
pub fn channel() -> (Client, WatchRequests) {
    let (sender, receiver) = mailbox();
    (Client { requests: Arc::new(sender), last: Arc::default() }, receiver)
}

impl Client {
    /// Watches a path until the subscription is dropped.
    pub fn watch(&self, path: BfdPath, params: BfdParams) -> Subscription {
        let client = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let reports = watch::Sender::default();
        let mut receiver = reports.subscribe();
        receiver.mark_unchanged();
        let request = WatchRequest { path, params, proceed: false, reports };
        let subscription = Subscription { requests: self.requests.clone(), client, request, receiver };
        subscription.post();
        subscription
    }
}

/// One watched path.
#[derive(Debug)]
pub struct Subscription {
    requests: Arc<mailbox::Sender<u64, Option<WatchRequest>>>,
    client: u64,
    request: WatchRequest,
    receiver: watch::Receiver<BfdReport>,
}

impl Subscription {
    /// Changes the path, or its parameters.
    pub fn change(&mut self, path: BfdPath, params: BfdParams) {
        if self.request.path != path || self.request.params != params {
            (self.request.path, self.request.params) = (path, params);
            self.post();
        }
    }

    /// Sets whether the neighbor counts as reachable although BFD has lost it, because BGP has
    /// established a session without it.
    pub fn proceed(&mut self, proceed: bool) {
        if self.request.proceed != proceed {
            self.request.proceed = proceed;
            self.post();
        }
    }

    pub fn path(&self) -> BfdPath {
        self.request.path
    }

    /// The last report.
    pub fn report(&self) -> BfdReport {
        *self.receiver.borrow()
    }

    /// Waits for the next report. Cancel safe.
    pub async fn next(&mut self) -> BfdReport {
        if self.receiver.changed().await.is_err() {
            // Only while the daemon ends.
            std::future::pending::<()>().await;
        }
        *self.receiver.borrow_and_update()
    }

    fn post(&self) {
        self.requests.post_all([(self.client, Some(self.request.clone()))]);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.requests.post_all([(self.client, None)]);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use super::*;
    use crate::net::BfdStatus;

    #[tokio::test]
    async fn a_wish_arrives_and_its_reports_come_back() {
        let (client, mut requests) = channel();
        let path = BfdPath { remote: IpAddr::from([10, 0, 0, 1]), local: None, ifindex: 2 };
        let ms = Duration::from_millis(300);
        let params = BfdParams { min_tx: ms, min_rx: ms, multiplier: 3, passive: false, auth: None };
        let mut subscription = client.watch(path, params);
        let (id, request) = requests.take().await.into_iter().next().unwrap();
        let request = request.unwrap();
        assert_eq!((request.path, request.proceed), (path, false));
        let report = BfdReport { status: BfdStatus::Up, ..BfdReport::default() };
        request.reports.send_replace(report);
        assert_eq!(subscription.next().await, report);
        drop(subscription);
        let last = requests.take().await.into_iter().next().unwrap();
        assert!(last.0 == id && last.1.is_none());
    }
}
