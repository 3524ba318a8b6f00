//! Writes families of metrics with the encoder of `prometheus-client`.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Labels of one sample.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes families; those without samples are left out.
pub(super) struct Writer<'e, 'a>(pub(super) &'e mut DescriptorEncoder<'a>);

impl Writer<'_, '_> {
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    pub(super) fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'l>, i64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, |mut sample, value| sample.encode_gauge(&value))
    }

    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples, |mut sample, value| {
            sample.encode_counter::<NoLabelSet, u64, u64>(&value, None)
        })
    }

    fn family<'l, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl Iterator<Item = (Labels<'l>, V)>,
        write: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                write(family, value)?;
                return Ok(());
            }
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}

pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
