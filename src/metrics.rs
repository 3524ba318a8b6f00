//! Names and help of all metrics, and the text that Prometheus reads.
//!
//! The tasks count for themselves; `daemon` collects a [`Snapshot`] per scrape.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    bfd::view::BfdView,
    bgp::{
        rib::view::Counts,
        view::{NeighborView, SessionState},
    },
    net::{Diagnostic, Family, Reason, Severity},
};

/// State of all tasks at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub neighbors: Vec<NeighborView>,
    pub counts: Counts,
    /// Our routes in the kernel.
    pub fib_routes: BTreeMap<Family, u64>,
    /// `None` if not under Kubernetes.
    pub kubernetes: Option<Cluster>,
    /// The file that is written.
    pub conflist: Option<String>,
    pub bfd: Bfd,
    /// Results of kernel operations: operation, `ok` or `error`, count.
    pub operations: Vec<(&'static str, &'static str, u64)>,
    /// Routes restored after other programs had removed or changed them.
    pub repairs: u64,
    pub convergence: Latency,
    /// What an operator should know.
    pub problems: Vec<Diagnostic>,
    pub reload: Reload,
}

/// The last reload of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reload {
    pub successful: bool,
    /// The last successful one; seconds since 1970.
    pub at: i64,
}

/// What BFD knows.
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

/// Everything in the text format of Prometheus (version 0.0.4).
pub fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("routelet");
    registry.register_collector(Box::new(Scrape(snapshot)));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => classic(&out),
        Err(fmt::Error) => String::new(),
    }
}

/// Turns the OpenMetrics of the crate into the older format: there a counter's family is called as
/// its samples are, and `info` is a gauge.
fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let help = help.strip_prefix(name).unwrap_or_default();
            out += &format!("# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// Writes a snapshot in a fixed order.
#[derive(Debug)]
struct Scrape(Snapshot);

/// Labels of one sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(&mut encoder);
        out.info("build", "Version of the daemon", vec![("version", env!("CARGO_PKG_VERSION"))])?;
        self.neighbors(&mut out)?;
        self.sessions(&mut out)?;
        self.routes(&mut out)?;
        self.problems(&mut out)?;
        self.surroundings(&mut out)
    }
}

impl Scrape {
    fn neighbors(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let list = &self.0.neighbors;
        let asns: Vec<String> =
            list.iter().map(|n| n.remote_as.map(|a| a.to_string()).unwrap_or_default()).collect();
        let named = || {
            list.iter().zip(&asns).map(|(n, asn)| (n, vec![("neighbor", &*n.address), ("remote_as", &**asn)]))
        };
        out.gauges(
            "bgp_neighbor_state",
            "State of the session, 1 to 6 as in RFC 4273: idle, connect, active, open-sent, open-confirm, established",
            named().map(|(n, labels)| (labels, state_number(n.state))),
        )?;
        out.gauges(
            "bgp_neighbor_up",
            "Whether the session is established",
            named().map(|(n, labels)| (labels, i64::from(n.state == SessionState::Established))),
        )?;
        let views = |n: &'_ NeighborView| {
            let one = |view, counts: &BTreeMap<Family, u64>| {
                counts.iter().map(|(family, count)| (view, *family, *count)).collect::<Vec<_>>()
            };
            [one("received", &n.received), one("accepted", &n.accepted), one("advertised", &n.advertised)]
                .concat()
        };
        let prefixes = list.iter().flat_map(|n| {
            views(n).into_iter().map(move |(view, family, count)| {
                (vec![("neighbor", &*n.address), ("family", family.as_str()), ("view", view)], signed(count))
            })
        });
        out.gauges("bgp_neighbor_prefixes", "Prefixes by neighbor, family and view", prefixes)?;
        let withheld = list.iter().flat_map(|n| {
            let of = |(family, count): (&'static str, u64)| {
                (vec![("neighbor", &*n.address), ("family", family)], signed(count))
            };
            n.withheld.iter().map(|(family, count)| (family.as_str(), *count)).map(of)
        });
        out.gauges(
            "bgp_neighbor_prefixes_withheld",
            "Prefixes that are not advertised because there are more than max-prefixes-out",
            withheld,
        )?;
        let counts = || self.0.counts.neighbors.iter().map(|(n, c)| (vec![("neighbor", n.as_str())], c));
        out.gauges(
            "bgp_neighbor_prefixes_limit",
            "Prefixes of a family that the neighbor may send: max-prefixes",
            counts().map(|(labels, c)| (labels, i64::from(c.max_prefixes))),
        )?;
        out.gauges(
            "bgp_neighbor_octets",
            "Estimated memory of the neighbor's routes",
            counts().map(|(labels, c)| (labels, signed(c.octets))),
        )
    }

    fn sessions(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let messages = self.0.neighbors.iter().flat_map(|n| {
            let sent = n.messages_sent.iter().map(|(kind, count)| (kind, "sent", *count));
            let received = n.messages_received.iter().map(|(kind, count)| (kind, "received", *count));
            sent.chain(received).map(|(kind, direction, count)| {
                (vec![("neighbor", &*n.address), ("type", &**kind), ("direction", direction)], count)
            })
        });
        out.counters("bgp_messages", "BGP messages by neighbor, type and direction", messages)?;
        let drops = self.0.neighbors.iter().flat_map(|n| {
            n.drops
                .iter()
                .map(|(reason, count)| (vec![("neighbor", &*n.address), ("reason", &**reason)], *count))
        });
        out.counters("bgp_session_drops", "Sessions that ended, by neighbor and reason", drops)
    }

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

    /// A series for each reason that there is, so that their number is bounded.
    fn problems(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<_, i64> = BTreeMap::new();
        for problem in &self.0.problems {
            *counts.entry((problem.reason, problem.severity)).or_default() += 1;
        }
        let labels = |(reason, severity): (Reason, Severity)| {
            vec![("reason", reason.as_str()), ("severity", severity.as_str())]
        };
        let samples = counts.into_iter().map(|(key, count)| (labels(key), count));
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
        self.bfd(out)
    }

    fn bfd(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let sessions = || self.0.bfd.sessions.iter().map(|(n, s)| (vec![("neighbor", n.as_str())], s));
        let up = sessions().map(|(labels, s)| (labels, i64::from(s.state == "up")));
        out.gauges("bfd_session_up", "Whether BFD reaches the neighbor", up)?;
        let failures = sessions().map(|(labels, s)| (labels, s.failures));
        out.counters("bfd_session_failures", "How often BFD lost the neighbor", failures)?;
        let diagnostics = sessions().map(|(labels, s)| (labels, i64::from(s.diagnostic_code)));
        out.gauges(
            "bfd_session_diagnostic",
            "The local diagnostic code (RFC 5880 section 4.1)",
            diagnostics,
        )?;
        let packets = self.0.bfd.sessions.iter().flat_map(|(n, s)| {
            let of = |direction, count| (vec![("neighbor", n.as_str()), ("direction", direction)], count);
            [of("sent", s.packets_sent), of("received", s.packets_received)]
        });
        out.counters("bfd_packets", "BFD packets by neighbor and direction", packets)?;
        let discarded = self.0.bfd.discarded.iter().map(|(why, n)| (vec![("reason", *why)], *n));
        out.counters("bfd_packets_discarded", "BFD packets that were discarded, by reason", discarded)
    }
}

/// Writes families; those without samples are left out.
struct Writer<'e, 'a>(&'e mut DescriptorEncoder<'a>);

impl Writer<'_, '_> {
    fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'l>, i64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, |mut sample, value| sample.encode_gauge(&value))
    }

    fn counters<'l>(
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

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// RFC 4273 `bgpPeerState`; a disabled session is idle.
fn state_number(state: SessionState) -> i64 {
    match state {
        SessionState::Idle | SessionState::Disabled => 1,
        SessionState::Connect => 2,
        SessionState::Active => 3,
        SessionState::OpenSent => 4,
        SessionState::OpenConfirm => 5,
        SessionState::Established => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bgp::rib::view::NeighborCounts, net::Subject};

    fn neighbor(address: &str, up: bool) -> NeighborView {
        let count = |n: u64| BTreeMap::from([(Family::Ipv4Unicast, n), (Family::Ipv6Unicast, 0)]);
        NeighborView {
            address: address.into(),
            interface: None,
            remote_as: up.then_some(10000),
            local_as: 1000,
            state: if up { SessionState::Established } else { SessionState::Disabled },
            since: String::new(),
            families: Family::ALL.to_vec(),
            received: count(12),
            accepted: count(11),
            advertised: count(1),
            withheld: count(0),
            hold_time: 90,
            last_error: None,
            ttl_security: None,
            refused_by_ttl: 0,
            description: None,
            source: "configured".into(),
            router_id: None,
            local_address: None,
            capabilities_sent: Vec::new(),
            capabilities_received: Vec::new(),
            messages_sent: BTreeMap::from([("keepalive".into(), 3)]),
            messages_received: BTreeMap::from([("update".into(), 2)]),
            drops: BTreeMap::from([("hold-timer".into(), 1)]),
            flaws: 0,
            timers: BTreeMap::new(),
            last_notification_sent: None,
            last_notification_received: None,
            queues: Default::default(),
            history: Default::default(),
            notes: Vec::new(),
            bfd: None,
            diagnosis: None,
            bfd_missing: false,
            needs: Vec::new(),
            answered: None,
        }
    }

    fn full() -> String {
        let by_family = BTreeMap::from([(Family::Ipv4Unicast, 7)]);
        text(Snapshot {
            neighbors: vec![neighbor("10.1.1.1", true), neighbor("fe80::1%et\"h0", false)],
            counts: Counts {
                prefixes: by_family.clone(),
                paths: by_family.clone(),
                octets: 5000,
                budget: 90_000,
                refused: BTreeMap::from([(
                    Family::Ipv4Unicast,
                    BTreeMap::from([("guard: martian".to_owned(), 3)]),
                )]),
                neighbors: BTreeMap::from([(
                    "10.1.1.1".into(),
                    NeighborCounts { octets: 4000, max_prefixes: 73_000, ..NeighborCounts::default() },
                )]),
            },
            fib_routes: by_family,
            kubernetes: Some(Cluster { connected: true, nodes: 3 }),
            conflist: Some("/etc/cni/net.d/10-routelet.conflist".into()),
            bfd: Bfd {
                sessions: BTreeMap::from([(
                    "10.1.1.1".into(),
                    BfdView { state: "up".into(), failures: 2, ..BfdView::default() },
                )]),
                discarded: BTreeMap::from([("ttl", 3)]),
            },
            problems: ["10.1.1.1", "10.1.1.2"]
                .map(|n| Diagnostic::new(Reason::PrefixLimitNear, Subject::neighbor(n), "x", "y"))
                .into(),
            reload: Reload { successful: true, at: 1_700_000_000 },
            operations: vec![("add", "ok", 7)],
            repairs: 4,
            convergence: Latency { sum: 0.002, buckets: vec![(0.001, 0), (0.0025, 1), (f64::INFINITY, 2)] },
        })
    }

    /// The names of the interface page §6 with their types, and those that came later.
    #[test]
    fn every_promised_name_is_there_with_help_and_type() {
        let text = full();
        #[rustfmt::skip]
        let names = [
            ("build_info", "gauge"), ("bgp_neighbor_state", "gauge"), ("bgp_neighbor_up", "gauge"),
            ("bgp_neighbor_prefixes", "gauge"), ("bgp_messages_total", "counter"),
            ("bgp_session_drops_total", "counter"), ("rib_prefixes", "gauge"), ("rib_paths", "gauge"),
            ("fib_routes", "gauge"), ("fib_operations_total", "counter"), ("fib_repairs_total", "counter"),
            ("convergence_seconds", "histogram"), ("kubernetes_connected", "gauge"), ("kubernetes_nodes", "gauge"),
            ("cni_conflist_info", "gauge"), ("bfd_session_up", "gauge"),
            ("bfd_session_failures_total", "counter"), ("bfd_session_diagnostic", "gauge"),
            ("bfd_packets_total", "counter"), ("bfd_packets_discarded_total", "counter"),
            ("bgp_neighbor_prefixes_withheld", "gauge"),
            ("bgp_neighbor_prefixes_limit", "gauge"), ("bgp_neighbor_octets", "gauge"),
            ("rib_octets", "gauge"), ("rib_octets_limit", "gauge"), ("rib_refused", "gauge"), ("problem", "gauge"),
            ("config_last_reload_successful", "gauge"), ("config_last_reload_success_timestamp_seconds", "gauge"),
        ];
        for (name, kind) in names {
            assert!(text.contains(&format!("# TYPE routelet_{name} {kind}\n")), "{name}:\n{text}");
            assert!(text.contains(&format!("# HELP routelet_{name} ")), "{name}");
        }
        assert_eq!(text.matches("# TYPE ").count(), names.len(), "and no others");
    }

    #[test]
    fn samples_carry_their_labels_and_values() {
        let text = full();
        for line in [
            "routelet_bgp_neighbor_state{neighbor=\"10.1.1.1\",remote_as=\"10000\"} 6",
            "routelet_bgp_neighbor_state{neighbor=\"fe80::1%et\\\"h0\",remote_as=\"\"} 1",
            "routelet_bgp_neighbor_up{neighbor=\"10.1.1.1\",remote_as=\"10000\"} 1",
            "routelet_bgp_neighbor_prefixes{neighbor=\"10.1.1.1\",family=\"ipv4-unicast\",view=\"accepted\"} 11",
            "routelet_bgp_messages_total{neighbor=\"10.1.1.1\",type=\"update\",direction=\"received\"} 2",
            "routelet_bgp_session_drops_total{neighbor=\"10.1.1.1\",reason=\"hold-timer\"} 1",
            "routelet_rib_paths{family=\"ipv4-unicast\"} 7",
            "routelet_rib_octets 5000",
            "routelet_rib_refused{family=\"ipv4-unicast\",reason=\"guard: martian\"} 3",
            "routelet_rib_octets_limit 90000",
            "routelet_problem{reason=\"PrefixLimitNear\",severity=\"warning\"} 2",
            "routelet_bgp_neighbor_octets{neighbor=\"10.1.1.1\"} 4000",
            "routelet_bgp_neighbor_prefixes_limit{neighbor=\"10.1.1.1\"} 73000",
            "routelet_fib_operations_total{operation=\"add\",result=\"ok\"} 7",
            "routelet_fib_repairs_total 4",
            "routelet_convergence_seconds_count 3",
            "routelet_convergence_seconds_bucket{le=\"0.0025\"} 1",
            "routelet_convergence_seconds_bucket{le=\"+Inf\"} 3",
            "routelet_bfd_session_up{neighbor=\"10.1.1.1\"} 1",
            "routelet_bfd_session_failures_total{neighbor=\"10.1.1.1\"} 2",
            "routelet_bfd_packets_discarded_total{reason=\"ttl\"} 3",
            "routelet_config_last_reload_successful 1",
            "routelet_config_last_reload_success_timestamp_seconds 1700000000",
            "routelet_kubernetes_connected 1",
            "routelet_kubernetes_nodes 3",
            "routelet_cni_conflist_info{file=\"/etc/cni/net.d/10-routelet.conflist\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    /// Each line is a comment or `name{labels} value`, and each sample stands below its own type.
    #[test]
    fn the_text_is_what_a_prometheus_parser_reads() {
        let (mut family, mut seen) = (String::new(), Vec::new());
        for line in full().lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split_once(' ').unwrap().0.to_owned();
                assert!(!seen.contains(&family), "{family} stands there twice");
                seen.push(family.clone());
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split_once('{').map_or(series, |(name, _)| name);
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let suffix = name.strip_prefix(&*family).expect(line);
                assert!(matches!(suffix, "" | "_bucket" | "_sum" | "_count"), "{line}");
            }
        }
    }

    #[test]
    fn without_kubernetes_its_metrics_are_absent() {
        let text = text(Snapshot::default());
        assert!(!text.contains("kubernetes") && !text.contains("conflist"));
        assert!(text.contains("routelet_build_info"));
    }
}
