use super::*;
use crate::bgp::{
    rib::view::NeighborCounts,
    view::{DROP_REASONS, History, SessionState},
};

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
        history: History { up_down_since: Some("2023-11-14T22:15:00Z".into()), ..History::default() },
        notes: Vec::new(),
        bfd: None,
        diagnosis: None,
        bfd_missing: false,
        needs: Vec::new(),
        open_age: None,
    }
}

fn full() -> String {
    text(snapshot(), Format::Text)
}

fn snapshot() -> Snapshot {
    let by_family = BTreeMap::from([(Family::Ipv4Unicast, 7)]);
    Snapshot {
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
        problems: BTreeMap::from([((Reason::PrefixLimitNear, Severity::Warning), 2)]),
        ready: true,
        drained: false,
        process: Process {
            cpu_seconds: Some(1.25),
            resident_octets: Some(9_000_000),
            virtual_octets: Some(90_000_000),
            open_fds: Some(21),
            max_fds: Some(1024),
            started: Some(1_700_000_000.5),
        },
        reload: Reload { successful: true, at: 1_700_000_000 },
        operations: vec![("add", "ok", 7)],
        repairs: 4,
        convergence: Latency { sum: 0.002, buckets: vec![(0.001, 0), (0.0025, 1), (f64::INFINITY, 2)] },
    }
}

/// The names of the interface page §6 with their types, and those that were added later.
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
        ("bgp_neighbors", "gauge"), ("bgp_session_changed_timestamp_seconds", "gauge"), ("ready", "gauge"), ("drained", "gauge"),
        ("config_last_reload_successful", "gauge"), ("config_last_reload_success_timestamp_seconds", "gauge"),
    ];
    for (name, kind) in names {
        assert!(text.contains(&format!("# TYPE routelet_{name} {kind}\n")), "{name}:\n{text}");
        assert!(text.contains(&format!("# HELP routelet_{name} ")), "{name}");
    }
    let standard =
        ["cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds"];
    for name in standard.iter().chain(&["start_time_seconds"]) {
        assert!(text.contains(&format!("# TYPE process_{name} ")), "{name}:\n{text}");
    }
    assert_eq!(text.matches("# TYPE ").count(), names.len() + 6, "and no others");
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
        "routelet_bgp_session_drops_total{neighbor=\"10.1.1.1\",reason=\"bfd\"} 0",
        "routelet_bgp_session_changed_timestamp_seconds{neighbor=\"10.1.1.1\"} 1700000100",
        "routelet_bgp_neighbors{state=\"established\"} 1",
        "routelet_bgp_neighbors{state=\"open-sent\"} 0",
        "routelet_problem{reason=\"ForwardingOff\",severity=\"error\"} 0",
        "routelet_ready 1",
        "routelet_drained 0",
        "process_cpu_seconds_total 1.25",
        "process_open_fds 21",
        "process_start_time_seconds 1700000000.5",
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
    let text = text(Snapshot::default(), Format::Text);
    assert!(!text.contains("kubernetes") && !text.contains("conflist"));
    assert!(text.contains("routelet_build_info"));
}

/// The output ends with `# EOF`, and the family of a counter has no suffix.
#[test]
fn open_metrics_differs_in_the_names_of_families_and_its_end() {
    let text = text(snapshot(), Format::OpenMetrics);
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    for line in [
        "# TYPE routelet_build info",
        "# TYPE routelet_fib_repairs counter",
        "routelet_fib_repairs_total 4",
        "# TYPE process_cpu_seconds counter",
        "process_cpu_seconds_total 1.25",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

/// Series stay bounded, configured neighbors keep theirs, and no count is lost.
#[test]
fn a_large_mesh_is_summed_and_its_nodes_are_named() {
    let member = |n: usize| NeighborView {
        source: "mesh".into(),
        description: Some(format!("node n{n}")),
        ..neighbor(&format!("10.9.{}.{}", n / 250, n % 250), true)
    };
    let with = |size: usize| {
        let mut neighbors: Vec<_> = (0..size).map(member).collect();
        neighbors.push(neighbor("192.0.2.1", false));
        text(Snapshot { neighbors, ..Snapshot::default() }, Format::Text)
    };
    let (small, large, larger) = (with(3), with(900), with(5000));
    assert!(!small.contains("neighbor=\"other\""));
    let line = "routelet_bgp_neighbor_up{neighbor=\"10.9.0.1\",remote_as=\"10000\",node=\"n1\"} 1";
    assert!(small.lines().any(|l| l == line), "{small}");
    assert_eq!(large.lines().count(), larger.lines().count());
    assert!(large.contains("routelet_bgp_neighbor_up{neighbor=\"192.0.2.1\",remote_as=\"\"} 0"));
    assert!(!large.contains("neighbor_up{neighbor=\"other\""));
    let accepted = |text: &str| {
        let of =
            |l: &&str| l.contains("bgp_neighbor_prefixes{") && l.contains("ipv4") && l.contains("accepted");
        let values = text.lines().filter(of).map(|l| l.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        values.sum::<u64>()
    };
    assert_eq!((accepted(&small), accepted(&large), accepted(&larger)), (4 * 11, 901 * 11, 5001 * 11));
    assert!(larger.contains("routelet_bgp_neighbors{state=\"established\"} 5000"));
    let drops = "routelet_bgp_session_drops_total{neighbor=\"other\",reason=\"hold-timer\"} 701";
    assert!(large.lines().any(|l| l == drops), "900 and one, without 200");
    assert!(neighbors::MAX_NEIGHBORS * (25 + DROP_REASONS.len()) < 10_000);
}
