//! What a running daemon serves at `/metrics`: the metrics of docs/reference/metrics.md and no others, in
//! both formats.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    wait_for,
};

/// Metrics that only a node of a cluster has.
pub(super) const OF_CLUSTERS: [&str; 3] =
    ["routelet_cni_conflist_info", "routelet_kubernetes_connected", "routelet_kubernetes_nodes"];

/// The label that only neighbors in a mesh have.
const OF_MESHES: &str = "node";

/// The metrics with the labels of their samples.
pub(super) type Metrics = BTreeMap<String, BTreeSet<String>>;

/// A daemon with a neighbor that has BFD and one that has not.
pub(super) fn host(net: &mut Net) -> (Ns, Routelet) {
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    host.ip("link set lo up");
    net.link((&host, "eth0"), (&switch, "port"));
    host.ip("addr add 10.1.1.2/24 dev eth0");
    let config = "[bgp]\nas = 1000\nrouter-id = \"10.0.0.1\"\n\
         [[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 2000\nbfd = true\n\
         [[bgp.neighbor]]\naddress = \"10.1.1.3\"\nremote-as = 1000\n\
         [advertise]\nnetworks = [\"10.20.0.0/24\"]\n[metrics]\nlisten = \"127.0.0.1:9179\"\n";
    let routelet = Routelet::start(net, &host, config, &[]);
    wait_for("both neighbors and the session of BFD", 20.0, || {
        let text = scrape(&host, "");
        let is_there = |name: &str| text.lines().any(|l| l.starts_with(&format!("routelet_{name}{{")));
        (text.matches("routelet_bgp_neighbor_up{").count() == 2 && is_there("bfd_session_up")).then_some(())
    });
    (host, routelet)
}

pub(super) fn scrape(host: &Ns, accept: &str) -> String {
    host.sh(&format!("curl -s --max-time 10 -H 'Accept: {accept}' http://127.0.0.1:9179/metrics"))
}

/// The metrics of a scrape in the text format; a histogram under the name of its family.
pub(super) fn served(text: &str) -> Metrics {
    let histograms: BTreeSet<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" histogram").map(str::to_owned))
        .collect();
    let mut all = Metrics::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let name = family.filter(|f| histograms.contains(*f)).unwrap_or(name);
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|l| l.split_once("=\""));
        all.entry(name.to_owned()).or_default().extend(labels.map(|(label, _)| label.to_owned()));
    }
    all
}

/// The table of docs/reference/metrics.md.
pub(super) fn documented() -> Metrics {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let code =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = page.lines().filter(|l| l.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
    cells.map(|cells| (code(cells[0]).remove(0), code(cells[2]).into_iter().collect())).collect()
}

#[test]
fn the_reference_has_each_metric_of_a_daemon_with_its_labels_and_no_others() {
    let mut net = Net::new();
    let (host, _routelet) = host(&mut net);
    let (mut documented, mut served) = (documented(), served(&scrape(&host, "")));
    for name in OF_CLUSTERS {
        assert!(documented.remove(name).is_some(), "docs/reference/metrics.md lacks {name}");
        assert!(!served.contains_key(name), "{name} without a cluster");
    }
    for labels in documented.values_mut() {
        labels.remove(OF_MESHES);
    }
    served.get_mut("routelet_convergence_seconds").expect("a histogram").remove("le");
    assert_eq!(served, documented, "left: the daemon, right: docs/reference/metrics.md");
}

#[test]
fn both_formats_have_the_same_samples() {
    let mut net = Net::new();
    let (host, _routelet) = host(&mut net);
    let head = |accept: &str| {
        host.sh(&format!("curl -s -o /dev/null -D - -H 'Accept: {accept}' http://127.0.0.1:9179/metrics"))
            .to_lowercase()
    };
    let open = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    assert!(
        head(open).contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        head(open)
    );
    for accept in ["", "*/*", "text/html,*/*", "application/openmetrics-text;q=0.1,text/plain"] {
        assert!(
            head(accept).contains("content-type: text/plain; version=0.0.4"),
            "{accept}: {}",
            head(accept)
        );
    }
    let text = scrape(&host, open);
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE routelet_bgp_messages counter\n"), "{text}");
    assert_eq!(served(&text), served(&scrape(&host, "")));
}

#[test]
fn what_is_counted_is_there_from_zero_and_follows_the_daemon() {
    let mut net = Net::new();
    let (host, routelet) = host(&mut net);
    let value = |series: &str| {
        let text = scrape(&host, "");
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse::<f64>()
            .unwrap()
    };
    for series in [
        "routelet_bgp_messages_total{neighbor=\"10.1.1.3\",type=\"update\",direction=\"received\"}",
        "routelet_bgp_session_drops_total{neighbor=\"10.1.1.3\",reason=\"hold-timer\"}",
        "routelet_fib_operations_total{operation=\"delete\",result=\"error\"}",
        "routelet_rib_refused{family=\"ipv6-unicast\",reason=\"rejected by import policy\"}",
        "routelet_bfd_packets_discarded_total{reason=\"ttl\"}",
        "routelet_problem{reason=\"Drained\",severity=\"info\"}",
        "routelet_bgp_neighbors{state=\"established\"}",
        "routelet_drained",
    ] {
        assert_eq!(value(series), 0.0, "{series}");
    }
    routelet.cli(&["drain"]);
    wait_for("the drain is counted", 10.0, || {
        (value("routelet_drained") == 1.0
            && value("routelet_problem{reason=\"Drained\",severity=\"info\"}") == 1.0)
            .then_some(())
    });
    let pid = routelet.process.pid();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    assert!((value("process_open_fds") - files).abs() < 8.0, "{files}");
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let resident = statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0;
    assert!((value("process_resident_memory_bytes") / resident - 1.0).abs() < 0.2, "{resident}");
    assert!(value("process_cpu_seconds_total") > 0.0);
    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    let uptime = now - value("process_start_time_seconds");
    // The kernel counts starts in hundredths.
    assert!((-0.02..120.0).contains(&uptime), "{uptime}");
}
