//! Without the API server, and without routelet: what is in the kernels and the switch stays, and pods keep talking.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, LB},
    common::wait_for,
    probe::Probes,
};

/// Seconds, and the variable that makes them more: by hand it was ten minutes once.
const OUTAGE: u64 = 60;
const LONGER: &str = "ROUTELET_TEST_OUTAGE";

pub fn nothing_is_lost_without_the_api_server(cluster: &mut Cluster) {
    let seconds = std::env::var(LONGER).map_or(OUTAGE, |s| s.parse().expect("seconds"));
    cluster.settled();
    let routes = Routes::of(cluster);
    let probes = Probes::start(cluster);
    cluster.plane.stop_api();
    let began = Instant::now();
    for signal in ["KILL", "TERM"] {
        for n in 0..cluster.machines.len() {
            let before = cluster.machines[n].container();
            cluster.machines[n].signal_routelet(signal);
            // The kubelet waits longer from time to time: not for the API server.
            wait_for(format!("routelet is started again on n{} after {signal}", n + 1), 120.0, || {
                let now = cluster.machines[n].container();
                (now.is_some() && now != before).then_some(())
            });
            wait_for("its session with the switch is back", 60.0, || {
                let gateway = format!("10.1.{}.1", n + 1);
                (cluster.machines[n].session(&gateway)? == "established").then_some(())
            });
            routes.stand(cluster);
        }
    }
    println!("    routelet killed and ended on each node within {:.0} s", began.elapsed().as_secs_f64());
    while began.elapsed() < Duration::from_secs(seconds) {
        routes.stand(cluster);
        thread::sleep(Duration::from_millis(500));
    }
    cluster.plane.start_api();
    println!("    the API server was away for {:.0} s", began.elapsed().as_secs_f64());
    cluster.wait_ready();
    cluster.wait_routelets();
    for machine in &cluster.machines {
        wait_for(format!("{} sees the API server again", machine.name), 60.0, || {
            (machine.routelet(&["show", "node"])?["api"]["connected"] == true).then_some(())
        });
    }
    routes.stand(cluster);
    probes.none_is_lost();
    // What comes next asks something of them; after an outage they take their time.
    cluster.kubectl(&["create", "namespace", "afterwards"]);
    wait_for("the controllers work again", 180.0, || {
        let accounts = cluster.kubectl(&["-n", "afterwards", "get", "serviceaccounts", "-o", "name"]);
        accounts.contains("default").then_some(())
    });
    cluster.kubectl(&["delete", "namespace", "afterwards", "--wait=false"]);
}

pub fn nothing_is_lost_by_a_rollout(cluster: &mut Cluster) {
    cluster.settled();
    let routes = Routes::of(cluster);
    let probes = Probes::start(cluster);
    let began = Instant::now();
    cluster.kubectl(&["-n", "kube-system", "rollout", "restart", "daemonset/routelet"]);
    let generation = cluster.kubectl(&[
        "-n",
        "kube-system",
        "get",
        "daemonset",
        "routelet",
        "-o",
        "jsonpath={.metadata.generation}",
    ]);
    wait_for("the rollout is done", 180.0, || {
        routes.stand(cluster);
        let set = cluster.kubectl_json(&["-n", "kube-system", "get", "daemonset", "routelet"]);
        let status = |key: &str| set["status"][key].as_u64();
        let observed = status("observedGeneration")?.to_string() == generation;
        (observed && status("updatedNumberScheduled") == Some(3) && status("numberAvailable") == Some(3))
            .then_some(())
    });
    println!("    rollout of three nodes: {:.0} s", began.elapsed().as_secs_f64());
    cluster.wait_routelets();
    routes.stand(cluster);
    probes.none_is_lost();
}

pub fn routes_stay_without_a_daemon_set(cluster: &mut Cluster) {
    cluster.settled();
    let routes = Routes::of(cluster);
    let probes = Probes::start(cluster);

    // One pod, as an operator deletes it.
    let list = [
        "-n",
        "kube-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=routelet",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    let name = cluster.kubectl(&list);
    cluster.kubectl(&["-n", "kube-system", "delete", "pod", name.trim()]);
    cluster.wait_routelets();
    routes.stand(cluster);

    cluster.kubectl(&["-n", "kube-system", "delete", "daemonset", "routelet"]);
    wait_for("no routelet runs", 60.0, || {
        routes.stand(cluster);
        cluster.machines.iter().all(|m| m.container().is_none()).then_some(())
    });
    let alone = Instant::now();
    while alone.elapsed() < Duration::from_secs(5) {
        routes.stand(cluster);
        thread::sleep(Duration::from_millis(200));
    }
    cluster.kubectl(&["apply", "-f", crate::plane::manifest().to_str().unwrap()]);
    cluster.wait_routelets();
    routes.stand(cluster);
    probes.none_is_lost();
}

/// What leads to pods and Services, in the nodes' kernels and in the switch's.
pub struct Routes {
    cidrs: BTreeMap<String, Vec<String>>,
}

impl Routes {
    pub fn of(cluster: &Cluster) -> Self {
        let this = Self { cidrs: cluster.cidrs() };
        wait_for("all routes are there", 60.0, || this.missing(cluster).is_none().then_some(()));
        this
    }

    /// Asserts that none has gone.
    pub fn stand(&self, cluster: &Cluster) {
        if let Some(missing) = self.missing(cluster) {
            panic!("{missing}");
        }
    }

    fn missing(&self, cluster: &Cluster) -> Option<String> {
        for (address, length) in LB.iter().zip([32, 128]) {
            let hops = cluster.hops(&format!("{address}/{length}"));
            if hops != ["t1", "t2", "t3"] {
                return Some(format!("the switch has {address} over {hops:?}"));
            }
        }
        let all = || self.cidrs.iter().flat_map(|(node, cidrs)| cidrs.iter().map(move |c| (node, c)));
        for (node, cidr) in all() {
            let hops = cluster.hops(cidr);
            if hops != [node.replace('n', "t")] {
                return Some(format!("the switch has {cidr} of {node} over {hops:?}"));
            }
            let family = if cidr.contains(':') { "-6" } else { "-4" };
            for machine in cluster.machines.iter().filter(|m| m.name != *node) {
                if !machine.ns.ip(&format!("{family} route show proto 179 {cidr}")).contains("via") {
                    return Some(format!("{} has no route to {cidr} of {node}", machine.name));
                }
            }
        }
        None
    }
}
