//! UDP probes from every container to every other one, each with its number: what did not arrive,
//! and when it was sent.
//!
//! Several source ports per pair spread them over all uplinks (`fib_multipath_hash_policy` 1).

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::net::Ns;

/// From one container to another, counted from 0.
pub type Pair = (usize, usize);

/// A packet that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub pair: Pair,
    pub sent: Instant,
}

const SOURCE_PORTS: usize = 8;
/// A machine that is this late with its probes stood still.
const PAUSE: Duration = Duration::from_millis(100);

/// The probes of one pair: when each was sent, and whether it arrived.
#[derive(Default)]
struct Flow {
    sent: Vec<Instant>,
    arrived: Vec<bool>,
    judged: usize,
}

#[derive(Default)]
struct Shared {
    flows: Mutex<Vec<Vec<Flow>>>,
    pauses: Mutex<Vec<RangeInclusive<Instant>>>,
    stop: AtomicBool,
}

pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Between containers with these addresses, `per_second` for every pair and direction, to this
    /// UDP port of each.
    pub fn start(pods: &[(Ns, IpAddr)], per_second: u32, port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let row = || pods.iter().map(|_| Flow::default()).collect();
        *shared.flows.lock().unwrap() = pods.iter().map(|_| row()).collect();
        let mut threads = Vec::new();
        let mut sources = Vec::new();
        let addresses: Vec<_> = pods.iter().map(|(_, address)| to_socket(*address, port)).collect();
        for (to, (ns, _)) in pods.iter().enumerate() {
            let (receiver, senders) = ns.enter(|| (receiver(port), senders()));
            sources.push(senders);
            let shared = shared.clone();
            threads.push(thread::spawn(move || receive(&receiver, to, &shared)));
        }
        let sender = shared.clone();
        threads.push(thread::spawn(move || send(&sources, &addresses, per_second, &sender)));
        Self { shared, threads }
    }

    /// What was sent up to `until`, is not here, and was not judged before; and how many were sent
    /// in all of these.
    pub fn lost(&self, until: Instant) -> (Vec<Lost>, usize) {
        let (mut lost, mut sent) = (Vec::new(), 0);
        let mut flows = self.shared.flows.lock().unwrap();
        for (from, row) in flows.iter_mut().enumerate() {
            for (to, flow) in row.iter_mut().enumerate() {
                let end = flow.sent.partition_point(|at| *at <= until);
                let new = flow.judged..end.max(flow.judged);
                let missing = new.clone().filter(|n| !flow.arrived[*n]);
                lost.extend(missing.map(|n| Lost { pair: (from, to), sent: flow.sent[n] }));
                sent += new.len();
                flow.judged = new.end;
            }
        }
        (lost, sent)
    }

    /// When this process did not run: the machine stood still, or belonged to others.
    pub fn pauses(&self) -> Vec<RangeInclusive<Instant>> {
        self.shared.pauses.lock().unwrap().clone()
    }

    /// Whether every pair has received something since `since`.
    pub fn all_arrive_since(&self, since: Instant) -> Result<(), String> {
        let flows = self.shared.flows.lock().unwrap();
        let silent: Vec<Pair> = pairs(flows.len())
            .filter(|(from, to)| {
                let flow = &flows[*from][*to];
                let start = flow.sent.partition_point(|at| *at < since);
                !flow.arrived[start..].iter().any(|arrived| *arrived)
            })
            .collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("no packets of the pairs {silent:?} arrive")) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pairs(pods: usize) -> impl Iterator<Item = Pair> {
    (0..pods).flat_map(move |from| (0..pods).filter(move |to| *to != from).map(move |to| (from, to)))
}

fn receiver(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    // As long as this process stands still, the kernel keeps what arrives.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20)).expect("root");
    socket
}

fn senders() -> Vec<UdpSocket> {
    (0..SOURCE_PORTS).map(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port")).collect()
}

fn send(sources: &[Vec<UdpSocket>], to: &[SocketAddr], per_second: u32, shared: &Shared) {
    let period = Duration::from_secs(1) / per_second;
    let mut next = Instant::now();
    let mut port = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now > next + PAUSE {
            shared.pauses.lock().unwrap().push(next..=now);
            next = now;
        }
        for (from, dest) in pairs(to.len()) {
            let number = record(&mut shared.flows.lock().unwrap()[from][dest]);
            let head = u16::try_from(from).expect("few hosts").to_be_bytes();
            let packet = [head.as_slice(), &number.to_be_bytes()].concat();
            // What the kernel does not take is lost.
            let _ = sources[from][port].send_to(&packet, to[dest]);
        }
        port = (port + 1) % SOURCE_PORTS;
        next += period;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// For a socket of both families.
fn to_socket(address: IpAddr, port: u16) -> SocketAddr {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(address.into(), port)
}

fn record(flow: &mut Flow) -> u32 {
    flow.sent.push(Instant::now());
    flow.arrived.push(false);
    u32::try_from(flow.sent.len() - 1).expect("some million packets")
}

fn receive(socket: &UdpSocket, to: usize, shared: &Shared) {
    let mut packet = [0; 64];
    while !shared.stop.load(Ordering::Relaxed) {
        match socket.recv(&mut packet) {
            Ok(6) => {
                let from = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
                let number = u32::from_be_bytes([packet[2], packet[3], packet[4], packet[5]]);
                let number = usize::try_from(number).expect("64 bits");
                let mut flows = shared.flows.lock().unwrap();
                if let Some(arrived) = flows[from][to].arrived.get_mut(number) {
                    *arrived = true;
                }
            }
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => panic!("probes cannot be received: {e}"),
        }
    }
}
