//! The page on metrics, from a scrape that has all of them.

use std::{collections::BTreeMap, fmt::Write as _};

use routelet::{
    bfd::view::BfdView,
    bgp::{
        rib::view::{Counts, NeighborCounts},
        view::{NeighborView, SessionState},
    },
    metrics::{self, Bfd, Cluster, Format, Latency, Process, Snapshot},
    net::Family,
};

use super::cell;

const HEAD: &str = "# Metrics

`/metrics` of `metrics.listen`, by default `http://127.0.0.1:9179/metrics`. The format is
OpenMetrics 1.0.0 for clients that prefer it by their `Accept` header, as Prometheus does, and the
text format 0.0.4 for all others.

Every counter exists from the start of the daemon, or of its neighbor, with the value 0. The label
`node` is the name of the Node that a neighbor is in a mesh or as a route reflector; other neighbors
have no such label. The metrics of the API server and the conflist exist under Kubernetes only,
those of BFD sessions where a neighbor has BFD.

At most 200 neighbors have series of their own: configured ones first, then those of listen ranges,
then the mesh. The prefixes, messages, drops, octets and BFD packets of all others are sums with
`neighbor=\"other\"`; `routelet_bgp_neighbors` counts all.

The alerts and the dashboard of the Helm chart use these metrics: `deploy/helm/routelet/files/`.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
";

/// What the exposition format has of one metric.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: Vec<String>,
}

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for (name, Metric { kind, help, labels }) in read(&metrics::text(complete(), Format::Text)) {
        assert!(!kind.is_empty() && !help.is_empty(), "{name} has no type or no help");
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), cell(&help));
    }
    page
}

fn read(text: &str) -> BTreeMap<String, Metric> {
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().help = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            all.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|s| sample.strip_suffix(s));
            let family =
                of_histogram.filter(|family| all.get(*family).is_some_and(|m| m.kind == "histogram"));
            let metric =
                all.get_mut(family.unwrap_or(sample)).unwrap_or_else(|| panic!("no type of {sample}"));
            for (label, _) in labels.trim_end_matches('}').split("\",").filter_map(|l| l.split_once("=\"")) {
                if label != "le" && !metric.labels.iter().any(|known| known == label) {
                    metric.labels.push(label.to_owned());
                }
            }
        }
    }
    all
}

/// A state in which each metric has a sample with all its labels.
fn complete() -> Snapshot {
    let by_family = BTreeMap::from([(Family::Ipv4Unicast, 1)]);
    let address = "10.1.1.1".to_owned();
    let neighbor = NeighborView {
        address: address.clone(),
        state: SessionState::Established,
        source: "mesh".into(),
        description: Some("node n2".into()),
        received: by_family.clone(),
        accepted: by_family.clone(),
        advertised: by_family.clone(),
        withheld: by_family.clone(),
        messages_sent: BTreeMap::from([("keepalive".into(), 1)]),
        drops: BTreeMap::from([("hold-timer".into(), 1)]),
        history: routelet::bgp::view::History {
            up_down_since: Some("2026-11-14T22:15:00Z".into()),
            ..Default::default()
        },
        ..NeighborView::default()
    };
    Snapshot {
        neighbors: vec![neighbor],
        counts: Counts {
            prefixes: by_family.clone(),
            paths: by_family.clone(),
            refused: BTreeMap::from([(Family::Ipv4Unicast, BTreeMap::from([("policy".to_owned(), 1)]))]),
            neighbors: BTreeMap::from([(address.clone(), NeighborCounts::default())]),
            ..Counts::default()
        },
        fib_routes: by_family,
        kubernetes: Some(Cluster::default()),
        conflist: Some("/etc/cni/net.d/10-routelet.conflist".into()),
        bfd: Bfd {
            sessions: BTreeMap::from([(address, BfdView::default())]),
            discarded: BTreeMap::from([("ttl", 1)]),
        },
        operations: vec![("add", "ok", 1)],
        convergence: Latency { sum: 0.0, buckets: vec![(f64::INFINITY, 0)] },
        process: Process {
            cpu_seconds: Some(1.0),
            resident_octets: Some(1),
            virtual_octets: Some(1),
            open_fds: Some(1),
            max_fds: Some(1),
            started: Some(1.0),
        },
        ..Snapshot::default()
    }
}
