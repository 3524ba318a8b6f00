//! The process itself, under the names that every exporter of Prometheus uses.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet},
    metrics::MetricType,
};

/// The family of the counter `process_cpu_seconds_total`.
const CPU: &str = "process_cpu_seconds";

/// The kernel's counters of this process; `None` if one cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// In user and system mode.
    pub cpu_seconds: Option<f64>,
    pub resident_octets: Option<u64>,
    pub virtual_octets: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit.
    pub max_fds: Option<u64>,
    /// Seconds since 1970.
    pub started: Option<f64>,
}

impl Process {
    /// Fills in the memory from the text of `/proc/self/statm` (proc_pid_statm(5)).
    pub fn with_memory(self, statm: &str, page: u64) -> Self {
        let mut pages = statm.split_whitespace().map(|n| n.parse::<u64>().ok()?.checked_mul(page));
        let virtual_octets = pages.next().flatten();
        Self { virtual_octets, resident_octets: pages.next().flatten(), ..self }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let help = "CPU time in user and system mode";
            let mut sample = encoder.encode_descriptor(CPU, help, None, MetricType::Counter)?;
            sample.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        let mut gauge = |name, help, value: Option<u64>| match value {
            Some(value) => write_gauge(&mut encoder, name, help, &super::signed(value)),
            None => Ok(()),
        };
        gauge("process_resident_memory_bytes", "Resident memory", self.resident_octets)?;
        gauge("process_virtual_memory_bytes", "Virtual memory", self.virtual_octets)?;
        gauge("process_open_fds", "Open file descriptors", self.open_fds)?;
        gauge("process_max_fds", "Limit of open file descriptors", self.max_fds)?;
        match &self.started {
            Some(at) => {
                let help = "Start of the process, in seconds since 1970";
                write_gauge(&mut encoder, "process_start_time_seconds", help, at)
            }
            None => Ok(()),
        }
    }
}

fn write_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_pages() {
        let read = Process::default().with_memory("2500 700 300 1 0 900 0\n", 4096);
        assert_eq!((read.virtual_octets, read.resident_octets), (Some(10_240_000), Some(2_867_200)));
        for wrong in ["", "x y", "18446744073709551615 18446744073709551615"] {
            let read = Process::default().with_memory(wrong, 4096);
            assert_eq!((read.virtual_octets, read.resident_octets), (None, None), "{wrong}");
        }
    }
}
