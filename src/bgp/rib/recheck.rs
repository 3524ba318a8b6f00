//! Applies the guard and the neighbors' shares to paths that are in the table already.
//!
//! A new guard is compared with the former one, and import is repeated only for prefixes on which
//! the two may differ: a changed resolver costs a few lookups, whatever the size of the table.

use std::{net::IpAddr, sync::Arc};

use super::{
    Rib,
    import::{Refused, Speaker},
    share::Share,
    table::{OWN, Path, PeerNo, RouteNo, Table},
};
use crate::{
    bgp::peer::PeerKey,
    net::{
        Family, Guard, Prefix, Refusal,
        guard::{GuardChanges, Sender},
    },
};

impl Rib {
    /// Sets the guard of a new plan.
    pub(super) fn set_guard(&mut self, planned: Arc<Guard>) {
        if self.planned_guard != planned {
            self.planned_guard = planned;
            self.refresh_guard();
        }
    }

    /// Completes the planned guard with dynamic neighbors, which the plan does not know, and
    /// applies it to the paths that the change concerns.
    pub(super) fn refresh_guard(&mut self) {
        let neighbors = self.peers.iter().flatten().filter_map(|p| match p.config.key {
            PeerKey::Address(addr) => Some(addr),
            PeerKey::LinkLocal(..) | PeerKey::Interface(_) => None,
        });
        let new = match self.planned_guard.with_neighbors(neighbors) {
            Some(completed) => Arc::new(completed),
            None => self.planned_guard.clone(),
        };
        if Arc::ptr_eq(&self.guard, &new) {
            return;
        }
        let changes = self.guard.changes(&new);
        self.guard = new;
        for family in Family::ALL {
            for route in concerned(&self.tables[family], family, &changes) {
                self.reapply_import_to_route(family, route, None);
            }
        }
        for prefix in &changes.shared {
            self.reapply_import_from(*prefix, &changes.senders);
        }
    }

    /// Repeats import for the paths to a prefix that lead to one of these Nodes.
    fn reapply_import_from(&mut self, prefix: Prefix, senders: &[IpAddr]) {
        let family = prefix.family();
        let Some(route) = self.tables[family].find(prefix) else { return };
        let leads_there = |path: &&Path| {
            let sender = self.sender_of(path);
            sender.is_some_and(|s| s.all().any(|addr| senders.binary_search(&addr).is_ok()))
        };
        let paths = self.tables[family].get(route).paths().iter();
        let mut peers: Vec<PeerNo> = paths.filter(leads_there).map(|path| path.peer).collect();
        peers.dedup();
        for no in peers {
            self.reapply_import_to_route(family, route, Some(no));
        }
    }

    /// The Node to which a path leads, if it was learned from a Node of the cluster.
    pub(super) fn sender_of(&self, path: &Path) -> Option<Sender> {
        let peer = self.peer(path.peer)?;
        let (config, session) = (&peer.config, peer.session.as_deref()?);
        Speaker { config, session, global: &self.global }.sender(self.attrs.get(path.received))
    }

    /// Repeats import for the paths of a route: those of one neighbor, or all.
    pub(super) fn reapply_import_to_route(&mut self, family: Family, route: RouteNo, only: Option<PeerNo>) {
        let global = self.global.clone();
        for n in 0..self.tables[family].get(route).paths().len() {
            let path = self.tables[family].get(route).paths()[n];
            if path.peer == OWN || only.is_some_and(|no| no != path.peer) {
                continue;
            }
            let Some(peer) = self.peer(path.peer) else { continue };
            let (Some(session), config) = (peer.session.clone(), peer.config.clone()) else {
                continue;
            };
            self.reimports += 1;
            let from = Speaker { config: &config, session: &session, global: &global };
            let attrs = self.attrs.get(path.received).clone();
            let prefix = self.tables[family].prefix(route);
            let arrived = from.attributes(&attrs);
            let (effective, refused) = self.imported(path.peer, &from, prefix, path.received, &arrived);
            let refused = self.share_of(path.peer, prefix, Some(path.refused), refused);
            self.attrs.release(path.effective);
            let slot = &mut self.tables[family].get_mut(route).paths_mut()[n];
            (slot.effective, slot.refused) = (effective, refused);
            if (effective, refused) != (path.effective, path.refused) {
                self.count(path.peer, family, Some(path.refused), Some(refused));
                self.mark_dirty(family, route);
            }
        }
    }

    /// Checks a path against the neighbor's share of the address space. `before` and `after` are
    /// the codes of its import result, `before` only if the path existed. Returns the final code.
    /// If the acceptance of other paths changes with it, they are updated in the table.
    pub(super) fn share_of(&mut self, no: PeerNo, prefix: Prefix, before: Option<u8>, after: u8) -> u8 {
        if !Share::counts(prefix) {
            return after;
        }
        let (joined, joins) = (before.is_some_and(is_weighed), is_weighed(after));
        let family = prefix.family();
        let Some(peer) = self.peer_mut(no) else { return after };
        let mut changed = match (joined, joins) {
            (false, true) => peer.shares[family].add(prefix),
            (true, false) => peer.shares[family].remove(prefix),
            _ => Vec::new(),
        };
        changed.retain(|other| *other != prefix);
        for other in changed {
            self.apply_share(no, other);
        }
        if joins { self.share_result(no, prefix) } else { after }
    }

    /// 0, or the code of the refusal if the prefix exceeds the share.
    fn share_result(&self, no: PeerNo, prefix: Prefix) -> u8 {
        let fits = self
            .peer(no)
            .is_none_or(|peer| peer.config.accept_default || peer.shares[prefix.family()].accepts(prefix));
        if fits { 0 } else { Refused::Guard(Refusal::TooMuch).code() }
    }

    fn apply_share(&mut self, no: PeerNo, prefix: Prefix) {
        let family = prefix.family();
        let result = self.share_result(no, prefix);
        let Some(route) = self.tables[family].find(prefix) else { return };
        let mut changed = Vec::new();
        for path in self.tables[family].get_mut(route).paths_mut() {
            if path.peer == no && is_weighed(path.refused) && path.refused != result {
                changed.push(path.refused);
                path.refused = result;
            }
        }
        for before in &changed {
            self.count(no, family, Some(*before), Some(result));
        }
        if !changed.is_empty() {
            self.mark_dirty(family, route);
        }
    }
}

/// Whether a path with this import result counts towards its neighbor's share.
fn is_weighed(refused: u8) -> bool {
    refused == 0 || Refused::from_code(refused) == Some(Refused::Guard(Refusal::TooMuch))
}

/// The routes that a change of the guard concerns, each once.
fn concerned(table: &Table, family: Family, changes: &GuardChanges) -> Vec<RouteNo> {
    let holding = changes.holding.iter().filter(|a| Family::of(**a) == family);
    let exactly = changes.exactly.iter().filter(|p| p.family() == family);
    let inside: Vec<Prefix> = changes.inside.iter().filter(|p| p.family() == family).copied().collect();
    let mut routes: Vec<RouteNo> = holding.flat_map(|addr| table.covering(*addr)).collect();
    routes.extend(exactly.filter_map(|p| table.find(*p)));
    routes.extend(table.inside(inside));
    routes.sort_unstable();
    routes.dedup();
    routes
}
