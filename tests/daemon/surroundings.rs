//! Other programs on the host that get in the way.

use std::fs;

use crate::{
    common::{
        Process,
        daemons::{Bird, Routelet},
        net::Net,
    },
    problems::{gone, named, none, problem},
};

const CONFIG: &str =
    "[bgp]\nas = 1000\nrouter-id = \"10.1.1.2\"\n[advertise]\nnetworks = [\"10.50.0.0/24\"]\n";

#[test]
fn another_bgp_daemon_on_the_host_is_named_until_it_is_stopped() {
    let mut net = Net::new();
    let (host, other) = (net.ns("host"), net.ns("other"));
    let _elsewhere = Bird::start(&net, &other, "router id 10.1.1.9;\nprotocol device {}\n");
    let mut bird = Bird::start(&net, &host, "router id 10.1.1.2;\nprotocol device {}\n");
    let routelet = Routelet::start(&net, &host, CONFIG, &[]);
    let (text, remedy) = named(&routelet, "OtherBgpDaemon");
    assert!(text.contains(&format!("bird (pid {})", bird.process.pid())), "{text}");
    assert!(remedy.starts_with("stop it"), "{remedy}");
    bird.process.stop();
    // The one in another network namespace does not matter.
    gone(&routelet, "OtherBgpDaemon");
    none(&routelet);
}

#[test]
fn a_networkd_that_removes_foreign_routes_is_named_until_its_configuration_changes() {
    let mut net = Net::new();
    let host = net.ns("host");
    let etc = net.dir().join("etc-systemd");
    fs::create_dir_all(&etc).unwrap();
    // The kernel truncates the name of the process to this.
    let program = net.dir().join("systemd-network");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut command = host.command(program.to_str().unwrap());
    let _networkd = Process::start(command.arg("600"), &net.dir().join("networkd.log"));
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    routelet.mount = Some((etc.clone(), "/etc/systemd".into()));
    routelet.restart();
    let (_, remedy) = named(&routelet, "ForeignRoutesManaged");
    let folder = "/etc/systemd/networkd.conf.d/routelet.conf";
    assert!(remedy.contains(folder) && remedy.contains("`ManageForeignRoutes=no`"), "{remedy}");
    fs::create_dir_all(etc.join("networkd.conf.d")).unwrap();
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/networkd.conf"),
        etc.join("networkd.conf.d/routelet.conf"),
    )
    .unwrap();
    gone(&routelet, "ForeignRoutesManaged");
    assert!(problem(&routelet, "OtherBgpDaemon").is_none());
}

/// The state files are what NetworkManager writes, the process is another with its name.
#[test]
fn a_network_manager_that_configures_a_bridge_of_containers_is_named_until_it_no_longer_does() {
    let mut net = Net::new();
    let host = net.ns("host");
    for bridge in ["br-pod", "br-own"] {
        host.ip(&format!("link add {bridge} type bridge"));
    }
    let index = |name: &str| host.sh(&format!("ip -o link show {name} | cut -d: -f1")).trim().to_owned();
    let run = net.dir().join("run");
    let devices = run.join("NetworkManager/devices");
    fs::create_dir_all(&devices).unwrap();
    let state = |name: &str, text: &str| fs::write(devices.join(index(name)), text).unwrap();
    state("br-pod", "[device]\nmanaged=true\nconnection-uuid=4f2d\nnm-owned=false\n");
    state("br-own", "[device]\nmanaged=true\nconnection-uuid=9a10\nnm-owned=true\n");
    let program = net.dir().join("NetworkManager");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut command = host.command(program.to_str().unwrap());
    let _manager = Process::start(command.arg("600"), &net.dir().join("manager.log"));
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    (routelet.mount, routelet.own_interfaces) = (Some((run, "/run".into())), true);
    routelet.restart();
    let (text, remedy) = named(&routelet, "BridgeManaged");
    assert!(text.contains("configures br-pod,") && !text.contains("br-own"), "{text}");
    assert!(remedy.contains("`unmanaged-devices+=interface-name:br-pod`"), "{remedy}");
    // What it writes after `systemctl reload NetworkManager`.
    state("br-pod", "[device]\nmanaged=false\nnm-owned=false\n");
    gone(&routelet, "BridgeManaged");
}
