//! Default routes in every form, as they come and go while the daemon runs.

use crate::{
    common::{daemons::Routelet, net::Net, wait_for},
    uplinks::{GATEWAY, neighbors},
};

/// Each adds a default route, with what has to be there before; and the neighbors that it makes.
const FORMS: [(&str, &[&str], &[&str]); 12] = [
    ("a metric", &["route add default via 10.1.0.1 metric 100"], &["10.1.0.1"]),
    ("a better one, later", &["route add default via 10.2.0.1 metric 50"], &["10.2.0.1"]),
    (
        "several next hops",
        &["route add default metric 200 nexthop via 10.1.0.3 nexthop via 10.2.0.3"],
        &["10.1.0.3", "10.2.0.3"],
    ),
    ("onlink", &["route add default via 172.31.1.1 dev eth0 onlink metric 300"], &["172.31.1.1"]),
    (
        "by a link route to a /32",
        &["route add 172.31.2.1 dev eth1", "route add default via 172.31.2.1 dev eth1 metric 400"],
        &["172.31.2.1"],
    ),
    (
        "on a /31",
        &["addr add 10.3.0.0/31 dev eth0", "route add default via 10.3.0.1 metric 500"],
        &["10.3.0.1"],
    ),
    ("IPv6", &["-6 route add default via fd00:1::1 metric 100"], &["fd00:1::1"]),
    ("link-local", &["-6 route add default via fe80::1 dev eth1 metric 200 proto static"], &["fe80::1%eth1"]),
    (
        "the same address on the other link, by router advertisement",
        &["-6 route add default via fe80::1 dev eth0 metric 300 proto ra"],
        &["fe80::1%eth0"],
    ),
    (
        "IPv4 over an IPv6 next hop",
        &["route add default via inet6 fe80::5 dev eth0 metric 600"],
        &["fe80::5%eth0"],
    ),
    (
        "a nexthop object",
        &["nexthop add id 7 via 10.1.0.7 dev eth0", "route add default nhid 7 metric 700"],
        &["10.1.0.7"],
    ),
    (
        "none: no next hop, an own address, another table",
        &[
            "route add blackhole default metric 800",
            "route add default dev eth1 metric 801",
            "route add default via 10.1.0.99 table 100",
        ],
        &[],
    ),
];

#[test]
fn default_routes_in_every_form_are_neighbors_and_are_followed() {
    let mut net = Net::new();
    let (host, switch) = (net.ns("host"), net.ns("switch"));
    for n in [1, 2] {
        let name = format!("eth{}", n - 1);
        net.link((&host, &name), (&switch, &format!("port{n}")));
        host.ip(&format!("addr add 10.{n}.0.2/24 dev {name}"));
        host.ip(&format!("addr add fd00:{n}::2/64 dev {name} nodad"));
    }
    let routelet = Routelet::start(&net, &host, GATEWAY, &[]);
    let mut expected = Vec::new();
    for (form, commands, gateways) in FORMS {
        commands.iter().for_each(|command| drop(host.ip(command)));
        expected.extend(gateways.iter().map(|g| (*g).to_owned()));
        expected.sort();
        wait_for(format!("{form}: {expected:?}"), 5.0, || (neighbors(&routelet) == expected).then_some(()));
    }

    // Another lease: the new gateway is there at once, the former one goes after a while.
    host.ip("route replace default via 10.1.0.11 metric 100");
    let has = |address: &str| neighbors(&routelet).iter().any(|n| n == address);
    wait_for("the new gateway", 5.0, || has("10.1.0.11").then_some(()));
    wait_for("the former one goes", 20.0, || (!has("10.1.0.1")).then_some(()));
    // A link that goes takes its gateways with it at once, and no others.
    host.ip("link set eth1 down");
    wait_for("gateways of the link go", 5.0, || {
        (!has("10.2.0.1") && !has("172.31.2.1") && !has("fe80::1%eth1") && !has("10.2.0.3")).then_some(())
    });
    for gateway in ["10.1.0.11", "172.31.1.1", "10.3.0.1", "fd00:1::1", "fe80::1%eth0", "10.1.0.7"] {
        assert!(has(gateway), "{gateway}: {:?}", neighbors(&routelet));
    }
}
