//! Whole plans, as the rest of the program sees them.

use std::{net::IpAddr, sync::Arc};

use super::{
    NoPlan, Topology,
    testing::{Case, config, node, nodes},
};
use crate::{
    bgp::peer::{Hops, PeerKey, RemoteAs},
    config::{AsSetting, Config, Neighbor, NeighborId, NeighborKeys, Peering},
    fib::host::testing::{gateway, host, link},
    fib::host::{Host, Link},
    net::{Diagnostic, Family, Reason, Refusal, Source, Subject, SubjectKind, guard::AddressRole},
    nft::masquerade::{Mode, Wanted},
};

/// A node below a switch on a /30, dual stack.
fn below_a_switch() -> Host {
    host(
        [link(2, "eth0").with("10.0.0.2/30").with("2001:db8::2/64").with("fe80::2/64")],
        [gateway("0.0.0.0/0", "10.0.0.1", 2), gateway("::/0", "fe80::1", 2)],
    )
}

fn three_nodes() -> Case {
    let n = nodes([
        node("n1", &["10.0.0.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:244:1::/64"]),
        node("n2", &["10.0.0.6", "2001:db8::6"], &["10.244.2.0/24"]),
        node("n3", &["2001:db8::a"], &["10.244.3.0/24"]),
        node("n4", &[], &[]),
    ]);
    Case::new(config(), Some(n), below_a_switch())
}

fn with_peering(mut case: Case, peering: &[Peering]) -> Case {
    case.config.kubernetes.peering = peering.to_vec();
    case
}

fn neighbor(at: NeighborId, remote_as: RemoteAs) -> Neighbor {
    Neighbor {
        at,
        group: None,
        limit: 1,
        keys: NeighborKeys { remote_as: Some(remote_as), ..NeighborKeys::default() },
    }
}

fn standalone(host: Host, change: impl FnOnce(&mut Config)) -> Case {
    let mut c = config();
    c.bgp.asn = AsSetting::Number(1000);
    change(&mut c);
    Case::new(c, None, host)
}

#[test]
fn auto_speaks_with_the_gateways_and_with_every_node() {
    let case = three_nodes();
    assert_eq!(
        case.peers(),
        ["10.0.0.1 Gateway", "10.0.0.6 Mesh", "2001:db8::a Mesh", "fe80::1%eth0 Gateway"],
        "not with itself, nor with a node that has no address; IPv4 where both have it"
    );
    assert!(case.plan().all_nodes);
}

#[test]
fn each_mode_makes_its_own_neighbors() {
    let mesh = ["10.0.0.6 Mesh", "2001:db8::a Mesh"];
    let gateways = ["10.0.0.1 Gateway", "fe80::1%eth0 Gateway"];
    assert_eq!(with_peering(three_nodes(), &[Peering::Mesh]).peers(), mesh);
    let below = with_peering(three_nodes(), &[Peering::Gateway]);
    assert_eq!(below.peers(), gateways);
    assert!(!below.plan().all_nodes, "one Node is watched, not all");
    let mut case = with_peering(three_nodes(), &[Peering::Gateway]);
    case.config.masquerade.enabled = Some(true);
    assert!(case.plan().all_nodes, "the masquerade spares the addresses of all Nodes");
    assert!(with_peering(three_nodes(), &[Peering::None]).peers().is_empty());
    assert_eq!(
        with_peering(three_nodes(), &[Peering::Mesh, Peering::Gateway]).peers(),
        three_nodes().peers()
    );
}

#[test]
fn the_annotation_of_the_node_overrides_the_peering_of_the_file() {
    let annotated = |text: &str| {
        let mut case = three_nodes();
        case.nodes.as_mut().unwrap().own.as_mut().unwrap().peering = Some(text.into());
        case
    };
    assert_eq!(annotated("mesh").peers(), with_peering(three_nodes(), &[Peering::Mesh]).peers());
    assert_eq!(annotated("gateway, mesh").peers(), three_nodes().peers());
    let wrong = annotated("meshed");
    assert_eq!(wrong.peers(), three_nodes().peers());
    assert!(wrong.plan().problems.iter().any(|p| p.contains("`meshed`")));
}

#[test]
fn made_neighbors_have_the_settings_of_their_kind() {
    let plan = three_nodes().plan();
    let peer = |key: &str| plan.peers.values().find(|p| p.key.to_string() == key).unwrap();
    let tor = peer("10.0.0.1");
    assert_eq!((tor.remote_as, tor.allow_own_as, tor.local_as), (RemoteAs::External, 1, 64512));
    assert_eq!((tor.own.v4, tor.own.v6), (Some([10, 0, 0, 2].into()), "2001:db8::2".parse().ok()));
    let ll = peer("fe80::1%eth0");
    assert_eq!((ll.local_address, ll.own.link_local), (None, "fe80::2".parse().ok()));
    let mesh = peer("10.0.0.6");
    assert_eq!((mesh.remote_as, mesh.allow_own_as), (RemoteAs::Number(64512), 0));
    assert_eq!((mesh.hops, mesh.local_address), (Hops::Direct, Some([10, 0, 0, 2].into())));
}

#[test]
fn a_node_with_another_as_is_an_external_neighbor() {
    let mut case = with_peering(three_nodes(), &[Peering::Mesh]);
    case.other("n2").asn = Some(65001);
    let plan = case.plan();
    let n2 = &plan.peers[&PeerKey::Address([10, 0, 0, 6].into())];
    assert_eq!((n2.remote_as, n2.local_as, n2.hops), (RemoteAs::Number(65001), 64512, Hops::Multihop(255)));

    case.nodes.as_mut().unwrap().own.as_mut().unwrap().asn = Some(65001);
    let plan = case.plan();
    let n3 = plan.peers.values().find(|p| p.key.to_string() == "2001:db8::a").unwrap();
    assert_eq!(
        (plan.global.asn, n3.remote_as),
        (65001, RemoteAs::Number(64512)),
        "the others keep the cluster's"
    );
    assert_eq!(n3.hops, Hops::Direct, "on link");
}

#[test]
fn groups_shape_made_neighbors() {
    let mut case = three_nodes();
    let keys = NeighborKeys {
        remote_as: Some(RemoteAs::Number(65000)),
        hold_time: Some(9),
        ..NeighborKeys::default()
    };
    case.config.bgp.groups.insert("gateway".into(), keys);
    case.config
        .bgp
        .groups
        .insert("mesh".into(), NeighborKeys { hold_time: Some(30), ..NeighborKeys::default() });
    let plan = case.plan();
    let times: Vec<_> = plan.peers.values().map(|p| (p.hold_time, p.remote_as, p.allow_own_as)).collect();
    let tor = (9, RemoteAs::Number(65000), 1);
    let node = (30, RemoteAs::Number(64512), 0);
    assert_eq!(times, [tor, node, node, tor]);
}

#[test]
fn reflectors_speak_with_all_and_the_others_with_reflectors_only() {
    let mut case = with_peering(three_nodes(), &[Peering::Reflectors]);
    assert!(case.peers().is_empty());
    assert!(case.plan().problems.iter().any(|p| p.contains("route-reflector")));
    case.other("n3").reflector = Some(true);
    assert_eq!(case.peers(), ["2001:db8::a Reflector"]);
    assert!(case.plan().peers.values().all(|p| !p.route_reflector_client));
    case.nodes.as_mut().unwrap().own.as_mut().unwrap().reflector = Some(true);
    let clients: Vec<_> =
        case.plan().peers.values().map(|p| (p.key.to_string(), p.route_reflector_client)).collect();
    assert_eq!(clients, [("10.0.0.6".into(), true), ("2001:db8::a".into(), false)]);
}

#[test]
fn a_node_that_calls_from_another_of_its_addresses_is_awaited_there() {
    let mut case = three_nodes();
    case.other("n2").addresses.push([10, 0, 0, 7].into());
    let mut topology = Topology::fresh(&[Peering::Auto].into(), case.nodes.as_ref().unwrap(), 100);
    topology.inbound = [IpAddr::from([10, 0, 0, 7]), [10, 0, 0, 99].into()].into();
    case.extra.topology = Some(topology);
    let plan = case.plan();
    let passive = |addr: [u8; 4]| plan.peers.get(&PeerKey::Address(addr.into())).map(|p| p.passive);
    assert_eq!(passive([10, 0, 0, 6]), Some(false));
    assert_eq!((passive([10, 0, 0, 7]), passive([10, 0, 0, 99])), (Some(true), None));
}

#[test]
fn a_configured_neighbor_replaces_the_made_one_of_its_address() {
    let mut case = three_nodes();
    let at = NeighborId::Address([10, 0, 0, 1].into());
    case.config.bgp.neighbors.push(neighbor(at, RemoteAs::Number(10000)));
    assert!(case.peers().contains(&"10.0.0.1 Configured".into()), "{:?}", case.peers());
    assert_eq!(case.plan().peers[&PeerKey::Address([10, 0, 0, 1].into())].remote_as, RemoteAs::Number(10000));
}

/// If a password or a policy is configured but missing, there is no session rather than one
/// without.
#[test]
fn a_broken_object_leaves_no_session_with_its_neighbor() {
    let mut case = three_nodes();
    let at = NeighborId::Address([10, 0, 0, 1].into());
    assert!(case.peers().contains(&"10.0.0.1 Gateway".into()), "{:?}", case.peers());
    case.extra.broken = vec![at.clone()];
    assert!(!case.peers().iter().any(|p| p.starts_with("10.0.0.1 ")), "{:?}", case.peers());
    // Another BGPPeer for the same neighbor is valid.
    case.extra.objects = vec![neighbor(at, RemoteAs::Number(10000))];
    assert!(case.peers().contains(&"10.0.0.1 Object".into()), "{:?}", case.peers());
}

#[test]
fn nodes_that_the_cluster_hears_nothing_of_are_silent() {
    let mut case = three_nodes();
    assert!(case.plan().unreachable_nodes.is_empty());
    let others = &mut case.nodes.as_mut().unwrap().others;
    let other = Arc::make_mut(others.values_mut().next().unwrap());
    other.not_reporting = true;
    let addresses = other.addresses.clone();
    assert_eq!(case.plan().unreachable_nodes, addresses.into_iter().collect());
}

#[test]
fn calico_9259_pod_cidrs_are_assigned_to_the_nodes_that_there_are() {
    let mut case = three_nodes();
    let [second, third] = ["10.0.0.6", "2001:db8::a"].map(|a| a.parse().unwrap());
    let cidr = case.nodes.as_ref().unwrap().others["n2"].pod_cidrs[0];
    let plan = case.plan();
    assert!(plan.assigned.leads_there(cidr, second) && !plan.assigned.leads_there(cidr, third));
    let others = &mut case.nodes.as_mut().unwrap().others;
    Arc::make_mut(others.get_mut("n2").unwrap()).deleted = true;
    assert!(!case.plan().assigned.leads_there(cidr, second));
}

#[test]
fn gateway_neighbors_follow_the_default_routes() {
    let mut case = standalone(below_a_switch(), |c| {
        c.bgp.neighbors.push(neighbor(NeighborId::Gateway, RemoteAs::Number(10000)));
    });
    assert_eq!(case.peers(), ["10.0.0.1 Gateway", "fe80::1%eth0 Gateway"]);
    assert!(
        case.plan().peers.values().all(|p| p.allow_own_as == 1 && p.remote_as == RemoteAs::Number(10000))
    );

    case.host.routes = vec![gateway("0.0.0.0/0", "10.0.0.3", 2)].into();
    assert_eq!(case.peers(), ["10.0.0.3 Gateway"]);
    case.host.routes[0].protocol = 179;
    assert!(case.peers().is_empty(), "a default route of our own never counts");
}

#[test]
fn a_docker_host_tells_of_its_bridge_while_it_has_a_container() {
    let docker0 = Link { kind: "bridge".into(), ..link(4, "docker0") }.with("172.17.0.1/16");
    let eth0 = link(2, "eth0").with("10.1.1.2/24");
    let mut case = standalone(host([eth0, docker0], []), |c| {
        let at = NeighborId::Address([10, 1, 1, 1].into());
        c.bgp.neighbors.push(neighbor(at, RemoteAs::Number(10000)));
        c.advertise.interfaces = vec!["docker0".into()];
        c.advertise.med = Some(7);
    });
    assert!(case.plan().originated.is_empty());
    case.host.links.insert(5, Link { master: Some(4), ..link(5, "veth1") });
    let plan = case.plan();
    let (prefix, origination) = plan.originated.first_key_value().unwrap();
    assert_eq!(
        (prefix.to_string(), origination.source, origination.med),
        ("172.17.0.0/16".into(), Source::Interface, Some(7))
    );
    assert!(plan.unreachable.is_empty() && plan.conflist.is_none() && !plan.all_nodes);
    assert_eq!((plan.global.asn, plan.global.router_id), (1000, [10, 1, 1, 2].into()));
}

#[test]
fn pod_cidrs_and_networks_are_advertised_and_guarded_against_loops() {
    let mut case = three_nodes();
    case.config.advertise.networks = vec!["192.0.2.0/24".parse().unwrap()];
    let plan = case.plan();
    let advertised: Vec<_> = plan.originated.iter().map(|(p, o)| (p.to_string(), o.source)).collect();
    let want = [
        ("10.244.1.0/24".to_owned(), Source::PodCidr),
        ("192.0.2.0/24".to_owned(), Source::Network),
        ("fd00:244:1::/64".to_owned(), Source::PodCidr),
    ];
    assert_eq!(advertised, want);
    assert_eq!(plan.unreachable.len(), 3);
    let refused = |p: &str| plan.guard.refuses(p.parse().unwrap(), true);
    assert_eq!(refused("10.244.1.128/25"), Some(Refusal::Own));
    assert_eq!(refused("10.244.2.0/24"), None);
    assert_eq!(
        refused("10.0.0.6/32"),
        Some(Refusal::Protected(AddressRole::Node)),
        "reached by the default route"
    );

    case.config.kubernetes.advertise_pod_cidrs = false;
    let plan = case.plan();
    assert_eq!((plan.originated.len(), plan.unreachable.len()), (1, 3), "the loop is possible all the same");
    assert_eq!(plan.guard.refuses("10.244.1.0/24".parse().unwrap(), true), Some(Refusal::Own));
}

#[test]
fn the_conflist_holds_the_pod_cidrs_of_every_family() {
    let plan = three_nodes().with_programs(&["bridge", "host-local", "portmap"]).plan();
    let conflist = plan.conflist.unwrap();
    let file: serde_json::Value = serde_json::from_slice(&conflist.bytes).unwrap();
    assert_eq!(file["plugins"][0]["ipam"]["ranges"].as_array().unwrap().len(), 2);
    assert_eq!((&file["plugins"][0]["mtu"], &file["plugins"][1]["type"]), (&1500.into(), &"portmap".into()));
    assert!(plan.problems.is_empty(), "{:?}", plan.problems);
}

#[test]
fn missing_plugins_are_named_and_optional_ones_left_out() {
    let plan = three_nodes().with_programs(&["bridge", "host-local"]).plan();
    let file: serde_json::Value = serde_json::from_slice(&plan.conflist.unwrap().bytes).unwrap();
    assert_eq!(file["plugins"].as_array().unwrap().len(), 1);
    assert!(plan.problems.iter().any(|p| p.contains("`portmap`") && p.contains("/opt/cni/bin")));

    // Without the plugins that every pod needs there is no conflist, so that the Node does not
    // become Ready.
    for (programs, missing) in [
        (&["bridge"][..], &["`host-local`"][..]),
        (&["host-local", "portmap"], &["`bridge`"]),
        (&[], &["`bridge`", "`host-local`"]),
    ] {
        let plan = three_nodes().with_programs(programs).plan();
        assert!(plan.conflist.is_none(), "{programs:?}");
        for name in missing {
            assert!(plan.problems.iter().any(|p| p.contains(name) && p.contains("/opt/cni/bin")), "{name}");
            assert!(plan.no_conflist.contains(name), "{}", plan.no_conflist);
        }
        assert_eq!(plan.originated.len(), 2, "nothing else is disturbed");
    }
    let mut case = three_nodes();
    Arc::make_mut(&mut case.extra.plugins).pending = true;
    let plan = case.plan();
    assert!(plan.conflist.is_none() && plan.problems.is_empty(), "not looked at yet: {:?}", plan.problems);
}

fn version(plan: &super::Plan) -> String {
    let file: serde_json::Value = serde_json::from_slice(&plan.conflist.as_ref().unwrap().bytes).unwrap();
    file["cniVersion"].as_str().unwrap().to_owned()
}

#[test]
fn containerd_6876_the_conflist_is_in_a_version_that_its_plugins_know() {
    let known = |case: &mut Case, name: &str, versions: &[&str]| {
        let versions = versions.iter().map(|v| (*v).to_owned()).collect();
        Arc::make_mut(&mut case.extra.plugins).versions.insert(name.to_owned(), versions);
    };
    let mut case = three_nodes().with_programs(&["bridge", "host-local", "portmap"]);
    assert_eq!(version(&case.plan()), "0.4.0", "nobody knows");
    for name in ["bridge", "host-local", "portmap"] {
        known(&mut case, name, &["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    }
    assert_eq!(version(&case.plan()), "1.0.0");
    known(&mut case, "host-local", &["0.3.0", "0.3.1", "0.4.0"]);
    assert_eq!(version(&case.plan()), "0.4.0");
    known(&mut case, "host-local", &["0.3.1", "0.4.0", "1.0.0"]);
    Arc::make_mut(&mut case.extra.plugins).chained.insert("mesh-cni".to_owned());
    assert_eq!(version(&case.plan()), "0.4.0", "one that others have chained");
    known(&mut case, "mesh-cni", &["0.3.1"]);
    assert_eq!(version(&case.plan()), "0.3.1");
    assert!(case.plan().problems.is_empty(), "{:?}", case.plan().problems);
    known(&mut case, "mesh-cni", &["0.2.0"]);
    assert!(case.plan().problems.iter().any(|p| p.contains("no CNI version in common")));
    let mut broken = three_nodes().with_programs(&["bridge", "host-local", "portmap"]);
    let unusable = ("bridge".to_owned(), "exec format error".to_owned());
    Arc::make_mut(&mut broken.extra.plugins).unusable.extend([unusable]);
    let [problem] = &broken.plan().problems[..] else { panic!("one") };
    assert!(problem.contains("`bridge`") && problem.contains("exec format error"), "{problem}");
}

#[test]
fn kind_626_a_family_that_the_host_has_switched_off_is_left_out_and_named() {
    let ranges = |plan: &super::Plan| {
        let pods = plan.conflist.as_ref().map(|c| c.pod_cidrs.clone()).unwrap_or_default();
        pods.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut case = three_nodes();
    assert_eq!(ranges(&case.plan()), ["10.244.1.0/24", "fd00:244:1::/64"]);
    case.extra.off = [(Family::Ipv6Unicast, "net.ipv6.conf.all.disable_ipv6".to_owned())].into();
    let plan = case.plan();
    assert_eq!(ranges(&plan), ["10.244.1.0/24"]);
    let [problem] = &plan.problems[..] else { panic!("{:?}", plan.problems) };
    for part in ["fd00:244:1::/64", "IPv6", "net.ipv6.conf.all.disable_ipv6"] {
        assert!(problem.contains(part), "{problem}");
    }
    case.extra.off.clear();
    assert_eq!(ranges(&case.plan()).len(), 2, "and back");
    case.extra.off = [(Family::Ipv6Unicast, "x".to_owned())].into();
    case.nodes.as_mut().unwrap().own.as_mut().unwrap().pod_cidrs.remove(0);
    let plan = case.plan();
    assert!(plan.conflist.is_none() && plan.no_conflist.contains("no pod CIDR of the Node can be used"));
}

#[test]
fn the_mtu_is_the_smallest_of_the_uplinks() {
    let mtu = |case: &Case| {
        let bytes = case.plan().conflist.unwrap().bytes.clone();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["plugins"][0]["mtu"].clone()
    };
    let mut case = three_nodes();
    case.host.links.insert(3, Link { mtu: 1400, ..link(3, "eth1") });
    assert_eq!(mtu(&case), 1500, "an interface without default route does not count");
    case.host.routes.push(gateway("0.0.0.0/0", "10.7.0.1", 3));
    assert_eq!(mtu(&case), 1400);
    case.host.routes.clear();
    case.host.links.get_mut(&2).unwrap().mtu = 9000;
    assert_eq!(mtu(&case), 9000, "the one with the node address");
    case.config.cni.mtu = Some(1280);
    assert_eq!(mtu(&case), 1280);
}

#[test]
fn a_pod_cidr_that_is_the_nodes_own_subnet_is_not_used() {
    let mut case = three_nodes();
    case.nodes.as_mut().unwrap().own.as_mut().unwrap().pod_cidrs = vec!["10.0.0.0/30".parse().unwrap()];
    let plan = case.plan();
    assert!(plan.originated.is_empty() && plan.unreachable.is_empty() && plan.conflist.is_none());
    assert!(
        plan.problems.iter().any(|p| p.contains("10.0.0.0/30") && p.contains("eth0")),
        "{:?}",
        plan.problems
    );
    assert!(!plan.peers.is_empty(), "nothing else is disturbed");
}

#[test]
fn overlapping_pod_cidrs_of_two_nodes_are_named() {
    let mut case = three_nodes();
    case.other("n2").pod_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    let problems = |case: &Case| case.plan().object_problems;
    let [clash] = &problems(&case)[..] else { panic!("{:?}", problems(&case)) };
    assert_eq!((&clash.subject, clash.reason), (&Subject::node("n2", "uid-n2"), Reason::OverlappingPodCIDR));
    for words in ["10.244.0.0/16 of node n2 overlaps 10.244.1.0/24 of node n1", "re-create Node n2"] {
        assert!(clash.contains(words), "{clash}");
    }
    let plan = case.plan();
    assert!(plan.conflist.is_some() && plan.diagnostics().contains(clash), "the first keeps its own");

    // The other node reports the same text.
    let mut other = case.clone();
    let nodes = other.nodes.as_mut().unwrap();
    let n2 = Arc::unwrap_or_clone(nodes.others.remove("n2").unwrap());
    let n1 = nodes.own.replace(n2).unwrap();
    nodes.others.insert(n1.name.clone(), n1.into());
    let of_n1 = |p: &&Diagnostic| p.text.contains("node n1");
    assert_eq!(problems(&other).iter().find(of_n1), Some(clash));
    let plan = other.plan();
    assert!(plan.conflist.is_none() && plan.originated.is_empty() && !plan.peers.is_empty());

    // The older Node has precedence, and a deleted Node loses it without a report.
    let own = |case: &mut Case, change: fn(&mut crate::k8s::node::NodeView)| {
        change(case.nodes.as_mut().unwrap().own.as_mut().unwrap());
    };
    own(&mut case, |n1| n1.created = Some(2));
    let plan = case.plan();
    assert_eq!(plan.object_problems[0].subject.name, "n1");
    let six: Vec<_> = plan.originated.keys().copied().collect();
    assert_eq!(six, ["fd00:244:1::/64".parse().unwrap()], "the other family is nobody else's");
    assert_eq!(plan.conflist.unwrap().pod_cidrs, six, "and pods have it");
    own(&mut case, |n1| (n1.created, n1.deleted) = (None, true));
    let plan = case.plan();
    assert!(plan.object_problems.is_empty() && plan.conflist.unwrap().pod_cidrs == six);
}

#[test]
fn a_pod_cidr_that_hides_somebody_inside_a_larger_subnet_is_not_used() {
    for (cidr, who) in [
        ("10.0.0.0/29", "holds the default gateway 10.0.0.1"),
        ("10.0.64.0/24", "holds the address 10.0.64.9 of node n2"),
        ("10.0.65.0/24", ""),
    ] {
        let wide = host([link(2, "eth0").with("10.0.9.2/16")], [gateway("0.0.0.0/0", "10.0.0.1", 2)]);
        let all = nodes([node("n1", &["10.0.9.2"], &[cidr]), node("n2", &["10.0.64.9"], &[])]);
        let plan = Case::new(config(), Some(all), wide).plan();
        let reported = plan.problems.iter().filter(|p| p.contains(cidr)).count();
        assert_eq!(
            (reported, plan.conflist.is_none()),
            if who.is_empty() { (0, false) } else { (1, true) },
            "{cidr}"
        );
        assert!(
            plan.problems.iter().any(|p| p.contains(who)) || who.is_empty(),
            "{cidr}: {:?}",
            plan.problems
        );
    }
}

/// liqo#314: a virtual Node whose InternalIP is a pod's.
#[test]
fn liqo_314_a_stray_node_or_address_inside_takes_no_pod_cidr_away() {
    let p = |s: &str| -> crate::net::Prefix { s.parse().unwrap() };
    let vk = |case: &mut Case| {
        let vk = node("vk", &["10.244.1.2"], &[]);
        case.nodes.as_mut().unwrap().others.insert("vk".into(), vk.into());
    };
    let bridge = || Link { kind: "bridge".into(), ..link(7, "routelet0") }.with("10.244.1.1/24");
    let whole = |case: &Case, name: &str| {
        let plan = case.plan();
        assert_eq!(plan.conflist.as_ref().map(|c| c.pod_cidrs.len()), Some(2), "{name}: {:?}", plan.problems);
        assert!(plan.originated.contains_key(&p("10.244.1.0/24")), "{name}");
        plan.problems
    };
    // At the first start, after a restart, with pods, and after a reboot.
    let mut fresh = three_nodes();
    vk(&mut fresh);
    let mut restarted = fresh.clone();
    restarted.extra.held = Arc::new([p("10.244.1.0/24"), p("fd00:244:1::/64")].into());
    let mut with_pods = restarted.clone();
    with_pods.host.links.insert(7, bridge());
    let mut file_gone = with_pods.clone();
    file_gone.extra.held = Arc::default();
    for (name, case) in
        [("fresh", &fresh), ("restarted", &restarted), ("with pods", &with_pods), ("file gone", &file_gone)]
    {
        let problems = whole(case, name);
        assert!(problems.len() == 1 && problems[0].contains("node vk"), "{name}: {problems:?}");
        assert!(!problems[0].contains("range"), "the wrong advice: {}", problems[0]);
    }

    // Interfaces: a host address is never a reason to refuse the range; a subnet is none if the
    // range is in use.
    let mut tunnel = three_nodes();
    tunnel.host.links.insert(9, link(9, "flannel.1").with("10.244.1.0/32"));
    assert!(whole(&tunnel, "flannel's").is_empty(), "no pod gets it");
    let mut host = three_nodes();
    host.host.links.insert(9, link(9, "dummy0").with("10.244.1.77/32"));
    let problems = whole(&host, "a host's");
    assert!(
        problems.len() == 1 && problems[0].contains("10.244.1.77/32 of interface dummy0"),
        "{problems:?}"
    );
    let mut subnet = restarted.clone();
    subnet.nodes.as_mut().unwrap().others.remove("vk");
    subnet.host.links.insert(9, link(9, "virbr9").with("10.244.1.129/25"));
    let problems = whole(&subnet, "in use");
    assert!(problems[0].contains("holds the subnet 10.244.1.128/25 of interface virbr9"), "{problems:?}");
    subnet.extra.held = Arc::default();
    let plan = subnet.plan();
    assert_eq!(
        plan.conflist.unwrap().pod_cidrs,
        [p("fd00:244:1::/64")],
        "not begun with; the other family is used"
    );

    // The node's own address always is a reason, except if the kubelet took it from the bridge.
    let mut own = with_pods.clone();
    own.nodes.as_mut().unwrap().own.as_mut().unwrap().addresses.push("10.244.1.1".parse().unwrap());
    whole(&own, "the bridge's");
    own.nodes.as_mut().unwrap().own.as_mut().unwrap().addresses.push("10.244.1.9".parse().unwrap());
    let plan = own.plan();
    assert_eq!(plan.conflist.unwrap().pod_cidrs, [p("fd00:244:1::/64")]);
    assert!(
        plan.problems.iter().any(|p| p.contains("the node's own address 10.244.1.9")),
        "{:?}",
        plan.problems
    );
}

#[test]
fn the_plan_holds_the_configuration_in_force() {
    let mut case = three_nodes();
    assert_eq!(case.plan().config.kubernetes.peering, case.config.kubernetes.peering);
    case.nodes.as_mut().unwrap().own.as_mut().unwrap().peering = Some("mesh, gateway".into());
    assert_eq!(case.plan().config.kubernetes.peering, [Peering::Mesh, Peering::Gateway]);
}

#[test]
fn without_a_node_there_is_no_plan_but_one_that_went_away_withdraws_its_pods() {
    let mut case = three_nodes();
    case.nodes.as_mut().unwrap().own = None;
    let err = super::plan(&case.config, case.nodes.as_ref(), &case.host, &case.extra).unwrap_err();
    assert_eq!(err, NoPlan::NoNodeAddress);
    case.extra.stored_router_id = Some([1, 1, 1, 1].into());
    let plan = case.plan();
    assert!(plan.originated.is_empty() && plan.conflist.is_none());
    assert_eq!(case.peers(), ["10.0.0.1 Gateway", "fe80::1%eth0 Gateway"]);
    assert!(plan.all_nodes);
}

#[test]
fn planning_twice_gives_the_same_plan() {
    let case = three_nodes();
    assert_eq!(case.plan(), case.plan());
}

#[test]
fn masquerade_spares_the_cluster_and_what_is_near() {
    let mut case = three_nodes();
    case.nodes.as_mut().unwrap().service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
    case.config.masquerade.exclude = vec!["192.0.2.0/24".parse().unwrap()];
    let wanted = case.plan().masquerade;
    assert_eq!(wanted.mode, Mode::Auto);
    let own = ["10.244.1.0/24", "fd00:244:1::/64"];
    assert_eq!(wanted.pods, own.map(|p| p.parse().unwrap()).into());
    let spared =
        ["10.0.0.0/30", "10.0.0.6/32", "10.244.2.0/24", "10.96.0.0/16", "192.0.2.0/24", "224.0.0.0/4"];
    for prefix in spared.iter().chain(&own) {
        assert!(wanted.keep.contains(&prefix.parse().unwrap()), "{prefix}: {:?}", wanted.keep);
    }
    case.config.masquerade.enabled = Some(false);
    assert_eq!(*case.plan().masquerade, Wanted::default());
    let bare = standalone(below_a_switch(), |c| c.masquerade.enabled = Some(true)).plan();
    assert!(
        bare.masquerade.mode == Mode::Off && bare.problems[0].contains("only pods"),
        "{:?}",
        bare.problems
    );
}

#[test]
fn a_former_pod_cidr_is_served_while_pods_run_and_nobody_else_has_it() {
    let p = |s: &str| s.parse().unwrap();
    let mut port = link(8, "veth1");
    port.master = Some(7);
    let bridge = Link { kind: "bridge".into(), ..link(7, "routelet0") };
    let mut case = three_nodes();
    case.extra.held = Arc::new([p("10.244.1.0/24"), p("10.244.9.0/24")].into());
    let serves = |case: &Case| {
        let plan = case.plan();
        let former = p("10.244.9.0/24");
        assert_eq!(plan.originated.contains_key(&former), plan.unreachable.contains(&former));
        assert_eq!(plan.conflist.unwrap().pod_cidrs.len(), 2, "the file holds the new ones alone");
        (plan.originated.contains_key(&former), plan.problems.iter().filter(|p| p.contains("former")).count())
    };
    assert_eq!(serves(&case), (false, 0), "no port, no pod");
    case.host.links.extend([(7, bridge), (8, port)]);
    assert_eq!(serves(&case), (true, 1));
    case.other("n2").pod_cidrs.push(p("10.244.9.0/24"));
    assert_eq!(serves(&case), (false, 1), "another node's by now");
    case.nodes.as_mut().unwrap().own = None;
    case.extra.stored_router_id = Some([1, 2, 3, 4].into());
    assert!(case.plan().originated.is_empty(), "the Node is gone for good");
}

/// Users who may write objects, labels and annotations determine neither the number nor the length
/// of problems.
#[test]
fn problems_are_bounded_in_number_and_octets() {
    let mut case = three_nodes();
    let long = "x".repeat(10_000);
    case.nodes.as_mut().unwrap().own.as_mut().unwrap().problems = (0..5000)
        .map(|n| Diagnostic::new(Reason::NodeMarkInvalid, Subject::mark(n), &*long, &*long))
        .collect();
    let mut plan = case.plan();
    let problem = |n: usize| {
        let subject = Subject::object(SubjectKind::BgpPeer, None, &format!("p{n}"), "");
        Diagnostic::new(Reason::Invalid, subject, &*long, &*long)
    };
    plan.add_object_problems((0..5000).map(problem).collect());
    plan.add_object_problems((0..5000).map(problem).collect());
    assert_eq!(plan.object_problems.len(), 100);
    let texts = plan.problems.iter().chain(&plan.object_problems).map(Diagnostic::line);
    assert!(texts.clone().count() <= 201 && texts.clone().all(|t| t.len() <= 1024 + 3));
    assert!(plan.diagnostics().iter().map(|d| d.line().len()).sum::<usize>() <= 128 * 1024);
}
