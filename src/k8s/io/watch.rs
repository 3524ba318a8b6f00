//! The loop of every watch of the API server: carries out the steps of a [`WatchState`]. A
//! [`Source`] defines what is watched; the caller processes the objects.

use std::{
    collections::hash_map::RandomState,
    fmt::Debug,
    hash::BuildHasher,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use hyper::http::Request;
use kube::{
    Api, Client, Resource,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::{
    Options,
    client::{self, Connection},
    error::{ApiError, chain, response, within},
};
use crate::k8s::watch::{Cause, Change, Failure, Input, Report, Role, Step, WATCH_SECONDS, WatchState};

/// Maximum time of the request that detects the end of an outage.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is watched.
pub(super) struct Source<K: Resource> {
    pub(super) kind: K::DynamicType,
    pub(super) role: Role,
    /// Field and label selectors, and the page size of lists.
    pub(super) config: watcher::Config,
    /// What to do if the API server denies access, for the log.
    pub(super) remedy: &'static str,
}

/// What a watch received. If a change revealed the end of the outage, it comes together with
/// [`Report::Connected`].
pub(super) struct News<K> {
    pub(super) change: Option<Change<K>>,
    pub(super) report: Option<Report>,
}

/// One watch.
pub(super) struct Watcher<K: Resource> {
    options: Options,
    source: Source<K>,
    /// Plural name of the kind.
    resource: String,
    state: WatchState,
    connection: Option<Connection>,
    stream: Option<BoxStream<'static, Result<Event<K>, watcher::Error>>>,
    /// Requests in progress: kept here, so that a caller that cancels [`Watcher::next`] does not
    /// restart them.
    connecting: Option<BoxFuture<'static, Result<Connection, ApiError>>>,
    probing: Option<BoxFuture<'static, Result<String, ApiError>>>,
}

impl<K> Watcher<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone + Send + Sync,
{
    pub(super) fn new(options: Options, source: Source<K>) -> Self {
        let resource = K::plural(&source.kind).into_owned();
        let seed = RandomState::new().hash_one(&resource);
        Self {
            options,
            state: WatchState::new(source.role, resource.clone(), seed),
            source,
            resource,
            connection: None,
            stream: None,
            connecting: None,
            probing: None,
        }
    }

    /// Uses the connection of another watch.
    pub(super) fn over(mut self, connection: Option<Connection>) -> Self {
        if connection.is_some() {
            self.connection = connection;
            self.state.handle(Instant::now(), Input::Connected);
        }
        self
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Watches other objects of the kind.
    pub(super) fn reselect(&mut self, config: watcher::Config) {
        (self.source.config, self.stream) = (config, None);
        self.state.handle(Instant::now(), Input::Reselected);
    }

    /// What the watch receives next. Cancel safe: the stream, requests and deadlines are kept.
    pub(super) async fn next(&mut self) -> News<K> {
        loop {
            let news = match self.state.step() {
                Step::Connect => self.connect().await,
                Step::Start { streaming } => self.start(streaming),
                Step::Receive { until } => self.receive(until).await,
                Step::Wait { until } => {
                    sleep_until(until.into()).await;
                    self.timeout()
                }
                Step::Probe => self.probe().await,
            };
            if news.change.is_some() || news.report.is_some() {
                return news;
            }
        }
    }

    async fn connect(&mut self) -> News<K> {
        let options = &self.options;
        let connecting = self.connecting.get_or_insert_with(|| {
            let options = options.clone();
            async move { client::connect(&options).await }.boxed()
        });
        let result = connecting.await;
        (self.connecting, self.stream) = (None, None);
        match result {
            Ok(connection) => {
                self.connection = Some(connection);
                self.handle(Input::Connected)
            }
            Err(error) => self.handle(Input::NotConnected(&error.to_string())),
        }
    }

    fn start(&mut self, streaming: bool) -> News<K> {
        let Some(client) = self.client() else { return self.handle(Input::NotConnected("no client")) };
        let config = self.source.config.clone().timeout(WATCH_SECONDS);
        let config = if streaming { config.streaming_lists() } else { config };
        self.stream = Some(watcher(Api::<K>::all_with(client, &self.source.kind), config).boxed());
        self.handle(Input::Started)
    }

    async fn receive(&mut self, until: Option<Instant>) -> News<K> {
        let Some(stream) = &mut self.stream else { return self.handle(Input::Ended) };
        let item = match until {
            Some(until) => timeout_at(until.into(), stream.next()).await,
            None => Ok(stream.next().await),
        };
        match item {
            Ok(Some(Ok(event))) => self.changed(event),
            Ok(Some(Err(error))) => self.handle(Input::Failed(failure(&error))),
            Ok(None) => self.handle(Input::Ended),
            Err(_) => self.timeout(),
        }
    }

    async fn probe(&mut self) -> News<K> {
        let Some(client) = self.client() else { return self.handle(Input::NotConnected("no client")) };
        let probing = self.probing.get_or_insert_with(|| {
            let request = Request::get("/readyz").body(Vec::new()).expect("a constant request is valid");
            async move { within(PROBE_TIMEOUT, client.request_text(request)).await }.boxed()
        });
        let result = probing.await;
        self.probing = None;
        match result {
            Ok(_) => self.handle(Input::Responded),
            // It responds, although it refuses the request.
            Err(error) if error.code().is_some_and(|code| code != 500) => self.handle(Input::Responded),
            Err(error) => self.handle(Input::NoResponse(&error.to_string())),
        }
    }

    fn client(&self) -> Option<Client> {
        self.connection.as_ref().map(|connection| connection.client.clone())
    }

    fn timeout(&mut self) -> News<K> {
        let stale = self.connection.as_ref().is_none_or(|connection| connection.is_stale(&self.options));
        self.handle(Input::Timeout { stale })
    }

    fn changed(&mut self, event: Event<K>) -> News<K> {
        let (change, input) = match event {
            Event::Init => (Change::ListStarted, Input::Listed),
            Event::InitApply(object) => (Change::Listed(object), Input::Listed),
            Event::InitDone => (Change::ListDone, Input::Changed),
            Event::Apply(object) => (Change::Applied(object), Input::Changed),
            Event::Delete(object) => (Change::Deleted(object), Input::Changed),
        };
        News { change: Some(change), ..self.handle(input) }
    }

    fn handle(&mut self, input: Input<'_>) -> News<K> {
        let report = self.state.handle(Instant::now(), input);
        if let Some(report) = &report {
            self.log(report);
        }
        News { change: None, report }
    }

    fn log(&self, report: &Report) {
        let (resource, remedy) = (self.resource.as_str(), self.source.remedy);
        match (report, self.source.role) {
            (Report::Connected, Role::Leading) => info!("connected to the API server"),
            (Report::Connected, _) => debug!(resource, "watch established"),
            (Report::NoStreaming, _) => {
                debug!(resource, "streaming lists not supported by the API server, using list and watch");
            }
            (Report::Failed { is_new: false, .. }, _) => {}
            (Report::Failed { text: error, .. }, Role::Leading) => {
                warn!(%error, "API server unreachable, last known state stays in force, retrying");
            }
            (Report::Failed { cause: Cause::Denied, text: error, .. }, _) => {
                warn!(resource, %error, remedy, "watch denied, last known state stays in force, retrying");
            }
            (Report::Failed { cause: Cause::Absent, .. }, _) => {
                info!(resource, "optional kind not present in the cluster, checking at intervals");
            }
            // The leading watch reports the outage.
            (Report::Failed { text: error, .. }, _) => debug!(resource, %error, "watch failed, retrying"),
        }
    }
}

/// The next news of a watch; waits forever if there is no watch. Cancel safe.
pub(super) async fn next<K>(watcher: &mut Option<Watcher<K>>) -> News<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone + Send + Sync,
{
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until then; forever without a time. Cancel safe.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn failure(error: &watcher::Error) -> Failure {
    let status = response(error);
    let seconds = status.and_then(|s| s.details.as_ref()).map(|d| d.retry_after_seconds);
    Failure {
        code: status.map(|status| status.code),
        text: chain(error),
        at_start: matches!(error, watcher::Error::WatchStartFailed(_)),
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
    }
}
