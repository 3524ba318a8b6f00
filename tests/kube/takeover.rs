//! From another agent to routelet and back while pods talk, as docs/migration says. The agents themselves are not there (but
//! BIRD, which is Calico's daemon): what they leave on a node is: bridge, leases, conflist, kernel routes, the port.

use std::{fs, net::TcpListener};

use serde_json::json;

use crate::{
    common::{
        daemons::Bird,
        net::{Net, Ns},
        probe::Probe,
        speaker::listen,
        wait_for,
    },
    pods::Pod,
    world::{Node, Segment, all_reach_all, nothing_is_rewritten, reaches},
};

/// One whose pods hang on a bridge, and whose routes are plain ones of the pod CIDR's prefix and no metric.
struct Agent {
    conflist: &'static str,
    network: &'static str,
    /// `[cni]` with which routelet goes on with its bridge.
    cni: &'static str,
    bridge: &'static str,
    protocol: &'static str,
    /// Whether it listens on TCP 179.
    speaks: bool,
}

/// While another holds port 179.
const BESIDE: &str = "[bgp]\nlisten = [\"0.0.0.0:1790\", \"[::]:1790\"]\n[bgp.group.mesh]\nport = 1790\n";
/// The way back, step by step: each is on all nodes before the next begins.
const BACK: [&str; 3] = [
    "[bgp]\nlisten = [\"0.0.0.0:1790\", \"[::]:1790\", \"0.0.0.0:179\", \"[::]:179\"]\n[bgp.group.mesh]\nport = 1790\n",
    "[bgp]\nlisten = [\"0.0.0.0:1790\", \"[::]:1790\", \"0.0.0.0:179\", \"[::]:179\"]\n",
    "",
];

impl Agent {
    /// Its conflist, and its routes to the other node.
    fn stands(&self, node: &Node, own: &[String], other: (&Node, &[String])) {
        fs::create_dir_all(&node.conf_dir).unwrap();
        let ranges: Vec<_> = own.iter().map(|c| json!([{ "subnet": c }])).collect();
        let bridge = json!({
            "type": "bridge", "bridge": self.bridge, "isGateway": true, "isDefaultGateway": true, "hairpinMode": true,
            "ipam": { "type": "host-local", "ranges": ranges },
        });
        let conflist = json!({ "cniVersion": "1.0.0", "name": self.network, "plugins": [bridge] });
        fs::write(node.conf_dir.join(self.conflist), conflist.to_string()).unwrap();
        for (prefix, via) in other.1.iter().zip(&other.0.addresses) {
            node.ns.ip(&format!("route add {prefix} via {via} proto {}", self.protocol));
        }
    }

    fn goes(&self, node: &Node) {
        fs::remove_file(node.conf_dir.join(self.conflist)).unwrap();
        flush(&node.ns, self.protocol);
    }
}

fn flush(ns: &Ns, protocol: &str) {
    for family in ["-4", "-6"] {
        ns.ip(&format!("{family} route flush proto {protocol}"));
        assert!(ns.ip(&format!("{family} route show proto {protocol}")).is_empty());
    }
}

/// Holds TCP 179 on a node.
fn port_179(ns: &Ns) -> [TcpListener; 2] {
    ["0.0.0.0:179", "[::1]:179"].map(|addr| listen(ns, addr))
}

/// Both ways, both families.
fn probes(net: &Net, a: &Pod, b: &Pod) -> Vec<Probe> {
    let there = b.addresses.iter().map(|to| Probe::start(net, &a.ns, to));
    there.chain(a.addresses.iter().map(|to| Probe::start(net, &b.ns, to))).collect()
}

fn two_nodes(net: &mut Net, segment: &mut Segment) -> (Vec<Node>, Vec<Vec<String>>) {
    let nodes: Vec<_> = (1..=2).map(|n| segment.node(net, n)).collect();
    for node in &nodes {
        node.register(&segment.plane);
        node.ns.sysctl("net.ipv4.ip_forward", "1");
        node.ns.sysctl("net.ipv6.conf.all.forwarding", "1");
    }
    let cidrs = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    (nodes, cidrs)
}

/// Each node has our routes to the other, whatever else there is.
fn ours_are_there(nodes: &[Node], cidrs: &[Vec<String>]) {
    for (node, other) in nodes.iter().zip(cidrs.iter().rev()) {
        other.iter().for_each(|prefix| node.wait_route(prefix));
    }
}

fn go_on(probes: &[Probe]) {
    probes.iter().for_each(Probe::goes_on);
}

fn restart(node: &mut Node, config: &str) {
    let config = node.config(config);
    let daemon = node.routelet.as_mut().unwrap();
    daemon.configure(&config);
    assert!(daemon.process.stop().success());
    daemon.restart();
}

/// The other has gone.
fn back_to_port_179(nodes: &mut [Node]) {
    for config in BACK {
        for n in 0..2 {
            restart(&mut nodes[n], config);
            let other = nodes[1 - n].addresses[0].clone();
            nodes[n].daemon().wait_established(&other);
        }
    }
}

fn from_a_bridge(agent: &Agent) {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, cidrs) = two_nodes(&mut net, &mut segment);
    let pairs = |nodes: &[Node]| {
        agent.stands(&nodes[0], &cidrs[0], (&nodes[1], &cidrs[1]));
        agent.stands(&nodes[1], &cidrs[1], (&nodes[0], &cidrs[0]));
    };
    pairs(&nodes);
    let ports: Vec<_> = nodes.iter().filter(|_| agent.speaks).map(|n| port_179(&n.ns)).collect();
    let mut pods: Vec<_> = nodes
        .iter()
        .map(|n| n.runtime.add_to(&mut net, &format!("{}old", n.name), agent.network).unwrap())
        .collect();
    all_reach_all(&pods);
    let probes = probes(&net, &pods[0], &pods[1]);

    // Beside it. The leases are taken along, or the first new pod would get the address of the first old one.
    for node in &mut nodes {
        node.runtime.copy_leases(agent.network);
        node.cni = agent.cni;
        node.start(&net, &segment.plane, if agent.speaks { BESIDE } else { "" });
    }
    ours_are_there(&nodes, &cidrs);
    go_on(&probes);
    for (node, own) in nodes.iter().zip(&cidrs) {
        node.wait_conflist(own);
        wait_for("the file that comes first is named", 10.0, || {
            let shown = node.daemon().json(&["show", "node"])["conflist"]["problem"].to_string();
            (shown.contains(agent.conflist) && shown.contains("another network agent")).then_some(())
        });
        let theirs = node.ns.ip(&format!("route show proto {}", agent.protocol));
        assert!(theirs.contains("via"), "they are left alone: {theirs}");
    }

    // It goes.
    drop(ports);
    nodes.iter().for_each(|n| agent.goes(n));
    go_on(&probes);
    for node in &nodes {
        let pod = node.pod(&mut net, &format!("{}new", node.name));
        assert!(
            pods.iter().all(|old| pod.addresses.iter().all(|a| !old.addresses.contains(a))),
            "{:?}",
            pod.addresses
        );
        pods.push(pod);
    }
    all_reach_all(&pods);
    nothing_is_rewritten(&pods[0], &pods[3]);
    if agent.speaks {
        back_to_port_179(&mut nodes);
        go_on(&probes);
    }

    // And back.
    pairs(&nodes);
    for node in &mut nodes {
        node.clean_up();
        assert!(node.conflist().is_none() && node.ns.ip("route show proto 179").is_empty());
    }
    all_reach_all(&pods);
    for probe in probes {
        println!("{} probes, none lost", probe.lost_nothing());
    }
    let last = nodes[0].runtime.add_to(&mut net, "last", agent.network).unwrap();
    reaches(&last.ns, &pods[1].addresses[0]);
}

#[test]
fn routes_stay_when_kube_router_hands_over_and_when_it_takes_back() {
    from_a_bridge(&Agent {
        conflist: "10-kuberouter.conflist",
        network: "mynet",
        cni: "bridge = \"kube-bridge\"\n",
        bridge: "kube-bridge",
        protocol: "17",
        speaks: true,
    });
}

#[test]
fn routes_stay_when_flannel_hands_over_and_when_it_takes_back() {
    from_a_bridge(&Agent {
        conflist: "10-flannel.conflist",
        network: "cbr0",
        cni: "bridge = \"cni0\"\n",
        bridge: "cni0",
        protocol: "boot",
        speaks: false,
    });
}

/// BIRD as Calico runs it: a mesh of iBGP, the block as a blackhole, routes without a metric that stay when it ends.
fn calico(net: &Net, node: &Node, own: &[String], other: &Node) -> Bird {
    let mut text = format!("router id {};\nprotocol device {{ scan time 2; }}\n", node.addresses[0]);
    for (at, family) in ["ipv4", "ipv6"].iter().enumerate() {
        let (local, remote, block) = (&node.addresses[at], &other.addresses[at], &own[at]);
        text.push_str(&format!(
            "protocol kernel k{at} {{ persist; scan time 2; metric 0; {family} {{ export all; import none; }}; }}\n\
             protocol static s{at} {{ {family}; route {block} blackhole; }}\n\
             protocol bgp b{at} {{ local {local} as 64512; neighbor {remote} as 64512; direct; graceful restart on; \
             {family} {{ import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
        ));
    }
    Bird::start(net, &node.ns, &text)
}

/// A pod as Calico's plugin makes it: a cable without a bridge, the node answers for every address.
fn calico_pod(net: &mut Net, node: &Node, own: &[String]) -> Pod {
    let ns = net.ns(&format!("{}cali", node.name));
    net.link((&node.ns, "cali1"), (&ns, "eth0"));
    let addresses = [own[0].replace(".0/24", ".130"), own[1].replace("::/64", "::130")];
    // It answers for what it has a way to, by another interface.
    node.ns.ip("route add default via 10.99.0.1");
    node.ns.sysctl("net.ipv4.conf.cali1.proxy_arp", "1");
    node.ns.ip("addr add fe80::ecee:eeff:feee:eeee/64 dev cali1 nodad");
    ns.ip(&format!("addr add {}/32 dev eth0", addresses[0]));
    ns.ip(&format!("addr add {}/128 dev eth0 nodad", addresses[1]));
    ns.ip("route add 169.254.1.1 dev eth0 scope link");
    ns.ip("route add default via 169.254.1.1 dev eth0");
    ns.ip("-6 route add default via fe80::ecee:eeff:feee:eeee dev eth0");
    addresses.iter().for_each(|a| drop(node.ns.ip(&format!("route add {a} dev cali1"))));
    Pod { ns, addresses: addresses.to_vec() }
}

#[test]
fn routes_stay_when_calico_hands_over_and_when_it_takes_back() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let (mut nodes, cidrs) = two_nodes(&mut net, &mut segment);
    let start = |net: &Net, nodes: &[Node]| {
        vec![calico(net, &nodes[0], &cidrs[0], &nodes[1]), calico(net, &nodes[1], &cidrs[1], &nodes[0])]
    };
    let mut birds = start(&net, &nodes);
    let old: Vec<_> = nodes.iter().zip(&cidrs).map(|(n, own)| calico_pod(&mut net, n, own)).collect();
    for node in &nodes {
        fs::create_dir_all(&node.conf_dir).unwrap();
        fs::write(
            node.conf_dir.join("10-calico.conflist"),
            r#"{"name": "k8s-pod-network", "plugins": [{"type": "calico"}]}"#,
        )
        .unwrap();
    }
    all_reach_all(&old);
    let probes = probes(&net, &old[0], &old[1]);

    for node in &mut nodes {
        node.start(&net, &segment.plane, BESIDE);
    }
    ours_are_there(&nodes, &cidrs);
    go_on(&probes);

    // Node by node: Calico's daemon ends, its routes stay; then they go.
    let mut new = Vec::new();
    for (n, own) in cidrs.iter().enumerate() {
        let node = &nodes[n];
        assert!(node.ns.ip("route show proto bird").contains("blackhole"));
        birds.remove(0).process.stop();
        assert!(node.ns.ip("route show proto bird").contains("blackhole"), "they stay");
        flush(&node.ns, "bird");
        fs::remove_file(node.conf_dir.join("10-calico.conflist")).unwrap();
        node.wait_conflist(own);
        go_on(&probes);
        let pod = node.pod(&mut net, &format!("{}new", node.name));
        // Old pods of the same node are on no bridge: drain it first.
        old[1 - n].addresses.iter().for_each(|a| reaches(&pod.ns, a));
        new.push(pod);
    }
    all_reach_all(&new);
    nothing_is_rewritten(&new[0], &old[1]);
    back_to_port_179(&mut nodes);
    go_on(&probes);

    // And back: Calico's daemons want port 179, so routelet gives it up first.
    nodes.iter_mut().for_each(|node| restart(node, BACK[0]));
    nodes.iter_mut().for_each(|node| restart(node, BESIDE));
    for (node, other) in nodes.iter().zip(nodes.iter().rev()) {
        node.daemon().wait_established(&other.addresses[0]);
    }
    let birds = start(&net, &nodes);
    for (node, other) in nodes.iter().zip(cidrs.iter().rev()) {
        for (family, prefix) in ["-4", "-6"].iter().zip(other) {
            wait_for(format!("Calico's route to {prefix} is there"), 20.0, || {
                node.ns.ip(&format!("{family} route show proto bird {prefix}")).contains("via").then_some(())
            });
        }
    }
    for node in &mut nodes {
        node.clean_up();
    }
    all_reach_all(&old);
    for probe in probes {
        println!("{} probes, none lost", probe.lost_nothing());
    }
    drop(birds);
}
