//! Hints for the operator when a session is not established: each names a setting and its remedy.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Conn, Session, advice::Cause, connection::State, timer::Timer};
use crate::bgp::{
    peer::{Hops, PeerConfig},
    wire::{
        framing::{self, Kind},
        notification::Notification,
    },
};

/// Time without OPEN, or without KEEPALIVE after it, until a hint is shown: long before the four
/// minutes of RFC 4271 §8.2.2, and much longer than a round trip.
pub(super) const SILENCE_HINT_DELAY: Duration = Duration::from_secs(5);

impl Session {
    /// The neighbor sends nothing on a new connection.
    pub(super) fn silent(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connections.iter().find(|c| c.id == conn) else { return };
        let awaited = match c.state {
            State::OpenSent => "OPEN",
            State::OpenConfirm(_) => "KEEPALIVE",
            State::CollisionPending { .. } | State::Established(_) => return,
        };
        if self.established().is_some() {
            // There is an established session: the connection is not needed.
            if awaited == "KEEPALIVE" {
                self.collide(now, conn);
            }
            return;
        }
        self.record.caused(None);
        let (key, seconds) = (&self.config.key, SILENCE_HINT_DELAY.as_secs());
        let pinned = self.gtsm.hint(&self.config);
        let hint =
            pinned.as_deref().or(distance(&self.config)).unwrap_or("is a BGP speaker at the other end?");
        self.report_failure(format!("connected to {key}, but no {awaited} for {seconds} s: {hint}"));
    }

    /// A connection attempt timed out: reports it with what the settings suggest.
    pub(super) fn report_no_reply(&mut self) {
        let hint = match (behind(&self.config), self.config.hops) {
            (Some((hint, remedy)), _) => format!(": {hint}: {remedy}"),
            (None, Hops::Security(_)) => format!(": {TTL_SECURITY}"),
            (None, _) => String::new(),
        };
        self.record.caused(hint.is_empty().then_some(Cause::NoReply));
        self.report_failure(format!("no reply from {}{hint}", self.config.key));
    }

    /// Adds a hint from the settings to the driver's error.
    pub(super) fn with_hint(&self, why: String) -> String {
        match behind(&self.config) {
            Some((hint, remedy)) => format!("{why}; {hint}: {remedy}"),
            None => why,
        }
    }

    /// Looks for a NOTIFICATION in octets that arrived after we closed the connection: if both ends
    /// refuse each other, the neighbor's reason matters as well.
    pub(super) fn read_leftover(&mut self, now: Instant, octets: &mut BytesMut) {
        while let Ok(Some(frame)) = framing::split(octets, false) {
            self.record.received(now, frame.kind);
            if frame.kind == Kind::Notification {
                let notification = Notification::decode(&frame.body);
                self.record.notification_received(&notification);
                if self.established().is_none() {
                    self.record.also(&format!("the neighbor sent NOTIFICATION {notification}"));
                }
                break;
            }
        }
        octets.clear();
    }

    /// Starts the timer for the hint.
    pub(super) fn watch_silence(&mut self, now: Instant, conn: Conn) {
        if let Some(c) = self.connection(conn) {
            c.timers.set(Timer::Silence, now + SILENCE_HINT_DELAY);
        }
    }
}

const TTL_SECURITY: &str = "`ttl-security` here drops what arrives from farther away, or with a lower TTL: set it at \
                            both ends, or remove it here";

/// Which setting of the distance may differ at the two ends.
pub(super) fn distance(config: &PeerConfig) -> Option<&'static str> {
    match config.hops {
        Hops::Security(_) => Some(TTL_SECURITY),
        Hops::Multihop(_) => Some("set multihop at the other end, too, or its packets do not come this far"),
        Hops::Direct | Hops::SecurityWhereOffered if config.is_surely_internal() => None,
        Hops::SecurityWhereOffered => Some("where the other end has multihop, set `multihop` here, too"),
        Hops::Direct => Some(
            "where the other end has TTL security or multihop, set `ttl-security` or `multihop` here, too",
        ),
    }
}

/// A neighbor behind a router that is to be reached with TTL 1.
pub(super) fn behind(config: &PeerConfig) -> Option<(String, &'static str)> {
    let router = config.behind?;
    let why = format!(
        "{} is on no connected subnet but behind {router}, and without `multihop` packets to it leave with TTL 1",
        config.key
    );
    Some((why, "set `multihop`"))
}
