//! Names and help texts of all metrics, and the output for Prometheus.
//!
//! The tasks count for themselves; `daemon` collects a [`Snapshot`] per scrape.
//! [`mod@format`] selects the exposition format, [`neighbors`] bounds how many neighbors have
//! series of their own.

mod format;
mod neighbors;
mod process;
#[cfg(test)]
mod tests;
mod write;

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    bfd::view::BfdView,
    bgp::{rib::view::Counts, view::NeighborView},
    net::{Family, Reason, Severity},
};

pub use format::Format;
pub use process::Process;
use write::{Labels, Writer, signed};

/// State of all tasks at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub neighbors: Vec<NeighborView>,
    pub counts: Counts,
    /// Our routes in the kernel.
    pub fib_routes: BTreeMap<Family, u64>,
    /// `None` if not under Kubernetes.
    pub kubernetes: Option<Cluster>,
    /// Path of the conflist.
    pub conflist: Option<String>,
    pub bfd: Bfd,
    /// Results of kernel operations: operation, `ok` or `error`, count.
    pub operations: Vec<(&'static str, &'static str, u64)>,
    /// Routes restored after other programs had removed or changed them.
    pub repairs: u64,
    pub convergence: Latency,
    /// Number of problems by reason.
    pub problems: BTreeMap<(Reason, Severity), u64>,
    pub reload: Reload,
    /// Whether `/readyz` reports success.
    pub ready: bool,
    /// Whether the node is drained, or being drained.
    pub drained: bool,
    pub process: Process,
}

/// The last reload of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reload {
    pub successful: bool,
    /// The last successful one; seconds since 1970.
    pub at: i64,
}

/// State of BFD.
#[derive(Clone, Debug, Default)]
pub struct Bfd {
    /// By neighbor; empty without BFD.
    pub sessions: BTreeMap<String, BfdView>,
    /// Packets that belong to no session or break a rule, by reason.
    pub discarded: BTreeMap<&'static str, u64>,
}

/// A histogram.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// Sum of all values, in seconds.
    pub sum: f64,
    /// Upper bound in seconds with the count above the previous bound; the last bound is infinity.
    pub buckets: Vec<(f64, u64)>,
}

/// The Kubernetes part of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cluster {
    pub connected: bool,
    /// Known nodes, the own one counted.
    pub nodes: u64,
}

/// All metrics in one of the two formats.
pub fn text(snapshot: Snapshot, format: Format) -> String {
    let process = snapshot.process;
    let mut registry = Registry::with_prefix("routelet");
    registry.register_collector(Box::new(Scrape(snapshot)));
    // Under the names that all exporters use, without the prefix.
    let mut standard = Registry::default();
    standard.register_collector(Box::new(process));
    let mut out = String::new();
    let written = text::encode_registry(&mut out, &registry)
        .and_then(|()| text::encode_registry(&mut out, &standard))
        .and_then(|()| text::encode_eof(&mut out));
    match written {
        Ok(()) => format.of_open_metrics(out),
        Err(fmt::Error) => String::new(),
    }
}

/// Writes a snapshot in a fixed order.
#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(&mut encoder);
        out.info("build", "Version of the daemon", vec![("version", env!("CARGO_PKG_VERSION"))])?;
        let neighbors = neighbors::Shown::of(&self.0);
        neighbors.write(&mut out)?;
        self.routes(&mut out)?;
        self.problems(&mut out)?;
        self.surroundings(&mut out)?;
        neighbors.bfd(&mut out)?;
        let discarded = self.0.bfd.discarded.iter().map(|(why, n)| (vec![("reason", *why)], *n));
        out.counters("bfd_packets_discarded", "BFD packets that were discarded, by reason", discarded)
    }
}

impl Scrape {
    fn routes(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        fn by_family(counts: &BTreeMap<Family, u64>) -> impl Iterator<Item = (Labels<'_>, i64)> {
            counts.iter().map(|(family, count)| (vec![("family", family.as_str())], signed(*count)))
        }
        out.gauges("rib_prefixes", "Prefixes with at least one path", by_family(&self.0.counts.prefixes))?;
        out.gauges("rib_paths", "Paths of all neighbors and own ones", by_family(&self.0.counts.paths))?;
        let refused = self.0.counts.refused.iter().flat_map(|(family, reasons)| {
            let labels = |reason| vec![("family", family.as_str()), ("reason", reason)];
            reasons.iter().map(move |(reason, n)| (labels(reason.as_str()), signed(*n)))
        });
        out.gauges("rib_refused", "Received paths that are not used, by reason", refused)?;
        let once = |value: u64| std::iter::once((Vec::new(), signed(value)));
        out.gauges("rib_octets", "Estimated memory of all routes", once(self.0.counts.octets))?;
        out.gauges("rib_octets_limit", "Memory that all routes may take", once(self.0.counts.budget))?;
        out.gauges("fib_routes", "Own routes in the kernel", by_family(&self.0.fib_routes))?;
        let operations = self.0.operations.iter();
        let operations =
            operations.map(|(op, result, n)| (vec![("operation", *op), ("result", *result)], *n));
        out.counters("fib_operations", "Netlink requests by result", operations)?;
        let repairs = std::iter::once((Vec::new(), self.0.repairs));
        out.counters("fib_repairs", "Routes restored after other programs removed or changed them", repairs)?;
        let Latency { sum, buckets } = &self.0.convergence;
        let count = buckets.iter().map(|(_, n)| n).sum();
        let help = "From an UPDATE read from the socket to the kernel's acknowledgement";
        let mut sample = out.0.encode_descriptor("convergence_seconds", help, None, MetricType::Histogram)?;
        sample.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
    }

    /// One series for each possible reason, so that the number of series is bounded and each exists
    /// before the first problem.
    fn problems(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<_, u64> = Reason::ALL.iter().map(|r| ((*r, r.severity()), 0)).collect();
        counts.extend(&self.0.problems);
        let labels = |(reason, severity): (Reason, Severity)| {
            vec![("reason", reason.as_str()), ("severity", severity.as_str())]
        };
        let samples = counts.into_iter().map(|(key, count)| (labels(key), signed(count)));
        out.gauges("problem", "Problems that an operator should know, by reason and severity", samples)
    }

    fn surroundings(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let cluster = self.0.kubernetes.iter();
        out.gauges(
            "kubernetes_connected",
            "Whether the API server can be reached",
            cluster.clone().map(|c| (Vec::new(), i64::from(c.connected))),
        )?;
        out.gauges("kubernetes_nodes", "Known nodes", cluster.map(|c| (Vec::new(), signed(c.nodes))))?;
        if let Some(file) = &self.0.conflist {
            out.info("cni_conflist", "The file that the container runtime reads", vec![("file", file)])?;
        }
        let once = |value| std::iter::once((Vec::new(), value));
        let Reload { successful, at } = self.0.reload;
        out.gauges(
            "config_last_reload_successful",
            "Whether the last reload put the configuration file in force",
            once(i64::from(successful)),
        )?;
        out.gauges(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration file was last put in force",
            once(at),
        )?;
        let help = "Whether the node is ready, as /readyz reports";
        out.gauges("ready", help, once(i64::from(self.0.ready)))?;
        let help = "Whether the node is drained, or being drained";
        out.gauges("drained", help, once(i64::from(self.0.drained)))
    }
}
