//! The classic bare host: a /30 to the switch, whose address comes by DHCP from the switch, a
//! bridge with containers, AS 1000 below AS 10000. The lease moves to another subnet.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::common::{
    Process,
    daemons::{Frr, Routelet},
    net::{Net, Ns},
    probe::{self, Probe},
    wait_for,
};

const CONFIG: &str = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"gateway\"\nremote-as = 10000\n\
     [advertise]\ninterfaces = [\"cbr0\"]\n";
const SWITCH: &str = "router bgp 10000\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n \
     no bgp network import-check\n neighbor hosts peer-group\n neighbor hosts remote-as 1000\n \
     neighbor hosts timers 3 9\n bgp listen range 10.0.0.0/16 peer-group hosts\n \
     address-family ipv4 unicast\n  network 10.200.0.0/16\n exit-address-family\n";

/// The subnet of a lease: the switch has .1, the host gets .2.
fn subnet(n: u8) -> String {
    format!("10.0.{n}")
}

#[derive(Clone, Copy, Debug)]
enum Server {
    Dnsmasq,
    IscDhcpd,
}

impl Server {
    /// Gives `subnet`'s second address to whoever asks at `port1`.
    fn start(self, net: &Net, switch: &Ns, subnet: &str) -> Process {
        let dir = net.dir().join(format!("dhcp-{subnet}"));
        fs::create_dir_all(&dir).unwrap();
        let log = dir.join("log");
        let mut command = match self {
            Self::Dnsmasq => {
                let mut command = switch.command("dnsmasq");
                command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"]);
                command.args(["--interface=port1", "--bind-interfaces", "--dhcp-authoritative"]);
                command.arg(format!("--dhcp-range={subnet}.2,{subnet}.2,255.255.255.252,120"));
                command.arg(format!("--dhcp-option=3,{subnet}.1"));
                command.arg(format!("--dhcp-leasefile={}/leases", dir.display()));
                command.arg(format!("--pid-file={}/pid", dir.display()));
                command
            }
            Self::IscDhcpd => {
                let conf = dir.join("dhcpd.conf");
                let text = format!(
                    "authoritative; default-lease-time 6; max-lease-time 6; min-lease-time 6;\n\
                     subnet {subnet}.0 netmask 255.255.255.252 {{ range {subnet}.2 {subnet}.2; option routers {subnet}.1; }}\n"
                );
                fs::write(&conf, text).unwrap();
                fs::write(dir.join("leases"), "").unwrap();
                let mut command = switch.command("dhcpd");
                command
                    .args(["-4", "-f", "-d", "-user", "root", "-group", "root", "-cf"])
                    .arg(&conf)
                    .arg("-lf");
                command.arg(dir.join("leases")).arg("-pf").arg(dir.join("pid")).arg("port1");
                command
            }
        };
        Process::start(&mut command, &log)
    }

    /// The client that goes with it: between them both servers and both clients are used.
    fn client(self, net: &Net, host: &Ns) -> Process {
        let dir = net.dir().join("client");
        fs::create_dir_all(&dir).unwrap();
        let log = dir.join("log");
        match self {
            // Address and route are removed before others are added.
            Self::Dnsmasq => {
                let script = dir.join("script");
                fs::write(
                    &script,
                    "#!/bin/sh\ncase $1 in\ndeconfig) ip -4 addr flush dev $interface ;;\n\
                     bound|renew) ip addr replace $ip/$mask dev $interface\n\
                     ip route replace default via $router dev $interface proto dhcp ;;\nesac\n",
                )
                .unwrap();
                crate::common::run(std::process::Command::new("chmod").arg("755").arg(&script));
                let mut command = host.command("busybox");
                command
                    .args(["udhcpc", "-f", "-i", "eth0", "-t", "20", "-T", "1", "-A", "1", "-s"])
                    .arg(&script);
                Process::start(&mut command, &log)
            }
            // Debian's own script; resolv.conf is this machine's.
            Self::IscDhcpd => {
                fs::write(dir.join("dhclient.conf"), "request subnet-mask, routers;\ntimeout 20; retry 1;\n")
                    .unwrap();
                fs::write(dir.join("dhclient-enter-hooks"), "make_resolv_conf() { :; }\n").unwrap();
                let mut command = host.command("unshare");
                command.args(["--mount", "--propagation", "slave", "sh", "-c"]);
                command.arg(format!(
                    "mount --bind {0} /etc/dhcp && exec dhclient -4 -d -v -cf {0}/dhclient.conf -lf {0}/leases -pf {0}/pid eth0",
                    dir.display()
                ));
                Process::start(&mut command, &log)
            }
        }
    }

    /// The switch has moved: the client takes part in it without being asked after half a lease,
    /// or by the hand of its operator.
    fn renew(self, client: &Process) {
        if matches!(self, Self::Dnsmasq) {
            client.signal("USR2");
            client.signal("USR1");
        }
    }
}

fn containers(net: &mut Net, host: &Ns) -> [Ns; 2] {
    host.ip("link add cbr0 type bridge");
    host.ip("addr add 10.244.1.1/24 dev cbr0");
    host.sysctl("net.ipv6.conf.cbr0.accept_ra", "0");
    host.ip("link set cbr0 up promisc on");
    [2, 3].map(|n| {
        let ns = net.ns(&format!("c{n}"));
        net.link((host, &format!("veth{n}")), (&ns, "eth0"));
        host.ip(&format!("link set veth{n} master cbr0"));
        ns.ip(&format!("addr add 10.244.1.{n}/24 dev eth0"));
        ns.ip("route add default via 10.244.1.1");
        ns
    })
}

/// The switch sends what is for the containers to the host's address of this subnet.
fn follows(switch: &Ns, subnet: &str) {
    wait_for(format!("the switch reaches the containers by {subnet}.2"), 60.0, || {
        let route = switch.ip("route show 10.244.1.0/24");
        (route.contains(&format!("via {subnet}.2 ")) && switch.pings("10.244.1.2")).then_some(())
    });
}

fn the_lease_moves(server: Server) {
    let _alone = crate::alone();
    let mut net = Net::new();
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "port1"), (&host, "eth0"));
    let pods = containers(&mut net, &host);
    let [first, second] = [1, 2].map(subnet);
    switch.ip(&format!("addr add {first}.1/30 dev port1"));
    let _frr = Frr::start(&net, &switch, SWITCH);
    let mut dhcp = server.start(&net, &switch, &first);
    // Started before there is an address, as at boot.
    let mut routelet = Routelet::ready(&net, &host, CONFIG, &[]);
    routelet.restart();
    let client = server.client(&net, &host);
    follows(&switch, &first);
    let between = [Probe::start(&net, &pods[0], "10.244.1.3"), Probe::start(&net, &pods[1], "10.244.1.2")];
    between.iter().for_each(Probe::goes_on);
    let id = routelet.json(&["show", "summary"])["router_id"].clone();
    assert_eq!(id, format!("{first}.2"));

    dhcp.stop();
    switch.ip(&format!("addr del {first}.1/30 dev port1"));
    switch.ip(&format!("addr add {second}.1/30 dev port1"));
    let _dhcp = server.start(&net, &switch, &second);
    let moved = Instant::now();
    server.renew(&client);
    wait_for("the host has the other lease", 60.0, || {
        host.ip("addr show dev eth0").contains(&format!("{second}.2/30")).then_some(())
    });
    let leased = Instant::now();
    follows(&switch, &second);
    println!(
        "{server:?}: another lease {:?} after the switch moved, session and advertisement {:?} after that",
        leased - moved,
        leased.elapsed()
    );
    routelet.wait_established(&format!("{second}.1"));
    wait_for("the former gateway is no neighbor any more", 30.0, || {
        routelet.session(&format!("{first}.1")).is_none().then_some(())
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let problems = routelet.json(&["show", "summary"])["problems"].clone();
        if problems == serde_json::json!([]) {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {problems}");
        sleep(Duration::from_millis(200));
    }
    // Kept, so that sessions over other links would stay.
    assert_eq!(routelet.json(&["show", "summary"])["router_id"], id);
    probe::none_lost(between.into());
}

#[test]
fn a_lease_of_dnsmasq_moves_to_another_subnet() {
    the_lease_moves(Server::Dnsmasq);
}

#[test]
fn a_lease_of_isc_dhcpd_moves_to_another_subnet() {
    the_lease_moves(Server::IscDhcpd);
}
