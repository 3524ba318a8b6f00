//! Two connections, one neighbor (RFC 4271 §6.8).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    After, Conn, End, Session,
    state::{FRESH, State},
};
use crate::{
    bgp::{
        peer::{DownCause, Negotiated},
        wire::notification::{Notification, cease},
    },
    net::{Asn, RouterId},
};

/// A call that comes so soon after a session is up crossed our own.
const CROSSED: Duration = Duration::from_millis(100);

/// Who a speaker is, for the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) id: RouterId,
    pub(super) asn: Asn,
}

/// Whether the connection that *we* dialled survives: the one that the speaker with the higher identifier
/// began; with equal identifiers, the one of the larger AS number (RFC 6286 §2.3).
pub(super) fn ours_survives(us: Speaker, them: Speaker) -> bool {
    (us.id.to_bits(), us.asn) > (them.id.to_bits(), them.asn)
}

/// What becomes of a connection whose OPEN has just arrived, beside another one of the same neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No collision, or none yet.
    Both,
    /// The other one is to survive, once its OPEN has shown that the neighbor lives at its end: until then the new
    /// one waits, and if nothing comes it goes on.
    Wait,
    /// CEASE/7 to the new one.
    DropNew,
    /// CEASE/7 to the other one.
    DropOther,
    /// The other one is dead without knowing it, if its neighbor began anew (RFC 4724 §4.2): it is closed, without a
    /// NOTIFICATION, once the new one is established.
    ReplaceLater,
}

/// How far the other connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// `fresh`: its OPEN may well be on the way.
    OpenSent {
        fresh: bool,
    },
    OpenConfirm,
    /// `graceful`: the neighbor keeps routes over its restarts, so that a second connection means one.
    Established {
        graceful: bool,
    },
}

/// The rule of §6.8. `new_is_ours`: we dialled the connection whose OPEN arrived.
///
/// A fresh connection in OpenSent is judged too, as §6.8 allows where the identifier is known: it is, from the
/// other connection. Else one end may be Established on the connection that the other end drops, and both are
/// lost. But it costs no connection that has its OPEN: perhaps nobody answers on the fresh one.
pub(super) fn judge(us: Speaker, them: Speaker, new_is_ours: bool, other: Other) -> Verdict {
    match other {
        Other::OpenSent { fresh: false } => Verdict::Both,
        Other::OpenSent { fresh: true } | Other::OpenConfirm if ours_survives(us, them) == new_is_ours => {
            Verdict::DropOther
        }
        Other::OpenSent { fresh: true } => Verdict::Wait,
        Other::OpenConfirm | Other::Established { graceful: false } => Verdict::DropNew,
        Other::Established { graceful: true } => Verdict::ReplaceLater,
    }
}

impl Session {
    /// RFC 4271 §6.8, with every other connection of this neighbor; others that are to go are gone after it, and so
    /// is this one on [`Verdict::DropNew`].
    pub(super) fn collision(&mut self, now: Instant, conn: Conn, negotiated: &Negotiated) -> Verdict {
        let mut verdict = Verdict::Both;
        let us = Speaker { id: self.global.router_id, asn: negotiated.local_as };
        let them = Speaker { id: negotiated.remote_id, asn: negotiated.remote_as };
        let Some(c) = self.connection(conn) else { return verdict };
        let (dialled, called, began) = (c.dialled, c.ends.local.ip(), c.since);
        for other in self.connections.iter().map(|c| c.id).filter(|id| *id != conn).collect::<Vec<_>>() {
            if self.connections.iter().any(|c| c.id == other && self.leaves(c)) {
                continue;
            }
            let Some(o) = self.connection(other) else { continue };
            let how_far = match &o.state {
                State::OpenSent => Other::OpenSent { fresh: now.duration_since(o.since) < FRESH },
                State::OpenConfirm(_) | State::Waiting { .. } => Other::OpenConfirm,
                // Who restarts calls the address that it called before. A call to another one of ours comes from a
                // speaker that knows us by several addresses, and ends no session.
                State::Established(up) => {
                    let keeps = up.negotiated.graceful.as_ref().is_some_and(|g| !g.families.is_empty());
                    // Nor is one that was begun before the session was up, and is only seen now, the sign of a restart.
                    let restarted = o.ends.local.ip() == called && began >= up.since + CROSSED;
                    // Nor does one restart so often.
                    let restarted = restarted && !self.damping.is_flapping(now);
                    Other::Established { graceful: keeps && restarted }
                }
            };
            match judge(us, them, dialled, how_far) {
                Verdict::Both | Verdict::ReplaceLater => {}
                Verdict::Wait => verdict = Verdict::Wait,
                Verdict::DropOther => self.collide(now, other),
                Verdict::DropNew => {
                    match self.connection(other).map(|o| o.ends.local.ip()).filter(|at| *at != called) {
                        Some(at) => self.called_elsewhere(now, conn, at),
                        None => self.collide(now, conn),
                    }
                    // Should the other one be dead at the far end, this finds out at once.
                    self.keepalive(now, other);
                    return Verdict::DropNew;
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
            why: "two connections at once".into(),
            after: After::Soon,
        };
        self.end(now, conn, end);
    }

    /// A second call of an established neighbor, to another address of ours than that of the session.
    fn called_elsewhere(&mut self, now: Instant, conn: Conn, session: IpAddr) {
        let Some(called) = self.connection(conn).map(|c| c.ends.local.ip()) else { return };
        let end = End {
            notify: Some(Notification::cease(cease::REJECTED, None)),
            cause: DownCause::Sent { hard: false },
            reason: "rejected",
            why: format!("it calls {called}, too, and its session is with {session}"),
            after: After::Soon,
        };
        self.end(now, conn, end);
    }

    /// RFC 4724 §4.2: the old connection counts as closed, and no NOTIFICATION is sent. Only now that the new one is
    /// established: its OPEN alone would let whoever shares the neighbor's address end the session.
    pub(super) fn replaced(&mut self, now: Instant, conn: Conn) {
        let _ = self.after_end_by_neighbor(now, conn);
        let end = End {
            notify: None,
            cause: DownCause::Closed,
            reason: "closed",
            why: "the neighbor restarted".into(),
            after: After::Soon,
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
            ("we are higher, theirs is new", high, low, false, Other::OpenConfirm, Verdict::DropNew),
            ("we are higher, ours is new",   high, low, true,  Other::OpenConfirm, Verdict::DropOther),
            ("we are lower, theirs is new",  low, high, false, Other::OpenConfirm, Verdict::DropOther),
            ("we are lower, ours is new",    low, high, true,  Other::OpenConfirm, Verdict::DropNew),
            ("same id, larger AS is theirs", low, twin, false, Other::OpenConfirm, Verdict::DropOther),
            ("same id, larger AS is ours",   twin, low, true,  Other::OpenConfirm, Verdict::DropOther),
            ("other waits for its OPEN",     low, high, true,  Other::OpenSent { fresh: true }, Verdict::Wait),
            ("other waits, and is to go",    low, high, false, Other::OpenSent { fresh: true }, Verdict::DropOther),
            ("other has waited long",        low, high, true,  Other::OpenSent { fresh: false }, Verdict::Both),
            ("established stays",            low, high, false, Other::Established { graceful: false }, Verdict::DropNew),
            ("a restarted neighbor is back", high, low, false, Other::Established { graceful: true }, Verdict::ReplaceLater),
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
