//! One neighbor's task: moves octets between sockets, a [`Session`] and the rib. It decides
//! nothing.
//!
//! Reading never waits for writing, and neither waits for the rib: while the rib's channel is full
//! the task stops reading (so that TCP slows the neighbor), but timers, writes and commands go on.

mod command;
mod link;
mod output;

use std::{
    collections::VecDeque,
    future::{self, Future},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures::FutureExt;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch},
    task::JoinSet,
    time,
};

pub(super) use self::command::ToTask;
use self::link::{ConnectionEvent, Link, links_turn};
use super::{
    PeerEvent,
    bfd::Bfd,
    rib::{Outbox, RibSender, ToPeer, ToRib},
    tcp::{self, Failed, Place},
};
use crate::{
    bgp::{
        contest::Router,
        event_limit::EventLimit,
        md5::Dropped,
        peer::{DownCause, Global, Negotiated, PeerConfig, PeerId, PeerKey, PeerSource},
        retention::Retention,
        session::{Conn, Endpoints, Input, Session, Stop},
        view::SessionState,
    },
    liveness,
    net::{BfdReport, Links},
    watched::Watched,
};

/// Most octets of one read: many UPDATEs make one message to the rib.
const MAX_READ: usize = 64 * 1024;
/// Octets of the first read: most reads are a KEEPALIVE or a single route.
const INITIAL_READ: usize = 4 * 1024;
/// Most reads whose UPDATEs the rib has not handled yet; then TCP slows the neighbor. Two keep both
/// sides busy. More would only cost memory: decoded UPDATEs of one route each are five times as
/// large.
pub(super) const MAX_READS_IN_FLIGHT: usize = 2;
/// While more octets than this are unsent, nothing is taken from the outbox, where routes may still
/// be replaced by newer ones.
const SEND_HIGH_WATERMARK: usize = 64 * 1024;
/// Most chunks in one write.
const MAX_WRITE_CHUNKS: usize = 32;
/// How long sending the last messages on a closed connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Octets read from a connection that we have closed.
const MAX_LEFTOVER: usize = 4096;

/// Interval of checks whether the neighbor has acknowledged what was sent.
const PROBE_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long sending from a removed address may take until the connection is reset: nothing that
/// the neighbor sends arrives.
const UNREACHABLE_CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A timer this late means that the process was stopped.
const TIMER_SLACK: Duration = Duration::from_millis(100);

/// What a neighbor's task reports to the manager.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A connection attempt timed out; meanwhile the kernel dropped these segments.
    Silent(Dropped),
    /// An attempt failed otherwise than by a timeout.
    Reachable,
    /// The session was established.
    Up(Router),
    /// The session was closed.
    Lost,
}

/// What a task is started with.
pub(super) struct Start {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    pub(super) global: Global,
    pub(super) disabled: bool,
    pub(super) rib: RibSender,
    /// The links and addresses of this host.
    pub(super) host: watch::Receiver<Arc<Links>>,
    pub(super) liveness: liveness::Client,
    pub(super) events: broadcast::Sender<PeerEvent>,
    pub(super) news: mpsc::Sender<(PeerKey, News)>,
    pub(super) commands: mpsc::Receiver<ToTask>,
    pub(super) seed: u64,
}

/// Runs until stopped; the task of a dynamic neighbor ends some time after its session was closed.
pub(super) async fn run(start: Start) {
    let now = Instant::now();
    let session = Session::new(now, start.config.clone(), start.global, start.seed);
    let mut task = Task {
        id: start.id,
        config: start.config,
        host: Arc::default(),
        bfd: Bfd::new(start.liveness),
        session,
        links: Vec::new(),
        next_conn: 0,
        dial: None,
        probe: None,
        md5_dropped: Dropped::default(),
        agreed: None,
        kept_until: None,
        news: start.news,
        rib: start.rib,
        to_rib: VecDeque::new(),
        under_way: Arc::new(Semaphore::new(MAX_READS_IN_FLIGHT)),
        room: None,
        stalled: false,
        outbox: None,
        events: start.events,
        event_limit: EventLimit::default(),
        lingering: JoinSet::new(),
        leaving: false,
        read_at: now,
    };
    let mut host = start.host;
    task.host_changed(host.borrow_and_update().clone());
    let first = if start.disabled { Input::Stop(Stop::Disabled(None)) } else { Input::Start };
    task.feed(first);
    task.follow_bfd();
    task.turn(start.commands, host).await;
    while task.lingering.join_next().await.is_some() {}
}

type Dial = Pin<Box<dyn Future<Output = Result<(TcpStream, Place), Failed>> + Send>>;

struct Task {
    id: PeerId,
    config: Arc<PeerConfig>,
    /// The links and addresses of this host, when they last changed.
    host: Arc<Links>,
    bfd: Bfd,
    session: Session,
    links: Vec<Link>,
    next_conn: u32,
    dial: Option<Dial>,
    /// When to check whether the neighbor has acknowledged everything on this connection.
    probe: Option<(Conn, Instant)>,
    /// The kernel's counters at the start of the last connection attempt.
    md5_dropped: Dropped,
    /// Of the session that is up, or of the last one.
    agreed: Option<Arc<Negotiated>>,
    /// Until when the table keeps routes of the neighbor after its session was closed.
    kept_until: Option<Instant>,
    news: mpsc::Sender<(PeerKey, News)>,
    rib: RibSender,
    /// Messages for which the rib's channel had no room yet.
    to_rib: VecDeque<ToRib>,
    under_way: Arc<Semaphore>,
    /// Permit for the UPDATEs of the next read.
    room: Option<OwnedSemaphorePermit>,
    /// Reading is stopped because the rib is busy.
    stalled: bool,
    outbox: Option<Outbox>,
    events: broadcast::Sender<PeerEvent>,
    event_limit: EventLimit,
    /// Connections that are being closed gracefully.
    lingering: JoinSet<BytesMut>,
    /// The daemon stops: not reported to the rib, as routes stay in the kernel.
    leaving: bool,
    read_at: Instant,
}

impl Task {
    /// The loop. Every arm is cancel safe: a turn that lost leaves nothing half done.
    async fn turn(&mut self, mut commands: mpsc::Receiver<ToTask>, mut host: watch::Receiver<Arc<Links>>) {
        let sleep = time::sleep_until(Instant::now().into());
        tokio::pin!(sleep);
        let mut armed: Option<Instant> = None;
        let rib = self.rib.clone();
        let mut watched = Watched::default().with((), &host);
        loop {
            // A timer that fires too early costs one wake-up, less than setting it again each time.
            let due = self.due();
            if let Some(due) = due
                && armed.is_none_or(|a| a > due)
            {
                sleep.as_mut().reset(due.into());
                armed = Some(due);
            }
            let may_read = !self.stalled;
            let little_unsent = self.unsent() < SEND_HIGH_WATERMARK;
            // What rarely happens comes first: octets and messages may always be ready.
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(command) => if self.command(command) {
                        return self.finish().await;
                    },
                },
                () = watched.next() => self.host_changed(host.borrow_and_update().clone()),
                report = self.bfd.next() => self.bfd_reported(report),
                () = &mut sleep, if armed.is_some() => {
                    armed = None;
                    if let Some(due) = due.filter(|due| *due <= Instant::now()) {
                        self.read_what_waits(due, may_read).await;
                        self.sample_transport();
                        self.feed(Input::Timeout);
                        self.check_probe();
                    }
                }
                closed = self.lingering.join_next(), if !self.lingering.is_empty() => {
                    if let Some(Ok(mut leftover)) = closed {
                        self.feed(Input::Leftover(&mut leftover));
                    }
                }
                result = connect(&mut self.dial) => self.on_connect(result),
                permit = rib.reserve(), if !self.to_rib.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.to_rib.pop_front() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return,
                },
                room = self.under_way.clone().acquire_owned(), if self.room.is_none() => self.room = room.ok(),
                item = next(&mut self.outbox), if little_unsent => self.on_rib_message(item),
                did = links_turn(&mut self.links, may_read) => self.on_connection_event(did),
            }
            self.flush_to_rib();
            if self.retention().is_over(Instant::now()) {
                return self.finish().await;
            }
        }
    }

    fn host_changed(&mut self, links: Arc<Links>) {
        self.host = links.clone();
        self.feed(Input::Host(links));
        self.follow_bfd();
    }

    /// The settings, the links or the state of the neighbor changed.
    fn follow_bfd(&mut self) {
        let disabled = self.config.disabled || self.session.state() == SessionState::Disabled;
        let hold = self.bfd.follow(&self.config, &self.host, disabled);
        self.feed(Input::BfdHold(hold));
    }

    fn bfd_reported(&mut self, report: BfdReport) {
        let news = self.bfd.take(report);
        if let Some(why) = news.lost {
            self.feed(Input::BfdDown(why));
            // RFC 5882 §4.3.2: not an effect of its restart, so its routes are not kept.
            if self.kept_until.is_some() && self.bfd.is_independent() {
                self.kept_until = None;
                self.to_rib.push_back(ToRib::Down { peer: self.id, cause: DownCause::Administrative });
            }
        }
        self.follow_bfd();
        if news.back {
            self.feed(Input::RetryNow);
        }
    }

    fn due(&self) -> Option<Instant> {
        let probe = self.probe.map(|(_, at)| at);
        self.session.poll_timeout().into_iter().chain(self.retention().removal()).chain(probe).min()
    }

    /// Reports to the session when the neighbor's TCP has acknowledged everything.
    fn check_probe(&mut self) {
        let now = Instant::now();
        let Some((conn, _)) = self.probe.filter(|(_, at)| *at <= now) else { return };
        let link = self.links.iter().find(|l| l.conn == conn);
        self.probe = link.map(|_| (conn, now + PROBE_POLL_INTERVAL));
        if link.is_some_and(|l| l.tx.is_empty() && tcp::unacknowledged(&l.stream).is_ok_and(|n| n == 0)) {
            self.probe = None;
            self.feed(Input::Acknowledged(conn));
        }
    }

    /// Passes on what TCP knows of each connection.
    fn sample_transport(&mut self) {
        let samples: Vec<_> =
            self.links.iter().filter_map(|l| Some((l.conn, tcp::transport(&l.stream).ok()?))).collect();
        for (conn, sample) in samples {
            self.feed(Input::Transport(conn, sample));
        }
    }

    /// Reads what is in the sockets before timers expire: if this process was stopped, the
    /// neighbor's messages arrived in time nevertheless.
    async fn read_what_waits(&mut self, due: Instant, may_read: bool) {
        if due.elapsed() > TIMER_SLACK {
            // The runtime has handled its timers, but not the sockets yet.
            time::sleep(Duration::from_millis(1)).await;
        }
        while let Some(did) = links_turn(&mut self.links, may_read).now_or_never() {
            let read = matches!(did, ConnectionEvent::Read(_));
            self.on_connection_event(did);
            if read {
                return;
            }
        }
    }

    fn retention(&self) -> Retention {
        Retention {
            is_dynamic: self.config.source == PeerSource::Range,
            is_connected: !self.links.is_empty(),
            is_up: self.outbox.is_some(),
            has_been_up: self.session.has_been_up(),
            since: self.session.since(),
            routes_kept_until: self.kept_until,
        }
    }

    /// Delivers the remaining messages to the rib before the task ends.
    async fn finish(&mut self) {
        while let Some(message) = self.to_rib.pop_front() {
            if self.rib.send(message).await.is_err() {
                return;
            }
        }
    }

    fn unsent(&self) -> usize {
        self.links.iter().map(|l| l.unsent).sum()
    }

    fn on_connection_event(&mut self, did: ConnectionEvent) {
        match did {
            ConnectionEvent::Read(at) => {
                let Some(link) = self.links.get_mut(at) else { return };
                self.read_at = Instant::now();
                let (conn, mut rx) = (link.conn, std::mem::take(&mut link.rx));
                self.feed(Input::Received(conn, &mut rx));
                if let Some(link) = self.links.iter_mut().find(|l| l.conn == conn)
                    && !rx.is_empty()
                {
                    link.rx = rx;
                }
            }
            ConnectionEvent::Wrote(conn, octets) => self.feed(Input::Sent(conn, octets)),
            ConnectionEvent::Closed(conn, error) => {
                self.links.retain(|l| l.conn != conn);
                self.feed(Input::Closed(conn, error));
            }
        }
    }

    fn on_connect(&mut self, result: Result<(TcpStream, Place), Failed>) {
        self.dial = None;
        match result.and_then(|(stream, place)| Ok((ends(&stream, place.ifindex)?, stream))) {
            Ok((ends, stream)) => {
                let conn = self.link(stream);
                self.feed(Input::Connected(conn, ends));
            }
            Err(failed) => {
                if failed.refused {
                    self.to_rib.push_back(ToRib::Refused { peer: self.id });
                }
                self.report(News::Reachable);
                self.feed(Input::ConnectFailed { why: failed.why, refused: failed.refused });
            }
        }
    }

    fn link(&mut self, stream: TcpStream) -> Conn {
        let conn = Conn(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        self.links.push(Link {
            conn,
            stream,
            rx: BytesMut::new(),
            read_size: INITIAL_READ,
            tx: VecDeque::new(),
            unsent: 0,
            source_gone: false,
        });
        conn
    }

    fn on_rib_message(&mut self, item: ToPeer) {
        let mut next = Some(item);
        while let Some(item) = next {
            match item {
                ToPeer::Transmit { bytes, messages } => self.feed(Input::Send { bytes, messages }),
                ToPeer::RequestRefresh { family } => self.feed(Input::RequestRefresh(family)),
                ToPeer::MaxPrefixes { family } => self.feed(Input::MaxPrefixes(family)),
                ToPeer::MemoryLimit { octets, budget } => self.feed(Input::MemoryLimit { octets, budget }),
            }
            let Some(outbox) = &mut self.outbox else { return };
            if outbox.drained() {
                self.to_rib.push_back(ToRib::Drained { peer: self.id });
            }
            next = if self.links.iter().map(|l| l.unsent).sum::<usize>() < SEND_HIGH_WATERMARK {
                outbox.try_next()
            } else {
                None
            };
        }
    }

    /// Passes one input to the session, and applies its outputs.
    fn feed(&mut self, input: Input<'_>) {
        self.session.handle(Instant::now(), input);
        while let Some(output) = self.session.poll_output() {
            self.apply_output(output);
        }
    }
}

fn ends(stream: &TcpStream, ifindex: u32) -> std::io::Result<Endpoints> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    Ok(Endpoints { local, remote, ifindex, ttl: None })
}

/// Waits for a connection attempt, or for ever if there is none.
async fn connect(dial: &mut Option<Dial>) -> Result<(TcpStream, Place), Failed> {
    match dial {
        Some(dial) => dial.await,
        None => future::pending().await,
    }
}

async fn next(outbox: &mut Option<Outbox>) -> ToPeer {
    match outbox {
        Some(outbox) => outbox.next().await,
        None => future::pending().await,
    }
}
