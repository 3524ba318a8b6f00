//! All BFD sessions: who watches which path, which session a packet is for, what is due next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    packet::{Discard, Encoded, Packet, State},
    random::Random,
    session::Session,
    view::BfdView,
};
use crate::net::{BfdParams, BfdPath, BfdReport, BfdStatus, bfd_diagnostic};

/// Somebody who watches a path; never used twice.
pub type ClientId = u64;

/// Sessions at the most: each costs the neighbor and this host packets all the time.
pub const MAX_SESSIONS: usize = 4096;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub path: BfdPath,
    pub params: BfdParams,
    /// The BGP session goes on, or began again, although BFD is down: the neighbor is not to count
    /// as lost.
    pub proceed: bool,
}

/// Where a packet came from and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub from: IpAddr,
    pub to: Option<IpAddr>,
    pub ifindex: u32,
    /// TTL or hop limit; `None`: the kernel did not report it.
    pub ttl: Option<u8>,
    /// It came to port 4784.
    pub multihop: bool,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Make ready to send for this session.
    Open {
        session: u32,
        path: BfdPath,
    },
    /// No longer.
    Close {
        session: u32,
    },
    Send {
        session: u32,
        packet: Encoded,
    },
    Report {
        client: ClientId,
        report: BfdReport,
    },
    /// For the log.
    Changed(Change),
}

/// A session's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: BfdPath,
    pub from: State,
    pub to: State,
    pub diagnostic: u8,
}

/// Sums over all sessions since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub received: u64,
    pub sent: u64,
    pub discarded: BTreeMap<&'static str, u64>,
}

struct Entry {
    path: BfdPath,
    session: Session,
    clients: BTreeMap<ClientId, Watch>,
    reported: Option<BfdReport>,
    /// The time of this session's entry in the queue.
    queued: Option<Instant>,
}

/// All sessions.
pub struct Engine {
    sessions: HashMap<u32, Entry, foldhash::fast::RandomState>,
    by_path: BTreeMap<BfdPath, u32>,
    by_client: BTreeMap<ClientId, u32>,
    /// One entry per session at most, however often its neighbor changes the intervals.
    queue: BTreeSet<(Instant, u32)>,
    random: Random,
    received: u64,
    sent: u64,
    discarded: [u64; Discard::ALL.len()],
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// `seed`: for discriminators and jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: HashMap::default(),
            by_path: BTreeMap::new(),
            by_client: BTreeMap::new(),
            queue: BTreeSet::new(),
            random: Random::new(seed),
            received: 0,
            sent: 0,
            discarded: [0; Discard::ALL.len()],
        }
    }

    /// A client watches a path from now on, or under other terms, or none.
    ///
    /// # Errors
    ///
    /// There are as many sessions as there may be.
    pub fn watch(
        &mut self,
        now: Instant,
        client: ClientId,
        watch: Option<Watch>,
        out: &mut Vec<Output>,
    ) -> Result<(), TooMany> {
        let former = self.by_client.get(&client).copied();
        let kept = watch.as_ref().and_then(|w| self.by_path.get(&w.path).copied());
        if let Some(former) = former.filter(|f| kept != Some(*f)) {
            self.by_client.remove(&client);
            self.unwatch(now, former, client, out);
        }
        let Some(watch) = watch else { return Ok(()) };
        let id = match kept {
            Some(id) => id,
            None if self.sessions.len() >= MAX_SESSIONS => return Err(TooMany),
            None => self.create(now, watch.path, watch.params.clone(), out),
        };
        self.by_client.insert(client, id);
        let Some(entry) = self.sessions.get_mut(&id) else { return Ok(()) };
        entry.clients.insert(client, watch);
        if let Some(params) =
            merged(&entry.clients).filter(|p| p != entry.session.params() || entry.session.is_parting())
        {
            entry.session.configure(now, params, &mut self.random);
        }
        let report = entry.session.report(now);
        out.push(Output::Report { client, report });
        entry.reported.get_or_insert(report);
        self.enqueue(now, id);
        Ok(())
    }

    fn create(&mut self, now: Instant, path: BfdPath, params: BfdParams, out: &mut Vec<Output>) -> u32 {
        let mut id = 0;
        while id == 0 || self.sessions.contains_key(&id) {
            id = self.random.next();
        }
        let session = Session::new(now, params, id, &mut self.random);
        let entry = Entry { path, session, clients: BTreeMap::new(), reported: None, queued: None };
        self.sessions.insert(id, entry);
        self.by_path.insert(path, id);
        out.push(Output::Open { session: id, path });
        id
    }

    /// The last client's end is the session's: the neighbor is informed first.
    fn unwatch(&mut self, now: Instant, id: u32, client: ClientId, out: &mut Vec<Output>) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.clients.remove(&client);
        match merged(&entry.clients) {
            Some(params) => entry.session.configure(now, params, &mut self.random),
            None => {
                let from = entry.session.state;
                entry.session.part(now);
                entry.reported = None;
                if entry.session.remote.discriminator != 0 {
                    self.sent += 1;
                    out.push(Output::Send { session: id, packet: entry.session.packet(false) });
                }
                out.push(changed(entry, from));
            }
        }
        self.enqueue(now, id);
    }

    /// A packet came.
    pub fn receive(&mut self, now: Instant, arrival: &Arrival, octets: &[u8], out: &mut Vec<Output>) {
        match self.accept(now, arrival, octets, out) {
            Ok(()) => self.received += 1,
            Err(why) => self.discarded[why as usize] += 1,
        }
    }

    /// RFC 5880 §6.8.6, RFC 5881 §5.
    fn accept(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        octets: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Discard> {
        if !arrival.multihop && arrival.ttl != Some(255) {
            return Err(Discard::Ttl);
        }
        let (packet, octets) = Packet::decode(octets)?;
        let id = self.find(arrival, &packet).ok_or(Discard::NoSession)?;
        let entry = self.sessions.get_mut(&id).ok_or(Discard::NoSession)?;
        let from = entry.session.state;
        let reply = entry
            .session
            .receive(now, &packet, octets, &mut self.random)
            .map_err(|_| Discard::Authentication)?;
        if let Some(packet) = reply {
            self.sent += 1;
            out.push(Output::Send { session: id, packet });
        }
        if from != entry.session.state {
            out.push(changed(entry, from));
        }
        report(entry, now, out);
        self.enqueue(now, id);
        Ok(())
    }

    /// RFC 5880 §6.3, RFC 5881 §3, RFC 5883 §4: by the discriminator that the neighbor learned from
    /// us, else by where the packet came from.
    fn find(&self, arrival: &Arrival, packet: &Packet) -> Option<u32> {
        if packet.your_discriminator != 0 {
            let entry = self.sessions.get(&packet.your_discriminator)?;
            return (entry.path.is_multihop() == arrival.multihop).then_some(packet.your_discriminator);
        }
        let ifindex = if arrival.multihop { 0 } else { arrival.ifindex };
        let at = |local| self.by_path.get(&BfdPath { remote: arrival.from, local, ifindex }).copied();
        arrival.to.and_then(|to| at(Some(to))).or_else(|| at(None))
    }

    /// When to come back with [`Engine::timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// What has become due.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(&(at, id)) = self.queue.first().filter(|(at, _)| *at <= now) {
            self.queue.remove(&(at, id));
            let Some(entry) = self.sessions.get_mut(&id) else { continue };
            entry.queued = None;
            if entry.session.due(now).is_some_and(|due| due <= now) {
                self.session_due(now, id, out);
            }
            self.enqueue(now, id);
        }
    }

    fn session_due(&mut self, now: Instant, id: u32, out: &mut Vec<Output>) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if entry.session.is_over(now) {
            self.by_path.remove(&entry.path);
            self.sessions.remove(&id);
            out.push(Output::Close { session: id });
            return;
        }
        let from = entry.session.state;
        let packet = entry.session.timeout(now, &mut self.random);
        if from != entry.session.state {
            out.push(changed(entry, from));
        }
        // Before the packet: what depends on it is in a hurry.
        report(entry, now, out);
        if let Some(packet) = packet {
            self.sent += 1;
            out.push(Output::Send { session: id, packet });
        }
    }

    /// An entry that turns out to be too early is queued again when its time comes: most packets
    /// change nothing here.
    fn enqueue(&mut self, now: Instant, id: u32) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let Some(due) = entry.session.due(now) else { return };
        if entry.queued.is_none_or(|at| at > due) {
            if let Some(later) = entry.queued.replace(due) {
                self.queue.remove(&(later, id));
            }
            self.queue.insert((due, id));
        }
    }

    /// The remote addresses, with their interfaces, that were lost and are not reached again; BGP
    /// has not gone on without.
    pub fn lost(&self, now: Instant) -> BTreeSet<(IpAddr, u32)> {
        let is_lost = |e: &&Entry| {
            e.session.report(now).status == BfdStatus::Down && !e.clients.values().any(|w| w.proceed)
        };
        self.sessions.values().filter(is_lost).map(|e| (e.path.remote, e.path.ifindex)).collect()
    }

    pub fn totals(&self) -> Totals {
        let discarded = Discard::ALL.iter().zip(self.discarded);
        Totals {
            received: self.received,
            sent: self.sent,
            discarded: discarded.map(|(why, n)| (why.as_str(), n)).collect(),
        }
    }

    /// Entries of the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The sessions that somebody watches, with their discriminators.
    pub fn views(&self, now: Instant) -> Vec<(u32, BfdPath, BfdView)> {
        let watched = self.by_path.iter().filter_map(|(path, id)| Some((*id, *path, self.sessions.get(id)?)));
        watched
            .filter(|(.., e)| !e.clients.is_empty())
            .map(|(id, path, entry)| (id, path, view(entry, id, now)))
            .collect()
    }
}

/// There are as many sessions as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

fn changed(entry: &Entry, from: State) -> Output {
    let (to, diagnostic) = (entry.session.state, entry.session.diagnostic);
    Output::Changed(Change { path: entry.path, from, to, diagnostic })
}

fn report(entry: &mut Entry, now: Instant, out: &mut Vec<Output>) {
    let report = entry.session.report(now);
    if entry.reported != Some(report) {
        entry.reported = Some(report);
        out.extend(entry.clients.keys().map(|client| Output::Report { client: *client, report }));
    }
}

/// One session for all clients, with the shortest of their intervals and the first client's key.
fn merged(clients: &BTreeMap<ClientId, Watch>) -> Option<BfdParams> {
    let mut all = clients.values().map(|w| &w.params);
    let first = all.next()?.clone();
    Some(all.fold(first, |a, b| BfdParams {
        min_tx: a.min_tx.min(b.min_tx),
        min_rx: a.min_rx.min(b.min_rx),
        multiplier: a.multiplier.min(b.multiplier),
        passive: a.passive && b.passive,
        auth: a.auth,
    }))
}

fn view(entry: &Entry, id: u32, now: Instant) -> BfdView {
    let session = &entry.session;
    let (params, remote) = (session.params(), &session.remote);
    let report = session.report(now);
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    BfdView {
        neighbor: entry.path.remote.to_string(),
        interface: None,
        local_address: entry.path.local.map(|a| a.to_string()),
        multihop: entry.path.is_multihop(),
        state: session.state.as_str().into(),
        for_seconds: now.saturating_duration_since(session.since).as_secs(),
        remote_state: remote.state.as_str().into(),
        local_discriminator: id,
        remote_discriminator: remote.discriminator,
        min_tx: ms(session.advertised.tx),
        min_rx: ms(session.advertised.rx),
        multiplier: params.multiplier,
        remote_min_tx: ms(remote.min_tx),
        remote_min_rx: ms(remote.min_rx),
        remote_multiplier: remote.multiplier,
        tx_interval: session.interval().map(ms),
        detection_time: ms(session.detection_time()),
        diagnostic: bfd_diagnostic(session.diagnostic).into(),
        diagnostic_code: session.diagnostic,
        remote_diagnostic: bfd_diagnostic(remote.diagnostic).into(),
        remote_control_plane_independent: remote.independent,
        authentication: params
            .auth
            .as_ref()
            .map(|a| if a.meticulous { "meticulous-sha1".into() } else { "sha1".into() }),
        passive: params.passive,
        dampened: matches!(report.status, BfdStatus::Dampened(_)),
        failures: report.failures,
        packets_sent: session.counters.sent,
        packets_received: session.counters.received,
        authentication_failures: session.counters.not_authentic,
        problem: None,
    }
}
