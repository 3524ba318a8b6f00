//! From one `kubectl apply` to pods and Services that answer.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    cluster::{Cluster, LB, Pod, Shape},
    common::wait_for,
};

/// The bound is 30 s; a machine that is shared is given more, and the time is printed.
const FIRST_PING: f64 = 120.0;

pub fn six_pods_of_a_deployment_reach_each_other(cluster: &mut Cluster) {
    let began = cluster.apply();
    let mut first = None;
    let pods = wait_for("six pods run", FIRST_PING, || {
        let pods = cluster.pods();
        if first.is_none() && pair(&pods).is_some_and(|(a, b)| cluster.ping(a, &b.addresses[0])) {
            first = Some(Instant::now());
        }
        (pods.len() == 6 && first.is_some()).then_some(pods)
    });
    if let (Some(began), Some(first)) = (began, first) {
        println!("    apply to first ping between nodes: {:.1} s", (first - began).as_secs_f64());
    }
    let mut by_node = BTreeMap::<_, usize>::new();
    pods.iter().for_each(|p| *by_node.entry(p.node.clone()).or_default() += 1);
    assert!(by_node.len() == 3 && by_node.values().all(|n| *n == 2), "{by_node:?}");
    for from in &pods {
        for address in pods.iter().flat_map(|p| &p.addresses) {
            cluster.wait_ping(from, address);
        }
    }
    if let Some(began) = began {
        println!(
            "    apply to all of six pods to each other, IPv4 and IPv6: {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
    cluster.wait_ready();
    cluster.wait_routelets();
    every_node_is_content(cluster);
    logs_are_quiet(cluster);
    routes_go_the_right_way(cluster);
}

/// Two pods on different nodes.
fn pair(pods: &[Pod]) -> Option<(&Pod, &Pod)> {
    let a = pods.first()?;
    Some((a, pods.iter().find(|p| p.node != a.node)?))
}

/// What the manifest allows is all it takes: routes, conflist, masquerading and the condition.
fn every_node_is_content(cluster: &Cluster) {
    for machine in &cluster.machines {
        let name = &machine.name;
        let summary = machine.routelet(&["show", "summary"]).expect("routelet answers");
        assert_eq!(summary["problems"].as_array().map(Vec::len), Some(0), "{name}: {summary}");
        let node = machine.routelet(&["show", "node"]).expect("routelet answers");
        assert_eq!(node["conflist"]["state"], "written", "{name}: {node}");
        let path = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
        wait_for(format!("{name}: NetworkUnavailable is False"), 60.0, || {
            (cluster.kubectl(&["get", "node", name, "-o", path]) == "False").then_some(())
        });
        wait_for(format!("{name} says how it is"), 60.0, || {
            let said = cluster.kubectl(&["get", "bgpnodestatuses", name, "--ignore-not-found", "-o", "name"]);
            (!said.trim().is_empty()).then_some(())
        });
    }
}

/// What routelet itself says of its start.
fn logs_are_quiet(cluster: &Cluster) {
    let list =
        cluster.kubectl_json(&["-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=routelet"]);
    for pod in list["items"].as_array().unwrap() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        // The kernel has taken the last of what it is asked for, and nobody needs it to stay.
        let log = wait_for(format!("{name} masquerades"), 60.0, || {
            let log = cluster.kubectl(&["-n", "kube-system", "logs", name]);
            log.contains("masquerading configured ipv4=true ipv6=true").then_some(log)
        });
        assert!(
            !log.contains("not permitted") && !log.contains("ermission denied"),
            "a right is missing:\n{log}"
        );
        let said = |what: &str| {
            let line = log.lines().find(|l| l.contains(what));
            let time = line
                .and_then(|l| l.split(' ').next())
                .unwrap_or_else(|| panic!("{what:?} is not said:\n{log}"));
            time.parse::<jiff::Timestamp>().expect("a time")
        };
        let took = said("conflist up to date").duration_since(said("INFO"));
        let node = pod["spec"]["nodeName"].as_str().unwrap();
        println!("    {node}: routelet's first word to conflist {:.2} s", took.as_secs_f64());
    }
}

/// From node to node in the mesh, through the switch in the rack.
fn routes_go_the_right_way(cluster: &Cluster) {
    for (owner, cidrs) in cluster.cidrs() {
        for cidr in &cidrs {
            for machine in cluster.machines.iter().filter(|m| m.name != owner) {
                let family = if cidr.contains(':') { "-6" } else { "-4" };
                let shown = machine.ns.ip(&format!("{family} route show proto 179 {cidr}"));
                let n = owner.trim_start_matches('n');
                let hop = match (cluster.shape, family) {
                    (Shape::Mesh, "-4") => format!("10.99.0.1{n}"),
                    (Shape::Mesh, _) => format!("fd00:99::1{n}"),
                    (Shape::Rack, "-4") => format!("10.1.{}.1", machine.name.trim_start_matches('n')),
                    (Shape::Rack, _) => format!("fd00:1:{}::1", machine.name.trim_start_matches('n')),
                };
                assert!(shown.contains(&format!("via {hop} ")), "{}: {cidr}: {shown}", machine.name);
            }
        }
    }
}

pub fn a_service_answers_from_all_nodes(cluster: &mut Cluster) {
    cluster.settled();
    let pods: BTreeMap<_, _> = cluster.wait_pods().into_iter().map(|p| (p.name, p.node)).collect();
    for (address, length) in LB.iter().zip([32, 128]) {
        wait_for(format!("the switch has {address} over three nodes"), 60.0, || {
            (cluster.hops(&format!("{address}/{length}")) == ["t1", "t2", "t3"]).then_some(())
        });
        // The traffic policy is Local: who answers tells by which node the switch has sent it.
        let answers = responses(cluster, address, |seen| {
            let nodes: std::collections::BTreeSet<_> = seen.keys().filter_map(|p| pods.get(p)).collect();
            nodes.len() == 3 && seen.len() > 3
        });
        println!("    {address} answered from outside by {answers:?}");
    }
    let service = cluster.kubectl_json(&["get", "service", "web"]);
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
    responses(cluster, cluster_ip, |seen| seen.len() > 2);
}

/// Asks from outside until `enough`: which pod has answered how often.
pub fn responses(
    cluster: &Cluster,
    address: &str,
    enough: impl Fn(&BTreeMap<String, u32>) -> bool,
) -> BTreeMap<String, u32> {
    let url = if address.contains(':') {
        format!("http://[{address}]/hostname")
    } else {
        format!("http://{address}/hostname")
    };
    let mut seen = BTreeMap::new();
    wait_for(format!("{address} is answered by several"), 60.0, || {
        let curl = cluster.client.command("curl").args(["-gs", "-m", "5", &url]).output().unwrap();
        if curl.status.success() {
            *seen.entry(String::from_utf8(curl.stdout).unwrap()).or_default() += 1;
        }
        enough(&seen).then(|| seen.clone())
    })
}
