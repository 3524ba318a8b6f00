//! Attributes wrong TCP MD5 signatures (RFC 2385) to neighbors. The kernel drops such segments
//! without notifying either end, and counts them for all connections of the host together. The
//! three counters distinguish neighbors with a password from those without, and a neighbor that
//! responds is excluded. If several are left, all of them are reported: a guess would send the
//! operator to the wrong device.

use std::collections::BTreeMap;

/// Segments that the kernel dropped (counters TCPMD5NotFound, TCPMD5Unexpected and TCPMD5Failure).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Without a signature, from an address with a password here.
    pub unsigned: u64,
    /// With a signature, from an address without a password here.
    pub unexpected: u64,
    /// With a signature made with another password.
    pub wrong: u64,
}

impl Dropped {
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            unsigned: self.unsigned.saturating_sub(before.unsigned),
            unexpected: self.unexpected.saturating_sub(before.unexpected),
            wrong: self.wrong.saturating_sub(before.wrong),
        }
    }

    /// Segments that a neighbor with or without a password here can have caused.
    fn of(self, has_password: bool) -> u64 {
        if has_password { self.unsigned + self.wrong } else { self.unexpected }
    }
}

/// A neighbor, or all that may connect from a listen-range, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub has_password: bool,
    /// It has a session, or its failure is not a timeout.
    pub replies: bool,
}

/// Limit of other neighbors in one text.
const MAX_LISTED: usize = 3;

/// The text about a neighbor that did not respond while the kernel dropped segments; `None` if it
/// cannot have sent them.
pub fn accuse(key: &str, dropped: Dropped, neighbors: &BTreeMap<String, Suspect>) -> Option<String> {
    let has_password = neighbors.get(key)?.has_password;
    let count = dropped.of(has_password);
    if count == 0 {
        return None;
    }
    let remedy = if has_password { "compare `password` at both ends" } else { "set `password`" };
    let like =
        |(other, s): &(&String, &Suspect)| *other != key && s.has_password == has_password && !s.replies;
    let mut others: Vec<_> = neighbors.iter().filter(like).map(|(other, _)| other.as_str()).collect();
    let segments = if count == 1 { "segment" } else { "segments" };
    if others.is_empty() {
        return Some(format!(
            "no reply from {key}, and the kernel dropped {count} {segments} for a TCP MD5 signature: {remedy}"
        ));
    }
    let more = others.len().saturating_sub(MAX_LISTED);
    others.truncate(MAX_LISTED);
    let more = if more > 0 { format!(" or {more} more") } else { String::new() };
    Some(format!(
        "no reply from {key}; the kernel dropped {count} {segments} for a TCP MD5 signature, from this neighbor or from {}{more}, \
         which do not reply either; if it is this neighbor, {remedy}",
        others.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbors(list: &[(&str, bool, bool)]) -> BTreeMap<String, Suspect> {
        let one = |(key, has_password, replies): &(&str, bool, bool)| {
            ((*key).to_owned(), Suspect { has_password: *has_password, replies: *replies })
        };
        list.iter().map(one).collect()
    }

    fn text(key: &str, dropped: Dropped, list: &[(&str, bool, bool)]) -> String {
        accuse(key, dropped, &neighbors(list)).unwrap_or_default()
    }

    /// Seen: a neighbor that was switched off was reported to need a password, since another one's
    /// was wrong.
    #[test]
    fn a_wrong_signature_is_attributed_to_the_neighbor_that_can_have_made_it() {
        let (wrong, unsigned, unexpected) = (
            Dropped { wrong: 2, ..Dropped::default() },
            Dropped { unsigned: 2, ..Dropped::default() },
            Dropped { unexpected: 2, ..Dropped::default() },
        );
        let two = [("10.0.0.1", true, false), ("203.0.113.9", false, false)];
        for dropped in [wrong, unsigned] {
            assert!(text("10.0.0.1", dropped, &two).contains("compare `password`"));
            assert_eq!(text("203.0.113.9", dropped, &two), "", "it has no password to be wrong");
        }
        assert_eq!(text("10.0.0.1", unexpected, &two), "");
        assert!(text("203.0.113.9", unexpected, &two).ends_with("set `password`"));
        assert_eq!(text("10.0.0.1", Dropped::default(), &two), "");
    }

    #[test]
    fn all_neighbors_without_a_session_are_named_and_no_others() {
        let wrong = Dropped { wrong: 1, ..Dropped::default() };
        let up = [("10.0.0.1", true, false), ("10.0.0.2", true, true)];
        assert_eq!(
            text("10.0.0.1", wrong, &up),
            "no reply from 10.0.0.1, and the kernel dropped 1 segment for a TCP MD5 signature: compare `password` at \
             both ends"
        );
        let both = [("10.0.0.1", true, false), ("10.0.0.2", true, false), ("10.0.0.3", false, false)];
        for (key, other) in [("10.0.0.1", "from 10.0.0.2,"), ("10.0.0.2", "from 10.0.0.1,")] {
            assert!(text(key, wrong, &both).contains(other), "{}", text(key, wrong, &both));
        }
        let many: Vec<_> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
            .map(|a| (a, true, false))
            .to_vec();
        assert!(text("10.0.0.1", wrong, &many).contains("10.0.0.2 or 10.0.0.3 or 10.0.0.4 or 2 more"));
    }

    #[test]
    fn counters_grow_and_never_shrink() {
        let a = Dropped { unsigned: 5, unexpected: 1, wrong: 0 };
        let b = Dropped { unsigned: 7, unexpected: 0, wrong: 3 };
        assert_eq!(b.since(a), Dropped { unsigned: 2, unexpected: 0, wrong: 3 });
    }
}
