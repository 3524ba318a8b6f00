//! A whole cluster without a network for its pods: that is routelet's to bring.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Instant};

use serde_json::Value;

use crate::{
    common::{
        Process,
        daemons::{Frr, Routelet},
        net::{Net, Ns},
        run, wait_for,
    },
    kit,
    machine::Machine,
    plane::{ControlPlane, manifest, part},
};

/// How machines are cabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All on one segment: routes lead from node to node.
    Mesh,
    /// Each on a link of its own to the switch: all routes lead through it.
    Rack,
}

/// Machines that are cabled below a switch; the last one comes later.
pub const PORTS: usize = 4;
/// Of the Service `web`, given to it by the tests as an address manager would.
pub const LB: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

/// Dropped from the top: machines before what they hang on.
pub struct Cluster {
    pub machines: Vec<Machine>,
    pub shape: Shape,
    /// Of the rack.
    pub frr: Option<Frr>,
    /// Of the mesh: it gives the control plane its routes to pods, and tells nobody anything.
    _gateway: Option<Routelet>,
    pub switch: Ns,
    /// Outside, behind the switch.
    pub client: Ns,
    _parts: Vec<Process>,
    pub plane: ControlPlane,
    images: Vec<PathBuf>,
    applied: bool,
    /// Of the Deployment.
    replicas: usize,
    pub net: Net,
}

/// A pod of the Deployment.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub node: String,
    pub addresses: Vec<String>,
}

impl Cluster {
    /// Three machines and all parts of Kubernetes that are no pods. Nodes are not Ready yet.
    pub fn new(shape: Shape) -> Self {
        let began = Instant::now();
        let mut net = Net::new();
        // FRR and the pods' runtimes are other users.
        run(Command::new("chmod").arg("755").arg(net.dir()));
        let (switch, cp, client) = cables(&mut net, shape);
        let plane = whole(&net, &cp);
        let parts = vec![scheduler(&plane), dns(&plane)];
        let mut images: Vec<_> =
            fs::read_dir(kit::tool("images")).unwrap().map(|e| e.unwrap().path()).collect();
        images.push(own_image(&net));
        let (frr, gateway) = match shape {
            Shape::Rack => (Some(Frr::start(&net, &switch, &frr_config())), None),
            Shape::Mesh => (None, Some(Routelet::start(&net, &cp, GATEWAY, &[]))),
        };
        let mut cluster = Self {
            machines: Vec::new(),
            shape,
            frr,
            _gateway: gateway,
            switch,
            client,
            _parts: parts,
            plane,
            images,
            applied: false,
            replicas: 6,
            net,
        };
        for n in 1..=3 {
            let machine = cluster.boot(n);
            cluster.machines.push(machine);
        }
        cluster.machines.iter_mut().for_each(Machine::wait_up);
        println!(
            "    {shape:?}: three machines and a control plane are up after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        cluster
    }

    /// Machine `n`, cabled and switched on.
    pub fn boot(&mut self, n: usize) -> Machine {
        let name = format!("n{n}");
        let ns = self.net.ns(&name);
        let port = format!("t{n}");
        self.net.link((&self.switch, &port), (&ns, "eth0"));
        let (addresses, lengths, gateways) = match self.shape {
            Shape::Mesh => {
                self.switch.ip(&format!("link set {port} master br0"));
                (
                    [format!("10.99.0.1{n}"), format!("fd00:99::1{n}")],
                    [24, 64],
                    ["10.99.0.1".into(), "fd00:99::1".into()],
                )
            }
            Shape::Rack => {
                self.switch.ip(&format!("addr add 10.1.{n}.1/30 dev {port}"));
                self.switch.ip(&format!("addr add fd00:1:{n}::1/64 dev {port} nodad"));
                let gateways = [format!("10.1.{n}.1"), format!("fd00:1:{n}::1")];
                ([format!("10.1.{n}.2"), format!("fd00:1:{n}::2")], [30, 64], gateways)
            }
        };
        for ((address, length), gateway) in addresses.iter().zip(lengths).zip(&gateways) {
            let (family, nodad) = if address.contains(':') { ("-6", "nodad") } else { ("-4", "") };
            ns.ip(&format!("addr add {address}/{length} dev eth0 {nodad}"));
            ns.ip(&format!("{family} route add default via {gateway}"));
        }
        Machine::boot(&self.net, &ns, &name, &addresses, &self.plane, &self.images)
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        run(self.plane.ns.command(kit::tool("kubectl").to_str().unwrap()).args(self.admin()).args(args))
    }

    pub fn kubectl_json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    pub fn admin(&self) -> [String; 2] {
        ["--kubeconfig".into(), self.plane.dir.join("pki/admin.kubeconfig").display().to_string()]
    }

    /// `kubectl apply -f deploy/daemonset.yaml`, and a Deployment of six pods with a Service: once; for how long it has been so.
    pub fn apply(&mut self) -> Option<Instant> {
        if std::mem::replace(&mut self.applied, true) {
            return None;
        }
        let began = Instant::now();
        // The Service below requests its cluster IP, too.
        let none = "# An empty file is a working configuration.";
        let keys = "[kubernetes]\n    service-annotations = [\"cluster-ip\", \"load-balancer-ip\"]";
        let text = fs::read_to_string(manifest()).unwrap();
        assert!(text.contains(none), "the manifest's configuration is empty");
        let file = self.plane.dir.join("routelet.yaml");
        fs::write(&file, text.replace(none, keys)).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
        self.kubectl(&["apply", "-f", crate::here().join("web.yaml").to_str().unwrap()]);
        let ingress = LB.map(|ip| serde_json::json!({ "ip": ip, "ipMode": "VIP" }));
        let status = serde_json::json!({ "status": { "loadBalancer": { "ingress": ingress } } }).to_string();
        self.kubectl(&["patch", "service", "web", "--subresource=status", "-p", &status]);
        Some(began)
    }

    /// More pods, or fewer.
    pub fn scale(&mut self, replicas: usize) {
        self.replicas = replicas;
        self.kubectl(&["scale", "deployment", "web", &format!("--replicas={replicas}")]);
    }

    /// Machine `name` is not a part of the cluster any longer.
    pub fn remove(&mut self, name: &str) {
        self.machines.retain(|m| m.name != name);
        self.kubectl(&["delete", "node", name]);
        // Sooner than the garbage collector.
        let of_it = format!("--field-selector=spec.nodeName={name}");
        self.kubectl(&["delete", "pods", "-A", &of_it, "--force", "--grace-period=0"]);
    }

    /// What every scenario begins with: routelet and pods on all nodes.
    pub fn settled(&mut self) {
        self.apply();
        self.wait_ready();
        self.wait_pods();
        self.wait_routelets();
    }

    pub fn wait_ready(&self) {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        wait_for("all Nodes are Ready", 180.0, || {
            let said = self.kubectl(&["get", "nodes", "-o", path]);
            let ready: Vec<_> = said.split_whitespace().collect();
            (ready.len() == self.machines.len() && ready.iter().all(|r| *r == "True")).then_some(())
        });
    }

    /// The DaemonSet's pods are Ready on every node.
    pub fn wait_routelets(&self) {
        wait_for("routelet is Ready on all nodes", 180.0, || {
            let set = self.kubectl_json(&["-n", "kube-system", "get", "daemonset", "routelet"]);
            let number = |key: &str| set["status"][key].as_u64();
            let all = u64::try_from(self.machines.len()).ok();
            (number("numberReady") == all && number("updatedNumberScheduled") == all).then_some(())
        });
    }

    /// The pods of the Deployment that run, with both their addresses.
    pub fn pods(&self) -> Vec<Pod> {
        let list = self.kubectl_json(&["get", "pods", "-l", "app=web"]);
        let pod = |p: &Value| {
            let addresses = p["status"]["podIPs"].as_array()?;
            (p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null())
                .then_some(())?;
            Some(Pod {
                name: p["metadata"]["name"].as_str()?.to_owned(),
                node: p["spec"]["nodeName"].as_str()?.to_owned(),
                addresses: addresses.iter().filter_map(|a| Some(a["ip"].as_str()?.to_owned())).collect(),
            })
        };
        let all = list["items"].as_array().into_iter().flatten().filter_map(pod);
        all.filter(|p| p.addresses.len() == 2).collect()
    }

    pub fn wait_pods(&self) -> Vec<Pod> {
        let count = self.replicas;
        wait_for(format!("{count} pods run"), 180.0, || Some(self.pods()).filter(|p| p.len() == count))
    }

    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no machine {name}"))
    }

    pub fn ping(&self, from: &Pod, address: &str) -> bool {
        let mut ping = self.machine(&from.node).in_pod(&from.addresses[0], "ping");
        ping.args(["-n", "-c1", "-W1", address]).output().is_ok_and(|o| o.status.success())
    }

    pub fn wait_ping(&self, from: &Pod, address: &str) {
        wait_for(format!("{} reaches {address}", from.name), 30.0, || self.ping(from, address).then_some(()));
    }

    /// The pod CIDRs, by node.
    pub fn cidrs(&self) -> BTreeMap<String, Vec<String>> {
        let nodes = self.kubectl_json(&["get", "nodes"]);
        let node = |n: &Value| {
            let cidrs = n["spec"]["podCIDRs"].as_array()?;
            let cidrs = cidrs.iter().filter_map(|c| Some(c.as_str()?.to_owned())).collect();
            Some((n["metadata"]["name"].as_str()?.to_owned(), cidrs))
        };
        nodes["items"].as_array().into_iter().flatten().filter_map(node).collect()
    }

    /// By which ports the switch's kernel sends packets for this prefix.
    pub fn hops(&self, prefix: &str) -> Vec<String> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let shown = self.switch.ip(&format!("{family} route show {prefix}"));
        let mut ports: Vec<_> = shown
            .split_whitespace()
            .filter(|w| w.starts_with('t') && w.len() == 2)
            .map(str::to_owned)
            .collect();
        ports.sort();
        ports.dedup();
        ports
    }

    /// Why something may have gone wrong.
    pub fn diagnosis(&self) -> String {
        let kubectl = |args: &[&str]| {
            let mut command = self.plane.ns.command(kit::tool("kubectl").to_str().unwrap());
            let out = command.args(self.admin()).args(["--request-timeout=5s"]).args(args).output();
            out.map_or_else(
                |e| e.to_string(),
                |o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned(),
            )
        };
        let mut said = kubectl(&["get", "nodes,pods,services,endpointslices,daemonsets", "-A", "-o", "wide"]);
        said +=
            &kubectl(&["-n", "kube-system", "logs", "-l", "app.kubernetes.io/name=routelet", "--tail=20"]);
        said += &kubectl(&["get", "events", "-A", "--field-selector=type!=Normal"]);
        self.machines.iter().for_each(|m| said += &m.diagnosis());
        if let Some(frr) = &self.frr {
            said += &frr.vtysh("show bgp summary");
            said += &frr.vtysh("show bgp ipv4 unicast");
        }
        said
    }
}

/// The control plane's neighbor of the mesh: it hears all nodes, being their default gateway, and tells them nothing.
const GATEWAY: &str = r#"
[bgp]
as = 65000

[[bgp.listen-range]]
prefix = "10.99.0.0/24"
remote-as = 64512

[[bgp.listen-range]]
prefix = "fd00:99::/64"
remote-as = 64512
"#;

fn frr_config() -> String {
    let all = |line: &str| -> String {
        let addresses = (1..=PORTS).flat_map(|n| [format!("10.1.{n}.2"), format!("fd00:1:{n}::2")]);
        addresses.map(|n| format!(" neighbor {n} {line}\n")).collect()
    };
    format!(
        "router bgp 65000\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n{} address-family ipv6 unicast\n{}",
        all("remote-as 64512"),
        all("activate")
    )
}

/// The switch, the control plane's namespace (in the mesh they are one), and a client outside.
fn cables(net: &mut Net, shape: Shape) -> (Ns, Ns, Ns) {
    let switch = net.ns("switch");
    switch.sysctl("net.ipv4.ip_forward", "1");
    switch.sysctl("net.ipv6.conf.all.forwarding", "1");
    // As switches do: by ports, too, so that one client is spread.
    switch.sysctl("net.ipv4.fib_multipath_hash_policy", "1");
    switch.sysctl("net.ipv6.fib_multipath_hash_policy", "1");
    let behind = |net: &mut Net, name: &str, port: &str, subnet: [&str; 2]| {
        let ns = net.ns(name);
        net.link((&switch, port), (&ns, "eth0"));
        for (at, family, length) in [(0, "-4", "24"), (1, "-6", "64 nodad")] {
            let (length, nodad) = length.split_once(' ').unwrap_or((length, ""));
            switch.ip(&format!("addr add {}254/{length} dev {port} {nodad}", subnet[at]));
            ns.ip(&format!("addr add {}1/{length} dev eth0 {nodad}", subnet[at]));
            ns.ip(&format!("{family} route add default via {}254", subnet[at]));
        }
        ns
    };
    let client = behind(net, "client", "out", ["10.98.0.", "fd00:98::"]);
    if shape == Shape::Rack {
        let cp = behind(net, "cp", "cp", ["10.99.0.", "fd00:99::"]);
        return (switch, cp, client);
    }
    switch.ip("link add br0 type bridge mcast_snooping 0");
    switch.ip("link set br0 up");
    switch.ip("addr add 10.99.0.1/24 dev br0");
    switch.ip("addr add fd00:99::1/64 dev br0 nodad");
    (switch.clone(), switch, client)
}

/// With every controller and ServiceAccount tokens, as kubelets and Kubernetes' own suite need it.
fn whole(net: &Net, cp: &Ns) -> ControlPlane {
    let pki = |file: &str| ControlPlane::folder(net, cp).join("pki").join(file).display().to_string();
    let api =
        ["--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP", "--anonymous-auth=true"];
    let (ca, ca_key, sa) = (pki("ca.crt"), pki("ca.key"), pki("sa.key"));
    let controllers = [
        "--controllers=*",
        // After an outage of its own making it would take nodes for lost, pods for unready, and Services from them.
        "--node-monitor-grace-period=10m",
        &format!("--root-ca-file={ca}"),
        &format!("--service-account-private-key-file={sa}"),
        &format!("--cluster-signing-cert-file={ca}"),
        &format!("--cluster-signing-key-file={ca_key}"),
    ];
    ControlPlane::boot(net, cp, "10.99.0.1", &api, &controllers)
}

fn scheduler(plane: &ControlPlane) -> Process {
    let config = plane.dir.join("pki/scheduler.kubeconfig");
    let args = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .map(|flag| format!("--{flag}={}", config.display()));
    let args = args.iter().map(String::as_str).chain(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    part(&plane.ns, &plane.dir, "kube-scheduler", args)
}

fn dns(plane: &ControlPlane) -> Process {
    let corefile = plane.dir.join("Corefile");
    let text = format!(
        ".:53 {{\n bind 10.99.0.1\n errors\n kubernetes cluster.local in-addr.arpa ip6.arpa {{\n  kubeconfig {}\n  \
         pods insecure\n  ttl 30\n }}\n}}\n",
        plane.dir.join("pki/coredns.kubeconfig").display()
    );
    fs::write(&corefile, text).unwrap();
    plane.kubectl(&["apply", "-f", crate::here().join("dns.yaml").to_str().unwrap()]);
    let mut command = plane.ns.command(kit::tool("coredns").to_str().unwrap());
    Process::start(command.arg("-conf").arg(corefile), &plane.dir.join("coredns.log"))
}

/// The built binary as the image that the manifest names: nothing in it but the binary and the libraries it is linked to.
fn own_image(net: &Net) -> PathBuf {
    let (tar, binary) = (net.dir().join("routelet.tar"), env!("CARGO_BIN_EXE_routelet"));
    let mut command = Command::new("python3");
    command.arg(kit::script("mkimage.py")).arg(&tar).args([
        "--bare",
        "--entrypoint",
        "/routelet",
        "--cmd",
        "run",
    ]);
    command.args(["--name", concat!("routelet:", env!("CARGO_PKG_VERSION"))]);
    run(command.args(["--file", &format!("{binary}=/routelet"), "--libs", binary]));
    tar
}
