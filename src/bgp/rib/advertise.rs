//! Passes the result of the decision process to the update groups (RFC 4271 §9.1.3).

use std::mem;

use super::{
    Rib,
    decision::Memo,
    peers::Peer,
    table::{OWN, PeerNo, RouteNo},
    update_group::{PathOut, UpdateGroup, rank::Rank},
};
use crate::net::Family;

impl Rib {
    /// Stages what a group advertises of a route: the best path, or with ADD-PATH all of them.
    pub(super) fn stage_exports(
        &mut self,
        group: &mut UpdateGroup,
        family: Family,
        route: RouteNo,
        memo: &mut Memo,
    ) {
        let own = self.own_rank(family, route);
        if group.is_add_path() {
            let paths = self.export_all(group, family, route, memo);
            group.stage_paths(
                route,
                own,
                paths,
                &mut self.tables[family],
                &mut self.attrs,
                &mut self.path_ids[family],
            );
        } else {
            let best = self.tables[family].get(route).best().copied();
            let out =
                best.and_then(|path| Some((self.export(group, family, route, &path, memo)?, path.peer)));
            group.stage(route, own, out, &mut self.tables[family], &mut self.attrs);
        }
    }

    /// The rank of a route's own path.
    fn own_rank(&self, family: Family, route: RouteNo) -> Rank {
        let table = &self.tables[family];
        let is_own = table.get(route).paths().iter().any(|path| path.peer == OWN);
        let own = is_own.then(|| self.originated.get(&table.prefix(route))).flatten();
        own.map(|own| Rank::of(own.source)).unwrap_or_default()
    }

    /// Advertises routes that `max-prefixes-out` withheld once there is room. Logs once per group
    /// that routes are withheld.
    pub(super) fn enforce_max_prefixes_out(&mut self) {
        for family in Family::ALL {
            let mut groups = mem::take(&mut self.groups[family]);
            for group in groups.iter_mut().flatten() {
                let mut memo = None;
                while let Some(route) = group.next_withheld() {
                    self.stage_exports(group, family, route, &mut memo);
                }
                if let Some((_, Some(id))) = memo {
                    self.attrs.release(id);
                }
                if let Some(members) = group.take_limit_warning() {
                    self.report_limit(family, group, &members);
                }
            }
            self.groups[family] = groups;
        }
    }

    fn report_limit(&self, family: Family, group: &UpdateGroup, members: &[PeerNo]) {
        let names: Vec<_> = members.iter().filter_map(|no| self.peer(*no)).map(Peer::name).collect();
        let (neighbors, withheld) = (names.join(" "), group.withheld());
        let max = group.view.max_prefixes().unwrap_or(0);
        tracing::warn!(
            neighbors, %family, max, withheld,
            "max-prefixes-out reached, further routes are withheld; check where the routes come from \
             (`routelet show routes`), or raise max-prefixes-out of the neighbor"
        );
    }

    /// All usable paths that may be advertised to the group (RFC 7911 §3). The export rules apply
    /// to each of them.
    fn export_all(
        &mut self,
        group: &UpdateGroup,
        family: Family,
        route: RouteNo,
        memo: &mut Memo,
    ) -> Vec<PathOut> {
        let mut all = Vec::new();
        for n in 0..self.tables[family].get(route).paths().len() {
            let path = self.tables[family].get(route).paths()[n];
            if !path.is_usable() || !self.is_resolvable(&path) {
                continue;
            }
            if let Some(attrs) = self.export(group, family, route, &path, memo) {
                let path_id = self.path_ids[family].acquire((path.peer, path.path_id));
                all.push(PathOut { path_id, attrs, source: path.peer });
            }
        }
        all
    }
}
