//! Tasks that must keep running: a task that panics is started again.
#![allow(clippy::disallowed_methods, reason = "tasks are restarted after a pause")]

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};

/// Prevents a task that fails at once from keeping the machine busy.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the task that `start` creates, and starts it again whenever it panics. Returns when the
/// task ends. Dropping the future ends the task. Cancel safe.
pub async fn supervise<F>(task: &'static str, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut running = JoinSet::new();
        running.spawn(start());
        match running.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(
                    task,
                    "task failed and is started again: a bug; report it with the lines above"
                );
                sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

/// How long the task of one neighbor pauses before it is started again after this many panics:
/// twice as long each time, up to two minutes.
pub fn pause_after(panics: u32) -> Duration {
    match panics {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << n.min(7)).min(MAX_PANIC_BACKOFF),
    }
}

const MAX_PANIC_BACKOFF: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn pauses_double_up_to_two_minutes() {
        let seconds = [0, 1, 2, 6, 7, 1000].map(|n| pause_after(n).as_secs());
        assert_eq!(seconds, [0, 2, 4, 64, 120, 120]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_and_one_that_ends_is_not() {
        let starts = Arc::new(AtomicU32::new(0));
        let count = starts.clone();
        supervise("test", move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            async move { assert!(n >= 2, "planted") }
        })
        .await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }
}
