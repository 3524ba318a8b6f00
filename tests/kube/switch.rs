//! A cluster below a switch: each node on a /30 of its own, the switch its default gateway, dual stack, no configuration but
//! the AS numbers that a switch has anyway.

use std::time::{Duration, Instant};

use crate::{
    cluster::ControlPlane,
    common::{
        daemons::{Bird, Frr},
        net::{Net, Ns},
        probe::{Probe, none_lost},
        wait_for,
    },
    world::{Node, all_reach_all, nothing_is_rewritten, reaches},
};

/// The switch, two nodes below it, and the control plane beside them. Node 2 has a second link, not yet used.
pub struct Rack {
    pub nodes: Vec<Node>,
    pub plane: ControlPlane,
    pub switch: Ns,
    pub net: Net,
}

impl Rack {
    pub fn new() -> Self {
        let mut net = Net::new();
        let switch = net.ns("switch");
        switch.sysctl("net.ipv4.ip_forward", "1");
        switch.sysctl("net.ipv6.conf.all.forwarding", "1");
        let cp = net.ns("cp");
        net.link((&switch, "cp"), (&cp, "eth0"));
        switch.ip("addr add 10.99.0.254/24 dev cp");
        cp.ip("addr add 10.99.0.1/24 dev eth0");
        cp.ip("route add default via 10.99.0.254");
        let plane = ControlPlane::start(&net, &cp, "10.99.0.1", &[]);

        let mut nodes = Vec::new();
        for n in 1..=2 {
            let ns = net.ns(&format!("n{n}"));
            cable(&mut net, &switch, &format!("t{n}"), &ns, "eth0", &format!("1:{n}"));
            ns.ip(&format!("route add default via 10.1.{n}.1"));
            ns.ip(&format!("-6 route add default via fd00:1:{n}::1"));
            let addresses = [&*format!("10.1.{n}.2"), &*format!("fd00:1:{n}::2")];
            let node = Node::new(&net, &format!("n{n}"), &ns, &addresses);
            node.register(&plane);
            nodes.push(node);
        }
        cable(&mut net, &switch, "u2", &nodes[1].ns, "eth1", "2:2");
        Self { nodes, plane, switch, net }
    }

    fn start(&mut self) -> Vec<Vec<String>> {
        self.start_with("")
    }

    /// With a configuration for all; the pod CIDRs.
    pub fn start_with(&mut self, config: &str) -> Vec<Vec<String>> {
        for node in &mut self.nodes {
            node.start(&self.net, &self.plane, config);
        }
        let cidrs: Vec<_> = ["n1", "n2"].iter().map(|n| self.plane.pod_cidrs(n)).collect();
        for (node, own) in self.nodes.iter().zip(&cidrs) {
            node.wait_conflist(own);
        }
        cidrs
    }
}

/// A cable with 10.A.B.0/30 and fd00:A:B::/64 on it; the switch has the lower addresses. `subnet` is "A:B".
fn cable(net: &mut Net, switch: &Ns, port: &str, node: &Ns, interface: &str, subnet: &str) {
    net.link((switch, port), (node, interface));
    let v4 = subnet.replace(':', ".");
    switch.ip(&format!("addr add 10.{v4}.1/30 dev {port}"));
    node.ip(&format!("addr add 10.{v4}.2/30 dev {interface}"));
    switch.ip(&format!("addr add fd00:{subnet}::1/64 dev {port} nodad"));
    node.ip(&format!("addr add fd00:{subnet}::2/64 dev {interface} nodad"));
}

const PORTS: [&str; 3] = ["1:1", "1:2", "2:2"];

pub fn frr_config() -> String {
    let neighbors = |line: &str| -> String {
        PORTS.iter().flat_map(|p| [v4(p), v6(p)]).map(|n| format!(" neighbor {n} {line}\n")).collect()
    };
    format!(
        "router bgp 65000\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n{} address-family ipv6 unicast\n{}",
        neighbors("remote-as 64512"),
        neighbors("activate")
    )
}

fn v4(port: &str) -> String {
    format!("10.{}.2", port.replace(':', "."))
}

fn v6(port: &str) -> String {
    format!("fd00:{port}::2")
}

pub fn bird_config() -> String {
    let mut text = "router id 10.255.0.1;\nprotocol device {}\n\
        protocol kernel { ipv4 { export all; }; }\nprotocol kernel { ipv6 { export all; }; }\n"
        .to_owned();
    for (n, port) in PORTS.iter().enumerate() {
        let far = if n == 1 { "fe80::2%t2".to_owned() } else { v6(port) };
        for (family, address) in [("ipv4", v4(port)), ("ipv6", far)] {
            text.push_str(&format!(
                "protocol bgp {family}_{n} {{ local as 65000; neighbor {address} as 64512; \
                 {family} {{ import all; export all; }}; }}\n"
            ));
        }
    }
    text
}

/// What holds below any switch.
fn pods_are_reached(rack: &mut Rack, cidrs: &[Vec<String>]) {
    for (node, others) in rack.nodes.iter().zip(cidrs.iter().rev()) {
        others.iter().for_each(|prefix| node.wait_route(prefix));
    }
    for prefix in cidrs.iter().flatten() {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        wait_for(format!("the switch forwards {prefix}"), 10.0, || {
            rack.switch.ip(&format!("{family} route show {prefix}")).contains("via").then_some(())
        });
    }
    // No pod on node 2 yet, so no bridge: the unreachable route answers, and nothing goes in circles.
    unused_is_unreachable(&rack.nodes[0].ns, &unused(&cidrs[1][0]));

    let a = rack.nodes[0].pod(&mut rack.net, "a");
    let b = rack.nodes[1].pod(&mut rack.net, "b");
    for address in &b.addresses {
        reaches(&rack.nodes[0].ns, address);
    }
    for address in &rack.nodes[0].addresses {
        reaches(&b.ns, address);
    }
    nothing_is_rewritten(&a, &b);
    all_reach_all(&[a, b]);
}

/// The last but one address of a /24.
fn unused(cidr: &str) -> String {
    cidr.replace(".0/24", ".253")
}

fn unused_is_unreachable(from: &Ns, address: &str) {
    let out = from.command("ping").args(["-n", "-c1", "-W5", address]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("Unreachable") && !text.contains("Time to live"), "{address}: {text}");
}

#[test]
fn below_frr_pods_reach_each_other_and_the_session_follows_the_default_route() {
    let mut rack = Rack::new();
    let switch = rack.switch.clone();
    let frr = Frr::start(&rack.net, &switch, &frr_config());
    let cidrs = rack.start();
    pods_are_reached(&mut rack, &cidrs);
    let table = frr.vtysh("show bgp ipv4 unicast");
    assert!(cidrs.iter().all(|c| table.contains(&c[0])), "{table}");

    // An aggregate draws packets for ranges that nobody has; those of a node come to the node and end there.
    frr.configure(&["router bgp 65000", "address-family ipv4 unicast", "aggregate-address 10.244.0.0/16"]);
    rack.nodes[0].wait_route("10.244.0.0/16");
    unused_is_unreachable(&rack.nodes[0].ns, &unused(&cidrs[1][0]));

    let n2 = &rack.nodes[1];
    n2.daemon().wait_established("10.1.2.1");
    n2.ns.ip("route replace default via 10.2.2.1");
    n2.daemon().wait_established("10.2.2.1");
    wait_for("the old gateway is no neighbor any more", 10.0, || {
        n2.daemon().session("10.1.2.1").is_none().then_some(())
    });
    n2.wait_route(&cidrs[0][0]);
}

/// Node 2 as router advertisements leave it: its IPv6 default gateway is a link-local address.
fn by_link_local(rack: &Rack) {
    for (ns, interface, address) in [(&rack.switch, "t2", "fe80::1"), (&rack.nodes[1].ns, "eth0", "fe80::2")]
    {
        ns.ip(&format!("-6 addr flush scope link dev {interface}"));
        ns.ip(&format!("addr add {address}/64 dev {interface} nodad"));
    }
    rack.nodes[1].ns.ip("-6 route replace default via fe80::1 dev eth0");
}

#[test]
fn below_bird_pods_reach_each_other() {
    let mut rack = Rack::new();
    by_link_local(&rack);
    let switch = rack.switch.clone();
    let bird = Bird::start(&rack.net, &switch, &bird_config());
    let cidrs = rack.start();
    pods_are_reached(&mut rack, &cidrs);
    rack.nodes[1].daemon().wait_established("fe80::1%eth0");
    let table = bird.birdc("show route");
    assert!(cidrs.iter().flatten().all(|c| table.contains(c.as_str())), "{table}");
}

#[test]
fn kube_router_739_an_outage_of_the_api_server_changes_nothing() {
    let mut rack = Rack::new();
    let switch = rack.switch.clone();
    let _frr = Frr::start(&rack.net, &switch, &frr_config());
    let cidrs = rack.start_with("[metrics]\nlisten = \"127.0.0.1:9179\"\n");
    for (node, others) in rack.nodes.iter().zip(cidrs.iter().rev()) {
        others.iter().for_each(|prefix| node.wait_route(prefix));
    }
    let (a, b) = (rack.nodes[0].pod(&mut rack.net, "a"), rack.nodes[1].pod(&mut rack.net, "b"));
    let probes: Vec<_> =
        b.addresses.iter().map(|to| Probe::start_when_reached(&rack.net, &a.ns, to)).collect();
    let n1 = &rack.nodes[0];
    n1.daemon().wait_established("10.1.1.1");
    let since = |n: &Node| n.daemon().json(&["show", "neighbor", "10.1.1.1"])["since"].clone();
    let before = since(n1);
    let page = |n: &Node, page: &str| {
        let url = format!("http://127.0.0.1:9179/{page}");
        n.ns.command("curl").args(["-sf", "--max-time", "20", &url]).output().unwrap()
    };
    wait_for("n1 is ready", 60.0, || page(n1, "readyz").status.success().then_some(()));

    rack.plane.stop_api();
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        assert!(rack.nodes[0].has_route(&cidrs[1][0]) && rack.nodes[0].has_route(&cidrs[1][1]));
        assert_eq!(rack.nodes[0].daemon().session("10.1.1.1").as_deref(), Some("established"));
        for name in ["livez", "readyz"] {
            let out = page(&rack.nodes[0], name);
            assert!(out.status.success(), "{name}: {out:?}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(rack.nodes[0].daemon().json(&["show", "node"])["api"]["connected"], false);

    assert!(rack.nodes[0].routelet.as_mut().unwrap().process.alive());

    // A restart meanwhile goes by what the last run knew.
    let n2 = rack.nodes[1].routelet.as_mut().unwrap();
    n2.process.kill();
    n2.restart();
    n2.wait_established("10.1.2.1");
    wait_for("the conflist is in place, from what was known", 10.0, || {
        let shown = n2.json(&["show", "node"]);
        (shown["conflist"]["state"] == "written" && shown["api"]["from_state"] == true).then_some(())
    });
    assert!(rack.nodes[1].has_route(&cidrs[0][0]));
    rack.nodes[0].wait_route(&cidrs[1][0]);
    rack.plane.start_api();
    wait_for("the API server is seen again", 20.0, || {
        (rack.nodes[0].daemon().json(&["show", "node"])["api"]["connected"] == true).then_some(())
    });
    assert_eq!(since(&rack.nodes[0]), before, "one session all the time");
    assert!(rack.nodes[0].has_route(&cidrs[1][0]));
    none_lost(probes);
}

#[test]
fn kube_router_496_a_node_made_anew_with_another_pod_cidr_is_followed() {
    let mut rack = Rack::new();
    let switch = rack.switch.clone();
    let frr = Frr::start(&rack.net, &switch, &frr_config());
    let cidrs = rack.start();
    rack.nodes[1].wait_route(&cidrs[0][0]);
    let old = rack.nodes[0].pod(&mut rack.net, "old");
    rack.nodes[0].runtime.delete(&old);

    rack.plane.delete_node("n1");
    // The controller gives a freed range out again at once: another node takes it first.
    let taken = ["x1", "x2"].map(|name| {
        rack.plane.create_node(name);
        rack.plane.pod_cidrs(name)
    });
    rack.nodes[0].register(&rack.plane);
    let new = rack.plane.pod_cidrs("n1");
    assert_ne!(new, cidrs[0], "taken: {taken:?}");
    rack.nodes[0].wait_conflist(&new);
    rack.nodes[1].wait_route(&new[0]);
    rack.nodes[1].wait_route(&new[1]);
    assert!(!rack.nodes[1].has_route(&cidrs[0][0]), "the old one went");
    assert!(!frr.vtysh("show bgp ipv4 unicast").contains(&cidrs[0][0]));
    let unreachable = rack.nodes[0].ns.ip("route show type unreachable");
    assert!(unreachable.contains(&new[0]) && !unreachable.contains(&cidrs[0][0]), "{unreachable}");

    let pod = rack.nodes[0].pod(&mut rack.net, "new");
    assert!(pod.addresses[0].starts_with(new[0].trim_end_matches("0/24")), "{:?} {new:?}", pod.addresses);
    let other = rack.nodes[1].pod(&mut rack.net, "other");
    all_reach_all(&[pod, other]);
}
