//! A cable is cut under routes that go over two.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{
    config::{Case, Kind},
    kernel::{host_of, wait_off, wait_on},
    messages::{Mode, SECOND, announcements},
    neighbor::Neighbor,
    netlink::Netlink,
    report::{many, say},
    subject::Subject,
    world::{World, index},
    writer,
};
use crate::common::net::Ns;

/// A thousand packets in a second go to addresses all over the table.
const GAP: Duration = Duration::from_millis(1);

/// Routes over two neighbors on links of their own: the carrier of one goes. Seconds until no route uses it, and
/// packets that were lost.
pub fn failover(kind: Kind, routes: u32) {
    let title = format!("failover of {}", many(routes));
    let mut world = World::new(1);
    let second = world.second();
    let mut netlink = Netlink::open(&world.host, 0);
    let links = ["eth0", "eth1"].map(|link| index(&world.host, link));
    let case = Case { neighbors: vec![1, SECOND], multipath: true, ..Case::default() };
    let mut running = None;
    if kind == Kind::Bare {
        writer::multipath(&world.host, routes);
    } else {
        let subject = Subject::start(kind, &world.net, &world.host, &case);
        let mut both = [(1, &world.switch), (SECOND, &second)].map(|(n, ns)| (n, Neighbor::up(ns, n)));
        for (n, neighbor) in &mut both {
            neighbor.send(&announcements(*n, Mode::Table, routes));
        }
        for link in links {
            wait_on(&mut netlink, routes, link);
        }
        subject.settle();
        running = Some((subject, both));
    }

    world.host.ip(&format!("addr add {SOURCE}/32 dev lo"));
    let receivers = [&world.switch, &second].map(receiver);
    let mut knife = Netlink::open(&second, 0);
    let cut = index(&second, "eth1");
    let stop = AtomicBool::new(false);
    let (sent, clean) = thread::scope(|s| {
        let packets = s.spawn(|| send(&world.host, routes, &stop));
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        knife.down(cut);
        let clean = wait_off(&mut netlink, routes, links[1]) - start;
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        (packets.join().expect("a sender"), clean)
    });
    thread::sleep(Duration::from_millis(20));
    let heard = receivers.map(count);
    assert!(heard[0].min(heard[1]) > 50, "the packets did not go both ways: {heard:?}");
    wait_on(&mut netlink, routes, links[0]);
    say(format!("{title}, until no route uses the link"), "ms", clean.as_secs_f64() * 1e3);
    say(format!("{title}, packets lost"), "", f64::from(sent - heard[0] - heard[1]));
    drop(running);
}

/// Takes all packets to the routes' addresses.
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

/// The packets' source, on no link: the kernel prefers the link that has it.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// How many were to be sent; one that the kernel refuses is lost, too.
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
