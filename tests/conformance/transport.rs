//! Below BGP: dynamic neighbors, GTSM (RFC 5082), TCP MD5 (RFC 2385), who is let in; and neighbors of IPv6.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bed::{Bed, EXTERNAL, HOST, HOST_AS, Peer, Report, at, holds, same},
    common::wait_for,
    words::{Open, nlri, nlri6, origin, path, reach, update},
};

/// A connection with a TTL of its own.
fn dial_with_ttl(bed: &Bed, from: Ipv4Addr, ttl: u32) -> std::io::Result<Peer> {
    let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_ttl_v4(ttl)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&SocketAddr::from((HOST, 179)).into(), Duration::from_millis(700))?;
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
        same(fourth.ends(3.0)?, vec![6, 5])?;
        drop(others);
        same(bed.state(at(1, 1)), "established".into())
    });
    report.case("a number that the range does not take", || {
        let bed = Bed::start("", config);
        let mut peer = bed.dial(at(1, 9));
        peer.say(&Open::new(65009, at(1, 9)).encode());
        same(peer.ends(3.0)?, vec![2, 2])
    });
    report.case("a range for any number takes eBGP and iBGP", || {
        let _external = bed.peer(at(2, 1), 65009);
        let _internal = bed.peer(at(2, 2), HOST_AS);
        same((bed.state(at(2, 1)), bed.state(at(2, 2))), ("established".into(), "established".into()))
    });
    report.case("4486 §4 a stranger is rejected", || {
        let mut peer = bed.dial(at(7, 7));
        same(peer.ends(3.0)?, vec![6, 5])?;
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
    let up = |from: Ipv4Addr, ttl: u32| {
        dial_with_ttl(&bed, from, ttl).is_ok_and(|mut peer| {
            // What came before the option was set on the accepted socket is heard; nothing behind it is.
            peer.try_establish(&Open::new(EXTERNAL, from)) && {
                peer.keepalive();
                wait_for("a state", 3.0, || Some(bed.state(from))) == "established"
            }
        })
    };
    report.case("5082 §3 TTL 255 is let in", || holds(up(at(1, 1), 255), "no session"));
    report.case("5082 §3 TTL 254 is not, with one hop", || holds(!up(at(1, 1), 254), "a session"));
    report.case("5082 §3 TTL 64 is not", || holds(!up(at(1, 1), 64), "a session"));
    report.case("5082 §3 TTL 254 is let in with two hops", || holds(up(at(1, 3), 254), "no session"));
    report.case("without ttl-security TTL 1 is enough", || holds(up(at(1, 2), 1), "no session"));
    report.case("5082 §3 where all neighbors ask for it, nobody from afar gets an answer", || {
        let bed =
            Bed::start("", &config[..config.find("[[bgp.neighbor]]\naddress = \"10.2.1.2").expect("above")]);
        dial_with_ttl(&bed, at(1, 1), 255).map_err(|e| e.to_string())?;
        holds(dial_with_ttl(&bed, at(1, 1), 254).is_err(), "a connection")
    });
    report.finish();
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
            holds(dial_with_ttl(&bed, from, 64).is_err(), "a connection")
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
                socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
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
        let heard = peer.hears(3.0, |h| h.routes.get("fd44::/48").cloned())?;
        let value = &heard[&14].1;
        same(value[3], 16)?;
        same(value[4..20].to_vec(), v6("fd02::fffe").octets().to_vec())?;
        same(heard.contains_key(&3), false)
    });
    report.case("4760 §3 an own IPv4 route over an IPv6 session", || {
        let heard = other.hears(3.0, |h| h.routes.get("44.0.0.0/16").cloned())?;
        same(heard.get(&3).map(|a| a.1.clone()), Some(HOST.octets().to_vec()))
    });
    report.case("8950 §4 IPv4 with an IPv6 next hop goes into the kernel", || {
        let list = nlri(&[(Ipv4Addr::new(20, 1, 0, 0), 24)]);
        peer.say(&update(&[], &[reach(1, &hop, &list), origin(0), path(&[EXTERNAL])], &[]));
        wait_for("in the kernel", 3.0, || bed.kernel().contains("20.1.0.0/24").then_some(()));
        let heard = other.hears(3.0, |h| h.routes.get("20.1.0.0/24").cloned())?;
        same(heard.get(&3).map(|a| a.1.clone()), Some(HOST.octets().to_vec()))
    });
    report.case("4760 §3 IPv6 prefixes come and go", || {
        let all = [nlri6("fd71::/48"), nlri6("fd72::/48")].concat();
        peer.say(&update(&[], &[reach(2, &hop, &all), origin(0), path(&[EXTERNAL])], &[]));
        wait_for("in the kernel", 3.0, || bed.kernel().contains("fd72::/48").then_some(()));
        other.hears(3.0, |h| h.routes.contains_key("fd71::/48").then_some(()))?;
        peer.say(&update(&[], &[crate::words::unreach(2, &nlri6("fd71::/48"))], &[]));
        wait_for("gone", 3.0, || (!bed.kernel().contains("fd71::/48")).then_some(()));
        other.hears(3.0, |h| h.story.contains(&"-fd71::/48".to_owned()).then_some(()))?;
        holds(bed.kernel().contains("fd72::/48"), "the other went too")
    });
    report.finish();
}
