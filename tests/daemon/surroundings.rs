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
