//! Kubernetes' own test suite: the part for the network that every cluster must pass.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{cluster::Cluster, common::Process, kit};

/// So many there are in this version; fewer means that the focus has missed some.
const SPECS: usize = 47;
/// Some specs give a controller 30 s, which a busy machine may need for other things; a fault of the network is there twice.
const ATTEMPTS: &str = "--flake-attempts=2";
const FOCUS: &str = r"\[sig-network\].*\[Conformance\]";
/// 100 s on a machine of its own with two processors.
const LIMIT: Duration = Duration::from_secs(30 * 60);

pub fn kubernetes_own_specs_of_the_network_pass(cluster: &mut Cluster) {
    cluster.settled();
    let began = Instant::now();
    let report = cluster.net.dir().join("e2e");
    fs::create_dir_all(&report).unwrap();
    let [_, kubeconfig] = cluster.admin();
    let mut command = cluster.plane.ns.command(kit::tool("ginkgo").to_str().unwrap());
    command.env("KUBECONFIG", &kubeconfig);
    command.args(["--procs=4", "--no-color", "--timeout=30m", ATTEMPTS, &format!("--focus={FOCUS}")]);
    command.arg(kit::tool("e2e.test")).arg("--").args(["--provider=skeleton", "--disable-log-dump"]);
    command.arg(format!("--kubeconfig={kubeconfig}")).arg(format!("--report-dir={}", report.display()));
    command.arg(format!("--kubectl-path={}", kit::tool("kubectl").display()));
    command.args(["--dump-logs-on-failure=false", "--allowed-not-ready-nodes=0", "--minStartupPods=0"]);
    command.arg(format!("--num-nodes={}", cluster.machines.len()));
    let mut suite = Process::start(&mut command, &report.join("log"));
    while suite.alive() {
        assert!(began.elapsed() < LIMIT, "Kubernetes' suite goes on and on");
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = suite.stop();
    let said = suite.printed();
    let failures: Vec<_> = said.lines().filter(|l| l.contains("[FAIL]")).collect();
    assert!(status.success(), "{status}:\n{}\n{}", failures.join("\n"), tail(&said));
    let passed = format!("{SPECS} Passed | 0 Failed");
    assert!(said.contains(&passed), "not {passed}:\n{}", tail(&said));
    for again in said.lines().filter(|l| l.contains("[FLAKED]")) {
        println!("    at the second attempt: {}", again.trim());
    }
    println!(
        "    {SPECS} specs of [sig-network] [Conformance] passed in {:.0} s",
        began.elapsed().as_secs_f64()
    );
}

fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().rev().take(80).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
