//! `interface = …` with other implementations: who finds whom, and how routes of both families arrive.

use std::{fs, time::Instant};

use crate::{
    common::{
        Process,
        daemons::{Bird, Frr, Routelet},
        net::{Net, Ns},
        wait_for,
    },
    others::gobgp,
};

/// A host that advertises a subnet of each family, from addresses on `lo`, and looks for neighbors on `eth*`.
fn host(net: &Net, ns: &Ns) -> Routelet {
    ns.ip("addr add 192.0.2.1/32 dev lo");
    ns.ip("addr add 2001:db8:ffff::1/128 dev lo nodad");
    let config =
        "[bgp]\nas = 65001\n[[bgp.neighbor]]\ninterface = \"eth*\"\n[advertise]\ninterfaces = [\"lo\"]\n";
    Routelet::start(net, ns, config, &[])
}

fn frr(asn: u32, n: u8) -> String {
    format!(
        "debug bgp neighbor-events\nrouter bgp {asn}\n bgp router-id 10.0.0.{n}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp bestpath as-path multipath-relax\n \
         neighbor port1 interface remote-as external\n neighbor port1 timers 3 9\n neighbor port1 timers connect 2\n \
         address-family ipv4 unicast\n  network 10.200.0.0/16\n exit-address-family\n \
         address-family ipv6 unicast\n  network 2001:db8:200::/48\n  neighbor port1 activate\n exit-address-family\n"
    )
}

fn up(routelet: &Routelet, interface: &str) -> serde_json::Value {
    let all = routelet.json(&["show", "neighbors"]);
    let found = all.as_array().unwrap().iter().find(|n| n["interface"] == interface);
    found.cloned().unwrap_or_default()
}

fn wait_up(routelet: &Routelet, interface: &str) {
    wait_for(format!("a session on {interface}"), 60.0, || {
        (up(routelet, interface)["state"] == "established").then_some(())
    });
}

fn routes(ns: &Ns) -> String {
    ns.ip("route show proto 179") + &ns.ip("-6 route show proto 179")
}

#[test]
fn two_frr_leaves_are_used_together_and_one_that_is_cut_off_is_left_at_once() {
    let mut net = Net::new();
    let (ns, one, two) = (net.ns("host"), net.ns("leaf1"), net.ns("leaf2"));
    net.link((&one, "port1"), (&ns, "eth0"));
    net.link((&two, "port1"), (&ns, "eth1"));
    let leaves = [(&one, 10001, 1), (&two, 10002, 2)];
    let daemons = leaves.map(|(leaf, asn, n)| {
        leaf.ip("addr add 10.200.0.1/32 dev lo");
        leaf.ip("addr add 2001:db8:200::1/128 dev lo nodad");
        Frr::start(&net, leaf, &frr(asn, n))
    });
    let started = Instant::now();
    let routelet = host(&net, &ns);
    wait_up(&routelet, "eth0");
    wait_up(&routelet, "eth1");
    println!("both sessions {:?} after the start", started.elapsed());
    let both = |text: &str| text.contains("dev eth0") && text.contains("dev eth1");
    wait_for("both families over both links", 20.0, || {
        let hops = |family: &str, prefix: &str| ns.ip(&format!("{family} route show {prefix}"));
        let v4 = hops("-4", "10.200.0.0/16");
        (both(&v4) && v4.contains("via inet6 fe80::") && both(&hops("-6", "2001:db8:200::/48"))).then_some(())
    });
    for (leaf, ..) in leaves {
        wait_for("the leaf has the host's addresses", 20.0, || {
            let v4 = leaf.ip("route show 192.0.2.1");
            let v6 = leaf.ip("-6 route show 2001:db8:ffff::1");
            (v4.contains("via inet6 fe80::") && v6.contains("via fe80::")).then_some(())
        });
    }
    let ping = |dest: &str, from: &str| ns.sh(&format!("ping -n -c1 -W1 -I {from} {dest} || true"));
    let reaches = |dest: &str, from: &str| ping(dest, from).contains("1 received");
    wait_for("IPv4", 10.0, || reaches("10.200.0.1", "192.0.2.1").then_some(()));
    wait_for("IPv6", 10.0, || reaches("2001:db8:200::1", "2001:db8:ffff::1").then_some(()));

    one.ip("link set port1 down");
    let cut = Instant::now();
    wait_for("only the other link is used", 5.0, || {
        let text = ns.ip("route show 10.200.0.0/16");
        (text.contains("dev eth1") && !text.contains("dev eth0")).then_some(())
    });
    println!("left the cut link {:?} after the cut", cut.elapsed());
    assert!(reaches("10.200.0.1", "192.0.2.1"));
    one.ip("link set port1 up");
    wait_up(&routelet, "eth0");
    wait_for("both links again", 20.0, || both(&ns.ip("route show 10.200.0.0/16")).then_some(()));
    drop(daemons);
}

/// FRR sends TTL 1 by default, and 255 with `ttl-security`: both must work.
#[test]
fn frr_with_ttl_security_and_a_password_takes_the_session() {
    let mut net = Net::new();
    let (ns, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&leaf, "port1"), (&ns, "eth0"));
    let text = frr(10001, 1).replace(
        " address-family ipv4",
        " neighbor port1 ttl-security hops 1\n neighbor port1 password sesame\n address-family ipv4",
    );
    let _frr = Frr::start(&net, &leaf, &text);
    let config = "[bgp]\nas = 65001\nrouter-id = \"192.0.2.1\"\n[[bgp.neighbor]]\ninterface = \"eth0\"\n\
                  password = \"sesame\"\n";
    let routelet = Routelet::start(&net, &ns, config, &[]);
    wait_up(&routelet, "eth0");
    let security = up(&routelet, "eth0")["ttl_security"].clone();
    assert!(security.as_str().is_some_and(|s| s.starts_with("enforced")), "{security}");
}

#[test]
fn bird_with_router_advertisements_is_found() {
    let mut net = Net::new();
    let (ns, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&leaf, "port1"), (&ns, "eth0"));
    let config = "router id 10.0.0.2;\nprotocol device {}\n\
         protocol kernel { ipv4 { export all; }; }\nprotocol kernel { ipv6 { export all; }; }\n\
         protocol static { ipv4; route 10.200.0.0/16 unreachable; }\n\
         protocol static { ipv6; route 2001:db8:200::/48 unreachable; }\n\
         protocol radv { interface \"port1\" { max ra interval 600; }; }\n\
         protocol bgp hosts { local as 10001; neighbor range fe80::/10 external; interface \"port1\"; \
         ipv4 { import all; export where source = RTS_STATIC; extended next hop on; }; \
         ipv6 { import all; export where source = RTS_STATIC; }; }\n";
    let bird = Bird::start(&net, &leaf, config);
    let routelet = host(&net, &ns);
    wait_up(&routelet, "eth0");
    wait_for("routes of both families", 20.0, || {
        let text = routes(&ns);
        (text.contains("via inet6 fe80::")
            && text.contains("10.200.0.0/16")
            && text.contains("2001:db8:200::/48"))
        .then_some(())
    });
    wait_for("the leaf has both addresses", 20.0, || {
        let text = bird.birdc("show route all");
        (text.contains("192.0.2.1/32") && text.contains("2001:db8:ffff::1/128")).then_some(())
    });
}

/// GoBGP sends no advertisements: it takes the neighbor from the kernel's table, which ours fill, and is found by its
/// connection.
#[test]
fn gobgp_finds_us_by_our_advertisements_and_is_found_by_its_connection() {
    let mut net = Net::new();
    let (ns, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&leaf, "port1"), (&ns, "eth0"));
    let routelet = host(&net, &ns);
    wait_for("the kernel of the leaf knows the host", 30.0, || {
        leaf.ip("-6 neigh show dev port1").contains("fe80::").then_some(())
    });
    let conf = net.dir().join("gobgpd.toml");
    fs::write(
        &conf,
        "[global.config]\nas = 10001\nrouter-id = \"10.0.0.2\"\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-interface = \"port1\"\npeer-as = 65001\n[neighbors.timers.config]\nconnect-retry = 2\n\
         idle-hold-time-after-reset = 2\n[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
         afi-safi-name = \"ipv4-unicast\"\n[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
         afi-safi-name = \"ipv6-unicast\"\n",
    )
    .unwrap();
    let mut command = leaf.command(gobgp("gobgpd").to_str().unwrap());
    command.arg("-f").arg(&conf).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
    let _gobgp = Process::start(&mut command, &net.dir().join("gobgpd.log"));
    wait_up(&routelet, "eth0");
    let client = gobgp("gobgp");
    let shown = |args: &str| leaf.sh(&format!("{} -u 127.0.0.1 -p 50051 {args} || true", client.display()));
    wait_for("GoBGP has both addresses", 20.0, || {
        let v4 = shown("global rib -a ipv4").contains("192.0.2.1/32");
        (v4 && shown("global rib -a ipv6").contains("2001:db8:ffff::1/128")).then_some(())
    });
}

/// Without RFC 8950 at the other end IPv4 cannot be advertised over a link without IPv4 addresses.
#[test]
fn without_rfc_8950_ipv4_is_not_advertised_and_show_neighbor_reports_it() {
    let mut net = Net::new();
    let (ns, leaf) = (net.ns("host"), net.ns("leaf"));
    net.link((&leaf, "port1"), (&ns, "eth0"));
    let config = "router id 10.0.0.2;\nprotocol device {}\nprotocol radv { interface \"port1\"; }\n\
         protocol bgp hosts { local as 10001; neighbor range fe80::/10 external; interface \"port1\"; \
         ipv4 { import all; export none; }; ipv6 { import all; export none; }; }\n";
    let bird = Bird::start(&net, &leaf, config);
    let routelet = host(&net, &ns);
    wait_up(&routelet, "eth0");
    wait_for("the leaf has IPv6", 20.0, || {
        bird.birdc("show route").contains("2001:db8:ffff::1/128").then_some(())
    });
    assert!(!bird.birdc("show route").contains("192.0.2.1/32"));
    let text = routelet.cli(&["show", "neighbor", "eth0"]);
    assert!(text.contains("8950"), "{text}");
}
