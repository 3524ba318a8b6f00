//! Nodes come and go.

use std::time::Instant;

use serde_json::json;

use crate::{
    cluster::{Cluster, LB, PORTS},
    common::{run, wait_for},
    probe::Probes,
};

pub fn a_node_joins(cluster: &mut Cluster) {
    cluster.settled();
    let probes = Probes::start(cluster);
    let mut machine = cluster.boot(PORTS);
    machine.wait_up();
    let began = Instant::now();
    cluster.machines.push(machine);
    cluster.wait_ready();
    println!("    kubelet's start to Node Ready: {:.1} s", began.elapsed().as_secs_f64());
    cluster.scale(8);
    let pods = cluster.wait_pods();
    let new = pods.iter().find(|p| p.node == "n4").expect("pods are spread over all nodes");
    for pod in &pods {
        new.addresses.iter().for_each(|a| cluster.wait_ping(pod, a));
        pod.addresses.iter().for_each(|a| cluster.wait_ping(new, a));
    }
    println!("    kubelet's start to all pings: {:.1} s", began.elapsed().as_secs_f64());
    wait_for("the Service is at the new node, too", 60.0, || {
        (cluster.hops(&format!("{}/32", LB[0])) == ["t1", "t2", "t3", "t4"]).then_some(())
    });
    probes.none_is_lost();
}

/// The kubelet's word stands in for systemd, which is not here: the condition of its graceful shutdown, then SIGTERM to pods.
pub fn a_node_that_shuts_down_says_so(cluster: &mut Cluster) {
    cluster.settled();
    wait_at(cluster, "t3");
    let machine = cluster.machine("n3");
    let cidrs = cluster.cidrs()["n3"].clone();
    // A restart, by which nothing leaves, is in `outage`. Here the machine goes.
    machine.stop_kubelet();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "message": "node is shutting down"}]}});
    let began = Instant::now();
    cluster.kubectl(&["patch", "node", "n3", "--subresource=status", "-p", &ready.to_string()]);
    for prefix in prefixes() {
        wait_for(format!("{prefix} leaves n3"), 30.0, || {
            cluster.hops(&prefix).iter().all(|p| p != "t3").then_some(())
        });
    }
    println!("    condition to Service addresses out of the switch: {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(cluster.hops(&cidrs[0]), ["t3"], "pods are reached while they end");
    let began = Instant::now();
    machine.signal_routelet("TERM");
    for cidr in &cidrs {
        wait_for(format!("CEASE: {cidr} leaves the switch"), 30.0, || {
            cluster.hops(cidr).is_empty().then_some(())
        });
    }
    println!("    SIGTERM to all routes out of the switch: {:.2} s", began.elapsed().as_secs_f64());
    let last = cluster.frr.as_ref().expect("a switch").vtysh("show bgp neighbor 10.1.3.2");
    assert!(last.contains("Cease/Administrative Shutdown"), "{last}");
    crate::first::responses(cluster, LB[0], |seen| seen.len() > 1);
    cluster.remove("n3");
}

pub fn a_node_that_is_powered_off_leaves(cluster: &mut Cluster) {
    cluster.settled();
    wait_at(cluster, "t2");
    let cidrs = cluster.cidrs()["n2"].clone();
    let began = Instant::now();
    // Power has gone: no process says a word, the cable is dark.
    let machine = cluster.machines.iter_mut().find(|m| m.name == "n2").expect("n2");
    machine.ns.ip("link set eth0 down");
    machine.off();
    for prefix in prefixes().iter().chain(&cidrs) {
        wait_for(format!("{prefix} leaves n2"), 30.0, || {
            cluster.hops(prefix).iter().all(|p| p != "t2").then_some(())
        });
    }
    println!("    dark cable to all routes out of the switch: {:.2} s", began.elapsed().as_secs_f64());
    crate::first::responses(cluster, LB[0], |seen| seen.len() > 1);
    let table = run(cluster.switch.command("ip").args(["route", "show"]));
    assert!(!table.contains("10.1.2.2"), "{table}");
}

fn prefixes() -> [String; 2] {
    [format!("{}/32", LB[0]), format!("{}/128", LB[1])]
}

/// The Service's addresses are reached by this port of the switch.
fn wait_at(cluster: &Cluster, port: &str) {
    for prefix in prefixes() {
        wait_for(format!("the switch has {prefix} at {port}"), 60.0, || {
            cluster.hops(&prefix).iter().any(|p| p == port).then_some(())
        });
    }
}
