//! A real cluster whose only network is routelet, as users install it: kubelets with containerd, kube-proxy, scheduler and all
//! controllers, an image with the built binary, `kubectl apply -f deploy/daemonset.yaml`. Nothing is done by hand but the
//! switch, as in a rack.
//!
//! A cluster costs time, so the scenarios of one shape share it, in this order; each sets up what it needs, so that a filter
//! (`cargo test --test cluster -- outage`) works. After a failure the rest of that shape is not run, and counts as failed.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../common/cluster.rs"]
mod plane;

mod cluster;
mod first;
mod leave;
mod machine;
mod outage;
mod probe;
mod suite;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use cluster::{
    Cluster,
    Shape::{self, Mesh, Rack},
};

struct Scenario {
    name: &'static str,
    shape: Shape,
    run: fn(&mut Cluster),
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "mesh_first_ping", shape: Mesh, run: first::six_pods_of_a_deployment_reach_each_other },
    Scenario { name: "mesh_conformance", shape: Mesh, run: suite::kubernetes_own_specs_of_the_network_pass },
    Scenario { name: "rack_first_ping", shape: Rack, run: first::six_pods_of_a_deployment_reach_each_other },
    Scenario { name: "rack_service_from_outside", shape: Rack, run: first::a_service_answers_from_all_nodes },
    Scenario { name: "rack_conformance", shape: Rack, run: suite::kubernetes_own_specs_of_the_network_pass },
    Scenario { name: "rack_rollout", shape: Rack, run: outage::nothing_is_lost_by_a_rollout },
    Scenario { name: "rack_daemonset_deleted", shape: Rack, run: outage::routes_stay_without_a_daemon_set },
    Scenario { name: "rack_api_outage", shape: Rack, run: outage::nothing_is_lost_without_the_api_server },
    Scenario { name: "rack_node_joins", shape: Rack, run: leave::a_node_joins },
    Scenario { name: "rack_node_shuts_down", shape: Rack, run: leave::a_node_that_shuts_down_says_so },
    Scenario { name: "rack_node_powered_off", shape: Rack, run: leave::a_node_that_is_powered_off_leaves },
];

/// The folder of these tests.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster")
}

fn main() -> ExitCode {
    let (filters, listed) = arguments();
    let wanted = |s: &&Scenario| filters.is_empty() || filters.iter().any(|f| s.name.contains(f.as_str()));
    let chosen: Vec<_> = SCENARIOS.iter().filter(wanted).collect();
    if listed {
        chosen.iter().for_each(|s| println!("{}: test", s.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} scenarios", chosen.len());
    let failed: usize =
        [Mesh, Rack].map(|shape| run_all(chosen.iter().filter(|s| s.shape == shape))).iter().sum();
    println!("\ncluster: {} passed; {failed} failed", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Of one shape, in one cluster; how many failed.
fn run_all<'a>(scenarios: impl Iterator<Item = &'a &'a Scenario>) -> usize {
    let mut scenarios = scenarios.peekable();
    let Some(first) = scenarios.peek() else { return 0 };
    let shape = first.shape;
    let Ok(mut cluster) = catch_unwind(|| Cluster::new(shape)) else {
        println!("{shape:?} ... FAILED: no cluster");
        return scenarios.count();
    };
    while let Some(scenario) = scenarios.next() {
        let began = Instant::now();
        println!("scenario {} ...", scenario.name);
        let passed = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut cluster))).is_ok();
        let took = began.elapsed().as_secs_f64();
        println!("scenario {} ... {} ({took:.1} s)", scenario.name, if passed { "ok" } else { "FAILED" });
        if !passed {
            eprintln!("{}", cluster.diagnosis());
            return 1 + scenarios.count();
        }
    }
    0
}

/// Names to filter by, and whether a list is asked for; what else `cargo test` passes on is for other test binaries.
fn arguments() -> (Vec<String>, bool) {
    let mut args = std::env::args().skip(1);
    let (mut filters, mut listed) = (Vec::new(), false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => listed = true,
            "--test-threads" | "--skip" | "--format" | "--color" => drop(args.next()),
            option if option.starts_with('-') => {}
            _ => filters.push(arg),
        }
    }
    (filters, listed)
}
