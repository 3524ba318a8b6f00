//! What users of BGP daemons reported, on a virtual clock; each test is named after its report.

use super::*;
use crate::{
    bgp::{
        peer::{AddPaths, Hops, MaxPrefixesAction},
        wire::capability::{AddPathFamily, LongLivedFamily},
    },
    net::PerFamily,
};

fn graceful(restart_time: u16, families: &[(u16, bool)]) -> Capability {
    let family =
        |(afi, forwarding): &(u16, bool)| GracefulFamily { afi: *afi, safi: 1, forwarding: *forwarding };
    Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification: true,
        restart_time,
        families: families.iter().map(family).collect(),
    })
}

fn with(extra: Vec<Capability>) -> Vec<u8> {
    open(65002, 90, THEM, [families(), extra].concat())
}

/// RFC 4724 §3: "the receiver MUST ignore all but the last instance".
#[test]
fn of_several_graceful_restart_capabilities_the_last_counts() {
    let octets = with(vec![graceful(10, &[(1, true), (2, true)]), graceful(77, &[(2, false)])]);
    let p = Peer::established_with(config(), global(), &octets);
    let g = p.s.negotiated().unwrap().graceful.clone().unwrap();
    assert_eq!((g.restart_time, g.families), (77, vec![(Family::Ipv6Unicast, false)]));
    let octets = with(vec![graceful(10, &[(1, true), (1, false)])]);
    let p = Peer::established_with(config(), global(), &octets);
    let g = p.s.negotiated().unwrap().graceful.clone().unwrap();
    assert_eq!(g.families, [(Family::Ipv4Unicast, false)], "a family that is named twice");
}

/// RFC 5492 §4: the RFC of each capability defines what several instances mean.
#[test]
fn repeated_capabilities_follow_the_rfc_of_each() {
    let llgr = |stale_time| {
        Capability::LongLivedGracefulRestart(vec![LongLivedFamily {
            afi: 1,
            safi: 1,
            forwarding: true,
            stale_time,
        }])
    };
    let kept = PeerConfig { long_lived_stale_time: 9000, ..config() };
    let octets = with(vec![llgr(5), graceful(10, &[(1, true)]), llgr(7)]);
    let p = Peer::established_with(kept.clone(), global(), &octets);
    let g = p.s.negotiated().unwrap().graceful.clone().unwrap();
    assert_eq!(g.long_lived, [(Family::Ipv4Unicast, 7, true)], "RFC 9494: the last");
    let p = Peer::established_with(kept, global(), &with(vec![llgr(5)]));
    assert!(p.s.negotiated().unwrap().graceful.is_none(), "RFC 9494 §3: not without graceful restart");

    // RFC 7911 §4: what is no mode is ignored, and does not undo a tuple that is one.
    let add = |afi, mode| Capability::AddPath(vec![AddPathFamily { afi, safi: 1, mode }]);
    let both = PeerConfig { add_paths: AddPaths { send: true, receive: true }, ..config() };
    let octets = with(vec![add(1, 1), add(2, 2), add(1, 3), add(1, 0), add(1, 7)]);
    let p = Peer::established_with(both, global(), &octets);
    let n = p.s.negotiated().unwrap();
    assert_eq!((n.add_path_receive, n.add_path_send), (PerFamily::both(true), PerFamily::new(true, false)));

    // RFC 4760 §8: each instance is one family. RFC 8950 §4: each may carry one more triple.
    let one = |nh| {
        let triple = crate::bgp::wire::capability::NextHopEncoding { afi: 1, safi: nh, next_hop_afi: 2 };
        Capability::ExtendedNextHop(vec![triple])
    };
    let mut ours = config();
    ours.own.v6 = "2001:db8::1".parse().ok();
    let p = Peer::established_with(ours, global(), &with(vec![one(2), one(1)]));
    assert!(p.s.negotiated().unwrap().extended_next_hop);
}

/// RFC 9234 §4.2: equal roles are one; different ones are refused by an eBGP speaker, with a role
/// or without.
#[test]
fn several_roles_that_differ_are_refused_without_a_role_of_our_own_too() {
    let roles = |list: &[u8]| with(list.iter().map(|r| Capability::Role(*r)).collect());
    let mut p = Peer::outgoing();
    p.receive(OUT, &roles(&[3, 4]));
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.code, n.subcode), (2, 11));
    Peer::established_with(config(), global(), &roles(&[3, 3]));
    let ibgp = PeerConfig { remote_as: RemoteAs::Internal, ..config() };
    let octets = open(65001, 90, THEM, [families(), vec![Capability::Role(3), Capability::Role(4)]].concat());
    Peer::established_with(ibgp, global(), &octets);
}

/// RFC 4271 §4.4: "KEEPALIVE messages MUST NOT be sent more frequently than one per second".
#[test]
fn keepalives_are_never_less_than_a_second_apart() {
    for seed in 0..50 {
        let t0 = Instant::now();
        let mut p = Peer { s: Session::new(t0, Arc::new(config()), global(), seed), ..Peer::new() };
        (p.t0, p.now) = (t0, t0);
        p.feed(Input::Start).feed(Input::Connected(OUT, ends()));
        p.receive(OUT, &open(65002, 3, THEM, families())).receive(OUT, &keepalive());
        assert_eq!(p.s.state(), SessionState::Established);
        p.out.clear();
        let mut sent = vec![p.now];
        for step in 0..300 {
            p.pass(Duration::from_millis(37));
            if step % 7 == 0 {
                // A second call has the first connection probed, however often it comes.
                let conn = Conn(100 + step);
                p.feed(Input::Accepted(conn, ends())).receive(conn, &open(65002, 3, THEM, families()));
            }
            if step % 20 == 0 {
                p.receive(OUT, &keepalive());
            }
            if p.kinds(OUT).contains(&Kind::Keepalive) {
                sent.push(p.now);
            }
            p.out.clear();
        }
        let least = sent.windows(2).map(|w| w[1] - w[0]).min().unwrap();
        assert!(least > Duration::from_millis(960), "{least:?} with seed {seed}");
        assert!(sent.len() > 8, "{} KEEPALIVEs in eleven seconds", sent.len());
    }
}

/// A switch that refuses us sends an OPEN without a usable number and its reason right behind.
#[test]
fn an_open_with_as_trans_and_a_cease_in_one_read_leave_both_texts() {
    let mut octets = BytesMut::new();
    let trans = Open { my_as: AS_TRANS as u16, hold_time: 180, router_id: THEM, capabilities: vec![] };
    trans.encode(&mut octets);
    octets.extend_from_slice(&notify(&Notification::new(Code::Cease, cease::REJECTED)));
    let mut p = Peer::outgoing();
    p.receive(OUT, &octets);
    let view = p.s.view(p.now);
    assert_eq!(view.last_notification_received.as_deref(), Some("cease/connection rejected"));
    let text = p.last_error();
    for part in ["AS_TRANS", "AS 65002", "the neighbor sent NOTIFICATION cease/connection rejected"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(view.messages_received["notification"], 1);
    // The same in two reads: the second comes when the connection is closed already.
    let mut p = Peer::outgoing();
    let (open, cease) = octets.split_at(octets.len() - 21);
    p.receive(OUT, open);
    assert!(p.closed(OUT));
    p.feed(Input::Leftover(&mut BytesMut::from(cease)));
    assert!(p.last_error().contains("cease/connection rejected"), "{}", p.last_error());
    // AS 0 is named, too.
    let mut p = Peer::outgoing();
    p.receive(OUT, &open_of_as_0());
    assert!(p.last_error().contains("AS number is 0"), "{}", p.last_error());
}

fn open_of_as_0() -> Vec<u8> {
    let mut octets = BytesMut::new();
    Open { my_as: 0, hold_time: 180, router_id: THEM, capabilities: vec![] }.encode(&mut octets);
    octets.to_vec()
}

#[test]
fn a_reload_with_another_limit_ends_the_pause_at_once() {
    #[rustfmt::skip]
    let cases: [(&str, PeerConfig, bool); 6] = [
        ("raised",           PeerConfig { max_prefixes: 5000, ..config() }, true),
        ("warn",             PeerConfig { max_prefixes_action: MaxPrefixesAction::Warn, ..config() }, true),
        ("lowered",          PeerConfig { max_prefixes: 10, ..config() }, true),
        ("a shorter pause",  PeerConfig { max_prefixes_restart: seconds(5), ..config() }, true),
        ("nothing",          config(), false),
        ("something else",   PeerConfig { description: Some("leaf".into()), ..config() }, false),
    ];
    for (name, after, ends) in cases {
        let mut p = Peer::established();
        p.feed(Input::MaxPrefixes(Family::Ipv4Unicast)).pass(seconds(10));
        assert_eq!(p.s.state(), SessionState::Idle, "{name}");
        p.out.clear();
        p.feed(Input::Configure(Arc::new(after.clone()), global()));
        assert_eq!((p.dials(), p.s.state() == SessionState::Idle), (usize::from(ends), !ends), "{name}");
        // Calls of the neighbor are taken again as well.
        let passive = PeerConfig { passive: true, ..config() };
        let mut p = Peer::with(passive.clone(), global());
        p.feed(Input::Start).feed(Input::Accepted(OUT, self::ends()));
        p.receive(OUT, &their_open()).receive(OUT, &keepalive());
        p.feed(Input::MaxPrefixes(Family::Ipv4Unicast));
        p.feed(Input::Configure(Arc::new(PeerConfig { passive: true, ..after }), global()));
        p.out.clear();
        p.feed(Input::Accepted(IN, self::ends()));
        assert_eq!(!p.closed(IN), ends, "{name}, passive");
    }
    // An idle time for an error is no matter of the limit.
    let mut p = Peer::outgoing();
    p.receive(OUT, b"garbage, longer than a header of nineteen octets");
    assert_eq!(p.s.state(), SessionState::Idle);
    p.feed(Input::Configure(Arc::new(PeerConfig { max_prefixes: 7, ..config() }), global()));
    assert_eq!(p.s.state(), SessionState::Idle);
}

/// A host with several addresses is dialled at each of them by a speaker that believes they are
/// several neighbors.
#[test]
fn a_call_to_another_of_our_addresses_is_no_restart_of_an_established_neighbor() {
    let octets = with(vec![graceful(120, &[(1, true), (2, true)])]);
    let other = Endpoints { local: SocketAddr::from(([10, 0, 0, 9], 179)), ..ends() };
    let mut p = Peer::established_with(config(), global(), &octets);
    p.out.clear();
    for n in 0..5 {
        let conn = Conn(20 + n);
        p.feed(Input::Accepted(conn, other)).receive(conn, &octets);
        assert_eq!(p.notification(conn).unwrap().subcode, cease::REJECTED, "{n}");
        assert!(p.closed(conn) && !p.closed(OUT), "{n}");
        p.receive(OUT, &keepalive()).pass(seconds(4));
    }
    assert_eq!((p.s.state(), p.down()), (SessionState::Established, None));
    assert!(p.kinds(OUT).contains(&Kind::Keepalive), "the session is probed: it may be dead at the far end");
    // To the address of the session it is one.
    p.feed(Input::Accepted(IN, ends())).receive(IN, &octets).receive(IN, &keepalive());
    assert!(p.closed(OUT));
}

/// Who is turned away for a session under another address does not dial each second for ever.
#[test]
fn a_neighbor_that_always_answers_with_a_collision_is_dialled_less_and_less() {
    let mut p = Peer::with(config(), global());
    p.feed(Input::Start);
    let mut dials = 0;
    for step in 0..1200 {
        dials += p.dials();
        if p.dials() > 0 {
            p.out.clear();
            let conn = Conn(100 + step);
            p.feed(Input::Connected(conn, ends())).receive(conn, &their_open());
            p.receive(conn, &notify(&Notification::cease(cease::COLLISION, None)));
        }
        p.out.retain(|o| matches!(o, Output::Connect));
        p.pass(Duration::from_millis(500));
    }
    assert!((5..25).contains(&dials), "{dials} dials in ten minutes");
}

/// Newcomers set multihop or TTL security at one end only.
#[test]
fn a_neighbor_that_is_silent_after_the_connection_leaves_a_hint_at_the_distance() {
    let hops = |hops| PeerConfig { hops, ..config() };
    let ibgp = PeerConfig { remote_as: RemoteAs::Internal, ..config() };
    #[rustfmt::skip]
    let cases = [
        ("multihop",     hops(Hops::Multihop(3)), "set multihop at the other end"),
        ("ttl-security", hops(Hops::Security(1)), "`ttl-security` here drops"),
        ("direct",       hops(Hops::Direct),      "set `ttl-security` or `multihop` here"),
        ("iBGP",         ibgp,                    "is a BGP speaker at the other end?"),
    ];
    for (name, config, hint) in cases {
        let asn = if config.is_surely_internal() { 65001 } else { 65002 };
        let mut p = Peer::with(config, global());
        p.feed(Input::Start).feed(Input::Connected(OUT, ends())).pass(seconds(4));
        assert_eq!(p.last_error(), "", "{name}: not at once");
        p.pass(seconds(2));
        assert!(p.last_error().contains("no OPEN for 5 s"), "{name}: {}", p.last_error());
        assert!(p.last_error().contains(hint), "{name}: {}", p.last_error());
        p.receive(OUT, &open(asn, 90, THEM, families())).pass(seconds(6));
        assert!(p.last_error().contains("no KEEPALIVE for 5 s"), "{name}: {}", p.last_error());
        p.receive(OUT, &keepalive());
        assert_eq!((p.last_error(), p.s.state()), (String::new(), SessionState::Established), "{name}");
    }
    let mut p = Peer::with(hops(Hops::Multihop(3)), global());
    p.feed(Input::Start).feed(Input::Connected(OUT, ends())).feed(Input::Closed(OUT, None));
    let text = p.last_error();
    assert!(text.contains("is this host configured there?") && text.contains("multihop"), "{text}");
    let mut p = Peer::with(hops(Hops::Security(1)), global());
    p.feed(Input::Start).pass(seconds(6));
    assert!(p.last_error().contains("ttl-security"), "{}", p.last_error());
}

#[test]
fn a_forgotten_multihop_is_named_at_the_first_dial() {
    let behind = PeerConfig { behind: Some([10, 0, 0, 254].into()), ..config() };
    let mut p = Peer::with(behind.clone(), global());
    p.feed(Input::Start);
    p.feed(Input::ConnectFailed {
        why: "10.0.0.2:179 is unreachable: no reply from that address".into(),
        refused: false,
    });
    for part in ["without `multihop`", "behind 10.0.0.254", "TTL 1"] {
        assert!(p.last_error().contains(part), "{part}: {}", p.last_error());
    }
    let mut p = Peer::with(behind, global());
    p.feed(Input::Start).pass(seconds(6));
    assert!(p.last_error().contains("set `multihop`"), "no reply at all: {}", p.last_error());
}

#[test]
fn a_neighbor_whose_address_becomes_ours_is_left_and_dialled_no_more() {
    let here = || Arc::new(PeerConfig { is_here: true, passive: true, ..config() });
    let mut p = Peer::established();
    p.feed(Input::Configure(here(), global()));
    assert_eq!(p.down(), Some(DownCause::Administrative));
    assert!(p.last_error().contains("10.0.0.2 is an address of this host now"), "{}", p.last_error());
    assert!(p.sent(OUT).is_empty(), "nothing can be sent to an address of our own");
    p.pass(seconds(300)).feed(Input::RetryNow);
    assert_eq!(p.dials(), 0);
    // A dial under way ends, too, and all begins again when the address has gone.
    let mut p = Peer::with(config(), global());
    p.feed(Input::Start).feed(Input::Configure(here(), global()));
    assert!(p.out.iter().any(|o| matches!(o, Output::AbortConnect { timed_out: false })));
    p.out.clear();
    p.pass(seconds(300));
    assert_eq!(p.dials(), 0);
    p.feed(Input::Configure(Arc::new(config()), global()));
    assert_eq!(p.dials(), 1);
}

#[test]
fn a_neighbor_that_is_the_same_router_as_another_stays_out_until_that_session_is_over() {
    let mut p = Peer::established();
    p.feed(Input::Yield("no".into()));
    assert_eq!(p.s.state(), SessionState::Established, "whoever has a session keeps it");
    p.feed(Input::Closed(OUT, None)).feed(Input::Yield("one router".into()));
    p.out.clear();
    p.pass(seconds(1000)).feed(Input::RetryNow).feed(Input::Accepted(IN, ends()));
    assert_eq!((p.s.state(), p.dials(), p.closed(IN)), (SessionState::Idle, 0, true));
    let needs: Vec<_> = p.s.view(p.now).needs.into_iter().map(|d| d.text).collect();
    assert_eq!((p.last_error(), needs), ("one router".into(), vec!["one router".to_owned()]));
    p.feed(Input::Resume);
    assert_eq!((p.dials(), p.s.view(p.now).needs), (1, vec![]));
    p.out.clear();
    p.feed(Input::Resume);
    assert_eq!(p.dials(), 0);
    p.feed(Input::Yield("one router".into())).feed(Input::Reset(None));
    assert_eq!(p.dials(), 1, "by hand");
}
