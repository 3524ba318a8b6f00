//! One BFD session (RFC 5880 §6.8): its state machine, timers and poll sequence.
//!
//! The engine passes decoded packets and the time; [`Session::due`] returns when to call again.
//! Demand mode is never used from here and the echo function not at all; a neighbor may use demand
//! mode.

use std::time::{Duration, Instant};

use super::{
    auth::Authenticator,
    dampening::Dampening,
    packet::{Encoded, Packet, State},
    random::Random,
    view::Counters,
};
use crate::net::{BfdParams, BfdReport, BfdStatus};

/// RFC 5880 §6.8.3: what is sent while the session is not up is sent this slowly.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// bfd.RemoteMinRxInterval at the beginning (RFC 5880 §6.8.1).
const REMOTE_MIN_RX: Duration = Duration::from_micros(1);
/// How long a session without clients sends AdminDown, so that the neighbor sees no failure (RFC
/// 5880 §6.8.16).
const PARTING: Duration = Duration::from_secs(3);

/// Diagnostics (RFC 5880 §4.1).
const DIAG_EXPIRED: u8 = 1;
const DIAG_SIGNALED: u8 = 3;
const DIAG_ADMIN_DOWN: u8 = 7;

/// The two intervals that a poll sequence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) tx: Duration,
    pub(super) rx: Duration,
}

/// What the neighbor's last packet had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) discriminator: u32,
    pub(super) state: State,
    pub(super) diagnostic: u8,
    pub(super) min_tx: Duration,
    pub(super) min_rx: Duration,
    pub(super) multiplier: u8,
    pub(super) independent: bool,
    demand: bool,
}

impl Remote {
    fn unknown() -> Self {
        Self {
            discriminator: 0,
            state: State::Down,
            diagnostic: 0,
            min_tx: Duration::ZERO,
            min_rx: REMOTE_MIN_RX,
            multiplier: 0,
            independent: false,
            demand: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Session {
    params: BfdParams,
    discriminator: u32,
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) diagnostic: u8,
    pub(super) remote: Remote,
    /// What our packets carry: bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval.
    pub(super) advertised: Intervals,
    /// What timers use until the poll sequence has ended (RFC 5880 §6.8.3).
    in_force: Intervals,
    /// The intervals that the poll sequence under way is about.
    poll: Option<Intervals>,
    auth: Option<Authenticator>,
    last_sent: Option<Instant>,
    next_sent: Option<Instant>,
    last_received: Option<Instant>,
    /// The interval that `next_sent` was chosen for.
    scheduled: Option<Duration>,
    /// Until when the sequence number of the last signed packet counts (RFC 5880 §6.8.1,
    /// bfd.AuthSeqKnown).
    sequence_known: Option<Instant>,
    /// Nobody needs it any more: until when the neighbor is informed.
    parting: Option<Instant>,
    dampening: Dampening,
    was_up: bool,
    failures: u64,
    failure: u8,
    pub(super) counters: Counters,
}

impl Session {
    pub(super) fn new(now: Instant, params: BfdParams, discriminator: u32, random: &mut Random) -> Self {
        let slow = Intervals { tx: params.min_tx.max(SLOW), rx: params.min_rx };
        let mut session = Self {
            auth: params.auth.clone().map(|a| Authenticator::new(a, random.next())),
            params,
            discriminator,
            state: State::Down,
            since: now,
            diagnostic: 0,
            remote: Remote::unknown(),
            advertised: slow,
            in_force: slow,
            poll: None,
            last_sent: None,
            next_sent: None,
            last_received: None,
            scheduled: None,
            sequence_known: None,
            parting: None,
            dampening: Dampening::default(),
            was_up: false,
            failures: 0,
            failure: 0,
            counters: Counters::default(),
        };
        session.scheduled = session.interval();
        session.next_sent = session.scheduled.map(|_| now);
        session
    }

    pub(super) fn params(&self) -> &BfdParams {
        &self.params
    }

    /// Changes the settings while the session goes on: new intervals by a poll sequence, a new key
    /// at once.
    pub(super) fn configure(&mut self, now: Instant, params: BfdParams, random: &mut Random) {
        if self.auth.as_ref().map(Authenticator::settings) != params.auth.as_ref() {
            self.auth = params.auth.clone().map(|a| Authenticator::new(a, random.next()));
        }
        self.params = params;
        self.parting = None;
        if self.state == State::AdminDown {
            self.enter(now, State::Down, 0);
        }
        self.renegotiate();
        self.reschedule(now, random);
    }

    /// RFC 5880 §6.8.16: from here on the neighbor is only informed that this is no failure.
    pub(super) fn part(&mut self, now: Instant) {
        if self.parting.is_none() {
            self.enter(now, State::AdminDown, DIAG_ADMIN_DOWN);
            // Neither lost now, nor for whoever watches it next.
            self.was_up = false;
            // Who never sent anything need not be informed.
            self.parting = Some(if self.remote.discriminator == 0 { now } else { now + PARTING });
            self.renegotiate();
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.parting.is_some_and(|until| until <= now)
    }

    pub(super) fn is_parting(&self) -> bool {
        self.parting.is_some()
    }

    /// When to come back with [`Session::timeout`].
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let dampened = self.dampening.until().filter(|until| self.state == State::Up && *until > now);
        [self.next_sent, self.detection(), self.parting, dampened].into_iter().flatten().min()
    }

    /// When the neighbor counts as lost (RFC 5880 §6.8.4).
    fn detection(&self) -> Option<Instant> {
        self.last_received.map(|at| at + self.detection_time())
    }

    pub(super) fn detection_time(&self) -> Duration {
        self.in_force.rx.max(self.remote.min_tx) * u32::from(self.remote.multiplier)
    }

    /// Between two packets of ours, before jitter; `None`: none is sent by itself (RFC 5880
    /// §6.8.7).
    pub(super) fn interval(&self) -> Option<Duration> {
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let unwanted = self.remote.min_rx.is_zero()
            || self.params.passive && self.remote.discriminator == 0
            || self.remote.demand && both_up && self.poll.is_none();
        (!unwanted).then(|| self.in_force.tx.max(self.remote.min_rx))
    }

    /// What has become due. Returns a packet to send.
    pub(super) fn timeout(&mut self, now: Instant, random: &mut Random) -> Option<Encoded> {
        if self.detection().is_some_and(|at| at <= now) {
            self.expire(now);
            self.scheduled = self.interval();
            self.next_sent = self.scheduled.map(|_| now);
        }
        if self.next_sent.is_none_or(|at| at > now) {
            return None;
        }
        self.sent(now, random);
        Some(self.packet(false))
    }

    /// RFC 5880 §6.8.4, and the end of what is known of the neighbor (§6.8.1, bfd.RemoteDiscr).
    fn expire(&mut self, now: Instant) {
        self.last_received = None;
        self.remote = Remote { independent: self.remote.independent, ..Remote::unknown() };
        if matches!(self.state, State::Init | State::Up) {
            self.fail(now, DIAG_EXPIRED);
        }
        self.poll = None;
        self.in_force = self.advertised;
    }

    fn fail(&mut self, now: Instant, diagnostic: u8) {
        if self.state == State::Up {
            self.failures += 1;
            self.failure = diagnostic;
            self.dampening.lost(now);
        }
        self.enter(now, State::Down, diagnostic);
        self.renegotiate();
    }

    fn enter(&mut self, now: Instant, state: State, diagnostic: u8) {
        if state == State::Up {
            self.was_up = true;
            self.dampening.up(now);
        }
        self.diagnostic = diagnostic;
        self.state = state;
        self.since = now;
    }

    /// RFC 5880 §6.8.6 after the choice of the session. `octets`: the packet by its length. Returns
    /// what to send at once.
    ///
    /// # Errors
    ///
    /// The packet is not authentic: nothing has changed.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        packet: &Packet,
        octets: &[u8],
        random: &mut Random,
    ) -> Result<Option<Encoded>, NotAuthentic> {
        if self.sequence_known.is_some_and(|until| until <= now)
            && let Some(auth) = &mut self.auth
        {
            auth.forget_sequence();
        }
        let authentic = match &mut self.auth {
            None => !packet.authenticated,
            Some(auth) => packet.authenticated && auth.check(packet, octets),
        };
        if !authentic {
            self.counters.not_authentic += 1;
            return Err(NotAuthentic);
        }
        self.counters.received += 1;
        if self.state == State::AdminDown {
            return Ok(None);
        }
        self.last_received = Some(now);
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            min_tx: packet.min_tx,
            min_rx: packet.min_rx,
            multiplier: packet.multiplier,
            independent: packet.independent,
            demand: packet.demand,
        };
        self.sequence_known = self.auth.as_ref().map(|_| now + 2 * self.detection_time());
        if packet.is_final {
            self.poll_answered();
        }
        let before = self.state;
        self.follow(now, packet.state);
        self.reschedule(now, random);
        if packet.poll {
            return Ok(Some(self.packet(true)));
        }
        if before != self.state && self.interval().is_some() {
            self.sent(now, random);
            return Ok(Some(self.packet(false)));
        }
        Ok(None)
    }

    /// The state machine of RFC 5880 §6.8.6.
    fn follow(&mut self, now: Instant, received: State) {
        let diagnostic = self.diagnostic;
        match (self.state, received) {
            (State::AdminDown, _) => {}
            (State::Down, State::AdminDown) => self.was_up = false,
            (State::Init | State::Up, State::AdminDown) => {
                self.was_up = false;
                self.enter(now, State::Down, DIAG_SIGNALED);
                self.renegotiate();
            }
            (State::Down, State::Down | State::Init) if self.dampening.holds_down(now) => {}
            (State::Down, State::Down) => self.enter(now, State::Init, diagnostic),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(now, State::Up, 0);
                self.renegotiate();
            }
            (State::Up, State::Down) => self.fail(now, DIAG_SIGNALED),
            (State::Down, State::Up) | (State::Init, State::Down) | (State::Up, State::Init | State::Up) => {}
        }
    }

    /// RFC 5880 §6.8.3: new intervals are advertised at once. Where they could make the neighbor
    /// lose packets they are used only when it has confirmed them.
    fn renegotiate(&mut self) {
        let slowest = if self.state == State::Up { Duration::ZERO } else { SLOW };
        let wanted = Intervals { tx: self.params.min_tx.max(slowest), rx: self.params.min_rx };
        if wanted == self.advertised {
            return;
        }
        self.advertised = wanted;
        if self.state == State::Up {
            self.in_force.tx = self.in_force.tx.min(wanted.tx);
            self.in_force.rx = self.in_force.rx.max(wanted.rx);
        } else {
            self.in_force = wanted;
        }
        if self.remote.discriminator != 0 && self.poll.is_none() {
            self.poll = Some(wanted);
        }
    }

    /// A packet with the F bit came. If the settings changed again meanwhile, they get a sequence
    /// of their own, as this packet may confirm the earlier ones (RFC 5880 §6.5).
    fn poll_answered(&mut self) {
        if let Some(polled) = self.poll.take() {
            if polled == self.advertised {
                self.in_force = polled;
            } else {
                self.poll = Some(self.advertised);
            }
        }
    }

    /// Sets the next packet's time by intervals that may have changed.
    fn reschedule(&mut self, now: Instant, random: &mut Random) {
        let interval = self.interval();
        if interval == self.scheduled {
            return;
        }
        self.scheduled = interval;
        let Some(interval) = interval else {
            self.next_sent = None;
            return;
        };
        let wait = random.jitter(interval, self.params.multiplier);
        let next = self.last_sent.map_or(now, |last| (last + wait).max(now));
        if self.next_sent.is_none_or(|at| at > next) {
            self.next_sent = Some(next);
        }
    }

    fn sent(&mut self, now: Instant, random: &mut Random) {
        self.last_sent = Some(now);
        self.scheduled = self.interval();
        self.next_sent = self.scheduled.map(|i| now + random.jitter(i, self.params.multiplier));
    }

    /// The packet to send now, counted as sent.
    pub(super) fn packet(&mut self, is_final: bool) -> Encoded {
        self.counters.sent += 1;
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll.is_some() && !is_final,
            is_final,
            // This process is the control plane.
            independent: false,
            authenticated: false,
            demand: false,
            multiplier: self.params.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            min_tx: self.advertised.tx,
            min_rx: self.advertised.rx,
            min_echo_rx: Duration::ZERO,
        };
        match &mut self.auth {
            Some(auth) => auth.sign(&packet),
            None => packet.encode(),
        }
    }

    pub(super) fn report(&self, now: Instant) -> BfdReport {
        BfdReport {
            status: self.status(now),
            failures: self.failures,
            diagnostic: self.failure,
            independent: self.remote.independent,
        }
    }

    fn status(&self, now: Instant) -> BfdStatus {
        let dampened = self.dampening.until().is_some_and(|until| until > now);
        match self.state {
            State::Up if dampened => BfdStatus::Dampened(self.dampening.hold()),
            State::Up => BfdStatus::Up,
            _ if self.remote.state == State::AdminDown => BfdStatus::AdminDown,
            _ if self.was_up => BfdStatus::Down,
            _ => BfdStatus::Starting,
        }
    }
}

/// A packet without the signature that it must have, or with one that it must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAuthentic;
