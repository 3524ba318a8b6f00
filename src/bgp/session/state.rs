//! One connection of a neighbor: OpenSent, OpenConfirm, Established (RFC 4271 §8.2.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    After, Conn, End, Ends, Output, Session, Severity,
    attachment::Attachment,
    collision::Verdict,
    damping, hints,
    host::Probe,
    negotiate::{self, Circumstances},
    timer::{Timer, Timers},
};
use crate::{
    bgp::{
        peer::{DownCause, Hops, Negotiated},
        view::SessionState,
        wire::{
            Code, WireError,
            framing::{self, Frame, Kind},
            notification::{Notification, cease},
            open::Open,
            refresh::{self, Refresh},
            update::Decoder,
        },
    },
    net::Family,
};

/// How long a neighbor may take for its OPEN (RFC 4271 §8.2.2: "a large value", 4 minutes suggested).
pub const OPEN_HOLD: Duration = Duration::from_secs(240);
/// The least send hold time where none is configured (RFC 9687 §4.3: 8 minutes, or twice the hold time where that
/// is longer).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// Collisions in a row after which the neighbor is dialled at once.
const SOON: u32 = 3;
/// The least time between two KEEPALIVEs (RFC 4271 §4.4).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer to our OPEN is to be expected soon: longer than a packet's way there and back.
pub(super) const FRESH: Duration = Duration::from_secs(3);

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: Conn,
    /// We began it.
    pub(super) dialled: bool,
    pub(super) since: Instant,
    pub(super) ends: Ends,
    /// The link and the address that it depends on.
    pub(super) attachment: Attachment,
    pub(super) probe: Option<Probe>,
    pub(super) state: State,
    pub(super) timers: Timers,
    /// Our OPEN on it.
    pub(super) sent: Open,
    /// The neighbor's.
    received: Option<Open>,
    /// When the last KEEPALIVE was sent.
    kept_alive: Option<Instant>,
    /// Octets that the driver still holds.
    pub(super) unsent: usize,
    /// Only segments with TTL 255 are taken on it.
    pub(super) secured: bool,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum State {
    /// Our OPEN is out, theirs is awaited.
    OpenSent,
    /// Both OPENs fit, but it is the other connection that is to survive, if an OPEN comes there. `confirmed`: the
    /// neighbor's KEEPALIVE is here already.
    Waiting {
        negotiated: Arc<Negotiated>,
        confirmed: bool,
    },
    /// Both OPENs fit, the KEEPALIVE is awaited.
    OpenConfirm(Arc<Negotiated>),
    Established(Box<Up>),
}

/// A session that is up.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) negotiated: Arc<Negotiated>,
    decoder: Decoder,
    pub(super) since: Instant,
    /// A flawed UPDATE was logged: the next ones only count.
    flawed: bool,
}

impl Connection {
    pub(super) fn new(now: Instant, id: Conn, dialled: bool, ends: Ends) -> Self {
        let sent = Open { my_as: 0, hold_time: 0, router_id: [0; 4].into(), capabilities: vec![] };
        Self {
            id,
            dialled,
            since: now,
            ends,
            attachment: Attachment::new(ends),
            probe: None,
            state: State::OpenSent,
            timers: Timers::default(),
            sent,
            received: None,
            kept_alive: None,
            unsent: 0,
            secured: false,
        }
    }

    pub(super) fn shown(&self) -> SessionState {
        match self.state {
            State::OpenSent | State::Waiting { .. } => SessionState::OpenSent,
            State::OpenConfirm(_) => SessionState::OpenConfirm,
            State::Established(_) => SessionState::Established,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    pub(super) fn established_since(&self) -> Option<Instant> {
        match &self.state {
            State::Established(up) => Some(up.since),
            State::OpenSent | State::Waiting { .. } | State::OpenConfirm(_) => None,
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match &self.state {
            State::OpenSent => None,
            State::OpenConfirm(negotiated) | State::Waiting { negotiated, .. } => Some(negotiated),
            State::Established(up) => Some(&up.negotiated),
        }
    }

    /// Messages above 4,096 octets may come: both announced RFC 8654. A neighbor that knows nothing of it and
    /// names a longer one is out of step, and hears so at once rather than after 65,535 octets.
    fn extended(&self) -> bool {
        self.negotiated().is_some_and(|n| n.extended_messages)
    }

    pub(super) fn hold(&self) -> Option<Duration> {
        let seconds = self.negotiated().map(|n| n.hold_time)?;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Something was heard.
    fn heard(&mut self, now: Instant) {
        if let Some(hold) = self.hold() {
            self.timers.set(Timer::Hold, now + hold);
        }
    }

    /// RFC 9687 §4.3: never shorter than the hold time.
    fn send_hold(&self, configured: Option<u16>) -> Duration {
        let hold = self.hold().unwrap_or_default();
        configured.map_or(SEND_HOLD.max(hold * 2), |seconds| hold.max(Duration::from_secs(seconds.into())))
    }
}

impl Session {
    /// The connection stands: our OPEN goes out (events 16 and 17).
    pub(super) fn open(&mut self, now: Instant, mut connection: Connection) {
        let circumstances = Circumstances {
            restarting: self.global.restarting && !self.been_up,
            forwarding: self.global.restarting || self.been_up,
            plain: self.plain,
        };
        connection.sent = negotiate::open(&self.config, &self.global, circumstances);
        connection.timers.set(Timer::Hold, now + OPEN_HOLD);
        let (conn, mut octets) = (connection.id, BytesMut::new());
        connection.sent.encode(&mut octets);
        if self.established().is_none() {
            self.record.open_sent(&connection.sent, connection.ends);
        }
        self.connections.push(connection);
        self.require_ttl(now, conn);
        self.watch_silence(now, conn);
        self.transmit(now, conn, Kind::Open, octets.freeze(), 1);
        self.check_attachment(now, conn);
    }

    pub(super) fn transmit(&mut self, now: Instant, conn: Conn, kind: Kind, octets: Bytes, messages: u32) {
        let Some(c) = self.connections.iter_mut().find(|c| c.id == conn) else { return };
        if c.unsent == 0 {
            c.timers.set(Timer::SendHold, now + c.send_hold(self.config.send_hold_time));
        }
        c.unsent += octets.len();
        self.record.sent(kind, messages.into());
        self.out.push_back(Output::Transmit(conn, octets));
    }

    pub(super) fn sent(&mut self, now: Instant, conn: Conn, octets: usize) {
        let configured = self.config.send_hold_time;
        let Some(c) = self.connection(conn) else { return };
        c.unsent = c.unsent.saturating_sub(octets);
        if c.unsent == 0 {
            c.timers.stop(Timer::SendHold);
        } else {
            c.timers.set(Timer::SendHold, now + c.send_hold(configured));
        }
    }

    pub(super) fn send(&mut self, now: Instant, bytes: Bytes, messages: u32) {
        if let Some(conn) = self.established().map(|c| c.id) {
            self.transmit(now, conn, Kind::Update, bytes, messages);
            self.keepalive_later(now, conn);
        }
    }

    pub(super) fn request_refresh(&mut self, now: Instant, family: Family) {
        let ready = |n: &Negotiated| n.route_refresh && n.has(family);
        if let Some(conn) =
            self.established().filter(|c| c.negotiated().is_some_and(|n| ready(n))).map(|c| c.id)
        {
            let mut octets = BytesMut::new();
            Refresh::new(family, refresh::REQUEST).encode(&mut octets);
            self.transmit(now, conn, Kind::RouteRefresh, octets.freeze(), 1);
        }
    }

    /// RFC 4271 §4.4: never more than one per second. One that would be too early goes out when the second is over.
    pub(super) fn keepalive(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connection(conn) else { return };
        if let Some(due) = c.kept_alive.map(|at| at + KEEPALIVE_INTERVAL).filter(|due| *due > now) {
            c.timers.set(Timer::Keepalive, due);
            return;
        }
        c.kept_alive = Some(now);
        let mut octets = BytesMut::new();
        framing::keepalive(&mut octets);
        self.transmit(now, conn, Kind::Keepalive, octets.freeze(), 1);
        self.keepalive_later(now, conn);
        if self.connection(conn).is_some_and(|c| c.probe.is_some()) {
            self.out.push_back(Output::Probe(conn));
        }
    }

    /// A third of the hold time, with jitter (RFC 4271 §4.4, §10), but no less than a second.
    fn keepalive_later(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connections.iter_mut().find(|c| c.id == conn) else { return };
        if let Some(hold) = c.hold() {
            let interval = self.jitter.of(hold / 3).max(KEEPALIVE_INTERVAL);
            c.timers.set(Timer::Keepalive, now + interval);
        }
    }

    pub(super) fn stalled(&mut self, now: Instant, stalled: bool) {
        for c in self.connections.iter_mut().filter(|c| c.is_established()) {
            if stalled {
                c.timers.stop(Timer::Hold);
            } else {
                c.heard(now);
            }
        }
    }

    /// Events 10, 11 and the one of RFC 9687 §3.
    pub(super) fn connection_timeout(&mut self, now: Instant, conn: Conn, timer: Timer) {
        match timer {
            Timer::Keepalive => self.keepalive(now, conn),
            Timer::Hold => {
                let hold = self.connection(conn).and_then(|c| c.hold()).unwrap_or(OPEN_HOLD).as_secs();
                self.end(
                    now,
                    conn,
                    End {
                        notify: Some(Notification::new(Code::HoldTimer, 0)),
                        cause: DownCause::HoldTimer,
                        reason: "hold-timer",
                        why: format!("hold timer expired: nothing heard for {hold} s"),
                        after: After::IdleHold,
                    },
                );
            }
            Timer::SendHold => {
                self.end(
                    now,
                    conn,
                    End {
                        notify: Some(Notification::new(Code::SendHoldTimer, 0)),
                        cause: DownCause::Sent { hard: false },
                        reason: "send-hold-timer",
                        why: "send hold timer expired: the neighbor reads nothing".into(),
                        after: After::IdleHold,
                    },
                );
            }
            // What waited is let go on at the end of each input.
            Timer::ConnectRetry | Timer::IdleHold | Timer::Collision => {}
            Timer::Silence => self.silent(now, conn),
            Timer::TtlSecurity => self.ttl_not_offered(conn),
        }
    }

    /// Event 18 of a connection that stood.
    pub(super) fn closed(&mut self, now: Instant, conn: Conn, error: Option<String>) {
        let Some(c) = self.connection(conn) else { return };
        let how = error
            .map_or_else(|| "the neighbor closed the connection".into(), |e| format!("connection lost: {e}"));
        let why = match c.state {
            State::OpenSent => {
                let hint = hints::distance(&self.config)
                    .filter(|_| matches!(self.config.hops, Hops::Multihop(_) | Hops::Security(_)));
                let hint = hint.map(|hint| format!(" If so, {hint}")).unwrap_or_default();
                format!("{how} before its OPEN: is this host configured there?{hint}")
            }
            State::OpenConfirm(_) | State::Waiting { .. } => format!("{how} after the OPEN"),
            State::Established(_) => how,
        };
        let after = self.after_end_by_neighbor(now, conn);
        let why = damping::with_reason(why, after);
        let end = End { notify: None, cause: DownCause::Closed, reason: "closed", why, after };
        self.end(now, conn, end);
    }

    /// Cuts messages off and handles them, as long as the connection lives.
    pub(super) fn received(&mut self, now: Instant, conn: Conn, octets: &mut BytesMut) {
        let mut known = false;
        while let Some(c) = self.connection(conn) {
            known = true;
            match framing::split(octets, c.extended()) {
                Ok(Some(frame)) => {
                    self.record.received(frame.kind);
                    self.message(now, conn, frame);
                }
                Ok(None) => return,
                Err(error) => {
                    octets.clear();
                    self.refuse(now, conn, &error, error.what.into());
                }
            }
        }
        if known {
            self.overheard(octets);
        }
        octets.clear();
    }

    fn message(&mut self, now: Instant, conn: Conn, frame: Frame) {
        let Some(c) = self.connection(conn) else { return };
        match (&mut c.state, frame.kind) {
            (_, Kind::Notification) => self.notified(now, conn, &Notification::decode(&frame.body)),
            (State::OpenSent, Kind::Open) => self.open_received(now, conn, &frame.body),
            (State::OpenConfirm(_), Kind::Keepalive) => self.establish(now, conn),
            (State::Waiting { confirmed, .. }, Kind::Keepalive) => *confirmed = true,
            (State::Established(_), Kind::Keepalive) => c.heard(now),
            (State::Established(_), Kind::Update) => self.update(now, conn, &frame.body),
            (State::Established(_), Kind::RouteRefresh) => self.refresh(now, conn, &frame.body),
            (State::OpenSent, kind) => self.unexpected(now, conn, kind, 1),
            (State::OpenConfirm(_) | State::Waiting { .. }, kind) => self.unexpected(now, conn, kind, 2),
            (State::Established(_), kind) => self.unexpected(now, conn, kind, 3),
        }
    }

    /// RFC 4271 §6.6 with the subcodes and data of RFC 6608.
    fn unexpected(&mut self, now: Instant, conn: Conn, kind: Kind, subcode: u8) {
        let error = WireError {
            code: Code::Fsm,
            subcode,
            data: Bytes::copy_from_slice(&[kind as u8]),
            what: "unexpected message",
        };
        self.refuse(now, conn, &error, format!("unexpected {} message", kind.as_str()));
    }

    /// The neighbor broke the protocol: NOTIFICATION, then Idle.
    fn refuse(&mut self, now: Instant, conn: Conn, error: &WireError, what: String) {
        let notification = Notification::from(error);
        let end = End {
            why: format!("sent NOTIFICATION {notification}: {what}"),
            notify: Some(notification),
            cause: DownCause::Sent { hard: false },
            reason: "notification-sent",
            after: After::IdleHold,
        };
        self.end(now, conn, end);
    }

    /// Events 24 and 25.
    fn notified(&mut self, now: Instant, conn: Conn, notification: &Notification) {
        self.record.notification_received(notification);
        let after = self.after_notification(now, conn, notification);
        let hard = notification.is_hard();
        let mut why = format!("received NOTIFICATION {notification}");
        if (notification.code, notification.subcode) == (Code::Open as u8, 2) {
            why += &format!(": we are AS {} here", self.config.local_as);
        }
        if notification.code == Code::Cease as u8
            && !matches!(notification.subcode, cease::MAX_PREFIXES | cease::OUT_OF_RESOURCES)
        {
            why = damping::with_reason(why, after);
        }
        let cause = DownCause::Received { hard };
        self.end(now, conn, End { notify: None, cause, reason: "notification-received", why, after });
    }

    fn after_notification(&mut self, now: Instant, conn: Conn, n: &Notification) -> After {
        const CEASE: u8 = Code::Cease as u8;
        const OPEN: u8 = Code::Open as u8;
        let opening = self.connection(conn).is_some_and(|c| !c.is_established());
        match (n.code, n.subcode) {
            // What takes both connections is over at once. A neighbor that goes on like this has a session with us
            // under another address.
            (CEASE, cease::COLLISION) => {
                self.collisions += 1;
                if self.collisions > SOON { After::Retry } else { After::Soon }
            }
            (CEASE, cease::MAX_PREFIXES | cease::OUT_OF_RESOURCES) => After::IdleHold,
            (CEASE, _) => self.after_end_by_neighbor(now, conn),
            // RFC 5492 §3: it knows no capabilities. Again without, once.
            (OPEN, 4) if opening && !self.plain => {
                self.plain = true;
                After::Soon
            }
            _ => {
                self.plain = false;
                After::IdleHold
            }
        }
    }

    /// Event 19 in OpenSent.
    fn open_received(&mut self, now: Instant, conn: Conn, body: &Bytes) {
        let open = match Open::decode(body) {
            Ok(open) => open,
            Err(error) => return self.refuse(now, conn, &error, error.what.into()),
        };
        let rival = self.established().is_some();
        if !rival {
            self.record.open_received(now, &open);
        }
        let Some(c) = self.connection(conn) else { return };
        let (sent, ends) = (c.sent.clone(), c.ends);
        c.received = rival.then(|| open.clone());
        let negotiated = match negotiate::agree(&self.config, &sent, &open, ends) {
            Ok(negotiated) => Arc::new(negotiated),
            Err(error) => {
                let what = negotiate::explain(&self.config, &open, &error);
                return self.refuse(now, conn, &error, what);
            }
        };
        match self.collision(now, conn, &negotiated) {
            Verdict::Both | Verdict::DropOther | Verdict::ReplaceLater => self.confirm(now, conn, negotiated),
            Verdict::Wait => {
                let Some(c) = self.connection(conn) else { return };
                c.state = State::Waiting { negotiated, confirmed: false };
                c.timers.set(Timer::Collision, now + FRESH);
            }
            Verdict::DropNew => {}
        }
    }

    /// The OPEN is good and the connection is to stay.
    fn confirm(&mut self, now: Instant, conn: Conn, negotiated: Arc<Negotiated>) {
        let Some(c) = self.connection(conn) else { return };
        c.state = State::OpenConfirm(negotiated);
        c.timers.stop(Timer::Hold);
        c.timers.stop(Timer::Collision);
        c.heard(now);
        self.watch_silence(now, conn);
        self.keepalive(now, conn);
    }

    /// Lets a connection go on that waited in vain for the OPEN of another one.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        let waits = |c: &&Connection| matches!(c.state, State::Waiting { .. });
        let Some(c) = self.connections.iter().find(waits) else { return };
        let runs = c.timers.due(Timer::Collision).is_some();
        if runs && self.connections.iter().any(|c| matches!(c.state, State::OpenSent)) {
            return;
        }
        let State::Waiting { negotiated, confirmed } = &c.state else { return };
        let (conn, negotiated, confirmed) = (c.id, negotiated.clone(), *confirmed);
        self.confirm(now, conn, negotiated);
        if confirmed {
            self.establish(now, conn);
        }
    }

    /// Event 26 in OpenConfirm.
    fn establish(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connection(conn) else { return };
        let State::OpenConfirm(negotiated) = &c.state else { return };
        let negotiated = negotiated.clone();
        let decoder = Decoder::new(negotiated.shape());
        c.state = State::Established(Box::new(Up {
            negotiated: negotiated.clone(),
            decoder,
            since: now,
            flawed: false,
        }));
        c.timers.stop(Timer::Silence);
        c.timers.stop(Timer::TtlSecurity);
        c.heard(now);
        self.learn_ttl(conn);
        if let Some(c) = self.connections.iter_mut().find(|c| c.id == conn)
            && let Some(open) = c.received.take()
        {
            self.record.open_sent(&c.sent, c.ends);
            self.record.open_received(now, &open);
        }
        self.abort_dial(false);
        self.timers.stop(Timer::ConnectRetry);
        for other in self.connections.iter().map(|c| c.id).filter(|id| *id != conn).collect::<Vec<_>>() {
            if self.connections.iter().any(|c| c.id == other && self.leaves(c)) {
                self.moved(now, other);
            } else if self.connections.iter().any(|c| c.id == other && c.is_established()) {
                self.replaced(now, other);
            } else {
                self.collide(now, other);
            }
        }
        self.moving = None;
        self.been_up = true;
        self.collisions = 0;
        self.connect_backoff.reset();
        self.record.established();
        let (asn, id, hold) = (negotiated.remote_as, negotiated.remote_id, negotiated.hold_time);
        self.event(Severity::Info, format!("session up: AS {asn}, router id {id}, hold time {hold} s"));
        self.out.push_back(Output::Up(negotiated));
    }

    /// Event 27.
    fn update(&mut self, now: Instant, conn: Conn, body: &Bytes) {
        let Some(c) = self.connection(conn) else { return };
        c.heard(now);
        let State::Established(up) = &mut c.state else { return };
        match up.decoder.decode(body) {
            Ok(update) => {
                let flaw = update.flaws.first().map(|f| (f.attribute, f.what));
                let loud = !up.flawed;
                up.flawed |= flaw.is_some();
                self.record.flaws(update.flaws.len());
                self.updates.push(update);
                if let Some((attribute, what)) = flaw {
                    let severity = if loud { Severity::Warn } else { Severity::Debug };
                    self.event(severity, format!("attribute {attribute} of an UPDATE lived through: {what}"));
                }
            }
            Err(error) => self.refuse(now, conn, &error, error.what.into()),
        }
    }

    /// ROUTE-REFRESH; one for a family that is not in use is ignored (RFC 2918 §4), and so is an unknown
    /// subtype (RFC 7313 §5).
    fn refresh(&mut self, now: Instant, conn: Conn, body: &Bytes) {
        let Some(c) = self.connection(conn) else { return };
        c.heard(now);
        let Some(negotiated) = c.negotiated().cloned() else { return };
        let message = match Refresh::decode(body, negotiated.enhanced_refresh) {
            Ok(message) => message,
            Err(error) => return self.refuse(now, conn, &error, error.what.into()),
        };
        let last = if negotiated.enhanced_refresh { refresh::END } else { refresh::REQUEST };
        if let Some(family) = message.family().filter(|f| negotiated.has(*f) && message.subtype <= last) {
            self.flush_updates();
            self.out.push_back(Output::Refresh { family, subtype: message.subtype });
        }
    }
}

/// The whole message.
pub(super) fn notification(n: &Notification) -> Bytes {
    let mut octets = BytesMut::new();
    n.encode(&mut octets);
    octets.freeze()
}
