//! A bare-metal host below a switch: what it announces, and when.

use std::time::{Duration, Instant};

use crate::common::{
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    wait_for, within,
};

const CONFIG: &str = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
     [advertise]\ninterfaces = [\"br-pod\"]\n";

/// Host 10.1.1.2 with a bridge 172.20.0.1/16 that has no port yet, and a switch 10.1.1.1.
fn docker_host(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/30 dev eth0");
    host.ip("addr add 10.1.1.2/30 dev eth0");
    host.ip("link add br-pod type bridge");
    host.ip("addr add 172.20.0.1/16 dev br-pod");
    host.ip("link set br-pod up");
    (switch, host)
}

fn announced(switch: &Ns) -> bool {
    switch.ip("route show 172.20.0.0/16").contains("10.1.1.2")
}

/// A veth joins the bridge, the switch has the route; it leaves, the route is gone.
fn follows_the_carrier(net: &mut Net, switch: &Ns, host: &Ns) {
    assert!(!announced(switch), "a bridge without a port has no carrier");
    let pod = net.ns("pod");
    net.link((host, "veth1"), (&pod, "eth0"));
    host.ip("link set veth1 master br-pod");
    wait_for("the subnet is announced", 10.0, || announced(switch).then_some(()));
    pod.ip("addr add 172.20.0.2/16 dev eth0");
    pod.ip("route add default via 172.20.0.1");
    host.sysctl("net.ipv4.ip_forward", "1");
    wait_for("the switch reaches the container", 5.0, || switch.pings("172.20.0.2").then_some(()));
    within("withdrawn, and out of the switch's kernel", Duration::from_secs(2), || {
        host.ip("link set veth1 master br-pod");
        wait_for("the subnet is announced", 10.0, || announced(switch).then_some(()));
        host.ip("link set veth1 nomaster");
        let start = Instant::now();
        wait_for("the subnet is withdrawn", 5.0, || (!announced(switch)).then(|| start.elapsed()))
    });
}

#[test]
fn frr_has_the_subnet_exactly_while_a_container_is_attached() {
    let mut net = Net::new();
    let (switch, host) = docker_host(&mut net);
    let frr = "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n neighbor 10.1.1.2 remote-as 1000\n";
    let _frr = Frr::start(&net, &switch, frr);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    routelet.wait_established("10.1.1.1");
    follows_the_carrier(&mut net, &switch, &host);
}

#[test]
fn bird_has_the_subnet_exactly_while_a_container_is_attached() {
    let mut net = Net::new();
    let (switch, host) = docker_host(&mut net);
    let bird = "router id 10.1.1.1; protocol device {} protocol kernel { ipv4 { export all; }; } \
        protocol bgp { local 10.1.1.1 as 10000; neighbor 10.1.1.2 as 1000; ipv4 { import all; export all; }; }";
    let _bird = Bird::start(&net, &switch, bird);
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    routelet.wait_established("10.1.1.1");
    follows_the_carrier(&mut net, &switch, &host);
}

#[test]
fn cilium_23464_routes_of_both_families_come_into_the_kernel_and_go_with_the_switch() {
    let mut net = Net::new();
    let (switch, host) = docker_host(&mut net);
    switch.ip("addr add fd01::1/64 dev eth0 nodad");
    host.ip("addr add fd01::2/64 dev eth0 nodad");
    let frr = Frr::start(
        &net,
        &switch,
        "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor 10.1.1.2 remote-as 1000\n neighbor fd01::2 remote-as 1000\n address-family ipv4 unicast\n  network 10.77.0.0/16\n  \
         network 10.1.1.0/30\n  network 0.0.0.0/0\n exit-address-family\n address-family ipv6 unicast\n  neighbor fd01::2 activate\n  network fd77::/48\n exit-address-family\n",
    );
    let config = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\nfamilies = [\"ipv4-unicast\"]\n\
         [[bgp.neighbor]]\naddress = \"fd01::1\"\nremote-as = 10000\nfamilies = [\"ipv6-unicast\"]\n\
         [advertise]\nnetworks = [\"10.50.0.0/24\", \"fd50::/64\"]\n";
    let routelet = Routelet::start(&net, &host, config, &[]);
    routelet.wait_established("10.1.1.1");
    routelet.wait_established("fd01::1");
    wait_for("IPv4 learned", 10.0, || {
        host.ip("route show proto 179 10.77.0.0/16").contains("10.1.1.1").then_some(())
    });
    wait_for("IPv6 learned", 10.0, || {
        host.ip("-6 route show proto 179 fd77::/48").contains("via f").then_some(())
    });
    wait_for("IPv4 announced", 10.0, || {
        switch.ip("route show 10.50.0.0/24").contains("10.1.1.2").then_some(())
    });
    wait_for("IPv6 announced", 10.0, || switch.ip("-6 route show fd50::/64").contains("via f").then_some(()));

    // The route guard: neither the connected subnet nor a default route is taken.
    let routes = routelet.json(&["show", "routes", "--received", "10.1.1.1"]);
    for refused in ["0.0.0.0/0", "10.1.1.0/30"] {
        let path = routes.as_array().unwrap().iter().find(|r| r["prefix"] == refused).expect(refused);
        assert!(path["reason"].as_str().unwrap().starts_with("guard"), "{path}");
        assert_eq!(path["installed"], false);
    }
    frr.configure(&["router bgp 10000", "address-family ipv4 unicast", "no network 10.77.0.0/16"]);
    wait_for("withdrawn", 10.0, || host.ip("route show proto 179 10.77.0.0/16").is_empty().then_some(()));
}
