//! Which update groups a neighbor belongs to.

use super::{
    Rib,
    export::View,
    table::PeerNo,
    update_group::{JoinState, UpdateGroup},
};
use crate::{bgp::wire::update::Nlri, net::Family};

impl Rib {
    /// Moves an established neighbor to the update groups that fit its settings. If it was in
    /// another group, routes that the new one does not advertise are withdrawn, and all others are
    /// advertised again.
    pub(super) fn regroup(&mut self, no: PeerNo) {
        for family in Family::ALL {
            let Some(peer) = self.peer(no).filter(|p| p.up) else { return };
            let Some(session) = peer.session.clone().filter(|s| s.has(family)) else { continue };
            let (config, old) = (peer.config.clone(), peer.groups[family]);
            let mut view = View::new(family, &config, &session, &self.global);
            view.hits = self.export_hits.of(&config.export);
            if old.and_then(|n| self.groups[family][n].as_ref()).is_some_and(|g| g.view == view) {
                continue;
            }
            // RFC 4724 §2: useful to everyone, whether it restarts gracefully or not.
            let first = old.is_none();
            // Before the old group is removed, so that its paths keep their identifiers.
            let n = self.group_of(view, (no, session.remote_addr));
            let (advertised, pending) = self.leave_group(no, family);
            let end_of_rib_deferred = first && self.is_deferred(family);
            let end_of_rib = pending || (first && !end_of_rib_deferred);
            let Some(group) = self.groups[family][n].as_mut() else { continue };
            let table = &self.tables[family];
            let gone = advertised.into_iter().filter(|nlri| !group.advertises(no, *nlri, table));
            let addr = Some(session.remote_addr);
            group.join(no, JoinState { withdraw: gone.collect(), end_of_rib, addr });
            if let Some(peer) = self.peer_mut(no) {
                peer.groups[family] = Some(n);
                peer.end_of_rib_deferred[family] |= end_of_rib_deferred;
            }
        }
    }

    /// The group with this view, made and filled if there is none.
    fn group_of(&mut self, view: View, first: (PeerNo, std::net::IpAddr)) -> usize {
        let family = view.family;
        let same = |g: &Option<UpdateGroup>| g.as_ref().is_some_and(|g| g.view == view);
        if let Some(n) = self.groups[family].iter().position(same) {
            return n;
        }
        let n = self.groups[family].iter().position(Option::is_none).unwrap_or(self.groups[family].len());
        if n == self.groups[family].len() {
            self.groups[family].push(None);
        }
        let mut group = UpdateGroup::new(view, first);
        let mut memo = None;
        for route in self.tables[family].numbers() {
            self.stage_exports(&mut group, family, route, &mut memo);
        }
        if let Some((_, Some(id))) = memo {
            self.attrs.release(id);
        }
        // The journal is not needed: new members start with a walk over the table.
        group.trim(&mut self.tables[family], &mut self.path_ids[family], |_| {});
        self.groups[family][n] = Some(group);
        n
    }

    /// Removes a neighbor from its group. Returns what may have been advertised to it, and whether
    /// End-of-RIB had not been sent yet.
    pub(super) fn leave_group(&mut self, no: PeerNo, family: Family) -> (Vec<Nlri>, bool) {
        let none = (Vec::new(), false);
        let Some(n) = self.peer_mut(no).and_then(|p| p.groups[family].take()) else { return none };
        let Some(group) = self.groups[family][n].as_mut() else { return none };
        let mut advertised: Vec<Nlri> = group.possibly_advertised(no, &self.tables[family]).collect();
        let left = group.leave(no);
        advertised.extend(left.withdraw);
        if group.is_empty() {
            let mut vacant = Vec::new();
            let ids = &mut self.path_ids[family];
            group.dissolve(&mut self.tables[family], &mut self.attrs, ids, |route| vacant.push(route));
            self.groups[family][n] = None;
            vacant.into_iter().for_each(|route| self.tables[family].vacate(route));
        }
        (advertised, left.end_of_rib)
    }
}
