//! Adj-RIB-In: applies UPDATEs, counts paths, enforces their limits.

use std::{borrow::Cow, mem, sync::Arc, time::Instant};

use super::{
    Event, GONE, MAX_PATHS_PER_PEER, Rib,
    attrs::AttrsId,
    import::{Refused, Speaker},
    nexthop,
    table::{OWN, Path, PeerNo, RouteNo},
};
use crate::{
    bgp::{
        peer::MaxPrefixesAction,
        wire::{
            attr::Attrs,
            update::{Nlri, Update},
        },
    },
    net::{Family, Prefix},
};

impl Rib {
    pub(super) fn update(&mut self, now: Instant, no: PeerNo, update: &Update) {
        let since = self.clock(now);
        self.sample_growth(now);
        let Some(peer) = self.peer_mut(no).filter(|p| p.up && !p.over_limit) else { return };
        let empty = update.advertised.is_empty() && update.withdrawn.is_empty();
        if !empty {
            peer.last_update = now;
        }
        let (Some(session), config) = (peer.session.clone(), peer.config.clone()) else { return };
        for block in &update.withdrawn {
            block.iter().for_each(|nlri| self.withdraw(no, nlri));
        }
        let global = self.global.clone();
        let from = Speaker { config: &config, session: &session, global: &global };
        for (attrs, block) in &update.advertised {
            let received = self.intern(attrs, no);
            let arrived = from.attributes(attrs);
            for nlri in block.iter() {
                self.announce(no, &from, nlri, received, &arrived, since);
                if self.peer(no).is_none_or(|p| p.over_limit) {
                    break;
                }
            }
            self.attrs.release(received);
            self.enforce_memory_budget();
            if self.peer(no).is_none_or(|p| p.over_limit) {
                return;
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(no, family);
        }
    }

    pub(super) fn intern(&mut self, attrs: &Arc<Attrs>, from: PeerNo) -> AttrsId {
        let link = self.peer(from).map(|p| p.link).unwrap_or_default();
        let ifindex = nexthop::interface(&attrs.next_hop, link, &self.reachable);
        self.attrs.intern(attrs, ifindex, from)
    }

    /// Applies import to a received path: the effective attributes with a reference, and the code
    /// of the refusal or 0.
    pub(super) fn imported(
        &mut self,
        no: PeerNo,
        from: &Speaker<'_>,
        prefix: Prefix,
        received: AttrsId,
        arrived: &Result<Cow<'_, Attrs>, Refused>,
    ) -> (AttrsId, u8) {
        let verdict = match arrived {
            Err(why) => Err(*why),
            Ok(attrs) => {
                let mut attrs = Cow::Borrowed(&**attrs);
                let hits = self.peer(no).map_or(&self.no_hits, |p| &p.import_hits);
                let accepted = from.prefix(prefix, &self.guard, &mut attrs, hits);
                accepted.map(|()| matches!(attrs, Cow::Owned(_)).then(|| attrs.into_owned()))
            }
        };
        match (verdict, arrived) {
            (Err(why), _) => (self.attrs.acquire(received), why.code()),
            (Ok(Some(changed)), _) => (self.intern(&Arc::new(changed), no), 0),
            (Ok(None), Ok(Cow::Owned(changed))) => (self.intern(&Arc::new(changed.clone()), no), 0),
            (Ok(None), _) => (self.attrs.acquire(received), 0),
        }
    }

    pub(super) fn announce(
        &mut self,
        no: PeerNo,
        from: &Speaker<'_>,
        nlri: Nlri,
        received: AttrsId,
        arrived: &Result<Cow<'_, Attrs>, Refused>,
        since: u32,
    ) {
        let family = nlri.prefix.family();
        let (effective, refused) = self.imported(no, from, nlri.prefix, received, arrived);
        let route = self.tables[family].entry(nlri.prefix);
        let before = self.tables[family].get_mut(route).find(no, nlri.path_id).map(|old| old.refused);
        if before.is_none()
            && (self.exceeds(no, family) || self.at_path_limit(no, family, route) || self.has_no_room(no))
        {
            self.attrs.release(effective);
            self.tables[family].vacate(route);
            return;
        }
        let refused = self.share_of(no, nlri.prefix, before, refused);
        let path = Path { peer: no, bits: 0, refused, path_id: nlri.path_id, received, effective, since };
        let entry = self.tables[family].get_mut(route);
        let Some(old) = entry.find(no, nlri.path_id) else {
            self.tables[family].push(route, path);
            self.attrs.acquire(received);
            self.count(no, family, None, Some(refused));
            self.mark_dirty(family, route);
            return;
        };
        let was_stale = old.has(Path::STALE);
        old.bits &= !Path::STALE;
        let same = (old.received, old.effective, old.refused) == (received, effective, refused);
        let is_same = same && !old.has(Path::LONG_LIVED);
        let before = *old;
        if !is_same {
            *old = Path { bits: old.bits & !Path::LONG_LIVED, ..path };
        }
        if was_stale {
            self.no_longer_stale(no, family);
        }
        if is_same {
            self.attrs.release(effective);
            return;
        }
        self.attrs.acquire(received);
        self.attrs.release(before.received);
        self.attrs.release(before.effective);
        self.count(no, family, Some(before.refused), Some(refused));
        self.mark_dirty(family, route);
    }

    fn no_longer_stale(&mut self, no: PeerNo, family: Family) {
        if let Some(peer) = self.peer_mut(no) {
            peer.stale_routes[family] = peer.stale_routes[family].saturating_sub(1);
        }
    }

    pub(super) fn withdraw(&mut self, no: PeerNo, nlri: Nlri) {
        let family = nlri.prefix.family();
        if let Some(route) = self.tables[family].find(nlri.prefix) {
            self.remove_paths(family, route, |p| p.peer == no && p.path_id == nlri.path_id);
        }
    }

    /// Removes the paths of a route that `goes` picks.
    pub(super) fn remove_paths(&mut self, family: Family, route: RouteNo, goes: impl FnMut(&Path) -> bool) {
        let mut gone: Vec<Path> = Vec::new();
        self.tables[family].extract(route, goes, |path| gone.push(path));
        if gone.is_empty() {
            return;
        }
        for path in gone {
            self.attrs.release(path.received);
            self.attrs.release(path.effective);
            self.count(path.peer, family, Some(path.refused), None);
            if path.has(Path::STALE) {
                self.no_longer_stale(path.peer, family);
            }
            if path.peer != OWN {
                let prefix = self.tables[family].prefix(route);
                self.share_of(path.peer, prefix, Some(path.refused), GONE);
            }
        }
        self.mark_dirty(family, route);
    }

    /// Updates the counters after the import result of a path changed from `before` to `after`;
    /// `None`: the path did not exist.
    pub(super) fn count(&mut self, no: PeerNo, family: Family, before: Option<u8>, after: Option<u8>) {
        let now = self.now;
        for (verdict, difference) in [(before, -1), (after, 1)] {
            if let Some(counter) = verdict.and_then(|v| self.refused[family].get_mut(usize::from(v))) {
                *counter = counter.saturating_add_signed(difference);
            }
        }
        if let Some(peer) = self.peer_mut(no) {
            peer.count(now, family, before, after);
        }
    }

    /// Whether one more prefix exceeds the neighbor's limit (RFC 4486 §3). Logs it once.
    fn exceeds(&mut self, no: PeerNo, family: Family) -> bool {
        let Some(peer) = self.peer_mut(no) else { return no != OWN };
        if peer.received[family] < peer.config.max_prefixes {
            return false;
        }
        let (neighbor, max) = (peer.name(), peer.config.max_prefixes);
        if peer.config.max_prefixes_action == MaxPrefixesAction::Warn {
            if !mem::replace(&mut peer.warned[family], true) {
                tracing::warn!(%neighbor, %family, max, "prefix limit exceeded; accepting further prefixes as max-prefixes-action is warn");
            }
            return false;
        }
        peer.over_limit = true;
        let id = peer.id;
        self.events.push((id, Event::MaxPrefixes { family }));
        tracing::warn!(%neighbor, %family, max, "prefix limit exceeded; restarting the session");
        true
    }

    /// Whether the memory budget is exceeded and this neighbor's session was chosen to be closed.
    fn has_no_room(&mut self, no: PeerNo) -> bool {
        self.enforce_memory_budget();
        self.peer(no).is_some_and(|p| p.over_limit)
    }

    /// Whether a neighbor already has [`MAX_PATHS_PER_PEER`] paths to a prefix. Logs it once.
    fn at_path_limit(&mut self, no: PeerNo, family: Family, route: RouteNo) -> bool {
        let paths = self.tables[family].get(route).paths();
        if paths.len() < MAX_PATHS_PER_PEER
            || paths.iter().filter(|p| p.peer == no).count() < MAX_PATHS_PER_PEER
        {
            return false;
        }
        let prefix = self.tables[family].prefix(route);
        if let Some(peer) = self.peer_mut(no)
            && !mem::replace(&mut peer.path_limit_warned, true)
        {
            let neighbor = peer.name();
            tracing::warn!(
                %neighbor, %prefix, max = MAX_PATHS_PER_PEER,
                "too many paths to one prefix, ignoring further ones; let the neighbor send fewer, \
                 or set add-paths = \"none\""
            );
        }
        true
    }

    /// Applies import again to the paths of one neighbor, or of all.
    pub(super) fn reapply_import_policy(&mut self, only: Option<PeerNo>) {
        for family in Family::ALL {
            for route in self.tables[family].numbers() {
                self.reapply_import_to_route(family, route, only);
            }
        }
    }
}
