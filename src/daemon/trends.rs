//! Samples counters for the status page, while it is served.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::queries::QueryHandler;
use crate::{control::page::trends::Sample, pace::tick};

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Never ends.
pub(super) async fn run(queries: QueryHandler) {
    let mut last: Option<(Sample, Instant)> = None;
    loop {
        if is_served(&queries) {
            let (now, at) = (sample(&queries).await, Instant::now());
            if let Some((before, since)) = last {
                let seconds = (at - since).as_secs_f64();
                queries.trends.send_modify(|trends| Arc::make_mut(trends).add(before, now, seconds));
            }
            last = Some((now, at));
        } else {
            last = None;
        }
        tick(SAMPLE_INTERVAL).await;
    }
}

fn is_served(queries: &QueryHandler) -> bool {
    let config = queries.config.borrow();
    config.metrics.status_page && !config.metrics.listen.is_empty()
}

async fn sample(queries: &QueryHandler) -> Sample {
    let counters = &queries.counters;
    let sessions = queries.sessions().await;
    let messages = sessions.iter().flat_map(|n| n.messages_sent.values().chain(n.messages_received.values()));
    let outcomes = [&counters.put, &counters.del, &counters.nexthop];
    Sample {
        messages: messages.sum(),
        operations: outcomes.iter().map(|o| o.ok.load(Relaxed) + o.error.load(Relaxed)).sum(),
        acknowledged: counters.convergence.iter().map(|count| count.load(Relaxed)).sum(),
        micros: counters.convergence_sum_micros.load(Relaxed),
    }
}
