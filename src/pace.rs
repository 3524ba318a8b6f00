//! Periodic checks that are aligned to the same points in time, so that an idle host wakes up once
//! for all of them.
#![allow(clippy::disallowed_methods, reason = "waits, and reads the clock for it")]

use std::{sync::LazyLock, time::Duration};

use tokio::time::{Instant, sleep_until};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Waits for the next moment that is a multiple of `period` after the start of the process, so at
/// most for `period`: checks each 5 s and each 10 s share every second moment. Cancel safe.
pub async fn tick(period: Duration) {
    sleep_until(next(*EPOCH, Instant::now(), period)).await;
}

fn next(epoch: Instant, now: Instant, period: Duration) -> Instant {
    let end = now + period;
    let since = end.saturating_duration_since(epoch).as_nanos();
    // Less than the period, which is at most years.
    let beyond = Duration::from_nanos((since % period.as_nanos().max(1)) as u64);
    (end - beyond).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_with_different_periods_fall_on_the_same_moments() {
        let epoch = Instant::now();
        let at = |milliseconds| epoch + Duration::from_millis(milliseconds);
        #[rustfmt::skip]
        let cases = [
            (10_300, 1, 11_000),
            (10_300, 2, 12_000),
            (10_700, 5, 15_000),
            (11_300, 5, 15_000),
            (11_000, 1, 12_000),
            (10_999, 10, 20_000),
            (15_000, 5, 20_000),
        ];
        for (now, period, expected) in cases {
            assert_eq!(next(epoch, at(now), Duration::from_secs(period)), at(expected), "{now}, {period}");
        }
        let second = Duration::from_secs(1);
        assert_eq!(next(at(5_000), at(2_500), second), at(3_500), "before the epoch: as it is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_never_comes_late() {
        for period in [1, 2, 5] {
            let (began, period) = (Instant::now(), Duration::from_secs(period));
            tick(period).await;
            // The runtime's clock has steps of a millisecond.
            assert!(began.elapsed() <= period + Duration::from_millis(1), "{:?}", began.elapsed());
        }
    }
}
