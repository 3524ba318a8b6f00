//! A world of sessions, with or without tables: one virtual clock, wires with delay, octets cut anywhere, links
//! that can be cut, nodes that die and come back. The same seed gives the same world, to the octet.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use routelet::{
    bgp::{
        peer::{Global, PeerConfig, PeerKey, PeerSource, RemoteAs},
        session::{Conn, Endpoints, Input, Output, Session, Stop},
        view::SessionState,
    },
    net::{Asn, Guard, Prefix},
};

use crate::router::Router;

/// While so much is unsent a table says nothing to a session, as in the daemon.
const ENOUGH: usize = 64 * 1024;
/// No stretch of a table is larger.
const CHUNK: usize = 256 * 1024;

/// One session: of which node, towards which.
pub type End = (usize, usize);

/// What arrives at a session later.
enum Arrival {
    /// The turn of a node's table.
    Turn,
    /// With the number of the dial: nobody waits for an older one.
    Connected(u64, Conn, u32),
    Refused(u64, String),
    Accepted(u32),
    Octets(u32, Bytes),
    Closed(u32),
}

/// One TCP connection: which end dialled, and the number that each end gave it.
struct Wire {
    dialled: End,
    dialler: Conn,
    /// Until it is accepted there is none.
    accepter: Option<Conn>,
    open: bool,
    /// Nothing overtakes: when the last octets arrive, at the dialling end and at the other one.
    last: [Instant; 2],
}

/// What one end has to say for itself.
struct Node {
    session: Session,
    config: Arc<PeerConfig>,
    next_conn: u32,
    buffers: BTreeMap<Conn, (u32, BytesMut)>,
    /// Each Up has its Down.
    up: bool,
    ups: usize,
    dial: u64,
    /// Octets of the session that the kernel did not take yet.
    stuck: Vec<(Conn, Bytes)>,
}

/// The world.
pub struct Net {
    pub now: Instant,
    t0: Instant,
    rng: u64,
    nodes: BTreeMap<End, Node>,
    /// The tables, by node; none in a world of mere sessions.
    pub routers: BTreeMap<usize, Router>,
    dead: BTreeSet<usize>,
    /// Nodes that say of themselves on new sessions that they have restarted (RFC 4724 §3).
    pub restarting: BTreeSet<usize>,
    /// Sessions that were let go: who calls there is refused.
    away: BTreeSet<End>,
    /// Calls at nodes that do not know the caller as a neighbor: who was called, and by whom.
    pub strangers: Vec<End>,
    /// Those who do not read.
    deaf: BTreeSet<End>,
    established: usize,
    /// What the tables have said.
    pub messages: u64,
    wires: Vec<Wire>,
    cut: Vec<(usize, usize)>,
    /// Octets on their way into a link that is cut.
    held: Vec<(u32, End, Bytes)>,
    queue: BinaryHeap<Reverse<(Instant, u64, End)>>,
    arrivals: BTreeMap<u64, Arrival>,
    seq: u64,
    /// Longest delay of a wire.
    pub latency: Duration,
    /// What happened, line by line.
    pub trace: String,
}

pub fn id(n: usize) -> [u8; 4] {
    [10, 0, ((n + 1) >> 8) as u8, (n + 1) as u8]
}

pub fn address(n: usize) -> SocketAddr {
    (id(n), 179).into()
}

pub fn config(us: usize, them: usize, asn: fn(usize) -> Asn) -> PeerConfig {
    let key = PeerKey::Address(address(them).ip());
    PeerConfig {
        source: PeerSource::Mesh,
        max_prefixes: 1000,
        ..PeerConfig::new(key, RemoteAs::Number(asn(them)), asn(us))
    }
}

/// What holds for all sessions of a node.
pub fn global(us: usize, config: &PeerConfig) -> Global {
    let router_id = id(us).into();
    Global {
        asn: config.global_as,
        router_id,
        cluster_id: router_id,
        max_paths: 64,
        multipath_relax: true,
        restarting: false,
    }
}

impl Node {
    fn new(session: Session, config: Arc<PeerConfig>) -> Self {
        Self {
            session,
            config,
            next_conn: 0,
            buffers: BTreeMap::new(),
            up: false,
            ups: 0,
            dial: 0,
            stuck: Vec::new(),
        }
    }
}

impl Net {
    /// Sessions between these pairs of nodes, none begun.
    pub fn new(seed: u64, links: &[(usize, usize)], asn: fn(usize) -> Asn) -> Self {
        Self::with(seed, links, |us, them| config(us, them, asn))
    }

    /// The same, each end with settings of its own.
    pub fn with(seed: u64, links: &[(usize, usize)], config: impl Fn(usize, usize) -> PeerConfig) -> Self {
        let t0 = Instant::now();
        let mut net = Self {
            now: t0,
            t0,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            nodes: BTreeMap::new(),
            routers: BTreeMap::new(),
            dead: BTreeSet::new(),
            restarting: BTreeSet::new(),
            away: BTreeSet::new(),
            strangers: Vec::new(),
            deaf: BTreeSet::new(),
            established: 0,
            messages: 0,
            wires: vec![],
            cut: vec![],
            held: vec![],
            queue: BinaryHeap::new(),
            arrivals: BTreeMap::new(),
            seq: 0,
            latency: Duration::from_millis(20),
            trace: String::new(),
        };
        for &(a, b) in links {
            for (us, them) in [(a, b), (b, a)] {
                let config = Arc::new(config(us, them));
                let session = Session::new(t0, config.clone(), global(us, &config), net.random(u64::MAX));
                net.nodes.insert((us, them), Node::new(session, config));
            }
        }
        net
    }

    /// Xorshift.
    pub fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % below
    }

    pub fn ends(&self) -> Vec<End> {
        self.nodes.keys().copied().collect()
    }

    pub fn state(&self, end: End) -> SessionState {
        self.nodes[&end].session.state()
    }

    pub fn session(&self, end: End) -> &Session {
        &self.nodes[&end].session
    }

    /// Whether its session is established.
    pub fn is_up(&self, end: End) -> bool {
        self.nodes[&end].up
    }

    /// How often it came up.
    pub fn ups(&self, end: End) -> usize {
        self.nodes[&end].ups
    }

    pub fn all_established(&self) -> bool {
        self.established == self.nodes.len() - self.away.len()
    }

    /// Silence between two nodes from now on: nothing sent arrives before the link heals, nobody is told.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.note(format_args!("cut {a}-{b}"));
        self.cut.push((a.min(b), a.max(b)));
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        self.note(format_args!("heal {a}-{b}"));
        self.cut.retain(|c| *c != (a.min(b), a.max(b)));
        // TCP has kept what was not acknowledged.
        let (now_sent, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, from, _)| *from == (a, b) || *from == (b, a));
        self.held = held;
        for (wire, from, octets) in now_sent {
            self.send(wire, from, octets);
        }
    }

    /// The connection breaks, and both ends learn of it.
    pub fn break_wires(&mut self, a: usize, b: usize) {
        for wire in 0..self.wires.len() {
            let (x, y) = self.wires[wire].dialled;
            if self.wires[wire].open && (x.min(y), x.max(y)) == (a.min(b), a.max(b)) {
                self.hang_up(wire as u32, (x, y));
                self.hang_up(wire as u32, (y, x));
                self.wires[wire].open = false;
            }
        }
    }

    pub fn feed(&mut self, end: End, input: Input<'_>) {
        self.feed_session(end, input);
        self.wake(end.0);
    }

    /// Everything that a session asks for, tables apart.
    pub(crate) fn feed_session(&mut self, end: End, input: Input<'_>) {
        let now = self.now;
        self.node(end).session.handle(now, input);
        while let Some(output) = self.node(end).session.poll_output() {
            self.obey(end, output);
        }
        if let Some(due) = self.nodes[&end].session.poll_timeout() {
            self.seq += 1;
            self.queue.push(Reverse((due.max(self.now), self.seq, end)));
        }
    }

    /// A node loses power, or is killed: its table is gone, its kernel closes what was open (or, with the cable,
    /// says nothing).
    pub fn kill(&mut self, n: usize) {
        self.note(format_args!("{n} is dead"));
        self.dead.insert(n);
        for end in self.ends_of(n) {
            let buffers = std::mem::take(&mut self.node(end).buffers);
            buffers.values().for_each(|(wire, _)| self.hang_up(*wire, end));
            self.forget(end);
        }
    }

    /// A node says goodbye as its daemon would, and is gone.
    pub fn leave(&mut self, n: usize, how: Stop) {
        self.note(format_args!("{n} leaves: {how:?}"));
        for end in self.ends_of(n) {
            // Whatever is said last, its own table hears no more.
            self.feed_session(end, Input::Stop(how.clone()));
        }
        self.kill(n);
    }

    /// What an operator does at a node that runs.
    pub fn feed_living(&mut self, end: End, input: Input<'_>) {
        if !self.dead.contains(&end.0) {
            self.note(format_args!("{end:?} {input:?}"));
            self.feed(end, input);
        }
    }

    /// It is back with empty hands; `restarting` is what it says of itself (RFC 4724 §3).
    pub fn revive(&mut self, n: usize, restarting: bool) {
        self.note(format_args!("{n} is back"));
        self.dead.remove(&n);
        if let Some(router) = self.routers.get_mut(&n) {
            router.reborn(self.now, restarting);
        }
        for end in self.ends_of(n) {
            let (seed, now) = (self.random(u64::MAX), self.now);
            let node = self.node(end);
            let global = Global { restarting, ..global(n, &node.config) };
            node.session = Session::new(now, node.config.clone(), global, seed);
            self.feed(end, Input::Start);
        }
        self.wake(n);
    }

    fn forget(&mut self, end: End) {
        let node = self.node(end);
        node.dial += 1;
        node.stuck.clear();
        if std::mem::take(&mut node.up) {
            self.established -= 1;
        }
    }

    pub fn ends_of(&self, n: usize) -> Vec<End> {
        self.nodes.range((n, 0)..(n + 1, 0)).map(|(end, _)| *end).collect()
    }

    /// From now on, until the session ends, this end's kernel takes nothing: the neighbor does not read.
    pub fn deafen(&mut self, end: End) {
        self.deaf.insert(end);
    }

    /// Takes settings over, in the session and in the table.
    pub fn configure(&mut self, end: End, config: Arc<PeerConfig>) {
        self.node(end).config = config.clone();
        let restarting = self.restarting.contains(&end.0);
        // A dead node finds them when it is back.
        self.update(end, |router, now, them| router.configure(now, them, config.clone()));
        if self.dead.contains(&end.0) {
            return;
        }
        let global = Global { restarting, ..global(end.0, &config) };
        self.feed(end, Input::Configure(config, global));
    }

    /// A neighbor enters a node's plan, or its settings change.
    pub fn enter(&mut self, end: End, config: Arc<PeerConfig>) {
        let known = self.nodes.contains_key(&end);
        if !known {
            let restarting = self.restarting.contains(&end.0);
            let global = Global { restarting, ..global(end.0, &config) };
            let session = Session::new(self.now, config.clone(), global, self.random(u64::MAX));
            self.nodes.insert(end, Node::new(session, config.clone()));
        }
        self.configure(end, config);
        if self.away.remove(&end) || !known {
            self.note(format_args!("{end:?} enters"));
            self.feed(end, Input::Start);
        }
    }

    /// A neighbor leaves a node's plan.
    pub fn withdraw(&mut self, end: End) {
        self.note(format_args!("{end:?} withdraws"));
        self.feed(end, Input::Stop(Stop::Removed));
        self.away.insert(end);
        self.update(end, |router, now, them| router.forget(now, them));
        self.wake(end.0);
    }

    /// What a node announces from now on.
    pub fn originate(&mut self, n: usize, own: BTreeSet<Prefix>) {
        let now = self.now;
        if let Some(router) = self.routers.get_mut(&n) {
            router.own = own;
            if !self.dead.contains(&n) {
                router.originate(now);
                self.wake(n);
            }
        }
    }

    /// What a node must not accept from now on.
    pub fn guard(&mut self, n: usize, guard: Arc<Guard>) {
        let now = self.now;
        if let Some(router) = self.routers.get_mut(&n) {
            router.guard(now, guard);
            self.wake(n);
        }
    }

    pub fn is_dead(&self, n: usize) -> bool {
        self.dead.contains(&n)
    }

    /// UPDATEs are decided and sent, as by the task that owns a table.
    fn turn(&mut self, n: usize) {
        let now = self.now;
        let Some(router) = self.routers.get_mut(&n).filter(|_| !self.dead.contains(&n)) else { return };
        for (them, input) in router.turn(now) {
            self.feed_session((n, them), input);
        }
        let mut behind = self.routers[&n].behind();
        while !behind.is_empty() {
            behind.retain(|them| {
                let end = (n, *them);
                let unsent = self.nodes[&end].session.unsent();
                assert!(unsent < ENOUGH + CHUNK, "{unsent} octets wait at {end:?}");
                if !self.nodes[&end].up || unsent >= ENOUGH {
                    return false;
                }
                let next = self.routers.get_mut(&n).and_then(|r| r.next_for(*them));
                let Some((bytes, messages)) = next else { return false };
                self.messages += u64::from(messages);
                self.feed_session(end, Input::Send { bytes, messages });
                true
            });
        }
        if let Some(due) = self.routers.get_mut(&n).and_then(Router::rest) {
            self.at(due.max(now), (n, usize::MAX), Arrival::Turn);
        }
    }

    /// Gives a table its turn soon; what comes meanwhile is taken in the same one.
    pub fn wake(&mut self, n: usize) {
        let due = match self.routers.get_mut(&n) {
            Some(router) if !self.dead.contains(&n) => router.awakened(),
            _ => return,
        };
        if due {
            let pause = Duration::from_micros(self.random(2000));
            self.at(self.now + pause, (n, usize::MAX), Arrival::Turn);
        }
    }

    fn obey(&mut self, end: End, output: Output) {
        match output {
            Output::Connect => self.dial(end),
            Output::AbortConnect { .. } => self.node(end).dial += 1,
            Output::Transmit(conn, bytes) if self.deaf.contains(&end) && self.nodes[&end].up => {
                self.node(end).stuck.push((conn, bytes));
            }
            Output::Transmit(conn, bytes) => {
                let length = bytes.len();
                self.transmit(end, conn, bytes);
                // The kernel takes everything at once.
                let now = self.now;
                self.node(end).session.handle(now, Input::Sent(conn, length));
            }
            Output::Close(conn) => {
                if let Some((wire, _)) = self.node(end).buffers.remove(&conn) {
                    self.hang_up(wire, end);
                }
            }
            Output::Up(negotiated) => {
                self.note(format_args!("{end:?} up with AS {}", negotiated.remote_as));
                let node = self.node(end);
                assert!(!node.up, "two Ups without a Down at {end:?}");
                (node.up, node.ups) = (true, node.ups + 1);
                self.established += 1;
                self.update(end, |router, now, them| router.up(now, them, negotiated));
            }
            Output::Down { why, cause } => {
                self.note(format_args!("{end:?} down: {why}"));
                let node = self.node(end);
                assert!(node.up, "a Down without an Up at {end:?}");
                node.up = false;
                node.stuck.clear();
                self.established -= 1;
                self.deaf.remove(&end);
                self.update(end, |router, now, them| router.down(now, them, cause));
            }
            Output::Updates(list) => {
                assert!(self.node(end).up, "{} updates before Up", list.len());
                for update in &list {
                    assert!(update.flaws.is_empty(), "{end:?} was sent {:?}\n{}", update.flaws, self.trace);
                }
                self.update(end, |router, now, them| router.updates(now, them, &list));
            }
            Output::Refresh { family, subtype } => {
                assert!(self.node(end).up);
                self.update(end, |router, now, them| router.refresh(now, them, family, subtype));
            }
            // The hosts of this world keep their links and addresses.
            Output::KeepSource(_) | Output::Probe(_) | Output::LeastTtl(..) | Output::Held { .. } => {}
            Output::Event(event) => self.note(format_args!("{end:?} {event}")),
        }
    }

    fn update(&mut self, end: End, what: impl FnOnce(&mut Router, Instant, usize)) {
        if let Some(router) = self.routers.get_mut(&end.0) {
            what(router, self.now, end.1);
        }
    }

    fn node(&mut self, end: End) -> &mut Node {
        self.nodes.get_mut(&end).expect("a node of this world")
    }

    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let at = (self.now - self.t0).as_secs_f64();
        let _ = writeln!(self.trace, "{at:9.3} {what}");
    }

    fn is_cut(&self, (a, b): End) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn later(&mut self, delay: Duration, to: End, arrival: Arrival) {
        self.at(self.now + delay, to, arrival);
    }

    fn at(&mut self, when: Instant, to: End, arrival: Arrival) {
        self.seq += 1;
        self.arrivals.insert(self.seq, arrival);
        self.queue.push(Reverse((when, self.seq, to)));
    }

    fn delay(&mut self) -> Duration {
        let micros = self.latency.as_micros() as u64;
        Duration::from_micros(1 + self.random(micros))
    }

    /// Refused while the other end is not listening; no answer at all over a link that is cut.
    fn dial(&mut self, end @ (a, b): End) {
        self.node(end).dial += 1;
        let number = self.node(end).dial;
        if self.is_cut(end) {
            return;
        }
        let (there, back) = (self.delay(), self.delay());
        let nobody = self.away.contains(&(b, a)) || !self.nodes.contains_key(&(b, a));
        if nobody && !self.dead.contains(&b) {
            self.strangers.push((b, a));
        }
        if nobody || self.dead.contains(&b) || matches!(self.state((b, a)), SessionState::Disabled) {
            self.later(there + back, end, Arrival::Refused(number, format!("{:?} refuses", (b, a))));
            return;
        }
        let dialler = self.new_conn(end);
        let wire = self.wires.len() as u32;
        self.wires.push(Wire {
            dialled: end,
            dialler,
            accepter: None,
            open: true,
            last: [self.now + there + back, self.now + there],
        });
        self.later(there, (b, a), Arrival::Accepted(wire));
        self.later(there + back, end, Arrival::Connected(number, dialler, wire));
    }

    fn new_conn(&mut self, end: End) -> Conn {
        let node = self.node(end);
        node.next_conn += 1;
        Conn(node.next_conn)
    }

    /// Cuts the octets at a random place and sends both pieces on their way, in order.
    fn transmit(&mut self, end: End, conn: Conn, bytes: Bytes) {
        let Some((wire, _)) = self.nodes[&end].buffers.get(&conn) else {
            panic!("{end:?} speaks on a closed connection")
        };
        let wire = *wire;
        if self.is_cut(end) {
            self.held.push((wire, end, bytes));
        } else {
            self.send(wire, end, bytes);
        }
    }

    fn send(&mut self, wire: u32, end @ (a, b): End, mut bytes: Bytes) {
        if !self.wires[wire as usize].open {
            return;
        }
        let head = bytes.split_to(self.random(bytes.len() as u64 + 1) as usize);
        for piece in [head, bytes] {
            if !piece.is_empty() {
                let when = self.in_order(wire, end);
                self.at(when, (b, a), Arrival::Octets(wire, piece));
            }
        }
    }

    fn in_order(&mut self, wire: u32, from: End) -> Instant {
        let delay = self.delay();
        let wire = &mut self.wires[wire as usize];
        let direction = usize::from(wire.dialled == from);
        let when = (self.now + delay).max(wire.last[direction]);
        wire.last[direction] = when;
        when
    }

    fn hang_up(&mut self, wire: u32, from @ (a, b): End) {
        if !self.is_cut(from) {
            let when = self.in_order(wire, from);
            self.at(when, (b, a), Arrival::Closed(wire));
        }
    }

    /// The number of a wire at one of its ends, while that end has it open.
    fn conn(&self, wire: u32, end: End) -> Option<Conn> {
        let w = &self.wires[wire as usize];
        let conn = if w.dialled == end { Some(w.dialler) } else { w.accepter };
        conn.filter(|c| self.nodes[&end].buffers.contains_key(c))
    }

    fn arrive(&mut self, end: End, arrival: Arrival) {
        if matches!(arrival, Arrival::Turn) {
            return self.turn(end.0);
        }
        if self.dead.contains(&end.0) {
            // Nobody is at home; the kernel refuses.
            if let Arrival::Accepted(wire) | Arrival::Octets(wire, _) = arrival {
                self.hang_up(wire, end);
            }
            return;
        }
        let ends = Endpoints { local: address(end.0), remote: address(end.1), ifindex: 0, ttl: None };
        match arrival {
            Arrival::Turn => {}
            Arrival::Refused(number, why) => {
                if self.nodes[&end].dial == number {
                    self.feed(end, Input::ConnectFailed { why, refused: false });
                }
            }
            Arrival::Connected(number, ..) if self.nodes[&end].dial != number => {
                let Arrival::Connected(_, _, wire) = arrival else { return };
                self.hang_up(wire, end);
            }
            Arrival::Connected(_, conn, wire) => {
                if self.wires[wire as usize].open {
                    self.node(end).buffers.insert(conn, (wire, BytesMut::new()));
                    self.feed(end, Input::Connected(conn, ends));
                }
            }
            Arrival::Accepted(wire) => {
                let conn = self.new_conn(end);
                self.wires[wire as usize].accepter = Some(conn);
                self.node(end).buffers.insert(conn, (wire, BytesMut::new()));
                self.feed(end, Input::Accepted(conn, ends));
            }
            Arrival::Octets(wire, octets) => {
                // Nobody there any more: a reset.
                let Some(conn) = self.conn(wire, end) else { return self.hang_up(wire, end) };
                let Some((_, buffer)) = self.node(end).buffers.get_mut(&conn) else { return };
                buffer.extend_from_slice(&octets);
                let mut buffer = std::mem::take(buffer);
                self.feed(end, Input::Received(conn, &mut buffer));
                if let Some((_, kept)) = self.node(end).buffers.get_mut(&conn) {
                    *kept = buffer;
                }
            }
            Arrival::Closed(wire) => {
                if let Some(conn) = self.conn(wire, end) {
                    self.node(end).buffers.remove(&conn);
                    self.feed(end, Input::Closed(conn, None));
                }
            }
        }
    }

    /// Lets time pass: whatever is due happens, in order.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_until(until, |_| false);
        self.now = until;
    }

    /// Runs until `done` or `until`; whether it was done.
    pub fn run_until(&mut self, until: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        while !done(self) {
            let Some(Reverse((due, seq, end))) = self.queue.peek().copied() else { return false };
            if due > until {
                return false;
            }
            self.queue.pop();
            self.now = due;
            match self.arrivals.remove(&seq) {
                Some(arrival) => self.arrive(end, arrival),
                // A deadline, perhaps of a timer that was moved since, or of one that died.
                None if self.dead.contains(&end.0) => {}
                None if self.nodes[&end].session.poll_timeout().is_some_and(|d| d <= due) => {
                    self.feed(end, Input::Timeout);
                }
                None => {}
            }
        }
        true
    }
}
