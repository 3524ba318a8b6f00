//! The transitions of a connection: OpenSent, OpenConfirm, Established (RFC 4271 §8.2.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Conn, End, Event, NextStep, Output, Session, Severity,
    advice::Cause,
    collision::CollisionOutcome,
    connection::{Connection, State, Up},
    damping, hints,
    negotiate::{self, Circumstances},
    timer::Timer,
};
use crate::{
    bgp::{
        peer::{DownCause, Hops, Negotiated},
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

/// How long a neighbor may take for its OPEN (RFC 4271 §8.2.2: "a large value", 4 minutes
/// suggested).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// Consecutive collisions after which the next attempt follows at once.
const MAX_QUICK_COLLISION_RETRIES: u32 = 3;
/// The least time between two KEEPALIVEs (RFC 4271 §4.4).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the neighbor's OPEN is expected to arrive soon: longer than a round trip.
pub(super) const FRESH_CONNECTION_TIME: Duration = Duration::from_secs(3);

impl Session {
    /// Sends our OPEN on a new connection (events 16 and 17).
    pub(super) fn open(&mut self, now: Instant, mut connection: Connection) {
        let circumstances = Circumstances {
            restarting: self.global.restarting && !self.was_established,
            forwarding: self.global.restarting || self.was_established,
            without_capabilities: self.without_capabilities,
        };
        connection.sent = negotiate::open(&self.config, &self.global, circumstances);
        connection.timers.set(Timer::Hold, now + OPEN_HOLD_TIME);
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
        self.record.sent(now, kind, messages.into());
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

    /// Sends a KEEPALIVE, at most one per second (RFC 4271 §4.4); one that is due earlier is
    /// delayed.
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
                c.restart_hold_timer(now);
            }
        }
    }

    /// Events 10, 11 and the one of RFC 9687 §3.
    pub(super) fn connection_timeout(&mut self, now: Instant, conn: Conn, timer: Timer) {
        match timer {
            Timer::Keepalive => self.keepalive(now, conn),
            Timer::Hold => {
                let hold = self.connection(conn).and_then(|c| c.hold()).unwrap_or(OPEN_HOLD_TIME).as_secs();
                let (cause, how) = self.silence(conn);
                if matches!(cause, Some(Cause::Unheard)) {
                    self.nothing_arrives();
                }
                self.record.caused(cause);
                self.end(
                    now,
                    conn,
                    End {
                        notify: Some(Notification::new(Code::HoldTimer, 0)),
                        cause: DownCause::HoldTimer,
                        reason: "hold-timer",
                        why: format!("hold timer expired: no message for {hold} s{how}"),
                        after: NextStep::IdleHold,
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
                        why: "send hold timer expired: the neighbor does not read".into(),
                        after: NextStep::IdleHold,
                    },
                );
            }
            // Pending connections are continued at the end of each input.
            Timer::ConnectRetry | Timer::IdleHold | Timer::Collision => {}
            Timer::Silence => self.silent(now, conn),
            Timer::TtlSecurity => self.ttl_not_offered(conn),
        }
    }

    /// What TCP shows of a connection on which no message arrives.
    fn silence(&self, conn: Conn) -> (Option<Cause>, &'static str) {
        if !self.connections.iter().any(|c| c.id == conn && c.is_established()) {
            (None, "")
        } else if self.is_unacknowledged(conn) && self.is_sent_again(conn) {
            (Some(Cause::Unheard), ", and what this host sends does not arrive there")
        } else if self.is_unacknowledged(conn) {
            (Some(Cause::Deaf), ", and what this host sends is not acknowledged")
        } else {
            (Some(Cause::Idle), " although its TCP replies to what this host sends")
        }
    }

    /// Event 18: the connection was closed by the neighbor, or failed.
    pub(super) fn closed(&mut self, now: Instant, conn: Conn, error: Option<String>) {
        let Some(c) = self.connection(conn) else { return };
        let before_open = matches!(c.state, State::OpenSent);
        let how = error
            .map_or_else(|| "the neighbor closed the connection".into(), |e| format!("connection lost: {e}"));
        let why = match c.state {
            State::OpenSent => {
                let hint = hints::distance(&self.config)
                    .filter(|_| matches!(self.config.hops, Hops::Multihop(_) | Hops::Security(_)));
                let hint = hint.map(|hint| format!(" If so, {hint}")).unwrap_or_default();
                format!("{how} before its OPEN: is this host configured there?{hint}")
            }
            State::OpenConfirm(_) | State::CollisionPending { .. } => format!("{how} after the OPEN"),
            State::Established(_) => how,
        };
        self.record.caused(before_open.then_some(Cause::BeforeOpen));
        let after = self.after_end_by_neighbor(now, conn);
        let why = damping::with_reason(why, after);
        let end = End { notify: None, cause: DownCause::Closed, reason: "closed", why, after };
        self.end(now, conn, end);
    }

    /// Splits off messages and handles them while the connection exists.
    pub(super) fn received(&mut self, now: Instant, conn: Conn, octets: &mut BytesMut) {
        let mut known = false;
        while let Some(c) = self.connection(conn) {
            known = true;
            match framing::split(octets, c.extended()) {
                Ok(Some(frame)) => {
                    self.record.received(now, frame.kind);
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
            self.read_leftover(now, octets);
        }
        octets.clear();
    }

    fn message(&mut self, now: Instant, conn: Conn, frame: Frame) {
        let Some(c) = self.connection(conn) else { return };
        match (&mut c.state, frame.kind) {
            (_, Kind::Notification) => self.notified(now, conn, &Notification::decode(&frame.body)),
            (State::OpenSent, Kind::Open) => self.open_received(now, conn, &frame.body),
            (State::OpenConfirm(_), Kind::Keepalive) => self.establish(now, conn),
            (State::CollisionPending { confirmed, .. }, Kind::Keepalive) => *confirmed = true,
            (State::Established(_), Kind::Keepalive) => c.restart_hold_timer(now),
            (State::Established(_), Kind::Update) => self.update(now, conn, &frame.body),
            (State::Established(_), Kind::RouteRefresh) => self.refresh(now, conn, &frame.body),
            (State::OpenSent, kind) => self.unexpected(now, conn, kind, 1),
            (State::OpenConfirm(_) | State::CollisionPending { .. }, kind) => {
                self.unexpected(now, conn, kind, 2)
            }
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

    /// The neighbor violated the protocol: NOTIFICATION, then Idle.
    fn refuse(&mut self, now: Instant, conn: Conn, error: &WireError, what: String) {
        let notification = Notification::from(error);
        let end = End {
            why: format!("sent NOTIFICATION {notification}: {what}"),
            notify: Some(notification),
            cause: DownCause::Sent { hard: false },
            reason: "notification-sent",
            after: NextStep::IdleHold,
        };
        self.end(now, conn, end);
    }

    /// Events 24 and 25.
    fn notified(&mut self, now: Instant, conn: Conn, notification: &Notification) {
        self.record.notification_received(notification);
        // Without its data, of which two octets count, but which keeps what was read with it.
        let data = Bytes::copy_from_slice(notification.data.get(..2).unwrap_or(&notification.data));
        self.record.caused(Some(Cause::Received(Notification { data, ..notification.clone() })));
        let after = self.after_notification(now, conn, notification);
        let hard = notification.is_hard();
        let mut why = format!("received NOTIFICATION {notification}");
        if notification.code == Code::HoldTimer as u8 && self.is_unacknowledged(conn) {
            why += ": what this host sends does not arrive there";
            self.record.caused(Some(Cause::Unheard));
        }
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

    fn after_notification(&mut self, now: Instant, conn: Conn, n: &Notification) -> NextStep {
        const CEASE: u8 = Code::Cease as u8;
        const OPEN: u8 = Code::Open as u8;
        let opening = self.connection(conn).is_some_and(|c| !c.is_established());
        match (n.code, n.subcode) {
            // The collision closed both connections: retry soon. A neighbor that keeps doing this
            // has a session with us at another address.
            (CEASE, cease::COLLISION) => {
                self.collisions += 1;
                if self.collisions > MAX_QUICK_COLLISION_RETRIES {
                    NextStep::Retry
                } else {
                    NextStep::RetrySoon
                }
            }
            (CEASE, cease::MAX_PREFIXES | cease::OUT_OF_RESOURCES) => NextStep::IdleHold,
            (CEASE, _) => self.after_end_by_neighbor(now, conn),
            // RFC 5492 §3: it does not support capabilities. One attempt without them.
            (OPEN, 4) if opening && !self.without_capabilities => {
                self.without_capabilities = true;
                NextStep::RetrySoon
            }
            _ => {
                self.without_capabilities = false;
                NextStep::IdleHold
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
            CollisionOutcome::Both | CollisionOutcome::DropOther | CollisionOutcome::ReplaceLater => {
                self.confirm(now, conn, negotiated)
            }
            CollisionOutcome::Wait => {
                let Some(c) = self.connection(conn) else { return };
                c.state = State::CollisionPending { negotiated, confirmed: false };
                c.timers.set(Timer::Collision, now + FRESH_CONNECTION_TIME);
            }
            CollisionOutcome::DropNew => {}
        }
    }

    /// The OPEN was accepted, and the connection is kept.
    fn confirm(&mut self, now: Instant, conn: Conn, negotiated: Arc<Negotiated>) {
        let Some(c) = self.connection(conn) else { return };
        c.state = State::OpenConfirm(negotiated);
        c.timers.stop(Timer::Hold);
        c.timers.stop(Timer::Collision);
        c.restart_hold_timer(now);
        self.watch_silence(now, conn);
        self.keepalive(now, conn);
    }

    /// Continues a pending connection if no OPEN has arrived on the other one.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        let waits = |c: &&Connection| matches!(c.state, State::CollisionPending { .. });
        let Some(c) = self.connections.iter().find(waits) else { return };
        let runs = c.timers.due(Timer::Collision).is_some();
        if runs && self.connections.iter().any(|c| matches!(c.state, State::OpenSent)) {
            return;
        }
        let State::CollisionPending { negotiated, confirmed } = &c.state else { return };
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
        c.restart_hold_timer(now);
        self.learn_ttl(conn);
        if let Some(c) = self.connections.iter_mut().find(|c| c.id == conn)
            && let Some(open) = c.received.take()
        {
            self.record.open_sent(&c.sent, c.ends);
            self.record.open_received(now, &open);
        }
        self.abort_connect(false);
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
        self.was_established = true;
        self.collisions = 0;
        self.connect_backoff.reset();
        self.record.established();

        self.out.push_back(Output::Event(Event {
            severity: Severity::Info,
            message: "session established",
            reason: None,
            negotiated: Some(negotiated.clone()),
        }));
        self.out.push_back(Output::Up(negotiated));
    }

    /// Event 27.
    fn update(&mut self, now: Instant, conn: Conn, body: &Bytes) {
        let Some(c) = self.connection(conn) else { return };
        c.restart_hold_timer(now);
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
                    let reason = format!("attribute {attribute}: {what}");
                    self.event(severity, "malformed attribute in UPDATE", Some(reason));
                }
            }
            Err(error) => self.refuse(now, conn, &error, error.what.into()),
        }
    }

    /// ROUTE-REFRESH; one for a family that is not in use is ignored (RFC 2918 §4), and so is an
    /// unknown subtype (RFC 7313 §5).
    fn refresh(&mut self, now: Instant, conn: Conn, body: &Bytes) {
        let Some(c) = self.connection(conn) else { return };
        c.restart_hold_timer(now);
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

/// Encodes a NOTIFICATION message.
pub(super) fn notification(n: &Notification) -> Bytes {
    let mut octets = BytesMut::new();
    n.encode(&mut octets);
    octets.freeze()
}
