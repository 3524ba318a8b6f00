//! Nodes with everything: the real daemon in a namespace, a Node object, and a runtime that makes pods.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{ControlPlane, kit},
    common::{
        Process,
        daemons::Routelet,
        net::{Net, Ns},
        speaker::listen,
        wait_for,
    },
    pods::{Pod, Runtime},
};

/// One node of the cluster.
pub struct Node {
    pub name: String,
    pub ns: Ns,
    pub addresses: Vec<String>,
    pub conf_dir: PathBuf,
    /// The folder of the CNI plugins.
    pub bin_dir: PathBuf,
    /// Further keys of `[cni]`.
    pub cni: &'static str,
    pub runtime: Runtime,
    pub routelet: Option<Routelet>,
}

impl Node {
    pub fn new(net: &Net, name: &str, ns: &Ns, addresses: &[&str]) -> Self {
        let conf_dir = net.dir().join(format!("{name}-net.d"));
        Self {
            name: name.into(),
            ns: ns.clone(),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            runtime: Runtime::new(net, ns, &conf_dir),
            conf_dir,
            bin_dir: kit().join("cni"),
            cni: "",
            routelet: None,
        }
    }

    /// Registers the Node with its addresses, as a kubelet does.
    pub fn register(&self, plane: &ControlPlane) {
        plane.create_node(&self.name);
        let addresses: Vec<_> = self.addresses.iter().map(String::as_str).collect();
        plane.set_addresses(&self.name, &addresses);
    }

    /// Starts routelet with the defaults of a cluster, and what `config` adds.
    pub fn start(&mut self, net: &Net, plane: &ControlPlane, config: &str) {
        self.ready(net, plane, config);
        self.routelet.as_mut().expect("a prepared one").restart();
    }

    /// The same up to the start itself.
    pub fn ready(&mut self, net: &Net, plane: &ControlPlane, config: &str) {
        let config = self.config(config);
        let kubeconfig = plane.kubeconfig_of(&self.name).display().to_string();
        let options = ["--kubeconfig", &kubeconfig, "--node-name", &self.name];
        self.routelet = Some(Routelet::ready(net, &self.ns, &config, &options));
    }

    pub fn daemon_mut(&mut self) -> &mut Routelet {
        self.routelet.as_mut().expect("a started node")
    }

    /// What its file says: `config`, and where the runtime's folders are.
    pub fn config(&self, config: &str) -> String {
        let cni = format!(
            "[cni]\nconf-dir = \"{}\"\nbin-dir = \"{}\"\n{}",
            self.conf_dir.display(),
            self.bin_dir.display(),
            self.cni
        );
        match config.split_once("[cni]\n") {
            Some((before, after)) => format!("{before}{cni}{after}"),
            None => format!("{config}\n{cni}"),
        }
    }

    /// Stops the daemon, and takes away what it leaves behind; what that was.
    pub fn clean_up(&mut self) -> String {
        let daemon = self.routelet.as_mut().expect("a started node");
        daemon.process.stop();
        let config = daemon.dir.join("routelet.toml").display().to_string();
        self.ns.sh(&format!("{} cleanup --config {config}", env!("CARGO_BIN_EXE_routelet")))
    }

    pub fn daemon(&self) -> &Routelet {
        self.routelet.as_ref().expect("a started node")
    }

    pub fn conflist(&self) -> Option<Value> {
        let bytes = fs::read(self.conflist_file()).ok()?;
        Some(serde_json::from_slice(&bytes).expect("never half a file"))
    }

    pub fn conflist_file(&self) -> PathBuf {
        self.conf_dir.join("10-routelet.conflist")
    }

    pub fn wait_conflist(&self, cidrs: &[String]) {
        wait_for(format!("{} has a conflist for {cidrs:?}", self.name), 20.0, || {
            let text = self.conflist()?.to_string();
            cidrs.iter().all(|c| text.contains(c.as_str())).then_some(())
        });
    }

    pub fn wait_route(&self, prefix: &str) {
        wait_for(format!("{} has a kernel route to {prefix}", self.name), 30.0, || {
            self.has_route(prefix).then_some(())
        });
    }

    /// Whether routelet's unicast route is in the kernel.
    pub fn has_route(&self, prefix: &str) -> bool {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let shown = self.ns.ip(&format!("{family} route show proto 179 {prefix}"));
        shown.lines().any(|l| l.contains("via") || l.contains("nhid"))
    }

    /// Addresses of the neighbors with which there is a session, each with when it began.
    pub fn sessions(&self) -> BTreeMap<String, String> {
        let shown = self.daemon().json(&["show", "neighbors"]);
        let up = shown.as_array().expect("a list").iter().filter(|n| n["state"] == "established");
        let text = |n: &Value, key: &str| n[key].as_str().map(str::to_owned);
        up.filter_map(|n| Some((text(n, "address")?, text(n, "since")?))).collect()
    }

    /// Writes down what becomes of the kernel's routes from now on.
    pub fn monitor(&self, net: &Net) -> Monitor {
        let log = net.dir().join(format!("{}.monitor", self.name));
        Monitor {
            name: self.name.clone(),
            process: Process::start(self.ns.command("ip").args(["monitor", "route"]), &log),
        }
    }

    pub fn pod(&self, net: &mut Net, name: &str) -> Pod {
        self.runtime.add_by(net, name, &self.bin_dir).unwrap_or_else(|e| panic!("{}: no pod: {e}", self.name))
    }
}

/// `ip monitor route` on a node.
pub struct Monitor {
    name: String,
    process: Process,
}

impl Monitor {
    /// No route to one of these was deleted so far.
    pub fn lost_none_of(&self, prefixes: &[String]) {
        let text = self.process.printed();
        let of_them = |l: &&str| prefixes.iter().any(|p| l.split(' ').any(|word| word == p));
        let lost: Vec<_> = text.lines().filter(|l| l.starts_with("Deleted") && of_them(l)).collect();
        assert!(lost.is_empty(), "{} lost {lost:#?}", self.name);
    }
}

/// A route in the kernel of each node to the pods of each other one.
pub fn all_routes(nodes: &[Node], cidrs: &[Vec<String>]) {
    for (at, node) in nodes.iter().enumerate() {
        let others = cidrs.iter().enumerate().filter(|(n, _)| *n != at);
        others.flat_map(|(_, c)| c).for_each(|prefix| node.wait_route(prefix));
    }
}

/// A segment without a router, with a control plane on it.
pub struct Segment {
    pub ns: Ns,
    pub plane: ControlPlane,
}

impl Segment {
    pub fn new(net: &mut Net, api_extra: &[&str]) -> Self {
        let ns = net.ns("cp");
        ns.ip("link add br0 type bridge mcast_snooping 0");
        ns.ip("link set br0 up");
        ns.ip("addr add 10.99.0.1/24 dev br0");
        ns.ip("addr add fd00:99::1/64 dev br0 nodad");
        let plane = ControlPlane::start(net, &ns, "10.99.0.1", api_extra);
        Self { ns, plane }
    }

    /// Another cluster on the same segment, its pods in `cidrs`.
    pub fn second(&self, net: &mut Net, cidrs: &str) -> Self {
        let (ns, [address, _]) = self.machine(net, "cp2", "2");
        let plane = ControlPlane::start_with(net, &ns, &address, cidrs, &[]);
        Self { ns: self.ns.clone(), plane }
    }

    /// The node `nN` on it at 10.99.0.1N and fd00:99::1N, nothing started.
    pub fn node(&self, net: &mut Net, n: usize) -> Node {
        let name = format!("n{n}");
        let (ns, [v4, v6]) = self.machine(net, &name, &format!("1{n}"));
        Node::new(net, &name, &ns, &[&v4, &v6])
    }

    /// Nodes `n1` to `nN`, registered and with a daemon each, of this configuration.
    pub fn nodes(&self, net: &mut Net, count: usize, config: impl Fn(usize) -> String) -> Vec<Node> {
        let one = |n| {
            let mut node = self.node(net, n);
            node.register(&self.plane);
            node.start(net, &self.plane, &config(n));
            node
        };
        (1..=count).map(one).collect()
    }

    /// A machine on it at 10.99.0.HOST and fd00:99::HOST, and these addresses.
    pub fn machine(&self, net: &mut Net, name: &str, host: &str) -> (Ns, [String; 2]) {
        let (ns, port) = (net.ns(name), format!("v{host}"));
        net.link((&self.ns, &port), (&ns, "eth0"));
        self.ns.ip(&format!("link set {port} master br0"));
        let (v4, v6) = (format!("10.99.0.{host}"), format!("fd00:99::{host}"));
        ns.ip(&format!("addr add {v4}/24 dev eth0"));
        ns.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
        (ns, [v4, v6])
    }
}

/// Every pod reaches every other, in each family.
pub fn all_reach_all(pods: &[Pod]) {
    for from in pods {
        for address in pods.iter().flat_map(|p| &p.addresses) {
            reaches(&from.ns, address);
        }
    }
}

pub fn reaches(from: &Ns, address: &str) {
    wait_for(format!("{} reaches {address}", from.name), 10.0, || from.pings(address).then_some(()));
}

/// The address from which `to` sees a TCP connection of `from` to its address `target`: the caller's own, unless somebody
/// rewrites it.
pub fn seen(from: &Ns, to: &Ns, target: &str) -> String {
    let target = SocketAddr::new(target.parse().unwrap(), 8080);
    let listener = listen(to, &target.to_string());
    // The kernel answers for the listener until somebody accepts.
    let _caller = from.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap());
    let (_called, peer) = listener.accept().unwrap();
    peer.ip().to_string()
}

/// Asserts that each pod sees the others' own addresses.
pub fn nothing_is_rewritten(a: &Pod, b: &Pod) {
    for index in 0..2 {
        assert_eq!(seen(&a.ns, &b.ns, &b.addresses[index]), a.addresses[index]);
        assert_eq!(seen(&b.ns, &a.ns, &a.addresses[index]), b.addresses[index]);
    }
}
