//! Counters of the fib, read by the metrics.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Upper bounds of the convergence histogram, in seconds.
pub const BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Sources of `fib_operations_total` and related metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub put: Outcome,
    pub del: Outcome,
    pub nexthop: Outcome,
    pub repairs: AtomicU64,
    /// Per bucket, not cumulative; the last is beyond all bounds.
    pub convergence: [AtomicU64; BUCKETS.len() + 1],
    pub convergence_sum_micros: AtomicU64,
    epoch: OnceLock<Instant>,
    /// Time at which the oldest UPDATE was read whose routes are not all written, in microseconds
    /// since the epoch plus one; 0 for none.
    pending: AtomicU64,
}

/// Operations by result.
#[derive(Debug, Default)]
pub struct Outcome {
    pub ok: AtomicU64,
    pub error: AtomicU64,
}

impl Outcome {
    pub(super) fn add(&self, done: u64, refused: u64) {
        self.ok.fetch_add(done, Relaxed);
        self.error.fetch_add(refused, Relaxed);
    }
}

impl Counters {
    /// Records when the rib read the UPDATE whose routes it is about to post. The oldest of several
    /// counts.
    pub fn update_read(&self, at: Instant) {
        let epoch = *self.epoch.get_or_init(|| at);
        let micros = at.saturating_duration_since(epoch).as_micros() as u64 + 1;
        let _ = self.pending.compare_exchange(0, micros, Relaxed, Relaxed);
    }

    /// Ends the present measurement because its routes were taken for writing; returns its start.
    pub(super) fn taken(&self) -> Option<u64> {
        Some(self.pending.swap(0, Relaxed)).filter(|m| *m != 0)
    }

    /// Records that these routes are in the kernel.
    pub(super) fn acknowledged(&self, since: Option<u64>, now: Instant) {
        let (Some(since), Some(epoch)) = (since, self.epoch.get()) else { return };
        let micros = (now.saturating_duration_since(*epoch).as_micros() as u64 + 1).saturating_sub(since);
        let seconds = micros as f64 / 1e6;
        let bucket = BUCKETS.iter().position(|b| seconds <= *b).unwrap_or(BUCKETS.len());
        if let Some(count) = self.convergence.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.convergence_sum_micros.fetch_add(micros, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_update_of_a_batch_is_measured() {
        let (counters, t0) = (Counters::default(), Instant::now());
        counters.update_read(t0);
        counters.update_read(t0 + Duration::from_millis(9));
        let since = counters.taken();
        counters.acknowledged(since, t0 + Duration::from_millis(10));
        assert_eq!(counters.convergence_sum_micros.load(Relaxed), 10_000);
        assert_eq!(counters.convergence[6].load(Relaxed), 1);
        assert_eq!(counters.taken(), None);
    }
}
