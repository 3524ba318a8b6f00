//! Failures that users of other programs reported (`docs/troubles.md`), on one host.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    common::{
        daemons::{Frr, Routelet},
        net::{Net, Ns},
        speaker::{Speaker, attributes, end_of_rib, update},
        wait_for, within,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, learn, net24, ours},
};

fn learned(host: &Ns) -> usize {
    ours(host).matches("10.60.").count()
}

fn wait_learned(host: &Ns, count: usize) -> Instant {
    wait_for(format!("{count} routes"), 30.0, || (learned(host) == count).then(Instant::now))
}

/// kube-router#509, flannel#1070: the kernel takes routes away with the link, and nobody put them back.
#[test]
fn kube_router_509_link_flap_brings_routes_back_at_once() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let config = CONFIG.replacen("remote-as", "fast-failover = false\nremote-as", 1);
    let routelet = Routelet::start(&net, &host, &config, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &(0..200).map(net24).collect::<Vec<_>>());
    wait_learned(&host, 200);
    within("200 routes after `ip link set eth0 up`", Duration::from_secs(1), || {
        host.ip("link set eth0 down");
        wait_learned(&host, 0);
        host.ip("link set eth0 up");
        let start = Instant::now();
        wait_learned(&host, 200) - start
    });
    // The other end of the cable: routes with their only way gone must not stay, and come back with it.
    switch.ip("link set eth0 down");
    wait_learned(&host, 0);
    switch.ip("link set eth0 up");
    wait_learned(&host, 200);
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"), "one session all the time");
    assert!(ours(&host).contains("10.50.0.0/24"));
}

/// What `systemctl restart systemd-networkd` does to what it has not configured itself (systemd#29716).
fn tidy_up_foreign_things(host: &Ns) {
    for family in ["-4", "-6"] {
        host.ip(&format!("{family} route flush proto 179"));
        host.sh(&format!("ip {family} rule | grep -v 'lookup local\\|lookup main\\|lookup default' | cut -d: -f1 | xargs -r -n1 ip {family} rule del pref"));
    }
    host.ip("nexthop flush");
}

fn repairs(host: &Ns) -> f64 {
    let page = host.sh("curl -s --max-time 10 http://127.0.0.1:9179/metrics");
    let line = page.lines().find(|l| l.starts_with("routelet_fib_repairs_total")).expect("the counter");
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn kube_router_1815_what_systemd_networkd_deletes_is_back_at_once_and_counted() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    // With 1 `ip route flush` fails on what it read itself.
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    let config = format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:9179\"\n");
    let _routelet = Routelet::start(&net, &host, &config, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &(0..200).map(net24).collect::<Vec<_>>());
    wait_learned(&host, 200);
    assert!(!host.ip("rule").contains("179"), "there is no rule of ours to lose");
    host.ip("rule add from 203.0.113.7 lookup 100 pref 77");

    let mut before = repairs(&host);
    assert_eq!(before, 0.0, "nothing was repaired without need");
    within("all of it after a restart of networkd", Duration::from_millis(250), || {
        tidy_up_foreign_things(&host);
        let start = Instant::now();
        let all = || learned(&host) == 200 && ours(&host).contains("10.50.0.0/24");
        wait_for("all routes again", 30.0, || all().then_some(()));
        let took = start.elapsed();
        let counted = wait_for("the repairs are counted", 30.0, || {
            Some(repairs(&host)).filter(|now| *now >= before + 201.0)
        });
        before = counted;
        took
    });
    assert!(!host.ip("rule").contains("203.0.113.7"), "others' rules are others' business");
}

/// kube-router#1738: its memory of routes was not the table, and brought back what had been withdrawn.
#[test]
fn kube_router_1738_a_withdrawn_route_never_comes_back() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let config = CONFIG.replacen("remote-as", "fast-failover = false\nremote-as", 1);
    let mut routelet = Routelet::start(&net, &host, &config, &[]);
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &[net24(1), net24(2), net24(3)]);
    wait_learned(&host, 3);
    let withdraw = |speaker: &mut Speaker, n| speaker.send(&update(&[net24(n)], &[], &[]));
    let has = |n: u8| ours(&host).contains(&format!("10.60.{n}.0/24"));

    withdraw(&mut speaker, 1);
    wait_learned(&host, 2);
    // Everything that makes routes be written again.
    host.sysctl("net.ipv4.nexthop_compat_mode", "0");
    host.ip("route flush proto 179");
    wait_learned(&host, 2);
    // While the link is down there is no route to take away.
    host.ip("link set eth0 down");
    wait_learned(&host, 0);
    host.ip("link set eth0 up");
    withdraw(&mut speaker, 2);
    wait_for("one is left", 30.0, || (has(3) && !has(2)).then_some(()));
    host.ip("nexthop flush");
    wait_for("it is back", 30.0, || has(3).then_some(()));
    assert!(!has(1) && !has(2), "{}", ours(&host));
    // A route that is gone from the table is gone from the kernel after a crash, too.
    routelet.process.kill();
    drop(speaker);
    routelet.restart();
    let mut speaker = Speaker::dial(&switch, HOST).unwrap();
    speaker.establish(10000, 90, SWITCH);
    learn(&mut speaker, &[net24(4)]);
    wait_for("the sweep", 30.0, || (has(4) && !has(3)).then_some(()));
    assert_eq!(learned(&host), 1);
}

/// A switch that announces default routes and the host's own subnet in both families.
fn generous_switch(net: &Net, switch: &Ns, host: &Ns) -> Frr {
    switch.ip("addr add fd01::1/64 dev eth0 nodad");
    host.ip("addr add fd01::2/64 dev eth0 nodad");
    host.ip("-6 route add default via fd01::1");
    Frr::start(
        net,
        switch,
        "router bgp 10000\n bgp router-id 10.1.1.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor 10.1.1.2 remote-as 1000\n neighbor fd01::2 remote-as 1000\n address-family ipv4 unicast\n  \
         network 0.0.0.0/0\n  network 10.1.1.0/30\n  network 10.77.0.0/16\n exit-address-family\n \
         address-family ipv6 unicast\n  neighbor fd01::2 activate\n  network ::/0\n  network fd01::/64\n  \
         network fd77::/48\n exit-address-family\n",
    )
}

const BOTH: &str =
    "[[bgp.neighbor]]\naddress = \"fd01::1\"\nremote-as = 10000\nfamilies = [\"ipv6-unicast\"]\n";

fn all_routes(host: &Ns) -> [String; 2] {
    ["-4", "-6"].map(|family| {
        let all = host.ip(&format!("{family} route show"));
        all.lines().filter(|l| !l.contains("proto 179")).map(|l| format!("{l}\n")).collect()
    })
}

/// kube-router#584: a learned default route took the place of the host's, and its end left the node without one.
#[test]
fn kube_router_584_learned_default_and_connected_routes_never_replace_the_hosts() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let frr = generous_switch(&net, &switch, &host);
    let before = all_routes(&host);
    // Also where a default route is asked for.
    for wanted in ["", "accept-default = true\n"] {
        let config = CONFIG.replace("remote-as = 10000\n", &format!("remote-as = 10000\n{wanted}"));
        let mut routelet = Routelet::start(&net, &host, &config, &[]);
        routelet.wait_established("10.1.1.1");
        wait_for("the ordinary one", 30.0, || ours(&host).contains("10.77.0.0/16").then_some(()));
        wait_for("default as asked", 30.0, || {
            (ours(&host).contains("default") != wanted.is_empty()).then_some(())
        });
        assert!(!ours(&host).contains("10.1.1.0/30"), "{}", ours(&host));
        assert_eq!(all_routes(&host), before);
        assert!(host.ip("route get 203.0.113.9").contains("via 10.1.1.1"));
        // Withdrawn again, and the daemon gone for good: the host's own stay.
        frr.configure(&["router bgp 10000", "address-family ipv4 unicast", "no network 0.0.0.0/0"]);
        wait_for("withdrawn", 30.0, || (!ours(&host).contains("default")).then_some(()));
        assert_eq!(all_routes(&host), before);
        frr.configure(&["router bgp 10000", "address-family ipv4 unicast", "network 0.0.0.0/0"]);
        routelet.process.stop();
        // With 1 `ip route flush` fails on what it read itself.
        host.sysctl("net.ipv4.nexthop_compat_mode", "0");
        host.ip("route flush proto 179");
        host.ip("nexthop flush");
        assert_eq!(all_routes(&host), before);
    }
}

/// The same policy for both families by construction.
#[test]
fn kube_router_an_ipv6_default_route_is_refused_as_one_of_ipv4_is() {
    let mut net = Net::new();
    let (switch, host) = host_and_switch(&mut net);
    let _frr = generous_switch(&net, &switch, &host);
    let before = all_routes(&host);
    let routelet = Routelet::start(&net, &host, &format!("{CONFIG}{BOTH}"), &[]);
    routelet.wait_established("10.1.1.1");
    routelet.wait_established("fd01::1");
    let ours = |family: &str| host.ip(&format!("{family} route show proto 179"));
    wait_for("ordinary ones", 30.0, || {
        (ours("-4").contains("10.77.0.0/16") && ours("-6").contains("fd77::/48")).then_some(())
    });
    for (neighbor, refused) in
        [("10.1.1.1", ["0.0.0.0/0", "10.1.1.0/30"]), ("fd01::1", ["::/0", "fd01::/64"])]
    {
        let routes = routelet.json(&["show", "routes", "--received", neighbor]);
        for prefix in refused {
            let path = routes.as_array().unwrap().iter().find(|r| r["prefix"] == prefix).expect(prefix);
            assert!(path["reason"].as_str().unwrap().starts_with("guard"), "{path}");
        }
    }
    assert_eq!(all_routes(&host), before);
    assert!(!ours("-6").contains("default") && !ours("-4").contains("default"));
}

/// kube-router#410: a dual-homed node learned two paths and installed one.
#[test]
fn kube_router_410_both_ways_of_a_dual_homed_host_are_in_the_kernel() {
    let mut net = Net::new();
    let (left, right, host) = (net.ns("left"), net.ns("right"), net.ns("host"));
    for (n, switch) in [(1, &left), (2, &right)] {
        net.link((switch, "eth0"), (&host, &format!("eth{n}")));
        switch.ip(&format!("addr add 10.1.{n}.1/30 dev eth0"));
        host.ip(&format!("addr add 10.1.{n}.2/30 dev eth{n}"));
    }
    let neighbor = |n: u8| {
        format!("[[bgp.neighbor]]\naddress = \"10.1.{n}.1\"\nremote-as = {}\n", 10_000 + u32::from(n))
    };
    let config = format!("[bgp]\nas = 1000\nrouter-id = \"10.1.1.2\"\n{}{}", neighbor(1), neighbor(2));
    let _routelet = Routelet::start(&net, &host, &config, &[]);
    let say = |switch: &Ns, n: u8| {
        let at = Ipv4Addr::new(10, 1, n, 1);
        let mut speaker = Speaker::dial(switch, Ipv4Addr::new(10, 1, n, 2).into()).unwrap();
        let asn = 10_000 + u32::from(n);
        speaker.establish(asn, 90, at);
        speaker.send(&update(&[], &attributes(&[asn], at, 0), &[net24(7)]));
        speaker.send(&end_of_rib());
        speaker
    };
    let (_one, two) = (say(&left, 1), say(&right, 2));
    let ways = || {
        let shown = host.ip("route show 10.60.7.0/24 proto 179");
        ["10.1.1.1", "10.1.2.1"].map(|via| shown.contains(&format!("via {via} ")))
    };
    wait_for("both ways", 30.0, || (ways() == [true, true]).then_some(()));
    drop(two);
    wait_for("one way", 30.0, || (ways() == [true, false]).then_some(()));
    let _two = say(&right, 2);
    wait_for("both ways again", 30.0, || (ways() == [true, true]).then_some(()));
}
