//! Who shares a neighbor's address, or sends a router advertisement, becomes no neighbor and takes no session.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        speaker::{self, Speaker, attributes, message, update},
        wait_for,
    },
    uplinks::advertise,
};

const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const ASN: u32 = 65001;
const ROUTE: &str = "198.51.100.0/24";

fn config(keys: &str) -> String {
    format!("[bgp]\nas = 1000\nconnect-retry-time = 1\n[[bgp.neighbor]]\n{keys}remote-as = \"external\"\n")
}

const GATEWAY: &str = "address = \"gateway\"\n";

/// A host, its switch 10.1.1.1, and a container behind the masquerade of the switch.
fn rack(net: &mut Net) -> (Ns, Ns, Ns) {
    let (host, switch, container) = (net.ns("host"), net.ns("switch"), net.ns("container"));
    net.link((&switch, "port1"), (&host, "eth0"));
    net.link((&switch, "veth1"), (&container, "eth0"));
    switch.ip("addr add 10.1.1.1/24 dev port1");
    switch.ip("addr add 172.20.0.1/24 dev veth1");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("route add default via 10.1.1.1");
    container.ip("addr add 172.20.0.2/24 dev eth0");
    container.ip("route add default via 172.20.0.1");
    switch.sysctl("net.ipv4.ip_forward", "1");
    masquerade(&switch, "172.20.0.0/24");
    (host, switch, container)
}

fn masquerade(ns: &Ns, from: &str) {
    ns.sh(&format!(
        "nft 'add table ip nat; add chain ip nat post {{ type nat hook postrouting priority 100; }}; \
         add rule ip nat post ip saddr {from} masquerade'"
    ));
}

/// A connection whose packets leave with this TTL, from the first on.
fn dial(ns: &Ns, to: Ipv4Addr, port: u16, ttl: u32) -> std::io::Result<TcpStream> {
    ns.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_ttl_v4(ttl)?;
        socket.connect_timeout(&SocketAddr::new(IpAddr::V4(to), port).into(), Duration::from_secs(2))?;
        Ok(socket.into())
    })
}

/// Where the switch listens; its connections have its TTL.
fn listen(switch: &Ns, ttl: u32) -> TcpListener {
    let listener = speaker::listen(switch, "0.0.0.0:179");
    SockRef::from(&listener).set_ttl_v4(ttl).unwrap();
    listener
}

/// An OPEN of a neighbor that keeps its routes over restarts: whose second connection replaces the first.
fn graceful_open() -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 64, 6, 0, 120, 0, 1, 1, 0x80, 65, 4];
    capabilities.extend(ASN.to_be_bytes());
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 1, 1, 1];
    let len = u8::try_from(capabilities.len()).unwrap();
    body.extend([len + 2, 2, len]);
    body.extend(capabilities);
    message(1, &body)
}

fn establish(speaker: &mut Speaker) {
    speaker.send(&graceful_open());
    assert_eq!(speaker.expect(1, 10.0).0, 1, "an OPEN");
    speaker.send(&message(4, &[]));
    speaker.expect(4, 10.0);
}

/// Does all that a neighbor does, and advertises a route. Returns what routelet sent to it.
fn attack(mut stream: TcpStream) -> Vec<u8> {
    let route = update(&[], &attributes(&[ASN], SWITCH, 0), &[(Ipv4Addr::new(198, 51, 100, 0), 24)]);
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut received = Vec::new();
    for octets in [graceful_open(), message(4, &[]), route] {
        if stream.write_all(&octets).is_err() {
            return received;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(n) => received.extend(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return received,
        }
    }
    received
}

fn neighbor(routelet: &Routelet) -> Value {
    routelet.json(&["show", "neighbors"])[0].clone()
}

fn detail(routelet: &Routelet) -> Value {
    let of = routelet.json(&["show", "neighbor", "10.1.1.1"]);
    if of.is_array() { of[0].clone() } else { of }
}

/// The session stands as it did, and the route is nowhere.
fn nothing_was_taken(routelet: &Routelet, host: &Ns, since: &Value, name: &str) {
    let now = neighbor(routelet);
    assert_eq!((&now["state"], &now["since"]), (&"established".into(), since), "{name}: {now}");
    assert_eq!(host.ip(&format!("route show {ROUTE}")), "", "{name}");
}

#[test]
fn a_container_behind_the_switch_does_not_take_its_session() {
    for (n, (name, keys, ttl)) in [
        ("a gateway with the default TTL of switches", GATEWAY, 1),
        ("a gateway with TTL security", GATEWAY, 255),
        ("a configured neighbor", "address = \"10.1.1.1\"\n", 64),
    ]
    .into_iter()
    .enumerate()
    {
        // We call it, and it calls us.
        for dials in [true, false] {
            let mut net = Net::new();
            let (host, switch, container) = rack(&mut net);
            let listener = dials.then(|| listen(&switch, ttl));
            let routelet = Routelet::start(&net, &host, &config(keys), &[]);
            let mut speaker = match &listener {
                Some(listener) => Speaker::accept_on(listener),
                None => Speaker::over(dial(&switch, HOST, 179, ttl).expect("routelet listens")),
            };
            establish(&mut speaker);
            routelet.wait_established("10.1.1.1");
            // A neighbor that restarts within a tenth of a second crosses our call.
            std::thread::sleep(Duration::from_millis(200));
            let since = neighbor(&routelet)["since"].clone();
            for ttl in [64, 255, 128] {
                if let Ok(stream) = dial(&container, HOST, 179, ttl) {
                    assert!(attack(stream).is_empty(), "{name}, {n}: it gets no OPEN");
                }
            }
            let name = format!("{name}, we dial: {dials}");
            nothing_was_taken(&routelet, &host, &since, &name);
            assert!(detail(&routelet)["refused_by_ttl"].as_u64() >= Some(1), "{name}: {}", detail(&routelet));
        }
    }
}

#[test]
fn a_gateway_is_held_to_the_ttl_security_that_it_offers() {
    let mut net = Net::new();
    let (host, switch, container) = rack(&mut net);
    let listener = listen(&switch, 255);
    let routelet = Routelet::start(&net, &host, &config(GATEWAY), &[]);
    let mut speaker = Speaker::accept_on(&listener);
    establish(&mut speaker);
    routelet.wait_established("10.1.1.1");
    assert_eq!(detail(&routelet)["ttl_security"], "enforced");
    // Even a container that chooses its TTL such that the default of switches arrives.
    let since = neighbor(&routelet)["since"].clone();
    std::thread::sleep(Duration::from_millis(200));
    if let Ok(stream) = dial(&container, HOST, 179, 2) {
        assert!(attack(stream).is_empty());
    }
    nothing_was_taken(&routelet, &host, &since, "TTL 1");
    // The switch is replaced by one without TTL security: a reset lets it in.
    drop((speaker, listener));
    let listener = listen(&switch, 1);
    wait_for("what is to be done is named", 30.0, || {
        let error = neighbor(&routelet)["last_error"].to_string();
        error.contains("routelet neighbor reset 10.1.1.1").then_some(())
    });
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    routelet.cli(&["neighbor", "reset", "10.1.1.1"]);
    let mut speaker = Speaker::accept_on(&listener);
    establish(&mut speaker);
    routelet.wait_established("10.1.1.1");
    let text = routelet.cli(&["show", "neighbor", "10.1.1.1", "-o", "wide"]);
    assert!(text.contains("not offered by the neighbor") && text.contains("ttl-security hops 1"), "{text}");
}

/// The two keys of the group: strict, and off.
#[test]
fn ttl_security_of_gateways_is_strict_or_off_by_its_key() {
    for (value, ttl, up) in [("1", 255, true), ("1", 1, false), ("0", 1, true), ("false", 64, true)] {
        let mut net = Net::new();
        let (host, switch, _) = rack(&mut net);
        let listener = listen(&switch, ttl);
        let group = format!("group = \"gateway\"\n[bgp.group.gateway]\nttl-security = {value}\n");
        let routelet = Routelet::start(&net, &host, &(config(GATEWAY) + &group), &[]);
        if up {
            let mut speaker = Speaker::accept_on(&listener);
            establish(&mut speaker);
            routelet.wait_established("10.1.1.1");
            let shown = &detail(&routelet)["ttl_security"];
            assert_eq!(*shown, if value == "1" { "enforced".into() } else { Value::Null }, "{value}");
        } else {
            // Not even the handshake of TCP is completed, and no fallback follows.
            std::thread::sleep(Duration::from_secs(4));
            assert_ne!(routelet.session("10.1.1.1").as_deref(), Some("established"), "{value}");
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "{value}");
        }
    }
}

/// `guard.block-pod-bgp`.
#[test]
fn containers_reach_no_neighbor_by_bgp() {
    let mut net = Net::new();
    let (host, switch, container) = (net.ns("host"), net.ns("switch"), net.ns("container"));
    let lan = net.ns("lan");
    net.link((&switch, "port1"), (&host, "eth0"));
    net.link((&host, "veth1"), (&container, "eth0"));
    net.link((&host, "lan0"), (&lan, "eth0"));
    host.ip("link add docker0 type bridge");
    host.ip("link set docker0 up");
    host.ip("link set veth1 master docker0");
    switch.ip("addr add 10.1.1.1/24 dev port1");
    switch.ip("addr add 10.1.1.9/24 dev port1");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("addr add 172.17.0.1/16 dev docker0");
    host.ip("addr add 10.3.0.1/24 dev lan0");
    host.ip("route add default via 10.1.1.1");
    for (ns, address, via) in [(&container, "172.17.0.2/16", "172.17.0.1"), (&lan, "10.3.0.2/24", "10.3.0.1")]
    {
        ns.ip(&format!("addr add {address} dev eth0"));
        ns.ip(&format!("route add default via {via}"));
    }
    host.sysctl("net.ipv4.ip_forward", "1");
    masquerade(&host, "172.17.0.0/16");
    masquerade(&host, "10.3.0.0/24");
    let listener = listen(&switch, 64);
    let other = switch.enter(|| TcpListener::bind("0.0.0.0:8179")).unwrap();
    let config = |guard: &str| {
        format!("{}[advertise]\ninterfaces = [\"docker0\"]\n{guard}", config("address = \"10.1.1.1\"\n"))
    };
    let mut routelet = Routelet::start(&net, &host, &config(""), &[]);
    let mut speaker = Speaker::accept_on(&listener);
    establish(&mut speaker);
    routelet.wait_established("10.1.1.1");
    wait_for("the table", 10.0, || host.sh("nft list tables").contains("inet routelet-bgp").then_some(()));
    let other_address = Ipv4Addr::new(10, 1, 1, 9);
    assert!(dial(&container, SWITCH, 179, 64).is_err(), "a container reaches port 179 of the neighbor");
    assert!(dial(&container, SWITCH, 8179, 64).is_ok(), "another port");
    assert!(dial(&container, other_address, 179, 64).is_ok(), "who is no neighbor");
    assert!(dial(&lan, SWITCH, 179, 64).is_ok(), "what comes from no container");
    assert!(dial(&host, SWITCH, 179, 64).is_ok(), "the host itself");
    drop(other);
    wait_for("it is named", 30.0, || {
        let summary = routelet.json(&["show", "summary"])["problems"].to_string();
        summary.contains("guard.block-pod-bgp").then_some(())
    });
    assert_eq!(routelet.session("10.1.1.1").as_deref(), Some("established"));

    routelet.configure(&config("[guard]\nblock-pod-bgp = false\n"));
    routelet.cli(&["reload"]);
    wait_for("it is let through", 10.0, || dial(&container, SWITCH, 179, 64).ok());
    routelet.configure(&config(""));
    routelet.cli(&["reload"]);
    wait_for("the table again", 10.0, || host.sh("nft list tables").contains("routelet-bgp").then_some(()));
    // Somebody's firewall starts anew.
    host.sh("nft flush ruleset");
    wait_for("the table after a flush", 20.0, || {
        host.sh("nft list tables").contains("routelet-bgp").then_some(())
    });
    routelet.process.stop();
    let config = routelet.dir.join("routelet.toml");
    let out = host
        .command(env!("CARGO_BIN_EXE_routelet"))
        .args(["cleanup", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("nftables table inet routelet-bgp"), "{text}");
    assert!(!host.sh("nft list tables").contains("routelet-bgp"));
}

/// A host whose IPv6 default route came by a router advertisement.
fn advertised_router(net: &mut Net) -> Ns {
    let (host, router) = (net.ns("host"), net.ns("router"));
    host.sysctl("net.ipv6.conf.all.forwarding", "0");
    host.sysctl("net.ipv6.conf.default.accept_ra", "2");
    net.link((&router, "eth0"), (&host, "eth0"));
    host.ip("addr add 192.0.2.5/24 dev eth0");
    router.ip("addr add fe80::1/64 dev eth0 nodad");
    wait_for("the host's link-local address", 10.0, || {
        let all = host.ip("-6 addr show dev eth0");
        (all.contains("fe80") && !all.contains("tentative")).then_some(())
    });
    wait_for("the default route", 10.0, || {
        advertise(&router, "fe80::1", 1800);
        std::thread::sleep(Duration::from_millis(20));
        host.ip("-6 route show default").contains("fe80::1").then_some(())
    });
    host
}

#[test]
fn the_sender_of_a_router_advertisement_carries_ipv6_routes_only() {
    let mut net = Net::new();
    let host = advertised_router(&mut net);
    let routelet = Routelet::start(&net, &host, &config(GATEWAY), &[]);
    let families = |wanted: &Value| {
        wait_for(format!("families {wanted}"), 20.0, || {
            (neighbor(&routelet)["families"] == *wanted).then_some(())
        });
    };
    families(&serde_json::json!(["ipv6-unicast"]));
    // The operator may override that.
    let text = format!(
        "{}group = \"gateway\"\n[bgp.group.gateway]\nfamilies = [\"ipv4-unicast\", \"ipv6-unicast\"]\n",
        config(GATEWAY)
    );
    routelet.configure(&text);
    routelet.cli(&["reload", "--force"]);
    families(&serde_json::json!(["ipv4-unicast", "ipv6-unicast"]));
}

/// A pod that advertises itself as a router, on a bridge that others made.
#[test]
fn a_container_that_advertises_itself_as_a_router_is_no_neighbor() {
    let mut net = Net::new();
    let (host, container, router) = (net.ns("host"), net.ns("container"), net.ns("router"));
    net.link((&router, "eth0"), (&host, "eth0"));
    router.ip("addr add 10.1.1.1/24 dev eth0");
    host.ip("addr add 10.1.1.2/24 dev eth0");
    host.ip("route add default via 10.1.1.1");
    net.link((&host, "veth1"), (&container, "eth0"));
    host.ip("link add cbr0 type bridge");
    host.sysctl("net.ipv6.conf.cbr0.accept_ra", "2");
    host.ip("link set veth1 master cbr0");
    host.ip("link set cbr0 up");
    container.ip("addr add fe80::9/64 dev eth0 nodad");
    wait_for("the bridge's address", 10.0, || {
        let all = host.ip("-6 addr show dev cbr0");
        (all.contains("fe80") && !all.contains("tentative")).then_some(())
    });
    wait_for("the default route", 10.0, || {
        advertise(&container, "fe80::9", 1800);
        std::thread::sleep(Duration::from_millis(20));
        host.ip("-6 route show default").contains("fe80::9 dev cbr0").then_some(())
    });
    let routelet = Routelet::start(&net, &host, &config(GATEWAY), &[]);
    let problems = wait_for("it is named", 20.0, || {
        let problems = routelet.json(&["show", "summary"])["problems"].to_string();
        (problems.contains("fe80::9%cbr0 does not become a neighbor")
            && problems.contains("a bridge of containers: any"))
        .then_some(problems)
    });
    assert!(problems.contains("`sysctl -w net.ipv6.conf.cbr0.accept_ra=0`"), "{problems}");
    let all = routelet.json(&["show", "neighbors"]);
    let names: Vec<_> = all.as_array().unwrap().iter().map(|n| n["address"].to_string()).collect();
    assert_eq!(names, ["\"10.1.1.1\""]);
}

/// The bridge is there before the daemon, and made anew while it runs.
#[test]
fn router_advertisements_are_ignored_on_the_bridge_of_pods() {
    let mut net = Net::new();
    let (host, _, _) = rack(&mut net);
    let kubeconfig = net.dir().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"https://10.1.1.1:6443\"}}]\n\
         users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n",
    )
    .unwrap();
    let text = format!("[bgp]\nas = 1000\n[cni]\nconf-dir = \"{}\"\n", net.dir().join("net.d").display());
    let options = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node-name", "n1"];
    let accept_ra = || host.sh("cat /proc/sys/net/ipv6/conf/routelet0/accept_ra").trim().to_owned();
    host.sysctl("net.ipv6.conf.default.accept_ra", "2");
    host.ip("link add routelet0 type bridge");
    host.ip("link add docker0 type bridge");
    assert_eq!(accept_ra(), "2");
    let _routelet = Routelet::start(&net, &host, &text, &options);
    wait_for("0 on the bridge", 10.0, || (accept_ra() == "0").then_some(()));
    host.ip("link del routelet0");
    host.ip("link add routelet0 type bridge");
    wait_for("0 on the new bridge", 10.0, || (accept_ra() == "0").then_some(()));
    let other = host.sh("cat /proc/sys/net/ipv6/conf/docker0/accept_ra");
    assert_eq!(other.trim(), "2", "what is not ours is not changed");
}
