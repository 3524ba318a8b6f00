//! One neighbor's task: moves octets between sockets, a [`Session`] and the rib. It decides nothing.
//!
//! Reading never waits for writing, and neither waits for the rib: while the rib's channel is full the task
//! stops reading (so that TCP slows the neighbor), but timers, writes and commands go on.

use std::{
    collections::VecDeque,
    future::{self, Future, poll_fn},
    io::{ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch},
    task::JoinSet,
    time,
};
use tracing::{debug, info, warn};

use super::{
    Act, PeerEvent,
    bfd::Bfd,
    rib::{Outbox, RibSender, ToPeer, ToRib, outbox},
    tcp::{self, Failed, Place},
};
use crate::{
    bgp::{
        contest::Router,
        event_limit::EventLimit,
        md5::Dropped,
        peer::{DownCause, Global, Negotiated, PeerConfig, PeerId, PeerKey, PeerSource},
        session::{Conn, Ends, Event, Input, Output, Session, Severity, Stop},
        view::{NeighborView, SessionState},
    },
    liveness,
    net::{BfdReport, BfdStatus, Family, Links},
};

/// Octets asked for in one read: many UPDATEs make one message to the rib.
const READ: usize = 64 * 1024;
/// Asked for first, while nothing tells of more: most reads are a KEEPALIVE or a single route.
const LITTLE: usize = 4 * 1024;
/// Reads whose UPDATEs the rib has not dealt with yet; while it has so many, TCP slows the neighbor. Two keep both
/// sides busy. More would only cost memory: decoded, UPDATEs of one route each are five times as large.
pub(super) const UNDER_WAY: usize = 2;
/// While more than this is unsent, nothing is taken from the outbox: what waits there may still be replaced.
const ENOUGH: usize = 64 * 1024;
/// Chunks in one write.
const CHUNKS: usize = 32;
/// How long the last words to a neighbor may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a neighbor of a range is shown after its session.
const SHOWN: Duration = Duration::from_secs(30);
/// Octets that are looked at of what a neighbor sends on a connection that we have closed.
const LEFTOVER: usize = 4096;

/// Who has said no OPEN for so long gives way to another caller. A neighbor that means it says it at once; RFC 4271
/// §8.2.2 has us wait for minutes only where nobody else wants the place.
const SILENT: Duration = Duration::from_secs(10);

/// Between two looks at whether the neighbor has acknowledged what was sent.
const PROBE: Duration = Duration::from_millis(20);
/// How long the last words from an address that is gone have before the connection is reset: nothing that the
/// neighbor sends to it arrives.
const UNANSWERED: Duration = Duration::from_millis(200);

/// An alarm that comes so late tells of a process that stood still.
const LATE: Duration = Duration::from_millis(100);

/// What the manager says to a neighbor's task.
#[derive(Debug)]
pub(super) enum ToTask {
    Configure(Arc<PeerConfig>, Global),
    Accepted(TcpStream),
    Act(Act),
    Nudge,
    /// Why the neighbor may not answer, in words.
    Suspect(String),
    /// Stay out of the way of another neighbor's session.
    Yield(String),
    /// That session is over.
    Resume,
    /// The listen-range of this neighbor is full: end if there is nothing to be lost.
    MakeRoom,
    /// Another neighbor takes its place: end if there is nothing to hand over.
    HandOver,
    Status(oneshot::Sender<NeighborView>),
    /// The last command: the task ends when it is carried out.
    Stop(Stop),
}

/// What a neighbor's task reports to the manager.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A dial was not answered, while the kernel dropped so many segments.
    Silent(Dropped),
    /// It is there: an attempt failed in another way than by silence.
    Answers,
    /// It has a session.
    Up(Router),
    /// Its session has ended.
    Lost,
}

/// What a task needs to begin.
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

/// Runs until told to stop, or, for a neighbor that called from a range, until it has been gone for long.
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
        under_way: Arc::new(Semaphore::new(UNDER_WAY)),
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

/// One TCP connection.
struct Link {
    conn: Conn,
    stream: TcpStream,
    rx: BytesMut,
    /// Octets to ask for.
    ask: usize,
    tx: VecDeque<Bytes>,
    unsent: usize,
    /// Its local address is no longer this host's.
    source_gone: bool,
}

/// What a connection did.
enum Did {
    Read(usize),
    Wrote(Conn, usize),
    Closed(Conn, Option<String>),
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
    /// When to look whether the neighbor has acknowledged everything on this connection.
    probe: Option<(Conn, Instant)>,
    /// The kernel's counters when the last dial began.
    md5_dropped: Dropped,
    /// Of the session that is up, or of the last one.
    agreed: Option<Arc<Negotiated>>,
    /// The table keeps routes of the neighbor until then at most, although its session has ended.
    kept_until: Option<Instant>,
    news: mpsc::Sender<(PeerKey, News)>,
    rib: RibSender,
    /// What the rib's channel had no room for yet.
    to_rib: VecDeque<ToRib>,
    under_way: Arc<Semaphore>,
    /// For the next read's UPDATEs.
    room: Option<OwnedSemaphorePermit>,
    /// Nothing is read: the rib has enough.
    stalled: bool,
    outbox: Option<Outbox>,
    events: broadcast::Sender<PeerEvent>,
    event_limit: EventLimit,
    /// Connections that are being closed in good manners.
    lingering: JoinSet<BytesMut>,
    /// The daemon stops: the rib must not hear of it, since routes stay in the kernel.
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
        let mut watched = true;
        loop {
            // An alarm that is too early costs one empty wake-up, less than setting it anew each time.
            let due = self.due();
            if let Some(due) = due
                && armed.is_none_or(|a| a > due)
            {
                sleep.as_mut().reset(due.into());
                armed = Some(due);
            }
            let may_read = !self.stalled;
            let little_unsent = self.unsent() < ENOUGH;
            tokio::select! {
                did = links_turn(&mut self.links, may_read) => self.did(did),
                dialled = dial(&mut self.dial) => self.dialled(dialled),
                item = next(&mut self.outbox), if little_unsent => self.said_by_rib(item),
                permit = rib.reserve(), if !self.to_rib.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.to_rib.pop_front() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return,
                },
                room = self.under_way.clone().acquire_owned(), if self.room.is_none() => self.room = room.ok(),
                () = &mut sleep, if armed.is_some() => {
                    armed = None;
                    if let Some(due) = due.filter(|due| *due <= Instant::now()) {
                        self.read_what_waits(due, may_read).await;
                        self.feed(Input::Timeout);
                        self.look_at_probe();
                    }
                }
                changed = host.changed(), if watched => {
                    watched = changed.is_ok();
                    self.host_changed(host.borrow_and_update().clone());
                }
                closed = self.lingering.join_next(), if !self.lingering.is_empty() => {
                    if let Some(Ok(mut leftover)) = closed {
                        self.feed(Input::Leftover(&mut leftover));
                    }
                }
                report = self.bfd.next() => self.bfd_reported(report),
                command = commands.recv() => match command {
                    None => return,
                    Some(command) => if self.command(command) {
                        return self.finish().await;
                    },
                },
            }
            self.pass_on();
            if self.is_forgotten() {
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
            // RFC 5882 §4.3.2: that is no effect of its restart, so its routes lead nowhere.
            if self.kept_until.is_some() && self.bfd.is_independent() {
                self.kept_until = None;
                self.to_rib.push_back(ToRib::Down { peer: self.id, cause: DownCause::Administrative });
            }
        }
        self.follow_bfd();
        if news.back {
            self.feed(Input::Nudge);
        }
    }

    fn due(&self) -> Option<Instant> {
        let gone =
            (self.config.source == PeerSource::Range && self.links.is_empty()).then(|| self.forgotten_at());
        let probe = self.probe.map(|(_, at)| at);
        self.session.poll_timeout().into_iter().chain(gone).chain(probe).min()
    }

    /// Tells the session once the neighbor's TCP has acknowledged all that was sent.
    fn look_at_probe(&mut self) {
        let now = Instant::now();
        let Some((conn, _)) = self.probe.filter(|(_, at)| *at <= now) else { return };
        let link = self.links.iter().find(|l| l.conn == conn);
        self.probe = link.map(|_| (conn, now + PROBE));
        if link.is_some_and(|l| l.tx.is_empty() && tcp::unacknowledged(&l.stream).is_ok_and(|n| n == 0)) {
            self.probe = None;
            self.feed(Input::Acknowledged(conn));
        }
    }

    /// What lies in the sockets was said in time: where this daemon stood still, that is no silence of the neighbor.
    async fn read_what_waits(&mut self, due: Instant, may_read: bool) {
        if due.elapsed() > LATE {
            // The runtime has looked at its clock, and at no socket yet.
            time::sleep(Duration::from_millis(1)).await;
        }
        while let Some(did) = links_turn(&mut self.links, may_read).now_or_never() {
            let read = matches!(did, Did::Read(_));
            self.did(did);
            if read {
                return;
            }
        }
    }

    /// When a neighbor of a range that does not come back is forgotten; its stale routes have their time first.
    fn forgotten_at(&self) -> Instant {
        let shown = self.session.since() + SHOWN;
        self.kept_until.map_or(shown, |kept| kept.max(shown))
    }

    fn is_forgotten(&self) -> bool {
        self.config.source == PeerSource::Range
            && self.links.is_empty()
            && self.forgotten_at() <= Instant::now()
    }

    /// Whether another caller may have the place of this one in its range: nothing is kept for it, or it has said no OPEN
    /// for long.
    fn only_takes_room(&self) -> bool {
        let now = Instant::now();
        let gone = self.links.is_empty() && !self.has_routes();
        let mute = !self.session.has_been_up() && self.session.since() + SILENT <= now;
        self.config.source == PeerSource::Range && (gone || mute)
    }

    /// Whether the table may have routes of the neighbor: it has a session, or the table keeps those of the last one.
    fn has_routes(&self) -> bool {
        self.outbox.is_some() || self.kept_until.is_some_and(|kept| Instant::now() < kept)
    }

    /// What the rib must still hear, then the end.
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

    fn did(&mut self, did: Did) {
        match did {
            Did::Read(at) => {
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
            Did::Wrote(conn, octets) => self.feed(Input::Sent(conn, octets)),
            Did::Closed(conn, error) => {
                self.links.retain(|l| l.conn != conn);
                self.feed(Input::Closed(conn, error));
            }
        }
    }

    fn dialled(&mut self, dialled: Result<(TcpStream, Place), Failed>) {
        self.dial = None;
        match dialled.and_then(|(stream, place)| Ok((ends(&stream, place.ifindex)?, stream))) {
            Ok((ends, stream)) => {
                let conn = self.link(stream);
                self.feed(Input::Connected(conn, ends));
            }
            Err(failed) => {
                if failed.refused {
                    self.to_rib.push_back(ToRib::Refused { peer: self.id });
                }
                self.report(News::Answers);
                self.feed(Input::ConnectFailed(failed.why));
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream) {
        let ifindex = match stream.peer_addr() {
            Ok(std::net::SocketAddr::V6(a)) => a.scope_id(),
            _ => 0,
        };
        let ttl = tcp::first_ttl(&stream);
        if !tcp::is_near(ttl, self.config.hops) {
            // The first such call is loud, further ones are known.
            let key = &self.config.key;
            let text = format!(
                "a call from {key} is from farther away than `ttl-security` allows: set it at both ends, or remove it here"
            );
            self.feed(Input::Suspect(text));
            return;
        }
        let ready = tcp::dress_accepted(&stream, &self.config).map_err(|e| e.to_string());
        match ready.and_then(|()| ends(&stream, ifindex)).map(|ends| Ends { ttl, ..ends }) {
            Ok(ends) => {
                let conn = self.link(stream);
                self.feed(Input::Accepted(conn, ends));
            }
            Err(error) => debug!(peer = %self.config.key, error, "an accepted connection is gone already"),
        }
    }

    fn link(&mut self, stream: TcpStream) -> Conn {
        let conn = Conn(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        self.links.push(Link {
            conn,
            stream,
            rx: BytesMut::new(),
            ask: LITTLE,
            tx: VecDeque::new(),
            unsent: 0,
            source_gone: false,
        });
        conn
    }

    fn said_by_rib(&mut self, item: ToPeer) {
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
            next = if self.links.iter().map(|l| l.unsent).sum::<usize>() < ENOUGH {
                outbox.try_next()
            } else {
                None
            };
        }
    }

    /// `true`: it was the last one.
    fn command(&mut self, command: ToTask) -> bool {
        match command {
            ToTask::Configure(config, global) => {
                self.config = config.clone();
                self.feed(Input::Configure(config, global));
                self.follow_bfd();
            }
            ToTask::Accepted(stream) => self.accepted(stream),
            ToTask::Nudge => self.feed(Input::Nudge),
            ToTask::Suspect(text) => self.feed(Input::Suspect(text)),
            ToTask::Yield(why) => self.feed(Input::Yield(why)),
            ToTask::Resume => self.feed(Input::Resume),
            ToTask::MakeRoom if self.only_takes_room() => {
                self.feed(Input::Stop(Stop::Removed));
                return true;
            }
            ToTask::HandOver if !self.has_routes() => {
                self.feed(Input::Stop(Stop::Moved));
                return true;
            }
            ToTask::MakeRoom | ToTask::HandOver => {}
            ToTask::Act(act) => {
                self.act(act);
                self.follow_bfd();
            }
            ToTask::Status(reply) => {
                let _ = reply.send(self.view());
            }
            ToTask::Stop(stop) => {
                self.leaving = matches!(stop, Stop::Leaving | Stop::Halting);
                self.feed(Input::Stop(stop));
                return true;
            }
        }
        false
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Reset { message } => self.feed(Input::Reset(message)),
            Act::Disable { message } => {
                self.feed(Input::Stop(Stop::Disabled(message)));
                // Routes that waited for its return go, too.
                self.to_rib.push_back(ToRib::Down { peer: self.id, cause: DownCause::Administrative });
            }
            Act::Enable => self.feed(Input::Start),
            Act::Refresh => {
                for family in Family::ALL {
                    self.feed(Input::RequestRefresh(family));
                }
            }
        }
    }

    fn view(&self) -> NeighborView {
        let mut view = self.session.view(Instant::now());
        let bfd = self.bfd.status();
        view.bfd = bfd.map(|status| status.as_str().to_owned());
        view.bfd_missing = matches!(bfd, Some(BfdStatus::Starting | BfdStatus::Down));
        let elapsed = jiff::SignedDuration::try_from(self.session.since().elapsed()).unwrap_or_default();
        view.since = format!("{:.0}", jiff::Timestamp::now() - elapsed);
        view
    }

    /// Feeds one input and does what the session asks for.
    fn feed(&mut self, input: Input<'_>) {
        self.session.handle(Instant::now(), input);
        while let Some(output) = self.session.poll_output() {
            self.obey(output);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Connect => self.connect(),
            Output::AbortConnect { timed_out } => {
                self.dial = None;
                if timed_out {
                    self.suspect();
                }
            }
            Output::Transmit(conn, bytes) => {
                if let Some(link) = self.links.iter_mut().find(|l| l.conn == conn) {
                    link.unsent += bytes.len();
                    link.tx.push_back(bytes);
                }
            }
            Output::Close(conn) => {
                if let Some(at) = self.links.iter().position(|l| l.conn == conn) {
                    let link = self.links.swap_remove(at);
                    if !link.tx.is_empty() {
                        self.lingering.spawn(linger(link));
                    }
                }
            }
            Output::KeepSource(conn) => {
                if let Some(link) = self.links.iter_mut().find(|l| l.conn == conn) {
                    link.source_gone = true;
                    if let Err(error) = tcp::keep_source(&link.stream) {
                        debug!(peer = %self.config.key, %error, "nothing can be sent from an address that is gone");
                    }
                }
            }
            Output::Probe(conn) => self.probe = Some((conn, Instant::now() + PROBE)),
            Output::LeastTtl(conn, least) => {
                if let Some(link) = self.links.iter().find(|l| l.conn == conn)
                    && let Err(error) = tcp::limit_ttl(&link.stream, least)
                {
                    debug!(neighbor = %self.config.key, %error, "cannot set the minimum TTL of a connection");
                }
            }
            Output::Held { ifindex } => self.to_rib.push_back(ToRib::Held { peer: self.id, ifindex }),
            Output::Up(negotiated) => {
                let (sender, receiver) = outbox();
                self.outbox = Some(receiver);
                self.agreed = Some(negotiated.clone());
                self.kept_until = None;
                self.bfd.session_began();
                self.report(News::Up(Router {
                    id: negotiated.remote_id,
                    asn: negotiated.remote_as,
                    local: negotiated.local_addr,
                    ifindex: negotiated.ifindex,
                }));
                self.to_rib.push_back(ToRib::Up { peer: self.id, negotiated, outbox: sender });
            }
            Output::Updates(updates) => {
                let (read_at, room) = (self.read_at, self.room.take());
                self.to_rib.push_back(ToRib::Updates { peer: self.id, updates, read_at, room });
            }
            Output::Refresh { family, subtype } => {
                self.to_rib.push_back(ToRib::Refresh { peer: self.id, family, subtype });
            }
            Output::Down { cause, .. } => {
                self.outbox = None;
                let kept = self.agreed.as_ref().and_then(|agreed| agreed.routes_stay(&self.config, cause));
                self.kept_until = kept.map(|time| Instant::now() + time);
                self.report(News::Lost);
                if !self.leaving {
                    self.to_rib.push_back(ToRib::Down { peer: self.id, cause });
                }
            }
            Output::Event(event) => self.log(event),
        }
    }

    fn connect(&mut self) {
        let config = self.config.clone();
        self.md5_dropped = tcp::md5_dropped();
        self.dial = Some(Box::pin(async move {
            let place = tcp::place(&config)?;
            Ok((tcp::connect(&config, place).await?, place))
        }));
    }

    /// Nobody answered: the kernel's counters may know why, and the manager whom they are about.
    fn suspect(&mut self) {
        self.report(News::Silent(tcp::md5_dropped().since(self.md5_dropped)));
    }

    fn report(&self, news: News) {
        // A full queue has news enough.
        let _ = self.news.try_send((self.config.key.clone(), news));
    }

    fn log(&mut self, event: Event) {
        let (peer, text) = (&self.config.key, &event.text);
        if event.severity == Severity::Debug {
            return debug!(%peer, "{text}");
        }
        let admitted = self.event_limit.admit(Instant::now());
        // A field that is left out where nothing was.
        let suppressed = admitted.filter(|n| *n > 0);
        match (admitted, event.severity) {
            (None, _) => debug!(%peer, "{text}"),
            (Some(_), Severity::Warn) => warn!(%peer, suppressed, "{text}"),
            (Some(_), Severity::Info | Severity::Debug) => info!(%peer, suppressed, "{text}"),
        }
        let _ = self.events.send(PeerEvent { neighbor: peer.clone(), event });
    }

    /// Tells the rib as much as its channel takes now; finds out whether to go on reading.
    fn pass_on(&mut self) {
        while let Some(message) = self.to_rib.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(message)) = self.rib.try_send(message) {
                self.to_rib.push_front(message);
                break;
            }
        }
        if self.room.is_none() {
            self.room = self.under_way.clone().try_acquire_owned().ok();
        }
        let stalled = !self.to_rib.is_empty() || self.room.is_none();
        if stalled != self.stalled {
            self.stalled = stalled;
            self.feed(Input::Stalled(stalled));
        }
    }
}

fn ends(stream: &TcpStream, ifindex: u32) -> Result<Ends, String> {
    let text = |e: std::io::Error| e.to_string();
    let (local, remote) = (stream.local_addr().map_err(text)?, stream.peer_addr().map_err(text)?);
    Ok(Ends { local, remote, ifindex, ttl: None })
}

/// Waits for a dial, or for ever when there is none.
async fn dial(dial: &mut Option<Dial>) -> Result<(TcpStream, Place), Failed> {
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

/// Whichever connection is first to write or to read something.
async fn links_turn(links: &mut [Link], may_read: bool) -> Did {
    poll_fn(|cx| {
        for (at, link) in links.iter_mut().enumerate() {
            if let Poll::Ready(did) = link.poll_write(cx) {
                return Poll::Ready(did);
            }
            if may_read && let Poll::Ready(did) = link.poll_read(cx, at) {
                return Poll::Ready(did);
            }
        }
        Poll::Pending
    })
    .await
}

impl Link {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Did> {
        while !self.tx.is_empty() {
            if let Err(e) = std::task::ready!(self.stream.poll_write_ready(cx)) {
                return Poll::Ready(Did::Closed(self.conn, Some(e.to_string())));
            }
            let slices: Vec<_> = self.tx.iter().take(CHUNKS).map(|b| IoSlice::new(b)).collect();
            match self.stream.try_write_vectored(&slices) {
                Ok(n) => {
                    self.wrote(n);
                    return Poll::Ready(Did::Wrote(self.conn, n));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Did::Closed(self.conn, Some(e.to_string()))),
            }
        }
        Poll::Pending
    }

    fn wrote(&mut self, mut n: usize) {
        self.unsent -= n;
        while let Some(chunk) = self.tx.front_mut().filter(|_| n > 0) {
            let part = n.min(chunk.len());
            chunk.advance(part);
            n -= part;
            if chunk.is_empty() {
                self.tx.pop_front();
            }
        }
    }

    /// The buffer is there only while there is something to read: a thousand idle neighbors hold none.
    fn poll_read(&mut self, cx: &mut Context<'_>, at: usize) -> Poll<Did> {
        loop {
            if let Err(e) = std::task::ready!(self.stream.poll_read_ready(cx)) {
                return Poll::Ready(Did::Closed(self.conn, Some(e.to_string())));
            }
            self.rx.reserve(self.ask);
            let room = self.rx.capacity() - self.rx.len();
            // After a short read it knows that nothing is left, and does not ask the kernel again.
            let read = std::pin::pin!(self.stream.read_buf(&mut self.rx)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Did::Closed(self.conn, None)),
                Poll::Ready(Ok(n)) => {
                    self.ask = if n == room { READ } else { LITTLE };
                    return Poll::Ready(Did::Read(at));
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Did::Closed(self.conn, Some(e.to_string()))),
                Poll::Pending if self.rx.is_empty() => self.rx = BytesMut::new(),
                Poll::Pending => {}
            }
        }
    }
}

/// Closes a connection so that its last words arrive: write them, say that no more will come, and read until
/// the other end closes too. (Closing with octets unread would send a reset that overtakes the NOTIFICATION.) Returns the
/// beginning of what it read.
async fn linger(mut link: Link) -> BytesMut {
    let mut leftover = BytesMut::new();
    let last_words = async {
        for chunk in &link.tx {
            link.stream.write_all(chunk).await?;
        }
        if link.source_gone {
            time::sleep(UNANSWERED).await;
            return tcp::reset_on_close(&link.stream);
        }
        link.stream.shutdown().await?;
        let mut rest = [0; LEFTOVER];
        loop {
            let n = link.stream.read(&mut rest).await?;
            if n == 0 {
                return std::io::Result::Ok(());
            }
            let room = LEFTOVER - leftover.len();
            leftover.extend_from_slice(&rest[..n.min(room)]);
        }
    };
    let _ = time::timeout(LAST_WORDS, last_words).await;
    leftover
}
