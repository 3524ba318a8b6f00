//! BFD with FRR's bfdd and with BIRD: single hop over IPv4, IPv6 and link-local addresses, several hops, new intervals
//! while it runs, signed packets, and what a loss and an administrator do to the session.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    wait_for,
};

/// Ours with .1, theirs with .2, on one link.
fn link(net: &mut Net, theirs: &str) -> (Ns, Ns) {
    let (ours, theirs) = (net.ns("ours"), net.ns(theirs));
    net.link((&ours, "eth0"), (&theirs, "eth0"));
    for (ns, n) in [(&ours, 1), (&theirs, 2)] {
        ns.ip(&format!("addr add 10.1.0.{n}/24 dev eth0"));
        ns.ip(&format!("addr add 2001:db8:1::{n}/64 dev eth0 nodad"));
        ns.ip(&format!("addr add fe80::{n}/64 dev eth0 nodad"));
    }
    (ours, theirs)
}

fn config(neighbors: &[(&str, &str)]) -> String {
    let neighbors = neighbors.iter().map(|(address, more)| {
        format!("[[bgp.neighbor]]\naddress = \"{address}\"\nremote-as = 65002\n{more}\n")
    });
    format!("[bgp]\nas = 65001\nrouter-id = \"10.0.0.1\"\n{}", neighbors.collect::<String>())
}

/// The BFD session with this address.
fn bfd(routelet: &Routelet, address: &str) -> Option<Value> {
    let all = routelet.json(&["show", "bfd"]);
    all.as_array()?.iter().find(|s| s["neighbor"] == address).cloned()
}

fn wait_bfd(routelet: &Routelet, address: &str, state: &str) -> Value {
    wait_for(format!("BFD with {address} is {state}"), 30.0, || {
        bfd(routelet, address).filter(|s| s["state"] == state)
    })
}

/// Cuts the link silently: whatever comes in at this end is dropped.
fn cut(ns: &Ns) {
    ns.sh("nft 'add table inet cut; add chain inet cut in { type filter hook prerouting priority -300; policy drop; }'");
}

fn mend(ns: &Ns) {
    ns.sh("nft delete table inet cut");
}

const FRR: &str = "router bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
    neighbor 10.1.0.1 remote-as 65001\n neighbor 10.1.0.1 timers connect 1\n neighbor 10.1.0.1 bfd\n \
    neighbor 2001:db8:1::1 remote-as 65001\n neighbor 2001:db8:1::1 timers connect 1\n neighbor 2001:db8:1::1 bfd\n";

#[test]
fn frr_is_watched_over_both_families_and_a_cut_ends_the_session() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net, "frr");
    let frr = Frr::start_with_bfd(&net, &theirs, FRR);
    let on = "bfd = { min-tx = 50, min-rx = 50, multiplier = 3 }";
    let four_and_six = [("10.1.0.2", on), ("2001:db8:1::2", on)];
    let routelet = Routelet::start(&net, &ours, &config(&four_and_six), &[]);
    for (address, _) in four_and_six {
        routelet.wait_established(address);
        let session = wait_bfd(&routelet, address, "up");
        assert_eq!((&session["interface"], &session["multihop"]), (&"eth0".into(), &false.into()));
    }
    // FRR sends every 300 ms by default, and every 50 when it is configured to.
    frr.configure(&["bfd", "peer 10.1.0.1 interface eth0", "exit", "profile x", "exit"]);
    let seen = frr.vtysh("show bfd peers");
    assert!(seen.matches("Status: up").count() >= 2, "{seen}");

    // New intervals, by a poll sequence: neither end sees a failure.
    // A newer FRR makes its session anew when both ends have dialled.
    let before = bfd(&routelet, "10.1.0.2").unwrap()["failures"].clone();
    let slow = "bfd = { min-tx = 200, min-rx = 150, multiplier = 4 }";
    routelet.configure(&config(&[("10.1.0.2", slow), ("2001:db8:1::2", on)]));
    routelet.cli(&["reload"]);
    wait_for("frr has the new intervals", 10.0, || {
        let seen = frr.vtysh("show bfd peers");
        (seen.contains("Transmission interval: 200ms") && seen.contains("Receive interval: 150ms"))
            .then_some(())
    });
    let session = bfd(&routelet, "10.1.0.2").unwrap();
    assert_eq!((&session["state"], &session["failures"]), (&"up".into(), &before), "{session}");
    assert_eq!(session["tx_interval"], 300, "not more than FRR wants");

    // The session that FRR has made anew is there.
    for (address, _) in four_and_six {
        wait_bfd(&routelet, address, "up");
        routelet.wait_established(address);
    }
    let drops =
        || routelet.json(&["show", "neighbor", "2001:db8:1::2"])["drops"]["bfd"].as_u64().unwrap_or(0);
    let before = drops();
    let start = Instant::now();
    cut(&ours);
    wait_for("the loss ends the session", 10.0, || {
        (routelet.session("2001:db8:1::2")? != "established").then_some(())
    });
    println!("noticed after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "long before the hold time");
    let view = routelet.json(&["show", "neighbor", "2001:db8:1::2"]);
    assert!(
        view["last_error"].as_str().unwrap().contains("BFD session down: control detection time expired")
    );
    assert!(drops() > before, "{before}: {view}");
    mend(&ours);
    for (address, _) in four_and_six {
        wait_bfd(&routelet, address, "up");
        routelet.wait_established(address);
    }
    let events = routelet.cli(&["show", "events"]);
    assert!(events.contains("BFD session down") && events.contains("BFD session up"), "{events}");
}

#[test]
fn an_administrator_at_either_end_ends_no_session() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net, "frr");
    let frr = Frr::start_with_bfd(&net, &theirs, FRR);
    let routelet = Routelet::start(&net, &ours, &config(&[("10.1.0.2", "bfd = true")]), &[]);
    routelet.wait_established("10.1.0.2");
    wait_bfd(&routelet, "10.1.0.2", "up");
    frr.configure(&["bfd", "peer 10.1.0.1 interface eth0", "shutdown"]);
    wait_for("frr's session is turned off", 10.0, || {
        let view = routelet.json(&["show", "neighbor", "10.1.0.2"]);
        (view["bfd"] == "administratively down at the neighbor").then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    let view = routelet.json(&["show", "neighbor", "10.1.0.2"]);
    assert_eq!((&view["state"], &view["drops"]), (&"established".into(), &serde_json::json!({})), "{view}");
    frr.configure(&["bfd", "peer 10.1.0.1 interface eth0", "no shutdown"]);
    wait_bfd(&routelet, "10.1.0.2", "up");
    // And here: BFD leaves the configuration. (This FRR takes that for a loss, and reports one.)
    routelet.configure(&config(&[("10.1.0.2", "")]));
    routelet.cli(&["reload"]);
    wait_for("frr is informed", 10.0, || frr.vtysh("show bfd peers").contains("Status: down").then_some(()));
    let view = routelet.json(&["show", "neighbor", "10.1.0.2"]);
    assert!(view["drops"].get("bfd").is_none(), "{view}");
    wait_for("no port is open without need", 10.0, || {
        (!ours.sh("ss -Hulpn").contains(":3784")).then_some(())
    });
}

/// A restart by the operator and a kill: TCP closes first, so that the neighbor's BFD finds a graceful restart under
/// way. At a restart BFD goes on for a moment longer: what FRR's bgpd reads first is then no matter of luck.
#[test]
fn a_restart_under_bfd_keeps_routes_at_the_neighbor() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net, "frr");
    let more = "address-family ipv4 unicast\n  neighbor 10.1.0.1 soft-reconfiguration inbound\n exit-address-family\n";
    let _frr = Frr::start_with_bfd(
        &net,
        &theirs,
        &format!("{FRR} bgp graceful-restart\n bgp graceful-restart select-defer-time 1\n{more}"),
    );
    let file = format!(
        "{}[advertise]\nnetworks = [\"10.244.1.0/24\"]\n",
        config(&[("10.1.0.2", "bfd = { min-tx = 100, min-rx = 100 }")])
    );
    let mut routelet = Routelet::start(&net, &ours, &file, &[]);
    let route = || theirs.ip("route show 10.244.1.0/24");
    for kill in [false, true] {
        routelet.wait_established("10.1.0.2");
        wait_bfd(&routelet, "10.1.0.2", "up");
        wait_for("frr has the route", 10.0, || route().contains("10.1.0.1").then_some(()));
        let _ = if kill { routelet.process.kill() } else { routelet.process.stop() };
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            assert!(route().contains("10.1.0.1"), "killed: {kill}");
            std::thread::sleep(Duration::from_millis(20));
        }
        routelet.restart();
    }
}

#[test]
fn frr_is_watched_over_a_link_local_address() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net, "frr");
    let frr = Frr::start_with_bfd(
        &net,
        &theirs,
        "router bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         neighbor fe80::1 remote-as 65001\n neighbor fe80::1 interface eth0\n neighbor fe80::1 timers connect 1\n \
         neighbor fe80::1 bfd\n",
    );
    let routelet = Routelet::start(&net, &ours, &config(&[("fe80::2%eth0", "bfd = true")]), &[]);
    routelet.wait_established("fe80::2%eth0");
    let session = wait_bfd(&routelet, "fe80::2", "up");
    assert_eq!(session["interface"], "eth0");
    assert!(frr.vtysh("show bfd peers").contains("Status: up"));
}

/// Loopback addresses behind a router.
fn far(net: &mut Net, theirs: &str) -> (Ns, Ns) {
    let (ours, router, theirs) = (net.ns("ours"), net.ns("router"), net.ns(theirs));
    net.link((&ours, "eth0"), (&router, "eth0"));
    net.link((&theirs, "eth0"), (&router, "eth1"));
    router.sysctl("net.ipv4.ip_forward", "1");
    router.ip("addr add 10.1.0.254/24 dev eth0");
    router.ip("addr add 10.2.0.254/24 dev eth1");
    for (ns, n) in [(&ours, 1), (&theirs, 2)] {
        ns.ip(&format!("addr add 10.{n}.0.1/24 dev eth0"));
        ns.ip(&format!("route add default via 10.{n}.0.254"));
    }
    (ours, theirs)
}

#[test]
fn frr_is_watched_over_several_hops() {
    let mut net = Net::new();
    let (ours, theirs) = far(&mut net, "frr");
    let frr = Frr::start_with_bfd(
        &net,
        &theirs,
        "router bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         neighbor 10.1.0.1 remote-as 65001\n neighbor 10.1.0.1 ebgp-multihop 3\n neighbor 10.1.0.1 timers connect 1\n \
         neighbor 10.1.0.1 bfd\n",
    );
    let more = "multihop = 3\nbfd = { min-tx = 100, min-rx = 100 }";
    let routelet = Routelet::start(&net, &ours, &config(&[("10.2.0.1", more)]), &[]);
    let session = wait_bfd(&routelet, "10.2.0.1", "up");
    assert_eq!((&session["multihop"], &session["interface"]), (&true.into(), &Value::Null));
    routelet.wait_established("10.2.0.1");
    assert!(frr.vtysh("show bfd peers").contains("multihop"));
    cut(&ours);
    wait_for("the loss ends the session", 10.0, || {
        let view = routelet.json(&["show", "neighbor", "10.2.0.1"]);
        (view["drops"]["bfd"].as_u64() >= Some(1)).then_some(())
    });
    mend(&ours);
    routelet.wait_established("10.2.0.1");
}

fn bird(multihop: bool, bfd: &str, protocol: &str) -> String {
    let (local, neighbor) = if multihop {
        ("10.2.0.1", "10.1.0.1 as 65001; multihop 3")
    } else {
        ("10.1.0.2", "10.1.0.1 as 65001")
    };
    format!(
        "router id 10.0.0.2;\nprotocol device {{ scan time 1; }}\nprotocol bfd {{ {protocol} }}\n\
         protocol bgp host {{ local {local} as 65002; neighbor {neighbor}; connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
         bfd {bfd}; ipv4 {{ import all; export all; }}; }}\n"
    )
}

/// (FRR starts BFD only when it has the BGP session.)
#[test]
fn where_it_is_required_no_session_begins_before_bfd_is_up() {
    let mut net = Net::new();
    let (ours, theirs) = far(&mut net, "bird");
    let bird = Bird::start(&net, &theirs, &bird(true, "on", ""));
    let more = "multihop = 3\nbfd = { strict = true, min-tx = 100, min-rx = 100 }";
    let routelet = Routelet::start(&net, &ours, &config(&[("10.2.0.1", more)]), &[]);
    routelet.wait_established("10.2.0.1");
    wait_bfd(&routelet, "10.2.0.1", "up");
    let drops = || routelet.json(&["show", "neighbor", "10.2.0.1"])["drops"]["bfd"].as_u64().unwrap_or(0);
    let before = drops();
    ours.sh("nft 'add table inet cut; add chain inet cut in { type filter hook prerouting priority -300; }'");
    ours.sh("nft 'add rule inet cut in udp dport 4784 drop'");
    wait_for("the session is over, and none begins", 10.0, || {
        let view = routelet.json(&["show", "neighbor", "10.2.0.1"]);
        (view["state"] == "idle" && drops() == before + 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(5));
    let view = routelet.json(&["show", "neighbor", "10.2.0.1"]);
    assert!(view["last_error"].as_str().unwrap().contains("bfd.strict"), "{view}");
    assert_eq!(view["state"], "idle", "{view}");
    mend(&ours);
    routelet.wait_established("10.2.0.1");
    assert!(bird.birdc("show bfd sessions").contains("Up"));
}

#[test]
fn bird_is_watched_and_its_loss_noticed() {
    for multihop in [false, true] {
        let mut net = Net::new();
        let (ours, theirs) = if multihop { far(&mut net, "bird") } else { link(&mut net, "bird") };
        let bird = Bird::start(&net, &theirs, &bird(multihop, "on", ""));
        let (address, more) = if multihop { ("10.2.0.1", "multihop = 3\n") } else { ("10.1.0.2", "") };
        let more = format!("{more}bfd = {{ min-tx = 50, min-rx = 50 }}");
        let routelet = Routelet::start(&net, &ours, &config(&[(address, &more)]), &[]);
        routelet.wait_established(address);
        wait_bfd(&routelet, address, "up");
        wait_for("bird reports it, too", 10.0, || {
            bird.birdc("show bfd sessions").contains("Up").then_some(())
        });
        // At our end, so that a NOTIFICATION of BIRD, which notices it as well, does not come first.
        cut(&ours);
        wait_for("the loss ends the session", 10.0, || {
            let view = routelet.json(&["show", "neighbor", address]);
            (view["drops"]["bfd"] == 1).then_some(())
        });
        mend(&ours);
        routelet.wait_established(address);
        wait_bfd(&routelet, address, "up");
    }
}

#[test]
fn bird_accepts_signed_packets_and_refuses_others() {
    for (ours_is, theirs_is) in [("meticulous-sha1", "meticulous keyed sha1"), ("sha1", "keyed sha1")] {
        let mut net = Net::new();
        let (ours, theirs) = link(&mut net, "bird");
        let signed =
            format!("interface \"*\" {{ authentication {theirs_is}; password \"sesame\" {{ id 7; }}; }};");
        let _bird = Bird::start(&net, &theirs, &bird(false, "on", &signed));
        let with = |password: &str| {
            let more = format!(
                "bfd = {{ min-tx = 50, min-rx = 50, password = \"{password}\", key-id = 7, authentication = \"{ours_is}\" }}"
            );
            config(&[("10.1.0.2", &more)])
        };
        let routelet = Routelet::start(&net, &ours, &with("sesame"), &[]);
        let session = wait_bfd(&routelet, "10.1.0.2", "up");
        assert_eq!(session["authentication"], ours_is);
        routelet.configure(&with("other"));
        routelet.cli(&["reload"]);
        let session = wait_bfd(&routelet, "10.1.0.2", "down");
        assert!(session["authentication_failures"].as_u64() > Some(0), "{session}");
        routelet.configure(&with("sesame"));
        routelet.cli(&["reload"]);
        wait_bfd(&routelet, "10.1.0.2", "up");
    }
}
