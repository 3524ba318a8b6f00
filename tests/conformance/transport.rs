//! Below BGP: dynamic neighbors, GTSM (RFC 5082), TCP MD5 (RFC 2385), who is let in; and neighbors of IPv6.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bed::{Bed, EXTERNAL, HOST, HOST_AS, Peer, Report, at, holds, same},
    common::{PATIENCE, wait_for},
    words::{KEEPALIVE, Open, message, net, nlri, nlri6, origin, path, reach, update},
};

/// How long a connection that must not come about may take.
const NEVER: f64 = 1.0;

/// A connection with a TTL of its own.
fn dial_with_ttl(bed: &Bed, from: Ipv4Addr, ttl: u32, seconds: f64) -> std::io::Result<Peer> {
    let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_ttl_v4(ttl)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&SocketAddr::from((HOST, 179)).into(), Duration::from_secs_f64(seconds))?;
        Ok(socket.into())
    })?;
    Ok(Peer::over(stream, from))
}

#[test]
fn dynamic_neighbors() {
    let config = "[bgp.group.pods]\nremote-as = 65001\nhold-time = 9\n\
        [[bgp.listen-range]]\nprefix = \"10.2.1.0/24\"\ngroup = \"pods\"\nlimit = 3\n\
        [[bgp.listen-range]]\nprefix = \"10.2.2.0/24\"\nremote-as = \"any\"\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    let mut first = bed.peer(at(1, 1), EXTERNAL);
    report.case("a caller from a listen-range is a neighbor with the group's keys", || {
        same(bed.state(at(1, 1)), "established".into())?;
        same(first.theirs[3..5].to_vec(), vec![0, 9])?;
        first.announce(1, &["20.1.0.0/24"]);
        bed.settled(&mut first);
        Ok(())
    });
    report.case("4486 §4 a caller beyond the limit is rejected", || {
        let others = [bed.peer(at(1, 2), EXTERNAL), bed.peer(at(1, 3), EXTERNAL)];
        let mut fourth = bed.dial(at(1, 4));
        same(fourth.ends()?, vec![6, 5])?;
        drop(others);
        same(bed.state(at(1, 1)), "established".into())
    });
    report.case("a number that the range does not take", || {
        let bed = Bed::start("", config);
        let mut peer = bed.dial(at(1, 9));
        peer.send(&Open::new(65009, at(1, 9)).encode());
        same(peer.ends()?, vec![2, 2])
    });
    report.case("a range for any number takes eBGP and iBGP", || {
        let _external = bed.peer(at(2, 1), 65009);
        let _internal = bed.peer(at(2, 2), HOST_AS);
        same((bed.state(at(2, 1)), bed.state(at(2, 2))), ("established".into(), "established".into()))
    });
    report.case("4486 §4 a stranger is rejected", || {
        let mut peer = bed.dial(at(7, 7));
        same(peer.ends()?, vec![6, 5])?;
        same(bed.state(at(7, 7)), "none".into())
    });
    report.finish();
}

#[test]
fn ttl_security() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\nttl-security = 1\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.3\"\nremote-as = 65001\npassive = true\nttl-security = 2\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    let up = |from: Ipv4Addr, ttl: u32, seconds: f64| {
        dial_with_ttl(&bed, from, ttl, seconds).is_ok_and(|mut peer| {
            let heard = peer.establishes_within(seconds, &Open::new(EXTERNAL, from));
            if seconds > NEVER {
                bed.established(from);
            }
            heard && bed.state(from) == "established"
        })
    };
    report.case("5082 §3 TTL 255 is let in", || holds(up(at(1, 1), 255, PATIENCE), "no session"));
    report.case("5082 §3 what comes along with a call from afar is not heard", || {
        let mut peer = dial_with_ttl(&bed, at(1, 1), 254, PATIENCE).map_err(|e| e.to_string())?;
        let all = [Open::new(EXTERNAL, at(1, 1)).encode(), message(KEEPALIVE, &[])].concat();
        peer.send(&[all, update(&[], &peer.good(1), &nlri(&[net("20.1.0.0/24")]))].concat());
        holds(peer.next(PATIENCE).is_none() && peer.closed, "an answer")?;
        same(bed.paths("20.1.0.0/24").len(), 0)
    });
    report.case("5082 §3 TTL 254 is not, with one hop", || holds(!up(at(1, 1), 254, NEVER), "a session"));
    report.case("5082 §3 TTL 64 is not", || holds(!up(at(1, 1), 64, NEVER), "a session"));
    report.case("5082 §3 TTL 254 is let in with two hops", || {
        holds(up(at(1, 3), 254, PATIENCE), "no session")
    });
    report.case("without ttl-security TTL 1 is enough", || holds(up(at(1, 2), 1, PATIENCE), "no session"));
    report.case("5082 §3 where all neighbors ask for it, nobody from afar gets an answer", || {
        let bed =
            Bed::start("", &config[..config.find("[[bgp.neighbor]]\naddress = \"10.2.1.2").expect("above")]);
        dial_with_ttl(&bed, at(1, 1), 255, PATIENCE).map_err(|e| e.to_string())?;
        holds(dial_with_ttl(&bed, at(1, 1), 254, NEVER).is_err(), "a connection")
    });
    report.finish();
}

/// RFC 9687 on a real socket: the neighbor's window is closed, while it goes on to say that it lives.
#[test]
fn a_neighbor_whose_window_stays_closed_is_given_up() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65002\npassive = true\ntransit = true\nsend-hold-time = 4\n";
    let bed = Bed::start("", config);
    // Little room below BGP, so that few routes fill it.
    bed.host.sysctl("net.ipv4.tcp_wmem", "4096 16384 32768");
    let mut deaf = wait_for("a session", 10.0, || {
        let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_recv_buffer_size(4096)?;
            socket.bind(&SocketAddr::from((at(1, 2), 0)).into())?;
            socket.connect_timeout(&SocketAddr::from((HOST, 179)).into(), Duration::from_secs(3))?;
            Ok(socket.into())
        });
        let mut peer = Peer::over(stream.ok()?, at(1, 2));
        peer.try_establish(&Open::new(65002, at(1, 2))).then_some(peer)
    });
    let mut source = bed.session(at(1, 1), &Open::new(EXTERNAL, at(1, 1)).hold(30));
    for n in 0..200 {
        let routes: Vec<_> = (0..200).map(|k| (Ipv4Addr::new(20, n, k, 0), 24)).collect();
        source.send(&update(&[], &source.good(n.into()), &nlri(&routes)));
    }
    wait_for("it is given up", 60.0, || {
        deaf.keepalive();
        source.keepalive();
        let drops = bed.neighbor(at(1, 2))["drops"]["send-hold-timer"].as_u64();
        (drops == Some(1)).then_some(())
    });
    let why = bed.neighbor(at(1, 2))["last_error"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("send hold timer")), "{why}");
    let stays = bed.neighbor(at(1, 1));
    assert_eq!(
        (&stays["state"], &stays["received"]["ipv4-unicast"]),
        (&"established".into(), &40_000.into())
    );
}

#[test]
fn neighbors_with_a_password_are_not_heard_without() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\npassword = \"x\"\n\
        [bgp.group.closed]\nremote-as = 65001\npassword = \"y\"\n\
        [[bgp.listen-range]]\nprefix = \"10.2.3.0/24\"\ngroup = \"closed\"\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65001\npassive = true\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    bed.peer(at(1, 2), EXTERNAL);
    for (name, from) in [("a passive end", at(1, 1)), ("a listen-range", at(3, 1))] {
        report.case(&format!("2385 §2 unsigned segments to {name}"), || {
            holds(dial_with_ttl(&bed, from, 64, NEVER).is_err(), "a connection")
        });
    }
    report.finish();
}

#[test]
fn neighbors_of_ipv6() {
    let config = "[[bgp.neighbor]]\naddress = \"fd02::1\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"fd02::2\"\nremote-as = 65002\npassive = true\ntransit = true\n\
        [advertise]\nnetworks = [\"44.0.0.0/16\", \"fd44::/48\"]\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    let v6 = |a: &str| a.parse::<std::net::Ipv6Addr>().expect("an address");
    let session = |from: &str, asn: u32, extended: bool| {
        wait_for("a session", 10.0, || {
            let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&SocketAddr::from((v6(from), 0)).into())?;
                let to = SocketAddr::new(IpAddr::V6(v6("fd02::fffe")), 179);
                socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
                Ok(socket.into())
            });
            let mut peer = Peer::over(stream.ok()?, Ipv4Addr::new(9, 9, 9, 9));
            let mut open = Open::new(asn, Ipv4Addr::new(9, 9, 9, 9));
            if extended {
                open = open.with(5, &[0, 1, 0, 1, 0, 2]);
            }
            peer.try_establish(&open).then_some(peer)
        })
    };
    let mut peer = session("fd02::1", EXTERNAL, true);
    let mut other = session("fd02::2", 65002, false);
    let hop = v6("fd02::1").octets();
    report.case("2545 §3 an own IPv6 route and its next hop", || {
        let of = |h: &crate::words::Received| Some(h.routes.get("fd44::/48")?.get(&14)?.1.clone());
        let value = peer.receives(10.0, |h| of(h).filter(|v| v[3] == 32))?;
        same(value[4..20].to_vec(), v6("fd02::fffe").octets().to_vec())?;
        same(value[20..22].to_vec(), vec![0xfe, 0x80])?;
        same(peer.received.routes["fd44::/48"].contains_key(&3), false)
    });
    report.case("4760 §3 an own IPv4 route over an IPv6 session", || {
        let heard = other.receives(PATIENCE, |h| h.routes.get("44.0.0.0/16").cloned())?;
        same(heard.get(&3).map(|a| a.1.clone()), Some(HOST.octets().to_vec()))
    });
    report.case("8950 §4 IPv4 with an IPv6 next hop goes into the kernel", || {
        let list = nlri(&[(Ipv4Addr::new(20, 1, 0, 0), 24)]);
        peer.send(&update(&[], &[reach(1, &hop, &list), origin(0), path(&[EXTERNAL])], &[]));
        wait_for("in the kernel", 3.0, || bed.kernel().contains("20.1.0.0/24").then_some(()));
        let heard = other.receives(PATIENCE, |h| h.routes.get("20.1.0.0/24").cloned())?;
        same(heard.get(&3).map(|a| a.1.clone()), Some(HOST.octets().to_vec()))
    });
    report.case("4760 §3 IPv6 prefixes come and go", || {
        let all = [nlri6("fd71::/48"), nlri6("fd72::/48")].concat();
        peer.send(&update(&[], &[reach(2, &hop, &all), origin(0), path(&[EXTERNAL])], &[]));
        wait_for("in the kernel", 3.0, || bed.kernel().contains("fd72::/48").then_some(()));
        other.receives(PATIENCE, |h| h.routes.contains_key("fd71::/48").then_some(()))?;
        peer.send(&update(&[], &[crate::words::unreach(2, &nlri6("fd71::/48"))], &[]));
        wait_for("gone", 3.0, || (!bed.kernel().contains("fd71::/48")).then_some(()));
        other.receives(PATIENCE, |h| h.events.contains(&"-fd71::/48".to_owned()).then_some(()))?;
        holds(bed.kernel().contains("fd72::/48"), "the other went too")
    });
    report.finish();
}

/// A session between link-local addresses.
fn link_local(bed: &Bed, open: &Open) -> Peer {
    let host = bed.host.sh("ip -6 -o addr show dev eth0 scope link");
    let addr: std::net::Ipv6Addr = host
        .split_whitespace()
        .skip_while(|w| *w != "inet6")
        .nth(1)
        .and_then(|a| a.split('/').next()?.parse().ok())
        .expect("a link-local address");
    let index = bed.switch.ip("-o link show eth0").split(':').next().and_then(|n| n.parse().ok());
    let index: u32 = index.expect("an interface index");
    wait_for("a link-local session", 10.0, || {
        let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            let own = std::net::SocketAddrV6::new("fe80::1".parse().expect("an address"), 0, 0, index);
            socket.bind(&own.into())?;
            let to = std::net::SocketAddrV6::new(addr, 179, 0, index);
            socket.connect_timeout(&SocketAddr::V6(to).into(), Duration::from_secs(10))?;
            Ok(socket.into())
        });
        let mut peer = Peer::over(stream.ok()?, Ipv4Addr::new(9, 9, 9, 9));
        peer.try_establish(open).then_some(peer)
    })
}

#[test]
fn next_hops_of_link_local_sessions() {
    let config = "[[bgp.neighbor]]\naddress = \"fe80::1%eth0\"\nremote-as = 65001\npassive = true\n\
        [advertise]\nnetworks = [\"44.0.0.0/16\", \"fd44::/48\"]\n";
    let bed = Bed::start("", config);
    bed.switch.ip("addr add fe80::1/64 dev eth0 nodad");
    let open = Open::new(EXTERNAL, Ipv4Addr::new(9, 9, 9, 9)).with(5, &[0, 1, 0, 1, 0, 2]);
    let mut peer = link_local(&bed, &open);
    let mut report = Report::default();
    let v6 = |a: &str| a.parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec();
    #[rustfmt::skip]
    let forms = [
        ("link-local alone",            v6("fe80::1")),
        ("link-local twice",            [v6("fe80::1"), v6("fe80::1")].concat()),
        ("link-local behind ::",        [v6("::"), v6("fe80::1")].concat()),
        ("global and link-local",       [v6("fd02::1"), v6("fe80::1")].concat()),
    ];
    for (n, (name, hop)) in (1..).zip(forms) {
        for (afi, prefix) in [(1, format!("20.{n}.0.0/24")), (2, format!("fd7{n}::/48"))] {
            report.case(&format!("2545 §3, 8950 §4 {name}, AFI {afi}"), || {
                let list = if afi == 1 { nlri(&[net(&prefix)]) } else { nlri6(&prefix) };
                peer.send(&update(&[], &[reach(afi, &hop, &list), origin(0), path(&[EXTERNAL])], &[]));
                wait_for("in the kernel", 3.0, || bed.kernel().contains(&prefix).then_some(()));
                let family = if afi == 1 { "-4" } else { "-6" };
                let shown = bed.host.ip(&format!("{family} route show {prefix} proto 179"));
                let id = shown.split_whitespace().skip_while(|w| *w != "nhid").nth(1).unwrap_or_default();
                let hop =
                    if id.is_empty() { String::new() } else { bed.host.ip(&format!("nexthop get id {id}")) };
                holds(shown.contains("fe80::1") || hop.contains("fe80::1"), &format!("{shown} {hop}"))
            });
        }
    }
    report.case("8950 §4 an own IPv4 route goes out with an IPv6 next hop", || {
        let heard = peer.receives(PATIENCE, |h| h.routes.get("44.0.0.0/16").cloned())?;
        let value = &heard.get(&14).ok_or("no MP_REACH_NLRI")?.1;
        same(value[..3].to_vec(), vec![0, 1, 1])?;
        holds(value[3] == 16 || value[3] == 32, &format!("next hop of {} octets", value[3]))
    });
    report.case("2545 §3 an own IPv6 route goes out with the link-local address beside", || {
        let heard = peer.receives(PATIENCE, |h| h.routes.get("fd44::/48").cloned())?;
        let value = &heard.get(&14).ok_or("no MP_REACH_NLRI")?.1;
        same(value[3], 32)?;
        same(value[20..22].to_vec(), vec![0xfe, 0x80])
    });
    report.finish();
}

#[test]
fn limits_and_numbers_of_a_neighbor() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\nmax-prefixes = 2\nmax-prefixes-action = \"warn\"\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65001\npassive = true\nlocal-as = 64999\ntransit = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.3\"\nremote-as = 65001\npassive = true\nfamilies = [\"ipv6-unicast\"]\n\
        [advertise]\nnetworks = [\"44.0.0.0/16\"]\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    report.case("max-prefixes with \"warn\" ends nothing", || {
        let mut peer = bed.peer(at(1, 1), EXTERNAL);
        peer.announce(1, &["20.1.0.0/24", "20.1.1.0/24", "20.1.2.0/24", "20.1.3.0/24"]);
        bed.settled(&mut peer);
        same(bed.received(at(1, 1)).len(), 5)
    });
    report.case("local-as in the OPEN, in the path, and as a loop", || {
        let mut peer = bed.peer(at(1, 2), EXTERNAL);
        same(peer.theirs[1..3].to_vec(), 64999_u16.to_be_bytes().to_vec())?;
        let heard = peer.receives(PATIENCE, |h| h.routes.get("44.0.0.0/16").cloned())?;
        same(heard.get(&2).map(|a| a.1.clone()), Some(crate::words::segment(2, &[64999, HOST_AS])))?;
        let mut all = peer.good(1);
        all[1] = path(&[EXTERNAL, 64999]);
        peer.announce_with(&all, &["20.2.0.0/24"]);
        bed.settled(&mut peer);
        let route = bed.received_prefix(at(1, 2), "20.2.0.0/24").ok_or("not shown")?;
        same(route["best"].as_bool(), Some(false))
    });
    report.case("5492 §3 no family in common: 2/7 with what is missing", || {
        let mut peer = bed.dial(at(1, 3));
        peer.send(
            &Open {
                caps: vec![(1, vec![0, 1, 0, 1]), (65, EXTERNAL.to_be_bytes().to_vec())],
                ..Open::new(EXTERNAL, at(1, 3))
            }
            .encode(),
        );
        let body = peer.ends()?;
        same(body[..2].to_vec(), vec![2, 7])?;
        holds(body[2..].windows(6).any(|w| w == [1, 4, 0, 2, 0, 1]), &format!("{body:?}"))
    });
    report.finish();
}
