//! What happens to routes when sessions are established and closed: graceful restart, long-lived
//! graceful restart and enhanced route refresh (RFC 4724, RFC 8538, RFC 9494, RFC 7313).

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Rib,
    nexthop::Resolution,
    peers::{Peer, QUIET_TIME, Stale},
    table::{Path, PeerNo},
};
use crate::{
    bgp::{
        peer::{DownCause, Graceful, Negotiated},
        policy::Community,
    },
    net::{Family, Gateway, PerFamily, Phase, Reach, Reachable, Unresolved},
};

/// How long a neighbor may take to advertise its routes again before stale ones are removed: after
/// a restart, and during a refresh (the upper bound that RFC 4724 §4.2 and RFC 7313 §4.1 advise).
const STALE_REFRESH_TIMEOUT: Duration = Duration::from_secs(300);
/// The same if the session only moved to another address, when End-of-RIB may not follow.
const MOVED_STALE_TIME: Duration = Duration::from_secs(10);

impl Rib {
    pub(super) fn up(&mut self, now: Instant, no: PeerNo, session: Arc<Negotiated>) {
        let link = self.link_of(&session);
        let Some(peer) = self.peer_mut(no) else { return };
        let moved = peer.moved;
        peer.link = link;
        (peer.up, peer.over_limit, peer.end_of_rib, peer.warned) =
            (true, false, PerFamily::default(), PerFamily::default());
        (peer.last_update, peer.path_limit_warned) = (now, false);
        peer.phase = peer.phase.max(Phase::Up);
        peer.session = Some(session.clone());
        self.convergence_changed = true;
        for family in Family::ALL {
            let Some(stale) = self.peer(no).and_then(|p| p.stale[family]) else { continue };
            // RFC 4724 §4.2: without its forwarding bit the neighbor has not kept the family.
            let kept =
                session.has(family) && (moved || session.graceful.as_ref().is_some_and(|g| keeps(g, family)));
            let repeat = if session.graceful.is_some() { STALE_REFRESH_TIMEOUT } else { MOVED_STALE_TIME };
            match kept {
                // RFC 9494 §4.2: the timer runs on until End-of-RIB.
                true if stale.long_lived => {}
                true => {
                    self.set_stale(no, family, Some(Stale { until: now + repeat, long_lived: false }));
                }
                false => self.sweep(no, family),
            }
        }
        self.regroup(no);
    }

    pub(super) fn refused(&mut self, no: PeerNo) {
        let Some(peer) = self.peer_mut(no) else { return };
        if peer.phase == Phase::Waiting {
            peer.phase = Phase::Refused;
            self.convergence_changed = true;
        }
    }

    pub(super) fn down(&mut self, now: Instant, no: PeerNo, cause: DownCause) {
        for family in Family::ALL {
            self.leave_group(no, family);
        }
        let Some(peer) = self.peer_mut(no) else { return };
        let was_up = mem::replace(&mut peer.up, false);
        peer.end_of_rib_deferred = PerFamily::default();
        let graceful = helper_capability(peer, cause);
        let again = peer.moved;
        peer.moved |= cause == DownCause::Moved && was_up;
        for family in Family::ALL {
            let kept =
                was_up && graceful.as_ref().is_some_and(|g| g.families.iter().any(|(f, _)| *f == family));
            match &graceful {
                Some(g) if kept => {
                    let running = self.peer(no).and_then(|p| p.stale[family]);
                    if let Some(running) = running.filter(|s| s.long_lived) {
                        // RFC 9494 §4.2: closed again before End-of-RIB. Routes that it advertised
                        // meanwhile become long-lived stale with the others.
                        self.mark_stale(no, family);
                        self.restart_time_expired(now, no, family, Stale { long_lived: false, ..running });
                        self.set_stale(no, family, Some(running));
                        continue;
                    }
                    // RFC 4724 §4.2: routes that were stale already are removed. A session that
                    // moved to another address is no restart of the neighbor.
                    if !again {
                        self.sweep(no, family);
                    }
                    self.mark_stale(no, family);
                    let until = now + Duration::from_secs(g.restart_time.into());
                    self.set_stale(no, family, Some(Stale { until, long_lived: false }));
                    self.drop_unreached(no, family, cause);
                }
                // It was down already: the timer runs on, unless the operator closed the session.
                _ if !was_up && cause != DownCause::Administrative => {}
                _ => self.flush(no, family),
            }
        }
    }

    /// RFC 4724 §4.2: if layer 2 shows that forwarding state was not preserved, stale routes are
    /// removed.
    fn drop_unreached(&mut self, no: PeerNo, family: Family, cause: DownCause) {
        let lost = match cause {
            DownCause::LinkLost { ifindex } => vec![ifindex],
            _ => Vec::new(),
        };
        let reachable = self.reachable.clone();
        self.lose_links(&[no], family, &lost, &reachable);
    }

    /// Interfaces lost their link, whether they are back or not: stale routes over them are
    /// removed, or become long-lived stale (RFC 9494) if that was negotiated.
    pub(super) fn links_lost(&mut self, lost: &[u32], before: &Reachable) {
        for family in Family::ALL {
            let stale = |no: &PeerNo| self.peer(*no).is_some_and(|p| p.stale[family].is_some() && !p.up);
            let waiting: Vec<PeerNo> = (1..self.peers.len() as PeerNo).filter(stale).collect();
            if !waiting.is_empty() {
                self.lose_links(&waiting, family, lost, before);
            }
        }
    }

    fn lose_links(&mut self, waiting: &[PeerNo], family: Family, lost: &[u32], before: &Reachable) {
        let long: Vec<PeerNo> =
            waiting.iter().copied().filter(|no| self.has_long_lived(*no, family)).collect();
        for route in self.tables[family].numbers() {
            let goes = |p: &Path| {
                waiting.contains(&p.peer)
                    && p.has(Path::STALE)
                    && (p.has(Path::HELD) || self.is_lost(p, lost, before))
            };
            let paths = self.tables[family].get(route).paths().iter();
            let gone: Vec<_> = paths.filter(|p| goes(p)).map(|p| (p.peer, p.path_id)).collect();
            if gone.is_empty() {
                continue;
            }
            let is_gone = |p: &Path| gone.contains(&(p.peer, p.path_id));
            let unwanted = |p: &Path| self.attrs.get(p.effective).communities.contains(&Community::NO_LLGR);
            let paths = self.tables[family].get(route).paths().iter();
            let stays = |p: &&Path| is_gone(p) && long.contains(&p.peer) && !unwanted(p);
            let stay: Vec<_> = paths.filter(stays).map(|p| (p.peer, p.path_id)).collect();
            self.remove_paths(family, route, |p| is_gone(p) && !stay.contains(&(p.peer, p.path_id)));
            let paths = self.tables[family].get_mut(route).paths_mut().iter_mut();
            for path in paths.filter(|p| is_gone(p)) {
                path.bits = path.bits & !Path::HELD | Path::LONG_LIVED;
            }
            self.mark_dirty(family, route);
        }
    }

    fn has_long_lived(&self, no: PeerNo, family: Family) -> bool {
        self.peer(no).is_some_and(|p| long_lived(p, family).is_some())
    }

    /// Whether a path leads over one of the lost links, or over a link that is down now.
    fn is_lost(&self, path: &Path, lost: &[u32], before: &Reachable) -> bool {
        let Some(hop) = self.attrs.hop(path.effective).map(|hop| self.hops.get(hop)) else { return false };
        hop.resolution == Resolution::No(Unresolved::LinkDown)
            || interface(hop.gateway, before).is_some_and(|ifindex| lost.contains(&ifindex))
    }

    /// The link towards a neighbor was lost: paths over it are not used until a message arrives
    /// from the neighbor.
    pub(super) fn hold(&mut self, no: PeerNo, ifindex: Option<u32>) {
        let reachable = self.reachable.clone();
        for family in Family::ALL {
            for route in self.tables[family].numbers() {
                let over = |p: &Path| {
                    let hop = self.attrs.hop(p.effective).map(|hop| self.hops.get(hop));
                    hop.is_some_and(|hop| {
                        hop.resolution == Resolution::No(Unresolved::LinkDown)
                            || interface(hop.gateway, &reachable) == ifindex
                    })
                };
                let entry = self.tables[family].get(route);
                let held = |p: &Path| ifindex.is_some() && (p.has(Path::HELD) || over(p));
                let changes: Vec<_> =
                    entry.paths().iter().map(|p| p.peer == no && held(p) != p.has(Path::HELD)).collect();
                if !changes.contains(&true) {
                    continue;
                }
                let paths = self.tables[family].get_mut(route).paths_mut().iter_mut();
                paths.zip(changes).filter(|(_, changes)| *changes).for_each(|(p, _)| p.bits ^= Path::HELD);
                self.mark_dirty(family, route);
            }
        }
    }

    /// End-of-RIB (RFC 4724 §2): the initial exchange of a family is complete.
    pub(super) fn end_of_rib(&mut self, no: PeerNo, family: Family) {
        let Some(peer) = self.peer_mut(no) else { return };
        peer.end_of_rib[family] = true;
        peer.moved &= !peer.all_ended();
        if peer.all_ended() && mem::replace(&mut peer.phase, Phase::Converged) != Phase::Converged {
            self.convergence_changed = true;
        }
        self.sweep(no, family);
    }

    /// Whether End-of-RIB is deferred (RFC 4724 §4.1): after a restart until End-of-RIB was
    /// received from all neighbors, or until the restart counts as over. On our End-of-RIB
    /// neighbors remove the routes that we have not advertised again. Routes themselves are not
    /// deferred.
    pub(super) fn is_deferred(&self, family: Family) -> bool {
        self.global.restarting && self.peers.iter().flatten().any(|p| p.defers_end_of_rib(family))
    }

    /// Sends deferred End-of-RIBs.
    pub(super) fn end_deferral(&mut self) {
        for family in Family::ALL {
            if !self.peers.iter().flatten().any(|p| p.end_of_rib_deferred[family]) || self.is_deferred(family)
            {
                continue;
            }
            for no in 1..self.peers.len() as PeerNo {
                let Some(peer) = self.peer_mut(no).filter(|p| p.end_of_rib_deferred[family]) else {
                    continue;
                };
                peer.end_of_rib_deferred[family] = false;
                let group = peer.groups[family];
                if let Some(group) = group.and_then(|n| self.groups[family][n].as_mut()) {
                    group.queue_end_of_rib(no);
                }
            }
        }
    }

    /// BoRR (RFC 7313 §4.1): all routes are advertised again from here to EoRR.
    pub(super) fn begin_refresh(&mut self, now: Instant, no: PeerNo, family: Family) {
        self.mark_stale(no, family);
        self.set_stale(no, family, Some(Stale { until: now + STALE_REFRESH_TIMEOUT, long_lived: false }));
    }

    /// Removes the stale paths of a neighbor.
    pub(super) fn sweep(&mut self, no: PeerNo, family: Family) {
        let waited = self.peer_mut(no).and_then(|p| p.stale[family].take());
        if waited.is_some() {
            self.remove_paths_of_peer(no, family, |p| p.has(Path::STALE));
        }
    }

    pub(super) fn flush(&mut self, no: PeerNo, family: Family) {
        self.set_stale(no, family, None);
        if self.peer(no).is_some_and(|p| p.received[family] > 0) {
            self.remove_paths_of_peer(no, family, |_| true);
        }
    }

    fn remove_paths_of_peer(&mut self, no: PeerNo, family: Family, goes: impl Fn(&Path) -> bool) {
        for route in self.tables[family].numbers() {
            let entry = self.tables[family].get(route);
            if entry.paths().iter().any(|p| p.peer == no && goes(p)) {
                self.remove_paths(family, route, |p| p.peer == no && goes(p));
            }
        }
    }

    fn mark_stale(&mut self, no: PeerNo, family: Family) {
        let table = &mut self.tables[family];
        let mut marked = 0;
        for route in table.numbers() {
            for path in table.get_mut(route).paths_mut().iter_mut().filter(|p| p.peer == no) {
                path.bits |= Path::STALE;
                marked += 1;
            }
        }
        if let Some(peer) = self.peer_mut(no) {
            peer.stale_routes[family] = marked;
        }
    }

    fn set_stale(&mut self, no: PeerNo, family: Family, stale: Option<Stale>) {
        if let Some(peer) = self.peer_mut(no) {
            peer.stale[family] = stale;
        }
    }

    /// Handles timers that have expired.
    pub(super) fn timeout(&mut self, now: Instant) {
        for no in 1..self.peers.len() as PeerNo {
            let Some(peer) = self.peer_mut(no).filter(|p| p.deadline().is_some_and(|d| d <= now)) else {
                continue;
            };
            peer.foreign.timeout(now);
            if peer.up && peer.phase == Phase::Up && peer.last_update + QUIET_TIME <= now {
                peer.phase = Phase::Converged;
                self.convergence_changed = true;
            }
            for family in Family::ALL {
                let stale = self.peer(no).and_then(|p| p.stale[family]);
                if let Some(stale) = stale.filter(|s| s.until <= now) {
                    self.restart_time_expired(now, no, family, stale);
                }
            }
        }
    }

    /// RFC 9494 §4.2: after the restart time stale paths may stay on as the last choice; else they
    /// go.
    fn restart_time_expired(&mut self, now: Instant, no: PeerNo, family: Family, stale: Stale) {
        let long = self.peer(no).filter(|p| !p.up && !stale.long_lived).and_then(|p| long_lived(p, family));
        let Some(time) = long else { return self.sweep(no, family) };
        let unwanted =
            |attrs: &crate::bgp::wire::attr::Attrs| attrs.communities.contains(&Community::NO_LLGR);
        for route in self.tables[family].numbers() {
            let theirs = |p: &&Path| p.peer == no && p.has(Path::STALE);
            let paths = self.tables[family].get(route).paths().iter().filter(theirs);
            let (go, stay): (Vec<_>, Vec<_>) =
                paths.map(|p| p.effective).partition(|a| unwanted(self.attrs.get(*a)));
            if !go.is_empty() {
                self.remove_paths(family, route, |p| theirs(&p) && go.contains(&p.effective));
            }
            if !stay.is_empty() {
                let paths = self.tables[family].get_mut(route).paths_mut().iter_mut();
                paths.filter(|p| theirs(&&**p)).for_each(|p| p.bits |= Path::LONG_LIVED);
                self.mark_dirty(family, route);
            }
        }
        self.set_stale(no, family, Some(Stale { until: now + time, long_lived: true }));
    }
}

/// The neighbor's graceful restart capability, if its routes are kept after the session was closed
/// for this cause (RFC 4724 §4.2, RFC 8538 §4).
fn helper_capability(peer: &Peer, cause: DownCause) -> Option<Graceful> {
    if cause == DownCause::Moved {
        let families = peer.session.as_ref()?.families.iter().map(|f| (*f, true)).collect();
        return Some(Graceful {
            restart_time: MOVED_STALE_TIME.as_secs() as u16,
            families,
            ..Graceful::default()
        });
    }
    let session = peer.session.as_ref()?;
    session.graceful.clone().filter(|_| session.helps(&peer.config, cause))
}

/// The interface of a directly connected next hop.
fn interface(gateway: Gateway, reachable: &Reachable) -> Option<u32> {
    match (gateway.ifindex, reachable.lookup(gateway.addr)) {
        (0, Reach::Connected { ifindex }) => Some(ifindex),
        (0, _) => None,
        (ifindex, _) => Some(ifindex),
    }
}

fn keeps(graceful: &Graceful, family: Family) -> bool {
    graceful.families.iter().any(|(f, forwarding)| *f == family && *forwarding)
}

/// How long paths stay after the restart time: the neighbor's value up to
/// `long-lived-stale-time`.
fn long_lived(peer: &Peer, family: Family) -> Option<Duration> {
    let graceful = peer.session.as_ref()?.graceful.as_ref()?;
    let (_, seconds, _) = graceful.long_lived.iter().find(|(f, ..)| *f == family)?;
    let seconds = (*seconds).min(peer.config.long_lived_stale_time);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
