//! BFD on the wire, by the paragraphs of RFC 5880 §6.8.6 and of RFC 5881: a session is made by hand, and each packet that
//! must be discarded would end it, were it accepted.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use serde_json::Value;

use crate::common::{
    daemons::Routelet,
    net::{Net, Ns},
    wait_for,
};

const CONFIG: &str = "[bgp]\nas = 65001\n[[bgp.neighbor]]\naddress = \"10.1.0.2\"\nremote-as = 65002\n\
     bfd = { min-tx = 100, min-rx = 100 }\n";
const MINE: u32 = 77;
const DOWN: u8 = 1;
const INIT: u8 = 2;
const UP: u8 = 3;

/// A packet that requires one every 200 ms, and promises one every 20 s: no silence ends the session.
fn packet(state: u8, yours: u32) -> Vec<u8> {
    let mut packet = vec![0x20, state << 6, 3, 24];
    for word in [MINE, yours, 20_000_000, 200_000, 0_u32] {
        packet.extend(word.to_be_bytes());
    }
    packet
}

struct Wire {
    routelet: Routelet,
    theirs: Ns,
    to: UdpSocket,
    from: UdpSocket,
    _net: Net,
}

impl Wire {
    fn start() -> Self {
        let mut net = Net::new();
        let (ours, theirs) = (net.ns("ours"), net.ns("theirs"));
        net.link((&ours, "eth0"), (&theirs, "eth0"));
        ours.ip("addr add 10.1.0.1/24 dev eth0");
        theirs.ip("addr add 10.1.0.2/24 dev eth0");
        theirs.ip("addr add 10.1.0.3/24 dev eth0");
        let routelet = Routelet::start(&net, &ours, CONFIG, &[]);
        let (to, from) = theirs.enter(|| (sender("10.1.0.2"), UdpSocket::bind("0.0.0.0:3784").unwrap()));
        from.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { routelet, theirs, to, from, _net: net }
    }

    fn send(&self, packet: &[u8]) {
        self.to.send_to(packet, "10.1.0.1:3784").unwrap();
    }

    /// The next packet of ours, and where it came from.
    fn receive(&self) -> (Vec<u8>, u16) {
        let mut octets = [0; 100];
        // A wait that a stop of the machine interrupts begins again (signal(7), SO_RCVTIMEO).
        let received = std::iter::repeat_with(|| self.from.recv_from(&mut octets));
        let is_whole =
            |r: &std::io::Result<_>| !matches!(r, Err(e) if e.kind() == std::io::ErrorKind::Interrupted);
        let (length, from) =
            received.take(100).find(is_whole).expect("not for ever").expect("BFD packets come");
        (octets[..length].to_vec(), from.port())
    }

    /// One in this state.
    fn expect(&self, state: u8) -> Vec<u8> {
        wait_for(format!("a packet in state {state}"), 10.0, || {
            let (packet, _) = self.receive();
            (packet[1] >> 6 == state).then_some(packet)
        })
    }

    fn up(&self) -> u32 {
        let init = self.reach(INIT, &packet(DOWN, 0));
        let yours = u32::from_be_bytes(init[4..8].try_into().unwrap());
        assert_eq!(&init[8..12], &MINE.to_be_bytes(), "our discriminator comes back");
        self.reach(UP, &packet(INIT, yours));
        yours
    }

    /// Sends again with each packet that comes, as a neighbor does: one alone may be forgotten, by
    /// the detection time, before the next slow packet shows what it led to.
    fn reach(&self, state: u8, sent: &[u8]) -> Vec<u8> {
        self.send(sent);
        wait_for(format!("a packet in state {state}"), 10.0, || {
            let (packet, _) = self.receive();
            if packet[1] >> 6 != state {
                self.send(sent);
            }
            (packet[1] >> 6 == state).then_some(packet)
        })
    }

    fn view(&self) -> Value {
        self.routelet.json(&["show", "bfd"])[0].clone()
    }
}

fn sender(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address.parse::<Ipv4Addr>().unwrap(), 0)).unwrap();
    socket.set_ttl(255).unwrap();
    socket
}

#[test]
fn rfc_5880_6_8_6_what_must_be_discarded_is() {
    let wire = Wire::start();
    let yours = wire.up();
    type Change = fn(&mut Vec<u8>);
    #[rustfmt::skip]
    let cases: &[(&str, Change)] = &[
        ("version 0",                            |p| p[0] = 0x00),
        ("version 2",                            |p| p[0] = 0x40),
        ("length below 24",                      |p| p[3] = 23),
        ("A bit, length below 26",               |p| p[1] |= 4),
        ("length beyond the payload",            |p| p[3] = 25),
        ("shorter than its length",              |p| p.truncate(20)),
        ("multiplier 0",                         |p| p[2] = 0),
        ("multipoint",                           |p| p[1] |= 1),
        ("my discriminator 0",                   |p| p[4..8].fill(0)),
        ("another's your discriminator",         |p| p[11] ^= 1),
        ("your discriminator 0 in state Up",     |p| { p[8..12].fill(0); p[1] = UP << 6 }),
        ("your discriminator 0 in state Init",   |p| { p[8..12].fill(0); p[1] = INIT << 6 }),
        ("authentication where none is in use",  |p| { p[1] |= 4; p[3] = 52; p.extend([4, 28, 1]); p.resize(52, 0) }),
    ];
    for (name, change) in cases {
        let mut bad = packet(DOWN, yours);
        change(&mut bad);
        wire.send(&bad);
        // A valid poll follows, which requires a final packet.
        let mut poll = packet(UP, yours);
        poll[1] |= 0x20;
        wire.send(&poll);
        let reply = wait_for("the final packet of a poll", 10.0, || {
            let (packet, _) = wire.receive();
            (packet[1] & 0x10 != 0 || packet[1] >> 6 != UP).then_some(packet)
        });
        assert_eq!((reply[1] >> 6, reply[1] & 0x30), (UP, 0x10), "{name}");
    }
    assert_eq!(wire.view()["failures"], 0);
    // The same without a fault ends it, with a diagnostic.
    wire.send(&packet(DOWN, yours));
    let down = wire.expect(DOWN);
    assert_eq!(down[0] & 0x1f, 3, "neighbor signaled session down");
    assert_eq!(wire.view()["failures"], 1);
}

#[test]
fn rfc_5881_5_packets_that_passed_a_router_are_discarded() {
    let wire = Wire::start();
    wire.to.set_ttl(254).unwrap();
    for _ in 0..3 {
        wire.send(&packet(DOWN, 0));
        assert_eq!(wire.receive().0[1] >> 6, DOWN);
    }
    let stranger = wire.theirs.enter(|| sender("10.1.0.3"));
    stranger.send_to(&packet(DOWN, 0), "10.1.0.1:3784").unwrap();
    assert_eq!(wire.receive().0[1] >> 6, DOWN);
    wire.to.set_ttl(255).unwrap();
    wire.up();
}

#[test]
fn rfc_5881_4_and_5880_6_8_7_packets_leave_as_they_must() {
    let wire = Wire::start();
    let (first, port) = wire.receive();
    assert!(port >= 49152, "{port}");
    let word = |packet: &[u8], at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    assert_eq!((first[0] >> 5, first[1], first[2], first.len()), (1, DOWN << 6, 3, 24));
    assert_ne!(word(&first, 4), 0);
    assert_eq!(
        (word(&first, 8), word(&first, 12), word(&first, 16), word(&first, 20)),
        (0, 1_000_000, 100_000, 0),
        "slow while it is not up, no echo"
    );
    wire.up();
    // A poll sequence advertises the shorter interval; the final packet ends it.
    let polls = wait_for("a poll", 10.0, || {
        let (packet, _) = wire.receive();
        (packet[1] & 0x20 != 0).then_some(packet)
    });
    assert_eq!(word(&polls, 12), 100_000);
    let mut reply = packet(UP, word(&first, 4));
    reply[1] |= 0x10;
    wire.send(&reply);
    wait_for("the poll sequence ends", 10.0, || (wire.receive().0[1] & 0x20 == 0).then_some(()));
    for _ in 0..5 {
        let (packet, again) = wire.receive();
        assert_eq!((packet[1], again), (UP << 6, port), "one port, and neither D, C, A nor M bit");
    }
    let view = wire.view();
    assert_eq!((&view["tx_interval"], &view["detection_time"]), (&200.into(), &60_000.into()), "{view}");
}

#[test]
fn rfc_5880_6_8_16_an_administrator_takes_nobody_down() {
    let wire = Wire::start();
    let yours = wire.up();
    wire.send(&packet(0, yours));
    let down = wire.expect(DOWN);
    assert_eq!(down[0] & 0x1f, 3);
    let view = wire.view();
    assert_eq!((&view["failures"], &view["remote_state"]), (&0.into(), &"admin-down".into()), "{view}");
    wire.up();
    wire.routelet.process.signal("TERM");
    let last = wire.expect(0);
    assert_eq!(last[0] & 0x1f, 7, "administratively down");
}
