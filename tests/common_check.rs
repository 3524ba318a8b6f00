mod common;
use common::{daemons::*, net::Net, wait_for};

#[test]
fn frr_and_bird_talk_to_each_other() {
    let mut net = Net::new();
    let (a, b) = (net.ns("a"), net.ns("b"));
    net.link((&a, "eth0"), (&b, "eth0"));
    a.ip("addr add 10.0.0.1/30 dev eth0");
    b.ip("addr add 10.0.0.2/30 dev eth0");
    let frr = Frr::start(
        &net,
        &a,
        "router bgp 1\n no bgp ebgp-requires-policy\n neighbor 10.0.0.2 remote-as 2\n address-family ipv4 unicast\n  network 10.7.0.0/24\n no bgp network import-check\n",
    );
    let bird = Bird::start(
        &net,
        &b,
        "router id 10.0.0.2; protocol device {} protocol kernel { ipv4 { export all; }; } protocol bgp { local 10.0.0.2 as 2; neighbor 10.0.0.1 as 1; ipv4 { import all; export all; }; }",
    );
    wait_for("route", 30.0, || b.ip("route show proto bird").contains("10.7.0.0/24").then_some(()));
    println!("{} {}", frr.vtysh("show bgp summary"), bird.birdc("show protocols"));
    assert!(b.pings("10.0.0.1"));
}
