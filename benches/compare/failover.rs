//! A link fails under routes that use two.

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
    messages::{Mode, SECOND, announcements},
    neighbor::Neighbor,
    netlink::Netlink,
    report::{many, record},
    testbed::{Testbed, index},
    writer,
};
use crate::common::net::Ns;

/// A thousand packets per second go to addresses all over the table.
const GAP: Duration = Duration::from_millis(1);

/// Routes over two neighbors on separate links, one of which loses carrier. Measures the seconds
/// until no route uses it, and the packets lost.
pub fn failover(kind: Kind, routes: u32) {
    let title = format!("failover of {}", many(routes));
    let mut testbed = Testbed::new(1);
    let second = testbed.second();
    let mut netlink = Netlink::open(&testbed.host);
    let links = ["eth0", "eth1"].map(|link| index(&testbed.host, link));
    let case = Case { neighbors: vec![1, SECOND], multipath: true, ..Case::default() };
    let mut running = None;
    if kind == Kind::Bare {
        writer::multipath(&testbed.host, routes);
    } else {
        let daemon = Daemon::start(kind, &testbed.net, &testbed.host, &case);
        let mut both = [(1, &testbed.switch), (SECOND, &second)].map(|(n, ns)| (n, Neighbor::up(ns, n)));
        for (n, neighbor) in &mut both {
            neighbor.send(&announcements(*n, Mode::Table, routes));
        }
        for link in links {
            wait_on(&mut netlink, routes, link);
        }
        daemon.settle();
        running = Some((daemon, both));
    }

    testbed.host.ip(&format!("addr add {SOURCE}/32 dev lo"));
    let receivers = [&testbed.switch, &second].map(receiver);
    let mut knife = Netlink::open(&second);
    let cut = index(&second, "eth1");
    let stop = AtomicBool::new(false);
    let (sent, clean) = thread::scope(|s| {
        let packets = s.spawn(|| send(&testbed.host, routes, &stop));
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        knife.down(cut);
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
