//! The state machine on a virtual clock. The neighbor's octets are written by our own codec, which
//! has tests of its own.

#![allow(clippy::disallowed_methods, reason = "tests pick the epoch")]

use std::net::SocketAddr;

use super::*;
use crate::{
    bgp::{
        peer::{PeerKey, RemoteAs, Role},
        wire::{
            Code,
            capability::{Capability, GracefulFamily, GracefulRestart},
            framing::{self, Kind},
            notification::{Notification, cease},
            open::Open,
            refresh::Refresh,
        },
    },
    net::{AS_TRANS, Asn, RouterId},
};

mod advice;
mod gtsm;
mod host;
mod rivals;

const US: RouterId = RouterId::new(10, 0, 0, 1);
const THEM: RouterId = RouterId::new(10, 0, 0, 2);
const OUT: Conn = Conn(1);
const IN: Conn = Conn(2);
const EMPTY_UPDATE: &[u8] =
    &[255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 23, 2, 0, 0, 0, 0];

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn config() -> PeerConfig {
    let key = PeerKey::Address([10, 0, 0, 2].into());
    PeerConfig { max_prefixes: 1000, ..PeerConfig::new(key, RemoteAs::Number(65002), 65001) }
}

fn global() -> Global {
    Global {
        asn: 65001,
        router_id: US,
        cluster_id: US,
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    }
}

fn ends() -> Endpoints {
    let at = |n| SocketAddr::from(([10, 0, 0, n], 179));
    Endpoints { local: at(1), remote: at(2), ifindex: 0, ttl: None }
}

fn families() -> Vec<Capability> {
    Family::ALL.map(Capability::family).to_vec()
}

fn open(asn: Asn, hold: u16, id: RouterId, capabilities: Vec<Capability>) -> Vec<u8> {
    let mut octets = BytesMut::new();
    Open::new(asn, hold, id, capabilities).encode(&mut octets);
    octets.to_vec()
}

fn their_open() -> Vec<u8> {
    let mut list = families();
    list.extend([Capability::RouteRefresh, Capability::EnhancedRefresh, Capability::ExtendedMessage]);
    open(65002, 90, THEM, list)
}

fn keepalive() -> Vec<u8> {
    let mut octets = BytesMut::new();
    framing::keepalive(&mut octets);
    octets.to_vec()
}

fn refresh(family: Family, subtype: u8) -> Vec<u8> {
    let mut octets = BytesMut::new();
    Refresh::new(family, subtype).encode(&mut octets);
    octets.to_vec()
}

fn notify(n: &Notification) -> Vec<u8> {
    state::notification(n).to_vec()
}

/// A session with its outputs since the last check.
struct Peer {
    s: Session,
    t0: Instant,
    now: Instant,
    out: Vec<Output>,
    /// The neighbor takes what is sent, at once.
    reads: bool,
}

impl Peer {
    fn with(config: PeerConfig, global: Global) -> Self {
        let t0 = Instant::now();
        Self { s: Session::new(t0, Arc::new(config), global, 42), t0, now: t0, out: vec![], reads: true }
    }

    fn new() -> Self {
        Self::with(config(), global())
    }

    fn feed(&mut self, input: Input<'_>) -> &mut Self {
        self.s.handle(self.now, input);
        while let Some(output) = self.s.poll_output() {
            if let Output::Transmit(conn, bytes) = &output
                && self.reads
            {
                self.s.handle(self.now, Input::Sent(*conn, bytes.len()));
            }
            self.out.push(output);
        }
        self
    }

    fn receive(&mut self, conn: Conn, octets: &[u8]) -> &mut Self {
        let mut octets = BytesMut::from(octets);
        self.feed(Input::Received(conn, &mut octets))
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        while let Some(due) = self.s.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.feed(Input::Timeout);
        }
        self.now = end;
        self
    }

    fn outgoing() -> Self {
        let mut p = Self::new();
        p.feed(Input::Start).feed(Input::Connected(OUT, ends()));
        p
    }

    fn open_confirm() -> Self {
        let mut p = Self::outgoing();
        p.receive(OUT, &their_open());
        p
    }

    fn established() -> Self {
        let mut p = Self::open_confirm();
        p.receive(OUT, &keepalive());
        p.out.clear();
        p
    }

    fn established_with(config: PeerConfig, global: Global, open: &[u8]) -> Self {
        let mut p = Self::with(config, global);
        p.feed(Input::Start)
            .feed(Input::Connected(OUT, ends()))
            .receive(OUT, open)
            .receive(OUT, &keepalive());
        assert_eq!(p.s.state(), SessionState::Established, "{:?}", p.out);
        p
    }

    /// Messages sent on a connection, whole.
    fn sent(&self, conn: Conn) -> Vec<framing::Frame> {
        let mut octets = BytesMut::new();
        for output in &self.out {
            if let Output::Transmit(c, bytes) = output
                && *c == conn
            {
                octets.extend_from_slice(bytes);
            }
        }
        std::iter::from_fn(|| framing::split(&mut octets, true).unwrap()).collect()
    }

    fn kinds(&self, conn: Conn) -> Vec<Kind> {
        self.sent(conn).iter().map(|f| f.kind).collect()
    }

    fn notification(&self, conn: Conn) -> Option<Notification> {
        let last = self.sent(conn).pop().filter(|f| f.kind == Kind::Notification)?;
        Some(Notification::decode(&last.body))
    }

    fn our_open(&self, conn: Conn) -> Open {
        let opens: Vec<_> = self.sent(conn).into_iter().filter(|f| f.kind == Kind::Open).collect();
        Open::decode(&opens.last().unwrap().body).unwrap()
    }

    fn closed(&self, conn: Conn) -> bool {
        self.out.iter().any(|o| matches!(o, Output::Close(c) if *c == conn))
    }

    fn dials(&self) -> usize {
        self.out.iter().filter(|o| matches!(o, Output::Connect)).count()
    }

    fn down(&self) -> Option<DownCause> {
        self.out.iter().find_map(|o| if let Output::Down { cause, .. } = o { Some(*cause) } else { None })
    }

    fn last_error(&self) -> String {
        self.s.view(self.now).last_error.unwrap_or_default()
    }
}

#[test]
fn a_session_comes_up_by_dialling() {
    let mut p = Peer::new();
    assert_eq!(p.s.state(), SessionState::Idle);
    p.feed(Input::Start);
    assert_eq!((p.s.state(), p.dials()), (SessionState::Connect, 1));
    p.feed(Input::Connected(OUT, ends()));
    assert_eq!((p.s.state(), p.kinds(OUT)), (SessionState::OpenSent, vec![Kind::Open]));
    p.receive(OUT, &their_open());
    assert_eq!((p.s.state(), p.kinds(OUT)), (SessionState::OpenConfirm, vec![Kind::Open, Kind::Keepalive]));
    p.receive(OUT, &keepalive());
    assert_eq!(p.s.state(), SessionState::Established);
    let negotiated = p.s.negotiated().unwrap();
    assert_eq!((negotiated.remote_as, negotiated.remote_id, negotiated.hold_time), (65002, THEM, 90));
    assert_eq!(negotiated.families, Family::ALL);
    assert!(negotiated.four_octet_as && negotiated.extended_messages && negotiated.enhanced_refresh);
    assert!(p.out.iter().any(|o| matches!(o, Output::Up(_))));
}

#[test]
fn a_session_comes_up_by_being_called() {
    let mut p = Peer::with(PeerConfig { passive: true, ..config() }, global());
    p.feed(Input::Start);
    assert_eq!((p.s.state(), p.dials(), p.s.poll_timeout()), (SessionState::Active, 0, None));
    p.feed(Input::Accepted(IN, ends())).receive(IN, &their_open()).receive(IN, &keepalive());
    assert_eq!(p.s.state(), SessionState::Established);
}

#[test]
fn a_session_comes_up_whatever_the_cuts_between_octets() {
    let whole = [their_open(), keepalive(), keepalive(), refresh(Family::Ipv4Unicast, 0)].concat();
    for size in 1..whole.len() {
        let mut p = Peer::outgoing();
        let mut buffer = BytesMut::new();
        for piece in whole.chunks(size) {
            buffer.extend_from_slice(piece);
            p.feed(Input::Received(OUT, &mut buffer));
        }
        assert_eq!(p.s.state(), SessionState::Established, "pieces of {size}");
        assert!(buffer.is_empty());
        assert!(p.out.iter().any(|o| matches!(o, Output::Refresh { subtype: 0, .. })), "pieces of {size}");
    }
}

#[test]
fn updates_of_one_read_are_one_output_in_order_with_refreshes() {
    let mut p = Peer::established();
    let request = refresh(Family::Ipv4Unicast, 0);
    p.receive(OUT, &[EMPTY_UPDATE, EMPTY_UPDATE, &request, EMPTY_UPDATE].concat());
    let seen: Vec<_> = p
        .out
        .iter()
        .map(|o| match o {
            Output::Updates(list) => list.len(),
            Output::Refresh { .. } => 100,
            _ => 200,
        })
        .collect();
    assert_eq!(seen, [2, 100, 1]);
}

#[test]
fn a_wrong_open_gets_the_notification_that_names_its_fault() {
    let ibgp = || PeerConfig { remote_as: RemoteAs::Internal, ..config() };
    let any = || PeerConfig { remote_as: RemoteAs::Any, ..config() };
    let provider = || PeerConfig { role: Some(Role::Provider), ..config() };
    let with = |extra: Vec<Capability>| open(65002, 90, THEM, [families(), extra].concat());
    let raw = |my_as, four| {
        let (mut octets, capabilities) = (BytesMut::new(), vec![Capability::FourOctetAs(four)]);
        Open { my_as, hold_time: 90, router_id: THEM, capabilities }.encode(&mut octets);
        octets.to_vec()
    };
    #[rustfmt::skip]
    let cases = [
        ("another AS",             config(),   open(65003, 90, THEM, families()),        2),
        ("external, but our own",  PeerConfig { remote_as: RemoteAs::External, ..config() }, open(65001, 90, THEM, families()), 2),
        ("internal, but another",  ibgp(),     open(65002, 90, THEM, families()),        2),
        ("AS 0",                   any(),      open(0, 90, THEM, families()),            2),
        ("AS 0 in the short field", any(),     raw(0, 65002),                            2),
        ("AS 0 in the capability", any(),      raw(65002, 0),                            2),
        ("AS_TRANS",               any(),      open(AS_TRANS, 90, THEM, families()),     2),
        ("our router id in iBGP",  ibgp(),     open(65001, 90, US, families()),          3),
        ("two providers",          provider(), with(vec![Capability::Role(0)]),          11),
        ("a role that is none",    provider(), with(vec![Capability::Role(5)]),          11),
        ("two roles",              provider(), with(vec![Capability::Role(3), Capability::Role(4)]), 11),
        ("no common family",       PeerConfig { families: vec![Family::Ipv6Unicast], ..config() },
            open(65002, 90, THEM, vec![Capability::family(Family::Ipv4Unicast)]),        7),
    ];
    for (name, config, octets, subcode) in cases {
        let mut p = Peer::with(config, global());
        p.feed(Input::Start).feed(Input::Connected(OUT, ends())).receive(OUT, &octets);
        let n = p.notification(OUT).expect(name);
        assert_eq!((n.code, n.subcode), (2, subcode), "{name}");
        // RFC 5492 §5: 2/7 names the capability that is missed.
        assert_eq!(&n.data[..], if subcode == 7 { &[1, 4, 0, 2, 0, 1][..] } else { &[] }, "{name}");
        assert!(p.closed(OUT), "{name}");
        assert_eq!(p.s.state(), SessionState::Idle, "{name}");
        assert!(p.last_error().contains("NOTIFICATION"), "{name}");
    }
}

#[test]
fn opens_that_fit_are_taken() {
    let any = PeerConfig { remote_as: RemoteAs::Any, ..config() };
    let customer = PeerConfig { role: Some(Role::Customer), ..config() };
    #[rustfmt::skip]
    let cases = [
        ("same router id in eBGP", config(), open(65002, 90, US, families()), vec![Family::Ipv4Unicast, Family::Ipv6Unicast]),
        ("any AS",                 any,      open(4_200_000_000, 90, THEM, families()), vec![Family::Ipv4Unicast, Family::Ipv6Unicast]),
        ("nothing but IPv4",       config(), open(65002, 90, THEM, vec![]), vec![Family::Ipv4Unicast]),
        ("only IPv6",              config(), open(65002, 90, THEM, vec![Capability::family(Family::Ipv6Unicast)]), vec![Family::Ipv6Unicast]),
        ("a pair of roles",        customer, open(65002, 90, THEM, vec![Capability::Role(0), Capability::Role(0)]), vec![Family::Ipv4Unicast]),
    ];
    for (name, config, octets, families) in cases {
        let p = Peer::established_with(config, global(), &octets);
        assert_eq!(p.s.negotiated().unwrap().families, families, "{name}");
    }
}

#[test]
fn a_message_out_of_place_is_a_state_machine_error() {
    let states: [(&str, fn() -> Peer, u8); 3] = [
        ("OpenSent", Peer::outgoing, 1),
        ("OpenConfirm", Peer::open_confirm, 2),
        ("Established", Peer::established, 3),
    ];
    let messages = [
        (Kind::Open, their_open()),
        (Kind::Update, EMPTY_UPDATE.to_vec()),
        (Kind::Keepalive, keepalive()),
        (Kind::RouteRefresh, refresh(Family::Ipv4Unicast, 0)),
    ];
    for (state, make, subcode) in states {
        for (kind, octets) in &messages {
            let fits = match kind {
                Kind::Open => subcode == 1,
                Kind::Keepalive => subcode != 1,
                _ => subcode == 3,
            };
            if fits {
                continue;
            }
            let mut p = make();
            p.receive(OUT, octets);
            let n = p.notification(OUT).expect(state);
            assert_eq!(
                (n.code, n.subcode, &n.data[..]),
                (5, subcode, &[*kind as u8][..]),
                "{kind:?} in {state}"
            );
            assert_eq!(p.s.state(), SessionState::Idle);
        }
    }
}

/// A connection that waits for the outcome of a collision has its OPEN: to RFC 6608 it is in
/// OpenConfirm.
#[test]
fn a_connection_that_waits_takes_no_more_than_one_in_open_confirm() {
    for (kind, octets) in [(Kind::Open, their_open()), (Kind::Update, EMPTY_UPDATE.to_vec())] {
        let mut p = Peer::new();
        p.feed(Input::Start).feed(Input::Connected(OUT, ends())).feed(Input::Accepted(IN, ends()));
        p.receive(IN, &open(65002, 90, RouterId::new(9, 9, 9, 9), families())).receive(IN, &octets);
        let n = p.notification(IN).unwrap();
        assert_eq!((n.code, n.subcode, &n.data[..]), (5, 2, &[kind as u8][..]));
    }
}

#[test]
fn a_broken_header_is_answered_in_every_state() {
    for make in [Peer::outgoing, Peer::open_confirm, Peer::established] {
        let mut p = make();
        let mut octets = keepalive();
        octets[17] = 18;
        p.receive(OUT, &octets);
        let n = p.notification(OUT).unwrap();
        assert_eq!((n.code, n.subcode, &n.data[..]), (1, 2, &[0, 18][..]));
        assert!(p.closed(OUT));
    }
}

/// RFC 4271 §6.1 to §6.3, RFC 7313 §5: what the codec finds goes out as it found it.
#[test]
fn what_is_malformed_is_answered_with_its_code_and_data() {
    let message = |kind: u8, body: &[u8]| {
        let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
        [&[0xff; 16][..], &length, &[kind], body].concat()
    };
    let begin = message(5, &[0, 1, 1, 1, 0]);
    type Make = fn() -> Peer;
    #[rustfmt::skip]
    let cases: [(&str, Make, Vec<u8>, (u8, u8), &[u8]); 10] = [
        ("§6.1 marker",         Peer::established, vec![0; 19], (1, 1), &[]),
        ("§6.1 type",           Peer::established, message(9, &[]), (1, 3), &[9]),
        ("§6.1 no long OPEN",   Peer::outgoing, message(1, &[0; 4078]), (1, 2), &[0x10, 1]),
        ("§6.2 version",        Peer::outgoing, message(1, &[3, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, 0]), (2, 1), &[0, 4]),
        ("§6.2 identifier",     Peer::outgoing, message(1, &[4, 0xfd, 0xea, 0, 90, 0, 0, 0, 0, 0]), (2, 3), &[]),
        ("§6.2 parameter",      Peer::outgoing, message(1, &[4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, 2, 1, 0]), (2, 4), &[]),
        ("§6.2 hold time",      Peer::outgoing, message(1, &[4, 0xfd, 0xea, 0, 2, 10, 0, 0, 2, 0]), (2, 6), &[]),
        ("§6.3 lengths",        Peer::established, message(2, &[0, 9, 0, 0]), (3, 1), &[]),
        ("§6.3 well-known",     Peer::established, message(2, &[0, 0, 0, 3, 0x40, 99, 0]), (3, 2), &[0x40, 99, 0]),
        ("7313 §5 length",      Peer::established, begin.clone(), (7, 1), &begin),
    ];
    for (name, make, octets, code, data) in cases {
        let mut p = make();
        p.receive(OUT, &octets);
        let n = p.notification(OUT).expect(name);
        assert_eq!(((n.code, n.subcode), &n.data[..]), (code, data), "{name}");
        assert_eq!((p.closed(OUT), p.s.state()), (true, SessionState::Idle), "{name}");
    }
}

/// RFC 7606 §2: what is treated as withdrawn or discarded costs no session.
#[test]
fn a_flaw_that_is_lived_through_is_answered_with_nothing() {
    let mut p = Peer::established();
    // ORIGIN 9, and then 10.0.0.0/8.
    let body = [0, 0, 0, 4, 0x40, 1, 1, 9, 8, 10];
    p.receive(OUT, &[&EMPTY_UPDATE[..17], &[29, 2], &body].concat());
    assert_eq!((p.s.state(), p.notification(OUT)), (SessionState::Established, None));
    assert!(p.out.iter().any(|o| matches!(o, Output::Updates(list) if list[0].advertised.is_empty())));
}

/// RFC 4271 §6.4.
#[test]
fn no_notification_is_ever_answered() {
    let unknown = Notification { code: 200, subcode: 7, data: vec![1; 9].into() };
    for make in [Peer::outgoing, Peer::open_confirm, Peer::established] {
        for n in [Notification::new(Code::Header, 99), Notification::new(Code::Fsm, 0), unknown.clone()] {
            let mut p = make();
            p.out.clear();
            p.receive(OUT, &notify(&n));
            assert!(p.closed(OUT) && p.sent(OUT).is_empty(), "{n}");
            assert_eq!(p.s.state(), SessionState::Idle, "{n}");
        }
    }
}

/// RFC 4271 §6.5 before the session is up.
#[test]
fn the_hold_timer_runs_in_open_confirm() {
    let mut p = Peer::open_confirm();
    p.pass(seconds(89));
    assert_eq!(p.s.state(), SessionState::OpenConfirm);
    p.pass(seconds(1));
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.code, n.subcode, n.data.len()), (4, 0, 0));
    assert_eq!((p.s.state(), p.down()), (SessionState::Idle, None));
}

#[test]
fn silence_longer_than_the_hold_time_ends_the_session() {
    let mut p = Peer::established();
    p.pass(seconds(89));
    assert_eq!(p.s.state(), SessionState::Established);
    assert_eq!(p.kinds(OUT).len(), p.kinds(OUT).iter().filter(|k| **k == Kind::Keepalive).count());
    assert!((2..=3).contains(&p.kinds(OUT).len()), "keepalives every 22.5 to 30 s");
    p.pass(seconds(1));
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.code, n.subcode), (Code::HoldTimer as u8, 0));
    assert_eq!((p.s.state(), p.down()), (SessionState::Idle, Some(DownCause::HoldTimer)));
    assert_eq!(p.s.view(p.now).drops["hold-timer"], 1);
}

#[test]
fn every_message_keeps_the_session_alive() {
    for octets in [keepalive(), EMPTY_UPDATE.to_vec(), refresh(Family::Ipv4Unicast, 0)] {
        let mut p = Peer::established();
        for _ in 0..5 {
            p.pass(seconds(80)).receive(OUT, &octets);
        }
        assert_eq!(p.s.state(), SessionState::Established);
    }
}

#[test]
fn a_neighbor_without_an_open_has_four_minutes() {
    let mut p = Peer::outgoing();
    p.pass(seconds(239));
    assert_eq!(p.s.state(), SessionState::OpenSent);
    p.pass(seconds(1));
    assert_eq!(p.notification(OUT).unwrap().code, 4);
}

#[test]
fn a_hold_time_of_zero_means_no_keepalives_and_no_end() {
    let mut p = Peer::established_with(config(), global(), &open(65002, 0, THEM, families()));
    p.out.clear();
    p.pass(seconds(100_000));
    assert_eq!((p.s.state(), p.out.len()), (SessionState::Established, 0));
}

#[test]
fn a_driver_that_does_not_read_blames_nobody() {
    let mut p = Peer::established();
    p.feed(Input::Stalled(true)).pass(seconds(400));
    assert_eq!(p.s.state(), SessionState::Established);
    assert!(p.kinds(OUT).len() >= 12, "keepalives went on");
    p.feed(Input::Stalled(false)).pass(seconds(90));
    assert_eq!(p.s.state(), SessionState::Idle);
}

#[test]
fn a_neighbor_that_reads_nothing_is_given_up() {
    let mut p = Peer::established();
    p.reads = false;
    p.feed(Input::Send { bytes: Bytes::from_static(EMPTY_UPDATE), messages: 1 });
    for _ in 0..7 {
        p.pass(seconds(60)).receive(OUT, &keepalive());
    }
    assert_eq!(p.s.state(), SessionState::Established);
    p.pass(seconds(59)).receive(OUT, &keepalive());
    p.pass(seconds(1));
    assert_eq!(p.notification(OUT).unwrap().code, Code::SendHoldTimer as u8);
    assert_eq!(p.s.view(p.now).drops["send-hold-timer"], 1);
}

#[test]
fn the_send_hold_time_is_what_was_configured_but_no_shorter_than_the_hold_time() {
    for (configured, hold, expected) in
        [(Some(100), 90, 100), (Some(7), 90, 90), (Some(7), 0, 7), (None, 0, 480)]
    {
        let configured = PeerConfig { send_hold_time: configured, ..config() };
        let mut p = Peer::established_with(configured, global(), &open(65002, hold, THEM, families()));
        p.reads = false;
        p.feed(Input::Send { bytes: Bytes::from_static(EMPTY_UPDATE), messages: 1 });
        for _ in 1..expected {
            p.pass(seconds(1)).receive(OUT, &keepalive());
        }
        assert_eq!(p.s.state(), SessionState::Established, "{expected}");
        p.pass(seconds(1));
        assert_eq!(p.s.view(p.now).drops.get("send-hold-timer"), Some(&1), "{expected}");
    }
}

#[test]
fn a_refusing_neighbor_is_dialled_less_and_less() {
    let mut p = Peer::new();
    p.feed(Input::Start);
    let mut waits = vec![];
    for _ in 0..7 {
        p.feed(Input::ConnectFailed { why: "connection refused".into(), refused: false });
        assert_eq!(p.s.state(), SessionState::Active);
        let due = p.s.poll_timeout().unwrap();
        waits.push((due - p.now).as_secs_f64());
        p.now = due;
        p.feed(Input::Timeout);
        assert_eq!(p.s.state(), SessionState::Connect);
    }
    for (wait, base) in waits.into_iter().zip([5., 10., 20., 40., 80., 120., 120.]) {
        assert!((base * 0.75..=base).contains(&wait), "{wait} for {base}");
    }
    let loud = p.out.iter().filter(|o| matches!(o, Output::Event(e) if e.severity > Severity::Debug)).count();
    assert_eq!(loud, 1, "one line, not one per attempt");
    p.feed(Input::RetryNow);
    p.feed(Input::ConnectFailed { why: "connection refused".into(), refused: false });
    assert!(p.s.poll_timeout().unwrap() - p.now <= seconds(5), "a nudge forgets the failures");
}

#[test]
fn a_connection_attempt_without_reply_is_aborted_and_repeated() {
    let mut p = Peer::new();
    p.feed(Input::Start).pass(seconds(5));
    assert!(p.out.iter().any(|o| matches!(o, Output::AbortConnect { timed_out: true })));
    assert_eq!((p.dials(), p.s.state()), (2, SessionState::Connect));
    assert!(p.last_error().starts_with("no reply"));
}

#[test]
fn errors_cost_idle_time_that_doubles_and_is_forgotten_in_peace() {
    let mut p = Peer::new();
    p.feed(Input::Start);
    let idle = |p: &mut Peer| {
        p.feed(Input::Connected(OUT, ends())).receive(OUT, b"GET / HTTP/1.1");
        assert_eq!(p.s.state(), SessionState::Idle);
        let wait = p.s.poll_timeout().unwrap() - p.now;
        p.now += wait;
        p.feed(Input::Timeout);
        assert_eq!(p.s.state(), SessionState::Connect);
        wait.as_secs_f64()
    };
    for base in [5., 10., 20., 40., 80., 120., 120.] {
        let wait = idle(&mut p);
        assert!((base * 0.75..=base).contains(&wait), "{wait} for {base}");
    }
    p.feed(Input::Connected(OUT, ends())).receive(OUT, &their_open()).receive(OUT, &keepalive());
    for _ in 0..6 {
        p.pass(seconds(60)).receive(OUT, &keepalive());
    }
    p.feed(Input::Closed(OUT, None)).pass(seconds(5));
    assert!(idle(&mut p) <= 5.);
}

#[test]
fn an_idle_neighbor_is_refused_silently_and_a_disabled_one_with_cease() {
    let mut p = Peer::outgoing();
    p.receive(OUT, b"garbage");
    p.out.clear();
    p.feed(Input::Accepted(IN, ends()));
    assert!(p.closed(IN) && p.sent(IN).is_empty());
    p.feed(Input::Stop(Stop::Disabled(None))).feed(Input::Accepted(Conn(3), ends()));
    assert_eq!(p.notification(Conn(3)).unwrap().subcode, cease::REJECTED);
    assert!(p.closed(Conn(3)));
    assert_eq!(p.s.state(), SessionState::Disabled);
    p.feed(Input::Start);
    assert_eq!(p.s.state(), SessionState::Connect);
}

#[test]
fn the_notification_received_decides_what_comes_next() {
    let cease = |subcode| Notification::new(Code::Cease, subcode);
    #[rustfmt::skip]
    let cases = [
        ("shutdown",         cease(cease::SHUTDOWN),     SessionState::Active, false),
        ("reset",            cease(cease::RESET),        SessionState::Active, false),
        ("too many routes",  cease(cease::MAX_PREFIXES), SessionState::Idle,   false),
        ("hard reset",       cease(cease::SHUTDOWN).hard(), SessionState::Active, true),
        ("our UPDATE",       Notification::new(Code::Update, 3), SessionState::Idle, false),
        ("its hold timer",   Notification::new(Code::HoldTimer, 0), SessionState::Idle, false),
    ];
    for (name, n, state, hard) in cases {
        let mut p = Peer::established();
        p.receive(OUT, &notify(&n));
        assert_eq!((p.s.state(), p.down()), (state, Some(DownCause::Received { hard })), "{name}");
        assert!(p.closed(OUT) && p.sent(OUT).is_empty(), "{name}: no NOTIFICATION in reply to one");
        assert_eq!(p.s.view(p.now).last_notification_received, Some(n.to_string()), "{name}");
    }
}

#[test]
fn a_shutdown_text_is_shown() {
    let mut p = Peer::established();
    p.receive(OUT, &notify(&Notification::cease(cease::SHUTDOWN, Some("disk swap, back at 14:00"))));
    assert!(p.last_error().contains("disk swap, back at 14:00"), "{}", p.last_error());
}

#[test]
fn a_neighbor_without_capabilities_gets_an_open_without_them() {
    let mut p = Peer::outgoing();
    assert!(!p.our_open(OUT).capabilities.is_empty());
    p.receive(OUT, &notify(&Notification::new(Code::Open, 4))).pass(seconds(1));
    assert_eq!((p.s.state(), p.dials()), (SessionState::Connect, 2));
    p.out.clear();
    p.feed(Input::Connected(Conn(3), ends()));
    assert_eq!(p.our_open(Conn(3)).capabilities, []);
    let mut plain = BytesMut::new();
    Open { my_as: 65002, hold_time: 90, router_id: THEM, capabilities: vec![] }.encode(&mut plain);
    p.receive(Conn(3), &plain).receive(Conn(3), &keepalive());
    let negotiated = p.s.negotiated().unwrap();
    assert_eq!(
        (negotiated.families.as_slice(), negotiated.four_octet_as),
        (&[Family::Ipv4Unicast][..], false)
    );
}

#[test]
fn a_collision_leaves_one_connection() {
    // We are 10.0.0.1, the neighbor is higher: the connection that it began survives.
    let higher = || their_open();
    let lower = || open(65002, 90, RouterId::new(9, 9, 9, 9), families());
    #[rustfmt::skip]
    let cases = [
        ("higher, ours first",   higher(), [OUT, IN], IN),
        ("higher, theirs first", higher(), [IN, OUT], IN),
        ("lower, ours first",    lower(),  [OUT, IN], OUT),
        ("lower, theirs first",  lower(),  [IN, OUT], OUT),
    ];
    for (name, octets, order, survivor) in cases {
        let mut p = Peer::new();
        p.feed(Input::Start).feed(Input::Connected(OUT, ends())).feed(Input::Accepted(IN, ends()));
        for conn in order {
            p.receive(conn, &octets);
        }
        let loser = if survivor == IN { OUT } else { IN };
        let n = p.notification(loser).expect(name);
        assert_eq!((n.code, n.subcode), (6, cease::COLLISION), "{name}");
        assert!(p.closed(loser) && !p.closed(survivor), "{name}");
        p.receive(survivor, &keepalive());
        assert_eq!((p.s.state(), p.last_error()), (SessionState::Established, String::new()), "{name}");
    }
}

/// Ours is to survive, but nothing arrives on it: the neighbor's own connection waits for it, and
/// is not given up.
#[test]
fn a_connection_that_nobody_answers_on_costs_no_other_one() {
    type End = fn(&mut Peer);
    let lower = open(65002, 90, RouterId::new(9, 9, 9, 9), families());
    let cases: [(&str, End); 3] = [
        ("unknown", |p| {
            p.pass(seconds(2));
            assert!(p.kinds(IN) == [Kind::Open] && !p.closed(IN) && !p.closed(OUT));
            p.pass(seconds(1));
        }),
        ("closed", |p| {
            p.feed(Input::Closed(OUT, None));
        }),
        ("refused", |p| {
            let mut octets = BytesMut::new();
            Notification::cease(cease::REJECTED, None).encode(&mut octets);
            p.receive(OUT, &octets);
        }),
    ];
    for (name, end) in cases {
        for early in [false, true] {
            let mut p = Peer::new();
            p.feed(Input::Start).feed(Input::Connected(OUT, ends())).feed(Input::Accepted(IN, ends()));
            p.receive(IN, &lower);
            assert_eq!(p.s.state(), SessionState::OpenSent, "{name}");
            if early {
                p.receive(IN, &keepalive());
            }
            end(&mut p);
            assert_eq!(p.kinds(IN), [Kind::Open, Kind::Keepalive], "{name}");
            if !early {
                assert_eq!(p.s.state(), SessionState::OpenConfirm, "{name}");
                p.receive(IN, &keepalive());
            }
            assert_eq!((p.s.state(), p.closed(IN)), (SessionState::Established, false), "{name}");
        }
    }
}

#[test]
fn an_established_session_survives_a_second_connection() {
    let mut p = Peer::established();
    p.pass(seconds(1)).feed(Input::Accepted(IN, ends())).receive(IN, &their_open());
    assert_eq!(p.notification(IN).unwrap().subcode, cease::COLLISION);
    assert_eq!((p.s.state(), p.down()), (SessionState::Established, None));
    assert_eq!(p.kinds(OUT), [Kind::Keepalive], "checks whether the old connection is alive");
}

#[test]
fn a_second_connection_of_a_restarted_neighbor_replaces_the_first() {
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: 120,
        families: vec![GracefulFamily { afi: 1, safi: 1, forwarding: true }],
    };
    let octets = open(65002, 90, THEM, [families(), vec![Capability::GracefulRestart(restart)]].concat());
    let mut p = Peer::established_with(config(), global(), &octets);
    p.out.clear();
    p.pass(Duration::from_millis(100)).feed(Input::Accepted(IN, ends())).receive(IN, &octets);
    assert_eq!((p.down(), p.closed(OUT)), (None, false), "an OPEN alone ends no session");
    p.receive(IN, &keepalive());
    assert!(p.closed(OUT) && p.sent(OUT).is_empty(), "without a NOTIFICATION");
    assert_eq!((p.down(), p.s.state()), (Some(DownCause::Closed), SessionState::Established));
    let order = |is: fn(&Output) -> bool| p.out.iter().position(is).unwrap();
    assert!(order(|o| matches!(o, Output::Down { .. })) < order(|o| matches!(o, Output::Up(_))));
    assert!(p.s.negotiated().unwrap().graceful.as_ref().unwrap().restarting);
}

/// Both ends dialled, and the neighbor's call is handed over only after ours came up.
#[test]
fn a_call_that_crossed_ours_is_no_restart() {
    let restart = GracefulRestart {
        restarting: false,
        notification: true,
        restart_time: 120,
        families: vec![GracefulFamily { afi: 1, safi: 1, forwarding: true }],
    };
    let octets = open(65002, 90, THEM, [families(), vec![Capability::GracefulRestart(restart)]].concat());
    let mut p = Peer::established_with(config(), global(), &octets);
    p.pass(Duration::from_millis(20)).feed(Input::Accepted(IN, ends())).receive(IN, &octets);
    assert_eq!((p.down(), p.closed(OUT), p.s.state()), (None, false, SessionState::Established));
    assert!(p.closed(IN));
}

#[test]
fn the_restart_flags_are_set_only_after_a_restart() {
    let flags = |p: &Peer, conn| match p.our_open(conn).capabilities.iter().find(|c| c.code() == 64) {
        Some(Capability::GracefulRestart(g)) => {
            (g.restarting, g.notification, g.families.iter().map(|f| f.forwarding).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    let p = Peer::outgoing();
    assert_eq!(flags(&p, OUT), (false, true, vec![false, false]), "a first start has kept nothing");

    let mut p = Peer::with(config(), Global { restarting: true, ..global() });
    p.feed(Input::Start).feed(Input::Connected(OUT, ends()));
    assert_eq!(flags(&p, OUT), (true, true, vec![true, true]), "after a restart");
    p.receive(OUT, &their_open()).receive(OUT, &keepalive()).feed(Input::Closed(OUT, None));
    p.feed(Input::Accepted(IN, ends()));
    assert_eq!(flags(&p, IN), (false, true, vec![true, true]), "only TCP was lost");

    let mut p = Peer::with(
        PeerConfig { graceful_restart: false, ..config() },
        Global { restarting: true, ..global() },
    );
    p.feed(Input::Start).feed(Input::Connected(OUT, ends()));
    assert_eq!(flags(&p, OUT), (false, false, vec![]), "only requests End-of-RIB");
}

#[test]
fn stopping_sends_cease_except_where_silence_keeps_the_routes() {
    let graceful = |notification| {
        let g = GracefulRestart { notification, restart_time: 60, ..GracefulRestart::default() };
        open(65002, 90, THEM, [families(), vec![Capability::GracefulRestart(g)]].concat())
    };
    let (plain, old, new) = (their_open(), graceful(false), graceful(true));
    #[rustfmt::skip]
    let cases = [
        ("removed",                 &plain, Stop::Removed,  Some((6, 3))),
        ("disabled",                &plain, Stop::Disabled(Some("bye".into())), Some((6, 2))),
        ("disabled, RFC 4724",      &old,   Stop::Disabled(None), Some((6, 2))),
        ("disabled, RFC 8538",      &new,   Stop::Disabled(None), Some((6, 9))),
        ("leaving",                 &plain, Stop::Leaving,  Some((6, 2))),
        ("leaving, RFC 4724",       &old,   Stop::Leaving,  None),
        ("leaving, RFC 8538",       &new,   Stop::Leaving,  None),
        ("machine stops",           &plain, Stop::Halting,  Some((6, 2))),
        ("machine stops, RFC 8538", &new,   Stop::Halting,  Some((6, 9))),
    ];
    for (name, octets, stop, want) in cases {
        let mut p = Peer::established_with(config(), global(), octets);
        p.feed(Input::Stop(stop.clone()));
        assert_eq!(p.notification(OUT).map(|n| (n.code, n.subcode)), want, "{name}");
        assert!(p.closed(OUT), "{name}");
        assert_eq!((p.down(), p.s.poll_timeout()), (Some(DownCause::Administrative), None), "{name}");
        if let Stop::Disabled(Some(text)) = stop {
            assert_eq!(p.notification(OUT).unwrap().text(), Some(text.as_str()));
        }
    }
}

#[test]
fn only_settings_of_the_open_reset_a_session() {
    type Change = fn(&mut PeerConfig);
    #[rustfmt::skip]
    let cases: [(&str, Change, bool); 10] = [
        ("nothing",        |_| {}, false),
        ("max-prefixes",   |c| c.max_prefixes = 7, false),
        ("max-prefixes-out", |c| c.max_prefixes_out = Some(7), false),
        ("transit",        |c| c.transit = true, false),
        ("own address",    |c| c.own.v6 = Some("2001:db8::1".parse().unwrap()), false),
        ("retry times",    |c| c.connect_retry_time = seconds(9), false),
        ("hold-time",      |c| c.hold_time = 30, true),
        ("families",       |c| c.families = vec![Family::Ipv4Unicast], true),
        ("restart-time",   |c| c.restart_time = 30, true),
        ("password",       |c| c.password = Some(crate::bgp::peer::Secret("x".into())), true),
    ];
    for (name, change, resets) in cases {
        let mut p = Peer::established();
        let mut changed = config();
        change(&mut changed);
        p.feed(Input::Configure(Arc::new(changed), global()));
        assert_eq!(p.notification(OUT).map(|n| n.subcode), resets.then_some(cease::CONFIG_CHANGE), "{name}");
        assert_eq!(p.dials(), usize::from(resets), "{name}");
    }
    let mut p = Peer::established();
    p.feed(Input::Configure(Arc::new(PeerConfig { disabled: true, ..config() }), global()));
    assert_eq!(
        (p.notification(OUT).unwrap().subcode, p.s.state()),
        (cease::SHUTDOWN, SessionState::Disabled)
    );
    p.feed(Input::Configure(Arc::new(config()), global()));
    assert_eq!(p.s.state(), SessionState::Connect);
}

#[test]
fn a_reset_dials_at_once() {
    let mut p = Peer::established();
    p.feed(Input::Reset(Some("new line card".into())));
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.subcode, n.text()), (cease::RESET, Some("new line card")));
    assert_eq!(
        (p.s.state(), p.dials(), p.down()),
        (SessionState::Connect, 1, Some(DownCause::Administrative))
    );
}

#[test]
fn too_many_prefixes_end_the_session_for_the_time_configured() {
    let mut p = Peer::established();
    p.feed(Input::MaxPrefixes(Family::Ipv6Unicast));
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.code, n.subcode, &n.data[..]), (6, 1, &[0, 2, 1, 0, 0, 3, 232][..]));
    assert_eq!(p.s.state(), SessionState::Idle);
    p.pass(seconds(224));
    assert_eq!(p.s.state(), SessionState::Idle);
    p.pass(seconds(76));
    assert!(p.dials() > 0);
}

/// The same where all routes together take more memory than they may: there is no number to send.
#[test]
fn too_much_memory_ends_the_session_as_too_many_prefixes_do() {
    let mut p = Peer::established();
    p.feed(Input::MemoryLimit { octets: 20 << 20, budget: 28 << 20 });
    let n = p.notification(OUT).unwrap();
    assert_eq!((n.code, n.subcode, n.data.len()), (6, 1, 0));
    assert_eq!(p.s.state(), SessionState::Idle);
    let why = p.last_error();
    assert!(why.contains("20 MiB") && why.contains("28 MiB") && why.contains("memory limit"), "{why}");
    p.pass(seconds(224));
    assert_eq!(p.s.state(), SessionState::Idle);
    p.pass(seconds(76));
    assert!(p.dials() > 0);
}

/// RFC 4271 §6.7, RFC 8538 §3.1: towards a neighbor that would keep our routes it is a Hard Reset.
#[test]
fn too_many_prefixes_are_a_hard_reset_where_that_is_known() {
    let g = GracefulRestart { notification: true, restart_time: 60, ..GracefulRestart::default() };
    let octets = open(65002, 90, THEM, [families(), vec![Capability::GracefulRestart(g)]].concat());
    let mut p = Peer::established_with(config(), global(), &octets);
    p.feed(Input::MaxPrefixes(Family::Ipv4Unicast));
    let inner = p.notification(OUT).unwrap().inner().unwrap();
    assert_eq!((inner.code, inner.subcode, &inner.data[..]), (6, 1, &[0, 1, 1, 0, 0, 3, 232][..]));
}

#[test]
fn a_lost_bfd_session_is_named() {
    let mut p = Peer::established();
    p.feed(Input::BfdDown("control detection time expired"));
    assert_eq!(p.notification(OUT).unwrap().subcode, cease::BFD_DOWN);
    assert_eq!((p.down(), p.s.state()), (Some(DownCause::Administrative), SessionState::Active));
}

#[test]
fn where_bfd_is_required_no_session_begins_before_it_is_up() {
    let mut p = Peer::outgoing();
    p.feed(Input::BfdHold(Some("waiting for BFD".into())));
    assert_eq!((p.s.state(), &*p.last_error()), (SessionState::Idle, "waiting for BFD"));
    p.feed(Input::RetryNow).pass(seconds(600));
    p.feed(Input::Reset(None)).pass(seconds(600));
    p.feed(Input::Accepted(IN, ends()));
    assert_eq!(p.s.state(), SessionState::Idle, "neither by itself nor by order");
    let dials = p.dials();
    p.feed(Input::BfdHold(None));
    assert!(p.dials() > dials);
}

#[test]
fn a_session_that_is_up_goes_on_when_bfd_is_required_later() {
    let mut p = Peer::established();
    p.feed(Input::BfdHold(Some("waiting for BFD".into())));
    assert_eq!(p.s.state(), SessionState::Established);
    p.feed(Input::BfdDown("control detection time expired"));
    assert_eq!((p.down(), p.s.state()), (Some(DownCause::Administrative), SessionState::Idle));
}

#[test]
fn a_neighbor_that_closes_before_its_open_leaves_a_hint() {
    let mut p = Peer::outgoing();
    p.feed(Input::Closed(OUT, None));
    assert_eq!(p.s.state(), SessionState::Active);
    assert!(p.last_error().contains("is this host configured there?"));
    p.feed(Input::Accepted(IN, ends())).receive(IN, &their_open()).receive(IN, &keepalive());
    assert_eq!(p.last_error(), "", "forgotten once it works");
}

#[test]
fn refresh_requests_are_handled_as_negotiated() {
    let plain = open(65002, 90, THEM, [families(), vec![Capability::RouteRefresh]].concat());
    let only_v4 =
        open(65002, 90, THEM, vec![Capability::family(Family::Ipv4Unicast), Capability::RouteRefresh]);
    #[rustfmt::skip]
    let cases = [
        ("request",             their_open(),    Family::Ipv6Unicast, 0, true),
        ("begin",               their_open(),    Family::Ipv4Unicast, 1, true),
        ("unknown subtype",     their_open(),    Family::Ipv4Unicast, 9, false),
        ("begin, plain",        plain,           Family::Ipv4Unicast, 1, false),
        ("family not in use",   only_v4,         Family::Ipv6Unicast, 0, false),
    ];
    for (name, open, family, subtype, handled) in cases {
        let mut p = Peer::established_with(config(), global(), &open);
        p.receive(OUT, &refresh(family, subtype));
        assert_eq!(p.out.iter().any(|o| matches!(o, Output::Refresh { .. })), handled, "{name}");
        assert_eq!(p.s.state(), SessionState::Established, "{name}");
    }
}

#[test]
fn a_request_for_routes_goes_out_only_where_it_is_understood() {
    let mut p = Peer::established();
    p.feed(Input::RequestRefresh(Family::Ipv4Unicast));
    assert_eq!(p.kinds(OUT), [Kind::RouteRefresh]);
    let mut p = Peer::established_with(config(), global(), &open(65002, 90, THEM, families()));
    p.out.clear();
    p.feed(Input::RequestRefresh(Family::Ipv4Unicast));
    assert_eq!(p.kinds(OUT), []);
}

#[test]
fn the_view_counts_and_names() {
    let mut p = Peer::established();
    p.feed(Input::Send { bytes: Bytes::from_static(EMPTY_UPDATE), messages: 3 });
    let view = p.s.view(p.t0);
    assert_eq!(
        (view.address.as_str(), view.remote_as, view.router_id),
        ("10.0.0.2", Some(65002), Some(THEM))
    );
    assert_eq!((view.messages_sent["update"], view.messages_sent["open"]), (3, 1));
    assert_eq!((view.messages_received["open"], view.messages_received["keepalive"]), (1, 1));
    assert_eq!(view.timers["hold"], 90);
    assert!(
        view.capabilities_received.iter().any(|c| c.contains("ipv4-unicast")),
        "{:?}",
        view.capabilities_received
    );
}

mod field;

mod prop {
    use proptest::prelude::*;

    use super::*;

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(their_open()),
            Just(keepalive()),
            Just(refresh(Family::Ipv4Unicast, 0)),
            Just(notify(&Notification::new(Code::Cease, 4))),
            Just(open(65002, 3, US, vec![])),
            proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order, each Up has one Down, and nothing is sent on a closed
        /// connection.
        #[test]
        fn nothing_confuses_a_session(events in proptest::collection::vec((0..12u8, octets()), 1..60)) {
            let mut p = Peer::new();
            let (mut up, mut live, mut next) = (false, vec![], 10);
            for (event, octets) in events {
                let conn = live.last().copied().unwrap_or(OUT);
                match event {
                    0 => p.feed(Input::Start),
                    1 => p.feed(Input::Stop(Stop::Disabled(None))),
                    2 => p.feed(Input::Reset(None)),
                    3 => p.feed(Input::ConnectFailed { why: "no".into(), refused: false }),
                    4 | 5 => {
                        next += 1;
                        live.push(Conn(next));
                        let input = if event == 4 { Input::Connected(Conn(next), ends()) } else { Input::Accepted(Conn(next), ends()) };
                        p.feed(input)
                    }
                    6 => p.feed(Input::Closed(conn, None)),
                    7 => p.pass(seconds(7)),
                    8 => p.pass(seconds(200)),
                    _ => p.receive(conn, &octets),
                };
                if event == 6 {
                    live.retain(|c| *c != conn);
                }
                for output in mem::take(&mut p.out) {
                    match output {
                        Output::Up(_) => {
                            prop_assert!(!up);
                            up = true;
                        }
                        Output::Down { .. } => {
                            prop_assert!(up);
                            up = false;
                        }
                        Output::Updates(_) | Output::Refresh { .. } => prop_assert!(up),
                        Output::Transmit(c, _) => prop_assert!(live.contains(&c)),
                        Output::Close(c) => live.retain(|l| *l != c),
                        _ => {}
                    }
                }
                prop_assert!(live.len() <= 3);
                prop_assert_eq!(up, p.s.state() == SessionState::Established);
            }
        }
    }
}
