//! Numbers for jitter, discriminators and first sequence numbers: seeded by whoever has entropy.

use std::time::Duration;

use crate::net;

#[derive(Debug)]
pub(super) struct Random(net::Random);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(net::Random::new(seed))
    }

    pub(super) fn next(&mut self) -> u32 {
        (self.0.draw() >> 32) as u32
    }

    /// RFC 5880 §6.8.7: 75 to 100 % of the interval, 75 to 90 % where a single lost packet ends the
    /// session.
    pub(super) fn jitter(&mut self, interval: Duration, multiplier: u8) -> Duration {
        let span = if multiplier == 1 { 15 } else { 25 };
        let thousandths = 750 + self.next() % (span * 10 + 1);
        interval * thousandths / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_keeps_its_bounds() {
        let mut random = Random::new(1);
        let second = Duration::from_secs(1);
        for (multiplier, most) in [(1, 900), (2, 1000), (3, 1000)] {
            let drawn: Vec<_> = (0..10_000).map(|_| random.jitter(second, multiplier).as_millis()).collect();
            assert_eq!(drawn.iter().min(), Some(&750), "{multiplier}");
            assert_eq!(drawn.iter().max(), Some(&most), "{multiplier}");
        }
    }
}
