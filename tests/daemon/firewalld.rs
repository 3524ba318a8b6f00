//! firewalld itself, as a distribution ships it: what it drops is named, and its own settings mend it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::{
    common::{
        Process,
        daemons::Routelet,
        net::{Net, Ns},
        wait_for,
    },
    kit,
    problems::{below_a_switch, command, gone, named},
};

/// firewalld in a namespace, with settings and a message bus of its own.
struct Firewalld {
    host: Ns,
    /// Where `firewall-cmd` is.
    bin: PathBuf,
    daemon: Process,
    /// Last, as it has the mounts.
    _bus: Process,
}

impl Firewalld {
    fn start(net: &Net, host: &Ns) -> Self {
        let dir = net.dir().join("firewalld");
        let (settings, bin) = (dir.join("settings"), dir.join("bin"));
        [&settings, &bin].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.arg(kit::tool("firewalld/start")).arg(&settings);
        let bus = Process::start(&mut command, &dir.join("bus.log"));
        let root = format!("/proc/{}/root", bus.pid());
        wait_for(format!("the message bus: {}", bus.printed()), 30.0, || {
            fs::exists(format!("{root}/run/dbus/system_bus_socket")).is_ok_and(|there| there).then_some(())
        });
        let inside = ["--mount", "--root", "--wd=/", "-t", &bus.pid().to_string()].map(str::to_owned);
        let mut command = host.command("nsenter");
        command.args(&inside).args(["/usr/bin/python3", "-sP", "/usr/sbin/firewalld"]);
        command.args(["--nofork", "--nopid", "--log-target", "console"]);
        let daemon = Process::start(&mut command, &dir.join("log"));
        let client = bin.join("firewall-cmd");
        let enter = format!("nsenter {}", inside.join(" "));
        fs::write(&client, format!("#!/bin/sh\nexec {enter} /usr/bin/firewall-cmd \"$@\"\n")).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { host: host.clone(), bin, daemon, _bus: bus };
        wait_for("firewalld runs", 60.0, || {
            let state = this.sh("firewall-cmd --state 2>&1 || true");
            (state.trim() == "running").then_some(())
        });
        this
    }

    /// A line of shell in which `firewall-cmd` is that of this firewalld.
    fn sh(&self, line: &str) -> String {
        self.host.sh(&format!("PATH={}:$PATH; {line}", self.bin.display()))
    }
}

/// The tables of routelet, whole.
fn our_tables(host: &Ns) -> Vec<String> {
    let tables = host.sh("nft list tables");
    let ours = tables.lines().filter(|line| line.contains(" routelet"));
    ours.map(|line| host.sh(&format!("nft -s list {line}"))).collect()
}

#[test]
fn forwarded_packets_that_firewalld_drops_are_named_and_accepted_by_its_own_settings() {
    let mut net = Net::new();
    let (switch, host) = below_a_switch(&mut net);
    let pod = net.ns("pod");
    host.ip("link add br-pod type bridge");
    host.ip("addr add 172.20.0.1/16 dev br-pod");
    host.ip("link set br-pod up");
    host.sysctl("net.ipv6.conf.br-pod.accept_ra", "0");
    net.link((&host, "veth1"), (&pod, "eth0"));
    host.ip("link set veth1 master br-pod");
    pod.ip("addr add 172.20.0.2/16 dev eth0");
    pod.ip("route add default via 172.20.0.1");
    let firewalld = Firewalld::start(&net, &host);
    let neighbor = "[bgp]\nas = 10000\n[[bgp.neighbor]]\naddress = \"10.1.1.2\"\nremote-as = 1000\n";
    let _switch = Routelet::start(&net, &switch, neighbor, &[]);
    let config = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
                  [advertise]\ninterfaces = [\"br-pod\"]\n";
    let routelet = Routelet::start(&net, &host, config, &[]);
    routelet.wait_established("10.1.1.1");
    wait_for("the route at the switch", 30.0, || {
        switch.ip("route show 172.20.0.0/16").contains("10.1.1.2").then_some(())
    });

    let (text, remedy) = named(&routelet, "ForwardFiltered");
    assert!(text.contains("to and from containers in 172.20.0.0/16"), "{text}");
    assert!(text.contains("in table firewalld"), "{text}");
    assert!(!switch.pings("172.20.0.2") && !pod.pings("10.1.1.1"), "firewalld drops nothing here");
    let before = our_tables(&host);
    assert!(!before.is_empty(), "no table of routelet");

    // It ends with a reload of firewalld.
    firewalld.sh(&command(&remedy));
    assert_eq!(our_tables(&host), before, "firewalld reloaded");
    gone(&routelet, "ForwardFiltered");
    assert!(switch.pings("172.20.0.2") && pod.pings("10.1.1.1"), "{}", firewalld.daemon.printed());
    firewalld.sh("firewall-cmd --complete-reload");
    assert_eq!(our_tables(&host), before, "firewalld reloaded completely");
    assert!(switch.pings("172.20.0.2") && pod.pings("10.1.1.1"), "{}", firewalld.daemon.printed());
}
