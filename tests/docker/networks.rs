//! `docker.networks`: networks by name and by label, read from the engine.

use serde_json::Value;

use crate::{
    SOON, SWITCH,
    common::{
        daemons::{Frr, Routelet},
        net::{Net, Ns},
        wait_for,
    },
    engine::Docker,
    rack, route,
};

const NETWORKS: &str = r#"["web", "label:team=a"]"#;

fn config(networks: &str, socket: &std::path::Path) -> String {
    let host = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n";
    format!("{host}[docker]\nnetworks = {networks}\nsocket = \"{}\"\n", socket.display())
}

fn problems(routelet: &Routelet) -> String {
    routelet.json(&["show", "summary"])["problems"].to_string()
}

fn gone(switch: &Ns, subnet: &str) {
    wait_for(format!("{subnet} has left the switch's kernel"), SOON, || {
        route(switch, subnet).is_none().then_some(())
    });
}

#[test]
fn networks_by_name_and_label_are_advertised_while_a_container_is_attached() {
    let mut net = Net::new();
    let (host, switch) = rack(&mut net);
    let mut docker = Docker::start(&net, &host, "172.30.0.1/24");
    let frr = Frr::start(&net, &switch, SWITCH);
    let routelet = Routelet::start(&net, &host, &config(NETWORKS, docker.socket()), &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("a name without network is a problem", SOON, || {
        problems(&routelet).contains("docker network create web").then_some(())
    });

    // Networks that are created later, without a reload.
    let create = |subnet, more: &[&str]| {
        let plain =
            ["create", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "--subnet", subnet];
        docker.networks(&[&plain, more].concat());
    };
    create("172.31.1.0/24", &["web"]);
    create("172.31.2.0/24", &["--label", "team=a", "labelled"]);
    create("172.31.3.0/24", &["--label", "team=b", "other"]);
    wait_for("the problem ends", SOON, || (!problems(&routelet).contains("docker.networks")).then_some(()));
    for (network, name) in [("web", "one"), ("labelled", "two"), ("other", "three"), ("bridge", "four")] {
        docker.run_on(network, name);
    }
    for subnet in ["172.31.1.0/24", "172.31.2.0/24"] {
        wait_for(format!("{subnet} is in the switch's kernel"), SOON, || route(&switch, subnet));
    }
    wait_for("the container reaches the switch", SOON, || docker.pings("two", "10.1.1.1").then_some(()));
    for subnet in ["172.31.3.0/24", "172.30.0.0/24"] {
        assert!(route(&switch, subnet).is_none(), "{subnet} is not selected");
    }
    docker.remove("one");
    gone(&switch, "172.31.1.0/24");

    // A restart of routelet without an engine: what was read holds.
    docker.remove("two");
    gone(&switch, "172.31.2.0/24");
    docker.networks(&["rm", "labelled"]);
    docker.run_on("web", "one");
    wait_for("it is back", SOON, || route(&switch, "172.31.1.0/24"));
    docker.stop();
    let shown: Value = routelet.json(&["show", "config"]);
    assert_eq!(shown["docker"]["networks"], serde_json::json!(["web", "label:team=a"]));
    drop(frr);
}
