//! TTL security where the neighbor offers it, and connections that were forwarded.

use super::*;
use crate::{
    bgp::peer::Hops,
    net::{LinkState, Links, Reason},
};

/// A gateway, dialled.
fn gateway() -> Peer {
    Peer::with(PeerConfig { hops: Hops::SecurityWhereOffered, ..config() }, global())
}

fn from(ttl: u8) -> Endpoints {
    Endpoints { ttl: Some(ttl), ..ends() }
}

/// What was last required of a connection.
fn least(p: &Peer, conn: Conn) -> Option<u8> {
    p.out.iter().rev().find_map(|o| match o {
        Output::LeastTtl(c, least) if *c == conn => Some(*least),
        _ => None,
    })
}

fn view(p: &Peer) -> (Option<String>, u64) {
    let view = p.s.view(p.now);
    (view.ttl_security, view.refused_by_ttl)
}

fn establish(p: &mut Peer, conn: Conn) {
    p.receive(conn, &their_open()).receive(conn, &keepalive());
    assert_eq!(p.s.state(), SessionState::Established);
}

#[test]
fn packets_to_such_a_neighbor_leave_with_ttl_255() {
    let config = PeerConfig { hops: Hops::SecurityWhereOffered, ..config() };
    assert_eq!(config.ttl(), 255);
}

#[test]
fn a_dialled_neighbor_that_sends_with_ttl_255_is_held_to_it() {
    let mut p = gateway();
    p.feed(Input::Start).feed(Input::Connected(OUT, ends()));
    let required = p.out.iter().position(|o| matches!(o, Output::LeastTtl(OUT, 255))).unwrap();
    let open = p.out.iter().position(|o| matches!(o, Output::Transmit(OUT, _))).unwrap();
    assert!(required < open, "no reply to our OPEN may pass before");
    establish(&mut p, OUT);
    p.pass(seconds(5));
    assert_eq!((least(&p, OUT), view(&p)), (Some(255), (Some("enforced".into()), 0)));

    // From now on nothing else is accepted, by either kind of connection, and however long it
    // takes.
    p.feed(Input::Closed(OUT, None)).feed(Input::Accepted(IN, from(1)));
    assert!(p.closed(IN) && p.sent(IN).is_empty(), "TTL 1 after 255");
    assert!(p.last_error().contains("routelet neighbor reset 10.0.0.2"), "{}", p.last_error());
    p.pass(seconds(6));
    p.feed(Input::Connected(Conn(3), ends())).pass(seconds(60));
    assert_eq!(least(&p, Conn(3)), Some(255), "no fallback");
    assert_eq!(view(&p), (Some("enforced".into()), 1));
}

#[test]
fn a_dialled_neighbor_without_ttl_security_has_its_session_after_a_second() {
    let mut p = gateway();
    p.feed(Input::Start).feed(Input::Connected(OUT, ends())).pass(Duration::from_millis(999));
    assert_eq!(least(&p, OUT), Some(255));
    p.pass(Duration::from_millis(1));
    assert_eq!((least(&p, OUT), p.closed(OUT)), (Some(0), false));
    establish(&mut p, OUT);
    assert_eq!(view(&p), (Some("not offered by the neighbor".into()), 0));
    let notes = p.s.view(p.now).notes;
    assert!(notes.iter().any(|n| n.contains("ttl-security hops 1")), "{notes:?}");
    let needs = p.s.view(p.now).needs;
    assert!(needs.iter().all(|d| d.reason == Reason::GracefulRestartOff), "it is no problem: {needs:?}");

    // It is known: the next session comes up at once.
    p.out.clear();
    p.feed(Input::Closed(OUT, None)).pass(seconds(6)).feed(Input::Connected(Conn(3), ends()));
    assert_eq!(least(&p, Conn(3)), None);

    // Once it offers TTL security on a connection of its own, that counts.
    p.feed(Input::Closed(Conn(3), None)).feed(Input::Accepted(IN, from(255)));
    assert_eq!(least(&p, IN), Some(255));
    establish(&mut p, IN);
    assert_eq!(view(&p).0.as_deref(), Some("enforced"));
}

/// An OPEN that arrived before 255 was required, and a KEEPALIVE that did not.
#[test]
fn an_open_alone_is_no_offer() {
    let mut p = gateway();
    p.feed(Input::Start).feed(Input::Connected(OUT, ends())).receive(OUT, &their_open());
    p.pass(seconds(1));
    assert_eq!(least(&p, OUT), Some(0));
    p.receive(OUT, &keepalive());
    assert_eq!(view(&p).0.as_deref(), Some("not offered by the neighbor"));
}

#[test]
fn an_accepted_connection_is_judged_by_the_ttl_of_its_syn() {
    let internal = || PeerConfig { remote_as: RemoteAs::Number(65001), ..config() };
    #[rustfmt::skip]
    let cases = [
        ("TTL security",                 config(),   Some(255), Some(Some(255))),
        ("a switch's default",           config(),   Some(1),   Some(None)),
        ("the kernel did not keep it",   config(),   None,      Some(None)),
        ("a container behind NAT",       config(),   Some(63),  None),
        ("one that chose 255",           config(),   Some(254), None),
        ("a kernel's default",            config(),   Some(64),  Some(None)),
        ("two hops",                     config(),   Some(2),   None),
        ("iBGP",                         internal(), Some(64),  Some(None)),
        ("iBGP, TTL security",           internal(), Some(255), Some(Some(255))),
        ("iBGP, forwarded",              internal(), Some(63),  None),
    ];
    for (name, config, ttl, want) in cases {
        let mut p =
            Peer::with(PeerConfig { hops: Hops::SecurityWhereOffered, passive: true, ..config }, global());
        p.feed(Input::Start).feed(Input::Accepted(IN, Endpoints { ttl, ..ends() }));
        let taken = (!p.closed(IN)).then(|| least(&p, IN));
        assert_eq!(taken, want, "{name}");
        assert_eq!(view(&p).1, u64::from(want.is_none()), "{name}: counted");
        assert_eq!(p.last_error().contains("forwarded"), want.is_none(), "{name}: {}", p.last_error());
    }
}

#[test]
fn what_was_found_out_is_forgotten_with_the_link_and_by_the_operator() {
    let links = |generation| {
        let own = "10.0.0.1".parse().unwrap();
        let eth0 = LinkState {
            name: "eth0".into(),
            up: true,
            carrier: true,
            generation,
            addresses: vec![(own, "10.0.0.0/24".parse().unwrap())],
        };
        Arc::new(Links::new([(2, eth0)].into(), vec![("10.0.0.0/24".parse().unwrap(), 2)]))
    };
    let pinned = || {
        let mut p = gateway();
        p.feed(Input::Host(links(0))).feed(Input::Start).feed(Input::Connected(OUT, ends()));
        establish(&mut p, OUT);
        p.out.clear();
        p
    };
    type Event = for<'a> fn(&'a mut Peer, Arc<Links>) -> &'a mut Peer;
    #[rustfmt::skip]
    let events: [(&str, Event, bool); 4] = [
        ("nothing",              |p, _| p.feed(Input::Closed(OUT, None)).pass(seconds(6)), false),
        ("the link was lost",    |p, links| p.feed(Input::Host(links)), true),
        ("reset",                |p, _| p.feed(Input::Reset(None)), true),
        ("disabled and enabled", |p, _| p.feed(Input::Stop(Stop::Disabled(None))).feed(Input::Start), true),
    ];
    for (name, event, forgotten) in events {
        let mut p = pinned();
        event(&mut p, links(1));
        let conn = Conn(7);
        p.feed(Input::Accepted(conn, from(1)));
        assert_eq!(p.closed(conn), !forgotten, "{name}");
    }
}

/// A container behind the masquerade of a neighbor, or of another node of the mesh.
#[test]
fn a_forwarded_connection_takes_no_session_of_a_directly_connected_neighbor() {
    let on_link = || PeerConfig { shared: vec!["10.0.0.0/24".parse().unwrap()], ..config() };
    #[rustfmt::skip]
    let cases = [
        ("accepted before: a lower TTL",      on_link(), Some(64),  63,  false),
        ("accepted before: the same",         on_link(), Some(64),  64,  true),
        ("accepted before: 255, lowered once", on_link(), Some(64), 254, false),
        ("accepted before: multihop there",   on_link(), Some(3),   3,   true),
        ("accepted before: a higher TTL",     on_link(), Some(1),   255, true),
        ("outgoing before: lowered once",      on_link(), None,      63,  false),
        ("outgoing before: lowered twice",     on_link(), None,      253, false),
        ("outgoing before: as it was sent",    on_link(), None,      1,   true),
        ("outgoing before: a system's default", on_link(), None,     64,  true),
        ("behind routers anyway",             config(),  None,      61,  true),
    ];
    for (name, config, before, ttl, taken) in cases {
        let mut p = Peer::with(config, global());
        p.feed(Input::Start);
        let first = if before.is_some() { IN } else { OUT };
        match before {
            Some(ttl) => p.feed(Input::Accepted(first, from(ttl))),
            None => p.feed(Input::Connected(first, ends())),
        };
        establish(&mut p, first);
        p.pass(seconds(2)).out.clear();
        p.feed(Input::Accepted(Conn(9), from(ttl)));
        assert_eq!(p.closed(Conn(9)), !taken, "{name}");
        assert_eq!((p.down(), p.s.state()), (None, SessionState::Established), "{name}");
        if !taken {
            assert_eq!(p.kinds(first), [Kind::Keepalive], "{name}: finds out whether the session lives");
            assert_eq!(view(&p).1, 1, "{name}: counted");
        }
    }
}
