//! What is advised about a session that is down, and remarked on one that is up.

use super::*;
use crate::{bgp::peer::PeerSource, net::Reason};

fn advice(p: &Peer) -> String {
    p.s.view(p.now).diagnosis.map(|(_, advice)| advice).unwrap_or_default()
}

/// Reasons of the remarks on an established session.
fn remarks(config: PeerConfig, global: Global, open: &[u8]) -> Vec<Reason> {
    let p = Peer::established_with(config, global, open);
    p.s.view(p.now).needs.iter().map(|d| d.reason).collect()
}

#[test]
fn a_notification_has_its_own_advice_at_either_end() {
    let received = |code: Code, subcode, data: &'static [u8]| {
        let mut p = Peer::outgoing();
        let notification = Notification { code: code as u8, subcode, data: Bytes::from_static(data) };
        p.receive(OUT, &notify(&notification));
        advice(&p)
    };
    #[rustfmt::skip]
    let cases = [
        (received(Code::Open, 2, &[]),                                       "this host (10.0.0.1) with AS 65001 there"),
        (received(Code::Open, 3, &[]),                                       "bgp.router-id"),
        (received(Code::Cease, cease::MAX_PREFIXES, &[0, 1, 1, 0, 0, 0, 5]), "raise the prefix limit for this host there"),
        (received(Code::Cease, cease::HARD_RESET, &[6, 1]),                  "raise the prefix limit for this host there"),
        (received(Code::Cease, cease::SHUTDOWN, &[]),                        "enable this host (10.0.0.1) there"),
        (received(Code::Cease, cease::REJECTED, &[]),                        "configure this host (10.0.0.1)"),
        (received(Code::HoldTimer, 0, &[]),                                  ""),
    ];
    for (advice, part) in cases {
        assert!(advice.contains(part) && advice.is_empty() == part.is_empty(), "{part}: {advice}");
    }
    let mut p = Peer::outgoing();
    p.receive(OUT, &open(65003, 90, THEM, families()));
    assert!(advice(&p).contains("set `remote-as`"), "{}", advice(&p));
    let mut p = Peer::established();
    p.feed(Input::MaxPrefixes(Family::Ipv4Unicast));
    assert!(advice(&p).contains("routelet neighbor reset 10.0.0.2"), "{}", advice(&p));
}

#[test]
fn an_attempt_without_a_session_has_the_advice_of_its_last_error() {
    let mut p = Peer::new();
    p.feed(Input::Start);
    let (why, remedy) = p.s.view(p.now).diagnosis.unwrap();
    assert_eq!(why, "no reply from 10.0.0.2 yet");
    assert!(remedy.contains("no firewall on either end drops TCP port 179"), "{remedy}");
    p.feed(Input::ConnectFailed { why: "connection refused".into(), refused: true });
    assert!(advice(&p).contains("start the BGP daemon at 10.0.0.2"), "{}", advice(&p));
    p.pass(seconds(10)).feed(Input::ConnectFailed { why: "no route to 10.0.0.2:179".into(), refused: false });
    assert_eq!(advice(&p), "");
    let mut p = Peer::outgoing();
    p.feed(Input::Closed(OUT, None));
    assert!(
        advice(&p).contains("configure this host (10.0.0.1) as a neighbor with AS 65001"),
        "{}",
        advice(&p)
    );
    p.feed(Input::Stop(Stop::Disabled(None)));
    assert_eq!(advice(&p), "", "of no use while it is disabled");
    assert_eq!(advice(&Peer::established()), "");
}

/// FRR closes every connection for a while after an error, and BIRD refuses them.
#[test]
fn the_reason_that_a_neighbor_gave_is_not_hidden_by_what_follows() {
    let mut p = Peer::outgoing();
    let notification = Notification::new(Code::Open, 2);
    p.receive(OUT, &notify(&notification));
    p.pass(seconds(10)).feed(Input::Connected(Conn(3), ends())).feed(Input::Closed(Conn(3), None));
    assert!(p.last_error().contains("before its OPEN"), "{}", p.last_error());
    let (why, advice) = p.s.view(p.now).diagnosis.unwrap();
    assert!(why.contains("bad peer AS") && advice.contains("with AS 65001 there"), "{why}; {advice}");
    // The reason no longer holds once the settings are others, or after some time.
    let other = PeerConfig { hold_time: 30, ..config() };
    p.feed(Input::Configure(Arc::new(other), global()));
    assert_eq!(p.s.view(p.now).diagnosis, None);
    let mut p = Peer::outgoing();
    p.receive(OUT, &notify(&notification));
    assert!(p.s.view(p.now).diagnosis.is_some());
    assert_eq!(p.s.view(p.now + seconds(301)).diagnosis.map(|(why, _)| why), Some(p.last_error()));
}

#[test]
fn an_expired_hold_timer_names_the_direction_in_which_packets_are_lost() {
    let quiet = Transport { segments: 20, received: 500, segment: 1448, ..Transport::default() };
    let waiting = Transport { unacknowledged: 19, ..quiet };
    #[rustfmt::skip]
    let cases = [
        ("nothing arrives",        [waiting, waiting],                               "is not acknowledged",                     "no packet arrives from 10.0.0.2"),
        ("it sends again",         [waiting, Transport { data_segments: 3, ..waiting }], "does not arrive there",                   "no packet of this host arrives at 10.0.0.2"),
        ("its window is closed",   [waiting, Transport { segments: 29, is_window_closed: true, ..waiting }], "its TCP replies to what this host sends", "which may hang"),
        ("only its TCP is there",  [quiet, Transport { segments: 23, ..quiet }],     "its TCP replies to what this host sends", "which may hang"),
    ];
    for (name, samples, text, advice) in cases {
        let mut p = Peer::established();
        for sample in samples {
            p.feed(Input::Transport(OUT, sample));
        }
        p.pass(seconds(91));
        let (why, remedy) = p.s.view(p.now).diagnosis.unwrap();
        assert!(why.contains(text) && remedy.contains(advice), "{name}: {why}; {remedy}");
    }
    // The neighbor's timer expired first.
    let mut p = Peer::established();
    p.feed(Input::Transport(OUT, waiting)).receive(OUT, &notify(&Notification::new(Code::HoldTimer, 0)));
    let (why, remedy) = p.s.view(p.now).diagnosis.unwrap();
    assert!(
        why.contains("does not arrive there") && remedy.contains("arrives at 10.0.0.2"),
        "{why}; {remedy}"
    );
}

#[test]
fn a_session_with_common_settings_has_no_remarks() {
    let graceful = Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification: false,
        restart_time: 120,
        families: vec![],
    });
    let open_with = |hold, id| {
        let mut list = families();
        list.push(graceful.clone());
        open(65002, hold, id, list)
    };
    let chosen = |hold_time| PeerConfig { hold_time, ..config() };
    let without = || PeerConfig { graceful_restart: false, ..config() };
    let off = [Reason::GracefulRestartOff];
    #[rustfmt::skip]
    let cases: [(&str, PeerConfig, Vec<u8>, &[Reason]); 9] = [
        ("defaults of FRR",          config(),   open_with(180, THEM),                  &[]),
        ("shorter than the default", config(),   open_with(9, THEM),                    &[]),
        ("shorter than the chosen",  chosen(60), open_with(9, THEM),                    &[Reason::HoldTimeDiffers]),
        ("longer than the chosen",   chosen(60), open_with(180, THEM),                  &[]),
        ("no keepalives there",      config(),   open_with(0, THEM),                    &[Reason::HoldTimeDiffers]),
        ("nor here",                 chosen(0),  open_with(0, THEM),                    &[]),
        ("no graceful restart",      config(),   open(65002, 90, THEM, families()),     &off),
        ("nor here",                 without(),  open(65002, 90, THEM, families()),     &[]),
        ("our router id",            config(),   open_with(90, US),                     &[Reason::RouterIdShared]),
    ];
    for (name, config, open, expected) in cases {
        assert_eq!(remarks(config, global(), &open), expected, "{name}");
    }
    let node = PeerConfig { source: PeerSource::Mesh, ..config() };
    assert_eq!(remarks(node, global(), &open(65002, 90, THEM, families())), [], "nobody configured it");
}
