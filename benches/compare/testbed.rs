//! The network of a measurement: the daemon's host, and switches with the neighbors.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::messages::{NEXT_HOP6, SECOND, address, daemon};
use crate::common::net::{Net, Ns};

/// The hardware address of each switch.
const SWITCH: &str = "02:00:00:00:00:01";

pub struct Testbed {
    pub net: Net,
    pub switch: Ns,
    pub host: Ns,
}

impl Testbed {
    /// A switch with the addresses of this many neighbors, and the host.
    pub fn new(neighbors: u32) -> Self {
        let mut net = Net::new();
        let (switch, host) = (net.ns("switch"), net.ns("host"));
        join(&mut net, (&switch, &host), "eth0", 1..=neighbors);
        switch.ip(&format!("addr add {NEXT_HOP6}/64 dev eth0 nodad"));
        host.ip("addr add fd00::ffff/64 dev eth0 nodad");
        host.ip(&format!("neigh add {NEXT_HOP6} lladdr {SWITCH} dev eth0 nud permanent"));
        Self { net, switch, host }
    }

    /// A second switch with one neighbor, on the host's `eth1`.
    pub fn second(&mut self) -> Ns {
        let second = self.net.ns("second");
        join(&mut self.net, (&second, &self.host), "eth1", SECOND..=SECOND);
        second
    }
}

/// Configures the neighbors' hardware addresses on the host before the clock starts. A thousand
/// learned ones would overflow the kernel's table, which all namespaces share; permanent ones do
/// not count.
fn join(net: &mut Net, (switch, host): (&Ns, &Ns), link: &str, neighbors: std::ops::RangeInclusive<u32>) {
    net.link((switch, link), (host, link));
    switch.ip(&format!("link set {link} address {SWITCH}"));
    let all = |line: &dyn Fn(u32) -> String| neighbors.clone().map(line).collect::<String>();
    batch(switch, &all(&|n| format!("addr add {}/16 dev {link}\n", address(n))));
    host.ip(&format!("addr add {}/16 dev {link}", daemon(*neighbors.start())));
    batch(host, &all(&|n| format!("neigh add {} lladdr {SWITCH} dev {link} nud permanent\n", address(n))));
}

/// Runs many `ip` commands at once.
fn batch(ns: &Ns, lines: &str) {
    let mut command = Command::new("ip");
    let mut child = command
        .args(["-n", &ns.name, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip: run tests/run once, it installs what is needed");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("ip reads");
    assert!(child.wait().expect("our child").success(), "ip -batch in {}", ns.name);
}

pub fn index(ns: &Ns, link: &str) -> u32 {
    let text = ns.ip(&format!("-o link show {link}"));
    text.split(':').next().and_then(|n| n.trim().parse().ok()).expect("an interface index")
}
