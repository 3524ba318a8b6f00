//! The Docker host below one switch, as in the README: its bridge is advertised exactly while a container is on it.
#![allow(clippy::disallowed_methods, reason = "tests of the real world")]

#[path = "../common/mod.rs"]
mod common;
mod engine;
#[path = "../kit/mod.rs"]
mod kit;

use common::{
    daemons::{Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};
use engine::Docker;

/// The README's example.
const HOST: &str = r#"
[bgp]
as = 1000

[[bgp.neighbor]]
address = "10.1.1.1"
remote-as = 10000

[advertise]
interfaces = ["docker0"]
"#;

const SWITCH: &str = "
router bgp 10000
 no bgp ebgp-requires-policy
 neighbor 10.1.1.2 remote-as 1000
 neighbor 10.1.1.2 timers connect 1
";

/// Seconds: the kernel may hold back the word of a carrier for one.
const SOON: f64 = 3.0;

#[test]
fn a_bridge_is_advertised_while_a_port_of_it_is_up() {
    let mut net = Net::new();
    let (host, switch) = rack(&mut net);
    host.ip("link add docker0 address 02:42:00:00:00:01 type bridge");
    host.ip("link set docker0 up");
    host.ip("addr add 172.17.0.1/16 dev docker0");
    let frr = Frr::start(&net, &switch, SWITCH);
    let routelet = Routelet::start(&net, &host, HOST, &[]);
    routelet.wait_established("10.1.1.1");
    nothing_is_advertised(&routelet, &frr, &switch);

    for container in ["first", "second"] {
        let pod = net.ns(container);
        net.link((&host, "veth0"), (&pod, "eth0"));
        pod.ip("addr add 172.17.0.2/16 dev eth0");
        pod.ip("route add default via 172.17.0.1");
        host.ip("link set veth0 master docker0");
        wait_for("the subnet is in the switch's kernel", SOON, || route(&switch, "172.17.0.0/16"));
        wait_for("the switch reaches the container", SOON, || switch.pings("172.17.0.2").then_some(()));

        host.ip("link del veth0");
        wait_for("the subnet has left the switch's kernel", SOON, || {
            route(&switch, "172.17.0.0/16").is_none().then_some(())
        });
    }
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"), "the session saw none of it");
}

#[test]
fn a_network_of_the_docker_engine_is_advertised_while_a_container_runs() {
    let mut net = Net::new();
    let (host, switch) = rack(&mut net);
    let docker = Docker::start(&net, &host, "172.30.0.1/24");
    let frr = Frr::start(&net, &switch, SWITCH);
    let routelet = Routelet::start(&net, &host, HOST, &[]);
    routelet.wait_established("10.1.1.1");
    nothing_is_advertised(&routelet, &frr, &switch);

    for name in ["first", "second"] {
        docker.run(name);
        wait_for("the subnet is in the switch's kernel", SOON, || route(&switch, "172.30.0.0/24"));
        wait_for("the container's own address reaches the switch", SOON, || {
            docker.pings(name, "10.1.1.1").then_some(())
        });
        docker.remove(name);
        wait_for("the subnet has left the switch's kernel", SOON, || {
            route(&switch, "172.30.0.0/24").is_none().then_some(())
        });
    }
}

/// A host and its switch on a /30.
fn rack(net: &mut Net) -> (Ns, Ns) {
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    net.link((&switch, "port1"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/30 dev port1");
    host.ip("addr add 10.1.1.2/30 dev eth0");
    host.ip("route add default via 10.1.1.1");
    host.sysctl("net.ipv4.ip_forward", "1");
    (host, switch)
}

/// End-of-RIB has been exchanged, and it was all there was.
fn nothing_is_advertised(routelet: &Routelet, frr: &Frr, switch: &Ns) {
    let neighbor = wait_for("the switch has heard something", SOON, || {
        let all = frr.json("show bgp neighbors 10.1.1.2");
        let one = all["10.1.1.2"].clone();
        (one["messageStats"]["updatesRecv"].as_u64()? > 0).then_some(one)
    });
    let accepted = &neighbor["addressFamilyInfo"]["ipv4Unicast"]["acceptedPrefixCounter"];
    assert_eq!(accepted.as_u64(), Some(0), "{neighbor}");
    let advertised = &routelet.json(&["show", "neighbors"])[0]["advertised"];
    assert!(advertised.as_object().unwrap().values().all(|n| n == 0), "{advertised}");
    assert_eq!(switch.ip("route show proto bgp"), "");
}

/// The switch's kernel route for this prefix.
fn route(switch: &Ns, prefix: &str) -> Option<String> {
    Some(switch.ip(&format!("route show {prefix} via 10.1.1.2"))).filter(|text| !text.is_empty())
}
