//! Sessions follow the host's links and addresses.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::common::{
    PATIENCE, Process,
    daemons::{Bird, Frr, Routelet},
    net::{Net, Ns},
    probe::Probe,
    wait_for, within,
};

const ROUTELET: &str = "[bgp]\nas = 65001\nrouter-id = \"10.0.0.11\"\n[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 65000\n\
     [advertise]\ninterfaces = [\"br-pod\"]\n";

/// A switch 10.0.0.1/24, a host 10.0.0.11 with a container 172.20.0.2 behind br-pod.
fn stage(net: &mut Net) -> (Ns, Ns) {
    let (switch, host, pod) = (net.ns("switch"), net.ns("host"), net.ns("pod"));
    net.link((&switch, "eth0"), (&host, "eth0"));
    switch.ip("addr add 10.0.0.1/24 dev eth0");
    host.ip("addr add 10.0.0.11/24 dev eth0");
    host.ip("link add br-pod type bridge");
    host.ip("addr add 172.20.0.1/16 dev br-pod");
    host.ip("link set br-pod up");
    net.link((&host, "veth1"), (&pod, "eth0"));
    host.ip("link set veth1 master br-pod");
    pod.ip("addr add 172.20.0.2/16 dev eth0");
    pod.ip("route add default via 172.20.0.1");
    host.sysctl("net.ipv4.ip_forward", "1");
    (switch, host)
}

/// A leaf that takes whoever calls from the subnet, and lets it keep its routes over a restart.
fn leaf() -> String {
    "router bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n bgp graceful-restart\n \
     neighbor hosts peer-group\n neighbor hosts remote-as external\n bgp listen range 10.0.0.0/24 peer-group hosts\n \
     address-family ipv4 unicast\n  redistribute connected\n"
        .into()
}

fn next_hops(switch: &Ns) -> String {
    switch.ip("route show 172.20.0.0/16")
}

fn drops(routelet: &Routelet, neighbor: &str) -> serde_json::Value {
    routelet.json(&["show", "neighbor", neighbor])["drops"].clone()
}

fn last_error(routelet: &Routelet, neighbor: &str) -> String {
    let view = routelet.json(&["show", "neighbor", neighbor]);
    view["last_error"].as_str().unwrap_or_default().to_owned()
}

/// calico#5090, systemd#16071: the host gets another lease under an established session.
#[test]
fn calico_5090_another_lease_brings_traffic_back_within_two_seconds() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    let _frr = Frr::start(&net, &switch, &leaf());
    let routelet = Routelet::start(&net, &host, ROUTELET, &[]);
    wait_for("the switch reaches the container", PATIENCE, || switch.pings("172.20.0.2").then_some(()));
    let (mut old, mut new) = (11, 12);
    // Removed before the new one is added, after it, and with a pause between.
    for order in ["del add", "add del", "del pause add", "del add"] {
        within(format!("traffic after {order}"), Duration::from_secs(2), || {
            let del = format!("addr del 10.0.0.{old}/24 dev eth0");
            let add = format!("addr add 10.0.0.{new}/24 dev eth0");
            host.sysctl("net.ipv4.conf.eth0.promote_secondaries", "1");
            match order {
                "del add" => drop((host.ip(&del), host.ip(&add))),
                "add del" => drop((host.ip(&add), host.ip(&del))),
                _ => {
                    host.ip(&del);
                    std::thread::sleep(Duration::from_secs(3));
                    host.ip(&add);
                }
            }
            let (start, former) = (Instant::now(), format!("10.0.0.{old} "));
            wait_for("the container by the new address alone", PATIENCE, || {
                let hops = next_hops(&switch);
                let right = hops.contains(&format!("10.0.0.{new} ")) && !hops.contains(&former);
                (right && switch.pings("172.20.0.2")).then_some(())
            });
            (old, new) = (new, if new == 12 { 11 } else { 12 });
            start.elapsed()
        });
    }
    let error = last_error(&routelet, "10.0.0.1");
    assert!(error.contains("local address 10.0.0.1") && error.contains("removed"), "{error}");
    assert!(drops(&routelet, "10.0.0.1")["address-removed"].as_u64() >= Some(3), "{error}");
    assert!(routelet.cli(&["show", "events", "-o", "wide"]).contains("local address 10.0.0.11 removed"));
}

/// The same over IPv6, where a prefix is renumbered: the neighbor forgets the former address at once.
#[test]
fn systemd_16071_another_ipv6_address_moves_the_session() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    switch.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    host.ip("addr add 2001:db8::11/64 dev eth0 nodad");
    host.ip("addr add 2001:db8:20::1/64 dev br-pod nodad");
    let frr = "router bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n bgp graceful-restart\n \
        neighbor hosts peer-group\n neighbor hosts remote-as external\n \
        bgp listen range 2001:db8::/64 peer-group hosts\n address-family ipv6 unicast\n  neighbor hosts activate\n";
    let frr = Frr::start(&net, &switch, frr);
    let config = ROUTELET.replace("10.0.0.1\"\nremote", "2001:db8::1\"\nremote");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let has = || switch.ip("-6 route show 2001:db8:20::/64").contains("via");
    wait_for("the switch has the route", PATIENCE, || has().then_some(()));
    let (mut old, mut new) = (11, 12);
    for first in ["del", "add", "del"] {
        within("one session, from the new address", Duration::from_secs(2), || {
            let del = format!("addr del 2001:db8::{old}/64 dev eth0");
            let add = format!("addr add 2001:db8::{new}/64 dev eth0 nodad");
            let order = if first == "del" { [&del, &add] } else { [&add, &del] };
            order.into_iter().for_each(|words| drop(host.ip(words)));
            let start = Instant::now();
            wait_for("the new address alone", PATIENCE, || {
                // The kernel's route leads to the link-local address, which stays: the table names the neighbor.
                let known = frr.vtysh("show bgp ipv6 unicast 2001:db8:20::/64");
                let moved = has() && known.contains(&format!("from 2001:db8::{new} "));
                (moved && !known.contains(&format!("2001:db8::{old} "))).then_some(())
            });
            (old, new) = (new, old);
            start.elapsed()
        });
    }
    let error = last_error(&routelet, "2001:db8::1");
    assert!(error.starts_with("local address 2001:db8::1") && error.contains("removed"), "{error}");
}

/// The same address gone and back: programs that configure interfaces do so.
#[test]
fn an_address_that_is_away_for_a_moment_ends_no_session() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    let _frr = Frr::start(&net, &switch, &leaf());
    let routelet = Routelet::start(&net, &host, ROUTELET, &[]);
    routelet.wait_established("10.0.0.1");
    for away in [0, 50, 1000] {
        host.ip("addr del 10.0.0.11/24 dev eth0");
        std::thread::sleep(Duration::from_millis(away));
        host.ip("addr add 10.0.0.11/24 dev eth0");
        wait_for("the switch reaches the container", PATIENCE, || switch.pings("172.20.0.2").then_some(()));
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(drops(&routelet, "10.0.0.1"), serde_json::json!({}));
}

/// The cable is out: the session ends by name, and is back with its routes as soon as the cable is.
fn link_flaps(routelet: &Routelet, switch: &Ns, host: &Ns) {
    let learned = || host.ip("route show proto 179").contains("10.60.0.0/24");
    wait_for("a learned route", PATIENCE, || learned().then_some(()));
    wait_for("the switch reaches the container", PATIENCE, || switch.pings("172.20.0.2").then_some(()));
    let ways: [(&Ns, &str); 2] = [(switch, "link eth0 lost carrier"), (host, "link eth0 was set down")];
    for (end, why) in ways {
        end.ip("link set eth0 down");
        wait_for("the session ends", 3.0, || (last_error(routelet, "10.0.0.1") == why).then_some(()));
        within("routes after the link is back", Duration::from_secs(4), || {
            end.ip("link set eth0 down");
            wait_for("no session", 3.0, || {
                (routelet.session("10.0.0.1").as_deref() != Some("established") && !learned()).then_some(())
            });
            end.ip("link set eth0 up");
            let start = Instant::now();
            wait_for("both ways again", PATIENCE, || (learned() && switch.pings("172.20.0.2")).then_some(()));
            start.elapsed()
        });
    }
    assert!(drops(routelet, "10.0.0.1")["link-down"].as_u64() >= Some(2));
}

#[test]
fn a_cable_that_is_out_is_named_and_frr_is_back_when_it_is() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    switch.ip("route add blackhole 10.60.0.0/24");
    let _frr = Frr::start(&net, &switch, &(leaf() + "  redistribute kernel\n"));
    let routelet = Routelet::start(&net, &host, ROUTELET, &[]);
    link_flaps(&routelet, &switch, &host);
}

#[test]
fn a_cable_that_is_out_is_named_and_bird_is_back_when_it_is() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    let bird = "router id 10.0.0.1; protocol device {} protocol kernel { ipv4 { export all; }; } \
        protocol static { ipv4; route 10.60.0.0/24 blackhole; } \
        protocol bgp { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; check link off; ipv4 { import all; export all; }; }";
    let _bird = Bird::start(&net, &switch, bird);
    let routelet = Routelet::start(&net, &host, ROUTELET, &[]);
    link_flaps(&routelet, &switch, &host);
}

/// eth0 becomes a port of a bridge that takes its address, as libvirt and netplan do it.
#[test]
fn an_address_that_moves_to_a_bridge_takes_the_session_along() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    let _frr = Frr::start(&net, &switch, &leaf());
    let routelet = Routelet::start(&net, &host, ROUTELET, &[]);
    wait_for("the switch reaches the container", PATIENCE, || switch.pings("172.20.0.2").then_some(()));
    host.ip("link add br-up type bridge");
    host.ip("link set br-up up");
    host.ip("link set eth0 master br-up");
    host.ip("addr del 10.0.0.11/24 dev eth0");
    host.ip("addr add 10.0.0.11/24 dev br-up");
    let moved = "local address 10.0.0.11 moved to br-up";
    wait_for("the session ends by name", 5.0, || (last_error(&routelet, "10.0.0.1") == moved).then_some(()));
    routelet.wait_established("10.0.0.1");
    wait_for("the switch reaches the container", PATIENCE, || switch.pings("172.20.0.2").then_some(()));
}

/// Two switches with the same route; one goes down with its link and stays away.
#[test]
fn frr_21742_a_stale_path_is_not_used_once_its_link_was_lost() {
    let mut net = Net::new();
    let (one, two, host) = (net.ns("one"), net.ns("two"), net.ns("host"));
    for (n, switch) in [(1, &one), (2, &two)] {
        net.link((switch, "eth0"), (&host, &format!("eth{n}")));
        switch.ip(&format!("addr add 10.{n}.0.1/24 dev eth0"));
        switch.ip("route add blackhole 10.60.0.0/24");
        host.ip(&format!("addr add 10.{n}.0.2/24 dev eth{n}"));
    }
    let leaf = |n: u32| {
        format!(
            "router bgp 65000\n bgp router-id 10.{n}.0.1\n no bgp ebgp-requires-policy\n bgp graceful-restart\n \
             neighbor 10.{n}.0.2 remote-as 65001\n timers bgp 3 9\n address-family ipv4 unicast\n  redistribute kernel\n"
        )
    };
    let (mut gone, _stays) = (Frr::start(&net, &one, &leaf(1)), Frr::start(&net, &two, &leaf(2)));
    for failover in ["true", "false"] {
        let neighbor = |n: u32| {
            format!(
                "[[bgp.neighbor]]\naddress = \"10.{n}.0.1\"\nremote-as = 65000\nfast-failover = {failover}\nhold-time = 3\n"
            )
        };
        let config = format!("[bgp]\nas = 65001\n{}{}[fib]\non-exit = \"flush\"\n", neighbor(1), neighbor(2));
        let mut routelet = Routelet::start(&net, &host, &config, &[]);
        let hops = || host.ip("route show 10.60.0.0/24").matches("via 10.").count();
        wait_for("two paths", PATIENCE, || (hops() == 2).then_some(()));
        host.ip("link set eth1 down");
        // The neighbor does not come back, and does not say so either.
        gone.pids().iter().for_each(|pid| {
            let _ = std::process::Command::new("kill").args(["-STOP", &pid.to_string()]).status();
        });
        let down = || routelet.session("10.1.0.1").as_deref() != Some("established");
        wait_for("the session is over", PATIENCE, || down().then_some(()));
        host.ip("link set eth1 up");
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            assert_eq!(hops(), 1, "fast-failover = {failover}: {}", host.ip("route show 10.60.0.0/24"));
            std::thread::sleep(Duration::from_millis(50));
        }
        gone.pids().iter().for_each(|pid| {
            let _ = std::process::Command::new("kill").args(["-CONT", &pid.to_string()]).status();
        });
        routelet.process.stop();
    }
    gone.kill();
}

/// dhcpcd#244: the client takes the default route away and adds it again.
#[test]
fn dhcpcd_244_a_short_gap_of_the_default_route_ends_no_gateway_session() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    switch.ip("route add blackhole 10.60.0.0/24");
    let _frr = Frr::start(&net, &switch, &(leaf() + "  redistribute kernel\n"));
    host.ip("route add default via 10.0.0.1");
    let config = ROUTELET.replace("address = \"10.0.0.1\"", "address = \"gateway\"");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    routelet.wait_established("10.0.0.1");
    let learned = || host.ip("route show proto 179").contains("10.60.0.0/24");
    wait_for("a learned route", PATIENCE, || learned().then_some(()));
    let probe = Probe::start_when_reached(&net, &switch, "172.20.0.2");
    for away in [0, 50, 1000, 4000] {
        host.ip("route del default");
        std::thread::sleep(Duration::from_millis(away));
        assert!(learned(), "{away} ms");
        host.ip("route add default via 10.0.0.1");
    }
    probe.goes_on();
    probe.lost_nothing();
    assert_eq!(drops(&routelet, "10.0.0.1"), serde_json::json!({}));
    // It is over with the link at once, and after ten seconds without the route.
    host.ip("route del default");
    let gone = || routelet.session("10.0.0.1").is_none();
    within("no neighbor without a default route", Duration::from_secs(13), || {
        let start = Instant::now();
        wait_for("no neighbor", PATIENCE, || gone().then(|| start.elapsed()))
    });
}

/// An iBGP neighbor behind a link that was out for a moment is asked, and its routes wait for the answer.
#[test]
fn an_ibgp_session_lives_over_a_short_loss_of_its_link() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    switch.ip("route add blackhole 10.60.0.0/24");
    let frr = "router bgp 65001\n bgp router-id 10.0.0.1\n neighbor 10.0.0.11 remote-as 65001\n \
        address-family ipv4 unicast\n  redistribute kernel\n  neighbor 10.0.0.11 next-hop-self\n";
    let frr = Frr::start(&net, &switch, frr);
    let config = ROUTELET.replace("remote-as = 65000", "remote-as = \"internal\"");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let learned = || host.ip("route show proto 179").contains("10.60.0.0/24");
    wait_for("a learned route", PATIENCE, || learned().then_some(()));
    within("the route is back with the link", Duration::from_secs(3), || {
        switch.ip("link set eth0 down");
        wait_for("no route", 3.0, || (!learned()).then_some(()));
        switch.ip("link set eth0 up");
        let start = Instant::now();
        wait_for("the route", PATIENCE, || learned().then(|| start.elapsed()))
    });
    assert_eq!(drops(&routelet, "10.0.0.1"), serde_json::json!({}), "one session all the time");

    // The neighbor has stopped when the link is back: its routes stay out, and it is given up.
    switch.ip("link set eth0 down");
    wait_for("no route", 3.0, || (!learned()).then_some(()));
    switch.ip("addr del 10.0.0.1/24 dev eth0");
    switch.ip("link set eth0 up");
    let start = Instant::now();
    wait_for("the session is given up", 20.0, || {
        assert!(!learned(), "held until the neighbor answers");
        (last_error(&routelet, "10.0.0.1") == "link eth0 lost carrier").then_some(())
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(frr);
}

/// The link-local address of a host changes: another MAC address, another way to make it.
#[test]
fn a_link_local_session_follows_the_link_local_address() {
    let mut net = Net::new();
    let (switch, host) = stage(&mut net);
    switch.ip("addr add fe80::1/64 dev eth0 nodad");
    host.ip("addr flush dev eth0 scope link");
    host.ip("addr add fe80::11/64 dev eth0 nodad");
    let frr = "router bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n \
        neighbor fe80::11 remote-as 65001\n neighbor fe80::11 interface eth0\n \
        neighbor fe80::12 remote-as 65001\n neighbor fe80::12 interface eth0\n \
        address-family ipv6 unicast\n  neighbor fe80::11 activate\n  neighbor fe80::12 activate\n";
    let _frr = Frr::start(&net, &switch, frr);
    let config = ROUTELET.replace("10.0.0.1\"\nremote", "fe80::1%eth0\"\nremote");
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let key = "fe80::1%eth0";
    routelet.wait_established(key);
    host.ip("addr del fe80::11/64 dev eth0");
    host.ip("addr add fe80::12/64 dev eth0 nodad");
    wait_for("the session ends by name", 5.0, || {
        last_error(&routelet, key).starts_with("local address fe80::11 removed").then_some(())
    });
    routelet.wait_established(key);
    let local = routelet.json(&["show", "neighbor", key])["local_address"].as_str().map(str::parse::<IpAddr>);
    assert_eq!(local, Some(Ok("fe80::12".parse().unwrap())));
}

/// Two routelets of one AS; `at` are the addresses of each that its session is to use, and that the other one knows.
fn speakers(net: &mut Net) -> [(Ns, Routelet); 2] {
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    for (ns, own) in [(&a, 1), (&b, 2)] {
        ns.ip(&format!("addr add 10.0.0.{own}/24 dev eth0"));
        ns.ip(&format!("addr add 10.0.0.{own}1/24 dev eth0"));
    }
    let (ra, rb) = (
        Routelet::start(net, &a, &peer(1, "1", "2"), &[]),
        Routelet::start(net, &b, &peer(2, "2", "1"), &[]),
    );
    [(a, ra), (b, rb)]
}

fn peer(own: u32, local: &str, remote: &str) -> String {
    format!(
        "[bgp]\nas = 65001\nrouter-id = \"10.0.0.{own}\"\n[[bgp.neighbor]]\naddress = \"10.0.0.{remote}\"\nremote-as = 65001\n\
         local-address = \"10.0.0.{local}\"\n[advertise]\nnetworks = [\"10.6{own}.0.0/24\"]\n"
    )
}

/// A neighbor that is reached at another of its addresses, ours or both: no route leaves the kernel meanwhile.
#[test]
fn a_neighbor_that_moves_to_another_address_costs_no_route() {
    let mut net = Net::new();
    let [(a, ra), (b, rb)] = speakers(&mut net);
    for (ns, theirs) in [(&a, "10.62.0.0/24"), (&b, "10.61.0.0/24")] {
        wait_for("a learned route", PATIENCE, || {
            ns.ip("route show proto 179").contains(theirs).then_some(())
        });
    }
    let watch = |ns: &Ns| {
        let log = net.dir().join(format!("monitor-{}", ns.name));
        Process::start(ns.command("ip").args(["monitor", "route"]), &log)
    };
    let monitors = [watch(&a), watch(&b)];
    // Which of the two addresses each uses, who hears of it first, and how much later the other does.
    let moves = [("1", "21"), ("11", "21"), ("11", "2"), ("1", "2"), ("11", "21"), ("1", "2")];
    for (n, (at_a, at_b)) in moves.into_iter().enumerate() {
        ra.configure(&peer(1, at_a, at_b));
        rb.configure(&peer(2, at_b, at_a));
        let order = if n % 2 == 0 { [&ra, &rb] } else { [&rb, &ra] };
        order[0].cli(&["reload", "--force"]);
        std::thread::sleep(Duration::from_millis(150 * (n as u64 % 3)));
        order[1].cli(&["reload", "--force"]);
        let local = |r: &Routelet, remote: &str| {
            let view = r.json(&["show", "neighbor", &format!("10.0.0.{remote}")]);
            (view["state"] == "established")
                .then(|| view["local_address"].as_str().map(str::to_owned))
                .flatten()
        };
        wait_for(format!("move {n} is done"), PATIENCE, || {
            let done = local(&ra, at_b)? == format!("10.0.0.{at_a}")
                && local(&rb, at_a)? == format!("10.0.0.{at_b}");
            let alone = |r: &Routelet| r.json(&["show", "neighbors"]).as_array().map(Vec::len) == Some(1);
            (done && alone(&ra) && alone(&rb)).then_some(())
        });
    }
    for (monitor, theirs) in monitors.into_iter().zip(["10.62.0.0/24", "10.61.0.0/24"]) {
        let printed = monitor.printed();
        assert!(!printed.contains(&format!("Deleted {theirs}")), "{printed}");
    }
    for (ns, theirs) in [(&a, "10.62.0.0/24"), (&b, "10.61.0.0/24")] {
        assert!(ns.ip("route show proto 179").contains(theirs));
    }
}
