//! The TTL of what a directly connected neighbor sends: TTL security (RFC 5082) where the neighbor
//! offers it, and connections that a router forwarded.
//!
//! A router lowers the TTL of what it forwards, so only a directly connected sender reaches us with
//! TTL 255. Most switches send BGP packets with TTL 1 unless they are configured for TTL security,
//! and requiring 255 of those would end their sessions. So the TTL required of a neighbor whose
//! `ttl-security` is `where-offered` follows from the TTL it sent:
//!
//! | connection | its TTL | what is required of it |
//! | --- | --- | --- |
//! | accepted | SYN with 255 | 255, from then on |
//! | accepted | SYN with 1 or 64, as most stacks send | nothing: no TTL security |
//! | accepted | SYN with another TTL | refused: a router, or a container's host, forwarded it |
//! | outgoing | unknown | 255; nothing if not established within [`OFFER_TIMEOUT`] |
//!
//! An outgoing connection loses nothing meanwhile: the kernel drops the segments, and the neighbor
//! sends them again. Once a session was established with 255, 255 is required of every connection,
//! until the link to the neighbor is lost, the neighbor leaves the configuration, or an operator
//! resets or disables it.
//!
//! What this does not stop: a sender behind the neighbor that chooses its TTL such that 1 arrives
//! here takes the place of a neighbor without TTL security. A password, or TTL security at the
//! neighbor, does.

use std::time::{Duration, Instant};

use super::{Conn, Output, Session, Severity, negotiate::Endpoints, timer::Timer};
use crate::bgp::peer::{Hops, PeerConfig, PeerKey};

/// How long a neighbor may take on an outgoing connection to establish a session with TTL 255
/// before it counts as one without TTL security: longer than connections in a rack ever take, and
/// short beside the retransmission that follows.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(1);

/// The TTL that only packets of a directly connected sender can arrive with (RFC 5082 §2.1).
const MAX_TTL: u8 = 255;

/// Initial TTLs of operating systems and BGP implementations: no router has lowered them.
const INITIAL_TTLS: [u8; 3] = [1, 64, MAX_TTL];

/// What is known of one neighbor's TTL.
#[derive(Clone, Debug, Default)]
pub(super) struct Gtsm {
    offer: Offer,
    /// The connection that showed it.
    path: Option<Path>,
    /// Connections refused for their TTL.
    refused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Offer {
    #[default]
    Unknown,
    /// A session was established with TTL 255.
    Yes,
    /// An outgoing connection was established only when 255 was no longer required.
    No,
}

/// The ends of a connection, and the link between them in its generation.
#[derive(Clone, Copy, Debug)]
struct Path {
    ends: Endpoints,
    link: Option<(u32, u32)>,
}

impl Gtsm {
    /// The neighbor may be another one from now on.
    pub(super) fn forget(&mut self) {
        (self.offer, self.path) = (Offer::Unknown, None);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Why a neighbor that had TTL security may be silent.
    pub(super) fn hint(&self, config: &PeerConfig) -> Option<String> {
        let pinned = self.offer == Offer::Yes && config.hops == Hops::SecurityWhereOffered;
        pinned.then(|| {
            let key = &config.key;
            format!(
                "its packets had TTL 255 before, and only such are accepted: if the neighbor was replaced or its TTL \
                 security removed, run `routelet neighbor reset {key}`"
            )
        })
    }

    /// Whether 255 is to be required of a new connection.
    fn requires(&self, outgoing: bool, ttl: Option<u8>) -> bool {
        match self.offer {
            Offer::Yes => true,
            Offer::Unknown if outgoing => true,
            Offer::Unknown | Offer::No => ttl == Some(MAX_TTL),
        }
    }

    /// Whether an accepted connection whose SYN came with `ttl` may go on.
    fn admits(&self, ttl: u8) -> bool {
        ttl == MAX_TTL || self.offer != Offer::Yes && INITIAL_TTLS.contains(&ttl)
    }
}

/// Whether a SYN with `ttl` was forwarded, beside an established session of the same neighbor: that
/// one's SYN, where it was accepted, shows with which TTL the neighbor's own packets arrive.
fn is_forwarded(ttl: u8, established: Option<u8>) -> bool {
    let lowered = !INITIAL_TTLS.contains(&ttl);
    established.map_or(lowered, |usual| ttl < usual || lowered && ttl != usual)
}

/// Why an accepted connection does not come from the neighbor itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DistanceError {
    /// The neighbor sent with 255 before.
    #[error("refused a connection from {key} with TTL {ttl}: {hint}")]
    Lowered { key: PeerKey, ttl: u8, hint: String },
    #[error(
        "refused a connection from {key} with TTL {ttl}: a directly connected neighbor sends with 255, 1 or 64, so it \
         was forwarded; if the neighbor has multihop, set `multihop` here, or `ttl-security = 0`"
    )]
    Forwarded { key: PeerKey, ttl: u8 },
    #[error(
        "refused a second connection from {key} with TTL {ttl}: it was forwarded, and the established session is with \
         a directly connected neighbor; a container behind the neighbor may have its address"
    )]
    Second { key: PeerKey, ttl: u8 },
}

impl Session {
    /// Whether an accepted connection comes from the neighbor itself, as far as its TTL shows.
    ///
    /// # Errors
    ///
    /// Why not, for the operator.
    pub(super) fn check_distance(&self, ends: &Endpoints) -> Result<(), DistanceError> {
        let (Some(ttl), key) = (ends.ttl, &self.config.key) else { return Ok(()) };
        if self.config.hops == Hops::SecurityWhereOffered && !self.gtsm.admits(ttl) {
            let key = key.clone();
            return Err(match self.gtsm.hint(&self.config) {
                Some(hint) => DistanceError::Lowered { key, ttl, hint },
                None => DistanceError::Forwarded { key, ttl },
            });
        }
        let established = self.established().map(|c| c.ends.ttl);
        match established {
            Some(usual) if self.config.is_on_link() && is_forwarded(ttl, usual) => {
                Err(DistanceError::Second { key: key.clone(), ttl })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a refused connection, and logs it once for each reason.
    pub(super) fn refused_distance(&mut self, now: Instant, error: &DistanceError) {
        let why = error.to_string();
        self.gtsm.refused += 1;
        let Some(established) = self.established().map(|c| c.id) else { return self.report_failure(why) };
        let severity = if self.gtsm.refused == 1 { Severity::Warn } else { Severity::Debug };
        self.event(severity, "connection refused for its TTL", Some(why));
        // If the neighbor did restart, this detects at once that the old connection is dead.
        self.keepalive(now, established);
    }

    /// A connection begins: what is required of its segments.
    pub(super) fn require_ttl(&mut self, now: Instant, conn: Conn) {
        if self.config.hops != Hops::SecurityWhereOffered {
            return;
        }
        let gtsm = self.gtsm.clone();
        let Some(c) = self.connection(conn) else { return };
        if !gtsm.requires(c.outgoing, c.ends.ttl) {
            return;
        }
        c.secured = true;
        if gtsm.offer != Offer::Yes {
            c.timers.set(Timer::TtlSecurity, now + OFFER_TIMEOUT);
        }
        self.out.push_back(Output::LeastTtl(conn, MAX_TTL));
    }

    /// No session with TTL 255 in time: what the neighbor sends again is taken as it is.
    pub(super) fn ttl_not_offered(&mut self, conn: Conn) {
        let Some(c) = self.connection(conn).filter(|c| c.secured && !c.is_established()) else { return };
        c.secured = false;
        self.out.push_back(Output::LeastTtl(conn, 0));
    }

    /// The session is established.
    pub(super) fn learn_ttl(&mut self, conn: Conn) {
        if self.config.hops != Hops::SecurityWhereOffered {
            return;
        }
        let Some(c) = self.connection(conn) else { return };
        let (secured, outgoing, ends) = (c.secured, c.outgoing, c.ends);
        // An accepted connection without 255 shows nothing: it need not be the neighbor's own.
        if secured || outgoing {
            self.gtsm.offer = if secured { Offer::Yes } else { Offer::No };
            self.gtsm.path = Some(Path { ends, link: self.link_of(&ends) });
        }
    }

    /// Another device may be at the other end once the link was lost, or where another link leads
    /// to the neighbor.
    pub(super) fn check_pinned_link(&mut self) {
        let lost = |path: Path| path.link.is_some() && self.link_of(&path.ends) != path.link;
        if self.gtsm.path.is_some_and(lost) {
            self.gtsm.forget();
        }
    }

    fn link_of(&self, ends: &Endpoints) -> Option<(u32, u32)> {
        let found = (ends.ifindex != 0).then_some(ends.ifindex);
        let ifindex = found.or_else(|| self.links.towards(ends.local.ip(), ends.remote.ip()))?;
        Some((ifindex, self.links.links.get(&ifindex)?.generation))
    }

    /// What is in force, as `show neighbor` has it.
    pub(super) fn ttl_security(&self) -> Option<&'static str> {
        match self.config.hops {
            Hops::Direct | Hops::Multihop(_) => None,
            Hops::Security(_) => Some("enforced"),
            Hops::SecurityWhereOffered => match (self.established().map(|c| c.secured), self.gtsm.offer) {
                (Some(true), _) | (None, Offer::Yes) => Some("enforced"),
                (Some(false), _) | (None, Offer::No) => Some("not offered by the neighbor"),
                (None, Offer::Unknown) => None,
            },
        }
    }

    /// What the operator can do about a neighbor without TTL security.
    pub(super) fn ttl_note(&self) -> Option<String> {
        let open = self.config.hops == Hops::SecurityWhereOffered
            && self.config.password.is_none()
            && self.established().is_some_and(|c| !c.secured);
        let key = &self.config.key;
        open.then(|| {
            format!(
                "the neighbor does not offer TTL security (RFC 5082), which keeps senders behind it from opening sessions \
                 in its name: configure it there for the address of this host (FRR: `neighbor HOST ttl-security hops 1`, \
                 EOS: `neighbor HOST ttl maximum-hops 1`, BIRD: `ttl security on`), then run \
                 `routelet neighbor reset {key}`; or set a password at both ends"
            )
        })
    }
}
