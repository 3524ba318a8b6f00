//! Neighbors that are Nodes of the cluster: what of theirs is accepted, and what it costs to judge
//! it again.

use std::net::IpAddr;

use super::*;
use crate::{
    bgp::{
        peer::Graceful,
        policy::{Policy, Set, Statement},
    },
    net::guard::{GuardInputs, NodeInput, NodePrefixes, ServiceInput},
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Neighbor `n` is Node `nN` with 10.244.N.0/24.
fn cluster(nodes: std::ops::RangeInclusive<u8>) -> Vec<NodeInput> {
    let node = |n: u8| NodeInput {
        name: format!("n{n}"),
        addresses: vec![address(n.into()).into()],
        pod_cidrs: vec![pods(n)],
        ..NodeInput::default()
    };
    nodes.map(node).collect()
}

fn pods(n: u8) -> Prefix {
    Prefix::v4([10, 244, n, 0].into(), 24)
}

fn every() -> ServiceInput {
    ServiceInput { every: true, ..ServiceInput::default() }
}

impl Bench {
    fn nodes(&mut self, nodes: Vec<NodeInput>, services: &[(&str, ServiceInput)]) {
        let services = services.iter().map(|(prefix, who)| (p(prefix), who.clone())).collect();
        let prefixes = Arc::new(NodePrefixes::new(nodes, services, [p("172.16.0.0/16")]));
        let inputs = GuardInputs { nodes: prefixes, ..GuardInputs::default() };
        self.rib.handle(self.now, Input::Guard(Arc::new(Guard::new(inputs))));
        self.run();
    }

    /// A neighbor of the mesh.
    fn node(&mut self, n: u32) {
        self.neighbor(n, 65000, |c| {
            (c.source, c.is_node) = (PeerSource::Mesh, true);
            c.description = Some(format!("node n{n}"));
        });
    }

    fn installed(&self) -> Vec<String> {
        self.fib.keys().map(ToString::to_string).collect()
    }

    /// The neighbors over which packets to a prefix leave.
    fn gateways(&self, prefix: &str) -> Vec<IpAddr> {
        self.fib
            .get(&p(prefix))
            .map(|hops| hops.gateways().iter().map(|g| g.addr).collect())
            .unwrap_or_default()
    }
}

/// Reflected by its neighbor, with this one's address as next hop.
fn reflected(next_hop: u32) -> Attrs {
    let mut path = path(next_hop, 65000);
    path.extra_mut().originator_id = Some(address(next_hop));
    path.extra_mut().cluster_list = vec![1];
    path
}

#[test]
fn a_stolen_node_in_the_mesh_takes_nothing_but_its_own_pods() {
    let mut bench = Bench::new();
    bench.nodes(cluster(2..=3), &[("10.96.0.10/32", every())]);
    (2..=3).for_each(|n| bench.node(n));
    bench.announce(3, &path(3, 65000), &[pods(3), p("10.96.0.10/32")]);
    bench.run();
    let before = bench.installed();
    assert_eq!(before, ["10.96.0.10/32", "10.244.3.0/24"]);

    let greedy = Attrs { local_pref: Some(1000), ..path(2, 65000) };
    let foreign = [
        "10.244.3.0/24",
        "10.244.3.0/25",
        "10.244.3.128/25",
        "10.244.3.7/32",
        "10.244.0.0/16",
        "10.96.0.0/12",
        "10.96.0.11/32",
        "8.8.8.8/32",
        "10.9.1.2/31",
        "128.0.0.0/8",
    ];
    bench.announce(2, &greedy, &foreign.map(p));
    bench.run();
    assert_eq!(bench.installed(), before);
    assert_eq!(bench.gateways("10.244.3.0/24"), [IpAddr::from(address(3))]);
    let reason = bench.reasons(pods(3))["10.0.0.12"].clone();
    assert_eq!(reason, "guard: not in the pod CIDRs of node n2: 10.244.3.0/24 belongs to node n3");
    let counts = bench.rib.counts();
    let of_n2 = &counts.neighbors["10.0.0.12"];
    assert_eq!(of_n2.accepted[&Family::Ipv4Unicast], 0);
    assert!(of_n2.notes[0].contains("10 routes are refused"), "{:?}", of_n2.notes);
    assert_eq!(counts.refused[&Family::Ipv4Unicast]["guard: not in the pod CIDRs of the node"], 10);

    // Its own pods, and no more than its share of a Service.
    bench.announce(2, &Attrs { med: Some(0), ..greedy }, &[pods(2), p("10.96.0.10/32"), p("172.16.9.0/24")]);
    bench.run();
    assert_eq!(bench.installed(), ["10.96.0.10/32", "10.244.2.0/24", "10.244.3.0/24", "172.16.9.0/24"]);
    assert_eq!(bench.gateways("10.96.0.10/32").len(), 2, "LOCAL_PREF wins nothing");

    // One problem, after a while.
    assert_eq!(bench.rib.take_problems(), None);
    bench.now += Duration::from_secs(11);
    bench.rib.handle(bench.now, Input::Timeout);
    let problems = bench.rib.take_problems().unwrap();
    assert_eq!(problems.len(), 1);
    for part in ["10.0.0.12 (node n2)", "kubernetes.mesh-accept", "show routes --received 10.0.0.12"] {
        assert!(problems[0].contains(part), "{problems:?}");
    }
    bench.withdraw(2, &foreign.map(p));
    bench.run();
    assert_eq!(bench.rib.take_problems(), Some(Vec::new()));
}

#[test]
fn a_stolen_reflector_leads_no_route_to_another_node_than_its_own() {
    let mut bench = Bench::new();
    bench.nodes(
        cluster(2..=4),
        &[("192.0.2.8/32", ServiceInput { nodes: vec!["n4".into()], ..ServiceInput::default() })],
    );
    bench.node(2);
    bench.announce(2, &reflected(3), &[pods(3)]);
    bench.announce(2, &reflected(4), &[pods(4), p("192.0.2.8/32")]);
    bench.announce(2, &path(2, 65000), &[pods(2)]);
    bench.run();
    let all = ["10.244.2.0/24", "10.244.3.0/24", "10.244.4.0/24", "192.0.2.8/32"];
    assert_eq!(bench.installed(), all);
    // Each with a next hop that is not its Node's.
    bench.announce(2, &reflected(2), &[pods(3), p("10.244.4.0/25")]);
    bench.announce(2, &reflected(3), &[p("192.0.2.8/32"), p("10.244.4.128/25")]);
    bench.announce(2, &reflected(77), &[p("10.244.4.7/32")]);
    bench.run();
    assert_eq!(bench.installed(), ["10.244.2.0/24", "10.244.4.0/24"]);
    assert_eq!(bench.gateways("10.244.4.0/24"), [IpAddr::from(address(4))]);
    let reason = bench.reasons(p("10.244.4.7/32"))["10.0.0.12"].clone();
    assert_eq!(reason, "guard: 10.0.0.87 is the address of no Node, so nothing is accepted from there");
    let reason = bench.reasons(p("192.0.2.8/32"))["10.0.0.12"].clone();
    assert!(reason.contains("of node n3, and it may not advertise this Service address"), "{reason}");
    // Without the marks of a reflector it is a route of its own.
    bench.announce(2, &path(4, 65000), &[p("10.244.4.64/26")]);
    bench.run();
    assert_eq!(bench.installed(), ["10.244.2.0/24", "10.244.4.0/24"]);
}

#[test]
fn a_route_is_accepted_as_soon_as_the_cluster_shows_whose_it_is_and_refused_when_not() {
    let mut bench = Bench::new();
    let bare = |n: u8| NodeInput { pod_cidrs: Vec::new(), ..cluster(n..=n).remove(0) };
    bench.nodes([cluster(2..=2), vec![bare(3)]].concat(), &[]);
    (2..=3).for_each(|n| bench.node(n));
    let many: Vec<Prefix> =
        (0..5000).map(|n| Prefix::v4(Ipv4Addr::from_bits(0xac10_0000 + n * 8), 29)).collect();
    many.chunks(500).for_each(|part| bench.announce(2, &path(2, 65000), part));
    bench.announce(3, &path(3, 65000), &[pods(3), p("10.96.0.10/32"), p("192.0.2.8/32")]);
    bench.run();
    assert_eq!(bench.installed().len(), 5000);

    let reimports = |bench: &mut Bench, nodes, services: &[(&str, ServiceInput)]| {
        let before = bench.rib.reimports;
        bench.nodes(nodes, services);
        bench.rib.reimports - before
    };
    assert_eq!(reimports(&mut bench, cluster(2..=3), &[]), 1, "what its pod CIDR holds");
    assert_eq!(bench.gateways("10.244.3.0/24"), [IpAddr::from(address(3))]);
    let services = [
        ("10.96.0.10/32", every()),
        ("192.0.2.8/32", ServiceInput { nodes: vec!["n3".into()], ..ServiceInput::default() }),
    ];
    assert_eq!(reimports(&mut bench, cluster(2..=3), &services), 2, "each Service");
    assert_eq!(bench.installed().len(), 5003);
    assert_eq!(reimports(&mut bench, cluster(2..=9), &services), 0, "other Nodes");
    // The endpoint moves to another node; then the Node is deleted.
    let moved = [
        services[0].clone(),
        ("192.0.2.8/32", ServiceInput { nodes: vec!["n2".into()], ..ServiceInput::default() }),
    ];
    assert_eq!(reimports(&mut bench, cluster(2..=9), &moved), 1);
    assert!(bench.gateways("192.0.2.8/32").is_empty());
    assert_eq!(reimports(&mut bench, cluster(2..=2), &moved), 3, "pods, and Services that led to it");
    assert_eq!(bench.installed().len(), 5000);
    assert_eq!(
        bench.rib.counts().neighbors["10.0.0.13"].received[&Family::Ipv4Unicast],
        3,
        "the session goes on"
    );
}

#[test]
fn drain_and_policies_of_this_host_count_where_a_node_s_preference_does_not() {
    let mut bench = Bench::new();
    bench.nodes(cluster(2..=3), &[("10.96.0.10/32", every())]);
    (2..=3).for_each(|n| bench.node(n));
    let service = [p("10.96.0.10/32")];
    let send = |bench: &mut Bench, n: u32, local_pref: u32, med: Option<u32>| {
        bench.announce(n, &Attrs { local_pref: Some(local_pref), med, ..path(n, 65000) }, &service);
        bench.run();
    };
    send(&mut bench, 3, 100, Some(50));
    send(&mut bench, 2, 200, Some(7));
    assert_eq!(bench.gateways("10.96.0.10/32").len(), 2);
    send(&mut bench, 3, 0, None);
    assert_eq!(bench.gateways("10.96.0.10/32"), [IpAddr::from(address(2))], "n3 is drained");
    // What an import policy sets is this host's own choice.
    let set = Set { local_pref: Some(300), ..Set::default() };
    let prefer = Policy::new("prefer", vec![Statement { set, ..Statement::default() }]);
    send(&mut bench, 3, 100, None);
    assert_eq!(bench.gateways("10.96.0.10/32").len(), 2);
    let config = PeerConfig {
        is_node: true,
        source: PeerSource::Mesh,
        import: vec![Arc::new(prefer)],
        ..(*config(3)).clone()
    };
    bench.configure(3, Arc::new(config));
    bench.run();
    assert_eq!(bench.gateways("10.96.0.10/32"), [IpAddr::from(address(3))]);
    // The attributes stay as they were received.
    let view =
        bench.rib.routes(bench.now, &RouteFilter { prefix: Some(service[0]), ..RouteFilter::default() });
    let of_n2 = view.iter().find(|r| r.neighbor.as_deref() == Some("10.0.0.12")).unwrap();
    assert_eq!((of_n2.local_pref, of_n2.med), (Some(200), Some(7)));
}

#[test]
fn long_lived_routes_of_a_node_that_is_gone_go_with_it() {
    let mut bench = Bench::new();
    bench.nodes(cluster(2..=3), &[]);
    bench.configure(
        2,
        Arc::new(PeerConfig {
            is_node: true,
            source: PeerSource::Mesh,
            long_lived_stale_time: 604_800,
            ..(*config(2)).clone()
        }),
    );
    let families = vec![(Family::Ipv4Unicast, true)];
    let long_lived = vec![(Family::Ipv4Unicast, 604_800, true)];
    let graceful =
        Graceful { restart_time: 120, notification: true, families, long_lived, ..Graceful::default() };
    bench.up(2, Negotiated { graceful: Some(graceful), ..negotiated(2, 65000) });
    bench.announce(2, &path(2, 65000), &[pods(2), p("8.8.8.8/32"), p("10.244.3.0/25")]);
    bench.announce(2, &reflected(3), &[pods(3)]);
    bench.run();
    bench.down(2, DownCause::Closed);
    bench.run();
    bench.now += Duration::from_secs(121);
    bench.rib.handle(bench.now, Input::Timeout);
    bench.run();
    assert_eq!(bench.installed(), ["10.244.2.0/24", "10.244.3.0/24"], "for a week");
    bench.nodes(cluster(2..=2), &[]);
    assert_eq!(
        bench.installed(),
        ["10.244.2.0/24"],
        "n3 was deleted, and nobody is left to withdraw its route"
    );
    bench.rib.handle(bench.now, Input::Gone { peer: PeerId(2) });
    bench.run();
    assert!(bench.fib.is_empty());
}
