//! Baseline: programs that only forward octets, instead of a daemon. Their time is the neighbors'
//! own share.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Instant,
};

use super::{
    messages::DAEMON,
    neighbor::{Neighbor, call},
    peers::Peers,
};
use crate::common::net::Ns;

pub const PORT: u16 = 1790;

/// Forwards the octets of neighbor 1 to neighbor 2.
pub fn relay(switch: &Ns, host: &Ns) -> (Neighbor, Neighbor) {
    let listener = host.enter(|| TcpListener::bind((DAEMON, PORT))).expect("a free port");
    let pair = [1, 2].map(|n| switch.enter(|| call(n, PORT)).expect("a listener"));
    let mut ends = [1, 2].map(|_| listener.accept().expect("a connection").0);
    ends[1].set_nodelay(true).expect("a socket");
    thread::spawn(move || {
        let mut chunk = [0; 65536];
        while let Ok(n @ 1..) = ends[0].read(&mut chunk) {
            if ends[1].write_all(&chunk[..n]).is_err() {
                return;
            }
        }
    });
    let [one, two] = pair.map(Neighbor::over);
    (one, two)
}

/// Time that octets take from a neighbor to a reader that discards them.
pub fn transfer(switch: &Ns, host: &Ns, octets: &[u8]) -> f64 {
    let listener = host.enter(|| TcpListener::bind((DAEMON, PORT))).expect("a free port");
    let mut stream = switch.enter(|| call(1, PORT)).expect("a listener");
    let (mut other, _) = listener.accept().expect("a connection");
    let start = Instant::now();
    thread::scope(|s| {
        s.spawn(move || stream.write_all(octets).expect("a reader"));
        let mut chunk = vec![0; 256 * 1024];
        while other.read(&mut chunk).expect("a writer") > 0 {}
    });
    start.elapsed().as_secs_f64()
}

/// Seconds until all members have received what is sent to each of them at once.
pub fn propagation(host: &Ns, mut peers: Peers, octets: &[u8], receivers: u32, routes: usize) -> f64 {
    let listener = host.enter(|| TcpListener::bind((DAEMON, PORT))).expect("a free port");
    let streams = thread::scope(|s| {
        let accept = s
            .spawn(|| (0..receivers).map(|_| listener.accept().expect("a connection").0).collect::<Vec<_>>());
        peers.until_up();
        accept.join().expect("all called")
    });
    let start = Instant::now();
    thread::scope(|s| {
        for mut stream in &streams {
            s.spawn(move || stream.write_all(octets).expect("a reader"));
        }
        peers.until_received(routes);
        start.elapsed().as_secs_f64()
    })
}
