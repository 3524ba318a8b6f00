//! Where the cases run: routelet in one namespace, any number of neighbors played by the test in another.
//!
//! Host 10.2.255.254/16 and fd02::fffe/64; all of 10.2.0.0/17 is the switch's.

use std::{
    collections::BTreeSet,
    fmt::Write,
    io::{ErrorKind, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    common::{
        PATIENCE,
        daemons::Routelet,
        net::{Net, Ns},
        stood_still, wait_for,
    },
    words::{KEEPALIVE, NOTIFICATION, OPEN, Open, Received, UPDATE, message, nlri, origin, path, update},
};

/// Number of the host.
pub(crate) const HOST_AS: u32 = 65000;
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 2, 255, 254);
pub(crate) const EXTERNAL: u32 = 65001;

/// Declared in the order of dropping.
pub(crate) struct Bed {
    pub(crate) routelet: Routelet,
    pub(crate) host: Ns,
    pub(crate) switch: Ns,
    _net: Net,
}

/// Neighbor `n` of a kind.
pub(crate) fn at(kind: u8, n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, kind, n)
}

/// Configuration of `count` passive neighbors 10.2.KIND.1 and up.
pub(crate) fn passive(kind: u8, count: u8, keys: &str) -> String {
    let mut out = String::new();
    for n in 1..=count {
        let _ = writeln!(out, "[[bgp.neighbor]]\naddress = \"{}\"\npassive = true\n{keys}", at(kind, n));
    }
    out
}

impl Bed {
    /// Starts routelet as AS 65000 with these neighbors; `bgp` are more keys of `[bgp]`.
    pub(crate) fn start(bgp: &str, neighbors: &str) -> Self {
        Self::start_under(bgp, neighbors, |_, _| Vec::new())
    }

    /// The same with options that `prepare` makes, of the host's namespace and a folder for files.
    pub(crate) fn start_under(
        bgp: &str,
        neighbors: &str,
        prepare: impl FnOnce(&Ns, &Path) -> Vec<String>,
    ) -> Self {
        Self::start_in(None, bgp, neighbors, prepare)
    }

    /// The same with the daemon, and nothing else, in the cgroup of this `cgroup.procs`.
    pub(crate) fn start_in(
        cgroup: Option<PathBuf>,
        bgp: &str,
        neighbors: &str,
        prepare: impl FnOnce(&Ns, &Path) -> Vec<String>,
    ) -> Self {
        let mut net = Net::new();
        let (switch, host) = (net.ns("switch"), net.ns("host"));
        net.link((&switch, "eth0"), (&host, "eth0"));
        switch.ip("addr add 10.2.255.253/16 dev eth0");
        switch.ip("addr add fd02::1/64 dev eth0 nodad");
        switch.ip("addr add fd02::2/64 dev eth0 nodad");
        switch.ip("route add local 10.2.0.0/17 dev lo");
        host.ip("addr add 10.2.255.254/16 dev eth0");
        host.ip("addr add fd02::fffe/64 dev eth0 nodad");
        let config = format!("[bgp]\nas = {HOST_AS}\nrouter-id = \"{HOST}\"\n{bgp}\n{neighbors}");
        let options = prepare(&host, net.dir());
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let mut routelet = Routelet::ready(&net, &host, &config, &options);
        routelet.cgroup = cgroup;
        routelet.restart();
        Self { routelet, host, switch, _net: net }
    }

    /// A connection from this address of the switch.
    pub(crate) fn try_dial(&self, from: Ipv4Addr) -> std::io::Result<Peer> {
        let stream = self.switch.enter(|| -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
            let to = SocketAddr::from((HOST, 179));
            socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
            Ok(socket.into())
        })?;
        Ok(Peer::over(stream, from))
    }

    pub(crate) fn dial(&self, from: Ipv4Addr) -> Peer {
        // The listener may be a moment behind the control socket.
        wait_for(format!("a connection from {from}"), 5.0, || self.try_dial(from).ok())
    }

    /// A session, as soon as routelet takes one.
    pub(crate) fn session(&self, from: Ipv4Addr, open: &Open) -> Peer {
        let peer = wait_for(format!("a session from {from}"), 10.0, || {
            let mut peer = self.try_dial(from).ok()?;
            peer.try_establish(open).then_some(peer)
        });
        self.established(from);
        peer
    }

    /// Waits until routelet has read the KEEPALIVE, too.
    pub(crate) fn established(&self, addr: Ipv4Addr) {
        wait_for(format!("{addr} is established"), 10.0, || {
            (self.state(addr) == "established").then_some(())
        });
    }

    /// A session with an eBGP neighbor of four-octet number `asn`.
    pub(crate) fn peer(&self, from: Ipv4Addr, asn: u32) -> Peer {
        self.session(from, &Open::new(asn, from))
    }

    pub(crate) fn listen(&self, addr: Ipv4Addr) -> TcpListener {
        let listener = self.switch.enter(|| TcpListener::bind((addr, 179))).expect("a free port");
        listener.set_nonblocking(true).expect("ours");
        listener
    }

    /// All paths from this neighbor, refused ones too, by prefix.
    pub(crate) fn received(&self, from: Ipv4Addr) -> Vec<Value> {
        list(self.routelet.json(&["show", "routes", "--received", &from.to_string()]))
    }

    pub(crate) fn received_prefix(&self, from: Ipv4Addr, prefix: &str) -> Option<Value> {
        self.received(from).into_iter().find(|r| r["prefix"] == prefix)
    }

    /// Paths to one prefix.
    pub(crate) fn paths(&self, prefix: &str) -> Vec<Value> {
        list(self.routelet.json(&["show", "routes", prefix]))
    }

    /// Waits until the neighbor's UPDATEs up to now are in the table: by another one behind them.
    pub(crate) fn settled(&self, peer: &mut Peer) {
        peer.mark += 1;
        let mark = (Ipv4Addr::new(99, peer.addr.octets()[2], peer.addr.octets()[3], peer.mark), 32);
        peer.send(&update(&[], &peer.good(0), &nlri(&[mark])));
        let prefix = format!("{}/32", mark.0);
        wait_for(format!("{} is in the table", mark.0), 5.0, || {
            self.paths(&prefix).iter().any(|p| p["neighbor"] == peer.addr.to_string()).then_some(())
        });
    }

    pub(crate) fn neighbor(&self, addr: Ipv4Addr) -> Value {
        let all = list(self.routelet.json(&["show", "neighbors"]));
        all.into_iter().find(|n| n["address"] == addr.to_string()).unwrap_or(Value::Null)
    }

    pub(crate) fn state(&self, addr: Ipv4Addr) -> String {
        self.neighbor(addr)["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Prefixes in the kernel that are ours.
    pub(crate) fn kernel(&self) -> BTreeSet<String> {
        let text = self.host.ip("-4 route show proto 179") + &self.host.ip("-6 route show proto 179");
        text.lines()
            .filter_map(|l| l.split_whitespace().find(|w| w.contains(['.', ':'])))
            .map(|p| if p.contains('/') { p.to_owned() } else { format!("{p}/32") })
            .collect()
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        other => panic!("not a list: {other}"),
    }
}

/// One connection to routelet.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) addr: Ipv4Addr,
    pub(crate) asn: u32,
    /// routelet's OPEN.
    pub(crate) theirs: Vec<u8>,
    pub(crate) received: Received,
    pub(crate) closed: bool,
    buffer: Vec<u8>,
    /// So many octets of it were handed out.
    taken: usize,
    mark: u8,
}

impl Peer {
    pub(crate) fn over(stream: TcpStream, addr: Ipv4Addr) -> Self {
        stream.set_read_timeout(Some(Duration::from_millis(10))).expect("ours");
        stream.set_nodelay(true).expect("ours");
        Self {
            stream,
            addr,
            asn: EXTERNAL,
            theirs: Vec::new(),
            received: Received::default(),
            closed: false,
            buffer: Vec::new(),
            taken: 0,
            mark: 0,
        }
    }

    /// Writes; a closed connection shows when it is read.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        if self.stream.write_all(octets).is_err() {
            self.closed = true;
        }
    }

    pub(crate) fn keepalive(&mut self) {
        self.send(&message(KEEPALIVE, &[]));
    }

    /// The next message; `None` when nothing came in time or the connection was closed.
    pub(crate) fn next(&mut self, seconds: f64) -> Option<(u8, Vec<u8>)> {
        let start = Instant::now();
        let mut chunk = [0; 65536];
        loop {
            let unread = &self.buffer[self.taken..];
            if unread.len() >= 19 {
                let len = usize::from(u16::from_be_bytes([unread[16], unread[17]]));
                if unread.len() >= len {
                    self.taken += len;
                    return Some((unread[18], unread[19..len].to_vec()));
                }
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.closed = true;
                    return None;
                }
                Ok(n) => self.buffer.extend(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if start.elapsed().as_secs_f64() >= seconds {
                        return None;
                    }
                }
                Err(_) => {
                    self.closed = true;
                    return None;
                }
            }
        }
    }

    /// The body of the next message of this type; UPDATEs before it are taken in.
    pub(crate) fn expect(&mut self, kind: u8, seconds: f64) -> Option<Vec<u8>> {
        let start = Instant::now();
        loop {
            let left = seconds - start.elapsed().as_secs_f64();
            let (got, body) = self.next(left.max(0.0))?;
            if got == UPDATE {
                self.received.take(&body);
            }
            if got == kind {
                return Some(body);
            }
            if got == NOTIFICATION {
                return None;
            }
        }
    }

    /// Exchanges OPEN and KEEPALIVE; whether the session stands.
    pub(crate) fn try_establish(&mut self, open: &Open) -> bool {
        self.establishes_within(PATIENCE, open)
    }

    pub(crate) fn establishes_within(&mut self, seconds: f64, open: &Open) -> bool {
        self.asn = open.asn;
        self.send(&open.encode());
        let Some(theirs) = self.expect(OPEN, seconds) else { return false };
        self.theirs = theirs;
        self.keepalive();
        self.expect(KEEPALIVE, seconds).is_some()
    }

    /// Reads until the wanted thing is seen in what was heard.
    pub(crate) fn receives<T>(
        &mut self,
        seconds: f64,
        mut check: impl FnMut(&Received) -> Option<T>,
    ) -> Result<T, String> {
        let start = Instant::now();
        loop {
            if let Some(found) = check(&self.received) {
                return Ok(found);
            }
            if start.elapsed().as_secs_f64() > seconds || self.closed {
                let events: String = format!("{:?}", self.received.events).chars().take(2000).collect();
                return Err(format!("{} heard only {events}", self.addr));
            }
            if let Some((UPDATE, body)) = self.next(0.01) {
                self.received.take(&body);
            }
        }
    }

    /// The NOTIFICATION that ends the connection, and that it is closed behind it.
    pub(crate) fn ends(&mut self) -> Result<Vec<u8>, String> {
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < PATIENCE {
            match self.next(0.05) {
                Some((NOTIFICATION, body)) => {
                    let closing = Instant::now();
                    while !self.closed && closing.elapsed().as_secs_f64() < PATIENCE {
                        if let Some((kind, _)) = self.next(0.05) {
                            return Err(format!("message of type {kind} after {body:?}"));
                        }
                    }
                    return if self.closed { Ok(body) } else { Err(format!("open after {body:?}")) };
                }
                Some((UPDATE, body)) => self.received.take(&body),
                Some(_) => {}
                None if self.closed => return Err("closed without a NOTIFICATION".into()),
                None => {}
            }
        }
        Err("no NOTIFICATION".into())
    }

    /// ORIGIN, AS_PATH, NEXT_HOP and a MED to tell versions apart.
    pub(crate) fn good(&self, version: u32) -> Vec<Vec<u8>> {
        let path = if self.asn == HOST_AS { path(&[]) } else { path(&[self.asn]) };
        let mut all = vec![origin(0), path, crate::words::next_hop(self.addr), crate::words::med(version)];
        if self.asn == HOST_AS {
            all.push(crate::words::local_pref(100));
        }
        all
    }

    /// Announces with good attributes.
    pub(crate) fn announce(&mut self, version: u32, prefixes: &[&str]) {
        let list: Vec<_> = prefixes.iter().map(|p| crate::words::net(p)).collect();
        let m = update(&[], &self.good(version), &nlri(&list));
        self.send(&m);
    }

    /// Announces with these attributes.
    pub(crate) fn announce_with(&mut self, attributes: &[Vec<u8>], prefixes: &[&str]) {
        let list: Vec<_> = prefixes.iter().map(|p| crate::words::net(p)).collect();
        self.send(&update(&[], attributes, &nlri(&list)));
    }

    pub(crate) fn withdraw(&mut self, prefixes: &[&str]) {
        let list: Vec<_> = prefixes.iter().map(|p| crate::words::net(p)).collect();
        self.send(&update(&nlri(&list), &[], &[]));
    }
}

/// Whether two things are the same, as the outcome of a case.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{got:?} instead of {want:?}")) }
}

/// That something holds.
pub(crate) fn holds(it: bool, what: &str) -> Result<(), String> {
    if it { Ok(()) } else { Err(what.to_owned()) }
}

/// A case that waits, and may be played again.
pub(crate) type Waiting<'a> = Box<dyn Fn() -> Result<(), String> + Send + 'a>;

/// The outcome of many cases: all of them run, the failed ones are named.
#[derive(Default)]
pub(crate) struct Report {
    run: usize,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn case(&mut self, name: &str, case: impl FnOnce() -> Result<(), String>) {
        self.run += 1;
        let outcome = catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(|panic| Err(words_of(&*panic)));
        if let Err(why) = outcome {
            self.failed.push(format!("{name}: {why}"));
        }
    }

    /// Cases that measure time, side by side. One that failed while the machine stood still is played again.
    pub(crate) fn together(&mut self, cases: Vec<(&str, Waiting<'_>)>) {
        let play = |case: Waiting<'_>| {
            let mut again = 0..2;
            loop {
                let still = stood_still();
                let outcome =
                    catch_unwind(AssertUnwindSafe(&case)).unwrap_or_else(|panic| Err(words_of(&*panic)));
                if outcome.is_ok() || stood_still() == still || again.next().is_none() {
                    return outcome;
                }
            }
        };
        thread::scope(|s| {
            let running: Vec<_> =
                cases.into_iter().map(|(name, case)| (name, s.spawn(|| play(case)))).collect();
            for (name, case) in running {
                let outcome = case.join().expect("panics are caught");
                self.case(name, || outcome);
            }
        });
    }

    pub(crate) fn finish(self) {
        println!("{} cases, {} failed", self.run, self.failed.len());
        assert!(self.failed.is_empty(), "failed:\n  {}", self.failed.join("\n  "));
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}
