//! The status page, and the events that a browser follows.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::QueryHandler;
use crate::{
    control::{
        RouteFilter, RouteView,
        page::{self, Kernel, MAX_EVENTS, MAX_ROUTES, Routes, Status, search},
    },
    daemon::events,
};

/// How long paths are searched for. A table of a million routes takes less.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two parts of a stream of events, to send many events together.
const STREAM_INTERVAL: Duration = Duration::from_millis(200);

/// After this time without events, a comment is sent to check that the browser is still connected.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

impl QueryHandler {
    pub(super) fn has_status_page(&self) -> bool {
        self.config.borrow().metrics.status_page
    }

    pub(super) async fn status_page(&self, search: &str) -> String {
        let summary = self.summary().await;
        let neighbors = self.neighbors().await;
        let (mut rows, mut error) = (Vec::new(), None);
        let mut has_more = false;
        match search::filter(search) {
            Ok(filter) => has_more = self.first_routes(filter, &mut rows).await,
            Err(wrong) => error = Some(wrong.to_string()),
        }
        let recent = events::latest(MAX_EVENTS);
        let trends = self.trends.borrow().clone();
        page::render(&Status {
            now: jiff::Timestamp::now(),
            summary: &summary,
            neighbors: &neighbors,
            routes: Routes { search, rows: &rows, has_more, error },
            kernel: self.kernel().await,
            trends: &trends,
            events: &recent,
        })
    }

    async fn kernel(&self) -> Kernel {
        let installs = self.config.borrow().fib.install;
        let installed: usize = self.fib.counts().await.iter().sum();
        let outcomes = [&self.counters.put, &self.counters.del, &self.counters.nexthop];
        Kernel {
            installs,
            prefixes: self.counts().await.prefixes.values().sum(),
            routes: installed as u64,
            refused: outcomes.iter().map(|outcome| outcome.error.load(Relaxed)).sum(),
            repairs: self.counters.repairs.load(Relaxed),
        }
    }

    /// The first paths that match. Returns whether there may be more.
    async fn first_routes(&self, filter: RouteFilter, rows: &mut Vec<RouteView>) -> bool {
        let (mut pages, end) = (self.route_pages(filter), Instant::now() + SEARCH_TIMEOUT);
        while rows.len() <= MAX_ROUTES {
            match timeout_at(end, pages.next()).await {
                Ok(Ok(mut list)) if !list.is_empty() => rows.append(&mut list),
                Ok(_) => break,
                Err(_) => return true,
            }
        }
        let has_more = rows.len() > MAX_ROUTES;
        rows.truncate(MAX_ROUTES);
        has_more
    }
}

/// The events after this number, or all later events, as they happen. Never ends.
pub(super) fn event_stream(after: Option<u64>) -> BoxStream<'static, String> {
    let last = events::last_number();
    let parts = stream::unfold(after.map_or(last, |after| after.min(last)), async |after| {
        sleep(STREAM_INTERVAL).await;
        Some(next_part(after).await)
    });
    stream::iter([page::STREAM_START.to_owned()]).chain(parts).boxed()
}

/// The events after this number, and the number of the last one; a comment if there are none within
/// [`COMMENT_INTERVAL`].
async fn next_part(after: u64) -> (String, u64) {
    let end = Instant::now() + COMMENT_INTERVAL;
    loop {
        // Created before the events are read, so that none in between is missed.
        let recorded = events::recorded();
        let mut found = events::after(after);
        found.truncate(MAX_EVENTS);
        if let Some(last) = found.last() {
            return (page::stream_part(&found), last.number);
        }
        if timeout_at(end, recorded).await.is_err() {
            return (page::STREAM_COMMENT.into(), after);
        }
    }
}
