//! A second connection beside an established session, and sessions that end again and again.

use super::*;

/// An OPEN of a neighbor that keeps routes over its restarts.
fn graceful_open(id: RouterId) -> Vec<u8> {
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: 120,
        families: vec![GracefulFamily { afi: 1, safi: 1, forwarding: true }],
    };
    open(65002, 90, id, [families(), vec![Capability::GracefulRestart(restart)]].concat())
}

fn established() -> Peer {
    let mut p = Peer::established_with(config(), global(), &graceful_open(THEM));
    p.pass(seconds(20)).receive(OUT, &keepalive());
    p.out.clear();
    p
}

#[test]
fn a_second_connection_that_goes_no_further_than_its_open_ends_no_session() {
    let mut p = established();
    let stranger = RouterId::new(9, 9, 9, 9);
    p.feed(Input::Accepted(IN, ends())).receive(IN, &graceful_open(stranger));
    assert_eq!((p.down(), p.closed(OUT), p.closed(IN)), (None, false, false));
    let view = p.s.view(p.now);
    assert_eq!(
        (view.router_id, view.state),
        (Some(THEM), SessionState::Established),
        "what is shown is of the session"
    );
    p.pass(seconds(6));
    assert!(p.closed(IN) && !p.closed(OUT), "it has no place for long");
    assert_eq!(p.notification(IN).unwrap().subcode, cease::COLLISION);
    assert_eq!((p.down(), p.last_error()), (None, String::new()));

    // Nor does one that ends by itself, breaks the protocol, or is not what it claims to be.
    let wrong_as = open(7, 90, THEM, families());
    for (n, octets) in [b"GET / HTTP/1.1\r\n\r\n0123456789".to_vec(), wrong_as].iter().enumerate() {
        let conn = Conn(20 + n as u32);
        p.feed(Input::Accepted(conn, ends())).receive(conn, octets);
        assert!(p.closed(conn) && !p.closed(OUT), "{n}");
    }
    p.feed(Input::Accepted(Conn(30), ends())).feed(Input::Closed(Conn(30), None));
    assert_eq!((p.down(), p.s.state()), (None, SessionState::Established));
}

#[test]
fn of_pending_second_connections_there_is_one() {
    let mut p = established();
    for n in 10..100 {
        p.feed(Input::Accepted(Conn(n), ends())).receive(Conn(n), &graceful_open(THEM));
    }
    let pending = (10..100).filter(|n| !p.closed(Conn(*n))).count();
    assert_eq!((pending, p.down()), (1, None));
    p.receive(Conn(99), &keepalive());
    assert_eq!((p.down(), p.s.state()), (Some(DownCause::Closed), SessionState::Established));
    assert_eq!(p.s.view(p.now).local_address, Some([10, 0, 0, 1].into()));
}

/// Establishes, and lets the neighbor end it at once, as fast as it is let; how many sessions there
/// were in `time`.
fn flap(p: &mut Peer, time: Duration, end: for<'a> fn(&'a mut Peer, Conn) -> &'a mut Peer) -> usize {
    let (until, mut sessions) = (p.now + time, 0);
    for n in 100.. {
        if p.now >= until {
            break;
        }
        let conn = Conn(n);
        p.out.clear();
        p.feed(Input::Accepted(conn, ends())).receive(conn, &graceful_open(THEM)).receive(conn, &keepalive());
        if p.s.negotiated().is_some() {
            sessions += 1;
            end(p, conn);
        }
        p.pass(Duration::from_millis(100));
    }
    sessions
}

#[test]
fn a_neighbor_that_ends_sessions_at_once_waits_longer_each_time() {
    type End = for<'a> fn(&'a mut Peer, Conn) -> &'a mut Peer;
    #[rustfmt::skip]
    let ends: [(&str, End); 3] = [
        ("closes",     |p, conn| p.feed(Input::Closed(conn, None))),
        ("shuts down", |p, conn| p.receive(conn, &notify(&Notification::cease(cease::SHUTDOWN, None)))),
        ("resets",     |p, conn| p.receive(conn, &notify(&Notification::cease(cease::RESET, None)))),
    ];
    for (name, end) in ends {
        let mut p = Peer::with(PeerConfig { passive: true, ..config() }, global());
        p.feed(Input::Start);
        let sessions = flap(&mut p, seconds(600), end);
        assert!((6..16).contains(&sessions), "{name}: {sessions} sessions in ten minutes");
        assert!(p.last_error().contains("waits in Idle"), "{name}: {}", p.last_error());
        // In peace all is forgotten: a restart costs nothing.
        p.pass(seconds(500));
        assert_eq!(flap(&mut p, seconds(1), end), 6, "{name}");
        // So it is by the operator's order.
        p.feed(Input::Reset(None));
        assert_eq!(flap(&mut p, seconds(1), end), 6, "{name}: after a reset");
    }
}

#[test]
fn a_neighbor_that_restarts_again_and_again_keeps_its_session_and_is_not_replaced_for_ever() {
    let mut p = established();
    let mut replaced = 0;
    for n in 100..400 {
        p.pass(Duration::from_millis(200));
        p.out.clear();
        p.feed(Input::Accepted(Conn(n), ends()))
            .receive(Conn(n), &graceful_open(THEM))
            .receive(Conn(n), &keepalive());
        replaced += usize::from(p.down().is_some());
    }
    assert_eq!(replaced, 6, "the first session had lasted, five more restarts are believed");
    assert_eq!(p.s.state(), SessionState::Established);
}

#[test]
fn sessions_that_lasted_and_ends_of_our_own_cost_nothing() {
    let mut p = Peer::with(PeerConfig { passive: true, ..config() }, global());
    p.feed(Input::Start);
    for n in 0..40 {
        let conn = Conn(100 + n);
        p.feed(Input::Accepted(conn, ends())).receive(conn, &graceful_open(THEM)).receive(conn, &keepalive());
        assert_eq!(p.s.state(), SessionState::Established, "{n}");
        if n % 2 == 0 {
            p.pass(seconds(11)).feed(Input::Closed(conn, None));
        } else {
            p.feed(Input::BfdDown("control detection time expired"));
        }
        assert_eq!(p.s.state(), SessionState::Active, "{n}");
    }
}
