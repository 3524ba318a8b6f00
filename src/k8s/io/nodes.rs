//! The task that watches Nodes and publishes [`Nodes`]. It survives every failure of the API
//! server: the last known state stays in force. Its watch is the one that reports outages.

use std::{
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::watcher;
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tracing::info;

use super::{
    Options,
    watch::{News, Source, Watcher, due},
};
use crate::{
    k8s::{
        cluster::{Cluster, Scope},
        node::{ApiNode, Nodes},
        progress::{Note, Progress, REMINDER_INTERVAL},
        view::ApiStatus,
        watch::{Change, Debounce, Report, Role},
    },
    net::Prefix,
};

/// Changes within this time are published together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long to wait after a list for the state of the admission policy.
const GUARDED_TIMEOUT: Duration = Duration::from_secs(1);

/// The other inputs of the task, and its outputs.
pub(super) struct Channels {
    pub(super) all_nodes: watch::Receiver<bool>,
    /// Ranges of ServiceCIDR objects, once they were listed.
    pub(super) ranges: watch::Receiver<Option<Vec<Prefix>>>,
    /// Whether kubelets are prevented from setting our labels and annotations, once that is known.
    pub(super) guarded: watch::Receiver<Option<bool>>,
    pub(super) nodes: watch::Sender<Arc<Nodes>>,
    pub(super) status: watch::Sender<ApiStatus>,
}

/// Watches Nodes.
pub(super) struct NodeWatch {
    options: Options,
    channels: Channels,
    cluster: Cluster,
    scope: Scope,
    progress: Progress,
    debounce: Debounce,
}

impl NodeWatch {
    pub(super) fn new(options: Options, known: Nodes, channels: Channels) -> Self {
        Self {
            cluster: Cluster::new(options.node_name.clone(), known),
            options,
            channels,
            scope: Scope::Own,
            progress: Progress::default(),
            debounce: Debounce::new(DEBOUNCE),
        }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        let source = Source {
            kind: (),
            role: Role::Leading,
            config: self.select(),
            remedy: "apply the ClusterRole of deploy/daemonset.yaml",
        };
        let mut watcher = Watcher::new(self.options.clone(), source);
        let mut remind = interval(REMINDER_INTERVAL);
        loop {
            let expiry = self.next_expiry();
            // Each arm is cancel safe.
            let news = tokio::select! {
                news = watcher.next() => news,
                _ = remind.tick() => {
                    self.remind();
                    continue;
                }
                () = scope_changed(&mut self.channels.all_nodes, self.scope) => {
                    watcher.reselect(self.select());
                    continue;
                }
                Ok(()) = self.channels.ranges.changed() => {
                    self.take_ranges();
                    continue;
                }
                Ok(()) = self.channels.guarded.changed() => {
                    if self.take_guarded() {
                        self.publish();
                    }
                    continue;
                }
                () = due(self.debounce.due()) => {
                    self.publish();
                    continue;
                }
                () = due(expiry) => {
                    self.cluster.expire(Instant::now());
                    self.publish();
                    continue;
                }
            };
            if let Some(connection) = watcher.connection() {
                self.take_servers(&connection.servers);
            }
            self.take(news).await;
        }
    }

    /// The selector of the Nodes that are needed now.
    fn select(&mut self) -> watcher::Config {
        let all = *self.channels.all_nodes.borrow_and_update();
        self.scope = if all { Scope::All } else { Scope::Own };
        match self.scope {
            Scope::All => watcher::Config::default(),
            Scope::Own => {
                watcher::Config::default().fields(&format!("metadata.name={}", self.options.node_name))
            }
        }
    }

    /// Takes the addresses of the API server, for the route guard. Until there is a connection,
    /// those of the previous run are used.
    fn take_servers(&mut self, servers: &[IpAddr]) {
        let known = &mut self.cluster.nodes_mut().api_servers;
        if *known != servers {
            *known = servers.to_vec();
        }
    }

    async fn take(&mut self, News { change, report }: News<ApiNode>) {
        match report {
            Some(Report::Connected) => self.connected(),
            Some(Report::Failed { text, .. }) => self.connection_lost(text),
            Some(Report::NoStreaming) | None => {}
        }
        let Some(change) = change else { return };
        let is_list = matches!(change, Change::ListDone);
        self.apply(change);
        if is_list {
            self.wait_for_guarded().await;
        }
    }

    fn apply(&mut self, change: Change<ApiNode>) {
        let now = Instant::now();
        match change {
            Change::ListStarted => return self.cluster.begin_list(self.scope),
            Change::Listed(node) => return self.cluster.apply(now, &node, true),
            Change::ListDone => self.cluster.end_list(now),
            Change::Applied(node) => self.cluster.apply(now, &node, false),
            Change::Deleted(node) => self.cluster.delete(now, &node),
        }
        self.channels.status.send_if_modified(|s| mem::take(&mut s.from_state));
        self.debounce.changed(now);
    }

    fn take_ranges(&mut self) {
        if let Some(ranges) = self.channels.ranges.borrow_and_update().clone() {
            self.cluster.nodes_mut().service_cidrs = ranges;
        }
        self.publish();
    }

    /// Waits for the state of the admission policy: the election of reflectors depends on it, so
    /// the first plan should include it.
    async fn wait_for_guarded(&mut self) {
        if self.cluster.nodes().guarded.is_none() {
            let _ = timeout(GUARDED_TIMEOUT, self.channels.guarded.wait_for(Option::is_some)).await;
            self.take_guarded();
        }
    }

    /// Returns whether it changed.
    fn take_guarded(&mut self) -> bool {
        let guarded = *self.channels.guarded.borrow_and_update();
        guarded.is_some_and(|guarded| self.cluster.set_guarded(guarded))
    }

    /// When a deleted Node is no longer in force; never during an outage, which changes nothing.
    fn next_expiry(&self) -> Option<Instant> {
        self.cluster.next_expiry().filter(|_| self.channels.status.borrow().connected)
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.debounce.published(now);
        let nodes = self.cluster.nodes();
        self.channels.nodes.send_if_modified(|last| {
            let changed = **last != *nodes;
            if changed {
                *last = Arc::new(nodes.clone());
            }
            changed
        });
        self.log_progress(now);
    }

    fn connected(&mut self) {
        self.channels.status.send_if_modified(|s| {
            (s.connected, s.since) = (true, Some(super::timestamp()));
            true
        });
    }

    fn connection_lost(&mut self, error: String) {
        self.channels.status.send_if_modified(|s| {
            if s.connected || s.since.is_none() {
                s.connected = false;
                s.since = Some(super::timestamp());
            }
            let changed = s.last_error.as_ref() != Some(&error);
            s.last_error = Some(error);
            changed
        });
    }

    /// Logs once what the node is waiting for, and once that it is known.
    fn log_progress(&mut self, now: Instant) {
        let nodes = self.cluster.nodes();
        match self.progress.update(now, nodes.missing()) {
            Some(Note::Waiting(what)) => {
                info!(node = self.options.node_name, missing = what, "waiting for the Node");
            }
            Some(Note::Known) => {
                if let Some(own) = &nodes.own {
                    info!(node = own.name, pod_cidrs = ?own.pod_cidrs, addresses = ?own.addresses, "Node is known");
                }
            }
            None => {}
        }
    }

    fn remind(&self) {
        if let Some(what) = self.progress.reminder(Instant::now()) {
            info!(node = self.options.node_name, missing = what, "still waiting for the Node");
        }
    }
}

/// Waits until the scope must change. Cancel safe.
async fn scope_changed(all_nodes: &mut watch::Receiver<bool>, scope: Scope) {
    loop {
        if all_nodes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *all_nodes.borrow() != (scope == Scope::All) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_connection_the_known_addresses_of_the_api_server_stay() {
        let options = Options {
            kubeconfig: Some("/nonexistent/kubeconfig".into()),
            service: None,
            node_name: "n1".into(),
            state_dir: "/nonexistent".into(),
            service_cidrs: None,
        };
        let known = Nodes { api_servers: vec!["10.0.0.9".parse().unwrap()], ..Nodes::default() };
        let (_all_nodes, all_nodes) = watch::channel(true);
        let (ranges_in, ranges) = watch::channel(None);
        let (_guarded, guarded) = watch::channel(None);
        let (nodes, mut seen) = watch::channel(Arc::new(known.clone()));
        let (status, mut failed) = watch::channel(ApiStatus::default());
        let channels = Channels { all_nodes, ranges, guarded, nodes, status };
        let task = tokio::spawn(NodeWatch::new(options, known.clone(), channels).run());
        failed.wait_for(|status| status.last_error.is_some()).await.unwrap();
        let range: Prefix = "10.96.0.0/12".parse().unwrap();
        ranges_in.send_replace(Some(vec![range]));
        let published = seen.wait_for(|nodes| nodes.service_cidrs == [range]).await.unwrap().clone();
        assert_eq!(published.api_servers, known.api_servers);
        task.abort();
    }
}
