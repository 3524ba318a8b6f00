//! The decision process (RFC 4271 §9.1): selects the best path of each dirty route, and passes on
//! the next hops to the fib and the exported path to the update groups.

use std::{borrow::Cow, mem, net::Ipv4Addr, sync::Arc};

use super::{
    Rib,
    attrs::AttrsId,
    best_path::{BestPath, Candidate},
    export::{DEFAULT_LOCAL_PREF, Origin},
    nexthop::{HopId, Resolution, SetId, gateway},
    peers::Peer,
    table::{OWN, Path, PeerNo, RouteNo},
    update_group::UpdateGroup,
};
use crate::{
    bgp::{policy::Community, wire::attr::Attrs},
    net::{Family, NextHops, Unresolved},
};

/// Result of the last export, reused for the next route with the same attributes from the same
/// neighbor. Holds a reference to the exported attributes.
pub(super) type Memo = Option<((AttrsId, PeerNo), Option<AttrsId>)>;

/// Rounds in which routes may change each other's next hops: more than the longest chain needs.
const MAX_ROUNDS: usize = 8;

impl Rib {
    /// Selects the best path of every dirty route. Routes whose next hops resolve over other routes
    /// may need further rounds.
    ///
    /// Two routes may change each other's next hops without end: the better path of one resolves
    /// over the other, and thereby makes the next hop of that one unreachable. The result must not
    /// depend on the order of arrival, so the process then starts over with all recursive next hops
    /// unresolved, and stops after the same number of rounds.
    pub fn run_decision_process(&mut self) {
        if !self.decide_in_rounds() {
            self.forget_recursive();
            self.decide_dirty();
            self.resolve_recursive();
            self.decide_in_rounds();
        }
        self.enforce_max_prefixes_out();
        self.measure();
        self.enforce_memory_budget();
        self.release_orphans();
        self.end_deferral();
    }

    /// Returns whether no dirty route is left. The last selection is based on the present next
    /// hops.
    fn decide_in_rounds(&mut self) -> bool {
        for round in 1..=MAX_ROUNDS {
            if !self.decide_dirty() {
                return true;
            }
            if round < MAX_ROUNDS {
                self.resolve_recursive();
            }
        }
        false
    }

    /// Processes the routes that are dirty or use a next hop that changed. Returns whether there
    /// were any.
    fn decide_dirty(&mut self) -> bool {
        if mem::take(&mut self.hops_changed) {
            self.mark_users_of_changed_hops();
        }
        let is_dirty = self.dirty.iter().any(|routes| !routes.is_empty());
        if is_dirty {
            for family in Family::ALL {
                self.decide_family(family);
            }
        }
        is_dirty
    }

    fn decide_family(&mut self, family: Family) {
        let mut dirty = mem::take(&mut self.dirty[family]);
        let mut groups = mem::take(&mut self.groups[family]);
        let mut memos: Vec<Memo> = vec![None; groups.len()];
        for &route in &dirty {
            self.tables[family].get_mut(route).dirty = false;
            self.decide(family, route);
            for (group, memo) in groups.iter_mut().zip(&mut memos) {
                if let Some(group) = group {
                    self.stage_exports(group, family, route, memo);
                }
            }
        }
        self.tables[family].vacate_all(&dirty);
        memos.into_iter().flatten().filter_map(|(_, id)| id).for_each(|id| self.attrs.release(id));
        self.groups[family] = groups;
        // The memory of the list is kept for the next turn, up to a limit.
        dirty.clear();
        dirty.shrink_to(16 * 1024);
        if self.dirty[family].is_empty() {
            self.dirty[family] = dirty;
        }
    }

    /// Selects the best path of a route and the multipath set. Passes the next hops to the fib if
    /// they changed.
    fn decide(&mut self, family: Family, route: RouteNo) {
        let mut decision = mem::take(&mut self.decision);
        let usable = self.compare_paths(family, route, &mut decision);
        let new = if usable.is_empty() { None } else { self.set_of(family, route, &usable, &decision) };
        let paths = self.tables[family].get_mut(route).paths_mut();
        for path in paths.iter_mut() {
            path.bits &= !(Path::BEST | Path::MULTIPATH);
        }
        if !usable.is_empty() {
            decision.multipath.iter().for_each(|n| paths[usable[*n]].bits |= Path::MULTIPATH);
            paths[usable[decision.best]].bits |= Path::BEST | Path::MULTIPATH;
        }
        self.decision = decision;
        let installed = mem::replace(&mut self.tables[family].get_mut(route).installed, new);
        if installed != new {
            let hops = new.map(|set| self.sets.get(set).clone());
            self.fib.push((self.tables[family].prefix(route), hops));
        }
        if let Some(set) = installed {
            self.sets.release(set);
        }
    }

    /// Compares the usable paths whose next hop is resolved. Returns their indices in the entry.
    pub(super) fn compare_paths(
        &mut self,
        family: Family,
        route: RouteNo,
        decision: &mut BestPath,
    ) -> Vec<usize> {
        let mut usable = Vec::new();
        for n in 0..self.tables[family].get(route).paths().len() {
            let path = self.tables[family].get(route).paths()[n];
            if path.is_usable() && self.is_resolvable(&path) {
                usable.push(n);
            }
        }
        let paths = self.tables[family].get(route).paths();
        match usable[..] {
            [] => {}
            [_] => decision.only(),
            _ => {
                let candidates: Vec<_> = usable.iter().map(|n| self.candidate(&paths[*n])).collect();
                decision.run(&candidates, self.global.multipath_relax, self.global.max_paths);
            }
        }
        usable
    }

    /// Whether the path meets the resolvability condition (RFC 4271 §9.1.2.1): locally originated,
    /// next hop resolved, or originated by a second BGP speaker on this host. The last kind is
    /// advertised but not installed.
    pub(super) fn is_resolvable(&mut self, path: &Path) -> bool {
        path.peer == OWN || self.is_reached(path.effective) || self.is_from_local_speaker(path)
    }

    /// Whether a second BGP speaker on this host advertises the path with this host as next hop.
    pub(super) fn is_from_local_speaker(&self, path: &Path) -> bool {
        let hop = self.attrs.hop(path.effective).map(|hop| self.hops.get(hop).resolution);
        hop == Some(Resolution::No(Unresolved::Own)) && self.peer(path.peer).is_some_and(Peer::is_on_host)
    }

    fn is_reached(&mut self, id: AttrsId) -> bool {
        let hop = self.hop_of(id);
        matches!(self.hops.get(hop).resolution, Resolution::Via { .. })
    }

    /// The next hop of an attribute set, resolved when it is seen for the first time.
    pub(super) fn hop_of(&mut self, id: AttrsId) -> HopId {
        if let Some(hop) = self.attrs.hop(id) {
            return hop;
        }
        let gateway = gateway(&self.attrs.get(id).next_hop, self.attrs.ifindex(id));
        let (hop, new) = self.hops.intern(gateway);
        self.attrs.set_hop(id, hop);
        if new {
            self.resolve(hop);
            self.hops.get_mut(hop).changed = false;
        }
        hop
    }

    fn candidate(&self, path: &Path) -> Candidate<'_> {
        let attrs = self.attrs.get(path.effective);
        let extra = attrs.extra.as_deref();
        let peer = self.peer(path.peer);
        let hop = self.attrs.hop(path.effective);
        let igp_metric = match hop.map(|h| self.hops.get(h).resolution) {
            Some(Resolution::Via { metric, .. }) => metric,
            _ => 0,
        };
        let own_id = self.global.router_id;
        let (local_pref, med) = self.preference(path, peer, attrs);
        Candidate {
            // RFC 9494 §4.3: includes paths that another router marked as stale.
            long_lived_stale: path.has(Path::LONG_LIVED)
                || attrs.communities.contains(&Community::LLGR_STALE),
            local_pref,
            own: path.peer == OWN,
            path_length: attrs.as_path.length(),
            origin: attrs.origin,
            neighbor_as: attrs.as_path.first(),
            med,
            external: peer.is_some_and(|p| !p.is_internal()),
            igp_metric,
            router_id: extra.and_then(|r| r.originator_id).or(peer.map(|p| p.router_id())).unwrap_or(own_id),
            cluster_list_length: extra.map_or(0, |r| r.cluster_list.len()),
            address: peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |p| p.remote_addr()),
            path_id: path.path_id,
            hop,
            as_path: attrs.as_path.as_bytes(),
        }
    }

    /// LOCAL_PREF and MED for the comparison. A Node may make its own routes the last choice, as a
    /// drained one does (RFC 8326), but not better than those of other Nodes. Values set by an
    /// import policy of this host are used as they are.
    fn preference(&self, path: &Path, peer: Option<&Peer>, attrs: &Attrs) -> (u32, u32) {
        let (local_pref, med) = (attrs.local_pref.unwrap_or(DEFAULT_LOCAL_PREF), attrs.med.unwrap_or(0));
        if !peer.is_some_and(|p| p.config.is_node) {
            return (local_pref, med);
        }
        let received = self.attrs.get(path.received);
        let by_policy = |of: fn(&Attrs) -> Option<u32>| of(attrs) != of(received);
        (
            if by_policy(|a| a.local_pref) { local_pref } else { local_pref.min(DEFAULT_LOCAL_PREF) },
            if by_policy(|a| a.med) { med } else { 0 },
        )
    }

    /// The next hops of the selected paths, with a reference; `None` for own routes and for routes
    /// of a second BGP speaker on this host.
    fn set_of(
        &mut self,
        family: Family,
        route: RouteNo,
        usable: &[usize],
        decision: &BestPath,
    ) -> Option<SetId> {
        let paths = self.tables[family].get(route).paths();
        let best = &paths[usable[decision.best]];
        if best.peer == OWN || self.is_from_local_speaker(best) {
            return None;
        }
        let via = |n: &usize| match self.hops.get(self.attrs.hop(paths[usable[*n]].effective)?).resolution {
            Resolution::Via { set, .. } => Some(set),
            Resolution::No(_) => None,
        };
        let mut sets: Vec<SetId> = decision.multipath.iter().filter_map(via).collect();
        if let [one] = sets[..] {
            return Some(self.sets.acquire(one));
        }
        sets.dedup();
        let gateways = sets.iter().flat_map(|set| self.sets.get(*set).gateways()).copied().collect();
        Some(self.sets.intern(NextHops::unicast(gateways)))
    }

    /// The attributes with which a path is advertised to a group, with a reference; `None` if it
    /// is not advertised.
    pub(super) fn export(
        &mut self,
        group: &UpdateGroup,
        family: Family,
        route: RouteNo,
        path: &Path,
        memo: &mut Memo,
    ) -> Option<AttrsId> {
        let key = (path.effective, path.peer);
        let long_lived = path.has(Path::LONG_LIVED);
        if let Some((known, exported)) = *memo
            && known == key
            && !long_lived
        {
            return exported.map(|id| self.attrs.acquire(id));
        }
        let prefix = self.tables[family].prefix(route);
        let mut attrs: Arc<Attrs> = self.attrs.get(path.effective).clone();
        if long_lived {
            // RFC 9494 §4.2: marked for the receivers.
            let attrs = Arc::make_mut(&mut attrs);
            attrs.communities = attrs.communities.iter().copied().chain([Community::LLGR_STALE]).collect();
        }
        let origin = self.origin(prefix, path.peer)?;
        let out = group.view.export(prefix, &attrs, origin).map(|out| match out {
            Cow::Borrowed(_) => long_lived.then(|| attrs.clone()),
            Cow::Owned(changed) => Some(Arc::new(changed)),
        });
        let exported = out.map(|changed| match changed {
            None => self.attrs.acquire(path.effective),
            // Next hops of exported attributes are not resolved, so they need no interface.
            Some(changed) => self.attrs.intern(&changed, 0, path.peer),
        });
        if group.view.is_uniform() && path.peer != OWN && !long_lived {
            if let Some(id) = exported {
                self.attrs.acquire(id);
            }
            if let Some((_, Some(id))) = memo.replace((key, exported)) {
                self.attrs.release(id);
            }
        }
        exported
    }

    fn origin(&self, prefix: crate::net::Prefix, no: PeerNo) -> Option<Origin<'_>> {
        if no == OWN {
            return Some(Origin::Own(self.originated.get(&prefix)?.source));
        }
        let peer = self.peer(no)?;
        Some(Origin::Learned {
            from: &peer.config.key,
            internal: peer.is_internal(),
            client: peer.config.route_reflector_client,
            router_id: peer.router_id(),
        })
    }

    fn mark_users_of_changed_hops(&mut self) {
        for family in Family::ALL {
            for route in self.tables[family].numbers() {
                let uses =
                    |p: &Path| self.attrs.hop(p.effective).is_some_and(|hop| self.hops.get(hop).changed);
                if self.tables[family].get(route).paths().iter().any(uses) {
                    self.mark_dirty(family, route);
                }
            }
        }
        for hop in self.hops.ids() {
            self.hops.get_mut(hop).changed = false;
        }
    }
}
