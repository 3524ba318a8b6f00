//! Rates over time, from samples of counters.

/// Samples that are kept: 20 minutes with one each 15 s.
const MAX_SAMPLES: usize = 80;

/// Values of counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// BGP messages of all neighbors, sent and received.
    pub messages: u64,
    /// Operations of the kernel.
    pub operations: u64,
    /// Number of routes that the kernel acknowledged, and the sum of the delays in microseconds.
    pub acknowledged: u64,
    pub micros: u64,
}

/// Samples over time, the latest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trends {
    /// BGP messages per second, sent and received.
    pub messages: Vec<f64>,
    /// Mean milliseconds from an UPDATE to the kernel's acknowledgement, 0 without any.
    pub convergence: Vec<f64>,
    /// Operations of the kernel per second.
    pub operations: Vec<f64>,
}

impl Trends {
    /// Adds the changes between two samples. A counter that decreased belongs to neighbors that
    /// were removed in between, and counts as 0.
    pub fn add(&mut self, before: Sample, after: Sample, seconds: f64) {
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds.max(0.001);
        let acknowledged = after.acknowledged.saturating_sub(before.acknowledged);
        let micros = after.micros.saturating_sub(before.micros) as f64;
        let mean = if acknowledged == 0 { 0.0 } else { micros / acknowledged as f64 / 1000.0 };
        for (list, value) in [
            (&mut self.messages, rate(before.messages, after.messages)),
            (&mut self.operations, rate(before.operations, after.operations)),
            (&mut self.convergence, mean),
        ] {
            if list.len() >= MAX_SAMPLES {
                list.remove(0);
            }
            list.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_two_samples_and_the_latest_are_kept() {
        let mut trends = Trends::default();
        let before = Sample { messages: 100, operations: 7, acknowledged: 2, micros: 5000 };
        let after = Sample { messages: 130, operations: 7, acknowledged: 4, micros: 9000 };
        trends.add(before, after, 15.0);
        assert_eq!((trends.messages[0], trends.operations[0], trends.convergence[0]), (2.0, 0.0, 2.0));
        trends.add(after, Sample::default(), 15.0);
        assert_eq!((trends.messages[1], trends.convergence[1]), (0.0, 0.0), "a neighbor was removed");
        (0..200).for_each(|_| trends.add(before, after, 15.0));
        assert_eq!(trends.messages.len(), MAX_SAMPLES);
    }
}
