//! Two connections, one neighbor (RFC 4271 §6.8).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Conn, End, NextStep, Session, connection::State, state::FRESH_CONNECTION_TIME};
use crate::{
    bgp::{
        peer::{DownCause, Negotiated},
        wire::notification::{Notification, cease},
    },
    net::{Asn, RouterId},
};

/// A connection that arrives this soon after the session was established was opened at the same
/// time as ours.
const SIMULTANEOUS_OPEN_WINDOW: Duration = Duration::from_millis(100);

/// Who a speaker is, for the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) id: RouterId,
    pub(super) asn: Asn,
}

/// Whether the connection that *we* opened survives: that of the speaker with the higher
/// identifier, or with equal identifiers of the larger AS number (RFC 6286 §2.3).
pub(super) fn ours_survives(us: Speaker, them: Speaker) -> bool {
    (us.id.to_bits(), us.asn) > (them.id.to_bits(), them.asn)
}

/// What happens to a connection whose OPEN has just arrived while there is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CollisionOutcome {
    /// No collision, or none yet.
    Both,
    /// The other one survives if an OPEN arrives on it; the new one waits, and continues if none
    /// arrives.
    Wait,
    /// CEASE/7 on the new one.
    DropNew,
    /// CEASE/7 on the other one.
    DropOther,
    /// The neighbor restarted, and the other one is dead (RFC 4724 §4.2): it is closed without a
    /// NOTIFICATION once the new one is established.
    ReplaceLater,
}

/// State of the other connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// `fresh`: an OPEN may arrive soon.
    OpenSent {
        fresh: bool,
    },
    OpenConfirm,
    /// `graceful`: the neighbor supports graceful restart, so a second connection means that it
    /// restarted.
    Established {
        graceful: bool,
    },
}

/// The rule of §6.8. `new_is_ours`: we opened the connection whose OPEN arrived.
///
/// A fresh connection in OpenSent takes part too, as §6.8 allows if the identifier is known, here
/// from the other connection. Otherwise one end may be Established on the connection that the other
/// end drops, and both are lost. A connection with an OPEN is not closed for it, as no OPEN may
/// ever arrive on the fresh one.
pub(super) fn judge(us: Speaker, them: Speaker, new_is_ours: bool, other: Other) -> CollisionOutcome {
    match other {
        Other::OpenSent { fresh: false } => CollisionOutcome::Both,
        Other::OpenSent { fresh: true } | Other::OpenConfirm if ours_survives(us, them) == new_is_ours => {
            CollisionOutcome::DropOther
        }
        Other::OpenSent { fresh: true } => CollisionOutcome::Wait,
        Other::OpenConfirm | Other::Established { graceful: false } => CollisionOutcome::DropNew,
        Other::Established { graceful: true } => CollisionOutcome::ReplaceLater,
    }
}

impl Session {
    /// Resolves collisions with every other connection of this neighbor (RFC 4271 §6.8). Closes the
    /// others that do not survive, or this one on [`CollisionOutcome::DropNew`].
    pub(super) fn collision(
        &mut self,
        now: Instant,
        conn: Conn,
        negotiated: &Negotiated,
    ) -> CollisionOutcome {
        let mut verdict = CollisionOutcome::Both;
        let us = Speaker { id: self.global.router_id, asn: negotiated.local_as };
        let them = Speaker { id: negotiated.remote_id, asn: negotiated.remote_as };
        let Some(c) = self.connection(conn) else { return verdict };
        let (outgoing, called, began) = (c.outgoing, c.ends.local.ip(), c.since);
        for other in self.connections.iter().map(|c| c.id).filter(|id| *id != conn).collect::<Vec<_>>() {
            if self.connections.iter().any(|c| c.id == other && self.leaves(c)) {
                continue;
            }
            let Some(o) = self.connection(other) else { continue };
            let how_far = match &o.state {
                State::OpenSent => {
                    Other::OpenSent { fresh: now.duration_since(o.since) < FRESH_CONNECTION_TIME }
                }
                State::OpenConfirm(_) | State::CollisionPending { .. } => Other::OpenConfirm,
                // After a restart the neighbor connects to the same address as before. A connection
                // to another address comes from a speaker that has several of our addresses
                // configured, and closes no session.
                State::Established(up) => {
                    let keeps = up.negotiated.graceful.as_ref().is_some_and(|g| !g.families.is_empty());
                    // Nor does a connection opened before the session was established.
                    let restarted =
                        o.ends.local.ip() == called && began >= up.since + SIMULTANEOUS_OPEN_WINDOW;
                    // Nor one of many in a row: no neighbor restarts that often.
                    let restarted = restarted && !self.damping.is_flapping(now);
                    Other::Established { graceful: keeps && restarted }
                }
            };
            match judge(us, them, outgoing, how_far) {
                CollisionOutcome::Both | CollisionOutcome::ReplaceLater => {}
                CollisionOutcome::Wait => verdict = CollisionOutcome::Wait,
                CollisionOutcome::DropOther => self.collide(now, other),
                CollisionOutcome::DropNew => {
                    match self.connection(other).map(|o| o.ends.local.ip()).filter(|at| *at != called) {
                        Some(at) => self.connected_to_other_address(now, conn, at),
                        None => self.collide(now, conn),
                    }
                    // If the other one is dead at the far end, this detects it at once.
                    self.keepalive(now, other);
                    return CollisionOutcome::DropNew;
                }
            }
        }
        verdict
    }

    pub(super) fn collide(&mut self, now: Instant, conn: Conn) {
        let end = End {
            notify: Some(Notification::cease(cease::COLLISION, None)),
            cause: DownCause::Sent { hard: false },
            reason: "collision",
            why: "connection collision".into(),
            after: NextStep::RetrySoon,
        };
        self.end(now, conn, end);
    }

    /// Rejects a second connection of an established neighbor to another of our addresses.
    fn connected_to_other_address(&mut self, now: Instant, conn: Conn, session: IpAddr) {
        let Some(called) = self.connection(conn).map(|c| c.ends.local.ip()) else { return };
        let end = End {
            notify: Some(Notification::cease(cease::REJECTED, None)),
            cause: DownCause::Sent { hard: false },
            reason: "rejected",
            why: format!("second connection to {called} rejected, its session is with {session}"),
            after: NextStep::RetrySoon,
        };
        self.end(now, conn, end);
    }

    /// RFC 4724 §4.2: closes the old connection without a NOTIFICATION, once the new one is
    /// established. An OPEN alone must not suffice, as anyone with the neighbor's address could
    /// then close the session.
    pub(super) fn replaced(&mut self, now: Instant, conn: Conn) {
        let _ = self.after_end_by_neighbor(now, conn);
        let end = End {
            notify: None,
            cause: DownCause::Closed,
            reason: "closed",
            why: "the neighbor restarted".into(),
            after: NextStep::RetrySoon,
        };
        self.end(now, conn, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(id: [u8; 4], asn: Asn) -> Speaker {
        Speaker { id: id.into(), asn }
    }

    #[test]
    fn the_connection_of_the_higher_identifier_survives() {
        let (low, high) = (speaker([10, 0, 0, 1], 2), speaker([10, 0, 1, 0], 1));
        let twin = speaker([10, 0, 0, 1], 3);
        #[rustfmt::skip]
        let cases = [
            ("we are higher, theirs is new", high, low, false, Other::OpenConfirm, CollisionOutcome::DropNew),
            ("we are higher, ours is new",   high, low, true,  Other::OpenConfirm, CollisionOutcome::DropOther),
            ("we are lower, theirs is new",  low, high, false, Other::OpenConfirm, CollisionOutcome::DropOther),
            ("we are lower, ours is new",    low, high, true,  Other::OpenConfirm, CollisionOutcome::DropNew),
            ("same id, larger AS is theirs", low, twin, false, Other::OpenConfirm, CollisionOutcome::DropOther),
            ("same id, larger AS is ours",   twin, low, true,  Other::OpenConfirm, CollisionOutcome::DropOther),
            ("other waits for its OPEN",     low, high, true,  Other::OpenSent { fresh: true }, CollisionOutcome::Wait),
            ("other waits, and is to go",    low, high, false, Other::OpenSent { fresh: true }, CollisionOutcome::DropOther),
            ("other has waited long",        low, high, true,  Other::OpenSent { fresh: false }, CollisionOutcome::Both),
            ("established stays",            low, high, false, Other::Established { graceful: false }, CollisionOutcome::DropNew),
            ("a restarted neighbor is back", high, low, false, Other::Established { graceful: true }, CollisionOutcome::ReplaceLater),
        ];
        for (name, us, them, new_is_ours, other, want) in cases {
            assert_eq!(judge(us, them, new_is_ours, other), want, "{name}");
        }
    }

    #[test]
    fn both_ends_keep_the_same_connection() {
        let speakers = [speaker([1, 0, 0, 1], 1), speaker([1, 0, 0, 1], 2), speaker([9, 0, 0, 1], 1)];
        for a in speakers {
            for b in speakers.into_iter().filter(|b| *b != a) {
                assert_ne!(ours_survives(a, b), ours_survives(b, a));
            }
        }
    }
}
