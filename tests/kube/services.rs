//! Addresses of Services at the switch: announced as Services, EndpointSlices and Nodes of the real API server say, by both
//! nodes at once, kept over a restart and withdrawn by a node that goes.

use std::{
    collections::BTreeSet,
    sync::mpsc::{TryRecvError, channel},
};

use serde_json::{Value, json};

use crate::{
    cluster::ControlPlane,
    common::{
        daemons::{Bird, Frr},
        net::Net,
        wait_for,
    },
    switch::{Rack, bird_config, frr_config},
    world::{Node, Segment},
};

const LB: &str = "192.0.2.10";
const LB6: &str = "2001:db8:2::10";
const CLUSTER: &str = "10.96.7.7";

/// A Service with every kind of address, as a load balancer's controller leaves it.
fn create_service(plane: &ControlPlane) {
    plane.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": CLUSTER, "ipFamilyPolicy": "PreferDualStack",
                 "ports": [{"port": 80}], "externalIPs": ["198.51.100.10"]},
    }));
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": LB}, {"ip": LB6}]}}});
    plane.kubectl(&[
        "patch",
        "service",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ]);
}

fn patch_service(plane: &ControlPlane, patch: &Value) {
    plane.kubectl(&["patch", "service", "web", "--type=merge", "-p", &patch.to_string()]);
}

/// `endpoints`: node, ready, terminating. What terminates still serves.
fn slice(plane: &ControlPlane, endpoints: &[(&str, bool, bool)]) {
    let endpoints: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(n, (node, ready, terminating))| {
            let conditions =
                json!({"ready": ready, "serving": *ready || *terminating, "terminating": terminating});
            json!({"addresses": [format!("10.244.200.{n}")], "nodeName": node, "conditions": conditions})
        })
        .collect();
    plane.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"port": 80}], "endpoints": endpoints,
    }));
}

/// Next hops over which the switch forwards to an address.
fn hops(frr: &Frr, address: &str) -> BTreeSet<String> {
    let (family, len) = if address.contains(':') { ("ipv6", 128) } else { ("ip", 32) };
    let prefix = format!("{address}/{len}");
    let shown = frr.json(&format!("show {family} route {prefix}"));
    let hops = shown[&prefix][0]["nexthops"].as_array().cloned().unwrap_or_default();
    let hop = |h: &Value| h["fib"].as_bool()?.then(|| h["interfaceName"].as_str().map(str::to_owned))?;
    hops.iter().filter_map(hop).collect()
}

/// `t1` and `t2` are the switch's ports to the nodes.
fn wait_hops(frr: &Frr, address: &str, ports: &[&str]) {
    let want: BTreeSet<_> = ports.iter().map(|p| (*p).to_owned()).collect();
    wait_for(format!("the switch reaches {address} by {ports:?}"), 30.0, || {
        (hops(frr, address) == want).then_some(())
    });
}

fn own_kernel_routes(node: &Node) -> String {
    ["-4", "-6"].map(|f| node.ns.ip(&format!("{f} route show table all"))).concat()
}

#[test]
fn the_switch_spreads_service_addresses_over_the_nodes_that_forward_them() {
    let mut rack = Rack::new();
    let frr = Frr::start(&rack.net, &rack.switch.clone(), &frr_config());
    rack.start_with(
        "[kubernetes]\nservices = [\"load-balancer-ip\"]\nservice-annotations = [\"cluster-ip\", \"load-balancer-ip\"]\n",
    );
    let plane = &rack.plane;
    create_service(plane);
    for address in [LB, LB6] {
        wait_hops(&frr, address, &["t1", "t2"]);
    }
    assert!(
        hops(&frr, CLUSTER).is_empty() && hops(&frr, "198.51.100.10").is_empty(),
        "only what is asked for"
    );
    for node in &rack.nodes {
        let routes = own_kernel_routes(node);
        assert!(
            !routes.contains(LB) && !routes.contains(LB6),
            "kube-proxy forwards, not the kernel's table: {routes}"
        );
    }
    let shown = rack.nodes[0].daemon().json(&["show", "routes", &format!("{LB}/32")]);
    assert_eq!(shown[0]["source"], "service", "{shown}");
    assert!(shown[0]["reason"].as_str().unwrap().contains("default/web (load-balancer-ip)"), "{shown}");

    // Word by word, each heeded without a restart.
    plane.kubectl(&["annotate", "service", "web", "routelet.io/advertise=cluster-ip,load-balancer-ip"]);
    wait_hops(&frr, CLUSTER, &["t1", "t2"]);
    plane.kubectl(&["annotate", "--overwrite", "service", "web", "routelet.io/advertise=cluster-ips"]);
    wait_hops(&frr, CLUSTER, &[]);
    let problems = rack.nodes[0].daemon().json(&["show", "summary"])["problems"].to_string();
    assert!(
        problems.contains("Service default/web: annotation") && problems.contains("`cluster-ips`"),
        "{problems}"
    );
    wait_for("one Event at the Service, whatever the number of nodes", 60.0, || {
        let events: Value = serde_json::from_str(&plane.kubectl(&["get", "events", "-o", "json"])).ok()?;
        let of_service =
            |e: &&Value| e["involvedObject"]["kind"] == "Service" && e["involvedObject"]["name"] == "web";
        let of_service: Vec<_> = events["items"].as_array()?.iter().filter(of_service).collect();
        assert!(of_service.len() < 2, "{of_service:?}");
        of_service.first()?["message"].as_str()?.contains("`cluster-ips`").then_some(())
    });
    plane.kubectl(&["annotate", "service", "web", "routelet.io/advertise-"]);

    // Only nodes with an endpoint, and those that terminate only while no other is ready.
    patch_service(plane, &json!({"spec": {"externalTrafficPolicy": "Local"}}));
    wait_hops(&frr, LB, &[]);
    slice(plane, &[("n1", true, false)]);
    wait_hops(&frr, LB, &["t1"]);
    slice(plane, &[("n1", true, false), ("n2", true, false)]);
    wait_hops(&frr, LB, &["t1", "t2"]);
    slice(plane, &[("n1", false, true), ("n2", true, false)]);
    wait_hops(&frr, LB, &["t2"]);
    slice(plane, &[("n1", false, true)]);
    wait_hops(&frr, LB, &["t1"]);
    let verdicts = rack.nodes[1].daemon().json(&["show", "node"])["services"].clone();
    let judged = verdicts.as_array().unwrap().iter().find(|v| v["address"] == LB).expect(LB).clone();
    assert_eq!(judged["announced"], Value::Null);
    assert!(judged["reason"].as_str().unwrap().contains("no endpoint on this node"), "{judged}");
    patch_service(plane, &json!({"spec": {"externalTrafficPolicy": "Cluster"}}));
    wait_hops(&frr, LB, &["t1", "t2"]);

    // A cordon alone changes nothing: it is older than the words below, which are heeded.
    plane.kubectl(&["cordon", "n1"]);
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    plane.kubectl(&["label", "node", "n1", &format!("{label}=")]);
    wait_hops(&frr, LB, &["t2"]);
    plane.kubectl(&["label", "node", "n1", &format!("{label}-")]);
    wait_hops(&frr, LB, &["t1", "t2"]);
    plane.kubectl(&["uncordon", "n1"]);

    patch_service(plane, &json!({"spec": {"loadBalancerClass": Value::Null, "type": "ClusterIP"}}));
    wait_hops(&frr, LB, &[]);
    plane.kubectl(&["annotate", "service", "web", "routelet.io/advertise=cluster-ip"]);
    wait_hops(&frr, CLUSTER, &["t1", "t2"]);
    plane.kubectl(&["delete", "service", "web"]);
    wait_hops(&frr, CLUSTER, &[]);
}

/// An upgrade must take nothing away, a machine that goes must take away everything.
#[test]
fn a_restart_without_the_api_server_keeps_service_addresses_and_a_shutdown_takes_them_out() {
    let mut rack = Rack::new();
    let frr = Frr::start(&rack.net, &rack.switch.clone(), &frr_config());
    let cidrs = rack.start_with("[kubernetes]\nservices = [\"load-balancer-ip\"]\n");
    create_service(&rack.plane);
    patch_service(&rack.plane, &json!({"spec": {"externalTrafficPolicy": "Local"}}));
    slice(&rack.plane, &[("n1", true, false), ("n2", true, false)]);
    wait_hops(&frr, LB, &["t1", "t2"]);
    rack.nodes.iter().for_each(kept);

    // Both ways to end, while the API server is away; the switch forwards all the time.
    rack.plane.stop_api();
    for end in ["TERM", "KILL"] {
        let n1 = rack.nodes[0].routelet.as_mut().unwrap();
        let stayed = std::thread::scope(|s| {
            let (stop, stopped) = channel::<()>();
            let frr = &frr;
            let watch = s.spawn(move || {
                let mut stayed = true;
                while stopped.try_recv() == Err(TryRecvError::Empty) {
                    stayed &= hops(frr, LB).contains("t1");
                }
                stayed
            });
            n1.process.signal(end);
            wait_for("routelet ends", 10.0, || (!n1.process.alive()).then_some(()));
            n1.restart();
            n1.wait_established("10.1.1.1");
            wait_for("all is said again", 30.0, || {
                let told = n1.json(&["show", "routes", &format!("{LB}/32"), "--advertised", "10.1.1.1"]);
                told.as_array().is_some_and(|a| !a.is_empty()).then_some(())
            });
            std::thread::sleep(std::time::Duration::from_secs(2));
            drop(stop);
            watch.join().unwrap()
        });
        assert!(stayed, "the address was away from the switch after {end}");
    }
    rack.plane.start_api();
    wait_for("the API server is seen again", 40.0, || {
        (rack.nodes[0].daemon().json(&["show", "node"])["api"]["connected"] == true).then_some(())
    });
    wait_hops(&frr, LB, &["t1", "t2"]);

    // The kubelet says that the machine goes down: Services first, while pods still end.
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "message": "node is shutting down"}]}});
    rack.plane.kubectl(&["patch", "node", "n1", "--subresource=status", "-p", &ready.to_string()]);
    wait_hops(&frr, LB, &["t2"]);
    let pods = cidrs[0][0].trim_end_matches("/24");
    let has_pods = || frr.vtysh("show bgp ipv4 unicast").contains(pods);
    assert!(has_pods(), "pods of the node are reached until they are gone");
    let n1 = rack.nodes[0].routelet.as_mut().unwrap();
    n1.process.stop();
    wait_for("CEASE: nothing of it is kept for a restart", 10.0, || (!has_pods()).then_some(()));
}

#[test]
fn a_drained_node_asks_for_other_ways_then_gives_up_services_and_pods_last() {
    let mut rack = Rack::new();
    let frr = Frr::start(&rack.net, &rack.switch.clone(), &frr_config());
    let cidrs = rack.start_with("[kubernetes]\nservices = [\"load-balancer-ip\"]\n");
    create_service(&rack.plane);
    wait_hops(&frr, LB, &["t1", "t2"]);
    let since = |rack: &Rack| rack.nodes[0].daemon().json(&["show", "neighbor", "10.1.1.1"])["since"].clone();
    let before = since(&rack);
    let pods = cidrs[0][0].clone();
    let told = |prefix: &str| frr.vtysh(&format!("show bgp ipv4 unicast {prefix}"));
    let has_pods = || !told(&pods).contains("not in table");
    let pod = |name: &str, owner: &str| {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": true}]);
        rack.plane.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": owner},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        }));
    };
    pod("moves", "ReplicaSet");
    pod("stays", "DaemonSet");

    rack.nodes[0].daemon().cli(&["drain"]);
    wait_for("the switch hears GRACEFUL_SHUTDOWN", 20.0, || {
        told(&pods).contains("graceful-shutdown").then_some(())
    });
    wait_hops(&frr, LB, &["t2"]);
    let problems = rack.nodes[0].daemon().json(&["show", "summary"])["problems"].to_string();
    assert!(problems.contains("routelet undrain"), "{problems}");
    assert!(has_pods(), "one pod is still there");
    rack.plane.kubectl(&["delete", "pod", "moves", "--force", "--grace-period=0"]);
    wait_for("the pod CIDR is withdrawn", 30.0, || (!has_pods()).then_some(()));
    assert_eq!(since(&rack), before, "one session all the time");

    // A restart changes nothing.
    let n1 = rack.nodes[0].routelet.as_mut().unwrap();
    n1.process.stop();
    n1.restart();
    n1.wait_established("10.1.1.1");
    wait_for("the first exchange is over", 20.0, || {
        (n1.json(&["show", "summary"])["ready"] == true).then_some(())
    });
    assert!(!has_pods() && hops(&frr, LB) == BTreeSet::from(["t2".to_owned()]));
    rack.nodes[0].daemon().cli(&["undrain"]);
    wait_hops(&frr, LB, &["t1", "t2"]);
    wait_for("the pod CIDR is back", 20.0, || has_pods().then_some(()));
    assert!(!told(&pods).contains("graceful-shutdown"), "{}", told(&pods));
}

/// What a start without the API server needs is in the state folder.
fn kept(node: &Node) {
    let file = node.daemon().dir.join("state/services.json");
    wait_for("Services are kept", 10.0, || {
        std::fs::read_to_string(&file).ok()?.contains("\"ready\"").then_some(())
    });
}

#[test]
fn cordoned_nodes_and_aggregates_behave_as_asked_below_bird() {
    let mut rack = Rack::new();
    let bird = Bird::start(&rack.net, &rack.switch.clone(), &bird_config());
    rack.start_with(
        "[kubernetes]\nservices = [\"cluster-ip\", \"load-balancer-ip\"]\nservice-aggregates = [\"10.96.0.0/16\"]\n\
         withdraw-when-cordoned = true\n",
    );
    let plane = &rack.plane;
    create_service(plane);
    let from = |prefix: &str| -> BTreeSet<String> {
        let shown = bird.birdc(&format!("show route where net = {prefix}"));
        ["10.1.1.2", "10.1.2.2"]
            .into_iter()
            .filter(|n| shown.contains(&format!("via {n} ")))
            .map(str::to_owned)
            .collect()
    };
    let wait = |prefix: &str, nodes: &[&str]| {
        let want: BTreeSet<_> = nodes.iter().map(|n| (*n).to_owned()).collect();
        wait_for(format!("{prefix} comes from {nodes:?}"), 30.0, || (from(prefix) == want).then_some(()));
    };
    let (lb, both) = (format!("{LB}/32"), ["10.1.1.2", "10.1.2.2"]);
    wait("10.96.0.0/16", &both);
    wait(&lb, &both);
    assert!(from(&format!("{CLUSTER}/32")).is_empty(), "the aggregate stands for it");
    let unreachable = rack.nodes[0].ns.ip("route show type unreachable");
    assert!(!unreachable.contains("10.96."), "{unreachable}");

    plane.kubectl(&["cordon", "n1"]);
    wait(&lb, &["10.1.2.2"]);
    wait("10.96.0.0/16", &["10.1.2.2"]);
    plane.kubectl(&["cordon", "n2"]);
    wait(&lb, &both);
    plane.kubectl(&["uncordon", "n1"]);
    wait(&lb, &["10.1.1.2"]);
}

/// kind#3506, cozystack#4043: kubeadm and Talos label every control plane, and there is no other node.
#[test]
fn metallb_2274_a_label_on_every_node_is_one_event_and_a_switch_announces_all_the_same() {
    const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    let mut net = Net::new();
    let segment = Segment::new(&mut net, &[]);
    let config = |more: &str| {
        format!("[kubernetes]\nservices = [\"load-balancer-ip\"]\nwithdraw-without-endpoints = true\n{more}")
    };
    let mut nodes = segment.nodes(&mut net, 2, |_| config(""));
    let plane = &segment.plane;
    let own = plane.kubectl(&["get", "node", "n2", "-o", "jsonpath={.status.addresses[0].address}"]);
    create_service(plane);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": LB}, {"ip": own}]}}}).to_string();
    plane.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &status]);
    let verdict = |node: &Node, address: &str| {
        let shown = node.daemon().json(&["show", "node"]);
        let all = shown["services"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|v| v["address"] == address)?.clone();
        Some((one["announced"].as_str().map(str::to_owned), one["reason"].as_str()?.to_owned()))
    };
    let wait = |nodes: &[Node], announced: bool, reason: &str| {
        for node in nodes {
            wait_for(format!("{}: {reason}", node.name), 30.0, || {
                let (prefix, why) = verdict(node, LB)?;
                (prefix.is_some() == announced && why.contains(reason)).then_some(())
            });
        }
    };
    // metallb#312: first there is no endpoint.
    wait(&nodes, false, "withdraw-without-endpoints");
    slice(plane, &[("elsewhere", true, false)]);
    wait(&nodes, true, "every node forwards it");
    slice(plane, &[("elsewhere", false, false)]);
    wait(&nodes, false, "withdraw-without-endpoints");
    slice(plane, &[("elsewhere", false, true)]);
    wait(&nodes, true, "every node forwards it");
    let of_node = verdict(&nodes[0], own.trim()).unwrap();
    assert!(of_node.0.is_none() && of_node.1.contains("an address of node n2"), "{of_node:?}");
    assert_eq!(nodes[0].daemon().json(&["show", "summary"])["problems"], json!([]));

    plane.kubectl(&["label", "node", "n1", &format!("{LABEL}=")]);
    wait(&nodes[..1], false, LABEL);
    plane.kubectl(&["label", "node", "n2", &format!("{LABEL}=")]);
    wait(&nodes, false, LABEL);
    let events = || {
        let notes = crate::events::notes(plane);
        notes.iter().filter(|n| n.contains("kubernetes.ignore-exclude-label")).count()
    };
    wait_for("an Event", 60.0, || (events() > 0).then_some(()));
    for node in &nodes {
        let problems = node.daemon().json(&["show", "summary"])["problems"].to_string();
        assert!(problems.contains(LABEL) && problems.contains("ignore-exclude-label"), "{problems}");
    }
    for node in &mut nodes {
        let config = node.config(&config("ignore-exclude-label = true\n"));
        node.daemon().configure(&config);
        node.daemon().cli(&["reload"]);
    }
    wait(&nodes, true, "every node forwards it");
    assert_eq!(events(), 1, "said once by both nodes");
}
