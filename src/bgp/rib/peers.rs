//! State of a neighbor in the rib.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{foreign::Foreign, import::Refused, memory::Growth, nexthop::OnLink, share::Share};
use crate::{
    bgp::{
        peer::{Negotiated, PeerConfig, PeerId},
        policy::Hits,
    },
    net::{Family, PerFamily, Phase},
};

/// Time without UPDATEs after which the initial exchange counts as complete if the neighbor sends
/// no End-of-RIB.
pub(super) const QUIET_TIME: Duration = Duration::from_secs(5);

/// One neighbor: its settings, what was negotiated, and the state of its routes.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    /// The present session, or the last one while routes of it are left.
    pub(super) session: Option<Arc<Negotiated>>,
    pub(super) up: bool,
    /// The link of the session.
    pub(super) link: OnLink,
    /// The update group.
    pub(super) groups: PerFamily<Option<usize>>,
    pub(super) received: PerFamily<u32>,
    pub(super) accepted: PerFamily<u32>,
    /// Refused routes that the Node may not advertise.
    pub(super) foreign: Foreign,
    /// Its paths by import result ([`Refused::code`], 0 if accepted).
    pub(super) verdicts: [u32; Refused::CODES],
    /// Very short prefixes, which may cover a limited part of the address space.
    pub(super) shares: PerFamily<Share>,
    /// A limit was exceeded: nothing more is accepted from this session.
    pub(super) over_limit: bool,
    /// The last session was closed because the next one replaced it.
    pub(super) moved: bool,
    pub(super) warned: PerFamily<bool>,
    /// The warning about too many paths to one prefix was logged.
    pub(super) path_limit_warned: bool,
    pub(super) end_of_rib: PerFamily<bool>,
    /// Our End-of-RIB waits for the End-of-RIB of other neighbors.
    pub(super) end_of_rib_deferred: PerFamily<bool>,
    pub(super) phase: Phase,
    pub(super) last_update: Instant,
    /// The timer of stale paths.
    pub(super) stale: PerFamily<Option<Stale>>,
    /// How many of its paths are stale.
    pub(super) stale_routes: PerFamily<u32>,
    /// Matches of the statements of its import policies.
    pub(super) import_hits: Hits,
    /// Earlier samples of the octets that its routes take.
    pub(super) growth: Growth,
}

/// The timer of stale paths, which are removed unless they are advertised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) until: Instant,
    /// RFC 9494 §4.2.
    pub(super) long_lived: bool,
}

impl Peer {
    pub(super) fn new(id: PeerId, config: Arc<PeerConfig>, now: Instant) -> Self {
        Self {
            id,
            session: None,
            up: false,
            link: OnLink::default(),
            groups: PerFamily::default(),
            received: PerFamily::default(),
            accepted: PerFamily::default(),
            foreign: Foreign::default(),
            verdicts: [0; Refused::CODES],
            shares: PerFamily::of(Share::new),
            over_limit: false,
            moved: false,
            warned: PerFamily::default(),
            path_limit_warned: false,
            end_of_rib: PerFamily::default(),
            end_of_rib_deferred: PerFamily::default(),
            phase: Phase::Waiting,
            last_update: now,
            stale: PerFamily::default(),
            stale_routes: PerFamily::default(),
            import_hits: Hits::new(&config.import),
            growth: Growth::default(),
            config,
        }
    }

    /// The next timer: end of the initial exchange, of stale paths, or of the grace time of refused
    /// routes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let quiet = (self.up && self.phase == Phase::Up).then_some(self.last_update + QUIET_TIME);
        let stale = self.stale.iter().flatten().map(|s| s.until);
        quiet.into_iter().chain(stale).chain(self.foreign.deadline()).min()
    }

    /// Updates the counters after the import result of a path changed from `before` to `after`;
    /// `None`: the path did not exist.
    pub(super) fn count(&mut self, now: Instant, family: Family, before: Option<u8>, after: Option<u8>) {
        let difference = |counts: fn(u8) -> bool| {
            i32::from(after.is_some_and(counts)) - i32::from(before.is_some_and(counts))
        };
        self.received[family] = self.received[family].saturating_add_signed(difference(|_| true));
        self.accepted[family] =
            self.accepted[family].saturating_add_signed(difference(|verdict| verdict == 0));
        for (verdict, difference) in [(before, -1), (after, 1)] {
            if let Some(counter) = verdict.and_then(|v| self.verdicts.get_mut(usize::from(v))) {
                *counter = counter.saturating_add_signed(difference);
            }
        }
        let foreign = difference(|verdict| verdict == Refused::NotOfNode.code());
        if foreign != 0 {
            self.foreign.count(now, family, foreign);
        }
    }

    /// How many of its paths are refused for this reason.
    pub(super) fn refused(&self, why: Refused) -> u32 {
        self.verdicts.get(usize::from(why.code())).copied().unwrap_or(0)
    }

    /// Whether our End-of-RIB after a restart has to wait for this neighbor (RFC 4724 §4.1): it is
    /// up or not connected yet, has not sent End-of-RIB, and has not restarted itself.
    pub(super) fn defers_end_of_rib(&self, family: Family) -> bool {
        if self.config.disabled || self.phase == Phase::Converged {
            return false;
        }
        match self.session.as_ref().filter(|_| self.up) {
            None => self.phase < Phase::Up,
            Some(session) => {
                let ends = session.graceful.as_ref().is_some_and(|g| !g.restarting);
                session.has(family) && ends && !self.end_of_rib[family]
            }
        }
    }

    /// The name in views and logs.
    pub(super) fn name(&self) -> String {
        self.config.key.to_string()
    }

    pub(super) fn is_internal(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.is_ibgp())
    }

    /// Whether it is a second BGP speaker on this host.
    pub(super) fn is_on_host(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.is_on_host())
    }

    pub(super) fn router_id(&self) -> Ipv4Addr {
        self.session.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |s| s.remote_id)
    }

    pub(super) fn remote_addr(&self) -> IpAddr {
        self.session.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |s| s.remote_addr)
    }

    /// Whether End-of-RIB was received for every family of the session.
    pub(super) fn all_ended(&self) -> bool {
        let families = self.session.as_ref().map_or(&[][..], |s| &s.families);
        families.iter().all(|family| self.end_of_rib[*family])
    }
}
