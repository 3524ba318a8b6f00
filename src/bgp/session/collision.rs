//! Two connections, one neighbor (RFC 4271 §6.8).

use crate::net::{Asn, RouterId};

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
