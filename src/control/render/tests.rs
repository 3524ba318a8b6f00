use std::collections::BTreeMap;

use super::*;
use crate::{
    bgp::{
        rib::view::{EndOfRib, Limits, NeighborDetails, PolicyCounts, PolicyHits, Security, StaleRoutes},
        view::{Closing, History, Queues},
    },
    cni::view::{ConflistState, ConflistStatus},
    control::{
        FibView, HostStatus, LastError, NeighborReport, NeighborTotals, NeighborView, NodeStatus, OwnPrefix,
        RouteTotals, RouteView, SessionState, Summary,
        host::{InterfaceStatus, NeighborOnLink, SubnetStatus},
    },
    fib::{sysctl::Change, view::FibHop},
    k8s::view::{ApiStatus, Eligibility, MeshMember},
    net::Family,
    sandbox::SandboxView,
};

fn shown(response: &Response) -> String {
    text(response, "2026-11-21T12:00:00Z".parse().unwrap(), Layout::default())
}

pub(super) fn neighbor(address: &str, state: SessionState) -> NeighborView {
    let up = state == SessionState::Established;
    let count = |n: u64| BTreeMap::from([(Family::Ipv4Unicast, if up { n } else { 0 })]);
    NeighborView {
        address: address.into(),
        interface: None,
        remote_as: Some(10000),
        local_as: 1000,
        state,
        since: "2026-11-21T08:47:30Z".into(),
        families: vec![Family::Ipv4Unicast, Family::Ipv6Unicast],
        received: count(12),
        accepted: count(11),
        advertised: count(1),
        withheld: count(0),
        hold_time: 90,
        last_error: Some("connection refused; is BGP on there?".into()),
        ttl_security: None,
        refused_by_ttl: 0,
        description: up.then(|| "leaf 1".into()),
        source: "configured".into(),
        router_id: up.then(|| "10.1.1.1".parse().unwrap()),
        local_address: up.then(|| "10.1.1.2".parse().unwrap()),
        capabilities_sent: vec![
            "multiprotocol ipv4-unicast".into(),
            "route-refresh".into(),
            "four-octet-as 1000".into(),
        ],
        capabilities_received: vec!["four-octet-as 10000".into(), "capability 128 of 0 octets".into()],
        messages_sent: BTreeMap::from([("open".into(), 1), ("keepalive".into(), 380)]),
        messages_received: BTreeMap::from([("open".into(), 1), ("update".into(), 12)]),
        drops: BTreeMap::from([("hold-timer".into(), 2)]),
        flaws: 0,
        timers: BTreeMap::from([("hold".into(), 71)]),
        last_notification_sent: None,
        last_notification_received: Some("Cease/2 administrative shutdown: \"rack move\"".into()),
        history: History {
            up_down_since: Some("2026-11-21T08:47:30Z".into()),
            flaps: 2,
            last_read: up.then_some(3),
            last_written: Some(61),
            closings: vec![Closing {
                at: "2026-11-21T08:47:28Z".into(),
                reason: "hold-timer".into(),
                text: "hold timer expired: nothing received for 90 s".into(),
                ago: Default::default(),
            }],
            up_down_for: Default::default(),
        },
        queues: Queues { unsent: 4096, unacknowledged: 512, unread: 0, partial: 19 },
        notes: vec!["ipv6-unicast is not advertised: no IPv6 address on eth0".into()],
        bfd: None,
        diagnosis: None,
        bfd_missing: false,
        needs: Vec::new(),
        open_age: None,
    }
}

pub(super) fn details() -> NeighborDetails {
    let hits = |policy: &str, statements: &[u64], otherwise| PolicyHits {
        policy: policy.into(),
        counts: PolicyCounts { statements: statements.into(), otherwise },
    };
    let stale = StaleRoutes { routes: 7, seconds: 290, long_lived: false };
    NeighborDetails {
        end_of_rib: [(Family::Ipv4Unicast, EndOfRib { sent: true, received: false })].into(),
        stale: [(Family::Ipv4Unicast, stale)].into(),
        security: Security { tcp_md5: true, max_hops: Some(1), missing_policies: vec!["export".into()] },
        limits: Limits {
            max_prefixes: 1_000_000,
            restart_after: Some(300),
            is_exceeded: false,
            max_prefixes_out: Some(10_000),
        },
        import: vec![hits("from-leaf", &[12, 0], 3), hits("second", &[], 15)],
        export: vec![hits("to-leaf", &[1], 0)],
        export_shared_by: 2,
    }
}

pub(super) fn summary() -> Summary {
    Summary {
        node: "node-1".into(),
        version: "0.1.0".into(),
        asn: Some(64512),
        router_id: Some("10.0.0.1".parse().unwrap()),
        addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        started: "2026-11-20T09:00:00Z".into(),
        modes: vec!["kubernetes (peering auto)".into(), "fib".into(), "cni".into()],
        ready: true,
        not_ready: None,
        neighbors: NeighborTotals { configured: 3, up: 2, disabled: 1 },
        sessions: vec![
            neighbor("10.0.0.9", SessionState::Active),
            neighbor("10.0.0.2", SessionState::Established),
        ],
        refused: BTreeMap::from([("AS loop".into(), 1), ("guard".into(), 1)]),
        routes: RouteTotals { received: 120, installed: 118, advertised: 2, originated: 2 },
        own: vec![
            OwnPrefix {
                prefix: "172.20.0.0/16".parse().unwrap(),
                source: "interface".into(),
                interface: Some("br-7f".into()),
                neighbors: 0,
                advertised_to: Vec::new(),
                reason: Some("no container is attached".into()),
            },
            OwnPrefix {
                prefix: "10.244.0.0/24".parse().unwrap(),
                source: "pod-cidr".into(),
                interface: None,
                neighbors: 10,
                advertised_to: vec!["10.0.0.2".into(), "10.0.0.3".into()],
                reason: None,
            },
        ],
        own_prefixes: 3,
        last_error: Some(LastError {
            at: "2026-11-21T11:59:10Z".into(),
            neighbor: Some("10.0.0.9".into()),
            text: "hold timer expired".into(),
        }),
        problems: vec!["OpenFilesExhausted: 3 open files are left; raise the limit".into()],
        diagnostics: Vec::new(),
        sysctls: [
            ("net.ipv6.conf.default.accept_ra", "1", "2"),
            ("net.ipv6.conf.eth0/5.accept_ra", "1", "2"),
            ("net.ipv6.conf.all.forwarding", "0", "1"),
        ]
        .map(|(key, old, new)| Change { key: key.into(), old: old.into(), new: new.into() })
        .into(),
        sandbox: Some(SandboxView {
            enabled: true,
            user: 0,
            capabilities: vec!["CAP_NET_ADMIN".into(), "CAP_NET_BIND_SERVICE".into()],
            no_new_privileges: true,
            seccomp: true,
            landlock: false,
            missing: vec!["landlock: not in this kernel".into()],
        }),
    }
}

#[test]
fn the_summary_is_one_screen() {
    insta::assert_snapshot!(shown(&Response::Summary(Box::new(summary()))));
}

#[test]
fn neighbors_are_a_table_and_one_of_them_is_a_page() {
    let up = neighbor("10.1.1.1", SessionState::Established);
    let mut down = neighbor("fe80::1", SessionState::Active);
    down.interface = Some("eth0".into());
    insta::assert_snapshot!(shown(&Response::Neighbors(vec![up.clone(), down])));
    let details = Some(Box::new(details()));
    insta::assert_snapshot!(shown(&Response::Neighbor(Box::new(NeighborReport { session: up, details }))));
}

pub(super) fn route(prefix: &str, neighbor: Option<&str>) -> RouteView {
    RouteView {
        neighbor: neighbor.map(str::to_owned),
        source: if neighbor.is_some() { "bgp" } else { "pod-cidr" }.into(),
        next_hop: neighbor.map(|n| n.parse().unwrap()),
        best: true,
        installed: neighbor.is_some(),
        as_path: neighbor.map_or(serde_json::json!([]), |_| serde_json::json!([10000, [7, 8]])),
        communities: vec!["65001:7".into()],
        reason: "only path".into(),
        age: 3725,
        ..crate::bgp::rib::view::testing::route(prefix)
    }
}

#[test]
fn routes_show_the_best_and_why() {
    let mut second = route("10.244.1.0/24", Some("10.1.1.5"));
    (second.best, second.multipath, second.stale) = (false, true, true);
    let list = vec![route("10.244.0.0/24", None), route("10.244.1.0/24", Some("10.1.1.1")), second];
    insta::assert_snapshot!(shown(&Response::Routes(list)));
}

pub(super) fn fib_route(prefix: &str, hops: Vec<String>) -> FibView {
    let hop = |address: String| FibHop {
        address: Some(address.parse().unwrap()),
        interface: "eth0".into(),
        weight: 1,
    };
    FibView {
        prefix: prefix.parse().unwrap(),
        table: 254,
        metric: 179,
        protocol: 179,
        next_hops: hops.into_iter().map(hop).collect(),
        in_kernel: true,
        problem: None,
    }
}

#[test]
fn the_fib_shows_who_is_in_the_way() {
    let mut first = fib_route("10.244.1.0/24", vec!["10.1.1.1".into(), "10.1.1.5".into()]);
    first.next_hops[1].weight = 2;
    let second = FibView { metric: 4_294_967_295, ..fib_route("10.244.0.0/24", Vec::new()) };
    let problem = Some("a route of static has its place".into());
    let third = FibView { in_kernel: false, problem, ..first.clone() };
    insta::assert_snapshot!(shown(&Response::Fib(vec![first, second, third])));
}

pub(super) fn interface(name: &str, prefix: &str) -> InterfaceStatus {
    InterfaceStatus {
        name: name.into(),
        kind: "bridge".into(),
        up: true,
        carrier: true,
        neighbors: vec![NeighborOnLink { address: "10.1.1.1".into(), state: SessionState::Established }],
        subnets: vec![SubnetStatus {
            prefix: prefix.parse().unwrap(),
            advertised_to: vec!["10.1.1.1".into()],
            reason: None,
        }],
        ..InterfaceStatus::default()
    }
}

#[test]
fn the_host_shows_to_whom_a_subnet_is_advertised_and_why_not() {
    let mut other = interface("br-7f", "172.20.0.0/16");
    other.neighbors.clear();
    other.subnets[0] = SubnetStatus {
        advertised_to: Vec::new(),
        reason: Some("no container is attached".into()),
        ..other.subnets[0].clone()
    };
    let host = HostStatus {
        configuration: "by its file: `routelet show config`".into(),
        interfaces: vec![interface("docker0", "172.17.0.0/16"), other],
        problems: vec!["NoGateway: there is no default route".into()],
    };
    insta::assert_snapshot!(shown(&Response::Host(Box::new(host))));
}

pub(super) fn node() -> NodeStatus {
    NodeStatus {
        node: "node-1".into(),
        uid: Some("5b".into()),
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        addresses: vec!["10.0.0.1".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        conflist: ConflistStatus {
            path: Some("/etc/cni/net.d/10-routelet.conflist".into()),
            state: ConflistState::Waiting,
            problem: Some("no IPv6 pod CIDR yet; is the controller manager dual stack?".into()),
            diagnostic: None,
            others: Vec::new(),
        },
        mesh_members: vec![MeshMember {
            node: "node-2".into(),
            address: Some("10.0.0.2".parse().unwrap()),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        }],
        waiting: None,
        reflectors: Vec::new(),
        api: ApiStatus {
            connected: true,
            since: Some("2026-11-21T11:00:00Z".into()),
            ..ApiStatus::default()
        },
        unresolved_nodes: 1,
        remedy: Some("peer with the gateway, or use a common subnet".into()),
        services: vec![
            Eligibility {
                address: "10.96.0.1".parse().unwrap(),
                services: vec!["default/kubernetes (cluster-ip)".into()],
                announced: Some("10.96.0.0/16".parse().unwrap()),
                reason: "every node forwards it".into(),
            },
            Eligibility {
                address: "192.0.2.7".parse().unwrap(),
                services: vec!["default/web (load-balancer-ip)".into()],
                announced: None,
                reason: "no endpoint on this node is ready (traffic policy Local)".into(),
            },
        ],
        problems: Vec::new(),
    }
}

#[test]
fn the_node_shows_what_it_waits_for() {
    insta::assert_snapshot!(shown(&Response::Node(Some(Box::new(node())))));
    assert!(shown(&Response::Node(None)).starts_with("not under Kubernetes"));
}

/// docs/reference.md, JSON: these names, in this order, before any others.
#[test]
fn json_fields_are_those_of_the_interface() {
    let first = |response: &Response, names: &[&str]| {
        let text = json(response);
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("    \"").and_then(|l| l.split_once('"')).map(|(key, _)| key))
            .take(names.len())
            .collect();
        assert_eq!(keys, names);
    };
    first(
        &Response::Neighbors(vec![neighbor("10.1.1.1", SessionState::OpenSent)]),
        &[
            "address",
            "interface",
            "remote_as",
            "local_as",
            "state",
            "since",
            "families",
            "received",
            "accepted",
            "advertised",
            "hold_time",
            "last_error",
        ],
    );
    first(
        &Response::Routes(vec![route("10.0.0.0/24", Some("10.1.1.1"))]),
        &[
            "prefix",
            "neighbor",
            "source",
            "next_hop",
            "best",
            "multipath",
            "stale",
            "installed",
            "origin",
            "as_path",
            "local_pref",
            "med",
            "communities",
            "large_communities",
            "ext_communities",
            "reason",
            "age",
        ],
    );
    let fib = FibView {
        prefix: "10.0.0.0/24".parse().unwrap(),
        table: 254,
        metric: 179,
        next_hops: Vec::new(),
        in_kernel: true,
        problem: None,
        protocol: 179,
    };
    first(&Response::Fib(vec![fib]), &["prefix", "table", "metric", "next_hops", "in_kernel"]);
}

#[test]
fn events_are_lines_that_a_follower_can_append() {
    let mut events = crate::control::Events::default();
    let at = "2026-11-21T11:54:30.487079864Z";
    events.push(at.into(), crate::control::EventKind::Session, "10.1.1.1", "established");
    assert_eq!(
        shown(&Response::Events(events.after(0))),
        "2026-11-21T11:54:30Z  session  10.1.1.1  established\n"
    );
    assert_eq!(shown(&Response::Events(Vec::new())), "");
    assert!(
        json_lines(&events.after(0)).starts_with("{\"number\":1,\"at\":\"2026-11-21T11:54:30.487079864Z\"")
    );
}

#[test]
fn spans_have_two_units() {
    for (seconds, expected) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3725, "1h2m"), (90_000, "1d1h")] {
        assert_eq!(span(seconds), expected);
    }
    assert_eq!(
        ago("2026-11-21T12:00:05Z", "2026-11-21T12:00:00Z".parse().unwrap()),
        "0s",
        "a clock set back"
    );
}
