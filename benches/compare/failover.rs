//! One of two links fails under routes that use both: it loses carrier, or packets on it vanish and
//! only BFD notices.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{
    config::{Case, Kind},
    daemon::Daemon,
    kernel::{host_of, wait_off, wait_on},
    messages::{Mode, SECOND, address, announcements, daemon},
    neighbor::Neighbor,
    netlink::Netlink,
    report::{many, record},
    testbed::{Testbed, index},
    writer,
};
use crate::common::{daemons::Bird, net::Ns, wait_for};

/// How the link fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The other end is set down.
    Carrier,
    /// Packets vanish in both directions while both ends report the link up.
    Silent,
}

/// A thousand packets per second go to addresses all over the table.
const GAP: Duration = Duration::from_millis(1);

/// Routes over two neighbors on separate links, one of which fails. Measures the milliseconds until
/// no route uses it, and the packets lost.
pub fn failover(kind: Kind, routes: u32, loss: Loss) {
    let (title, watched) = match loss {
        Loss::Carrier => (format!("failover of {}", many(routes)), vec![]),
        Loss::Silent => (format!("silent loss with {}", many(routes)), vec![SECOND]),
    };
    let mut testbed = Testbed::new(1);
    let second = testbed.second();
    let mut netlink = Netlink::open(&testbed.host);
    let links = ["eth0", "eth1"].map(|link| index(&testbed.host, link));
    let case = Case { neighbors: vec![1, SECOND], multipath: true, bfd: watched, ..Case::default() };
    let mut running = None;
    if kind == Kind::Bare {
        writer::multipath(&testbed.host, routes);
    } else {
        let started = Daemon::start(kind, &testbed.net, &testbed.host, &case);
        let mut both = [(1, &testbed.switch), (SECOND, &second)].map(|(n, ns)| (n, Neighbor::up(ns, n)));
        for (n, neighbor) in &mut both {
            neighbor.send(&announcements(*n, Mode::Table, routes));
        }
        for link in links {
            wait_on(&mut netlink, routes, link);
        }
        started.settle();
        running = Some((started, both));
    }
    let _bfd = (loss == Loss::Silent).then(|| watch(&testbed, &second));

    testbed.host.ip(&format!("addr add {SOURCE}/32 dev lo"));
    let receivers = [&testbed.switch, &second].map(receiver);
    let mut knife = Netlink::open(&second);
    let cut = index(&second, "eth1");
    let stop = AtomicBool::new(false);
    let (sent, clean) = thread::scope(|s| {
        let packets = s.spawn(|| send(&testbed.host, routes, &stop));
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        match loss {
            Loss::Carrier => knife.down(cut),
            Loss::Silent => [&testbed.host, &second].into_iter().for_each(swallow),
        }
        let clean = wait_off(&mut netlink, routes, links[1]) - start;
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        (packets.join().expect("a sender"), clean)
    });
    thread::sleep(Duration::from_millis(20));
    let received = receivers.map(count);
    assert!(received[0].min(received[1]) > 50, "the packets did not go both ways: {received:?}");
    wait_on(&mut netlink, routes, links[0]);
    record(format!("{title}, until no route uses the link"), "ms", clean.as_secs_f64() * 1e3);
    record(format!("{title}, packets lost"), "", f64::from(sent - received[0] - received[1]));
    drop(running);
}

/// The neighbor's end of BFD, 50 ms × 3; returns once the session is up.
fn watch(testbed: &Testbed, second: &Ns) -> Bird {
    let (local, remote) = (address(SECOND), daemon(SECOND));
    let config = format!(
        "router id {local};\nprotocol device {{}}\n\
         protocol bfd {{ interface \"eth1\" {{ interval 50 ms; idle tx interval 50 ms; multiplier 3; }}; \
         neighbor {remote} dev \"eth1\" local {local}; }}\n"
    );
    let bird = Bird::start(&testbed.net, second, &config);
    let is_up = || bird.birdc("show bfd sessions").contains(" Up ").then_some(());
    wait_for("the BFD session is up", 20.0, is_up);
    bird
}

/// Whatever arrives on `eth1` vanishes before anybody sees it.
fn swallow(ns: &Ns) {
    ns.sh("nft 'add table netdev cut; add chain netdev cut in { type filter hook ingress device eth1 priority 0; policy drop; }'");
}

/// Receives all packets to the routes' addresses.
fn receiver(ns: &Ns) -> UdpSocket {
    ns.sysctl("net.ipv4.conf.all.rp_filter", "0");
    for network in ["32.0.0.0/4", "48.0.0.0/4"] {
        ns.ip(&format!("route add local {network} dev lo"));
    }
    let socket = ns.enter(|| UdpSocket::bind(("0.0.0.0", 9))).expect("a free port");
    setsockopt(&socket, RcvBufForce, &(64 << 20)).expect("root may have a large buffer");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

fn count(socket: UdpSocket) -> u32 {
    let mut packet = [0; 16];
    let mut n = 0_u32;
    while socket.recv(&mut packet).is_ok() {
        n += 1;
    }
    n
}

/// Source of the packets, on no link: the kernel prefers the link that has it.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Returns how many packets were to be sent; one that the kernel refuses counts as lost.
fn send(host: &Ns, routes: u32, stop: &AtomicBool) -> u32 {
    let socket = host.enter(|| UdpSocket::bind((SOURCE, 0))).expect("a socket");
    let start = Instant::now();
    let mut n = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send_to(&[0; 8], (host_of(n.wrapping_mul(7919) % routes), 9));
        n += 1;
        thread::sleep((start + GAP * n).saturating_duration_since(Instant::now()));
    }
    n
}
