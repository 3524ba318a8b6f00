//! Pings that go on while something is done to the cluster: none may be lost.

use std::time::Instant;

use crate::{
    cluster::{Cluster, Pod},
    common::{Process, probe, wait_for},
};

/// Between two probes, in seconds.
const EVERY: &str = "0.025";

/// From pods to pods of other nodes, IPv4 and IPv6.
pub struct Probes {
    pings: Vec<(String, Process)>,
    began: Instant,
}

impl Probes {
    /// From each node's first pod to the next one's.
    pub fn start(cluster: &Cluster) -> Self {
        let pods = cluster.wait_pods();
        let first = |n: usize| -> &Pod {
            let name = &cluster.machines[n % 3].name;
            pods.iter().find(|p| p.node == *name).unwrap_or_else(|| panic!("no pod on {name}"))
        };
        let mut pings = Vec::new();
        for n in 0..3 {
            let (from, to) = (first(n), first(n + 1));
            for address in &to.addresses {
                cluster.wait_ping(from, address);
                let mut ping = cluster.machine(&from.node).in_pod(&from.addresses[0], "ping");
                ping.args(["-n", "-i", EVERY, address]);
                let log = cluster.net.dir().join(format!("ping-{}-{n}-{}", pings.len(), from.name));
                let _ = std::fs::remove_file(&log);
                pings.push((format!("{} to {address}", from.node), Process::start(&mut ping, &log)));
            }
        }
        Self { pings, began: Instant::now() }
    }

    /// Ends them; panics where one was lost.
    pub fn none_is_lost(mut self) {
        let took = self.began.elapsed().as_secs_f64();
        let mut sent = 0;
        for (what, ping) in &mut self.pings {
            let (before, _) = answered(ping);
            let (most, missing) = wait_for(format!("{what} is still answered"), 30.0, || {
                Some(answered(ping)).filter(|(most, _)| *most > before + 1)
            });
            assert!(missing.is_empty(), "{what}: of {most} probes these were lost: {missing:?}");
            assert!(
                f64::from(most) > 10.0 * took,
                "{what}: {most} probes in {took:.0} s are too few to tell"
            );
            sent += most;
            ping.kill();
        }
        println!("    {sent} probes on {} ways in {took:.0} s, none lost", self.pings.len());
    }
}

/// The last answer's number, and the numbers below it that were never answered.
fn answered(ping: &Process) -> (u32, Vec<u32>) {
    let seen = probe::answered(ping);
    let most = seen.last().copied().unwrap_or(0);
    (most, (1..=most).filter(|n| !seen.contains(n)).collect())
}
