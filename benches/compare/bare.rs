//! In place of a daemon: programs that only pass octets on. What they need is what the neighbors themselves cost.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Instant,
};

use super::{
    crowd::Crowd,
    messages::DAEMON,
    neighbor::{Neighbor, call},
};
use crate::common::net::Ns;

pub const PORT: u16 = 1790;

/// Gives what neighbor 1 says to neighbor 2, octet by octet.
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

/// How long octets take from a neighbor to a reader that does nothing with them.
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

/// Seconds until a crowd has heard what each of them is sent at once.
pub fn propagation(host: &Ns, mut crowd: Crowd, octets: &[u8], hearers: u32, routes: usize) -> f64 {
    let listener = host.enter(|| TcpListener::bind((DAEMON, PORT))).expect("a free port");
    let streams = thread::scope(|s| {
        let accept =
            s.spawn(|| (0..hearers).map(|_| listener.accept().expect("a connection").0).collect::<Vec<_>>());
        crowd.until_up();
        accept.join().expect("all called")
    });
    let start = Instant::now();
    thread::scope(|s| {
        for mut stream in &streams {
            s.spawn(move || stream.write_all(octets).expect("a reader"));
        }
        crowd.until_heard(routes);
        start.elapsed().as_secs_f64()
    })
}
