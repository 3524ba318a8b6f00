//! `explain` on a real kernel: each planted fault is the step that stops packets, and the remedy
//! that is printed ends it.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    speaker::{Speaker, attributes, end_of_rib, update},
    wait_for,
};

const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const SWITCH_AS: u32 = 10000;

/// The host 10.1.1.2 with containers in 172.20.0.0/16, one of them 172.20.0.2, below the switch
/// 10.1.1.1, which sends what a test wants.
struct Rack {
    host: Ns,
    pod: Ns,
    net: Net,
    switch: Ns,
}

impl Rack {
    fn new() -> Self {
        let mut net = Net::new();
        let (switch, host, pod) = (net.ns("switch"), net.ns("host"), net.ns("pod"));
        net.link((&switch, "eth0"), (&host, "eth0"));
        net.link((&host, "veth1"), (&pod, "eth0"));
        switch.ip("addr add 10.1.1.1/24 dev eth0");
        host.ip("addr add 10.1.1.2/24 dev eth0");
        host.ip("link add br-pod type bridge");
        host.ip("addr add 172.20.0.1/16 dev br-pod");
        host.ip("link set br-pod up");
        host.ip("link set veth1 master br-pod");
        pod.ip("addr add 172.20.0.2/16 dev eth0");
        pod.ip("route add default via 172.20.0.1");
        Self { host, pod, net, switch }
    }

    /// Starts routelet, and a session in which the switch advertises 10.9.0.0/24 and more.
    fn start(&self, config: &str, more: &[(Ipv4Addr, u8)]) -> (Routelet, Speaker) {
        let routelet = Routelet::start(&self.net, &self.host, config, &[]);
        let speaker = self.session(&routelet, more);
        (routelet, speaker)
    }

    fn session(&self, routelet: &Routelet, more: &[(Ipv4Addr, u8)]) -> Speaker {
        let mut speaker =
            Speaker::dial_from(&self.switch, SWITCH.into(), "10.1.1.2".parse().unwrap()).unwrap();
        speaker.establish(SWITCH_AS, 0, SWITCH);
        let prefixes = [&[(Ipv4Addr::new(10, 9, 0, 0), 24)][..], more].concat();
        speaker.send(&update(&[], &attributes(&[SWITCH_AS, 10009], SWITCH, 0), &prefixes));
        speaker.send(&end_of_rib());
        wait_for("the routes are in the table", 10.0, || {
            let text = routelet.cli(&["show", "routes", "--received", "10.1.1.1"]);
            prefixes.iter().all(|(a, len)| text.contains(&format!("{a}/{len}"))).then_some(())
        });
        speaker
    }
}

fn config(neighbor: &str, more: &str) -> String {
    format!(
        "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\npassive = true\n\
         {neighbor}\n[advertise]\ninterfaces = [\"br-pod\"]\n{more}"
    )
}

/// Status and JSON.
fn explained(routelet: &Routelet, args: &[&str]) -> (i32, Value) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_routelet"));
    let out = command.arg("explain").args(args).args(["--json", "--socket"]).arg(routelet.socket()).output();
    let out = out.expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {text}{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code().unwrap(), json)
}

/// Waits until the address is reachable.
fn reachable(routelet: &Routelet, args: &[&str]) -> Value {
    let mut last = Value::Null;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(format!("{args:?} is reachable"), 10.0, || {
            let (status, json) = explained(routelet, args);
            last = json.clone();
            (status == 0 && json["verdict"] == "reachable" && json["stopped_by"].is_null()).then_some(json)
        })
    }));
    found.unwrap_or_else(|_| panic!("{args:?}: {last:#}"))
}

/// Waits until this step stops it, with this in its text; gives the remedy.
fn stopped(routelet: &Routelet, args: &[&str], step: &str, part: &str) -> String {
    let mut last = Value::Null;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(format!("{args:?} is stopped by {step}"), 10.0, || {
            let (status, json) = explained(routelet, args);
            last = json.clone();
            let text = json["text"].as_str().unwrap_or_default();
            (status == 1 && json["stopped_by"] == step && text.contains(part)).then_some(json)
        })
    }));
    let json = found.unwrap_or_else(|_| panic!("{args:?}: not {step}, {part}: {last:#}"));
    json["remedy"].as_str().unwrap_or_else(|| panic!("a remedy: {json:#}")).to_owned()
}

fn step<'a>(json: &'a Value, name: &str) -> &'a Value {
    let steps = json["steps"].as_array().unwrap();
    steps.iter().find(|s| s["step"] == name).unwrap_or_else(|| panic!("no step {name}: {json:#}"))
}

#[test]
fn faults_on_the_way_to_another_host_are_named_and_mended() {
    let rack = Rack::new();
    let (routelet, _speaker) = rack.start(&config("", ""), &[]);
    let there = ["10.9.0.5"];
    let found = reachable(&routelet, &there);
    assert!(step(&found, "rib")["details"][0].as_str().unwrap().contains("AS path 10000 10009: best"));
    assert!(
        step(&found, "return")["text"].as_str().unwrap().contains("172.20.0.0/16 is advertised to 10.1.1.1")
    );
    for from in ["10.1.1.2", "172.20.0.2", "172.20.0.99"] {
        let found = reachable(&routelet, &["10.9.0.5", "--from", from]);
        assert!(step(&found, "kernel-route")["text"].as_str().unwrap().contains("10.9.0.0/24 via 10.1.1.1"));
    }
    let text = routelet.cli(&["explain", "10.9.0.5"]);
    assert!(text.lines().all(|l| l.chars().count() <= 80) && text.contains("\nreachable: "), "{text}");

    // Routes of other programs.
    rack.host.ip("route add 10.9.0.0/24 via 10.1.1.77 metric 50 proto static");
    let remedy = stopped(&routelet, &there, "kernel-route", "static (4), metric 50");
    assert!(remedy.contains("fib.metric below 50"), "{remedy}");
    rack.host.ip("route del 10.9.0.0/24 metric 50");
    reachable(&routelet, &there);
    rack.host.ip("route add blackhole 10.9.0.0/25 proto static");
    stopped(&routelet, &there, "kernel-route", "blackhole");
    rack.host.ip("route del blackhole 10.9.0.0/25");
    rack.host.ip("route add default via 10.1.1.77 table 100");
    rack.host.ip("rule add table 100 priority 90");
    let remedy = stopped(&routelet, &there, "kernel-route", "priority 90 looks up table 100");
    rack.host.sh(remedy.rsplit('`').nth(1).unwrap());
    reachable(&routelet, &there);
    rack.host.ip("rule del priority 89");
    rack.host.ip("rule del priority 90");
    // For packets of the containers alone.
    rack.host.ip("rule add from 172.20.0.0/16 table 100 priority 90");
    reachable(&routelet, &["10.9.0.5", "--from", "10.1.1.2"]);
    stopped(&routelet, &["10.9.0.5", "--from", "172.20.0.2"], "kernel-route", "for some packets");
    rack.host.ip("rule del priority 90");

    // Packet filters.
    rack.host.sh("iptables -A FORWARD -d 10.9.0.0/24 -j DROP");
    stopped(
        &routelet,
        &["10.9.0.5", "--from", "172.20.0.2"],
        "firewall",
        "rule 1 of FORWARD in table filter",
    );
    reachable(&routelet, &["10.9.0.5", "--from", "10.1.1.2"]);
    rack.host.sh("iptables -F FORWARD");
    reachable(&routelet, &there);

    // A narrower uplink is a warning.
    rack.host.ip("link set eth0 mtu 1400");
    wait_for("the MTU is named", 10.0, || {
        let (status, json) = explained(&routelet, &there);
        let mtu = step(&json, "mtu").clone();
        (status == 0 && mtu["result"] == "warning" && mtu["remedy"].as_str()?.contains("1400")).then_some(())
    });

    // The next hop is gone from its link, and its entry with it.
    rack.switch.ip("link set eth0 arp off");
    rack.host.ip("neigh flush dev eth0");
    stopped(&routelet, &there, "neighbor-entry", "10.1.1.1 does not reply to ARP on eth0");
    rack.switch.ip("link set eth0 arp on");
    reachable(&routelet, &there);
}

#[test]
fn routes_that_are_refused_or_missing_are_named() {
    let rack = Rack::new();
    let policy = "[[policy.lab]]\nprefixes = [\"10.8.0.0/24\"]\naction = \"reject\"\n";
    let (routelet, speaker) = rack.start(
        &config("import = [\"lab\"]", policy),
        &[
            (Ipv4Addr::new(10, 8, 0, 0), 24),
            (Ipv4Addr::new(0, 0, 0, 0), 0),
            (Ipv4Addr::new(172, 20, 7, 0), 24),
        ],
    );
    let found = reachable(&routelet, &["10.9.0.5"]);
    assert!(step(&found, "policy")["text"].as_str().unwrap().contains("lab, where no statement matches"));
    let remedy = stopped(&routelet, &["10.8.0.5"], "policy", "rejected by import policy lab, statement 1");
    assert!(remedy.contains("[[policy.lab]]"), "{remedy}");
    let remedy = stopped(&routelet, &["10.66.0.5"], "guard", "default route without accept-default");
    assert!(remedy.contains("accept-default = true on neighbor 10.1.1.1"), "{remedy}");
    // A default route that leads to the neighbor carries what was refused; one that leads elsewhere
    // does not.
    rack.host.ip("route add default via 10.1.1.1 proto static");
    reachable(&routelet, &["10.8.0.5"]);
    reachable(&routelet, &["10.66.0.5"]);
    rack.host.ip("route replace default via 10.1.1.77 proto static");
    stopped(&routelet, &["10.8.0.5"], "policy", "packets follow the default route");
    rack.host.ip("route del default");
    drop(speaker);
    let remedy = stopped(&routelet, &["10.66.0.5"], "rib", "neighbor 10.1.1.1 has no session");
    assert!(remedy.contains("routelet show neighbor 10.1.1.1"), "{remedy}");
}

#[test]
fn a_next_hop_that_nothing_leads_to_is_named() {
    let rack = Rack::new();
    let (routelet, mut speaker) = rack.start(&config("", ""), &[]);
    let far = attributes(&[SWITCH_AS], Ipv4Addr::new(10, 77, 0, 1), 0);
    speaker.send(&update(&[], &far, &[(Ipv4Addr::new(10, 7, 0, 0), 24)]));
    let remedy = stopped(&routelet, &["10.7.0.5"], "next-hop", "next hop unreachable (10.77.0.1)");
    assert!(remedy.contains("next-hop-self"), "{remedy}");
    rack.host.ip("route add default via 10.1.1.1");
    stopped(&routelet, &["10.7.0.5"], "next-hop", "next hop only by the default route");
    rack.host.ip("route add 10.77.0.0/24 via 10.1.1.1");
    reachable(&routelet, &["10.7.0.5"]);
}

#[test]
fn what_is_of_this_host_is_explained_from_outside() {
    let mut rack = Rack::new();
    let policy = "[[policy.out]]\nprefixes = [\"172.21.0.0/16\"]\naction = \"reject\"\n";
    rack.host.ip("link add br-two type bridge");
    rack.host.ip("addr add 172.21.0.1/16 dev br-two");
    rack.host.ip("link set br-two up");
    let interfaces = "[\"br-pod\", \"br-two\"]\nnetworks = [\"10.44.0.0/16\"]";
    let config = config("export = [\"out\"]", policy).replace("[\"br-pod\"]", interfaces);
    let (routelet, speaker) = rack.start(&config, &[]);
    let found = reachable(&routelet, &["172.20.0.2"]);
    assert!(step(&found, "origin")["text"].as_str().unwrap().contains("subnet of br-pod"));
    assert!(step(&found, "advertised")["text"].as_str().unwrap().contains("10.1.1.1"));
    // A container that does not exist, packets among containers, and addresses of the host.
    stopped(&routelet, &["172.20.0.77"], "neighbor-entry", "172.20.0.77 does not reply to ARP on br-pod");
    reachable(&routelet, &["172.20.0.2", "--from", "172.20.0.3"]);
    reachable(&routelet, &["172.20.0.2", "--from", "10.9.0.5"]);
    reachable(&routelet, &["10.1.1.2"]);
    reachable(&routelet, &["10.1.1.1"]);
    stopped(&routelet, &["10.1.1.200"], "neighbor-entry", "10.1.1.200 does not reply to ARP on eth0");

    stopped(&routelet, &["172.21.0.2"], "origin", "no container is attached");
    let two = rack.net.ns("two");
    rack.net.link((&rack.host, "veth2"), (&two, "eth0"));
    two.ip("addr add 172.21.0.2/16 dev eth0");
    rack.host.ip("link set veth2 master br-two");
    let remedy =
        stopped(&routelet, &["172.21.0.2"], "advertised", "rejected by export policy out, statement 1");
    assert!(remedy.contains("[[policy.out]]"), "{remedy}");
    stopped(&routelet, &["10.9.0.5", "--from", "172.21.0.2"], "return", "not advertised to 10.1.1.1");
    let (status, json) = explained(&routelet, &["10.9.0.5"]);
    assert_eq!((status, &step(&json, "return")["result"]), (0, &"warning".into()), "one of two: {json:#}");
    stopped(&routelet, &["10.44.0.1"], "kernel-route", "stops loops for 10.44.0.0/16");
    drop(speaker);
    stopped(&routelet, &["172.20.0.2"], "advertised", "no session");
    rack.pod.ip("link set eth0 down");
    stopped(&routelet, &["172.20.0.2"], "origin", "no container is attached");
}

#[test]
fn sysctls_and_policies_that_drop_are_named() {
    let rack = Rack::new();
    let accept = "[docker]\naccept-forwarded = false\n";
    let (routelet, _speaker) = rack.start(&config("", accept), &[]);
    let args = ["10.9.0.5", "--from", "172.20.0.2"];
    reachable(&routelet, &args);
    rack.host.sh("iptables -P FORWARD DROP");
    stopped(&routelet, &args, "firewall", "the policy of FORWARD in table filter");
    stopped(&routelet, &["172.20.0.2"], "firewall", "the policy of FORWARD in table filter");
    rack.host.sh("iptables -A FORWARD -s 172.20.0.0/16 -j ACCEPT");
    rack.host.sh("iptables -A FORWARD -d 172.20.0.0/16 -j ACCEPT");
    reachable(&routelet, &args);
    rack.host.sh("iptables -P FORWARD ACCEPT");

    // Packets of containers that arrive on an interface that does not lead back to them.
    rack.host.sysctl("net.ipv4.conf.eth0.rp_filter", "1");
    let strange = ["10.9.0.5", "--from", "172.20.0.2", "--interface", "eth0"];
    stopped(&routelet, &strange, "rp-filter", "rp_filter drops packets");
    rack.host.sysctl("net.ipv4.conf.eth0.rp_filter", "0");
    reachable(&routelet, &args);
}

/// routelet mends forwarding within seconds; where it may not, `explain` names it.
#[test]
fn forwarding_that_is_off_is_named() {
    let rack = Rack::new();
    let (routelet, _speaker) = rack.start(&config("", ""), &[]);
    let args = ["10.9.0.5", "--from", "172.20.0.2"];
    reachable(&routelet, &args);
    // Faster than it is mended, or while it is given up for a while.
    wait_for("forwarding is named", 20.0, || {
        rack.host.sysctl("net.ipv4.ip_forward", "0");
        let (status, json) = explained(&routelet, &args);
        let text = json["text"].as_str()?;
        (status == 1 && json["stopped_by"] == "forwarding" && text.contains("net.ipv4.ip_forward is 0"))
            .then_some(())
    });
    reachable(&routelet, &args);
}

#[test]
fn ipv6_is_explained_likewise() {
    let rack = Rack::new();
    rack.switch.ip("addr add fd01::1/64 dev eth0 nodad");
    rack.host.ip("addr add fd01::2/64 dev eth0 nodad");
    rack.host.ip("addr add fd20::1/64 dev br-pod nodad");
    rack.pod.ip("addr add fd20::2/64 dev eth0 nodad");
    let (routelet, mut speaker) = rack.start(&config("", ""), &[]);
    let prefix = ("fd09::".parse().unwrap(), 64);
    let path = crate::common::speaker::update6(&[SWITCH_AS], "fd01::1".parse().unwrap(), &[prefix]);
    speaker.send(&path);
    let found = reachable(&routelet, &["fd09::5", "--from", "fd20::2"]);
    assert!(step(&found, "kernel-route")["text"].as_str().unwrap().contains("fd09::/64 via fd01::1 on eth0"));
    reachable(&routelet, &["fd09::5"]);
    reachable(&routelet, &["fd20::2"]);
    stopped(&routelet, &["fd0a::5"], "rib", "no route to fd0a::5");
    stopped(&routelet, &["fd20::77"], "neighbor-entry", "neighbor discovery on br-pod");
    rack.host.ip("-6 route add unreachable fd09::/96 proto static");
    stopped(&routelet, &["fd09::5"], "kernel-route", "unreachable");
}

#[test]
fn bad_questions_are_one_line_with_what_to_do() {
    let rack = Rack::new();
    let (routelet, _speaker) = rack.start(&config("", ""), &[]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["10.0.0.0/8"], 2, "routelet show routes 10.0.0.0/8"),
        (&["127.0.0.1"], 2, "loopback"),
        (&["10.9.0.5", "--interface", "eth0"], 2, "--from"),
        (&["10.9.0.5", "--from", "fd00::1"], 2, "same family"),
        (&["10.9.0.5", "--from", "10.9.0.5"], 2, "address of the sender"),
        (&["10.9.0.5", "--from", "172.20.0.2", "--interface", "eth9"], 2, "br-pod"),
        (&["10.9.0.5", "--from", "10.1.1.2", "--interface", "eth0"], 2, "leave --interface out"),
    ];
    for (args, status, part) in cases {
        let (code, text) = routelet.try_cli(&[&["explain"], *args].concat()).unwrap_err();
        assert_eq!((code, text.lines().count()), (*status, 1), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}
