//! What an attempt that leads nowhere suggests to the operator: each hint names a setting and what to do with it.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Conn, Session, state::State, timer::Timer};
use crate::bgp::{
    peer::{Hops, PeerConfig},
    wire::{
        framing::{self, Kind},
        notification::Notification,
    },
};

/// A neighbor that has sent no OPEN, or no KEEPALIVE after it, for so long deserves a hint. Long before the four
/// minutes of RFC 4271 §8.2.2, and far longer than any round trip.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

impl Session {
    /// The connection stands, and the neighbor is silent on it.
    pub(super) fn silent(&mut self, now: Instant, conn: Conn) {
        let Some(c) = self.connections.iter().find(|c| c.id == conn) else { return };
        let awaited = match c.state {
            State::OpenSent => "OPEN",
            State::OpenConfirm(_) => "KEEPALIVE",
            State::Waiting { .. } | State::Established(_) => return,
        };
        if self.established().is_some() {
            // Beside a session it has nothing to be waited for.
            if awaited == "KEEPALIVE" {
                self.collide(now, conn);
            }
            return;
        }
        let (key, seconds) = (&self.config.key, SILENCE.as_secs());
        let pinned = self.gtsm.hint(&self.config);
        let hint =
            pinned.as_deref().or(distance(&self.config)).unwrap_or("is a BGP speaker at the other end?");
        self.complain(format!("connected to {key}, but no {awaited} for {seconds} s: {hint}"));
    }

    /// How often the neighbor may be dialled in vain is no secret, why is: what the settings suggest.
    pub(super) fn no_answer(&mut self) {
        let hint = match (behind(&self.config), self.config.hops) {
            (Some((hint, remedy)), _) => format!(": {hint}: {remedy}"),
            (None, Hops::Security(_)) => format!(": {TTL_SECURITY}"),
            (None, _) => String::new(),
        };
        self.complain(format!("no answer from {}{hint}", self.config.key));
    }

    /// A dial failed in words of the driver; what the plan knows may say more.
    pub(super) fn with_hint(&self, why: String) -> String {
        match behind(&self.config) {
            Some((hint, remedy)) => format!("{why}; {hint}: {remedy}"),
            None => why,
        }
    }

    /// Looks for a NOTIFICATION among octets that came behind the end of a connection: where both ends refuse each
    /// other, the neighbor's reason is worth as much as ours.
    pub(super) fn overheard(&mut self, octets: &mut BytesMut) {
        while let Ok(Some(frame)) = framing::split(octets, false) {
            self.record.received(frame.kind);
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

    /// Watches for silence on a connection that waits for the neighbor.
    pub(super) fn watch_silence(&mut self, now: Instant, conn: Conn) {
        if let Some(c) = self.connection(conn) {
            c.timers.set(Timer::Silence, now + SILENCE);
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
