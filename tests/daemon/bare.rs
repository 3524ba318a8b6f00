//! A host without Kubernetes and without a file: what it finds out by itself.

use crate::common::{
    daemons::{Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// A container with an address behind a bridge of the host.
fn container(net: &mut Net, host: &Ns, bridge: &str, subnet: &str) -> Ns {
    let ns = net.ns(&format!("{bridge}-c"));
    host.ip(&format!("link add {bridge} type bridge"));
    host.ip(&format!("addr add {subnet}.1/24 dev {bridge}"));
    host.ip(&format!("link set {bridge} up"));
    net.link((host, &format!("v{bridge}")), (&ns, "eth0"));
    host.ip(&format!("link set v{bridge} master {bridge}"));
    ns.ip(&format!("addr add {subnet}.2/24 dev eth0"));
    ns.ip(&format!("route add default via {subnet}.1"));
    ns
}

fn leaf(asn: u32, ports: &[&str]) -> String {
    let neighbors: String = ports
        .iter()
        .map(|p| {
            format!(" neighbor {p} interface remote-as external\n neighbor {p} timers 3 9\n neighbor {p} timers connect 2\n")
        })
        .collect();
    format!(
        "router bgp {asn}\n bgp router-id 10.0.0.{}\n no bgp ebgp-requires-policy\n bgp bestpath as-path multipath-relax\n\
         {neighbors}",
        asn % 100
    )
}

fn rows(routelet: &Routelet, interface: &str) -> serde_json::Value {
    let all = routelet.json(&["show", "host"]);
    let found = all["interfaces"].as_array().unwrap().iter().find(|i| i["name"] == interface);
    found.unwrap_or_else(|| panic!("{interface}: {all}")).clone()
}

/// Two leaves, two hosts with an uplink to each, no address on any link, no file.
#[test]
fn hosts_without_a_file_find_their_leaves_and_their_containers_reach_each_other() {
    let mut net = Net::new();
    let leaves = [net.ns("leaf1"), net.ns("leaf2")];
    let hosts = [net.ns("host1"), net.ns("host2")];
    for (h, host) in hosts.iter().enumerate() {
        for (l, leaf) in leaves.iter().enumerate() {
            net.link((leaf, &format!("port{h}")), (host, &format!("eth{l}")));
        }
        host.ip(&format!("addr add 192.0.2.{}/32 dev lo", h + 1));
    }
    let containers: Vec<_> = hosts
        .iter()
        .enumerate()
        .map(|(h, host)| container(&mut net, host, &format!("web{h}"), &format!("10.77.{h}")))
        .collect();
    let _daemons: Vec<_> = leaves
        .iter()
        .zip([10001, 10002])
        .map(|(ns, asn)| Frr::start(&net, ns, &leaf(asn, &["port0", "port1"])))
        .collect();
    let routelets: Vec<_> = hosts.iter().map(|host| Routelet::start(&net, host, "", &[])).collect();
    let first = routelets[0].process.printed();
    let line = first.lines().next().unwrap_or_default();
    assert!(line.contains("no configuration file"), "{first}");
    for routelet in &routelets {
        for interface in ["eth0", "eth1"] {
            wait_for(format!("{}: a session on {interface}", routelet.ns.name), 60.0, || {
                (rows(routelet, interface)["neighbors"][0]["state"] == "established").then_some(())
            });
        }
    }
    wait_for("the containers reach each other", 30.0, || containers[0].pings("10.77.1.2").then_some(()));
    wait_for("over both leaves", 20.0, || {
        let route = hosts[0].ip("route show 10.77.1.0/24");
        (route.contains("dev eth0") && route.contains("dev eth1")).then_some(())
    });
    let web = rows(&routelets[0], "web0");
    assert_eq!(web["subnets"][0]["prefix"], "10.77.0.0/24", "{web}");
    assert_eq!(web["subnets"][0]["advertised_to"].as_array().unwrap().len(), 2, "{web}");
    let text = routelets[0].cli(&["show", "host"]);
    println!("{text}");
    assert!(text.contains("10.77.0.0/24"), "{text}");

    // One leaf is lost.
    leaves[0].ip("link set port0 down");
    wait_for("the other leaf is used", 10.0, || {
        let route = hosts[0].ip("route show 10.77.1.0/24");
        (!route.contains("dev eth0") && route.contains("dev eth1")).then_some(())
    });
    wait_for("they still reach each other", 10.0, || containers[0].pings("10.77.1.2").then_some(()));
}

#[test]
fn without_a_file_the_gateway_is_peered_with_and_only_bridges_of_containers_are_advertised() {
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "port1"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev port1");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("route add default via 10.1.1.1");
    let frr = "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n neighbor hosts peer-group\n \
               neighbor hosts remote-as external\n bgp listen range 10.1.1.0/24 peer-group hosts\n";
    let _frr = Frr::start(&net, &switch, frr);
    container(&mut net, &host, "web0", "10.77.0");
    // Named as Docker does, and no container is attached.
    host.ip("link add br-ex type bridge");
    host.ip("addr add 10.78.0.1/24 dev br-ex");
    host.ip("link set br-ex up");
    let routelet = Routelet::start(&net, &host, "# nothing\n", &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("the subnet of the containers", 20.0, || {
        switch.ip("route show 10.77.0.0/24").contains("10.1.1.2").then_some(())
    });
    assert_eq!(switch.ip("route show 10.78.0.0/24"), "");
    let (own, empty) = (rows(&routelet, "eth0"), rows(&routelet, "br-ex"));
    assert_eq!(
        (own["default_route"].as_bool(), own["neighbors"][0]["address"].as_str()),
        (Some(true), Some("10.1.1.1"))
    );
    assert_eq!(own["subnets"][0]["reason"], "uplink: its subnet is the network's");
    assert_eq!(empty["subnets"][0]["reason"], "no container is attached");
    host.ip("link set web0 down");
    wait_for("it is withdrawn", 20.0, || switch.ip("route show 10.77.0.0/24").is_empty().then_some(()));
}
