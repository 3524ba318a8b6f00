//! Faults are planted, named by `show summary` and `doctor`, mended by the remedy that is printed,
//! and gone.

use std::process::Output;

use serde_json::Value;

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    speaker::listen,
    wait_for,
};

/// Long enough for a fault that must last for ten seconds, and for a port that is tried again
/// after thirty.
const NAMED: f64 = 60.0;

/// Host 10.1.1.2 with the bridge br-pod, and a switch 10.1.1.1, AS 10000, which runs routelet, too.
struct Rack {
    host: Ns,
    switch: Ns,
    net: Net,
}

/// A switch 10.1.1.1, and a host 10.1.1.2 whose default route leads over it.
pub(crate) fn below_a_switch(net: &mut Net) -> (Ns, Ns) {
    let (switch, host) = (net.ns("switch"), net.ns("host"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev eth0");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("route add default via 10.1.1.1");
    (switch, host)
}

impl Rack {
    fn new() -> Self {
        let mut net = Net::new();
        let (switch, host) = below_a_switch(&mut net);
        host.ip("link add br-pod type bridge");
        host.ip("addr add 172.20.0.1/16 dev br-pod");
        host.ip("link set br-pod up");
        host.sysctl("net.ipv6.conf.br-pod.accept_ra", "0");
        Self { host, switch, net }
    }

    fn switch(&self, more: &str) -> Routelet {
        let config =
            format!("[bgp]\nas = 10000\n[[bgp.neighbor]]\naddress = \"10.1.1.2\"\nremote-as = 1000\n{more}");
        Routelet::start(&self.net, &self.switch, &config, &[])
    }
}

fn config(neighbor: &str, more: &str) -> String {
    format!("[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\n{neighbor}\n{more}")
}

/// The problem with this reason, if there is one.
pub(crate) fn problem(routelet: &Routelet, reason: &str) -> Option<Value> {
    let all = routelet.json(&["show", "summary"])["diagnostics"].as_array()?.clone();
    all.into_iter().find(|p| p["reason"] == reason)
}

/// Waits for it: text and remedy.
pub(crate) fn named(routelet: &Routelet, reason: &str) -> (String, String) {
    let found = wait_for(format!("{reason} is named"), NAMED, || problem(routelet, reason));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("text"), text("remedy"))
}

pub(crate) fn gone(routelet: &Routelet, reason: &str) {
    wait_for(format!("{reason} is gone"), NAMED, || problem(routelet, reason).is_none().then_some(()));
}

/// Waits until there is no problem at all.
pub(crate) fn none(routelet: &Routelet) {
    let found = || routelet.json(&["show", "summary"])["diagnostics"].as_array().cloned().unwrap_or_default();
    wait_for("no problem", NAMED, || found().is_empty().then_some(()));
}

/// The command in backquotes of a remedy.
pub(crate) fn command(remedy: &str) -> String {
    remedy.split('`').nth(1).unwrap_or_else(|| panic!("no command in: {remedy}")).to_owned()
}

pub(crate) fn doctor(ns: &Ns, routelet: &Routelet, more: &[&str]) -> Output {
    let mut doctor = ns.command(env!("CARGO_BIN_EXE_routelet"));
    doctor.args(["doctor", "--config"]).arg(routelet.dir.join("routelet.toml"));
    doctor.arg("--socket").arg(routelet.socket()).args(more).output().expect("it runs")
}

/// Chains of others that drop all packets of an advertised subnet are named; rules for some
/// packets, as every firewall has them, are not.
#[test]
fn packet_filters_on_the_path_of_containers_are_named() {
    let mut rack = Rack::new();
    let pod = rack.net.ns("pod");
    rack.net.link((&rack.host, "veth1"), (&pod, "eth0"));
    rack.host.ip("link set veth1 master br-pod");
    let _switch = rack.switch("[advertise]\nnetworks = [\"10.9.0.0/24\"]\n");
    let config = config("remote-as = 10000", "[advertise]\ninterfaces = [\"br-pod\"]\n");
    let routelet = Routelet::start(&rack.net, &rack.host, &config, &[]);
    routelet.wait_established("10.1.1.1");
    none(&routelet);

    let chain = |policy: &str, rules: &[&str]| {
        rack.host.sh("nft 'add table inet fw; delete table inet fw; add table inet fw'");
        rack.host.sh(&format!(
            "nft 'add chain inet fw through {{ type filter hook forward priority 0; policy {policy}; }}'"
        ));
        for rule in rules {
            rack.host.sh(&format!("nft 'add rule inet fw through {rule}'"));
        }
    };
    let replies = "ct state { established, related } accept";
    let both = "to and from containers in 172.20.0.0/16";
    let to = "packets to containers in 172.20.0.0/16";
    let cases: [(&str, &[&str], &str, &str); 5] = [
        ("drop", &[], both, "the policy of through in table fw"),
        ("drop", &[replies, "iifname \"br-pod\" accept"], to, "the policy of through in table fw"),
        // As firewalld ends its chain.
        (
            "accept",
            &[
                replies,
                "ct status dnat accept",
                "iifname \"lo\" accept",
                "reject with icmpx admin-prohibited",
            ],
            both,
            "rule 4 of through in table fw",
        ),
        (
            "accept",
            &["iifname { \"eth0\", \"eth1\" } ip daddr { 172.16.0.0/12 } drop"],
            to,
            "rule 1 of through",
        ),
        ("accept", &["ct state vmap { established : accept, new : drop }"], both, "rule 1 of through"),
    ];
    let named_by = |what: &str, by: &str| {
        let is_wanted = |p: &Value| p["text"].as_str().is_some_and(|t| t.contains(what) && t.contains(by));
        wait_for(format!("{what}: {by}"), NAMED, || problem(&routelet, "ForwardFiltered").filter(is_wanted))
    };
    for (policy, rules, what, by) in cases {
        chain(policy, rules);
        let remedy = named_by(what, by)["remedy"].as_str().unwrap().to_owned();
        assert!(rack.host.sh(&command(&remedy)).contains("chain through"), "{remedy}");
        let out = doctor(&rack.host, &routelet, &[]);
        assert!(String::from_utf8_lossy(&out.stdout).contains("ForwardFiltered"));
    }
    // Of iptables.
    rack.host.sh("nft delete table inet fw");
    rack.host.sh("iptables -I FORWARD -d 172.20.0.0/16 -j DROP");
    named_by(to, "rule 1 of FORWARD in table filter");
    rack.host.sh("iptables -F FORWARD");
    gone(&routelet, "ForwardFiltered");

    let some = [
        "ip saddr 10.1.1.1 drop",
        "ip daddr 172.20.0.2 drop",
        "tcp dport 22 drop",
        "ct state invalid drop",
        "iifname \"eth9\" drop",
        "ip saddr { 192.0.2.0/24, 198.51.100.0/24 } drop",
        "oifname { \"wg0\" } drop",
        "ip protocol icmp accept",
    ];
    chain("accept", &some);
    // Twice as long as between two looks.
    std::thread::sleep(std::time::Duration::from_secs(11));
    assert!(problem(&routelet, "ForwardFiltered").is_none());
}

#[test]
fn faults_of_a_neighbor_are_named_and_mended() {
    let mut rack = Rack::new();
    let pod = rack.net.ns("pod");
    rack.net.link((&rack.host, "veth1"), (&pod, "eth0"));
    rack.host.ip("link set veth1 master br-pod");
    let _switch = rack.switch("[advertise]\nnetworks = [\"10.9.0.0/24\"]\n");
    let advertise = "[advertise]\ninterfaces = [\"br-pod\"]\n";

    let wrong = config("remote-as = 10001\nlocal-address = \"10.1.1.7\"", advertise);
    let routelet = Routelet::start(&rack.net, &rack.host, &wrong, &[]);
    let (text, _) = named(&routelet, "LocalAddressMissing");
    assert!(text.contains("10.1.1.7"), "{text}");
    rack.host.ip("addr add 10.1.1.7/24 dev eth0");
    gone(&routelet, "LocalAddressMissing");

    routelet.configure(&config("remote-as = 10001", advertise));
    routelet.cli(&["reload"]);
    let (text, remedy) = named(&routelet, "NeighborDown");
    assert!(text.contains("10.1.1.1") && text.contains("10000") && remedy.contains("`remote-as`"), "{text}");
    let out = doctor(&rack.host, &routelet, &[]);
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.code() == Some(4) && shown.contains("error: NeighborDown (neighbor 10.1.1.1)"),
        "{shown}"
    );

    // A mistake in the file does not pass unseen.
    routelet.configure(&config("remote-as = 10000\nno-such-key = 1", advertise));
    assert!(routelet.try_cli(&["reload"]).is_err());
    let (_, remedy) = named(&routelet, "ConfigurationInvalid");
    assert!(remedy.contains("routelet check"), "{remedy}");
    let policy = "[[policy.none]]\naction = \"reject\"\n";
    routelet.configure(&config("remote-as = 10000\nexport = [\"none\"]", &format!("{policy}{advertise}")));
    routelet.cli(&["reload"]);
    gone(&routelet, "ConfigurationInvalid");
    gone(&routelet, "NeighborDown");

    routelet.wait_established("10.1.1.1");
    let (_, remedy) = named(&routelet, "NothingAdvertised");
    assert!(remedy.contains("`export`"), "{remedy}");
    routelet.configure(&config("remote-as = 10000", advertise));
    routelet.cli(&["reload"]);
    gone(&routelet, "NothingAdvertised");
    let out = doctor(&rack.host, &routelet, &[]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn faults_of_the_host_are_named_and_mended() {
    let mut rack = Rack::new();
    let _switch = rack.switch("");
    rack.host.ip("link set eth0 mtu 1400");
    let taken = listen(&rack.host, "0.0.0.0:179");
    let config = config("remote-as = 10000", "[advertise]\ninterfaces = [\"br-pod\", \"docker9\"]\n");
    let routelet = Routelet::start(&rack.net, &rack.host, &config, &[]);

    let (text, _) = named(&routelet, "PortTaken");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    let (text, remedy) = named(&routelet, "MtuTooLarge");
    assert!(text.contains("br-pod has MTU 1500") && remedy.contains("1400"), "{text}; {remedy}");
    let (text, remedy) = named(&routelet, "InterfaceMissing");
    assert!(text.contains("`docker9`") && remedy.contains("eth0"), "{text}; {remedy}");
    let (text, _) = named(&routelet, "InterfaceWithoutCarrier");
    assert!(text.contains("172.20.0.0/16 of br-pod"), "{text}");
    let (text, _) = named(&routelet, "NothingReceived");
    assert!(text.contains("10.1.1.1"), "{text}");

    drop(taken);
    gone(&routelet, "PortTaken");
    rack.host.ip("link set br-pod mtu 1400");
    gone(&routelet, "MtuTooLarge");
    rack.host.ip("link add docker9 type bridge");
    gone(&routelet, "InterfaceMissing");
    let pod = rack.net.ns("pod");
    rack.net.link((&rack.host, "veth1"), (&pod, "eth0"));
    rack.host.ip("link set veth1 master br-pod");
    gone(&routelet, "InterfaceWithoutCarrier");

    rack.host.ip("link set br-pod down");
    let (_, remedy) = named(&routelet, "InterfaceWithoutCarrier");
    rack.host.sh(&command(&remedy));
    gone(&routelet, "InterfaceWithoutCarrier");
}

#[test]
fn doctor_checks_a_host_without_a_daemon() {
    let rack = Rack::new();
    rack.host.sysctl("net.ipv4.ip_forward", "0");
    let taken = listen(&rack.host, "0.0.0.0:179");
    let config = config("remote-as = 10000", "[advertise]\nnetworks = [\"10.50.0.0/24\"]\n");
    let routelet = Routelet::ready(&rack.net, &rack.host, &config, &[]);
    let found = || {
        let out = doctor(&rack.host, &routelet, &["--json"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let list: Vec<Value> = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code(), list)
    };
    let (status, list) = found();
    let of = |reason: &str| list.iter().find(|p| p["reason"] == reason).cloned().unwrap_or_default();
    assert_eq!(status, Some(4));
    assert!(of("PortTaken")["text"].as_str().is_some_and(|t| t.contains("(pid ")), "{list:?}");
    let remedy = of("ForwardingOff")["remedy"].as_str().unwrap_or_default().to_owned();
    assert_eq!(of("ForwardingOff")["severity"], "error");
    rack.host.sh(&command(&remedy));
    drop(taken);
    let (status, list) = found();
    assert!(list.is_empty() && status == Some(0), "{list:?}");
}
