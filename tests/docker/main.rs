//! The Docker host below one switch, as in the README: its bridge is advertised exactly while a container is on it.
#![allow(clippy::disallowed_methods, reason = "tests of the real world")]

#[path = "../common/blocks.rs"]
mod blocks;
#[path = "../common/mod.rs"]
mod common;
mod documented;
#[path = "../common/engine.rs"]
mod engine;
#[path = "../kit/mod.rs"]
mod kit;
mod networks;

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

/// moby#47966: Docker finds forwarding off, switches it on, and sets the policy of FORWARD to DROP.
#[test]
fn moby_47966_containers_are_reached_where_docker_was_first_and_drops() {
    let mut net = Net::new();
    let rack = Rack::new(&mut net);
    let mut docker = Docker::start_with(&net, &rack.host, "172.30.0.1/24", &DUAL_STACK);
    assert!(rack.host.sh("iptables -S FORWARD").contains("-P FORWARD DROP"), "this Docker sets no policy");
    // As a Docker that finds IPv6 forwarding off does.
    rack.host.sh("ip6tables -P FORWARD DROP");
    let mut routelet = rack.routelet(&net);
    rack.reaches_containers(&mut docker, &routelet);

    // Nothing but the advertised subnets: the policy holds for the rest.
    let before = rack.host.sh("iptables -S DOCKER; iptables -S DOCKER-USER");
    docker.network("private");
    wait_for("the other network's bridge stays shut", SOON, || {
        rack.host.sh("iptables -S ROUTELET-FORWARD").contains("-o br-").then_some(())
    });
    assert_eq!(
        rack.host.sh("iptables -S DOCKER; iptables -S DOCKER-USER"),
        before,
        "no rule of Docker's was touched"
    );

    // Somebody flushes, and the engine is started again.
    rack.host.sh("iptables -F FORWARD; ip6tables -F FORWARD");
    docker.restart();
    docker.remove("one");
    rack.reaches_containers(&mut docker, &routelet);

    // `docker.accept-forwarded = false` leaves it to the operator, and `cleanup` leaves nothing.
    routelet.configure(&format!("{}[docker]\naccept-forwarded = false\n", HOST));
    routelet.cli(&["reload"]);
    wait_for("our chain is gone", SOON, || {
        (!rack.host.sh("iptables -S; ip6tables -S").contains("ROUTELET")).then_some(())
    });
    routelet.configure(HOST);
    routelet.cli(&["reload"]);
    wait_for("our chain is back", SOON, || rack.host.sh("iptables -S").contains("ROUTELET").then_some(()));
    routelet.process.stop();
    let mut cleanup = rack.host.command(env!("CARGO_BIN_EXE_routelet"));
    let removed = common::run(cleanup.args(["cleanup", "--config"]).arg(routelet.dir.join("routelet.toml")));
    assert!(removed.contains("ROUTELET-FORWARD"), "{removed}");
    let left = rack.host.sh("iptables-save; ip6tables-save");
    assert!(!left.contains("ROUTELET") && left.contains(":FORWARD DROP"), "{left}");
}

#[test]
fn moby_47966_docker_finds_forwarding_on_where_routelet_was_first() {
    let mut net = Net::new();
    let rack = Rack::new(&mut net);
    let routelet = rack.routelet(&net);
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        wait_for(format!("{key} is on"), SOON, || {
            (rack.host.sh(&format!("sysctl -n {key}")).trim() == "1").then_some(())
        });
    }
    let mut docker = Docker::start_with(&net, &rack.host, "172.30.0.1/24", &DUAL_STACK);
    assert!(rack.host.sh("iptables -S FORWARD").contains("-P FORWARD ACCEPT"), "it sees no reason to drop");
    rack.reaches_containers(&mut docker, &routelet);
}

/// The policy of another firewall, or of a Docker before both: in the tables of iptables-legacy it can only be named.
#[test]
fn a_policy_of_iptables_legacy_is_named_with_the_rules_to_add() {
    let mut net = Net::new();
    let rack = Rack::new(&mut net);
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        rack.host.sh(&format!("{program} -P FORWARD DROP"));
    }
    rack.host.ip("link add docker0 type bridge");
    rack.host.ip("link set docker0 up");
    rack.host.ip("addr add 172.30.0.1/24 dev docker0");
    rack.host.ip("addr add fd00:30::1/64 dev docker0 nodad");
    let routelet = rack.routelet(&net);
    for remedy in [
        "`iptables-legacy -A FORWARD -d 172.30.0.0/24 -j ACCEPT`",
        "`ip6tables-legacy -A FORWARD -s fd00:30::/64 -j ACCEPT`",
    ] {
        wait_for(remedy, SOON, || {
            routelet.json(&["show", "summary"])["problems"].to_string().contains(remedy).then_some(())
        });
    }
}

const DUAL_STACK: [&str; 5] =
    ["--ip-masq=false", "--ipv6", "--fixed-cidr-v6=fd00:30::/64", "--experimental", "--ip6tables"];

/// A host that forwards nothing yet, its switch, and a client behind the switch; both families.
struct Rack {
    host: Ns,
    client: Ns,
    _frr: Frr,
}

impl Rack {
    fn new(net: &mut Net) -> Self {
        let (host, switch) = rack(net);
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            host.sysctl(key, "0");
        }
        let client = net.ns("client");
        net.link((&switch, "port2"), (&client, "eth0"));
        switch.ip("addr add fd01::1/64 dev port1 nodad");
        host.ip("addr add fd01::2/64 dev eth0 nodad");
        host.ip("route add default via fd01::1");
        for (ns, dev, n) in [(&switch, "port2", 1), (&client, "eth0", 2)] {
            ns.ip(&format!("addr add 10.3.9.{n}/24 dev {dev}"));
            ns.ip(&format!("addr add fd03::{n}/64 dev {dev} nodad"));
        }
        client.ip("route add default via 10.3.9.1");
        client.ip("route add default via fd03::1");
        let config = format!(
            "{SWITCH} address-family ipv6 unicast\n  neighbor 10.1.1.2 activate\n exit-address-family\n"
        );
        let frr = Frr::start(net, &switch, &config);
        Self { host, client, _frr: frr }
    }

    fn routelet(&self, net: &Net) -> Routelet {
        let routelet = Routelet::start(net, &self.host, HOST, &[]);
        routelet.wait_established("10.1.1.1");
        routelet
    }

    /// Without any further command.
    fn reaches_containers(&self, docker: &mut Docker, routelet: &Routelet) {
        docker.run("one");
        for address in docker.addresses("one") {
            wait_for(format!("the client reaches {address}"), SOON, || {
                self.client.pings(&address).then_some(())
            });
        }
        for address in ["10.3.9.2", "fd03::2"] {
            wait_for(format!("the container reaches {address}"), SOON, || {
                docker.pings("one", address).then_some(())
            });
        }
        let problems = routelet.json(&["show", "summary"])["diagnostics"].clone();
        // The switch may have no route to advertise.
        let other = |p: &&serde_json::Value| p["reason"] != "NothingReceived";
        let problems: Vec<_> = problems.as_array().unwrap().iter().filter(other).collect();
        assert!(problems.is_empty(), "{problems:?}");
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
