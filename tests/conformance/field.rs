//! What users of BGP daemons reported, as raw octets against the real binary; each test is named after its report.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bed::{Bed, EXTERNAL, HOST, Peer, Report, at, holds, same},
    common::{PATIENCE, wait_for},
    words::{KEEPALIVE, NOTIFICATION, Open, attr, message, net, nlri, nlri6, origin, path, reach, update},
};

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// A session from one address of the switch to one of the host.
fn session(bed: &Bed, from: &str, to: &str, open: &Open) -> Peer {
    wait_for(format!("a session from {from} to {to}"), 10.0, || {
        let mut peer = call(bed, from, to).ok()?;
        peer.try_establish(open).then_some(peer)
    })
}

fn call(bed: &Bed, from: &str, to: &str) -> std::io::Result<Peer> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().expect("an address"), to.parse().expect("an address"));
    let stream = bed.switch.enter(|| -> std::io::Result<TcpStream> {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&SocketAddr::new(to, 179).into(), Duration::from_secs(10))?;
        Ok(socket.into())
    })?;
    let id = match from {
        IpAddr::V4(from) => from,
        IpAddr::V6(_) => Ipv4Addr::new(9, 9, 9, 9),
    };
    Ok(Peer::over(stream, id))
}

/// A switch that has IPv4 and link-local IPv6 on the link, or a global address that the host has no subnet for.
#[test]
fn link_local_next_hops_of_sessions_between_other_addresses() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"fd02::1\"\nremote-as = 65001\npassive = true\n\
        [advertise]\nnetworks = [\"44.0.0.0/16\", \"fd44::/48\"]\n";
    let bed = Bed::start("", config);
    let open = Open::new(EXTERNAL, Ipv4Addr::new(9, 9, 9, 9)).with(5, &[0, 1, 0, 1, 0, 2]);
    let mut report = Report::default();
    let ll = v6("fe80::1").octets();
    #[rustfmt::skip]
    let forms: [(&str, Vec<u8>); 4] = [
        ("link-local alone",                ll.to_vec()),
        ("link-local twice",                [ll, ll].concat()),
        ("link-local behind ::",            [[0; 16], ll].concat()),
        ("global off link and link-local",  [v6("fd99::1").octets(), ll].concat()),
    ];
    for (s, (from, to)) in [("10.2.1.1", "10.2.255.254"), ("fd02::1", "fd02::fffe")].into_iter().enumerate() {
        let mut peer = session(&bed, from, to, &open);
        for (n, (name, hop)) in (1..).zip(&forms) {
            for (afi, prefix) in [(1, format!("20.{s}.{n}.0/24")), (2, format!("fd7{s}:{n}::/48"))] {
                report.case(&format!("{name}, AFI {afi}, over {from}"), || {
                    let list = if afi == 1 { nlri(&[net(&prefix)]) } else { nlri6(&prefix) };
                    peer.send(&update(&[], &[reach(afi, hop, &list), origin(0), path(&[EXTERNAL])], &[]));
                    wait_for("in the kernel", 5.0, || bed.kernel().contains(&prefix).then_some(()));
                    same(way(&bed, &prefix), "fe80::1 eth0".into())
                });
            }
        }
        report.case(&format!("global on link and link-local, over {from}"), || {
            let (prefix, hop) = (format!("fd7{s}:9::/48"), [v6("fd02::1").octets(), ll].concat());
            let list = nlri6(&prefix);
            peer.send(&update(&[], &[reach(2, &hop, &list), origin(0), path(&[EXTERNAL])], &[]));
            wait_for("in the kernel", 5.0, || bed.kernel().contains(&prefix).then_some(()));
            holds(way(&bed, &prefix).ends_with("eth0"), &way(&bed, &prefix))
        });
        report.case(&format!("2545 §3 the host's own link-local address goes out, over {from}"), || {
            // Duplicate address detection takes a moment; until it is over the address is not ours.
            let value = peer.receives(10.0, |h| {
                h.routes.get("fd44::/48").and_then(|r| r.get(&14)).map(|a| a.1.clone()).filter(|v| v[3] == 32)
            })?;
            same(value[4..20].to_vec(), v6("fd02::fffe").octets().to_vec())?;
            same(value[20..22].to_vec(), vec![0xfe, 0x80])
        });
    }
    report.finish();
}

/// Gateway and interface of a route of ours, whether by a nexthop object or not.
fn way(bed: &Bed, prefix: &str) -> String {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let shown = bed.host.ip(&format!("{family} route show {prefix} proto 179"));
    let after = |text: &str, word: &str| {
        text.split_whitespace().skip_while(|w| *w != word).nth(1).unwrap_or_default().to_owned()
    };
    let mut text = shown.clone();
    let mut id = after(&shown, "nhid");
    while !id.is_empty() {
        text = bed.host.ip(&format!("nexthop get id {id}"));
        id = after(&text, "group");
    }
    let gateway = text.split_whitespace().find(|w| w.parse::<Ipv6Addr>().is_ok()).unwrap_or_default();
    format!("{gateway} {}", after(&text, "dev"))
}

/// RFC 8654: what fits into the longest message is lawful.
#[test]
fn a_route_with_two_thousand_communities_passes_whole() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65002\npassive = true\ntransit = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.3\"\nremote-as = 65003\npassive = true\ntransit = true\n";
    let bed = Bed::start("", config);
    let mut source = bed.session(at(1, 1), &Open::new(EXTERNAL, at(1, 1)).with(6, &[]));
    let mut long = bed.session(at(1, 2), &Open::new(65002, at(1, 2)).with(6, &[]));
    let mut short = bed.session(at(1, 3), &Open::new(65003, at(1, 3)));
    let mut report = Report::default();
    for (n, count) in [(1_u8, 2_000_u32), (2, 16_000)] {
        report.case(&format!("8654 §4 {count} communities"), || {
            let list: Vec<u8> = (0..count).flat_map(|c| (0xfde9_0000 + c).to_be_bytes()).collect();
            let prefix = format!("20.{n}.0.0/24");
            let attributes = [source.good(0), vec![attr(0xd0, 8, &list)]].concat();
            source.send(&update(&[], &attributes, &nlri(&[net(&prefix)])));
            let heard = long.receives(PATIENCE, |h| h.routes.get(&prefix).cloned())?;
            same(heard.get(&8).map(|a| a.1.clone()) == Some(list), true)?;
            let path = bed.received_prefix(at(1, 1), &prefix).ok_or("not shown")?;
            same(path["best"].as_bool(), Some(true))
        });
    }
    report.case("8654 §4 a neighbor without long messages hears what fits", || {
        source.announce(0, &["20.9.0.0/24"]);
        short.receives(PATIENCE, |h| h.routes.contains_key("20.9.0.0/24").then_some(()))?;
        holds(
            !short.received.routes.keys().any(|p| p.starts_with("20.1.") || p.starts_with("20.2.")),
            "too long",
        )?;
        same(bed.state(at(1, 3)), "established".into())
    });
    report.finish();
}

/// The place of a neighbor that has gone for good is another's at once.
#[test]
fn a_place_in_a_listen_range_is_free_once_nothing_is_kept_for_it() {
    let config = "[[bgp.listen-range]]\nprefix = \"10.2.1.0/24\"\nremote-as = 65001\nlimit = 1\n";
    let bed = Bed::start("", config);
    let mut report = Report::default();
    // With the N bit (RFC 8538 §2), so that a NOTIFICATION alone ends nothing.
    let graceful = |n: u8| Open::new(EXTERNAL, at(1, n)).graceful(4, 30, 0x80);
    let plain = |n: u8| Open::new(EXTERNAL, at(1, n));
    let mut n = 0;
    let mut next = || {
        n += 1;
        n
    };
    let hard = [6, 9, 6, 3];
    #[rustfmt::skip]
    let goes: [(&str, bool, Option<&[u8]>); 4] = [
        ("CEASE/3 without graceful restart", false, Some(&[6, 3])),
        ("closes without graceful restart",  false, None),
        ("CEASE/2 without graceful restart", false, Some(&[6, 2])),
        ("hard reset",                       true,  Some(&hard)),
    ];
    for (name, keeps, last_word) in goes {
        report.case(name, || {
            let (one, two) = (next(), next());
            let mut first = bed.session(at(1, one), &if keeps { graceful(one) } else { plain(one) });
            first.announce(1, &["20.1.0.0/24"]);
            bed.settled(&mut first);
            if let Some(body) = last_word {
                first.send(&message(NOTIFICATION, body));
            }
            drop(first);
            let mut second = bed.dial(at(1, two));
            holds(second.try_establish(&plain(two)), "refused")?;
            bed.established(at(1, two));
            second.send(&message(NOTIFICATION, &[6, 3]));
            Ok(())
        });
    }
    report.case("closes with graceful restart: its routes are kept, and so is its place", || {
        let (one, two) = (next(), next());
        let mut first = bed.session(at(1, one), &graceful(one));
        first.announce(1, &["20.1.0.0/24"]);
        bed.settled(&mut first);
        drop(first);
        wait_for("the end of the session", 5.0, || (bed.state(at(1, one)) != "established").then_some(()));
        let mut second = bed.dial(at(1, two));
        same(second.ends()?, vec![6, 5])?;
        let mut back = bed.dial(at(1, one));
        holds(back.try_establish(&graceful(one)), "it cannot come back")?;
        back.send(&message(NOTIFICATION, &hard));
        Ok(())
    });
    report.finish();
}

/// Hosts with VIPs, and Nodes with several addresses, are met by neighbors that take each address for one of them.
#[test]
fn a_neighbor_that_calls_two_of_our_addresses_keeps_its_session() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\n";
    let bed = Bed::start("", config);
    bed.host.ip("addr add 10.2.255.250/16 dev eth0");
    let open = Open::new(EXTERNAL, at(1, 1)).graceful(4, 60, 0x80);
    let mut first = bed.session(at(1, 1), &open);
    first.announce(1, &["20.1.0.0/24"]);
    bed.settled(&mut first);
    let mut report = Report::default();
    for round in 0..3 {
        report.case(&format!("6.8 call {round} to the other address"), || {
            let mut other = call(&bed, "10.2.1.1", "10.2.255.250").map_err(|e| e.to_string())?;
            other.send(&open.encode());
            same(other.ends()?, vec![6, 5])?;
            first.keepalive();
            holds(!first.closed && bed.state(at(1, 1)) == "established", "the first session ended")?;
            holds(bed.kernel().contains("20.1.0.0/24"), "its route went")
        });
    }
    same(bed.neighbor(at(1, 1))["drops"].as_object().map(|d| d.len()), Some(0)).expect("no session ended");
    report.finish();
}

/// The other side of it: two configured neighbors are one router.
#[test]
fn neighbors_that_answer_with_one_router_id_are_named_as_one_problem() {
    let config = "[[bgp.neighbor]]\naddress = \"10.2.1.1\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"10.2.1.2\"\nremote-as = 65001\npassive = true\n\
        [[bgp.neighbor]]\naddress = \"fd02::1\"\nremote-as = 65001\npassive = true\n";
    let bed = Bed::start("", config);
    let open = Open::new(EXTERNAL, Ipv4Addr::new(9, 9, 9, 9));
    let problems = || bed.routelet.json(&["show", "summary"])["problems"].to_string();
    let _first = bed.session(at(1, 1), &open);
    let _six = session(&bed, "fd02::1", "fd02::fffe", &open);
    assert!(!problems().contains("router id"), "both families of one router: {}", problems());
    let second = bed.session(at(1, 2), &open);
    let named =
        wait_for("the problem", 5.0, || Some(problems()).filter(|p| p.contains("same router id, 9.9.9.9")));
    assert!(named.contains("10.2.1.1 and 10.2.1.2"), "{named}");
    drop(second);
    bed.established(at(1, 1));
}

/// An address of this host is no neighbor's, from the start or since a moment ago.
#[test]
fn an_address_of_our_own_is_never_dialled() {
    let config = format!(
        "[[bgp.neighbor]]\naddress = \"{HOST}\"\nremote-as = \"any\"\nconnect-retry-time = 1\n\
         [[bgp.neighbor]]\naddress = \"10.2.1.9\"\nremote-as = \"any\"\nconnect-retry-time = 1\n"
    );
    let bed = Bed::start("", &config);
    let problems = || bed.routelet.json(&["show", "summary"])["problems"].to_string();
    let own = format!("neighbor {HOST} is an address of this host");
    wait_for("the problem", 5.0, || problems().contains(&own).then_some(()));
    assert!(!problems().contains("neighbor 10.2.1.9 is an address"), "{}", problems());
    let view = bed.neighbor(HOST);
    assert_eq!((&view["state"], &view["messages_sent"]["open"]), (&"active".into(), &0.into()), "{view}");
    // A VIP moves here.
    bed.host.ip("addr add 10.2.1.9/32 dev lo");
    wait_for("the problem", 5.0, || problems().contains("neighbor 10.2.1.9 is an address").then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(bed.neighbor(at(1, 9))["messages_received"]["open"], 0);
    assert_eq!(bed.neighbor(at(1, 9))["messages_sent"]["open"], 0);
    bed.host.ip("addr del 10.2.1.9/32 dev lo");
    wait_for("no problem", 5.0, || (!problems().contains("10.2.1.9 is an address")).then_some(()));
}

/// The text is there before the first dial has failed, and with it.
#[test]
fn a_forgotten_multihop_is_named_in_the_summary() {
    let config = "[[bgp.neighbor]]\naddress = \"10.255.0.9\"\nremote-as = 65001\nconnect-retry-time = 1\n";
    let bed = Bed::start("", config);
    bed.host.ip("route add 10.255.0.9/32 via 10.2.255.253");
    bed.switch.ip("addr add 10.255.0.9/32 dev lo");
    let text = "10.255.0.9 is on no connected subnet but behind 10.2.255.253";
    let wanted = |value: &serde_json::Value| value.to_string().contains(text);
    wait_for("in the summary", 5.0, || {
        wanted(&bed.routelet.json(&["show", "summary"])["problems"]).then_some(())
    });
    wait_for("at the neighbor", 10.0, || {
        let view = bed.neighbor(Ipv4Addr::new(10, 255, 0, 9));
        (wanted(&view["notes"]) && wanted(&view["last_error"])).then_some(())
    });
    // A router's own loopback is reached with TTL 1 nevertheless: where there is a session, there is no problem.
    let listener = bed.listen(Ipv4Addr::new(10, 255, 0, 9));
    let mut peer = wait_for("a dial", 10.0, || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        Some(Peer::over(stream, Ipv4Addr::new(10, 255, 0, 9)))
    });
    assert!(peer.try_establish(&Open::new(EXTERNAL, Ipv4Addr::new(10, 255, 0, 9))));
    peer.send(&message(KEEPALIVE, &[]));
    wait_for("no problem", 10.0, || {
        (!wanted(&bed.routelet.json(&["show", "summary"])["problems"])).then_some(())
    });
}
