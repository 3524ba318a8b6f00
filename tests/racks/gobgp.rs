//! GoBGP as a leaf switch. It installs no routes itself: its best paths are read from
//! `gobgp monitor` and installed in the kernel of the leaf.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
};

use serde_json::Value;

use crate::{
    common::{
        Process,
        net::{Net, Ns},
        wait_for,
    },
    kit,
};

pub struct Gobgp {
    _daemon: Process,
    monitor: Child,
    installer: Option<JoinHandle<()>>,
}

/// Neighbors on `port0`, `port1`, …, of any external AS.
fn config(n: usize, ports: usize) -> String {
    let mut text = format!("[global.config]\nas = {}\nrouter-id = \"10.0.0.{n}\"\n", 10000 + n);
    for port in 0..ports {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-interface = \"port{port}\"\n\
             [neighbors.timers.config]\nconnect-retry = 1\nhold-time = 9\nkeepalive-interval = 3\n\
             idle-hold-time-after-reset = 1\n"
        );
        for family in ["ipv4-unicast", "ipv6-unicast"] {
            let _ = write!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n"
            );
        }
    }
    text
}

impl Gobgp {
    /// Its neighbors run already: GoBGP looks for their addresses once, in the kernel's table of neighbors.
    pub fn start(net: &Net, leaf: &Ns, n: usize, ports: usize) -> Self {
        leaf.sysctl("net.ipv4.ip_forward", "1");
        leaf.sysctl("net.ipv6.conf.all.forwarding", "1");
        for port in 0..ports {
            wait_for(format!("leaf {n} knows the link-local address on port{port}"), 60.0, || {
                leaf.ip(&format!("-6 neigh show dev port{port}")).contains("fe80::").then_some(())
            });
        }
        let dir = net.dir().join(format!("gobgp{n}"));
        fs::create_dir_all(&dir).expect("a folder");
        let conf = dir.join("gobgpd.toml");
        fs::write(&conf, config(n, ports)).expect("a writable folder");
        let mut command = leaf.command(kit::tool("gobgpd").to_str().expect("UTF-8"));
        command.arg("-f").arg(&conf).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
        let daemon = Process::start(&mut command, &dir.join("log"));
        let client = || {
            let mut client = leaf.command(kit::tool("gobgp").to_str().expect("UTF-8"));
            client.args(["-u", "127.0.0.1", "-p", "50051"]);
            client
        };
        wait_for("gobgpd responds", 30.0, || {
            client().arg("global").output().is_ok_and(|out| out.status.success()).then_some(())
        });
        let mut monitor = client()
            .args(["monitor", "global", "rib", "--current", "-j"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("gobgp of the kit");
        let lines = BufReader::new(monitor.stdout.take().expect("a pipe")).lines();
        let leaf = leaf.clone();
        let installer = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let paths: Vec<Value> = serde_json::from_str(&line).unwrap_or_default();
                paths.iter().for_each(|path| install(&leaf, path));
            }
        });
        Self { _daemon: daemon, monitor, installer: Some(installer) }
    }
}

/// A route that a lost link has removed already, or over a link that is lost, is an error of `ip` that does not matter.
fn install(leaf: &Ns, path: &Value) {
    let Some(prefix) = path["nlri"]["prefix"].as_str() else { return };
    let Some((hop, port)) = path["peer-address"].as_str().and_then(|peer| peer.split_once('%')) else {
        return;
    };
    let args = match path["withdrawal"].as_bool() {
        Some(true) => format!("route del {prefix} proto bgp"),
        _ if prefix.contains(':') => format!("-6 route replace {prefix} via {hop} dev {port} proto bgp"),
        _ => format!("route replace {prefix} via inet6 {hop} dev {port} proto bgp"),
    };
    let _ = Command::new("ip").args(["-n", &leaf.name]).args(args.split(' ')).output();
}

impl Drop for Gobgp {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        if let Some(installer) = self.installer.take() {
            let _ = installer.join();
        }
    }
}
